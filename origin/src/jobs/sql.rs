//! Statements over `jobs`, and the delivery of items, which queues some.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::{QueryBuilder, Result};
use uuid::Uuid;

use super::{Job, Kind};
use crate::{
    database::{Database, Moment, on},
    trace::Trace,
};

/// Most characters of an error that are kept.
const ERROR_MOST: usize = 500;
/// Waiting jobs that are counted at most: what is measured must not become work itself.
const COUNTED: i32 = 100_000;

/// Queues a [`Job`] in a transaction of either store.
macro_rules! queue {
    ($transaction:expr, $job:expr) => {{
        let job: &$crate::jobs::Job = $job;
        sqlx::query(
            "INSERT INTO jobs (id, kind, user_id, item_id, trace_id, created_at, due_at, tries)
             VALUES ($1, $2, $3, $4, $5, $6, $6, 0)",
        )
        .bind(job.id)
        .bind(job.kind.word())
        .bind(job.user)
        .bind(job.item)
        .bind(&job.trace_id)
        .bind(job.due_at)
        .execute(&mut *$transaction)
        .await
    }};
}
pub(crate) use queue;

/// A taken job.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Taken {
    /// Its id.
    pub id: Uuid,
    /// [`Kind::word`], perhaps of a newer version.
    pub kind: String,
    /// For whom.
    pub user_id: Uuid,
    /// Of a delivery.
    pub item_id: Option<Uuid>,
    /// The request that asked for it.
    pub trace_id: Option<String>,
    /// How often it was begun.
    pub tries: i32,
}

impl From<Job> for Taken {
    fn from(job: Job) -> Self {
        let Job { id, kind, user, item, trace_id, .. } = job;
        Self {
            id,
            kind: kind.word().to_owned(),
            user_id: user,
            item_id: item,
            trace_id: Some(trace_id),
            tries: 0,
        }
    }
}

/// Takes at most `count` due jobs, oldest first, until `lease_ends`.
///
/// # Errors
/// What the store said.
pub async fn take(database: &Database, now: Moment, lease_ends: Moment, count: u32) -> Result<Vec<Taken>> {
    // Workers do not wait for each other. SQLite has one writer at a time, and is only made to write when there is something.
    let skip = match database {
        Database::Sqlite(pool) => {
            let due =
                sqlx::query("SELECT 1 FROM jobs WHERE dead_at IS NULL AND due_at <= $1 LIMIT 1").bind(now);
            if due.fetch_optional(pool).await?.is_none() {
                return Ok(Vec::new());
            }
            ""
        }
        Database::Postgres(_) => " FOR UPDATE SKIP LOCKED",
    };
    on!(database, |pool| {
        // Materialized: a subquery that is planned as a join would be run, and would lock, again and again.
        let mut sql = QueryBuilder::new(
            "WITH due AS MATERIALIZED (SELECT id FROM jobs WHERE dead_at IS NULL AND due_at <= ",
        );
        sql.push_bind(now).push(" ORDER BY due_at LIMIT ").push_bind(i64::from(count)).push(skip);
        sql.push(") UPDATE jobs SET due_at = ").push_bind(lease_ends);
        sql.push(" WHERE id IN (SELECT id FROM due) RETURNING id, kind, user_id, item_id, trace_id, tries");
        sql.build_query_as().fetch_all(pool).await
    })
}

/// Begins a taken job, which is then ours until `lease_ends`; false when somebody else has, or it is gone.
///
/// # Errors
/// What the store said.
pub async fn begin(database: &Database, job: &Taken, lease_ends: Moment) -> Result<bool> {
    on!(database, |pool| sqlx::query(
        "UPDATE jobs SET tries = tries + 1, due_at = $3 WHERE id = $1 AND tries = $2 AND dead_at IS NULL"
    )
    .bind(job.id)
    .bind(job.tries)
    .bind(lease_ends)
    .execute(pool)
    .await
    .map(|done| done.rows_affected() == 1))
}

/// Gives a taken job back that was not begun.
///
/// # Errors
/// What the store said.
pub async fn release(database: &Database, job: &Taken, now: Moment) -> Result<()> {
    on!(database, |pool| sqlx::query(
        "UPDATE jobs SET due_at = $3 WHERE id = $1 AND tries = $2 AND dead_at IS NULL"
    )
    .bind(job.id)
    .bind(job.tries)
    .bind(now)
    .execute(pool)
    .await
    .map(drop))
}

/// How a try ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It needs nothing more.
    Done,
    /// Again at this time.
    Later(Moment, String),
    /// Never again, since this time.
    Dead(Moment, String),
}

/// Writes down how the `tries`-th try ended; false when the job was no longer this try's.
///
/// # Errors
/// What the store said.
pub async fn end(database: &Database, id: Uuid, tries: i32, ended: &Ended) -> Result<bool> {
    on!(database, |pool| {
        let query = match ended {
            Ended::Done => sqlx::query("DELETE FROM jobs WHERE id = $1 AND tries = $2").bind(id).bind(tries),
            Ended::Later(at, error) => {
                sqlx::query("UPDATE jobs SET due_at = $3, last_error = $4 WHERE id = $1 AND tries = $2")
                    .bind(id)
                    .bind(tries)
                    .bind(*at)
                    .bind(cut(error))
            }
            Ended::Dead(at, error) => {
                sqlx::query("UPDATE jobs SET dead_at = $3, last_error = $4 WHERE id = $1 AND tries = $2")
                    .bind(id)
                    .bind(tries)
                    .bind(*at)
                    .bind(cut(error))
            }
        };
        query.execute(pool).await.map(|done| done.rows_affected() == 1)
    })
}

fn cut(error: &str) -> String {
    // Postgres takes no NUL in a text, and a mail server may say anything.
    error.chars().filter(|c| *c != '\0').take(ERROR_MOST).collect()
}

/// Whom a mail goes to.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Recipient {
    /// The present address.
    pub email: String,
    /// Whether its owner has proven it.
    pub email_verified_at: Option<Moment>,
}

/// Who the mail to a user goes to; for an item, only while it is that user's and delivered.
///
/// # Errors
/// What the store said.
pub async fn recipient(database: &Database, user: Uuid, item: Option<Uuid>) -> Result<Option<Recipient>> {
    on!(database, |pool| {
        let mut sql = QueryBuilder::new("SELECT email, email_verified_at FROM users WHERE id = ");
        sql.push_bind(user);
        if let Some(item) = item {
            sql.push(" AND EXISTS (SELECT 1 FROM items WHERE user_id = users.id AND delivered_at IS NOT NULL AND id = ");
            sql.push_bind(item).push(")");
        }
        sql.build_query_as().fetch_optional(pool).await
    })
}

/// What was delivered.
#[derive(Debug, Default)]
pub struct Delivered {
    /// How many items.
    pub items: usize,
    /// What their owners' edges are to be told; already taken.
    pub purges: Vec<Taken>,
}

/// Delivers at most `count` items whose time has come, and queues a mail about each, and a purge for each owner if somebody can tell the
/// edges; those purges are the caller's until `purged_by`. An item is delivered once: that it was stands in its row, written with both.
///
/// # Errors
/// What the store said.
pub async fn deliver(
    database: &Database,
    now: Moment,
    count: u32,
    trace: &Trace,
    purged_by: Option<Moment>,
) -> Result<Delivered> {
    const DUE: &str = "SELECT id FROM items WHERE delivered_at IS NULL AND scheduled_delivery <= ";
    let skip = match database {
        Database::Sqlite(pool) => {
            let due =
                QueryBuilder::new(DUE).push_bind(now).push(" LIMIT 1").build().fetch_optional(pool).await?;
            if due.is_none() {
                return Ok(Delivered::default());
            }
            ""
        }
        Database::Postgres(_) => " FOR UPDATE SKIP LOCKED",
    };
    on!(database, |pool| {
        let mut transaction = pool.begin().await?;
        let mut sql = QueryBuilder::new("WITH due AS MATERIALIZED (");
        sql.push(DUE).push_bind(now).push(" ORDER BY scheduled_delivery LIMIT ");
        sql.push_bind(i64::from(count)).push(skip);
        sql.push(") UPDATE items SET version = version + 1, delivered_at = ").push_bind(now);
        sql.push(", updated_at = ").push_bind(now);
        sql.push(" WHERE id IN (SELECT id FROM due) RETURNING id, user_id");
        let delivered: Vec<(Uuid, Uuid)> = sql.build_query_as().fetch_all(&mut *transaction).await?;
        let mails = delivered
            .iter()
            .map(|(item, user)| Job { item: Some(*item), ..Job::new(Kind::Delivery, *user, trace, now) });
        let owners: BTreeSet<_> = delivered.iter().map(|(_, user)| *user).collect();
        let purge = |user, due_at| Job { due_at, ..Job::new(Kind::Purge, user, trace, now) };
        let purges = purged_by.iter().flat_map(|by| owners.iter().map(|user| purge(*user, *by)));
        let jobs: Vec<_> = mails.chain(purges).collect();
        if !jobs.is_empty() {
            let columns =
                "INSERT INTO jobs (id, kind, user_id, item_id, trace_id, created_at, due_at, tries) ";
            QueryBuilder::new(columns)
                .push_values(&jobs, |mut row, job| {
                    row.push_bind(job.id).push_bind(job.kind.word()).push_bind(job.user).push_bind(job.item);
                    row.push_bind(&job.trace_id).push_bind(now).push_bind(job.due_at).push("0");
                })
                .build()
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        let purges = jobs.into_iter().filter(|job| job.kind == Kind::Purge).map(Taken::from).collect();
        Ok(Delivered { items: delivered.len(), purges })
    })
}

/// Queues a job for a proof of the user's address, unless one was asked for since `then` or still waits; false when so, or when it is
/// proven.
///
/// # Errors
/// What the store said.
pub async fn ask_proof(database: &Database, job: &Job, then: Moment) -> Result<bool> {
    on!(database, |pool| {
        let mut transaction = pool.begin().await?;
        let asked = sqlx::query(
            "UPDATE users SET verification_asked_at = $2 WHERE id = $1 AND email_verified_at IS NULL
             AND (verification_asked_at IS NULL OR verification_asked_at <= $3)
             AND NOT EXISTS (SELECT 1 FROM jobs WHERE user_id = $1 AND kind = $4 AND dead_at IS NULL)",
        )
        .bind(job.user)
        .bind(job.due_at)
        .bind(then)
        .bind(job.kind.word())
        .execute(&mut *transaction)
        .await?
        .rows_affected()
            == 1;
        if asked {
            queue!(transaction, job)?;
        }
        transaction.commit().await?;
        Ok(asked)
    })
}

/// How much waits.
#[derive(Debug, Clone, Copy, sqlx::FromRow)]
pub struct Depth {
    /// Jobs that are due, taken or put off; counted up to a hundred thousand.
    pub waiting: i64,
    /// When the oldest of them was queued.
    pub oldest: Option<Moment>,
    /// Jobs that were given up, counted likewise.
    pub dead: i64,
}

/// How much waits, and what was given up.
///
/// # Errors
/// What the store said.
pub async fn depth(database: &Database) -> Result<Depth> {
    on!(database, |pool| {
        sqlx::query_as(
        "SELECT w.waiting, w.oldest, d.dead
         FROM (SELECT count(*) AS waiting, min(created_at) AS oldest
               FROM (SELECT created_at FROM jobs WHERE dead_at IS NULL ORDER BY due_at LIMIT $1) AS counted) AS w,
              (SELECT count(*) AS dead FROM (SELECT 1 FROM jobs WHERE dead_at IS NOT NULL LIMIT $1) AS counted) AS d"
    )
    .bind(COUNTED)
    .fetch_one(pool)
    .await
    })
}

/// A job that was given up.
#[derive(Debug, Clone, Serialize, sqlx::FromRow, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Dead {
    /// Its id.
    pub id: Uuid,
    /// [`Kind::word`].
    pub kind: String,
    /// For whom.
    pub user_id: Uuid,
    /// How often it was tried.
    pub tries: i32,
    /// What the last try said.
    pub last_error: Option<String>,
    /// When it was queued.
    pub created_at: Moment,
    /// When it was given up.
    pub dead_at: Moment,
}

/// At most `count` jobs that were given up, newest first.
///
/// # Errors
/// What the store said.
pub async fn dead(database: &Database, count: u32) -> Result<Vec<Dead>> {
    on!(database, |pool| sqlx::query_as(
        "SELECT id, kind, user_id, tries, last_error, created_at, dead_at FROM jobs
         WHERE dead_at IS NOT NULL ORDER BY dead_at DESC, id DESC LIMIT $1"
    )
    .bind(i64::from(count))
    .fetch_all(pool)
    .await)
}

/// Makes all jobs that were given up due again, as if they had never been tried, and says how many.
///
/// # Errors
/// What the store said.
pub async fn revive(database: &Database, now: Moment) -> Result<u64> {
    on!(database, |pool| sqlx::query(
        "UPDATE jobs SET dead_at = NULL, tries = 0, due_at = $1 WHERE dead_at IS NOT NULL"
    )
    .bind(now)
    .execute(pool)
    .await
    .map(|done| done.rows_affected()))
}

/// Forgets what was given up before `then`, and says how much.
///
/// # Errors
/// What the store said.
pub async fn sweep(database: &Database, then: Moment) -> Result<u64> {
    on!(database, |pool| sqlx::query("DELETE FROM jobs WHERE dead_at < $1")
        .bind(then)
        .execute(pool)
        .await
        .map(|done| done.rows_affected()))
}
