//! Sessions, with and without Redis.

use axum::http::{Method, StatusCode};
use redis::{AsyncCommands, aio::MultiplexedConnection};
use serde_json::{Value, json};

use weir_origin::token::Token;

use crate::harness::{Origin, PASSWORD, Person, Store};

on_both_stores!(
    the_edge_learns_a_session_by_asking,
    an_unknown_email_and_a_wrong_password_are_answered_alike,
    redis_knows_a_session_from_login_to_logout,
    without_redis_people_log_in_but_nobody_pretends_to_log_out,
    a_browser_logs_out_with_its_cookie,
    people_see_their_sessions_and_end_them_from_elsewhere,
    a_new_password_ends_every_other_session,
    guessing_is_bounded_whether_the_account_exists_or_not,
    a_login_too_many_ends_the_oldest_session,
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
    assert_eq!(
        health.body,
        json!({ "status": "ok", "checks": { "database": "ok", "replica": "disabled", "redis": "ok" } })
    );

    drop(origin.redis.take());
    origin.login(&ada.email, PASSWORD).await.is(StatusCode::OK);
    // The edges could still believe this session, so it must not be called ended.
    let refused = origin.post("/auth/logout").bearer(&ada.token).send().await;
    assert_eq!(refused.refused(StatusCode::SERVICE_UNAVAILABLE, "unavailable").head("retry-after"), "1");
    origin.get("/auth/me").bearer(&ada.token).send().await.is(StatusCode::OK);
    let health = origin.get("/health").send().await.is(StatusCode::OK);
    assert_eq!(
        health.body,
        json!({ "status": "degraded", "checks": { "database": "ok", "replica": "disabled", "redis": "failed" } })
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

async fn people_see_their_sessions_and_end_them_from_elsewhere(store: Store) {
    let origin = Origin::start_with_redis(store).await;
    let (ada, eve) = (origin.person("ada").await, origin.person("eve").await);
    let mut redis = redis(&origin).await;
    let (second, third) = (
        origin.login(&ada.email, PASSWORD).await.text("/token"),
        origin.login(&ada.email, PASSWORD).await.text("/token"),
    );
    let page = origin.get("/auth/sessions?limit=2").by(&ada).send().await.is(StatusCode::OK);
    let next = page.text("/nextCursor");
    let rest = origin.get(&format!("/auth/sessions?cursor={next}")).by(&ada).send().await.is(StatusCode::OK);
    let ids = [page.ids("sessions"), rest.ids("sessions")].concat();
    let id = |token: &str| Token::parse(token).unwrap().hash().session_id();
    assert_eq!(ids, [id(&third), id(&second), id(&ada.token)], "newest first");
    assert!(!(page.body.to_string() + &rest.body.to_string()).contains(&second), "no tokens");
    assert_eq!(rest.body["sessions"][0]["current"], true);
    assert_eq!(page.body["sessions"][0]["current"], false);

    // Of somebody else: as if it were not there.
    let end = async |who: &Person, id: &str| {
        origin.ask(Method::DELETE, &format!("/auth/sessions/{id}")).by(who).send().await
    };
    end(&eve, &ids[0]).await.refused(StatusCode::NOT_FOUND, "not_found");
    end(&ada, "garbage").await.refused(StatusCode::NOT_FOUND, "not_found");
    end(&ada, &ids[0]).await.is(StatusCode::NO_CONTENT);
    end(&ada, &ids[0]).await.is(StatusCode::NOT_FOUND);
    origin.get("/auth/session").bearer(&third).send().await.is(StatusCode::UNAUTHORIZED);
    let published = async |redis: &mut MultiplexedConnection, token: &str| {
        redis.exists::<_, bool>(format!("session:{token}")).await.unwrap()
    };
    assert!(!published(&mut redis, &third).await, "the edges are told, without anybody showing the token");

    let ended = origin.ask(Method::DELETE, "/auth/sessions").by(&ada).send().await.is(StatusCode::OK);
    assert_eq!(ended.body, json!({ "ended": 1 }));
    assert!(!published(&mut redis, &second).await && published(&mut redis, &ada.token).await);
    origin.get("/auth/session").bearer(&ada.token).send().await.is(StatusCode::OK);
    origin.get("/auth/session").bearer(&eve.token).send().await.is(StatusCode::OK);
}

async fn a_new_password_ends_every_other_session(store: Store) {
    let origin = Origin::start_with_redis(store).await;
    let ada = origin.person("ada").await;
    let thief = origin.login(&ada.email, PASSWORD).await.text("/token");
    let change = async |current: &str, new: &str| {
        let body = json!({ "currentPassword": current, "newPassword": new });
        origin.ask(Method::PUT, "/users/password").by(&ada).json(body).send().await
    };
    change("not hers", "another long one").await.refused(StatusCode::UNAUTHORIZED, "wrong_credentials");
    let refused = change(PASSWORD, "short").await.refused(StatusCode::UNPROCESSABLE_ENTITY, "invalid");
    assert_eq!(refused.fields(), ["newPassword"]);
    origin.get("/auth/session").bearer(&thief).send().await.is(StatusCode::OK);

    change(PASSWORD, "another long one").await.is(StatusCode::NO_CONTENT);
    origin.get("/auth/session").bearer(&thief).send().await.is(StatusCode::UNAUTHORIZED);
    origin.get("/auth/session").bearer(&ada.token).send().await.is(StatusCode::OK);
    assert!(!redis(&origin).await.exists::<_, bool>(format!("session:{thief}")).await.unwrap());
    origin.login(&ada.email, PASSWORD).await.refused(StatusCode::UNAUTHORIZED, "wrong_credentials");
    origin.login(&ada.email, "another long one").await.is(StatusCode::OK);
}

async fn a_login_too_many_ends_the_oldest_session(store: Store) {
    for with_redis in [false, true] {
        let server = with_redis.then(weir_testkit::Redis::start);
        let origin = Origin::start_with(store, server, &["--sessions-most", "2"]).await;
        let (ada, eve) = (origin.person("ada").await, origin.person("eve").await);
        let login = async || origin.login(&ada.email, PASSWORD).await.is(StatusCode::OK).text("/token");
        let (second, third) = (login().await, login().await);
        origin.get("/auth/me").bearer(&ada.token).send().await.is(StatusCode::UNAUTHORIZED);
        for token in [&second, &third, &eve.token] {
            origin.get("/auth/me").bearer(token).send().await.is(StatusCode::OK);
        }
        if with_redis {
            let mut redis = redis(&origin).await;
            for (token, there) in [(&ada.token, false), (&second, true), (&third, true)] {
                let found: bool = redis.exists(format!("session:{token}")).await.unwrap();
                assert_eq!(found, there);
            }
        }
    }
}

async fn guessing_is_bounded_whether_the_account_exists_or_not(store: Store) {
    for redis in [false, true] {
        let origin = if redis { Origin::start_with_redis(store).await } else { Origin::start(store).await };
        let ada = origin.person("ada").await;
        let mut answers = Vec::new();
        for email in [ada.email.as_str(), "nobody@example.org"] {
            for _ in 0..10 {
                origin.login(email, "a guess").await.refused(StatusCode::UNAUTHORIZED, "wrong_credentials");
            }
            let refused = origin.login(email, PASSWORD).await;
            let refused = refused.refused(StatusCode::TOO_MANY_REQUESTS, "too_many");
            assert_eq!(refused.head("retry-after"), "900");
            answers.push(refused.body);
        }
        assert_eq!(answers[0], answers[1]);
        // Sessions go on, and so do the others.
        origin.get("/auth/me").bearer(&ada.token).send().await.is(StatusCode::OK);
        origin.person("eve").await;
    }
}

async fn redis(origin: &Origin) -> MultiplexedConnection {
    let url = origin.redis.as_ref().unwrap().url();
    redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap()
}

/// They were counted as guesses once: whoever tried through an outage was locked out after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logins_that_failed_for_want_of_the_store_are_no_guesses() {
    let origin = Origin::start(Store::Sqlite).await;
    let ada = origin.person("ada").await;
    origin.lose_database(Store::Sqlite).await;
    for _ in 0..12 {
        let refused = origin.login(&ada.email, PASSWORD).await;
        refused.refused(StatusCode::SERVICE_UNAVAILABLE, "unavailable");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_a_password_stays_as_it_is() {
    let mut origin = Origin::start_with_redis(Store::Sqlite).await;
    let ada = origin.person("ada").await;
    origin.login(&ada.email, PASSWORD).await.is(StatusCode::OK);
    drop(origin.redis.take());
    let body = json!({ "currentPassword": PASSWORD, "newPassword": "another long one" });
    let refused = origin.ask(Method::PUT, "/users/password").by(&ada).json(body).send().await;
    refused.refused(StatusCode::SERVICE_UNAVAILABLE, "unavailable");
    // The edges could still believe her other session, so it must not be called changed.
    origin.login(&ada.email, PASSWORD).await.is(StatusCode::OK);
}
