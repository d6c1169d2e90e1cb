#![allow(clippy::unwrap_used, reason = "a test that cannot build its input has failed")]
use super::*;
use crate::cache::testing::*;

fn sent(method: &Method, request: &[(&'static str, &str)], after: u64) -> (Answer, String) {
    let now = noon();
    let fields =
        [("cache-control", "max-age=60"), ("etag", "\"a\""), ("content-type", "text/plain"), ("age", "2")];
    let entry = cache().fill("/", &fields, "0123456789", now);
    let headers = map(request);
    let request = RequestHead { method, headers: &headers, has_body: false };
    let extent = Extent::Complete(entry.body().length());
    let answer = answer(entry.head(), extent, &request, now.after(secs(after)));
    let body = answer.body.chunks(entry.body()).concat();
    (answer, String::from_utf8(body).unwrap())
}

fn field<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.headers.get(name).map_or("", |value| value.to_str().unwrap())
}

#[test]
fn a_plain_answer_is_whole_and_says_its_age() {
    let (answer, body) = sent(&Method::GET, &[], 5);
    assert_eq!((answer.status, body.as_str()), (StatusCode::OK, "0123456789"));
    assert_eq!((field(&answer, "age"), field(&answer, "content-length")), ("7", "10"));
}

#[test]
fn head_has_the_length_and_no_body() {
    let (answer, body) = sent(&Method::HEAD, &[("range", "bytes=0-1")], 0);
    assert_eq!((answer.status, body.as_str(), field(&answer, "content-length")), (StatusCode::OK, "", "10"));
}

#[test]
fn a_client_that_holds_the_answer_gets_304_without_what_describes_a_body() {
    let (answer, body) = sent(&Method::GET, &[("if-none-match", "\"a\""), ("range", "bytes=0-1")], 0);
    assert_eq!((answer.status, body.as_str()), (StatusCode::NOT_MODIFIED, ""));
    assert_eq!(field(&answer, "etag"), "\"a\"");
    assert_eq!(field(&answer, "age"), "2");
    assert!(!answer.headers.contains_key("content-length") && !answer.headers.contains_key("content-type"));
}

#[test]
fn one_range_is_sent_plainly() {
    let (answer, body) = sent(&Method::GET, &[("range", "bytes=2-4")], 0);
    assert_eq!((answer.status, body.as_str()), (StatusCode::PARTIAL_CONTENT, "234"));
    assert_eq!(field(&answer, "content-range"), "bytes 2-4/10");
    assert_eq!(field(&answer, "content-length"), "3");
}

#[test]
fn several_ranges_are_sent_as_multipart_of_the_length_announced() {
    let (answer, body) = sent(&Method::GET, &[("range", "bytes=0-1,-2")], 0);
    let boundary = field(&answer, "content-type").strip_prefix("multipart/byteranges; boundary=").unwrap();
    let part = |range, bytes| {
        format!(
            "\r\n--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes {range}/10\r\n\r\n{bytes}"
        )
    };
    assert_eq!(body, format!("{}{}\r\n--{boundary}--\r\n", part("0-1", "01"), part("8-9", "89")));
    assert_eq!(field(&answer, "content-length"), body.len().to_string());
    assert!(!answer.headers.contains_key("content-range"));
}

#[test]
fn what_is_not_there_is_416() {
    let (answer, body) = sent(&Method::GET, &[("range", "bytes=10-")], 0);
    assert_eq!((answer.status, body.as_str()), (StatusCode::RANGE_NOT_SATISFIABLE, ""));
    assert_eq!((field(&answer, "content-range"), field(&answer, "content-length")), ("bytes */10", "0"));
}

#[test]
fn another_version_is_sent_whole() {
    let (answer, body) = sent(&Method::GET, &[("range", "bytes=2-4"), ("if-range", "\"b\"")], 0);
    assert_eq!((answer.status, body.len()), (StatusCode::OK, 10));
}

#[test]
fn a_body_that_is_arriving_is_sent_whole() {
    let now = noon();
    let entry = cache().fill("/", &[("cache-control", "max-age=60")], "0123456789", now);
    let headers = map(&[("range", "bytes=2-4")]);
    let request = RequestHead { method: &Method::GET, headers: &headers, has_body: false };
    assert_eq!(answer(entry.head(), Extent::Arriving(10), &request, now).body, Plan::Whole);
}

#[test]
fn slices_cross_chunk_borders() {
    let big = vec![b'x'; 1 << 20];
    let body = Body::new(vec![Bytes::from(big), Bytes::from_static(b"abc"), Bytes::from_static(b"def")]);
    let slice: Vec<_> = body.slice((1 << 20) - 1..(1 << 20) + 4).collect();
    assert_eq!(slice.concat(), b"xabcd");
    assert_eq!(body.slice(3..3).count(), 0);
}
