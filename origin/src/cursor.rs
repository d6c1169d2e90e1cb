//! Cursors of keyset pagination: opaque, signed, and good only for the list that gave them out.
//!
//! Text: base64url of the last row's [`Key`] and the first 16 bytes of HMAC-SHA256 over the list's name and the key. The
//! signature keeps clients from building cursors, so the format can change; it keeps no secret. All instances share
//! the secret, so that any of them can continue a walk.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use uuid::Uuid;

use crate::{
    database::Moment,
    fields::{Fields, rule},
    token::TokenHash,
};

/// Rows on a page when nobody says how many, and at most.
const PAGE: i32 = 20;
const PAGE_MOST: i32 = 100;
/// Bytes of a signature.
const SIGNATURE: usize = 16;

/// Signs and checks cursors.
#[derive(Clone)]
pub struct Cursors(Hmac<Sha256>);

impl Cursors {
    /// Derives a key of its own from the shared secret: a cursor's signature is of no use as anything else's.
    #[must_use]
    pub fn new(secret: &str) -> Self {
        let derived = keyed(secret.as_bytes()).chain_update("weir-origin cursors").finalize();
        Self(keyed(&derived.into_bytes()))
    }

    /// The cursor that continues `list` after `last`. `list` names owner and filters.
    #[must_use]
    pub fn seal<K: Key>(&self, list: &str, last: &K) -> String {
        let mut bytes = last.to_bytes();
        let signature = self.signature(list, &bytes).finalize().into_bytes();
        bytes.extend_from_slice(&signature[..SIGNATURE]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The key to continue after; `None` when the cursor is garbled, forged, or another list's.
    #[must_use]
    pub fn open<K: Key>(&self, list: &str, cursor: &str) -> Option<K> {
        let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
        let (key, signature) = bytes.split_at_checked(K::BYTES)?;
        if signature.len() != SIGNATURE {
            return None;
        }
        // Compares in constant time.
        self.signature(list, key).verify_truncated_left(signature).ok()?;
        K::from_bytes(key)
    }

    fn signature(&self, list: &str, key: &[u8]) -> Hmac<Sha256> {
        // The keys of a list have one length and come first: no two pairs sign the same bytes.
        self.0.clone().chain_update(key).chain_update(list)
    }
}

/// What a list is ordered by, unique in each row.
pub trait Key: Sized {
    /// Length of its bytes.
    const BYTES: usize;
    /// Its bytes.
    fn to_bytes(&self) -> Vec<u8>;
    /// Back from [`Key::to_bytes`]; `None` when they are not a key's.
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
}

impl Key for Uuid {
    const BYTES: usize = 16;

    fn to_bytes(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Self::from_slice(bytes).ok()
    }
}

impl Key for TokenHash {
    const BYTES: usize = 32;

    fn to_bytes(&self) -> Vec<u8> {
        self.bytes().to_vec()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Self::from_bytes(bytes)
    }
}

/// An instant is not unique: the second half decides between equals.
impl<K: Key> Key for (Moment, K) {
    const BYTES: usize = 8 + K::BYTES;

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.0.microseconds().to_be_bytes().to_vec();
        bytes.extend(self.1.to_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (instant, rest) = bytes.split_first_chunk()?;
        Some((Moment::from_microseconds(i64::from_be_bytes(*instant))?, K::from_bytes(rest)?))
    }
}

/// One page of a walk through a list: `limit` and `cursor` of the query on the way in, `nextCursor` on the way out.
#[derive(Debug)]
pub struct Walk<'c, K> {
    cursors: &'c Cursors,
    list: String,
    limit: i32,
    /// The last row of the page before.
    pub after: Option<K>,
}

impl<'c, K: Key> Walk<'c, K> {
    /// Takes `limit` and `cursor`; a cursor continues only `list`, which names owner and filters.
    pub fn take(query: &mut Fields, cursors: &'c Cursors, list: String) -> Self {
        let limit = query.defaulted("limit", Some(PAGE), rule::written(rule::integer(1..=PAGE_MOST)));
        let after = query.optional("cursor", None, |value| {
            let opened = value.as_str().and_then(|cursor| cursors.open(&list, cursor));
            opened.ok_or_else(|| "is not a cursor of this list".into())
        });
        Self { cursors, list, limit, after }
    }

    /// How many rows to read: the one more than asked for says whether there is a next page.
    #[must_use]
    pub fn count(&self) -> i32 {
        self.limit + 1
    }

    /// The page's body, of the rows that were read: `{name: […], "nextCursor": …}`.
    pub fn page<T: serde::Serialize>(self, name: &str, mut rows: Vec<T>, key: impl Fn(&T) -> K) -> Value {
        let limit = usize::try_from(self.limit).unwrap_or_default();
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(|last| self.cursors.seal(&self.list, &key(last)));
        json!({ name: rows, "nextCursor": next })
    }
}

impl std::fmt::Debug for Cursors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cursors(***)")
    }
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_opens_only_for_its_own_list_and_key() {
        let (cursors, last) = (Cursors::new("secret"), Uuid::now_v7());
        let cursor = cursors.seal("mine", &last);
        assert_eq!(cursors.open("mine", &cursor), Some(last));
        assert_eq!(cursors.open::<Uuid>("other", &cursor), None);
        assert_eq!(Cursors::new("another").open::<Uuid>("mine", &cursor), None);
        assert_eq!(cursors.open::<(Moment, Uuid)>("mine", &cursor), None, "a key of another length");
    }

    #[test]
    fn a_key_of_two_halves_survives() {
        let (cursors, last) = (Cursors::new("secret"), (Moment::now(), Uuid::now_v7()));
        assert_eq!(cursors.open("mine", &cursors.seal("mine", &last)), Some(last));
    }

    #[test]
    fn a_changed_cursor_is_refused() {
        let cursors = Cursors::new("secret");
        let mut cursor = cursors.seal("mine", &Uuid::now_v7()).into_bytes();
        cursor[3] ^= 1;
        assert_eq!(cursors.open::<Uuid>("mine", &String::from_utf8_lossy(&cursor)), None);
        for garbled in ["", "x", "%%%", &"A".repeat(43), &"A".repeat(1000)] {
            assert_eq!(cursors.open::<Uuid>("mine", garbled), None, "{garbled}");
        }
    }
}
