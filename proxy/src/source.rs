//! Where the configuration comes from: a file, the environment, and the files it names. The only door between
//! `weir-config`, which does no I/O, and the machine.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use weir_config::{Outside, Plan, report::Report, span::Place};
use weir_nginx::{Fidelity, Outcome, Problems, Translation};

/// A configuration that may run, as far as its words tell.
#[derive(Debug)]
pub struct Loaded {
    /// What it means.
    pub plan: Plan,
    /// What its operator should know nevertheless.
    pub warnings: Report,
    /// What became of an nginx.conf, in one line.
    pub translated: Option<String>,
}

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

    fn read(&self, path: &Path) -> io::Result<String> {
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

    /// Reads and resolves it; an `nginx.conf` is translated on the way, and what is lost by that is among the warnings.
    ///
    /// # Errors
    /// Every problem at once, the unreadable file included.
    pub fn load(&self) -> Result<Loaded, Report> {
        let name = self.path.display().to_string();
        let text = read(&self.path).map_err(|problem| unreadable(&name, &problem))?;
        let outside = Machine { folder: folder_of(&self.path) };
        if !self.is_nginx() {
            let weir_config::Loaded { plan, warnings, .. } = weir_config::load(&name, &text, &outside)?;
            return Ok(Loaded { plan, warnings, translated: None });
        }
        let Translation { raw, report } =
            translated(&self.path, &name, &text).map_err(|problems| untranslated(&name, &problems))?;
        let summary = format!("{name}: {}", report.summary());
        match weir_config::resolve(&name, &text, &raw, &outside) {
            Ok(weir_config::Loaded { plan, mut warnings, .. }) => {
                warn_of(&report, &mut warnings);
                Ok(Loaded { plan, warnings, translated: Some(summary) })
            }
            Err(mut problems) => {
                warn_of(&report, &mut problems);
                Err(problems)
            }
        }
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
pub fn translate(path: &Path) -> Result<(String, Fidelity), String> {
    let name = path.display().to_string();
    let text = read(path).map_err(|problem| unreadable(&name, &problem).to_string())?;
    let translation =
        translated(path, &name, &text).map_err(|problems| untranslated(&name, &problems).to_string())?;
    Ok((weir_config::to_yaml(&translation.raw), translation.report))
}

fn translated(path: &Path, name: &str, text: &str) -> Result<Translation, Problems> {
    weir_nginx::translate(name, text, &|pattern| includes(folder_of(path), pattern))
}

/// Notes every directive that means less here than in nginx. Those that are harmless are in the whole report, which
/// [`translate`] gives.
fn warn_of(fidelity: &Fidelity, report: &mut Report) {
    for line in fidelity.lines() {
        if let Outcome::Approximated(_) | Outcome::Refused(_) = line.outcome {
            let (word, reason) = (line.outcome.word(), line.outcome.reason());
            let place = Place { line: line.at.line, column: line.at.column };
            let said = format!("`{}`: {word}: {reason}", line.directive);
            report.warning(place, said).of_file(Arc::clone(&line.at.file));
        }
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}

/// The text of a file; where it is none, the error says the line.
fn read(path: &Path) -> io::Result<String> {
    String::from_utf8(std::fs::read(path)?).map_err(|problem| {
        let good = &problem.as_bytes()[..problem.utf8_error().valid_up_to()];
        let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
        io::Error::new(io::ErrorKind::InvalidData, format!("line {line} is not UTF-8"))
    })
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

fn untranslated(name: &str, problems: &Problems) -> Report {
    let mut report = Report::new(name, "");
    for problem in problems.iter() {
        let place = Place { line: problem.at.line, column: problem.at.column };
        let noted = report.error(place, problem.message.clone()).of_file(Arc::clone(&problem.at.file));
        noted.help.clone_from(&problem.help);
    }
    report
}

fn unreadable(name: &str, problem: &io::Error) -> Report {
    let mut report = Report::new(name, "");
    let noted = report.error(Place::default(), format!("the file cannot be read: {problem}"));
    if problem.kind() == io::ErrorKind::InvalidData {
        noted.help("save it as UTF-8");
    }
    report
}

/// One line about a plan, for `weir check`.
#[must_use]
pub fn summary(plan: &Plan) -> String {
    let count = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let servers = plan.upstreams.iter().map(|upstream| upstream.servers.len()).sum();
    format!(
        "ok: {}, {} with {}, {}, {}, {}",
        count(plan.listeners.len(), "listener"),
        count(plan.upstreams.len(), "upstream"),
        count(servers, "server"),
        count(plan.routes.len(), "route"),
        count(plan.caches.len(), "cache"),
        count(plan.limits.len(), "limit"),
    )
}
