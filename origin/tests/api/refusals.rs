//! What is refused before any resource is asked, and what happens without the store.

use axum::http::{Method, StatusCode};
use jsonwebtoken::get_current_timestamp;
use serde_json::{Value, json};

use weir_origin::database::Database;

use crate::harness::{Origin, PASSWORD, POSTGRES, SECRET, Store, signed};

const ITEMS: &str = "/api/vault/items";

on_both_stores!(
    only_an_identity_signed_by_the_edge_is_believed,
    a_body_must_be_small_json_that_says_so,
    paths_and_methods_we_do_not_have_are_refused_in_the_one_shape,
    without_the_store_answers_are_503,
);

async fn only_an_identity_signed_by_the_edge_is_believed(store: Store) {
    let origin = Origin::start(store).await;
    let ada = origin.person("ada").await;
    origin.get(ITEMS).by(&ada).send().await.is(StatusCode::OK);

    let (now, id) = (get_current_timestamp(), ada.id.as_str());
    let claims = |exp: u64, iss: &str| json!({ "sub": id, "iat": now, "exp": exp, "iss": iss });
    let good = signed(claims(now + 30, "weir"), SECRET);
    let (head, rest) = good.split_once('.').unwrap();
    // {"alg":"none"}
    let unsigned = format!("eyJhbGciOiJub25lIn0.{}.", rest.split_once('.').unwrap().0);
    for identity in [
        signed(claims(now + 30, "weir"), "somebody else's secret of thirty-two bytes"),
        signed(claims(now - 60, "weir"), SECRET),
        signed(claims(now + 30, "somebody"), SECRET),
        format!("{head}x.{rest}"),
        unsigned,
        "garbage".into(),
        String::new(),
    ] {
        let refused = origin.get(ITEMS).header("x-weir-identity", &identity).send().await;
        refused.refused(StatusCode::UNAUTHORIZED, "unauthenticated");
        // A bad identity is not mended by a good token.
        let refused =
            origin.get("/auth/me").header("x-weir-identity", &identity).bearer(&ada.token).send().await;
        refused.refused(StatusCode::UNAUTHORIZED, "unauthenticated");
    }
    origin.get(ITEMS).by(&ada).by(&ada).send().await.refused(StatusCode::UNAUTHORIZED, "unauthenticated");
    origin.get(ITEMS).send().await.refused(StatusCode::UNAUTHORIZED, "unauthenticated");
    // A token is for the edge to judge; the vault takes only what the edge says.
    origin.get(ITEMS).bearer(&ada.token).send().await.refused(StatusCode::UNAUTHORIZED, "unauthenticated");
    // Signed, but the account does not exist (any more).
    let ghost = signed(json!({ "sub": uuid::Uuid::now_v7(), "exp": now + 30, "iss": "weir" }), SECRET);
    for (method, path, body) in [
        (Method::GET, "/auth/me", Value::Null),
        (Method::PUT, "/users/profile", json!({ "displayName": "Ghost" })),
        (Method::POST, ITEMS, json!({ "type": "memory", "title": "Boo" })),
    ] {
        let refused = origin.ask(method, path).header("x-weir-identity", &ghost).json(body).send().await;
        refused.refused(StatusCode::UNAUTHORIZED, "unauthenticated");
    }
}

async fn a_body_must_be_small_json_that_says_so(store: Store) {
    let origin = Origin::start(store).await;
    let ada = origin.person("ada").await;
    let ask = || origin.post(ITEMS).by(&ada);
    let body = r#"{"type":"memory","title":"One"}"#;
    for declared in ["text/plain", "application/jsonx", "multipart/form-data"] {
        let refused = ask().header("content-type", declared).body(body).send().await;
        refused.refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json");
    }
    ask().body(body).send().await.refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json");
    ask()
        .header("content-type", "Application/JSON; charset=utf-8")
        .body(body)
        .send()
        .await
        .is(StatusCode::CREATED);
    for body in ["", "{", "[]", "null", "{}x", "\u{feff}{}", r#"{"title":"\ud800"}"#] {
        let refused = ask().header("content-type", "application/json").body(body).send().await;
        refused.refused(StatusCode::BAD_REQUEST, "malformed");
    }
    let large = |bytes| json!({ "type": "memory", "title": "One", "content": "x".repeat(bytes) });
    ask().json(large(1024 * 1024)).send().await.refused(StatusCode::PAYLOAD_TOO_LARGE, "too_large");
    ask().json(large(1024 * 1000)).send().await.refused(StatusCode::UNPROCESSABLE_ENTITY, "invalid");
}

async fn paths_and_methods_we_do_not_have_are_refused_in_the_one_shape(store: Store) {
    let origin = Origin::start(store).await;
    let missing = origin.get("/nowhere").send().await.refused(StatusCode::NOT_FOUND, "not_found");
    assert_eq!(missing.head("x-origin"), "test-origin");
    assert_eq!(missing.head("server"), "", "nobody is told what runs here");
    let refused = origin.get("/auth/login").send().await;
    assert_eq!(refused.refused(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed").head("allow"), "POST");
}

async fn without_the_store_answers_are_503(store: Store) {
    let origin = Origin::start(store).await;
    let ada = origin.person("ada").await;
    let health = origin.get("/health").send().await.is(StatusCode::OK);
    assert_eq!(
        health.body,
        json!({ "status": "ok", "checks": { "database": "ok", "replica": "disabled", "redis": "disabled" } })
    );

    origin.lose_database(store).await;
    let health = origin.get("/health").send().await.is(StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        health.body,
        json!({ "status": "unavailable", "checks": { "database": "failed", "replica": "disabled", "redis": "disabled" } })
    );
    let refused = origin.get(ITEMS).by(&ada).send().await;
    assert_eq!(refused.refused(StatusCode::SERVICE_UNAVAILABLE, "unavailable").head("retry-after"), "1");
    origin.login(&ada.email, PASSWORD).await.refused(StatusCode::SERVICE_UNAVAILABLE, "unavailable");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_finds_no_connection_in_time_is_told_to_come_again() {
    let url = POSTGRES.create_database();
    let further = ["--pool-max", "1"];
    let origin = Origin::start_on(url, None, tempfile::tempdir().unwrap(), &further).await;
    let ada = origin.person("ada").await;
    let Database::Postgres(pool) = &origin.app.database else { unreachable!("a Postgres URL") };
    let taken = pool.acquire().await.unwrap();
    let refused = origin.get(ITEMS).by(&ada).send().await;
    assert_eq!(refused.refused(StatusCode::SERVICE_UNAVAILABLE, "unavailable").head("retry-after"), "1");
    drop(taken);
    origin.get(ITEMS).by(&ada).send().await.is(StatusCode::OK);
}
