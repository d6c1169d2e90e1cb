//! A Redis that forgets everything when it stops.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    process::Command,
    time::Duration,
};

use crate::{Child, READY_WITHIN, start_on_free_port};

/// A running `redis-server`, without persistence.
#[derive(Debug)]
pub struct Redis {
    child: Child,
    port: u16,
}

impl Redis {
    /// Starts one and waits until it answers.
    ///
    /// # Panics
    /// When `redis-server` is missing or does not become ready; the message says which.
    #[must_use]
    pub fn start() -> Self {
        let (child, port) = start_on_free_port(|port| {
            let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
            let mut server = Command::new("redis-server");
            server.args([
                "--bind",
                "127.0.0.1",
                "--port",
                &port.to_string(),
                "--save",
                "",
                "--appendonly",
                "no",
            ]);
            server.arg("--dir").arg(folder.path());
            Child::start(server, folder, "KILL", "redis-server")?.ready(READY_WITHIN, |_| answers(port))
        });
        Self { child, port }
    }

    /// `redis://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The process, to send it signals ("STOP" makes it hang, "CONT" wakes it).
    #[must_use]
    pub fn child(&self) -> &Child {
        &self.child
    }
}

fn answers(port: u16) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        socket.write_all(b"PING\r\n")?;
        let mut answer = [0; 5];
        socket.read_exact(&mut answer)?;
        Ok(&answer == b"+PONG")
    };
    ask().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_started_redis_answers_and_a_dropped_one_does_not() {
        let redis = Redis::start();
        let port = redis.address().port();
        assert!(answers(port));
        drop(redis);
        assert!(!answers(port));
    }
}
