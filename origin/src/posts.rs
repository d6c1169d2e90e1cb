//! Posts: written by one, read by all.

pub mod sql;

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, put},
};
use jiff::SignedDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::FromRow;
use uuid::Uuid;

use crate::{
    app::{App, PRIVATE},
    cache::Kind,
    conditions::{self, IfMatch, PATCH_TRIES},
    cursor::Walk,
    database::{Moment, Scope, read},
    fields::{Fields, QueryFields, parse_id, rule},
    idempotency::IdempotencyKey,
    identity::Caller,
    openapi::{TEXT, WEB},
    refusal::{Refusal, owner_gone},
};

/// Posts in the list of the most liked.
pub const TOP: i32 = 10;
/// Likes count for the top ten so long.
const TOP_OF: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Seconds that the edge may keep a list of posts or a post; a write purges them by tag. `public`, because it was perhaps asked for with
/// a token (RFC 9111 §3.5).
const KEPT: &str = "public, max-age=60";
/// Seconds that the edge may keep the top ten: a heavy query, and nobody's like must show at once.
const TOP_KEPT: &str = "public, max-age=300";

/// `posts:top` keeps the top ten, as long as the edge does. A like may wait; what is changed or removed must not.
pub const CACHED: Kind = Kind { prefix: "posts", life: Duration::from_secs(300) };

/// A post with its author.
#[derive(Debug, Clone, Serialize, Deserialize, FromRow, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Post {
    /// UUID version 7: in the order of creation.
    pub id: Uuid,
    /// Counts its writes.
    #[serde(skip)]
    pub version: i64,
    /// What its author wrote.
    #[serde(flatten)]
    #[sqlx(flatten)]
    pub draft: Draft,
    /// Who wrote it.
    #[sqlx(flatten)]
    pub author: Author,
    /// When it was made.
    pub created_at: Moment,
    /// When it was last written.
    pub updated_at: Moment,
}

/// Who wrote a post, as everybody may see it.
#[derive(Debug, Clone, Serialize, Deserialize, FromRow, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Author {
    /// The account's id.
    #[serde(rename = "id")]
    pub author_id: Uuid,
    /// The profile's.
    pub display_name: String,
    /// The profile's.
    #[schemars(url, length(max = 2048), regex(pattern = WEB))]
    pub avatar_url: Option<String>,
}

/// What an author writes.
#[derive(Debug, Clone, Default, Serialize, Deserialize, FromRow, JsonSchema)]
pub struct Draft {
    /// 1 to 200 characters.
    #[schemars(length(min = 1, max = 200), regex(pattern = TEXT))]
    pub title: String,
    /// At most 20 000 characters.
    #[schemars(default, length(max = 20_000), regex(pattern = TEXT))]
    pub content: String,
}

/// A post among the most liked.
#[derive(Debug, Serialize, Deserialize, FromRow, JsonSchema)]
pub struct Liked {
    /// The post.
    #[serde(flatten)]
    #[sqlx(flatten)]
    pub post: Post,
    /// By how many.
    pub likes: i64,
}

/// The routes of this resource.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/posts", get(list).post(create))
        .route("/posts/top", get(top))
        .route("/posts/{id}", get(read).patch(change).delete(delete))
        .route("/posts/{id}/like", put(like).delete(unlike))
}

async fn list(
    State(app): State<Arc<App>>,
    QueryFields(mut query): QueryFields,
) -> Result<impl IntoResponse, Refusal> {
    let author = query.optional("author", None, rule::id);
    let walk = Walk::take(&mut query, &app.cursors, format!("posts {author:?}"));
    let walk = query.finish(walk).map_err(Refusal::InvalidQuery)?;
    let (after, count) = (walk.after, walk.count());
    let posts = read!(app, Scope::Posts, |db| sql::page(db, author, after, count))?;
    Ok((for_everybody(KEPT, None), Json(walk.page("posts", posts, |post: &Post| post.id))))
}

async fn top(State(app): State<Arc<App>>) -> Result<impl IntoResponse, Refusal> {
    let since = Moment::cut(Moment::now().timestamp() - TOP_OF);
    // Not of a replica: what it lacks would be kept.
    let posts = app.cache.get(CACHED, "top", async { sql::top(&app.database, since, TOP).await.map(Some) });
    let posts = posts.await?.unwrap_or_default();
    Ok((for_everybody(TOP_KEPT, None), Json(json!({ "posts": posts }))))
}

async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    key: IdempotencyKey,
    mut fields: Fields,
) -> Result<impl IntoResponse, Refusal> {
    let fingerprint = fields.fingerprint("post");
    let draft = Draft::take(&mut fields, None);
    let draft = fields.finish(draft).map_err(Refusal::Invalid)?;
    let slot = key.reserve(&app, caller.user_id, fingerprint).await?;
    if !slot.done {
        sql::insert(&app.database, caller.user_id, slot.id, &draft, Moment::now())
            .await
            .map_err(owner_gone)?;
        slot.finish(&app, caller.user_id).await?;
    }
    let post = sql::find(&app.database, slot.id).await?.ok_or(Refusal::Gone)?;
    Ok((StatusCode::CREATED, [(header::LOCATION, format!("/posts/{}", post.id))], written(post)))
}

async fn read(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let id = parse_id(&id)?;
    let post = read!(app, Scope::Posts, |db| sql::find(db, id))?.ok_or(Refusal::NotFound)?;
    let head = (for_everybody(KEPT, Some(post.id)), [(header::ETAG, conditions::tag(post.version))]);
    Ok(if conditions::is_known(&headers, post.version) {
        (StatusCode::NOT_MODIFIED, head).into_response()
    } else {
        (head, Json(post)).into_response()
    })
}

/// Only its author changes a post.
async fn change(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    if_match: IfMatch,
    fields: Fields,
) -> Result<impl IntoResponse, Refusal> {
    let id = parse_id(&id)?;
    for _ in 0..PATCH_TRIES {
        let mut post = sql::find(&app.database, id).await?.ok_or(Refusal::NotFound)?;
        if post.author.author_id != caller.user_id {
            return Err(Refusal::Forbidden);
        }
        if_match.admit(post.version)?;
        let mut fields = fields.clone();
        let draft = Draft::take(&mut fields, Some(post.draft));
        post.draft = fields.finish(draft).map_err(Refusal::Invalid)?;
        let now = Moment::now();
        let write = sql::update(&app.database, caller.user_id, id, post.version, &post.draft, now);
        if app.cache.around(&[(CACHED, "top")], write).await? {
            (post.version, post.updated_at) = (post.version + 1, now);
            return Ok(written(post));
        }
    }
    Err(Refusal::Contended)
}

/// Its author removes a post, and who moderates: the statement asks the table for the role.
async fn delete(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    if_match: IfMatch,
) -> Result<impl IntoResponse, Refusal> {
    let id = parse_id(&id)?;
    let post = sql::find(&app.database, id).await?.ok_or(Refusal::NotFound)?;
    if_match.admit(post.version)?;
    let version = if_match.is_given().then_some(post.version);
    let write = sql::delete(&app.database, caller.user_id, id, version);
    match (app.cache.around(&[(CACHED, "top")], write).await?, version) {
        (true, _) => Ok((StatusCode::NO_CONTENT, PRIVATE)),
        // Somebody wrote in between, or it is not the caller's: the former only to its author.
        (false, Some(_)) if post.author.author_id == caller.user_id => Err(Refusal::PreconditionFailed),
        (false, _) => Err(Refusal::Forbidden),
    }
}

async fn like(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<impl IntoResponse, Refusal> {
    let liked = sql::like(&app.database, caller.user_id, parse_id(&id)?, Moment::now()).await;
    if !liked.map_err(owner_gone)? {
        return Err(Refusal::NotFound);
    }
    Ok((StatusCode::NO_CONTENT, PRIVATE))
}

async fn unlike(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<impl IntoResponse, Refusal> {
    sql::unlike(&app.database, caller.user_id, parse_id(&id)?).await?;
    Ok((StatusCode::NO_CONTENT, PRIVATE))
}

impl Draft {
    /// Takes the fields of a post; those left out are `base`'s (PATCH), or required or empty (POST).
    fn take(fields: &mut Fields, base: Option<Self>) -> Self {
        let (title, content) = base.map(|base| (base.title, base.content)).unzip();
        Self {
            title: fields.required("title", title, rule::text(1..=200)),
            content: fields.defaulted("content", content, rule::text(0..=20_000)),
        }
    }
}

/// The answer to a write: not kept by anybody, with the tag of what is stored now.
fn written(post: Post) -> impl IntoResponse {
    (PRIVATE, [(header::ETAG, conditions::tag(post.version))], Json(post))
}

/// The edge may keep the answer for all (RFC 9213) and purges it by tag; a browser asks again, because a purge does not reach it.
fn for_everybody(kept: &'static str, post: Option<Uuid>) -> [(HeaderName, String); 3] {
    [
        (header::CACHE_CONTROL, "public, no-cache".into()),
        (HeaderName::from_static("cdn-cache-control"), kept.into()),
        (
            HeaderName::from_static("cache-tag"),
            post.map_or_else(|| "posts".into(), |id| format!("posts, post:{id}")),
        ),
    ]
}
