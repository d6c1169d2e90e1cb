//! A PgBouncer before a Postgres of ours.

use std::{
    fs,
    net::{Ipv4Addr, TcpStream},
    os::unix::fs::chown,
    process::Command,
};

use crate::{
    Child, Postgres, READY_WITHIN,
    postgres::{as_owner, owner},
    start_on_free_port,
};

/// A running `pgbouncer` that pools transactions, with every database of its Postgres.
#[derive(Debug)]
pub struct PgBouncer {
    _child: Child,
    port: u16,
}

impl PgBouncer {
    /// Starts one that keeps `size` server connections for each database, and waits until it answers. Who waits for one of them
    /// longer than five seconds is refused.
    ///
    /// # Panics
    /// When Debian's pgbouncer is missing or does not become ready; the message says which.
    #[must_use]
    pub fn start(postgres: &Postgres, size: u32) -> Self {
        let server = postgres.port();
        let (child, port) = start_on_free_port(|port| {
            let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
            let settings = folder.path().join("pgbouncer.ini");
            let text = format!(
                "[databases]\n* = host=127.0.0.1 port={server} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
                 listen_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = transaction\n\
                 default_pool_size = {size}\nmax_client_conn = 500\nquery_wait_timeout = 5\nserver_idle_timeout = 10\n"
            );
            fs::write(&settings, text).map_err(|e| e.to_string())?;
            // It refuses to run as root, as Postgres does.
            let owner = owner()?;
            if let Some((uid, gid)) = owner {
                chown(folder.path(), Some(uid), Some(gid)).map_err(|e| e.to_string())?;
            }
            // Debian keeps it where only root looks.
            let path = std::env::var("PATH").unwrap_or_default();
            let mut command = Command::new("pgbouncer");
            command.arg("-q").arg(&settings).env("PATH", format!("{path}:/usr/sbin"));
            as_owner(&mut command, owner);
            Child::start(command, folder, "KILL", "pgbouncer")?
                .ready(READY_WITHIN, |_| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok())
        });
        Self { _child: child, port }
    }

    /// The URL of the same database through this PgBouncer; `url` is its server's.
    ///
    /// # Panics
    /// When `url` is not one of ours.
    #[must_use]
    pub fn here(&self, url: &str) -> String {
        let (_, name) = url.rsplit_once('/').expect("our URLs end in /NAME");
        format!("postgres://postgres@127.0.0.1:{}/{name}", self.port)
    }
}
