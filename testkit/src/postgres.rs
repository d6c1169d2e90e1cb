//! A Postgres cluster in a temporary folder.

use std::{
    fs,
    net::Ipv4Addr,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use tempfile::TempDir;

use crate::{Child, READY_WITHIN, start_on_free_port};

const PACKAGE: &str = "postgresql";

/// A running Postgres on 127.0.0.1, trust for everybody, nothing synced to disk; the superuser is `postgres`.
#[derive(Debug)]
pub struct Postgres {
    child: Child,
    port: u16,
    programs: PathBuf,
}

impl Postgres {
    /// Makes a cluster (about half a second), starts it, and waits until it answers.
    ///
    /// # Panics
    /// When Debian's postgresql is missing or does not become ready; the message says which.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Like [`Postgres::start`], with further settings as `name=value`.
    ///
    /// # Panics
    /// As [`Postgres::start`].
    #[must_use]
    pub fn start_with(settings: &[&str]) -> Self {
        let programs = programs().unwrap_or_else(|problem| panic!("{problem}"));
        let make = |data: &Path| {
            let mut init = Command::new(programs.join("initdb"));
            init.args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync"]);
            init.arg("-D").arg(data);
            init
        };
        let (child, port) = start_on_free_port(|port| start(&programs, port, settings, make));
        Self { child, port, programs }
    }

    /// Starts on a data directory that the command from `make` fills; with further settings as `name=value`. It answers before it has
    /// recovered.
    ///
    /// # Panics
    /// As [`Postgres::start`], and when the command fails.
    #[must_use]
    pub fn start_on(settings: &[&str], make: impl Fn(&Path) -> Command) -> Self {
        let programs = programs().unwrap_or_else(|problem| panic!("{problem}"));
        let (child, port) = start_on_free_port(|port| start(&programs, port, settings, &make));
        Self { child, port, programs }
    }

    /// An empty folder that belongs to whom servers run as.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn folder() -> TempDir {
        let folder = tempfile::tempdir().expect("there is room for a folder");
        if let Some((uid, gid)) = owner().unwrap_or_else(|problem| panic!("{problem}")) {
            chown(folder.path(), Some(uid), Some(gid)).expect("root may give folders away");
        }
        folder
    }

    /// A command as whom servers run as, with the programs of Postgres first on its path.
    ///
    /// # Panics
    /// As [`Postgres::start`].
    #[must_use]
    pub fn command(program: &Path) -> Command {
        let programs = programs().unwrap_or_else(|problem| panic!("{problem}"));
        let mut command = Command::new(program);
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", programs.display())).current_dir("/");
        as_owner(&mut command, owner().unwrap_or_else(|problem| panic!("{problem}")));
        command
    }

    /// A streaming replica of this server, made with `pg_basebackup`; it has every database of it.
    ///
    /// # Panics
    /// As [`Postgres::start`].
    #[must_use]
    pub fn replica(&self) -> Self {
        let make = |data: &Path| {
            let mut copy = Command::new(self.programs.join("pg_basebackup"));
            copy.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "postgres"]);
            copy.args(["--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync"]);
            copy.arg("-D").arg(data);
            copy
        };
        let (child, port) = start_on_free_port(|port| start(&self.programs, port, &[], make));
        Self { child, port, programs: self.programs.clone() }
    }

    /// The URL of the same database on this server; `url` is another server's.
    ///
    /// # Panics
    /// When `url` is not one of ours.
    #[must_use]
    pub fn here(&self, url: &str) -> String {
        let (_, name) = url.rsplit_once('/').expect("our URLs end in /NAME");
        format!("postgres://postgres@127.0.0.1:{}/{name}", self.port)
    }

    /// Makes an empty database and gives its URL, `postgres://postgres@127.0.0.1:PORT/NAME`.
    ///
    /// # Panics
    /// When the server refuses.
    #[must_use]
    pub fn create_database(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.execute(&format!("CREATE DATABASE {name}"));
        format!("postgres://postgres@127.0.0.1:{}/{name}", self.port)
    }

    /// Removes a database made by [`Postgres::create_database`], ending the connections to it.
    ///
    /// # Panics
    /// When `url` is not one of ours or the server refuses.
    pub fn drop_database(&self, url: &str) {
        let (_, name) = url.rsplit_once('/').expect("our URLs end in /NAME");
        self.execute(&format!("DROP DATABASE {name} WITH (FORCE)"));
    }

    /// Runs SQL in a transaction of a database made by [`Postgres::create_database`], which is rolled back when the guard is dropped.
    ///
    /// # Panics
    /// When the server refuses.
    #[must_use]
    pub fn hold(&self, url: &str, sql: &str) -> Child {
        // What waits for another statement notices its client's end; what sleeps in one does not.
        const SESSION: &str = r#"(printf 'BEGIN; %s;\n\\warn held\n' "$3"; exec sleep 3600) | "$1" -X -q -v ON_ERROR_STOP=1 "$2""#;
        let mut session = Command::new("sh");
        session.args(["-c", SESSION, "session"]).arg(self.programs.join("psql")).args([url, sql]);
        let folder = tempfile::tempdir().expect("there is room for a folder");
        Child::start(session, folder, "KILL", PACKAGE)
            .and_then(|child| child.ready(READY_WITHIN, |child| child.output().contains("held")))
            .unwrap_or_else(|problem| panic!("{problem}"))
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process, to send it signals.
    #[must_use]
    pub fn child(&self) -> &Child {
        &self.child
    }

    fn execute(&self, sql: &str) {
        let port = self.port.to_string();
        let answer = Command::new(self.programs.join("psql"))
            .args(["-X", "-q", "-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-d", "postgres", "-c", sql])
            .output()
            .expect("psql stands beside postgres");
        assert!(answer.status.success(), "{sql}: {}", String::from_utf8_lossy(&answer.stderr));
    }
}

/// `make` gives the command that fills the data directory.
fn start(
    programs: &Path,
    port: u16,
    settings: &[&str],
    make: impl Fn(&Path) -> Command,
) -> Result<Child, String> {
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let owner = owner()?;
    if let Some((uid, gid)) = owner {
        chown(folder.path(), Some(uid), Some(gid)).map_err(|e| e.to_string())?;
    }
    let data = folder.path().join("data");
    let mut make = make(&data);
    make.current_dir(folder.path()).stdin(Stdio::null());
    let made = as_owner(&mut make, owner).output();
    let made = made.map_err(|e| format!("{} does not start: {e}", make.get_program().display()))?;
    if !made.status.success() {
        let program = make.get_program().display();
        return Err(format!("{program}: {}", String::from_utf8_lossy(&made.stderr)));
    }

    let mut server = Command::new(programs.join("postgres"));
    server.arg("-D").arg(&data).args(["-h", "127.0.0.1", "-p", &port.to_string()]).current_dir(folder.path());
    // No socket files, and no waiting for a disk: the cluster is thrown away.
    for setting in [
        "unix_socket_directories=",
        "fsync=off",
        "full_page_writes=off",
        "synchronous_commit=off",
        "max_connections=200",
    ]
    .iter()
    .chain(settings)
    {
        server.args(["-c", setting]);
    }
    as_owner(&mut server, owner);
    let is_ready = programs.join("pg_isready");
    // QUIT is Postgres's immediate shutdown; KILL would leak its shared memory.
    Child::start(server, folder, "QUIT", PACKAGE)?.ready(READY_WITHIN, |_| {
        let asked = Command::new(&is_ready)
            .args(["-q", "-h", &Ipv4Addr::LOCALHOST.to_string(), "-p", &port.to_string(), "-U", "postgres"])
            .status();
        asked.is_ok_and(|status| status.success())
    })
}

/// The newest version Debian installed.
fn programs() -> Result<PathBuf, String> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    versions
        .filter_map(|entry| {
            Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path().join("bin")))
        })
        .filter(|(_, programs)| programs.join("initdb").exists())
        .max()
        .map(|(_, programs)| programs)
        .ok_or_else(|| {
            format!("initdb is missing below /usr/lib/postgresql: install the Debian package {PACKAGE}")
        })
}

/// Postgres refuses to run as root: then its own user's ids, which the package created; otherwise nobody else's.
pub(crate) fn owner() -> Result<Option<(u32, u32)>, String> {
    if id("-u", None)? != 0 {
        return Ok(None);
    }
    Ok(Some((id("-u", Some("postgres"))?, id("-g", Some("postgres"))?)))
}

fn id(which: &str, user: Option<&str>) -> Result<u32, String> {
    let answer = Command::new("id").arg(which).args(user).output().map_err(|e| format!("id: {e}"))?;
    let text = String::from_utf8_lossy(&answer.stdout);
    text.trim().parse().map_err(|_| format!("no user postgres: install the Debian package {PACKAGE}"))
}

pub(crate) fn as_owner(command: &mut Command, owner: Option<(u32, u32)>) -> &mut Command {
    match owner {
        Some((uid, gid)) => command.uid(uid).gid(gid),
        None => command,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_started_postgres_makes_and_drops_databases() {
        let postgres = Postgres::start();
        let first = postgres.create_database();
        assert_ne!(first, postgres.create_database());
        postgres.drop_database(&first);
    }
}
