//! What lives: everything a plan asks for, built once and shared by all requests that begin while it is in force.
//!
//! A reload builds another one from the new plan and this one: what did not change is carried over (limits' counts,
//! sessions in memory, entries, peers with their failures and health), so that nobody notices that it happened.

mod ask;
mod counts;
mod error_pages;
mod mirrors;
mod purging;
mod roster;
mod upstream;

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use http::StatusCode;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};
use weir_config::{
    Plan,
    plan::{Action, RouteId, SessionRule},
    span::Place,
    template::{Template, Variable},
};

use self::{ask::AskUpstream, counts::Counts, error_pages::ErrorPages};
pub use self::{
    counts::PurgedBy,
    error_pages::Shown,
    mirrors::Mirrored,
    purging::Order,
    roster::{CannotChange, Roster},
    upstream::Upstream,
};
use crate::{
    auth::{
        Presented, Sessions, Source, Token, Unavailable, access::Access, identity::Signer,
        source::RedisSource,
    },
    balance::names::Names,
    cache::{Cache, Rule, Tags},
    coding::Compressors,
    limit::Limits,
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
    redis: Option<ConnectionManager>,
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
}

/// Why a plan could not be brought to life; the operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum CannotRun {
    /// Servers whose names gave no address.
    #[error("upstream {upstream}: {problems}")]
    Unresolved {
        /// The upstream's name.
        upstream: Arc<str>,
        /// Every one of them, with line and column.
        problems: String,
    },
    /// Redis' address was refused by its client.
    #[error("redis: {0}")]
    Redis(#[from] redis::RedisError),
    /// A folder to serve that is not there.
    #[error("route {route} (at {place}): the folder {root} cannot be served: {problem}")]
    Files {
        /// The route's name.
        route: Arc<str>,
        /// Where it was written.
        place: Place,
        /// The folder.
        root: String,
        /// What the file system said.
        problem: std::io::Error,
    },
    /// TLS to an upstream cannot be set up.
    #[error("upstream {upstream}: {problem}")]
    Tls {
        /// The upstream's name.
        upstream: Arc<str>,
        /// What is wrong.
        problem: String,
    },
}

impl Running {
    /// Brings a plan to life, carrying over what `old` has and the plan still means.
    ///
    /// # Errors
    /// [`CannotRun`] with the first thing that cannot be had; nothing of `old` has changed then.
    pub async fn build(plan: Arc<Plan>, old: Option<&Self>, metrics: &Metrics) -> Result<Self, CannotRun> {
        let now = Instant::now();
        let stop = CancellationToken::new();
        // From here on, so that checks end also when something below cannot be had.
        let watching = stop.clone().drop_guard();
        let names = Arc::new(Names::new(&plan.resolver));
        let mut upstreams = Vec::with_capacity(plan.upstreams.len());
        for upstream in &plan.upstreams {
            upstreams.push(Arc::new(Upstream::build(upstream, old, &names, &stop).await?));
        }
        let redis = plan.redis.as_ref().map(connect).transpose()?;
        let sessions = plan
            .sessions
            .iter()
            .map(|session| {
                // The same source means the same sessions: what is known of them stays known.
                if let Some(kept) = old.and_then(|old| old.same_sessions(&plan, session)) {
                    return Ok(kept);
                }
                let source = match (&plan.redis, &session.ask) {
                    (Some(redis), _) => Source::Redis(RedisSource::new(redis, session.key.clone())?),
                    (None, Some(ask)) => Source::Ask {
                        ask: Arc::new(AskUpstream::new(Arc::clone(&upstreams[ask.upstream.index()]))),
                        path: ask.path.clone(),
                    },
                    (None, None) => unreachable!("resolve refuses sessions without redis and without ask"),
                };
                Ok(Sessions::new(session, source))
            })
            .collect::<Result<_, redis::RedisError>>()?;
        let tags = old.map_or_else(|| Arc::new(Tags::new()), |old| Arc::clone(&old.tags));
        let caches = plan.caches.iter().map(|cache| {
            old.and_then(|old| old.same_cache(cache))
                .unwrap_or_else(|| Cache::new(cache.memory.len(), cache.entry_bytes.len(), Arc::clone(&tags)))
        });
        Ok(Self {
            router: Router::new(&plan.routes),
            limits: match old {
                Some(old) => Limits::carry_over(&old.limits, &plan.limits, now),
                None => Limits::new(&plan.limits, now),
            },
            sessions,
            identity: plan.identity.as_ref().map(Signer::new),
            caches: caches.collect(),
            tags,
            compressors: old.map_or_else(|| counts::compressors(metrics), |old| old.compressors.clone()),
            upstreams,
            routes: plan.routes.iter().map(RouteParts::build).collect::<Result<_, _>>()?,
            redis,
            counts: Counts::new(&plan, metrics),
            watching,
            plan,
        })
    }

    fn same_sessions(&self, plan: &Plan, session: &weir_config::plan::Session) -> Option<Sessions> {
        let position = self.plan.sessions.iter().position(|old| old.name == session.name)?;
        let old = &self.plan.sessions[position];
        let same = old.key == session.key
            && old.from == session.from
            && (old.memory_ttl, old.memory_entries) == (session.memory_ttl, session.memory_entries)
            && self.plan.redis == plan.redis
            && plan.redis.is_some();
        same.then(|| self.sessions[position].clone())
    }

    fn same_cache(&self, cache: &weir_config::plan::Cache) -> Option<Cache> {
        let position = self.plan.caches.iter().position(|old| old.name == cache.name)?;
        let kept = self.caches[position].clone();
        kept.set_budget(cache.memory.len(), cache.entry_bytes.len());
        Some(kept)
    }

    /// This generation is in force no more: nobody is watched for it, and what its requests learn of peers is `next`'s.
    pub fn succeeded_by(&self, next: &Self) {
        self.watching.token().cancel();
        for old in &self.upstreams {
            if let Some(new) = next.upstreams.iter().find(|new| new.plan.name == old.plan.name) {
                old.roster.succeeded_by(&new.roster);
            }
        }
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

    /// The upstream a route forwards to, as an index.
    #[must_use]
    pub fn upstream_of(&self, route: Option<RouteId>) -> Option<usize> {
        match &self.plan.routes[route?.index()].action {
            Action::Forward(forward) => Some(forward.upstream.index()),
            Action::Tunnel(upstream) => Some(upstream.index()),
            _ => None,
        }
    }

    /// Whether Redis answers in time; `None` without Redis.
    pub async fn redis_answers(&self) -> Option<bool> {
        let (connection, plan) = (self.redis.as_ref()?, self.plan.redis.as_ref()?);
        let mut connection = connection.clone();
        let ping = redis::cmd("PING");
        let ping = ping.query_async::<String>(&mut connection);
        Some(matches!(tokio::time::timeout(plan.timeout, ping).await, Ok(Ok(_))))
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
        let session = &self.plan.sessions[rule.session.index()];
        match Presented::find(&session.from, headers) {
            Presented::Token(token) => Some(token),
            Presented::Nothing | Presented::Malformed => None,
        }
    }

    /// Whose token this is, without asking an origin: `None` where only an origin could say.
    ///
    /// # Errors
    /// [`Unavailable`] when Redis does not answer.
    pub async fn known_session(
        &self,
        rule: &SessionRule,
        token: &Token,
        now: SystemTime,
    ) -> Result<Option<Option<Arc<crate::auth::Session>>>, Unavailable> {
        let sessions = &self.sessions[rule.session.index()];
        match sessions.known(token, now) {
            None if self.redis.is_some() => sessions.validate(token, now).await.map(Some),
            known => Ok(known),
        }
    }

    /// Whose token a request carries, validated.
    ///
    /// # Errors
    /// [`Unavailable`] when nobody can say.
    pub async fn validate(
        &self,
        rule: &SessionRule,
        headers: &http::HeaderMap,
        now: SystemTime,
    ) -> Result<Option<Arc<crate::auth::Session>>, Unavailable> {
        // What cannot be a token belongs to nobody.
        let Some(token) = self.token(rule, headers) else { return Ok(None) };
        let validated = self.sessions[rule.session.index()].validate(&token, now).await;
        self.count_session(rule.session, &validated);
        validated
    }
}

impl RouteParts {
    fn build(route: &weir_config::plan::Route) -> Result<Self, CannotRun> {
        Ok(Self {
            access: route.access.as_ref().map(Access::from),
            files: match &route.action {
                Action::Files(files) => Some(Files::new(files).map_err(|problem| CannotRun::Files {
                    route: Arc::clone(&route.name),
                    place: route.place,
                    root: files.root.display().to_string(),
                    problem,
                })?),
                _ => None,
            },
            cache: route.cache.as_ref().map_or_else(Rule::origin_alone, |rule| {
                Rule::new(rule, rule.key.as_ref().is_some_and(names_caller))
            }),
            error_pages: ErrorPages::read(route),
            mirrors: mirrors::places(),
        })
    }
}

/// Whether a key holds something that only one caller has. A role or a tenant is shared by many.
fn names_caller(key: &Template) -> bool {
    key.variables().any(|variable| matches!(variable, Variable::Session(field) if matches!(&**field, "user_id" | "session_id" | "email")))
}

fn connect(redis: &weir_config::plan::Redis) -> Result<ConnectionManager, redis::RedisError> {
    let config = ConnectionManagerConfig::new()
        .set_number_of_retries(0)
        .set_connection_timeout(Some(redis.connect_timeout))
        .set_response_timeout(Some(redis.timeout));
    ConnectionManager::new_lazy_with_config(redis::Client::open(redis.url.expose())?, config)
}
