//! Vault items: a person's own things; nobody else ever sees them.

pub mod sql;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;
use serde_json::json;
use sqlx::FromRow;
use uuid::Uuid;

use crate::{
    app::{App, PRIVATE},
    database::{Moment, Words},
    fields::{Fields, QueryFields, rule},
    identity::Caller,
    refusal::Refusal,
};

/// Items on a page when nobody says how many, and at most.
const PAGE: i32 = 20;
const PAGE_MOST: i32 = 100;
/// A PATCH reads, merges and writes; so often it tries again when another write came in between.
const PATCH_TRIES: usize = 5;

/// A stored item.
#[derive(Debug, Clone, Serialize, FromRow)]
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
    /// When it was made.
    pub created_at: Moment,
    /// When it was last written.
    pub updated_at: Moment,
}

/// What an owner writes.
#[derive(Debug, Clone, Serialize, FromRow)]
#[serde(rename_all = "camelCase")]
pub struct Draft {
    /// A word, like `memory` or `letter`.
    #[serde(rename = "type")]
    #[sqlx(rename = "type")]
    pub kind: String,
    /// 1 to 200 characters.
    pub title: String,
    /// At most 20 000 characters: a full page of them stays a few megabytes.
    pub content: String,
    /// A word, like `joy`.
    pub emotion_category: Option<String>,
    /// 0 to 100.
    pub importance_score: Option<i32>,
    /// At most 32.
    pub keywords: Words,
    /// When to deliver it.
    pub scheduled_delivery: Option<Moment>,
    /// Where its picture, sound or film is.
    pub media_url: Option<String>,
    /// Where its small picture is.
    pub thumbnail_url: Option<String>,
}

/// Which items a list has; each condition that is there must hold.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of this type.
    pub kind: Option<String>,
    /// Of this emotion.
    pub emotion_category: Option<String>,
    /// Of exactly this importance.
    pub importance_score: Option<i32>,
    /// With this among its keywords.
    pub keyword: Option<String>,
    /// With or without a delivery time.
    pub scheduled: Option<bool>,
}

/// The routes of this resource.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/api/vault/items", get(list).post(create))
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
        importance_score: query.optional("importanceScore", None, rule::integer(0..=100)),
        keyword: query.optional("keyword", None, rule::text(1..=64)),
        scheduled: query.optional("scheduled", None, rule::yes_or_no),
    };
    // A cursor continues this person's walk with these filters, and no other.
    let walk = format!("items {} {filter:?}", caller.user_id);
    let limit = query.defaulted("limit", Some(PAGE), rule::integer(1..=PAGE_MOST));
    let after = query.optional("cursor", None, |value| {
        let opened = value.as_str().and_then(|cursor| app.cursors.open(&walk, cursor));
        opened.ok_or_else(|| "is not a cursor of this list".into())
    });
    let (limit, after) = query.finish((limit, after)).map_err(Refusal::InvalidQuery)?;

    // One more than asked for says whether there is a next page.
    let mut items = sql::page(&app.database, caller.user_id, &filter, after, limit + 1).await?;
    let page = usize::try_from(limit).expect("limit is at least 1");
    let more = items.len() > page;
    items.truncate(page);
    let next = items.last().filter(|_| more).map(|last| app.cursors.seal(&walk, last.id));
    Ok((stored_by_edge(&caller, None), Json(json!({ "items": items, "nextCursor": next }))))
}

async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    mut fields: Fields,
) -> Result<impl IntoResponse, Refusal> {
    let draft = Draft::take(&mut fields, None);
    let draft = fields.finish(draft).map_err(Refusal::Invalid)?;
    let now = Moment::now();
    let item = Item { id: Uuid::now_v7(), version: 1, draft, created_at: now, updated_at: now };
    sql::insert(&app.database, caller.user_id, std::slice::from_ref(&item)).await.map_err(owner_gone)?;
    let place = [(header::LOCATION, format!("/api/vault/items/{}", item.id))];
    Ok((StatusCode::CREATED, place, written(item)))
}

async fn read(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let item = sql::find(&app.database, caller.user_id, parse(&id)?).await?.ok_or(Refusal::NotFound)?;
    let tag = item.entity_tag();
    let known = names(&headers, &tag);
    let head = (stored_by_edge(&caller, Some(item.id)), [(header::ETAG, tag)]);
    Ok(if known {
        (StatusCode::NOT_MODIFIED, head).into_response()
    } else {
        (head, Json(item)).into_response()
    })
}

async fn replace(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    mut fields: Fields,
) -> Result<impl IntoResponse, Refusal> {
    let id = parse(&id)?;
    let draft = Draft::take(&mut fields, None);
    let draft = fields.finish(draft).map_err(Refusal::Invalid)?;
    let item = sql::update(&app.database, caller.user_id, id, None, &draft, Moment::now()).await?;
    item.map(written).ok_or(Refusal::NotFound)
}

async fn change(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    fields: Fields,
) -> Result<impl IntoResponse, Refusal> {
    let id = parse(&id)?;
    for _ in 0..PATCH_TRIES {
        let base = sql::find(&app.database, caller.user_id, id).await?.ok_or(Refusal::NotFound)?;
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
) -> Result<impl IntoResponse, Refusal> {
    if !sql::delete(&app.database, caller.user_id, parse(&id)?).await? {
        return Err(Refusal::NotFound);
    }
    Ok((StatusCode::NO_CONTENT, PRIVATE))
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
    /// Strong (RFC 9110 §8.8.3): the version counts every write, so equal tags mean equal bytes.
    fn entity_tag(&self) -> String {
        format!("\"v{}\"", self.version)
    }
}

/// A garbled id names nothing, like an unknown one.
fn parse(id: &str) -> Result<Uuid, Refusal> {
    id.parse().map_err(|_| Refusal::NotFound)
}

/// The answer to a write: not kept by anybody, with the tag of what is stored now.
fn written(item: Item) -> impl IntoResponse {
    (PRIVATE, [(header::ETAG, item.entity_tag())], Json(item))
}

/// The edge may keep the answer for its caller (RFC 9213) and purges it by tag; a browser asks again every time, because a purge
/// does not reach it.
fn stored_by_edge(caller: &Caller, item: Option<Uuid>) -> [(HeaderName, String); 3] {
    let mut tags = format!("vault:{}", caller.user_id);
    if let Some(id) = item {
        tags.push_str(&format!(", vault-item:{id}"));
    }
    [
        (header::CACHE_CONTROL, "private, no-cache".into()),
        (HeaderName::from_static("cdn-cache-control"), "max-age=60".into()),
        (HeaderName::from_static("cache-tag"), tags),
    ]
}

/// Whether `If-None-Match` names the tag, compared weakly (RFC 9110 §13.1.2). Our tags have no comma.
fn names(headers: &HeaderMap, tag: &str) -> bool {
    let lines =
        headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|line: &HeaderValue| line.to_str().ok());
    let mut tags = lines.flat_map(|line| line.split(',')).map(str::trim);
    tags.any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

/// The identity is a few seconds older than the account's end.
fn owner_gone(error: sqlx::Error) -> Refusal {
    match &error {
        sqlx::Error::Database(cause) if cause.is_foreign_key_violation() => Refusal::Unauthenticated,
        _ => error.into(),
    }
}
