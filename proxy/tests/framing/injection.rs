//! Bytes of a request in templates of the configuration: they stay one value, one segment, one part of a key.

use super::{
    harness::{Weir, config, once},
    origin::Origin,
};

fn start() -> (Origin, Weir) {
    let origin = Origin::start();
    let routes = "routes:
  - match: /rewrite/*
    to: origin
    rewrite: /to/${query.p}
    request_headers: { x-sent: \"${query.p}\" }
    response_headers: { x-said: \"${query.p}\" }
  - match: /redirect/*
    redirect: { location: \"http://a.test/${query.p}\" }
  - match: \"/key/{one}/{two}\"
    cache: { in: store, key: \"${path.one}:${path.two}\" }
    to: origin
";
    let weir = Weir::start(&config(origin.address).replace("routes:\n", routes));
    (origin, weir)
}

const TRICKS: [&str; 12] = [
    "%0d%0aX-Evil:%20y",
    "%0aX-Evil:y",
    "%0d",
    "%00",
    "a%20HTTP/1.1%0d%0a%0d%0aGET%20/smuggled",
    "%20HTTP/1.1",
    "%23evil",
    "%3fevil=1",
    "..%2f..%2fevil",
    "%e5%98%8a%e5%98%8dX-Evil",
    "%7f",
    "%22%3cevil%3e",
];

#[test]
fn no_part_of_a_request_ends_a_line_of_another() {
    let (origin, weir) = start();
    for trick in TRICKS {
        for path in ["rewrite", "redirect"] {
            let bytes =
                format!("GET /{path}/x?p={trick} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
            let answer = once(&weir, bytes.as_bytes());
            assert!(answer.status < 500, "{path} {trick}: {answer:?}");
            assert!(
                !answer.head.contains("\r\nx-evil") && !answer.head.contains("\nx-evil"),
                "{trick}: {answer:?}"
            );
        }
        for request in origin.seen() {
            assert!(
                !request.to_lowercase().contains("\nx-evil") && !request.contains("\nGET /smuggled"),
                "{trick}: {request}"
            );
            assert!(request.starts_with("GET /to/"), "{trick}: {request}");
        }
    }
    origin.assert_clean();
    weir.assert_sane();
}

#[test]
fn parts_of_a_key_cannot_be_moved_across_their_border() {
    let (origin, weir) = start();
    for (at, (one, other)) in
        [("a/b:c", "a:b/c"), ("a%3ab/c", "a/b:c"), ("a%253ab/c", "a%3ab/c"), ("a/b", "A/b")]
            .iter()
            .enumerate()
    {
        for path in [one, other] {
            let target = format!("/key/{path}{at}");
            origin.script(
                &target,
                format!(
                    "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: {}\r\n\r\n{target}",
                    target.len()
                ),
                false,
            );
            let bytes = format!("GET {target} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
            let answer = once(&weir, bytes.as_bytes());
            assert!(
                answer.text() == target || answer.text().starts_with("GET /key/"),
                "{target} got {}",
                answer.text()
            );
            let seen = origin.seen();
            assert_eq!(seen.len(), 1, "{target} was answered with what {one} or {other} made");
        }
    }
}
