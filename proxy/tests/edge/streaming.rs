//! Large bodies stream: in bounded memory, no faster than the other side reads.

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::support::{Client, Edge, Gate, Origin, nobody, ok, until};

const MIB: usize = 1 << 20;
/// More than any buffer on the way.
const LARGE: usize = 64 * MIB;
/// What a stream may hold: sockets' buffers are the kernel's, ours are a few of 64 KiB.
const GROWTH: usize = 8 * MIB;

/// What is moved where its size is the point: a GiB; `WEIR_TEST_MIB=64` is quicker.
fn huge() -> usize {
    std::env::var("WEIR_TEST_MIB").map_or(1024, |mib| mib.parse().unwrap())
}

/// A body MiB by MiB, each different from the others.
struct Mebibytes {
    bytes: Vec<u8>,
    next: u64,
}

impl Mebibytes {
    fn new() -> Self {
        Self { bytes: (0..MIB).map(|at| (at % 251) as u8).collect(), next: 0 }
    }

    fn next(&mut self) -> &[u8] {
        self.bytes[..8].copy_from_slice(&self.next.to_be_bytes());
        self.next += 1;
        &self.bytes
    }

    /// Reads as many from `client` as there should be; says which one is not as it should be.
    fn read(client: &mut Client, count: usize, mut after_each: impl FnMut()) -> Result<(), u64> {
        let mut wanted = Self::new();
        for _ in 0..count {
            if client.up_to(MIB) != wanted.next() {
                return Err(wanted.next - 1);
            }
            after_each();
        }
        Ok(())
    }
}

/// Criterion 36.
#[test]
fn a_gibibyte_down_arrives_as_it_was_in_little_memory_and_on_no_disk() {
    let origin = Origin::start(|_, wire| {
        wire.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", huge() * MIB));
        let mut body = Mebibytes::new();
        while body.next < huge() as u64 && wire.send(body.next()) {}
    });
    let edge = Edge::before(&origin);
    edge.admin("/live");
    let (before, mut most) = (edge.resident(), 0);
    let mut client = edge.connect();
    client.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").answer_head();
    let read = Mebibytes::read(&mut client, huge(), || most = most.max(edge.resident()));
    assert_eq!(read, Ok(()), "the first MiB that was changed");
    assert!(most < before + GROWTH, "{before} grew to {most}");
    assert!(edge.written_to_disk() < MIB, "{}", edge.written_to_disk());
}

/// Criterion 36.
#[test]
fn a_gibibyte_up_arrives_as_it_was_in_little_memory_and_on_no_disk() {
    let origin = Origin::connections(|mut client| {
        client.head();
        let read = Mebibytes::read(&mut client, huge(), || {});
        client.send(ok(&format!("{read:?}")));
    });
    let edge = Edge::before(&origin);
    edge.admin("/live");
    let (before, mut most) = (edge.resident(), 0);
    let mut client = edge.connect();
    client.send(format!("PUT / HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n", huge() * MIB));
    let mut body = Mebibytes::new();
    for _ in 0..huge() {
        client.send(body.next());
        most = most.max(edge.resident());
    }
    assert_eq!(client.answer().text(), "Ok(())", "the first MiB that was changed");
    assert!(most < before + GROWTH, "{before} grew to {most}");
    assert!(edge.written_to_disk() < MIB, "{}", edge.written_to_disk());
}

#[test]
fn a_slow_reader_holds_the_origin_back() {
    let written = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&written);
    let origin = Origin::connections(move |mut client| {
        client.head();
        client.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n"));
        let piece = vec![b's'; 64 * 1024];
        while count.load(Ordering::SeqCst) < LARGE && client.stream.write_all(&piece).is_ok() {
            count.fetch_add(piece.len(), Ordering::SeqCst);
        }
        // Until the other side is done with it.
        client.is_ended();
    });
    let edge = Edge::before(&origin);
    let before = edge.resident();
    let mut client = edge.connect();
    client.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").answer_head();
    // Nobody reads: the origin comes to a halt when the sockets in between are full.
    let (mut last, mut still) = (0, 0);
    until("the origin stands still", || {
        let now = written.load(Ordering::SeqCst);
        still = if now == last { still + 1 } else { 0 };
        last = now;
        still > 30
    });
    assert!(last < LARGE, "all {last} bytes went out to nobody");
    assert!(edge.resident() < before + GROWTH);
    assert_eq!(client.up_to(LARGE).len(), LARGE, "and goes on when somebody reads");
}

#[test]
fn a_slow_origin_holds_the_uploader_back() {
    let gate = Arc::new(Gate::default());
    let release = Arc::clone(&gate);
    let origin = Origin::connections(move |mut client| {
        client.head();
        release.pass();
        client.up_to(LARGE);
        client.send(ok("read"));
    });
    let edge = Edge::before(&origin);
    let before = edge.resident();
    let mut client = edge.connect();
    client.send(format!("PUT / HTTP/1.1\r\nhost: h\r\ncontent-length: {LARGE}\r\n\r\n"));
    let sent = Arc::new(AtomicUsize::new(0));
    let (count, mut stream) = (Arc::clone(&sent), client.stream.try_clone().unwrap());
    let upload = std::thread::spawn(move || {
        let piece = vec![b'u'; 64 * 1024];
        while count.load(Ordering::SeqCst) < LARGE {
            stream.write_all(&piece).unwrap();
            count.fetch_add(piece.len(), Ordering::SeqCst);
        }
    });
    let (mut last, mut still) = (0, 0);
    until("the client stands still", || {
        let now = sent.load(Ordering::SeqCst);
        still = if now == last { still + 1 } else { 0 };
        last = now;
        still > 30
    });
    assert!(last < LARGE, "all {last} bytes were taken for nobody");
    assert!(edge.resident() < before + GROWTH);
    gate.open();
    upload.join().unwrap();
    assert_eq!(client.answer().text(), "read");
}

#[test]
fn a_trickle_is_passed_on_as_it_comes() {
    for (head, first, second) in [
        ("content-length: 6", "one", "two"),
        ("transfer-encoding: chunked", "3\r\none\r\n", "3\r\ntwo\r\n0\r\n\r\n"),
    ] {
        let gate = Arc::new(Gate::default());
        let release = Arc::clone(&gate);
        let origin = Origin::start(move |_, wire| {
            wire.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{first}"));
            release.pass();
            wire.send(second);
        });
        let edge = Edge::before(&origin);
        let mut client = edge.connect();
        client.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").answer_head();
        assert_eq!(client.up_to(first.len()), first.as_bytes(), "before the origin goes on");
        gate.open();
        assert_eq!(client.up_to(second.len()), second.as_bytes());
    }
}

/// Criterion 35.
#[test]
fn a_hundred_slow_readers_cost_little() {
    let written = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&written);
    let origin = Origin::connections(move |mut client| {
        if client.head().is_some_and(|head| head.line.starts_with("HEAD")) {
            client.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
            return;
        }
        client.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n"));
        let piece = vec![b's'; 64 * 1024];
        while client.stream.write_all(&piece).is_ok() {
            count.fetch_add(piece.len(), Ordering::SeqCst);
        }
    });
    let edge = Edge::before(&origin);
    // What the first request brings into memory, the program's own text above all, belongs to no reader.
    edge.send("HEAD / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
    let before = edge.resident();
    let mut readers = Vec::new();
    for _ in 0..100 {
        let mut client = edge.connect();
        client.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").answer_head();
        readers.push(client);
    }
    let (mut last, mut still) = (0, 0);
    until("every origin stands still", || {
        let now = written.load(Ordering::SeqCst);
        still = if now == last { still + 1 } else { 0 };
        last = now;
        still > 30
    });
    let grown = edge.resident().saturating_sub(before);
    println!("a slow reader: {} KiB, {} KiB with the kernel's", grown / 100 / 1024, last / 100 / 1024);
    assert!(grown < 20 * MIB, "{grown} for a hundred of them");
}

/// Each piece was held in a buffer of its own: 6.8 MiB for a reader who may have 64 KiB.
#[test]
fn slow_readers_of_answers_that_drip_cost_as_little() {
    const PIECES: usize = 2000;
    let dripped = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&dripped);
    let origin = Origin::connections(move |mut client| {
        client.head();
        client.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n"));
        for _ in 0..PIECES {
            if !client.try_send([b'd'; 100]) {
                return;
            }
            count.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
        client.is_ended();
    });
    let edge = Edge::routing(&origin, "limit_rate: 1KiB", "");
    edge.admin("/live");
    let before = edge.resident();
    let readers: Vec<_> = (0..20)
        .map(|_| {
            let mut client = edge.connect();
            client.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n");
            client
        })
        .collect();
    until("all has dripped", || dripped.load(Ordering::SeqCst) == PIECES * readers.len());
    let grown = edge.resident().saturating_sub(before);
    println!("a slow reader of drops: {} KiB", grown / readers.len() / 1024);
    assert!(grown < 20 * MIB, "{grown} for twenty of them");
}

/// One request at a time, each for 8 MiB, which no socket takes.
fn one_at_a_time(rest: &str) -> (Origin, Edge) {
    let origin = Origin::start(|_, wire| wire.answer("", vec![b'b'; 8 * MIB]));
    let yaml = format!(
        "upstreams: {{ api: {{ servers: [{{ address: \"{}\", max_conns: 1 }}] }} }}\nroutes:\n  - match: /*\n    to: api\n    {rest}\n",
        origin.address
    );
    let edge = Edge::start(&yaml);
    (origin, edge)
}

#[test]
fn an_answer_that_fits_its_buffer_frees_the_origin_before_it_is_read() {
    let (_origin, edge) = one_at_a_time("response_buffer: 16MiB");
    let mut slow = edge.connect();
    slow.send("GET /slow HTTP/1.1\r\nhost: h\r\n\r\n").answer_head();
    let mut other = edge.connect();
    until("the origin is free", || other.ask("/other", "").status == 200);
    assert_eq!(slow.up_to(8 * MIB).len(), 8 * MIB);

    let (_origin, edge) = one_at_a_time("response_buffer: 0");
    let mut slow = edge.connect();
    slow.send("GET /slow HTTP/1.1\r\nhost: h\r\n\r\n").answer_head();
    assert_eq!(edge.get("/other").status, 503, "the origin waits for the reader");
    assert_eq!(slow.up_to(8 * MIB).len(), 8 * MIB);
    until("the origin is free", || edge.get("/other").status == 200);
}

#[test]
fn a_client_that_leaves_a_quiet_stream_is_noticed() {
    let gate = Arc::new(Gate::default());
    let gone = Arc::clone(&gate);
    let origin = Origin::connections(move |mut client| {
        client.head();
        client.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nevent\r\n");
        if client.is_ended() {
            gone.open();
        }
    });
    let edge = Edge::before(&origin);
    let mut client = edge.connect();
    client.send("GET /events HTTP/1.1\r\nhost: h\r\n\r\n").answer_head();
    drop(client);
    gate.pass();
    let record = edge.record("target", "/events");
    assert_eq!((&record["refusal"], &record["complete"]), (&"client_left".into(), &false.into()));
}

#[test]
fn an_answer_goes_no_faster_than_its_route_allows() {
    let origin = Origin::start(|_, wire| wire.answer("", vec![b'r'; 300 * 1024]));
    let edge = Edge::routing(&origin, "limit_rate: 200KiB", "");
    let began = std::time::Instant::now();
    let answer = edge.get("/");
    assert_eq!((answer.body.len(), answer.whole), (300 * 1024, true));
    assert!(began.elapsed() >= std::time::Duration::from_millis(450), "{:?}", began.elapsed());
    let free = Edge::routing(&origin, "limit_rate: 1KiB\n    limit_rate_after: 1MiB", "");
    assert_eq!(free.get("/").body.len(), 300 * 1024);
}

#[test]
fn a_gathered_body_meets_the_origin_whole() {
    let origin = Origin::start(|request, wire| wire.answer("", request.body.len().to_string()));
    let edge = Edge::routing(&origin, "request_buffer: 100KiB", "");
    let mut client = edge.connect();
    client.send("PUT /slow HTTP/1.1\r\nhost: h\r\ncontent-length: 10\r\n\r\nhello");
    assert_eq!(edge.get("/other").text(), "0", "others are served");
    assert_eq!(origin.accepted(), 1, "half a body holds no connection");
    assert_eq!(client.send("world").answer().text(), "10");
    // What is longer streams from there, and nothing of it is lost.
    for length in [100 * 1024, 100 * 1024 + 1, 3 * MIB] {
        let head = format!("PUT /long HTTP/1.1\r\nhost: h\r\ncontent-length: {length}\r\n\r\n");
        let mut client = edge.connect();
        client.send(head).send(vec![b'x'; length]);
        assert_eq!(client.answer().text(), length.to_string());
    }
}

#[test]
fn a_gathered_body_can_go_to_the_next_server() {
    let alive = Origin::start(|request, wire| wire.answer("", request.body.len().to_string()));
    let dead = nobody();
    let yaml = |buffer: &str| {
        format!(
            "upstreams: {{ api: {{ servers: [\"{dead}\", {{ address: \"{}\", backup: true }}] }} }}\nroutes: [{{ match: /*, to: api, request_buffer: {buffer} }}]\n",
            alive.address
        )
    };
    let body = "x".repeat(200 * 1024);
    let edge = Edge::start(&yaml("1MiB"));
    let answer =
        edge.send(format!("PUT / HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n{body}", body.len()));
    assert_eq!(answer.text(), body.len().to_string());
}

#[test]
fn a_head_does_not_wait_for_a_body_that_takes_its_time() {
    for framing in ["content-length: 3", "transfer-encoding: chunked"] {
        for cache in ["", "cache: { in: c, ttl: 60s }, "] {
            let gate = Arc::new(Gate::default());
            let release = Arc::clone(&gate);
            let origin = Origin::start(move |_, wire| {
                wire.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n"));
                release.pass();
                wire.send(if framing.starts_with('c') { "abc" } else { "3\r\nabc\r\n0\r\n\r\n" });
            });
            let edge = Edge::start(&format!(
                "caches: {{ c: {{ memory: 1MiB }} }}
upstreams: {{ api: {{ servers: [{}] }} }}
routes: [{{ match: /*, {cache}to: api }}]
",
                origin.address
            ));
            let mut client = edge.connect();
            client.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n");
            let (status, head) = client.answer_head();
            assert_eq!(status, 200, "{framing} {cache}: nobody has sent a byte of the body yet");
            gate.open();
            assert_eq!(client.body(&head, false, false).0, b"abc");
        }
    }
}

/// Drips until nobody listens: the head, and a piece every few milliseconds.
fn dripping(head: &'static str, piece: &'static str) -> Origin {
    Origin::start(move |_, wire| {
        wire.send(head);
        while wire.send(piece) {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        wire.cut();
    })
}

const CHUNKED: &str =
    "HTTP/1.1 200 OK\r\ncache-control: public, max-age=60\r\ntransfer-encoding: chunked\r\n\r\n";
const LONG: &str = "HTTP/1.1 200 OK\r\ncache-control: public, max-age=60\r\ncontent-length: 1000000\r\n\r\n";

/// Asks, reads the head, and leaves; whether the origin still sends then is up to the rule.
fn ask_and_leave(edge: &Edge) {
    let mut client = edge.connect();
    client.send("GET /x HTTP/1.1\r\nhost: edge.test\r\n\r\n");
    assert_eq!(client.answer_head().0, 200);
}

#[test]
fn what_is_not_kept_any_more_is_not_read_when_its_client_has_left() {
    let origin = dripping(CHUNKED, "10\r\n0123456789abcdef\r\n");
    let edge = Edge::routing(&origin, "cache: { in: store }", "caches: { store: { entry_max: 1KiB } }");
    ask_and_leave(&edge);
    until("the origin is left alone", || origin.open() == 0);
}

#[test]
fn a_fetch_goes_on_without_clients_for_as_long_as_its_route_says() {
    for (head, piece) in [(CHUNKED, "1\r\nx\r\n"), (LONG, "x")] {
        for rule in ["background_fill: 0s", "background_fill: 100ms"] {
            let origin = dripping(head, piece);
            let edge =
                Edge::routing(&origin, &format!("cache: {{ in: store, {rule} }}"), "caches: { store: {} }");
            ask_and_leave(&edge);
            until("the origin is left alone", || origin.open() == 0);
        }
    }
}

#[test]
fn a_compressor_is_no_reader_of_a_fetch() {
    let origin = dripping(
        "HTTP/1.1 200 OK\r\ncache-control: public, max-age=60\r\ncontent-type: text/html\r\ncontent-length: 1000000\r\n\r\n",
        "x",
    );
    let edge = Edge::routing(
        &origin,
        "compress: on\n    cache: { in: store, background_fill: 100ms }",
        "caches: { store: {} }",
    );
    let mut client = edge.connect();
    client.send("GET /x HTTP/1.1\r\nhost: edge.test\r\naccept-encoding: gzip\r\n\r\n");
    assert_eq!(client.answer_head().1.field("content-encoding").as_deref(), Some("gzip"));
    drop(client);
    until("the origin is left alone", || origin.open() == 0);
}
