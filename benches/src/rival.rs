//! Weir, nginx, HAProxy and Varnish with equal set-ups: so many threads on so many cores, kept-alive connections to the same
//! origin, no access log. What each of them is told stands in [`set_up`].

mod backing;
mod set_up;

use std::{
    fmt, fs,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tempfile::TempDir;
use weir_testkit::{Child, READY_WITHIN, free_port};

pub use self::backing::Backing;
use self::set_up::Place;
use crate::{
    contest::{Scenario, Task, Wire},
    measure,
    system::{is_served, loopback},
};

/// Who is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rival {
    /// This repository's edge.
    Weir,
    /// `nginx`, Debian's.
    Nginx,
    /// `haproxy`, Debian's.
    Haproxy,
    /// `varnishd`, Debian's.
    Varnish,
    /// This repository's edge without the sessions that it has beside.
    Plain,
    /// `nginx` that keeps what the service said of a token for a minute.
    Kept,
    /// nginx that answers `return 200` itself, without a cache or an origin: what the kernel allows.
    Return,
}

impl Rival {
    /// Who can take part; Weir first, because it is what the others are a measure for.
    #[must_use]
    pub fn of(scenario: Scenario) -> Vec<Self> {
        let mut all = vec![Self::Weir];
        if scenario.task == Task::Session {
            return all;
        }
        if scenario.task == Task::Auth {
            all.extend([Self::Plain, Self::Nginx, Self::Kept]);
            return all;
        }
        all.extend([Self::Nginx, Self::Haproxy]);
        // Varnish speaks no TLS, keeps everything that it passes on, and counts nobody without modules that Debian lacks.
        if scenario.cached && scenario.wire != Wire::Tls && scenario.task != Task::Limit {
            all.push(Self::Varnish);
        }
        if scenario.cached
            && scenario.task == Task::None
            && scenario.keys == 1
            && scenario.body <= set_up::PIECE
        {
            all.push(Self::Return);
        }
        all
    }
}

impl fmt::Display for Rival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `pad` and not `write_str`, so that columns can be aligned.
        f.pad(match self {
            Self::Weir => "weir",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Varnish => "varnish",
            Self::Plain => "weir, no session",
            Self::Kept => "nginx, auth kept",
            Self::Return => "nginx return",
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
    let (address, folder) = (loopback(free_port()), folder()?);
    let command = nginx(folder.path(), &set_up::origin(scenario, address), 1)?;
    run(pinned(&[core], command), "nginx", address, folder, true)
}

/// Starts a proxy in front of the origin, and of what is behind sessions where there are some.
///
/// # Errors
/// What is missing, or what the program said.
pub fn start(
    rival: Rival,
    scenario: Scenario,
    origin: SocketAddr,
    backing: Option<&Backing>,
    cores: &[usize],
    weir: &Path,
) -> Result<Running, String> {
    let (address, folder) = (loopback(free_port()), folder()?);
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]);
    let certified = certified.map_err(|error| format!("no certificate: {error}"))?;
    let (chain, key) = (certified.cert.pem(), certified.signing_key.serialize_pem());
    write(folder.path(), "key.pem", &key)?;
    write(folder.path(), "chain.pem", &chain)?;
    write(folder.path(), "both.pem", &format!("{chain}{key}"))?;
    let behind = backing.map(Backing::behind);
    let place = Place { address, origin, behind, folder: folder.path() };
    let (command, package) = match rival {
        Rival::Weir | Rival::Plain => {
            let task = if rival == Rival::Plain { Task::None } else { scenario.task };
            let config = set_up::weir(Scenario { task, ..scenario }, place);
            let mut command = Command::new(weir);
            command.arg("run").arg(write(folder.path(), "config.yaml", &config)?);
            (command, "none: build it with cargo")
        }
        Rival::Nginx | Rival::Kept => {
            let server = set_up::nginx(scenario, place, rival == Rival::Kept);
            (nginx(folder.path(), &server, scenario.threads)?, "nginx")
        }
        Rival::Return => (nginx(folder.path(), &set_up::fixed(scenario, place), scenario.threads)?, "nginx"),
        Rival::Haproxy => {
            let mut command = Command::new("haproxy");
            command.arg("-f").arg(write(folder.path(), "haproxy.cfg", &set_up::haproxy(scenario, place))?);
            (command, "haproxy")
        }
        Rival::Varnish => {
            write(folder.path(), "edge.vcl", &set_up::varnish(scenario, place))?;
            let mut command = Command::new("varnishd");
            // `-j none`: its processes stay in one group. One pool of threads, as many as there are connections.
            command.args(["-F", "-j", "none", "-T", "none", "-s", "malloc,64m"]);
            command.args(["-p", "thread_pools=1", "-p", "thread_pool_min=70", "-p", "feature=+http2"]);
            command.arg("-a").arg(address.to_string());
            command.arg("-f").arg(folder.path().join("edge.vcl")).arg("-n").arg(folder.path().join("work"));
            (command, "varnish")
        }
    };
    run(pinned(cores, command), package, address, folder, scenario.is_asked_alone())
}

fn run(
    command: Command,
    package: &str,
    address: SocketAddr,
    folder: TempDir,
    is_asked_alone: bool,
) -> Result<Running, String> {
    let child = Child::start(command, folder, "TERM", package)?;
    let is_ready = || match is_asked_alone {
        true => is_served(address, "/"),
        false => TcpStream::connect(address).is_ok(),
    };
    Ok(Running { address, child: child.ready(READY_WITHIN, |_| is_ready())? })
}

/// The same command on these cores only.
fn pinned(cores: &[usize], command: Command) -> Command {
    let cores: Vec<_> = cores.iter().map(usize::to_string).collect();
    let mut pinned = Command::new("taskset");
    pinned.args(["--cpu-list", &cores.join(",")]).arg(command.get_program()).args(command.get_args());
    pinned
}

/// nginx in the foreground with this `server`.
fn nginx(folder: &Path, server: &str, workers: usize) -> Result<Command, String> {
    let path = write(folder, "nginx.conf", &set_up::nginx_file(folder, server, workers))?;
    let mut command = Command::new("nginx");
    command.arg("-c").arg(path).arg("-p").arg(folder).args(["-e", "stderr"]);
    Ok(command)
}

fn folder() -> Result<TempDir, String> {
    TempDir::with_prefix("weir-bench-").map_err(|error| error.to_string())
}

fn write(folder: &Path, name: &str, text: &str) -> Result<PathBuf, String> {
    let path = folder.join(name);
    fs::write(&path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_takes_part_in_what_it_can() {
        for scenario in Scenario::ALL {
            let rivals = Rival::of(scenario);
            assert_eq!(rivals.first(), Some(&Rival::Weir));
            assert_eq!(rivals.contains(&Rival::Nginx), scenario.task != Task::Session);
            assert_eq!(rivals.contains(&Rival::Plain), scenario.task == Task::Auth);
            assert!(scenario.wire != Wire::Tls || !rivals.contains(&Rival::Varnish));
            assert!(scenario.body <= set_up::PIECE || !rivals.contains(&Rival::Return));
        }
    }
}
