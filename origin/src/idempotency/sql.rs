//! Statements over `idempotency_keys`.

use sqlx::Result;
use uuid::Uuid;

use crate::database::{Database, Moment, on};

/// What a key stands for.
#[derive(Debug, sqlx::FromRow)]
pub struct Reserved {
    /// SHA-256 of the request it came with.
    pub fingerprint: Vec<u8>,
    /// The id that the request's work has.
    pub resource: Uuid,
    /// Whether the work is done.
    pub done: bool,
}

/// Reserves `resource` for a key, or gives what the key stands for already.
///
/// # Errors
/// A foreign key violation when there is no such user.
pub async fn reserve(
    database: &Database,
    user: Uuid,
    key: &str,
    fingerprint: &[u8],
    resource: Uuid,
    now: Moment,
) -> Result<Reserved> {
    // An update that changes nothing, because DO NOTHING returns no row of those who came first.
    on!(database, |pool| sqlx::query_as(
        "INSERT INTO idempotency_keys (user_id, key, fingerprint, resource, done, created_at)
         VALUES ($1, $2, $3, $4, FALSE, $5)
         ON CONFLICT (user_id, key) DO UPDATE SET done = idempotency_keys.done
         RETURNING fingerprint, resource, done"
    )
    .bind(user)
    .bind(key)
    .bind(fingerprint)
    .bind(resource)
    .bind(now)
    .fetch_one(pool)
    .await)
}

/// Says that what a key stands for is made.
///
/// # Errors
/// What the store said.
pub async fn finish(database: &Database, user: Uuid, key: &str) -> Result<()> {
    on!(database, |pool| sqlx::query(
        "UPDATE idempotency_keys SET done = TRUE WHERE user_id = $1 AND key = $2"
    )
    .bind(user)
    .bind(key)
    .execute(pool)
    .await
    .map(drop))
}

/// Forgets the keys from before `then`, and says how many.
///
/// # Errors
/// What the store said.
pub async fn sweep(database: &Database, then: Moment) -> Result<u64> {
    on!(database, |pool| sqlx::query("DELETE FROM idempotency_keys WHERE created_at < $1")
        .bind(then)
        .execute(pool)
        .await
        .map(|done| done.rows_affected()))
}
