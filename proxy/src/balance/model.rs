//! nginx's balancing written down a second time, naively, and compared with the pool over random histories.
//!
//! The model keeps nginx's own variables in nginx's own words and whole seconds; nothing of the pool's code is used.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use proptest::prelude::*;
use weir_config::plan::Balance;

use super::{Endpoint, Picked, Pool, Tried};

#[derive(Debug, Clone)]
struct Server {
    weight: i64,
    max_conns: i64,
    max_fails: i64,
    fail_timeout: i64,
    backup: bool,
    down: bool,
}

#[derive(Debug, Clone)]
enum Event {
    /// A request from 10.0.`net`.1 begins.
    Begin { net: u8 },
    /// The request at this place (modulo those under way) ends well.
    End { at: usize },
    /// It fails, and goes to the next peer.
    Fail { at: usize },
    /// Time passes.
    Pass { seconds: i64 },
}

/// One peer in nginx's variables; times before the start are far in the past, as nginx's zero is.
struct Rr {
    server: Server,
    id: usize,
    conns: i64,
    fails: i64,
    current_weight: i64,
    effective_weight: i64,
    accessed: i64,
    checked: i64,
}

impl Rr {
    fn out(&self, now: i64) -> bool {
        self.server.max_fails > 0
            && self.fails >= self.server.max_fails
            && now - self.checked <= self.server.fail_timeout
    }

    fn full(&self) -> bool {
        self.server.max_conns > 0 && self.conns >= self.server.max_conns
    }

    fn usable(&self, now: i64) -> bool {
        !self.server.down && !self.out(now) && !self.full()
    }
}

/// What nginx keeps of a request.
#[derive(Clone)]
struct Request {
    net: u8,
    tried: Vec<usize>,
    next_group: bool,
    hash: i64,
    tries: i64,
}

struct Model {
    method: Balance,
    groups: [Vec<Rr>; 2],
    single: bool,
}

impl Model {
    fn new(method: Balance, servers: &[Server]) -> Self {
        let group = |backup: bool, first: usize| {
            let chosen = servers.iter().filter(|server| server.backup == backup);
            let rr = |(id, server): (usize, &Server)| Rr {
                server: server.clone(),
                id: first + id,
                conns: 0,
                fails: 0,
                current_weight: 0,
                effective_weight: server.weight,
                accessed: i64::MIN / 2,
                checked: i64::MIN / 2,
            };
            chosen.enumerate().map(rr).collect::<Vec<_>>()
        };
        let primaries = group(false, 0);
        let backups = group(true, primaries.len());
        let single = primaries.len() == 1 && backups.is_empty();
        Self { method, groups: [primaries, backups], single }
    }

    fn get(&mut self, request: &mut Request, now: i64) -> Option<usize> {
        for group in usize::from(request.next_group)..2 {
            let found = self.get_from(group, request, now);
            if let Some(place) = found {
                let peer = &mut self.groups[group][place];
                if now - peer.checked > peer.server.fail_timeout {
                    peer.checked = now;
                }
                peer.conns += 1;
                request.next_group = group == 1;
                request.tried.push(peer.id);
                return Some(peer.id);
            }
        }
        // Not nginx's since 1.11.5: the pardon.
        let up = || self.groups.iter().flatten().filter(|peer| !peer.server.down);
        let dark = !self.single
            && up().all(|peer| peer.out(now))
            && up().any(|peer| !request.tried.contains(&peer.id));
        if dark {
            self.groups.iter_mut().flatten().for_each(|peer| peer.fails = 0);
        }
        None
    }

    fn get_from(&mut self, group: usize, request: &mut Request, now: i64) -> Option<usize> {
        let single = self.single;
        let peers = &mut self.groups[group];
        if single && group == 0 {
            let peer = &peers[0];
            return (!peer.server.down && !peer.full() && request.tried.is_empty()).then_some(0);
        }
        let open: Vec<usize> = (0..peers.len())
            .filter(|&place| peers[place].usable(now) && !request.tried.contains(&peers[place].id))
            .collect();
        match self.method {
            Balance::IpHash if group == 0 && peers.len() >= 2 => {
                let line: Vec<usize> = (0..peers.len())
                    .flat_map(|place| vec![place; usize::try_from(peers[place].server.weight).unwrap()])
                    .collect();
                while request.tries <= 20 {
                    for octet in [10, 0, i64::from(request.net)] {
                        request.hash = (request.hash * 113 + octet) % 6271;
                    }
                    let place = line[usize::try_from(request.hash).unwrap() % line.len()];
                    if open.contains(&place) {
                        return Some(place);
                    }
                    request.tries += 1;
                }
                smooth(peers, &open)
            }
            Balance::LeastConn => {
                let load = |place: usize| (peers[place].conns, peers[place].server.weight);
                let less = |(a, v): (i64, i64), (b, w): (i64, i64)| a * w < b * v;
                let least = open
                    .iter()
                    .copied()
                    .reduce(|best, next| if less(load(next), load(best)) { next } else { best })?;
                let ties: Vec<usize> =
                    open.into_iter().filter(|&place| !less(load(least), load(place))).collect();
                if ties.len() == 1 { Some(least) } else { smooth(peers, &ties) }
            }
            _ => smooth(peers, &open),
        }
    }

    fn free(&mut self, id: usize, failed: bool, now: i64) {
        let single = self.single;
        let peer = self.groups.iter_mut().flatten().find(|peer| peer.id == id).unwrap();
        peer.conns -= 1;
        if single {
            peer.fails = 0;
        } else if failed {
            peer.fails += 1;
            (peer.accessed, peer.checked) = (now, now);
            if peer.server.max_fails > 0 {
                peer.effective_weight -= peer.server.weight / peer.server.max_fails;
            }
            peer.effective_weight = peer.effective_weight.max(0);
        } else if peer.accessed < peer.checked {
            peer.fails = 0;
        }
    }
}

fn smooth(peers: &mut [Rr], among: &[usize]) -> Option<usize> {
    let total: i64 = among.iter().map(|&place| peers[place].effective_weight).sum();
    for &place in among {
        let peer = &mut peers[place];
        peer.current_weight += peer.effective_weight;
        peer.effective_weight = peer.server.weight.min(peer.effective_weight + 1);
    }
    let most = among.iter().map(|&place| peers[place].current_weight).max()?;
    let best = among.iter().copied().find(|&place| peers[place].current_weight == most)?;
    peers[best].current_weight -= total;
    Some(best)
}

fn servers() -> impl Strategy<Value = Vec<Server>> {
    let server = (1..6i64, 0..4i64, 0..4i64, 0..6i64, prop::bool::weighted(0.25), prop::bool::weighted(0.15))
        .prop_map(|(weight, max_conns, max_fails, fail_timeout, backup, down)| Server {
            weight,
            max_conns,
            max_fails,
            fail_timeout,
            backup,
            down,
        });
    prop::collection::vec(server, 1..6).prop_map(|mut servers| {
        servers[0].backup = false;
        servers
    })
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => (0..8u8).prop_map(|net| Event::Begin { net }),
        2 => any::<usize>().prop_map(|at| Event::End { at }),
        3 => any::<usize>().prop_map(|at| Event::Fail { at }),
        1 => (1..8i64).prop_map(|seconds| Event::Pass { seconds }),
    ];
    prop::collection::vec(event, 1..120)
}

fn method() -> impl Strategy<Value = Balance> {
    prop_oneof![Just(Balance::RoundRobin), Just(Balance::LeastConn), Just(Balance::IpHash)]
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
        let endpoint = |server: &Server| Endpoint {
            name: "s".into(),
            address: ([127, 0, 0, 1], 80).into(),
            weight: u32::try_from(server.weight).unwrap(),
            max_conns: u32::try_from(server.max_conns).unwrap(),
            max_fails: u32::try_from(server.max_fails).unwrap(),
            fail_timeout: Duration::from_secs(server.fail_timeout.unsigned_abs()),
            backup: server.backup,
            down: server.down,
            drain: false,
        };
        let pool = Pool::build(None, "s".into(), method, servers.iter().map(endpoint).collect());
        let mut model = Model::new(method, &servers);
        let mut under_way: Vec<Flight> = Vec::new();
        let (start, mut clock) = (Instant::now(), 0i64);

        for event in events {
            let now = start + Duration::from_secs(clock.unsigned_abs());
            let (mut request, mut tried) = match event {
                Event::Pass { seconds } => { clock += seconds; continue; }
                Event::Begin { net } => {
                    let request = Request { net, tried: vec![], next_group: false, hash: 89, tries: 0 };
                    (request, Tried::default())
                }
                Event::End { at } | Event::Fail { at } => {
                    if under_way.is_empty() { continue; }
                    let flight = under_way.remove(at % under_way.len());
                    let failed = matches!(event, Event::Fail { .. });
                    model.free(flight.id, failed, clock);
                    if !failed { flight.picked.succeeded(); continue; }
                    flight.picked.failed(now);
                    (flight.request, flight.tried)
                }
            };
            let expected = model.get(&mut request, clock);
            let client = IpAddr::from([10, 0, request.net, 1]);
            match (pool.pick(client, &mut tried, now), expected) {
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
