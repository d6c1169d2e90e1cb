//! Vault items: a person's own things; nobody else ever sees them.

pub mod sql;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use sqlx::FromRow;
use uuid::Uuid;

use crate::{
    app::{App, PRIVATE},
    conditions::{self, IfMatch, PATCH_TRIES},
    cursor::Walk,
    database::{Moment, Scope, Words, read},
    fields::{Fields, QueryFields, parse_id, rule},
    idempotency::IdempotencyKey,
    identity::Caller,
    openapi::{CENTURIES, TEXT, WEB},
    refusal::{Refusal, owner_gone},
};

/// Items that one statement makes or removes.
const BATCH_MOST: usize = 100;

/// A stored item.
#[derive(Debug, Clone, Serialize, FromRow, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Item {
    /// UUID version 7: in the order of creation.
    pub id: Uuid,
    /// Counts its writes.
    #[serde(skip)]
    pub version: i64,
    /// What its owner wrote.
    #[serde(flatten)]
    #[sqlx(flatten)]
    pub draft: Draft,
    /// When it was delivered, if its time has come; another delivery time makes it wait again.
    pub delivered_at: Option<Moment>,
    /// When it was made.
    pub created_at: Moment,
    /// When it was last written.
    pub updated_at: Moment,
}

/// What an owner writes.
#[derive(Debug, Clone, Serialize, FromRow, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Draft {
    /// A word, like `memory` or `letter`.
    #[serde(rename = "type")]
    #[sqlx(rename = "type")]
    #[schemars(regex(pattern = "^[a-z0-9_-]{1,32}$"))]
    pub kind: String,
    /// 1 to 200 characters.
    #[schemars(length(min = 1, max = 200), regex(pattern = TEXT))]
    pub title: String,
    /// At most 20 000 characters: a full page of them stays a few megabytes.
    #[schemars(default, length(max = 20_000), regex(pattern = TEXT))]
    pub content: String,
    /// A word, like `joy`.
    #[schemars(regex(pattern = "^[a-z0-9_-]{1,32}$"))]
    pub emotion_category: Option<String>,
    /// 0 to 100.
    #[schemars(range(min = 0, max = 100))]
    pub importance_score: Option<i32>,
    /// At most 32, each of 1 to 64 characters.
    #[schemars(default, length(max = 32), inner(length(min = 1, max = 64), regex(pattern = TEXT)))]
    pub keywords: Words,
    /// When to deliver it; in the years 2000 to 2999.
    #[schemars(regex(pattern = CENTURIES))]
    pub scheduled_delivery: Option<Moment>,
    /// Where its picture, sound or film is.
    #[schemars(url, length(max = 2048), regex(pattern = WEB))]
    pub media_url: Option<String>,
    /// Where its small picture is.
    #[schemars(url, length(max = 2048), regex(pattern = WEB))]
    pub thumbnail_url: Option<String>,
}

/// Which items a list has; each condition that is there must hold.
#[derive(Debug, Clone, Default, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Filter {
    /// Of this type.
    #[serde(rename = "type")]
    #[schemars(regex(pattern = "^[a-z0-9_-]{1,32}$"))]
    pub kind: Option<String>,
    /// Of this emotion.
    #[schemars(regex(pattern = "^[a-z0-9_-]{1,32}$"))]
    pub emotion_category: Option<String>,
    /// Of exactly this importance.
    #[schemars(range(min = 0, max = 100))]
    pub importance_score: Option<i32>,
    /// With this among its keywords.
    #[schemars(length(min = 1, max = 64), regex(pattern = TEXT))]
    pub keyword: Option<String>,
    /// With or without a delivery time.
    pub scheduled: Option<bool>,
}

/// The routes of this resource.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/api/vault/items", get(list).post(create))
        .route("/api/vault/items/batch", post(create_many).delete(delete_many))
        .route("/api/vault/items/{id}", get(read).put(replace).patch(change).delete(delete))
}

async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    QueryFields(mut query): QueryFields,
) -> Result<impl IntoResponse, Refusal> {
    let filter = Filter {
        kind: query.optional("type", None, rule::word),
        emotion_category: query.optional("emotionCategory", None, rule::word),
        importance_score: query.optional("importanceScore", None, rule::written(rule::integer(0..=100))),
        keyword: query.optional("keyword", None, rule::text(1..=64)),
        scheduled: query.optional("scheduled", None, rule::written(rule::yes_or_no)),
    };
    // A cursor continues this person's walk with these filters, and no other.
    let walk = format!("items {} {filter:?}", caller.user_id);
    let walk = Walk::take(&mut query, &app.cursors, walk);
    let walk = query.finish(walk).map_err(Refusal::InvalidQuery)?;
    let (owner, after, count) = (caller.user_id, walk.after, walk.count());
    let items = read!(app, Scope::Of(owner), |db| sql::page(db, owner, &filter, after, count))?;
    Ok((stored_by_edge(&caller, None), Json(walk.page("items", items, |item: &Item| item.id))))
}

async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    key: IdempotencyKey,
    mut fields: Fields,
) -> Result<impl IntoResponse, Refusal> {
    let fingerprint = fields.fingerprint("item");
    let draft = Draft::take(&mut fields, None);
    let draft = fields.finish(draft).map_err(Refusal::Invalid)?;
    let slot = key.reserve(&app, caller.user_id, fingerprint).await?;
    let mut item = Item::new(slot.id, draft, Moment::now());
    if !slot.done {
        let insert = sql::insert(&app.database, caller.user_id, std::slice::from_ref(&item));
        insert.await.map_err(owner_gone)?;
        slot.finish(&app, caller.user_id).await?;
    }
    if slot.is_keyed() {
        item = sql::find(&app.database, caller.user_id, slot.id).await?.ok_or(Refusal::Gone)?;
    }
    let place = [(header::LOCATION, format!("/api/vault/items/{}", item.id))];
    Ok((StatusCode::CREATED, place, written(item)))
}

/// Makes many items in one statement, and answers with their ids in the order of the request.
async fn create_many(
    State(app): State<Arc<App>>,
    caller: Caller,
    key: IdempotencyKey,
    mut fields: Fields,
) -> Result<impl IntoResponse, Refusal> {
    let fingerprint = fields.fingerprint("items");
    let drafts = fields.each("items", BATCH_MOST, |fields| Draft::take(fields, None));
    let drafts = fields.finish(drafts).map_err(Refusal::Invalid)?;
    let slot = key.reserve(&app, caller.user_id, fingerprint).await?;
    let now = Moment::now();
    // One id is reserved; the others follow from it, so that a repetition makes the same ones.
    let ids = (0..).map(|n| Uuid::from_u128((slot.id.as_u128() & !0xff) | n));
    let items: Vec<_> = ids.zip(drafts).map(|(id, draft)| Item::new(id, draft, now)).collect();
    if !slot.done {
        sql::insert(&app.database, caller.user_id, &items).await.map_err(owner_gone)?;
        slot.finish(&app, caller.user_id).await?;
    }
    let ids: Vec<_> = items.iter().map(|item| item.id).collect();
    Ok((StatusCode::CREATED, PRIVATE, Json(json!({ "ids": ids }))))
}

/// Removes many items in one statement; ids that are not the caller's are as if they were not there.
async fn delete_many(
    State(app): State<Arc<App>>,
    caller: Caller,
    mut fields: Fields,
) -> Result<impl IntoResponse, Refusal> {
    let ids = fields.required("ids", None, rule::ids(BATCH_MOST));
    let ids = fields.finish(ids).map_err(Refusal::Invalid)?;
    let deleted = sql::delete_many(&app.database, caller.user_id, &ids).await?;
    Ok((PRIVATE, Json(json!({ "deleted": deleted }))))
}

async fn read(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let (owner, id) = (caller.user_id, parse_id(&id)?);
    let item = read!(app, Scope::Of(owner), |db| sql::find(db, owner, id))?;
    let item = item.ok_or(Refusal::NotFound)?;
    let head = (stored_by_edge(&caller, Some(item.id)), [(header::ETAG, conditions::tag(item.version))]);
    Ok(if conditions::is_known(&headers, item.version) {
        (StatusCode::NOT_MODIFIED, head).into_response()
    } else {
        (head, Json(item)).into_response()
    })
}

async fn replace(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    if_match: IfMatch,
    mut fields: Fields,
) -> Result<impl IntoResponse, Refusal> {
    let id = parse_id(&id)?;
    let draft = Draft::take(&mut fields, None);
    let draft = fields.finish(draft).map_err(Refusal::Invalid)?;
    let version = if_match.admitted(version(&app, &caller, id)).await?;
    let item = sql::update(&app.database, caller.user_id, id, version, &draft, Moment::now()).await?;
    item.map(written).ok_or_else(|| conditions::missed(version))
}

async fn change(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    if_match: IfMatch,
    fields: Fields,
) -> Result<impl IntoResponse, Refusal> {
    let id = parse_id(&id)?;
    for _ in 0..PATCH_TRIES {
        let base = sql::find(&app.database, caller.user_id, id).await?.ok_or(Refusal::NotFound)?;
        if_match.admit(base.version)?;
        let mut fields = fields.clone();
        let draft = Draft::take(&mut fields, Some(base.draft));
        let draft = fields.finish(draft).map_err(Refusal::Invalid)?;
        // Only on top of the version that was read: two PATCHes of different fields both count.
        let now = Moment::now();
        if let Some(item) =
            sql::update(&app.database, caller.user_id, id, Some(base.version), &draft, now).await?
        {
            return Ok(written(item));
        }
    }
    Err(Refusal::Contended)
}

async fn delete(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    if_match: IfMatch,
) -> Result<impl IntoResponse, Refusal> {
    let id = parse_id(&id)?;
    let version = if_match.admitted(version(&app, &caller, id)).await?;
    if !sql::delete(&app.database, caller.user_id, id, version).await? {
        return Err(conditions::missed(version));
    }
    Ok((StatusCode::NO_CONTENT, PRIVATE))
}

/// The version of an item, for `If-Match`.
async fn version(app: &App, caller: &Caller, id: Uuid) -> sqlx::Result<Option<i64>> {
    Ok(sql::find(&app.database, caller.user_id, id).await?.map(|item| item.version))
}

impl Draft {
    /// Takes the fields of an item; those left out are `base`'s (PATCH), or required or empty (POST, PUT).
    fn take(fields: &mut Fields, base: Option<Self>) -> Self {
        // Of the base, field by field: an item that is not there has nothing in any of them.
        let (mut kind, mut title, mut content, mut keywords) = (None, None, None, None);
        let (mut emotion, mut importance, mut delivery, mut media, mut thumbnail) =
            (None, None, None, None, None);
        if let Some(base) = base {
            (kind, title, content) = (Some(base.kind), Some(base.title), Some(base.content));
            (emotion, importance, keywords) =
                (base.emotion_category, base.importance_score, Some(base.keywords));
            (delivery, media, thumbnail) = (base.scheduled_delivery, base.media_url, base.thumbnail_url);
        }
        Self {
            kind: fields.required("type", kind, rule::word),
            title: fields.required("title", title, rule::text(1..=200)),
            content: fields.defaulted("content", content, rule::text(0..=20_000)),
            emotion_category: fields.optional("emotionCategory", emotion, rule::word),
            importance_score: fields.optional("importanceScore", importance, rule::integer(0..=100)),
            keywords: fields.defaulted("keywords", keywords, rule::words(32)),
            scheduled_delivery: fields.optional("scheduledDelivery", delivery, rule::instant),
            media_url: fields.optional("mediaUrl", media, rule::url),
            thumbnail_url: fields.optional("thumbnailUrl", thumbnail, rule::url),
        }
    }
}

impl Item {
    fn new(id: Uuid, draft: Draft, now: Moment) -> Self {
        Self { id, version: 1, draft, delivered_at: None, created_at: now, updated_at: now }
    }
}

/// The answer to a write: not kept by anybody, with the tag of what is stored now.
fn written(item: Item) -> impl IntoResponse {
    (PRIVATE, [(header::ETAG, conditions::tag(item.version))], Json(item))
}

/// What edges call all that they keep of a person's vault.
#[must_use]
pub fn tag(owner: Uuid) -> String {
    format!("vault:{owner}")
}

/// The edge may keep the answer for its caller (RFC 9213) and purges it by tag; a browser asks again every time, because a purge
/// does not reach it.
fn stored_by_edge(caller: &Caller, item: Option<Uuid>) -> [(HeaderName, String); 3] {
    let mut tags = tag(caller.user_id);
    if let Some(id) = item {
        tags.push_str(&format!(", vault-item:{id}"));
    }
    [
        (header::CACHE_CONTROL, "private, no-cache".into()),
        (HeaderName::from_static("cdn-cache-control"), "max-age=60".into()),
        (HeaderName::from_static("cache-tag"), tags),
    ]
}
