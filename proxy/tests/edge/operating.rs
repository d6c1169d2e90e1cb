//! What operators see: health, metrics, logs.

use std::net::{SocketAddr, TcpStream};

use socket2::{Domain, Socket, Type};

use crate::support::{Client, Edge, Origin, until};

fn traffic() -> (Origin, Edge) {
    let origin = Origin::named("hello");
    let yaml = format!(
        "upstreams: {{ api: {{ servers: [{}] }} }}
routes:
  - {{ name: pass, match: /x, to: api }}
  - {{ name: fixed, match: /fixed, answer: {{ status: 404, body: no }} }}
",
        origin.address
    );
    let edge = Edge::start(&yaml);
    for path in ["/x", "/x", "/x", "/fixed", "/none"] {
        edge.get(path);
    }
    // Counted when its last byte was written, which the client may see before the count.
    let counted = |route: &str, class: &str| {
        edge.metric(&format!("weir_requests_total{{route=\"{route}\",status=\"{class}\"}}"))
    };
    until("all are counted", || {
        (counted("pass", "2xx"), counted("fixed", "4xx"), counted("-", "4xx")) == (3.0, 1.0, 1.0)
    });
    (origin, edge)
}

#[test]
fn the_families_have_the_right_counts() {
    let (origin, edge) = traffic();
    let text = edge.admin("/metrics").text();
    for (sample, value) in [
        ("weir_requests_total{route=\"pass\",status=\"2xx\"}", 3.0),
        ("weir_requests_total{route=\"fixed\",status=\"4xx\"}", 1.0),
        ("weir_request_duration_seconds_count{route=\"pass\"}", 3.0),
        ("weir_refusals_total{reason=\"no_route\"}", 1.0),
        ("weir_attempt_first_byte_seconds_count{upstream=\"api\"}", 3.0),
        ("weir_requests_in_flight", 0.0),
        (
            &format!(
                "weir_attempts_total{{outcome=\"answered\",peer=\"{}\",upstream=\"api\"}}",
                origin.address
            ),
            3.0,
        ),
        (&format!("weir_peer_up{{peer=\"{}\",upstream=\"api\"}}", origin.address), 1.0),
    ] {
        assert_eq!(edge.metric(sample), value, "{sample} in\n{text}");
    }
    assert!(edge.metric("weir_memory_bytes") > 1e6);
    assert!(edge.admin("/metrics").field("content-type").starts_with("text/plain"));
}

#[test]
fn the_figures_in_short_are_json() {
    let (_origin, edge) = traffic();
    let figures: serde_json::Value = serde_json::from_str(&edge.admin("/api/metrics").text()).unwrap();
    assert_eq!(figures["requests"], serde_json::json!({ "total": 5, "success": 3, "errors": 0 }));
    for name in ["avg", "p50", "p95", "p99"] {
        assert!(figures["responseTimes"][name].as_f64().is_some_and(|ms| ms > 0.0), "{name}: {figures}");
    }
    assert!(figures["activeConnections"].is_number() && figures["uptimeSeconds"].is_number());
    assert!(figures["memory"]["residentBytes"].as_u64().is_some_and(|bytes| bytes > 1_000_000));
}

#[test]
fn the_admin_listener_answers_only_whom_it_may_and_what_it_knows() {
    let edge = Edge::start("routes: [{ match: /*, answer: {} }]\n");
    assert_eq!(edge.admin("/live").status, 200);
    assert_eq!(edge.admin("/ready").status, 200);
    assert_eq!(edge.admin("/nothing").status, 404);
    let health: serde_json::Value = serde_json::from_str(&edge.admin("/health").text()).unwrap();
    assert_eq!((&health["status"], &health["checks"]["redis"]["status"]), (&"ok".into(), &"off".into()));
    let yaml = "admin: { address: 127.0.0.1:0, allow: [10.0.0.0/8] }\nroutes: [{ match: /*, answer: {} }]\n";
    assert_eq!(Edge::start(yaml).admin("/metrics").status, 403);
}

#[test]
fn strangers_cannot_take_the_operators_places_at_the_admin_listener() {
    let yaml =
        "admin: { address: 127.0.0.1:0, allow: [127.0.0.1/32] }\nroutes: [{ match: /*, answer: {} }]\n";
    let edge = Edge::start(yaml);
    let stranger = || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 2], 0)).into()).unwrap();
        socket.connect(&edge.admin_address().into()).unwrap();
        TcpStream::from(socket)
    };
    let refused = Client::new(stranger()).send("GET /live HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n").answer();
    assert_eq!(refused.status, 403);
    // More than there are places, and none of them says anything.
    let crowd: Vec<_> = (0..100).map(|_| stranger()).collect();
    assert_eq!(edge.admin("/live").status, 200);
    drop(crowd);
}

#[test]
fn a_page_whose_name_was_bent_to_this_machine_reads_nothing_from_the_admin_listener() {
    let edge = Edge::start("routes: [{ match: /*, answer: {} }]\n");
    let ask = |host: &str| {
        let request = format!("GET /metrics HTTP/1.1\r\nhost: {host}\r\n\r\n");
        Client::connect(edge.admin_address()).send(request).answer().status
    };
    for host in ["evil.test", "evil.test:80", "127.0.0.1.evil.test", "localhost.evil.test"] {
        assert_eq!(ask(host), 403, "{host}");
    }
    let port = edge.admin_address().port();
    for host in ["127.0.0.1", "localhost", "[::1]:1", &format!("localhost:{port}")] {
        assert_eq!(ask(host), 200, "{host}");
    }
}

#[test]
fn health_says_when_an_upstream_is_down() {
    let mut origin = Origin::named("x");
    let yaml = format!(
        "upstreams: {{ api: {{ servers: [{}], health: {{ path: /, interval: 100ms, fall: 1 }} }} }}\nroutes: [{{ match: /*, to: api }}]\n",
        origin.address
    );
    let edge = Edge::start(&yaml);
    until("it is up", || edge.admin("/health").status == 200);
    origin.die();
    until("it is down", || edge.admin("/health").status == 503);
    let health: serde_json::Value = serde_json::from_str(&edge.admin("/health").text()).unwrap();
    assert_eq!(
        health["checks"]["upstreams"]["api"],
        serde_json::json!({ "status": "down", "up": 0, "of": 1 })
    );
}

#[test]
fn an_edge_that_lost_a_part_is_degraded_and_not_down() {
    let (origin, dead) = (Origin::named("x"), crate::support::nobody());
    let edge = Edge::start(&format!(
        "upstreams:
  api: {{ servers: [{}] }}
  gone: {{ servers: [{dead}], health: {{ path: /, interval: 100ms, fall: 1 }} }}
routes: [{{ match: /gone, to: gone }}, {{ to: api }}]
",
        origin.address
    ));
    let health = || {
        let answer = edge.admin("/health");
        (answer.status, serde_json::from_str::<serde_json::Value>(&answer.text()).unwrap())
    };
    until("it is noticed", || health().1["status"] == "degraded");
    let (status, report) = health();
    assert_eq!((status, &report["checks"]["upstreams"]["gone"]["status"]), (200, &"down".into()));
    assert_eq!(edge.metric("weir_redis_up"), 0.0);
    assert!(!edge.admin("/metrics").text().contains("weir_redis_up "), "no Redis, no figure");
}

#[test]
fn a_request_is_one_json_line_with_its_facts() {
    let origin = Origin::named("hello");
    let edge = Edge::before(&origin);
    let answer = edge.ask("/x?a=%22b", "user-agent: t\r\n");
    let record = edge.record("target", "/x?a=%22b");
    assert_eq!(record["id"], answer.field("x-request-id"));
    assert_eq!(
        (&record["method"], &record["status"], &record["bytes"]),
        (&"GET".into(), &200.into(), &5.into())
    );
    assert_eq!(
        (&record["client"], &record["host"], &record["protocol"]),
        (&"127.0.0.1".into(), &"edge.test".into(), &"HTTP/1.1".into())
    );
    assert_eq!(record["attempts"][0]["peer"], origin.address.to_string());
    assert_eq!(
        (&record["attempts"][0]["outcome"], &record["attempts"][0]["status"]),
        (&"answered".into(), &200.into())
    );
    assert!(record.get("complete").is_none() && record.get("refusal").is_none());
    edge.send("BAD\r\n\r\n");
    let refused = edge.record("line", "BAD");
    assert_eq!((&refused["status"], &refused["refusal"]), (&400.into(), &"bad_line".into()));
}

#[test]
fn combined_lines_go_to_a_file_that_is_opened_anew_after_a_rotation() {
    let folder = tempfile::tempdir().unwrap();
    let (path, moved) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
    let yaml = format!(
        "log: {{ access: {{ format: combined, path: {} }} }}\nroutes: [{{ match: /*, answer: {{ body: hello }} }}]\n",
        path.display()
    );
    let edge = Edge::start(&yaml);
    edge.ask("/one", "user-agent: say \"hi\"\r\nreferer: http://r/\r\n");
    let read = |path: &std::path::Path| std::fs::read_to_string(path).unwrap_or_default();
    until("the line", || read(&path).ends_with('\n'));
    let line = read(&path);
    assert!(line.starts_with("127.0.0.1 - - ["), "{line}");
    assert!(line.ends_with("] \"GET /one HTTP/1.1\" 200 5 \"http://r/\" \"say \\x22hi\\x22\"\n"), "{line}");
    std::fs::rename(&path, &moved).unwrap();
    edge.reload(&yaml);
    edge.get("/two");
    until("the line in the new file", || read(&path).contains("/two"));
    assert!(read(&moved).contains("/one") && !read(&moved).contains("/two") && !read(&path).contains("/one"));
}

#[test]
fn usr1_opens_the_log_anew_and_changes_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (path, moved) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
    let edge = Edge::start(&format!(
        "log: {{ access: {{ path: {} }} }}\nroutes: [{{ answer: {{ body: hello }} }}]\n",
        path.display()
    ));
    edge.get("/one");
    let read = |path: &std::path::Path| std::fs::read_to_string(path).unwrap_or_default();
    until("the line", || read(&path).contains("/one"));
    std::fs::rename(&path, &moved).unwrap();
    std::fs::write(edge.config(), "routes: broken").unwrap();
    edge.signal("USR1");
    until("the new file", || path.exists());
    edge.get("/two");
    until("the line in the new file", || read(&path).contains("/two"));
    assert!(!read(&moved).contains("/two") && !read(&path).contains("/one"));
}

#[test]
fn a_log_that_cannot_be_written_is_told_once_counted_and_told_when_it_can_be_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let yaml = format!(
        "log: {{ access: {{ path: {} }} }}\nroutes: [{{ answer: {{ body: hello }} }}]\n",
        path.display()
    );
    // What is written to it finds no space, as on a full disk.
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    let edge = Edge::start(&yaml);
    let mut client = edge.connect();
    let lost = || edge.metric("weir_access_log_dropped_total{reason=\"failed\"}");
    let target = format!("/{}", "x".repeat(4000));
    until("more lines than fit into the buffer", || {
        (0..20).for_each(|_| assert_eq!(client.ask(&target, "").text(), "hello", "requests go on"));
        lost() > 0.0
    });
    std::fs::remove_file(&path).unwrap();
    edge.signal("USR1");
    until("the lines that waited", || path.metadata().is_ok_and(|file| file.len() > 4000));
    until("the end of the trouble", || edge.output().contains("access log is written again"));
    let output = edge.output();
    assert_eq!(output.matches("access log cannot be written").count(), 1, "{output}");
    assert!(output.contains("No space left on device"), "{output}");
}

/// An edge whose log is a pipe that is full, and the end that nobody has read from.
fn behind() -> (Edge, std::fs::File) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    // Read and write, so that nobody waits for the other end to be opened.
    let reader = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let edge = Edge::start(&format!(
        "log: {{ access: {{ path: {}, queue: 1 }} }}\nroutes: [{{ answer: {{ body: hello }} }}]\n",
        path.display()
    ));
    let mut client = edge.connect();
    let lost = || edge.metric("weir_access_log_dropped_total{reason=\"behind\"}");
    let target = format!("/{}", "x".repeat(4000));
    until("more lines than pipe, buffer and queue hold", || {
        (0..20).for_each(|_| assert_eq!(client.ask(&target, "").text(), "hello", "requests go on"));
        lost() > 0.0
    });
    (edge, reader)
}

#[test]
fn a_log_that_nobody_reads_does_not_keep_the_process() {
    let (mut edge, _reader) = behind();
    edge.signal("TERM");
    assert_eq!(edge.ended().code(), Some(0));
}

#[test]
fn a_log_that_is_behind_delays_nobody_and_is_told_once_until_it_keeps_up() {
    let (edge, mut reader) = behind();
    assert_eq!(edge.output().matches("access log is behind").count(), 1);
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while std::io::Read::read(&mut reader, &mut bytes).is_ok_and(|read| read > 0) {}
    });
    until("it keeps up", || edge.output().contains("access log keeps up again"));
}

#[test]
fn many_slow_requests_are_told_a_few_at_a_time_and_then_their_number() {
    let origin = Origin::start(|_, wire| {
        std::thread::sleep(std::time::Duration::from_millis(2));
        wire.send(crate::support::ok(""));
    });
    let edge = Edge::routing(&origin, "", "log: { slow: 1ms, access: off }");
    let mut client = edge.connect();
    let said = |words: &str| edge.output().lines().filter(|line| line.contains(words)).count();
    let mut asked = 0;
    until("their number", || {
        (0..50).for_each(|_| assert_eq!(client.ask("/", "").status, 200));
        asked += 50;
        said("more slow requests") > 0
    });
    assert!(said("\"slow request\"") < asked, "{} of {asked}", said("\"slow request\""));
}

#[test]
fn a_slow_request_gets_a_warning() {
    let origin = Origin::start(|_, wire| {
        std::thread::sleep(std::time::Duration::from_millis(5));
        wire.send(crate::support::ok(""));
    });
    let edge = Edge::routing(&origin, "", "log: { slow: 1ms }");
    let answer = edge.get("/");
    until("the warning", || {
        let output = edge.output();
        output
            .lines()
            .any(|line| line.contains("slow request") && line.contains(&answer.field("x-request-id")))
    });
}

#[test]
fn a_configuration_with_problems_does_not_start_and_names_them_all() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.yaml");
    std::fs::write(&config, "listeners: [nowhere]\nroutes:\n  - match: /x\n    too: api\n").unwrap();
    for command in ["run", "check"] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_weir"))
            .arg(command)
            .arg(&config)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1));
        assert!(said.contains("config.yaml:1:") && said.contains("config.yaml:4:"), "{said}");
    }
}
