//! nginx's balancing written down a second time, naively, and compared with the pool over random histories.
//!
//! The model keeps nginx's own variables in nginx's own words and whole seconds; nothing of the pool's code is used.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use proptest::prelude::*;
use weir_config::plan::{Balance, Least, Spread, Until, WhenAllDown};

use super::{Asker, Endpoint, Picked, Pool, Tried, random::lot};

#[derive(Debug, Clone)]
struct Server {
    weight: i64,
    max_conns: i64,
    max_fails: i64,
    fail_timeout: i64,
    backup: bool,
    down: bool,
    drain: bool,
    /// Servers with the same number share a name.
    name: u8,
}

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
    header_time: i64,
    response_time: i64,
    inflight_reqs: i64,
    inflight_last: i64,
    inflight_reqs_changed: i64,
    inflight_time: i64,
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
        !self.server.down && !self.server.drain && !self.out(now) && !self.full()
    }

    /// `ngx_http_upstream_least_time_eta`, in milliseconds.
    fn eta(&self, until: Until, now: i64) -> i64 {
        let mut rt = match until {
            Until::Header => self.header_time,
            Until::LastByte => self.response_time,
        };
        if rt > 0 && now - self.checked > self.server.fail_timeout {
            rt >>= ((now - self.checked) / (self.server.fail_timeout + 1)).min(63);
        }
        if self.inflight_reqs > 0 {
            rt = rt.max(self.inflight_time);
        }
        if rt > 5000 {
            rt = 5000;
        } else {
            rt += 20 - rt % 20;
        }
        rt * (1 + self.conns)
    }

    /// `ngx_http_upstream_least_time_inflight_done`
    fn inflight_done(&mut self, last: i64, now: i64) {
        if self.inflight_reqs == 1 {
            self.inflight_last = 0;
        } else {
            self.inflight_last += (now - self.inflight_reqs_changed) * 1000 * self.inflight_reqs - last;
            self.inflight_reqs_changed = now;
        }
        self.inflight_reqs -= 1;
    }
}

/// What nginx keeps of a request.
#[derive(Clone)]
struct Request {
    net: u8,
    key: String,
    hint: Option<usize>,
    seed: u64,
    tried: Vec<usize>,
    next_group: bool,
    hash: Option<i64>,
    rehash: u32,
    tries: i64,
    began: i64,
    header: Option<i64>,
    inflight: bool,
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
                header_time: 0,
                response_time: 0,
                inflight_reqs: 0,
                inflight_last: 0,
                inflight_reqs_changed: 0,
                inflight_time: 0,
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
                if matches!(self.method, Balance::LeastTime { inflight: true, .. }) && !self.single {
                    if peer.inflight_reqs > 0 {
                        peer.inflight_last += (now - peer.inflight_reqs_changed) * 1000 * peer.inflight_reqs;
                    }
                    peer.inflight_reqs_changed = now;
                    peer.inflight_reqs += 1;
                    request.inflight = true;
                }
                request.next_group = group == 1;
                request.tried.push(peer.id);
                return Some(peer.id);
            }
        }
        // Not nginx's since 1.11.5: the pardon.
        let rests = |server: &Server| server.down || server.drain;
        let up = || self.groups.iter().flatten().filter(|peer| !rests(&peer.server));
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
            let drained = peer.server.drain && request.hint != Some(peer.id);
            return (!peer.server.down && !drained && !peer.full() && request.tried.is_empty()).then_some(0);
        }
        // `ngx_http_upstream_get_rr_peer_by_sid`
        let sticky = (0..peers.len()).find(|&place| {
            let peer = &peers[place];
            let open = !peer.server.down && !peer.out(now) && !peer.full();
            request.hint == Some(peer.id) && open && !request.tried.contains(&peer.id)
        });
        let open: Vec<usize> = (0..peers.len())
            .filter(|&place| peers[place].usable(now) && !request.tried.contains(&peers[place].id))
            .collect();
        if let Some(place) = sticky {
            if self.method == Balance::RoundRobin {
                let others: i64 =
                    peers.iter().map(|peer| peer.server.weight).sum::<i64>() - peers[place].server.weight;
                if peers[place].current_weight > -others {
                    let total = hand_out(peers, &open);
                    peers[place].current_weight -= total;
                }
            }
            return Some(place);
        }
        let line: Vec<usize> = (0..peers.len())
            .flat_map(|place| vec![place; usize::try_from(peers[place].server.weight).unwrap()])
            .collect();
        let at = |hash: i64| line[usize::try_from(hash).unwrap() % line.len()];
        match &self.method {
            Balance::IpHash if group == 0 && peers.len() >= 2 => {
                while request.tries <= 20 {
                    let mut hash = request.hash.unwrap_or(89);
                    for octet in [10, 0, i64::from(request.net)] {
                        hash = (hash * 113 + octet) % 6271;
                    }
                    request.hash = Some(hash);
                    if open.contains(&at(hash)) {
                        return Some(at(hash));
                    }
                    request.tries += 1;
                }
                smooth(peers, &open)
            }
            Balance::Hash { spread: Spread::Remainder, .. } if group == 0 && peers.len() >= 2 => {
                while request.tries <= 20 && !request.key.is_empty() {
                    let rehash = if request.rehash > 0 { request.rehash.to_string() } else { String::new() };
                    let crc = crc32fast::hash(format!("{rehash}{}", request.key).as_bytes());
                    let hash = request.hash.unwrap_or(0) + i64::from(crc >> 16 & 0x7fff);
                    (request.hash, request.rehash) = (Some(hash), request.rehash + 1);
                    if open.contains(&at(hash)) {
                        return Some(at(hash));
                    }
                    request.tries += 1;
                }
                smooth(peers, &open)
            }
            Balance::Hash { spread: Spread::Ring { .. }, .. } if group == 0 => {
                let points = ring(peers);
                while request.tries <= 20 && !request.key.is_empty() {
                    let crc = crc32fast::hash(request.key.as_bytes());
                    let first = || points.iter().position(|(hash, _)| *hash >= crc).unwrap_or(points.len());
                    let hash = request.hash.unwrap_or_else(|| i64::try_from(first()).unwrap());
                    let (_, name) = points[usize::try_from(hash).unwrap() % points.len()];
                    let its: Vec<usize> =
                        open.iter().copied().filter(|&place| peers[place].server.name == name).collect();
                    if !its.is_empty() {
                        request.hash = Some(hash);
                        return smooth(peers, &its);
                    }
                    request.hash = Some(hash + 1);
                    request.tries += 1;
                }
                smooth(peers, &open)
            }
            Balance::Random | Balance::RandomTwo(_) if group == 0 && peers.len() >= 2 => {
                let mut prev: Option<usize> = None;
                while request.tries <= 20 {
                    let place = at(i64::from(lot(request.seed, request.rehash)));
                    request.rehash += 1;
                    if prev == Some(place) || !open.contains(&place) {
                        request.tries += 1;
                        continue;
                    }
                    let Balance::RandomTwo(least) = &self.method else { return Some(place) };
                    let Some(other) = prev else {
                        prev = Some(place);
                        continue;
                    };
                    let load = |peer: &Rr| match least {
                        Least::Conn => peer.conns,
                        Least::Time(until) => peer.eta(*until, now),
                    };
                    let (peer, prev) = (&peers[place], &peers[other]);
                    let worse = load(peer) * prev.server.weight > load(prev) * peer.server.weight;
                    return Some(if worse { other } else { place });
                }
                smooth(peers, &open)
            }
            Balance::LeastConn | Balance::LeastTime { .. } => {
                for &place in &open {
                    let peer = &mut peers[place];
                    if peer.inflight_reqs > 0 {
                        let time = peer.inflight_last / peer.inflight_reqs
                            + (now - peer.inflight_reqs_changed) * 1000;
                        average(&mut peer.inflight_time, time);
                    }
                }
                let load = |place: usize| {
                    let work = match &self.method {
                        Balance::LeastTime { until, .. } => peers[place].eta(*until, now),
                        _ => peers[place].conns,
                    };
                    (work, peers[place].server.weight)
                };
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

    /// `ngx_http_upstream_least_time_notify`
    fn notify_header(&mut self, id: usize, request: &mut Request, now: i64) {
        let last = (now - request.began) * 1000;
        request.header = Some(last);
        let notes = matches!(self.method, Balance::LeastTime { until: Until::Header, inflight: true });
        let peer = self.groups.iter_mut().flatten().find(|peer| peer.id == id).unwrap();
        if notes && std::mem::take(&mut request.inflight) {
            average(&mut peer.header_time, last);
            peer.inflight_done(last, now);
        }
    }

    fn free(&mut self, id: usize, failed: bool, request: &Request, now: i64) {
        let single = self.single;
        let peer = self.groups.iter_mut().flatten().find(|peer| peer.id == id).unwrap();
        peer.conns -= 1;
        let time = (now - request.began) * 1000;
        if request.inflight {
            peer.inflight_done(time, now);
        }
        if !failed {
            average(&mut peer.response_time, time);
            if !matches!(self.method, Balance::LeastTime { until: Until::Header, inflight: true }) {
                average(&mut peer.header_time, request.header.unwrap_or(time));
            }
        }
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

/// `ngx_http_upstream_response_time_avg`
fn average(average: &mut i64, time: i64) {
    let moved = 0.5 + (time as f64 * 0.05 + *average as f64 * 0.95);
    *average = if *average == 0 { time } else { moved as i64 };
}

/// `ngx_http_upstream_update_chash`: hashes with the names they belong to.
fn ring(peers: &[Rr]) -> Vec<(u32, u8)> {
    let mut points: Vec<(u32, u8)> = Vec::new();
    for peer in peers {
        let mut prev = 0_u32;
        for _ in 0..peer.server.weight * 160 {
            let mut text = format!("h{}\080", peer.server.name).into_bytes();
            text.extend(prev.to_le_bytes());
            prev = crc32fast::hash(&text);
            points.push((prev, peer.server.name));
        }
    }
    points.sort_by_key(|(hash, _)| *hash);
    points.dedup_by_key(|(hash, _)| *hash);
    points
}

fn smooth(peers: &mut [Rr], among: &[usize]) -> Option<usize> {
    let total = hand_out(peers, among);
    let most = among.iter().map(|&place| peers[place].current_weight).max()?;
    let best = among.iter().copied().find(|&place| peers[place].current_weight == most)?;
    peers[best].current_weight -= total;
    Some(best)
}

fn hand_out(peers: &mut [Rr], among: &[usize]) -> i64 {
    let total = among.iter().map(|&place| peers[place].effective_weight).sum();
    for &place in among {
        let peer = &mut peers[place];
        peer.current_weight += peer.effective_weight;
        peer.effective_weight = peer.server.weight.min(peer.effective_weight + 1);
    }
    total
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
