//! Who serves an upstream now: its servers, the addresses each of them has, and the pool made of them.
//!
//! Three things change it while the plan is in force: an operator (servers come, go and change), the name servers
//! (addresses come and go), and a reload, which begins a new roster with what the old one knows. Each makes a new
//! generation of the pool; peers that stay keep their requests, failures, health and connections. A name that gives no
//! answer keeps its last addresses, even when the answer is that it does not exist: nginx drops them then, and a zone
//! that was loaded badly would take a whole site down.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use parking_lot::Mutex;
use rand::Rng;
use tokio_util::sync::{CancellationToken, DropGuard};
use weir_config::{
    change::{self, Change, Refused},
    plan::{self, Server},
};

use crate::balance::{
    Endpoint, Peer, Pool,
    names::Names,
    probe::{self, Check},
    resolve::{self, Unresolved},
};

/// After a look-up that failed; nginx waits for its `resolver_timeout`.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// Who serves an upstream.
#[derive(Debug)]
pub struct Roster {
    plan: plan::Upstream,
    check: Option<Check>,
    names: Arc<Names>,
    /// Ends everything that watches for this roster.
    stop: CancellationToken,
    pool: ArcSwap<Pool>,
    listed: Mutex<Listed>,
    /// One change after the other: each is checked against what the one before it left.
    changing: tokio::sync::Mutex<()>,
}

/// What the pool is made of.
#[derive(Debug, Default)]
struct Listed {
    servers: Vec<Server>,
    /// The last addresses of each server, by its name.
    found: HashMap<String, Vec<Endpoint>>,
    /// Whoever looks a server up again ends with its guard.
    lookups: HashMap<String, DropGuard>,
    /// One check for each peer that can be asked.
    probes: Vec<(Arc<Peer>, DropGuard)>,
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum CannotChange {
    /// It is wrong in itself.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The server has no address.
    #[error(transparent)]
    Unresolved(#[from] Unresolved),
}

impl Roster {
    /// The roster of a plan's upstream, with what `old` knows of it.
    ///
    /// Shape:  a server with `resolve` may have no address yet: it is looked up again until it has.
    /// Errors: every other server that has none.
    pub(super) async fn build(
        plan: &plan::Upstream,
        old: Option<&Self>,
        check: Option<Check>,
        names: Arc<Names>,
        stop: &CancellationToken,
    ) -> Result<Arc<Self>, Vec<Unresolved>> {
        let (servers, mut found, before) = match old {
            None => (plan.servers.clone(), HashMap::new(), None),
            Some(old) => {
                let listed = old.listed.lock();
                let servers = change::carried_over(&old.plan.servers, &listed.servers, &plan.servers);
                (servers, listed.found.clone(), Some(old.pool()))
            }
        };
        // What is looked up again anyway need not hold up a reload.
        let unknown = servers.iter().filter(|server| !(server.resolve && found.contains_key(server.name())));
        let answers =
            join_all(unknown.map(async |server| (server, resolve::resolve(server, &names).await))).await;
        let mut problems = Vec::new();
        for (server, answer) in answers {
            match answer {
                Ok((endpoints, _)) => {
                    found.insert(server.name().to_owned(), endpoints);
                }
                Err(problem) if server.resolve => {
                    tracing::warn!(upstream = %plan.name, %problem, "looked up again until it has an address");
                }
                Err(problem) => problems.push(problem),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let endpoints = endpoints(&servers, &found);
        let roster = Arc::new(Self {
            plan: plan.clone(),
            check,
            names,
            stop: stop.clone(),
            pool: ArcSwap::new(Pool::rebuild(before.as_deref(), plan, endpoints)),
            listed: Mutex::new(Listed { servers, found, ..Listed::default() }),
            changing: tokio::sync::Mutex::default(),
        });
        roster.watch(&mut roster.listed.lock());
        Ok(roster)
    }

    /// The generation of the pool that is in force; a request keeps one for all of its attempts.
    pub fn pool(&self) -> Arc<Pool> {
        self.pool.load_full()
    }

    /// The servers as they are now, and whether each is as the file says.
    pub fn servers(&self) -> Vec<(Server, bool)> {
        let as_written =
            |server: &Server| self.plan.servers.iter().any(|written| change::same(written, server));
        self.listed.lock().servers.iter().map(|server| (server.clone(), as_written(server))).collect()
    }

    /// Makes a change, and says which server it was about, and what differs now ([`change::differences`]).
    ///
    /// # Errors
    /// [`CannotChange`]; nothing has changed then.
    pub async fn change(self: &Arc<Self>, change: Change<'_>) -> Result<(String, Vec<String>), CannotChange> {
        let _one_at_a_time = self.changing.lock().await;
        let now = self.listed.lock().servers.clone();
        let (servers, about) = change.apply(&self.plan, &now)?;
        let mut found = None;
        let added = servers.iter().find(|server| server.name() == about);
        // What a service said was read with the parameters that its server had.
        let is_known = |new: &&Server| {
            now.iter().any(|known| match &new.service {
                None => (known.name(), known.resolve) == (new.name(), new.resolve),
                Some(_) => change::same(known, new),
            })
        };
        if let Some(server) = added.filter(|new| !is_known(new)) {
            found = Some(resolve::resolve(server, &self.names).await?.0);
        }
        let before = now.iter().find(|server| server.name() == about);
        let differences = added.map(|after| change::differences(before, after)).unwrap_or_default();
        let mut listed = self.listed.lock();
        if let Some(found) = found {
            listed.lookups.remove(&about);
            listed.found.insert(about.clone(), found);
        }
        listed.servers = servers;
        self.settle(&mut listed);
        Ok((about, differences))
    }

    /// What requests of this roster learn of peers belongs to `next` from now on.
    pub(super) fn succeeded_by(&self, next: &Self) {
        self.pool().succeeded_by(&next.pool());
    }

    /// Makes the next generation of the pool, if it differs from the one in force, and has its peers watched.
    fn settle(self: &Arc<Self>, listed: &mut Listed) {
        let names: Vec<_> = listed.servers.iter().map(|server| server.name().to_owned()).collect();
        listed.found.retain(|name, _| names.contains(name));
        let endpoints = endpoints(&listed.servers, &listed.found);
        let old = self.pool();
        let sight = old.sight(Instant::now());
        if !sight.iter().map(|sight| sight.peer.endpoint()).eq(&endpoints) {
            let next = Pool::rebuild(Some(&old), &self.plan, endpoints);
            old.succeeded_by(&next);
            self.pool.store(next);
        }
        self.watch(listed);
    }

    /// Begins to watch who is new, and ends watching who is gone.
    fn watch(self: &Arc<Self>, listed: &mut Listed) {
        let servers = &listed.servers;
        listed.lookups.retain(|name, _| servers.iter().any(|it| it.name() == name && it.resolve));
        for server in servers.iter().filter(|server| server.resolve) {
            let name = server.name().to_owned();
            listed.lookups.entry(name.clone()).or_insert_with(|| self.follow(name));
        }
        let Some(check) = &self.check else { return };
        let sight = self.pool().sight(Instant::now());
        let asked = || sight.iter().map(|sight| &sight.peer).filter(|peer| !peer.endpoint().down);
        listed.probes.retain(|(probed, _)| asked().any(|peer| peer.is(probed)));
        for peer in asked() {
            if listed.probes.iter().any(|(probed, _)| probed.is(peer)) {
                continue;
            }
            let stop = self.stop.child_token();
            let random = || rand::rng().random::<f64>();
            let name = Arc::clone(&self.plan.name);
            tokio::spawn(probe::watch(name, Arc::clone(peer), check.clone(), stop.clone(), random));
            listed.probes.push((Arc::clone(peer), stop.drop_guard()));
        }
    }

    /// Looks the server called `name` up again whenever its answer has expired, at first at once.
    fn follow(self: &Arc<Self>, name: String) -> DropGuard {
        let stop = self.stop.child_token();
        let (roster, names) = (Arc::downgrade(self), Arc::clone(&self.names));
        let following = async move {
            while let Some(server) = Self::listed(&roster, &name) {
                let answer = resolve::resolve(&server, &names).await;
                let Some(valid) = Self::heard(&roster, &server, answer) else { return };
                tokio::time::sleep(valid).await;
            }
        };
        let stopped = stop.clone();
        tokio::spawn(async move { stopped.run_until_cancelled(following).await });
        stop.drop_guard()
    }

    fn listed(roster: &Weak<Self>, name: &str) -> Option<Server> {
        let roster = roster.upgrade()?;
        let listed = roster.listed.lock();
        listed.servers.iter().find(|server| server.name() == name).cloned()
    }

    /// Takes what was looked up, and says when to ask again; `None` when nobody wants to know any more.
    fn heard(
        roster: &Weak<Self>,
        server: &Server,
        answer: Result<(Vec<Endpoint>, Option<Duration>), Unresolved>,
    ) -> Option<Duration> {
        let roster = roster.upgrade()?;
        let upstream = &roster.plan.name;
        let (endpoints, valid) = match answer {
            Ok((endpoints, valid)) => (endpoints, valid?),
            Err(problem) => {
                tracing::warn!(%upstream, %problem, "its last addresses stay");
                return Some(TRY_AGAIN);
            }
        };
        let mut listed = roster.listed.lock();
        let before = listed.found.get(server.name());
        if before.is_none_or(|before| *before != endpoints) {
            let addresses: Vec<_> = endpoints.iter().map(|it| it.address.to_string()).collect();
            tracing::info!(%upstream, server = server.name(), addresses = addresses.join(" "), "addresses taken");
            listed.found.insert(server.name().to_owned(), endpoints);
            roster.settle(&mut listed);
        }
        Some(valid)
    }
}

/// Every address of every server, with the server's parameters, in the order of a pool: backups last.
fn endpoints(servers: &[Server], found: &HashMap<String, Vec<Endpoint>>) -> Vec<Endpoint> {
    let of = |server: &Server| {
        let found = found.get(server.name()).map_or(&[][..], Vec::as_slice);
        resolve::with_parameters(server, found)
    };
    let mut endpoints: Vec<_> = servers.iter().flat_map(of).collect();
    endpoints.sort_by_key(|endpoint| endpoint.backup);
    endpoints
}
