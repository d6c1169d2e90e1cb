//! Vault items.

use std::collections::HashSet;

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Answer, Origin, Person, Store};

const ITEMS: &str = "/api/vault/items";

on_both_stores!(
    an_item_is_stored_as_it_was_written,
    put_replaces_and_patch_changes,
    patches_at_the_same_time_all_count,
    a_walk_meets_every_item_once_while_others_are_added,
    a_cursor_that_is_not_this_walks_is_refused,
    a_page_has_one_to_a_hundred_items,
    filters_narrow_the_list,
    nobody_sees_or_touches_the_items_of_others,
    all_problems_of_an_item_are_named_at_once,
    the_edge_may_keep_an_answer_and_a_browser_may_not,
    a_known_version_is_not_sent_again,
    a_write_with_if_match_overwrites_only_what_it_names,
    a_repeated_post_makes_nothing_twice,
    a_batch_is_made_and_removed_whole,
);

async fn an_item_is_stored_as_it_was_written(store: Store) {
    let origin = Origin::start(store).await;
    let ada = origin.person("ada").await;
    let item = json!({
        "type": "letter", "title": "To Grace 🌊", "content": "Line one\nline two", "emotionCategory": "joy",
        "importanceScore": 100, "keywords": ["sea", "two words", "\"quoted\""],
        "scheduledDelivery": "2030-01-31T12:00:00.000001+02:00", "mediaUrl": "https://example.org/m",
        "thumbnailUrl": "http://example.org/t",
    });
    let made = origin.post(ITEMS).by(&ada).json(item.clone()).send().await.is(StatusCode::CREATED);
    let place = made.head("location").to_owned();
    assert_eq!(place, format!("{ITEMS}/{}", made.text("/id")));
    let read = origin.get(&place).by(&ada).send().await.is(StatusCode::OK);
    assert_eq!(read.body, made.body, "what was answered first is what is stored");
    for (name, value) in item.as_object().unwrap() {
        let stored =
            if name == "scheduledDelivery" { json!("2030-01-31T10:00:00.000001Z") } else { value.clone() };
        assert_eq!(read.body[name], stored, "{name}");
    }
    assert_eq!(read.body["createdAt"], read.body["updatedAt"]);

    origin.ask(Method::DELETE, &place).by(&ada).send().await.is(StatusCode::NO_CONTENT);
    origin.get(&place).by(&ada).send().await.refused(StatusCode::NOT_FOUND, "not_found");
    origin.ask(Method::DELETE, &place).by(&ada).send().await.refused(StatusCode::NOT_FOUND, "not_found");
}

async fn put_replaces_and_patch_changes(store: Store) {
    let origin = Origin::start(store).await;
    let ada = origin.person("ada").await;
    let id = origin
        .item(&ada, json!({ "type": "memory", "title": "One", "keywords": ["a"], "importanceScore": 5 }))
        .await;
    let ask = |method, body| origin.ask(method, &format!("{ITEMS}/{id}")).by(&ada).json(body).send();

    let patched =
        ask(Method::PATCH, json!({ "title": "Two", "importanceScore": null })).await.is(StatusCode::OK);
    assert_eq!((&patched.body["title"], &patched.body["type"]), (&json!("Two"), &json!("memory")));
    assert_eq!((&patched.body["importanceScore"], &patched.body["keywords"]), (&Value::Null, &json!(["a"])));
    assert!(patched.text("/updatedAt") > patched.text("/createdAt"));

    let put = ask(Method::PUT, json!({ "type": "letter", "title": "Three" })).await.is(StatusCode::OK);
    assert_eq!((&put.body["title"], &put.body["keywords"]), (&json!("Three"), &json!([])));
    assert_eq!(put.body["createdAt"], patched.body["createdAt"]);

    let refused = ask(Method::PUT, json!({ "title": "Four" })).await;
    assert_eq!(refused.refused(StatusCode::UNPROCESSABLE_ENTITY, "invalid").fields(), ["type"]);
    let refused = ask(Method::PATCH, json!({ "title": null, "id": 1 })).await;
    assert_eq!(refused.refused(StatusCode::UNPROCESSABLE_ENTITY, "invalid").fields(), ["id", "title"]);
}

async fn patches_at_the_same_time_all_count(store: Store) {
    let origin = Origin::start(store).await;
    let ada = origin.person("ada").await;
    let id = origin.item(&ada, json!({ "type": "memory", "title": "One" })).await;
    let place = format!("{ITEMS}/{id}");
    let patch = |body| origin.ask(Method::PATCH, &place).by(&ada).json(body).send();
    let (title, kind, score) = tokio::join!(
        patch(json!({ "title": "Two" })),
        patch(json!({ "type": "letter" })),
        patch(json!({ "importanceScore": 7 })),
    );
    for answer in [title, kind, score] {
        answer.is(StatusCode::OK);
    }
    let read = origin.get(&place).by(&ada).send().await;
    let wanted = (json!("Two"), json!("letter"), json!(7), "\"v4\"");
    let found = (&read.body["title"], &read.body["type"], &read.body["importanceScore"], read.head("etag"));
    assert_eq!(found, (&wanted.0, &wanted.1, &wanted.2, wanted.3));
}

async fn a_walk_meets_every_item_once_while_others_are_added(store: Store) {
    let origin = Origin::start(store).await;
    let ada = origin.person("ada").await;
    let mut before = HashSet::new();
    for n in 0..23 {
        before.insert(origin.item(&ada, json!({ "type": "memory", "title": format!("Old {n}") })).await);
    }
    let (mut met, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let page = origin.get(&format!("{ITEMS}?limit=5{cursor}")).by(&ada).send().await.is(StatusCode::OK);
        met.extend(ids(&page));
        pages += 1;
        origin.item(&ada, json!({ "type": "memory", "title": "New" })).await;
        match page.body["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(pages, 5);
    assert_eq!(met.len(), before.len(), "each once");
    assert_eq!(met.into_iter().collect::<HashSet<_>>(), before, "and all of them");
}

async fn a_cursor_that_is_not_this_walks_is_refused(store: Store) {
    let origin = Origin::start(store).await;
    let (ada, eve) = (origin.person("ada").await, origin.person("eve").await);
    for person in [&ada, &ada, &eve] {
        origin.item(person, json!({ "type": "memory", "title": "One" })).await;
    }
    let page = origin.get(&format!("{ITEMS}?limit=1")).by(&ada).send().await.is(StatusCode::OK);
    let cursor = page.text("/nextCursor");
    let ask = async |person: &Person, query: String| {
        origin.get(&format!("{ITEMS}?{query}")).by(person).send().await
    };
    ask(&ada, format!("cursor={cursor}")).await.is(StatusCode::OK);

    let forged = format!("A{}", &cursor[1..]);
    let forged = if forged == cursor { format!("B{}", &cursor[1..]) } else { forged };
    for cursor in [forged.as_str(), "garbage", "", "%00", "%ff%fe", &cursor[..20]] {
        let refused =
            ask(&ada, format!("cursor={cursor}")).await.refused(StatusCode::BAD_REQUEST, "invalid_query");
        assert_eq!(refused.fields(), ["cursor"]);
    }
    ask(&eve, format!("cursor={cursor}")).await.is(StatusCode::BAD_REQUEST);
    ask(&ada, format!("type=letter&cursor={cursor}")).await.is(StatusCode::BAD_REQUEST);
}

async fn a_page_has_one_to_a_hundred_items(store: Store) {
    let origin = Origin::start(store).await;
    let ada = origin.person("ada").await;
    for n in 0..21 {
        origin.item(&ada, json!({ "type": "memory", "title": n.to_string() })).await;
    }
    let ask = async |query: &str| origin.get(&format!("{ITEMS}{query}")).by(&ada).send().await;
    assert_eq!(ids(&ask("").await.is(StatusCode::OK)).len(), 20);
    assert_eq!(ids(&ask("?limit=1").await.is(StatusCode::OK)).len(), 1);
    let all = ask("?limit=100").await.is(StatusCode::OK);
    assert_eq!(ids(&all).len(), 21);
    assert!(all.body["nextCursor"].is_null());
    for query in
        ["?limit=0", "?limit=101", "?limit=-1", "?limit=x", "?limit=99999999999999999999", "?limit=1&limit=2"]
    {
        assert_eq!(
            ask(query).await.refused(StatusCode::BAD_REQUEST, "invalid_query").fields(),
            ["limit"],
            "{query}"
        );
    }
    let refused = ask("?offset=3&limit=0").await.refused(StatusCode::BAD_REQUEST, "invalid_query");
    assert_eq!(refused.fields(), ["limit", "offset"]);
}

async fn filters_narrow_the_list(store: Store) {
    let origin = Origin::start(store).await;
    let ada = origin.person("ada").await;
    let one = json!({ "type": "memory", "title": "1", "emotionCategory": "joy", "importanceScore": 5, "keywords": ["sea", "o'neill"] });
    let two = json!({ "type": "letter", "title": "2", "emotionCategory": "joy", "scheduledDelivery": "2030-01-01T00:00:00Z" });
    let (one, two) = (origin.item(&ada, one).await, origin.item(&ada, two).await);
    let (both, none) = (vec![two.clone(), one.clone()], vec![]);
    for (query, wanted) in [
        ("", &both),
        ("?type=memory", &vec![one.clone()]),
        ("?type=nothing", &none),
        ("?emotionCategory=joy", &both),
        ("?emotionCategory=joy&type=letter", &vec![two.clone()]),
        ("?importanceScore=5", &vec![one.clone()]),
        ("?importanceScore=6", &none),
        ("?keyword=sea", &vec![one.clone()]),
        ("?keyword=o%27neill", &vec![one.clone()]),
        ("?keyword=se", &none),
        ("?scheduled=true", &vec![two.clone()]),
        ("?scheduled=false", &vec![one.clone()]),
    ] {
        let page = origin.get(&format!("{ITEMS}{query}")).by(&ada).send().await.is(StatusCode::OK);
        assert_eq!(ids(&page), *wanted, "{query}");
    }
    let refused =
        origin.get(&format!("{ITEMS}?type=A&scheduled=yes&importanceScore=x")).by(&ada).send().await;
    let refused = refused.refused(StatusCode::BAD_REQUEST, "invalid_query");
    assert_eq!(refused.fields(), ["importanceScore", "scheduled", "type"]);
}

async fn nobody_sees_or_touches_the_items_of_others(store: Store) {
    let origin = Origin::start(store).await;
    let (ada, eve) = (origin.person("ada").await, origin.person("eve").await);
    let place = format!("{ITEMS}/{}", origin.item(&ada, json!({ "type": "memory", "title": "Mine" })).await);
    let theirs = json!({ "type": "memory", "title": "Theirs" });
    for method in [Method::GET, Method::PUT, Method::PATCH, Method::DELETE] {
        let touched = origin.ask(method, &place).by(&eve).json(theirs.clone()).send().await;
        touched.refused(StatusCode::NOT_FOUND, "not_found");
    }
    let list = origin.get(ITEMS).by(&eve).send().await.is(StatusCode::OK);
    assert!(ids(&list).is_empty());
    let read = origin.get(&place).by(&ada).send().await.is(StatusCode::OK);
    assert_eq!((read.text("/title"), read.head("etag")), ("Mine".into(), "\"v1\""));
    origin
        .get(&format!("{ITEMS}/not-an-id"))
        .by(&ada)
        .send()
        .await
        .refused(StatusCode::NOT_FOUND, "not_found");
}

async fn all_problems_of_an_item_are_named_at_once(store: Store) {
    let origin = Origin::start(store).await;
    let ada = origin.person("ada").await;
    let wrong = json!({
        "type": "No Word", "title": "", "content": "x".repeat(20_001), "emotionCategory": 1, "importanceScore": 101,
        "keywords": "sea", "scheduledDelivery": "tomorrow", "mediaUrl": "file:///etc/passwd", "thumbnailUrl": "x", "userId": "me",
    });
    let refused = origin.post(ITEMS).by(&ada).json(wrong.clone()).send().await;
    let refused = refused.refused(StatusCode::UNPROCESSABLE_ENTITY, "invalid");
    let mut names: Vec<_> = wrong.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(refused.fields(), names);
    // Postgres cannot store NUL: it must be refused here, not fail there.
    let refused = origin.post(ITEMS).by(&ada).json(json!({ "type": "memory", "title": "a\0b" })).send().await;
    assert_eq!(refused.refused(StatusCode::UNPROCESSABLE_ENTITY, "invalid").fields(), ["title"]);
    assert!(ids(&origin.get(ITEMS).by(&ada).send().await).is_empty());
}

async fn the_edge_may_keep_an_answer_and_a_browser_may_not(store: Store) {
    let origin = Origin::start(store).await;
    let ada = origin.person("ada").await;
    let id = origin.item(&ada, json!({ "type": "memory", "title": "One" })).await;
    let list = origin.get(ITEMS).by(&ada).send().await.is(StatusCode::OK);
    assert_eq!(list.head("cache-tag"), format!("vault:{}", ada.id));
    let item = origin.get(&format!("{ITEMS}/{id}")).by(&ada).send().await.is(StatusCode::OK);
    assert_eq!(item.head("cache-tag"), format!("vault:{}, vault-item:{id}", ada.id));
    for answer in [list, item] {
        assert_eq!(answer.head("cache-control"), "private, no-cache");
        assert_eq!(answer.head("cdn-cache-control"), "max-age=60");
    }
    let missing = origin.get(&format!("{ITEMS}/{}", ada.id)).by(&ada).send().await.is(StatusCode::NOT_FOUND);
    assert_eq!(missing.head("cache-control"), "no-store");
}

async fn a_known_version_is_not_sent_again(store: Store) {
    let origin = Origin::start(store).await;
    let ada = origin.person("ada").await;
    let place = format!("{ITEMS}/{}", origin.item(&ada, json!({ "type": "memory", "title": "One" })).await);
    let ask = async |known: &str| origin.get(&place).by(&ada).header("if-none-match", known).send().await;
    for known in ["\"v1\"", "W/\"v1\"", "\"x\", \"v1\"", "*"] {
        let answer = ask(known).await.is(StatusCode::NOT_MODIFIED);
        assert_eq!((answer.head("etag"), answer.head("cdn-cache-control")), ("\"v1\"", "max-age=60"));
        assert!(answer.body.is_null());
    }
    origin
        .ask(Method::PATCH, &place)
        .by(&ada)
        .json(json!({ "title": "Two" }))
        .send()
        .await
        .is(StatusCode::OK);
    assert_eq!(ask("\"v1\"").await.is(StatusCode::OK).head("etag"), "\"v2\"");
}

async fn a_write_with_if_match_overwrites_only_what_it_names(store: Store) {
    let origin = Origin::start(store).await;
    let ada = origin.person("ada").await;
    let place = format!("{ITEMS}/{}", origin.item(&ada, json!({ "type": "memory", "title": "One" })).await);
    let body = json!({ "type": "memory", "title": "Two" });
    let ask = async |method, tag: &str| {
        origin.ask(method, &place).by(&ada).header("if-match", tag).json(body.clone()).send().await
    };
    for method in [Method::PUT, Method::PATCH, Method::DELETE] {
        for stale in ["\"v0\"", "W/\"v1\"", "garbage", ""] {
            let refused = ask(method.clone(), stale).await;
            refused.refused(StatusCode::PRECONDITION_FAILED, "precondition_failed");
        }
    }
    ask(Method::PUT, "\"v1\"").await.is(StatusCode::OK);
    ask(Method::PATCH, "\"other\", \"v2\"").await.is(StatusCode::OK);
    ask(Method::PUT, "*").await.is(StatusCode::OK);
    ask(Method::DELETE, "\"v3\"").await.is(StatusCode::PRECONDITION_FAILED);
    ask(Method::DELETE, "\"v4\"").await.is(StatusCode::NO_CONTENT);
    for method in [Method::PUT, Method::PATCH, Method::DELETE] {
        ask(method, "*").await.refused(StatusCode::NOT_FOUND, "not_found");
    }
    // Of writers on the same version one wins, and the others are told.
    let place = format!("{ITEMS}/{}", origin.item(&ada, json!({ "type": "memory", "title": "One" })).await);
    let write =
        || origin.ask(Method::PUT, &place).by(&ada).header("if-match", "\"v1\"").json(body.clone()).send();
    let answers = tokio::join!(write(), write(), write());
    let mut statuses = [answers.0.status, answers.1.status, answers.2.status];
    statuses.sort();
    let lost = StatusCode::PRECONDITION_FAILED;
    assert_eq!(statuses, [StatusCode::OK, lost, lost]);
}

async fn a_repeated_post_makes_nothing_twice(store: Store) {
    let origin = Origin::start(store).await;
    let (ada, eve) = (origin.person("ada").await, origin.person("eve").await);
    let post = async |person: &Person, key: &str, title: &str| {
        let item = json!({ "type": "memory", "title": title });
        origin.post(ITEMS).by(person).header("idempotency-key", key).json(item).send().await
    };
    let (one, two, three) =
        tokio::join!(post(&ada, "k1", "One"), post(&ada, "k1", "One"), post(&ada, "k1", "One"));
    let one = one.is(StatusCode::CREATED);
    for again in [two, three, post(&ada, "k1", "One").await] {
        assert_eq!(again.is(StatusCode::CREATED).body, one.body);
    }
    assert_eq!(ids(&origin.get(ITEMS).by(&ada).send().await).len(), 1);
    post(&ada, "k1", "Two").await.refused(StatusCode::UNPROCESSABLE_ENTITY, "key_of_another");
    // A key is its owner's, and a refused body does not use it up.
    assert_ne!(post(&eve, "k1", "One").await.is(StatusCode::CREATED).text("/id"), one.text("/id"));
    post(&ada, "k2", "").await.refused(StatusCode::UNPROCESSABLE_ENTITY, "invalid");
    post(&ada, "k2", "Two").await.is(StatusCode::CREATED);
    // What was removed stays removed.
    let place = format!("{ITEMS}/{}", one.text("/id"));
    origin.ask(Method::DELETE, &place).by(&ada).send().await.is(StatusCode::NO_CONTENT);
    post(&ada, "k1", "One").await.refused(StatusCode::GONE, "gone");
    for key in ["", &"k".repeat(256)] {
        post(&ada, key, "One").await.refused(StatusCode::BAD_REQUEST, "not_a_key");
    }
}

async fn a_batch_is_made_and_removed_whole(store: Store) {
    let origin = Origin::start(store).await;
    let (ada, eve) = (origin.person("ada").await, origin.person("eve").await);
    let batch = format!("{ITEMS}/batch");
    let item = |title: &str| json!({ "type": "memory", "title": title });
    let post = async |items: Value| {
        let ask = origin.post(&batch).by(&ada).header("idempotency-key", "k");
        ask.json(json!({ "items": items })).send().await
    };
    let refused = post(json!([item("One"), { "type": "memory", "x": 1 }, 7])).await;
    let refused = refused.refused(StatusCode::UNPROCESSABLE_ENTITY, "invalid");
    assert_eq!(refused.fields(), ["items[1].title", "items[1].x", "items[2]"]);
    let many: Vec<_> = (0..101).map(|n| item(&n.to_string())).collect();
    for wrong in [json!([]), json!("x"), json!(many)] {
        assert_eq!(
            post(wrong).await.refused(StatusCode::UNPROCESSABLE_ENTITY, "invalid").fields(),
            ["items"]
        );
    }
    assert!(ids(&origin.get(ITEMS).by(&ada).send().await).is_empty());

    let made = post(json!(many[..100])).await.is(StatusCode::CREATED);
    assert_eq!(post(json!(many[..100])).await.is(StatusCode::CREATED).body, made.body, "the same ones");
    let mut newest_first = ids(&origin.get(&format!("{ITEMS}?limit=100")).by(&ada).send().await);
    newest_first.reverse();
    assert_eq!(json!(newest_first), made.body["ids"]);

    let remove = async |person: &Person, ids: &[String]| {
        origin.ask(Method::DELETE, &batch).by(person).json(json!({ "ids": ids })).send().await
    };
    assert_eq!(remove(&eve, &newest_first).await.is(StatusCode::OK).body, json!({ "deleted": 0 }));
    assert_eq!(remove(&ada, &newest_first[..30]).await.is(StatusCode::OK).body, json!({ "deleted": 30 }));
    assert_eq!(ids(&origin.get(&format!("{ITEMS}?limit=100")).by(&ada).send().await).len(), 70);
    assert_eq!(remove(&ada, &["x".into()]).await.is(StatusCode::UNPROCESSABLE_ENTITY).fields(), ["ids"]);
}

fn ids(page: &Answer) -> Vec<String> {
    page.ids("items")
}
