//! Statements over `items`. Every one of them names the owner.

use sqlx::{QueryBuilder, Result};
use uuid::Uuid;

use super::{Draft, Filter, Item};
use crate::database::{Database, Moment, on};

/// The columns of [`Item`]; a macro, because `concat!` takes only literals.
macro_rules! columns {
    () => {
        "id, version, type, title, content, emotion_category, importance_score, keywords, scheduled_delivery, \
         media_url, thumbnail_url, delivered_at, created_at, updated_at"
    };
}

/// At most `count` items of `owner`, newest first, that come after `after`.
///
/// # Errors
/// What the store said.
pub async fn page(
    database: &Database,
    owner: Uuid,
    filter: &Filter,
    after: Option<Uuid>,
    count: i32,
) -> Result<Vec<Item>> {
    // The one statement in which the stores differ: how to look into a list of words.
    let (keyword, keyword_end) = match database {
        Database::Sqlite(_) => (" AND EXISTS (SELECT 1 FROM json_each(keywords) WHERE value = ", ")"),
        Database::Postgres(_) => (" AND keywords @> ARRAY[", "]"),
    };
    // Only the conditions that are asked for: with `$1 IS NULL OR …` no index could be chosen.
    on!(database, |pool| {
        let mut sql = QueryBuilder::new(concat!("SELECT ", columns!(), " FROM items WHERE user_id = "));
        sql.push_bind(owner);
        if let Some(after) = after {
            sql.push(" AND id < ").push_bind(after);
        }
        if let Some(kind) = &filter.kind {
            sql.push(" AND type = ").push_bind(kind);
        }
        if let Some(emotion) = &filter.emotion_category {
            sql.push(" AND emotion_category = ").push_bind(emotion);
        }
        if let Some(importance) = filter.importance_score {
            sql.push(" AND importance_score = ").push_bind(importance);
        }
        if let Some(word) = &filter.keyword {
            sql.push(keyword).push_bind(word).push(keyword_end);
        }
        match filter.scheduled {
            Some(true) => sql.push(" AND scheduled_delivery IS NOT NULL"),
            Some(false) => sql.push(" AND scheduled_delivery IS NULL"),
            None => &mut sql,
        };
        sql.push(" ORDER BY id DESC LIMIT ").push_bind(count);
        sql.build_query_as().fetch_all(pool).await
    })
}

/// One item of `owner`.
///
/// # Errors
/// What the store said.
pub async fn find(database: &Database, owner: Uuid, id: Uuid) -> Result<Option<Item>> {
    on!(database, |pool| sqlx::query_as(concat!(
        "SELECT ",
        columns!(),
        " FROM items WHERE id = $1 AND user_id = $2"
    ))
    .bind(id)
    .bind(owner)
    .fetch_optional(pool)
    .await)
}

/// Adds items of `owner` in one statement; those whose id exists are left as they are.
///
/// # Errors
/// A foreign key violation when there is no such owner.
pub async fn insert(database: &Database, owner: Uuid, items: &[Item]) -> Result<()> {
    on!(database, |pool| {
        QueryBuilder::new(concat!("INSERT INTO items (user_id, ", columns!(), ") "))
            .push_values(items, |mut row, item| {
                let Item { id, version, draft, delivered_at, created_at, updated_at } = item;
                row.push_bind(owner).push_bind(id).push_bind(version);
                row.push_bind(&draft.kind).push_bind(&draft.title).push_bind(&draft.content);
                row.push_bind(&draft.emotion_category)
                    .push_bind(draft.importance_score)
                    .push_bind(&draft.keywords);
                row.push_bind(draft.scheduled_delivery)
                    .push_bind(&draft.media_url)
                    .push_bind(&draft.thumbnail_url);
                row.push_bind(delivered_at).push_bind(created_at).push_bind(updated_at);
            })
            .push(" ON CONFLICT DO NOTHING")
            .build()
            .execute(pool)
            .await
            .map(drop)
    })
}

/// Overwrites an item of `owner`, only on top of `version` when one is named; `None` when there is no such item or version.
///
/// # Errors
/// What the store said.
pub async fn update(
    database: &Database,
    owner: Uuid,
    id: Uuid,
    version: Option<i64>,
    draft: &Draft,
    now: Moment,
) -> Result<Option<Item>> {
    on!(database, |pool| {
        sqlx::query_as(concat!(
        "UPDATE items SET version = version + 1, type = $4, title = $5, content = $6, emotion_category = $7, \
         importance_score = $8, keywords = $9, scheduled_delivery = $10, media_url = $11, thumbnail_url = $12, \
         delivered_at = CASE WHEN scheduled_delivery IS NOT DISTINCT FROM $10 THEN delivered_at END, \
         updated_at = $13 WHERE id = $1 AND user_id = $2 AND version = COALESCE($3, version) RETURNING ",
        columns!()
    ))
    .bind(id)
    .bind(owner)
    .bind(version)
    .bind(&draft.kind)
    .bind(&draft.title)
    .bind(&draft.content)
    .bind(&draft.emotion_category)
    .bind(draft.importance_score)
    .bind(&draft.keywords)
    .bind(draft.scheduled_delivery)
    .bind(&draft.media_url)
    .bind(&draft.thumbnail_url)
    .bind(now)
    .fetch_optional(pool)
    .await
    })
}

/// Removes an item of `owner`, only at `version` when one is named; false when there is none.
///
/// # Errors
/// What the store said.
pub async fn delete(database: &Database, owner: Uuid, id: Uuid, version: Option<i64>) -> Result<bool> {
    on!(database, |pool| sqlx::query(
        "DELETE FROM items WHERE id = $1 AND user_id = $2 AND version = COALESCE($3, version)"
    )
    .bind(id)
    .bind(owner)
    .bind(version)
    .execute(pool)
    .await
    .map(|done| done.rows_affected() == 1))
}

/// Removes items of `owner` in one statement, and says how many there were.
///
/// # Errors
/// What the store said.
pub async fn delete_many(database: &Database, owner: Uuid, ids: &[Uuid]) -> Result<u64> {
    on!(database, |pool| {
        let mut sql = QueryBuilder::new("DELETE FROM items WHERE user_id = ");
        let mut list = sql.push_bind(owner).push(" AND id IN (").separated(", ");
        for id in ids {
            list.push_bind(id);
        }
        sql.push(")").build().execute(pool).await.map(|done| done.rows_affected())
    })
}
