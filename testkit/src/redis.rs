//! A Redis that forgets everything when it stops: one server, a cluster, or a master behind sentinels.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    process::Command,
    time::Duration,
};

use crate::{Child, READY_WITHIN, free_port, start_on_free_port, wait_until};

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
        Self::start_with(&[])
    }

    /// Starts one with further arguments.
    ///
    /// # Panics
    /// As [`Redis::start`].
    #[must_use]
    pub fn start_with(arguments: &[&str]) -> Self {
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
            server.arg("--dir").arg(folder.path()).args(arguments);
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

    /// What it answers to a command, as `redis-cli` shows it: in one line each, without decoration.
    ///
    /// # Panics
    /// When `redis-cli` is missing, or cannot reach it.
    pub fn ask(&self, words: &[&str]) -> String {
        self.try_ask(words).unwrap_or_else(|| panic!("{words:?} to a Redis that does not answer"))
    }

    /// As [`Redis::ask`]; `None` when it cannot be reached, or does not answer within seconds.
    ///
    /// # Panics
    /// When `redis-cli` is missing.
    pub fn try_ask(&self, words: &[&str]) -> Option<String> {
        let port = self.port.to_string();
        let mut cli = Command::new("timeout");
        cli.args(["5", "redis-cli", "-p", &port]).args(words);
        let output = cli.output().expect("redis-cli is missing: install the Debian package redis-tools");
        assert_ne!(
            output.status.code(),
            Some(127),
            "redis-cli is missing: install the Debian package redis-tools"
        );
        let is_good = output.status.success();
        is_good.then(|| String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }

    /// The process, to send it signals ("STOP" makes it hang, "CONT" wakes it).
    #[must_use]
    pub fn child(&self) -> &Child {
        &self.child
    }
}

/// Three masters, and a replica of each.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<Redis>,
}

impl RedisCluster {
    /// Starts one in which a master that is silent for a second is replaced, and waits until it is whole.
    ///
    /// # Panics
    /// As [`Redis::start`], and when the nodes do not find together.
    #[must_use]
    pub fn start() -> Self {
        let start = |_| {
            let bus = free_port().to_string();
            Redis::start_with(&[
                "--cluster-enabled",
                "yes",
                "--cluster-port",
                &bus,
                "--cluster-node-timeout",
                "1000",
                "--cluster-replica-validity-factor",
                "0",
                "--repl-diskless-sync-delay",
                "0",
            ])
        };
        let cluster = Self { nodes: (0..6).map(start).collect() };
        let (first, slots) = (&cluster.nodes[0], ["0 5460", "5461 10922", "10923 16383"]);
        for (master, slots) in cluster.nodes.iter().zip(slots) {
            let slots: Vec<_> = slots.split(' ').collect();
            assert_eq!(master.ask(&["CLUSTER", "ADDSLOTSRANGE", slots[0], slots[1]]), "OK");
        }
        for (number, node) in cluster.nodes.iter().enumerate() {
            // Else two masters could agree on one epoch only after a while.
            assert_eq!(node.ask(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]), "OK");
            let bus = first.ask(&["CONFIG", "GET", "cluster-port"]);
            let bus = bus.lines().last().expect("a value follows its name");
            if number > 0 {
                assert_eq!(node.ask(&["CLUSTER", "MEET", "127.0.0.1", &first.port.to_string(), bus]), "OK");
            }
        }
        for (master, replica) in (0..3).zip(3..6) {
            let id = cluster.nodes[master].ask(&["CLUSTER", "MYID"]);
            let joined = || cluster.nodes[replica].ask(&["CLUSTER", "REPLICATE", &id]) == "OK";
            assert!(wait_until(READY_WITHIN, joined), "a replica does not find its master");
        }
        cluster.is_whole();
        cluster
    }

    /// Waits until every slot is served and every replica follows.
    ///
    /// # Panics
    /// When that takes too long.
    fn is_whole(&self) {
        let is_ok = |node: &Redis| {
            let info = node.ask(&["CLUSTER", "INFO"]);
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:6")
        };
        let follows = |node: &Redis| node.ask(&["INFO", "replication"]).contains("master_link_status:up");
        let whole = || self.nodes.iter().all(is_ok) && self.nodes[3..].iter().all(follows);
        assert!(wait_until(READY_WITHIN, whole), "the nodes of a cluster do not find together");
    }

    /// Three masters, then their replicas in the same order, as it began.
    #[must_use]
    pub fn nodes(&self) -> &[Redis] {
        &self.nodes
    }

    /// What the cluster answers to a command with a key, whoever owns it; `None` while nobody does.
    ///
    /// # Panics
    /// When `redis-cli` is missing.
    #[must_use]
    pub fn try_ask(&self, words: &[&str]) -> Option<String> {
        let asked = self.nodes.iter().find_map(|node| node.try_ask(&[&["-c"], words].concat()));
        asked.filter(|answer| {
            !["CLUSTERDOWN", "Error", "Could not", "READONLY"].iter().any(|no| answer.starts_with(no))
        })
    }

    /// Their addresses, `[127.0.0.1:1, …]`.
    #[must_use]
    pub fn addresses(&self) -> String {
        let addresses: Vec<_> = self.nodes.iter().map(|node| node.address().to_string()).collect();
        format!("[{}]", addresses.join(", "))
    }
}

/// A master, its replica and three sentinels, for whom the master is `weir`.
#[derive(Debug)]
pub struct RedisSentinels {
    /// The master as it began.
    pub master: Redis,
    /// Its replica as it began.
    pub replica: Redis,
    sentinels: Vec<(Child, u16)>,
}

impl RedisSentinels {
    /// Starts them; a master that is silent for half a second is replaced.
    ///
    /// # Panics
    /// As [`Redis::start`], and when they do not find together.
    #[must_use]
    pub fn start() -> Self {
        let master = Redis::start();
        let port = master.port.to_string();
        let replica =
            Redis::start_with(&["--replicaof", "127.0.0.1", &port, "--repl-diskless-sync-delay", "0"]);
        let sentinel = |_| {
            start_on_free_port(|own| {
                let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
                let file = folder.path().join("sentinel.conf");
                let words = format!(
                    "port {own}\nbind 127.0.0.1\ndir {}\nsentinel monitor weir 127.0.0.1 {port} 2\n\
                     sentinel down-after-milliseconds weir 500\nsentinel failover-timeout weir 2000\n",
                    folder.path().display()
                );
                std::fs::write(&file, words).map_err(|e| e.to_string())?;
                let mut server = Command::new("redis-server");
                server.arg(&file).arg("--sentinel");
                Child::start(server, folder, "KILL", "redis-server")?.ready(READY_WITHIN, |_| answers(own))
            })
        };
        let all = Self { master, replica, sentinels: (0..3).map(sentinel).collect() };
        let knows = |port: u16| {
            let words = ["-p", &port.to_string(), "sentinel", "master", "weir"];
            let output = Command::new("redis-cli").args(words).output().expect("it was there for others");
            let told = String::from_utf8_lossy(&output.stdout).into_owned();
            told.contains("num-other-sentinels\n2\n") && told.contains("num-slaves\n1\n")
        };
        let follows = || all.replica.ask(&["INFO", "replication"]).contains("master_link_status:up");
        let ready = || follows() && all.sentinels.iter().all(|(_, port)| knows(*port));
        assert!(wait_until(READY_WITHIN, ready), "the sentinels do not find together");
        all
    }

    /// Their addresses, `[127.0.0.1:1, …]`.
    #[must_use]
    pub fn addresses(&self) -> String {
        let addresses: Vec<_> = self.sentinels.iter().map(|(_, port)| format!("127.0.0.1:{port}")).collect();
        format!("[{}]", addresses.join(", "))
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
