//! A stored answer: head and body, shared by everybody who reads it, never copied.

use std::{
    ops::Range,
    sync::{Arc, OnceLock},
};

use arc_swap::ArcSwapOption;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, header};

use weir_config::plan::Coding;

use super::{
    coded::Codings,
    disk::Stored,
    freshness::Freshness,
    tags::{Moment, Tag},
    url::Url,
    vary::Variant,
};
use crate::wire::{self, Prepared};

/// What an entry costs besides its bytes: its place in map, queue and ghost list (16 + 64 + 32 + 40 bytes at the
/// tables' usual load of one half), and the allocator's own.
const INDEX: usize = 336;
/// What a field costs besides its bytes: slots of `http::HeaderMap` (104 bytes, up to half of them free) and the
/// value's allocation.
const FIELD: usize = 160;
/// What a chunk costs besides its bytes: the handle and the allocation's head.
pub(super) const CHUNK: usize = 64;
/// What a prepared head costs besides the stored fields: line, own fields, gaps, and the allocations' heads.
const PREPARED: usize = 256;
/// Bodies up to this length are kept in one piece: one write sends them.
const ONE_PIECE: u64 = 1 << 20;

/// The head of a stored answer.
#[derive(Debug, Clone)]
pub struct Head {
    /// The status.
    pub status: StatusCode,
    /// The fields kept; no `Age` and no `Content-Length`, which every answer computes.
    pub headers: HeaderMap,
    /// How long it is good.
    pub freshness: Freshness,
    /// The requests it was made for.
    pub variant: Variant,
    /// What it is purged by.
    pub tags: Box<[Tag]>,
    /// When its request left, by the clock of purges.
    pub moment: Moment,
    /// What was asked for.
    pub url: Url,
}

impl Head {
    /// Bytes it occupies.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let fields: usize =
            self.headers.iter().map(|(name, value)| FIELD + name.as_str().len() + value.len()).sum();
        size_of::<Self>() + fields + self.variant.bytes() + size_of_val(&*self.tags) + self.url.bytes()
    }

    /// Sets the request's validators to the entry's own, so that the origin may answer 304 (RFC 9111 §4.3.1). The
    /// client's are removed: they are about what the client holds.
    pub fn validate(&self, request: &mut HeaderMap) {
        for name in [
            header::IF_NONE_MATCH,
            header::IF_MODIFIED_SINCE,
            header::IF_MATCH,
            header::IF_UNMODIFIED_SINCE,
            header::IF_RANGE,
            header::RANGE,
        ] {
            request.remove(name);
        }
        if let Some(etag) = self.headers.get(header::ETAG) {
            request.insert(header::IF_NONE_MATCH, etag.clone());
        }
        if let Some(date) = self.headers.get(header::LAST_MODIFIED) {
            request.insert(header::IF_MODIFIED_SINCE, date.clone());
        }
    }
}

/// A whole body.
#[derive(Debug, Clone, Default)]
pub struct Body {
    chunks: Box<[Bytes]>,
    length: u64,
    /// The same in other codings; most bodies are never asked for in one.
    codings: OnceLock<Arc<Codings>>,
    /// Where it lies, if that is not memory; then there are no chunks.
    stored: Option<Arc<Stored>>,
}

impl Body {
    /// A body of these chunks, small ones joined.
    #[must_use]
    pub fn new(chunks: Vec<Bytes>) -> Self {
        let length: u64 = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        let chunks = if chunks.len() > 1 && length <= ONE_PIECE {
            let mut whole = BytesMut::with_capacity(length as usize);
            chunks.iter().for_each(|chunk| whole.extend_from_slice(chunk));
            vec![whole.freeze()]
        } else {
            chunks
        };
        Self { chunks: chunks.into_boxed_slice(), length, codings: OnceLock::new(), stored: None }
    }

    /// A body that is not in memory.
    #[must_use]
    pub(super) fn on_disk(stored: Arc<Stored>) -> Self {
        Self { length: stored.length(), stored: Some(stored), ..Self::default() }
    }

    /// Where it lies, if that is not memory: [`super::Pieces`] reads it.
    #[must_use]
    pub fn stored(&self) -> Option<&Arc<Stored>> {
        self.stored.as_ref()
    }

    /// The same with the codings that were begun while it arrived.
    #[must_use]
    pub(super) fn with(self, codings: OnceLock<Arc<Codings>>) -> Self {
        Self { codings, ..self }
    }

    /// The same in other codings.
    pub(super) fn codings(&self) -> &Arc<Codings> {
        self.codings.get_or_init(Arc::default)
    }

    /// Whether these are its codings.
    pub(super) fn has(&self, codings: &Arc<Codings>) -> bool {
        self.codings.get().is_some_and(|own| Arc::ptr_eq(own, codings))
    }

    /// The same in a coding, if that is kept.
    #[must_use]
    pub fn kept(&self, coding: Coding) -> Option<&Arc<Self>> {
        self.codings.get()?.kept(coding)
    }

    /// Its length in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Its pieces in order; none, if it is not in memory.
    #[must_use]
    pub fn chunks(&self) -> &[Bytes] {
        &self.chunks
    }

    /// The pieces of a part, sharing the memory.
    pub fn slice(&self, range: Range<u64>) -> impl Iterator<Item = Bytes> {
        let mut start = 0u64;
        self.chunks.iter().filter_map(move |chunk| {
            let (from, to) = (start, start + chunk.len() as u64);
            start = to;
            let (first, last) = (range.start.max(from), range.end.min(to));
            (first < last).then(|| chunk.slice((first - from) as usize..(last - from) as usize))
        })
    }

    pub(super) fn bytes(&self) -> usize {
        let codings = self.codings.get().map_or(0, |codings| codings.bytes());
        let own = match &self.stored {
            Some(stored) => stored.bytes(),
            None => self.length as usize + self.chunks.len() * CHUNK,
        };
        own + codings
    }
}

/// A stored answer.
#[derive(Debug)]
pub struct Entry {
    key: Box<str>,
    head: Arc<Head>,
    body: Arc<Body>,
    prepared: ArcSwapOption<Prepared>,
}

impl Entry {
    /// An answer under a key.
    #[must_use]
    pub fn new(key: &str, head: Arc<Head>, body: Arc<Body>) -> Self {
        Self { key: key.into(), head, body, prepared: ArcSwapOption::empty() }
    }

    /// The full text of its key.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Its head.
    #[must_use]
    pub fn head(&self) -> &Arc<Head> {
        &self.head
    }

    /// Its body.
    #[must_use]
    pub fn body(&self) -> &Arc<Body> {
        &self.body
    }

    /// The head of an answer from it, as bytes; whoever serves hits puts one there.
    #[must_use]
    pub fn prepared(&self) -> &ArcSwapOption<Prepared> {
        &self.prepared
    }

    /// Bytes it occupies, its place in the index and a prepared head included. Grows when its body is kept in another coding.
    #[must_use]
    pub fn bytes(&self) -> usize {
        // The key is held twice: here and by its slot.
        let own = size_of::<Self>() + 2 * self.key.len() + self.head.bytes() + self.body.bytes();
        own + wire::fields_len(&self.head.headers) + PREPARED + INDEX
    }
}
