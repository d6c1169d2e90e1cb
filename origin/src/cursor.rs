//! Cursors of keyset pagination: opaque, signed, and good only for the list that gave them out.
//!
//! Text: base64url of the last item's id (16 bytes) and the first 16 bytes of HMAC-SHA256 over the list's name and the id. The
//! signature keeps clients from building cursors, so the format can change; it keeps no secret. All instances share
//! the key, so that any of them can continue a walk.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use uuid::Uuid;

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
    pub fn seal(&self, list: &str, last: Uuid) -> String {
        let signature = self.signature(list, last).finalize().into_bytes();
        URL_SAFE_NO_PAD.encode([last.as_bytes(), &signature[..16]].concat())
    }

    /// The id to continue after; `None` when the cursor is garbled, forged, or another list's.
    #[must_use]
    pub fn open(&self, list: &str, cursor: &str) -> Option<Uuid> {
        let bytes = URL_SAFE_NO_PAD.decode(cursor).ok().filter(|bytes| bytes.len() == 32)?;
        let (id, signature) = bytes.split_at(16);
        let last = Uuid::from_slice(id).ok()?;
        // Compares in constant time.
        self.signature(list, last).verify_truncated_left(signature).ok()?;
        Some(last)
    }

    fn signature(&self, list: &str, last: Uuid) -> Hmac<Sha256> {
        // The id has a fixed length and comes first: no two pairs sign the same bytes.
        self.0.clone().chain_update(last.as_bytes()).chain_update(list)
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
        let cursor = cursors.seal("mine", last);
        assert_eq!(cursors.open("mine", &cursor), Some(last));
        assert_eq!(cursors.open("other", &cursor), None);
        assert_eq!(Cursors::new("another").open("mine", &cursor), None);
    }

    #[test]
    fn a_changed_cursor_is_refused() {
        let cursors = Cursors::new("secret");
        let mut cursor = cursors.seal("mine", Uuid::now_v7()).into_bytes();
        cursor[3] ^= 1;
        assert_eq!(cursors.open("mine", &String::from_utf8_lossy(&cursor)), None);
        for garbled in ["", "x", "%%%", &"A".repeat(43), &"A".repeat(1000)] {
            assert_eq!(cursors.open("mine", garbled), None, "{garbled}");
        }
    }
}
