//! How clients speak: HTTP/1.0, pipelines, Expect, bounds on bodies, WebSocket, TLS and HTTP/2.

use std::{net::SocketAddr, path::Path, sync::Arc};

use bytes::Bytes;
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::net::TcpStream;

use crate::support::{Client, Edge, Origin, ok};

#[test]
fn http_1_0_gets_an_answer_that_ends_with_the_connection() {
    let origin = Origin::saying("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    let edge = Edge::before(&origin);
    let mut client = edge.connect();
    client.send("GET / HTTP/1.0\r\nhost: h\r\n\r\n");
    let answer = client.answer();
    assert_eq!(answer.text(), "abc");
    assert!(!answer.has("transfer-encoding"), "HTTP/1.0 knows no chunks");
    assert!(client.is_ended());
    assert!(origin.last().head.line.ends_with("HTTP/1.1"));
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let origin = Origin::start(|request, wire| {
        _ = wire.send(ok(&format!("{} {}", request.target(), request.body.len())))
    });
    let edge = Edge::before(&origin);
    let mut client = edge.connect();
    let mut all = String::new();
    for number in 0..20 {
        all += &format!(
            "GET /{number} HTTP/1.1\r\nhost: h\r\n\r\nPOST /{number} HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n\r\nabc"
        );
    }
    client.send(all);
    for number in 0..20 {
        assert_eq!(client.answer().text(), format!("/{number} 0"));
        assert_eq!(client.answer().text(), format!("/{number} 3"));
    }
}

#[test]
fn close_is_obeyed() {
    let origin = Origin::named("x");
    let edge = Edge::before(&origin);
    let mut client = edge.connect();
    let answer = client.ask("/", "connection: close\r\n");
    assert_eq!((answer.text(), &*answer.field("connection")), ("x".into(), "close"));
    assert!(client.is_ended());
}

#[test]
fn a_client_that_waits_to_be_asked_for_its_body_is_asked_once() {
    let origin = Origin::named("got it");
    let edge = Edge::before(&origin);
    let mut client = edge.connect();
    client.send("POST / HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n");
    assert_eq!(client.answer_head().0, 100);
    assert_eq!(client.send("hello").answer_head().0, 200);
    assert_eq!(origin.last().body, b"hello");
}

#[test]
fn a_refused_body_is_never_asked_for() {
    let yaml = "routes:\n  - match: /in\n    access: { deny: [0.0.0.0/0] }\n    answer: {}\n";
    let edge = Edge::start(yaml);
    let mut client = edge.connect();
    client.send("POST /in HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n");
    assert_eq!(client.answer_head().0, 403);
}

#[test]
fn bodies_have_bounds_of_the_route_and_of_the_listener() {
    let origin = Origin::named("x");
    let yaml = format!(
        "listeners: [{{ address: 127.0.0.1:0, bounds: {{ body_bytes: 10 }} }}]
upstreams: {{ api: {{ servers: [{}] }} }}
routes:
  - {{ match: /large, body_bytes: 1KiB, to: api }}
  - {{ match: /*, to: api }}
",
        origin.address
    );
    let edge = Edge::start(&yaml);
    let length = |path: &str, length: usize| {
        let body = "x".repeat(length);
        edge.send(format!("POST {path} HTTP/1.1\r\nhost: h\r\ncontent-length: {length}\r\n\r\n{body}")).status
    };
    let chunked = |path: &str, length: usize| {
        let body = "x".repeat(length);
        edge.send(format!("POST {path} HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"))
            .status
    };
    assert_eq!(
        [length("/x", 10), length("/x", 11), length("/large", 1024), length("/large", 1025)],
        [200, 413, 200, 413]
    );
    assert_eq!(
        [chunked("/x", 10), chunked("/x", 11), chunked("/large", 1024), chunked("/large", 1025)],
        [200, 413, 200, 413]
    );
    assert_eq!(origin.seen().iter().map(|request| request.body.len()).max(), Some(1024));
}

#[test]
fn requests_with_two_meanings_are_refused_and_the_connection_ends() {
    let origin = Origin::named("x");
    let edge = Edge::before(&origin);
    for head in [
        "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: h\r\nx: a\rb\r\n\r\n",
    ] {
        let mut client = edge.connect();
        client.send(head).send("GET /smuggled HTTP/1.1\r\nhost: h\r\n\r\n");
        let answer = client.answer();
        assert_eq!((answer.status, &*answer.field("connection")), (400, "close"), "{head:?}");
        assert!(client.is_ended(), "{head:?}");
    }
    assert_eq!(origin.count(), 0);
}

const HANDSHAKE: &str = "GET /chat HTTP/1.1\r\nhost: h\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\n\
                         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Accepts the handshake and says everything back.
fn echo() -> Origin {
    Origin::connections(|mut client| {
        let Some(head) = client.head() else { return };
        assert!(head.has("sec-websocket-key") && head.has("upgrade"));
        client.send(
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
             sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nwelcome",
        );
        loop {
            let byte = client.up_to(1);
            if byte.is_empty() || !client.try_send(&byte) {
                return;
            }
        }
    })
}

#[test]
fn a_websocket_carries_bytes_both_ways_from_the_first_on() {
    let origin = echo();
    let edge = Edge::before(&origin);
    let mut client = edge.connect();
    client.send(format!("{HANDSHAKE}early"));
    let (status, head) = client.answer_head();
    assert_eq!(status, 101);
    assert_eq!(head.field("sec-websocket-accept").as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(client.up_to(12), b"welcomeearly");
    for round in 0..20 {
        let word = format!("round {round:04}\r\n\r\n");
        assert_eq!(client.send(&word).up_to(word.len()), word.as_bytes());
    }
    client.finish();
    assert!(client.is_ended());
}

#[test]
fn a_refused_upgrade_stays_http() {
    let origin = Origin::saying("HTTP/1.1 403 No\r\ncontent-length: 2\r\n\r\nno");
    let edge = Edge::before(&origin);
    let mut client = edge.connect();
    let answer = client.send(HANDSHAKE).answer();
    assert_eq!((answer.status, answer.text()), (403, "no".into()));
    assert_eq!(client.ask("/", "").status, 403);
}

/// Switches to whatever is asked for, and says the first bytes back.
fn switching() -> Origin {
    Origin::connections(|mut client| {
        let Some(head) = client.head() else { return };
        match head.field("upgrade") {
            Some(name) => {
                client.send(format!(
                    "HTTP/1.1 101 Go\r\nconnection: upgrade\r\nupgrade: {name}\r\n\r\nhi {name};"
                ));
                let said = client.up_to(5);
                client.try_send(said);
            }
            None => _ = client.try_send(ok("plain")),
        }
    })
}

#[test]
fn a_route_takes_the_upgrades_that_it_names_and_no_others() {
    let origin = switching();
    let edge = Edge::routing(&origin, "upgrade: [TCP]", "");
    let mut client = edge.connect();
    client.send("POST /run HTTP/1.1\r\nhost: h\r\nconnection: Upgrade\r\nupgrade: tcp\r\n\r\nearly");
    let (status, head) = client.answer_head();
    assert_eq!((status, head.field("upgrade").as_deref()), (101, Some("tcp")));
    assert_eq!(client.rest(), b"hi tcp;early");
    assert_eq!(edge.record("target", "/run")["status"], 101);
    for upgrade in ["spdy/3.1", "h2c", "tcp, websocket"] {
        let mut client = edge.connect();
        client
            .send(format!("GET / HTTP/1.1\r\nhost: h\r\nconnection: Upgrade\r\nupgrade: {upgrade}\r\n\r\n"));
        let answer = client.answer();
        assert_eq!((answer.text(), &*answer.field("connection")), ("plain".into(), "close"), "{upgrade}");
        assert!(client.is_ended(), "what follows may be in the other protocol");
    }
    assert_eq!(edge.connect().send(HANDSHAKE).answer().text(), "plain", "not even a websocket");
}

#[test]
fn without_a_word_only_a_websocket_is_an_upgrade() {
    let origin = switching();
    let edge = Edge::before(&origin);
    let answer = edge.send("GET / HTTP/1.1\r\nhost: h\r\nconnection: Upgrade\r\nupgrade: tcp\r\n\r\n");
    assert_eq!((answer.status, answer.text()), (200, "plain".into()));
}

#[test]
fn a_silent_tunnel_ends_after_the_time_between_two_reads() {
    let origin = echo();
    let yaml = format!(
        "upstreams: {{ api: {{ servers: [\"{}\"], timeouts: {{ read: 200ms }} }} }}\nroutes: [{{ match: /*, to: api }}]\n",
        origin.address
    );
    let edge = Edge::start(&yaml);
    let mut client = edge.connect();
    assert_eq!(client.send(HANDSHAKE).answer_head().0, 101);
    assert_eq!(client.up_to(7), b"welcome");
    assert!(client.is_ended());
}

/// A certificate for a name, signed by itself, as PEM files; returns what a client must trust.
pub(crate) fn certificate(
    folder: &Path,
    file: &str,
    name: &str,
) -> rustls::pki_types::CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    std::fs::write(folder.join(format!("{file}.pem")), made.cert.pem()).unwrap();
    std::fs::write(folder.join(format!("{file}.key")), made.signing_key.serialize_pem()).unwrap();
    made.cert.der().clone()
}

/// A listener with TLS for the certificates of these files, in YAML's flow style.
pub(crate) fn tls_listener(folder: &Path, files: &[&str]) -> String {
    let one = |file: &&str| format!("{{ chain: {0}/{file}.pem, key: {0}/{file}.key }}", folder.display());
    let all: Vec<_> = files.iter().map(one).collect();
    format!("{{ address: 127.0.0.1:0, tls: {{ certificates: [{}] }} }}", all.join(", "))
}

fn trusting(
    certificates: &[rustls::pki_types::CertificateDer<'static>],
    protocol: &[u8],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate.clone()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    Arc::new(config)
}

type Tls = rustls::StreamOwned<rustls::ClientConnection, std::net::TcpStream>;

/// HTTP/1.1 over TLS; fails when the certificate is not one of these.
pub(crate) fn tls(
    address: SocketAddr,
    name: &'static str,
    trusted: &[rustls::pki_types::CertificateDer<'static>],
) -> std::io::Result<Client<Tls>> {
    let name = ServerName::try_from(name).unwrap();
    let connection = rustls::ClientConnection::new(trusting(trusted, b"http/1.1"), name).unwrap();
    let socket = std::net::TcpStream::connect(address)?;
    socket.set_read_timeout(Some(crate::support::SOON))?;
    let mut stream = rustls::StreamOwned::new(connection, socket);
    stream.conn.complete_io(&mut stream.sock)?;
    Ok(Client::over(stream))
}

#[test]
fn a_certificate_is_chosen_by_name_and_the_scheme_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (certificate(folder.path(), "a", "a.test"), certificate(folder.path(), "b", "b.test"));
    let origin = Origin::named("x");
    let yaml = format!(
        "listeners: [{}]\nupstreams: {{ api: {{ servers: [{}] }} }}\nroutes: [{{ match: /*, to: api }}]\n",
        tls_listener(folder.path(), &["a", "b"]),
        origin.address
    );
    let edge = Edge::start(&yaml);
    for (name, certificate) in [("a.test", &a), ("b.test", &b)] {
        let mut client = tls(edge.https(), name, std::slice::from_ref(certificate)).unwrap();
        client.send(format!("GET / HTTP/1.1\r\nhost: {name}\r\n\r\n"));
        assert_eq!(client.answer().text(), "x");
        assert_eq!(origin.last().field("x-forwarded-proto"), "https");
    }
    assert!(tls(edge.https(), "a.test", &[b]).is_err(), "each its own");
}

async fn h2_ask(
    sender: &h2::client::SendRequest<Bytes>,
    method: &str,
    uri: &str,
    body: Bytes,
) -> (http::response::Parts, Vec<u8>) {
    let request = http::Request::builder().method(method).uri(uri).body(()).unwrap();
    let mut sender = sender.clone().ready().await.unwrap();
    let is_empty = body.is_empty();
    let (answer, mut stream) = sender.send_request(request, is_empty).unwrap();
    if !is_empty {
        stream.send_data(body, true).unwrap();
    }
    let (parts, mut body) = answer.await.unwrap().into_parts();
    let mut whole = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece.unwrap();
        body.flow_control().release_capacity(piece.len()).unwrap();
        whole.extend_from_slice(&piece);
    }
    (parts, whole)
}

/// Answers `/big` with 5 MB, and everything else with the length of what it got.
fn measuring() -> Origin {
    Origin::start(|request, wire| match request.target() {
        "/big" => wire.answer("", vec![b'b'; 5_000_000]),
        _ => wire.answer("", format!("{} {}", request.method(), request.body.len())),
    })
}

async fn speak_http2(
    io: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    scheme: &str,
) {
    let (sender, connection) = h2::client::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let at = |path: &str| format!("{scheme}://a.test{path}");
    let (parts, body) = h2_ask(&sender, "GET", &at("/x"), Bytes::new()).await;
    assert_eq!((parts.status.as_u16(), &*body), (200, &b"GET 0"[..]));
    assert!(!parts.headers.contains_key("connection") && !parts.headers.contains_key("transfer-encoding"));
    let (_, body) = h2_ask(&sender, "POST", &at("/x"), Bytes::from(vec![b'p'; 300_000])).await;
    assert_eq!(body, b"POST 300000");
    let (parts, body) = h2_ask(&sender, "GET", &at("/big"), Bytes::new()).await;
    assert_eq!((parts.headers["content-length"].to_str().unwrap(), body.len()), ("5000000", 5_000_000));
    let (a, b) = (at("/a"), at("/b"));
    let both =
        tokio::join!(h2_ask(&sender, "GET", &a, Bytes::new()), h2_ask(&sender, "GET", &b, Bytes::new()));
    assert_eq!((both.0.1, both.1.1), (b"GET 0".to_vec(), b"GET 0".to_vec()));
}

#[tokio::test]
async fn http_2_over_tls_carries_bodies_both_ways() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = certificate(folder.path(), "a", "a.test");
    let origin = measuring();
    let yaml = format!(
        "listeners: [{}]\nupstreams: {{ api: {{ servers: [{}] }} }}\nroutes: [{{ match: {{ hosts: [a.test], path: /* }}, to: api }}]\n",
        tls_listener(folder.path(), &["a"]),
        origin.address
    );
    let edge = Edge::start(&yaml);
    let connector = tokio_rustls::TlsConnector::from(trusting(&[certificate], b"h2"));
    let socket = TcpStream::connect(edge.https()).await.unwrap();
    let io = connector.connect("a.test".try_into().unwrap(), socket).await.unwrap();
    assert_eq!(io.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    speak_http2(io, "https").await;
    let seen = origin.last();
    assert_eq!((&*seen.field("host"), &*seen.field("x-forwarded-proto")), ("a.test", "https"));
    assert_eq!(edge.record("target", "/big")["protocol"], "HTTP/2.0");
}

#[tokio::test]
async fn http_2_by_prior_knowledge() {
    let origin = measuring();
    let edge = Edge::before(&origin);
    let io = TcpStream::connect(edge.http()).await.unwrap();
    speak_http2(io, "http").await;
}

#[tokio::test]
async fn http_2_hears_refusals_hits_and_heads() {
    let origin = Origin::start(|_, wire| wire.answer("", vec![b'c'; 200_000]));
    let yaml = format!(
        "caches: {{ store: {{}} }}
upstreams: {{ api: {{ servers: [{}] }} }}
routes:
  - match: /kept
    cache: {{ in: store, ttl: 60s }}
    to: api
  - match: /small
    body_bytes: 10
    to: api
",
        origin.address
    );
    let edge = Edge::start(&yaml);
    let (sender, connection) =
        h2::client::handshake(TcpStream::connect(edge.http()).await.unwrap()).await.unwrap();
    tokio::spawn(connection);
    for _ in 0..2 {
        let (parts, body) = h2_ask(&sender, "GET", "http://h/kept", Bytes::new()).await;
        assert_eq!((parts.status.as_u16(), body.len()), (200, 200_000));
    }
    let (parts, body) = h2_ask(&sender, "HEAD", "http://h/kept", Bytes::new()).await;
    assert_eq!((parts.headers["content-length"].to_str().unwrap(), body.len()), ("200000", 0));
    let (parts, _) = h2_ask(&sender, "GET", "http://h/none", Bytes::new()).await;
    assert_eq!(parts.status, 404);
    let (parts, _) = h2_ask(&sender, "POST", "http://h/small", Bytes::from_static(&[b'x'; 11])).await;
    assert_eq!(parts.status, 413);
    let (parts, _) = h2_ask(&sender, "GET", "http://h/kept", Bytes::new()).await;
    assert_eq!(parts.status, 200, "the connection goes on");
    assert_eq!(origin.count(), 1);
}
