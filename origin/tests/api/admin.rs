//! What administrators may, and nobody else.

use axum::http::{Method, StatusCode};
use serde_json::json;
use weir_origin::{
    admin::{self, Filter},
    database::{Moment, Words},
};

use crate::harness::{Origin, Person, Store, identity};

on_both_stores!(
    administrators_walk_through_all_accounts,
    nobody_else_sees_accounts_or_gives_roles,
    new_roles_end_the_sessions_that_had_the_old_ones,
);

async fn administrators_walk_through_all_accounts(store: Store) {
    let origin = Origin::start(store).await;
    let root = origin.person_with("root", "admin").await;
    let judge = origin.person_with("judge", "moderator").await;
    let ada = origin.person("ada").await;
    let list = async |query: &str| {
        origin.get(&format!("/admin/users{query}")).by(&root).send().await.is(StatusCode::OK)
    };
    let all = list("").await;
    assert_eq!(all.ids("users"), [&*ada.id, &*judge.id, &*root.id], "newest first");
    assert_eq!(all.body["users"][0]["email"], ada.email);
    assert!(!all.body.to_string().contains("argon2"), "the hashes stay here");
    let first = list("?limit=2").await;
    let rest = list(&format!("?cursor={}", first.text("/nextCursor"))).await;
    assert_eq!([first.ids("users"), rest.ids("users")].concat(), all.ids("users"));
    for (query, wanted) in [
        ("?role=admin", vec![&root]),
        ("?role=moderator", vec![&judge]),
        ("?role=user", vec![&ada, &judge, &root]),
        ("?email=ADA@example.org", vec![&ada]),
        ("?email=nobody@example.org", vec![]),
        ("?verified=true", vec![]),
        ("?verified=false&role=admin", vec![&root]),
    ] {
        let wanted: Vec<_> = wanted.iter().map(|person| person.id.clone()).collect();
        assert_eq!(list(query).await.ids("users"), wanted, "{query}");
    }
    let refused = origin.get("/admin/users?role=king&offset=1").by(&root).send().await;
    assert_eq!(refused.refused(StatusCode::BAD_REQUEST, "invalid_query").fields(), ["offset", "role"]);
}

async fn nobody_else_sees_accounts_or_gives_roles(store: Store) {
    let origin = Origin::start(store).await;
    let (ada, judge) = (origin.person("ada").await, origin.person_with("judge", "moderator").await);
    let give = async |by: &Person, roles: &[&str]| {
        let path = format!("/admin/users/{}/roles", ada.id);
        origin.ask(Method::PUT, &path).by(by).json(json!({ "roles": roles })).send().await
    };
    for person in [&ada, &judge] {
        origin.get("/admin/users").by(person).send().await.refused(StatusCode::FORBIDDEN, "forbidden");
        give(person, &["admin"]).await.refused(StatusCode::FORBIDDEN, "forbidden");
    }
    // Signed a moment ago, when the table still said so.
    let demoted = Person { identity: identity(&judge.id, &judge.token, &["admin"]), ..judge };
    origin.get("/admin/users").by(&demoted).send().await.refused(StatusCode::FORBIDDEN, "forbidden");
    give(&demoted, &["admin"]).await.refused(StatusCode::FORBIDDEN, "forbidden");
    // While they asked: the statements find nothing.
    let (judge, ada_id) = (demoted.id.parse().unwrap(), ada.id.parse().unwrap());
    let found = admin::sql::page(&origin.app.database, judge, &Filter::default(), None, 10).await.unwrap();
    assert!(found.is_empty());
    let roles = Words(vec!["admin".into()]);
    let given =
        admin::sql::give_roles(&origin.app.database, Some(judge), ada_id, &roles, Moment::now()).await;
    assert!(!given.unwrap());
    let me = origin.get("/auth/me").by(&ada).send().await.is(StatusCode::OK);
    assert_eq!(me.body["roles"], json!(["user"]));
}

async fn new_roles_end_the_sessions_that_had_the_old_ones(store: Store) {
    let origin = Origin::start(store).await;
    let (root, ada) = (origin.person_with("root", "admin").await, origin.person("ada").await);
    let give = async |id: &str, roles: serde_json::Value| {
        let path = format!("/admin/users/{id}/roles");
        origin.ask(Method::PUT, &path).by(&root).json(json!({ "roles": roles })).send().await
    };
    let given = give(&ada.id, json!(["moderator", "user", "user"])).await.is(StatusCode::OK);
    assert_eq!(given.body, json!({ "id": ada.id, "roles": ["user", "moderator"] }));
    origin.get("/auth/session").bearer(&ada.token).send().await.is(StatusCode::UNAUTHORIZED);
    for wrong in [json!([]), json!(["king"]), json!("admin")] {
        let refused = give(&ada.id, wrong).await.refused(StatusCode::UNPROCESSABLE_ENTITY, "invalid");
        assert_eq!(refused.fields(), ["roles"]);
    }
    give(&root.id, json!(["user"])).await.refused(StatusCode::FORBIDDEN, "forbidden");
    let nobody = uuid::Uuid::now_v7().to_string();
    give(&nobody, json!(["user"])).await.refused(StatusCode::NOT_FOUND, "not_found");
}
