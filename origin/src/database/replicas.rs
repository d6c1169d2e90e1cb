//! Reads that may be a moment old go to replicas, in turn.
//!
//! *How old*: a watch notes where the primary's log is, and then whether each replica has come that far. The last note that a
//! replica has reached says how much it lacks at most; beyond [`DatabaseConfig::replica_lag`], or without an answer, it is left out
//! until it has caught up. *Whose own*: whoever wrote reads from the primary for as long as any replica that is asked may lack the write.
//! The marks of writers are in Redis, because the next request meets another instance; without Redis, or while it is away, reads
//! that belong to somebody stay with the primary. A replica that fails is left out at once and the primary is asked instead.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

use redis::{AsyncCommands, RedisResult, SetExpiry, SetOptions};
use sqlx::{Result, postgres::PgPoolOptions};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use uuid::Uuid;

use super::{Database, Pool, is_passing};
use crate::{config::DatabaseConfig, fleet::Redis};

/// Time between two looks at the replicas; a fraction of any lag that can be configured.
const LOOK: Duration = Duration::from_millis(200);
/// Longest wait for the answer to one, and for a connection to a replica: the primary is better than waiting.
const PATIENCE: Duration = Duration::from_millis(500);

/// Whose writes a read must see.
#[derive(Debug, Clone, Copy)]
pub enum Scope {
    /// Nobody waits for the newest state.
    Nobody,
    /// The person's own.
    Of(Uuid),
    /// Everybody's posts, which an edge keeps for everybody until the next write.
    Posts,
}

/// Runs a read that must see what the scope wrote, on a replica where that is sure and otherwise on the primary:
/// `read!(app, Scope::Of(user), |db| sql::find(db, user))`. A macro, because a closure that borrows cannot promise to be `Send`.
macro_rules! read {
    ($app:expr, $scope:expr, |$database:ident| $ask:expr) => {
        'read: {
            if let Some(replica) = $app.replicas.reader($scope).await {
                let $database = replica.database();
                match $ask.await {
                    Err(error) if replica.is_out(&error) => {}
                    answer => break 'read answer,
                }
            }
            let $database = &$app.database;
            $ask.await
        }
    };
}
pub(crate) use read;

/// The replicas of a primary; often none.
pub struct Replicas {
    list: Vec<Replica>,
    next: AtomicUsize,
    lag: Duration,
    redis: Option<Redis>,
    started: Instant,
}

/// One replica.
pub struct Replica {
    database: Database,
    pool: Pool,
    name: String,
    /// Up to when it has everything: milliseconds since the start; 0 is never.
    complete: AtomicU64,
}

impl Replicas {
    /// Those of the config; connections are made when they are needed, so that a dead one keeps nobody from starting.
    ///
    /// # Errors
    /// When a URL is none.
    pub fn new(config: &DatabaseConfig, redis: Option<Redis>) -> Result<Self> {
        let replica = |url: &String| {
            let options = PgPoolOptions::new()
                .max_connections(config.pool_max.get())
                .acquire_timeout(PATIENCE)
                .idle_timeout(config.pool_idle);
            let (pool, name) = Pool::open_lazily(config, options, url)?;
            Ok(Replica {
                database: Database::Postgres(pool.clone()),
                pool,
                name,
                complete: AtomicU64::new(0),
            })
        };
        Ok(Self {
            list: config.replica_urls.iter().map(replica).collect::<Result<_>>()?,
            next: AtomicUsize::new(0),
            lag: config.replica_lag,
            redis,
            started: Instant::now(),
        })
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether any is fit to be asked; `None` when there are none.
    #[must_use]
    pub fn are_fit(&self) -> Option<bool> {
        (!self.is_empty()).then(|| self.states().any(|(_, fit)| fit))
    }

    /// Each by its address, and whether it is fit to be asked.
    pub fn states(&self) -> impl Iterator<Item = (&str, bool)> {
        let oldest = self.oldest(Instant::now());
        self.list.iter().map(move |replica| (replica.name.as_str(), replica.is_fit(oldest)))
    }

    /// The next replica in turn that is fit, if nobody in `scope` wrote lately.
    pub async fn reader(&self, scope: Scope) -> Option<&Replica> {
        let replica = self.pick(Instant::now())?;
        self.may_lag(scope).await.then_some(replica)
    }

    /// Notes that somebody in `scope` wrote; before the writer is answered.
    pub async fn wrote(&self, scope: Scope) {
        let Some(redis) = &self.redis else { return };
        if self.list.is_empty() {
            return;
        }
        if let Err(error) = mark(redis, scope, self.lag).await {
            // While Redis is away nobody reads marks either: see `may_lag`.
            tracing::debug!(%error, "a write is not marked");
        }
    }

    /// Looks after the replicas, for ever.
    pub async fn watch(&self, primary: &Database) {
        let Database::Postgres(primary) = primary else { return };
        if self.list.is_empty() {
            return;
        }
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let now = Instant::now();
            let position = sqlx::query_scalar("SELECT pg_current_wal_lsn()::text").fetch_one(primary);
            // Without the primary nobody knows how far a replica should be.
            let Ok(Ok(position)) = timeout(PATIENCE, position).await else { continue };
            let position: String = position;
            for replica in &self.list {
                replica.look(&position, self.since_start(now), self.oldest(now)).await;
            }
        }
    }

    /// The next replica that lags no more than it may.
    fn pick(&self, now: Instant) -> Option<&Replica> {
        let (first, oldest) = (self.next.fetch_add(1, Ordering::Relaxed), self.oldest(now));
        let count = self.list.len();
        (0..count).map(|n| &self.list[first.wrapping_add(n) % count]).find(|replica| replica.is_fit(oldest))
    }

    /// Up to when a replica must have everything.
    fn oldest(&self, now: Instant) -> u64 {
        self.since_start(now).saturating_sub(milliseconds(self.lag)).max(1)
    }

    async fn may_lag(&self, scope: Scope) -> bool {
        let Some(mark) = mark_of(scope) else { return true };
        let Some(redis) = &self.redis else { return false };
        redis.clone().exists::<_, bool>(mark).await.is_ok_and(|wrote| !wrote)
    }

    /// Never 0, which stands for never.
    fn since_start(&self, now: Instant) -> u64 {
        milliseconds(now.saturating_duration_since(self.started)).max(1)
    }
}

impl Replica {
    /// Its store.
    #[must_use]
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Whether the primary should be asked instead, after this error; then it is left out until it has answered again.
    #[must_use]
    pub fn is_out(&self, error: &sqlx::Error) -> bool {
        if !is_passing(error) {
            return false;
        }
        tracing::warn!(replica = self.name, %error, "replica left out");
        self.complete.store(0, Ordering::Relaxed);
        true
    }

    fn is_fit(&self, oldest: u64) -> bool {
        self.complete.load(Ordering::Relaxed) >= oldest
    }

    /// Notes whether it has all that the primary had at `then`.
    async fn look(&self, position: &str, then: u64, oldest: u64) {
        let reached = sqlx::query_scalar("SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn")
            .bind(position)
            .fetch_one(&self.pool);
        // A server that is no replica replays nothing: null is no.
        let reached = timeout(PATIENCE, reached)
            .await
            .is_ok_and(|answer: Result<Option<bool>>| answer.is_ok_and(|reached| reached == Some(true)));
        let before = self.complete.load(Ordering::Relaxed);
        if reached {
            self.complete.store(then, Ordering::Relaxed);
            if before < oldest {
                tracing::info!(replica = self.name, "replica is asked");
            }
        } else if before > 0 && before < oldest {
            self.complete.store(0, Ordering::Relaxed);
            tracing::warn!(replica = self.name, "replica lags or is away, and is left out");
        }
    }
}

fn milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Notes that somebody in `scope` wrote: for as long as a replica may lag, the scope's reads go to the primary.
///
/// # Errors
/// When Redis did not confirm it.
pub async fn mark(redis: &Redis, scope: Scope, lag: Duration) -> RedisResult<()> {
    let Some(mark) = mark_of(scope) else { return Ok(()) };
    let options = SetOptions::default().with_expiration(SetExpiry::PX(milliseconds(lag)));
    redis.clone().set_options(mark, 1, options).await
}

/// Where a scope's writers leave their mark.
fn mark_of(scope: Scope) -> Option<String> {
    match scope {
        Scope::Nobody => None,
        Scope::Of(user) => Some(format!("wrote:{user}")),
        Scope::Posts => Some("wrote:posts".into()),
    }
}
