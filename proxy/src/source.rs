//! Where the configuration comes from: a file, the environment, and the files it names. The only door between
//! `weir-config`, which does no I/O, and the machine.

use std::path::{Path, PathBuf};

use weir_config::{Loaded, Outside, Plan, report::Report, span::Place};

/// The file that `weir run` was given; read again at each reload.
#[derive(Debug, Clone)]
pub struct Source {
    path: PathBuf,
}

/// The process's environment and file system.
struct Machine<'a> {
    /// Relative paths are relative to the file that names them.
    folder: &'a Path,
}

impl Outside for Machine<'_> {
    fn env(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn read(&self, path: &Path) -> std::io::Result<String> {
        std::fs::read_to_string(self.folder.join(path))
    }
}

impl Source {
    /// This file.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads and resolves it; an `nginx.conf` is translated on the way.
    ///
    /// # Errors
    /// Every problem at once, the unreadable file included.
    pub fn load(&self) -> Result<Loaded, Report> {
        let name = self.path.display().to_string();
        let text = std::fs::read_to_string(&self.path).map_err(|problem| unreadable(&name, &problem))?;
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let outside = Machine { folder };
        weir_config::load(&name, &text, &outside)
    }
}

fn unreadable(name: &str, problem: &std::io::Error) -> Report {
    let mut report = Report::new(name, "");
    report.error(Place::default(), format!("the file cannot be read: {problem}"));
    report
}

/// One line about a plan, for `weir check`.
#[must_use]
pub fn summary(plan: &Plan) -> String {
    format!(
        "ok: {} listeners, {} upstreams with {} servers, {} routes, {} caches, {} limits",
        plan.listeners.len(),
        plan.upstreams.len(),
        plan.upstreams.iter().map(|upstream| upstream.servers.len()).sum::<usize>(),
        plan.routes.len(),
        plan.caches.len(),
        plan.limits.len(),
    )
}
