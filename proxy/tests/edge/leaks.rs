//! The leak guard: what an origin wrongly says is for everybody, and shows whose it is, is kept for nobody.

use std::sync::Arc;

use crate::support::{Edge, Gate, Origin, until};

/// What an answer to a token is: further fields, and the body.
type Show = fn(&str) -> (String, String);

/// Shows its caller what it knows of them, and says that it is for everybody.
fn careless(show: Show) -> Origin {
    Origin::start(move |request, wire| {
        let token = request.field("authorization").replace("Bearer ", "") + &request.field("x-token");
        if request.target() == "/auth/session" {
            let session = format!(
                r#"{{"user_id":"id-of-{0}","session_id":"session-of-{0}","email":"{0}@example.org"}}"#,
                name(&token)
            );
            return wire.answer("", session);
        }
        let (fields, body) = show(&token);
        wire.answer(&format!("cache-control: public, max-age=60\r\n{fields}"), body);
    })
}

fn edge(origin: &Origin, rule: &str) -> Edge {
    Edge::start(&format!(
        "caches: {{ store: {{}} }}
sessions: {{ app: {{ from: [bearer, {{ header: x-token }}], ask: {{ upstream: api, path: /auth/session }} }} }}
upstreams: {{ api: {{ servers: [{}] }} }}
routes:
  - {{ name: shared, match: /*, session: {{ use: app }}, cache: {{ in: store, ttl: 60s{rule} }}, to: api }}
",
        origin.address
    ))
}

/// Whose token it is.
fn name(token: &str) -> &str {
    token.strip_prefix("tokenof").unwrap_or(token)
}

const FOUND: &str = "weir_cache_leaks_prevented_total{cache=\"store\"}";

#[test]
fn an_answer_that_shows_its_caller_is_not_kept_and_the_operator_hears_of_it() {
    let shows: [(Show, &str); 6] = [
        (|token| (String::new(), format!("<p>{}@example.org</p>", name(token))), "leak-email"),
        (|token| (String::new(), format!("{{\"token\":\"{token}\"}}")), "leak-"),
        (|token| (String::new(), format!("<a href=/users/id-of-{}>", name(token))), "leak-user-id"),
        (|token| (String::new(), format!("session-of-{}", name(token))), "leak-session-id"),
        (|token| (format!("x-user: {}@example.org\r\n", name(token)), "x".to_owned()), "leak-email"),
        (
            |token| (String::new(), format!("{0}{1}@example.org{0}", "x".repeat(4000), name(token))),
            "leak-email",
        ),
    ];
    for (show, reason) in shows {
        for credentials in ["authorization: Bearer", "x-token:"] {
            let origin = careless(show);
            let edge = edge(&origin, "");
            let ask = |token: &str| edge.ask("/page", &format!("{credentials} {token}\r\n"));
            let first = ask("tokenofanna");
            let (_, body) = show("tokenofanna");
            assert_eq!((first.status, first.text()), (200, body), "the caller gets it whole");
            let status = first.cache();
            assert!(status.contains(&format!("detail={reason}")) && !status.contains("stored"), "{status}");
            let second = ask("tokenofbert");
            assert!(!second.text().contains("anna") && !format!("{:?}", second.head).contains("anna"));
            assert!(!edge.get("/page").text().contains("anna"), "nor does a stranger get it");
            assert_eq!(edge.metric(FOUND), 2.0);
            until("the operator hears of it", || {
                edge.output()
                    .lines()
                    .any(|line| line.contains("\"WARN\"") && line.contains(reason) && line.contains("shared"))
            });
            let warned: Vec<_> = edge
                .output()
                .lines()
                .filter(|line| line.contains("showed its caller"))
                .map(str::to_owned)
                .collect();
            assert!(
                warned.iter().all(|line| !line.contains("anna") && !line.contains("bert")),
                "but not what it was: {warned:?}"
            );
        }
    }
}

#[test]
fn the_explanation_says_what_was_found() {
    let origin = careless(|token| (String::new(), format!("mail: {}@example.org", name(token))));
    let edge = edge(&origin, "");
    edge.ask("/page", "authorization: Bearer tokenofanna\r\n");
    let question = serde_json::json!({ "url": "http://edge.test/page" });
    let (_, report) = edge.operate("POST", "/explain", &question, "");
    assert_eq!(report["cache"]["last_refusal"]["reason"], "leak-email");
    assert_eq!(
        report["cache"]["last_refusal"]["why"],
        "it said it was for everybody, and showed the caller's address"
    );
}

#[test]
fn an_answer_that_shows_nobody_is_kept_for_everybody() {
    let origin = careless(|_| (String::new(), "the same for all".to_owned()));
    let edge = edge(&origin, "");
    edge.ask("/page", "authorization: Bearer tokenofanna\r\ncookie: lang=en; id=0123456789abcdef0123\r\n");
    let asked = origin.count();
    let second = edge.ask("/page", "authorization: Bearer tokenofbert\r\n");
    assert!(second.cache().contains("hit") && second.text() == "the same for all", "{}", second.cache());
    assert!(edge.get("/page").cache().contains("hit"));
    assert_eq!((origin.count() - asked, edge.metric(FOUND)), (1, 0.0), "only Bert's session was asked for");
}

#[test]
fn a_large_answer_that_was_looked_into_arrives_whole_and_is_kept() {
    for chunked in [false, true] {
        let body: String = (0..40_000).map(|number| format!("{number} ")).collect();
        let expected = body.clone();
        let origin = Origin::start(move |_, wire| {
            let fields = "cache-control: public, max-age=60\r\n";
            if !chunked {
                return wire.answer(fields, &body);
            }
            wire.send(format!("HTTP/1.1 200 OK\r\n{fields}transfer-encoding: chunked\r\n\r\n"));
            for piece in body.as_bytes().chunks(1000) {
                wire.send(format!("{:x}\r\n", piece.len()));
                wire.send(piece);
                wire.send("\r\n");
            }
            wire.send("0\r\n\r\n");
        });
        let edge = edge(&origin, "");
        for round in 0..3 {
            let answer = edge.ask("/large", "cookie: id=0123456789abcdef0123\r\n");
            assert!(answer.whole && answer.text() == expected, "round {round}, chunked {chunked}");
            assert_eq!(answer.cache().contains("hit"), round > 0, "{}", answer.cache());
        }
        assert_eq!(origin.count(), 1);
    }
}

#[test]
fn a_find_reaches_nobody_who_waits_for_the_same() {
    let (gate, held) = (Arc::new(Gate::default()), Arc::new(Gate::default()));
    let (release, arrived) = (Arc::clone(&gate), Arc::clone(&held));
    let origin = Origin::start(move |request, wire| {
        let cookie = request.field("cookie");
        wire.send(
            "HTTP/1.1 200 OK\r\ncache-control: public, max-age=60\r\ncontent-length: 40\r\n\r\n0123456789",
        );
        arrived.open();
        release.pass();
        wire.send(format!("{cookie:>30}"));
    });
    let edge = Edge::routing(&origin, "cache: { in: store }", "caches: { store: {} }");
    let mut clients: Vec<_> = ["anna", "bert", "cleo"]
        .map(|name| (format!("sid=cookie-of-{name}-0123"), edge.connect()))
        .into_iter()
        .collect();
    for (cookie, client) in &mut clients {
        client.send(format!("GET /x HTTP/1.1\r\nhost: edge.test\r\ncookie: {cookie}\r\n\r\n"));
    }
    held.pass();
    until("all are under way", || edge.metric("weir_requests_in_flight") == 3.0);
    gate.open();
    for (cookie, client) in &mut clients {
        let answer = client.answer();
        assert!(answer.whole && answer.text().ends_with(&*cookie), "{cookie} got {}", answer.text());
    }
    assert_eq!(edge.metric("weir_cache_entries{cache=\"store\"}"), 0.0);
}

#[test]
fn an_answer_that_breaks_while_it_is_looked_into_is_a_failure() {
    let origin = Origin::start(|_, wire| {
        wire.send(
            "HTTP/1.1 200 OK\r\ncache-control: public, max-age=60\r\ncontent-length: 50\r\n\r\nonly this",
        );
        wire.cut();
    });
    let edge = edge(&origin, "");
    for _ in 0..2 {
        assert_eq!(edge.ask("/x", "cookie: id=0123456789abcdef0123\r\n").status, 502);
    }
    assert_eq!(edge.metric("weir_cache_entries{cache=\"store\"}"), 0.0);
}

#[test]
fn an_answer_to_a_session_is_not_shared_unless_the_origin_says_so() {
    let origin = Origin::start(|request, wire| match request.target() {
        "/auth/session" => wire.answer("", r#"{"user_id":"somebody-long"}"#),
        "/said" => wire.answer("cache-control: s-maxage=60\r\n", "x"),
        _ => wire.answer("cache-control: max-age=60\r\n", "x"),
    });
    let edge = edge(&origin, "");
    let first = edge.ask("/unsaid", "x-token: tokenofanna\r\n");
    assert!(first.cache().contains("detail=session"), "{}", first.cache());
    assert!(!edge.get("/unsaid").cache().contains("hit"));
    edge.ask("/said", "x-token: tokenofanna\r\n");
    assert!(edge.get("/said").cache().contains("hit"));
}

#[test]
fn a_token_that_nobody_knows_here_makes_an_answer_of_one_s_own_as_well() {
    let origin = Origin::start(|request, wire| {
        let who = request.field("x-token") + &request.field("cookie");
        let said = match request.target() {
            "/auth/session" => {
                assert!(wire.send("HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n"));
                return;
            }
            "/unsaid" => "max-age=60",
            _ => "public, max-age=60",
        };
        let shown = if request.target() == "/said" { "everybody" } else { &who };
        wire.answer(&format!("cache-control: {said}\r\n"), format!("of {shown}"));
    });
    for more in ["", ", key: \"page:${session.user_id}:${request.path}\"", ", ignore: [cookie]"] {
        let edge = Edge::start(&format!(
            "caches: {{ store: {{}} }}
sessions: {{ app: {{ from: [{{ header: x-token }}, {{ cookie: sid }}], ask: {{ upstream: api, path: /auth/session }} }} }}
upstreams: {{ api: {{ servers: [{}] }} }}
routes: [{{ match: /*, session: {{ use: app }}, cache: {{ in: store{more} }}, to: api }}]
",
            origin.address
        ));
        let tokens = [
            "x-token: token-of-anna\r\n",
            "x-token: token of bert, with spaces\r\n",
            "x-token: token-of-cleo\r\nx-token: and another\r\n",
            "cookie: sid=token-of-dora-the-sixth\r\n",
            "cookie: sid=\r\n",
        ];
        for fields in tokens {
            for _ in 0..2 {
                let answer = edge.ask("/unsaid", fields);
                assert!(
                    !answer.cache().contains("stored") && !answer.cache().contains("hit"),
                    "{fields}{more}"
                );
            }
            let asked = serde_json::json!({ "url": "http://edge.test/unsaid", "headers": fields.lines().collect::<Vec<_>>() });
            let report = crate::support::operate(&edge, "POST", "/explain", &asked, "").1;
            assert!(report["cache"]["stored"].to_string().contains("only if the origin says"), "{report:#}");
        }
        for fields in [tokens[0], tokens[3]] {
            let answer = edge.ask("/shown", fields);
            assert!(answer.cache().contains("detail=leak-"), "{fields}{more}: {}", answer.cache());
        }
        assert_eq!(
            (edge.get("/unsaid").text(), edge.get("/shown").text()),
            ("of ".to_owned(), "of ".to_owned())
        );
        edge.ask("/said", tokens[1]);
        assert!(edge.get("/said").cache().contains("hit"), "what the origin says is everybody's is shared");
    }
}

#[test]
fn under_a_key_of_their_own_callers_find_what_is_theirs() {
    let origin = careless(|token| (String::new(), format!("<p>{}@example.org</p>", name(token))));
    let edge = edge(&origin, ", key: \"page:${session.user_id}\"");
    let ask = |token: &str| edge.ask("/page", &format!("authorization: Bearer {token}\r\n"));
    for token in ["tokenofanna", "tokenofbert"] {
        ask(token);
        let again = ask(token);
        assert!(again.cache().contains("hit") && again.text().contains(name(token)), "{}", again.cache());
    }
    assert_eq!(edge.metric(FOUND), 0.0);
}

#[test]
fn callers_without_what_the_key_goes_by_do_not_share_what_is_each_one_s() {
    let origin = Origin::start(|request, wire| {
        let token = request.field("authorization").replace("Bearer ", "");
        if request.target() == "/auth/session" {
            let email = if token == "tokenofanna" { r#","email":"anna@example.org""# } else { "" };
            return wire.answer("", format!(r#"{{"user_id":"{token}"{email}}}"#));
        }
        wire.answer("cache-control: max-age=60\r\n", format!("of {token}"));
    });
    let edge = edge(&origin, ", key: \"page:${session.email}:${request.path}\"");
    for token in ["tokenofbert", "tokenofcarl", "tokenofanna", "tokenofbert", "tokenofanna"] {
        let answer = edge.ask("/page", &format!("authorization: Bearer {token}\r\n"));
        assert_eq!(answer.text(), format!("of {token}"), "{}", answer.cache());
    }
    let pages = origin.seen().iter().filter(|request| request.target() == "/page").count();
    assert_eq!(pages, 4, "who has one finds their own");
}

#[test]
fn what_is_private_is_shared_by_nobody_whom_the_key_does_not_name() {
    let origin = Origin::start(|request, wire| {
        let who = request.field("cookie") + &request.field("authorization");
        if request.target() == "/auth/session" {
            return match who.contains("tokenofanna") {
                true => wire.answer("", r#"{"user_id":"anna-the-first"}"#),
                false => assert!(wire.send("HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n")),
            };
        }
        let word = request.target()[1..].replace("unsaid", "x-nothing");
        wire.answer(&format!("cache-control: {word}, max-age=60\r\n"), format!("of {who}"));
    });
    for key in [
        "page:${session.user_id}:${request.path}",
        "${session.user_id}:${request.target}",
        "${session.session_id}:${session.user_id}:${session.email}:${request.path}",
    ] {
        let edge = edge(&origin, &format!(", key: \"{key}\""));
        let strangers = [
            "cookie: cart=A\r\n",
            "cookie: cart=B\r\n",
            "authorization: Basic YW5uYQ==\r\n",
            "authorization: Basic YmVydA==\r\n",
            "authorization: Bearer nobody-that-is-known\r\n",
            "authorization: Bearer nobody-else-either\r\n",
            "",
        ];
        for target in ["/private", "/unsaid"] {
            for fields in strangers {
                let answer = edge.ask(target, fields);
                let who = fields.split_once(": ").map_or("", |(_, value)| value.trim());
                assert_eq!(answer.text(), format!("of {who}"), "{target} under {key}: {}", answer.cache());
            }
        }
        for (round, fields) in [(0, ""), (1, strangers[0]), (2, strangers[4])] {
            let answer = edge.ask("/public", fields);
            assert_eq!(answer.cache().contains("hit"), round > 0, "what is everybody's: {}", answer.cache());
        }
        for round in 0..2 {
            let answer = edge.ask("/private", "cookie: cart=A\r\nauthorization: Bearer tokenofanna\r\n");
            assert_eq!(answer.cache().contains("hit"), round > 0, "what is Anna's: {}", answer.cache());
        }
        let question = |fields: &[&str]| {
            let asked = serde_json::json!({ "url": "http://edge.test/private", "headers": fields });
            crate::support::operate(&edge, "POST", "/explain", &asked, "").1["cache"]["stored"].to_string()
        };
        assert!(question(&["cookie: cart=A"]).contains("only if the origin says that it is for everybody"));
        assert!(question(&["authorization: Bearer tokenofanna"]).contains("for this caller alone"));
    }
}

#[test]
fn what_varies_by_who_the_edge_says_asks_is_not_shared() {
    let origin = Origin::start(|request, wire| {
        if request.target() == "/auth/session" {
            return wire.answer("", r#"{"user_id":"anna","plan":"gold"}"#);
        }
        let fields = format!("cache-control: public, max-age=60\r\nvary: {}\r\n", &request.target()[1..]);
        wire.answer(&fields, if request.has("x-weir-identity") { "for members" } else { "for strangers" });
    });
    let edge = Edge::start(&format!(
        "caches: {{ store: {{}} }}
identity: {{ secret: a-secret-of-a-test-that-is-long-enough }}
sessions: {{ app: {{ from: [bearer], ask: {{ upstream: api, path: /auth/session }} }} }}
upstreams: {{ api: {{ servers: [{}] }} }}
routes:
  - match: /*
    session: {{ use: app }}
    request_headers: {{ x-plan: \"${{session.plan}}\", x-fixed: always }}
    cache: {{ in: store }}
    to: api
",
        origin.address
    ));
    for field in ["X-Weir-Identity", "x-plan", "X-Real-IP"] {
        let member = edge.ask(&format!("/{field}"), "authorization: Bearer tokenofanna\r\n");
        assert!(
            member.text() == "for members" && member.cache().contains("detail=vary-edge"),
            "{}",
            member.cache()
        );
        assert_eq!(edge.get(&format!("/{field}")).text(), "for strangers", "{field}");
    }
    for field in ["x-fixed", "accept"] {
        edge.get(&format!("/{field}"));
        assert!(
            edge.get(&format!("/{field}")).cache().contains("hit"),
            "{field} is the same for all who send the same"
        );
    }
}
