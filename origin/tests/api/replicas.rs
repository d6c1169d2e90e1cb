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

use crate::harness::{Origin, PASSWORD, Person};

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

    async fn like(&self, who: &Person, post: &str) {
        let liked = self.origin.ask(Method::PUT, &format!("/posts/{post}/like")).by(who).send().await;
        liked.is(StatusCode::NO_CONTENT);
    }

    async fn top(&self) -> Vec<String> {
        self.origin.get("/posts/top").send().await.is(StatusCode::OK).ids("posts")
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
    let ada = origin.person("ada").await;
    let post = fleet.post(&ada).await;
    fleet.pause().await;
    fleet.like(&ada, &post).await;
    assert!(fleet.top().await.is_empty(), "nobody waits for the newest top ten: the replica is asked");

    let item = origin.item(&ada, json!({ "type": "memory", "title": "One" })).await;
    assert_eq!(origin.get("/api/vault/items").by(&ada).send().await.ids("items"), [item]);
    assert_eq!(origin.get("/posts").send().await.ids("posts"), [post], "an edge keeps it for everybody");
    // A session that the replica does not know yet, and an account.
    let eve = origin.person("eve").await;
    origin.get("/auth/session").bearer(&eve.token).send().await.is(StatusCode::OK);
    origin.get("/auth/me").by(&eve).send().await.is(StatusCode::OK);
    fleet.resume().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_what_is_somebodys_is_read_from_the_primary() {
    let fleet = Fleet::start("60", None).await;
    let ada = fleet.origin.person("ada").await;
    fleet.pause().await;
    let post = fleet.post(&ada).await;
    fleet.like(&ada, &post).await;
    assert!(fleet.top().await.is_empty());
    assert_eq!(fleet.origin.get("/posts").send().await.ids("posts"), [post]);
    fleet.resume().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_lags_is_left_out_until_it_has_caught_up() {
    let fleet = Fleet::start("1", Some(Redis::start())).await;
    let ada = fleet.origin.person("ada").await;
    fleet.pause().await;
    let post = fleet.post(&ada).await;
    fleet.like(&ada, &post).await;
    fleet.until_asked(false).await;
    assert_eq!(fleet.top().await, [post.clone()]);
    fleet.resume().await;
    fleet.until_asked(true).await;
    assert_eq!(fleet.top().await, [post]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_lost_is_missed_by_nobody_and_comes_back() {
    let fleet = Fleet::start("1", Some(Redis::start())).await;
    let ada = fleet.origin.person("ada").await;
    let post = fleet.post(&ada).await;
    fleet.like(&ada, &post).await;
    fleet.wire.send(false).unwrap();
    // At once, before anybody has noticed.
    for _ in 0..5 {
        assert_eq!(fleet.top().await, [post.clone()]);
        origin_knows(&fleet.origin, &ada).await;
    }
    fleet.until_asked(false).await;
    fleet.wire.send(true).unwrap();
    fleet.until_asked(true).await;
    assert_eq!(fleet.top().await, [post]);
    origin_knows(&fleet.origin, &ada).await;
}

async fn origin_knows(origin: &Origin, person: &Person) {
    origin.get("/auth/session").bearer(&person.token).send().await.is(StatusCode::OK);
    origin.login(&person.email, PASSWORD).await.is(StatusCode::OK);
}
