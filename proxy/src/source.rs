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
        if !self.is_nginx() {
            return weir_config::load(&name, &text, &outside);
        }
        let translation = weir_nginx::translate(&name, &text, &|pattern| includes(folder, pattern))
            .map_err(|problems| untranslated(&name, &problems.to_string()))?;
        for line in translation.report.to_string().lines() {
            tracing::info!("{line}");
        }
        weir_config::resolve(&name, &text, &translation.raw, &outside)
    }

    /// By its ending: `config.yaml` is ours, `nginx.conf` is nginx's.
    fn is_nginx(&self) -> bool {
        self.path.extension().is_some_and(|extension| extension == "conf")
    }
}

/// An `nginx.conf` as config.yaml, and the fate of each of its directives.
///
/// # Errors
/// What nginx would refuse as well, and what cannot be read; for people.
pub fn translate(path: &Path) -> Result<(String, String), String> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|problem| format!("{name}: {problem}\n"))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let translation = weir_nginx::translate(&name, &text, &|pattern| includes(folder, pattern))
        .map_err(|problems| problems.to_string())?;
    Ok((weir_config::to_yaml(&translation.raw), translation.report.to_string()))
}

/// The files an `include` names, in the order of their names; only the last part may be a pattern, with `*`.
fn includes(folder: &Path, pattern: &str) -> Result<Vec<(String, String)>, String> {
    let wanted = folder.join(pattern);
    let read = |path: &Path| {
        let text =
            std::fs::read_to_string(path).map_err(|problem| format!("{}: {problem}", path.display()))?;
        Ok((path.display().to_string(), text))
    };
    let last = wanted.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let Some((before, after)) = last.split_once('*') else { return Ok(vec![read(&wanted)?]) };
    let Ok(entries) = std::fs::read_dir(wanted.parent().unwrap_or(folder)) else { return Ok(Vec::new()) };
    let fits = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.len() >= before.len() + after.len() && name.starts_with(before) && name.ends_with(after)
    };
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(fits).collect();
    paths.sort();
    paths.iter().map(|path| read(path)).collect()
}

fn untranslated(name: &str, problems: &str) -> Report {
    let mut report = Report::new(name, "");
    report.error(Place::default(), format!("nginx's configuration has problems:\n{problems}"));
    report
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
