//! Random sequences of telling fragments, sent to a whole front.

use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use super::*;

const FRAGMENTS: &[&str] = &[
    "GET /ignore HTTP/1.1\r\n",
    "POST /echo HTTP/1.1\r\n",
    "POST /up HTTP/1.1\r\n",
    "GET /head HTTP/1.0\r\n",
    "HEAD /ignore HTTP/1.1\r\n",
    "OPTIONS * HTTP/1.1\r\n",
    "GET http://a/ignore HTTP/1.1\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "Host: a\r\n",
    "Host: a\r\n",
    "Host: a\r\n",
    "Host: b,c\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: 0\r\n",
    "Content-Length: 5, 5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: x\r\n",
    "Connection: close\r\n",
    "Connection: keep-alive\r\n",
    "Expect: 100-continue\r\n",
    "Upgrade: websocket\r\nConnection: Upgrade\r\n",
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    "X: y\r\n",
    "X : y\r\n",
    "\r\n",
    "\r\n",
    "\r\n",
    "\r\n",
    "5\r\nhello\r\n",
    "5;a=b\r\nhello\r\n",
    "0\r\n\r\n",
    "0\r\nT: x\r\n\r\n",
    "hello",
    "\n",
    "\r",
    "\0",
];

/// A sequence that more often than not begins as a request does.
fn sequence(random: &mut StdRng) -> String {
    let mut text = String::new();
    for _ in 0..random.random_range(1..4) {
        text.push_str(FRAGMENTS[random.random_range(0..7)]);
        text.push_str("Host: a\r\n");
        for _ in 0..random.random_range(0..8) {
            text.push_str(FRAGMENTS.choose(random).unwrap_or(&""));
        }
    }
    text
}

#[tokio::test]
async fn no_sequence_of_fragments_makes_a_5xx_or_a_hang() {
    let front = Front::start(|bounds| {
        bounds.header_timeout = Duration::from_millis(500);
        bounds.body_timeout = Duration::from_millis(500);
        bounds.idle_timeout = Duration::from_millis(500);
    })
    .await;
    let seed: u32 = rand::random();
    for case in 0..1000 {
        let mut random = StdRng::seed_from_u64(u64::from(seed) + case);
        let text = sequence(&mut random);
        let mut client = front.connect().await;
        // Shown when the case fails.
        println!("seed {seed} case {case}: {text:?}");
        client.send(&text).await;
        client.0.shutdown().await.unwrap();
        let answers = client.rest().await;
        for status in statuses(&answers) {
            let is_ours = ["501", "505"].contains(&status) || !status.starts_with('5');
            assert!(is_ours, "{answers}");
        }
    }
}
