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

/// Until `redis` has this under `k`.
async fn until_known(redis: &mut Redis, key: &str, value: &str) {
    let asked = Instant::now();
    while redis.get::<_, Option<String>>(key).await.ok().flatten().as_deref() != Some(value) {
        assert!(asked.elapsed() < Duration::from_secs(60), "{key} is {value} again");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What pushes say.
type Heard = Arc<Mutex<Vec<String>>>;

fn listening() -> (Arc<dyn redis::aio::AsyncPushSender>, Heard) {
    let heard = Heard::default();
    let into = Arc::clone(&heard);
    let hear = move |push: redis::PushInfo| {
        into.lock().push(format!("{push:?}"));
        Ok::<_, redis::aio::SendError>(())
    };
    (Arc::new(hear), heard)
}

#[tokio::test]
async fn in_a_cluster_every_key_finds_its_owner_and_a_dead_master_only_its_own_miss() {
    let cluster = weir_testkit::RedisCluster::start();
    let mut redis = redis(&format!("cluster: {}, timeout: 2s", cluster.addresses()));
    let keys: Vec<_> = (0..60).map(|number| format!("key:{number}")).collect();
    let script = redis::Script::new("return redis.call('SET', KEYS[1], ARGV[1])");
    for key in &keys {
        script.key(key).arg("v").invoke_async::<()>(&mut redis).await.unwrap();
    }
    redis::cmd("PING").query_async::<()>(&mut redis).await.unwrap();
    let (hear, heard) = listening();
    let mut listener = redis.listen(hear.clone()).await.unwrap();
    listener
        .tell(redis::cmd("CLIENT").arg("TRACKING").arg("ON").arg("BCAST").arg("PREFIX").arg("key:"))
        .await
        .unwrap();
    for key in &keys {
        let both = redis::pipe().set(key, "w").cmd("WAIT").arg(1).arg(1500).query_async(&mut redis).await;
        assert_eq!(both, Ok(("OK".to_owned(), 1)), "its replica has it");
    }
    listener.beat().await.unwrap();
    let told = heard.lock().join(" ");
    assert!(keys.iter().all(|key| told.contains(&format!("\"{key}\""))), "every master is heard: {told}");

    cluster.nodes()[0].child().signal("KILL");
    let is_lost = |key: &String| Slot::of(key.as_bytes()).number() <= 5460;
    for key in keys.iter().filter(|key| !is_lost(key)) {
        assert_eq!(redis.get::<_, String>(key).await.unwrap(), "w", "its master lives");
    }
    assert!(listener.beat().await.is_err(), "one that is not heard is enough");
    for key in keys.iter().filter(|key| is_lost(key)) {
        until_known(&mut redis, key, "w").await;
    }
    let again = Instant::now();
    while redis.listen(hear.clone()).await.is_err() {
        assert!(again.elapsed() < Duration::from_secs(60), "the new master is heard");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_key_is_found_while_its_slot_moves() {
    let cluster = weir_testkit::RedisCluster::start();
    let mut redis = redis(&format!("cluster: {}, timeout: 5s", cluster.addresses()));
    let slot = Slot::of(b"key").number();
    let from = &cluster.nodes()[usize::from(slot / 5461)];
    let to = &cluster.nodes()[(usize::from(slot / 5461) + 1) % 3];
    let (slot, [from_id, to_id]) = (slot.to_string(), [from, to].map(|node| node.ask(&["CLUSTER", "MYID"])));
    let () = redis.set("key", "1").await.unwrap();
    assert_eq!(to.ask(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]), "OK");
    assert_eq!(from.ask(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]), "OK");
    assert_eq!(redis.get::<_, String>("key").await.unwrap(), "1");
    let port = to.address().port().to_string();
    assert_eq!(from.ask(&["MIGRATE", "127.0.0.1", &port, "key", "0", "5000"]), "OK");
    assert_eq!(redis.get::<_, String>("key").await.unwrap(), "1", "it is asked for where it went");
    let both: (String, i64) = redis::pipe().get("key").pttl("key").query_async(&mut redis).await.unwrap();
    assert_eq!(both, ("1".to_owned(), -1));
    let mut listener = redis.listen(listening().0).await.unwrap();
    listener.beat().await.unwrap();
    for node in &cluster.nodes()[..3] {
        assert_eq!(node.ask(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]), "OK");
    }
    assert!(listener.beat().await.is_err(), "who owns what has changed");
    for _ in 0..3 {
        assert_eq!(redis.get::<_, String>("key").await.unwrap(), "1");
    }
    let () = redis.set("key", "2").await.unwrap();
    assert_eq!(to.ask(&["GET", "key"]), "2");
}

#[tokio::test]
async fn sentinels_lead_to_the_new_master_after_one_died_or_hung() {
    let sentinels = weir_testkit::RedisSentinels::start();
    let words = format!("sentinel: {{ master: weir, nodes: {} }}, timeout: 2s", sentinels.addresses());
    let mut redis = redis(&words);
    let mut written: (i64, i64) = redis::pipe()
        .cmd("INCR")
        .arg("k")
        .cmd("WAIT")
        .arg(1)
        .arg(1500)
        .query_async(&mut redis)
        .await
        .unwrap();
    assert_eq!(written, (1, 1));
    let mut listener = redis.listen(listening().0).await.unwrap();
    listener.beat().await.unwrap();
    // One that hangs still has its connections.
    sentinels.master.child().signal("STOP");
    assert!(listener.beat().await.is_err());
    until_known(&mut redis, "k", "1").await;
    let asked = Instant::now();
    while written.0 < 2 {
        assert!(asked.elapsed() < Duration::from_secs(60), "somebody takes writes");
        if let Ok(count) = redis::cmd("INCR").arg("k").query_async(&mut redis).await {
            written.0 = count;
        }
    }
    assert_eq!(sentinels.replica.ask(&["GET", "k"]), "2");
    redis.listen(listening().0).await.unwrap().beat().await.unwrap();
}

#[tokio::test]
async fn over_tls_a_user_with_the_least_rights_may_all_that_an_edge_does() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(file("cert.pem"), own.cert.pem()).unwrap();
    std::fs::write(file("key.pem"), own.signing_key.serialize_pem()).unwrap();
    let port = weir_testkit::free_port().to_string();
    let (cert, key) = (file("cert.pem"), file("key.pem"));
    let server = weir_testkit::Redis::start_with(&[
        "--tls-port",
        &port,
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &cert,
    ]);
    // The line that config.yaml tells operators.
    let manual = include_str!("../../../config.yaml");
    let line = manual.lines().skip_while(|line| !line.contains("ACL SETUSER")).take(2);
    let line: String = line.map(|line| line.trim().trim_start_matches('#').to_owned() + " ").collect();
    let words: Vec<_> = line.split_whitespace().map(|word| if word == ">…" { ">pw" } else { word }).collect();
    assert_eq!(server.ask(&words), "OK", "{words:?}");
    let words = |password: &str, ca: &str| {
        format!(
            "url: 'rediss://localhost:{port}', tls: {{ ca: {ca}, certificate: {cert}, key: {key} }}, username: weir, password: {password}, timeout: 5s"
        )
    };
    let mut known = redis(&words("pw", &cert));
    let (json, left): (Option<String>, i64) =
        redis::pipe().get("session:t").pttl("session:t").query_async(&mut known).await.unwrap();
    assert_eq!((json, left), (None, -2));
    redis::cmd("PING").query_async::<()>(&mut known).await.unwrap();
    let mut listener = known.listen(listening().0).await.unwrap();
    let tracking =
        redis::cmd("CLIENT").arg("TRACKING").arg("ON").arg("BCAST").arg("PREFIX").arg("session:").clone();
    listener.tell(&tracking).await.unwrap();
    listener.beat().await.unwrap();
    let add = redis::cmd("XADD")
        .arg("weir:purges")
        .arg("MAXLEN")
        .arg("~")
        .arg(9)
        .arg("*")
        .arg("h")
        .arg("*")
        .clone();
    let place: String = add.query_async(&mut known).await.unwrap();
    let mut own = known.dedicated("weir:purges").await.unwrap();
    redis::cmd("XRANGE")
        .arg("weir:purges")
        .arg(&place)
        .arg(&place)
        .query_async::<Value>(&mut own)
        .await
        .unwrap();
    redis::cmd("XREVRANGE")
        .arg("weir:purges")
        .arg("+")
        .arg("-")
        .query_async::<Value>(&mut own)
        .await
        .unwrap();
    let read = redis::cmd("XREAD").arg("COUNT").arg(1).arg("STREAMS").arg("weir:purges").arg(&place).clone();
    read.query_async::<Value>(&mut own).await.unwrap();
    let lease = redis::cmd("SET").arg("weir:cache:{k}:fill").arg("own").arg("NX").arg("PX").arg(9000).clone();
    lease.query_async::<()>(&mut known).await.unwrap();
    let end =
        redis::Script::new("return redis.call('get', KEYS[1]) == ARGV[1] and redis.call('del', KEYS[1])");
    let ended: i64 = end.key("weir:cache:{k}:fill").arg("own").invoke_async(&mut known).await.unwrap();
    assert_eq!(ended, 1);
    let refused = known.set::<_, _, ()>("elsewhere", "forged").await.unwrap_err();
    assert_eq!(refused.code(), Some("NOPERM"));

    assert!(redis(&words("wrong", &cert)).get::<_, Option<String>>("session:t").await.is_err());
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(file("other.pem"), other.cert.pem()).unwrap();
    assert!(redis(&words("pw", &file("other.pem"))).get::<_, Option<String>>("session:t").await.is_err());
}
