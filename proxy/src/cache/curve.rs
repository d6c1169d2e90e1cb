//! The miss-ratio curve: what share of look-ups this cache would answer with less or more memory, measured while it runs.
//!
//! SHARDS ("Efficient MRC Construction with SHARDS", FAST 2015): of the keys a fixed share is watched, chosen by their hash, so
//! that a key is always watched or never. For each look-up of a watched key, what was asked for since the last one is counted in
//! bytes: its *distance*. A cache of so many bytes that forgets the least recent first would still have had it. When more keys
//! are watched than there is room for, the share becomes smaller, and the keys with the largest hashes are let go. What the
//! watched keys miss or exceed of their share of look-ups, as a few keys that everybody wants do, counts as distance 0
//! (SHARDS-adj).
//!
//! Our store keeps better than least recent first, so that the curve is a little below what is true. It knows what memory
//! cannot give: what is not kept, has expired or was purged is a miss at any size.
//!
//! Cost: one comparison for each look-up, and of a watched key a hundred nanoseconds; measured 10 to 15 ns a look-up, 0.2 % of a
//! processor at 150,000 a second. Nobody waits: what comes while another look-up is counted is not. Memory: a MiB at most. What was counted halves as it grows old, so that the curve follows the traffic.

use std::{
    collections::{BinaryHeap, HashMap},
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Instant,
};

use parking_lot::Mutex;

/// The share of keys watched at first, as a bound on 24 bits of their hash: a 16th.
const SHARE: u32 = SPACE / 16;
const SPACE: u32 = 1 << 24;
/// Keys watched at most.
const MOST: usize = 4096;
/// Times remembered; when they are used up, they are counted anew without those that are obsolete.
const SLOTS: usize = 4 * MOST;
/// Distances from 1 KiB on, eight steps for each doubling, up to 2⁴⁸.
const STEPS: u32 = 8;
const BUCKETS: usize = (48 - 10) * STEPS as usize;
/// Look-ups counted before all counts are halved.
const HALVING: f64 = 262_144.0;
/// Fewer say nothing.
const LEAST: f64 = 100.0;

/// What became of a look-up.
#[derive(Debug, Clone, Copy)]
pub(super) enum Found {
    /// An entry of so many bytes that is good until then.
    Good(usize, Option<Instant>),
    /// An entry that has to be asked about, or was purged.
    Useless,
    /// Nothing: more memory might have had it.
    Nothing,
}

/// The curve of one cache.
#[derive(Debug)]
pub(super) struct Curve {
    /// Keys whose sample is below are watched.
    share: AtomicU32,
    /// The beginning of the hash of the key that was counted last.
    last: AtomicU64,
    watch: Mutex<Watch>,
}

impl Default for Curve {
    fn default() -> Self {
        Self { share: AtomicU32::new(SHARE), last: AtomicU64::new(0), watch: Mutex::default() }
    }
}

#[derive(Debug, Default)]
struct Watch {
    keys: HashMap<u128, Seen>,
    /// The largest sample first.
    samples: BinaryHeap<(u32, u128)>,
    /// Bytes of the key looked up last at each time.
    bytes: Sums,
    next: usize,
    /// Look-ups by distance.
    near: Vec<f64>,
    /// Those that no memory would have answered.
    far: f64,
    /// Look-ups counted, and how many there should have been of the share.
    counted: f64,
    expected: f64,
    /// Look-ups of the cache when that was last reckoned.
    reckoned: Option<u64>,
}

/// A watched key.
#[derive(Debug)]
struct Seen {
    slot: usize,
    /// 0 while nothing of it was kept.
    bytes: u64,
    good_until: Option<Instant>,
}

/// 24 bits that neither the shard nor its table looks at.
fn sample(hash: u128) -> u32 {
    (hash >> 40) as u32 % SPACE
}

impl Curve {
    /// Counts a look-up, one of so many that the cache has counted; dropped while another one is counted.
    pub(super) fn looked_up(
        &self,
        hash: u128,
        is_hit: bool,
        found: impl FnOnce() -> Found,
        all: impl FnOnce() -> u64,
        now: Instant,
    ) {
        let share = self.share.load(Ordering::Relaxed);
        if sample(hash) >= share {
            return;
        }
        // Once more what was looked up last, as when everybody wants one page: distance 0, which is reckoned and not counted.
        let short = hash as u64;
        if is_hit && self.last.load(Ordering::Relaxed) == short {
            return;
        }
        if let Some(mut watch) = self.watch.try_lock() {
            self.last.store(short, Ordering::Relaxed);
            watch.reckon(all(), share);
            watch.looked_up(hash, found(), share, now);
            if watch.keys.len() > MOST {
                self.share.store(watch.narrow(share), Ordering::Relaxed);
            }
        }
    }

    /// An entry was kept.
    pub(super) fn kept(&self, hash: u128, bytes: usize, good_until: Option<Instant>) {
        if sample(hash) < self.share.load(Ordering::Relaxed) {
            self.watch.lock().kept(hash, bytes as u64, good_until);
        }
    }

    /// The share of look-ups that this much memory would answer, 0 to 1; `None` while too little is known.
    #[must_use]
    pub(super) fn hit_rate(&self, memory: usize) -> Option<f64> {
        self.watch.lock().hit_rate(memory as u64)
    }
}

impl Watch {
    /// How many look-ups of watched keys there should have been.
    fn reckon(&mut self, all: u64, share: u32) {
        let news = self.reckoned.map_or(1, |before| all.saturating_sub(before));
        self.reckoned = Some(all);
        self.expected += news as f64 * rate(share);
    }

    fn looked_up(&mut self, hash: u128, found: Found, share: u32, now: Instant) {
        let slot = self.slot();
        let distance = match self.keys.get_mut(&hash) {
            None => {
                self.samples.push((sample(hash), hash));
                self.keys.insert(hash, Seen { slot, bytes: 0, good_until: None });
                None
            }
            Some(seen) => {
                let between = self.bytes.all() - self.bytes.up_to(seen.slot);
                self.bytes.sub(seen.slot, seen.bytes);
                self.bytes.add(slot, seen.bytes);
                seen.slot = slot;
                let useful = match found {
                    Found::Good(..) => true,
                    Found::Useless => false,
                    Found::Nothing => seen.good_until.is_some_and(|until| now < until),
                };
                (useful && seen.bytes > 0).then(|| between as f64 / rate(share) + seen.bytes as f64)
            }
        };
        if let Found::Good(bytes, good_until) = found {
            self.kept(hash, bytes as u64, good_until);
        }
        self.counted += 1.0;
        match distance {
            Some(distance) => {
                self.near.resize(BUCKETS, 0.0);
                self.near[bucket(distance).min(BUCKETS - 1)] += 1.0;
            }
            None => self.far += 1.0,
        }
        if self.counted > HALVING {
            self.scale(0.5);
        }
    }

    fn kept(&mut self, hash: u128, bytes: u64, good_until: Option<Instant>) {
        let Some(seen) = self.keys.get_mut(&hash) else { return };
        seen.good_until = good_until;
        if seen.bytes != bytes {
            self.bytes.sub(seen.slot, seen.bytes);
            self.bytes.add(seen.slot, bytes);
            seen.bytes = bytes;
        }
    }

    /// Lets go of the keys with the largest samples; the share that is left.
    fn narrow(&mut self, share: u32) -> u32 {
        let mut left = share;
        while self.keys.len() > MOST {
            let Some((sample, hash)) = self.samples.pop() else { break };
            left = sample;
            if let Some(seen) = self.keys.remove(&hash) {
                self.bytes.sub(seen.slot, seen.bytes);
            }
        }
        // Those with this very sample go, too: it is no longer below the share.
        while self.samples.peek().is_some_and(|(sample, _)| *sample >= left) {
            if let Some(seen) = self.samples.pop().and_then(|(_, hash)| self.keys.remove(&hash)) {
                self.bytes.sub(seen.slot, seen.bytes);
            }
        }
        // What was counted stood for fewer keys each than what comes now.
        self.scale(rate(left) / rate(share));
        left
    }

    /// The next time; when all are used up, those of the watched keys are moved together.
    fn slot(&mut self) -> usize {
        if self.next == SLOTS {
            let mut all: Vec<_> = self.keys.values_mut().collect();
            all.sort_unstable_by_key(|seen| seen.slot);
            self.bytes = Sums::default();
            self.next = all.len();
            for (slot, seen) in all.into_iter().enumerate() {
                seen.slot = slot;
                self.bytes.add(slot, seen.bytes);
            }
        }
        self.next += 1;
        self.next - 1
    }

    fn scale(&mut self, by: f64) {
        self.near
            .iter_mut()
            .chain([&mut self.far, &mut self.counted, &mut self.expected])
            .for_each(|it| *it *= by);
    }

    fn hit_rate(&self, memory: u64) -> Option<f64> {
        if self.counted < LEAST {
            return None;
        }
        let at = position(memory as f64);
        let whole = at as usize;
        let near: f64 = self.near.iter().take(whole).sum();
        let part = self.near.get(whole).map_or(0.0, |count| count * at.fract());
        let missing = self.expected - self.counted;
        Some(((near + part + missing) / (self.counted + missing).max(1.0)).clamp(0.0, 1.0))
    }
}

fn rate(share: u32) -> f64 {
    f64::from(share) / f64::from(SPACE)
}

/// Where a distance lies among the buckets.
fn position(bytes: f64) -> f64 {
    ((bytes.max(1024.0) / 1024.0).log2() * f64::from(STEPS)).clamp(0.0, BUCKETS as f64)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the buckets")]
fn bucket(distance: f64) -> usize {
    position(distance) as usize
}

/// Sums over times: adding, and summing up to a time, in a dozen steps (Fenwick's tree).
#[derive(Debug)]
struct Sums {
    tree: Box<[u64]>,
    all: u64,
}

impl Default for Sums {
    fn default() -> Self {
        Self { tree: vec![0; SLOTS + 1].into_boxed_slice(), all: 0 }
    }
}

impl Sums {
    fn all(&self) -> u64 {
        self.all
    }

    fn add(&mut self, slot: usize, bytes: u64) {
        self.all += bytes;
        self.climb(slot, |sum| sum + bytes);
    }

    fn sub(&mut self, slot: usize, bytes: u64) {
        self.all -= bytes;
        self.climb(slot, |sum| sum - bytes);
    }

    fn climb(&mut self, slot: usize, change: impl Fn(u64) -> u64) {
        let mut at = slot + 1;
        while at <= SLOTS {
            self.tree[at] = change(self.tree[at]);
            at += at & at.wrapping_neg();
        }
    }

    /// Up to this time, it included.
    fn up_to(&self, slot: usize) -> u64 {
        let (mut at, mut sum) = (slot + 1, 0);
        while at > 0 {
            sum += self.tree[at];
            at &= at - 1;
        }
        sum
    }
}

#[cfg(test)]
mod tests;
