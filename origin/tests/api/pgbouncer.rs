//! What is Postgres's alone, through a PgBouncer that pools transactions; the API as a whole is asked through it by every other file.

use axum::http::StatusCode;
use sqlx::{PgPool, postgres::PgPoolOptions};
use tokio::task::JoinSet;
use weir_origin::app::App;
use weir_testkit::PgBouncer;

use crate::harness::{Origin, POSTGRES, Store, config};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_that_start_at_once_take_turns_to_migrate() {
    let bouncer = PgBouncer::start(&POSTGRES, 3);
    let url = POSTGRES.create_database();
    let through = bouncer.here(&url);
    let mut starts = JoinSet::new();
    for n in 0..3 {
        let config = config(&["--database-url", &through, "--pgbouncer"]);
        starts.spawn(async move { App::start(&config, &format!("origin-{n}")).await.map(drop) });
    }
    while let Some(started) = starts.join_next().await {
        started.unwrap().unwrap();
    }
    // Nothing stays that the next transaction on the same server could stumble over.
    let server = PgPoolOptions::new().max_connections(1).connect(&url).await.unwrap();
    assert_eq!(locks(&server).await, 0);
}

/// Advisory locks that anybody holds in this database.
async fn locks(server: &PgPool) -> i64 {
    let count = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database =
        (SELECT oid FROM pg_database WHERE datname = current_database())";
    sqlx::query_scalar(count).fetch_one(server).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_requests_share_few_servers() {
    let origin = Origin::start(Store::PgBouncer).await;
    let ada = origin.person("ada").await;
    let mut ids = Vec::new();
    for round in 0..5 {
        let posts = (0..20).map(|n| {
            let item = serde_json::json!({ "type": "note", "title": format!("{round} {n}"), "content": "x" });
            origin.item(&ada, item)
        });
        ids.extend(futures_util::future::join_all(posts).await);
    }
    let reads = ids.iter().map(|id| origin.get(&format!("/api/vault/items/{id}")).by(&ada).send());
    for read in futures_util::future::join_all(reads).await {
        read.is(StatusCode::OK);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_gets_no_server_in_time_is_told_to_come_again() {
    let bouncer = PgBouncer::start(&POSTGRES, 1);
    let through = bouncer.here(&POSTGRES.create_database());
    let origin = Origin::start_on(through, None, tempfile::tempdir().unwrap(), &["--pgbouncer"]).await;
    let ada = origin.person("ada").await;
    let weir_origin::database::Database::Postgres(pool) = &origin.app.database else {
        unreachable!("a Postgres URL")
    };
    let held = pool.begin().await.unwrap();
    let refused = origin.get("/api/vault/items").by(&ada).send().await;
    assert_eq!(refused.refused(StatusCode::SERVICE_UNAVAILABLE, "unavailable").head("retry-after"), "1");
    drop(held);
    origin.get("/api/vault/items").by(&ada).send().await.is(StatusCode::OK);
}
