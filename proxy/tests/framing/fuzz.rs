//! Mutations of valid requests. `WEIR_SEED=n` replays a run.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use super::{
    harness::{Weir, config},
    origin::Origin,
};

const CASES: u64 = 10_000;
const THREADS: u64 = 24;

/// What valid requests are made of.
const SEEDS: [&str; 8] = [
    "GET /base?q=1 HTTP/1.1\r\nHost: a.test\r\nAccept: */*\r\nX-Long: some value\r\n\r\n",
    "POST /base HTTP/1.1\r\nHost: a.test\r\nContent-Length: 41\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n\r\n",
    "POST /base HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3;ext=1\r\nabc\r\n0\r\nX-T: 1\r\n\r\n",
    "PUT /base HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
    "GET http://a.test/base HTTP/1.1\r\nHost: a.test\r\nConnection: keep-alive, X-A\r\nX-A: 1\r\n\r\n",
    "GET /base HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\n\r\n",
    "GET /base HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n\r\n",
    "HEAD /base HTTP/1.1\r\nHost: a.test:80\r\nTE: trailers\r\nCookie: a=b\r\n\r\n",
];

/// What parsers trip over.
const NASTY: [&str; 32] = [
    "\r",
    "\n",
    "\r\n",
    "\0",
    " ",
    "\t",
    ":",
    ",",
    ";",
    "_",
    "\u{b}",
    "\u{c}",
    "\u{7f}",
    "\u{e9}",
    "0",
    "+",
    "-",
    "%00",
    "%0d%0a",
    "..",
    "chunked",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: identity\r\n",
    "Content-Length: 0\r\n",
    "Content-Length: 7\r\n",
    "Host: b.test\r\n",
    "Connection: close\r\n",
    "\r\n\r\n",
    " HTTP/1.1\r\n",
    "GET /inner HTTP/1.1\r\nHost: a.test\r\n\r\n",
    "0\r\n\r\n",
    "\r\n x",
];

/// xorshift64*: replayable, and good enough to pick places.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33).unwrap() % end.max(1)
    }
}

fn mutated(dice: &mut Dice) -> Vec<u8> {
    let mut bytes = SEEDS[dice.below(SEEDS.len())].as_bytes().to_vec();
    for _ in 0..=dice.below(3) {
        let at = dice.below(bytes.len());
        let nasty = NASTY[dice.below(NASTY.len())].bytes();
        match dice.below(6) {
            0 => _ = bytes.splice(at..at, nasty),
            1 => _ = bytes.splice(at..(at + 1).min(bytes.len()), nasty),
            2 => _ = bytes.drain(at..(at + 1 + dice.below(8)).min(bytes.len())),
            3 => bytes[at] = u8::try_from(dice.below(256)).unwrap(),
            4 => bytes[at] ^= 0x20,
            // A whole line, at the beginning of one.
            _ => {
                let starts: Vec<_> = bytes
                    .windows(2)
                    .enumerate()
                    .filter(|(_, two)| *two == b"\r\n")
                    .map(|(at, _)| at + 2)
                    .collect();
                if let Some(at) = starts.get(dice.below(starts.len())) {
                    bytes.splice(at..at, nasty);
                }
            }
        }
        if bytes.is_empty() {
            break;
        }
    }
    bytes
}

#[test]
fn no_mutation_of_a_request_makes_us_say_two_things() {
    let seed = std::env::var("WEIR_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
        u64::try_from(SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() & 0xffff_ffff).unwrap()
    });
    println!("WEIR_SEED={seed}");
    let origin = Origin::start();
    let short = config(origin.address)
        .replace("header_timeout: 1500ms, body_timeout: 1s", "header_timeout: 300ms, body_timeout: 300ms")
        // A body may have swallowed the last request to its end.
        .replace("idle_timeout: 20s", "idle_timeout: 1s");
    let weir = Arc::new(Weir::start(&short));
    let (next, done, began) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)), Instant::now());
    let answered = Arc::new(AtomicU64::new(0));

    let attackers: Vec<_> = (0..THREADS)
        .map(|_| {
            let (weir, next, answered) = (Arc::clone(&weir), Arc::clone(&next), Arc::clone(&answered));
            std::thread::spawn(move || {
                while let case = next.fetch_add(1, Ordering::Relaxed)
                    && case < CASES
                {
                    let mut dice = Dice(seed.wrapping_add(case + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
                    let bytes = mutated(&mut dice);
                    let mut client = weir.connect();
                    client.send(&bytes);
                    client.send(b"GET /end HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
                    // Of HEAD the body is absent; which answers are to HEAD is not ours to guess from broken bytes.
                    if bytes.windows(4).any(|word| word.eq_ignore_ascii_case(b"head")) {
                        continue;
                    }
                    while let Some(answer) = client.answer() {
                        let blames_us = answer.status >= 500 && ![501, 505].contains(&answer.status);
                        assert!(
                            !blames_us && answer.status != 101,
                            "case {case}, {}: {answer:?}",
                            bytes.escape_ascii()
                        );
                        assert!(answer.whole, "case {case}, {}: cut: {answer:?}", bytes.escape_ascii());
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    let watcher = {
        let (weir, done) = (Arc::clone(&weir), Arc::clone(&done));
        std::thread::spawn(move || {
            let mut victim = weir.connect();
            let mut served = 0_u32;
            while !done.load(Ordering::Relaxed) {
                victim.is_served(&served.to_string());
                served += 1;
            }
            served
        })
    };
    let failed = attackers.into_iter().map(std::thread::JoinHandle::join).filter(Result::is_err).count();
    done.store(true, Ordering::Relaxed);
    let served = watcher.join().expect("the victim always gets its own answer");
    let took = began.elapsed();
    println!("{CASES} cases, {} answers, {served} victims, {took:?}", answered.load(Ordering::Relaxed));
    assert_eq!(failed, 0, "seed {seed}");
    origin.assert_clean();
    weir.assert_sane();
    assert!(took < Duration::from_secs(60));
}
