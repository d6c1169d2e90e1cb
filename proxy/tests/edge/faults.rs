//! Faults under load: one peer of three does its worst, and no request fails that could have been served by another.

use std::{
    io::Read,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::support::{Answer, Client, Edge, Gate, Origin, Request, Wire, get, ok, until};

/// An edge before these peers; tests that are not about it wait no longer than they must.
fn edge(peers: &[SocketAddr], rest: &str) -> Edge {
    let servers: Vec<_> = peers.iter().map(SocketAddr::to_string).collect();
    Edge::start(&format!(
        "upstreams:\n  api:\n    servers: [{}]\n{rest}\nroutes: [{{ match: /*, to: api }}]\n",
        servers.join(", ")
    ))
}

/// An origin in a process of its own, which can be killed and stopped; it answers `other`.
fn process() -> Edge {
    Edge::start("routes: [{ match: /*, answer: { body: other } }]\n")
}

fn is_asked(edge: &Edge, peer: SocketAddr) -> bool {
    edge.metric(&format!("weir_peer_up{{peer=\"{peer}\",upstream=\"api\"}}")) == 1.0
}

/// Requests from several clients at once, each on a kept connection, until stopped.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    clients: Vec<std::thread::JoinHandle<Vec<Timed>>>,
}

/// When it was asked for, how long it took, and what came.
type Timed = (Instant, Duration, Answer);

impl Load {
    fn start(address: SocketAddr, clients: usize) -> Self {
        let (stop, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let clients = (0..clients).map(|_| {
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            std::thread::spawn(move || {
                let (mut client, mut answers) = (Client::connect(address), Vec::new());
                while !stop.load(Ordering::SeqCst) {
                    let began = Instant::now();
                    let answer = client.ask("/", "");
                    answers.push((began, began.elapsed(), answer));
                    done.fetch_add(1, Ordering::SeqCst);
                    // A pace, not a race: some hundred requests a second in all.
                    std::thread::sleep(Duration::from_millis(10));
                }
                answers
            })
        });
        Self { clients: clients.collect(), stop, done }
    }

    /// Waits for so many answers more.
    #[track_caller]
    fn more(&self, count: usize) -> &Self {
        let before = self.done.load(Ordering::SeqCst);
        until("more answers", || self.done.load(Ordering::SeqCst) >= before + count);
        self
    }

    /// Goes on until this moment, and for some requests after it.
    #[track_caller]
    fn past(&self, moment: Instant) -> &Self {
        until("the moment", || Instant::now() > moment);
        self.more(200)
    }

    /// Every answer.
    fn end(self) -> Vec<Timed> {
        self.stop.store(true, Ordering::SeqCst);
        self.clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    }
}

/// Of so many answers, none failed, and those asked for after `settled` were quick: 99 of 100 within 100 ms, or, on a machine
/// that has something else to do, within a few times what a `control` without a fault takes at the same time.
#[track_caller]
fn assert_served(answers: &[Timed], control: &[Timed], settled: Instant) {
    for (_, took, answer) in answers.iter().chain(control) {
        assert_eq!((answer.status, answer.whole), (200, true), "after {took:?}: {}", answer.text());
    }
    let (later, usual) = (p99(answers, settled), p99(control, settled));
    assert!(later < Duration::from_millis(100).max(usual * 4), "p99 is {later:?}, without a fault {usual:?}");
}

fn p99(answers: &[Timed], settled: Instant) -> Duration {
    let mut later: Vec<_> =
        answers.iter().filter(|(at, ..)| *at > settled).map(|(_, took, _)| *took).collect();
    later.sort();
    later[later.len() * 99 / 100]
}

/// The same load on an edge whose peers are well.
struct Control {
    _peers: [Origin; 2],
    _edge: Edge,
    load: Load,
}

impl Control {
    fn start() -> Self {
        let peers = ["d", "e"].map(Origin::named);
        let edge = edge(&peers.each_ref().map(|peer| peer.address), "");
        let load = Load::start(edge.http(), 8);
        Self { _peers: peers, _edge: edge, load }
    }

    fn end(self) -> Vec<Timed> {
        self.load.end()
    }
}

#[test]
fn a_peer_killed_under_load_fails_nobody() {
    let (a, b, c) = (process(), Origin::named("b"), Origin::named("c"));
    let edge = edge(&[a.http(), b.address, c.address], "");
    let control = Control::start();
    let load = Load::start(edge.http(), 16);
    load.more(200);
    drop(a);
    let settled = Instant::now() + Duration::from_millis(500);
    load.past(settled);
    assert_served(&load.end(), &control.end(), settled);
}

#[test]
fn a_peer_that_refuses_connections_fails_nobody() {
    let (mut a, b, c) = (Origin::named("a"), Origin::named("b"), Origin::named("c"));
    a.die();
    let edge = edge(&[a.address, b.address, c.address], "");
    let control = Control::start();
    let load = Load::start(edge.http(), 16);
    let settled = Instant::now() + Duration::from_millis(500);
    load.past(settled);
    assert_served(&load.end(), &control.end(), settled);
}

#[test]
fn a_peer_that_resets_connections_fails_nobody() {
    let resets = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = resets.local_addr().unwrap();
    std::thread::spawn(move || {
        for (count, stream) in resets.incoming().flatten().enumerate() {
            let mut stream = socket2::Socket::from(stream);
            stream.set_linger(Some(Duration::ZERO)).unwrap();
            // At once, and in the middle of a request.
            if count % 2 == 1 {
                let _ = stream.read(&mut [0; 10]);
            }
        }
    });
    let (b, c) = (Origin::named("b"), Origin::named("c"));
    // It is asked again and again: it never rests.
    let edge = Edge::start(&format!(
        "upstreams:\n  api:\n    servers: [{{ address: {address}, max_fails: 0 }}, {}, {}]\n    outlier: off\n    retry: {{ budget: 100% }}\nroutes: [{{ match: /*, to: api }}]\n",
        b.address, c.address
    ));
    let control = Control::start();
    let load = Load::start(edge.http(), 16);
    let settled = Instant::now();
    load.more(600);
    assert_served(&load.end(), &control.end(), settled);
    let reset = ["reset", "connect"].map(|outcome| {
        edge.metric(&format!(
            "weir_attempts_total{{outcome=\"{outcome}\",peer=\"{address}\",upstream=\"api\"}}"
        ))
    });
    assert!(reset.iter().sum::<f64>() > 50.0, "{reset:?}");
}

#[test]
fn a_peer_that_accepts_and_is_silent_costs_a_handful_of_requests_a_second() {
    // The kernel accepts for a listener that nobody serves.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let (b, c) = (Origin::named("b"), Origin::named("c"));
    let edge = edge(&[address, b.address, c.address], "");
    let control = Control::start();
    let load = Load::start(edge.http(), 16);
    until("it rests", || !is_asked(&edge, address));
    let settled = Instant::now();
    load.past(settled);
    assert_served(&load.end(), &control.end(), settled);
    let silent = format!("weir_attempts_total{{outcome=\"silent\",peer=\"{address}\",upstream=\"api\"}}");
    until("they are counted", || edge.metric(&silent) >= 5.0);
    // At most one of each client: by then nobody is sent there any more.
    assert!(edge.metric(&silent) <= 16.0);
}

#[test]
fn a_stopped_process_fails_nobody_and_is_asked_again_when_it_goes_on() {
    let (a, b, c) = (process(), Origin::named("b"), Origin::named("c"));
    let edge = edge(&[a.http(), b.address, c.address], "    outlier: { ejection: 5s }");
    let control = Control::start();
    let load = Load::start(edge.http(), 16);
    load.more(300);
    a.signal("STOP");
    until("it rests", || !is_asked(&edge, a.http()));
    let settled = Instant::now();
    load.past(settled);
    assert_served(&load.end(), &control.end(), settled);
    a.signal("CONT");
    until("it is asked again", || get(edge.http(), "/").text() == "other");
}

#[test]
fn a_post_at_a_silent_peer_waits_for_its_own_timeout_and_is_not_repeated() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let b = Origin::named("b");
    let edge = edge(
        &[silent.local_addr().unwrap(), b.address],
        "    outlier: { silence: 100ms }\n    timeouts: { first_byte: 2s }",
    );
    let mut posts = [edge.connect(), edge.connect()];
    let began = Instant::now();
    for post in &mut posts {
        post.send("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n");
    }
    // Turn by turn: when the second has been asked of `b`, the first waits at the silent one.
    until("both are asked", || b.count() == 1);
    let control = Control::start();
    let load = Load::start(edge.http(), 8);
    let mut statuses = posts.map(|mut post| post.answer().status);
    assert!(began.elapsed() >= Duration::from_secs(2));
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 504], "one of the two was asked of the silent peer");
    assert_eq!(b.seen().iter().filter(|request| request.method() == "POST").count(), 1);
    let settled = Instant::now();
    load.past(settled);
    assert_served(&load.end(), &control.end(), settled);
}

#[test]
fn answers_that_drip_delay_only_their_own_client() {
    let release = Arc::new(AtomicBool::new(false));
    let done = Arc::clone(&release);
    let drips = Origin::start(move |_, wire| {
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n");
        while !done.load(Ordering::SeqCst) && wire.send("x") {
            std::thread::sleep(Duration::from_millis(20));
        }
        wire.cut();
    });
    let (b, c) = (Origin::named("b"), Origin::named("c"));
    // The weights cover requests that are answered already and still counted for an instant.
    let edge = Edge::start(&format!(
        "upstreams:\n  api:\n    balance: least_conn\n    servers: [{}, {{ address: {}, weight: 10 }}, {{ address: {}, weight: 10 }}]\nroutes: [{{ match: /*, to: api }}]\n",
        drips.address, b.address, c.address
    ));
    let mut hanging = edge.connect();
    loop {
        let asked = || drips.count() + b.count() + c.count();
        let before = asked();
        hanging.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n");
        until("somebody is asked", || asked() > before);
        if drips.count() == 1 {
            break;
        }
        hanging.answer();
    }
    let slow = (0..30).filter(|_| {
        let began = Instant::now();
        edge.get("/");
        began.elapsed() > Duration::from_secs(1)
    });
    assert_eq!((slow.count(), drips.count()), (0, 1));
    release.store(true, Ordering::SeqCst);
}

/// What a broken peer says, to whom it is said again elsewhere, and what must never look whole.
#[test]
fn broken_answers_go_elsewhere_before_the_first_byte_and_are_cut_after_it() {
    let heads = ["garbage\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", ""];
    let bodies = [
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n64\r\nhalf",
    ];
    let broken = |says: &'static str| {
        Origin::start(move |_, wire| {
            wire.send(says);
            wire.cut();
        })
    };
    for says in heads {
        let (a, b) = (broken(says), Origin::named("b"));
        let edge = edge(&[a.address, b.address], "");
        for _ in 0..6 {
            assert_eq!(edge.get("/").text(), "b", "{says:?}");
        }
        assert_eq!(a.count(), 1, "it is out after one: {says:?}");
    }
    for says in bodies {
        let (a, b) = (broken(says), Origin::named("b"));
        let edge = edge(&[a.address, b.address], "");
        let answers: Vec<_> = (0..6).map(|_| edge.get("/")).collect();
        let cut = answers.iter().filter(|answer| !answer.whole).count();
        assert_eq!((cut, a.count()), (1, 1), "{says:?}");
        assert!(answers.iter().filter(|answer| answer.whole).all(|answer| answer.text() == "b"), "{says:?}");
    }
}

#[test]
fn a_flood_of_interim_answers_goes_elsewhere() {
    let flood = Origin::start(|_, wire| {
        while wire.send("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n") {}
        wire.cut();
    });
    let b = Origin::named("b");
    let edge = edge(&[flood.address, b.address], "");
    for _ in 0..6 {
        assert_eq!(edge.get("/").text(), "b");
    }
    assert_eq!(flood.count(), 1);
}

#[test]
fn when_all_are_dead_the_answer_is_quick_and_the_first_that_returns_is_asked_at_once() {
    let mut origins = ["a", "b", "c"].map(Origin::named);
    let addresses = origins.each_ref().map(|origin| origin.address);
    let edge = edge(&addresses, "");
    assert_eq!(edge.get("/").status, 200);
    origins.iter_mut().for_each(Origin::die);
    let mut took = [(); 11].map(|()| {
        let began = Instant::now();
        assert_eq!(edge.get("/").status, 502);
        began.elapsed()
    });
    took.sort();
    assert!(took[5] < Duration::from_millis(100), "{took:?}");
    let _back = Origin::on(addresses[1], |_, wire| _ = wire.send(ok("back")));
    let returned = Instant::now();
    until("it is asked again", || edge.get("/").text() == "back");
    assert!(returned.elapsed() < Duration::from_secs(1), "{:?}", returned.elapsed());
}

#[test]
fn an_outage_is_not_multiplied() {
    let broken = || Origin::start(|_, wire| wire.cut());
    let (a, b) = (broken(), broken());
    let server = |origin: &Origin| format!("{{ address: {}, max_fails: 0 }}", origin.address);
    let edge = Edge::start(&format!(
        "upstreams:\n  api:\n    servers: [{}, {}]\n    retry: {{ tries: 2, budget: 20%, floor: 0 }}\nroutes: [{{ match: /*, to: api }}]\n",
        server(&a),
        server(&b)
    ));
    for _ in 0..100 {
        assert_eq!(edge.get("/").status, 502);
    }
    let retries = |outcome| {
        edge.metric(&format!("weir_upstream_retries_total{{outcome=\"{outcome}\",upstream=\"api\"}}"))
    };
    let repeated = a.count() + b.count() - 100;
    // A fifth; rounded more often where they take longer than the budget remembers.
    assert!((15..=25).contains(&repeated), "{repeated}");
    let repeated = repeated as f64;
    until("they are counted", || retries("failed") + retries("budget") == 100.0);
    assert_eq!((retries("failed"), retries("tries")), (repeated, repeated));
}

#[test]
fn a_peer_that_fails_more_than_the_others_rests() {
    let sick = Origin::saying("HTTP/1.1 500 Sick\r\ncontent-length: 0\r\n\r\n");
    let (b, c) = (Origin::named("b"), Origin::named("c"));
    let edge = edge(&[sick.address, b.address, c.address], "    outlier: { window: 1s, requests: 10 }");
    let load = Load::start(edge.http(), 8);
    until("it rests", || !is_asked(&edge, sick.address));
    load.end();
    assert!((0..9).all(|_| edge.get("/").status == 200));
}

#[test]
fn a_slow_answer_is_asked_of_a_second_peer_and_the_sooner_one_counts() {
    let gate = Arc::new(Gate::default());
    let (slow, release) = (Arc::<AtomicBool>::default(), Arc::clone(&gate));
    let is_slow = Arc::clone(&slow);
    let script = move |name: &'static str| {
        let (is_slow, release) = (Arc::clone(&is_slow), Arc::clone(&release));
        move |request: &Request, wire: &mut Wire| {
            // The first to be asked is late, whoever it is.
            if request.target() == "/late" && is_slow.swap(false, Ordering::SeqCst) {
                release.pass();
            }
            wire.send(ok(name));
        }
    };
    let (a, b) = (Origin::start(script("a")), Origin::start(script("b")));
    let edge = edge(&[a.address, b.address], "    hedge: { share: 100% }");
    for _ in 0..150 {
        assert_eq!(edge.get("/").status, 200);
    }
    slow.store(true, Ordering::SeqCst);
    assert_eq!(edge.get("/late").status, 200, "while the gate is closed");
    let count = |path: &str| {
        let seen = [a.seen(), b.seen()].concat();
        seen.iter().filter(|request| request.target() == path).count()
    };
    assert_eq!(count("/late"), 2);
    until("it is counted", || {
        edge.metric("weir_upstream_hedges_total{outcome=\"won\",upstream=\"api\"}") >= 1.0
    });
    slow.store(true, Ordering::SeqCst);
    let mut post = edge.connect();
    post.send("POST /late HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n");
    until("it is asked", || count("/late") == 3);
    gate.open();
    assert_eq!((post.answer().status, count("/late")), (200, 3), "never twice");
}
