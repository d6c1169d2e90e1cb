#![allow(clippy::unwrap_used, reason = "a test's panic is its report")]
//! Limits of a fleet on a real Redis; an edge is what counts beside the others, with leases of its own.

use std::{sync::Arc, time::Instant};

use weir_config::plan::LimitId;
use weir_testkit::Redis;

use super::*;
use crate::limit::{Admitted, Cause, Charge, Limits, Over, Progress, Tally, tests::planned};

/// Long enough for a busy machine: only what is meant to fail waits for it.
const DEADLINE: Duration = Duration::from_millis(500);

fn store(redis: &Redis) -> Store {
    let redis = format!("redis: {{ url: \"{}\", timeout: {}ms }}", redis.url(), DEADLINE.as_millis());
    let plan = planned(&["any: { rate: 1/s }"], &redis);
    Store::new(crate::fleet::Redis::new(&plan.redis.unwrap()).unwrap())
}

fn edge(redis: &Redis, limit: &str) -> Limits {
    let plan = planned(&[limit], &format!("redis: {{ url: \"{}\" }}", redis.url()));
    let store = store(redis);
    Limits::new(None, &plan.limits, Some(&store), Instant::now())
}

fn tally(key: &str) -> Tally {
    Tally::new(vec![Charge { limit: LimitId::at(0), key: key.to_owned(), cost: NonZeroU32::MIN }])
}

/// As the general lane does it.
async fn admit(edge: &Limits, key: &str, now: Instant) -> Result<Admitted, Over> {
    let mut tally = tally(key);
    while edge.charge(&mut tally, now)? == Progress::Asks {
        edge.ask(&mut tally, now).await?;
    }
    Ok(tally.into_admitted())
}

/// Waits until Redis is asked again.
async fn counts_again(redis: &Redis, edge: &Limits) {
    let client = redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let back = Instant::now();
    let mut exists = redis::cmd("EXISTS");
    exists.arg("rate_limit:back:api");
    while exists.query_async::<u8>(&mut connection).await.unwrap() == 0 {
        let _passes_either_way = admit(edge, "back", Instant::now()).await;
        assert!(back.elapsed() < Duration::from_secs(30), "it is never asked again");
        tokio::task::yield_now().await;
    }
}

/// All edges at once, each with so many requests of one client; how many passed.
async fn crowd(edges: &[Limits], requests: usize) -> usize {
    let one = async |edge: &Limits| {
        let mut passed = 0;
        for _ in 0..requests {
            passed += usize::from(admit(edge, "192.0.2.1", Instant::now()).await.is_ok());
        }
        passed
    };
    let passed = futures_util::future::join_all(edges.iter().map(one)).await;
    passed.into_iter().sum()
}

#[tokio::test]
async fn edges_that_ask_for_each_request_pass_exactly_the_limit_together() {
    for limit in [
        "api: { rate: 90/24h, in: redis, lease: 1 }",
        "api: { rate: 90/24h, in: redis, lease: 1, window: sliding }",
    ] {
        let redis = Redis::start();
        let edges = [(); 3].map(|()| edge(&redis, limit));
        assert_eq!(crowd(&edges, 60).await, 90, "{limit}");
    }
}

#[tokio::test]
async fn edges_with_leases_never_pass_more_and_lose_at_most_one_lease_each() {
    for limit in [
        "api: { rate: 900/24h, in: redis, lease: 20 }",
        "api: { rate: 900/24h, in: redis, lease: 20, window: sliding }",
    ] {
        let redis = Redis::start();
        let edges = [(); 3].map(|()| edge(&redis, limit));
        let passed = crowd(&edges, 600).await;
        println!("{passed} of 900 passed: {limit}");
        assert!((900 - 3 * 20..=900).contains(&passed), "{passed} of 900: {limit}");
    }
}

/// The bound of the head comment, at every moment of what tries it most: edges that took leases for a few requests, time in which
/// the limit has rested, and then a crowd at all of them.
#[tokio::test]
async fn no_span_sees_more_than_the_limit_and_a_lease_for_each_edge() {
    const RATE: f64 = 400.0;
    const BURST: f64 = 50.0;
    const LEASES: f64 = 3.0 * 10.0;
    let redis = Redis::start();
    let edges = [(); 3].map(|()| edge(&redis, "api: { rate: 400/s, burst: 50, in: redis, lease: 10 }"));
    let start = Instant::now();
    let mut passed: Vec<f64> = Vec::new();
    for _ in 0..8 {
        for (requests, pause) in [(5, 150), (60, 20)] {
            for edge in edges.iter().cycle().take(requests * edges.len()) {
                if admit(edge, "192.0.2.1", Instant::now()).await.is_ok() {
                    passed.push(start.elapsed().as_secs_f64());
                }
            }
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }
    let mut most = 0.0_f64;
    for (first, from) in passed.iter().enumerate() {
        for (last, to) in passed.iter().enumerate().skip(first) {
            most = most.max((last - first + 1) as f64 - BURST - RATE * (to - from));
        }
    }
    println!("{} passed, at most {most:.1} above the limit, of {LEASES} that are promised", passed.len());
    // One more, because the clock is read after the request has passed.
    assert!(most <= LEASES + 1.0, "{most} above the limit");
    assert!(passed.len() as f64 > BURST * 2.0, "{} passed", passed.len());
}

#[tokio::test]
async fn a_busy_key_asks_redis_seldom_and_waits_for_it_once_at_most() {
    let redis = Redis::start();
    let edge = edge(&redis, "api: { rate: 100000/s, burst: 100000, in: redis, lease: 1000 }");
    let mut asked = 0;
    for _ in 0..20_000 {
        let (mut tally, now) = (tally("192.0.2.1"), Instant::now());
        while edge.charge(&mut tally, now).unwrap() == Progress::Asks {
            asked += 1;
            edge.ask(&mut tally, now).await.unwrap();
        }
        // A request has its own task on an edge; here the one that fetches gets its turn between two of them.
        tokio::task::yield_now().await;
    }
    assert!(asked < 200, "{asked} of 20000 requests waited for Redis");
}

#[tokio::test]
async fn a_client_that_comes_now_and_then_costs_the_fleet_what_it_uses() {
    let redis = Redis::start();
    let edge = edge(&redis, "api: { rate: 10/24h, in: redis, lease: 5 }");
    let start = Instant::now();
    for request in 0..10 {
        assert!(admit(&edge, "a", start + IDLE * request * 2).await.is_ok(), "request {request}");
    }
    assert!(admit(&edge, "a", start + IDLE * 20).await.is_err());
}

#[tokio::test]
async fn who_is_refused_costs_no_question_until_there_may_be_room() {
    let redis = Redis::start();
    let edge = edge(&redis, "api: { rate: 2/h, in: redis, lease: 1 }");
    let now = Instant::now();
    assert!(admit(&edge, "a", now).await.is_ok() && admit(&edge, "a", now).await.is_ok());
    let over = admit(&edge, "a", now).await.unwrap_err();
    let Cause::Full { retry_after: Some(wait), .. } = over.cause else { panic!("{over:?}") };
    assert!(wait > Duration::from_secs(1700) && wait <= Duration::from_secs(1800), "{wait:?}");
    assert!(edge.charge(&mut tally("a"), now + wait / 2).is_err(), "nobody is asked");
    assert_eq!(edge.charge(&mut tally("a"), now + wait), Ok(Progress::Asks));
    assert_eq!(edge.charge(&mut tally("b"), now), Ok(Progress::Asks), "others are not meant");
}

#[tokio::test]
async fn a_key_is_named_as_promised_and_ends_when_it_is_rested() {
    let redis = Redis::start();
    let client = redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    for (limit, most) in [
        ("api: { rate: 100/15m, in: redis }", 9_000),
        ("api: { rate: 100/15m, in: redis, window: sliding }", 960_000),
    ] {
        let _passed = admit(&edge(&redis, limit), "192.0.2.1", Instant::now()).await.unwrap();
        let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await.unwrap();
        assert_eq!(keys, ["rate_limit:192.0.2.1:api"]);
        let left: i64 = redis::cmd("PTTL").arg(&keys[0]).query_async(&mut connection).await.unwrap();
        assert!((1..=most).contains(&left), "{left} ms");
        let _: () = redis::cmd("FLUSHALL").query_async(&mut connection).await.unwrap();
    }
}

#[tokio::test]
async fn while_redis_is_silent_the_plan_says_who_passes_and_nobody_waits_but_the_first() {
    for (word, passes) in [("local", 3), ("allow", 10), ("refuse", 0)] {
        let redis = Redis::start();
        let edge =
            edge(&redis, &format!("api: {{ rate: 3/24h, in: redis, lease: 1, on_redis_down: {word} }}"));
        assert!(admit(&edge, "first", Instant::now()).await.is_ok());
        redis.child().signal("STOP");
        let now = Instant::now();
        let mut passed = 0;
        for _ in 0..10 {
            passed += usize::from(admit(&edge, "a", now).await.is_ok());
        }
        assert_eq!(passed, passes, "{word}");
        // Each rest begins with one deadline; ten would be this long.
        assert!(now.elapsed() < DEADLINE * 8, "{word}: {:?}", now.elapsed());
        redis.child().signal("CONT");
        counts_again(&redis, &edge).await;
    }
}

#[tokio::test]
async fn what_was_counted_here_is_not_given_back_to_the_fleet() {
    let redis = Redis::start();
    let plan = planned(
        &["api: { rate: 4/24h, in: redis, lease: 4 }", "narrow: { rate: 1/24h }"],
        &format!("redis: {{ url: \"{}\" }}", redis.url()),
    );
    let store = store(&redis);
    let edge = Limits::new(None, &plan.limits, Some(&store), Instant::now());
    let both = async |edge: &Limits| {
        let charge = |at| Charge { limit: LimitId::at(at), key: "a".to_owned(), cost: NonZeroU32::MIN };
        let (mut tally, now) = (Tally::new(vec![charge(0), charge(1)]), Instant::now());
        while edge.charge(&mut tally, now)? == Progress::Asks {
            edge.ask(&mut tally, now).await?;
        }
        Ok::<_, Over>(())
    };
    redis.child().signal("STOP");
    assert!(both(&edge).await.is_ok());
    assert_eq!(both(&edge).await.unwrap_err().limit, LimitId::at(1));
    redis.child().signal("CONT");
    counts_again(&redis, &edge).await;
    let mut passed = 0;
    for _ in 0..6 {
        passed += usize::from(admit(&edge, "a", Instant::now()).await.is_ok());
    }
    assert_eq!(passed, 4, "what the fleet has, and no more");
}

#[tokio::test]
async fn what_redis_says_of_one_key_is_no_outage_for_the_others() {
    let redis = Redis::start();
    redis.ask(&["SET", "rate_limit:broken:api", "no limit of ours"]);
    for word in ["local", "refuse"] {
        let edge =
            edge(&redis, &format!("api: {{ rate: 4/24h, in: redis, lease: 1, on_redis_down: {word} }}"));
        for client in 0..8 {
            let broken = admit(&edge, "broken", Instant::now()).await;
            assert_eq!(broken.is_ok(), word == "local" && client < 4, "{word}");
            assert!(admit(&edge, &format!("{word}{client}"), Instant::now()).await.is_ok(), "{word}");
        }
        // Counted there, and not here: another edge sees them.
        assert_eq!(redis.ask(&["EXISTS", &format!("rate_limit:{word}7:api")]), "1");
    }
}

#[test]
fn counts_are_kept_while_redis_is_reached_in_the_same_way() {
    let limit = ["api: { rate: 4/24h, in: redis }"];
    let with = |timeout: &str, old: Option<&Limits>| {
        let plan = planned(&limit, &format!("redis: {{ url: \"redis://localhost\", timeout: {timeout} }}"));
        let store = Store::new(crate::fleet::Redis::new(plan.redis.as_ref().unwrap()).unwrap());
        Limits::new(old, &plan.limits, Some(&store), Instant::now())
    };
    let is_kept = |old: &Limits, new: &Limits| Arc::ptr_eq(&old.0[0].zone, &new.0[0].zone);
    let old = with("1s", None);
    assert!(is_kept(&old, &with("1s", Some(&old))));
    assert!(!is_kept(&old, &with("2s", Some(&old))), "its own handle goes to where Redis was");
}
