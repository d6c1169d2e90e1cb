//! Whatever is in a file: no panic, an answer, and a translation that runs.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use proptest::{
    prelude::*,
    sample::{select, subsequence},
};
use weir_nginx::translate;

/// Words that mean something to nginx, so that chance reaches more than the lexer.
const WORDS: [&str; 40] = [
    ";",
    "{",
    "}",
    "\n",
    "\"",
    "'",
    "\\",
    "$",
    "${",
    "#",
    "http",
    "server",
    "location",
    "upstream",
    "events",
    "/",
    "~",
    "=",
    "^~",
    "listen",
    "80",
    "server_name",
    "a.b",
    "proxy_pass",
    "http://a",
    "https://$b/c",
    "return",
    "301",
    "include",
    "x",
    "limit_req_zone",
    "zone=a:1m",
    "rate=1r/s",
    "allow",
    "all",
    "é",
    "\u{feff}",
    "\r",
    "\0",
    ")",
];

/// Directives of a location; each alone is right.
const IN_LOCATION: [&str; 24] = [
    "proxy_pass http://u;",
    "proxy_pass http://u/;",
    "proxy_pass https://127.0.0.1:8443/x/;",
    "proxy_pass http://u$request_uri;",
    "proxy_set_header Host $host;",
    "proxy_set_header X-Real-IP $remote_addr;",
    "proxy_set_header X-Real-IP $http_x_real_ip$cookie_a;",
    "proxy_set_header Trailer x;",
    "proxy_read_timeout 5;",
    "proxy_next_upstream off;",
    "return 204;",
    "return 301 https://$host$request_uri;",
    "return 200 \"${scheme} { } $$\";",
    "root /srv;",
    "alias /srv/;",
    "index a.html;",
    "allow 10.0.0.1;",
    "allow all;",
    "deny all;",
    "limit_req zone=z burst=3;",
    "client_max_body_size 0;",
    "add_header Cache-Control \"a=${host}\";",
    "expires 1h;",
    "auth_basic x;",
];

const PATHS: [&str; 14] = [
    "/",
    "/a",
    "/a/",
    "/a/b/",
    "^~ /a",
    "^~ /a/",
    "= /a",
    "= /",
    "~ ^/a/(?<id>\\d+)",
    "~* \\.png$",
    "\"/a{b}\"",
    "/a*",
    "/é/",
    "x",
];

const NAMES: [&str; 8] = ["", "_", "a.org", "b.org a.org", "*.a.org", ".b.org", "~^c", "a.org *.b.org"];
const LISTENS: [&str; 6] =
    ["", "listen 80;", "listen 8080;", "listen [::]:80;", "listen 80 default_server;", "listen unix:/x;"];

prop_compose! {
    fn server()(
        listen in select(&LISTENS[..]),
        names in select(&NAMES[..]),
        paths in subsequence(&PATHS[..], 0..6),
        inside in prop::collection::vec(subsequence(&IN_LOCATION[..], 0..5), 6),
    ) -> String {
        let names = if names.is_empty() { String::new() } else { format!("server_name {names};") };
        let locations = paths.iter().zip(inside).map(|(path, inside)| format!("location {path} {{ {} }}\n", inside.join(" ")));
        format!("server {{ {listen} {names}\n{} }}\n", locations.collect::<String>())
    }
}

proptest! {
    // A find becomes a test of its own, with its story.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = translate("f", &String::from_utf8_lossy(&bytes), &|_| Err("none".to_owned()));
    }

    #[test]
    fn no_words_make_it_panic(words in prop::collection::vec(select(&WORDS[..]), 0..80)) {
        let text = words.join(" ");
        let tight = words.concat();
        let read = |name: &str| Ok(vec![(name.to_owned(), "x;".to_owned())]);
        let _ = (translate("f", &text, &read), translate("f", &tight, &read));
    }

    #[test]
    fn what_is_translated_runs(servers in prop::collection::vec(server(), 1..4)) {
        let text = format!(
            "events {{}} http {{ upstream u {{ server a:1; server b:2 backup; }}
            limit_req_zone $binary_remote_addr$uri zone=z:1m rate=1r/s;\n{} }}", servers.concat()
        );
        if let Ok(translation) = translate("f", &text, &|_| Err("none".to_owned())) {
            let yaml = weir_config::to_yaml(&translation.raw);
            let loaded = weir_config::load("config.yaml", &yaml, &|_: &str| None);
            // Where no socket is left there is nothing to run.
            let sockets = translation.raw.listeners.items().count();
            prop_assert!(loaded.is_ok() || sockets == 0, "{text}\n{yaml}\n{}", loaded.unwrap_err());
        }
    }
}

#[test]
fn a_file_that_includes_itself_ends_with_a_problem() {
    let read = |name: &str| Ok(vec![(name.to_owned(), format!("include {name};"))]);
    let problems = translate("f", "include g;", &read).unwrap_err();
    assert!(problems.to_string().contains("does a file include itself?"), "{problems}");
    let doubling = |name: &str| Ok(vec![(name.to_owned(), format!("include {name}; include {name};"))]);
    let problems = translate("f", "include g;", &doubling).unwrap_err();
    assert!(problems.to_string().contains("goes beyond"), "{}", problems.iter().count());
}

#[test]
fn blocks_are_nested_so_deep_and_no_deeper() {
    let text = "location / {".repeat(100_000);
    let problems = translate("f", &text, &|_| Err("none".to_owned())).unwrap_err();
    assert!(problems.to_string().contains("nested more than 64 deep"));
}
