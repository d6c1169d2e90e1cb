//! What a pool promises.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{net::IpAddr, time::Duration};

use super::*;

pub(super) const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

pub(super) fn server(name: &str) -> Endpoint {
    let port = name.bytes().map(u16::from).sum();
    Endpoint {
        name: name.into(),
        address: ([127, 0, 0, 1], port).into(),
        weight: 1,
        max_conns: 0,
        max_fails: 1,
        fail_timeout: Duration::from_secs(10),
        backup: false,
        down: false,
        drain: false,
        slow_start: Duration::ZERO,
        route: name.into(),
    }
}

pub(super) fn weighted(name: &str, weight: u32) -> Endpoint {
    Endpoint { weight, ..server(name) }
}

fn backup(name: &str) -> Endpoint {
    Endpoint { backup: true, ..server(name) }
}

pub(super) fn pool(balance: Balance, endpoints: Vec<Endpoint>) -> Arc<Pool> {
    Pool::build(None, "api".into(), balance, WhenAllDown::Pardon, endpoints)
}

pub(super) fn round_robin(endpoints: Vec<Endpoint>) -> Arc<Pool> {
    pool(Balance::RoundRobin, endpoints)
}

/// A first attempt.
pub(super) fn pick(pool: &Arc<Pool>, now: Instant) -> Result<Picked, NoPeer> {
    pool.pick(&CLIENT.into(), &mut Tried::default(), now)
}

pub(super) fn name(picked: &Picked) -> String {
    picked.peer().endpoint().name.to_string()
}

/// The peers of `count` requests, one after the other, all of them successful.
pub(super) fn sequence(pool: &Arc<Pool>, count: usize, now: Instant) -> String {
    let one = |_| {
        let picked = pick(pool, now).unwrap();
        let name = name(&picked);
        picked.succeeded(now);
        name
    };
    (0..count).map(one).collect::<Vec<_>>().join(" ")
}

pub(super) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn weights_five_one_one_give_nginx_own_example() {
    let pool = round_robin(vec![weighted("a", 5), weighted("b", 1), weighted("c", 1)]);
    assert_eq!(sequence(&pool, 7, Instant::now()), "a a b a c a a");
    assert_eq!(sequence(&pool, 7, Instant::now()), "a a b a c a a");
}

#[test]
fn a_retry_goes_to_peers_that_were_not_tried() {
    let pool = round_robin(vec![server("a"), server("b"), server("c")]);
    let (mut tried, now) = (Tried::default(), Instant::now());
    let mut names: Vec<_> =
        (0..3).map(|_| name(&pool.pick(&CLIENT.into(), &mut tried, now).unwrap())).collect();
    names.sort();
    assert_eq!(names, ["a", "b", "c"]);
    assert_eq!(pool.pick(&CLIENT.into(), &mut tried, now).unwrap_err(), NoPeer::Tried);
}

#[test]
fn a_failed_peer_gets_one_probe_after_fail_timeout_and_comes_back_by_its_success() {
    let pool = round_robin(vec![server("a"), server("b")]);
    let start = Instant::now();
    let picked = pick(&pool, start).unwrap();
    assert_eq!(name(&picked), "a");
    picked.failed(start);
    assert_eq!(sequence(&pool, 4, start + seconds(10)), "b b b b");

    let later = start + seconds(11);
    let both: Vec<_> = (0..4).map(|_| pick(&pool, later).unwrap()).collect();
    assert_eq!(both.iter().filter(|picked| name(picked) == "a").count(), 1, "one probe");
    both.into_iter().for_each(|picked| picked.succeeded(later));
    assert!(sequence(&pool, 4, later).contains('a'));
}

#[test]
fn failures_shrink_the_share_which_grows_back_one_a_pick() {
    let pool = round_robin(vec![
        Endpoint { max_fails: 2, ..weighted("a", 4) },
        Endpoint { max_fails: 0, ..weighted("b", 4) },
    ]);
    let now = Instant::now();
    pick(&pool, now).unwrap().failed(now);
    // a: 4 - 4/2 = 2, then 3, then 4: until then b has the larger share.
    assert_eq!(sequence(&pool, 6, now), "b b a b a b");
}

#[test]
fn backups_are_asked_only_when_no_primary_can_be() {
    let pool = round_robin(vec![backup("x"), server("a"), server("b")]);
    let now = Instant::now();
    assert!(!sequence(&pool, 10, now).contains('x'));
    pick(&pool, now).unwrap().failed(now);
    pick(&pool, now).unwrap().failed(now);
    assert_eq!(sequence(&pool, 3, now), "x x x");
}

#[test]
fn a_primary_with_a_backup_is_not_single_and_can_be_taken_out() {
    let pool = round_robin(vec![server("a"), backup("x")]);
    let now = Instant::now();
    pick(&pool, now).unwrap().failed(now);
    assert_eq!(sequence(&pool, 2, now), "x x");
}

#[test]
fn a_single_peer_is_never_taken_out_by_failures() {
    let pool = round_robin(vec![server("a")]);
    let now = Instant::now();
    for _ in 0..10 {
        pick(&pool, now).unwrap().failed(now);
    }
    assert_eq!(sequence(&pool, 1, now), "a");
    assert!(!pool.sight(now)[0].out);
}

#[test]
fn a_stale_connection_lets_the_only_peer_be_asked_again_and_others_be_asked_next() {
    let now = Instant::now();
    let (single, mut tried) = (round_robin(vec![server("a")]), Tried::default());
    single.pick(&CLIENT.into(), &mut tried, now).unwrap().unused(&mut tried);
    single.pick(&CLIENT.into(), &mut tried, now).unwrap().failed(now);
    assert_eq!(single.pick(&CLIENT.into(), &mut tried, now).unwrap_err(), NoPeer::Tried);

    let (pair, mut tried) = (round_robin(vec![server("a"), server("b")]), Tried::default());
    for expected in ["a", "b"] {
        let picked = pair.pick(&CLIENT.into(), &mut tried, now).unwrap();
        assert_eq!(name(&picked), expected);
        picked.unused(&mut tried);
    }
    assert_eq!(pair.pick(&CLIENT.into(), &mut tried, now).unwrap_err(), NoPeer::Tried);
    assert!(pair.sight(now).iter().all(|sight| sight.fails == 0 && sight.peer.active() == 0));
}

#[test]
fn a_down_peer_is_never_asked() {
    let pool = round_robin(vec![Endpoint { down: true, ..server("a") }, server("b")]);
    assert_eq!(sequence(&pool, 3, Instant::now()), "b b b");
    let dark = round_robin(vec![Endpoint { down: true, ..server("a") }]);
    assert_eq!(pick(&dark, Instant::now()).unwrap_err(), NoPeer::Down);
}

#[test]
fn a_sick_peer_is_not_asked_until_the_checks_find_it_well() {
    let pool = round_robin(vec![server("a"), server("b")]);
    let now = Instant::now();
    let sick = Arc::clone(&pool.sight(now)[0].peer);
    sick.set_healthy(false);
    assert_eq!(sequence(&pool, 3, now), "b b b");
    sick.set_healthy(true);
    assert!(sequence(&pool, 3, now).contains('a'));
}

#[test]
fn max_conns_bounds_requests_in_flight_and_a_drop_frees_the_place() {
    let bounded = |name| Endpoint { max_conns: 1, ..server(name) };
    let pool = round_robin(vec![bounded("a"), bounded("b")]);
    let now = Instant::now();
    let first = pick(&pool, now).unwrap();
    let second = pick(&pool, now).unwrap();
    assert_ne!(name(&first), name(&second));
    assert_eq!(pick(&pool, now).unwrap_err(), NoPeer::Full);
    drop(first);
    assert_eq!(name(&pick(&pool, now).unwrap()), "a");
    assert_eq!(second.peer().active(), 1);
}

#[test]
fn when_all_are_out_they_are_pardoned_and_the_next_request_tries() {
    let pool = round_robin(vec![server("a"), server("b"), backup("x")]);
    let now = Instant::now();
    for _ in 0..3 {
        pick(&pool, now).unwrap().failed(now);
    }
    assert_eq!(pick(&pool, now).unwrap_err(), NoPeer::Out);
    assert!(pick(&pool, now).is_ok());
}

#[test]
fn a_request_that_failed_everywhere_pardons_nobody() {
    let pool = round_robin(vec![server("a"), server("b")]);
    let (mut tried, now) = (Tried::default(), Instant::now());
    for _ in 0..2 {
        pool.pick(&CLIENT.into(), &mut tried, now).unwrap().failed(now);
    }
    assert_eq!(pool.pick(&CLIENT.into(), &mut tried, now).unwrap_err(), NoPeer::Tried);
    assert_eq!(pick(&pool, now).unwrap_err(), NoPeer::Out, "so they were still out");
}

#[test]
fn a_full_peer_prevents_the_pardon_of_those_that_are_out() {
    let pool = round_robin(vec![server("a"), Endpoint { max_conns: 1, ..server("b") }]);
    let now = Instant::now();
    pick(&pool, now).unwrap().failed(now);
    let held = pick(&pool, now).unwrap();
    assert_eq!(name(&held), "b");
    for _ in 0..3 {
        assert_eq!(pick(&pool, now).unwrap_err(), NoPeer::Full);
    }
    drop(held);
    assert_eq!(sequence(&pool, 2, now), "b b");
}

#[test]
fn least_conn_weighs_requests_in_flight() {
    let pool = pool(Balance::LeastConn, vec![weighted("a", 2), weighted("b", 1)]);
    let now = Instant::now();
    let held: Vec<_> = (0..9).map(|_| pick(&pool, now).unwrap()).collect();
    assert_eq!(held.iter().filter(|picked| name(picked) == "a").count(), 6);
    assert_eq!(held.iter().filter(|picked| name(picked) == "b").count(), 3);
}

#[test]
fn least_conn_breaks_ties_by_turns() {
    let pool = pool(Balance::LeastConn, vec![server("a"), server("b"), server("c")]);
    assert_eq!(sequence(&pool, 6, Instant::now()), "a b c a b c");
}

#[test]
fn ip_hash_keeps_a_network_on_its_peer_and_spreads_networks() {
    let pool = pool(Balance::IpHash, vec![server("a"), server("b"), server("c")]);
    let now = Instant::now();
    let of =
        |client: [u8; 4]| name(&pool.pick(&IpAddr::from(client).into(), &mut Tried::default(), now).unwrap());
    let mut used = std::collections::HashSet::new();
    for octet in 0..=255 {
        assert_eq!(of([10, 1, octet, 1]), of([10, 1, octet, 200]));
        used.insert(of([10, 1, octet, 1]));
    }
    assert_eq!(used.len(), 3);
}

#[test]
fn ip_hash_moves_a_client_only_while_its_peer_is_out() {
    let pool = pool(Balance::IpHash, vec![server("a"), server("b"), server("c")]);
    let now = Instant::now();
    let home = pick(&pool, now).unwrap();
    let home_name = name(&home);
    home.failed(now);
    assert_ne!(sequence(&pool, 1, now), home_name);
    assert_eq!(sequence(&pool, 1, now + seconds(11)), home_name);
}

#[test]
fn a_reload_keeps_what_is_known_of_peers_that_stay() {
    let now = Instant::now();
    let old = round_robin(vec![server("a"), server("b"), server("c")]);
    pick(&old, now).unwrap().failed(now);
    let held = pick(&old, now).unwrap();
    assert_eq!(name(&held), "b");
    old.sight(now)[2].peer.set_healthy(false);

    let endpoints = vec![server("d"), server("c"), server("b"), server("a")];
    let new = Pool::build(Some(&old), "api".into(), Balance::RoundRobin, WhenAllDown::Pardon, endpoints);
    let sight = new.sight(now);
    assert!(sight[3].out, "a failed before");
    assert_eq!(sight[2].peer.active(), 1, "b is still asked");
    assert!(!sight[1].peer.is_healthy(), "c was found sick");
    drop(held);
    assert_eq!(sight[2].peer.active(), 0);
}

#[test]
fn a_change_of_parameters_keeps_what_is_known_of_the_peer() {
    let now = Instant::now();
    let old = round_robin(vec![server("a"), server("b")]);
    let held = pick(&old, now).unwrap();
    assert_eq!(name(&held), "a");
    old.sight(now)[1].peer.set_healthy(false);
    let endpoints = vec![weighted("a", 2), weighted("b", 3)];
    let new = Pool::build(Some(&old), "api".into(), Balance::RoundRobin, WhenAllDown::Pardon, endpoints);
    let sight = new.sight(now);
    assert_eq!((sight[0].peer.active(), sight[0].peer.endpoint().weight), (1, 2));
    assert!(!sight[1].peer.is_healthy());
    drop(held);
    assert_eq!(sight[0].peer.active(), 0);
}

#[test]
fn the_outcome_of_an_old_request_is_told_to_the_newest_generation() {
    let now = Instant::now();
    let first = round_robin(vec![server("a"), server("b")]);
    let (a, b) = (pick(&first, now).unwrap(), pick(&first, now).unwrap());
    let second = Pool::build(
        Some(&first),
        "api".into(),
        Balance::RoundRobin,
        WhenAllDown::Pardon,
        vec![server("c"), server("a")],
    );
    first.succeeded_by(&second);
    let endpoints = vec![server("d"), server("c"), server("a")];
    let third = Pool::build(Some(&second), "api".into(), Balance::RoundRobin, WhenAllDown::Pardon, endpoints);
    second.succeeded_by(&third);
    a.failed(now);
    b.failed(now);
    let out: Vec<_> = third
        .sight(now)
        .into_iter()
        .filter(|it| it.out)
        .map(|it| it.peer.endpoint().name.to_string())
        .collect();
    assert_eq!(out, ["a"], "b is gone, and nobody else is blamed for it");
}

#[test]
fn a_draining_peer_gets_nobody_new_and_an_empty_pool_has_nobody() {
    let now = Instant::now();
    let pool = round_robin(vec![Endpoint { drain: true, ..server("a") }, server("b")]);
    assert_eq!(sequence(&pool, 3, now), "b b b");
    assert_eq!(pick(&round_robin(Vec::new()), now).unwrap_err(), NoPeer::Down);
}

#[test]
fn under_contention_max_conns_holds_and_every_place_is_given_back() {
    let bounded = |name| Endpoint { max_conns: 3, ..server(name) };
    let pool = round_robin(vec![bounded("a"), bounded("b")]);
    let now = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for round in 0..2000 {
                    let mut held = Vec::new();
                    for _ in 0..3 {
                        if let Ok(picked) = pick(&pool, now) {
                            assert!(picked.peer().active() <= 3);
                            held.push(picked);
                        }
                    }
                    if round % 2 == 0 {
                        held.into_iter().for_each(|picked| picked.succeeded(now));
                    }
                }
            });
        }
    });
    assert!(pool.sight(now).iter().all(|sight| sight.peer.active() == 0));
}
