//! Statements over `notes`. Every one of them names the owner.

use sqlx::{QueryBuilder, Result};
use uuid::Uuid;

use super::{Draft, Filter, Line, Marks, Note};
use crate::database::{Database, Moment, on};

/// The columns of [`Note`]; a macro, because `concat!` takes only literals.
macro_rules! columns {
    () => {
        "id, version, title, content, is_pinned, is_favourite, is_archived, is_trashed, created_at, updated_at"
    };
}

/// The words of a condition on a flag. Literals, not parameters: only then a partial index can be chosen, and SQLite wants
/// them as its index has them.
fn flag(database: &Database, column: &str, value: bool) -> String {
    match (database, value) {
        (Database::Sqlite(_), _) => format!(" AND {column} = {}", i32::from(value)),
        (Database::Postgres(_), true) => format!(" AND {column}"),
        (Database::Postgres(_), false) => format!(" AND NOT {column}"),
    }
}

/// At most `count` notes of `owner`, newest change first, that come after `after`.
///
/// # Errors
/// What the store said.
pub async fn page(
    database: &Database,
    owner: Uuid,
    filter: &Filter,
    after: Option<(Moment, Uuid)>,
    count: i32,
) -> Result<Vec<Line>> {
    let mut flags = flag(database, "is_trashed", filter.trashed);
    flags.push_str(&flag(database, "is_archived", filter.archived));
    for (column, wanted) in [("is_pinned", filter.pinned), ("is_favourite", filter.favourite)] {
        if let Some(wanted) = wanted {
            flags.push_str(&flag(database, column, wanted));
        }
    }
    on!(database, |pool| {
        let mut sql =
            QueryBuilder::new("SELECT id, title, updated_at, is_pinned FROM notes WHERE user_id = ");
        sql.push_bind(owner).push(&flags);
        if let Some((updated_at, id)) = after {
            sql.push(" AND (updated_at, id) < (").push_bind(updated_at).push(", ").push_bind(id).push(")");
        }
        sql.push(" ORDER BY updated_at DESC, id DESC LIMIT ").push_bind(count);
        sql.build_query_as().fetch_all(pool).await
    })
}

/// One note of `owner`.
///
/// # Errors
/// What the store said.
pub async fn find(database: &Database, owner: Uuid, id: Uuid) -> Result<Option<Note>> {
    on!(database, |pool| sqlx::query_as(concat!(
        "SELECT ",
        columns!(),
        " FROM notes WHERE id = $1 AND user_id = $2"
    ))
    .bind(id)
    .bind(owner)
    .fetch_optional(pool)
    .await)
}

/// Adds a note of `owner`, unless its id exists.
///
/// # Errors
/// A foreign key violation when there is no such owner.
pub async fn insert(database: &Database, owner: Uuid, note: &Note) -> Result<()> {
    on!(database, |pool| sqlx::query(concat!(
        "INSERT INTO notes (user_id, ",
        columns!(),
        ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (id) DO NOTHING"
    ))
    .bind(owner)
    .bind(note.id)
    .bind(note.version)
    .bind(&note.draft.title)
    .bind(&note.draft.content)
    .bind(note.draft.is_pinned)
    .bind(note.draft.is_favourite)
    .bind(note.draft.is_archived)
    .bind(note.draft.is_trashed)
    .bind(note.created_at)
    .bind(note.updated_at)
    .execute(pool)
    .await
    .map(drop))
}

/// Overwrites a note of `owner` on top of `version`; `None` when there is no such note or version.
///
/// # Errors
/// What the store said.
pub async fn update(
    database: &Database,
    owner: Uuid,
    id: Uuid,
    version: i64,
    draft: &Draft,
    now: Moment,
) -> Result<Option<Note>> {
    on!(database, |pool| {
        sqlx::query_as(concat!(
        "UPDATE notes SET version = version + 1, title = $4, content = $5, is_pinned = $6, is_favourite = $7, \
         is_archived = $8, is_trashed = $9, updated_at = $10 \
         WHERE id = $1 AND user_id = $2 AND version = $3 RETURNING ",
        columns!()
    ))
    .bind(id)
    .bind(owner)
    .bind(version)
    .bind(&draft.title)
    .bind(&draft.content)
    .bind(draft.is_pinned)
    .bind(draft.is_favourite)
    .bind(draft.is_archived)
    .bind(draft.is_trashed)
    .bind(now)
    .fetch_optional(pool)
    .await
    })
}

/// Removes a note of `owner`, only at `version` when one is named; false when there is none.
///
/// # Errors
/// What the store said.
pub async fn delete(database: &Database, owner: Uuid, id: Uuid, version: Option<i64>) -> Result<bool> {
    on!(database, |pool| sqlx::query(
        "DELETE FROM notes WHERE id = $1 AND user_id = $2 AND version = COALESCE($3, version)"
    )
    .bind(id)
    .bind(owner)
    .bind(version)
    .execute(pool)
    .await
    .map(|done| done.rows_affected() == 1))
}

/// Marks notes of `owner` in one statement, and says how many there were.
///
/// # Errors
/// What the store said.
pub async fn mark(database: &Database, owner: Uuid, ids: &[Uuid], marks: Marks, now: Moment) -> Result<u64> {
    on!(database, |pool| {
        let mut sql = QueryBuilder::new("UPDATE notes SET version = version + 1, updated_at = ");
        sql.push_bind(now);
        sql.push(", is_pinned = COALESCE(").push_bind(marks.pinned).push(", is_pinned)");
        sql.push(", is_favourite = COALESCE(").push_bind(marks.favourite).push(", is_favourite)");
        // Put into the one place, it leaves the other.
        sql.push(", is_archived = COALESCE(").push_bind(marks.archived).push(", is_archived AND NOT ");
        sql.push_bind(marks.trashed == Some(true)).push(")");
        sql.push(", is_trashed = COALESCE(").push_bind(marks.trashed).push(", is_trashed AND NOT ");
        sql.push_bind(marks.archived == Some(true)).push(")");
        sql.push(" WHERE user_id = ").push_bind(owner).push(" AND id IN (");
        let mut list = sql.separated(", ");
        for id in ids {
            list.push_bind(id);
        }
        sql.push(")").build().execute(pool).await.map(|done| done.rows_affected())
    })
}
