//! Statements over `posts` and `likes`. Whatever shows a post brings its author along, in the same query.

use sqlx::{QueryBuilder, Result};
use uuid::Uuid;

use super::{Draft, Liked, Post};
use crate::database::{Database, Moment, on};

/// The columns of [`Post`], of `posts p` and `profiles a`; a macro, because `concat!` takes only literals.
macro_rules! columns {
    () => {
        "p.id, p.version, p.title, p.content, p.author_id, a.display_name, a.avatar_url, p.created_at, p.updated_at"
    };
}

/// At most `count` posts, newest first, that come after `after`; of one author, or of all.
///
/// # Errors
/// What the store said.
pub async fn page(
    database: &Database,
    author: Option<Uuid>,
    after: Option<Uuid>,
    count: i32,
) -> Result<Vec<Post>> {
    on!(database, |pool| {
        let mut sql = QueryBuilder::new(concat!(
            "SELECT ",
            columns!(),
            " FROM posts p JOIN profiles a ON a.user_id = p.author_id WHERE TRUE"
        ));
        if let Some(author) = author {
            sql.push(" AND p.author_id = ").push_bind(author);
        }
        if let Some(after) = after {
            sql.push(" AND p.id < ").push_bind(after);
        }
        sql.push(" ORDER BY p.id DESC LIMIT ").push_bind(count);
        sql.build_query_as().fetch_all(pool).await
    })
}

/// The `count` posts that were liked most since `since`; of equals the newer first.
///
/// # Errors
/// What the store said.
pub async fn top(database: &Database, since: Moment, count: i32) -> Result<Vec<Liked>> {
    // Counted first and joined afterwards: ten rows are joined, not a week of likes.
    on!(database, |pool| sqlx::query_as(concat!(
        "SELECT ",
        columns!(),
        ", l.likes FROM (SELECT post_id, count(*) AS likes FROM likes WHERE created_at > $1
               GROUP BY post_id ORDER BY likes DESC, post_id DESC LIMIT $2) l
         JOIN posts p ON p.id = l.post_id JOIN profiles a ON a.user_id = p.author_id
         ORDER BY l.likes DESC, p.id DESC"
    ))
    .bind(since)
    .bind(count)
    .fetch_all(pool)
    .await)
}

/// One post.
///
/// # Errors
/// What the store said.
pub async fn find(database: &Database, id: Uuid) -> Result<Option<Post>> {
    on!(database, |pool| sqlx::query_as(concat!(
        "SELECT ",
        columns!(),
        " FROM posts p JOIN profiles a ON a.user_id = p.author_id WHERE p.id = $1"
    ))
    .bind(id)
    .fetch_optional(pool)
    .await)
}

/// Adds a post, unless its id exists.
///
/// # Errors
/// A foreign key violation when there is no such author.
pub async fn insert(database: &Database, author: Uuid, id: Uuid, draft: &Draft, now: Moment) -> Result<()> {
    on!(database, |pool| sqlx::query(
        "INSERT INTO posts (id, author_id, version, title, content, created_at, updated_at)
         VALUES ($1, $2, 1, $3, $4, $5, $5) ON CONFLICT (id) DO NOTHING"
    )
    .bind(id)
    .bind(author)
    .bind(&draft.title)
    .bind(&draft.content)
    .bind(now)
    .execute(pool)
    .await
    .map(drop))
}

/// Overwrites a post of `author` on top of `version`; false when there is no such post or version.
///
/// # Errors
/// What the store said.
pub async fn update(
    database: &Database,
    author: Uuid,
    id: Uuid,
    version: i64,
    draft: &Draft,
    now: Moment,
) -> Result<bool> {
    on!(database, |pool| sqlx::query(
        "UPDATE posts SET version = version + 1, title = $4, content = $5, updated_at = $6
         WHERE id = $1 AND author_id = $2 AND version = $3"
    )
    .bind(id)
    .bind(author)
    .bind(version)
    .bind(&draft.title)
    .bind(&draft.content)
    .bind(now)
    .execute(pool)
    .await
    .map(|done| done.rows_affected() == 1))
}

/// Removes a post, only at `version` when one is named, for its author or for whom the table lets moderate; false when it did not.
///
/// # Errors
/// What the store said.
pub async fn delete(database: &Database, caller: Uuid, id: Uuid, version: Option<i64>) -> Result<bool> {
    let moderates = match database {
        Database::Sqlite(_) => {
            " AND EXISTS (SELECT 1 FROM json_each(c.roles) WHERE value IN ('moderator', 'admin'))"
        }
        Database::Postgres(_) => " AND c.roles && ARRAY['moderator', 'admin']",
    };
    on!(database, |pool| QueryBuilder::new("DELETE FROM posts WHERE id = ")
        .push_bind(id)
        .push(" AND version = COALESCE(")
        .push_bind(version)
        .push(", version) AND (author_id = ")
        .push_bind(caller)
        .push(" OR EXISTS (SELECT 1 FROM users c WHERE c.id = ")
        .push_bind(caller)
        .push(moderates)
        .push("))")
        .build()
        .execute(pool)
        .await
        .map(|done| done.rows_affected() == 1))
}

/// Likes a post, once; false when there is none.
///
/// # Errors
/// A foreign key violation when there is no such user.
pub async fn like(database: &Database, user: Uuid, post: Uuid, now: Moment) -> Result<bool> {
    // An update that changes nothing tells "liked before" from "no such post".
    on!(database, |pool| sqlx::query(
        "INSERT INTO likes (post_id, user_id, created_at) SELECT id, $2, $3 FROM posts WHERE id = $1
         ON CONFLICT (post_id, user_id) DO UPDATE SET created_at = likes.created_at"
    )
    .bind(post)
    .bind(user)
    .bind(now)
    .execute(pool)
    .await
    .map(|done| done.rows_affected() == 1))
}

/// Takes a like back.
///
/// # Errors
/// What the store said.
pub async fn unlike(database: &Database, user: Uuid, post: Uuid) -> Result<()> {
    on!(database, |pool| sqlx::query("DELETE FROM likes WHERE post_id = $1 AND user_id = $2")
        .bind(post)
        .bind(user)
        .execute(pool)
        .await
        .map(drop))
}
