//! The system under load: three origins on one database, the edge in front of them, and what they log.
//!
//! The programs are started on free ports, with their files in a temporary folder, and each in a process group of its own:
//! a Ctrl-C reaches only this program, which then stops them in order, the edge first. Dropping a [`System`] stops it,
//! so that neither an error nor a panic leaves anything behind.

use std::{
    fs::File,
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use http::Method;
use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use crate::client::{Ask, Client};

/// The origins, by name.
pub const ORIGINS: [&str; 3] = ["a", "b", "c"];

/// How long a program may take to come up: argon2 and migrations in a debug build on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// How long a program may take to finish what is in flight before it is killed.
const STOPS_WITHIN: Duration = Duration::from_secs(10);

/// Between two looks at a program that is coming up or going down.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What to start.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The program `weir`.
    pub weir: PathBuf,
    /// The program `weir-origin`.
    pub origin: PathBuf,
    /// The edge's config.yaml.
    pub config: PathBuf,
    /// The database's address; `None` is a SQLite file in the temporary folder.
    pub database: Option<String>,
    /// The Redis that all share; `None` keeps sessions and limits in process.
    pub redis: Option<String>,
    /// The edge's port; `None` is a free one.
    pub port: Option<u16>,
    /// Variables for config.yaml, beside the addresses.
    pub variables: Vec<(&'static str, String)>,
}

/// Why the system did not come up.
#[derive(Debug, thiserror::Error)]
pub enum NotStarted {
    /// A file or socket of our own.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// A program ended, or did not get ready.
    #[error("{name} {what}; the end of its log:\n{log}")]
    Program {
        /// Which.
        name: String,
        /// What happened instead.
        what: String,
        /// Its last lines.
        log: String,
    },
}

/// Everything that runs; dropping it stops it.
#[derive(Debug)]
pub struct System {
    /// Where users ask.
    pub edge: SocketAddr,
    /// Where operators ask.
    pub admin: SocketAddr,
    /// The origins' own addresses, as in [`ORIGINS`].
    pub origins: Vec<SocketAddr>,
    // Fields are dropped in this order: users' side first, so that nobody is cut off behind the edge; files last.
    edge_program: Program,
    origin_programs: Vec<Program>,
    folder: TempDir,
}

impl System {
    /// Starts origins and edge, and waits until the edge serves.
    ///
    /// # Errors
    /// [`NotStarted`] with the end of the log of the program that failed; what had been started is stopped.
    pub async fn start(setup: &Setup) -> Result<Self, NotStarted> {
        let folder = TempDir::with_prefix("weir-").map_err(cannot("make a temporary folder"))?;
        let database = setup
            .database
            .clone()
            .unwrap_or_else(|| format!("sqlite://{}?mode=rwc", folder.path().join("origin.db").display()));
        // Known to both sides, and to nobody after the run.
        let secret = format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>());
        let (mut origins, mut origin_programs) = (Vec::new(), Vec::new());
        for name in ORIGINS {
            let mut command = Command::new(&setup.origin);
            command
                .args(["serve", "--listen", "127.0.0.1:0", "--database-url", &database, "--name", name])
                .env("WEIR_IDENTITY_SECRET", &secret);
            if let Some(redis) = &setup.redis {
                command.args(["--redis-url", redis]);
            }
            let mut program = Program::start(&format!("origin {name}"), command, folder.path())?;
            // One after the other: the first one makes the tables.
            origins.push(program.listening().await?);
            origin_programs.push(program);
        }

        let edge = loopback(match setup.port {
            Some(port) => port,
            None => free_port()?,
        });
        let admin = loopback(free_port()?);
        let mut command = Command::new(&setup.weir);
        command
            .arg("run")
            .arg(&setup.config)
            .env("WEIR_PORT", edge.port().to_string())
            .env("WEIR_ADMIN_PORT", admin.port().to_string())
            .env("WEIR_IDENTITY_SECRET", &secret)
            .env("REDIS_URL", setup.redis.as_deref().unwrap_or(""))
            .envs(setup.variables.iter().map(|(name, value)| (name, value)));
        for (number, origin) in (1..).zip(&origins) {
            command.env(format!("ORIGIN_{number}"), origin.to_string());
        }
        let mut edge_program = Program::start("edge", command, folder.path())?;
        edge_program.serving(admin, "/ready").await?;
        edge_program.serving(edge, "/health").await?;
        Ok(Self { edge, admin, origins, edge_program, origin_programs, folder })
    }

    /// The folder with the logs and, if it is ours, the database.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The first program that is no longer running, with the end of its log.
    pub fn fallen(&mut self) -> Option<NotStarted> {
        std::iter::once(&mut self.edge_program)
            .chain(&mut self.origin_programs)
            .find_map(|program| program.ended())
    }
}

/// One running program; dropping it ends its process group.
#[derive(Debug)]
struct Program {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Program {
    fn start(name: &str, mut command: Command, folder: &Path) -> Result<Self, NotStarted> {
        let log = folder.join(format!("{}.log", name.replace(' ', "-")));
        let out = File::create(&log).map_err(cannot(&format!("write {}", log.display())))?;
        let err = out.try_clone().map_err(cannot("share a log"))?;
        command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().map_err(cannot(&format!("start {name} ({program})")))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// Waits for the line `listening on ADDRESS`.
    async fn listening(&mut self) -> Result<SocketAddr, NotStarted> {
        let begun = Instant::now();
        loop {
            if let Some(address) = address_in(&std::fs::read_to_string(&self.log).unwrap_or_default()) {
                return Ok(address);
            }
            self.still_coming(begun).await?;
        }
    }

    /// Waits until a GET is answered with 200.
    async fn serving(&mut self, address: SocketAddr, path: &str) -> Result<(), NotStarted> {
        let begun = Instant::now();
        let mut client = Client::new(None, address);
        loop {
            match client.send(&Ask::new(Method::GET, path)).await {
                Ok(answer) if answer.status.is_success() => return Ok(()),
                _ => self.still_coming(begun).await?,
            }
        }
    }

    async fn still_coming(&mut self, since: Instant) -> Result<(), NotStarted> {
        if let Some(ended) = self.ended() {
            return Err(ended);
        }
        if since.elapsed() > READY_WITHIN {
            return Err(self.failed(&format!("is not ready after {} s", READY_WITHIN.as_secs())));
        }
        tokio::time::sleep(LOOK_EVERY).await;
        Ok(())
    }

    fn ended(&mut self) -> Option<NotStarted> {
        let status = self.child.try_wait().ok().flatten()?;
        Some(self.failed(&format!("ended with {status}")))
    }

    fn failed(&self, what: &str) -> NotStarted {
        NotStarted::Program { name: self.name.clone(), what: what.to_owned(), log: tail(&self.log) }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) else { return };
        // Errors mean that there is nobody left to stop.
        let _ = kill_process_group(group, Signal::TERM);
        let begun = Instant::now();
        while begun.elapsed() < STOPS_WITHIN {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.child.wait();
    }
}

/// A port of the loopback that nobody uses now. It is free again when this returns, so another may take it first;
/// for a program that cannot be given port 0 there is no better way.
///
/// # Errors
/// When the system has none.
pub fn free_port() -> Result<u16, NotStarted> {
    let find = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr();
    Ok(find().map_err(cannot("find a free port"))?.port())
}

/// This port of 127.0.0.1.
#[must_use]
pub fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn cannot(what: &str) -> impl Fn(io::Error) -> NotStarted {
    let what = what.to_owned();
    move |source| NotStarted::Io { what: what.clone(), source }
}

/// The address in the line `listening on ADDRESS`, once that line is complete.
fn address_in(log: &str) -> Option<SocketAddr> {
    let complete = &log[..=log.rfind('\n')?];
    complete.lines().find_map(|line| line.split("listening on ").nth(1)?.trim().parse().ok())
}

fn tail(log: &Path) -> String {
    const LINES: usize = 15;
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(LINES)..];
    last.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;

    fn shell(script: &str, folder: &Path) -> Program {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Program::start("shell", command, folder).unwrap()
    }

    #[test]
    fn an_address_is_read_from_a_whole_line_only() {
        assert_eq!(address_in("starting\nlistening on 127.0.0.1:41"), None);
        assert_eq!(address_in("listening on 127.0.0.1:4100\n"), "127.0.0.1:4100".parse().ok());
    }

    #[tokio::test]
    async fn a_program_that_ends_at_once_is_reported_with_its_last_words() {
        let folder = TempDir::new().unwrap();
        let error = shell("echo no such database >&2; exit 3", folder.path()).listening().await.unwrap_err();
        let said = error.to_string();
        assert!(said.contains("exit status: 3") && said.contains("no such database"), "{said}");
    }

    #[tokio::test]
    async fn dropping_a_program_ends_its_children_too() {
        let folder = TempDir::new().unwrap();
        let mut program =
            shell("sleep 1000 & echo listening on 127.0.0.1:1; echo $! >pid; wait", folder.path());
        program.listening().await.unwrap();
        let group = Pid::from_raw(i32::try_from(program.child.id()).unwrap()).unwrap();
        drop(program);
        // The grandchild is a zombie until whoever adopted it has waited; it is no longer running anything.
        let begun = Instant::now();
        while rustix::process::test_kill_process_group(group).is_ok() && begun.elapsed() < STOPS_WITHIN {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        assert!(rustix::process::test_kill_process_group(group).is_err());
    }
}
