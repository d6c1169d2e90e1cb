//! What the tests of this stage share: a clock, fields, and a cache with an origin that says what it is told.
#![allow(clippy::unwrap_used, reason = "a test that cannot build its input has failed")]

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};

use super::{
    Ask, Begin, Broken, Cache, Decision, Entry, FillGuard, Guard, Key, Lookup, Now, Outcome, Reader,
    RequestHead, Rule, Tag, Tags, Url, Waiter,
};

pub(super) const MIB: usize = 1 << 20;

pub(super) const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A clock on a full second, as dates have no finer ones.
pub(super) fn noon() -> Now {
    Now { wall: SystemTime::UNIX_EPOCH + secs(1_800_000_000), mono: Instant::now() }
}

pub(super) fn ago(now: Now, span: u64) -> String {
    httpdate::fmt_http_date(now.wall - secs(span))
}

pub(super) fn map(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, value.parse().unwrap());
    }
    headers
}

pub(super) fn key(target: &str) -> Key {
    Key::target("", "http", "example.org", target)
}

pub(super) fn uri(target: &str) -> Tag {
    Tag::uri("http", "example.org", target)
}

/// A GET with these fields.
pub(super) fn ask(target: &str, headers: HeaderMap) -> Ask {
    let (key, uri) = (key(target), uri(target));
    Ask {
        key,
        uri,
        url: Url::new("http", "example.org", target),
        method: Method::GET,
        headers,
        has_body: false,
        rule: Rule::origin_alone(),
        stale: None,
        guard: Guard::default(),
        named: Vec::new(),
    }
}

pub(super) fn cache() -> Cache {
    Cache::new(64 * MIB, MIB, Arc::new(Tags::new()))
}

impl Cache {
    pub(super) fn get(&self, target: &str, headers: &HeaderMap, now: Now) -> Lookup {
        let request = RequestHead { method: &Method::GET, headers, has_body: false };
        self.lookup(&key(target), &request, &Rule::origin_alone(), now)
    }

    pub(super) fn must_fill(&self, ask: Ask, now: Now) -> FillGuard {
        match self.begin(ask, now) {
            Begin::Fill(guard) => guard,
            _ => panic!("somebody else fills"),
        }
    }

    pub(super) fn must_wait(&self, ask: Ask, now: Now) -> Waiter {
        match self.begin(ask, now) {
            Begin::Wait(waiter) => *waiter,
            _ => panic!("nobody else fills"),
        }
    }

    /// Fills `target` with an answer of these fields.
    pub(super) fn fill(
        &self,
        target: &str,
        fields: &[(&'static str, &str)],
        body: &str,
        now: Now,
    ) -> Arc<Entry> {
        // Asking past what is stored, as a fill over a fresh entry is none.
        let mut guard = self.must_fill(ask(target, map(&[("cache-control", "no-cache")])), now);
        assert_eq!(guard.head(StatusCode::OK, &map(fields), &[], now), Decision::Store);
        guard.write(&Bytes::copy_from_slice(body.as_bytes()));
        guard.finish().unwrap()
    }
}

impl Lookup {
    pub(super) fn hit(self) -> Arc<Entry> {
        match self {
            Self::Hit { entry, .. } => entry,
            other => panic!("not a hit: {other:?}"),
        }
    }
}

/// The whole body of an entry.
pub(super) fn body(entry: &Entry) -> Vec<u8> {
    entry.body().chunks().concat()
}

pub(super) const OK: StatusCode = StatusCode::OK;
/// How long anybody waits.
pub(super) const LOCK: Duration = secs(5);

/// Good for a minute.
pub(super) fn minute() -> HeaderMap {
    map(&[("cache-control", "max-age=60")])
}

pub(super) fn minute_of(length: usize) -> HeaderMap {
    map(&[("cache-control", "max-age=60"), ("content-length", &length.to_string())])
}

/// A GET without fields.
pub(super) fn plain(target: &str) -> Ask {
    ask(target, HeaderMap::new())
}

/// The whole body, as it comes.
pub(super) async fn read_all(mut reader: Reader) -> Result<Vec<u8>, Broken> {
    let mut body = Vec::new();
    while let Some(chunk) = reader.next().await {
        body.extend_from_slice(&chunk?);
    }
    Ok(body)
}

pub(super) fn ready(outcome: Outcome) -> Reader {
    match outcome {
        Outcome::Ready(reader) => reader,
        other => panic!("not ready: {other:?}"),
    }
}

pub(super) fn misses(cache: &Cache, target: &str, now: Now) -> bool {
    matches!(cache.get(target, &HeaderMap::new(), now), Lookup::Miss(_))
}

pub(super) fn stale(cache: &Cache, now: Now) -> Arc<Entry> {
    match cache.get("/", &HeaderMap::new(), now) {
        Lookup::Stale { entry, .. } => entry,
        other => panic!("not stale: {other:?}"),
    }
}
