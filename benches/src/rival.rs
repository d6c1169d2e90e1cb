//! Weir, nginx and HAProxy with equal set-ups: one worker on one core, kept-alive connections to the same origin, no access log.
//!
//! What differs is said here, because a ratio without it would mislead: nginx keeps cached answers in files (its only store, read
//! through the page cache), HAProxy and Weir in memory; HAProxy's cache keeps bodies below one buffer, which 1 KiB is. nginx may
//! hold 64 KiB of an answer, as Weir does, and writes none of it to a file, which would measure the disk.

use std::{fmt, fs, net::SocketAddr, path::Path, process::Command, time::Duration};

use tempfile::TempDir;
use weir_testkit::{Child, READY_WITHIN, free_port};

use crate::{
    measure,
    system::{is_served, loopback},
};

const KIB: usize = 1024;

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scenario {
    /// As it is asked for, and as it stands in the results.
    pub name: &'static str,
    /// The body of every answer, in bytes.
    pub body: usize,
    /// Whether every request but the first is answered from the cache; else all of them go to the origin.
    pub cached: bool,
    /// What the proxies do besides.
    pub task: Task,
    /// Requests that a client sends before it waits for their answers.
    pub pipelined: usize,
}

/// What a proxy does besides answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Nothing.
    None,
    /// It counts requests by address, against a limit that nobody reaches.
    Limit,
    /// It knows the session of each request from memory, and keeps answers for it alone. Only Weir has sessions.
    Session,
}

/// The cookie of every request of [`Task::Session`].
pub const SESSION: &str = "sid=0123456789abcdef0123456789abcdef";

impl Scenario {
    /// In the order they run.
    pub const ALL: [Self; 8] = [
        Self { body: KIB, ..Self::plain("pass_1k", false) },
        Self { body: 64 * KIB, ..Self::plain("pass_64k", false) },
        Self { body: KIB, ..Self::plain("hit_1k", true) },
        Self { body: 16, ..Self::plain("hit_16", true) },
        Self { body: 64 * KIB, ..Self::plain("hit_64k", true) },
        Self { body: KIB, pipelined: 16, ..Self::plain("hit_1k_pipelined", true) },
        Self { body: KIB, task: Task::Limit, ..Self::plain("hit_1k_limit", true) },
        Self { body: KIB, task: Task::Session, ..Self::plain("hit_1k_session", true) },
    ];

    const fn plain(name: &'static str, cached: bool) -> Self {
        Self { name, body: 0, cached, task: Task::None, pipelined: 1 }
    }

    /// Who can take part.
    #[must_use]
    pub fn rivals(&self) -> &'static [Rival] {
        if self.task == Task::Session { &Rival::ALL[..1] } else { &Rival::ALL }
    }

    /// The one of this name, or all of them.
    ///
    /// # Errors
    /// The names there are.
    pub fn named(name: Option<&str>) -> Result<Vec<Self>, String> {
        let found: Vec<_> =
            Self::ALL.into_iter().filter(|one| name.is_none_or(|name| one.name == name)).collect();
        if found.is_empty() {
            return Err(format!("the scenarios are {}", Self::ALL.map(|one| one.name).join(", ")));
        }
        Ok(found)
    }
}

/// Who is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rival {
    /// This repository's edge.
    Weir,
    /// `nginx`, Debian's.
    Nginx,
    /// `haproxy`, Debian's.
    Haproxy,
}

impl Rival {
    /// In the order of the tables; Weir first, because the others are its measure.
    pub const ALL: [Self; 3] = [Self::Weir, Self::Nginx, Self::Haproxy];
}

impl fmt::Display for Rival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `pad` and not `write_str`, so that columns can be aligned.
        f.pad(match self {
            Self::Weir => "weir",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
        })
    }
}

/// A server that runs; dropping it stops it.
#[derive(Debug)]
pub struct Running {
    /// Where it answers `GET /`.
    pub address: SocketAddr,
    child: Child,
}

impl Running {
    /// Processor time that it and its workers have used so far.
    #[must_use]
    pub fn cpu(&self) -> Duration {
        measure::group_cpu(self.child.id())
    }

    /// The most memory that it and its workers have had so far, in bytes.
    #[must_use]
    pub fn peak_memory(&self) -> u64 {
        measure::group_peak(self.child.id())
    }
}

/// Starts the origin: nginx with a fixed answer, which costs less than anything we could write here.
///
/// # Errors
/// What is missing, or what the program said.
pub fn origin(scenario: Scenario, core: usize) -> Result<Running, String> {
    let address = loopback(free_port());
    let folder = TempDir::with_prefix("weir-bench-").map_err(|error| error.to_string())?;
    run(pinned(core, nginx(folder.path(), &origin_server(scenario, address))?), "nginx", address, folder)
}

/// One KiB as often as the body needs: no word of nginx's language may have more than 4 KiB. Everybody has a session.
fn origin_server(scenario: Scenario, address: SocketAddr) -> String {
    let (piece, times) = (scenario.body.min(KIB), scenario.body.div_ceil(KIB));
    let (piece, body) = ("x".repeat(piece), "$piece".repeat(times));
    format!(
        "server {{ listen {address}; set $piece {piece}; location / {{ default_type text/plain; \
         add_header Cache-Control max-age=3600; return 200 {body}; }} \
         location = /session {{ return 200 '{{\"user_id\":\"u1\"}}'; }} }}"
    )
}

/// Starts a proxy in front of the origin.
///
/// # Errors
/// What is missing, or what the program said.
pub fn start(
    rival: Rival,
    scenario: Scenario,
    origin: SocketAddr,
    core: usize,
    weir: &Path,
) -> Result<Running, String> {
    let address = loopback(free_port());
    let folder = TempDir::with_prefix("weir-bench-").map_err(|error| error.to_string())?;
    let write = |name: &str, text: String| -> Result<_, String> {
        let path = folder.path().join(name);
        fs::write(&path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        Ok(path)
    };
    let (command, package) = match rival {
        Rival::Weir => {
            let mut command = Command::new(weir);
            command.arg("run").arg(write("config.yaml", weir_config(scenario, address, origin))?);
            (command, "none: build it with cargo")
        }
        Rival::Nginx => {
            (nginx(folder.path(), &nginx_server(scenario, address, origin, folder.path()))?, "nginx")
        }
        Rival::Haproxy => {
            let mut command = Command::new("haproxy");
            command.arg("-f").arg(write("haproxy.cfg", haproxy_config(scenario, address, origin))?);
            (command, "haproxy")
        }
    };
    run(pinned(core, command), package, address, folder)
}

fn run(command: Command, package: &str, address: SocketAddr, folder: TempDir) -> Result<Running, String> {
    let child = Child::start(command, folder, "TERM", package)?;
    Ok(Running { address, child: child.ready(READY_WITHIN, |_| is_served(address, "/"))? })
}

/// The same command on one core only.
fn pinned(core: usize, command: Command) -> Command {
    let mut pinned = Command::new("taskset");
    pinned.args(["--cpu-list", &core.to_string()]).arg(command.get_program()).args(command.get_args());
    pinned
}

fn weir_config(scenario: Scenario, address: SocketAddr, origin: SocketAddr) -> String {
    let (cache, task) = match (scenario.cached, scenario.task) {
        (false, _) => ("", String::new()),
        (true, Task::None) => ("cache: { in: responses, ttl: 1h }, ", String::new()),
        (true, Task::Limit) => (
            "limit: [address], cache: { in: responses, ttl: 1h }, ",
            "limits: { address: { rate: 1000000/s } }\n".to_owned(),
        ),
        (true, Task::Session) => (
            "session: { use: app }, cache: { in: responses, ttl: 1h, key: \"${session.user_id}:${request.target}\" }, ",
            "sessions: { app: { from: [{ cookie: sid }], ask: { upstream: origin, path: /session }, memory_ttl: 1h } }\n"
                .to_owned(),
        ),
    };
    format!(
        "version: 1
threads: 1
{task}listeners: [{address}]
admin: off
log: {{ access: off, level: warn }}
caches: {{ responses: {{ memory: 64MiB }} }}
upstreams: {{ origin: {{ servers: [{origin}], keepalive: 128 }} }}
routes: [{{ match: \"/*\", {cache}to: origin }}]
"
    )
}

/// nginx in the foreground with one worker and this `server`.
fn nginx(folder: &Path, server: &str) -> Result<Command, String> {
    let path = folder.join("nginx.conf");
    let at = folder.display();
    let text = format!(
        "daemon off; worker_processes 1; pid {at}/pid; error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000000; sendfile on; tcp_nopush on;
  client_body_temp_path {at}/body; proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/fastcgi;
  uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi;
  {server}
}}
"
    );
    fs::write(&path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    let mut command = Command::new("nginx");
    command.arg("-c").arg(path).arg("-p").arg(folder).args(["-e", "stderr"]);
    Ok(command)
}

fn nginx_server(scenario: Scenario, address: SocketAddr, origin: SocketAddr, folder: &Path) -> String {
    let at = folder.display();
    let limit = match scenario.task {
        Task::Limit => "limit_req zone=address burst=1000000 nodelay;",
        Task::None | Task::Session => "",
    };
    let (zone, cache) = if scenario.cached {
        (
            format!(
                "proxy_cache_path {at}/cache keys_zone=kept:10m; open_file_cache max=100;
  limit_req_zone $binary_remote_addr zone=address:10m rate=1000000r/s;"
            ),
            "proxy_cache kept; proxy_cache_valid 200 1h;",
        )
    } else {
        (String::new(), "proxy_buffers 8 8k; proxy_max_temp_file_size 0;")
    };
    format!(
        "{zone}
  upstream origin {{ server {origin}; keepalive 128; keepalive_requests 1000000000; }}
  server {{
    listen {address};
    location / {{ proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection \"\"; {limit} {cache} }}
  }}"
    )
}

fn haproxy_config(scenario: Scenario, address: SocketAddr, origin: SocketAddr) -> String {
    let (store, cache) = if scenario.cached {
        (
            "cache kept\n  total-max-size 64\n  max-age 3600\n  max-object-size 1000000\n",
            "  http-request cache-use kept\n  http-response cache-store kept\n",
        )
    } else {
        ("", "")
    };
    let limit = match scenario.task {
        Task::Limit => {
            "  stick-table type ip size 100k expire 60s store http_req_rate(1s)
  http-request track-sc0 src
  http-request deny deny_status 429 if { sc_http_req_rate(0) gt 1000000 }
"
        }
        Task::None | Task::Session => "",
    };
    format!(
        "global
  nbthread 1
  maxconn 4096
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
{store}listen edge
  bind {address}
  http-reuse always
{limit}{cache}  server origin {origin}
"
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;

    #[test]
    fn a_scenario_is_found_by_its_name() {
        assert_eq!(Scenario::named(None).unwrap(), Scenario::ALL);
        assert_eq!(Scenario::named(Some("pass_64k")).unwrap(), [Scenario::ALL[1]]);
        let problem = Scenario::named(Some("pass")).unwrap_err();
        assert!(Scenario::ALL.iter().all(|one| problem.contains(one.name)), "{problem}");
    }

    #[test]
    fn only_a_cached_scenario_configures_a_cache() {
        let (address, origin) = (loopback(1), loopback(2));
        for scenario in Scenario::ALL {
            let nginx = nginx_server(scenario, address, origin, Path::new("f"));
            assert_eq!(weir_config(scenario, address, origin).contains("in: responses"), scenario.cached);
            assert_eq!(nginx.contains("proxy_cache"), scenario.cached);
            assert_eq!(haproxy_config(scenario, address, origin).contains("cache-use"), scenario.cached);
        }
    }

    #[test]
    fn the_origin_answers_with_as_much_as_the_scenario_says() {
        for scenario in Scenario::ALL {
            let server = origin_server(scenario, loopback(1));
            let (set, answer) = server.split_once("return 200 ").unwrap();
            let piece = set.split("set $piece ").nth(1).unwrap().split(';').next().unwrap();
            assert_eq!(answer.matches("$piece").count() * piece.len(), scenario.body);
            assert!(server.split_whitespace().all(|word| word.len() < 4096), "nginx would refuse it");
        }
    }

    #[test]
    fn weirs_set_up_is_one_that_loads() {
        for scenario in Scenario::ALL {
            let text = weir_config(scenario, loopback(1), loopback(2));
            let loaded = weir_config::load("bench", &text, &|_: &str| None);
            let loaded = loaded.unwrap_or_else(|report| panic!("{report}"));
            assert_eq!(loaded.plan.routes[0].cache.is_some(), scenario.cached);
            assert_eq!(loaded.plan.routes[0].limits.len(), usize::from(scenario.task == Task::Limit));
            assert_eq!(loaded.plan.routes[0].session.is_some(), scenario.task == Task::Session);
            assert!(loaded.plan.log.access.is_none() && loaded.plan.admin.is_none());
        }
    }
}
