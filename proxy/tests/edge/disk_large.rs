//! Bodies that memory does not hold: written while they arrive, read from the disk by anybody, and never short.

use std::{
    fs,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use crate::{
    disk::{Folder, happened, sight, written},
    support::{Client, Edge, Gate, Origin, Wire, until},
};

const MIB: usize = 1 << 20;
const LARGE: usize = 300 * MIB;
const BLOCK: usize = 64 << 10;
/// What an edge may grow by meanwhile: its 8 MiB of memory, the 32 MiB that may wait for a slow disk, and what is on its way.
const MOST: usize = 64 * MIB;

/// A part of a large body: 64 KiB of the same, but for the number that each of them begins with.
fn part(from: usize, to: usize) -> Vec<u8> {
    static SAME: LazyLock<Vec<u8>> = LazyLock::new(|| (0..BLOCK).map(|at| (at % 251) as u8).collect());
    let first = from / BLOCK * BLOCK;
    let mut bytes = Vec::with_capacity(to - first + BLOCK);
    for number in first / BLOCK..to.div_ceil(BLOCK) {
        bytes.extend_from_slice(&number.to_be_bytes());
        bytes.extend_from_slice(&SAME[8..]);
    }
    bytes.truncate(to - first);
    bytes.split_off(from - first)
}

fn edge(folder: &Folder, origin: &Origin, rule: &str) -> Edge {
    let top = folder.named("memory: 8MiB, entry_max: 1MiB", "size: 1GiB, entry_max: 512MiB");
    let edge = Edge::routing(origin, &format!("cache: {{ in: store, {rule} }}"), &top);
    until("the scan of the folder", || sight(&edge)["scanned"] == true);
    edge
}

fn send(wire: &mut Wire, from: usize, to: usize) {
    let mut at = from;
    while at < to && wire.send(part(at, (at + MIB).min(to))) {
        at += MIB;
    }
}

/// Reads a body from `from` to `to`, and says where the first byte is that is not as it should be.
fn read(client: &mut Client, from: usize, to: usize) -> Result<(), usize> {
    for at in (from..to).step_by(MIB) {
        let end = (at + MIB).min(to);
        if client.up_to(end - at) != part(at, end) {
            return Err(at);
        }
    }
    Ok(())
}

fn ask(edge: &Edge, path: &str, fields: &str) -> (Client, u16, crate::support::Head) {
    let mut client = edge.connect();
    client.send(format!("GET {path} HTTP/1.1\r\nhost: edge.test\r\n{fields}\r\n"));
    let (status, head) = client.answer_head();
    (client, status, head)
}

#[test]
fn three_hundred_mebibytes_are_served_while_they_arrive_and_after_a_kill_in_little_memory() {
    let (folder, gate) = (Folder::new(), Arc::new(Gate::default()));
    let held = Arc::clone(&gate);
    let origin = Origin::start(move |_, wire| {
        wire.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\netag: \"l\"\r\n\r\n"));
        send(wire, 0, LARGE / 3);
        held.pass();
        send(wire, LARGE / 3, LARGE);
    });
    let edge = edge(&folder, &origin, "ttl: 600s");
    edge.admin("/live");
    let before = edge.resident();
    let (mut first, status, _) = ask(&edge, "/", "");
    assert_eq!(status, 200);
    assert_eq!(read(&mut first, 0, LARGE / 3), Ok(()));
    let mut others: Vec<Client> = (0..3).map(|_| ask(&edge, "/", "").0).collect();
    others.iter_mut().for_each(|other| assert_eq!(read(other, 0, LARGE / 3), Ok(()), "what has arrived"));
    gate.open();
    let grown = thread::scope(|scope| {
        others.push(first);
        let readers = others.iter_mut().map(|other| scope.spawn(|| read(other, LARGE / 3, LARGE)));
        let readers: Vec<_> = readers.collect();
        let mut most = 0;
        while readers.iter().any(|reader| !reader.is_finished()) {
            most = most.max(edge.resident());
            thread::yield_now();
        }
        readers.into_iter().for_each(|reader| assert_eq!(reader.join().unwrap(), Ok(())));
        most.saturating_sub(before)
    });
    assert!(grown < MOST, "{before} grew by {grown}");
    assert_eq!(origin.count(), 1);
    written(&edge, 1);
    edge.signal("KILL");
    drop(edge);
    let edge = self::edge(&folder, &origin, "ttl: 600s");
    let before = edge.resident();
    for (range, from, to) in
        [("100-70000", 100, 70_001), ("-65537", LARGE - 65537, LARGE), ("65535-65536", 65535, 65537)]
    {
        let answer = edge.ask("/", &format!("range: bytes={range}\r\n"));
        assert_eq!((answer.status, answer.body == part(from, to)), (206, true), "{range}");
        assert!(answer.cache().starts_with("weir; hit"), "{}", answer.cache());
        assert_eq!(answer.field("content-range"), format!("bytes {from}-{}/{LARGE}", to - 1));
    }
    let several = edge.ask("/", "range: bytes=0-9,131071-131080\r\n");
    let has = |wanted: Vec<u8>| several.body.windows(10).any(|found| found == wanted);
    assert!(several.status == 206 && several.whole && has(part(0, 10)) && has(part(131_071, 131_081)));
    assert_eq!(edge.ask("/", "if-none-match: \"l\"\r\n").status, 304);
    let (mut client, status, head) = ask(&edge, "/", "");
    assert_eq!((status, head.field("content-length")), (200, Some(LARGE.to_string())));
    assert_eq!(read(&mut client, 0, LARGE), Ok(()));
    assert_eq!(origin.count(), 1);
    let grown = edge.resident().saturating_sub(before);
    assert!(grown < MOST, "grew by {grown}");
    assert!(edge.metric("weir_cache_bytes{cache=\"store\"}") < 64e3, "memory has the head alone");
}

#[test]
fn a_body_of_unknown_length_that_outgrows_memory_goes_to_disk() {
    let folder = Folder::new();
    let origin = Origin::start(|_, wire| {
        wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        for at in (0..5 * MIB).step_by(100_000) {
            let piece = part(at, (at + 100_000).min(5 * MIB));
            wire.send(format!("{:x}\r\n", piece.len()));
            wire.send(piece);
            wire.send("\r\n");
        }
        wire.send("0\r\n\r\n");
    });
    let edge = edge(&folder, &origin, "ttl: 600s");
    assert_eq!(edge.get("/").body.len(), 5 * MIB);
    written(&edge, 1);
    let again = edge.get("/");
    assert!(again.cache().starts_with("weir; hit") && again.whole, "{}", again.cache());
    assert!(again.body == part(0, 5 * MIB) && origin.count() == 1);
}

#[test]
fn a_fill_that_breaks_is_cut_for_its_readers_and_leaves_no_file() {
    let folder = Folder::new();
    let count = AtomicUsize::new(0);
    let origin = Origin::start(move |_, wire| {
        wire.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 4 * MIB));
        if count.fetch_add(1, Ordering::SeqCst) == 0 {
            send(wire, 0, 3 * MIB);
            wire.cut();
        } else {
            send(wire, 0, 4 * MIB);
        }
    });
    let edge = edge(&folder, &origin, "ttl: 600s");
    let broken = edge.get("/");
    assert!(!broken.whole && broken.body == part(0, broken.body.len()));
    until("the file to go", || folder.unfinished() == 0);
    until("its bytes to be free", || sight(&edge)["bytes"] == 0);
    assert_eq!(folder.files().len(), 0);
    assert!(edge.get("/").body == part(0, 4 * MIB));
    written(&edge, 1);
    assert_eq!((origin.count(), edge.get("/").whole, origin.count()), (2, true, 2));
}

#[test]
fn a_damaged_block_is_not_sent_and_the_next_request_gets_the_whole() {
    let folder = Folder::new();
    let origin = Origin::start(|_, wire| {
        wire.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 4 * MIB));
        send(wire, 0, 4 * MIB);
    });
    let edge = edge(&folder, &origin, "ttl: 600s");
    for (at, in_the_middle) in [(2 * MIB, true), (5000, false)] {
        assert!(edge.get("/").body == part(0, 4 * MIB));
        written(&edge, 1);
        let file = folder.files().remove(0);
        let mut bytes = fs::read(&file).unwrap();
        bytes[at] ^= 0x10;
        fs::write(&file, bytes).unwrap();
        let before = origin.count();
        let answer = edge.get("/");
        assert!(answer.body == part(0, answer.body.len()), "no byte is wrong");
        assert_eq!(answer.whole, !in_the_middle, "cut, or asked of the origin when nothing was sent yet");
        assert_eq!(origin.count(), before + usize::from(!in_the_middle));
        until("the file to go", || !file.exists());
    }
    assert_eq!(happened(&edge, "damaged"), 2.0);
    assert!(edge.get("/").body == part(0, 4 * MIB));
}

#[test]
fn what_a_304_says_of_a_body_on_disk_is_kept_with_it() {
    let folder = Folder::new();
    let origin = Origin::start(|request, wire| match request.has("if-none-match") {
        true => drop(wire.send("HTTP/1.1 304 Not Modified\r\netag: \"e\"\r\nx-news: yes\r\n\r\n")),
        false => {
            wire.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\netag: \"e\"\r\n\r\n", 2 * MIB));
            send(wire, 0, 2 * MIB);
        }
    });
    let edge = edge(&folder, &origin, "ttl: 600s");
    assert!(!edge.get("/").has("x-news"));
    written(&edge, 1);
    let file = folder.files().remove(0);
    let said = || fs::read(&file).unwrap().windows(6).any(|word| word == b"x-news");
    let news = edge.ask("/", "cache-control: no-cache\r\n");
    assert_eq!((news.status, &*news.field("x-news"), news.body.len()), (200, "yes", 2 * MIB));
    until("the head to be written", said);
    drop(edge);
    let edge = self::edge(&folder, &origin, "ttl: 600s");
    let answer = edge.get("/");
    assert!(answer.cache().starts_with("weir; hit"), "{}", answer.cache());
    assert_eq!((&*answer.field("x-news"), answer.body == part(0, 2 * MIB)), ("yes", true));
    assert_eq!(origin.count(), 2);
}

#[test]
fn what_the_disk_does_not_take_is_passed_on() {
    let folder = Folder::new();
    let origin = Origin::start(|_, wire| {
        wire.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 6 * MIB));
        send(wire, 0, 6 * MIB);
    });
    let top = folder.named("memory: 8MiB, entry_max: 1MiB", "size: 64MiB, entry_max: 5MiB");
    let edge = Edge::routing(&origin, "cache: { in: store, ttl: 600s }", &top);
    for _ in 0..2 {
        let answer = edge.get("/");
        assert!(
            answer.body == part(0, 6 * MIB) && answer.cache().contains("detail=too-large"),
            "{}",
            answer.cache()
        );
    }
    assert_eq!((folder.files().len(), folder.unfinished()), (0, 0));
}
