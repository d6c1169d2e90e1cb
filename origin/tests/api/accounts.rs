//! Accounts.

use axum::http::{Method, StatusCode};
use serde_json::json;

use weir_origin::database::Moment;

use crate::harness::{Origin, PASSWORD, Store};

on_both_stores!(
    an_account_lives_from_registration_to_logout,
    an_email_is_registered_once_in_any_case,
    all_problems_of_a_registration_are_named_at_once,
    a_profile_is_replaced_whole,
    an_address_is_proven_by_the_token_that_was_mailed_there,
);

async fn an_account_lives_from_registration_to_logout(store: Store) {
    let origin = Origin::start(store).await;
    let registered = origin
        .post("/auth/register")
        .json(json!({ "email": "Ada@Example.org", "password": PASSWORD, "displayName": "Ada" }))
        .send()
        .await
        .is(StatusCode::CREATED);
    assert_eq!(registered.body["email"], "ada@example.org");
    assert_eq!(registered.body["displayName"], "Ada");
    assert_eq!(registered.body["roles"], json!(["user"]));
    assert!(!registered.body.to_string().contains("argon2"), "the hash stays here");

    let login = origin.login("ADA@example.org", PASSWORD).await.is(StatusCode::OK);
    assert_eq!(login.head("cache-control"), "no-store");
    assert_eq!(login.body["user"], registered.body, "what was answered first is what is stored");
    let token = login.text("/token");
    assert_eq!(token.len(), 43);

    let me = origin.get("/auth/me").bearer(&token).send().await.is(StatusCode::OK);
    assert_eq!(me.body, registered.body);
    origin.post("/auth/logout").bearer(&token).send().await.is(StatusCode::NO_CONTENT);
    origin.get("/auth/me").bearer(&token).send().await.refused(StatusCode::UNAUTHORIZED, "unauthenticated");
    origin
        .post("/auth/logout")
        .bearer(&token)
        .send()
        .await
        .refused(StatusCode::UNAUTHORIZED, "unauthenticated");
}

async fn an_email_is_registered_once_in_any_case(store: Store) {
    let origin = Origin::start(store).await;
    origin.person("ada").await;
    for email in ["ada@example.org", "ADA@EXAMPLE.ORG"] {
        let again =
            origin.post("/auth/register").json(json!({ "email": email, "password": PASSWORD })).send().await;
        again.refused(StatusCode::CONFLICT, "email_taken");
    }
}

async fn all_problems_of_a_registration_are_named_at_once(store: Store) {
    let origin = Origin::start(store).await;
    let body = json!({ "email": "nobody", "password": "short", "displayName": 7, "admin": true });
    let refused = origin.post("/auth/register").json(body).send().await;
    let refused = refused.refused(StatusCode::UNPROCESSABLE_ENTITY, "invalid");
    assert_eq!(refused.fields(), ["admin", "displayName", "email", "password"]);
    let refused = origin.post("/auth/register").json(json!({})).send().await;
    assert_eq!(refused.fields(), ["email", "password"]);
}

async fn a_profile_is_replaced_whole(store: Store) {
    let origin = Origin::start(store).await;
    let ada = origin.person("ada").await;
    let put = |body| origin.ask(Method::PUT, "/users/profile").by(&ada).json(body).send();
    let full = json!({ "displayName": "Ada", "bio": "Counts.", "avatarUrl": "https://example.org/a.png" });
    assert_eq!(put(full.clone()).await.is(StatusCode::OK).body, full);
    put(json!({ "displayName": "Ada L." })).await.is(StatusCode::OK);
    let me = origin.get("/auth/me").by(&ada).send().await.is(StatusCode::OK);
    assert_eq!((&me.body["displayName"], &me.body["bio"]), (&json!("Ada L."), &json!("")));
    assert!(me.body["avatarUrl"].is_null());
    let refused = put(json!({ "avatarUrl": "javascript:alert(1)", "x": 1 })).await;
    assert_eq!(
        refused.refused(StatusCode::UNPROCESSABLE_ENTITY, "invalid").fields(),
        ["avatarUrl", "displayName", "x"]
    );
}

async fn an_address_is_proven_by_the_token_that_was_mailed_there(store: Store) {
    let origin = Origin::start(store).await;
    let ada = origin.person("ada").await;
    let verify =
        async |token: &str| origin.post("/auth/verify-email").json(json!({ "token": token })).send().await;
    let me = async || origin.get("/auth/me").by(&ada).send().await.is(StatusCode::OK).body;
    let (id, now) = (ada.id.parse().unwrap(), Moment::now());
    verify("garbage").await.refused(StatusCode::UNPROCESSABLE_ENTITY, "invalid");
    let elsewhere = origin.app.verifications.seal(id, "ada@elsewhere.org", now);
    verify(&elsewhere).await.refused(StatusCode::NOT_FOUND, "not_found");
    assert!(me().await["emailVerifiedAt"].is_null());

    let token = origin.app.verifications.seal(id, &ada.email, now);
    verify(&token).await.is(StatusCode::NO_CONTENT);
    let first = me().await["emailVerifiedAt"].clone();
    assert!(first.is_string());
    verify(&token).await.is(StatusCode::NO_CONTENT);
    assert_eq!(me().await["emailVerifiedAt"], first, "once is enough");
}
