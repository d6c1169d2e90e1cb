//! What /metrics says of each cache, after requests of every kind.

use std::sync::Arc;

use crate::support::{Edge, Gate, Origin, until};

fn keeping(origin: &Origin, rule: &str) -> Edge {
    Edge::routing(
        origin,
        &format!("cache: {{ in: store{rule} }}"),
        "caches: { store: { memory: 1MiB, entry_max: 100KiB }, other: {} }",
    )
}

fn served(edge: &Edge, kind: &str) -> f64 {
    edge.metric(&format!("weir_cache_served_total{{cache=\"store\",kind=\"{kind}\"}}"))
}

fn fills(edge: &Edge, outcome: &str) -> f64 {
    edge.metric(&format!("weir_cache_fills_total{{cache=\"store\",outcome=\"{outcome}\"}}"))
}

fn refused(edge: &Edge, reason: &str) -> f64 {
    edge.metric(&format!("weir_cache_not_stored_total{{cache=\"store\",reason=\"{reason}\"}}"))
}

#[test]
fn answers_out_of_a_cache_are_told_apart_by_how_they_came() {
    let gate = Arc::new(Gate::default());
    let waits = Arc::clone(&gate);
    let mut origin = Origin::start(move |request, wire| match request.target() {
        _ if request.has("if-none-match") => {
            wire.send("HTTP/1.1 304 Not Modified\r\ncache-control: max-age=60\r\n\r\n");
        }
        "/confirmed" => wire.answer("cache-control: max-age=0\r\netag: \"v\"\r\n", "x"),
        "/stale" => wire.answer("cache-control: max-age=0, stale-while-revalidate=60\r\n", "x"),
        "/failing" => wire.answer("cache-control: max-age=0, stale-if-error=60\r\n", "x"),
        "/crowd" => {
            waits.pass();
            wire.answer("cache-control: max-age=60\r\n", "x");
        }
        _ => wire.answer("cache-control: max-age=60\r\n", "x"),
    });
    let edge = keeping(&origin, "");
    for (number, path) in ["/fresh", "/confirmed", "/stale", "/failing"].into_iter().enumerate() {
        edge.get(path);
        until("it is stored", || fills(&edge, "stored") >= (number + 1) as f64);
    }
    for path in ["/fresh", "/fresh", "/confirmed"] {
        edge.get(path);
    }
    edge.get("/stale");
    std::thread::scope(|scope| {
        let asked: Vec<_> = (0..4).map(|_| scope.spawn(|| edge.get("/crowd"))).collect();
        until("three wait", || edge.metric("weir_cache_collapsed_total{cache=\"store\"}") >= 3.0);
        gate.open();
        asked.into_iter().for_each(|asked| assert_eq!(asked.join().unwrap().text(), "x"));
    });
    until("what is behind backs has come", || fills(&edge, "stored") >= 7.0);
    origin.die();
    edge.get("/failing");
    for (kind, count) in
        [("fresh", 2.0), ("confirmed", 1.0), ("stale", 1.0), ("collapsed", 3.0), ("stale_on_error", 1.0)]
    {
        until(kind, || served(&edge, kind) == count);
    }
    until("the fetch that failed", || fills(&edge, "broken") == 1.0);
    assert_eq!(edge.metric("weir_cache_fills_total{cache=\"other\",outcome=\"stored\"}"), 0.0);
}

#[test]
fn what_is_not_kept_and_what_leaves_is_counted_with_its_reason() {
    let origin = Origin::start(|request, wire| match request.target() {
        "/no-store" => wire.answer("cache-control: no-store\r\n", "x"),
        "/cookie" => wire.answer("cache-control: max-age=60\r\nset-cookie: a=b\r\n", "x"),
        "/large" => wire.answer("cache-control: max-age=60\r\n", "x".repeat(200 << 10)),
        _ => wire.answer("cache-control: max-age=60\r\n", "x".repeat(50 << 10)),
    });
    let edge = keeping(&origin, "");
    for path in ["/no-store", "/no-store", "/cookie", "/large"] {
        edge.get(path);
    }
    for (reason, count) in [("no-store", 2.0), ("set-cookie", 1.0), ("too-large", 1.0), ("private", 0.0)] {
        until(reason, || refused(&edge, reason) == count);
    }
    assert_eq!(fills(&edge, "refused"), 4.0);
    for n in 0..40 {
        edge.get(&format!("/{n}"));
    }
    until("all are stored", || fills(&edge, "stored") == 40.0);
    let gone = edge.metric("weir_cache_evictions_total{cache=\"store\"}");
    assert!(gone >= 20.0 && edge.metric("weir_cache_entries{cache=\"store\"}") == 40.0 - gone, "{gone}");
    assert!(
        edge.metric("weir_cache_bytes{cache=\"store\"}")
            <= edge.metric("weir_cache_budget_bytes{cache=\"store\"}")
    );
    let rare = keeping(&origin, ", min_uses: 3");
    rare.get("/a");
    until("it was asked for too seldom", || refused(&rare, "too-few-uses") == 1.0);
}

/// 2000 keys in turn, twice, which a cache of a quarter of their size cannot answer and one of twice their size can.
#[test]
fn the_operator_hears_what_less_and_more_memory_would_do() {
    let origin = Origin::start(|_, wire| wire.answer("cache-control: max-age=600\r\n", "x".repeat(2000)));
    let edge =
        Edge::routing(&origin, "cache: { in: store }", "caches: { store: { memory: 2MiB }, idle: {} }");
    let mut client = edge.connect();
    for n in 0..4000 {
        assert_eq!(client.ask(&format!("/{}", n % 2000), "").body.len(), 2000);
    }
    let sights: serde_json::Value = serde_json::from_str(&edge.admin("/caches").text()).unwrap();
    let store = &sights[0];
    assert_eq!((store["name"].as_str(), store["lookups"].as_u64()), (Some("store"), Some(4000)));
    assert!(
        store["bytes"].as_u64() <= store["budgetBytes"].as_u64() && store["entries"].as_u64() > Some(100)
    );
    let with = |mib: f64| {
        let sizes = store["withMemory"].as_array().unwrap();
        let size =
            sizes.iter().find(|size| size["bytes"].as_f64() == Some(mib * f64::from(1 << 20))).unwrap();
        size["hitRate"].as_f64().unwrap()
    };
    // Of the keys, 125 are watched, give or take 11: so much is certain.
    assert!(with(1.0) < 0.4 && with(16.0) - with(1.0) > 0.25, "{store:#}");
    assert_eq!((sights[1]["hitRate"].as_f64(), sights[1]["withMemory"][3]["hitRate"].as_f64()), (None, None));

    let weir = |arguments: &[&str]| {
        let weir = std::process::Command::new(env!("CARGO_BIN_EXE_weir")).args(arguments).output().unwrap();
        (weir.status.success(), String::from_utf8_lossy(&weir.stdout).into_owned())
    };
    let admin = edge.admin_address().to_string();
    let (done, text) = weir(&["caches", "--admin", &admin]);
    assert!(done && text.contains("store: ") && text.contains("2MiB") && text.contains("(now)"), "{text}");
    assert!(text.contains("not known yet"), "of the one that nobody asked: {text}");
    let (done, text) = weir(&["caches", "--admin", &admin, "--json"]);
    assert!(done && text.starts_with("[{"), "{text}");
    drop(edge);
    assert!(!weir(&["caches", "--admin", &admin]).0);
}
