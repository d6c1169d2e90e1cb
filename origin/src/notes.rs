//! Notes: a person's own, in three places: on the desk, in the archive, in the bin.

pub mod sql;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::FromRow;
use uuid::Uuid;

use crate::{
    app::{App, PRIVATE},
    conditions::{self, IfMatch, PATCH_TRIES},
    cursor::Walk,
    database::{Moment, Scope, read},
    fields::{Fields, QueryFields, parse_id, rule},
    idempotency::IdempotencyKey,
    identity::Caller,
    openapi::TEXT,
    refusal::{Refusal, owner_gone},
};

/// Notes that one statement changes.
const BATCH_MOST: usize = 100;

/// A stored note.
#[derive(Debug, Clone, Serialize, FromRow, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Note {
    /// UUID version 7.
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
#[derive(Debug, Clone, Default, Serialize, FromRow, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("not" = in_both_places()))]
pub struct Draft {
    /// 1 to 200 characters.
    #[schemars(length(min = 1, max = 200), regex(pattern = TEXT))]
    pub title: String,
    /// At most 20 000 characters.
    #[schemars(default, length(max = 20_000), regex(pattern = TEXT))]
    pub content: String,
    /// Shown first by clients.
    #[schemars(default)]
    pub is_pinned: bool,
    /// Dear to its owner.
    #[schemars(default)]
    pub is_favourite: bool,
    /// In the archive; not with `is_trashed`.
    #[schemars(default)]
    pub is_archived: bool,
    /// In the bin; not with `is_archived`.
    #[schemars(default)]
    pub is_trashed: bool,
}

/// A line of the list: what is shown there and nothing else, so that an index can answer.
#[derive(Debug, Serialize, FromRow, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// The note's.
    pub id: Uuid,
    /// The note's.
    pub title: String,
    /// The note's.
    pub updated_at: Moment,
    /// The note's.
    pub is_pinned: bool,
}

/// Which notes a list has.
#[derive(Debug, JsonSchema)]
pub struct Filter {
    /// The archive instead of the desk.
    #[schemars(default)]
    pub archived: bool,
    /// The bin instead of the desk.
    #[schemars(default)]
    pub trashed: bool,
    /// Pinned ones, or the others.
    pub pinned: Option<bool>,
    /// Favourite ones, or the others.
    pub favourite: Option<bool>,
}

/// What a batch sets; the rest stays.
#[derive(Debug, Clone, Copy, Default)]
pub struct Marks {
    /// Pins or unpins.
    pub pinned: Option<bool>,
    /// Makes favourite or not.
    pub favourite: Option<bool>,
    /// Into the archive, or out of it.
    pub archived: Option<bool>,
    /// Into the bin, or out of it.
    pub trashed: Option<bool>,
}

/// The routes of this resource.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/api/notes", get(list).post(create).patch(mark))
        .route("/api/notes/{id}", get(read).patch(change).delete(delete))
}

/// Newest change first. A note that changes during a walk moves to the front, where the walk has been.
async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    QueryFields(mut query): QueryFields,
) -> Result<impl IntoResponse, Refusal> {
    let filter = Filter {
        archived: query.defaulted("archived", None, rule::written(rule::yes_or_no)),
        trashed: query.defaulted("trashed", None, rule::written(rule::yes_or_no)),
        pinned: query.optional("pinned", None, rule::written(rule::yes_or_no)),
        favourite: query.optional("favourite", None, rule::written(rule::yes_or_no)),
    };
    let walk = format!("notes {} {filter:?}", caller.user_id);
    let walk = Walk::take(&mut query, &app.cursors, walk);
    let walk = query.finish(walk).map_err(Refusal::InvalidQuery)?;
    let (owner, after, count) = (caller.user_id, walk.after, walk.count());
    let lines = read!(app, Scope::Of(owner), |db| sql::page(db, owner, &filter, after, count))?;
    Ok((PRIVATE, Json(walk.page("notes", lines, |line: &Line| (line.updated_at, line.id)))))
}

async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    key: IdempotencyKey,
    mut fields: Fields,
) -> Result<impl IntoResponse, Refusal> {
    let fingerprint = fields.fingerprint("note");
    let draft = Draft::take(&mut fields, None);
    let draft = fields.finish(draft).map_err(Refusal::Invalid)?;
    let slot = key.reserve(&app, caller.user_id, fingerprint).await?;
    let now = Moment::now();
    let mut note = Note { id: slot.id, version: 1, draft, created_at: now, updated_at: now };
    if !slot.done {
        sql::insert(&app.database, caller.user_id, &note).await.map_err(owner_gone)?;
        slot.finish(&app, caller.user_id).await?;
    }
    if slot.is_keyed() {
        note = sql::find(&app.database, caller.user_id, slot.id).await?.ok_or(Refusal::Gone)?;
    }
    let place = [(header::LOCATION, format!("/api/notes/{}", note.id))];
    Ok((StatusCode::CREATED, place, written(note)))
}

async fn read(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let (owner, id) = (caller.user_id, parse_id(&id)?);
    let note = read!(app, Scope::Of(owner), |db| sql::find(db, owner, id))?;
    let note = note.ok_or(Refusal::NotFound)?;
    Ok(if conditions::is_known(&headers, note.version) {
        (StatusCode::NOT_MODIFIED, PRIVATE, [(header::ETAG, conditions::tag(note.version))]).into_response()
    } else {
        written(note).into_response()
    })
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
        let note = sql::update(&app.database, caller.user_id, id, base.version, &draft, Moment::now());
        if let Some(note) = note.await? {
            return Ok(written(note));
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
    let stored = async { Ok(sql::find(&app.database, caller.user_id, id).await?.map(|note| note.version)) };
    let version = if_match.admitted(stored).await?;
    if !sql::delete(&app.database, caller.user_id, id, version).await? {
        return Err(conditions::missed(version));
    }
    Ok((StatusCode::NO_CONTENT, PRIVATE))
}

/// Marks many notes in one statement; ids that are not the caller's are as if they were not there.
async fn mark(
    State(app): State<Arc<App>>,
    caller: Caller,
    mut fields: Fields,
) -> Result<impl IntoResponse, Refusal> {
    let ids = fields.required("ids", None, rule::ids(BATCH_MOST));
    let marks = Marks {
        pinned: fields.optional("isPinned", None, rule::yes_or_no),
        favourite: fields.optional("isFavourite", None, rule::yes_or_no),
        archived: fields.optional("isArchived", None, rule::yes_or_no),
        trashed: fields.optional("isTrashed", None, rule::yes_or_no),
    };
    in_one_place(&mut fields, marks.archived, marks.trashed);
    let (ids, marks) = fields.finish((ids, marks)).map_err(Refusal::Invalid)?;
    let changed = sql::mark(&app.database, caller.user_id, &ids, marks, Moment::now()).await?;
    Ok((PRIVATE, Json(json!({ "changed": changed }))))
}

impl Draft {
    /// Takes the fields of a note; those left out are `base`'s (PATCH), or required or empty (POST).
    fn take(fields: &mut Fields, base: Option<Self>) -> Self {
        let title = base.as_ref().map(|base| base.title.clone());
        let base = base.unwrap_or_default();
        let mut said = |name| fields.defaulted(name, None, |value| rule::yes_or_no(value).map(Some));
        let (archived, trashed) = (said("isArchived"), said("isTrashed"));
        in_one_place(fields, archived, trashed);
        Self {
            title: fields.required("title", title, rule::text(1..=200)),
            content: fields.defaulted("content", Some(base.content), rule::text(0..=20_000)),
            is_pinned: fields.defaulted("isPinned", Some(base.is_pinned), rule::yes_or_no),
            is_favourite: fields.defaulted("isFavourite", Some(base.is_favourite), rule::yes_or_no),
            // Put into the one place, it leaves the other.
            is_archived: archived.unwrap_or(base.is_archived && trashed != Some(true)),
            is_trashed: trashed.unwrap_or(base.is_trashed && archived != Some(true)),
        }
    }
}

/// What [`in_one_place`] refuses, for the document.
pub(crate) fn in_both_places() -> Value {
    json!({ "required": ["isArchived", "isTrashed"],
            "properties": { "isArchived": { "const": true }, "isTrashed": { "const": true } } })
}

fn in_one_place(fields: &mut Fields, archived: Option<bool>, trashed: Option<bool>) {
    if archived == Some(true) && trashed == Some(true) {
        fields.problem("isTrashed", "a note is either in the archive or in the bin");
    }
}

/// Nobody keeps it; with the tag of what is stored now.
fn written(note: Note) -> impl IntoResponse {
    (PRIVATE, [(header::ETAG, conditions::tag(note.version))], Json(note))
}
