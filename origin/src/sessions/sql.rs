//! Statements over `sessions`.

use sqlx::{QueryBuilder, Result};
use uuid::Uuid;

use super::Which;
use crate::{
    database::{Database, Moment, Words, on},
    token::{Seed, TokenHash},
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

/// A new session.
#[derive(Debug)]
pub struct Row {
    /// Of its token.
    pub token: TokenHash,
    /// What the token is made of.
    pub seed: Seed,
    /// At most 200 characters.
    pub user_agent: String,
    /// When it begins.
    pub created_at: Moment,
    /// When it ends.
    pub expires_at: Moment,
}

/// A session in its owner's list.
#[derive(Debug, sqlx::FromRow)]
pub struct Listed {
    /// Of its token.
    pub token_hash: Vec<u8>,
    /// As the client called itself.
    pub user_agent: String,
    /// When it began.
    pub created_at: Moment,
    /// When it ends.
    pub expires_at: Moment,
}

/// Starts a session, if `password_hash` is still the user's; false when not.
///
/// # Errors
/// What the store said.
pub async fn insert(database: &Database, user: Uuid, password_hash: &str, row: &Row) -> Result<bool> {
    on!(database, |pool| sqlx::query(
        "INSERT INTO sessions (token_hash, user_id, seed, user_agent, created_at, expires_at)
         SELECT $1, id, $3, $4, $5, $6 FROM users WHERE id = $2 AND password_hash = $7"
    )
    .bind(row.token.bytes())
    .bind(user)
    .bind(&row.seed[..])
    .bind(&row.user_agent)
    .bind(row.created_at)
    .bind(row.expires_at)
    .bind(password_hash)
    .execute(pool)
    .await
    .map(|done| done.rows_affected() == 1))
}

/// At most `count` live sessions of a user, newest first, that come after `after`.
///
/// # Errors
/// What the store said.
pub async fn page(
    database: &Database,
    user: Uuid,
    after: Option<(Moment, TokenHash)>,
    count: i32,
    now: Moment,
) -> Result<Vec<Listed>> {
    on!(database, |pool| {
        let mut sql = QueryBuilder::new(
            "SELECT token_hash, user_agent, created_at, expires_at FROM sessions WHERE user_id = ",
        );
        sql.push_bind(user).push(" AND expires_at > ").push_bind(now);
        if let Some((created_at, token)) = &after {
            sql.push(" AND (created_at, token_hash) < (").push_bind(*created_at);
            sql.push(", ").push_bind(token.bytes()).push(")");
        }
        sql.push(" ORDER BY created_at DESC, token_hash DESC LIMIT ").push_bind(count);
        sql.build_query_as().fetch_all(pool).await
    })
}

/// Adds which of a user's sessions are meant. A macro, because the stores' statements are of two types.
macro_rules! pick {
    ($sql:ident, $user:ident, $which:ident) => {
        match &$which {
            Which::All => &mut $sql,
            Which::Only(token) => $sql.push(" AND token_hash = ").push_bind(token.bytes()),
            Which::AllBut(token) => $sql.push(" AND token_hash <> ").push_bind(token.bytes()),
            Which::AllButNewest(most) => $sql
                .push(
                    " AND (created_at, token_hash) <
                     (SELECT created_at, token_hash FROM sessions WHERE user_id = ",
                )
                .push_bind($user)
                .push(" ORDER BY created_at DESC, token_hash DESC LIMIT 1 OFFSET ")
                .push_bind(i64::from(most.get()) - 1)
                .push(")"),
        }
    };
}

/// What the tokens of a user's sessions are made of.
///
/// # Errors
/// What the store said.
pub async fn seeds(database: &Database, user: Uuid, which: Which) -> Result<Vec<Vec<u8>>> {
    on!(database, |pool| {
        let mut sql = QueryBuilder::new("SELECT seed FROM sessions WHERE user_id = ");
        sql.push_bind(user);
        pick!(sql, user, which);
        sql.build_query_scalar().fetch_all(pool).await
    })
}

/// Ends sessions of a user, and gives what their tokens were made of.
///
/// # Errors
/// What the store said.
pub async fn delete_of(database: &Database, user: Uuid, which: Which) -> Result<Vec<Vec<u8>>> {
    on!(database, |pool| {
        let mut sql = QueryBuilder::new("DELETE FROM sessions WHERE user_id = ");
        sql.push_bind(user);
        pick!(sql, user, which);
        sql.push(" RETURNING seed").build_query_scalar().fetch_all(pool).await
    })
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
