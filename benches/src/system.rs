//! The system under load: three origins on one database, and the edge in front of them.
//!
//! Each program runs on a free port and in a process group of its own: a Ctrl-C reaches only this program, which then stops
//! the edge first and the origins after it. Dropping a [`System`] stops it, so that neither an error nor a panic leaves anything behind.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tempfile::TempDir;
use weir_testkit::{Child, READY_WITHIN, free_port};

/// The origins, by name.
pub const ORIGINS: [&str; 3] = ["a", "b", "c"];

/// What to start.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The program `weir`.
    pub weir: PathBuf,
    /// The program `weir-origin`.
    pub origin: PathBuf,
    /// The edge's config.yaml.
    pub config: PathBuf,
    /// The database's address; `None` is a SQLite file in a temporary folder.
    pub database: Option<String>,
    /// The Redis that all share; `None` keeps sessions and limits in process.
    pub redis: Option<String>,
    /// The edge's port; `None` is a free one.
    pub port: Option<u16>,
    /// Variables for config.yaml, beside the addresses.
    pub variables: Vec<(&'static str, String)>,
}

/// Why the system did not come up, or did not stay up: which program, and what it said.
#[derive(Debug, thiserror::Error)]
#[error("{program}: {what}")]
pub struct Fallen {
    program: String,
    what: String,
}

/// Everything that runs; dropping it stops it.
#[derive(Debug)]
pub struct System {
    /// Where users ask.
    pub edge: SocketAddr,
    /// Where operators ask.
    pub admin: SocketAddr,
    // Dropped in this order: the users' side first, so that nobody is cut off behind the edge.
    programs: Vec<(String, Child)>,
}

impl System {
    /// Starts origins and edge, and waits until the edge serves. Blocks.
    ///
    /// # Errors
    /// [`Fallen`] with what the program said; whatever had been started is stopped.
    pub fn start(setup: &Setup) -> Result<Self, Fallen> {
        let mut origins = Vec::new();
        let mut addresses = Vec::new();
        // Known to both sides, and to nobody after the run.
        let secret = format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>());
        let mut database = setup.database.clone();
        for name in ORIGINS {
            let program = format!("origin {name}");
            let folder = TempDir::with_prefix("weir-").map_err(fallen(&program))?;
            // The file lives with the first origin, which is dropped last.
            let database = database
                .get_or_insert_with(|| format!("sqlite://{}", folder.path().join("origin.db").display()));
            let mut command = Command::new(&setup.origin);
            command
                .args(["serve", "--listen", "127.0.0.1:0", "--database-url", database, "--name", name])
                .env("WEIR_IDENTITY_SECRET", &secret);
            if let Some(redis) = &setup.redis {
                command.args(["--redis-url", redis]);
            }
            // One after the other: the first one makes the tables.
            let (child, address) = listening(&program, command, folder)?;
            addresses.push(address);
            origins.push((program, child));
        }

        let edge = loopback(setup.port.unwrap_or_else(free_port));
        let admin = loopback(free_port());
        let mut command = Command::new(&setup.weir);
        command
            .arg("run")
            .arg(&setup.config)
            .env("WEIR_PORT", edge.port().to_string())
            .env("WEIR_ADMIN_PORT", admin.port().to_string())
            .env("WEIR_IDENTITY_SECRET", &secret)
            .env("REDIS_URL", setup.redis.as_deref().unwrap_or(""))
            .envs(setup.variables.iter().map(|(name, value)| (name, value)));
        for (number, origin) in (1..).zip(&addresses) {
            command.env(format!("ORIGIN_{number}"), origin.to_string());
        }
        let child = serving(command, edge, "/health")?;
        let mut programs = vec![("edge".to_owned(), child)];
        programs.extend(origins.into_iter().rev());
        Ok(Self { edge, admin, programs })
    }

    /// What each program prints goes to a file.
    pub fn logs(&self) -> impl Iterator<Item = (&str, PathBuf)> {
        self.programs.iter().map(|(name, child)| (name.as_str(), child.folder().join("output.log")))
    }

    /// The first program that is no longer running, and what it said.
    pub fn fallen(&mut self) -> Option<Fallen> {
        self.programs.iter_mut().find_map(|(program, child)| {
            let status = child.wait(Duration::ZERO)?;
            Some(Fallen {
                program: program.clone(),
                what: format!("ended with {status}:\n{}", child.output()),
            })
        })
    }
}

/// A program of ours: where somebody says it is, or where cargo has put it beside this one.
///
/// # Errors
/// [`Fallen`] with the path where it is not.
pub fn program(given: Option<&Path>, name: &str) -> Result<PathBuf, Fallen> {
    let path = match given {
        Some(path) => path.to_owned(),
        None => {
            let own = std::env::current_exe().map_err(fallen(name))?;
            // Tests are in a folder below.
            let folders = own.ancestors().skip(1).take(2);
            let beside: Vec<_> = folders.map(|folder| folder.join(name)).collect();
            beside.iter().find(|path| path.is_file()).or(beside.first()).cloned().unwrap_or_default()
        }
    };
    if path.is_file() {
        return Ok(path);
    }
    Err(fallen(name)(format!("not at {}: build it with `cargo build -p {name}`", path.display())))
}

/// Starts an origin or its worker, and waits until it says where it listens.
///
/// # Errors
/// [`Fallen`] with what it said.
pub fn listening(program: &str, command: Command, folder: TempDir) -> Result<(Child, SocketAddr), Fallen> {
    let child = Child::start(command, folder, "TERM", "none: build it with cargo")
        .and_then(|child| child.ready(READY_WITHIN, |child| address_in(&child.output()).is_some()))
        .map_err(fallen(program))?;
    let address = address_in(&child.output()).ok_or_else(|| fallen(program)("no address"))?;
    Ok((child, address))
}

/// Starts an edge, and waits until it serves `path` at `address`.
///
/// # Errors
/// [`Fallen`] with what it said.
pub fn serving(command: Command, address: SocketAddr, path: &str) -> Result<Child, Fallen> {
    let folder = TempDir::with_prefix("weir-").map_err(fallen("edge"))?;
    Child::start(command, folder, "TERM", "none: build it with cargo")
        .and_then(|child| child.ready(READY_WITHIN, |_| is_served(address, path)))
        .map_err(fallen("edge"))
}

/// This port of 127.0.0.1.
#[must_use]
pub fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Whether a GET is answered with 200.
#[must_use]
pub fn is_served(address: SocketAddr, path: &str) -> bool {
    let ask = || -> io::Result<bool> {
        const PATIENCE: Duration = Duration::from_secs(2);
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer.starts_with(b"HTTP/1.1 200 "))
    };
    ask().unwrap_or(false)
}

/// The address in the line `listening on ADDRESS`, once that line is complete.
fn address_in(log: &str) -> Option<SocketAddr> {
    let complete = &log[..=log.rfind('\n')?];
    complete.lines().find_map(|line| line.split("listening on ").nth(1)?.trim().parse().ok())
}

fn fallen<E: ToString>(program: &str) -> impl Fn(E) -> Fallen {
    move |what| Fallen { program: program.to_owned(), what: what.to_string() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;

    #[test]
    fn an_address_is_read_from_a_whole_line_only() {
        assert_eq!(address_in("starting\nlistening on 127.0.0.1:41"), None);
        assert_eq!(address_in("listening on 127.0.0.1:4100\n"), "127.0.0.1:4100".parse().ok());
    }

    #[test]
    fn a_program_that_ends_at_once_is_reported_by_name() {
        let setup = Setup {
            weir: "false".into(),
            origin: "false".into(),
            config: "config.yaml".into(),
            database: None,
            redis: None,
            port: None,
            variables: Vec::new(),
        };
        let said = System::start(&setup).unwrap_err().to_string();
        assert!(said.starts_with("origin a: ") && said.contains("exit status: 1"), "{said}");
    }

    #[test]
    fn config_yaml_reads_what_we_set() {
        let config = include_str!("../../config.yaml");
        for name in ["WEIR_PORT", "WEIR_ADMIN_PORT", "WEIR_IDENTITY_SECRET", "REDIS_URL", "API_RATE"] {
            assert!(config.contains(&format!("${{{name}:-")), "{name}");
        }
        assert!((1..=ORIGINS.len()).all(|number| config.contains(&format!("${{ORIGIN_{number}:-"))));
    }

    #[test]
    fn nobody_serves_a_free_port() {
        assert!(!is_served(loopback(free_port()), "/health"));
    }
}
