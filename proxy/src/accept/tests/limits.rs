//! Time, size and number: what one connection may ask of us, and how it ends.

use weir_config::units::Bytes;

use super::*;

const HOST: &str = " HTTP/1.1\r\nHost: a\r\n";

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

#[tokio::test]
async fn a_head_has_a_deadline_however_it_trickles() {
    let front = Front::start(|bounds| bounds.header_timeout = millis(300)).await;
    let mut client = front.connect().await;
    let begun = std::time::Instant::now();
    client.send("GET / HT").await;
    let mut ticks = tokio::time::interval(millis(50));
    let (mut read, mut write) = client.0.split();
    let mut text = String::new();
    tokio::select! {
        read = read.read_to_string(&mut text) => { read.unwrap(); }
        () = async { loop { ticks.tick().await; let _ = write.write_all(b"x").await; } } => {}
    }
    assert_eq!(statuses(&text), ["408"]);
    assert!((millis(250)..millis(900)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert!(text.ends_with('x') && front.refused("head_timeout") == 1, "{text}");
}

#[tokio::test]
async fn silence_is_closed_without_an_answer() {
    let front = Front::start(|bounds| {
        bounds.header_timeout = millis(200);
        bounds.idle_timeout = millis(100);
    })
    .await;
    assert_eq!(front.exchange("").await, "");
    let text = front.exchange(format!("GET /ignore{HOST}\r\n")).await;
    assert_eq!(statuses(&text), ["200"], "the idle connection is closed silently");
}

#[tokio::test]
async fn what_is_too_large_is_refused_before_it_is_served() {
    let front = Front::start(|bounds| {
        bounds.head_bytes = Bytes::new(1000);
        bounds.uri_bytes = Bytes::new(100);
        bounds.head_fields = 5;
        bounds.body_bytes = Bytes::new(100);
    })
    .await;
    let long = "x".repeat(1000);
    for (request, status) in [
        (format!("GET /{}{HOST}\r\n", &long[..100]), "414"),
        (format!("GET /{long}"), "414"),
        (format!("GET /{HOST}X: {long}\r\n\r\n"), "431"),
        (format!("GET /{HOST}{}\r\n", "X: y\r\n".repeat(5)), "431"),
        (format!("POST /echo{HOST}Content-Length: 101\r\n\r\n{}", &long[..101]), "413"),
    ] {
        assert_eq!(statuses(&front.exchange(&request).await), [status], "{request}");
    }
    assert_eq!(front.listener.service.served(), 0);
    let chunked =
        format!("POST /echo{HOST}Transfer-Encoding: chunked\r\n\r\n64\r\n{}\r\n1\r\n", &long[..100]);
    assert_eq!(statuses(&front.exchange(chunked).await), ["413"]);
    assert_eq!((front.refused("uri_too_long"), front.refused("body_too_large")), (2, 2));
}

#[tokio::test]
async fn a_large_refused_body_does_not_reset_the_answer() {
    let front = Front::start(|bounds| bounds.body_bytes = Bytes::new(100)).await;
    let mut client = front.connect().await;
    client.send(format!("POST /echo{HOST}Content-Length: 300000\r\n\r\n")).await;
    let _ = client.0.write_all(&vec![b'x'; 300_000]).await;
    assert_eq!(statuses(&client.rest().await), ["413"]);
}

#[tokio::test]
async fn a_body_that_stops_or_crawls_is_408() {
    let front = Front::start(|bounds| {
        bounds.body_timeout = millis(200);
        bounds.body_min_rate = Bytes::new(1000);
    })
    .await;
    for path in ["/echo", "/up"] {
        let text = front.exchange(format!("POST {path}{HOST}Content-Length: 50\r\n\r\nxx")).await;
        assert_eq!(statuses(&text), ["408"], "{path}");
    }
    let mut client = front.connect().await;
    client.send(format!("POST /echo{HOST}Content-Length: 50000\r\n\r\n")).await;
    let (mut read, mut write) = client.0.split();
    let mut text = String::new();
    let mut ticks = tokio::time::interval(millis(40));
    tokio::select! {
        read = read.read_to_string(&mut text) => { read.unwrap(); }
        () = async { loop { ticks.tick().await; let _ = write.write_all(b"x").await; } } => {}
    }
    assert_eq!(statuses(&text), ["408"]);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_dropped() {
    let front = Front::start(|bounds| bounds.send_timeout = millis(200)).await;
    let mut client = front.connect().await;
    client.send(format!("GET /big{HOST}\r\n")).await;
    let active = || front.listener.counters.active.get();
    tokio::time::timeout(Duration::from_secs(5), async {
        while active() == 0 {
            tokio::task::yield_now().await
        }
        while active() > 0 {
            tokio::time::sleep(millis(20)).await
        }
    })
    .await
    .expect("the connection ends although the client never read");
}

#[tokio::test]
async fn a_full_listener_lets_new_clients_wait() {
    let front = Front::start(|bounds| bounds.connections = 1).await;
    let mut first = front.connect().await;
    first.send(format!("GET /ignore{HOST}\r\n")).await;
    first.answer().await;
    let mut second = front.connect().await;
    second.send(format!("GET /ignore{HOST}\r\n")).await;
    assert!(tokio::time::timeout(millis(150), second.answer()).await.is_err());
    first.send(format!("GET /ignore{HOST}\r\n")).await;
    assert_eq!(statuses(&first.answer().await), ["200"], "who is in is served");
    drop(first);
    let mut third = front.connect().await;
    third.send(format!("GET /ignore{HOST}Connection: close\r\n\r\n")).await;
    second.send(format!("GET /ignore{HOST}Connection: close\r\n\r\n")).await;
    assert_eq!(statuses(&second.rest().await).last(), Some(&"200"));
    assert_eq!(statuses(&third.rest().await), ["200"]);
    assert!(front.listener.counters.full.get() >= 1);
}

#[tokio::test]
async fn a_connection_serves_so_many_requests() {
    let front = Front::start(|bounds| bounds.requests_per_connection = 2).await;
    let text = front.exchange(format!("GET /ignore{HOST}\r\n").repeat(3)).await;
    assert_eq!(statuses(&text), ["200", "200"]);
    assert_eq!(text.to_ascii_lowercase().matches("connection: close").count(), 1);
}

#[tokio::test]
async fn a_stop_closes_what_is_idle_and_finishes_what_is_not() {
    let front = Front::start(|_| {}).await;
    let mut idle = front.connect().await;
    idle.send(format!("GET /ignore{HOST}\r\n")).await;
    idle.answer().await;
    let mut busy = front.connect().await;
    busy.send(format!("GET /wait{HOST}\r\n")).await;
    let shared = front.listener.service.shared.clone();
    shared.waiting.acquire().await.unwrap().forget();
    let mut silent = front.connect().await;
    silent.send("").await;
    while front.listener.counters.accepted.get() < 3 {
        tokio::task::yield_now().await;
    }
    front.stop.stop();
    assert_eq!(silent.rest().await, "");
    assert_eq!(idle.rest().await, "");
    assert!(TcpStream::connect(front.address).await.is_err(), "nobody listens any more");
    assert!(!front.done.is_finished());
    shared.may_answer.add_permits(1);
    let text = busy.rest().await;
    assert!(text.ends_with("waited") && text.to_ascii_lowercase().contains("connection: close"), "{text}");
    tokio::time::timeout(Duration::from_secs(3), front.done).await.unwrap().unwrap();
    assert_eq!(front.listener.counters.active.get(), 0);
}

#[tokio::test]
async fn a_client_in_the_kernels_queue_is_served_before_the_socket_closes() {
    let front = Front::start(|bounds| bounds.connections = 2).await;
    // On this test's one thread nobody accepts before the first await that waits.
    let mut client = std::net::TcpStream::connect(front.address).unwrap();
    std::io::Write::write_all(&mut client, format!("GET /ignore{HOST}\r\n").as_bytes()).unwrap();
    front.stop.stop();
    client.set_nonblocking(true).unwrap();
    let mut client = Client(TcpStream::from_std(client).unwrap());
    assert_eq!(statuses(&client.rest().await), ["200"]);
}

#[test]
fn a_taken_address_is_named() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    let taken = bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = taken.local_addr().unwrap();
    assert_eq!(bind(address).unwrap_err().to_string(), format!("cannot listen on {address}"));
}
