//! A pool of connections to Postgres, or to a PgBouncer that pools transactions.
//!
//! Such a PgBouncer gives every transaction the server connection that is free: what a session keeps (prepared statements, settings, locks)
//! is somebody else's by the next statement. sqlx prepares a statement in one round trip and runs it in the next, so that both must
//! be of one transaction, and the statement must have no name, because a name would stay on the server. [`Pool`] and [`Transaction`]
//! are executors as sqlx's own are: statements are written without knowing which of both they run on.

use std::{ops::Deref, str::FromStr, time::Duration};

use futures_util::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream, stream::BoxStream};
use sqlx::{
    ConnectOptions, Describe, Either, Execute, Executor, PgPool, Postgres, Result, SqlStr,
    error::BoxDynError,
    migrate::{MigrateError, Migrator},
    pool::PoolOptions,
    postgres::{PgArguments, PgConnectOptions, PgQueryResult, PgRow, PgStatement, PgTypeInfo},
};
use tokio::time::timeout;
use tracing::Instrument;

use super::{SLOW, warn};
use crate::config::DatabaseConfig;

/// Longest wait for the answer to BEGIN, beyond that for a connection.
const PATIENCE: Duration = Duration::from_secs(1);
/// Who migrates behind PgBouncer takes this lock; any number that nobody else takes.
const MIGRATION: i64 = 0x77_65_69_72;

/// The pool; a clone is the same pool.
#[derive(Debug, Clone)]
pub struct Pool {
    pool: PgPool,
    /// Whether a PgBouncer stands between, and each statement needs a transaction.
    bounced: bool,
}

/// A transaction; it is rolled back unless it is committed. Run statements on `&mut *transaction`.
#[derive(Debug)]
pub struct Transaction {
    inner: sqlx::Transaction<'static, Postgres>,
    bounced: bool,
}

impl Pool {
    /// Opens the pool; `options` are those of either store.
    ///
    /// # Errors
    /// When the URL is wrong, or nobody answers there within the acquire timeout.
    pub async fn open(config: &DatabaseConfig, options: PoolOptions<Postgres>, url: &str) -> Result<Self> {
        let pool = options.connect_with(connection(config, url)?).await?;
        Ok(Self { pool, bounced: config.pgbouncer })
    }

    /// Opens the pool when it is first needed, and gives its address.
    ///
    /// # Errors
    /// When the URL is wrong.
    pub fn open_lazily(
        config: &DatabaseConfig,
        options: PoolOptions<Postgres>,
        url: &str,
    ) -> Result<(Self, String)> {
        let connection = connection(config, url)?;
        let name = format!("{}:{}", connection.get_host(), connection.get_port());
        Ok((Self { pool: options.connect_lazy_with(connection), bounced: config.pgbouncer }, name))
    }

    /// Begins a transaction. Boxed, so that it is used as sqlx's own is.
    ///
    /// # Errors
    /// When no connection is free within the acquire timeout, here or behind PgBouncer.
    pub async fn begin(&self) -> Result<Box<Transaction>> {
        let pool = self.pool.clone();
        // In a task, which nobody breaks off: sqlx would give the connection back with the transaction open, and behind PgBouncer with
        // the server it has. What nobody waits for any more is rolled back when the task drops it.
        let begun = tokio::spawn(async move { pool.begin().await }.in_current_span());
        // PgBouncer lets a client wait for a server as long as its `query_wait_timeout` says, of old two minutes.
        let wait = self.pool.options().get_acquire_timeout() + PATIENCE;
        let begun = timeout(wait, begun).await.map_err(|_| sqlx::Error::PoolTimedOut)?;
        let inner = begun.map_err(|_| sqlx::Error::WorkerCrashed)??;
        Ok(Box::new(Transaction { inner, bounced: self.bounced }))
    }

    /// Brings the schema up to date; several instances may do so at once.
    ///
    /// # Errors
    /// When the schema is not ours, or cannot be changed.
    pub async fn migrate(&self, migrations: &Migrator) -> Result<(), MigrateError> {
        if !self.bounced {
            return migrations.run(&self.pool).await;
        }
        // sqlx's own lock is a session's, and its statements have names: a lock of this transaction, and no name stays behind.
        let mut all = Migrator::with_migrations(migrations.iter().cloned().collect());
        all.set_locking(false);
        let mut turn = self.begin().await?;
        let connection = &mut *turn.inner;
        connection.execute(sqlx::raw_sql("DEALLOCATE ALL")).await?;
        let lock = sqlx::query("SELECT pg_advisory_xact_lock($1)").persistent(false);
        lock.bind(MIGRATION).execute(&mut *connection).await?;
        all.run_direct(None, &mut *connection, false).await?;
        connection.execute(sqlx::raw_sql("DEALLOCATE ALL")).await?;
        Ok(turn.commit().await?)
    }

    /// Whether connections are made to a PgBouncer, and its bounds count instead of Postgres's.
    #[must_use]
    pub fn is_bounced(&self) -> bool {
        self.bounced
    }
}

/// How a connection is made.
fn connection(config: &DatabaseConfig, url: &str) -> Result<PgConnectOptions> {
    let options = PgConnectOptions::from_str(url)?.log_slow_statements(warn(), SLOW);
    if config.pgbouncer {
        // PgBouncer refuses settings at the start that it does not know how to keep; a statement without a name has
        // a plan of its own each time anyway.
        return Ok(options.extra_float_digits(None).statement_cache_capacity(0));
    }
    // A plan for every parameter at once, which Postgres takes after five executions, counts on an average user and reads all rows of
    // one who has many. Planning anew costs a tenth of a millisecond.
    Ok(options.options([("plan_cache_mode", "force_custom_plan")]))
}

impl Transaction {
    /// Makes what was done last.
    ///
    /// # Errors
    /// What the store said; whether it lasts is then unknown.
    pub async fn commit(self) -> Result<()> {
        self.inner.commit().await
    }

    /// What COPY runs on.
    pub fn connection(&mut self) -> &mut sqlx::PgConnection {
        &mut self.inner
    }
}

impl Deref for Pool {
    type Target = PgPool;

    fn deref(&self) -> &PgPool {
        &self.pool
    }
}

/// A statement that is prepared without a name.
struct Unnamed<E> {
    query: E,
    arguments: Option<PgArguments>,
}

impl<'q, E: Execute<'q, Postgres>> Execute<'q, Postgres> for Unnamed<E> {
    fn sql(self) -> SqlStr {
        self.query.sql()
    }

    fn statement(&self) -> Option<&PgStatement> {
        self.query.statement()
    }

    fn take_arguments(&mut self) -> Result<Option<PgArguments>, BoxDynError> {
        Ok(self.arguments.take())
    }

    fn persistent(&self) -> bool {
        false
    }
}

/// What does not run a statement, and so needs neither a transaction nor a way around names.
macro_rules! as_sqlx_has_it {
    ($life:lifetime, $inner:ident) => {
        fn prepare_with<'e>(
            self,
            sql: SqlStr,
            parameters: &'e [PgTypeInfo],
        ) -> BoxFuture<'e, Result<PgStatement>>
        where
            $life: 'e,
        {
            self.$inner.prepare_with(sql, parameters)
        }

        fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>>>
        where
            $life: 'e,
        {
            self.$inner.describe(sql)
        }
    };
}

impl<'p> Executor<'p> for &'_ Pool {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, mut query: E) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        if !self.bounced {
            return self.pool.fetch_many(query);
        }
        let pool = self.clone();
        let answers = async move {
            let Some(arguments) = query.take_arguments().map_err(sqlx::Error::Encode)? else {
                // Nothing is prepared for a statement without parameters: one round trip, on one server.
                return pool.pool.fetch_many(query).try_collect::<Vec<_>>().await;
            };
            let mut turn = pool.begin().await?;
            // All at once: the answers of this service are pages.
            let answers = turn.inner.fetch_many(Unnamed { query, arguments: Some(arguments) });
            let answers = answers.try_collect::<Vec<_>>().await?;
            turn.commit().await?;
            Ok(answers)
        };
        stream::once(answers)
            .map_ok(|answers| stream::iter(answers.into_iter().map(Ok)))
            .try_flatten()
            .boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        if !self.bounced {
            return self.pool.fetch_optional(query);
        }
        let answers = self.fetch_many(query);
        async move {
            // To the end, which is where it is committed.
            let answers: Vec<_> = answers.try_collect().await?;
            Ok(answers.into_iter().find_map(Either::right))
        }
        .boxed()
    }

    as_sqlx_has_it!('p, pool);
}

impl<'t> Executor<'t> for &'t mut Transaction {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, mut query: E) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>>>
    where
        't: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        if !self.bounced {
            return self.inner.fetch_many(query);
        }
        match query.take_arguments() {
            Ok(arguments) => self.inner.fetch_many(Unnamed { query, arguments }),
            Err(error) => stream::once(async { Err(sqlx::Error::Encode(error)) }).boxed(),
        }
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, mut query: E) -> BoxFuture<'e, Result<Option<PgRow>>>
    where
        't: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        if !self.bounced {
            return self.inner.fetch_optional(query);
        }
        match query.take_arguments() {
            Ok(arguments) => self.inner.fetch_optional(Unnamed { query, arguments }),
            Err(error) => async { Err(sqlx::Error::Encode(error)) }.boxed(),
        }
    }

    as_sqlx_has_it!('t, inner);
}
