//! What Redis keeps of reads, and what ends it.

use std::{cell::Cell, time::Duration};

use axum::http::{Method, StatusCode};
use redis::AsyncCommands;
use serde_json::json;
use weir_origin::{
    accounts::{self, kept},
    cache::{Cache, Kind},
    database::Moment,
    posts,
};

use crate::harness::{Origin, Person, Store};

on_both_stores!(
    a_profile_is_kept_until_it_is_written,
    the_top_ten_are_kept_until_one_of_them_changes,
    without_redis_everything_is_right_only_slower,
    what_each_write_races_is_not_kept,
);

const KIND: Kind = Kind { prefix: "test", life: Duration::from_secs(300) };

/// A cache in a Redis of its own, and what the store has.
struct Kept {
    cache: Cache,
    stored: Cell<u32>,
    reads: Cell<u32>,
    redis: redis::aio::MultiplexedConnection,
    _server: weir_testkit::Redis,
}

impl Kept {
    async fn start() -> Self {
        let server = weir_testkit::Redis::start();
        let manager = weir_origin::fleet::Redis::at(&server.url()).unwrap();
        let client = redis::Client::open(server.url()).unwrap();
        let redis = client.get_multiplexed_async_connection().await.unwrap();
        let (stored, reads) = (Cell::new(1), Cell::new(0));
        Self { cache: Cache::new(Some(manager)), stored, reads, redis, _server: server }
    }

    async fn get(&self) -> u32 {
        self.get_while(async {}).await
    }

    /// What is done after the store was read, and before the value is kept.
    async fn get_while(&self, meanwhile: impl Future<Output = ()>) -> u32 {
        let read = async {
            self.reads.set(self.reads.get() + 1);
            let value = self.stored.get();
            meanwhile.await;
            Ok::<_, ()>(Some(value))
        };
        self.cache.get(KIND, "x", read).await.unwrap().unwrap()
    }

    async fn write(&self, value: u32) {
        self.cache.around(&[(KIND, "x")], async { self.stored.set(value) }).await;
    }
}

#[tokio::test]
async fn a_value_is_read_once_until_a_write() {
    let kept = Kept::start().await;
    assert_eq!((kept.get().await, kept.get().await, kept.reads.get()), (1, 1, 1));
    let life: i64 = kept.redis.clone().ttl("test:x").await.unwrap();
    assert!((290..=300).contains(&life), "{life}");
    kept.write(2).await;
    assert_eq!((kept.get().await, kept.get().await, kept.reads.get()), (2, 2, 2));
}

#[tokio::test]
async fn a_fill_that_raced_a_write_is_not_kept() {
    let kept = Kept::start().await;
    // It read the old value, and comes to keep it after the write.
    assert_eq!(kept.get_while(kept.write(2)).await, 1);
    assert_eq!(kept.get().await, 2);
    // Nor when another fill came between the write and it: that one is kept.
    kept.write(3).await;
    let old = kept.get_while(async {
        kept.write(4).await;
        assert_eq!(kept.get().await, 4);
    });
    assert_eq!(old.await, 3);
    let reads = kept.reads.get();
    assert_eq!((kept.get().await, kept.reads.get()), (4, reads));
}

#[tokio::test]
async fn a_read_during_a_write_is_not_kept() {
    let kept = Kept::start().await;
    kept.get().await;
    kept.cache
        .around(&[(KIND, "x")], async {
            // Before the write is done: right, but of the past in a moment.
            assert_eq!(kept.get().await, 1);
            kept.stored.set(2);
        })
        .await;
    assert_eq!(kept.get().await, 2);
}

#[tokio::test]
async fn a_write_that_broke_off_leaves_nothing_stale() {
    let kept = Kept::start().await;
    kept.get().await;
    let broken = kept.cache.around(&[(KIND, "x")], std::future::pending::<()>());
    assert!(tokio::time::timeout(Duration::from_millis(300), broken).await.is_err());
    kept.stored.set(2);
    assert_eq!((kept.get().await, kept.get().await), (2, 2), "asked, not kept");
    let life: i64 = kept.redis.clone().pttl("test:x").await.unwrap();
    assert!((1..=15_000).contains(&life), "and the lease of nobody's ends by itself: {life}");
}

async fn a_profile_is_kept_until_it_is_written(store: Store) {
    let origin = Origin::start_with_redis(store).await;
    let ada = origin.person("ada").await;
    let me = async || origin.get("/auth/me").by(&ada).send().await.is(StatusCode::OK);
    assert_eq!(me().await.body, me().await.body, "kept and read are one");
    let url = origin.redis.as_ref().unwrap().url();
    let mut redis = redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
    let kept: String = redis.get(format!("user:profile:{}", ada.id)).await.unwrap();
    assert!(kept.starts_with('v') && !kept.contains("argon2"), "{kept}");
    let put = origin.ask(Method::PUT, "/users/profile").by(&ada).json(json!({ "displayName": "Ada L." }));
    put.send().await.is(StatusCode::OK);
    assert_eq!(me().await.text("/displayName"), "Ada L.");
    prove(&origin, &ada).await;
    assert!(me().await.body["emailVerifiedAt"].is_string());
    let root = origin.person_with("root", "admin").await;
    let roles = origin.ask(Method::PUT, &format!("/admin/users/{}/roles", ada.id)).by(&root);
    roles.json(json!({ "roles": ["moderator"] })).send().await.is(StatusCode::OK);
    assert_eq!(me().await.body["roles"], json!(["moderator"]));
}

async fn the_top_ten_are_kept_until_one_of_them_changes(store: Store) {
    let origin = Origin::start_with_redis(store).await;
    let ada = origin.person("ada").await;
    let made = origin.post("/posts").by(&ada).json(json!({ "title": "One" })).send().await.text("/id");
    let place = format!("/posts/{made}");
    let like = async || origin.ask(Method::PUT, &format!("{place}/like")).by(&ada).send().await;
    let top = async || origin.get("/posts/top").send().await.is(StatusCode::OK);
    like().await.is(StatusCode::NO_CONTENT);
    let first = top().await;
    assert_eq!(first.body, top().await.body);
    let patch = origin.ask(Method::PATCH, &place).by(&ada).json(json!({ "title": "Two" })).send().await;
    patch.is(StatusCode::OK);
    assert_eq!(top().await.text("/posts/0/title"), "Two");
    origin.ask(Method::DELETE, &place).by(&ada).send().await.is(StatusCode::NO_CONTENT);
    assert!(top().await.ids("posts").is_empty());
}

async fn without_redis_everything_is_right_only_slower(store: Store) {
    let mut origin = Origin::start_with_redis(store).await;
    let ada = origin.person("ada").await;
    origin.get("/auth/me").by(&ada).send().await.is(StatusCode::OK);
    drop(origin.redis.take());
    for name in ["Ada L.", "Countess"] {
        let put = origin.ask(Method::PUT, "/users/profile").by(&ada).json(json!({ "displayName": name }));
        put.send().await.is(StatusCode::OK);
        let me = origin.get("/auth/me").by(&ada).send().await.is(StatusCode::OK);
        assert_eq!(me.text("/displayName"), name);
    }
    origin.get("/posts/top").send().await.is(StatusCode::OK);
    prove(&origin, &ada).await;
    assert_eq!(kept::is_verified(&origin.app, &ada.email).await.unwrap(), Some(true));
    let root = origin.person_with("root", "admin").await;
    let roles = origin.ask(Method::PUT, &format!("/admin/users/{}/roles", ada.id)).by(&root);
    // Sessions that Redis cannot be told of are not called ended; the roles are new all the same.
    let given = roles.json(json!({ "roles": ["admin"] })).send().await;
    given.refused(StatusCode::SERVICE_UNAVAILABLE, "unavailable");
    assert_eq!(kept::roles(&origin.app, ada.id.parse().unwrap()).await.unwrap().unwrap().0, ["admin"]);
}

async fn prove(origin: &Origin, person: &Person) {
    let token = origin.app.verifications.seal(person.id.parse().unwrap(), &person.email, Moment::now());
    origin.post("/auth/verify-email").json(json!({ "token": token })).send().await.is(StatusCode::NO_CONTENT);
}

/// For each kind: a read of the old state that comes to keep it after the request that writes, which must have ended it.
async fn what_each_write_races_is_not_kept(store: Store) {
    let origin = Origin::start_with_redis(store).await;
    let (app, db) = (&origin.app, &origin.app.database);
    let (root, ada) = (origin.person_with("root", "admin").await, origin.person("ada").await);
    let id = ada.id.parse().unwrap();
    let made = origin.post("/posts").by(&ada).json(json!({ "title": "One" })).send().await.text("/id");
    origin.ask(Method::PUT, &format!("/posts/{made}/like")).by(&ada).send().await.is(StatusCode::NO_CONTENT);
    let put = async |path: &str, by: &Person, body: serde_json::Value| {
        origin.ask(Method::PUT, path).by(by).json(body).send().await.is(StatusCode::OK);
    };

    let fill = app.cache.get(accounts::CACHED, &ada.id, async {
        let old = accounts::sql::find(db, id).await;
        put("/users/profile", &ada, json!({ "displayName": "Ada L." })).await;
        old
    });
    assert_eq!(fill.await.unwrap().unwrap().profile.display_name, "");
    assert_eq!(origin.get("/auth/me").by(&ada).send().await.text("/displayName"), "Ada L.");

    let fill = app.cache.get(kept::ROLES, &ada.id, async {
        let old = accounts::sql::roles(db, id).await;
        put(&format!("/admin/users/{id}/roles"), &root, json!({ "roles": ["moderator"] })).await;
        old
    });
    assert_eq!(fill.await.unwrap().unwrap().0, ["user"]);
    assert_eq!(kept::roles(app, id).await.unwrap().unwrap().0, ["moderator"]);

    let fill = app.cache.get(kept::VERIFIED, &ada.email, async {
        let old = accounts::sql::is_verified(db, &ada.email).await;
        prove(&origin, &ada).await;
        old
    });
    assert_eq!(fill.await.unwrap(), Some(false));
    assert_eq!(kept::is_verified(app, &ada.email).await.unwrap(), Some(true));

    let long_ago = Moment::from_microseconds(0).unwrap();
    let fill = app.cache.get(posts::CACHED, "top", async {
        let old = posts::sql::top(db, long_ago, 10).await.map(Some);
        let patch = origin.ask(Method::PATCH, &format!("/posts/{made}")).by(&ada);
        patch.json(json!({ "title": "Two" })).send().await.is(StatusCode::OK);
        old
    });
    assert_eq!(fill.await.unwrap().unwrap().len(), 1);
    assert_eq!(origin.get("/posts/top").send().await.text("/posts/0/title"), "Two");
}
