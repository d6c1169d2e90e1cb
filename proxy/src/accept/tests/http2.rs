//! HTTP/2 over TLS and by prior knowledge, and the names on certificates.

use bytes::Bytes;
use http::Request;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName},
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::*;
use crate::accept::{handshake::NoHandshake, tls::Certificates};

type Sender = h2::client::SendRequest<Bytes>;

async fn client(
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> (Sender, JoinHandle<Result<(), h2::Error>>) {
    let (sender, connection) = h2::client::handshake(io).await.unwrap();
    (sender, tokio::spawn(connection))
}

async fn ask(sender: &mut Sender, request: Request<()>, body: Option<&'static [u8]>) -> (u16, String) {
    let mut ready = sender.clone().ready().await.unwrap();
    let (response, mut stream) = ready.send_request(request, body.is_none()).unwrap();
    if let Some(body) = body {
        stream.send_data(Bytes::from_static(body), true).unwrap();
    }
    let response = response.await.unwrap();
    let status = response.status().as_u16();
    let mut body = response.into_body();
    let mut text = String::new();
    while let Some(part) = body.data().await {
        let part = part.unwrap();
        body.flow_control().release_capacity(part.len()).unwrap();
        text.push_str(std::str::from_utf8(&part).unwrap());
    }
    (status, text)
}

fn get(path: &str) -> Request<()> {
    Request::get(format!("http://a{path}")).body(()).unwrap()
}

#[tokio::test]
async fn prior_knowledge_is_understood_even_in_pieces() {
    let front = Front::start(|_| {}).await;
    let (near, mut far) = tokio::io::duplex(1 << 16);
    let mut tcp = TcpStream::connect(front.address).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    tokio::spawn(async move {
        // The preface crosses byte by byte, then everything as it comes.
        for _ in 0..24 {
            tcp.write_u8(far.read_u8().await.unwrap()).await.unwrap();
            tokio::task::yield_now().await;
        }
        let _ = tokio::io::copy_bidirectional(&mut far, &mut tcp).await;
    });
    let (mut sender, _connection) = client(near).await;
    assert_eq!(ask(&mut sender, get("/ignore"), None).await, (200, "ignored".into()));
    let post = Request::post("http://a/echo").body(()).unwrap();
    assert_eq!(ask(&mut sender, post, Some(b"hello")).await, (200, "hello".into()));
}

#[tokio::test]
async fn quick_answers_come_whole_in_one_window_or_in_many() {
    let front = Front::start(|_| {}).await;
    let (mut sender, _connection) = client(front.connect().await.0).await;
    assert_eq!(ask(&mut sender, get("/express"), None).await, (200, "quick".into()));
    let (status, text) = ask(&mut sender, get("/express/big"), None).await;
    assert_eq!((status, text.len()), (200, 1 << 20));
    let service = &front.listener.service;
    assert_eq!((service.shared.written.lock().clone(), service.served()), (vec![true, true], 0));
    let post = Request::post("http://a/express").body(()).unwrap();
    assert_ne!(ask(&mut sender, post, Some(b"x")).await.1, "quick", "it has a body");
}

#[tokio::test]
async fn a_quick_answer_that_nobody_reads_is_not_whole() {
    let front = Front::start(|bounds| bounds.send_timeout = Duration::from_millis(200)).await;
    let (sender, _connection) = client(front.connect().await.0).await;
    let mut sender = sender.ready().await.unwrap();
    let (response, _stream) = sender.send_request(get("/express/big"), true).unwrap();
    let mut body = response.await.unwrap().into_body();
    // Its window stays closed.
    while let Some(Ok(_)) = body.data().await {}
    assert_eq!(front.listener.service.shared.written.lock().clone(), [false]);
}

#[tokio::test]
async fn a_request_is_held_to_the_rules_of_http1() {
    let front = Front::start(|_| {}).await;
    let (mut sender, _connection) = client(front.connect().await.0).await;
    let crumbs =
        Request::get("http://a/head").header("cookie", "a=1").header("cookie", "b=2").body(()).unwrap();
    let (status, text) = ask(&mut sender, crumbs, None).await;
    assert!(
        status == 200 && text.contains("\"cookie\": \"a=1; b=2\"") && text.contains("\"host\": \"a\""),
        "{text}"
    );
    let lookalike = Request::get("http://a/head").header("content_length", "5").body(()).unwrap();
    assert_eq!(ask(&mut sender, lookalike, None).await, (400, "bad_field_name".into()));
    let connect = Request::connect("a").body(()).unwrap();
    assert_eq!(ask(&mut sender, connect, None).await, (400, "bad_target".into()));
    let mismatch = Request::get("http://a/").header("host", "b").body(()).unwrap();
    assert_eq!(ask(&mut sender, mismatch, None).await.0, 400);
    assert_eq!(ask(&mut sender, get("/ignore"), None).await.0, 200, "its siblings are served");
}

#[tokio::test]
async fn a_header_block_without_end_closes_the_connection() {
    let front = Front::start(|bounds| bounds.header_timeout = Duration::from_millis(300)).await;
    let mut client = front.connect().await;
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    // HEADERS without END_HEADERS, and no CONTINUATION.
    client.send(b"\0\0\x01\x01\0\0\0\0\x01\x82").await;
    let begun = std::time::Instant::now();
    client.rest().await;
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_flood_of_resets_ends_the_connection_early() {
    let front = Front::start(|_| {}).await;
    let mut client = front.connect().await;
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for stream in (1..2000_u32).step_by(2) {
        // :method GET, :scheme http, :path /, :authority a; END_STREAM and END_HEADERS; then a reset.
        bytes.extend_from_slice(b"\0\0\x06\x01\x05");
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(b"\x82\x86\x84\x41\x01a\0\0\x04\x03\0");
        bytes.extend_from_slice(&stream.to_be_bytes());
        bytes.extend_from_slice(b"\0\0\0\x08");
    }
    let _ = client.0.write_all(&bytes).await;
    let mut rest = Vec::new();
    let _ =
        tokio::time::timeout(Duration::from_secs(5), client.0.read_to_end(&mut rest)).await.expect("a close");
    assert!(front.listener.service.served() <= 100, "{}", front.listener.service.served());
}

#[tokio::test]
async fn a_stop_says_goaway_and_finishes_the_streams() {
    let front = Front::start(|_| {}).await;
    let (mut sender, connection) = client(front.connect().await.0).await;
    let shared = front.listener.service.shared.clone();
    let mut busy = sender.clone();
    let waiting = tokio::spawn(async move { ask(&mut busy, get("/wait"), None).await });
    shared.waiting.acquire().await.unwrap().forget();
    front.stop.stop();
    while sender.clone().ready().await.is_ok() && sender.send_request(get("/ignore"), true).is_ok() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    shared.may_answer.add_permits(1);
    assert_eq!(waiting.await.unwrap(), (200, "waited".into()));
    drop(sender);
    connection.await.unwrap().unwrap();
    tokio::time::timeout(Duration::from_secs(3), front.done).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_idle_connection_is_closed_with_goaway() {
    let front = Front::start(|bounds| bounds.idle_timeout = Duration::from_millis(100)).await;
    let (mut sender, connection) = client(front.connect().await.0).await;
    assert_eq!(ask(&mut sender, get("/ignore"), None).await.0, 200);
    // The library's client ends without an error only after a GOAWAY that says NO_ERROR.
    tokio::time::timeout(Duration::from_secs(3), connection).await.unwrap().unwrap().unwrap();
}

struct Issued {
    _folder: tempfile::TempDir,
    certificates: Certificates,
    der: CertificateDer<'static>,
}

fn issue(name: &str) -> Issued {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (chain, key) = (folder.path().join("chain.pem"), folder.path().join("key.pem"));
    std::fs::write(&chain, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let certificates = Certificates::read([(chain.as_path(), key.as_path())]).unwrap();
    Issued { _folder: folder, certificates, der: made.cert.der().clone() }
}

async fn tls(
    front: &Front,
    name: &str,
    trusted: &CertificateDer<'static>,
    alpn: &[u8],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, front.connect().await.0).await
}

#[tokio::test]
async fn tls_speaks_what_was_agreed_and_knows_the_name() {
    let Issued { certificates, der, _folder } = issue("a.test");
    let front = Front::with_tls(|_| {}, Some(Arc::new(Tls::new(certificates, true).unwrap()))).await;
    let (mut sender, _connection) = client(tls(&front, "a.test", &der, b"h2").await.unwrap()).await;
    let request = Request::get("https://a.test/tls").body(()).unwrap();
    let (status, text) = ask(&mut sender, request, None).await;
    assert!(status == 200 && text.contains("TLSv1_3") && text.contains("a.test"), "{text}");

    let mut stream = tls(&front, "a.test", &der, b"http/1.1").await.unwrap();
    stream.write_all(b"GET /tls HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert!(text.contains("a.test"), "{text}");
}

#[tokio::test]
async fn certificates_are_replaced_without_a_new_listener() {
    let (old, new) = (issue("a.test"), issue("a.test"));
    let own = Arc::new(Tls::new(old.certificates, false).unwrap());
    let front = Front::with_tls(|_| {}, Some(own.clone())).await;
    tls(&front, "a.test", &old.der, b"http/1.1").await.unwrap();
    own.replace(new.certificates);
    tls(&front, "a.test", &new.der, b"http/1.1").await.unwrap();
    assert!(tls(&front, "a.test", &old.der, b"http/1.1").await.is_err());
}

#[tokio::test]
async fn a_failed_handshake_is_counted_by_its_reason() {
    let issued = issue("a.test");
    let front = Front::with_tls(|_| {}, Some(Arc::new(Tls::new(issued.certificates, true).unwrap()))).await;
    front.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let stranger = issue("b.test");
    assert!(tls(&front, "a.test", &stranger.der, b"http/1.1").await.is_err());
    let counted =
        || front.listener.counters.no_handshake().filter(|(_, count)| *count > 0).collect::<Vec<_>>();
    // The client hears of it before the server has counted.
    while counted().len() < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(counted(), [(NoHandshake::NotTls, 1), (NoHandshake::Alert, 1)]);
}

#[tokio::test]
async fn a_stop_waits_for_a_client_that_still_reads_what_it_was_answered() {
    let front = Front::start(|_| {}).await;
    // Windows for everything at once, so that the library has the whole answer long before the client has.
    let mut options = h2::client::Builder::new();
    options.initial_window_size(1 << 24).initial_connection_window_size(1 << 24);
    let (near, far) = tokio::io::duplex(16 << 10);
    let mut tcp = front.connect().await.0;
    socket2::SockRef::from(&tcp).set_recv_buffer_size(64 << 10).unwrap();
    tokio::spawn(async move {
        let (mut from_us, mut to_us) = tokio::io::split(far);
        let (mut from_front, mut to_front) = tcp.split();
        let up = tokio::io::copy(&mut from_us, &mut to_front);
        // Slowly, and never silent for as long as a goodbye takes.
        let down = async {
            let mut piece = vec![0; 64 << 10];
            loop {
                let read = tokio::io::AsyncReadExt::read(&mut from_front, &mut piece).await.unwrap_or(0);
                if read == 0 || to_us.write_all(&piece[..read]).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
        };
        tokio::select! { _ = up => {}, () = down => {} }
    });
    let (sender, connection) = options.handshake::<_, Bytes>(near).await.unwrap();
    tokio::spawn(connection);
    let mut answers = Vec::new();
    for _ in 0..8 {
        let mut ready = sender.clone().ready().await.unwrap();
        answers.push(ready.send_request(get("/express/big"), true).unwrap().0);
    }
    let mut bodies = Vec::new();
    for answer in answers {
        bodies.push(answer.await.unwrap().into_body());
    }
    front.stop.stop();
    for mut body in bodies {
        let mut length = 0;
        while let Some(piece) = body.data().await {
            let piece = piece.expect("the answer is whole");
            body.flow_control().release_capacity(piece.len()).unwrap();
            length += piece.len();
        }
        assert_eq!(length, 1 << 20);
    }
}
