//! Slices that are not what they should be: of another place, length or version, or not to be had. Nobody gets them for what
//! they are not.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crate::{
    slicing::{FILE, SLICE, asked, bytes, is, ranges, serve, slicing, versions},
    support::Origin,
};

#[test]
fn parts_that_were_not_asked_for_reach_nobody() {
    for (name, fields) in [
        ("of another place", "content-range: bytes 1-4096/10240\r\netag: \"1\"\r\n"),
        ("of an unknown whole", "content-range: bytes 0-4095/*\r\netag: \"1\"\r\n"),
        ("without its place", "etag: \"1\"\r\n"),
        ("without a validator", "content-range: bytes 0-4095/10240\r\n"),
        ("with a weak one", "content-range: bytes 0-4095/10240\r\netag: W/\"1\"\r\n"),
    ] {
        let origin = Origin::start(move |request, wire| {
            if !request.has("range") {
                return wire.answer("", bytes(1, 0..FILE));
            }
            let mut part = format!("HTTP/1.1 206 Part\r\ncontent-length: 4096\r\n{fields}\r\n").into_bytes();
            part.extend(bytes(9, 0..SLICE));
            wire.send(part);
        });
        let edge = slicing(&origin, "");
        for _ in 0..2 {
            let answer = edge.get("/f");
            assert!(answer.body == bytes(1, 0..FILE), "{name}");
            assert!(!answer.cache().contains("stored"), "{name}: {}", answer.cache());
        }
    }
}

#[test]
fn a_slice_whose_length_is_another_is_cut() {
    let origin = Origin::start(|request, wire| match asked(request, FILE) {
        Some(range) if range.start == SLICE => {
            wire.cut();
            wire.send("HTTP/1.1 206 Part\r\ncontent-range: bytes 4096-8191/10240\r\netag: \"1\"\r\ncontent-length: 4096\r\n\r\nshort");
        }
        _ => serve(request, wire, (1, FILE), "etag: \"1\"\r\n"),
    });
    let edge = slicing(&origin, "");
    let answer = edge.get("/f");
    assert_eq!((answer.status, answer.whole), (200, false));
    let before = answer.body.len().min(SLICE as usize);
    assert_eq!(answer.body[..before], bytes(1, 0..SLICE)[..before]);
}

#[test]
fn a_file_that_changes_midway_is_never_mixed() {
    let (origin, version) = versions("");
    let edge = slicing(&origin, "");
    is(&edge.ask("/f", "range: bytes=0-9\r\n"), 206, &bytes(1, 0..10));
    version.store(2, Ordering::SeqCst);
    // The first slice is kept, and old.
    let mixed = edge.get("/f");
    assert_eq!((mixed.status, mixed.whole), (200, false));
    assert_eq!(mixed.body, bytes(1, 0..SLICE));
    is(&edge.get("/f"), 200, &bytes(2, 0..FILE));
    let asked = origin.count();
    is(&edge.get("/f"), 200, &bytes(2, 0..FILE));
    assert_eq!(origin.count(), asked);
}

#[test]
fn an_old_slice_behind_a_new_one_is_fetched_anew() {
    let (origin, version) = versions("");
    let edge = slicing(&origin, "");
    is(&edge.ask("/f", "range: bytes=5000-5009\r\n"), 206, &bytes(1, 5000..5010));
    version.store(2, Ordering::SeqCst);
    is(&edge.get("/f"), 200, &bytes(2, 0..FILE));
}

#[test]
fn an_origin_that_fails_midway_cuts_and_the_kept_slices_stay() {
    let fails = Arc::new(AtomicBool::new(true));
    let failing = Arc::clone(&fails);
    let origin = Origin::start(move |request, wire| {
        if request.field("range") == "bytes=8192-12287" && failing.load(Ordering::SeqCst) {
            wire.send("HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n");
        } else {
            serve(request, wire, (1, FILE), "etag: \"1\"\r\n");
        }
    });
    let edge = slicing(&origin, "");
    let answer = edge.get("/f");
    assert_eq!((answer.status, answer.whole, answer.body.len() as u64), (200, false, 2 * SLICE));
    fails.store(false, Ordering::SeqCst);
    is(&edge.get("/f"), 200, &bytes(1, 0..FILE));
    assert_eq!(ranges(&origin).iter().filter(|range| *range == "bytes=0-4095").count(), 1);
}
