//! What an entry looks like in Redis.
//!
//! ```text
//! magic and version, checksum, kind
//! entry   digest of its key, place in the stream of purges, how long Redis keeps it, what it is purged by, head, body
//! fields  the names of the fields that entries of this key depend on: each lies under a name of its own
//! ```
//!
//! The head is as on disk ([`super::super::disk`]), but no clock of two machines is compared: its times are spans before the
//! writing, and how long ago that was, Redis says by what is left of the time it keeps it.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderName, header};

use super::super::{
    disk::{In, Out, decode_head, encode_head},
    entry::{Entry, Head},
    request::Now,
    subject::Subject,
    tags::Moment,
    timeline::Place,
};

/// The last letter is the version.
const MAGIC: [u8; 8] = *b"weirshr1";
/// Before what the checksum covers.
const BEFORE: usize = MAGIC.len() + 4;
/// Compressed in a fraction of a millisecond.
const LEVEL: i32 = 3;
/// A shorter body gains nothing.
const WORTH_PACKING: usize = 256;

/// The digest of a key, by which a value says whose it is.
pub(super) type Digest = [u8; 32];

/// What was read.
#[derive(Debug)]
pub(super) enum Value {
    Entry(Box<Read>),
    Fields(Vec<HeaderName>),
}

/// An entry, before anybody believes it.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) digest: Digest,
    /// Up to where its writer had heard when its request left.
    pub(super) place: Place,
    /// What Redis was told to keep it for.
    pub(super) life: Duration,
    /// What it is purged by.
    pub(super) subjects: Vec<Subject>,
    pub(super) body: Bytes,
    head: Vec<u8>,
}

/// What is written besides an entry's own.
#[derive(Debug)]
pub(super) struct Sealed<'e> {
    pub(super) digest: Digest,
    pub(super) place: Place,
    pub(super) life: Duration,
    pub(super) subjects: &'e [Subject],
    pub(super) packs: bool,
}

/// The entry as it is written.
pub(super) fn entry(entry: &Entry, about: &Sealed<'_>, now: Now) -> Option<Vec<u8>> {
    // What tags and moments are numbered by is this process's own.
    let head = Head { tags: Box::default(), moment: Moment(0), ..Head::clone(entry.head()) };
    let head = encode_head("", &head, Now { wall: beginning(), ..now })?;
    let body = entry.body().chunks().concat();
    let packs = about.packs && body.len() >= WORTH_PACKING && !head_is_coded(entry.head());
    let packed = packs.then(|| zstd::bulk::compress(&body, LEVEL).ok()).flatten();
    let packed = packed.filter(|packed| packed.len() < body.len());
    let mut out = Out::default();
    out.bytes(&about.digest);
    [about.place.millis, about.place.number, millis(about.life)]
        .iter()
        .for_each(|number| out.number(*number));
    out.number(about.subjects.len() as u64);
    about.subjects.iter().for_each(|subject| out.bytes(subject.text()));
    out.bytes(&head);
    out.number(body.len() as u64);
    out.number(u64::from(packed.is_some()));
    out.bytes(packed.as_deref().unwrap_or(&body));
    Some(sealed(b'e', &out.0))
}

/// The names of fields as they are written.
pub(super) fn fields<'n>(names: impl Iterator<Item = &'n HeaderName>) -> Vec<u8> {
    let mut out = Out::default();
    names.for_each(|name| out.bytes(name.as_str().as_bytes()));
    sealed(b'v', &out.0)
}

/// Reads a value; `None` if it is damaged, of another version, or its body is longer than `most`.
pub(super) fn read(bytes: &[u8], most: usize) -> Option<Value> {
    let (start, covered) = bytes.split_at_checked(BEFORE)?;
    let sum = start.strip_prefix(&MAGIC)?;
    if crc32fast::hash(covered).to_le_bytes() != sum {
        return None;
    }
    let (kind, rest) = covered.split_first()?;
    let mut from = In(rest);
    if *kind == b'v' {
        let mut names = Vec::new();
        while !from.0.is_empty() {
            names.push(from.name()?);
        }
        return Some(Value::Fields(names));
    }
    if *kind != b'e' {
        return None;
    }
    let digest = from.bytes()?.try_into().ok()?;
    let place = Place { millis: from.number()?, number: from.number()? };
    let life = Duration::from_millis(from.number()?);
    let subjects = (0..from.number()?).map(|_| Some(Subject::read(from.bytes()?.to_vec())));
    let subjects = subjects.collect::<Option<_>>()?;
    let head = from.bytes()?.to_vec();
    let length = usize::try_from(from.number()?).ok().filter(|length| *length <= most)?;
    let is_packed = from.number()? != 0;
    let body = from.bytes()?;
    let body = if is_packed { zstd::bulk::decompress(body, length).ok()? } else { body.to_vec() };
    let is_whole = from.0.is_empty() && body.len() == length;
    let read = Read { digest, place, life, subjects, body: body.into(), head };
    is_whole.then(|| Value::Entry(Box::new(read)))
}

impl Read {
    /// The head of an entry that Redis has had for `since`.
    pub(super) fn head(&self, since: Duration, now: Now) -> Option<Head> {
        let now = Now { wall: beginning() + since, ..now };
        decode_head(&self.head, now).map(|(_, head)| head)
    }
}

/// When everything is written: the spans before it fit, and that is all that matters.
fn beginning() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 34)
}

fn head_is_coded(head: &Head) -> bool {
    head.headers.contains_key(header::CONTENT_ENCODING)
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn sealed(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(BEFORE + 1 + payload.len());
    value.extend_from_slice(&MAGIC);
    value.extend_from_slice(&[0; 4]);
    value.push(kind);
    value.extend_from_slice(payload);
    let sum = crc32fast::hash(&value[BEFORE..]);
    value[MAGIC.len()..BEFORE].copy_from_slice(&sum.to_le_bytes());
    value
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot build its input has failed")]
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::{super::super::testing::*, *};

    const MOST: usize = 64 << 10;

    fn written(body: &str, packs: bool, now: Now) -> (Arc<Entry>, Vec<u8>) {
        let kept = cache().fill(
            "/a?b",
            &[("cache-control", "max-age=60"), ("age", "5"), ("etag", "\"a\"")],
            body,
            now,
        );
        let subjects = [Subject::named("news"), Subject::named("\u{e4}")];
        let place = Place { millis: 17, number: 3 };
        let about = Sealed { digest: [7; 32], place, life: secs(55), subjects: &subjects, packs };
        let value = entry(&kept, &about, now).unwrap();
        (kept, value)
    }

    fn is_read(value: &[u8], most: usize) -> Option<Box<Read>> {
        match read(value, most)? {
            Value::Entry(read) => Some(read),
            Value::Fields(names) => panic!("{names:?}"),
        }
    }

    #[test]
    fn an_entry_is_read_as_it_was_written_and_older_by_what_redis_had_it() {
        let now = noon();
        for (body, packs) in
            [("body", true), ("", true), (&*"la ".repeat(999), true), (&*"la ".repeat(999), false)]
        {
            let (kept, value) = written(body, packs, now.after(secs(2)));
            assert_eq!(value.len() < body.len(), packs && body.len() > 999);
            let read = is_read(&value, MOST).unwrap();
            assert_eq!(
                (read.digest, read.life, read.place),
                ([7; 32], secs(55), Place { millis: 17, number: 3 })
            );
            assert_eq!(read.subjects, [Subject::named("news"), Subject::named("\u{e4}")]);
            assert_eq!(read.body, body);
            // A machine whose clocks have nothing to do with the other's.
            let there = Now { wall: SystemTime::UNIX_EPOCH, ..now.after(secs(1000)) };
            let head = read.head(secs(7), there).unwrap();
            assert_eq!(
                (&head.headers, &head.url, &head.variant),
                (&kept.head().headers, &kept.head().url, &kept.head().variant)
            );
            assert_eq!((head.freshness.age(there), head.freshness.ttl(there)), (secs(12), 48));
            assert!(head.tags.is_empty());
        }
    }

    #[test]
    fn a_longer_body_than_is_wanted_is_none_and_no_bomb() {
        let (_, value) = written(&"la ".repeat(999), true, noon());
        assert!(is_read(&value, 2997).is_some());
        assert!(is_read(&value, 2996).is_none());
    }

    #[test]
    fn names_of_fields_are_read_as_they_were_written() {
        let names = [header::ACCEPT, header::ORIGIN];
        assert!(matches!(read(&fields(names.iter()), MOST), Some(Value::Fields(read)) if read == names));
    }

    proptest! {
        #[test]
        fn what_was_cut_or_changed_is_nothing(at in any::<prop::sample::Index>(), bit in 0..8u8) {
            let (_, mut value) = written("body", true, noon());
            let at = at.index(value.len());
            prop_assert!(read(&value[..at], MOST).is_none());
            value[at] ^= 1 << bit;
            prop_assert!(read(&value, MOST).is_none());
        }

        #[test]
        fn whatever_redis_says_reading_it_ends(kind in any::<u8>(), payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&payload, MOST);
            let _ = read(&sealed(kind, &payload), MOST);
        }
    }
}
