//! Against real servers.
#![allow(clippy::unwrap_used, reason = "a test's panic is its report")]

use std::{net::TcpListener, time::Duration};

use redis::AsyncCommands as _;

use super::*;

/// As a plan describes it.
fn redis(words: &str) -> Redis {
    let text = format!(
        "listeners: [127.0.0.1:1]\nupstreams: {{ o: {{ servers: [127.0.0.1:2] }} }}\nroutes: [{{ to: o }}]\n\
         redis: {{ {words} }}\n"
    );
    let loaded = weir_config::load("t", &text, &|_: &str| None).unwrap_or_else(|report| panic!("{report}"));
    Redis::new(&loaded.plan.redis.unwrap()).unwrap()
}

#[tokio::test]
async fn a_redis_that_is_silent_is_left_alone_after_three_deadlines() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut redis = redis(&format!("url: 'redis://{}', timeout: 50ms", silent.local_addr().unwrap()));
    for _ in 0..3 {
        let late = redis.get::<_, Option<String>>("k").await.unwrap_err();
        assert!(late.to_string().contains("within 50ms"), "{late}");
    }
    let asked = Instant::now();
    let rests = redis.get::<_, Option<String>>("k").await.unwrap_err();
    assert!(rests.to_string().contains("left alone"), "{rests}");
    assert!(asked.elapsed() < Duration::from_millis(50), "nobody waits for it");
}

#[tokio::test]
async fn a_redis_that_was_paused_or_killed_is_used_again() {
    let server = weir_testkit::Redis::start();
    let mut redis = redis(&format!("url: '{}', timeout: 100ms", server.url()));
    let () = redis.set("k", "v").await.unwrap();
    server.child().signal("STOP");
    for _ in 0..5 {
        redis.get::<_, Option<String>>("k").await.unwrap_err();
    }
    server.child().signal("CONT");
    let again = Instant::now();
    while redis.get::<_, Option<String>>("k").await.ok().flatten().as_deref() != Some("v") {
        assert!(again.elapsed() < Duration::from_secs(20), "it is back");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_question_is_no_outage() {
    let server = weir_testkit::Redis::start();
    let mut redis = redis(&format!("url: '{}', timeout: 5s", server.url()));
    let () = redis.rpush("list", "item").await.unwrap();
    for _ in 0..5 {
        let wrong = redis.get::<_, Option<String>>("list").await.unwrap_err();
        assert_eq!(wrong.code(), Some("WRONGTYPE"));
    }
    let script = redis::Script::new("return redis.call('LLEN', KEYS[1])");
    assert_eq!(script.key("list").invoke_async::<i64>(&mut redis).await.unwrap(), 1);
}
