#![allow(clippy::unwrap_used, reason = "a test that cannot build its input has failed")]
use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;
use rand::{Rng, SeedableRng, rngs::SmallRng};

use super::*;

/// A cache that forgets the least recent first, exactly.
#[derive(Default)]
struct Lru {
    entries: HashMap<u64, (u64, u64)>,
    order: BTreeMap<u64, u64>,
    clock: u64,
    bytes: u64,
    hits: u64,
}

impl Lru {
    fn looks_up(&mut self, key: u64, bytes: u64, memory: u64) {
        self.clock += 1;
        match self.entries.insert(key, (self.clock, bytes)) {
            Some((at, _)) => {
                self.order.remove(&at);
                self.hits += 1;
            }
            None => self.bytes += bytes,
        }
        self.order.insert(self.clock, key);
        while self.bytes > memory {
            let (_, oldest) = self.order.pop_first().unwrap();
            self.bytes -= self.entries.remove(&oldest).unwrap().1;
        }
    }
}

/// Spreads keys as the seeded hash of a cache does.
fn hash(key: u64, seed: u64) -> u128 {
    let mut mixed = key.wrapping_add(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^= mixed >> 32;
    u128::from(mixed) << 64 | u128::from(mixed.rotate_left(17).wrapping_mul(0x94d0_49bb_1331_11eb))
}

fn size(key: u64) -> u64 {
    600 + key.wrapping_mul(2_654_435_761) % 4000
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5))]
    /// For 50,000 keys and more, with half of the memory, all of it and twice as much: the error is below seven hundredths, and as a
    /// rule below two.
    #[test]
    fn the_curve_is_that_of_an_exact_cache(
        keys in 50_000_u64..150_000, skew in 0.6..1.2_f64, part in 0.02..0.5_f64, seed: u64
    ) {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut sum = 0.0;
        let weights: Vec<f64> = (1..=keys).map(|rank| {
            sum += (rank as f64).powf(-skew);
            sum
        }).collect();
        let memory = ((0..keys).map(size).sum::<u64>() as f64 * part) as u64;
        let (curve, now, lookups) = (Curve::default(), Instant::now(), 100_000);
        let mut exact = [memory / 2, memory, 2 * memory].map(|memory| (memory, Lru::default()));
        for n in 1..=lookups {
            let at = random.random::<f64>() * sum;
            let key = weights.partition_point(|weight| *weight < at) as u64;
            curve.looked_up(hash(key, seed), true, || Found::Good(size(key) as usize, None), || n, now);
            exact.iter_mut().for_each(|(memory, lru)| lru.looks_up(key, size(key), *memory));
        }
        for (memory, lru) in exact {
            let (estimate, truth) = (curve.hit_rate(memory as usize).unwrap(), lru.hits as f64 / lookups as f64);
            prop_assert!((estimate - truth).abs() < 0.07, "{estimate} for {truth}, seed {seed}");
        }
    }
}

/// The n-th of keys that are always watched.
fn watched(n: u128) -> u128 {
    n << 64 | (n + 1)
}

fn look_up(curve: &Curve, n: u128, found: Found, all: u64, now: Instant) {
    // As many look-ups went to keys that are not watched as their share says.
    curve.looked_up(watched(n), matches!(found, Found::Good(..)), || found, || 16 * all, now);
}

#[test]
fn little_is_known_of_few_and_nothing_of_what_was_never_kept() {
    let (curve, now) = (Curve::default(), Instant::now());
    for n in 1..=99 {
        look_up(&curve, 1, Found::Nothing, n, now);
    }
    assert_eq!(curve.hit_rate(usize::MAX), None);
    for n in 100..=1000 {
        look_up(&curve, 1, Found::Nothing, n, now);
    }
    assert!(curve.hit_rate(usize::MAX).unwrap() < 0.02);
}

#[test]
fn what_expired_or_was_purged_is_missed_at_any_size() {
    let (curve, now) = (Curve::default(), Instant::now());
    let minute = now + Duration::from_secs(60);
    let mut all = 0;
    let mut half = |found, at| {
        for n in 0..500 {
            all += 1;
            look_up(&curve, n % 10, found, all, at);
            curve.kept(watched(n % 10), 1000, Some(minute));
        }
        curve.hit_rate(1 << 30).unwrap()
    };
    assert!(half(Found::Nothing, now) > 0.95, "more memory would have had it");
    let after = half(Found::Nothing, minute);
    assert!((0.4..0.6).contains(&after), "then it had expired: {after}");
    let purged = half(Found::Useless, now);
    assert!((0.3..0.4).contains(&purged), "then it was purged: {purged}");
}

#[test]
fn distances_are_bytes_and_survive_the_end_of_the_times() {
    let (curve, now) = (Curve::default(), Instant::now());
    // Ten keys of 1000 bytes in turn, each of which stands for 16: 145 kB lie between two look-ups of one.
    for n in 0..(3 * SLOTS as u64) {
        look_up(&curve, u128::from(n % 10), Found::Good(1000, None), n + 1, now);
    }
    assert!(curve.hit_rate(120_000).unwrap() < 0.05);
    assert!(curve.hit_rate(180_000).unwrap() > 0.95);
}

#[test]
fn watched_keys_are_bounded_and_the_share_shrinks() {
    let (curve, now) = (Curve::default(), Instant::now());
    for n in 0..500_000 {
        curve.looked_up(hash(n, 7), true, || Found::Good(1000, None), || n + 1, now);
    }
    let watch = curve.watch.lock();
    let share = curve.share.load(Ordering::Relaxed);
    assert!(watch.keys.len() <= MOST && watch.samples.len() == watch.keys.len() && share < SHARE);
    assert!(watch.keys.keys().all(|hash| sample(*hash) < share));
    assert_eq!(watch.bytes.all(), watch.keys.values().map(|seen| seen.bytes).sum::<u64>());
}
