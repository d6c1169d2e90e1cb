//! Connections to peers: how many are kept, when one is used again and when never, TLS, and the PROXY protocol both ways.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
};

use rustls::{
    HandshakeKind, ProtocolVersion, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    pki_types::PrivateKeyDer, server::WebPkiClientVerifier,
};

use crate::support::{Client, Edge, Gate, Origin, ok, until};

fn edge(origins: &[SocketAddr], words: &str) -> Edge {
    Edge::start(&yaml(origins, words))
}

fn yaml(origins: &[SocketAddr], words: &str) -> String {
    let servers: Vec<_> = origins.iter().map(|address| format!("\"{address}\"")).collect();
    format!(
        "upstreams: {{ api: {{ servers: [{}], {words} }} }}\nroutes: [{{ match: /*, to: api }}]\n",
        servers.join(", ")
    )
}

#[test]
fn a_connection_carries_as_many_requests_as_the_plan_says() {
    let origin = Origin::named("x");
    let edge = edge(&[origin.address], "keepalive: { requests: 3 }");
    // One client: another's request might come before the first one's connection is back.
    let mut client = edge.connect();
    for _ in 0..7 {
        assert_eq!(client.ask("/", "").text(), "x");
    }
    assert_eq!((origin.count(), origin.accepted()), (7, 3));
}

#[test]
fn idle_connections_are_counted_for_the_upstream_as_a_whole() {
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    let one = edge(&[a.address, b.address], "keepalive: 1");
    let mut client = one.connect();
    for _ in 0..6 {
        client.ask("/", "");
    }
    assert_eq!(
        a.accepted() + b.accepted(),
        6,
        "the other server's connection takes the only place each time"
    );
    let none = edge(&[a.address], "keepalive: 0");
    let mut client = none.connect();
    client.ask("/", "");
    client.ask("/", "");
    assert_eq!(a.accepted() + b.accepted(), 8);
}

#[test]
fn an_idle_connection_is_closed_in_its_time() {
    let origin = Origin::named("x");
    let edge = edge(&[origin.address], "keepalive: { idle_timeout: 100ms }");
    edge.get("/");
    let mut asked = 1;
    until("a new connection", || {
        std::thread::sleep(std::time::Duration::from_millis(150));
        edge.get("/");
        asked += 1;
        origin.accepted() == asked
    });
}

/// Criterion 17: what a peer says unasked is nobody's answer.
#[test]
fn a_peer_that_speaks_unasked_poisons_nobody() {
    let surplus = Origin::start(|_, wire| {
        wire.send(ok("mine") + &ok("poison"));
    });
    let edge = edge(&[surplus.address], "keepalive: 8");
    let mut client = edge.connect();
    for _ in 0..10 {
        assert_eq!(client.ask("/", "").text(), "mine");
    }
    assert_eq!(surplus.accepted(), 10, "no such connection is used again");
}

#[test]
fn a_peer_that_speaks_later_poisons_nobody_either() {
    let (said, heard) = mpsc::sync_channel(16);
    let said = Mutex::new(said);
    let origin = Origin::connections(move |mut client| {
        let said = said.lock().unwrap().clone();
        while client.head().is_some() {
            client.try_send(ok("mine"));
            client.try_send("HTTP/1.1 200 OK\r\n");
            let _ = said.send(());
        }
    });
    let edge = edge(&[origin.address], "keepalive: 8");
    let mut client = edge.connect();
    for _ in 0..10 {
        assert_eq!(client.ask("/", "").text(), "mine");
        heard.recv().unwrap();
    }
}

#[test]
fn the_address_to_connect_from_is_the_plans() {
    let peers = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&peers);
    let origin = Origin::connections(move |mut client| {
        seen.lock().unwrap().push(client.stream.peer_addr().unwrap().ip().to_string());
        if client.head().is_some() {
            client.try_send(ok("x"));
        }
    });
    let plain = edge(&[origin.address], "bind: 127.0.0.9");
    assert_eq!(plain.get("/").text(), "x");
    let told = edge(&[origin.address], "bind: 127.0.0.10, proxy_protocol: v1");
    told.get("/");
    assert_eq!(*peers.lock().unwrap(), ["127.0.0.9", "127.0.0.10"]);
}

#[test]
fn a_peer_hears_of_each_client_and_shares_no_connection_between_two() {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let said = Arc::clone(&lines);
    let origin = Origin::connections(move |mut client| {
        said.lock().unwrap().push(client.line().unwrap());
        while client.head().is_some() {
            client.try_send(ok("x"));
        }
    });
    let edge = edge(&[origin.address], "proxy_protocol: v1");
    let (mut first, mut second) = (edge.connect(), edge.connect());
    for _ in 0..2 {
        assert_eq!(first.ask("/", "").text(), "x");
        assert_eq!(second.ask("/", "").text(), "x");
    }
    let line = |client: &Client| {
        let port = client.stream.local_addr().unwrap().port();
        format!("PROXY TCP4 127.0.0.1 127.0.0.1 {port} {}", edge.http().port())
    };
    assert_eq!(*lines.lock().unwrap(), [line(&first), line(&second)]);
}

#[test]
fn an_edge_behind_an_edge_hears_of_the_client() {
    let origin = Origin::named("x");
    let inner = Edge::start(&format!(
        "listeners: [{{ address: 127.0.0.1:0, proxy_protocol: true }}]\nclients: {{ trusted: [127.0.0.1/32] }}\n{}",
        yaml(&[origin.address], "keepalive: 8")
    ));
    let outer =
        edge(&[inner.http()], "proxy_protocol: v2, health: { path: /check, interval: 100ms, fall: 1 }");
    until("a few checks", || origin.count() >= 3);
    assert!(outer.admin("/upstreams/api").text().contains("\"state\": \"up\""), "checks are announced too");
    let mut client = Client::new(from("127.0.0.44".parse().unwrap(), outer.http()));
    assert_eq!(client.ask("/asked", "").text(), "x");
    let asked = origin.seen().into_iter().find(|request| request.target() == "/asked").unwrap();
    assert_eq!(asked.field("x-real-ip"), "127.0.0.44");
}

/// A connection from this address of our machine.
fn from(ip: std::net::IpAddr, to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(ip, 0).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.into()
}

#[test]
fn a_listener_behind_hops_hears_the_client_from_them_alone() {
    let origin = Origin::named("x");
    let edge = Edge::start(&format!(
        "listeners: [{{ address: 127.0.0.1:0, proxy_protocol: true, bounds: {{ header_timeout: 500ms }} }}]\n\
         clients: {{ trusted: [127.0.0.1/32] }}\n{}",
        yaml(&[origin.address], "keepalive: 8")
    ));
    let ask = |header: &[u8]| {
        let mut client = edge.connect();
        client.send([header, b"GET / HTTP/1.1\r\nhost: h\r\nx-forwarded-for: 6.6.6.6\r\n\r\n"].concat());
        client
    };
    assert_eq!(ask(b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 80\r\n").answer().status, 200);
    assert_eq!(
        origin.last().field("x-forwarded-for"),
        "192.0.2.7",
        "what the client itself forwarded is not believed"
    );
    let binary = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x08\x0a\0\0\x01\x12\x67\0\x50";
    assert_eq!(ask(binary).answer().status, 200);
    assert_eq!(origin.last().field("x-forwarded-for"), "192.0.2.8");
    assert!(ask(b"").is_ended(), "no header, no service");
    assert!(ask(b"PROXY TCP4 nonsense\r\n").is_ended());
    let mut silent = edge.connect();
    assert!(silent.send("PROXY TCP4").is_ended(), "nobody waits for the rest");

    let strict = Edge::start(&format!(
        "listeners: [{{ address: 127.0.0.1:0, proxy_protocol: true }}]\nclients: {{ trusted: [10.0.0.0/8] }}\n{}",
        yaml(&[origin.address], "keepalive: 8")
    ));
    let mut stranger = strict.connect();
    stranger.try_send("PROXY TCP4 192.0.2.7 10.0.0.1 4711 80\r\nGET / HTTP/1.1\r\nhost: h\r\n\r\n");
    assert!(stranger.is_ended(), "whoever is not trusted may not say who it is");
}

/// A certificate that signs itself, in two files.
struct Pair {
    certificate: rcgen::CertifiedKey<rcgen::KeyPair>,
}

impl Pair {
    fn new(name: &str) -> Self {
        Self { certificate: rcgen::generate_simple_self_signed([name.to_owned()]).unwrap() }
    }

    fn write(&self, folder: &Path, name: &str) {
        std::fs::write(folder.join(format!("{name}.pem")), self.certificate.cert.pem()).unwrap();
        std::fs::write(folder.join(format!("{name}.key")), self.certificate.signing_key.serialize_pem())
            .unwrap();
    }
}

/// One handshake as the origin saw it.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Handshake {
    version: ProtocolVersion,
    resumed: bool,
    shown: bool,
}

/// An origin with TLS that answers each request with `x`, and closes after the answer where it is asked to.
fn tls_origin(
    own: &Pair,
    clients: Option<&Pair>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> (SocketAddr, Arc<Mutex<Vec<Handshake>>>) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions).unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(client) => {
            let mut roots = RootCertStore::empty();
            roots.add(client.certificate.cert.der().clone()).unwrap();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        }
    };
    let key = PrivateKeyDer::try_from(own.certificate.signing_key.serialize_der()).unwrap();
    let config = builder.with_single_cert(vec![own.certificate.cert.der().clone()], key).unwrap();
    let (config, listener) = (Arc::new(config), TcpListener::bind(("127.0.0.1", 0)).unwrap());
    let (address, seen) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<Handshake>>>::default());
    let noted = Arc::clone(&seen);
    std::thread::spawn(move || {
        for tcp in listener.incoming() {
            let (tcp, config, noted): (TcpStream, _, _) =
                (tcp.unwrap(), Arc::clone(&config), Arc::clone(&noted));
            std::thread::spawn(move || {
                let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), tcp);
                let mut buffer = [0; 4096];
                let Ok(1..) = stream.read(&mut buffer) else { return };
                noted.lock().unwrap().push(Handshake {
                    version: stream.conn.protocol_version().unwrap(),
                    resumed: stream.conn.handshake_kind() == Some(HandshakeKind::Resumed),
                    shown: stream.conn.peer_certificates().is_some(),
                });
                let _ =
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\nconnection: close\r\n\r\nx");
                let _ = stream.flush();
            });
        }
    });
    (address, seen)
}

#[test]
fn tls_to_a_peer_believes_the_plans_authority_shows_our_certificate_and_resumes() {
    let folder = tempfile::tempdir().unwrap();
    let (origin, ours) = (Pair::new("origin.test"), Pair::new("edge.test"));
    origin.write(folder.path(), "ca");
    ours.write(folder.path(), "edge");
    let (address, seen) = tls_origin(&origin, Some(&ours), rustls::ALL_VERSIONS);
    let at = folder.path().display();
    let edge = edge(
        &[address],
        &format!(
            "tls: {{ name: origin.test, ca: {at}/ca.pem, certificate: {at}/edge.pem, key: {at}/edge.key, min_version: \"1.3\" }}"
        ),
    );
    let mut client = edge.connect();
    for _ in 0..3 {
        assert_eq!(client.ask("/", "").text(), "x");
    }
    let seen = seen.lock().unwrap().clone();
    assert!(seen.iter().all(|it| it.shown && it.version == ProtocolVersion::TLSv1_3), "{seen:?}");
    assert!(!seen[0].resumed && seen[2].resumed, "{seen:?}");
}

#[test]
fn the_client_is_told_before_tls_begins() {
    let folder = tempfile::tempdir().unwrap();
    Pair::new("inner.test").write(folder.path(), "inner");
    let (origin, at) = (Origin::named("x"), folder.path().display());
    let inner = Edge::start(&format!(
        "listeners: [{{ address: 127.0.0.1:0, proxy_protocol: true, tls: {{ certificates: [{{ chain: {at}/inner.pem, key: {at}/inner.key }}] }} }}]\n\
         clients: {{ trusted: [127.0.0.1/32] }}\n{}",
        yaml(&[origin.address], "keepalive: 8")
    ));
    let words = format!("proxy_protocol: v1, tls: {{ name: inner.test, ca: {at}/inner.pem }}");
    let outer = edge(&[inner.https()], &words);
    let mut client = Client::new(from("127.0.0.45".parse().unwrap(), outer.http()));
    assert_eq!(client.ask("/", "").text(), "x");
    assert_eq!(origin.last().field("x-real-ip"), "127.0.0.45");
}

#[test]
fn a_peer_that_is_not_who_it_should_be_gets_no_request() {
    let folder = tempfile::tempdir().unwrap();
    let (origin, other) = (Pair::new("origin.test"), Pair::new("origin.test"));
    origin.write(folder.path(), "ca");
    other.write(folder.path(), "other");
    let (address, seen) = tls_origin(&origin, None, rustls::ALL_VERSIONS);
    let (old, seen_old) = tls_origin(&origin, None, &[&rustls::version::TLS12]);
    let at = folder.path().display();
    for (address, words) in [
        (address, format!("name: origin.test, ca: {at}/other.pem")),
        (address, format!("name: other.test, ca: {at}/ca.pem")),
        (address, "name: origin.test".to_owned()),
        (old, format!("name: origin.test, ca: {at}/ca.pem, min_version: \"1.3\"")),
    ] {
        assert_eq!(edge(&[address], &format!("tls: {{ {words} }}")).get("/").status, 502, "{words}");
    }
    assert!(seen.lock().unwrap().is_empty() && seen_old.lock().unwrap().is_empty());
    assert_eq!(edge(&[address], "tls: { name: other.test, verify: false }").get("/").text(), "x");
}

#[test]
fn a_reload_reads_the_files_of_tls_again_and_refuses_bad_ones() {
    let folder = tempfile::tempdir().unwrap();
    let (origin, other) = (Pair::new("origin.test"), Pair::new("origin.test"));
    other.write(folder.path(), "ca");
    let (address, _) = tls_origin(&origin, None, rustls::ALL_VERSIONS);
    let words = format!("tls: {{ name: origin.test, ca: {}/ca.pem }}", folder.path().display());
    let edge = edge(&[address], &words);
    assert_eq!(edge.get("/").status, 502);
    origin.write(folder.path(), "ca");
    edge.reload(&yaml(&[address], &words));
    assert_eq!(edge.get("/").text(), "x");
    std::fs::write(folder.path().join("ca.pem"), "no certificate").unwrap();
    assert!(!edge.reloaded(&yaml(&[address], &words)));
    assert!(edge.output().contains("ca.pem"), "the file is named");
    assert_eq!(edge.get("/").text(), "x", "the old ones stay in force");
}

/// Criterion 40, with the upstream itself changed by each reload.
#[test]
fn three_reloads_under_load_fail_nobody_and_a_long_download_survives() {
    let gate = Arc::new(Gate::default());
    let opened = Arc::clone(&gate);
    let slow = Origin::start(move |_, wire| {
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf");
        opened.pass();
        wire.send("rest");
    });
    let (one, two) = (Origin::named("x"), Origin::named("x"));
    let yaml = |weight: u32| {
        format!(
            "upstreams:\n  long: {{ servers: [{{ address: \"{}\", max_conns: {weight} }}] }}\n  \
             api: {{ servers: [\"{}\", {{ address: \"{}\", weight: {weight} }}], keepalive: {weight} }}\n\
             routes: [{{ match: /long, to: long }}, {{ match: /*, to: api }}]\n",
            slow.address, one.address, two.address
        )
    };
    let edge = Edge::start(&yaml(1));
    let http = edge.http();
    let (done, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let load: Vec<_> = (0..4)
        .map(|_| {
            let (done, answered) = (Arc::clone(&done), Arc::clone(&answered));
            std::thread::spawn(move || {
                let mut client = Client::connect(http);
                while !done.load(Ordering::Relaxed) {
                    assert_eq!(client.ask("/", "").status, 200);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let mut long = Client::connect(http);
    let (status, head) = long.send("GET /long HTTP/1.1\r\nhost: h\r\n\r\n").answer_head();
    assert_eq!(status, 200);
    for weight in 2..5 {
        let before = answered.load(Ordering::Relaxed);
        edge.reload(&yaml(weight));
        until("more answers", || answered.load(Ordering::Relaxed) > before + 20);
    }
    gate.open();
    assert_eq!(long.body(&head, false, false), (b"halfrest".to_vec(), true));
    done.store(true, Ordering::Relaxed);
    load.into_iter().for_each(|thread| thread.join().unwrap());
}
