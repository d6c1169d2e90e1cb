//! Real servers for tests: started on free ports in temporary folders, and always stopped.
//!
//! A guard ([`Child`], [`Nginx`], [`Redis`], [`Postgres`], [`PgBouncer`], [`Smtp`]) stops its server when it is dropped, also while a panic
//! unwinds. A test process that ends without dropping (a `static`, `abort`, SIGKILL) is covered too: see [`Child`].
//! A missing program is an error that names the Debian package, never a skipped test. Everything here blocks and
//! panics with the reason, because only tests call it.

mod child;
mod nginx;
mod pgbouncer;
mod postgres;
mod redis;
mod smtp;

use std::{
    net::{Ipv4Addr, TcpListener},
    thread,
    time::{Duration, Instant},
};

pub use self::{
    child::Child,
    nginx::Nginx,
    pgbouncer::PgBouncer,
    postgres::Postgres,
    redis::{Redis, RedisCluster, RedisSentinels},
    smtp::Smtp,
};

/// How long a server may take to become ready; generous, because the machine may be busy with other tests.
pub const READY_WITHIN: Duration = Duration::from_secs(30);

/// A port on 127.0.0.1 that was free a moment ago.
///
/// Another process may take it before you do: a server that accepts port 0 is better asked for that.
///
/// # Panics
/// When the loopback interface has no free port.
#[must_use]
pub fn free_port() -> u16 {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
    socket.local_addr().expect("a bound socket has an address").port()
}

/// Asks `ready` every few milliseconds until it says yes; false when `deadline` passes first.
pub fn wait_until(deadline: Duration, mut ready: impl FnMut() -> bool) -> bool {
    let started = Instant::now();
    loop {
        if ready() {
            return true;
        }
        if started.elapsed() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Starts a server on a free port; once more on another port when the first was taken in between.
fn start_on_free_port(start: impl Fn(u16) -> Result<Child, String>) -> (Child, u16) {
    let attempt = || {
        let port = free_port();
        start(port).map(|child| (child, port))
    };
    attempt().or_else(|_| attempt()).unwrap_or_else(|problem| panic!("{problem}"))
}
