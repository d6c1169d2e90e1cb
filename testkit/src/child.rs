//! A process that does not outlive its test.
//!
//! Two things end it: dropping the guard, and, when the test process dies without unwinding, a *warden*: a shell that waits for
//! the end of a pipe only the test process holds open, then ends the child and removes its folder. The guard is the
//! ordinary way; the warden is there because `static` guards are never dropped and SIGKILL asks nobody.

use std::{
    fs::{self, File},
    io,
    os::unix::process::CommandExt,
    path::Path,
    process::{self, Command, ExitStatus, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use crate::wait_until;

/// Ends the child when the pipe on stdin closes. `$1` signal, `$2` process group, `$3` folder to remove.
const WARDEN: &str =
    r#"read -r _; kill -"$1" -"$2" 2>/dev/null; sleep 1; kill -KILL -"$2" 2>/dev/null; rm -rf "$3""#;

/// A started program in a process group and a temporary folder of its own; both gone after the drop.
#[derive(Debug)]
pub struct Child {
    process: process::Child,
    warden: process::Child,
    stop_signal: &'static str,
    folder: TempDir,
}

impl Child {
    /// Starts `command`; what it prints is kept in `folder`, see [`Child::output`].
    ///
    /// `stop_signal` is the signal's name without SIG that ends the program at once ("KILL", or "QUIT" for Postgres, which
    /// leaks shared memory when killed). `package` is the Debian package that has the program.
    ///
    /// # Errors
    /// The sentence to show when the program is missing or cannot start.
    pub fn start(
        mut command: Command,
        folder: TempDir,
        stop_signal: &'static str,
        package: &str,
    ) -> Result<Self, String> {
        let program = command.get_program().to_string_lossy().into_owned();
        let log = || File::options().create(true).append(true).open(log_of(folder.path()));
        let (out, err) =
            log().and_then(|out| Ok((out, log()?))).map_err(|e| format!("no log for {program}: {e}"))?;
        let process = command.process_group(0).stdin(Stdio::null()).stdout(out).stderr(err).spawn().map_err(
            |e| match e.kind() {
                io::ErrorKind::NotFound => {
                    format!("{program} is missing: install the Debian package {package}")
                }
                _ => format!("{program} does not start: {e}"),
            },
        )?;
        let warden = Command::new("sh")
            .args(["-c", WARDEN, "warden", stop_signal, &process.id().to_string()])
            .arg(folder.path())
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("every Debian has sh");
        Ok(Self { process, warden, stop_signal, folder })
    }

    /// Waits until `ready` says yes.
    ///
    /// # Errors
    /// What the program printed, when it ended or `deadline` passed first.
    pub fn ready(mut self, deadline: Duration, mut ready: impl FnMut(&Self) -> bool) -> Result<Self, String> {
        let mut ended = None;
        let in_time = wait_until(deadline, || {
            ended = self.process.try_wait().expect("our own child can be waited for");
            ended.is_some() || ready(&self)
        });
        match (ended, in_time) {
            (None, true) => Ok(self),
            (Some(status), _) => Err(format!("server ended with {status} and said:\n{}", self.output())),
            (None, false) => {
                Err(format!("server not ready within {deadline:?}, it said:\n{}", self.output()))
            }
        }
    }

    /// The process id, which is also its process group.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The folder that lives as long as the process.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What the program printed so far, stdout and stderr as they came.
    #[must_use]
    pub fn output(&self) -> String {
        fs::read_to_string(log_of(self.folder.path())).unwrap_or_default()
    }

    /// Sends a signal by its name without SIG ("TERM", "HUP", …) to the process group.
    pub fn signal(&self, name: &str) {
        // The shell's own `kill`: std has no signals, and the external program is in a package that may be missing.
        let _ = Command::new("sh")
            .args(["-c", r#"kill -"$1" -"$2""#, "kill", name, &self.id().to_string()])
            .stderr(Stdio::null())
            .status();
    }

    /// Waits for the end; `None` when `deadline` passes first.
    pub fn wait(&mut self, deadline: Duration) -> Option<ExitStatus> {
        let mut status = None;
        wait_until(deadline, || {
            status = self.process.try_wait().expect("our own child can be waited for");
            status.is_some()
        });
        status
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // The warden goes first, so that it can never signal a number that belongs to somebody else by then.
        let _ = self.warden.kill();
        let _ = self.warden.wait();
        if let Ok(Some(_)) = self.process.try_wait() {
            return;
        }
        self.signal(self.stop_signal);
        if self.wait(Duration::from_secs(5)).is_none() {
            self.signal("KILL");
            let _ = self.process.wait();
        }
    }
}

fn log_of(folder: &Path) -> std::path::PathBuf {
    folder.join("output.log")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn alive(id: u32) -> bool {
        Command::new("sh").args(["-c", &format!("kill -0 {id} 2>/dev/null")]).status().unwrap().success()
    }

    #[test]
    fn a_panicking_test_leaves_no_process_behind() {
        let id = std::sync::Mutex::new(0);
        let panicked = std::panic::catch_unwind(|| {
            let mut sleeper = Command::new("sleep");
            sleeper.arg("600");
            let child = Child::start(sleeper, tempfile::tempdir().unwrap(), "KILL", "coreutils")
                .expect("sleep starts");
            *id.lock().unwrap() = child.id();
            assert!(!alive(child.id()), "it is alive, so this panics");
        });
        assert!(panicked.is_err());
        assert!(!alive(id.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)));
    }

    #[test]
    fn a_missing_program_is_named_with_its_package() {
        let nothing = Command::new("no-such-program");
        let problem =
            Child::start(nothing, tempfile::tempdir().unwrap(), "KILL", "some-package").unwrap_err();
        assert!(problem.contains("no-such-program") && problem.contains("some-package"), "{problem}");
    }
}
