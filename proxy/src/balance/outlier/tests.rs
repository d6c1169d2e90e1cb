//! What a pool of peers that are compared promises.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use parking_lot::Mutex;
use weir_config::plan::{Balance, WhenAllDown};

use super::*;
use crate::balance::{
    Asker, Endpoint, Picked, Pool, Tried,
    passive::tests::endpoint,
    tests::{CLIENT, round_robin},
};

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

fn rules() -> Rules {
    Rules {
        window: seconds(10),
        requests: 20,
        errors: Share::percent(30),
        latency: 5,
        silence: seconds(1),
        ejection: seconds(10),
        max_ejection: seconds(25),
        max_ejected: Share::percent(50),
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Peers `a`, `b`, … that are compared.
fn pool(count: usize) -> Arc<Pool> {
    let endpoints = NAMES[..count].iter().map(|name| Endpoint { name: (*name).into(), ..endpoint(0) });
    let mut pool = round_robin(endpoints.collect());
    Arc::get_mut(&mut pool).unwrap().outlier = Some((rules(), Mutex::default()));
    pool
}

/// The next generation, which takes the place of `old`.
fn next(old: &Arc<Pool>, count: usize) -> Arc<Pool> {
    let endpoints =
        NAMES[..count].iter().map(|name| Endpoint { name: (*name).into(), weight: 2, ..endpoint(0) });
    let (name, balance) = (Arc::clone(old.name()), Balance::RoundRobin);
    let mut next = Pool::build(Some(old), name, balance, WhenAllDown::Pardon, endpoints.collect());
    let season = old.outlier.as_ref().unwrap().1.lock().clone();
    Arc::get_mut(&mut next).unwrap().outlier = Some((rules(), Mutex::new(season)));
    old.succeeded_by(&next);
    next
}

fn pick(pool: &Arc<Pool>, now: Instant) -> Picked {
    pool.pick(&CLIENT.into(), &mut Tried::default(), now).unwrap()
}

fn name(picked: &Picked) -> &str {
    &picked.peer().endpoint().name
}

/// Requests one after the other; each is answered after `took`, with a failure where `fails` says so.
fn answered(
    pool: &Arc<Pool>,
    count: usize,
    now: Instant,
    took: impl Fn(&str) -> Duration,
    fails: impl Fn(&str) -> bool,
) {
    for _ in 0..count {
        let mut picked = pick(pool, now);
        let (took, fails) = (took(name(&picked)), fails(name(&picked)));
        picked.heard(fails, now + took);
        picked.succeeded(now + took);
    }
}

/// A pool that knows that answers come within a millisecond.
fn warm(count: usize, now: Instant) -> Arc<Pool> {
    let pool = pool(count);
    answered(&pool, 12, now, |_| millis(1), |_| false);
    pool
}

/// The peers of `count` requests; those to `hung` are kept waiting, the others answered at once.
fn with_hung(pool: &Arc<Pool>, hung: &str, count: usize, now: Instant) -> (String, Vec<Picked>) {
    let (mut names, mut waiting) = (String::new(), Vec::new());
    for _ in 0..count {
        let mut picked = pick(pool, now);
        names += name(&picked);
        if name(&picked) == hung {
            waiting.push(picked);
        } else {
            picked.heard(false, now + millis(1));
            picked.succeeded(now + millis(1));
        }
    }
    (names, waiting)
}

fn out(pool: &Pool, now: Instant) -> String {
    let sight = pool.sight(now);
    sight.iter().filter(|sight| sight.out).map(|sight| &*sight.peer.endpoint().name).collect()
}

#[test]
fn a_silent_peer_is_asked_five_times_and_then_avoided() {
    let start = Instant::now();
    let pool = warm(3, start);
    let (_, waiting) = with_hung(&pool, "a", 15, start);
    assert_eq!(waiting.len(), 5);
    let (names, _) = with_hung(&pool, "a", 30, start + millis(50));
    assert!(!names.contains('a'), "{names}");
    assert_eq!(out(&pool, start + millis(50)), "", "it is not out, it is only not asked");
}

#[test]
fn a_sign_of_life_clears_the_suspicion() {
    let start = Instant::now();
    let pool = warm(3, start);
    let (_, mut waiting) = with_hung(&pool, "a", 15, start);
    waiting[4].heard(false, start + millis(60));
    assert!(with_hung(&pool, "", 3, start + millis(60)).0.contains('a'));
}

#[test]
fn silence_ejects_after_its_time_and_not_before() {
    let start = Instant::now();
    let pool = warm(3, start);
    let (_, waiting) = with_hung(&pool, "a", 15, start);
    let index = waiting[0].index;
    pool.review(index, start + millis(999));
    assert_eq!(out(&pool, start + millis(999)), "");
    pool.review(index, start + seconds(1));
    assert_eq!(out(&pool, start + seconds(1)), "a");
    assert_eq!(out(&pool, start + seconds(12)), "");
}

#[test]
fn four_requests_that_wait_are_no_silence() {
    let start = Instant::now();
    let pool = warm(3, start);
    let (_, waiting) = with_hung(&pool, "a", 12, start);
    assert_eq!(waiting.len(), 4);
    pool.review(waiting[0].index, start + seconds(20));
    assert_eq!(out(&pool, start + seconds(20)), "");
}

#[test]
fn requests_whose_clients_left_are_no_silence() {
    let start = Instant::now();
    let pool = warm(3, start);
    let (_, mut waiting) = with_hung(&pool, "a", 15, start);
    let index = waiting.pop().unwrap().index;
    pool.review(index, start + seconds(20));
    assert_eq!(out(&pool, start + seconds(20)), "");
}

#[test]
fn uploads_are_no_silence_until_they_are_done() {
    let start = Instant::now();
    let pool = warm(3, start);
    let mut waiting: Vec<_> = (0..15).map(|_| pick(&pool, start)).collect();
    let (mut hung, others): (Vec<_>, Vec<_>) =
        std::mem::take(&mut waiting).into_iter().partition(|picked| name(picked) == "a");
    others.into_iter().for_each(|picked| picked.succeeded(start));
    hung.iter_mut().for_each(Picked::uploads);
    pool.review(hung[0].index, start + seconds(20));
    assert_eq!(out(&pool, start + seconds(20)), "");

    let done = start + seconds(20);
    hung.iter_mut().for_each(|picked| picked.uploaded(done));
    pool.review(hung[0].index, done + millis(999));
    assert_eq!(out(&pool, done + millis(999)), "");
    pool.review(hung[0].index, done + seconds(1));
    assert_eq!(out(&pool, done + seconds(1)), "a");
}

#[test]
fn where_slow_answers_are_usual_nobody_is_silent_so_soon() {
    let start = Instant::now();
    let pool = pool(3);
    answered(&pool, 12, start, |_| seconds(2), |_| false);
    let (_, waiting) = with_hung(&pool, "a", 15, start);
    pool.review(waiting[0].index, start + seconds(10));
    assert_eq!(out(&pool, start + seconds(10)), "");
}

#[test]
fn a_cold_pool_judges_nobody() {
    let start = Instant::now();
    let pool = pool(3);
    let waiting: Vec<_> = (0..15).map(|_| pick(&pool, start)).collect();
    pool.review(waiting[0].index, start + seconds(30));
    assert_eq!(out(&pool, start + seconds(30)), "");
}

#[test]
fn the_last_that_gives_signs_of_life_is_never_left() {
    let start = Instant::now();
    let pool = warm(2, start);
    let waiting: Vec<_> = (0..10).map(|_| pick(&pool, start)).collect();
    assert_eq!(waiting.len(), 10);
    for picked in &waiting {
        pool.review(picked.index, start + seconds(2));
    }
    assert_eq!(out(&pool, start + seconds(2)), "", "both are silent, so there is nobody to go to");
    drop(pick(&pool, start + seconds(2)));
}

#[test]
fn an_ejected_peer_is_probed_by_one_request_and_rests_longer_each_time() {
    let start = Instant::now();
    let pool = warm(3, start);
    let (_, waiting) = with_hung(&pool, "a", 15, start);
    let index = waiting[0].index;
    let mut now = start + seconds(1);
    pool.review(index, now);
    for rest in [10, 20, 25, 25] {
        assert!(!with_hung(&pool, "a", 9, now + seconds(rest - 1)).0.contains('a'));
        now += seconds(rest);
        let (names, probe) = with_hung(&pool, "a", 9, now);
        assert_eq!(probe.len(), 1, "one probe: {names}");
        now += seconds(1);
        pool.review(index, now);
        assert_eq!(out(&pool, now), "a", "one silent probe is enough");
    }
    let (_, mut probe) = with_hung(&pool, "a", 9, now + seconds(25));
    probe[0].heard(false, now + seconds(25));
    assert_eq!(with_hung(&pool, "", 9, now + seconds(25)).0.matches('a').count(), 3);
}

#[test]
fn who_fails_more_than_the_median_rests() {
    let start = Instant::now();
    let pool = pool(3);
    answered(&pool, 90, start, |_| millis(1), |name| name == "b");
    assert_eq!(out(&pool, start), "", "not before the window has passed");
    pick(&pool, start + seconds(10)).succeeded(start + seconds(10));
    assert_eq!(out(&pool, start + seconds(10)), "b");
}

#[test]
fn when_all_fail_alike_nobody_rests() {
    let start = Instant::now();
    let pool = pool(3);
    answered(&pool, 90, start, |_| millis(1), |_| true);
    pick(&pool, start + seconds(10)).succeeded(start + seconds(10));
    assert_eq!(out(&pool, start + seconds(10)), "");
}

#[test]
fn few_requests_prove_nothing() {
    let start = Instant::now();
    let pool = pool(3);
    answered(&pool, 57, start, |_| millis(1), |name| name == "b");
    pick(&pool, start + seconds(10)).succeeded(start + seconds(10));
    assert_eq!(out(&pool, start + seconds(10)), "");
}

#[test]
fn who_is_many_times_slower_rests_if_anybody_would_notice() {
    let start = Instant::now();
    let slow = |slow: u64| move |name: &str| if name == "c" { millis(slow) } else { millis(10) };
    let (noticed, not) = (pool(3), pool(3));
    answered(&noticed, 90, start, slow(120), |_| false);
    answered(&not, 90, start, slow(90), |_| false);
    pick(&noticed, start + seconds(10)).succeeded(start + seconds(10));
    pick(&not, start + seconds(10)).succeeded(start + seconds(10));
    assert_eq!(out(&noticed, start + seconds(10)), "c");
    assert_eq!(out(&not, start + seconds(10)), "");
}

#[test]
fn no_more_than_the_cap_rest_and_the_worst_go_first() {
    let start = Instant::now();
    let pool = pool(5);
    let turn = std::cell::Cell::new(0);
    // a and b never fail; c fails every other time, d and e always.
    answered(
        &pool,
        200,
        start,
        |_| millis(1),
        |name| {
            turn.set(turn.get() + 1);
            match name {
                "a" | "b" => false,
                "c" => turn.get() / 5 % 2 == 0,
                _ => true,
            }
        },
    );
    pick(&pool, start + seconds(10)).succeeded(start + seconds(10));
    // The median is c's: d and e exceed it by half, and two of five may rest.
    assert_eq!(out(&pool, start + seconds(10)), "de");
}

#[test]
fn of_two_one_may_rest_and_one_stays() {
    let start = Instant::now();
    let pool = pool(2);
    answered(&pool, 90, start, |_| millis(1), |name| name == "a");
    pick(&pool, start + seconds(10)).succeeded(start + seconds(10));
    assert_eq!(out(&pool, start + seconds(10)), "a");
}

#[test]
fn requests_of_every_generation_are_waited_for_together() {
    let start = Instant::now();
    let old = warm(3, start);
    let (_, mut waiting) = with_hung(&old, "a", 12, start);
    assert_eq!(waiting.len(), 4);
    let new = next(&old, 4);
    // One that goes on with the old generation, because it began with that.
    waiting.extend(with_hung(&old, "a", 3, start).1);
    assert_eq!(waiting.len(), 5);
    let index = new.newest(waiting[0].peer(), 0).unwrap().1;
    new.review(index, start + seconds(1));
    assert_eq!(out(&new, start + seconds(1)), "a");
}

#[test]
fn what_an_old_request_hears_is_a_sign_of_life_in_the_newest_generation() {
    let start = Instant::now();
    let old = warm(3, start);
    let (_, mut waiting) = with_hung(&old, "a", 15, start);
    let newest = next(&next(&old, 3), 3);
    waiting.pop().unwrap().heard(false, start + millis(60));
    // The numbers of the others are not known any more.
    drop(waiting);
    newest.review(0, start + seconds(2));
    assert_eq!(out(&newest, start + seconds(2)), "");
    assert!(with_hung(&newest, "", 4, start + millis(60)).0.contains('a'));
}

#[test]
fn outcomes_at_a_peer_that_is_gone_are_told_to_nobody() {
    let start = Instant::now();
    let old = warm(3, start);
    let mut gone: Vec<_> = (0..9).map(|_| pick(&old, start)).filter(|picked| name(picked) == "c").collect();
    let new = next(&old, 2);
    gone.iter_mut().for_each(Picked::uploads);
    gone.iter_mut().for_each(|picked| picked.uploaded(start));
    gone.iter_mut().for_each(|picked| picked.heard(true, start));
    gone.pop().unwrap().failed(start);
    gone.pop().unwrap().succeeded(start);
    assert_eq!(out(&new, start), "");
}

#[test]
fn a_session_leaves_a_suspect_peer_while_another_is_open() {
    let start = Instant::now();
    let pool = warm(2, start);
    let of_a = Asker { route: Some("a".into()), ..CLIENT.into() };
    let ask = |now| pool.pick(&of_a, &mut Tried::default(), now).unwrap();
    let waiting: Vec<_> = (0..5).map(|_| ask(start)).collect();
    assert!(
        waiting.iter().all(|picked| name(picked) == "a"),
        "all peers have its route, and it is the first"
    );
    assert_eq!(name(&ask(start + millis(50))), "b");
}
