//! Many at once, and many of them: crowds at one answer, and more answers than there is memory.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::support::{Client, Edge, Gate, Origin, until};

fn caching(origin: &Origin, rule: &str, memory: &str) -> Edge {
    Edge::routing(
        origin,
        &format!("cache: {{ in: store{rule} }}"),
        &format!("caches: {{ store: {{ memory: {memory} }} }}"),
    )
}

/// So many clients that have asked for `/x` and are under way.
fn crowd(edge: &Edge, size: usize) -> Vec<Client> {
    let mut clients: Vec<_> = (0..size).map(|_| edge.connect()).collect();
    for client in &mut clients {
        client.send("GET /x HTTP/1.1\r\nhost: edge.test\r\n\r\n");
    }
    clients
}

/// Asks `edge` for so many different things, on four connections at a time.
fn ask_for(edge: SocketAddr, count: usize, after: impl Fn(usize) + Sync) {
    const HANDS: usize = 4;
    std::thread::scope(|scope| {
        for hand in 0..HANDS {
            let after = &after;
            scope.spawn(move || {
                let mut client = Client::connect(edge);
                for number in (hand..count).step_by(HANDS) {
                    assert_eq!(client.ask(&format!("/{number}"), "").status, 200);
                    if hand == 0 {
                        after(number);
                    }
                }
            });
        }
    });
}

/// Criterion 27: one request for five hundred, and none of them waits longer than for the origin.
#[test]
fn five_hundred_misses_are_one_request_and_wait_for_nothing_but_its_answer() {
    let gate = Arc::new(Gate::default());
    let release = Arc::clone(&gate);
    let answered = Arc::new(std::sync::Mutex::new(None));
    let stamp = Arc::clone(&answered);
    let origin = Origin::start(move |_, wire| {
        release.pass();
        *stamp.lock().unwrap() = Some(Instant::now());
        wire.answer("cache-control: max-age=60\r\n", vec![b'x'; 1024]);
    });
    let edge = caching(&origin, ", lock_timeout: 60s", "16MiB");
    let mut clients = crowd(&edge, 500);
    until("all are under way", || edge.metric("weir_requests_in_flight") == 500.0);
    gate.open();
    // One after the other: five hundred threads would wait for a core longer than for the edge.
    let read = clients.iter_mut().map(|client| {
        let answer = client.answer();
        assert_eq!((answer.status, answer.body.len()), (200, 1024));
        Instant::now()
    });
    let ends: Vec<Instant> = read.collect();
    let answered = answered.lock().unwrap().unwrap();
    let mut waits: Vec<Duration> = ends.iter().map(|end| end.saturating_duration_since(answered)).collect();
    waits.sort_unstable();
    println!("behind the origin's answer: median {:?}, slowest {:?}", waits[250], waits[499]);
    assert_eq!(origin.count(), 1);
    assert!(waits[250] < Duration::from_secs(1), "{:?}", waits[250]);
}

/// Criterion 27: nobody knows yet that this answer is for nobody else, and still they wait for one head at the most.
#[test]
fn two_hundred_who_ask_for_what_is_not_kept_wait_for_one_head_and_then_for_nobody() {
    let (gate, first) = (Arc::new(Gate::default()), AtomicUsize::new(0));
    let release = Arc::clone(&gate);
    let origin = Origin::start(move |_, wire| {
        if first.fetch_add(1, Ordering::SeqCst) > 0 {
            release.pass();
        }
        wire.answer("cache-control: no-store\r\n", "mine");
    });
    let edge = caching(&origin, ", lock_timeout: 60s", "16MiB");
    let mut clients = crowd(&edge, 200);
    until("all of them are at the origin at once", || origin.count() == 200);
    gate.open();
    for client in &mut clients {
        assert_eq!(client.answer().text(), "mine");
    }
}

/// Criterion 27: the first fetch fails, in each of the ways in which it can.
#[test]
fn two_hundred_outlive_the_fetch_that_they_waited_for() {
    let ways: [&str; 3] = [
        "",
        "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 100\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ];
    for broken in ways {
        let (gate, first) = (Arc::new(Gate::default()), AtomicUsize::new(0));
        let release = Arc::clone(&gate);
        let origin = Origin::start(move |_, wire| {
            if first.fetch_add(1, Ordering::SeqCst) == 0 {
                release.pass();
                wire.send(broken);
                return wire.cut();
            }
            wire.answer("cache-control: max-age=60\r\n", "whole");
        });
        let edge = caching(&origin, ", lock_timeout: 60s", "16MiB");
        let mut clients = crowd(&edge, 200);
        until("all are under way", || edge.metric("weir_requests_in_flight") == 200.0);
        gate.open();
        let mut served = 0;
        for client in &mut clients {
            // Those who were given the beginning of the answer that broke see that it broke.
            let head = client.head();
            let status = head.as_ref().map(|head| head.line.clone()).unwrap_or_default();
            let (body, whole) = head.map_or((Vec::new(), false), |head| client.body(&head, false, true));
            if whole && status.contains(" 200 ") {
                assert_eq!(body, b"whole", "{broken:?}");
                served += 1;
            }
        }
        println!("{served} of 200 served, {} requests, after {broken:?}", origin.count());
        // A head with a length is passed on to all who wait: they read along, and break with it.
        if !broken.contains("content-length") {
            assert!(served >= 199, "{served} of 200 after {broken:?}");
        }
        assert!(origin.count() <= 10, "{} requests after {broken:?}", origin.count());
        assert_eq!(edge.get("/x").text(), "whole");
    }
}

/// Criterion 28: with every server dead, what is stale is there at once.
#[test]
fn what_is_stale_is_served_at_once_when_every_server_is_dead() {
    let origins: Vec<Origin> = (0..3)
        .map(|_| Origin::start(|_, wire| wire.answer("cache-control: max-age=0\r\netag: \"1\"\r\n", "kept")))
        .collect();
    let servers: Vec<String> = origins.iter().map(|origin| origin.address.to_string()).collect();
    let edge = Edge::start(&format!(
        "caches: {{ store: {{}} }}
upstreams: {{ api: {{ servers: [{}] }} }}
routes: [{{ match: /*, to: api, cache: {{ in: store, stale_if_error: 60s }} }}]
",
        servers.join(", ")
    ));
    assert_eq!(edge.get("/x").text(), "kept");
    for mut origin in origins {
        origin.die();
    }
    let mut took: Vec<Duration> = (0..11)
        .map(|_| {
            let started = Instant::now();
            let answer = edge.get("/x");
            assert_eq!((answer.status, answer.text()), (200, "kept".into()));
            started.elapsed()
        })
        .collect();
    took.sort_unstable();
    println!("stale for want of a server: median {:?}, slowest {:?}", took[5], took[10]);
    assert!(took[5] < Duration::from_secs(1), "{took:?}");
}

/// Criterion 29: what is asked for once, in whatever number, takes no more memory than the plan gives it.
#[test]
fn twenty_thousand_answers_of_16_kib_stay_within_their_memory() {
    const BUDGET: usize = 32 << 20;
    let origin = Origin::start(|_, wire| wire.answer("", vec![b'x'; 16 << 10]));
    let edge = caching(&origin, ", ttl: 60s", "32MiB");
    assert_eq!(edge.get("/warm").status, 200);
    let (before, most) = (edge.resident(), AtomicUsize::new(0));
    ask_for(edge.http(), 20_000, |number| {
        if number % 500 == 0 {
            most.fetch_max(edge.resident(), Ordering::SeqCst);
        }
    });
    let grown = most.into_inner().max(edge.resident()).saturating_sub(before);
    println!("grew by {} MiB at the most", grown >> 20);
    assert!(grown <= BUDGET * 3 / 2 + (32 << 20), "{} MiB", grown >> 20);
    assert!(edge.metric("weir_cache_bytes{cache=\"store\"}") <= BUDGET as f64);
}

/// Small answers are where an index, heads and allocations weigh most: as of 256 MiB and 320, a quarter beyond the budget.
#[test]
fn forty_thousand_answers_of_1_kib_take_little_more_than_their_memory() {
    const BUDGET: usize = 32 << 20;
    let origin = Origin::start(|_, wire| wire.answer("", vec![b'x'; 1 << 10]));
    let edge = caching(&origin, ", ttl: 60s", "32MiB");
    assert_eq!(edge.get("/warm").status, 200);
    let before = edge.resident();
    ask_for(edge.http(), 40_000, |_| ());
    let grown = edge.resident().saturating_sub(before);
    let entries = edge.metric("weir_cache_entries{cache=\"store\"}");
    println!("grew from {} by {} MiB, with {entries} entries", before >> 20, grown >> 20);
    assert!(grown <= BUDGET * 5 / 4 + (8 << 20), "{} MiB", grown >> 20);
    assert!(entries > 10_000.0, "{entries} entries");
}
