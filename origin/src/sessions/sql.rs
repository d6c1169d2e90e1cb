//! Statements over `sessions`.

use sqlx::Result;
use uuid::Uuid;

use crate::{
    database::{Database, Moment, Words, on},
    token::TokenHash,
};

/// A live session with its owner.
#[derive(Debug, sqlx::FromRow)]
pub struct Live {
    /// The owner.
    pub user_id: Uuid,
    /// The owner's e-mail.
    pub email: String,
    /// The owner's roles.
    pub roles: Words,
    /// When it ends.
    pub expires_at: Moment,
}

/// Starts a session.
///
/// # Errors
/// What the store said.
pub async fn insert(
    database: &Database,
    token: TokenHash,
    user: Uuid,
    now: Moment,
    expires: Moment,
) -> Result<()> {
    on!(database, |pool| sqlx::query(
        "INSERT INTO sessions (token_hash, user_id, created_at, expires_at) VALUES ($1, $2, $3, $4)"
    )
    .bind(token.bytes())
    .bind(user)
    .bind(now)
    .bind(expires)
    .execute(pool)
    .await
    .map(drop))
}

/// The session of a token, unless it has expired.
///
/// # Errors
/// What the store said.
pub async fn find(database: &Database, token: TokenHash, now: Moment) -> Result<Option<Live>> {
    on!(database, |pool| sqlx::query_as(
        "SELECT s.user_id, u.email, u.roles, s.expires_at
         FROM sessions s JOIN users u ON u.id = s.user_id WHERE s.token_hash = $1 AND s.expires_at > $2"
    )
    .bind(token.bytes())
    .bind(now)
    .fetch_optional(pool)
    .await)
}

/// Ends a session; false when there was none.
///
/// # Errors
/// What the store said.
pub async fn delete(database: &Database, token: TokenHash) -> Result<bool> {
    on!(database, |pool| sqlx::query("DELETE FROM sessions WHERE token_hash = $1")
        .bind(token.bytes())
        .execute(pool)
        .await
        .map(|done| done.rows_affected() == 1))
}

/// Removes what has expired, and says how many.
///
/// # Errors
/// What the store said.
pub async fn sweep(database: &Database, now: Moment) -> Result<u64> {
    on!(database, |pool| sqlx::query("DELETE FROM sessions WHERE expires_at <= $1")
        .bind(now)
        .execute(pool)
        .await
        .map(|done| done.rows_affected()))
}
