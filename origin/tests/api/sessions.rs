//! Sessions, with and without Redis.

use axum::http::StatusCode;
use redis::{AsyncCommands, aio::MultiplexedConnection};
use serde_json::{Value, json};

use crate::harness::{Origin, PASSWORD, Store};

on_both_stores!(
    the_edge_learns_a_session_by_asking,
    an_unknown_email_and_a_wrong_password_are_answered_alike,
    redis_knows_a_session_from_login_to_logout,
    without_redis_people_log_in_but_nobody_pretends_to_log_out,
    a_browser_logs_out_with_its_cookie,
);

async fn the_edge_learns_a_session_by_asking(store: Store) {
    let origin = Origin::start(store).await;
    let ada = origin.person("ada").await;
    let session = origin.get("/auth/session").bearer(&ada.token).send().await.is(StatusCode::OK).body;
    assert_eq!(session["user_id"], ada.id);
    assert_eq!(session["email"], ada.email);
    assert_eq!(session["roles"], json!(["user"]));
    assert!(session["expires_at"].is_i64());
    let id = session["session_id"].as_str().unwrap();
    assert!(id.len() == 43 && id != ada.token, "names the session without its token");
    assert_eq!(session.as_object().unwrap().len(), 5);

    let unknown = "A".repeat(43);
    for token in [unknown.as_str(), "garbage", "' OR 1=1 --"] {
        let asked = origin.get("/auth/session").bearer(token).send().await;
        asked.refused(StatusCode::UNAUTHORIZED, "unauthenticated");
    }
    let nobody =
        origin.get("/auth/session").send().await.refused(StatusCode::UNAUTHORIZED, "unauthenticated");
    assert_eq!(nobody.head("www-authenticate"), "Bearer");
    // Who somebody is, is not proof of a session.
    let asked = origin.get("/auth/session").by(&ada).send().await;
    asked.refused(StatusCode::UNAUTHORIZED, "unauthenticated");
}

async fn an_unknown_email_and_a_wrong_password_are_answered_alike(store: Store) {
    let origin = Origin::start(store).await;
    let ada = origin.person("ada").await;
    let wrong = origin.login(&ada.email, "not her password").await;
    let wrong = wrong.refused(StatusCode::UNAUTHORIZED, "wrong_credentials");
    let unknown = origin.login("nobody@example.org", PASSWORD).await;
    assert_eq!(unknown.refused(StatusCode::UNAUTHORIZED, "wrong_credentials").body, wrong.body);
}

async fn redis_knows_a_session_from_login_to_logout(store: Store) {
    let origin = Origin::start_with_redis(store).await;
    let ada = origin.person("ada").await;
    let mut redis = redis(&origin).await;
    let key = format!("session:{}", ada.token);
    let published: String = redis.get(&key).await.unwrap();
    let asked = origin.get("/auth/session").bearer(&ada.token).send().await.is(StatusCode::OK);
    assert_eq!(serde_json::from_str::<Value>(&published).unwrap(), asked.body, "one shape, either way");
    let ttl: i64 = redis.ttl(&key).await.unwrap();
    assert!((86_000..=86_400).contains(&ttl), "{ttl}");

    origin.post("/auth/logout").bearer(&ada.token).send().await.is(StatusCode::NO_CONTENT);
    assert!(!redis.exists::<_, bool>(&key).await.unwrap());
    origin.get("/auth/session").bearer(&ada.token).send().await.is(StatusCode::UNAUTHORIZED);
}

async fn without_redis_people_log_in_but_nobody_pretends_to_log_out(store: Store) {
    let mut origin = Origin::start_with_redis(store).await;
    let ada = origin.person("ada").await;
    let health = origin.get("/health").send().await.is(StatusCode::OK);
    assert_eq!(health.body, json!({ "status": "ok", "checks": { "database": "ok", "redis": "ok" } }));

    drop(origin.redis.take());
    origin.login(&ada.email, PASSWORD).await.is(StatusCode::OK);
    // The edges could still believe this session, so it must not be called ended.
    let refused = origin.post("/auth/logout").bearer(&ada.token).send().await;
    assert_eq!(refused.refused(StatusCode::SERVICE_UNAVAILABLE, "unavailable").head("retry-after"), "1");
    origin.get("/auth/me").bearer(&ada.token).send().await.is(StatusCode::OK);
    let health = origin.get("/health").send().await.is(StatusCode::OK);
    assert_eq!(
        health.body,
        json!({ "status": "degraded", "checks": { "database": "ok", "redis": "failed" } })
    );
}

async fn a_browser_logs_out_with_its_cookie(store: Store) {
    let origin = Origin::start(store).await;
    let ada = origin.person("ada").await;
    let cookie = format!("theme=dark; sid={}", ada.token);
    origin.post("/auth/logout").header("cookie", &cookie).send().await.is(StatusCode::NO_CONTENT);
    origin.get("/auth/me").bearer(&ada.token).send().await.is(StatusCode::UNAUTHORIZED);
    // The identity alone does not tell which key to remove from Redis.
    origin.post("/auth/logout").by(&ada).send().await.is(StatusCode::UNAUTHORIZED);
}

async fn redis(origin: &Origin) -> MultiplexedConnection {
    let url = origin.redis.as_ref().unwrap().url();
    redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap()
}
