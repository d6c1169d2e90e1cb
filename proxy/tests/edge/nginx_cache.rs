//! The same nginx.conf, once in nginx and once in the edge: the same answers, from the same place, after the same history.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use weir_testkit::Nginx;

use crate::support::{Answer, Client, Edge, Origin, until};

const HTTP: &str = "proxy_cache_path cache keys_zone=kept:1m;";

const LOCATIONS: &str = "
proxy_cache kept;
proxy_cache_valid 200 404 1m;
add_header X-Cache-Status $upstream_cache_status always;
proxy_pass_header X-Accel-Expires;
location /plain/ { proxy_pass http://ORIGIN; }
location /any/ { proxy_cache_valid any 1m; proxy_pass http://ORIGIN; }
location /unsaid/ { proxy_cache_valid 410 1m; proxy_pass http://ORIGIN; }
location /bypass/ {
    proxy_cache_bypass $http_x_fresh $arg_fresh;
    proxy_no_cache $http_x_private;
    proxy_cache_key $uri;
    proxy_pass http://ORIGIN;
}
location /rare/ { proxy_cache_min_uses 3; proxy_pass http://ORIGIN; }
location /deaf/ { proxy_ignore_headers Cache-Control Expires Set-Cookie Vary X-Accel-Expires; proxy_pass http://ORIGIN; }
location /stale/ {
    proxy_cache_use_stale error invalid_header http_500 http_404;
    proxy_pass http://ORIGIN;
}
location /asked/ {
    proxy_cache_use_stale http_500;
    proxy_cache_revalidate on;
    proxy_pass http://ORIGIN;
}
location /behind/ { proxy_cache_background_update on; proxy_pass http://ORIGIN; }
location /moved/ { proxy_cache_key $uri; proxy_pass http://ORIGIN/there/; }
location = /moved { proxy_pass http://ORIGIN/here; }
location /off/ { proxy_cache off; proxy_pass http://ORIGIN; }
";

/// Numbers its answers, and says what it was asked for; a request says what the answer is: `x-status`, and fields in `x-say`
/// and `x-more`.
fn origin() -> Origin {
    let count = AtomicUsize::new(0);
    Origin::start(move |request, wire| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        let (status, say) = (request.field("x-status"), request.field("x-say"));
        if status == "304" || (request.has("if-none-match") && status.is_empty()) {
            wire.send("HTTP/1.1 304 Not Modified\r\netag: \"1\"\r\nx-accel-expires: @1\r\n\r\n");
            return;
        }
        let status = if status.is_empty() { "200".to_owned() } else { status };
        let body = format!("answer {number} to {}", request.target());
        let said = [say, request.field("x-more")];
        let fields: String =
            said.iter().filter(|say| !say.is_empty()).map(|say| format!("{say}\r\n")).collect();
        let head = format!("HTTP/1.1 {status} Said\r\ncontent-length: {}\r\n{fields}\r\n", body.len());
        wire.send(if request.method() == "HEAD" { head } else { head + &body });
    })
}

/// The edge with what nginx is told, translated.
fn translated(origin: &Origin) -> Edge {
    let server = LOCATIONS.replace("ORIGIN", &origin.address.to_string());
    Edge::translated(&format!("events {{}} http {{ {HTTP} server {{ listen 80; {server} }} }}"))
}

/// Method, target, and further fields.
type Step = (&'static str, &'static str, &'static str);

fn take(client: &mut Client, (method, target, fields): &Step) -> Answer {
    client.send(format!("{method} {target} HTTP/1.1\r\nhost: edge.test\r\n{fields}\r\n"));
    if *method == "HEAD" { client.answer_to_head() } else { client.answer() }
}

/// What must be the same: status, word of the cache, body.
fn seen(answer: &Answer) -> (u16, String, String) {
    (answer.status, answer.field("x-cache-status"), answer.text())
}

#[test]
fn a_history_of_requests_gets_from_a_translated_file_what_nginx_gives() {
    let histories: &[&[Step]] = &[
        // Twice the same.
        &[
            ("GET", "/plain/a", ""),
            ("GET", "/plain/a", ""),
            ("GET", "/plain/a?x", ""),
            ("GET", "/plain/a?x", ""),
        ],
        &[("GET", "/plain/404", "x-status: 404\r\n"), ("GET", "/plain/404", "")],
        &[("GET", "/plain/410", "x-status: 410\r\n"), ("GET", "/plain/410", "")],
        &[("GET", "/plain/500", "x-status: 500\r\n"), ("GET", "/plain/500", "")],
        &[("GET", "/any/500", "x-status: 500\r\n"), ("GET", "/any/500", "")],
        &[("GET", "/any/403", "x-status: 403\r\n"), ("GET", "/any/403", "")],
        // What the origin says.
        &[("GET", "/plain/private", "x-say: cache-control: private\r\n"), ("GET", "/plain/private", "")],
        &[("GET", "/plain/no-store", "x-say: cache-control: no-store\r\n"), ("GET", "/plain/no-store", "")],
        &[("GET", "/plain/no-cache", "x-say: cache-control: no-cache\r\n"), ("GET", "/plain/no-cache", "")],
        &[("GET", "/plain/cookie", "x-say: set-cookie: a=b\r\n"), ("GET", "/plain/cookie", "")],
        &[
            ("GET", "/plain/past", "x-say: expires: Thu, 01 Jan 1970 00:00:01 GMT\r\n"),
            ("GET", "/plain/past", ""),
        ],
        &[("GET", "/plain/star", "x-say: vary: *\r\n"), ("GET", "/plain/star", "")],
        &[("GET", "/plain/0", "x-say: x-accel-expires: 0\r\n"), ("GET", "/plain/0", "")],
        &[("GET", "/plain/60", "x-say: x-accel-expires: 60\r\nx-status: 500\r\n"), ("GET", "/plain/60", "")],
        &[("GET", "/unsaid/a", ""), ("GET", "/unsaid/a", "")],
        &[
            ("GET", "/unsaid/guess", "x-say: last-modified: Thu, 01 Jan 2015 00:00:00 GMT\r\n"),
            ("GET", "/unsaid/guess", ""),
        ],
        &[("GET", "/unsaid/tag", "x-say: etag: \"1\"\r\n"), ("GET", "/unsaid/tag", "")],
        &[("GET", "/unsaid/said", "x-say: cache-control: max-age=60\r\n"), ("GET", "/unsaid/said", "")],
        &[
            ("GET", "/plain/vary", "x-a: 1\r\nx-say: vary: x-a\r\n"),
            ("GET", "/plain/vary", "x-a: 2\r\nx-say: vary: x-a\r\n"),
            ("GET", "/plain/vary", "x-a: 1\r\n"),
            ("GET", "/plain/vary", "x-a: 2\r\n"),
        ],
        // What clients say.
        &[
            ("GET", "/plain/b", "cookie: a=b\r\n"),
            ("GET", "/plain/b", "cookie: a=c\r\n"),
            ("GET", "/plain/b", ""),
        ],
        &[
            ("GET", "/plain/c", "cache-control: no-store\r\n"),
            ("GET", "/plain/c", "cache-control: no-cache\r\npragma: no-cache\r\n"),
            ("GET", "/plain/c", "cache-control: max-age=0\r\n"),
        ],
        &[("HEAD", "/plain/d", ""), ("GET", "/plain/d", ""), ("HEAD", "/plain/d", "")],
        &[
            ("GET", "/plain/e", "x-say: accept-ranges: bytes\r\n"),
            ("GET", "/plain/e", "range: bytes=0-2\r\n"),
            ("POST", "/off/e", "content-length: 0\r\n"),
        ],
        // What the file says.
        &[
            ("GET", "/bypass/a", ""),
            ("GET", "/bypass/a?x", ""),
            ("GET", "/bypass/a", "x-fresh: 0\r\n"),
            ("GET", "/bypass/a", "x-fresh: 1\r\n"),
            ("GET", "/bypass/a", ""),
            ("GET", "/bypass/a?fresh=yes", "x-private: 1\r\n"),
            ("GET", "/bypass/a", ""),
            ("GET", "/bypass/b", "x-private: 1\r\n"),
            ("GET", "/bypass/b", ""),
        ],
        &[("GET", "/rare/a", ""), ("GET", "/rare/a", ""), ("GET", "/rare/a", ""), ("GET", "/rare/a", "")],
        &[("GET", "/deaf/cc", "x-say: cache-control: private\r\n"), ("GET", "/deaf/cc", "")],
        &[("GET", "/deaf/cookie", "x-say: set-cookie: a=b\r\n"), ("GET", "/deaf/cookie", "")],
        &[("GET", "/deaf/vary", "x-say: vary: *\r\n"), ("GET", "/deaf/vary", "")],
        &[("GET", "/deaf/0", "x-say: x-accel-expires: 0\r\n"), ("GET", "/deaf/0", "")],
        &[("GET", "/off/a", ""), ("GET", "/off/a", "")],
        // What is stale at once: nginx keeps what ended long ago.
        &[
            ("GET", "/stale/a", "x-say: x-accel-expires: @1\r\n"),
            ("GET", "/stale/a", "x-status: 500\r\n"),
            ("GET", "/stale/a", "x-status: 404\r\n"),
            ("GET", "/stale/a", "x-status: 502\r\n"),
            ("GET", "/stale/a", "x-status: 403\r\n"),
            ("GET", "/stale/a", ""),
            ("GET", "/stale/a", ""),
        ],
        &[
            ("GET", "/stale/b", "x-say: x-accel-expires: @1\r\n"),
            ("GET", "/stale/b", "x-status: 403\r\n"),
            ("GET", "/stale/b", "x-status: 500\r\n"),
        ],
        &[
            ("GET", "/asked/a", "x-say: x-accel-expires: @1\r\netag: \"1\"\r\n"),
            ("GET", "/asked/a", "x-status: 500\r\n"),
            ("GET", "/asked/a", ""),
            ("GET", "/asked/a", ""),
        ],
        // Where it is passed on to.
        &[
            ("GET", "/moved/a?q=1&r=%20", ""),
            ("GET", "/moved/a?q=2", ""),
            ("GET", "/moved/b", ""),
            ("GET", "/moved?q=1", ""),
        ],
        // The last, because what is fetched behind it counts at its own time.
        &[
            (
                "GET",
                "/behind/a",
                "x-say: cache-control: stale-while-revalidate=2145902155\r\nx-more: x-accel-expires: @1\r\n",
            ),
            ("GET", "/behind/a", ""),
        ],
    ];
    let (theirs, ours) = (origin(), origin());
    let nginx = Nginx::start(HTTP, &LOCATIONS.replace("ORIGIN", &theirs.address.to_string()));
    let edge = translated(&ours);
    let fills = || {
        ["stored", "refused", "broken"]
            .map(|outcome| {
                edge.metric(&format!("weir_cache_fills_total{{cache=\"kept\",outcome=\"{outcome}\"}}"))
            })
            .iter()
            .sum::<f64>()
    };
    let (mut their_client, mut our_client) = (Client::connect(nginx.address()), edge.connect());
    let mut differ = Vec::new();
    for step in histories.iter().copied().flatten() {
        let (before, asked) = (fills(), ours.count());
        let (their, our) = (take(&mut their_client, step), take(&mut our_client, step));
        if seen(&their) != seen(&our) {
            differ.push(format!(
                "{step:?}: nginx {:?}, weir {:?} ({})",
                seen(&their),
                seen(&our),
                our.cache()
            ));
        }
        if ours.count() > asked {
            // What is kept may be there a moment after its answer; what is only passed on never is.
            let _ = weir_testkit::wait_until(Duration::from_millis(200), || fills() > before);
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
    until("both have asked as often", || theirs.count() == ours.count());
}
