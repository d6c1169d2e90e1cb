//! What a file of the disk tier looks like.
//!
//! ```text
//! header  magic and version, bytes of a head's slot, length of the body, the file's number, checksum        32 bytes
//! head    twice: checksum, length, turn, and what an entry is made of; the higher turn that is whole counts
//! body    pieces of 64 KiB, each followed by its checksum
//! ```
//!
//! A head is written anew (a 304 brings fields) where the other one is not: who reads meanwhile, or finds a file after a
//! crash, has one that is whole. Every checksum (CRC-32) covers the number of the file, and a piece's that of the piece,
//! so that bytes at the wrong place are wrong bytes. It guards against accidents; the folder's mode guards against people.

use std::{
    ops::Range,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::super::{
    entry::Head,
    freshness::Freshness,
    request::Now,
    tags::{Moment, Tag},
    url::Url,
    vary::{Field, Variant},
};

/// The last letter is the version.
const MAGIC: [u8; 8] = *b"weirdsk1";
/// Bytes of the header.
pub(super) const HEADER: usize = 32;
/// Bytes of a body that share a checksum.
pub(super) const BLOCK: usize = 64 << 10;
/// Bytes of that.
const SUM: usize = 4;
/// Bytes before what is in a head's slot: checksum, length, turn.
const BEFORE_HEAD: usize = 16;
/// A head may grow by so much before it needs another file.
const SPARE: usize = 256;
/// The wall clock is set a little now and then.
const CLOCKS_APART: Duration = Duration::from_secs(1);
/// Larger heads are none of ours.
const MOST_HEAD: usize = 4 << 20;

/// Where what lies in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// The file's number.
    pub(super) serial: u64,
    /// Bytes for each of the two heads.
    slot: u32,
    /// Bytes of the body.
    pub(super) body: u64,
}

impl Layout {
    /// For a head of so many bytes.
    pub(super) fn new(serial: u64, head: usize, body: u64) -> Option<Self> {
        let slot = (BEFORE_HEAD + head + SPARE).next_multiple_of(512);
        (slot <= MOST_HEAD).then_some(Self { serial, slot: slot as u32, body })
    }

    /// Bytes of both heads.
    pub(super) fn heads(&self) -> usize {
        2 * self.slot as usize
    }

    /// Where the head of this turn lies.
    pub(super) fn head_at(&self, turn: u64) -> u64 {
        HEADER as u64 + turn % 2 * u64::from(self.slot)
    }

    /// The same, for a body of another length.
    pub(super) fn with_body(self, body: u64) -> Self {
        Self { body, ..self }
    }

    /// Where a piece of the body begins.
    pub(super) fn block_at(&self, block: u64) -> u64 {
        (HEADER + self.heads()) as u64 + block * (BLOCK + SUM) as u64
    }

    /// How long a piece is, without its checksum.
    pub(super) fn block_len(&self, block: u64) -> usize {
        self.body.saturating_sub(block * BLOCK as u64).min(BLOCK as u64) as usize
    }

    /// How many pieces there are.
    pub(super) fn blocks(&self) -> u64 {
        self.body.div_ceil(BLOCK as u64)
    }

    /// Bytes of the whole file.
    pub(super) fn len(&self) -> u64 {
        (HEADER + self.heads()) as u64 + self.body + self.blocks() * SUM as u64
    }

    /// As the file begins.
    pub(super) fn header(&self) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(&MAGIC);
        header[8..12].copy_from_slice(&self.slot.to_le_bytes());
        header[12..20].copy_from_slice(&self.body.to_le_bytes());
        header[20..28].copy_from_slice(&self.serial.to_le_bytes());
        let sum = crc32fast::hash(&header[..28]);
        header[28..].copy_from_slice(&sum.to_le_bytes());
        header
    }

    /// Reads the beginning of a file of so many bytes; `None` if it is none of ours, or not whole.
    pub(super) fn read(header: &[u8; HEADER], serial: u64, len: u64) -> Option<Self> {
        let whole = header[..8] == MAGIC && number4(&header[28..]) == crc32fast::hash(&header[..28]);
        let slot = number4(&header[8..]);
        let layout = Self { serial: number8(&header[20..]), slot, body: number8(&header[12..]) };
        let fits =
            (BEFORE_HEAD..=MOST_HEAD).contains(&(slot as usize)) && layout.body <= len && layout.len() == len;
        (whole && fits && layout.serial == serial).then_some(layout)
    }

    /// A head as it is written in its slot; `None` if it is too long for that.
    pub(super) fn head(&self, turn: u64, head: &[u8]) -> Option<Vec<u8>> {
        if BEFORE_HEAD + head.len() > self.slot as usize {
            return None;
        }
        let mut bytes = vec![0; 4];
        bytes.extend_from_slice(&(head.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&turn.to_le_bytes());
        bytes.extend_from_slice(head);
        let sum = self.sum(u64::MAX, &bytes[4..]);
        bytes[..4].copy_from_slice(&sum.to_le_bytes());
        Some(bytes)
    }

    /// The head that counts of both, and its turn.
    pub(super) fn newest<'h>(&self, heads: &'h [u8]) -> Option<(u64, &'h [u8])> {
        let slots = heads.chunks_exact(self.slot as usize);
        let whole = slots.filter_map(|slot| {
            let end = BEFORE_HEAD.checked_add(number4(&slot[4..]) as usize)?;
            let covered = slot.get(4..end)?;
            let head = slot.get(BEFORE_HEAD..end)?;
            (self.sum(u64::MAX, covered) == number4(slot)).then_some((number8(&slot[8..]), head))
        });
        whole.max_by_key(|(turn, _)| *turn)
    }

    /// A piece's checksum, as it is written behind it.
    pub(super) fn sealed(&self, block: u64, bytes: &[u8]) -> [u8; SUM] {
        self.sum(block, bytes).to_le_bytes()
    }

    /// The piece without its checksum, if that is right.
    pub(super) fn unsealed<'b>(&self, block: u64, bytes: &'b [u8]) -> Option<&'b [u8]> {
        let (piece, sum) = bytes.split_at_checked(bytes.len().checked_sub(SUM)?)?;
        (self.sealed(block, piece) == sum).then_some(piece)
    }

    fn sum(&self, at: u64, bytes: &[u8]) -> u32 {
        let mut sum = crc32fast::Hasher::new();
        sum.update(&self.serial.to_le_bytes());
        sum.update(&at.to_le_bytes());
        sum.update(bytes);
        sum.finalize()
    }
}

/// How many bytes a piece of so many takes in the file.
pub(super) const fn sealed_len(bytes: usize) -> usize {
    bytes + SUM
}

/// The pieces that hold these bytes of a body.
pub(super) fn block_of(range: &Range<u64>) -> (u64, Range<usize>) {
    let block = range.start / BLOCK as u64;
    let begin = block * BLOCK as u64;
    let end = range.end.min(begin + BLOCK as u64);
    (block, (range.start - begin) as usize..(end - begin) as usize)
}

/// What an entry is made of, besides its body. By the wall clock, as the other does not outlive the machine.
pub(in super::super) fn encode(key: &str, head: &Head, now: Now) -> Option<Vec<u8>> {
    let mut out = Out::default();
    let freshness = &head.freshness;
    let since = now.mono.saturating_duration_since(freshness.received);
    let received = now.wall.checked_sub(since)?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    out.bytes(key.as_bytes());
    out.number(u64::from(head.status.as_u16()));
    let (scheme, authority, target) = head.url.parts();
    [scheme, authority, target].iter().for_each(|part| out.bytes(part.as_bytes()));
    [received, freshness.lifetime, freshness.initial_age].iter().for_each(|span| out.span(*span));
    let flags = [freshness.always_ask, freshness.strict, freshness.has_s_maxage];
    flags.iter().for_each(|flag| out.number(u64::from(*flag)));
    for span in [freshness.while_revalidate, freshness.if_error] {
        out.number(u64::from(span.is_some()));
        out.span(span.unwrap_or_default());
    }
    out.number(head.moment.0);
    out.number(head.tags.len() as u64);
    head.tags.iter().for_each(|tag| out.number(u64::from(tag.0)));
    out.number(head.headers.len() as u64);
    for (name, value) in &head.headers {
        out.bytes(name.as_str().as_bytes());
        out.bytes(value.as_bytes());
    }
    out.number(head.variant.0.len() as u64);
    for field in &head.variant.0 {
        out.bytes(field.name.as_str().as_bytes());
        [&field.value, &field.written, &field.language].iter().for_each(|it| out.option(it.as_deref()));
    }
    Some(out.0)
}

/// The key and the head that [`encode`] wrote; `None` if that is not what it is, or if it was received later than now: of
/// such a one nobody knows the age.
pub(in super::super) fn decode(bytes: &[u8], now: Now) -> Option<(Box<str>, Head)> {
    let mut from = In(bytes);
    let key = from.text()?.into();
    let status = StatusCode::from_u16(u16::try_from(from.number()?).ok()?).ok()?;
    let (scheme, authority, target) = (from.text()?, from.text()?, from.text()?);
    let url = Url::new(scheme, authority, target);
    let received = SystemTime::UNIX_EPOCH.checked_add(from.span()?)?;
    let (lifetime, age) = (from.span()?, from.span()?);
    let since = match now.wall.duration_since(received) {
        Ok(since) => since,
        Err(ahead) if ahead.duration() <= CLOCKS_APART => Duration::ZERO,
        Err(_) => return None,
    };
    // A machine that was started since has no such moment on its own clock.
    let (received, initial_age) = match now.mono.checked_sub(since) {
        Some(received) => (received, age),
        None => (now.mono, age.saturating_add(since)),
    };
    let (always_ask, strict, has_s_maxage) = (from.flag()?, from.flag()?, from.flag()?);
    let while_revalidate = from.flag()?.then_some(from.span()?);
    let if_error = from.flag()?.then_some(from.span()?);
    let freshness = Freshness {
        lifetime,
        initial_age,
        received,
        always_ask,
        strict,
        has_s_maxage,
        while_revalidate,
        if_error,
    };
    let moment = Moment(from.number()?);
    let tags = (0..from.number()?).map(|_| Some(Tag(u32::try_from(from.number()?).ok()?)));
    let tags = tags.collect::<Option<_>>()?;
    let mut headers = HeaderMap::new();
    for _ in 0..from.number()? {
        headers.try_append(from.name()?, HeaderValue::from_bytes(from.bytes()?).ok()?).ok()?;
    }
    let field = |from: &mut In<'_>| {
        Some(Field {
            name: from.name()?,
            value: from.option()?.map(Box::from),
            written: from.option()?.map(Box::from),
            language: from.option()?.map(Box::from),
        })
    };
    let variant = Variant((0..from.number()?).map(|_| field(&mut from)).collect::<Option<_>>()?);
    from.0.is_empty().then_some((key, Head { status, headers, freshness, variant, tags, moment, url }))
}

/// What tells variants of a key apart.
pub(in super::super) fn variant(variant: &Variant) -> Vec<u8> {
    let mut out = Out::default();
    for (name, value) in variant.fields() {
        out.bytes(name.as_str().as_bytes());
        out.option(value);
    }
    out.0
}

/// Numbers and texts, one after the other.
#[derive(Default)]
pub(in super::super) struct Out(pub(in super::super) Vec<u8>);

impl Out {
    pub(in super::super) fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    pub(in super::super) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn option(&mut self, bytes: Option<&[u8]>) {
        self.number(u64::from(bytes.is_some()));
        self.bytes(bytes.unwrap_or_default());
    }

    fn span(&mut self, span: Duration) {
        self.number(span.as_secs());
        self.number(u64::from(span.subsec_nanos()));
    }
}

/// The same, being read; `None` is what nobody wrote.
pub(in super::super) struct In<'b>(pub(in super::super) &'b [u8]);

impl<'b> In<'b> {
    pub(in super::super) fn number(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*number))
    }

    pub(in super::super) fn bytes(&mut self) -> Option<&'b [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    fn text(&mut self) -> Option<&'b str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    pub(in super::super) fn name(&mut self) -> Option<HeaderName> {
        HeaderName::from_bytes(self.bytes()?).ok()
    }

    fn flag(&mut self) -> Option<bool> {
        self.number().map(|flag| flag != 0)
    }

    fn option(&mut self) -> Option<Option<&'b [u8]>> {
        let there = self.flag()?;
        let bytes = self.bytes()?;
        Some(there.then_some(bytes))
    }

    fn span(&mut self) -> Option<Duration> {
        let (secs, nanos) = (self.number()?, u32::try_from(self.number()?).ok()?);
        (nanos < 1_000_000_000).then(|| Duration::new(secs, nanos))
    }
}

fn number4(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn number8(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot build its input has failed")]
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::{super::super::testing::*, *};

    fn head(now: Now) -> Arc<Head> {
        let fields =
            [("cache-control", "max-age=60, stale-if-error=5"), ("etag", "\"a\""), ("vary", "accept, x-a")];
        let entry = cache().fill("/a?b", &fields, "body", now);
        Arc::clone(entry.head())
    }

    #[test]
    fn a_head_is_read_as_it_was_written_and_grows_older_meanwhile() {
        let now = noon();
        let head = head(now);
        let bytes = encode("the key", &head, now).unwrap();
        let later = now.after(secs(7));
        let (key, read) = decode(&bytes, later).unwrap();
        assert_eq!((&*key, read.status, &read.headers), ("the key", head.status, &head.headers));
        assert_eq!((&read.variant, &read.tags, &read.url), (&head.variant, &head.tags, &head.url));
        assert_eq!(read.freshness.age(later), head.freshness.age(later));
        assert_eq!((read.freshness.ttl(later), read.moment), (53, head.moment));
        assert!(decode(&bytes, Now { wall: now.wall - secs(2), ..now }).is_none(), "of the future");
        assert!(decode(&bytes[..bytes.len() - 1], later).is_none());
    }

    #[test]
    fn of_two_heads_the_later_one_that_is_whole_counts() {
        let layout = Layout::new(9, 100, 0).unwrap();
        let mut heads = vec![0; layout.heads()];
        let mut put = |turn: u64, text: &[u8]| {
            let at = (layout.head_at(turn) - HEADER as u64) as usize;
            let head = layout.head(turn, text).unwrap();
            heads[at..at + head.len()].copy_from_slice(&head);
            (at, heads.clone())
        };
        let (_, one) = put(1, b"old");
        assert_eq!(layout.newest(&one), Some((1, &b"old"[..])));
        let (at, mut two) = put(2, b"new");
        assert_eq!(layout.newest(&two), Some((2, &b"new"[..])));
        two[at + BEFORE_HEAD] ^= 1;
        assert_eq!(layout.newest(&two), Some((1, &b"old"[..])), "torn while it was written");
        assert_eq!(layout.newest(&vec![0; layout.heads()]), None);
        assert_eq!(layout.head(3, &[0; 4096]), None, "too long for its place");
    }

    #[test]
    fn a_file_that_is_not_whole_or_not_itself_is_none() {
        let layout = Layout::new(9, 100, 70_000).unwrap();
        let header = layout.header();
        assert_eq!(Layout::read(&header, 9, layout.len()), Some(layout));
        assert_eq!(Layout::read(&header, 8, layout.len()), None, "under another's name");
        assert_eq!(Layout::read(&header, 9, layout.len() - 1), None, "cut");
        for at in 0..HEADER {
            let mut other = header;
            other[at] ^= 4;
            assert_eq!(Layout::read(&other, 9, layout.len()), None, "byte {at}");
        }
        let mut sealed = b"piece".to_vec();
        sealed.extend(layout.sealed(1, b"piece"));
        assert_eq!(layout.unsealed(1, &sealed), Some(&b"piece"[..]));
        assert_eq!(layout.unsealed(0, &sealed), None, "at another's place");
        sealed[0] ^= 1;
        assert_eq!(layout.unsealed(1, &sealed), None);
        assert_eq!(layout.unsealed(1, b"x"), None);
    }

    proptest! {
        #[test]
        fn whatever_a_head_is_made_of_reading_it_ends(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes, noon());
        }

        #[test]
        fn a_head_that_was_cut_or_changed_is_read_or_refused(at in any::<prop::sample::Index>(), bit in 0..8u8) {
            let now = noon();
            let mut bytes = encode("k", &head(now), now).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let _ = decode(&bytes, now);
            prop_assert!(decode(&bytes[..at], now).is_none());
        }
    }
}
