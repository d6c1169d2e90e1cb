//! Limits as clients meet them: those that wait, requests at once, what is told, and what a fleet shares through Redis.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use weir_testkit::Redis;

use crate::{
    sessions::session,
    support::{Client, Edge, Gate, Origin, ok, until},
};

fn verdicts(edge: &Edge, limit: &str, verdict: &str) -> f64 {
    edge.metric(&format!("weir_limit_requests_total{{limit=\"{limit}\",verdict=\"{verdict}\"}}"))
}

fn asking(edge: &Edge, fields: &str) -> Client {
    let mut connection = edge.connect();
    connection.send(format!("GET / HTTP/1.1\r\nhost: h\r\n{fields}\r\n"));
    connection
}

/// An origin that answers when the gate opens.
fn gated() -> (Arc<Gate>, Origin) {
    let gate = Arc::new(Gate::default());
    let release = Arc::clone(&gate);
    let origin = Origin::start(move |_, wire| {
        release.pass();
        wire.send(ok("x"));
    });
    (gate, origin)
}

#[test]
fn who_is_beyond_delay_waits_and_who_is_beyond_the_burst_is_refused() {
    let origin = Origin::named("in");
    let edge = Edge::routing(&origin, "limit: [few]", "limits: { few: { rate: 2/s, burst: 2, delay: 1 } }");
    let start = Instant::now();
    let mut client = edge.connect();
    client.send("GET /1 HTTP/1.1\r\nhost: h\r\n\r\nGET /2 HTTP/1.1\r\nhost: h\r\n\r\n");
    assert_eq!([client.answer().status, client.answer().status], [200, 200]);
    assert!(
        start.elapsed() >= Duration::from_millis(500),
        "half a second after the first: {:?}",
        start.elapsed()
    );

    let slow = "limits: { few: { rate: 1/h, burst: 2, delay: 1 } }";
    let edge = Edge::routing(&origin, "limit: [few]", slow);
    assert_eq!(edge.get("/").status, 200);
    let waits = asking(&edge, "");
    until("it waits", || verdicts(&edge, "few", "delayed") == 1.0);
    assert_eq!(edge.get("/").status, 429);
    assert_eq!(origin.count(), 3, "who waits has not been asked for yet");
    // An hour is long; who leaves is not waited for.
    drop(waits);
    until("nobody waits", || edge.metric("weir_requests_in_flight") == 0.0);
    assert_eq!(edge.record("refusal", "client_left")["route"], edge.record("refusal", "limited")["route"]);
}

#[test]
fn requests_at_once_are_counted_until_they_are_answered_or_their_clients_leave() {
    let (gate, origin) = gated();
    let limit = "limits: { two: { key: \"${header.x-who}\", concurrent: 2, status: 503 } }";
    let edge = Edge::routing(&origin, "limit: [two]", limit);
    let mut first = asking(&edge, "x-who: a\r\n");
    let second = asking(&edge, "x-who: a\r\n");
    until("both are there", || origin.count() == 2);
    let refused = edge.ask("/", "x-who: a\r\n");
    assert_eq!((refused.status, &*refused.field("retry-after")), (503, "1"));
    drop(second);
    until("only the first is under way", || edge.metric("weir_requests_in_flight") == 1.0);
    let mut third = asking(&edge, "x-who: a\r\n");
    until("there is a place again", || origin.count() == 3);
    gate.open();
    assert_eq!([first.answer().status, third.answer().status], [200, 200]);
    for _ in 0..5 {
        assert_eq!(edge.ask("/", "x-who: a\r\n").status, 200, "places come back");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_stream_of_http_2_is_a_request_under_way() {
    let (gate, origin) = gated();
    let edge = Edge::routing(&origin, "limit: [two]", "limits: { two: { concurrent: 2 } }");
    let socket = tokio::net::TcpStream::connect(edge.http()).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(socket).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut ask = || {
        let request = http::Request::get("http://h/").body(()).unwrap();
        sender.send_request(request, true).unwrap().0
    };
    let (first, second) = (ask(), ask());
    tokio::task::block_in_place(|| until("both are there", || origin.count() == 2));
    assert_eq!(ask().await.unwrap().status(), 429);
    gate.open();
    assert_eq!([first.await.unwrap().status(), second.await.unwrap().status()], [200, 200]);
    drop(sender);
    connection.await.unwrap().unwrap();
}

#[test]
fn clients_are_told_where_they_stand_if_the_plan_says_so() {
    let origin = Origin::named("in");
    let limits = "limits: { few: { rate: 2/h, headers: both }, many: { rate: 100/15m, window: sliding, headers: ratelimit }, quiet: { rate: 3/h } }";
    let edge = Edge::routing(&origin, "limit: [few, many, quiet]", limits);
    let told = edge.get("/");
    assert_eq!(told.field("ratelimit-policy"), r#""few";q=2;w=3600, "many";q=100;w=900"#);
    let now = told.field("ratelimit");
    assert!(now.starts_with(r#""few";r=1;t=1800, "many";r=99;t="#), "{now}");
    assert_eq!([told.field("x-ratelimit-limit"), told.field("x-ratelimit-remaining")], ["2", "1"]);
    assert_eq!(told.field("x-ratelimit-reset"), "1800");
    assert_eq!(edge.get("/").status, 200);
    let refused = edge.get("/");
    assert_eq!((refused.status, &*refused.field("x-ratelimit-remaining")), (429, "0"));
    assert!(refused.field("ratelimit").starts_with(r#""few";r=0;t="#));
    let silent = Edge::routing(&origin, "limit: [few]", "limits: { few: { rate: 1/h } }");
    let answers = [silent.get("/"), silent.get("/")];
    assert!(answers.iter().all(|answer| !answer.has("ratelimit") && !answer.has("x-ratelimit-limit")));
}

#[test]
fn what_a_request_costs_and_whom_a_network_is_are_the_plans_to_say() {
    let origin = Origin::named("in");
    let limits = "clients: { trusted: [127.0.0.0/8] }\nlimits: { ten: { rate: 10/24h, ipv6_prefix: 56 } }";
    let edge = Edge::routing(&origin, "limit: [{ use: ten, cost: \"${header.x-cost}\" }]", limits);
    let ask = |client: &str, cost: &str| {
        edge.ask("/", &format!("x-forwarded-for: {client}\r\nx-cost: {cost}\r\n")).status
    };
    assert_eq!(ask("2001:db8:0:100::1", "4"), 200);
    assert_eq!(ask("2001:db8:0:1ff::9", "5"), 200, "the same /56");
    assert_eq!(ask("2001:db8:0:1ff::9", "2"), 429);
    assert_eq!(ask("2001:db8:0:1ff::9", "no number"), 200, "is one");
    assert_eq!(ask("2001:db8:0:200::1", "10"), 200, "another network");
    assert_eq!(ask("192.0.2.1", "11"), 429, "never");
}

#[test]
fn a_limit_on_callers_is_charged_when_they_are_known() {
    let (origin, redis) = (Origin::named("in"), Redis::start());
    session(&redis, "tina", "1", "[]");
    session(&redis, "tom", "2", "[]");
    let top = format!(
        "redis: {{ url: \"{}\" }}\nsessions: {{ app: {{ from: [bearer] }} }}\nlimits: {{ all: {{ rate: 7/24h }}, each: {{ key: \"${{session.user_id}}\", rate: 2/24h }} }}",
        redis.url()
    );
    let edge = Edge::routing(&origin, "session: { use: app }\n    limit: [each, all]", &top);
    let ask = |who: &str| edge.ask("/", &format!("authorization: Bearer {who}\r\n")).status;
    // The first needs Redis, the second has the session in memory.
    assert_eq!([ask("tina"), ask("tina"), ask("tina")], [200, 200, 429]);
    assert_eq!([ask("tom"), ask("nobody"), ask("nobody")], [200, 200, 200], "who has no key is not counted");
    assert_eq!(ask("tom"), 200, "the seventh of all");
    assert_eq!(ask("tom"), 429, "the address was charged for each question about a session");
    assert_eq!(verdicts(&edge, "each", "refused"), 1.0);
    assert_eq!(verdicts(&edge, "all", "refused"), 1.0);
}

#[test]
fn a_limit_may_count_each_route_for_itself() {
    let origin = Origin::named("in");
    let edge = Edge::start(&format!(
        "upstreams: {{ api: {{ servers: [{}] }} }}
limits: {{ few: {{ key: \"${{client.ip}}:${{route.name}}\", rate: 1/h }} }}
routes:
  - {{ match: /a, to: api, limit: few }}
  - {{ match: /b, to: api, limit: few }}
",
        origin.address
    ));
    assert_eq!(["/a", "/b", "/a", "/b"].map(|path| edge.get(path).status), [200, 200, 429, 429]);
}

#[test]
fn a_dry_run_only_counts() {
    let origin = Origin::named("in");
    let edge = Edge::routing(&origin, "limit: [few]", "limits: { few: { rate: 1/h, dry_run: true } }");
    assert!((0..3).all(|_| edge.get("/").status == 200));
    assert_eq!([verdicts(&edge, "few", "admitted"), verdicts(&edge, "few", "dry_run")], [1.0, 2.0]);
}

fn fleet(origin: &Origin, redis: &Redis, rest: &str) -> [Edge; 3] {
    let top = format!(
        "redis: {{ url: \"{}\", timeout: 300ms }}\nlimits: {{ few: {{ rate: 60/24h, in: redis{rest} }} }}",
        redis.url()
    );
    [(); 3].map(|()| Edge::routing(origin, "limit: [few]", &top))
}

#[test]
fn three_edges_share_one_limit() {
    let (origin, redis) = (Origin::named("in"), Redis::start());
    let edges = fleet(&origin, &redis, ", lease: 5");
    let passed = |edge: &Edge, requests: usize| {
        let mut client = edge.connect();
        (0..requests).filter(|_| client.ask("/", "").status == 200).count()
    };
    let all: usize = std::thread::scope(|scope| {
        let asked: Vec<_> = edges.iter().map(|edge| scope.spawn(|| passed(edge, 40))).collect();
        asked.into_iter().map(|asked| asked.join().unwrap()).sum()
    });
    assert!((60 - 3 * 5..=60).contains(&all), "{all} of 60 passed");
    // What the fleet refused is known for as long as that lasts, whether Redis is there or not.
    assert!(edges.iter().any(|edge| passed(edge, 3) == 0));
    assert_eq!(edges.iter().map(|edge| verdicts(edge, "few", "unavailable")).sum::<f64>(), 0.0);
}

#[test]
fn hits_take_the_short_way_from_a_lease_and_are_charged_once_on_either() {
    let (origin, redis) = (
        Origin::saying("HTTP/1.1 200 OK\r\ncache-control: max-age=3600\r\ncontent-length: 1\r\n\r\nx"),
        Redis::start(),
    );
    let top = format!(
        "redis: {{ url: \"{}\" }}\ncaches: {{ some: {{ memory: 8MiB }} }}\nlimits: {{ few: {{ rate: 60/24h, in: redis, lease: 6 }}, here: {{ rate: 100/24h }} }}",
        redis.url()
    );
    let edge = Edge::routing(&origin, "limit: [here, few]\n    cache: { in: some }", &top);
    let mut client = edge.connect();
    let passed = (0..99).filter(|_| client.ask("/", "").status == 200).count();
    assert!((54..=60).contains(&passed), "{passed}");
    assert_eq!(verdicts(&edge, "few", "admitted") as usize, passed);
    assert_eq!(verdicts(&edge, "few", "refused") as usize, 99 - passed);
    let express = edge.metric("weir_cache_express_total{cache=\"some\"}");
    assert!(express > 20.0 && express < passed as f64, "{express} of {passed}");
    // What the fleet refused was given back to the limit before it.
    assert_eq!(verdicts(&edge, "here", "refused"), 0.0);
    assert_eq!(origin.count(), 1);
}

#[test]
fn without_redis_a_limit_refuses_or_lets_pass_as_the_plan_says() {
    let (origin, redis) = (Origin::named("in"), Redis::start());
    let down = |word: &str| {
        let top = format!(
            "redis: {{ url: \"{}\", timeout: 100ms, connect_timeout: 100ms }}\nlimits: {{ few: {{ rate: 2/24h, in: redis, on_redis_down: {word} }} }}",
            redis.url()
        );
        Edge::routing(&origin, "limit: [few]", &top)
    };
    let edges = ["local", "allow", "refuse"].map(down);
    redis.child().signal("STOP");
    let statuses = |edge: &Edge| [(); 4].map(|()| edge.get("/").status);
    assert_eq!(statuses(&edges[0]), [200, 200, 429, 429]);
    assert_eq!(statuses(&edges[1]), [200; 4]);
    assert_eq!(statuses(&edges[2]), [503; 4]);
    assert_eq!(verdicts(&edges[2], "few", "unavailable"), 4.0);
    redis.child().signal("CONT");
    until("Redis is asked again", || edges[2].get("/").status == 200);
}
