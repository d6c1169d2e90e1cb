//! Where a request goes: hosts, paths, methods, and the answers that need no origin.

use crate::support::{Edge, Origin};

/// A route that answers with its own name.
fn named(name: &str, condition: &str) -> String {
    format!("  - match: {condition}\n    answer: {{ body: \"{name} ${{path.id:-}}\" }}\n")
        .replace(" ${path.id:-}", "")
}

#[test]
fn the_first_route_whose_host_path_and_method_match_answers() {
    let mut yaml = String::from("routes:\n");
    yaml += &named("api", "{ hosts: [api.test], path: /* }");
    yaml += &named("wild", "{ hosts: [\"*.wild.test\"], path: /* }");
    yaml += &named("exact", "/exact");
    yaml += &named("below", "/below/*");
    yaml += &named("regex", "~ ^/r/[0-9]+$");
    yaml += "  - match: \"/items/{id}\"\n    answer: { body: \"item ${path.id}\" }\n";
    yaml += "  - match: { path: /write, methods: [PUT, DELETE] }\n    answer: { body: write }\n";
    yaml += "  - match: { path: /typed, headers: { content-type: { equals: a/b } } }\n    answer: { body: typed }\n";
    let edge = Edge::start(&yaml);
    let ask = |host: &str, path: &str| {
        let answer = edge.send(format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n"));
        if answer.status == 200 { answer.text() } else { answer.status.to_string() }
    };
    assert_eq!(ask("api.test", "/exact"), "api");
    assert_eq!(ask("API.test:99", "/exact"), "api");
    assert_eq!(ask("a.b.wild.test", "/"), "wild");
    assert_eq!(ask("wild.test", "/"), "404", "below the name, not the name itself");
    assert_eq!(ask("other", "/exact"), "exact");
    assert_eq!(ask("other", "/exact/"), "404");
    assert_eq!(ask("other", "/below/a/b"), "below");
    assert_eq!(ask("other", "/belowish"), "404");
    assert_eq!(ask("other", "/r/12"), "regex");
    assert_eq!(ask("other", "/r/1a"), "404");
    assert_eq!(ask("other", "/items/7"), "item 7");
    assert_eq!(ask("other", "/items/7/8"), "404");
    assert_eq!(ask("other", "/typed"), "404");
    assert_eq!(edge.ask("/typed", "content-type: a/b\r\n").text(), "typed");
    let refused = edge.get("/write");
    assert_eq!((refused.status, &*refused.field("allow")), (405, "DELETE, PUT"));
    assert_eq!(edge.send("PUT /write HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n").text(), "write");
}

#[test]
fn dots_and_doubled_encodings_reach_no_other_route() {
    let yaml = "routes:\n  - match: /admin/*\n    access: { deny: [0.0.0.0/0] }\n    answer: { body: admin }\n  - match: /*\n    answer: { body: open }\n";
    let edge = Edge::start(yaml);
    for path in ["/admin/x", "/a/../admin/x", "/%61dmin/x", "/./admin/x", "/a/%2e%2e/admin/x"] {
        let answer = edge.get(path);
        assert!(answer.status == 403 || answer.status == 400, "{path}: {} {}", answer.status, answer.text());
    }
    assert_eq!(edge.get("/other").text(), "open");
}

#[test]
fn redirects_and_fixed_answers() {
    let yaml = r#"routes:
  - match: /old/*
    redirect: { status: 308, location: "https://example.org${request.path}" }
  - match: /teapot
    answer: { status: 418, type: text/html, body: "<p>${client.ip}</p>" }
"#;
    let edge = Edge::start(yaml);
    let answer = edge.get("/old/a%20b");
    assert_eq!((answer.status, &*answer.field("location")), (308, "https://example.org/old/a%20b"));
    assert_eq!(answer.body.len(), 0);
    let mut client = edge.connect();
    let answer = client.ask("/teapot", "");
    assert_eq!((answer.status, answer.text()), (418, "<p>127.0.0.1</p>".into()));
    assert_eq!(answer.field("content-type"), "text/html");
    let head = client.send("HEAD /teapot HTTP/1.1\r\nhost: h\r\n\r\n").answer_to_head();
    assert_eq!(head.field("content-length"), answer.field("content-length"));
    assert_eq!(client.ask("/teapot", "").status, 418, "the connection goes on");
    let none = client.ask("/nothing", "");
    assert_eq!((none.status, &*none.field("content-type")), (404, "application/json"));
    assert!(none.text().contains("no_route"), "{}", none.text());
}

#[test]
fn files_have_types_validators_and_ranges_and_no_way_out() {
    let root = tempfile::tempdir().unwrap();
    let files = root.path().join("public");
    std::fs::create_dir_all(files.join("folder")).unwrap();
    std::fs::write(root.path().join("secret"), "secret").unwrap();
    std::fs::write(files.join("a.html"), "0123456789").unwrap();
    std::fs::write(files.join("folder/index.html"), "index").unwrap();
    std::os::unix::fs::symlink(root.path().join("secret"), files.join("link")).unwrap();
    let yaml = format!(
        "routes:\n  - match: /static/*\n    files: {{ root: {}, cache_control: no-cache }}\n",
        files.display()
    );
    let edge = Edge::start(&yaml);
    let mut client = edge.connect();

    let answer = client.ask("/static/a.html", "");
    assert_eq!((answer.status, answer.text()), (200, "0123456789".into()));
    assert!(answer.field("content-type").starts_with("text/html"));
    assert_eq!(answer.field("cache-control"), "no-cache");
    let etag = answer.field("etag");
    assert_eq!(client.ask("/static/a.html", format!("if-none-match: {etag}\r\n")).status, 304);
    assert_eq!(client.ask("/static/a.html", "if-match: \"x\"\r\n").status, 412);

    let part = client.ask("/static/a.html", "range: bytes=2-4\r\n");
    assert_eq!(
        (part.status, part.text(), &*part.field("content-range")),
        (206, "234".into(), "bytes 2-4/10")
    );
    let tail = client.ask("/static/a.html", "range: bytes=-3\r\n");
    assert_eq!((tail.status, tail.text()), (206, "789".into()));
    let beyond = client.ask("/static/a.html", "range: bytes=10-\r\n");
    assert_eq!((beyond.status, &*beyond.field("content-range")), (416, "bytes */10"));
    let head = client.send("HEAD /static/a.html HTTP/1.1\r\nhost: h\r\n\r\n").answer_to_head();
    assert_eq!((head.status, &*head.field("content-length")), (200, "10"));
    assert_eq!(client.ask("/static/folder/", "").text(), "index");
    assert_eq!(client.ask("/static/none", "").status, 404);

    for path in [
        "/static/../secret",
        "/static/%2e%2e/secret",
        "/static/..%2fsecret",
        "/static/link",
        "/static//etc/passwd",
        "/static/a.html%00",
    ] {
        let answer = edge.get(path);
        assert!([400, 403, 404].contains(&answer.status), "{path}: {} {}", answer.status, answer.text());
        assert!(!answer.text().contains("secret\n") && answer.text() != "secret", "{path}");
    }
    let posted = edge.send("POST /static/a.html HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(posted.status, 405);
}

#[test]
fn a_refusal_names_neither_route_nor_peer() {
    let mut origin = Origin::named("x");
    let edge = Edge::before(&origin);
    let address = origin.address.to_string();
    origin.die();
    let answer = edge.get("/");
    assert_eq!(answer.status, 502);
    assert_eq!(answer.field("cache-control"), "no-store");
    assert!(!answer.text().contains(&address) && !answer.text().contains("api"), "{}", answer.text());
}

/// A page that shows what was asked for must not run it.
#[test]
fn what_a_client_sends_is_text_in_a_fixed_answer() {
    let answer = |kind: &str, body: &str| {
        format!("  - {{ match: /{kind}, answer: {{ type: application/{kind}, body: '{body}' }} }}\n")
    };
    let edge = Edge::start(&format!(
        "routes:\n{}{}{}  - {{ match: /plain, answer: {{ body: '${{query.q}}' }} }}\n",
        answer("xhtml+xml", "<p title=\"${query.q}\">${query.q}</p>"),
        answer("json", "{\"q\":\"${query.q}\"}"),
        answer("problem+json", "{\"q\":\"${query.q}\"}"),
    ));
    let q = "%22%3E%3Cscript%3E%26'%5C";
    let shown = "&quot;&gt;&lt;script&gt;&amp;&#39;\\";
    assert_eq!(edge.get(&format!("/xhtml+xml?q={q}")).text(), format!("<p title=\"{shown}\">{shown}</p>"));
    for path in ["/json", "/problem+json"] {
        let said: serde_json::Value =
            serde_json::from_str(&edge.get(&format!("{path}?q={q}")).text()).unwrap();
        assert_eq!(said["q"], "\"><script>&'\\");
    }
    assert_eq!(edge.get(&format!("/plain?q={q}")).text(), "\"><script>&'\\");
}
