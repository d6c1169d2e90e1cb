//! Clients that speak HTTP/2: what an origin in HTTP/1.1 says reaches them as it would in HTTP/1.1.

use std::future::poll_fn;

use bytes::Bytes;
use h2::{
    RecvStream, SendStream,
    client::{ResponseFuture, SendRequest},
};
use http::{Request, Response, StatusCode};
use tokio::{net::TcpStream, task::block_in_place};

use crate::support::{Edge, Origin, ok};

pub(crate) struct Client {
    sender: SendRequest<Bytes>,
    connection: tokio::task::JoinHandle<Result<(), h2::Error>>,
}

impl Client {
    pub(crate) async fn of(edge: &Edge) -> Self {
        let socket = TcpStream::connect(edge.http()).await.unwrap();
        let (sender, connection) = h2::client::handshake(socket).await.unwrap();
        Self { sender, connection: tokio::spawn(connection) }
    }

    /// Asks; the request goes on as a stream unless it `ends` with its head.
    pub(crate) async fn ask(&self, request: Request<()>, ends: bool) -> (ResponseFuture, SendStream<Bytes>) {
        self.sender.clone().ready().await.unwrap().send_request(request, ends).unwrap()
    }

    async fn get(&self, uri: &str) -> Response<RecvStream> {
        self.ask(Request::get(uri).body(()).unwrap(), true).await.0.await.unwrap()
    }
}

async fn interim(answer: &mut ResponseFuture) -> Response<()> {
    poll_fn(|context| answer.poll_informational(context)).await.expect("an interim answer").unwrap()
}

async fn next(body: &mut RecvStream) -> Bytes {
    let piece = body.data().await.unwrap().unwrap();
    body.flow_control().release_capacity(piece.len()).unwrap();
    piece
}

#[tokio::test(flavor = "multi_thread")]
async fn interim_answers_pass() {
    let origin = Origin::saying(format!(
        "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\nconnection: x\r\n\r\n{}",
        ok("x")
    ));
    let edge = Edge::before(&origin);
    let client = Client::of(&edge).await;
    let (mut answer, _) = client.ask(Request::get("http://h/").body(()).unwrap(), true).await;
    let hints = interim(&mut answer).await;
    assert_eq!(
        (hints.status(), &hints.headers()["link"]),
        (StatusCode::EARLY_HINTS, &"</a.css>; rel=preload".parse().unwrap())
    );
    assert!(!hints.headers().contains_key("connection"));
    assert_eq!(answer.await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_to_be_asked_for_a_body_is_asked() {
    let origin = Origin::start(|request, wire| wire.answer("", &request.body));
    let edge = Edge::before(&origin);
    let client = Client::of(&edge).await;
    let request = Request::post("http://h/").header("expect", "100-continue").body(()).unwrap();
    let (mut answer, mut body) = client.ask(request, false).await;
    assert_eq!(interim(&mut answer).await.status(), StatusCode::CONTINUE);
    body.send_data(Bytes::from_static(b"hello"), true).unwrap();
    assert_eq!(next(answer.await.unwrap().body_mut()).await, "hello");
    assert!(!origin.last().has("expect"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_of_an_answer_is_its_origin_s() {
    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    let origin = Origin::start(move |_, wire| wire.answer(&format!("date: {date}\r\n"), "x"));
    let edge = Edge::before(&origin);
    let client = Client::of(&edge).await;
    assert_eq!(client.get("http://h/").await.headers()["date"], date);
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_opens_a_tunnel_on_a_stream_of_its_own() {
    let db = Origin::connections(|mut client| {
        while let Some(line) = client.line() {
            client.try_send(format!("{}\r\n", line.to_ascii_uppercase()));
        }
    });
    let edge = Edge::start(&format!(
        "upstreams: {{ db: {{ servers: [{}] }} }}
routes:
  - {{ name: tunnel, match: {{ hosts: [db.test] }}, tunnel: db }}
  - {{ match: /*, answer: {{ body: not a tunnel }} }}
",
        db.address
    ));
    let client = Client::of(&edge).await;
    let (answer, mut up) = client.ask(Request::connect("db.test:5432").body(()).unwrap(), false).await;
    let mut down = answer.await.unwrap();
    assert!(down.status() == 200 && !down.headers().contains_key("content-length"), "{down:?}");
    for (said, heard) in [("one\r\n", "ONE\r\n"), ("two\r\n", "TWO\r\n")] {
        up.send_data(Bytes::from_static(said.as_bytes()), false).unwrap();
        assert_eq!(next(down.body_mut()).await, heard);
        assert_eq!(client.get("http://h/").await.status(), 200, "others go on beside it");
    }
    up.send_data(Bytes::new(), true).unwrap();
    while let Some(piece) = down.body_mut().data().await {
        assert!(piece.unwrap().is_empty(), "and either side ends it");
    }
    assert_eq!(block_in_place(|| edge.record("route", "tunnel"))["target"], "db.test:5432");

    for (authority, status) in [("elsewhere.test:80", 405), ("db.test", 400)] {
        let (answer, _) = client.ask(Request::connect(authority).body(()).unwrap(), false).await;
        assert_eq!(answer.await.unwrap().status(), status, "{authority}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_is_in_the_log_and_not_for_ever() {
    let origin = Origin::named("x");
    let edge = Edge::before(&origin);
    let client = Client::of(&edge).await;
    let mismatch = || Request::get("http://a/").header("host", "b").body(()).unwrap();
    assert_eq!(client.ask(mismatch(), true).await.0.await.unwrap().status(), 400);
    assert_eq!(client.get("http://a/").await.status(), 200, "its siblings are served");
    let refused = block_in_place(|| edge.record("refusal", "host_mismatch"));
    assert_eq!((&refused["status"], &refused["line"]), (&400.into(), &"GET /".into()));
    for _ in 0..100 {
        let Ok(mut sender) = client.sender.clone().ready().await else { break };
        let Ok((answer, _)) = sender.send_request(mismatch(), true) else { break };
        let _ = answer.await;
    }
    let ended = client.connection.await.unwrap().unwrap_err();
    assert_eq!(ended.reason(), Some(h2::Reason::ENHANCE_YOUR_CALM));
    assert_eq!(origin.count(), 1);
}
