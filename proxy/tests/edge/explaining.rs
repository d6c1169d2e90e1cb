//! Asking why: the admin listener and `weir explain` tell what would happen, and nothing happens.

use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::support::{Edge, Origin, until};

fn why(edge: &Edge, url: &str, headers: &[&str]) -> Value {
    let question = json!({ "url": url, "headers": headers });
    let (status, report) = edge.operate("POST", "/explain", &question, "");
    assert_eq!(status, 200, "{report}");
    report
}

fn says(report: &Value, path: &str, text: &str) {
    let said = report.pointer(path).and_then(Value::as_str).unwrap_or_default();
    assert!(said.contains(text), "{path} says {said:?}, not {text:?}, in {report:#}");
}

fn edge(origin: &Origin) -> Edge {
    Edge::start(&format!(
        "caches: {{ store: {{}} }}
sessions: {{ app: {{ from: [bearer, {{ header: x-token }}], ask: {{ upstream: api, path: /auth/session }} }} }}
limits: {{ few: {{ rate: 1/h }} }}
upstreams: {{ api: {{ servers: [{}] }} }}
routes:
  - name: mine
    match: /mine
    session: {{ use: app, required: true }}
    cache: {{ in: store, ttl: 60s, key: \"mine:${{session.user_id}}:${{cookie.theme}}\", tags: [\"user:${{session.user_id}}\"] }}
    to: api
  - {{ name: limited, match: /limited, limit: [few], to: api }}
  - {{ name: guarded, match: /guarded, access: {{ allow: [10.0.0.0/8] }}, to: api }}
  - {{ match: /fixed, answer: {{ body: hello }} }}
  - name: rest
    match: /public/*
    cache: {{ in: store }}
    to: api
",
        origin.address
    ))
}

fn origin() -> Origin {
    Origin::start(|request, wire| match request.target() {
        "/auth/session" => wire.answer("", r#"{"user_id":"anna"}"#),
        "/public/private" => wire.answer("cache-control: private\r\n", "x"),
        "/public/old" => wire.answer("cache-control: max-age=0\r\netag: \"v1\"\r\n", "x"),
        "/public/language" => {
            wire.answer("cache-control: max-age=60\r\nvary: accept-language, x-key\r\n", "x")
        }
        _ => wire.answer("cache-control: max-age=60\r\ncache-tag: a b\r\n", "hello"),
    })
}

#[test]
fn an_explanation_names_route_key_entry_and_line_and_asks_nobody() {
    let origin = origin();
    let edge = edge(&origin);
    let url = "http://edge.test/public/x?q=1";
    let before = why(&edge, url, &[]);
    says(&before, "/outcome", "goes to the origin: nothing is stored under the key");
    says(&before, "/cache/lookup", "miss");
    says(&before, "/cache/stored", "yes, unless the origin says private");
    says(&before, "/route/name", "rest");
    // Listeners and admin are put before what the test wrote.
    let file = std::fs::read_to_string(edge.config()).unwrap();
    let line = |text: &str| file.lines().position(|line| line.contains(text)).unwrap() + 1;
    says(&before, "/route/at", &format!("config.yaml:{}:", line("- name: rest")));
    says(&before, "/cache/at", &format!("config.yaml:{}:", line("cache: { in: store }")));
    assert_eq!(origin.count(), 0);
    edge.get("/public/x?q=1");
    let after = why(&edge, "http://127.0.0.1:9/public/x?q=1", &["Host: edge.test"]);
    says(&after, "/outcome", "is answered from the cache: fresh for");
    says(&after, "/cache/key", url);
    let entry = &after["cache"]["entry"];
    assert_eq!(
        (&entry["status"], &entry["bytes"], &entry["origin_tags"]),
        (&json!(200), &json!(5), &json!(["a b"]))
    );
    assert!(entry["age_s"].as_u64().unwrap() < 60 && entry["ttl_s"].as_i64().unwrap() > 0, "{entry}");
    says(&after, "/cache/entry/url", url);
    says(&why(&edge, url, &["cache-control: no-cache"]), "/outcome", "the request asks for a fresher one");
    says(&why(&edge, "http://other.test/public/x?q=1", &[]), "/cache/lookup", "miss");
    edge.order(&json!({ "url": url, "soft": true }));
    let soft = why(&edge, url, &[]);
    says(&soft, "/outcome", "it was softly purged");
    assert_eq!(soft["cache"]["entry"]["softly_purged"], json!(true));
    edge.order(&json!({ "url": url }));
    says(&why(&edge, url, &[]), "/outcome", "has been purged");
    assert_eq!(origin.count(), 1);
    assert_eq!(
        edge.metric("weir_cache_requests_total{cache=\"store\",result=\"hit\"}"),
        0.0,
        "asking counts nothing"
    );
}

#[test]
fn what_was_not_kept_is_explained_afterwards() {
    let origin = origin();
    let edge = edge(&origin);
    edge.get("/public/private");
    let report = why(&edge, "http://edge.test/public/private", &[]);
    says(&report, "/cache/last_refusal/reason", "private");
    says(&report, "/cache/last_refusal/why", "the origin said private");
    edge.get("/public/old");
    until("it is stored", || edge.metric("weir_cache_entries{cache=\"store\"}") == 1.0);
    says(
        &why(&edge, "http://edge.test/public/old", &[]),
        "/outcome",
        "asks the origin whether the entry is still good",
    );
    for (fields, text) in [
        (&["cookie: sid=1"][..], "because the request has cookies"),
        (&["authorization: Basic x"], "because the request has Authorization"),
        (&["cache-control: no-store"], "no: the request says no-store"),
        (&["content-length: 3"], "no: the request has a body"),
    ] {
        says(&why(&edge, "http://edge.test/public/x", fields), "/cache/stored", text);
    }
}

/// Once, it promised to keep what was passed by, and what was asked for too rarely.
#[test]
fn what_is_said_to_be_kept_is_kept() {
    let origin = Origin::start(|request, wire| match request.has("range") {
        true => {
            wire.send(
                "HTTP/1.1 206 Partial Content\r\netag: \"v1\"\r\ncache-control: max-age=60\r\n\
                 content-range: bytes 0-1/5\r\ncontent-length: 2\r\n\r\nhe",
            );
        }
        false => wire.answer("etag: \"v1\"\r\ncache-control: max-age=60\r\n", "hello"),
    });
    let edge = |rule: &str| {
        let route = format!("cache: {{ in: store{rule} }}");
        Edge::routing(&origin, &route, "caches: { store: { memory: 16MiB } }")
    };
    let url = "http://edge.test/x";

    let rarely = edge(", min_uses: 2");
    for _ in 0..2 {
        says(
            &why(&rarely, url, &[]),
            "/cache/stored",
            "no, not yet: min_uses wants 2 requests for it, and this is number 1",
        );
    }
    assert!(!rarely.get("/x").cache().contains("stored"));
    says(&why(&rarely, url, &[]), "/cache/stored", "yes");
    assert!(rarely.get("/x").cache().contains("stored"));

    let whole = edge("");
    let report = why(&whole, url, &["range: bytes=0-1"]);
    says(&report, "/outcome", "nothing is kept: it asks for a part");
    says(&report, "/cache/stored", "no: it asks for a part");
    assert!(!whole.ask("/x", "range: bytes=0-1\r\n").cache().contains("stored"));
    for (fields, text) in
        [("if-match: \"v1\"", "no: it has a precond"), ("cache-control: only-if-cached", "no: nobody")]
    {
        says(&why(&whole, url, &[fields]), "/cache/stored", text);
    }

    let parts = edge(", partial: true");
    let report = why(&parts, url, &["range: bytes=0-1"]);
    says(&report, "/outcome", "goes to the origin: nothing is stored");
    says(&report, "/cache/stored", "yes");
    assert!(parts.ask("/x", "range: bytes=0-1\r\n").cache().contains("stored"));
    until("the part is held", || {
        let said = why(&parts, url, &["range: bytes=0-1"])["outcome"].to_string();
        said.contains("is answered from the cache")
    });
    says(&why(&parts, url, &["range: bytes=3-4"]), "/outcome", "another part");
}

#[test]
fn refusals_and_other_answers_are_foretold() {
    let origin = origin();
    let edge = edge(&origin);
    says(&why(&edge, "http://edge.test/nowhere", &[]), "/outcome", "refused with 404");
    says(&why(&edge, "http://edge.test/guarded", &[]), "/outcome", "refused with 403");
    says(&why(&edge, "http://edge.test/mine", &[]), "/outcome", "refused with 401");
    says(&why(&edge, "http://edge.test/fixed", &[]), "/outcome", "a fixed answer");
    for _ in 0..3 {
        let limited = why(&edge, "http://edge.test/limited", &[]);
        says(&limited, "/outcome", "goes to upstream api as /limited");
        assert_eq!(limited["limits"], json!(["few"]));
    }
    assert_eq!(edge.get("/limited").status, 200, "asking charged nothing");
    for (question, why) in [
        (json!({ "url": "/x" }), "no URL"),
        (json!({ "url": "http://h/%zz" }), "400"),
        (json!({ "url": "http://h/", "headers": ["nonsense"] }), "name: value"),
        (json!({ "url": "http://h/", "method": "G T" }), "method"),
        (json!({ "uri": "http://h/" }), "unknown field"),
    ] {
        let (status, said) = edge.operate("POST", "/explain", &question, "");
        assert!(
            status == 422 && said["error"].as_str().unwrap_or_default().contains(why),
            "{question}: {said}"
        );
    }
    assert_eq!(edge.operate("POST", "/explain", &json!({}), "origin: http://evil.test\r\n").0, 403);
    assert_eq!(edge.admin("/explain").status, 405);
}

#[test]
fn a_session_is_known_from_memory_and_no_secret_is_shown() {
    let origin = origin();
    let edge = edge(&origin);
    let fields = ["authorization: Bearer the-secret-token", "cookie: theme=the-secret-cookie"];
    let ask = || why(&edge, "http://edge.test/mine", &fields);
    says(&ask(), "/caller", "not in memory; the origin is not asked");
    says(&ask(), "/outcome", "depends on the session");
    assert_eq!(origin.count(), 0);
    edge.ask("/mine", &format!("{}\r\n", fields.join("\r\n")));
    let (report, count) = (ask(), origin.count());
    says(&report, "/caller", "user anna");
    says(&report, "/outcome", "is answered from the cache");
    says(&report, "/cache/key", "mine:anna:sha256");
    says(&report, "/cache/stored", "for this caller alone");
    assert_eq!(report["cache"]["tags"], json!(["user:anna"]));
    assert!(!report.to_string().contains("the-secret"), "{report:#}");
    assert_eq!(origin.count(), count);
    edge.ask("/public/language", "accept-language: de\r\nx-key: another-secret\r\n");
    let report = why(&edge, "http://edge.test/public/language", &["accept-language: en"]);
    says(&report, "/outcome", "made for other requests (Vary)");
    says(&report, "/cache/variants/0/0", "accept-language: de");
    says(&report, "/cache/variants/0/1", "x-key: sha256-");
    assert!(!report.to_string().contains("another-secret"), "{report:#}");
}

fn weir(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weir")).arg("explain").args(arguments).output().unwrap()
}

#[test]
fn the_command_line_asks_the_edge_that_runs() {
    let origin = origin();
    let edge = edge(&origin);
    let admin = edge.admin_address().to_string();
    edge.get("/public/x");
    let asked = weir(&["--admin", &admin, "http://edge.test/public/x"]);
    let said = String::from_utf8_lossy(&asked.stdout).into_owned();
    assert!(asked.status.success(), "{asked:?}");
    assert!(
        said.starts_with(
            "request       GET http://edge.test/public/x\noutcome       is answered from the cache"
        ),
        "{said}"
    );
    assert!(
        said.contains("\nkey           http://edge.test/public/x\n")
            && said.contains("\n  its tags    a b\n"),
        "{said}"
    );
    let by_name = format!("localhost:{}", edge.admin_address().port());
    let asked = weir(&["--admin", &by_name, "http://edge.test/public/x"]);
    assert!(asked.status.success(), "{asked:?}");
    let json = weir(&[
        "--admin",
        &admin,
        "--json",
        "-H",
        "cookie: sid=hidden",
        "-X",
        "HEAD",
        "http://edge.test/public/x",
    ]);
    let report: Value = serde_json::from_slice(&json.stdout).unwrap();
    says(&report, "/request", "HEAD http://edge.test/public/x");
    let wrong = weir(&["--admin", &admin, "nonsense"]);
    assert!(
        !wrong.status.success() && String::from_utf8_lossy(&wrong.stderr).contains("no URL"),
        "{wrong:?}"
    );
    let config = edge.config().to_str().unwrap();
    let without = weir(&["--config", config, "http://edge.test/"]);
    assert!(String::from_utf8_lossy(&without.stderr).contains("name it with --admin"), "{without:?}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    std::fs::write(&file, format!("listeners: [127.0.0.1:0]\nadmin: {{ address: \"{admin}\" }}\n")).unwrap();
    let by_file = weir(&["--config", file.to_str().unwrap(), "http://edge.test/public/x"]);
    assert!(by_file.status.success(), "{by_file:?}");
    assert!(String::from_utf8_lossy(&by_file.stdout).contains("is answered from the cache"), "{by_file:?}");
    let odd = weir(&["--admin", "localhost", "http://edge.test/"]);
    assert!(
        !odd.status.success() && String::from_utf8_lossy(&odd.stderr).contains("no host and port"),
        "{odd:?}"
    );
    let nobody = weir(&["--admin", "127.0.0.1:1", "http://edge.test/"]);
    assert!(
        !nobody.status.success()
            && String::from_utf8_lossy(&nobody.stderr)
                .contains("does not answer: cannot connect: Connection refused"),
        "{nobody:?}"
    );
    assert_eq!(origin.count(), 1);
}
