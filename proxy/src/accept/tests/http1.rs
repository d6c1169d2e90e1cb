//! What HTTP/1 clients get: answers in order, one meaning a request, a close after every refusal.

use super::*;

const HOST: &str = " HTTP/1.1\r\nHost: a\r\n";

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let front = Front::start(|_| {}).await;
    let post = format!("POST /echo{HOST}Content-Length: 5\r\n\r\nhello");
    let chunked = format!(
        "POST /echo{HOST}Transfer-Encoding: chunked\r\n\r\n3;x=y\r\nwor\r\n2\r\nld\r\n0\r\nT: 1\r\n\r\n"
    );
    let get = format!("GET /ignore{HOST}Connection: close\r\n\r\n");
    let text = front.exchange([post, chunked, get.clone(), get].concat()).await;
    let (hello, world) = (text.find("hello").unwrap(), text.find("world").unwrap());
    assert!(hello < world && world < text.find("ignored").unwrap());
    assert_eq!(statuses(&text), ["200", "200", "200"], "nothing runs after a close");
    assert_eq!(front.listener.service.served(), 3);
}

#[tokio::test]
async fn a_connection_is_kept_and_bytes_may_come_in_any_pieces() {
    let front = Front::start(|_| {}).await;
    let mut client = front.connect().await;
    let text = format!("\r\nPOST /echo{HOST}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
    for byte in text.as_bytes() {
        client.send([*byte]).await;
    }
    assert!(client.answer().await.ends_with("hello"));
    client.send(format!("GET /ignore{HOST}\r\n")).await;
    assert!(client.answer().await.ends_with("ignored"));
    client.send("GET /ignore HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
    assert!(client.answer().await.ends_with("ignored"));
    client.send("GET /ignore HTTP/1.0\r\n\r\n").await;
    assert!(client.rest().await.ends_with("ignored"));
}

#[tokio::test]
async fn an_ambiguous_head_is_answered_and_nothing_behind_it_runs() {
    let front = Front::start(|_| {}).await;
    for (head, word, status) in [
        (
            format!("POST /echo{HOST}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"),
            "length_and_coding",
            "400",
        ),
        (format!("GET /ignore{HOST}X : y\r\n\r\n"), "space_before_colon", "400"),
        (format!("GET /ignore{HOST}\n"), "bare_lf", "400"),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n".to_owned(), "connect_refused", "405"),
        (format!("POST /echo{HOST}Transfer-Encoding: gzip\r\n\r\n"), "unknown_coding", "501"),
        ("\x16\x03\x01\x02".to_owned(), "bad_line", "400"),
        ("PRI * HTTP/2.0\r\n\r\nXX".to_owned(), "bad_version", "505"),
    ] {
        let text = front.exchange(format!("{head}GET /ignore{HOST}\r\n")).await;
        assert_eq!(statuses(&text), [status], "{head:?}");
        assert!(text.contains(word) && front.refused(word) == 1, "{text}");
    }
    assert_eq!(front.listener.service.served(), 0);
}

#[tokio::test]
async fn a_violation_of_chunk_framing_is_400_wherever_the_body_is_read() {
    let front = Front::start(|_| {}).await;
    for path in ["/echo", "/up"] {
        for body in [
            "5\r\nhello\r\n0x1\r\n",
            "5\nhello",
            "5\r\nhelloX",
            "1;a\nb\r\nx\r\n0\r\n\r\n",
            "0\r\nbad trailer\r\n\r\n",
        ] {
            let text = front
                .exchange(format!(
                    "POST {path}{HOST}Transfer-Encoding: chunked\r\n\r\n{body}GET /ignore{HOST}\r\n"
                ))
                .await;
            assert_eq!(statuses(&text), ["400"], "{path} {body:?}");
        }
    }
    assert_eq!(front.listener.service.served(), 10);
}

#[tokio::test]
async fn an_unread_body_is_never_a_request() {
    let front = Front::start(|_| {}).await;
    let inner = format!("GET /ignore{HOST}\r\n");
    for framing in [
        format!("Content-Length: {}\r\n\r\n{inner}", inner.len()),
        format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{inner}\r\n0\r\n\r\n", inner.len()),
    ] {
        let after = format!("GET /ignore{HOST}Connection: close\r\n\r\n");
        let text = front.exchange(format!("POST /ignore{HOST}{framing}{after}")).await;
        assert_eq!(statuses(&text), ["200", "200"], "{framing}");
    }
    assert_eq!(front.listener.service.served(), 4);
}

#[tokio::test]
async fn a_100_is_sent_when_the_body_is_wanted_and_only_then() {
    let front = Front::start(|_| {}).await;
    let mut client = front.connect().await;
    client.send(format!("POST /echo{HOST}Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")).await;
    assert_eq!(client.answer().await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("hi").await;
    assert!(client.answer().await.ends_with("hi"));
    client.send(format!("POST /ignore{HOST}Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")).await;
    assert_eq!(statuses(&client.rest().await), ["200"]);
    let text = front.exchange(format!("GET /head{HOST}Expect: x\r\n\r\n")).await;
    assert_eq!(statuses(&text), ["417"]);
}

const HANDSHAKE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

#[tokio::test]
async fn a_101_opens_the_tunnel_for_bytes_sent_early_too() {
    let front = Front::start(|_| {}).await;
    let mut client = front.connect().await;
    client.send(format!("GET /chat{HOST}{HANDSHAKE}early ")).await;
    assert_eq!(statuses(&client.answer().await), ["101"]);
    client.send("late").await;
    let mut echo = [0; 10];
    client.0.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"early late");
}

#[tokio::test]
async fn a_refused_upgrade_opens_nothing() {
    let front = Front::start(|_| {}).await;
    let text = front
        .exchange(format!("GET /ignore{HOST}{HANDSHAKE}GET /ignore{HOST}Connection: close\r\n\r\n"))
        .await;
    assert_eq!(statuses(&text), ["200", "200"], "the bytes behind were a request all along");
    let text = front
        .exchange(format!("GET /chat{HOST}Upgrade: h2c\r\nConnection: Upgrade\r\n\r\nGET /ignore{HOST}\r\n"))
        .await;
    assert_eq!(statuses(&text), ["200"], "after an unknown upgrade the connection closes");
    assert!(!text.to_ascii_lowercase().contains("upgrade"), "{text}");
}

#[tokio::test]
async fn a_tunnel_is_not_opened_by_an_answer_body_that_looks_like_a_101() {
    let front = Front::start(|_| {}).await;
    let mut client = front.connect().await;
    client.send(format!("POST /echo{HOST}Content-Length: 12\r\n\r\nHTTP/1.1 101")).await;
    client.answer().await;
    client.send(format!("GET /nonsense {HOST}\r\n")).await;
    assert_eq!(statuses(&client.rest().await), ["400"]);
}

#[tokio::test]
async fn chunks_are_read_alike_in_any_pieces() {
    let front = Front::start(|_| {}).await;
    let mut client = front.connect().await;
    let long = "x".repeat(4090);
    for body in [
        format!("5;{long}\r\nhello\r\n0\r\n\r\n"),
        format!("0000000000000005\r\nhello\r\n0000000000000000\r\nT: {long}\r\n\r\n"),
        "1;\r\nh\r\n1;a=\"\u{e4};\"\r\ne\r\n3\r\nllo\r\n00;b\r\na:\r\nb: \t\r\n\r\n".to_owned(),
    ] {
        for pieces in [1, 7, 4096, usize::MAX] {
            client.send(format!("POST /echo{HOST}Transfer-Encoding: chunked\r\n\r\n")).await;
            for piece in body.as_bytes().chunks(pieces) {
                client.send(piece).await;
            }
            let answer = client.answer().await;
            assert!(answer.ends_with("\r\n\r\nhello"), "{pieces} {body:?}: {answer}");
        }
    }
}
