//! What lives: everything a plan asks for, built once and shared by all requests that begin while it is in force.
//!
//! A reload builds another one from the new plan and this one: what did not change is carried over (limits' counts,
//! sessions in memory, entries, peers with their failures and health), so that nobody notices that it happened.

mod ask;
mod counts;
mod disks;
mod error_pages;
mod lane;
mod mirrors;
mod purging;
mod roster;
mod sessions;
mod succession;
mod tiers;
mod upstream;

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::{Instant, SystemTime},
};

use http::StatusCode;
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};
use weir_config::{
    Plan, Report,
    plan::{self, Action, RouteId, SessionRule},
    span::Place,
    template::{Template, Variable},
};

use self::{counts::Counts, error_pages::ErrorPages};
pub use self::{
    counts::PurgedBy,
    error_pages::Shown,
    lane::Lane,
    mirrors::Mirrored,
    purging::Order,
    roster::{CannotChange, Roster},
    upstream::Upstream,
};
pub(crate) use self::{error_pages::whole as page, upstream::secured};
use crate::{
    auth::{Claim, Presented, Sessions, Token, Unavailable, Whose, access::Access, identity::Signer},
    balance::names::Names,
    cache::{Cache, PurgeStream, Rule, Tags},
    coding::Compressors,
    fleet::{BadRedis, Redis},
    limit::{Limits, Store},
    metrics::Metrics,
    request::Facts,
    route::{Router, files::Files},
};

/// Everything a plan asks for, alive.
#[derive(Debug)]
pub struct Running {
    /// What it was built from.
    pub plan: Arc<Plan>,
    /// route: finds the rules for a request.
    pub router: Router,
    /// limit: the counts.
    pub limits: Limits,
    /// auth: by `SessionId`.
    pub sessions: Vec<Sessions>,
    /// auth: signs who the caller is.
    pub identity: Option<Signer>,
    /// cache: by `CacheId`.
    pub caches: Vec<Cache>,
    /// cache: the purge clock of all of them.
    pub tags: Arc<Tags>,
    /// For answers that are compressed.
    pub compressors: Compressors,
    /// balance and forward: by `UpstreamId`.
    pub upstreams: Vec<Arc<Upstream>>,
    routes: Vec<RouteParts>,
    /// What the fleet shares, if it shares anything.
    pub redis: Option<Redis>,
    /// cache: what makes a purge here one at every edge; begun when this generation comes into force.
    purge_stream: OnceLock<Arc<PurgeStream>>,
    /// For the caches, until this generation is in force.
    disks: disks::Waiting,
    /// The way to the Redis that each cache's part in the fleet's tier is in, by `CacheId`.
    tiers: Vec<Option<Redis>>,
    counts: Counts,
    /// Ends the active checks and look-ups of this generation.
    watching: DropGuard,
}

/// What of a route had to be built.
#[derive(Debug)]
struct RouteParts {
    access: Option<Access>,
    files: Option<Files>,
    cache: Rule,
    error_pages: ErrorPages,
    mirrors: Arc<Semaphore>,
    express: Option<Lane>,
}

/// What a plan needs and cannot have here and now; the operator's to mend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct CannotRun {
    /// Where it was written.
    pub place: Place,
    /// Who needs what, and why it cannot be had.
    pub problem: String,
}

impl From<BadRedis> for CannotRun {
    fn from(bad: BadRedis) -> Self {
        Self::new(bad.place, bad)
    }
}

impl CannotRun {
    pub(crate) fn new(place: Place, problem: impl fmt::Display) -> Self {
        Self { place, problem: problem.to_string() }
    }

    /// Notes all of them where they were written.
    pub fn note(problems: impl IntoIterator<Item = Self>, report: &mut Report) {
        for problem in problems {
            report.error(problem.place, problem.problem);
        }
        report.sort();
    }
}

impl Running {
    /// Brings a plan to life, carrying over what `old` has and the plan still means. It acts on nothing that lives before it
    /// [comes into force](Self::come_into_force).
    ///
    /// # Errors
    /// What cannot be had; nothing of `old` has changed then.
    pub async fn build(
        plan: Arc<Plan>,
        old: Option<&Self>,
        metrics: &Metrics,
    ) -> Result<Self, Vec<CannotRun>> {
        let now = Instant::now();
        let stop = CancellationToken::new();
        // From here on, so that checks end also when something below cannot be had.
        let watching = stop.clone().drop_guard();
        let names = Arc::new(Names::new(&plan.resolver));
        let (mut upstreams, mut problems) = (Vec::with_capacity(plan.upstreams.len()), Vec::new());
        for upstream in &plan.upstreams {
            match Upstream::build(upstream, old, &names, &stop).await {
                Ok(upstream) => upstreams.push(Arc::new(upstream)),
                Err(missing) => problems.extend(missing),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let redis = plan.redis.as_ref().map(Redis::new).transpose().map_err(|bad| vec![bad.into()])?;
        // The same Redis keeps its connections, and what it is known to be.
        let redis =
            redis.map(|new| old.and_then(|old| old.redis.clone().filter(|old| old.is(&new))).unwrap_or(new));
        let sessions = sessions::build(&plan, old, &upstreams, redis.as_ref())?;
        let tags = old.map_or_else(|| Arc::new(Tags::new()), |old| Arc::clone(&old.tags));
        let disks = disks::open(&plan, old, &tags).await?;
        let caches = plan.caches.iter().map(|cache| {
            old.and_then(|old| old.same_cache(cache))
                .unwrap_or_else(|| Cache::new(cache.memory.len(), cache.entry_bytes.len(), Arc::clone(&tags)))
        });
        let caches: Vec<_> = caches.collect();
        let tiers = tiers::reach(&plan)?;
        let store = redis.clone().map(Store::new);
        let routes = all(plan.routes.iter().map(|route| RouteParts::build(route, &plan)))?;
        Ok(Self {
            router: Router::new(&plan.routes),
            limits: Limits::new(old.map(|old| &old.limits), &plan.limits, store.as_ref(), now),
            sessions,
            identity: plan.identity.as_ref().map(Signer::new),
            caches,
            tags,
            compressors: old.map_or_else(|| counts::compressors(metrics), |old| old.compressors.clone()),
            upstreams,
            routes,
            redis,
            purge_stream: OnceLock::new(),
            disks,
            tiers,
            counts: Counts::new(&plan, metrics),
            watching,
            plan,
        })
    }

    fn same_cache(&self, cache: &plan::Cache) -> Option<Cache> {
        let position = self.plan.caches.iter().position(|old| old.name == cache.name)?;
        Some(self.caches[position].clone())
    }

    /// The networks of a route, if it names any.
    #[must_use]
    pub fn access(&self, route: RouteId) -> Option<&Access> {
        self.routes[route.index()].access.as_ref()
    }

    /// The folder of a route that serves files.
    #[must_use]
    pub fn files(&self, route: RouteId) -> Option<&Files> {
        self.routes[route.index()].files.as_ref()
    }

    /// What a route shows for an error with this status instead of what would be said, if it has a page for that.
    #[must_use]
    pub fn error_page(&self, route: RouteId, status: StatusCode, facts: &Facts<'_>) -> Option<Shown> {
        self.routes[route.index()].error_pages.show(&self.plan.routes[route.index()], status, facts)
    }

    /// How answers of a route may be kept.
    #[must_use]
    pub fn cache_rule(&self, route: RouteId) -> &Rule {
        &self.routes[route.index()].cache
    }

    /// The express lane of a route, if it has one.
    #[must_use]
    pub fn express(&self, route: RouteId) -> Option<Lane> {
        self.routes[route.index()].express
    }

    /// The upstream a route forwards to, as an index.
    #[must_use]
    pub fn upstream_of(&self, route: Option<RouteId>) -> Option<usize> {
        match &self.plan.routes[route?.index()].action {
            Action::Forward(forward) => Some(forward.upstream.index()),
            Action::Tunnel(upstream) => Some(upstream.index()),
            _ => None,
        }
    }

    /// Whether Redis answers in time, all its masters; `None` without Redis.
    pub async fn redis_answers(&self) -> Option<bool> {
        let mut redis = self.redis.clone()?;
        Some(redis::cmd("PING").query_async::<()>(&mut redis).await.is_ok())
    }

    /// Whether the source of each session answers: its Redis, as `redis` says, or else whoever was asked, the last time.
    #[must_use]
    pub fn session_sources(&self, redis: Option<bool>) -> Vec<(Arc<str>, bool)> {
        let sources = self.plan.sessions.iter().zip(&self.sessions);
        sources
            .map(|(plan, sessions)| {
                let redis = redis.filter(|_| plan.is_in_redis());
                (Arc::clone(&plan.name), redis.unwrap_or_else(|| sessions.is_answered()))
            })
            .collect()
    }

    /// Name, peers that are asked, and peers in all, of every upstream.
    #[must_use]
    pub fn peers_up(&self) -> Vec<(Arc<str>, usize, usize)> {
        let now = Instant::now();
        let count = |upstream: &Arc<Upstream>| {
            let sight = upstream.pool().sight(now);
            let up = sight.iter().filter(|peer| peer.is_asked());
            (Arc::clone(&upstream.plan.name), up.count(), sight.len())
        };
        self.upstreams.iter().map(count).collect()
    }

    /// A successful answer on this route ended the caller's session: it is forgotten here at once.
    pub fn end_session(&self, rule: &SessionRule, headers: &http::HeaderMap) {
        if let Some(token) = self.token(rule, headers) {
            self.sessions[rule.session.index()].forget(token.digest());
        }
    }

    /// The token that a request carries, if it can be one.
    #[must_use]
    pub fn token(&self, rule: &SessionRule, headers: &http::HeaderMap) -> Option<Token> {
        match self.presented(rule, headers) {
            Presented::Token(token) => Some(token),
            Presented::Nothing | Presented::Malformed => None,
        }
    }

    /// What a request has to show where its route's tokens come.
    #[must_use]
    pub fn presented(&self, rule: &SessionRule, headers: &http::HeaderMap) -> Presented {
        let session = &self.plan.sessions[rule.session.index()];
        Presented::find(&session.from, headers, session.jwt.is_some())
    }

    /// What a request claims; `None` for what can be nobody's.
    #[must_use]
    pub fn claim(&self, rule: &SessionRule, facts: &Facts<'_>) -> Option<Claim> {
        Claim::find(&self.plan.sessions[rule.session.index()], &facts.request.headers, facts)
    }

    /// Whose claim this is, without asking an origin: `None` where only an origin could say.
    ///
    /// # Errors
    /// [`Unavailable`] when Redis does not answer.
    pub async fn known_session(
        &self,
        rule: &SessionRule,
        claim: &Claim,
        now: SystemTime,
    ) -> Result<Option<Whose>, Unavailable> {
        let (sessions, plan) =
            (&self.sessions[rule.session.index()], &self.plan.sessions[rule.session.index()]);
        // Signed tokens are asked of nobody.
        let asks_no_origin = plan.jwt.is_some() || (self.redis.is_some() && plan.is_in_redis());
        match sessions.known(claim, now) {
            None if asks_no_origin => sessions.validate(claim, now).await.map(Some),
            known => Ok(known),
        }
    }

    /// Whose a request is, if memory knows.
    ///
    /// # Errors
    /// The claim that [`Running::validate`] has to ask about.
    pub fn validate_from_memory(
        &self,
        rule: &SessionRule,
        facts: &Facts<'_>,
        now: SystemTime,
    ) -> Result<Whose, Claim> {
        // What can be nobody's is nobody's.
        let Some(claim) = self.claim(rule, facts) else { return Ok(Whose::Nobody(None)) };
        let Some(known) = self.sessions[rule.session.index()].known(&claim, now) else { return Err(claim) };
        self.count_session(rule.session, Ok(&known));
        Ok(known)
    }

    /// Whose claim this is.
    ///
    /// # Errors
    /// [`Unavailable`] when nobody can say.
    pub async fn validate(
        &self,
        rule: &SessionRule,
        claim: &Claim,
        now: SystemTime,
    ) -> Result<Whose, Unavailable> {
        let validated = self.sessions[rule.session.index()].validate(claim, now).await;
        self.count_session(rule.session, validated.as_ref());
        validated
    }
}

impl RouteParts {
    fn build(route: &plan::Route, plan: &Plan) -> Result<Self, CannotRun> {
        Ok(Self {
            access: route.access.as_ref().map(Access::from),
            files: match &route.action {
                Action::Files(files) => Some(folder(route, files)?),
                _ => None,
            },
            cache: route.cache.as_ref().map_or_else(Rule::origin_alone, |rule| {
                Rule::new(rule, rule.key.as_ref().is_some_and(names_caller))
            }),
            error_pages: ErrorPages::read(route),
            mirrors: mirrors::places(),
            express: Lane::of(route, plan),
        })
    }
}

/// Whether a key holds something that only one caller has. A role or a tenant is shared by many.
fn names_caller(key: &Template) -> bool {
    key.variables().any(is_callers_own)
}

/// Whether no two callers have the same, if they have any. What a client says of itself, in a cookie or in `Authorization`, is
/// nobody's own: no one has looked whether it is true, and many may say nothing, or the same.
pub(crate) fn is_callers_own(variable: &Variable) -> bool {
    matches!(variable, Variable::Session(field) if matches!(&**field, "user_id" | "session_id" | "email"))
}

/// Every one, or all problems.
fn all<T, E>(results: impl Iterator<Item = Result<T, E>>) -> Result<Vec<T>, Vec<E>> {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(value) => good.push(value),
            Err(problem) => bad.push(problem),
        }
    }
    if bad.is_empty() { Ok(good) } else { Err(bad) }
}

/// The folder of a route that serves files.
pub(crate) fn folder(route: &plan::Route, files: &plan::Files) -> Result<Files, CannotRun> {
    let root = files.root.display();
    Files::new(files).map_err(|problem| {
        let name = &route.name;
        CannotRun::new(
            files.root.place,
            format_args!("route {name}: the folder {root} cannot be served: {problem}"),
        )
    })
}
