//! Reads on a real streaming replica that lags, dies, and comes back.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use serde_json::json;
use sqlx::PgPool;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{Instant, sleep},
};
use weir_origin::database::Scope;
use weir_testkit::{Postgres, READY_WITHIN, Redis};

use crate::harness::{Origin, Person};

/// A primary, its replica behind a wire that can be cut, and an origin that may ask both.
struct Fleet {
    origin: Origin,
    /// The replica, asked directly.
    replica: PgPool,
    wire: watch::Sender<bool>,
    _servers: (Postgres, Postgres),
}

impl Fleet {
    async fn start(lag: &str, redis: Option<Redis>) -> Self {
        let primary = Postgres::start();
        let url = primary.create_database();
        let replica = primary.replica();
        let (wire, port) = wire(replica.port()).await;
        let through = replica.here(&url).replace(&replica.port().to_string(), &port.to_string());
        let further = ["--replica-url", &through, "--replica-lag", lag];
        let origin = Origin::start_on(url.clone(), redis, tempfile::tempdir().unwrap(), &further).await;
        let replica_pool = PgPool::connect(&replica.here(&url)).await.unwrap();
        let fleet = Self { origin, replica: replica_pool, wire, _servers: (primary, replica) };
        fleet.until_asked(true).await;
        fleet
    }

    /// The replica goes on receiving, and shows nothing of it.
    async fn pause(&self) {
        sqlx::query("SELECT pg_wal_replay_pause()").execute(&self.replica).await.unwrap();
    }

    async fn resume(&self) {
        sqlx::query("SELECT pg_wal_replay_resume()").execute(&self.replica).await.unwrap();
    }

    async fn until_asked(&self, asked: bool) {
        let started = Instant::now();
        while self.origin.app.replicas.reader(Scope::Nobody).await.is_some() != asked {
            assert!(started.elapsed() < READY_WITHIN, "the replica is asked: {}", !asked);
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn post(&self, author: &Person) -> String {
        let made = self.origin.post("/posts").by(author).json(json!({ "title": "One" })).send().await;
        made.is(StatusCode::CREATED).text("/id")
    }

    /// Whom an administrator sees who has written nothing: of the replica, if it is asked.
    async fn users(&self, admin: &Person) -> Vec<String> {
        self.origin.get("/admin/users").by(admin).send().await.is(StatusCode::OK).ids("users")
    }

    /// Waits until the replica shows what it was sent.
    async fn until_shown(&self, admin: &Person) {
        let started = Instant::now();
        let id: uuid::Uuid = admin.id.parse().unwrap();
        let shown = || {
            let known = sqlx::query("SELECT 1 FROM users WHERE id = $1 AND 'admin' = ANY(roles)").bind(id);
            known.fetch_optional(&self.replica)
        };
        while shown().await.unwrap().is_none() {
            assert!(started.elapsed() < READY_WITHIN, "the replica shows what is written");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Forwards to `port` while it is whole, and cuts every connection when it is not.
async fn wire(port: u16) -> (watch::Sender<bool>, u16) {
    let (whole, state) = watch::channel(true);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut state = state.clone();
            tokio::spawn(async move {
                if !*state.borrow_and_update() {
                    return;
                }
                let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
                tokio::select! {
                    _ = copy_bidirectional(&mut client, &mut server) => {}
                    _ = state.changed() => {}
                }
            });
        }
    });
    (whole, here)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_wrote_reads_it_while_others_read_the_replica() {
    let fleet = Fleet::start("60", Some(Redis::start())).await;
    let origin = &fleet.origin;
    let root = origin.person_with("root", "admin").await;
    fleet.until_shown(&root).await;
    fleet.pause().await;
    let ada = origin.person("ada").await;
    assert_eq!(fleet.users(&root).await, [&*root.id], "the replica is asked");

    let post = fleet.post(&ada).await;
    let item = origin.item(&ada, json!({ "type": "memory", "title": "One" })).await;
    assert_eq!(origin.get("/api/vault/items").by(&ada).send().await.ids("items"), [item]);
    assert_eq!(origin.get("/posts").send().await.ids("posts"), [post], "an edge keeps it for everybody");
    // A session that the replica does not know yet, and an account.
    origin.get("/auth/session").bearer(&ada.token).send().await.is(StatusCode::OK);
    origin.get("/auth/me").by(&ada).send().await.is(StatusCode::OK);
    origin.ask(Method::PUT, "/users/profile").by(&root).json(json!({ "displayName": "R" })).send().await;
    assert_eq!(fleet.users(&root).await, [&*ada.id, &*root.id], "who wrote reads the primary");
    fleet.resume().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_what_is_somebodys_is_read_from_the_primary() {
    let fleet = Fleet::start("60", None).await;
    let root = fleet.origin.person_with("root", "admin").await;
    fleet.until_shown(&root).await;
    fleet.pause().await;
    let ada = fleet.origin.person("ada").await;
    assert_eq!(fleet.users(&root).await, [&*ada.id, &*root.id]);
    fleet.resume().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_lags_is_left_out_until_it_has_caught_up() {
    let fleet = Fleet::start("1", Some(Redis::start())).await;
    let root = fleet.origin.person_with("root", "admin").await;
    fleet.until_shown(&root).await;
    fleet.pause().await;
    let ada = fleet.origin.person("ada").await;
    fleet.until_asked(false).await;
    assert_eq!(fleet.users(&root).await, [&*ada.id, &*root.id]);
    fleet.resume().await;
    fleet.until_asked(true).await;
    assert_eq!(fleet.users(&root).await, [&*ada.id, &*root.id]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_lost_is_missed_by_nobody_and_comes_back() {
    let fleet = Fleet::start("1", Some(Redis::start())).await;
    let root = fleet.origin.person_with("root", "admin").await;
    fleet.until_shown(&root).await;
    assert_eq!(fleet.users(&root).await, [&*root.id]);
    fleet.wire.send(false).unwrap();
    // At once, before anybody has noticed.
    for _ in 0..5 {
        assert_eq!(fleet.users(&root).await, [&*root.id]);
        fleet.origin.get("/auth/session").bearer(&root.token).send().await.is(StatusCode::OK);
    }
    fleet.until_asked(false).await;
    let health = fleet.origin.get("/health").send().await.is(StatusCode::OK);
    assert_eq!(
        (&health.body["status"], &health.body["checks"]["replica"]),
        (&json!("degraded"), &json!("failed"))
    );
    fleet.wire.send(true).unwrap();
    fleet.until_asked(true).await;
    assert_eq!(fleet.users(&root).await, [&*root.id]);
}
