#![allow(clippy::unwrap_used, reason = "tests build their input by hand")]
use std::sync::Arc;

use flate2::{Compression, write::GzEncoder};
use http::{HeaderName, Method, Version};
use tokio::sync::Semaphore;

use super::*;

fn decoder() -> Decoder {
    Decoder::new(Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap())
}

fn packed(text: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(text).unwrap();
    gzip.finish().unwrap()
}

/// What comes of these pieces, and the most that came at once.
fn unpacked(pieces: &[&[u8]]) -> io::Result<(Vec<u8>, usize)> {
    let (mut decoder, mut text, mut most) = (decoder(), Vec::new(), 0);
    for piece in pieces {
        let mut piece = Bytes::copy_from_slice(piece);
        while !piece.is_empty() {
            let made = decoder.push(&mut piece)?;
            most = most.max(made.len());
            text.extend_from_slice(&made);
        }
    }
    text.extend_from_slice(&decoder.finish()?);
    Ok((text, most))
}

#[test]
fn gzip_in_any_pieces_is_unpacked_to_its_text() {
    let gzip = packed(b"some text, and some text again");
    let single: Vec<&[u8]> = gzip.chunks(1).collect();
    assert_eq!(unpacked(&single).unwrap().0, b"some text, and some text again");
    assert_eq!(unpacked(&[&gzip]).unwrap().0, b"some text, and some text again");
    let two = [gzip.clone(), packed(b"!")].concat();
    assert_eq!(unpacked(&[&two]).unwrap().0, b"some text, and some text again!");
    assert_eq!(unpacked(&[&gzip, &packed(b"!")]).unwrap().0, b"some text, and some text again!");
    assert_eq!(unpacked(&[]).unwrap().0, b"", "an empty body is empty");
}

#[test]
fn what_is_not_whole_or_no_gzip_is_an_error() {
    let gzip = packed(b"some text");
    let mut wrong = gzip.clone();
    let checksum = wrong.len() - 8;
    wrong[checksum] ^= 1;
    for (name, bytes) in [
        ("cut", &gzip[..gzip.len() - 1]),
        ("cut in its head", &gzip[..5]),
        ("with another checksum", &wrong),
        ("no gzip", b"some text that is no gzip"),
        ("with something behind it", &[&gzip, &b"garbage that is not a member"[..]].concat()),
    ] {
        assert!(unpacked(&[bytes]).is_err(), "{name}");
    }
}

#[test]
fn a_bomb_comes_in_small_pieces() {
    let bomb = packed(&vec![0; 32 << 20]);
    let (text, most) = unpacked(&[&bomb]).unwrap();
    assert_eq!(text.len(), 32 << 20);
    assert!(most <= 64 << 10, "{most} bytes at once from {}", bomb.len());
}

#[test]
fn what_was_taken_is_there_after_a_flush() {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(b"first").unwrap();
    gzip.flush().unwrap();
    let (mut piece, mut decoder, mut text) = (Bytes::from(gzip.get_ref().clone()), decoder(), Vec::new());
    while !piece.is_empty() {
        text.extend_from_slice(&decoder.push(&mut piece).unwrap());
    }
    text.extend_from_slice(&decoder.flush().unwrap());
    assert_eq!(text, b"first");
}

fn map(fields: &[(&'static str, &str)]) -> HeaderMap {
    fields.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
}

#[test]
fn only_gzip_that_a_client_does_not_take_is_unpacked() {
    let case = |request: &[(&'static str, &str)], version, answer: &[(&'static str, &str)]| {
        let headers = map(request);
        let asked = Asked { method: &Method::GET, version, headers: &headers, has_session: false };
        unpacks(&asked, &map(answer))
    };
    const GZIP: &[(&str, &str)] = &[("content-encoding", "gzip")];
    let (new, old) = (Version::HTTP_11, Version::HTTP_10);
    assert!(case(&[], new, GZIP));
    for accepted in ["identity", "br", "gzip;q=0", "gzip;q=0, *", "*;q=0", ""] {
        assert!(case(&[("accept-encoding", accepted)], new, GZIP), "{accepted}");
    }
    for accepted in ["gzip", "br, x-gzip;q=0.1", "*", "gzip;q=0.1, identity"] {
        assert!(!case(&[("accept-encoding", accepted)], new, GZIP), "{accepted}");
        assert!(case(&[("accept-encoding", accepted)], old, GZIP), "{accepted}");
    }
    assert!(case(&[], new, &[("content-encoding", "X-Gzip")]));
    for answer in [
        &[][..],
        &[("content-encoding", "br")],
        &[("content-encoding", "gzip, gzip")],
        &[("content-encoding", "gzip"), ("content-encoding", "br")],
        &[("content-encoding", "gzip"), ("content-range", "bytes 0-1/9")],
        &[("content-encoding", "gzip"), ("cache-control", "max-age=1, no-transform")],
    ] {
        assert!(!case(&[], new, answer), "{answer:?}");
    }
    assert!(!case(&[("cache-control", "no-transform")], new, GZIP));
}

#[test]
fn an_unpacked_answer_says_nothing_of_the_packed_one() {
    let mut fields = map(&[
        ("content-encoding", "gzip"),
        ("content-length", "9"),
        ("accept-ranges", "bytes"),
        ("etag", "\"1\""),
        ("repr-digest", "x"),
        ("content-type", "text/plain"),
    ]);
    mark_unpacked(&mut fields);
    assert_eq!(
        fields,
        map(&[("etag", "W/\"1\""), ("content-type", "text/plain"), ("vary", "accept-encoding")])
    );
}
