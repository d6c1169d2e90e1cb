//! Accounts: register, prove the e-mail, see oneself, edit one's profile, change one's password.

pub mod kept;
pub mod sql;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Extension, Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::IntoResponse,
    routing::{get, post, put},
};
use jiff::SignedDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use uuid::Uuid;

use crate::{
    app::{App, PRIVATE},
    cache::Kind,
    database::{Moment, Words},
    fields::{Fields, rule},
    identity::{Caller, CallerOrBearer},
    jobs::{self, Job},
    openapi::{TEXT, WEB},
    refusal::Refusal,
    sessions,
    trace::Trace,
    verification::Proven,
};

/// The roles there are, least first; the first is that of everybody who registers.
pub const ROLES: [&str; 3] = ["user", "moderator", "admin"];

/// `user:profile:{id}` keeps an [`Account`]. Five minutes: as long as a person looks around, and every write ends it.
pub const CACHED: Kind = Kind { prefix: "user:profile", life: Duration::from_secs(300) };

/// How often a proof of one's address may be asked for, the one at registration included: it is anybody's address until it is proven.
const PROOF_EVERY: SignedDuration = SignedDuration::from_mins(5);

/// An account as its owner sees it.
#[derive(Debug, Clone, Serialize, Deserialize, FromRow, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    /// UUID version 7.
    pub id: Uuid,
    /// In lower case; unique.
    pub email: String,
    /// What the account may do.
    pub roles: Words,
    /// When its owner proved to read mail there.
    pub email_verified_at: Option<Moment>,
    /// When it was registered.
    pub created_at: Moment,
    /// What its owner tells others.
    #[serde(flatten)]
    #[sqlx(flatten)]
    pub profile: Profile,
}

/// What an account's owner tells others; empty until it is first written.
#[derive(Debug, Clone, Default, Serialize, Deserialize, FromRow, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    /// At most 100 characters.
    #[schemars(length(max = 100), regex(pattern = TEXT))]
    pub display_name: String,
    /// At most 2000 characters.
    #[schemars(default, length(max = 2000), regex(pattern = TEXT))]
    pub bio: String,
    /// A picture.
    #[schemars(url, length(max = 2048), regex(pattern = WEB))]
    pub avatar_url: Option<String>,
}

/// The routes of this resource.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/auth/register", post(register))
        .route("/auth/me", get(me))
        .route("/auth/verify-email", post(verify_email))
        .route("/auth/verification", post(ask_proof))
        .route("/users/profile", put(replace_profile))
        .route("/users/password", put(change_password))
}

async fn register(
    State(app): State<Arc<App>>,
    Extension(trace): Extension<Trace>,
    mut fields: Fields,
) -> Result<impl IntoResponse, Refusal> {
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
        roles: Words(vec![ROLES[0].into()]),
        email_verified_at: None,
        created_at: Moment::now(),
        profile: Profile { display_name, ..Profile::default() },
    };
    let welcome = Job::new(jobs::Kind::Welcome, account.id, &trace, account.created_at);
    sql::insert(&app.database, &account, &hash, &welcome).await.map_err(|error| match &error {
        sqlx::Error::Database(cause) if cause.is_unique_violation() => Refusal::EmailTaken,
        _ => error.into(),
    })?;
    app.bell.ring().await;
    Ok((StatusCode::CREATED, PRIVATE, Json(account)))
}

async fn me(
    State(app): State<Arc<App>>,
    CallerOrBearer(caller): CallerOrBearer,
) -> Result<impl IntoResponse, Refusal> {
    // A deleted account may have an identity for a few seconds more.
    let id = caller.user_id.to_string();
    let account = app.cache.get(CACHED, &id, sql::find(&app.database, caller.user_id)).await?;
    let account = account.ok_or(Refusal::Unauthenticated)?;
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
    let user = caller.user_id;
    let write = sql::replace_profile(&app.database, user, &profile, Moment::now());
    if !app.cache.around(&[(CACHED, &user.to_string())], write).await? {
        return Err(Refusal::Unauthenticated);
    }
    Ok((PRIVATE, Json(profile)))
}

/// Mails the caller another link to prove their address with; nothing is mailed when it is proven.
async fn ask_proof(
    State(app): State<Arc<App>>,
    CallerOrBearer(caller): CallerOrBearer,
    Extension(trace): Extension<Trace>,
) -> Result<impl IntoResponse, Refusal> {
    let now = Moment::now();
    let job = Job::new(jobs::Kind::Verification, caller.user_id, &trace, now);
    let then = Moment::cut(now.timestamp() - PROOF_EVERY);
    if jobs::sql::ask_proof(&app.database, &job, then).await? {
        app.bell.ring().await;
    } else {
        let account = sql::find(&app.database, caller.user_id).await?.ok_or(Refusal::Unauthenticated)?;
        if account.email_verified_at.is_none() {
            return Err(Refusal::TooMany(PROOF_EVERY.as_secs().unsigned_abs()));
        }
    }
    Ok((StatusCode::ACCEPTED, PRIVATE))
}

/// Takes the token that was mailed to the address. No login is asked for: whoever has it reads that mail.
async fn verify_email(State(app): State<Arc<App>>, mut fields: Fields) -> Result<impl IntoResponse, Refusal> {
    let now = Moment::now();
    let proven = fields.required("token", None, |value| {
        let opened = value.as_str().and_then(|token| app.verifications.open(token, now));
        opened.map(Some).ok_or_else(|| "is not valid (any more)".into())
    });
    let proven = fields.finish(proven).map_err(Refusal::Invalid)?;
    let Proven { user, email } = proven.ok_or(Refusal::NotFound)?;
    // Mails are opened by scanners, and links are clicked twice: that is no write.
    if kept::is_verified(&app, &email).await? == Some(true) {
        return Ok((StatusCode::NO_CONTENT, PRIVATE));
    }
    // Of that address only: a token for an earlier one proves nothing about the present one.
    let write = sql::verify_email(&app.database, user, &email, now);
    if !kept::around_proof(&app.cache, user, &email, write).await? {
        return Err(Refusal::NotFound);
    }
    Ok((StatusCode::NO_CONTENT, PRIVATE))
}

/// Ends all other sessions: whoever else was in is out.
async fn change_password(
    State(app): State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
    mut fields: Fields,
) -> Result<impl IntoResponse, Refusal> {
    let current = fields.required("currentPassword", None, rule::text(1..=256));
    let new = fields.required("newPassword", None, rule::password);
    let (current, new) = fields.finish((current, new)).map_err(Refusal::Invalid)?;

    // As a login: a stolen session must not be a way to guess the password.
    let attempt = app.throttle.charge(&caller.user_id.to_string(), &headers, Instant::now()).await?;
    let checked = check(&app, caller.user_id, current).await;
    if !matches!(checked, Ok(None)) {
        app.throttle.refund(attempt).await;
    }
    let old = checked?.ok_or(Refusal::WrongCredentials)?;
    let hash = app.passwords.hash(new).await?;
    // Before, so that nothing has changed if Redis does not confirm it: with the old password it could not be tried again. After, for whoever
    // logged in with it in between.
    sessions::end_all(&app, caller.user_id, caller.but_this_session()).await?;
    if !sql::change_password(&app.database, caller.user_id, &old, &hash, Moment::now()).await? {
        return Err(Refusal::Contended);
    }
    sessions::end_all(&app, caller.user_id, caller.but_this_session()).await?;
    Ok((StatusCode::NO_CONTENT, PRIVATE))
}

/// The hash of the user's password, if that is what it is.
async fn check(app: &App, user: Uuid, password: String) -> Result<Option<String>, Refusal> {
    let stored = sql::password_hash(&app.database, user).await?;
    let matches = app.passwords.verify(password, stored.clone()).await?;
    Ok(stored.filter(|_| matches))
}
