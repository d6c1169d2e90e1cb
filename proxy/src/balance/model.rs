//! nginx's balancing written down a second time, naively, and compared with the pool over random histories.
//!
//! The model is in [`nginx`].
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod nginx;

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use proptest::prelude::*;
use weir_config::plan::{Balance, Least, Spread, Until, WhenAllDown};

use self::nginx::{Model, Request, Server};
use super::{Asker, Endpoint, Picked, Pool, Tried};

#[derive(Debug, Clone)]
enum Event {
    /// A request from 10.0.`net`.1 for that key begins, maybe with the session of this server.
    Begin { net: u8, session: Option<usize>, seed: u64 },
    /// The request at this place gets the head of its answer.
    Head { at: usize },
    /// The request at this place (modulo those under way) ends well.
    End { at: usize },
    /// It fails, and goes to the next peer.
    Fail { at: usize },
    /// Time passes.
    Pass { seconds: i64 },
}

fn servers() -> impl Strategy<Value = Vec<Server>> {
    let bounds = (1..6i64, 0..4i64, 0..4i64, 0..6i64);
    let rests = (prop::bool::weighted(0.25), prop::bool::weighted(0.15), prop::bool::weighted(0.15));
    let server = (bounds, rests, 0..4u8).prop_map(|(bounds, (backup, down, drain), name)| {
        let (weight, max_conns, max_fails, fail_timeout) = bounds;
        Server { weight, max_conns, max_fails, fail_timeout, backup, down, drain, name }
    });
    prop::collection::vec(server, 1..6).prop_map(|mut servers| {
        servers[0].backup = false;
        servers
    })
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => (0..8u8, prop::option::weighted(0.4, 0..5usize), any::<u64>())
            .prop_map(|(net, session, seed)| Event::Begin { net, session, seed }),
        1 => any::<usize>().prop_map(|at| Event::Head { at }),
        2 => any::<usize>().prop_map(|at| Event::End { at }),
        3 => any::<usize>().prop_map(|at| Event::Fail { at }),
        1 => (1..8i64).prop_map(|seconds| Event::Pass { seconds }),
    ];
    prop::collection::vec(event, 1..120)
}

fn method() -> impl Strategy<Value = Balance> {
    let hash = |spread| Balance::Hash { key: "${request.target}".parse().unwrap(), spread };
    let until = || prop_oneof![Just(Until::Header), Just(Until::LastByte)];
    prop_oneof![
        Just(Balance::RoundRobin),
        Just(Balance::LeastConn),
        Just(Balance::IpHash),
        Just(hash(Spread::Remainder)),
        Just(hash(Spread::Ring { bound: None })),
        Just(Balance::Random),
        Just(Balance::RandomTwo(Least::Conn)),
        until().prop_map(|until| Balance::RandomTwo(Least::Time(until))),
        (until(), any::<bool>()).prop_map(|(until, inflight)| Balance::LeastTime { until, inflight }),
    ]
}

/// A request under way, in the model and in the pool.
struct Flight {
    request: Request,
    tried: Tried,
    id: usize,
    picked: Picked,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn the_pool_picks_whom_nginx_picks(method in method(), servers in servers(), events in events()) {
        // In the model's order, by which its peers and the sessions are numbered.
        let (backups, primaries): (Vec<_>, Vec<_>) = servers.iter().partition(|server| server.backup);
        let endpoint = |(id, server): (usize, &Server)| Endpoint {
            name: format!("h{}:80", server.name).into(),
            address: ([127, 0, 0, 1], 80).into(),
            weight: u32::try_from(server.weight).unwrap(),
            max_conns: u32::try_from(server.max_conns).unwrap(),
            max_fails: u32::try_from(server.max_fails).unwrap(),
            fail_timeout: Duration::from_secs(server.fail_timeout.unsigned_abs()),
            backup: server.backup,
            down: server.down,
            drain: server.drain,
            slow_start: Duration::ZERO,
            route: format!("r{id}").into(),
        };
        let endpoints = primaries.into_iter().chain(backups).enumerate().map(endpoint).collect();
        let pool = Pool::build(None, "s".into(), method.clone(), WhenAllDown::Pardon, endpoints);
        let mut model = Model::new(method, &servers);
        let mut under_way: Vec<Flight> = Vec::new();
        let (start, mut clock) = (Instant::now(), 0i64);

        for event in events {
            let now = start + Duration::from_secs(clock.unsigned_abs());
            let (mut request, mut tried) = match event {
                Event::Pass { seconds } => { clock += seconds; continue; }
                Event::Begin { net, session, seed } => {
                    let key = if net == 7 { String::new() } else { format!("/key/{net}") };
                    let request = Request {
                        net, key, hint: session, seed, tried: vec![], next_group: false, hash: None, rehash: 0,
                        tries: 0, began: clock, header: None, inflight: false,
                    };
                    (request, Tried::default())
                }
                Event::Head { at } => {
                    if under_way.is_empty() { continue; }
                    let at = at % under_way.len();
                    let flight = &mut under_way[at];
                    model.notify_header(flight.id, &mut flight.request, clock);
                    flight.picked.heard(false, now);
                    continue;
                }
                Event::End { at } | Event::Fail { at } => {
                    if under_way.is_empty() { continue; }
                    let mut flight = under_way.remove(at % under_way.len());
                    let failed = matches!(event, Event::Fail { .. });
                    model.free(flight.id, failed, &flight.request, clock);
                    if !failed { flight.picked.succeeded(now); continue; }
                    flight.picked.failed(now);
                    (flight.request.began, flight.request.header, flight.request.inflight) = (clock, None, false);
                    (flight.request, flight.tried)
                }
            };
            let expected = model.get(&mut request, clock);
            let asker = Asker {
                client: IpAddr::from([10, 0, request.net, 1]),
                key: request.key.clone(),
                route: request.hint.map(|id| format!("r{id}").into()),
                seed: request.seed,
            };
            match (pool.pick(&asker, &mut tried, now), expected) {
                (Ok(picked), Some(id)) => {
                    prop_assert_eq!(picked.index, id);
                    under_way.push(Flight { request, tried, id, picked });
                }
                (Err(_), None) => {}
                (got, expected) => prop_assert!(false, "pool {:?}, nginx {:?}", got, expected),
            }
        }
        let active: i64 = model.groups.iter().flatten().map(|peer| peer.conns).sum();
        let counted: u32 = pool.sight(Instant::now()).iter().map(|sight| sight.peer.active()).sum();
        prop_assert_eq!(i64::from(counted), active);
    }
}
