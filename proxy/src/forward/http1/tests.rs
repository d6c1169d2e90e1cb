#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use http::header::HOST;
use proptest::prelude::*;
use tokio::io::{DuplexStream, duplex};

use super::*;

fn fields(pairs: &[(&str, &str)]) -> HeaderMap {
    let field = |(name, value): &(&str, &str)| {
        (name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap())
    };
    pairs.iter().map(field).collect()
}

/// A connection on which `answer` has come, and whether the peer has closed behind it.
async fn answered(answer: &[u8], closes: bool) -> (Connection<DuplexStream>, Option<DuplexStream>) {
    let (ours, mut theirs) = duplex(1 << 20);
    theirs.write_all(answer).await.unwrap();
    (Connection::new(ours), (!closes).then_some(theirs))
}

/// Reads a whole answer to `method`: its status, its body, and whether the connection may be used again.
async fn exchange(method: Method, answer: &[u8], closes: bool) -> Result<(u16, Vec<u8>, bool), Failure> {
    let (mut connection, _peer) = answered(answer, closes).await;
    let head = connection.head().await?;
    connection.expect_body(&method, head.status, &head.headers);
    let mut body = Vec::new();
    while let Some(piece) = connection.body().await? {
        assert!(!piece.is_empty());
        body.extend_from_slice(&piece);
    }
    Ok((head.status.as_u16(), body, connection.into_reusable().is_some()))
}

#[tokio::test]
async fn an_answer_that_has_begun_is_seen_and_not_lost() {
    let (mut connection, _peer) = answered(b"", false).await;
    assert!(!connection.has_begun());
    let (mut connection, _peer) = answered(b"HTTP/1.1 204 No Content\r\n\r\n", false).await;
    assert!(connection.has_begun() && connection.has_begun());
    assert_eq!(connection.head().await.unwrap().status, StatusCode::NO_CONTENT);
}

async fn get(answer: &str) -> Result<(u16, Vec<u8>, bool), Failure> {
    exchange(Method::GET, answer.as_bytes(), true).await
}

async fn sent(headers: HeaderMap, pieces: &[&[u8]]) -> String {
    let (ours, mut theirs) = duplex(1 << 20);
    let mut connection = Connection::new(ours);
    connection.request(&Method::PUT, "/a?b", &headers);
    for piece in pieces {
        connection.write(piece).await.unwrap();
    }
    connection.finish().await.unwrap();
    drop(connection);
    let mut bytes = Vec::new();
    theirs.read_to_end(&mut bytes).await.unwrap();
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn a_request_is_written_in_one_form() {
    assert_eq!(sent(fields(&[("host", "h")]), &[]).await, "PUT /a?b HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(
        sent(fields(&[("x-real-ip", "1.2.3.4"), ("content-length", "5")]), &[b"he", b"", b"llo"]).await,
        "PUT /a?b HTTP/1.1\r\nX-Real-Ip: 1.2.3.4\r\nContent-Length: 5\r\n\r\nhello"
    );
    assert_eq!(
        sent(fields(&[("transfer-encoding", "chunked")]), &[b"hello", b"", b"0123456789"]).await,
        "PUT /a?b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\na\r\n0123456789\r\n0\r\n\r\n"
    );
    let large = vec![b'x'; COLLECT];
    let wire = sent(fields(&[("transfer-encoding", "chunked")]), &[b"hello", &large, b"!"]).await;
    assert!(wire.contains("5\r\nhello\r\n2000\r\nxx") && wire.ends_with("x\r\n1\r\n!\r\n0\r\n\r\n"));
}

#[tokio::test]
async fn a_head_and_its_small_body_leave_together() {
    let (ours, mut theirs) = duplex(1 << 20);
    let mut connection = Connection::new(ours);
    connection.request(&Method::PUT, "/", &fields(&[("content-length", "5")]));
    connection.write(b"hello").await.unwrap();
    assert_eq!(theirs.try_read(), 0);
    connection.finish().await.unwrap();
    assert!(theirs.try_read() > 5);
}

trait TryRead {
    fn try_read(&mut self) -> usize;
}

impl TryRead for DuplexStream {
    fn try_read(&mut self) -> usize {
        use futures_util::FutureExt;
        let mut buffer = [0; 1024];
        self.read(&mut buffer).now_or_never().map_or(0, Result::unwrap)
    }
}

#[tokio::test]
async fn a_body_that_does_not_keep_its_word_is_an_error() {
    let announced = |length| {
        let mut connection = Connection::new(duplex(1 << 10).0);
        connection.request(&Method::PUT, "/", &fields(&[(HOST.as_str(), "h"), ("content-length", length)]));
        connection
    };
    assert!(announced("3").write(b"four").await.is_err());
    assert!(announced("0").write(b"x").await.is_err());
    let mut short = announced("5");
    short.write(b"four").await.unwrap();
    assert!(short.finish().await.is_err());
}

#[tokio::test]
async fn an_answer_ends_where_its_framing_says() {
    let whole = |status, body: &str, again| Ok((status, body.as_bytes().to_vec(), again));
    let chunked =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x\r\nhello\r\n1\r\n!\r\n0\r\nX: y\r\n\r\n";
    assert_eq!(get("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await, whole(200, "hello", true));
    assert_eq!(get("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n").await, whole(200, "", true));
    assert_eq!(get("HTTP/1.1 200 OK\nContent-Length : 2\n\nhi").await, whole(200, "hi", true));
    assert_eq!(get(chunked).await, whole(200, "hello!", true));
    assert_eq!(get("HTTP/1.1 200 OK\r\n\r\nhello").await, whole(200, "hello", false), "until close");
    assert_eq!(get("HTTP/1.1 204 No\r\n\r\n").await, whole(204, "", true));
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    assert_eq!(exchange(Method::HEAD, head, false).await, whole(200, "", true));
}

#[tokio::test]
async fn with_its_last_piece_an_answer_is_read() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ] {
        let (mut connection, _peer) = answered(answer.as_bytes(), false).await;
        let head = connection.head().await.unwrap();
        connection.expect_body(&Method::GET, head.status, &head.headers);
        assert!(!connection.is_read());
        assert_eq!(connection.body().await.unwrap().unwrap(), "hello");
        assert!(connection.is_read() && connection.into_reusable().is_some());
    }
}

#[tokio::test]
async fn a_connection_is_used_again_only_when_all_is_said_and_nothing_more() {
    for (answer, again) in [
        ("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", false),
        ("HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 0\r\n\r\n", false),
        ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", false),
        ("HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 0\r\n\r\n", true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", false),
        ("HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\nhello", false),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n\r\n", false),
    ] {
        assert_eq!(get(answer).await.unwrap().2, again, "{answer:?}");
    }
    let (mut connection, _peer) = answered(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false).await;
    connection.request(&Method::PUT, "/", &fields(&[("content-length", "5")]));
    let head = connection.head().await.unwrap();
    connection.expect_body(&Method::PUT, head.status, &head.headers);
    assert!(connection.into_reusable().is_none(), "the request's body is still owed");
}

#[tokio::test]
async fn an_answer_that_is_cut_is_an_error() {
    for answer in [
        "",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
    ] {
        assert_eq!(get(answer).await, Err(Failure::Reset), "{answer:?}");
    }
}

#[tokio::test]
async fn what_is_no_answer_is_refused_without_waiting_for_more() {
    let field = "X: y\r\n".repeat(HEAD_FIELDS + 1);
    for answer in [
        "garbage",
        "\0",
        "HTTP/2",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5 \r\n",
        &format!("HTTP/1.1 200 OK\r\n{field}\r\n"),
        &format!("HTTP/1.1 200 OK\r\nA: {}", "x".repeat(HEAD_BYTES)),
    ] {
        // The peer stays: what cannot become an answer is not waited for.
        let got = exchange(Method::GET, answer.as_bytes(), false).await;
        assert_eq!(got, Err(Failure::BadAnswer), "{:?}", &answer[..answer.len().min(60)]);
    }
}

#[tokio::test]
async fn a_tunnel_carries_bytes_both_ways() {
    let (mut connection, peer) = answered(b"HTTP/1.1 101 Switching\r\n\r\nearly", false).await;
    assert_eq!(connection.head().await.unwrap().status, 101);
    connection.open_tunnel();
    assert_eq!(connection.body().await.unwrap().unwrap(), "early");
    connection.write(b"raw").await.unwrap();
    connection.flush().await.unwrap();
    let mut peer = peer.unwrap();
    let mut raw = [0; 3];
    peer.read_exact(&mut raw).await.unwrap();
    assert_eq!(&raw, b"raw");
    drop(peer);
    assert_eq!(connection.body().await, Ok(None));
    assert!(connection.into_reusable().is_none());
}

proptest! {
    /// However the network cuts an answer, it reads the same.
    #[test]
    fn an_answer_reads_the_same_in_any_pieces(
        parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..6),
        is_chunked in any::<bool>(),
        cuts in proptest::collection::vec(1_usize..30, 1..40),
    ) {
        let body = parts.concat();
        let mut wire = Vec::new();
        if is_chunked {
            wire.extend_from_slice(b"HTTP/1.1 103 Hint\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            for part in &parts {
                wire.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
                wire.extend_from_slice(part);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\nSum: 1\r\n\r\n");
        } else {
            wire.extend_from_slice(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes());
            wire.extend_from_slice(&body);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let got = runtime.block_on(async {
            let (ours, mut theirs) = duplex(64);
            let write = async {
                let (mut rest, mut cuts) = (&wire[..], cuts.iter().cycle());
                while !rest.is_empty() {
                    let here = (*cuts.next().unwrap()).min(rest.len());
                    theirs.write_all(&rest[..here]).await.unwrap();
                    tokio::task::yield_now().await;
                    rest = &rest[here..];
                }
                theirs
            };
            let read = async {
                let mut connection = Connection::new(ours);
                let mut head = connection.head().await.unwrap();
                while head.status.is_informational() {
                    head = connection.head().await.unwrap();
                }
                connection.expect_body(&Method::GET, head.status, &head.headers);
                let mut body = Vec::new();
                while let Some(piece) = connection.body().await.unwrap() {
                    body.extend_from_slice(&piece);
                }
                (body, connection.into_reusable().is_some())
            };
            tokio::join!(read, write).0
        });
        prop_assert_eq!(got, (body, true));
    }
}

/// A slow reader of an answer that dripped held 64 KiB for each of its pieces, 6.8 MiB in all where 64 KiB were promised.
#[tokio::test]
async fn small_pieces_share_a_buffer_while_they_are_held() {
    let (mut connection, peer) = answered(b"HTTP/1.1 200 OK\r\ncontent-length: 3000000\r\n\r\n", false).await;
    let mut peer = peer.unwrap();
    let head = connection.head().await.unwrap();
    connection.expect_body(&Method::GET, head.status, &head.headers);
    let (mut held, mut buffers) = (Vec::<Bytes>::new(), 0);
    for _ in 0..1000 {
        peer.write_all(&[b'x'; 300]).await.unwrap();
        let piece = connection.body().await.unwrap().unwrap();
        let follows = held.last().is_some_and(|last| last.as_ptr_range().end == piece.as_ptr());
        buffers += usize::from(!follows);
        held.push(piece);
    }
    assert!(buffers <= 8, "{buffers} buffers of {BODY_READ} bytes for 300000");
}
