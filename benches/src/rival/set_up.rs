//! What each program is told, so that all do the same work.
//!
//! What differs is said here, because a ratio without it would mislead. nginx keeps cached answers in files (its only store,
//! read through the page cache), the others in memory. nginx may hold 64 KiB of an answer that it passes on, as Weir does, and
//! writes none of it to a file, which would measure the disk. In gzip, Weir and Varnish keep what they packed once; nginx and
//! HAProxy have no such store, and pack each answer.

use std::{net::SocketAddr, path::Path};

use super::backing::Behind;
use crate::contest::{Scenario, Task, Wire};

/// No word of nginx's language may have more than 4 KiB.
pub(super) const PIECE: usize = 1024;

/// Who listens where, and what it finds there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    /// Where it listens.
    pub(super) address: SocketAddr,
    /// Where the origin does.
    pub(super) origin: SocketAddr,
    /// What is behind the sessions of [`Task::Auth`].
    pub(super) behind: Option<Behind>,
    /// For its files. There are `key.pem`, `chain.pem` and `both.pem`.
    pub(super) folder: &'a Path,
}

/// The origin. Everybody has a session there.
pub(super) fn origin(scenario: Scenario, address: SocketAddr) -> String {
    format!(
        "server {{ listen {address}; {} location = /session {{ return 200 '{{\"user_id\":\"u1\"}}'; }} }}",
        answer(scenario)
    )
}

/// nginx that answers itself.
pub(super) fn fixed(scenario: Scenario, place: Place<'_>) -> String {
    format!("server {{ {} {} }}", nginx_listen(scenario, place), answer(scenario))
}

/// A body of pieces, and of pieces of pieces.
fn answer(scenario: Scenario) -> String {
    const SIXTY_FOUR: usize = 64;
    let piece = scenario.body.min(PIECE);
    let pieces = scenario.body.div_ceil(PIECE);
    let (word, words) =
        if pieces > SIXTY_FOUR { ("$large", pieces / SIXTY_FOUR) } else { ("$piece", pieces) };
    format!(
        "set $piece {}; set $large {}; location / {{ default_type text/plain; add_header Cache-Control max-age=3600; \
         return 200 {}; }}",
        "x".repeat(piece),
        "$piece".repeat(SIXTY_FOUR),
        word.repeat(words),
    )
}

pub(super) fn weir(scenario: Scenario, Place { address, origin, behind, folder }: Place<'_>) -> String {
    let cache = "cache: { in: responses, ttl: 1h }, ";
    let of_caller = "cache: { in: responses, ttl: 1h, key: \"${session.user_id}:${request.target}\" }, ";
    let redis = behind.map(|behind| {
        format!(
            "redis: {{ url: \"redis://{}\" }}\nsessions: {{ app: {{ from: [{{ header: x-token }}] }} }}\n",
            behind.redis
        )
    });
    let (of_route, task) = match (scenario.cached, scenario.task) {
        (false, _) => (String::new(), ""),
        (true, Task::Auth) => (
            format!("session: {{ use: app, required: true }}, {of_caller}"),
            redis.as_deref().unwrap_or_default(),
        ),
        (true, Task::None) => (cache.to_owned(), ""),
        (true, Task::Gzip) => (cache.to_owned(), "compress: { codings: { gzip: 6 } }\n"),
        (true, Task::Limit) => {
            (format!("limit: [address], {cache}"), "limits: { address: { rate: 1000000/s } }\n")
        }
        (true, Task::Session) => (
            format!("session: {{ use: app }}, {of_caller}"),
            "sessions: { app: { from: [{ cookie: sid }], ask: { upstream: origin, path: /session }, memory_ttl: 1h } }\n",
        ),
    };
    let tls = match scenario.wire {
        Wire::Tls => format!(
            ", tls: {{ certificates: [{{ chain: {0}/chain.pem, key: {0}/key.pem }}] }}",
            folder.display()
        ),
        Wire::Plain | Wire::Http2 => String::new(),
    };
    format!(
        "version: 1
threads: {}
{task}listeners: [{{ address: {address}{tls} }}]
admin: off
log: {{ access: off, level: warn }}
caches: {{ responses: {{ memory: 64MiB }} }}
upstreams: {{ origin: {{ servers: [{origin}], keepalive: 128 }} }}
routes: [{{ match: \"/*\", {of_route}to: origin }}]
",
        scenario.threads
    )
}

/// nginx in the foreground with this `server`.
pub(super) fn nginx_file(folder: &Path, server: &str, workers: usize) -> String {
    let at = folder.display();
    format!(
        "daemon off; worker_processes {workers}; pid {at}/pid; error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000000; sendfile on;
  client_body_temp_path {at}/body; proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/fastcgi;
  uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi;
  {server}
}}
"
    )
}

fn nginx_listen(scenario: Scenario, Place { address, folder, .. }: Place<'_>) -> String {
    let at = folder.display();
    match scenario.wire {
        Wire::Plain => format!("listen {address};"),
        Wire::Tls => {
            format!("listen {address} ssl; ssl_certificate {at}/chain.pem; ssl_certificate_key {at}/key.pem;")
        }
        Wire::Http2 => format!("listen {address} http2;"),
    }
}

/// `keeps`: whether what the service said is kept. Otherwise it is asked for each request, as `auth_request` does by itself.
pub(super) fn nginx(scenario: Scenario, place: Place<'_>, keeps: bool) -> String {
    let at = place.folder.display();
    let service = place.behind.filter(|_| scenario.task == Task::Auth).map(|behind| behind.service);
    let group = service.map_or_else(String::new, |service| {
        format!(
            "proxy_cache_path {at}/said keys_zone=said:1m;
  upstream service {{ server {service}; keepalive 128; keepalive_requests 1000000000; }}"
        )
    });
    let said = match keeps {
        true => "proxy_cache said; proxy_cache_key $http_x_token; proxy_cache_valid 204 1m;",
        false => "",
    };
    let asked = service.map_or_else(String::new, |_| {
        format!(
            "location = /auth {{ internal; proxy_pass http://service/check; proxy_pass_request_body off;
      proxy_set_header Content-Length \"\"; proxy_http_version 1.1; proxy_set_header Connection \"\"; {said} }}"
        )
    });
    let task = match scenario.task {
        Task::Limit => "limit_req zone=address burst=1000000 nodelay;",
        Task::Gzip => "gzip on; gzip_comp_level 6; gzip_types text/plain;",
        Task::Auth => "auth_request /auth;",
        Task::None | Task::Session => "",
    };
    let (zone, cache) = if scenario.cached {
        (
            format!(
                "proxy_cache_path {at}/cache keys_zone=kept:10m; open_file_cache max=20000;
  limit_req_zone $binary_remote_addr zone=address:10m rate=1000000r/s;"
            ),
            "proxy_cache kept; proxy_cache_valid 200 1h;",
        )
    } else {
        (String::new(), "proxy_buffers 8 8k; proxy_max_temp_file_size 0;")
    };
    format!(
        "{zone} {group}
  upstream origin {{ server {}; keepalive 128; keepalive_requests 1000000000; }}
  server {{
    {}
    location / {{ proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection \"\"; {task} {cache} }}
    {asked}
  }}",
        place.origin,
        nginx_listen(scenario, place),
    )
}

pub(super) fn haproxy(scenario: Scenario, Place { address, origin, folder, .. }: Place<'_>) -> String {
    let (store, cache) = if scenario.cached {
        (
            "cache kept\n  total-max-size 64\n  max-age 3600\n  max-object-size 4000000\n",
            "  http-request cache-use kept\n  http-response cache-store kept\n",
        )
    } else {
        ("", "")
    };
    let task = match scenario.task {
        Task::Limit => {
            "  stick-table type ip size 100k expire 60s store http_req_rate(1s)
  http-request track-sc0 src
  http-request deny deny_status 429 if { sc_http_req_rate(0) gt 1000000 }
"
        }
        Task::Gzip => "  filter cache kept\n  filter compression\n  compression algo gzip\n",
        Task::None | Task::Session | Task::Auth => "",
    };
    let wire = match scenario.wire {
        Wire::Plain => String::new(),
        Wire::Tls => format!(" ssl crt {}/both.pem", folder.display()),
        Wire::Http2 => " proto h2".to_owned(),
    };
    format!(
        "global
  nbthread {}
  maxconn 4096
  tune.comp.maxlevel 6
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
{store}listen edge
  bind {address}{wire}
  http-reuse always
{task}{cache}  server origin {origin}
",
        scenario.threads
    )
}

pub(super) fn varnish(scenario: Scenario, Place { origin, .. }: Place<'_>) -> String {
    let gzip = if scenario.task == Task::Gzip { "set beresp.do_gzip = true;" } else { "" };
    format!(
        "vcl 4.1;
backend default {{ .host = \"{}\"; .port = \"{}\"; }}
sub vcl_backend_response {{ set beresp.ttl = 1h; {gzip} }}
",
        origin.ip(),
        origin.port()
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;
    use crate::system::loopback;

    fn place(folder: &Path) -> Place<'_> {
        let behind = Some(Behind { redis: loopback(3), service: loopback(4) });
        Place { address: loopback(1), origin: loopback(2), behind, folder }
    }

    #[test]
    fn only_a_cached_scenario_configures_a_cache() {
        let place = place(Path::new("f"));
        for scenario in Scenario::ALL {
            assert_eq!(weir(scenario, place).contains("in: responses"), scenario.cached);
            assert_eq!(nginx(scenario, place, false).contains("proxy_cache"), scenario.cached);
            assert_eq!(haproxy(scenario, place).contains("cache-use"), scenario.cached);
        }
    }

    #[test]
    fn the_origin_answers_with_as_much_as_the_scenario_says() {
        for scenario in Scenario::ALL {
            let server = origin(scenario, loopback(1));
            let (set, answer) = server.split_once("return 200 ").unwrap();
            let answer = answer.split(';').next().unwrap();
            let set_to = |name: &str| set.split(&format!("set {name} ")).nth(1).unwrap().split(';').next();
            let large = set_to("$large").unwrap();
            let whole = answer.replace("$large", large).replace("$piece", set_to("$piece").unwrap());
            assert_eq!(whole.len(), scenario.body, "{}", scenario.name);
            assert!(server.split_whitespace().all(|word| word.len() < 4096), "nginx would refuse it");
        }
    }

    #[test]
    fn weirs_set_up_is_one_that_loads() {
        for scenario in Scenario::ALL {
            let text = weir(scenario, place(Path::new("f")));
            let loaded = weir_config::load("bench", &text, &|_: &str| None);
            let loaded = loaded.unwrap_or_else(|report| panic!("{report}"));
            let plan = loaded.plan;
            assert_eq!(plan.routes[0].cache.is_some(), scenario.cached);
            assert_eq!(plan.routes[0].limits.len(), usize::from(scenario.task == Task::Limit));
            assert_eq!(plan.routes[0].session.is_some(), matches!(scenario.task, Task::Session | Task::Auth));
            assert_eq!(plan.redis.is_some(), scenario.task == Task::Auth);
            assert_eq!(plan.routes[0].compress.is_some(), scenario.task == Task::Gzip);
            assert_eq!(plan.listeners[0].tls.is_some(), scenario.wire == Wire::Tls);
            assert!(plan.log.access.is_none() && plan.admin.is_none());
        }
    }
}
