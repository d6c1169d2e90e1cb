//! Many connections that want nothing: slow heads and bodies, idle ones, more than there is room for, more than there are descriptors for.

use std::time::{Duration, Instant};

use super::{
    harness::{Client, Weir, config},
    origin::Origin,
};

/// How long good answers took.
#[derive(Default)]
struct Good(Vec<Duration>);

impl Good {
    fn ask(&mut self, client: &mut Client, name: &str) {
        let asked = Instant::now();
        client.is_served(name);
        self.0.push(asked.elapsed());
    }

    /// Nobody noticed: most answers are as quick as ever, and none is late; the machine may be busy with other tests.
    fn assert_quick(mut self) {
        self.0.sort();
        let (median, slowest) = (self.0[self.0.len() / 2], self.0[self.0.len() - 1]);
        println!("good answers: median {median:?}, slowest of {} {slowest:?}", self.0.len());
        assert!(
            median < Duration::from_millis(100) && slowest < Duration::from_secs(2),
            "{median:?}, {slowest:?}"
        );
    }
}

/// Criterion 33, with the deadline of the plan's defaults.
#[test]
fn five_hundred_slow_heads_are_cut_after_ten_seconds_and_good_clients_do_not_notice() {
    const DEADLINE: Duration = Duration::from_secs(10);
    let origin = Origin::start();
    let weir = Weir::start(&config(origin.address).replace("header_timeout: 1500ms, ", ""));
    let (mut good, mut took) = (weir.connect(), Good::default());
    let mut slow: Vec<_> = (0..500).map(|_| weir.connect()).collect();
    let began = Instant::now();
    // A byte from each, again and again, so that every wait between two of them is short.
    let mut drip = b"GET /slow HTTP/1.1\r\nHost: a.test\r\nX-Slow: ".iter().chain(std::iter::repeat(&b'a'));
    while began.elapsed() < DEADLINE {
        let byte = drip.next().unwrap();
        slow.iter_mut().for_each(|client| client.send(&[*byte]));
        took.ask(&mut good, "slow");
        std::thread::sleep(Duration::from_millis(100));
    }
    for client in &mut slow {
        assert!(client.answer().is_none_or(|answer| answer.status == 408) && client.is_closed());
    }
    println!("500 slow heads: gone after {:?}", began.elapsed());
    assert!(began.elapsed() < DEADLINE + Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(origin.seen().iter().all(|request| !request.starts_with("GET /slow")));
    took.assert_quick();
    weir.assert_sane();
}

/// Criterion 34, with shorter times; the defaults add up to the criterion's minute.
#[test]
fn two_hundred_slow_bodies_are_cut_and_good_clients_do_not_notice() {
    let default = weir_config::plan::Bounds::default();
    assert!(2 * default.body_timeout <= Duration::from_secs(60) && default.body_min_rate.get() > 0);
    let origin = Origin::start();
    let weir = Weir::start(&config(origin.address));
    let (mut good, mut took) = (weir.connect(), Good::default());
    let mut slow: Vec<_> = (0..200).map(|_| weir.connect()).collect();
    let head = b"POST /slow HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10000\r\n\r\n";
    slow.iter_mut().for_each(|client| client.send(head));
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        slow.iter_mut().for_each(|client| client.send(b"a"));
        took.ask(&mut good, "slow");
        std::thread::sleep(Duration::from_millis(100));
    }
    for client in &mut slow {
        assert!(client.answer().is_none_or(|answer| answer.status == 408) && client.is_closed());
    }
    println!("200 slow bodies: gone after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    took.assert_quick();
    weir.assert_sane();
}

/// Criterion 37.
#[test]
fn an_idle_connection_costs_little() {
    const CROWD: u64 = 1000;
    let origin = Origin::start();
    let weir = Weir::start(&config(origin.address));
    let crowd = |size| {
        (0..size)
            .map(|nth| {
                let mut client = weir.connect();
                client.is_served(&format!("{nth}"));
                client
            })
            .collect::<Vec<_>>()
    };
    // What is made once belongs to no connection.
    let warm = crowd(50);
    let before = weir.memory();
    let idle = crowd(CROWD);
    let each = weir.memory().saturating_sub(before) as f64 / CROWD as f64;
    println!("an idle connection: {each:.1} KiB");
    assert!(each <= 16.0, "{each} KiB");
    drop((warm, idle));
}

/// Nobody asks anything for two seconds: a full edge uses less than a tenth of them.
fn assert_rests(weir: &Weir) {
    let ticks = weir.ticks();
    std::thread::sleep(Duration::from_secs(2));
    let used = weir.ticks() - ticks;
    println!("full for two seconds: {used} hundredths of a second");
    assert!(used < 20, "{used} hundredths of a second");
}

/// Criterion 38.
#[test]
fn beyond_the_limit_clients_wait_and_are_served_when_there_is_room() {
    assert!(weir_config::plan::Bounds::default().connections > 0, "there is a limit without a word");
    let origin = Origin::start();
    let weir = Weir::start(
        &config(origin.address).replace("idle_timeout: 20s", "idle_timeout: 20s, connections: 10"),
    );
    let mut first: Vec<_> = (0..10).map(|_| weir.connect()).collect();
    first.iter_mut().for_each(|client| client.is_served("first"));
    let mut waiting: Vec<_> = (0..5).map(|_| weir.connect()).collect();
    waiting.iter_mut().for_each(|client| client.send(b"GET /victim/w HTTP/1.1\r\nHost: a.test\r\n\r\n"));
    assert_rests(&weir);
    first.iter_mut().for_each(|client| client.is_served("still"));
    assert!(
        origin.seen().iter().all(|request| !request.contains("/victim/w ")),
        "nobody is served beyond the limit"
    );
    drop(first);
    let freed = Instant::now();
    waiting.iter_mut().for_each(|client| assert_eq!(client.answer().unwrap().status, 200));
    assert!(freed.elapsed() < Duration::from_secs(1), "{:?}", freed.elapsed());
}

/// Criterion 38.
#[test]
fn without_descriptors_those_who_are_there_are_served_and_nothing_spins() {
    let origin = Origin::start();
    let weir = Weir::start_as(&config(origin.address), "ulimit -n 64; exec \"$0\" run \"$1\"");
    let mut good = weir.connect();
    good.is_served("before");
    let crowd: Vec<_> = (0..150).map(|_| weir.connect()).collect();
    assert_rests(&weir);
    good.is_served("meanwhile");
    drop(crowd);
    let freed = Instant::now();
    weir.connect().is_served("after");
    println!("served anew after {:?}", freed.elapsed());
    assert!(freed.elapsed() < Duration::from_secs(1), "{:?}", freed.elapsed());
    weir.assert_sane();
}

/// The want is ours: a peer that was never asked is not found at fault, and is asked as soon as it can be.
#[test]
fn a_peer_is_not_blamed_when_we_have_no_descriptor_left() {
    let origin = Origin::start();
    let weir = Weir::start_as(
        &config(origin.address)
            .replace("max_fails: 0", "max_fails: 1, fail_timeout: 60s")
            .replace("    retry:", "    keepalive: 0\n    retry:"),
        "ulimit -n 64; exec \"$0\" run \"$1\"",
    );
    let mut good = weir.connect();
    good.is_served("before");
    let crowd: Vec<_> = (0..150).map(|_| weir.connect()).collect();
    assert_rests(&weir);
    let refused = (0..5).map(|_| {
        good.send(b"GET /victim/x HTTP/1.1\r\nHost: a.test\r\n\r\n");
        good.answer().unwrap().status
    });
    assert_eq!(refused.collect::<Vec<_>>(), [503; 5]);
    drop(crowd);
    weir.connect().is_served("after");
}

/// The soft limit that systemd and shells begin with is smaller than one listener's `connections`.
#[test]
fn the_soft_limit_of_descriptors_is_raised_to_the_hard_one() {
    let origin = Origin::start();
    let weir = Weir::start_as(&config(origin.address), "ulimit -Sn 64; exec \"$0\" run \"$1\"");
    let mut crowd: Vec<_> = (0..150).map(|_| weir.connect()).collect();
    crowd.iter_mut().for_each(|client| client.is_served("one"));
}
