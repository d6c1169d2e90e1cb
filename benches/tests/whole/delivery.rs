//! A worker delivers an item while an edge keeps the list that it stands in.

use std::{
    path::PathBuf,
    process::Command,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use weir_benches::{
    account::Account,
    api,
    client::{Answer, Ask, Client},
    system::{Setup, System, listening, program},
    tally::CacheWord,
};
use weir_testkit::{Child, Postgres, Redis};

use crate::{arrive, ask, repository, until};

fn worker(origin: &PathBuf, database: &str, redis: &Redis, further: &[&str]) -> Child {
    let mut command = Command::new(origin);
    command.args(["worker", "--listen", "127.0.0.1:0", "--database-url", database]);
    command.args(["--redis-url", &redis.url()]).args(further);
    command.env("WEIR_IDENTITY_SECRET", "a test's secret of more than thirty-two bytes");
    listening("worker", command, TempDir::new().unwrap()).unwrap().0
}

/// An item that is due in five seconds.
fn letter(title: &str) -> Ask {
    let due = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(5);
    let due = jiff::Timestamp::from_second(due.as_secs().try_into().unwrap()).unwrap();
    Ask::new(http::Method::POST, "/api/vault/items")
        .with_body(json!({ "type": "letter", "title": title, "scheduledDelivery": due.to_string() }))
}

fn is_delivered(item: &Value) -> bool {
    item["deliveredAt"].is_string()
}

fn is_hit(answer: &Answer) -> bool {
    CacheWord::of(answer.field("cache-status")) == CacheWord::Hit
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_an_edge_keeps_shows_what_was_delivered_as_soon_as_a_worker_tells() {
    let (redis, postgres) = (Redis::start(), Postgres::start());
    let database = postgres.create_database();
    let origin = program(None, "weir-origin").unwrap();
    let setup = Setup {
        weir: program(None, "weir").unwrap(),
        origin: origin.clone(),
        config: repository().join("config.yaml"),
        database: Some(database.clone()),
        redis: Some(redis.url()),
        port: None,
        variables: vec![("API_RATE", "1000/s".into())],
    };
    let system = System::start(&setup).unwrap();
    let mut client = Client::new(None, system.edge);
    let account = Account::new(1, "ada@example.org".into(), "a weir holds".into());
    let token = arrive(&mut client, &account).await;
    let list = api::list(None).with_token(&token);

    // One that tells others, or nobody: the list is as old as it may be, which is a minute.
    let elsewhere = worker(&origin, &database, &redis, &["--edge-prefix", "elsewhere:"]);
    let made = ask(&mut client, &letter("first").with_token(&token)).await;
    let id = made.json()["id"].as_str().unwrap().to_owned();
    assert!(!is_delivered(&ask(&mut client, &list).await.json()["items"][0]));
    until("it is delivered", async || elsewhere.output().contains("items delivered")).await;
    let one = ask(&mut client, &api::item(&id).with_token(&token)).await;
    assert!(is_delivered(&one.json()), "{}", one.json());
    let kept = ask(&mut client, &list).await;
    assert!(is_hit(&kept) && !is_delivered(&kept.json()["items"][0]), "{}", kept.json());
    drop(elsewhere);

    let _worker = worker(&origin, &database, &redis, &[]);
    let made = ask(&mut client, &letter("second").with_token(&token)).await;
    assert_eq!(made.status, 201, "{}", made.json());
    until("the list is kept, and from before", async || {
        let kept = ask(&mut client, &list).await;
        assert!(!is_delivered(&kept.json()["items"][0]), "{}", kept.json());
        is_hit(&kept)
    })
    .await;
    // Within half a minute: longer it would be kept by itself.
    until("it is fresh", async || is_delivered(&ask(&mut client, &list).await.json()["items"][0])).await;
}
