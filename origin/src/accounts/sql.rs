//! Statements over `users` and `profiles`.

use sqlx::Result;
use uuid::Uuid;

use super::{Account, Profile};
use crate::{
    database::{Database, Moment, Words, on},
    jobs::{Job, sql::queue},
};

/// What login compares.
#[derive(Debug, sqlx::FromRow)]
pub struct Credentials {
    /// Whose they are.
    pub id: Uuid,
    /// PHC string.
    pub password_hash: String,
    /// For the session.
    pub roles: Words,
}

/// Adds an account with its profile, and queues its welcome.
///
/// # Errors
/// A unique violation when the e-mail is taken.
pub async fn insert(
    database: &Database,
    account: &Account,
    password_hash: &str,
    welcome: &Job,
) -> Result<()> {
    // One transaction: an account always has the profile it was registered with, and its mail is never lost.
    on!(database, |pool| {
        let mut transaction = pool.begin().await?;
        sqlx::query(
            "INSERT INTO users (id, email, password_hash, roles, created_at, updated_at, verification_asked_at)
             VALUES ($1, $2, $3, $4, $5, $5, $5)",
        )
        .bind(account.id)
        .bind(&account.email)
        .bind(password_hash)
        .bind(&account.roles)
        .bind(account.created_at)
        .execute(&mut *transaction)
        .await?;
        sqlx::query("INSERT INTO profiles (user_id, display_name, bio, avatar_url, updated_at) VALUES ($1, $2, $3, $4, $5)")
            .bind(account.id)
            .bind(&account.profile.display_name)
            .bind(&account.profile.bio)
            .bind(&account.profile.avatar_url)
            .bind(account.created_at)
            .execute(&mut *transaction)
            .await?;
        queue!(transaction, welcome)?;
        transaction.commit().await
    })
}

/// An account with its profile.
///
/// # Errors
/// What the store said.
pub async fn find(database: &Database, id: Uuid) -> Result<Option<Account>> {
    on!(database, |pool| {
        sqlx::query_as(
        "SELECT u.id, u.email, u.roles, u.email_verified_at, u.created_at, p.display_name, p.bio, p.avatar_url
         FROM users u JOIN profiles p ON p.user_id = u.id WHERE u.id = $1"
    )
    .bind(id)
    .fetch_optional(pool)
    .await
    })
}

/// The account behind an e-mail, for login.
///
/// # Errors
/// What the store said.
pub async fn credentials(database: &Database, email: &str) -> Result<Option<Credentials>> {
    on!(database, |pool| sqlx::query_as("SELECT id, password_hash, roles FROM users WHERE email = $1")
        .bind(email)
        .fetch_optional(pool)
        .await)
}

/// Overwrites a profile; false when there is no such account.
///
/// # Errors
/// What the store said.
pub async fn replace_profile(
    database: &Database,
    user: Uuid,
    profile: &Profile,
    now: Moment,
) -> Result<bool> {
    on!(database, |pool| sqlx::query(
        "UPDATE profiles SET display_name = $2, bio = $3, avatar_url = $4, updated_at = $5 WHERE user_id = $1"
    )
    .bind(user)
    .bind(&profile.display_name)
    .bind(&profile.bio)
    .bind(&profile.avatar_url)
    .bind(now)
    .execute(pool)
    .await
    .map(|done| done.rows_affected() == 1))
}

/// What the password of an account is checked against.
///
/// # Errors
/// What the store said.
pub async fn password_hash(database: &Database, user: Uuid) -> Result<Option<String>> {
    on!(database, |pool| sqlx::query_scalar("SELECT password_hash FROM users WHERE id = $1")
        .bind(user)
        .fetch_optional(pool)
        .await)
}

/// Sets another password, if `old` is still the hash of the present one; false when not.
///
/// # Errors
/// What the store said.
pub async fn change_password(
    database: &Database,
    user: Uuid,
    old: &str,
    new: &str,
    now: Moment,
) -> Result<bool> {
    on!(database, |pool| sqlx::query(
        "UPDATE users SET password_hash = $3, updated_at = $4 WHERE id = $1 AND password_hash = $2"
    )
    .bind(user)
    .bind(old)
    .bind(new)
    .bind(now)
    .execute(pool)
    .await
    .map(|done| done.rows_affected() == 1))
}

/// The roles of an account.
///
/// # Errors
/// What the store said.
pub async fn roles(database: &Database, user: Uuid) -> Result<Option<Words>> {
    on!(database, |pool| sqlx::query_scalar("SELECT roles FROM users WHERE id = $1")
        .bind(user)
        .fetch_optional(pool)
        .await)
}

/// Whether the address of an account is proven; `None` when it is nobody's.
///
/// # Errors
/// What the store said.
pub async fn is_verified(database: &Database, email: &str) -> Result<Option<bool>> {
    on!(database, |pool| sqlx::query_scalar(
        "SELECT email_verified_at IS NOT NULL FROM users WHERE email = $1"
    )
    .bind(email)
    .fetch_optional(pool)
    .await)
}

/// Notes that the owner of an account reads mail at `email`; false when that is not its address.
///
/// # Errors
/// What the store said.
pub async fn verify_email(database: &Database, user: Uuid, email: &str, now: Moment) -> Result<bool> {
    on!(database, |pool| sqlx::query(
        "UPDATE users SET email_verified_at = COALESCE(email_verified_at, $3), updated_at = $3
         WHERE id = $1 AND email = $2"
    )
    .bind(user)
    .bind(email)
    .bind(now)
    .execute(pool)
    .await
    .map(|done| done.rows_affected() == 1))
}
