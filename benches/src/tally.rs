//! What was measured: one tally per virtual user, merged at the end, so that counting never makes users wait for each other.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;
use http::StatusCode;

use crate::client::Answer;

/// Latencies of one kind of request.
///
/// Units: microseconds inside, from 1 µs to 60 s with three significant digits; longer ones count as 60 s.
#[derive(Debug, Clone)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        Self(
            Histogram::new_with_bounds(1, 60_000_000, 3).expect("1 < 60 s, and 3 digits are between 0 and 5"),
        )
    }
}

impl Latencies {
    /// Adds one.
    pub fn record(&mut self, took: Duration) {
        self.0.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1));
    }

    /// Adds all of another's.
    pub fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("both were made with the same bounds");
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The mean; zero when there are none.
    #[must_use]
    pub fn mean(&self) -> Duration {
        Duration::from_secs_f64(self.0.mean() / 1e6)
    }

    /// The latency that `share` (0.0 to 1.0) of all did not pass; zero when there are none.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Duration {
        Duration::from_micros(self.0.value_at_quantile(share))
    }
}

/// What the cache said about an answer, read from `Cache-Status` (RFC 9211).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CacheWord {
    /// Answered from the store.
    Hit,
    /// Asked of the origin, for any reason.
    Forwarded,
    /// The answer does not say.
    Silent,
}

impl CacheWord {
    /// Reads the last member of the list, which the cache nearest to the client wrote (RFC 9211 §2).
    #[must_use]
    pub fn of(cache_status: &str) -> Self {
        let nearest = cache_status.rsplit(',').next().unwrap_or("");
        let mut parameters = nearest.split(';').skip(1).map(str::trim);
        match () {
            () if nearest.trim().is_empty() => Self::Silent,
            () if parameters.any(|parameter| parameter == "hit") => Self::Hit,
            () => Self::Forwarded,
        }
    }
}

/// One kind of request, as a line of the table.
#[derive(Debug, Clone, Default)]
pub struct Line {
    /// How long answers took.
    pub latencies: Latencies,
    /// Answered from the cache.
    pub hits: u64,
}

/// Everything counted.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// By the route's label.
    pub lines: BTreeMap<&'static str, Line>,
    /// Answers by status, abusers' included.
    pub statuses: BTreeMap<u16, u64>,
    /// Answers that an origin gave, by its name.
    pub peers: BTreeMap<String, u64>,
    /// Refused requests by kind of abuser and status.
    pub refusals: BTreeMap<(&'static str, u16), u64>,
    /// Connections closed by the edge on a malformed head without a word.
    pub hung_up: u64,
    /// Writes that were answered with success.
    pub writes: u64,
    /// Reads that came after a write and showed it.
    pub fresh_reads: u64,
    /// Logouts, each followed by a use of the dead token.
    pub logouts: u64,
}

impl Tally {
    /// Counts the answer to an honest request.
    pub fn answer(&mut self, label: &'static str, answer: &Answer) {
        let line = self.lines.entry(label).or_default();
        line.latencies.record(answer.took);
        let hit = CacheWord::of(answer.field("cache-status")) == CacheWord::Hit;
        line.hits += u64::from(hit);
        self.status(answer.status);
        let origin = answer.field("x-origin");
        // A hit carries the name of the origin that once filled it: not a share of today's work.
        if !hit && !origin.is_empty() {
            *self.peers.entry(origin.to_owned()).or_default() += 1;
        }
    }

    /// Counts the answer to an abuser.
    pub fn refusal(&mut self, abuser: &'static str, status: StatusCode) {
        self.status(status);
        *self.refusals.entry((abuser, status.as_u16())).or_default() += 1;
    }

    fn status(&mut self, status: StatusCode) {
        *self.statuses.entry(status.as_u16()).or_default() += 1;
    }

    /// Requests that got an answer.
    #[must_use]
    pub fn answers(&self) -> u64 {
        self.statuses.values().sum()
    }

    /// Hits and answers on the lines of these labels.
    #[must_use]
    pub fn hits(&self, labels: &[&'static str]) -> (u64, u64) {
        let lines = labels.iter().filter_map(|label| self.lines.get(label));
        lines.fold((0, 0), |(hits, all), line| (hits + line.hits, all + line.latencies.len()))
    }

    /// Adds all of another's.
    pub fn merge(&mut self, other: &Self) {
        for (label, line) in &other.lines {
            let mine = self.lines.entry(label).or_default();
            mine.latencies.merge(&line.latencies);
            mine.hits += line.hits;
        }
        add(&mut self.statuses, &other.statuses);
        add(&mut self.peers, &other.peers);
        add(&mut self.refusals, &other.refusals);
        self.hung_up += other.hung_up;
        self.writes += other.writes;
        self.fresh_reads += other.fresh_reads;
        self.logouts += other.logouts;
    }
}

fn add<K: Clone + Ord>(mine: &mut BTreeMap<K, u64>, others: &BTreeMap<K, u64>) {
    for (key, count) in others {
        *mine.entry(key.clone()).or_default() += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latencies(millis: impl IntoIterator<Item = u64>) -> Latencies {
        let mut latencies = Latencies::default();
        millis.into_iter().for_each(|ms| latencies.record(Duration::from_millis(ms)));
        latencies
    }

    fn within_a_thousandth(seen: Duration, meant: Duration) -> bool {
        seen.abs_diff(meant) <= meant / 1000
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_list() {
        let all = latencies(1..=1000);
        for (share, ms) in [(0.5, 500), (0.95, 950), (0.99, 990), (1.0, 1000)] {
            let seen = all.quantile(share);
            assert!(within_a_thousandth(seen, Duration::from_millis(ms)), "p{share}: {seen:?}");
        }
    }

    #[test]
    fn merging_is_measuring_together() {
        let mut left = latencies(1..=10);
        left.merge(&latencies(11..=1000));
        assert_eq!(left.quantile(0.95), latencies(1..=1000).quantile(0.95));
    }

    #[test]
    fn a_stuck_request_counts_as_the_longest_instead_of_vanishing() {
        let all = latencies([3_600_000]);
        assert_eq!(all.len(), 1);
        assert!(all.quantile(1.0) >= Duration::from_secs(59));
    }

    #[test]
    fn the_nearest_cache_speaks() {
        assert_eq!(CacheWord::of("weir; hit; ttl=42"), CacheWord::Hit);
        assert_eq!(CacheWord::of("\"responses\";hit"), CacheWord::Hit);
        assert_eq!(CacheWord::of("weir; fwd=uri-miss; stored"), CacheWord::Forwarded);
        assert_eq!(CacheWord::of("inner; hit, weir; fwd=stale"), CacheWord::Forwarded);
        assert_eq!(CacheWord::of("weir; fwd=miss; key=hit"), CacheWord::Forwarded);
        assert_eq!(CacheWord::of(""), CacheWord::Silent);
    }

    #[test]
    fn only_answers_of_an_origin_count_for_its_share() {
        let mut tally = Tally::default();
        let mut answer = Answer {
            status: StatusCode::OK,
            headers: http::HeaderMap::new(),
            body: bytes::Bytes::new(),
            took: Duration::from_millis(1),
        };
        answer.headers.insert("x-origin", http::HeaderValue::from_static("a"));
        tally.answer("list", &answer);
        answer.headers.insert("cache-status", http::HeaderValue::from_static("weir; hit"));
        tally.answer("list", &answer);
        assert_eq!(tally.peers.get("a"), Some(&1));
        assert_eq!(tally.hits(&["list", "absent"]), (1, 2));
    }
}
