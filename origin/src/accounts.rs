//! Accounts: register, see oneself, edit one's profile.

pub mod sql;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::IntoResponse,
    routing::{get, post, put},
};
use serde::Serialize;
use sqlx::FromRow;
use uuid::Uuid;

use crate::{
    app::{App, PRIVATE},
    database::{Moment, Words},
    fields::{Fields, rule},
    identity::{Caller, CallerOrBearer},
    refusal::Refusal,
};

/// The role of everybody who registers.
const USER: &str = "user";

/// An account as its owner sees it.
#[derive(Debug, Clone, Serialize, FromRow)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    /// UUID version 7.
    pub id: Uuid,
    /// In lower case; unique.
    pub email: String,
    /// What the account may do.
    pub roles: Words,
    /// When it was registered.
    pub created_at: Moment,
    /// What its owner tells others.
    #[serde(flatten)]
    #[sqlx(flatten)]
    pub profile: Profile,
}

/// What an account's owner tells others; empty until it is first written.
#[derive(Debug, Clone, Default, Serialize, FromRow)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    /// At most 100 characters.
    pub display_name: String,
    /// At most 2000 characters.
    pub bio: String,
    /// A picture.
    pub avatar_url: Option<String>,
}

/// The routes of this resource.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/auth/register", post(register))
        .route("/auth/me", get(me))
        .route("/users/profile", put(replace_profile))
}

async fn register(State(app): State<Arc<App>>, mut fields: Fields) -> Result<impl IntoResponse, Refusal> {
    let email = fields.required("email", None, rule::email);
    let password = fields.required("password", None, rule::password);
    let display_name = fields.defaulted("displayName", None, rule::text(0..=100));
    let (email, password, display_name) =
        fields.finish((email, password, display_name)).map_err(Refusal::Invalid)?;

    // Hashed before the address is known to be free: both answers take the same time.
    let hash = app.passwords.hash(password).await?;
    let account = Account {
        id: Uuid::now_v7(),
        email,
        roles: Words(vec![USER.into()]),
        created_at: Moment::now(),
        profile: Profile { display_name, ..Profile::default() },
    };
    sql::insert(&app.database, &account, &hash).await.map_err(|error| match &error {
        sqlx::Error::Database(cause) if cause.is_unique_violation() => Refusal::EmailTaken,
        _ => error.into(),
    })?;
    Ok((StatusCode::CREATED, PRIVATE, Json(account)))
}

async fn me(
    State(app): State<Arc<App>>,
    CallerOrBearer(caller): CallerOrBearer,
) -> Result<impl IntoResponse, Refusal> {
    // A deleted account may have an identity for a few seconds more.
    let account = sql::find(&app.database, caller.user_id).await?.ok_or(Refusal::Unauthenticated)?;
    Ok((PRIVATE, Json(account)))
}

async fn replace_profile(
    State(app): State<Arc<App>>,
    caller: Caller,
    mut fields: Fields,
) -> Result<impl IntoResponse, Refusal> {
    let profile = Profile {
        display_name: fields.required("displayName", None, rule::text(0..=100)),
        bio: fields.defaulted("bio", None, rule::text(0..=2000)),
        avatar_url: fields.optional("avatarUrl", None, rule::url),
    };
    let profile = fields.finish(profile).map_err(Refusal::Invalid)?;
    if !sql::replace_profile(&app.database, caller.user_id, &profile, Moment::now()).await? {
        return Err(Refusal::Unauthenticated);
    }
    Ok((PRIVATE, Json(profile)))
}
