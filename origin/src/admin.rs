//! What only administrators may: see all accounts, give roles, and see which jobs were given up.
//!
//! Three times the role is asked for. The signed identity's may be a minute old and costs nothing; the kept one ends with the write that
//! changes it; the table's, in the statement, decides what is done. Whoever loses it while they ask finds nothing.

pub mod sql;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, State},
    response::IntoResponse,
    routing::{get, put},
};
use schemars::JsonSchema;
use serde_json::{Value, json};

use crate::{
    accounts::{Account, ROLES, kept},
    app::{App, PRIVATE},
    cursor::Walk,
    database::{Moment, Scope, Words, read},
    fields::{Fields, QueryFields, parse_id, rule},
    identity::Caller,
    jobs::sql::Dead,
    refusal::Refusal,
    sessions::{self, Which},
};

/// Which accounts the list has; each condition that is there must hold.
#[derive(Debug, Default, JsonSchema)]
pub struct Filter {
    /// With this role.
    #[schemars(regex(pattern = "^(user|moderator|admin)$"))]
    pub role: Option<String>,
    /// With exactly this address.
    #[schemars(email, length(min = 3, max = 254))]
    pub email: Option<String>,
    /// With a proven address, or without.
    pub verified: Option<bool>,
}

/// The routes of this resource.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/admin/users", get(list))
        .route("/admin/users/{id}/roles", put(give_roles))
        .route("/admin/jobs", get(dead_jobs))
}

async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    QueryFields(mut query): QueryFields,
) -> Result<impl IntoResponse, Refusal> {
    administers(&app, &caller).await?;
    let filter = Filter {
        role: query.optional("role", None, role),
        email: query.optional("email", None, rule::email),
        verified: query.optional("verified", None, rule::written(rule::yes_or_no)),
    };
    let walk = Walk::take(&mut query, &app.cursors, format!("users {filter:?}"));
    let walk = query.finish(walk).map_err(Refusal::InvalidQuery)?;
    let (admin, after, count) = (caller.user_id, walk.after, walk.count());
    let users = read!(app, Scope::Of(admin), |db| sql::page(db, admin, &filter, after, count))?;
    Ok((PRIVATE, Json(walk.page("users", users, |user: &Account| user.id))))
}

/// Ends the user's sessions, so that no edge goes on believing the old roles.
async fn give_roles(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    mut fields: Fields,
) -> Result<impl IntoResponse, Refusal> {
    administers(&app, &caller).await?;
    let id = parse_id(&id)?;
    // The last administrator cannot be lost by a slip.
    if id == caller.user_id {
        return Err(Refusal::Forbidden);
    }
    let roles = fields.required("roles", None, roles);
    let roles = fields.finish(roles).map_err(Refusal::Invalid)?;
    let write = sql::give_roles(&app.database, Some(caller.user_id), id, &roles, Moment::now());
    if !kept::around_roles(&app.cache, id, write).await? {
        return Err(Refusal::NotFound);
    }
    sessions::end_all(&app, id, Which::All).await?;
    Ok((PRIVATE, Json(json!({ "id": id, "roles": roles }))))
}

/// The jobs that were given up.
async fn dead_jobs(
    State(app): State<Arc<App>>,
    caller: Caller,
    QueryFields(mut query): QueryFields,
) -> Result<impl IntoResponse, Refusal> {
    administers(&app, &caller).await?;
    let walk = Walk::take(&mut query, &app.cursors, "dead jobs".into());
    let walk = query.finish(walk).map_err(Refusal::InvalidQuery)?;
    let jobs = sql::dead_jobs(&app.database, caller.user_id, walk.after, walk.count()).await?;
    Ok((PRIVATE, Json(walk.page("jobs", jobs, |job: &Dead| (job.dead_at, job.id)))))
}

async fn administers(app: &App, caller: &Caller) -> Result<(), Refusal> {
    let has_it = |roles: &[String]| roles.iter().any(|role| role == "admin");
    if !has_it(&caller.roles) || !kept::roles(app, caller.user_id).await?.is_some_and(|now| has_it(&now.0)) {
        return Err(Refusal::Forbidden);
    }
    Ok(())
}

fn role(value: Value) -> Result<String, String> {
    let known = value.as_str().filter(|role| ROLES.contains(role));
    known.map(str::to_owned).ok_or_else(|| format!("must be one of {}", ROLES.join(", ")))
}

/// At least one role, each once, in the order of [`ROLES`].
fn roles(value: Value) -> Result<Words, String> {
    let Value::Array(list) = value else { return Err("must be a list of roles".into()) };
    let given = list.into_iter().map(role).collect::<Result<Vec<_>, _>>().map_err(|e| format!("each {e}"))?;
    let roles: Vec<_> = ROLES.into_iter().filter(|role| given.iter().any(|given| given == role)).collect();
    if roles.is_empty() {
        return Err("must have at least one role".into());
    }
    Ok(Words(roles.into_iter().map(str::to_owned).collect()))
}
