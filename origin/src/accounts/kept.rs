//! What Redis keeps of accounts beside the profile, and which write ends what.
//!
//! Roles end with new roles, the answer whether an address is proven with its proof; nothing else writes either. Both are asked
//! before something is done that the statement itself guards again: a value that is old for want of Redis changes no more than an answer.

use std::time::Duration;

use uuid::Uuid;

use super::{CACHED, sql};
use crate::{
    app::App,
    cache::{Cache, Kind},
    database::Words,
};

/// `user:roles:{id}` keeps [`Words`]. As long as the profile that has them, too.
pub const ROLES: Kind = Kind { prefix: "user:roles", life: CACHED.life };
/// `email:verified:{email}` keeps whether. An hour: once it is true it stays, and until then a proof ends it.
pub const VERIFIED: Kind = Kind { prefix: "email:verified", life: Duration::from_secs(3600) };

/// The present roles of an account; those of a signed identity may be a minute old.
///
/// # Errors
/// What the store said.
pub async fn roles(app: &App, user: Uuid) -> sqlx::Result<Option<Words>> {
    app.cache.get(ROLES, &user.to_string(), sql::roles(&app.database, user)).await
}

/// Whether an address is proven; `None` when nobody has registered it.
///
/// # Errors
/// What the store said.
pub async fn is_verified(app: &App, email: &str) -> sqlx::Result<Option<bool>> {
    app.cache.get(VERIFIED, email, sql::is_verified(&app.database, email)).await
}

/// Runs a write of a user's roles.
pub async fn around_roles<T>(cache: &Cache, user: Uuid, write: impl Future<Output = T>) -> T {
    let id = user.to_string();
    cache.around(&[(CACHED, &id), (ROLES, &id)], write).await
}

/// Runs a write of the proof of a user's address.
pub async fn around_proof<T>(cache: &Cache, user: Uuid, email: &str, write: impl Future<Output = T>) -> T {
    cache.around(&[(CACHED, &user.to_string()), (VERIFIED, email)], write).await
}
