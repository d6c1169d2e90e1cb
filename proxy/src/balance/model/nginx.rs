//! nginx's own variables in nginx's own words and whole seconds, a function for each of its modules; nothing of the pool's code.

use weir_config::plan::{Balance, Least, Spread, Until};

use crate::balance::random::lot;

#[derive(Debug, Clone)]
pub(super) struct Server {
    pub(super) weight: i64,
    pub(super) max_conns: i64,
    pub(super) max_fails: i64,
    pub(super) fail_timeout: i64,
    pub(super) backup: bool,
    pub(super) down: bool,
    pub(super) drain: bool,
    /// Servers with the same number share a name.
    pub(super) name: u8,
}

/// One peer in nginx's variables; times before the start are far in the past, as nginx's zero is.
pub(super) struct Rr {
    server: Server,
    id: usize,
    pub(super) conns: i64,
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
pub(super) struct Request {
    pub(super) net: u8,
    pub(super) key: String,
    pub(super) hint: Option<usize>,
    pub(super) seed: u64,
    pub(super) tried: Vec<usize>,
    pub(super) next_group: bool,
    pub(super) hash: Option<i64>,
    pub(super) rehash: u32,
    pub(super) tries: i64,
    pub(super) began: i64,
    pub(super) header: Option<i64>,
    pub(super) inflight: bool,
}

pub(super) struct Model {
    method: Balance,
    pub(super) groups: [Vec<Rr>; 2],
    single: bool,
}

impl Model {
    pub(super) fn new(method: Balance, servers: &[Server]) -> Self {
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

    pub(super) fn get(&mut self, request: &mut Request, now: i64) -> Option<usize> {
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
        match &self.method {
            Balance::IpHash if group == 0 && peers.len() >= 2 => ip_hash(peers, &open, request),
            Balance::Hash { spread: Spread::Remainder, .. } if group == 0 && peers.len() >= 2 => {
                hash(peers, &open, request)
            }
            Balance::Hash { spread: Spread::Ring { .. }, .. } if group == 0 => chash(peers, &open, request),
            Balance::Random if group == 0 && peers.len() >= 2 => random(peers, &open, None, request, now),
            Balance::RandomTwo(least) if group == 0 && peers.len() >= 2 => {
                random(peers, &open, Some(*least), request, now)
            }
            Balance::LeastConn => least(peers, open, None, now),
            Balance::LeastTime { until, .. } => least(peers, open, Some(*until), now),
            _ => smooth(peers, &open),
        }
    }

    /// `ngx_http_upstream_least_time_notify`
    pub(super) fn notify_header(&mut self, id: usize, request: &mut Request, now: i64) {
        let last = (now - request.began) * 1000;
        request.header = Some(last);
        let notes = matches!(self.method, Balance::LeastTime { until: Until::Header, inflight: true });
        let peer = self.groups.iter_mut().flatten().find(|peer| peer.id == id).unwrap();
        if notes && std::mem::take(&mut request.inflight) {
            average(&mut peer.header_time, last);
            peer.inflight_done(last, now);
        }
    }

    pub(super) fn free(&mut self, id: usize, failed: bool, request: &Request, now: i64) {
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

/// `ngx_http_upstream_get_ip_hash_peer`
fn ip_hash(peers: &mut [Rr], open: &[usize], request: &mut Request) -> Option<usize> {
    let line = line(peers);
    let at = |hash: i64| line[usize::try_from(hash).unwrap() % line.len()];
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
    smooth(peers, open)
}

/// `ngx_http_upstream_get_hash_peer`
fn hash(peers: &mut [Rr], open: &[usize], request: &mut Request) -> Option<usize> {
    let line = line(peers);
    let at = |hash: i64| line[usize::try_from(hash).unwrap() % line.len()];
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
    smooth(peers, open)
}

/// `ngx_http_upstream_get_chash_peer`
fn chash(peers: &mut [Rr], open: &[usize], request: &mut Request) -> Option<usize> {
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
    smooth(peers, open)
}

/// `ngx_http_upstream_get_random_peer`; with `two`, `ngx_http_upstream_get_random2_peer`.
fn random(
    peers: &mut [Rr],
    open: &[usize],
    two: Option<Least>,
    request: &mut Request,
    now: i64,
) -> Option<usize> {
    let line = line(peers);
    let at = |hash: i64| line[usize::try_from(hash).unwrap() % line.len()];
    let mut prev: Option<usize> = None;
    while request.tries <= 20 {
        let place = at(i64::from(lot(request.seed, request.rehash)));
        request.rehash += 1;
        if prev == Some(place) || !open.contains(&place) {
            request.tries += 1;
            continue;
        }
        let Some(least) = two else { return Some(place) };
        let Some(other) = prev else {
            prev = Some(place);
            continue;
        };
        let load = |peer: &Rr| match least {
            Least::Conn => peer.conns,
            Least::Time(until) => peer.eta(until, now),
        };
        let (peer, prev) = (&peers[place], &peers[other]);
        let worse = load(peer) * prev.server.weight > load(prev) * peer.server.weight;
        return Some(if worse { other } else { place });
    }
    smooth(peers, open)
}

/// `ngx_http_upstream_get_least_conn_peer`; with `until`, the same by `ngx_http_upstream_least_time_eta`.
fn least(peers: &mut [Rr], open: Vec<usize>, until: Option<Until>, now: i64) -> Option<usize> {
    for &place in &open {
        let peer = &mut peers[place];
        if peer.inflight_reqs > 0 {
            let time = peer.inflight_last / peer.inflight_reqs + (now - peer.inflight_reqs_changed) * 1000;
            average(&mut peer.inflight_time, time);
        }
    }
    let load = |place: usize| {
        let work = until.map_or(peers[place].conns, |until| peers[place].eta(until, now));
        (work, peers[place].server.weight)
    };
    let less = |(a, v): (i64, i64), (b, w): (i64, i64)| a * w < b * v;
    let least =
        open.iter().copied().reduce(|best, next| if less(load(next), load(best)) { next } else { best })?;
    let ties: Vec<usize> = open.into_iter().filter(|&place| !less(load(least), load(place))).collect();
    if ties.len() == 1 { Some(least) } else { smooth(peers, &ties) }
}

/// Each peer as often as it weighs.
fn line(peers: &[Rr]) -> Vec<usize> {
    let times = |place: usize| vec![place; usize::try_from(peers[place].server.weight).unwrap()];
    (0..peers.len()).flat_map(times).collect()
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
