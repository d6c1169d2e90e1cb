//! Many connections that want nothing: slow heads, idle ones, more than there is room for, more than there are descriptors for.

use std::time::{Duration, Instant};

use super::{
    harness::{Weir, config},
    origin::Origin,
};

#[test]
fn two_hundred_slow_heads_are_cut_in_time_and_good_clients_do_not_notice() {
    let origin = Origin::start();
    let weir = Weir::start(&config(origin.address));
    let mut good = weir.connect();
    let mut slow: Vec<_> = (0..200).map(|_| weir.connect()).collect();
    let (began, mut slowest) = (Instant::now(), Duration::ZERO);
    // A byte from each, again and again, for longer than a head may take.
    let mut drip = b"GET /slow HTTP/1.1\r\nHost: a.test\r\nX-Slow: ".iter().chain(std::iter::repeat(&b'a'));
    while began.elapsed() < Duration::from_millis(2500) {
        let byte = drip.next().unwrap();
        slow.iter_mut().for_each(|client| client.send(&[*byte]));
        let asked = Instant::now();
        good.is_served("slow");
        slowest = slowest.max(asked.elapsed());
        std::thread::sleep(Duration::from_millis(20));
    }
    for client in &mut slow {
        assert!(client.answer().is_none_or(|answer| answer.status == 408));
    }
    println!("200 slow heads: gone after {:?}, slowest good answer {slowest:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(6) && slowest < Duration::from_millis(500));
    assert!(origin.seen().iter().all(|request| !request.starts_with("GET /slow")));
    weir.assert_sane();
}

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

#[test]
fn beyond_the_limit_clients_wait_and_are_served_when_there_is_room() {
    let origin = Origin::start();
    let weir = Weir::start(
        &config(origin.address).replace("idle_timeout: 20s", "idle_timeout: 20s, connections: 10"),
    );
    let mut first: Vec<_> = (0..10).map(|_| weir.connect()).collect();
    first.iter_mut().for_each(|client| client.is_served("first"));
    let mut waiting: Vec<_> = (0..5).map(|_| weir.connect()).collect();
    waiting.iter_mut().for_each(|client| client.send(b"GET /victim/w HTTP/1.1\r\nHost: a.test\r\n\r\n"));
    let (ticks, began) = (weir.ticks(), Instant::now());
    while began.elapsed() < Duration::from_secs(1) {
        first.iter_mut().for_each(|client| client.is_served("still"));
        std::thread::sleep(Duration::from_millis(100));
    }
    let used = weir.ticks() - ticks;
    println!("full for a second: {used} ticks for 100 requests");
    assert!(used < 50, "{used} hundredths of a second");
    drop(first);
    let freed = Instant::now();
    waiting.iter_mut().for_each(|client| assert_eq!(client.answer().unwrap().status, 200));
    assert!(freed.elapsed() < Duration::from_secs(2), "{:?}", freed.elapsed());
}

#[test]
fn without_descriptors_those_who_are_there_are_served_and_nothing_spins() {
    let origin = Origin::start();
    let weir = Weir::start_as(&config(origin.address), "ulimit -n 64; exec \"$0\" run \"$1\"");
    let mut good = weir.connect();
    good.is_served("before");
    let crowd: Vec<_> = (0..150).map(|_| weir.connect()).collect();
    let (ticks, began) = (weir.ticks(), Instant::now());
    while began.elapsed() < Duration::from_secs(1) {
        good.is_served("meanwhile");
        std::thread::sleep(Duration::from_millis(100));
    }
    let used = weir.ticks() - ticks;
    println!("out of descriptors for a second: {used} ticks");
    assert!(used < 30, "{used} hundredths of a second");
    drop(crowd);
    let freed = Instant::now();
    weir.connect().is_served("after");
    println!("served anew after {:?}", freed.elapsed());
    assert!(freed.elapsed() < Duration::from_secs(2));
    weir.assert_sane();
}
