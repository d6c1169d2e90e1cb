//! Statements of administrators. Each asks the table whether the caller is one.

use sqlx::{QueryBuilder, Result};
use uuid::Uuid;

use super::Filter;
use crate::{
    accounts::Account,
    database::{Database, Moment, Words, on},
    jobs::sql::Dead,
};

/// The condition that follows the caller's id.
fn is_admin(database: &Database) -> &'static str {
    match database {
        Database::Sqlite(_) => " AND EXISTS (SELECT 1 FROM json_each(c.roles) WHERE value = 'admin'))",
        Database::Postgres(_) => " AND c.roles @> ARRAY['admin'])",
    }
}

/// At most `count` accounts, newest first, that come after `after`; none when `admin` is no administrator.
///
/// # Errors
/// What the store said.
pub async fn page(
    database: &Database,
    admin: Uuid,
    filter: &Filter,
    after: Option<Uuid>,
    count: i32,
) -> Result<Vec<Account>> {
    // Few have more than the role of everybody: their index first, then the role.
    let (more, has, end) = match database {
        Database::Sqlite(_) => (
            r#" AND u.roles <> '["user"]'"#,
            " AND EXISTS (SELECT 1 FROM json_each(u.roles) WHERE value = ",
            ")",
        ),
        Database::Postgres(_) => (" AND u.roles <> ARRAY['user']", " AND u.roles @> ARRAY[", "]"),
    };
    on!(database, |pool| {
        let mut sql = QueryBuilder::new(
            "SELECT u.id, u.email, u.roles, u.email_verified_at, u.created_at, p.display_name, p.bio, p.avatar_url
             FROM users u JOIN profiles p ON p.user_id = u.id WHERE EXISTS (SELECT 1 FROM users c WHERE c.id = ",
        );
        sql.push_bind(admin).push(is_admin(database));
        if let Some(after) = after {
            sql.push(" AND u.id < ").push_bind(after);
        }
        if let Some(email) = &filter.email {
            sql.push(" AND u.email = ").push_bind(email);
        }
        if let Some(role) = &filter.role {
            if role != "user" {
                sql.push(more);
            }
            sql.push(has).push_bind(role).push(end);
        }
        match filter.verified {
            Some(true) => sql.push(" AND u.email_verified_at IS NOT NULL"),
            Some(false) => sql.push(" AND u.email_verified_at IS NULL"),
            None => &mut sql,
        };
        sql.push(" ORDER BY u.id DESC LIMIT ").push_bind(count);
        sql.build_query_as().fetch_all(pool).await
    })
}

/// Gives a user these roles instead of the present ones; false when there is no such user, or `admin` is no administrator. `None`
/// is the operator at the machine.
///
/// # Errors
/// What the store said.
pub async fn give_roles(
    database: &Database,
    admin: Option<Uuid>,
    user: Uuid,
    roles: &Words,
    now: Moment,
) -> Result<bool> {
    on!(database, |pool| {
        let mut sql = QueryBuilder::new("UPDATE users SET roles = ");
        sql.push_bind(roles).push(", updated_at = ").push_bind(now).push(" WHERE id = ").push_bind(user);
        if let Some(admin) = admin {
            sql.push(" AND EXISTS (SELECT 1 FROM users c WHERE c.id = ")
                .push_bind(admin)
                .push(is_admin(database));
        }
        sql.build().execute(pool).await.map(|done| done.rows_affected() == 1)
    })
}

/// At most `count` jobs that were given up, newest first, that come after `after`; none when `admin` is no administrator.
///
/// # Errors
/// What the store said.
pub async fn dead_jobs(
    database: &Database,
    admin: Uuid,
    after: Option<(Moment, Uuid)>,
    count: i32,
) -> Result<Vec<Dead>> {
    on!(database, |pool| {
        let mut sql = QueryBuilder::new(
            "SELECT id, kind, user_id, tries, last_error, created_at, dead_at FROM jobs
             WHERE dead_at IS NOT NULL AND EXISTS (SELECT 1 FROM users c WHERE c.id = ",
        );
        sql.push_bind(admin).push(is_admin(database));
        if let Some((at, id)) = after {
            sql.push(" AND (dead_at, id) < (").push_bind(at).push(", ").push_bind(id).push(")");
        }
        sql.push(" ORDER BY dead_at DESC, id DESC LIMIT ").push_bind(count);
        sql.build_query_as().fetch_all(pool).await
    })
}
