//! Posts.

use axum::http::{Method, StatusCode};
use serde_json::json;

use crate::harness::{Origin, Person, Store};

on_both_stores!(
    everybody_reads_posts_with_their_authors,
    only_its_author_changes_a_post_and_moderators_remove_it,
    the_most_liked_posts_come_first,
    a_repeated_post_makes_nothing_twice,
);

async fn make(origin: &Origin, author: &Person, title: &str) -> String {
    let made = origin.post("/posts").by(author).json(json!({ "title": title, "content": "…" })).send().await;
    made.is(StatusCode::CREATED).text("/id")
}

async fn everybody_reads_posts_with_their_authors(store: Store) {
    let origin = Origin::start(store).await;
    let (ada, eve) = (origin.person("ada").await, origin.person("eve").await);
    let profile = json!({ "displayName": "Ada", "avatarUrl": "https://example.org/a.png" });
    origin.ask(Method::PUT, "/users/profile").by(&ada).json(profile).send().await.is(StatusCode::OK);
    let one = make(&origin, &ada, "One").await;
    let (two, three) = (make(&origin, &eve, "Two").await, make(&origin, &ada, "Three").await);

    let list = origin.get("/posts").send().await.is(StatusCode::OK);
    assert_eq!(list.ids("posts"), [&*three, &*two, &*one]);
    let author = json!({ "id": ada.id, "displayName": "Ada", "avatarUrl": "https://example.org/a.png" });
    assert_eq!(list.body["posts"][0]["author"], author);
    assert!(!list.body.to_string().contains(&ada.email), "an address is nobody else's business");
    assert_eq!((list.head("cdn-cache-control"), list.head("cache-tag")), ("public, max-age=60", "posts"));
    let read = origin.get(&format!("/posts/{one}")).send().await.is(StatusCode::OK);
    assert_eq!(read.body, list.body["posts"][2]);
    assert_eq!(read.head("cache-tag"), format!("posts, post:{one}"));
    let again = origin.get(&format!("/posts/{one}")).header("if-none-match", read.head("etag")).send().await;
    again.is(StatusCode::NOT_MODIFIED);

    let first = origin.get(&format!("/posts?limit=1&author={}", ada.id)).send().await.is(StatusCode::OK);
    let next = format!("/posts?limit=1&author={}&cursor={}", ada.id, first.text("/nextCursor"));
    assert_eq!(origin.get(&next).send().await.is(StatusCode::OK).ids("posts"), [&*one]);
    let refused = origin.get("/posts?author=ada&limit=101").send().await;
    assert_eq!(refused.refused(StatusCode::BAD_REQUEST, "invalid_query").fields(), ["author", "limit"]);
    origin.get("/posts/garbage").send().await.refused(StatusCode::NOT_FOUND, "not_found");
    let anonymous = origin.post("/posts").json(json!({ "title": "Boo" })).send().await;
    anonymous.refused(StatusCode::UNAUTHORIZED, "unauthenticated");
}

async fn only_its_author_changes_a_post_and_moderators_remove_it(store: Store) {
    let origin = Origin::start(store).await;
    let (ada, eve) = (origin.person("ada").await, origin.person("eve").await);
    let judge = origin.person_with("judge", "moderator").await;
    let place = format!("/posts/{}", make(&origin, &ada, "One").await);
    let patch = async |who: &Person, tag: &str| {
        let ask = origin.ask(Method::PATCH, &place).by(who).header("if-match", tag);
        ask.json(json!({ "title": "Two" })).send().await
    };
    for stranger in [&eve, &judge] {
        patch(stranger, "*").await.refused(StatusCode::FORBIDDEN, "forbidden");
    }
    patch(&ada, "\"v9\"").await.refused(StatusCode::PRECONDITION_FAILED, "precondition_failed");
    let patched = patch(&ada, "\"v1\"").await.is(StatusCode::OK);
    assert_eq!((&patched.body["title"], &patched.body["content"]), (&json!("Two"), &json!("…")));
    let read = origin.get(&place).send().await.is(StatusCode::OK);
    assert_eq!((&read.body, read.head("etag")), (&patched.body, "\"v2\""));

    let delete = async |who: &Person, tag: &str| {
        origin.ask(Method::DELETE, &place).by(who).header("if-match", tag).send().await
    };
    // Who only says so in the identity has no such role in the table.
    let liar = Person { identity: crate::harness::identity(&eve.id, &eve.token, &["moderator"]), ..eve };
    delete(&liar, "*").await.refused(StatusCode::FORBIDDEN, "forbidden");
    delete(&judge, "\"v1\"").await.refused(StatusCode::PRECONDITION_FAILED, "precondition_failed");
    delete(&judge, "\"v2\"").await.is(StatusCode::NO_CONTENT);
    delete(&judge, "*").await.refused(StatusCode::NOT_FOUND, "not_found");
}

async fn the_most_liked_posts_come_first(store: Store) {
    let origin = Origin::start(store).await;
    let (ada, eve) = (origin.person("ada").await, origin.person("eve").await);
    let mut posts = Vec::new();
    for n in 0..12 {
        posts.push(make(&origin, &ada, &n.to_string()).await);
    }
    let like = async |who: &Person, method, post: &str| {
        origin.ask(method, &format!("/posts/{post}/like")).by(who).send().await
    };
    for post in &posts {
        // Twice counts once.
        like(&ada, Method::PUT, post).await.is(StatusCode::NO_CONTENT);
        like(&ada, Method::PUT, post).await.is(StatusCode::NO_CONTENT);
    }
    for post in &posts[3..5] {
        like(&eve, Method::PUT, post).await.is(StatusCode::NO_CONTENT);
    }
    let top = origin.get("/posts/top").send().await.is(StatusCode::OK);
    let ids = top.ids("posts");
    assert_eq!(ids.len(), 10);
    assert_eq!(ids[..3], [&*posts[4], &*posts[3], &*posts[11]], "of equals the newer first");
    assert_eq!((&top.body["posts"][0]["likes"], &top.body["posts"][2]["likes"]), (&json!(2), &json!(1)));
    assert_eq!(top.body["posts"][0]["author"]["id"], ada.id);

    like(&eve, Method::DELETE, &posts[3]).await.is(StatusCode::NO_CONTENT);
    like(&eve, Method::DELETE, &posts[3]).await.is(StatusCode::NO_CONTENT);
    let top = origin.get("/posts/top").send().await.is(StatusCode::OK);
    assert_eq!(top.ids("posts")[..2], [&*posts[4], &*posts[11]]);
    like(&eve, Method::PUT, &ada.id).await.refused(StatusCode::NOT_FOUND, "not_found");
}

async fn a_repeated_post_makes_nothing_twice(store: Store) {
    let origin = Origin::start(store).await;
    let ada = origin.person("ada").await;
    let post = || {
        origin.post("/posts").by(&ada).header("idempotency-key", "k").json(json!({ "title": "One" })).send()
    };
    let (one, two) = tokio::join!(post(), post());
    assert_eq!(one.is(StatusCode::CREATED).body, two.is(StatusCode::CREATED).body);
    assert_eq!(origin.get("/posts").send().await.ids("posts").len(), 1);
}
