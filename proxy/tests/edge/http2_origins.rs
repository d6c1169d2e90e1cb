//! Origins that speak HTTP/2: prior knowledge, TLS, many streams, refusals to look, and gRPC with its trailers.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::net::{TcpListener, TcpStream};

use crate::{protocols::certificate, support::Edge};

type Respond = h2::server::SendResponse<Bytes>;

/// An origin in plain HTTP/2; `script` answers each stream, told which connection it came on.
struct Origin {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    seen: Arc<Mutex<Vec<http::request::Parts>>>,
}

impl Origin {
    async fn start<F>(
        script: impl Fn(usize, Request<h2::RecvStream>, Respond) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, seen) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<Vec<_>>>::default());
        let (count, note, script) = (Arc::clone(&connections), Arc::clone(&seen), Arc::new(script));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let number = count.fetch_add(1, Ordering::SeqCst);
                let (note, script) = (Arc::clone(&note), Arc::clone(&script));
                tokio::spawn(async move {
                    let Ok(mut connection) = h2::server::handshake(socket).await else { return };
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        let (parts, body) = request.into_parts();
                        note.lock().unwrap().push(parts.clone());
                        tokio::spawn(script(number, Request::from_parts(parts, body), respond));
                    }
                });
            }
        });
        Self { address, connections, seen }
    }

    fn edge(&self) -> Edge {
        let yaml = format!(
            "upstreams: {{ api: {{ servers: [\"{}\"], protocol: h2c }} }}\nroutes: [{{ match: /*, to: api }}]\n",
            self.address
        );
        tokio::task::block_in_place(|| Edge::start(&yaml))
    }
}

async fn whole(mut body: h2::RecvStream) -> (Vec<u8>, Option<HeaderMap>) {
    let mut whole = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece.unwrap();
        body.flow_control().release_capacity(piece.len()).unwrap();
        whole.extend_from_slice(&piece);
    }
    (whole, body.trailers().await.unwrap())
}

async fn say(mut respond: Respond, status: u16, body: impl Into<Bytes>) {
    let answer = Response::builder().status(status).body(()).unwrap();
    let mut stream = respond.send_response(answer, false).unwrap();
    stream.send_data(body.into(), true).unwrap();
}

async fn client(edge: &Edge) -> h2::client::SendRequest<Bytes> {
    let socket = TcpStream::connect(edge.http()).await.unwrap();
    let (sender, connection) = h2::client::handshake(socket).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn call(path: &str) -> http::request::Builder {
    let request = Request::builder().method("POST").uri(format!("http://h{path}"));
    request.header("content-type", "application/grpc").header("te", "trailers")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http_1_client_is_served_by_an_http_2_origin() {
    let origin = Origin::start(|_, request, respond| async move {
        let (body, _) = whole(request.into_body()).await;
        say(respond, 200, format!("got {}", body.len())).await;
    })
    .await;
    let edge = origin.edge();
    tokio::task::block_in_place(|| {
        assert_eq!(edge.get("/a?b=c").text(), "got 0");
        let chunked = edge.send(
            "POST /up HTTP/1.1\r\nhost: Edge.test\r\ntransfer-encoding: chunked\r\nte: gzip\r\nconnection: te\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        );
        assert_eq!(chunked.text(), "got 3");
        let body = "x".repeat(300_000);
        let long = edge.send(format!("PUT /up HTTP/1.1\r\nhost: h\r\ncontent-length: 300000\r\n\r\n{body}"));
        assert_eq!(long.text(), "got 300000");
    });
    let seen = origin.seen.lock().unwrap();
    assert_eq!(seen[0].uri.to_string(), "http://edge.test/a?b=c");
    assert_eq!(seen[1].uri.authority().unwrap().as_str(), "edge.test");
    for head in &*seen {
        for name in ["host", "connection", "transfer-encoding", "te", "upgrade"] {
            assert!(!head.headers.contains_key(name), "{name} in {head:?}");
        }
        assert_eq!(head.headers["via"], "1.1 weir");
    }
    assert_eq!(origin.connections.load(Ordering::SeqCst), 1, "one connection carries them all");
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_keeps_its_trailers() {
    let origin = Origin::start(|_, request, mut respond| async move {
        let (body, _) = whole(request.into_body()).await;
        let answer = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
        let mut stream = respond.send_response(answer, false).unwrap();
        stream.send_data(body.into(), false).unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        trailers.insert("content-length", HeaderValue::from_static("7"));
        stream.send_trailers(trailers).unwrap();
    })
    .await;
    let edge = origin.edge();
    let mut sender = client(&edge).await;
    for _ in 0..2 {
        let (answer, mut stream) = sender.send_request(call("/echo").body(()).unwrap(), false).unwrap();
        stream.send_data(Bytes::from_static(b"message"), true).unwrap();
        let (parts, body) = answer.await.unwrap().into_parts();
        let (body, trailers) = whole(body).await;
        assert_eq!((parts.status.as_u16(), &*body), (200, &b"message"[..]));
        let trailers = trailers.expect("trailers");
        assert_eq!(trailers["grpc-status"], "0");
        assert!(!trailers.contains_key("content-length"), "nothing that frames comes behind the body");
    }
    assert_eq!(origin.seen.lock().unwrap()[0].headers["te"], "trailers");
    assert_eq!(origin.connections.load(Ordering::SeqCst), 1);
    // A client in HTTP/1.1 gets the body, whole.
    let plain = tokio::task::block_in_place(|| {
        edge.send("POST /echo HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\nhi")
    });
    assert_eq!((plain.text(), plain.whole), ("hi".into(), true));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_trailers_alone_ends_with_its_head() {
    let origin = Origin::start(|_, _, mut respond| async move {
        let answer =
            Response::builder().header("content-type", "application/grpc").header("grpc-status", "5");
        respond.send_response(answer.body(()).unwrap(), true).unwrap();
    })
    .await;
    let edge = origin.edge();
    let mut sender = client(&edge).await;
    let (answer, _) = sender.send_request(call("/none").body(()).unwrap(), true).unwrap();
    let answer = answer.await.unwrap();
    assert_eq!(answer.headers()["grpc-status"], "5");
    assert!(answer.body().is_end_stream(), "a client reads the status there only");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_client_hears_our_refusals_in_its_own_words() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let yaml = format!(
        "upstreams: {{ api: {{ servers: [\"{nobody}\"], protocol: h2c }} }}\nroutes: [{{ match: /api, to: api }}]\n"
    );
    let edge = tokio::task::block_in_place(|| Edge::start(&yaml));
    let mut sender = client(&edge).await;
    for (path, status, code) in [("/api", 502, "14"), ("/none", 404, "12")] {
        let (answer, _) = sender.send_request(call(path).body(()).unwrap(), true).unwrap();
        let answer = answer.await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["grpc-status"]),
            (status, &HeaderValue::from_static(code))
        );
        assert_eq!(answer.headers()["content-type"], "application/grpc");
        assert!(answer.body().is_end_stream());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_was_not_looked_at_goes_again_whatever_its_method() {
    let refused = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&refused);
    let origin = Origin::start(move |_, request, mut respond| {
        let first = count.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            if first {
                return respond.send_reset(h2::Reason::REFUSED_STREAM);
            }
            let (body, _) = whole(request.into_body()).await;
            say(respond, 200, body).await;
        }
    })
    .await;
    let edge = origin.edge();
    let answer = tokio::task::block_in_place(|| {
        edge.send("POST /once HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\nhi")
    });
    assert_eq!((answer.status, answer.text()), (200, "hi".into()));
    assert_eq!(refused.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_broke_later_does_not() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let origin = Origin::start(move |_, _, mut respond| {
        count.fetch_add(1, Ordering::SeqCst);
        async move { respond.send_reset(h2::Reason::INTERNAL_ERROR) }
    })
    .await;
    let edge = origin.edge();
    let answer = tokio::task::block_in_place(|| {
        edge.send("POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\nhi")
    });
    assert_eq!(answer.status, 502);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_is_never_whole() {
    let origin = Origin::start(|_, _, mut respond| async move {
        let mut stream = respond.send_response(Response::new(()), false).unwrap();
        stream.send_data(Bytes::from_static(b"half"), false).unwrap();
        stream.send_reset(h2::Reason::INTERNAL_ERROR);
    })
    .await;
    let edge = origin.edge();
    let answer = tokio::task::block_in_place(|| edge.get("/"));
    assert!(answer.status == 502 || !answer.whole, "{answer:?}");
}

/// Sends all of `bytes`, as the other side takes them.
async fn send_all(stream: &mut h2::SendStream<Bytes>, mut bytes: Bytes, end: bool) {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let taken = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await.unwrap().unwrap();
        let piece = bytes.split_to(taken.min(bytes.len()));
        stream.send_data(piece, end && bytes.is_empty()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_answers_as_it_reads_is_read_as_it_is_written_to() {
    const MIB: usize = 1 << 20;
    let origin = Origin::start(|_, request, mut respond| async move {
        let mut stream = respond.send_response(Response::new(()), false).unwrap();
        let mut body = request.into_body();
        // Takes nothing more before its answer, larger than any window, was taken.
        while let Some(piece) = body.data().await {
            let piece = piece.unwrap();
            let length = piece.len();
            for _ in 0..16 {
                send_all(&mut stream, piece.clone(), false).await;
            }
            body.flow_control().release_capacity(length).unwrap();
        }
        stream
            .send_trailers(HeaderMap::from_iter([(
                http::HeaderName::from_static("grpc-status"),
                HeaderValue::from_static("0"),
            )]))
            .unwrap();
    })
    .await;
    let edge = origin.edge();
    let mut sender = client(&edge).await;
    let (answer, mut stream) = sender.send_request(call("/echo").body(()).unwrap(), false).unwrap();
    let upload = tokio::spawn(async move { send_all(&mut stream, vec![b'e'; MIB].into(), true).await });
    let (body, trailers) = whole(answer.await.unwrap().into_body()).await;
    assert_eq!((body.len(), &trailers.unwrap()["grpc-status"]), (16 * MIB, &HeaderValue::from_static("0")));
    upload.await.unwrap();
    assert_eq!(tokio::task::block_in_place(|| edge.record("target", "/echo"))["status"], 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_goes_on_message_by_message() {
    let origin = Origin::start(|_, request, mut respond| async move {
        let mut stream = respond.send_response(Response::new(()), false).unwrap();
        let mut body = request.into_body();
        while let Some(piece) = body.data().await {
            let piece = piece.unwrap();
            body.flow_control().release_capacity(piece.len()).unwrap();
            stream.send_data(piece, false).unwrap();
        }
        stream.send_data(Bytes::new(), true).unwrap();
    })
    .await;
    let edge = origin.edge();
    let mut sender = client(&edge).await;
    let (answer, mut stream) = sender.send_request(call("/talk").body(()).unwrap(), false).unwrap();
    stream.send_data(Bytes::from_static(b"0"), false).unwrap();
    let mut body = answer.await.unwrap().into_body();
    for number in 0..20 {
        let piece = body.data().await.unwrap().unwrap();
        assert_eq!(piece, format!("{number}"));
        stream.send_data(format!("{}", number + 1).into(), false).unwrap();
    }
    assert_eq!(body.data().await.unwrap().unwrap(), "20");
    stream.send_data(Bytes::new(), true).unwrap();
    assert_eq!(whole(body).await, (Vec::new(), None));
}

/// An origin in TLS that chooses among `protocols`; says which protocol the request came in.
async fn tls_origin(protocols: &[&[u8]]) -> SocketAddr {
    let folder = tempfile::tempdir().unwrap();
    let chain = vec![certificate(folder.path(), "o", "origin.test")];
    let key = std::fs::read(folder.path().join("o.key")).unwrap();
    let key = rustls::pki_types::pem::PemObject::from_pem_slice(&key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config =
        rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_no_client_auth().with_single_cert(chain, key).unwrap();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(socket).await else { return };
                if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                    let mut connection = h2::server::handshake(stream).await.unwrap();
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        let scheme = request.uri().scheme_str().unwrap_or_default().to_owned();
                        tokio::spawn(say(respond, 200, format!("h2 {scheme}")));
                    }
                } else {
                    use tokio::io::{AsyncReadExt, AsyncWriteExt};
                    let mut head = [0; 4096];
                    let _ = stream.read(&mut head).await;
                    let upgrades =
                        String::from_utf8_lossy(&head).to_ascii_lowercase().contains("upgrade: tcp");
                    let answer = match upgrades {
                        true => "HTTP/1.1 101 Go\r\nconnection: upgrade\r\nupgrade: tcp\r\n\r\ntunnel",
                        false => "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nhttp/1",
                    };
                    let _ = stream.write_all(answer.as_bytes()).await;
                    let _ = stream.shutdown().await;
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn in_tls_the_origin_chooses_and_an_upgrade_is_asked_for_in_http_1() {
    let edge = |address| {
        let yaml = format!(
            "upstreams: {{ api: {{ servers: [\"{address}\"], protocol: h2, tls: {{ name: origin.test, verify: false }} }} }}\nroutes: [{{ match: /*, to: api, upgrade: tcp }}]\n"
        );
        tokio::task::block_in_place(|| Edge::start(&yaml))
    };
    let (both, old) = (edge(tls_origin(&[b"h2", b"http/1.1"]).await), edge(tls_origin(&[b"http/1.1"]).await));
    tokio::task::block_in_place(|| {
        assert_eq!(both.get("/").text(), "h2 https");
        assert_eq!(old.get("/").text(), "http/1");
        let mut client = both.connect();
        client.send("GET / HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: tcp\r\n\r\n");
        assert_eq!((client.answer_head().0, client.rest()), (101, b"tunnel".to_vec()));
        assert_eq!(both.get("/").text(), "h2 https", "others go on in HTTP/2");
    });
}
