//! One enum over both stores.
//!
//! Statements are written once, in SQL that both understand (`$1`, `RETURNING`, `ON CONFLICT`), and run through [`on`]. Where the
//! stores differ, the difference is a column type below ([`Moment`], [`Words`]) or stands in the one statement it concerns.

mod moment;
mod postgres;
mod replicas;
mod words;

use std::{str::FromStr, time::Duration};

use sqlx::{
    ConnectOptions, SqlitePool,
    migrate::{MigrateError, Migrator},
    pool::PoolOptions,
    sqlite::{SqliteConnectOptions, SqliteError, SqliteJournalMode, SqliteSynchronous},
};
use tokio::time::{Instant, sleep};

pub use self::{
    moment::Moment,
    postgres::{Pool, Transaction},
    replicas::{Replica, Replicas, Scope, mark},
    words::Words,
};
use crate::config::DatabaseConfig;

static SQLITE: Migrator = sqlx::migrate!("migrations/sqlite");
static POSTGRES: Migrator = sqlx::migrate!("migrations/postgres");

/// Longest time that other processes on the same SQLite file may keep a writer waiting.
const BUSY: Duration = Duration::from_secs(5);
/// Longest time that others may take to migrate the same SQLite file.
const MIGRATING: Duration = Duration::from_secs(30);

/// Statements that take longer are logged: none of ours should.
const SLOW: Duration = Duration::from_millis(100);

/// The pool of the chosen store.
#[derive(Debug, Clone)]
pub enum Database {
    /// The embedded default; several processes may share the file.
    Sqlite(SqlitePool),
    /// The real store.
    Postgres(Pool),
}

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL is wrong, or nobody answers there.
    #[error("cannot open the database: {0}")]
    Connect(#[from] sqlx::Error),
    /// The schema is not ours, or cannot be changed.
    #[error("cannot migrate the database: {0}")]
    Migrate(#[from] MigrateError),
}

/// Runs the same statement on either store: `on!(database, |pool| sqlx::query("…").execute(pool).await)`.
macro_rules! on {
    ($database:expr, |$pool:ident| $run:expr) => {
        match $database {
            $crate::database::Database::Sqlite($pool) => $run,
            $crate::database::Database::Postgres($pool) => $run,
        }
    };
}
pub(crate) use self::replicas::read;
pub(crate) use on;

impl Database {
    /// Opens the pool and brings the schema up to date.
    ///
    /// Several instances may do so at once: on Postgres they take turns by an advisory lock, on SQLite by an immediate
    /// transaction around all migrations.
    ///
    /// # Errors
    /// When the URL is wrong, the store cannot be reached within the acquire timeout, or a migration fails.
    pub async fn open(config: &DatabaseConfig) -> Result<Self, OpenError> {
        let url = &config.database_url;
        if url.starts_with("postgres:") || url.starts_with("postgresql:") {
            let pool = Pool::open(config, options(config), url).await?;
            pool.migrate(&POSTGRES).await?;
            warn_of_too_many(config, &pool).await?;
            return Ok(Self::Postgres(pool));
        }
        let file = SqliteConnectOptions::from_str(url)?
            .create_if_missing(true)
            // Readers do not wait for the writer. With WAL, NORMAL loses no consistency, only the last moments at a power cut.
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(BUSY)
            .foreign_keys(true)
            .log_slow_statements(warn(), SLOW);
        let deadline = Instant::now() + MIGRATING;
        loop {
            match open_sqlite(config, file.clone()).await {
                // Switching a new file to WAL answers "busy" at once, without the busy timeout, when another process does the same.
                Err(error) if is_busy(&error) && Instant::now() < deadline => {
                    sleep(Duration::from_millis(20)).await;
                }
                opened => return opened.map(Self::Sqlite),
            }
        }
    }

    /// Whether the store answers and has our tables.
    ///
    /// # Errors
    /// What the store said, or the pool when it has no connection in time.
    pub async fn ping(&self) -> sqlx::Result<()> {
        on!(self, |pool| sqlx::query("SELECT 1 FROM users LIMIT 1").fetch_optional(pool).await.map(drop))
    }

    /// Closes every connection; later use answers 503.
    pub async fn close(&self) {
        on!(self, |pool| pool.close().await);
    }
}

/// All pools together must leave room: Postgres refuses whoever comes too late, in the middle of the day.
async fn warn_of_too_many(config: &DatabaseConfig, pool: &Pool) -> sqlx::Result<()> {
    // Behind PgBouncer its `default_pool_size` is what Postgres meets.
    if pool.is_bounced() {
        return Ok(());
    }
    let room: i32 = sqlx::query_scalar(
        "SELECT current_setting('max_connections')::int4 - current_setting('superuser_reserved_connections')::int4",
    )
    .fetch_one(pool)
    .await?;
    let wanted = u64::from(config.instances.get()) * u64::from(config.pool_max.get());
    if wanted > u64::try_from(room).unwrap_or(0) {
        tracing::warn!(
            wanted,
            room,
            instances = config.instances,
            pool_max = config.pool_max,
            "the pools of all instances may ask for more connections than the database has"
        );
    }
    Ok(())
}

/// The level of the slow statements' log; its type is of a crate that only sqlx knows.
fn warn<L: FromStr<Err: std::fmt::Debug>>() -> L {
    "warn".parse().expect("a level")
}

async fn open_sqlite(config: &DatabaseConfig, file: SqliteConnectOptions) -> Result<SqlitePool, OpenError> {
    let pool: SqlitePool = options(config).connect_with(file).await?;
    let mut turn = pool.begin_with("BEGIN IMMEDIATE").await?;
    SQLITE.run_direct(None, &mut *turn, false).await?;
    turn.commit().await?;
    Ok(pool)
}

fn options<DB: sqlx::Database>(config: &DatabaseConfig) -> PoolOptions<DB> {
    PoolOptions::new()
        .max_connections(config.pool_max.get())
        .min_connections(config.pool_min.min(config.pool_max.get()))
        .acquire_timeout(config.pool_acquire)
        .idle_timeout(config.pool_idle)
        // A connection that a restart or a firewall ended is found here, not by a request.
        .test_before_acquire(true)
}

/// Whether another try in a moment may succeed: the store is away, full or busy, and the statement is not to blame.
#[must_use]
pub fn is_passing(error: &sqlx::Error) -> bool {
    use sqlx::Error as E;
    match error {
        E::PoolTimedOut | E::PoolClosed | E::WorkerCrashed | E::Io(_) | E::Tls(_) | E::Protocol(_) => true,
        E::Database(error) => match (sqlite_code(error.as_ref()), error.code()) {
            // busy, locked, I/O error, disk full, cannot open (sqlite.org/rescode.html)
            (Some(code), _) => [5, 6, 10, 13, 14].contains(&code),
            // Classes connection, rollback, resources, operator; and the database is gone (Postgres, appendix A).
            (None, Some(code)) => ["08", "40", "53", "57", "3D"].iter().any(|class| code.starts_with(class)),
            (None, None) => false,
        },
        _ => false,
    }
}

fn is_busy(error: &OpenError) -> bool {
    match error {
        OpenError::Connect(sqlx::Error::Database(error))
        | OpenError::Migrate(MigrateError::Execute(sqlx::Error::Database(error))) => {
            matches!(sqlite_code(error.as_ref()), Some(5 | 6))
        }
        _ => false,
    }
}

/// SQLite's primary result code; the upper bits only refine it.
fn sqlite_code(error: &dyn sqlx::error::DatabaseError) -> Option<u32> {
    error.try_downcast_ref::<SqliteError>()?;
    error.code()?.parse::<u32>().ok().map(|code| code & 0xff)
}
