//! Who serves an upstream changes while it runs: by an operator's hand, by what the name servers say, and by reloads.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::Ipv4Addr,
    os::unix::net::UnixListener,
    sync::Arc,
};

use serde_json::{Value, json};

use super::support::{Dns, Edge, Gate, Origin, Wire, ok, until};

const ONE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
const TWO: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Two origins that share a port, as the addresses of one name do.
fn pair() -> (u16, Origin, Origin) {
    let say = |name: &'static str| move |_: &_, wire: &mut Wire| wire.answer("", name);
    let one = Origin::on((ONE, 0).into(), say("one"));
    let port = one.address.port();
    (port, one, Origin::on((TWO, port).into(), say("two")))
}

/// Who answers four requests.
fn who(edge: &Edge) -> BTreeSet<String> {
    (0..4).map(|_| edge.get("/").text()).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn resolving(dns: &Dns, server: &str) -> String {
    format!(
        "resolver: {{ addresses: [\"{}\"], timeout: 1s }}\nupstreams: {{ api: {{ servers: [{server}] }} }}\n\
         routes: [{{ match: /*, to: api }}]\n",
        dns.address
    )
}

fn seen(edge: &Edge) -> Value {
    edge.operate("GET", "/upstreams/api", &Value::Null, "").1
}

fn peer<'a>(seen: &'a Value, address: &str) -> &'a Value {
    let peers = seen["peers"].as_array().unwrap();
    peers.iter().find(|peer| peer["address"] == address).unwrap_or(&Value::Null)
}

#[test]
fn a_socket_of_this_machine_is_a_server() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.sock");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while stream.read(&mut buffer).is_ok_and(|read| read > 0) {
                    stream.write_all(ok("socket").as_bytes()).unwrap();
                }
            });
        }
    });
    let edge = Edge::start(&format!(
        "upstreams: {{ api: {{ servers: [\"unix:{}\"], health: {{ path: /, interval: 100ms }} }} }}\nroutes: [{{ match: /*, to: api }}]\n",
        path.display()
    ));
    assert_eq!(who(&edge), set(&["socket"]));
    let seen = seen(&edge);
    assert_eq!(seen["peers"][0]["address"], format!("unix:{}", path.display()));
    assert_eq!(seen["peers"][0]["state"], "up");
}

#[test]
fn an_ipv6_address_is_a_server() {
    let origin = Origin::on("[::1]:0".parse().unwrap(), |_, wire| wire.answer("", "six"));
    let edge = Edge::start(&format!(
        "upstreams: {{ api: {{ servers: [\"{}\"] }} }}\nroutes: [{{ match: /*, to: api }}]\n",
        origin.address
    ));
    assert_eq!(who(&edge), set(&["six"]));
}

#[test]
fn the_addresses_of_a_name_are_followed_without_a_reload() {
    let (port, _one, _two) = pair();
    let dns = Dns::start();
    dns.tell("api.test", 1, &[ONE]);
    let edge = Edge::start(&resolving(&dns, &format!("{{ address: \"api.test:{port}\", resolve: true }}")));
    assert_eq!(who(&edge), set(&["one"]));
    dns.tell("api.test", 1, &[ONE, TWO]);
    until("the second address", || who(&edge) == set(&["one", "two"]));
    dns.tell("api.test", 1, &[TWO]);
    until("the first to go", || who(&edge) == set(&["two"]));
    let asked = dns.asked();
    dns.tell("api.test", 1, &[]);
    until("the name to be asked for again", || dns.asked() >= asked + 4);
    assert_eq!(who(&edge), set(&["two"]), "a name that is gone keeps its last address");
}

#[test]
fn a_name_without_an_address_does_not_hold_up_the_start() {
    let (port, _one, _two) = pair();
    let dns = Dns::start();
    let edge = Edge::start(&resolving(&dns, &format!("{{ address: \"api.test:{port}\", resolve: true }}")));
    assert_eq!(edge.get("/").status, 502);
    dns.tell("api.test", 1, &[ONE]);
    until("the address", || edge.get("/").status == 200);
}

#[test]
fn a_service_says_who_serves_where_with_what_share_and_who_backs_up() {
    let (port, _one, mut two) = pair();
    let spare = Origin::named("spare");
    let dns = Dns::start();
    dns.tell("a.test", 1, &[ONE]);
    dns.tell("b.test", 1, &[TWO]);
    let spare_port = spare.address.port();
    dns.tell_service(
        "_http._tcp.api.test",
        1,
        &[(1, 3, port, "a.test"), (1, 1, port, "b.test"), (2, 1, spare_port, "a.test")],
    );
    let edge = Edge::start(&resolving(&dns, "{ address: api.test, service: http, resolve: true }"));
    let answers: Vec<String> = (0..8).map(|_| edge.get("/").text()).collect();
    let count = |name: &str| answers.iter().filter(|answer| *answer == name).count();
    assert_eq!((count("one"), count("two"), count("spare")), (6, 2, 0));
    let peers = seen(&edge);
    assert_eq!(peer(&peers, &format!("127.0.0.1:{spare_port}"))["backup"], true);
    two.die();
    dns.tell_service("_http._tcp.api.test", 1, &[(1, 3, spare_port, "a.test")]);
    until("the spare alone", || who(&edge) == set(&["spare"]));
}

#[test]
fn servers_come_drain_weigh_and_go_at_an_operators_word() {
    let (port, _one, _two) = pair();
    let (first, second) = (format!("127.0.0.1:{port}"), format!("127.0.0.2:{port}"));
    let edge = Edge::start(&format!(
        "upstreams: {{ api: {{ servers: [\"{first}\"] }} }}\nroutes: [{{ match: /*, to: api }}]\n"
    ));
    assert_eq!(who(&edge), set(&["one"]));

    let (status, said) =
        edge.operate("POST", "/upstreams/api/servers", &json!({ "address": second, "weight": 3 }), "");
    assert_eq!((status, said["did"].as_str()), (201, Some(&*format!("added {second}"))));
    assert_eq!(peer(&said["upstream"], &second)["weight"], 3);
    let answers: Vec<String> = (0..8).map(|_| edge.get("/").text()).collect();
    assert_eq!(answers.iter().filter(|answer| *answer == "two").count(), 6);

    let server = |address: &str| format!("/upstreams/api/servers/{address}");
    let (status, said) = edge.operate("PATCH", &server(&first), &json!({ "drain": true }), "");
    assert_eq!((status, peer(&said["upstream"], &first)["state"].as_str()), (200, Some("draining")));
    assert_eq!(who(&edge), set(&["two"]));
    edge.operate("PATCH", &server(&first), &json!({ "drain": false, "weight": 9 }), "");
    assert_eq!(peer(&seen(&edge), &first)["weight"], 9);

    let (status, _) = edge.operate("DELETE", &server(&first), &Value::Null, "");
    assert_eq!(status, 200);
    assert_eq!(who(&edge), set(&["two"]));

    let output = edge.output();
    let events = output.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let events: Vec<_> = events.map(|event| event["fields"].clone()).collect();
    let audit = events.iter().filter(|event| event["message"] == "server changed by an operator");
    let told: Vec<_> = audit
        .map(|event| {
            assert!(event["by"].as_str().is_some_and(|by| by.starts_with("127.0.0.1:")), "{event}");
            ["did", "server", "changes"].map(|key| event[key].as_str().unwrap().to_owned()).join(" ")
        })
        .collect();
    assert_eq!(
        told,
        [
            format!("added {second} weight 1 → 3"),
            format!("changed {first} drain false → true"),
            format!("changed {first} weight 1 → 9, drain true → false"),
            format!("removed {first} "),
        ]
    );
    let (status, said) = edge.operate("PATCH", &server(&second), &json!({}), "");
    assert_eq!(status, 422);
    assert!(said["error"].as_str().unwrap().contains("say one of `weight`"), "{said}");
}

#[test]
fn a_change_that_the_file_could_not_make_changes_nothing() {
    let origin = Origin::named("one");
    let edge = Edge::before(&origin);
    let own = format!("/upstreams/api/servers/{}", origin.address);
    for (method, path, body, status) in [
        ("POST", "/upstreams/web/servers", json!({ "address": "127.0.0.1:1" }), 404),
        ("POST", "/upstreams/api/servers", json!({ "address": "127.0.0.1" }), 422),
        ("POST", "/upstreams/api/servers", json!({ "address": "127.0.0.1:1", "wieght": 2 }), 422),
        ("POST", "/upstreams/api/servers", json!({ "address": "no-such-host.invalid:1" }), 422),
        ("POST", "/upstreams/api/servers", json!({ "address": origin.address.to_string() }), 409),
        ("PATCH", "/upstreams/api/servers/127.0.0.1:1", json!({ "weight": 2 }), 404),
        ("PATCH", &own, json!({ "down": true }), 422),
        ("DELETE", &own, Value::Null, 422),
        ("DELETE", "/upstreams/api", Value::Null, 405),
        ("PUT", &own, json!({}), 405),
    ] {
        let (got, said) = edge.operate(method, path, &body, "");
        assert_eq!(got, status, "{method} {path} {body}: {said}");
        assert!(said["error"].is_string());
    }
    let foreign = "origin: https://evil.test\r\nsec-fetch-site: cross-site\r\n";
    let (status, _) =
        edge.operate("POST", "/upstreams/api/servers", &json!({ "address": "127.0.0.1:1" }), foreign);
    assert_eq!(status, 403);
    assert_eq!(seen(&edge)["servers"].as_array().unwrap().len(), 1);
    assert_eq!(who(&edge), set(&["one"]));
}

#[test]
fn who_may_not_ask_may_not_change_either() {
    let origin = Origin::named("one");
    let edge = Edge::start(&format!(
        "admin: {{ address: 127.0.0.1:0, allow: [10.0.0.0/8] }}\nupstreams: {{ api: {{ servers: [\"{}\"] }} }}\n\
         routes: [{{ match: /*, to: api }}]\n",
        origin.address
    ));
    for (method, path) in [("GET", "/upstreams"), ("POST", "/upstreams/api/servers")] {
        assert_eq!(edge.operate(method, path, &json!({ "address": "127.0.0.1:1" }), "").0, 403);
    }
}

#[test]
fn a_change_outlives_a_reload_until_the_file_says_otherwise() {
    let (port, _one, _two) = pair();
    let (first, second) = (format!("127.0.0.1:{port}"), format!("127.0.0.2:{port}"));
    let yaml = |servers: &str| {
        format!("upstreams: {{ api: {{ servers: [{servers}] }} }}\nroutes: [{{ match: /*, to: api }}]\n")
    };
    let edge = Edge::start(&yaml(&format!("\"{first}\", \"{second}\"")));
    edge.operate("PATCH", &format!("/upstreams/api/servers/{first}"), &json!({ "drain": true }), "");
    edge.reload(&yaml(&format!("\"{first}\", \"{second}\"")));
    assert_eq!(peer(&seen(&edge), &first)["state"], "draining");
    assert_eq!(who(&edge), set(&["two"]));
    edge.reload(&yaml(&format!("{{ address: \"{first}\", weight: 2 }}, \"{second}\"")));
    assert_eq!(who(&edge), set(&["one", "two"]));
}

#[test]
fn a_request_under_way_ends_in_peace_on_a_server_that_is_removed() {
    let gate = Arc::new(Gate::default());
    let opened = Arc::clone(&gate);
    let slow = Origin::start(move |_, wire| {
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf");
        opened.pass();
        wire.send("rest");
    });
    let other = Origin::named("other");
    let edge = Edge::before(&slow);
    let mut client = edge.connect();
    let (status, head) = client.send("GET / HTTP/1.1\r\nhost: edge.test\r\n\r\n").answer_head();
    assert_eq!(status, 200);
    edge.operate("POST", "/upstreams/api/servers", &json!({ "address": other.address.to_string() }), "");
    let server = format!("/upstreams/api/servers/{}", slow.address);
    assert_eq!(edge.operate("DELETE", &server, &Value::Null, "").0, 200);
    assert_eq!(edge.get("/").text(), "other");
    gate.open();
    assert_eq!(client.body(&head, false, false), (b"halfrest".to_vec(), true));
}
