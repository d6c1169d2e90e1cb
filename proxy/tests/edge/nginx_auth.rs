//! The same `auth_request`, once in nginx and once in the edge: the same service lets the same requests pass, is told the same,
//! and the origin hears the same of who asks.

use std::net::SocketAddr;

use weir_testkit::Nginx;

use crate::support::{Answer, Client, Edge, Origin, Request};

const LOCATIONS: &str = "
auth_request /auth;
auth_request_set $user $upstream_http_x_user;
location / { proxy_pass http://ORIGIN; proxy_set_header X-User $user; add_header X-Seen $user always; }
location /open/ { auth_request off; proxy_pass http://ORIGIN; }
location /dead/ { auth_request /gone; proxy_pass http://ORIGIN; }
location = /fixed { return 200 fixed; }
location = /auth {
    internal;
    proxy_pass http://SERVICE/verify;
    proxy_pass_request_body off;
    proxy_set_header Content-Length \"\";
    proxy_set_header X-Original-URI $request_uri;
    proxy_set_header X-Original-Method $request_method;
    proxy_set_header X-Original-Host $host;
}
location = /gone { internal; proxy_pass http://127.0.0.1:1; }
";

/// What a service is told about a request.
const TOLD: [&str; 5] = ["x-original-uri", "x-original-method", "x-original-host", "authorization", "cookie"];

/// Says what it is asked to say by the end of the path; without credentials it challenges.
fn service() -> Origin {
    Origin::start(|request, wire| {
        let uri = request.field("x-original-uri");
        let (path, _) = uri.split_once('?').unwrap_or((&uri, ""));
        let status = match path.rsplit('/').next().unwrap_or_default() {
            status if status.parse::<u16>().is_ok() => status,
            _ if request.has("authorization") || request.has("cookie") => "200",
            _ => "401",
        };
        let user = format!("x-user: {}\r\n", request.field("authorization").trim_start_matches("Basic "));
        let fields = match status {
            "401" => "www-authenticate: Basic realm=\"here\"\r\n",
            "200" | "204" if request.has("authorization") => &user,
            _ => "",
        };
        let length = if status == "204" { "" } else { "content-length: 0\r\n" };
        wire.send(format!("HTTP/1.1 {status} Said\r\n{fields}{length}\r\n"));
    })
}

/// The edge with what nginx is told, translated.
fn translated(locations: &str) -> Edge {
    Edge::translated(&format!("events {{}} http {{ server {{ listen 80; {locations} }} }}"))
}

/// Method, target, and further fields.
type Step = (&'static str, &'static str, &'static str);

/// On a connection of its own: nginx ends it with a 500.
fn take(address: SocketAddr, (method, target, fields): Step) -> Answer {
    let mut client = Client::connect(address);
    client.send(format!("{method} {target} HTTP/1.1\r\nhost: edge.test\r\n{fields}\r\n"));
    client.answer()
}

/// What a client sees: the status, how it is challenged, and what is said of it.
fn seen(answer: &Answer) -> (u16, String, String) {
    (answer.status, answer.field("www-authenticate"), answer.field("x-seen"))
}

/// What the service was asked, by all its fields that the file names.
fn asked(service: &Origin) -> Vec<Vec<String>> {
    let of = |request: &Request| {
        let line = [request.method().to_owned(), request.target().to_owned()];
        line.into_iter().chain(TOLD.map(|name| request.field(name))).collect()
    };
    service.seen().iter().map(of).collect()
}

/// What the origin got: the request, and who it says asks.
fn got(origin: &Origin) -> Vec<String> {
    let of = |request: &Request| {
        let users =
            request.head.fields.iter().filter(|(name, _)| name == "x-user").map(|(_, value)| &**value);
        format!("{} {} {}", request.method(), request.target(), users.collect::<Vec<_>>().join("|"))
    };
    origin.seen().iter().map(of).collect()
}

#[test]
fn a_translated_auth_request_lets_pass_whom_nginx_lets_pass() {
    const ANNA: &str = "authorization: Basic anna\r\n";
    let steps: [Step; 16] = [
        ("GET", "/a", ANNA),
        ("GET", "/a", ANNA),
        ("GET", "/a?b=c&d=%20", ANNA),
        ("GET", "/a", ""),
        ("GET", "/a", "cookie: sid=t; other=u\r\n"),
        ("GET", "/a", "authorization: Basic anna\r\nx-user: eve\r\n"),
        ("GET", "/a", "cookie: sid=t\r\nx-user: eve\r\n"),
        ("POST", "/a", "authorization: Basic anna\r\ncontent-length: 0\r\n"),
        ("DELETE", "/a", ANNA),
        ("GET", "/204", ANNA),
        ("GET", "/401", ANNA),
        ("GET", "/403", ANNA),
        ("GET", "/open/a", ""),
        ("GET", "/fixed", ""),
        ("GET", "/auth", ANNA),
        ("GET", "/a", "authorization: Basic bert\r\n"),
    ];
    let sides = || {
        let (service, origin) = (service(), Origin::named("in"));
        let locations = LOCATIONS
            .replace("ORIGIN", &origin.address.to_string())
            .replace("SERVICE", &service.address.to_string());
        (service, origin, locations)
    };
    let ((their_service, their_origin, theirs), (our_service, our_origin, ours)) = (sides(), sides());
    let (nginx, edge) = (Nginx::start("", &theirs), translated(&ours));
    let mut differ = Vec::new();
    for step in steps {
        let (their, our) = (take(nginx.address(), step), take(edge.http(), step));
        if seen(&their) != seen(&our) {
            differ.push(format!("{step:?}: nginx {:?}, weir {:?}", seen(&their), seen(&our)));
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
    assert_eq!(asked(&their_service), asked(&our_service), "the service is told the same, as often");
    assert_eq!(got(&their_origin), got(&our_origin), "the origin hears the same");
    // The one difference: what is no answer is the service's trouble, and worth another try.
    for target in ["/500", "/302", "/404", "/dead/a"] {
        let step = ("GET", target, ANNA);
        let (their, our) = (take(nginx.address(), step), take(edge.http(), step));
        assert_eq!((their.status, our.status), (500, 503), "{target}");
    }
    assert_eq!(got(&their_origin), got(&our_origin), "none of them passed");
}
