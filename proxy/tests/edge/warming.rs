//! `weir warm`: pages are in the cache before anybody asks, at a bounded rate.

use std::{
    io::Write,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::{
    protocols::{certificate, tls_listener},
    support::{Edge, Origin, until},
};

struct Said {
    done: bool,
    out: String,
    err: String,
}

fn warm(arguments: &[&str], input: &str) -> Said {
    let mut weir = Command::new(env!("CARGO_BIN_EXE_weir"))
        .arg("warm")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    weir.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = weir.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said { done: output.status.success(), out: text(&output.stdout), err: text(&output.stderr) }
}

fn origin() -> Origin {
    Origin::start(|request, wire| match request.target() {
        "/no" => wire.answer("cache-control: no-store\r\n", "x"),
        "/missing" => drop(wire.send("HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n")),
        "/long" => wire.answer("cache-control: max-age=60\r\n", "x".repeat(3 << 20)),
        "/index.xml" => wire.answer(
            "content-type: application/xml\r\n",
            "<sitemapindex><sitemap><loc>http://edge.test/map.xml</loc></sitemap></sitemapindex>",
        ),
        "/map.xml" => {
            wire.answer(
                "content-type: application/xml\r\n",
                "<urlset><url><loc>http://edge.test/listed?a=1&amp;b=2</loc></url></urlset>",
            );
        }
        _ => wire.answer("cache-control: max-age=60\r\n", "x"),
    })
}

fn keeping(origin: &Origin) -> Edge {
    Edge::routing(origin, "cache: { in: store }", "caches: { store: { memory: 16MiB } }")
}

/// A client may have its answer a moment before it is kept.
#[track_caller]
fn is_kept(edge: &Edge, path: &str) {
    until("it is kept", || edge.get(path).cache().starts_with("weir; hit"));
}

#[test]
fn what_a_list_names_is_kept_before_anybody_asks() {
    let origin = origin();
    let edge = keeping(&origin);
    let to = edge.http().to_string();
    let list = "/a\nhttp://edge.test/b?x\n/a\n# not this\n/no\n/missing\n/long\nnot a page\n";
    let said = warm(&["-", "--to", &to, "--host", "edge.test"], list);
    assert_eq!(
        said.out, "5 of 5 pages: 3 kept, 0 were there, 1 are not kept, 1 failed; 1 lines name no page\n",
        "{}",
        said.err
    );
    assert!(!said.done, "one failed");
    let asked = origin.count();
    for path in ["/a", "/b?x", "/long"] {
        is_kept(&edge, path);
    }
    assert_eq!(origin.count(), asked);
    let again = warm(&["-", "--to", &to, "--host", "edge.test"], "/a\n/b?x\n");
    assert!(again.done && again.out.contains("0 kept, 2 were there"), "{}", again.out);
}

#[test]
fn a_sitemap_is_read_through_the_edge_and_a_log_ranks_its_pages() {
    let origin = origin();
    let edge = keeping(&origin);
    let to = edge.http().to_string();
    let said = warm(&["http://edge.test/index.xml", "--to", &to], "");
    assert!(said.done && said.out.starts_with("1 of 1 pages: 1 kept"), "{} {}", said.out, said.err);
    is_kept(&edge, "/listed?a=1&b=2");
    let line = |target: &str| format!("::1 - - [-] \"GET {target} HTTP/1.1\" 200 5 \"-\" \"-\"\n");
    let log = [line("/once"), line("/often"), line("/often")].concat();
    let said = warm(&["-", "--to", &to, "--host", "edge.test", "--most", "1"], &log);
    assert!(said.done, "{}", said.out);
    assert_eq!(origin.last().target(), "/often");
    // What the edge itself wrote down can warm the next one.
    edge.record("target", "/often");
    let own = edge.output();
    let next = keeping(&origin);
    let said = warm(&["-", "--to", &next.http().to_string()], &own);
    assert!(said.out.contains("kept"), "{}", said.out);
    is_kept(&next, "/often");
}

#[test]
fn the_rate_is_bounded_and_progress_is_told() {
    let origin = origin();
    let edge = keeping(&origin);
    let list: String = (0..25).map(|n| format!("/{n}\n")).collect();
    let started = Instant::now();
    let said = warm(&["-", "--to", &edge.http().to_string(), "--host", "edge.test", "--rate", "20"], &list);
    assert!(started.elapsed() >= Duration::from_millis(1100), "{:?}", started.elapsed());
    assert!(said.done && said.out.starts_with("25 of 25 pages: 25 kept"), "{}", said.out);
    assert!(said.err.contains(" of 25 pages: ") && said.err.contains(" s left"), "{}", said.err);
}

#[test]
fn what_cannot_be_asked_is_said() {
    let said = warm(&["https://edge.test/index.xml", "--to", "127.0.0.1:1"], "");
    assert!(!said.done && said.err.contains("no listener is known for https"), "{}", said.err);
    let said = warm(&["/no/such/file", "--to", "127.0.0.1:1"], "");
    assert!(!said.done && said.err.contains("/no/such/file"), "{}", said.err);
    let nobody = crate::support::nobody().to_string();
    let said = warm(&["-", "--to", &nobody, "--host", "a.test"], "/\n");
    assert!(!said.done && said.out.contains("1 failed"), "{} {}", said.out, said.err);
}

/// Once, the first of them refused the whole list.
#[test]
fn pages_without_a_listener_for_their_scheme_are_counted_and_the_others_warmed() {
    let origin = origin();
    let edge = keeping(&origin);
    let list = "https://edge.test/a\nhttps://edge.test/b\nhttp://edge.test/c\n";
    let said = warm(&["-", "--to", &edge.http().to_string()], list);
    assert_eq!(
        said.out,
        "1 of 1 pages: 1 kept, 0 were there, 0 are not kept, 0 failed; \
         2 not asked for: no listener of their scheme is known (--to, --to-tls)\n",
        "{}",
        said.err
    );
    assert!(!said.done, "as where some failed");
    is_kept(&edge, "/c");
}

#[test]
fn pages_by_https_are_asked_for_by_https() {
    let (origin, folder) = (origin(), tempfile::tempdir().unwrap());
    certificate(folder.path(), "one", "edge.test");
    let edge = Edge::start(&format!(
        "listeners: [127.0.0.2:0, {}]\ncaches: {{ store: {{}} }}\nupstreams: {{ api: {{ servers: [{}] }} }}\nroutes: [{{ to: api, cache: {{ in: store }} }}]\n",
        tls_listener(folder.path(), &["one"]),
        origin.address
    ));
    let (to, to_tls) = (edge.http().to_string(), edge.https().to_string());
    let both = warm(&["-", "--to", &to, "--to-tls", &to_tls], "https://edge.test/x\nhttp://edge.test/x\n");
    assert!(both.done && both.out.contains("2 kept"), "{} {}", both.out, both.err);
    until("both are kept", || edge.metric("weir_cache_entries{cache=\"store\"}") == 2.0);
}
