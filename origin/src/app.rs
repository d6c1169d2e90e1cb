//! The running service: what its requests share, its routes, its start and its graceful stop.

use std::{error::Error as StdError, future::Future, num::NonZeroU32, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, header},
    middleware::{self, Next},
    response::Response,
    serve::ListenerExt,
};
use jiff::SignedDuration;
use tokio::{
    net::TcpListener,
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tracing::Instrument;

use crate::{
    accounts, admin,
    cache::Cache,
    config::ServeConfig,
    cursor::Cursors,
    database::{Database, Moment, Replicas, Scope},
    fleet::Redis,
    health, idempotency,
    identity::Identities,
    items,
    jobs::{self, bell::Bell, purges::Purges, worker::Worker},
    metrics::{self, Metrics},
    notes, openapi,
    password::Passwords,
    posts,
    refusal::Refusal,
    sessions,
    throttle::Throttle,
    token::Tokens,
    trace::Trace,
    verification::Verifications,
};

/// Largest request body in bytes: fifty times the largest item, and still nothing to fear.
pub const BODY_LIMIT: usize = 1024 * 1024;
/// For answers that nobody may keep.
pub(crate) const PRIVATE: [(HeaderName, HeaderValue); 1] =
    [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
/// Time between two sweeps of expired sessions and old idempotency keys; this only frees their rows.
const SWEEP: Duration = Duration::from_secs(600);
/// How long a POST may be repeated under its key; a client that still tries after a day has other troubles.
const KEYS_LIVE: SignedDuration = SignedDuration::from_hours(24);

/// What all requests share.
pub struct App {
    /// The store, and everything that writes.
    pub database: Database,
    /// What is kept of reads.
    pub cache: Cache,
    /// Who else may be read from.
    pub replicas: Replicas,
    /// Where sessions are published, if anywhere.
    pub redis: Option<Redis>,
    /// Hashes and checks passwords.
    pub passwords: Passwords,
    /// Checks the edge's header.
    pub identities: Identities,
    /// Signs and checks cursors.
    pub cursors: Cursors,
    /// Makes session tokens.
    pub tokens: Tokens,
    /// Makes and checks what is mailed to prove an address.
    pub verifications: Verifications,
    /// What is measured.
    pub metrics: Metrics,
    /// Counts failed logins.
    pub throttle: Throttle,
    /// Life of a new session.
    pub session_ttl: Duration,
    /// Sessions that an account may have.
    pub sessions_most: NonZeroU32,
    /// Wakes whoever does jobs.
    pub bell: Arc<Bell>,
    /// Does jobs beside the requests, if this process shall.
    pub worker: Option<Arc<Worker>>,
    /// Answered as `x-origin`.
    name: HeaderValue,
}

/// Any reason not to start.
pub type StartError = Box<dyn StdError + Send + Sync>;

impl App {
    /// Connects to what the config names; the schema is brought up to date.
    ///
    /// # Errors
    /// When the database cannot be reached or migrated, or a setting makes no sense.
    pub async fn start(config: &ServeConfig, name: &str) -> Result<Arc<Self>, StartError> {
        let redis = config.redis_url.as_deref().map(Redis::at).transpose()?;
        let database = Database::open(&config.database).await?;
        let verifications = Verifications::new(&config.identity_secret);
        let metrics = Metrics::new()?;
        let bell = Arc::new(Bell::rung_through(redis.clone()));
        let works = config.work.unwrap_or(matches!(database, Database::Sqlite(_)));
        let purges = redis
            .clone()
            .map(|redis| Purges::new(redis, &config.jobs.edge_prefix, config.database.replica_lag));
        let worker = works.then(|| {
            Worker::new(
                database.clone(),
                config.jobs.clone(),
                verifications.clone(),
                metrics.jobs.clone(),
                Arc::clone(&bell),
                purges,
            )
        });
        Ok(Arc::new(Self {
            worker: worker.transpose()?,
            bell,
            database,
            cache: Cache::new(redis.clone()),
            metrics,
            replicas: Replicas::new(&config.database, redis.clone())?,
            throttle: Throttle::new(&config.throttle, redis.clone()),
            redis,
            passwords: Passwords::new(&config.passwords)?,
            identities: Identities::new(config.identity_header.clone(), &config.identity_secret),
            cursors: Cursors::new(&config.identity_secret),
            tokens: Tokens::new(&config.identity_secret),
            verifications,
            session_ttl: config.session_ttl,
            sessions_most: config.sessions_most,
            name: HeaderValue::from_str(name)?,
        }))
    }
}

/// All routes.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .merge(accounts::routes())
        .merge(sessions::routes())
        .merge(admin::routes())
        .merge(items::routes())
        .merge(notes::routes())
        .merge(posts::routes())
        .merge(health::routes())
        .merge(metrics::routes())
        .merge(openapi::routes())
        .fallback(async || Refusal::NotFound)
        .method_not_allowed_fallback(async || Refusal::MethodNotAllowed)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), mark_writes))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), observe))
        .with_state(app)
}

/// Serves until `stop` is done, then lets requests in flight finish within `stop_within`.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    app: Arc<App>,
    stop: impl Future<Output = ()> + Send + 'static,
    stop_within: Duration,
) -> std::io::Result<()> {
    let sweeper = tokio::spawn(sweep(Arc::clone(&app)));
    let watched = Arc::clone(&app);
    let watch = tokio::spawn(async move { watched.replicas.watch(&watched.database).await });
    // Small answers in a conversation: waiting to fill a packet would only add delay.
    let listener = listener.tap_io(|socket| drop(socket.set_nodelay(true)));
    // Nothing is ever sent: that the sender is dropped is what all of them wait for.
    let (told, stopping) = watch::channel(());
    let stopped = |mut stopping: watch::Receiver<()>| async move {
        let _ = stopping.changed().await;
    };
    let worker = app.worker.clone().map(|worker| {
        let work = worker.run(stopped(stopping.clone()), stop_within);
        tokio::spawn(work)
    });
    let stop = async move {
        stop.await;
        drop(told);
    };
    let server = axum::serve(listener, router(Arc::clone(&app))).with_graceful_shutdown(stop).into_future();
    let too_late = async {
        stopped(stopping).await;
        tokio::time::sleep(stop_within).await;
    };
    let served = tokio::select! {
        served = server => served,
        () = too_late => {
            tracing::warn!("stopped with requests in flight");
            Ok(())
        }
    };
    sweeper.abort();
    watch.abort();
    if let Some(mut worker) = worker {
        // Told with the server, it ends within the same time, unless its store is away.
        let _ = timeout(stop_within, &mut worker).await;
        worker.abort();
    }
    // What still runs may hold connections: closing waits for them, but not for long.
    let _ = timeout(Duration::from_secs(1), app.database.close()).await;
    served
}

async fn sweep(app: Arc<App>) {
    let mut ticks = interval(SWEEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now = Moment::now();
        let old = Moment::cut(now.timestamp() - KEYS_LIVE);
        let given_up = Moment::cut(now.timestamp() - jobs::DEAD_KEPT);
        for (what, swept) in [
            ("expired sessions", sessions::sql::sweep(&app.database, now).await),
            ("old idempotency keys", idempotency::sql::sweep(&app.database, old).await),
            ("jobs given up long ago", jobs::sql::sweep(&app.database, given_up).await),
        ] {
            match swept {
                Ok(0) => {}
                Ok(swept) => tracing::info!(swept, what, "swept"),
                Err(error) => tracing::warn!(%error, what, "not swept"),
            }
        }
    }
}

/// Whoever wrote reads from the primary for a while. Here for all resources: a new one cannot forget it.
async fn mark_writes(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if request.method().is_safe() {
        return next.run(request).await;
    }
    let caller = app.identities.caller(request.headers()).ok().flatten();
    let posts = request.uri().path().starts_with("/posts");
    let response = next.run(request).await;
    // Also after an error: a statement may have been done before it.
    if let Some(caller) = caller {
        app.replicas.wrote(Scope::Of(caller.user_id)).await;
    }
    if posts {
        app.replicas.wrote(Scope::Posts).await;
    }
    response
}

/// Writes one record per request, and says which instance answered.
async fn observe(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    // The pattern, not the path: ids and tokens stay out of the log.
    let route = request.extensions().get::<MatchedPath>().cloned();
    let request_id = request.headers().get("x-request-id").cloned();
    let trace = Trace::follow(request.headers());
    request.extensions_mut().insert(trace);
    // Whatever is logged on the way has the request's place in its trace.
    let span = trace.span("request");
    let mut response = next.run(request).instrument(span.clone()).await;
    response.headers_mut().insert("x-origin", app.name.clone());
    let (route, took) = (route.as_ref().map_or("none", MatchedPath::as_str), started.elapsed());
    app.metrics.answered(route, &method, response.status(), took);
    span.in_scope(|| {
        tracing::info!(
            %method,
            route,
            status = response.status().as_u16(),
            milliseconds = took.as_secs_f64() * 1e3,
            request_id = request_id.as_ref().and_then(|id| id.to_str().ok()),
            "request"
        );
    });
    response
}
