//! HTTP/2: streams and frames that hold on to us, and requests that HTTP/1 would misread.

use std::{
    future::poll_fn,
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use http::{Method, Request, Version};

use super::{
    harness::{Weir, config},
    origin::Origin,
};

/// What a flood may leave behind in our memory, in KiB.
const GROWTH: u64 = 16 << 10;

async fn connect(weir: &Weir) -> SendRequest<Bytes> {
    let tcp = tokio::net::TcpStream::connect(weir.address).await.unwrap();
    // As hyper does: the edge's own bound is known only when its SETTINGS have come, and what is above is refused.
    let mut client = h2::client::Builder::new();
    let (sender, connection) = client.initial_max_send_streams(100).handshake(tcp).await.unwrap();
    tokio::spawn(connection);
    sender.ready().await.unwrap()
}

fn request(method: Method, target: &str) -> Request<()> {
    let uri = format!("http://a.test{target}");
    Request::builder().version(Version::HTTP_2).method(method).uri(uri).body(()).unwrap()
}

/// Status and body; waiting for longer than any deadline of the edge is a failure.
async fn whole(response: ResponseFuture) -> Result<(u16, Bytes), h2::Error> {
    tokio::time::timeout(Duration::from_secs(10), read_whole(response)).await.expect("an answer in time")
}

async fn read_whole(response: ResponseFuture) -> Result<(u16, Bytes), h2::Error> {
    let (head, mut body) = response.await?.into_parts();
    let mut bytes = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        bytes.extend_from_slice(&piece);
    }
    Ok((head.status.as_u16(), bytes.into()))
}

/// One frame, header and payload.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// GET /flood of a.test, in HPACK literals.
fn head() -> Vec<u8> {
    [&[0x82, 0x86, 0x04, 6][..], b"/flood", &[0x01, 6], b"a.test"].concat()
}

/// A connection that has said its preface.
pub(crate) fn raw(weir: &Weir) -> TcpStream {
    let mut socket = TcpStream::connect(weir.address).unwrap();
    socket.set_nodelay(true).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    socket.write_all(&frame(4, 0, 0, &[])).unwrap();
    socket
}

/// Kind and payload of the next frame; `None` at the end of the connection.
pub(crate) fn next_frame(socket: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 9];
    socket.read_exact(&mut head).ok()?;
    let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
    socket.read_exact(&mut payload).ok()?;
    Some((head[3], payload))
}

/// Whether the edge ends the connection, whatever it says before.
fn is_dropped(socket: &mut TcpStream) -> bool {
    let mut sink = [0; 16 << 10];
    loop {
        match socket.read(&mut sink) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_never_sends_its_body_is_cut_and_the_others_live() {
    let origin = Origin::start();
    let weir = Weir::start(&config(origin.address));
    let mut sender = connect(&weir).await;
    let (response, _body) = sender.send_request(request(Method::POST, "/slow"), false).unwrap();
    let (drip, mut body) = sender.send_request(request(Method::POST, "/drip"), false).unwrap();
    let dripping = tokio::spawn(async move {
        // A byte now and then resets a clock between reads; the rate is what counts.
        while body.send_data(Bytes::from_static(b"x"), false).is_ok() {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    });
    assert_eq!(whole(response).await.unwrap().0, 408);
    assert_eq!(whole(drip).await.unwrap().0, 408);
    let (good, _) = sender.send_request(request(Method::GET, "/good"), true).unwrap();
    assert_eq!(whole(good).await.unwrap(), (200, Bytes::from_static(b"GET /good")));
    dripping.abort();
    weir.assert_sane();
}

/// Written on, an empty DATA frame would be the last chunk, and what follows it the peer's next request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_data_frame_does_not_end_the_body_for_the_origin() {
    let origin = Origin::start();
    let weir = Weir::start(&config(origin.address));
    let mut sender = connect(&weir).await;
    let (response, mut body) = sender.send_request(request(Method::POST, "/empty"), false).unwrap();
    body.send_data(Bytes::new(), false).unwrap();
    body.send_data(Bytes::from_static(b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"), false).unwrap();
    body.send_data(Bytes::new(), false).unwrap();
    body.send_data(Bytes::new(), true).unwrap();
    assert_eq!(whole(response).await.unwrap().0, 200);
    let seen = origin.seen();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert!(seen[0].ends_with("\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"), "{seen:?}");
    origin.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_never_opens_its_window_is_cut() {
    let origin = Origin::start();
    let weir = Weir::start(&config(origin.address));
    let body = "x".repeat(4 << 20);
    origin.script(
        "/large",
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
        false,
    );
    let before = weir.memory();
    let mut sender = connect(&weir).await;
    let mut answers = Vec::new();
    for _ in 0..20 {
        let (response, _) = sender.send_request(request(Method::GET, "/large"), true).unwrap();
        answers.push(response.await.unwrap());
    }
    let grown = weir.memory().saturating_sub(before);
    println!("20 answers of 4 MiB that nobody reads: {grown} KiB");
    assert!(grown < GROWTH, "{grown} KiB");
    for answer in answers {
        let mut body = answer.into_body();
        let end = async {
            // What was in the window comes, without any of it being released; then the reset.
            while let Some(piece) = body.data().await {
                if let Err(error) = piece {
                    return Some(error);
                }
            }
            None
        };
        let ended = tokio::time::timeout(Duration::from_secs(20), end).await.expect("cut after send_timeout");
        assert!(ended.is_some(), "a cut answer must not look whole");
    }
    weir.assert_sane();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_contradicts_the_authority_is_refused_alone() {
    let origin = Origin::start();
    let weir = Weir::start(&config(origin.address));
    let mut sender = connect(&weir).await;
    let mut evil = request(Method::GET, "/a");
    evil.headers_mut().insert("host", "b.test".parse().unwrap());
    let (response, _) = sender.send_request(evil, true).unwrap();
    assert_eq!(whole(response).await.unwrap().0, 400);
    for (name, value) in [("content_length", "5"), ("x", "a"), ("transfer_encoding", "chunked")] {
        let mut odd = request(Method::GET, "/odd");
        odd.headers_mut().insert(name, value.parse().unwrap());
        let (response, _) = sender.send_request(odd, true).unwrap();
        assert_eq!(whole(response).await.unwrap().0, if name == "x" { 200 } else { 400 }, "{name}");
    }
    assert_eq!(origin.seen().len(), 1);
    origin.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_streams_at_once_each_get_their_own_answer() {
    let origin = Origin::start();
    let weir = Weir::start(&config(origin.address));
    let mut sender = connect(&weir).await;
    let mut running = Vec::new();
    for nth in 0..500 {
        poll_fn(|cx| sender.poll_ready(cx)).await.unwrap();
        let (response, _) = sender.send_request(request(Method::GET, &format!("/n/{nth}")), true).unwrap();
        running.push((nth, tokio::spawn(whole(response))));
    }
    for (nth, answer) in running {
        let (status, body) = answer.await.unwrap().unwrap();
        assert_eq!((status, body), (200, Bytes::from(format!("GET /n/{nth}"))));
    }
    origin.assert_clean();
}

/// What a flood sends, and whether the edge must end the connection or may take it all.
struct Flood {
    name: &'static str,
    bytes: Vec<u8>,
    is_dropped: bool,
}

fn dropped(name: &'static str, bytes: Vec<u8>) -> Flood {
    Flood { name, bytes, is_dropped: true }
}

/// What costs the client as much as us.
fn borne(name: &'static str, bytes: Vec<u8>) -> Flood {
    Flood { name, bytes, is_dropped: false }
}

fn id(nth: u32) -> u32 {
    2 * nth + 1
}

/// POST /flood of a.test.
fn post() -> Vec<u8> {
    [&[0x83][..], &head()[1..]].concat()
}

/// Streams, each begun and then spoiled by the same frame.
fn each(streams: u32, spoil: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    (0..streams).flat_map(|nth| [frame(1, 5, id(nth), &head()), spoil(id(nth))].concat()).collect()
}

/// Frames behind the head of a request whose body is to come.
fn behind_post(frames: Vec<u8>) -> Vec<u8> {
    [frame(1, 4, 1, &post()), frames].concat()
}

fn floods_of_streams() -> Vec<Flood> {
    let reset = |code: u32| move |stream| frame(3, 0, stream, &code.to_be_bytes());
    vec![
        dropped("rapid reset", each(10_000, reset(8))),
        dropped("rapid reset without an error", each(10_000, reset(0))),
        dropped(
            "rapid reset of uploads",
            (0..10_000)
                .flat_map(|nth| [frame(1, 4, id(nth), &post()), frame(3, 0, id(nth), &[0; 4])].concat())
                .collect(),
        ),
        // A frame that is wrong makes us reset (CVE-2025-8671).
        dropped("made you reset: window update of 0", each(5_000, |stream| frame(8, 0, stream, &[0; 4]))),
        dropped(
            "made you reset: window beyond its end",
            each(5_000, |stream| frame(8, 0, stream, &[0x7f, 0xff, 0xff, 0xff])),
        ),
        dropped("made you reset: data behind the end", each(5_000, |stream| frame(0, 0, stream, b"x"))),
        dropped("made you reset: a second head", each(5_000, |stream| frame(1, 5, stream, &head()))),
        dropped(
            "made you reset: dependent on itself",
            each(5_000, |stream| frame(2, 0, stream, &[&stream.to_be_bytes()[..], &[1]].concat())),
        ),
        borne(
            "more streams than allowed",
            (0..20_000).flat_map(|nth| frame(1, 4, id(nth), &post())).collect(),
        ),
    ]
}

fn floods_of_heads() -> Vec<Flood> {
    // A field of 4,000 bytes goes into the table, and comes out of it by one byte each time.
    let bomb = [&head()[..], &[0x40, 1, b'x', 0x7f, 0xa1, 0x1e], &[b'y'; 4000], &[0xbe; 8000]].concat();
    let again = [&head()[..], &[0xbe; 8000]].concat();
    let field = [&[0x00, 1, b'x', 100][..], &[b'y'; 100]].concat();
    vec![
        dropped("continuation", [frame(1, 1, 1, &head()), frame(9, 0, 1, &field).repeat(50_000)].concat()),
        dropped(
            "empty continuation",
            [frame(1, 1, 1, &head()), frame(9, 0, 1, &[]).repeat(200_000)].concat(),
        ),
        borne(
            "fields from the table",
            std::iter::once(frame(1, 5, 1, &bomb))
                .chain((1..1000).map(|nth| frame(1, 5, id(nth), &again)))
                .collect::<Vec<_>>()
                .concat(),
        ),
        borne(
            "heads that resize the table",
            (0..5_000)
                .map(|nth| {
                    frame(1, 5, id(nth), &[&[0x20, 0x3f, 0xe1, 0x1f].repeat(50)[..], &head()].concat())
                })
                .collect::<Vec<_>>()
                .concat(),
        ),
        dropped("promises", frame(5, 4, 1, &[&[0, 0, 0, 2][..], &head()].concat()).repeat(10_000)),
    ]
}

fn floods_of_frames() -> Vec<Flood> {
    let table_size = |size: u8| frame(4, 0, 0, &[0, 1, 0, 0, size, 0]);
    vec![
        dropped("ping", frame(6, 0, 0, &[0; 8]).repeat(100_000)),
        dropped("answers to pings", frame(6, 1, 0, &[0; 8]).repeat(100_000)),
        dropped("settings", frame(4, 0, 0, &[0, 3, 0, 0, 0, 100]).repeat(100_000)),
        dropped("long settings", frame(4, 0, 0, &[0, 3, 0, 0, 0, 100].repeat(2_700)).repeat(5_000)),
        dropped("settings of the table", [table_size(0), table_size(16)].concat().repeat(50_000)),
        dropped("priority", frame(2, 0, 1, &[0, 0, 0, 0, 1]).repeat(100_000)),
        dropped("unknown frames", frame(0xbb, 0, 0, b"x").repeat(100_000)),
        dropped("goodbyes", frame(7, 0, 0, &[0; 8]).repeat(100_000)),
        dropped("empty data", behind_post(frame(0, 0, 1, &[]).repeat(100_000))),
        dropped("padded empty data", behind_post(frame(0, 8, 1, &[0]).repeat(100_000))),
        dropped("windows beyond their end", frame(8, 0, 0, &[0x7f, 0xff, 0xff, 0xff]).repeat(10_000)),
        borne("windows", frame(8, 0, 0, &[0, 0, 0, 1]).repeat(200_000)),
    ]
}

/// Criterion 22.
async fn are_survived(floods: Vec<Flood>) {
    let origin = Origin::start();
    let weir = Weir::start(&config(origin.address));
    let mut good = connect(&weir).await;
    let (mut took, began) = (Vec::new(), weir.memory());
    // Our own hand-made head is one that arrives.
    let mut one = raw(&weir);
    one.write_all(&frame(1, 5, 1, &head())).unwrap();
    let arrived = || origin.seen().iter().any(|request| request.starts_with("GET /flood HTTP/1.1\r\n"));
    assert!(weir_testkit::wait_until(Duration::from_secs(5), arrived));
    for Flood { name, bytes, is_dropped: must_be_dropped } in floods {
        origin.seen();
        let before = weir.memory();
        let mut socket = raw(&weir);
        let flooding = tokio::task::spawn_blocking(move || {
            let taken = socket.write_all(&bytes).is_ok();
            (taken && !must_be_dropped) || is_dropped(&mut socket)
        });
        while !flooding.is_finished() {
            let asked = Instant::now();
            poll_fn(|cx| good.poll_ready(cx)).await.unwrap();
            let (response, _) = good.send_request(request(Method::GET, "/good"), true).unwrap();
            assert_eq!(whole(response).await.unwrap().0, 200, "{name}");
            took.push(asked.elapsed());
        }
        assert!(flooding.await.unwrap(), "{name}: not dropped");
        let upstream = origin.seen().iter().filter(|request| request.contains(" /flood ")).count();
        let grown = weir.memory().saturating_sub(before);
        println!("{name}: {upstream} requests upstream, {grown} KiB");
        assert!(upstream <= 100 && grown < GROWTH, "{name}: {upstream} requests, {grown} KiB");
    }
    took.sort();
    let (p95, slowest) = (took[took.len() * 95 / 100], took[took.len() - 1]);
    println!("good answers: p95 {p95:?}, slowest of {} {slowest:?}", took.len());
    println!("in all {} KiB", weir.memory().saturating_sub(began));
    assert!(p95 < Duration::from_millis(100) && slowest < Duration::from_secs(1), "{p95:?}, {slowest:?}");
    origin.assert_clean();
    weir.assert_sane();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_streams_are_dropped_while_a_good_client_is_served_and_memory_stays() {
    are_survived(floods_of_streams()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_heads_are_dropped_while_a_good_client_is_served_and_memory_stays() {
    are_survived(floods_of_heads()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_frames_are_dropped_while_a_good_client_is_served_and_memory_stays() {
    are_survived(floods_of_frames()).await;
}

/// Whether the edge has ended the connection by now.
fn has_ended(socket: &mut TcpStream) -> bool {
    socket.set_nonblocking(true).unwrap();
    let ended = is_dropped(socket);
    socket.set_nonblocking(false).unwrap();
    ended
}

/// A client may reset a hundred streams at once, and ten more each second.
#[test]
fn resets_that_each_cost_the_origin_a_request_are_cut_too() {
    let origin = Origin::start();
    let weir = Weir::start(&config(origin.address));
    let mut socket = raw(&weir);
    let (mut arrived, began) = (0, Instant::now());
    while arrived < 1000 && !has_ended(&mut socket) {
        // Each is seen at the origin before it is reset.
        let _ = socket.write_all(&frame(1, 5, 2 * arrived + 1, &head()));
        let came = || !origin.seen().is_empty() || has_ended(&mut socket);
        assert!(weir_testkit::wait_until(Duration::from_secs(10), came));
        let _ = socket.write_all(&frame(3, 0, 2 * arrived + 1, &8_u32.to_be_bytes()));
        arrived += 1;
    }
    let most = 102 + 10 * (began.elapsed().as_secs() + 1);
    println!("{arrived} requests before the connection was dropped, {most} were allowed");
    assert!((100..=most).contains(&u64::from(arrived)), "{arrived}, and not up to {most}");
    weir.connect().is_served("after");
}

#[test]
fn a_head_that_never_ends_is_dropped() {
    let origin = Origin::start();
    let weir = Weir::start(&config(origin.address));
    let mut socket = raw(&weir);
    socket.write_all(&frame(1, 1, 1, &head())).unwrap();
    // Sooner than our patience, and much sooner than the idle timeout.
    assert!(is_dropped(&mut socket));
}
