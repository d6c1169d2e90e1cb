//! What the methods, sessions and rests promise beyond the model: distributions, bounds, and shares that grow.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::HashMap, net::IpAddr};

use weir_config::plan::Least;

use super::{tests::*, *};

fn by(key: &str) -> Asker {
    Asker { key: key.to_owned(), ..CLIENT.into() }
}

fn of_session(route: &str) -> Asker {
    Asker { route: Some(route.into()), ..CLIENT.into() }
}

fn seeded(seed: u64) -> Asker {
    Asker { seed, ..IpAddr::V4(std::net::Ipv4Addr::LOCALHOST).into() }
}

fn hashed(spread: Spread) -> Balance {
    Balance::Hash { key: "${request.target}".parse().unwrap(), spread }
}

fn ring(bound: Option<&str>) -> Balance {
    hashed(Spread::Ring { bound: bound.map(|bound| bound.parse().unwrap()) })
}

fn asked(pool: &Arc<Pool>, asker: &Asker, now: Instant) -> Option<String> {
    pool.pick(asker, &mut Tried::default(), now).ok().map(|picked| name(&picked))
}

/// How often each peer is asked.
fn tally(pool: &Arc<Pool>, askers: impl Iterator<Item = Asker>) -> HashMap<String, usize> {
    let mut tally = HashMap::new();
    for asker in askers {
        *tally.entry(asked(pool, &asker, Instant::now()).unwrap()).or_default() += 1;
    }
    tally
}

fn keys(count: usize) -> impl Iterator<Item = Asker> {
    (0..count).map(|number| by(&format!("/key/{number}")))
}

#[test]
fn a_server_more_moves_nearly_every_key_by_remainder_and_only_its_share_on_a_ring() {
    let moved = |balance: Balance| {
        let pool = |names: &[&str]| pool(balance.clone(), names.iter().map(|name| server(name)).collect());
        let (three, four) = (pool(&["a:1", "b:1", "c:1"]), pool(&["a:1", "b:1", "c:1", "d:1"]));
        let now = Instant::now();
        keys(1000).filter(|key| asked(&three, key, now) != asked(&four, key, now)).count()
    };
    assert!(moved(hashed(Spread::Remainder)) > 600);
    assert!((150..350).contains(&moved(ring(None))), "a quarter");
}

#[test]
fn keys_spread_by_weight() {
    for balance in [hashed(Spread::Remainder), ring(None)] {
        let pool = pool(balance, vec![weighted("a:1", 3), weighted("b:1", 1)]);
        let tally = tally(&pool, keys(4000));
        assert!((2700..3300).contains(&tally["a:1"]), "{tally:?}");
    }
}

#[test]
fn a_key_that_is_empty_goes_in_turn() {
    for balance in [hashed(Spread::Remainder), ring(None)] {
        let pool = pool(balance, vec![server("a"), server("b")]);
        assert_eq!(tally(&pool, (0..10).map(|_| by("")))["a"], 5);
    }
}

#[test]
fn a_hot_key_overflows_to_the_next_server_of_the_ring_when_its_own_has_its_bound() {
    let servers = || vec![server("a:1"), server("b:1"), server("c:1")];
    let now = Instant::now();
    let in_flight = |pool: &Arc<Pool>| {
        let held: Vec<_> =
            (0..30).map(|_| pool.pick(&by("hot"), &mut Tried::default(), now).unwrap()).collect();
        let mut each: Vec<u32> = pool.sight(now).iter().map(|sight| sight.peer.active()).collect();
        drop(held);
        each.sort_unstable();
        each
    };
    assert_eq!(in_flight(&pool(ring(None), servers())), [0, 0, 30]);
    // ⌈1.25 × 30 / 3⌉ = 13 is the most, and the first two of the ring take what they may.
    assert_eq!(in_flight(&pool(ring(Some("1.25")), servers())), [4, 13, 13]);
}

#[test]
fn a_bound_leaves_a_key_that_is_not_hot_where_it_was() {
    let servers = || vec![server("a:1"), server("b:1"), server("c:1")];
    let (free, bound) = (pool(ring(None), servers()), pool(ring(Some("1.25")), servers()));
    let now = Instant::now();
    assert!(keys(100).all(|key| asked(&free, &key, now) == asked(&bound, &key, now)));
}

#[test]
fn lots_fall_by_weight() {
    let random = pool(Balance::Random, vec![weighted("a", 3), weighted("b", 1)]);
    let tally = tally(&random, (0..4000).map(seeded));
    assert!((2850..3150).contains(&tally["a"]), "{tally:?}");
}

#[test]
fn of_two_the_one_with_fewer_requests_is_asked() {
    let pool = pool(Balance::RandomTwo(Least::Conn), vec![server("a"), server("b")]);
    let now = Instant::now();
    let held: Vec<_> =
        (0..20).map(|seed| pool.pick(&seeded(seed), &mut Tried::default(), now).unwrap()).collect();
    assert_eq!(held.iter().filter(|picked| name(picked) == "a").count(), 10);
}

fn least_time(until: Until) -> Balance {
    Balance::LeastTime { until, inflight: false }
}

/// Has every peer answer once, after so many milliseconds.
fn timed(pool: &Arc<Pool>, times: &[(&str, u64)], start: Instant) {
    for (route, ms) in times {
        let picked = pool.pick(&of_session(route), &mut Tried::default(), start).unwrap();
        picked.succeeded(start + Duration::from_millis(*ms));
    }
}

#[test]
fn the_quicker_peer_is_asked_and_those_within_20_ms_take_turns() {
    let now = Instant::now();
    let three = || vec![server("a"), server("b"), server("c")];
    let pool = pool(least_time(Until::LastByte), three());
    timed(&pool, &[("a", 300), ("b", 41), ("c", 55)], now);
    let mut four: Vec<_> = (0..4).map(|_| asked(&pool, &CLIENT.into(), now).unwrap()).collect();
    four.sort();
    assert_eq!(four, ["b", "b", "c", "c"]);
}

#[test]
fn a_quick_peer_with_many_requests_is_no_longer_the_quickest() {
    let now = Instant::now();
    let pool = pool(least_time(Until::LastByte), vec![server("a"), server("b")]);
    timed(&pool, &[("a", 90), ("b", 290)], now);
    let held: Vec<_> =
        (0..4).map(|_| pool.pick(&CLIENT.into(), &mut Tried::default(), now).unwrap()).collect();
    // 100 × 1, 100 × 2, then 100 × 3 = 300 × 1: a tie, which takes turns.
    assert_eq!(held.iter().filter(|picked| name(picked) == "a").count(), 3);
}

#[test]
fn a_slow_peer_gets_another_chance_after_fail_timeout() {
    let now = Instant::now();
    let pool = pool(least_time(Until::Header), vec![server("a"), server("b")]);
    timed(&pool, &[("a", 100), ("b", 150)], now);
    assert_eq!(asked(&pool, &CLIENT.into(), now).as_deref(), Some("a"));
    // The one is asked within the window, the other was not since the beginning.
    assert_eq!(asked(&pool, &of_session("a"), now + seconds(11)).as_deref(), Some("a"));
    assert_eq!(asked(&pool, &CLIENT.into(), now + seconds(12)).as_deref(), Some("b"));
}

#[test]
fn the_time_to_the_head_is_another_than_that_to_the_last_byte() {
    let now = Instant::now();
    let answer = |pool: &Arc<Pool>, route: &str, head, last| {
        let mut picked = pool.pick(&of_session(route), &mut Tried::default(), now).unwrap();
        picked.heard(false, now + Duration::from_millis(head));
        picked.succeeded(now + Duration::from_millis(last));
    };
    for (until, expected) in [(Until::Header, "a"), (Until::LastByte, "b")] {
        let pool = pool(least_time(until), vec![server("a"), server("b")]);
        answer(&pool, "a", 10, 900);
        answer(&pool, "b", 100, 200);
        assert_eq!(asked(&pool, &CLIENT.into(), now).as_deref(), Some(expected));
    }
}

#[test]
fn with_inflight_a_peer_that_stopped_answering_is_avoided_before_its_answers_come() {
    let now = Instant::now();
    for inflight in [false, true] {
        let pool =
            pool(Balance::LeastTime { until: Until::Header, inflight }, vec![server("a"), server("b")]);
        for (route, ms) in [("a", 10), ("b", 90)] {
            let mut picked = pool.pick(&of_session(route), &mut Tried::default(), now).unwrap();
            picked.heard(false, now + Duration::from_millis(ms));
            picked.succeeded(now + Duration::from_millis(ms));
        }
        let hangs = pool.pick(&CLIENT.into(), &mut Tried::default(), now).unwrap();
        assert_eq!(name(&hangs), "a");
        let next = asked(&pool, &CLIENT.into(), now + seconds(5)).unwrap();
        assert_eq!(next, if inflight { "b" } else { "a" });
        drop(hangs);
        assert_eq!(asked(&pool, &CLIENT.into(), now + seconds(5)).unwrap(), "a", "nobody waits there now");
    }
}

#[test]
fn a_session_goes_to_its_peer_by_every_method_and_elsewhere_while_that_is_out() {
    let least = least_time(Until::Header);
    let two = Balance::RandomTwo(Least::Conn);
    for balance in
        [Balance::RoundRobin, Balance::LeastConn, Balance::IpHash, Balance::Random, two, least, ring(None)]
    {
        let pool = pool(balance, vec![server("a"), server("b"), server("c")]);
        let now = Instant::now();
        assert!((0..5).all(|_| asked(&pool, &of_session("c"), now).as_deref() == Some("c")));
        pool.pick(&of_session("c"), &mut Tried::default(), now).unwrap().failed(now);
        assert_ne!(asked(&pool, &of_session("c"), now).unwrap(), "c");
        assert_ne!(asked(&pool, &of_session("nobody"), now).unwrap(), "c");
        assert_eq!(asked(&pool, &of_session("c"), now + seconds(11)).as_deref(), Some("c"));
    }
}

#[test]
fn the_retry_of_a_session_goes_to_another_peer() {
    let pool = round_robin(vec![server("a"), server("b")]);
    let (mut tried, now) = (Tried::default(), Instant::now());
    let mut next = || name(&pool.pick(&of_session("a"), &mut tried, now).unwrap());
    assert_eq!([next(), next()], ["a", "b"]);
}

#[test]
fn a_drained_peer_gets_its_sessions_and_nobody_else() {
    let drained = |name| Endpoint { drain: true, ..server(name) };
    let pair = round_robin(vec![drained("a"), server("b")]);
    let now = Instant::now();
    assert_eq!(sequence(&pair, 3, now), "b b b");
    assert_eq!(asked(&pair, &of_session("a"), now).as_deref(), Some("a"));
    let single = round_robin(vec![drained("a")]);
    assert_eq!(pick(&single, now).unwrap_err(), NoPeer::Down);
    assert_eq!(asked(&single, &of_session("a"), now).as_deref(), Some("a"));
}

#[test]
fn a_peer_that_is_down_loses_its_sessions() {
    let pool = round_robin(vec![Endpoint { down: true, ..server("a") }, server("b")]);
    assert_eq!(asked(&pool, &of_session("a"), Instant::now()).as_deref(), Some("b"));
}

fn slow(name: &str) -> Endpoint {
    Endpoint { slow_start: seconds(100), ..server(name) }
}

/// How many of a hundred requests go to `a`, at that moment.
fn share_of_a(pool: &Arc<Pool>, now: Instant) -> usize {
    sequence(pool, 100, now).matches('a').count()
}

#[test]
fn a_share_grows_back_after_failures() {
    let pool = round_robin(vec![slow("a"), slow("b")]);
    let now = Instant::now();
    assert_eq!(share_of_a(&pool, now), 50, "a process that starts has no time to lose");
    pool.pick(&of_session("a"), &mut Tried::default(), now).unwrap().failed(now);
    assert_eq!(share_of_a(&pool, now), 0);
    let back = now + seconds(11);
    pool.pick(&of_session("a"), &mut Tried::default(), back).unwrap().succeeded(back);
    assert!(share_of_a(&pool, back) <= 1);
    // Half of its share beside a whole one is a third.
    assert!((30..=36).contains(&share_of_a(&pool, back + seconds(50))));
    assert!((49..=51).contains(&share_of_a(&pool, back + seconds(100))));
}

#[test]
fn a_share_grows_back_when_the_checks_find_a_peer_well() {
    for balance in [Balance::RoundRobin, Balance::LeastConn] {
        let pool = pool(balance, vec![slow("a"), slow("b")]);
        let now = Instant::now();
        let peer = Arc::clone(&pool.sight(now)[0].peer);
        peer.set_healthy(false);
        assert_eq!(share_of_a(&pool, now), 0);
        peer.set_healthy(true);
        assert!(share_of_a(&pool, now) <= 1);
        assert!((49..=51).contains(&share_of_a(&pool, now + seconds(100))));
    }
}

fn fail_open(endpoints: Vec<Endpoint>) -> Arc<Pool> {
    Pool::build(None, "api".into(), Balance::LeastConn, WhenAllDown::FailOpen, endpoints)
}

#[test]
fn fail_open_asks_everybody_once_nobody_is_left() {
    let pool = fail_open(vec![server("a"), Endpoint { down: true, ..server("b") }, server("c")]);
    let now = Instant::now();
    let sight = pool.sight(now);
    sight[0].peer.set_healthy(false);
    assert_eq!(sequence(&pool, 2, now), "c c", "somebody is left");
    pick(&pool, now).unwrap().failed(now);
    let asked = sequence(&pool, 4, now);
    assert!(asked.contains('a') && asked.contains('c'), "{asked}");
    assert!(!asked.contains('b'), "it is down by the plan");
    let mut tried = Tried::default();
    let once = (0..3).filter(|_| pool.pick(&CLIENT.into(), &mut tried, now).is_ok()).count();
    assert_eq!(once, 2, "each once");
}

#[test]
fn fail_open_keeps_to_max_conns() {
    let pool = fail_open(vec![Endpoint { max_conns: 1, ..server("a") }, server("b")]);
    let now = Instant::now();
    pool.sight(now).iter().for_each(|sight| sight.peer.set_healthy(false));
    let held: Vec<_> = (0..3).map(|_| pick(&pool, now).unwrap()).collect();
    assert_eq!(held.iter().filter(|picked| name(picked) == "a").count(), 1);
}

#[test]
fn without_fail_open_checks_are_believed() {
    let pool = round_robin(vec![server("a"), server("b")]);
    let now = Instant::now();
    pool.sight(now).iter().for_each(|sight| sight.peer.set_healthy(false));
    assert_eq!(pick(&pool, now).unwrap_err(), NoPeer::Down);
}
