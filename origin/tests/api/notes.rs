//! Notes.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Answer, Origin, Person, Store};

const NOTES: &str = "/api/notes";

on_both_stores!(
    a_note_is_stored_changed_and_removed,
    the_list_shows_lines_newest_change_first,
    filters_and_places_narrow_the_list,
    a_note_is_in_one_place,
    many_notes_are_marked_at_once,
    a_note_is_its_owners_alone,
    a_write_with_if_match_overwrites_only_what_it_names,
    a_repeated_post_makes_nothing_twice,
);

async fn make(origin: &Origin, owner: &Person, note: Value) -> String {
    origin.post(NOTES).by(owner).json(note).send().await.is(StatusCode::CREATED).text("/id")
}

async fn list(origin: &Origin, owner: &Person, query: &str) -> Answer {
    origin.get(&format!("{NOTES}{query}")).by(owner).send().await.is(StatusCode::OK)
}

async fn a_note_is_stored_changed_and_removed(store: Store) {
    let origin = Origin::start(store).await;
    let ada = origin.person("ada").await;
    let note = json!({ "title": "To do", "content": "All", "isPinned": true, "isFavourite": true });
    let made = origin.post(NOTES).by(&ada).json(note.clone()).send().await.is(StatusCode::CREATED);
    let place = made.head("location").to_owned();
    let read = origin.get(&place).by(&ada).send().await.is(StatusCode::OK);
    assert_eq!(read.body, made.body, "what was answered first is what is stored");
    for (name, value) in note.as_object().unwrap() {
        assert_eq!(read.body[name], *value, "{name}");
    }
    assert_eq!((&read.body["isArchived"], &read.body["isTrashed"]), (&json!(false), &json!(false)));
    let known = origin.get(&place).by(&ada).header("if-none-match", "\"v1\"").send().await;
    known.is(StatusCode::NOT_MODIFIED);

    let patch = origin.ask(Method::PATCH, &place).by(&ada).json(json!({ "title": "Done" })).send().await;
    let patched = patch.is(StatusCode::OK);
    assert_eq!((&patched.body["title"], &patched.body["content"]), (&json!("Done"), &json!("All")));
    assert_eq!((&patched.body["isPinned"], patched.head("etag")), (&json!(true), "\"v2\""));
    let refused =
        origin.ask(Method::PATCH, &place).by(&ada).json(json!({ "title": null, "x": 1 })).send().await;
    assert_eq!(refused.refused(StatusCode::UNPROCESSABLE_ENTITY, "invalid").fields(), ["title", "x"]);

    origin.ask(Method::DELETE, &place).by(&ada).send().await.is(StatusCode::NO_CONTENT);
    origin.get(&place).by(&ada).send().await.refused(StatusCode::NOT_FOUND, "not_found");
}

async fn the_list_shows_lines_newest_change_first(store: Store) {
    let origin = Origin::start(store).await;
    let ada = origin.person("ada").await;
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(make(&origin, &ada, json!({ "title": n.to_string(), "content": "long" })).await);
    }
    origin
        .ask(Method::PATCH, &format!("{NOTES}/{}", ids[0]))
        .by(&ada)
        .json(json!({ "content": "x" }))
        .send()
        .await;
    ids.rotate_left(1);
    ids.reverse();
    let page = list(&origin, &ada, "?limit=2").await;
    let mut line: Vec<_> = page.body["notes"][0].as_object().unwrap().keys().collect();
    line.sort();
    assert_eq!(line, ["id", "isPinned", "title", "updatedAt"]);
    // One more in between changes nothing behind the cursor.
    make(&origin, &ada, json!({ "title": "new" })).await;
    let second = list(&origin, &ada, &format!("?limit=2&cursor={}", page.text("/nextCursor"))).await;
    let third = list(&origin, &ada, &format!("?cursor={}", second.text("/nextCursor"))).await;
    assert_eq!([page.ids("notes"), second.ids("notes"), third.ids("notes")].concat(), ids);
    assert!(third.body["nextCursor"].is_null());
    let foreign = format!("{NOTES}?pinned=true&cursor={}", page.text("/nextCursor"));
    origin.get(&foreign).by(&ada).send().await.refused(StatusCode::BAD_REQUEST, "invalid_query");
}

async fn filters_and_places_narrow_the_list(store: Store) {
    let origin = Origin::start(store).await;
    let ada = origin.person("ada").await;
    let plain = make(&origin, &ada, json!({ "title": "plain" })).await;
    let pinned = make(&origin, &ada, json!({ "title": "p", "isPinned": true })).await;
    let dear = make(&origin, &ada, json!({ "title": "f", "isFavourite": true, "isPinned": true })).await;
    let archived = make(&origin, &ada, json!({ "title": "a", "isArchived": true, "isPinned": true })).await;
    let trashed = make(&origin, &ada, json!({ "title": "t", "isTrashed": true })).await;
    for (query, wanted) in [
        ("", vec![&dear, &pinned, &plain]),
        ("?pinned=true", vec![&dear, &pinned]),
        ("?pinned=false", vec![&plain]),
        ("?favourite=true", vec![&dear]),
        ("?favourite=false&pinned=true", vec![&pinned]),
        ("?archived=true", vec![&archived]),
        ("?archived=true&pinned=true", vec![&archived]),
        ("?trashed=true", vec![&trashed]),
        ("?trashed=true&archived=true", vec![]),
        ("?archived=false&trashed=false", vec![&dear, &pinned, &plain]),
    ] {
        let wanted: Vec<_> = wanted.into_iter().cloned().collect();
        assert_eq!(list(&origin, &ada, query).await.ids("notes"), wanted, "{query}");
    }
    let refused = origin.get(&format!("{NOTES}?pinned=1&view=x")).by(&ada).send().await;
    assert_eq!(refused.refused(StatusCode::BAD_REQUEST, "invalid_query").fields(), ["pinned", "view"]);
}

async fn a_note_is_in_one_place(store: Store) {
    let origin = Origin::start(store).await;
    let ada = origin.person("ada").await;
    let place = format!("{NOTES}/{}", make(&origin, &ada, json!({ "title": "n", "isArchived": true })).await);
    let patch = async |body: Value| origin.ask(Method::PATCH, &place).by(&ada).json(body).send().await;
    for (body, archived, trashed) in [
        (json!({ "isTrashed": true }), false, true),
        (json!({ "isArchived": true }), true, false),
        (json!({ "title": "m" }), true, false),
        (json!({ "isArchived": false }), false, false),
    ] {
        let note = patch(body).await.is(StatusCode::OK).body;
        assert_eq!((&note["isArchived"], &note["isTrashed"]), (&json!(archived), &json!(trashed)));
    }
    let both = patch(json!({ "isArchived": true, "isTrashed": true })).await;
    assert_eq!(both.refused(StatusCode::UNPROCESSABLE_ENTITY, "invalid").fields(), ["isTrashed"]);
}

async fn many_notes_are_marked_at_once(store: Store) {
    let origin = Origin::start(store).await;
    let (ada, eve) = (origin.person("ada").await, origin.person("eve").await);
    let mut ids = Vec::new();
    for n in 0..3 {
        ids.push(make(&origin, &ada, json!({ "title": n.to_string() })).await);
    }
    let mark =
        async |who: &Person, body: Value| origin.ask(Method::PATCH, NOTES).by(who).json(body).send().await;
    let two = json!([ids[0], ids[1], ids[1], uuid::Uuid::now_v7()]);
    let done = mark(&eve, json!({ "ids": two, "isArchived": true })).await.is(StatusCode::OK);
    assert_eq!(done.body, json!({ "changed": 0 }), "they are not hers");
    let done = mark(&ada, json!({ "ids": two, "isArchived": true })).await.is(StatusCode::OK);
    assert_eq!(done.body, json!({ "changed": 2 }));
    assert_eq!(list(&origin, &ada, "").await.ids("notes"), [&*ids[2]]);
    assert_eq!(list(&origin, &ada, "?archived=true").await.ids("notes").len(), 2);
    mark(&ada, json!({ "ids": two, "isTrashed": true, "isPinned": true })).await.is(StatusCode::OK);
    assert!(list(&origin, &ada, "?archived=true").await.ids("notes").is_empty());
    assert_eq!(list(&origin, &ada, "?trashed=true&pinned=true").await.ids("notes").len(), 2);
    let read = origin.get(&format!("{NOTES}/{}", ids[0])).by(&ada).send().await;
    assert_eq!(read.head("etag"), "\"v3\"", "each mark is a write");

    let many: Vec<_> = (0..101).map(|_| uuid::Uuid::now_v7()).collect();
    for (wrong, field) in [
        (json!({ "ids": many }), "ids"),
        (json!({ "ids": [] }), "ids"),
        (json!({ "isPinned": true }), "ids"),
        (json!({ "ids": two, "isArchived": true, "isTrashed": true }), "isTrashed"),
        (json!({ "ids": two, "isArchived": "perhaps" }), "isArchived"),
    ] {
        let refused = mark(&ada, wrong).await.refused(StatusCode::UNPROCESSABLE_ENTITY, "invalid");
        assert_eq!(refused.fields(), [field]);
    }
}

async fn a_note_is_its_owners_alone(store: Store) {
    let origin = Origin::start(store).await;
    let (ada, eve) = (origin.person("ada").await, origin.person("eve").await);
    let place = format!("{NOTES}/{}", make(&origin, &ada, json!({ "title": "Mine" })).await);
    for method in [Method::GET, Method::PATCH, Method::DELETE] {
        let touched = origin.ask(method, &place).by(&eve).json(json!({ "title": "Theirs" })).send().await;
        touched.refused(StatusCode::NOT_FOUND, "not_found");
    }
    assert!(list(&origin, &eve, "").await.ids("notes").is_empty());
    origin.get(NOTES).send().await.refused(StatusCode::UNAUTHORIZED, "unauthenticated");
    let read = origin.get(&place).by(&ada).send().await.is(StatusCode::OK);
    assert_eq!((read.text("/title"), read.head("cache-control")), ("Mine".into(), "no-store"));
}

async fn a_write_with_if_match_overwrites_only_what_it_names(store: Store) {
    let origin = Origin::start(store).await;
    let ada = origin.person("ada").await;
    let place = format!("{NOTES}/{}", make(&origin, &ada, json!({ "title": "One" })).await);
    let ask = async |method, tag: &str| {
        origin
            .ask(method, &place)
            .by(&ada)
            .header("if-match", tag)
            .json(json!({ "title": "Two" }))
            .send()
            .await
    };
    ask(Method::PATCH, "\"v2\"").await.refused(StatusCode::PRECONDITION_FAILED, "precondition_failed");
    ask(Method::PATCH, "\"v1\"").await.is(StatusCode::OK);
    ask(Method::DELETE, "\"v1\"").await.refused(StatusCode::PRECONDITION_FAILED, "precondition_failed");
    ask(Method::DELETE, "\"v2\"").await.is(StatusCode::NO_CONTENT);
    ask(Method::DELETE, "\"v2\"").await.refused(StatusCode::NOT_FOUND, "not_found");
}

async fn a_repeated_post_makes_nothing_twice(store: Store) {
    let origin = Origin::start(store).await;
    let ada = origin.person("ada").await;
    let post = async |title: &str| {
        let ask = origin.post(NOTES).by(&ada).header("idempotency-key", "k");
        ask.json(json!({ "title": title })).send().await
    };
    let made = post("One").await.is(StatusCode::CREATED);
    assert_eq!(post("One").await.is(StatusCode::CREATED).body, made.body);
    post("Two").await.refused(StatusCode::UNPROCESSABLE_ENTITY, "key_of_another");
    assert_eq!(list(&origin, &ada, "").await.ids("notes").len(), 1);
}
