//! Answers that are there at once: in order among the others, in time, and given back when they were written.

use super::*;

const HOST: &str = " HTTP/1.1\r\nHost: a\r\n";

fn get(path: &str, field: &str) -> String {
    format!("GET {path}{HOST}{field}\r\n")
}

/// What became of the answers that were given back.
fn written(front: &Front) -> Vec<bool> {
    front.listener.service.shared.written.lock().clone()
}

#[tokio::test]
async fn quick_and_slow_answers_keep_the_order_of_their_requests() {
    let front = Front::start(|_| {}).await;
    let quick = get("/express", "");
    let all =
        [&*quick, &quick, &get("/ignore", ""), &quick, &get("/ignore", "Connection: close\r\n"), &quick];
    let text = front.exchange(all.concat()).await;
    let bodies: Vec<_> = text.match_indices("quick").chain(text.match_indices("ignored")).collect();
    assert_eq!(statuses(&text).len(), 5, "{text}");
    let mut order = bodies;
    order.sort_unstable();
    let order: Vec<_> = order.into_iter().map(|(_, word)| word).collect();
    assert_eq!(order, ["quick", "quick", "ignored", "quick", "ignored"]);
    assert_eq!((written(&front), front.listener.service.served()), (vec![true; 3], 2));
}

#[tokio::test]
async fn an_answer_is_not_held_back_for_a_request_that_is_not_there_yet() {
    let front = Front::start(|_| {}).await;
    let mut client = front.connect().await;
    for rest in ["", "GET /exp"] {
        client.send(get("/express", "") + rest).await;
        assert!(client.answer().await.ends_with("quick"));
        if !rest.is_empty() {
            client.send(format!("ress{HOST}\r\n")).await;
            assert!(client.answer().await.ends_with("quick"));
        }
    }
}

#[tokio::test]
async fn a_refusal_behind_quick_answers_comes_after_them_and_ends_the_connection() {
    let front = Front::start(|_| {}).await;
    let text =
        front.exchange(get("/express", "") + &get("/express", "X : y\r\n") + &get("/express", "")).await;
    assert_eq!(statuses(&text), ["200", "400"]);
    assert_eq!(written(&front), [true]);
}

#[tokio::test]
async fn a_connection_ends_with_the_answer_that_says_so() {
    let front = Front::start(|bounds| bounds.requests_per_connection = 3).await;
    let text = front.exchange(get("/express", "").repeat(5)).await;
    assert_eq!(statuses(&text), ["200", "200", "200"]);
    assert_eq!(text.matches("Connection: close").count(), 1);
    let text = front.exchange(get("/express", "Connection: close\r\n") + &get("/express", "")).await;
    assert_eq!(statuses(&text), ["200"]);
    let text = front.exchange("GET /express HTTP/1.0\r\n\r\n").await;
    assert_eq!(statuses(&text), ["200"]);
}

#[tokio::test]
async fn what_has_a_body_or_may_become_a_tunnel_is_not_answered_quickly() {
    let front = Front::start(|_| {}).await;
    for field in [
        "Content-Length: 1\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Connection: upgrade\r\nUpgrade: other\r\n",
    ] {
        let mut client = front.connect().await;
        client.send(get("/express", field) + "0\r\n\r\n").await;
        assert!(!client.answer().await.contains("quick"), "{field}");
    }
    assert!(written(&front).is_empty());
}

#[tokio::test]
async fn a_client_that_does_not_read_is_left_and_its_answer_is_not_whole() {
    let front = Front::start(|bounds| bounds.send_timeout = Duration::from_millis(200)).await;
    let mut client = front.connect().await;
    client.send(get("/express", "") + &get("/express/big", "")).await;
    tokio::time::timeout(Duration::from_secs(20), async {
        while written(&front).is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("given up");
    assert_eq!(written(&front), [false, false], "which of them arrived is not known");
    client.0.set_zero_linger().expect("a socket");
}

/// Once the wait for the next request began with the request before it: a slow reader was cut off behind its answer.
#[tokio::test]
async fn a_client_that_reads_slowly_may_be_idle_as_long_as_others() {
    let idle = Duration::from_secs(1);
    let front = Front::start(|bounds| bounds.idle_timeout = idle).await;
    let mut client = front.connect().await;
    client.send(get("/express/big", "")).await;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.0.read_u8().await.unwrap());
    }
    tokio::time::sleep(idle + idle / 4).await;
    let mut body = (&mut client.0).take(64 << 20);
    assert_eq!(tokio::io::copy(&mut body, &mut tokio::io::sink()).await.unwrap(), 64 << 20);
    client.send(get("/express", "")).await;
    assert!(client.answer().await.ends_with("quick"));
}
