//! Problems, each with its place, its cause and a way out; all of them at once.
//!
//! ```text
//! config.yaml:12:7: error: unknown key `adress` (upstreams.api.servers[0].adress)
//!   12 |     - adress: 127.0.0.1:3001
//!      |       ^^^^^^
//! help: did you mean `address`?
//! ```

use std::{collections::BTreeMap, fmt, sync::Arc};

use crate::{secret::Secret, span::Place};

/// Whether a problem stops loading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// It does.
    Error,
    /// It does not, but the operator will want to know.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// Whether it stops loading.
    pub severity: Severity,
    /// In which file, if not in the one that the report is about: what that includes, or was translated from.
    pub file: Option<Arc<str>>,
    /// Where it is.
    pub place: Place,
    /// The same in words: `routes[2].cache.in`; empty when the place is not from a YAML file.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl Problem {
    /// Says what to do about it.
    pub fn help(&mut self, help: impl Into<String>) -> &mut Self {
        self.help = Some(help.into());
        self
    }

    /// Says that it is in another file than the one that the report is about.
    pub fn of_file(&mut self, file: impl Into<Arc<str>>) -> &mut Self {
        self.file = Some(file.into());
        self
    }

    /// Says which of the known words was probably meant, or which there are.
    pub fn suggest<'a>(&mut self, word: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> &mut Self {
        if let Some(close) = did_you_mean(word, known.clone()) {
            return self.help(format!("did you mean `{close}`?"));
        }
        match known.into_iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ") {
            none if none.is_empty() => self,
            all => self.help(format!("there is {all}")),
        }
    }
}

/// Everything that is wrong with one file, in the order of its lines.
#[derive(Clone, Default)]
pub struct Report {
    name: String,
    text: String,
    /// What a terminal or a CI log must not show.
    secrets: Vec<String>,
    /// The places of the file in words.
    paths: BTreeMap<Place, String>,
    problems: Vec<Problem>,
}

impl Report {
    /// An empty report about the file `name` with this text.
    #[must_use]
    pub fn new(name: &str, text: &str) -> Self {
        Self { name: name.to_owned(), text: text.to_owned(), ..Self::default() }
    }

    /// Notes an error.
    pub fn error(&mut self, place: Place, message: impl Into<String>) -> &mut Problem {
        self.note(Severity::Error, place, message.into())
    }

    /// Notes a warning.
    pub fn warning(&mut self, place: Place, message: impl Into<String>) -> &mut Problem {
        self.note(Severity::Warning, place, message.into())
    }

    fn note(&mut self, severity: Severity, place: Place, message: String) -> &mut Problem {
        let path = path_of(&self.paths, place);
        self.problems.push(Problem { severity, file: None, place, path, message, help: None });
        self.problems.last_mut().expect("one was pushed a line ago")
    }

    /// What is wrong, in the order of the file.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Whether anything stops loading.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.problems.iter().any(|problem| problem.severity == Severity::Error)
    }

    /// Whether there is nothing to say.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// Where a problem is: `config.yaml:12:7`, or the file alone when the place is not from a file.
    #[must_use]
    pub fn at(&self, problem: &Problem) -> String {
        let file = problem.file.as_deref().unwrap_or(&self.name);
        if problem.place == Place::default() { file.to_owned() } else { format!("{file}:{}", problem.place) }
    }

    /// Only what stops loading: the answer to somebody who asked about something else than the warnings.
    #[must_use]
    pub fn errors(mut self) -> Self {
        self.problems.retain(|problem| problem.severity == Severity::Error);
        self
    }

    /// Keeps a secret out of the lines that are shown.
    pub fn hide(&mut self, secret: &Secret) {
        // A word of three letters is no secret, and hiding it would riddle every line.
        if secret.expose().chars().count() > 3 {
            self.secrets.push(secret.expose().to_owned());
        }
    }

    /// A line without secrets; what stands behind one keeps its column.
    fn line(&self, place: Place) -> Option<String> {
        let line = self.text.lines().nth((place.line as usize).checked_sub(1)?)?;
        let hide = |line: String, secret: &String| line.replace(secret, &"*".repeat(secret.chars().count()));
        Some(self.secrets.iter().fold(line.to_owned(), hide))
    }

    /// Names the places of the problems, of those to come too, and puts them in order.
    pub(crate) fn settle(&mut self, paths: BTreeMap<Place, String>) {
        for problem in &mut self.problems {
            problem.path = path_of(&paths, problem.place);
        }
        self.paths = paths;
        self.sort();
    }

    /// Puts the problems in the order of the file; those of other files follow as they were noted.
    pub fn sort(&mut self) {
        self.problems.sort_by_key(|problem| match problem.file {
            None => (false, problem.place),
            Some(_) => (true, Place::default()),
        });
    }

    /// As a terminal shows it; the same without colours is [`Display`](fmt::Display).
    #[must_use]
    pub fn coloured(&self) -> String {
        self.problems.iter().map(|problem| self.render(problem, true)).collect::<Vec<_>>().join("\n")
    }

    fn render(&self, problem: &Problem, colour: bool) -> String {
        let paint = |code: &str, text: &str| match colour {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        };
        let severity = match problem.severity {
            Severity::Error => paint("1;31", "error"),
            Severity::Warning => paint("1;33", "warning"),
        };
        let place = self.at(problem);
        let path = if problem.path.is_empty() { String::new() } else { format!(" ({})", problem.path) };
        let mut out = format!("{}: {severity}: {}{path}\n", paint("1", &place), problem.message);
        if let Some(line) = self.line(problem.place).filter(|_| problem.file.is_none()) {
            let (line, before, width) = excerpt(&line, problem.place.column as usize);
            let number = problem.place.line.to_string();
            let margin = " ".repeat(number.len());
            let caret = paint("1;31", &"^".repeat(width));
            out += &format!("  {number} | {line}\n  {margin} | {}{caret}\n", " ".repeat(before));
        }
        if let Some(help) = &problem.help {
            out += &format!("{}: {help}\n", paint("1;36", "help"));
        }
        out
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let gap = if index == 0 { "" } else { "\n" };
            write!(f, "{gap}{}", self.render(problem, false))?;
        }
        Ok(())
    }
}

/// As it displays: the text it was made from may hold secrets.
impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Report {}

/// The words for a place, or for what begins left of it in its line.
fn path_of(paths: &BTreeMap<Place, String>, place: Place) -> String {
    let nearest = paths.range(..=place).next_back().filter(|(nearest, _)| nearest.line == place.line);
    nearest.map(|(_, path)| path.clone()).unwrap_or_default()
}

/// The part of a line around a column, safe for a terminal; how far the word starts from its left, and how wide it is.
fn excerpt(line: &str, column: usize) -> (String, usize, usize) {
    const SHOWN: usize = 120;
    let column = column.saturating_sub(1);
    let skipped = if line.chars().count() > SHOWN { column.saturating_sub(SHOWN / 2) } else { 0 };
    let shown: Vec<char> =
        line.chars().skip(skipped).take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
    let before = (column - skipped).min(shown.len());
    let word: String = shown[before..].iter().take_while(|c| !c.is_whitespace() && **c != ',').collect();
    let width = word.trim_end_matches([':', ']', '}']).chars().count().max(1);
    (shown.into_iter().collect(), before, width)
}

/// The known word that a wrong one was probably meant to be.
pub(crate) fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let tolerance = (word.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|known| (strsim::damerau_levenshtein(word, known), known))
        .filter(|(distance, _)| *distance <= tolerance)
        .min()
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report::new("config.yaml", "a: 1\nb: { adress: x }\n");
        report.error(Place { line: 2, column: 6 }, "unknown key `adress`").help("did you mean `address`?");
        report
    }

    #[test]
    fn a_problem_points_at_its_word() {
        let expected = "config.yaml:2:6: error: unknown key `adress`\n  2 | b: { adress: x }\n    |      ^^^^^^\n\
                        help: did you mean `address`?\n";
        assert_eq!(report().to_string(), expected);
    }

    #[test]
    fn colours_come_only_when_asked_for() {
        assert!(!report().to_string().contains('\x1b'));
        assert!(report().coloured().contains("\x1b[1;31merror"));
    }

    #[test]
    fn a_secret_is_not_shown_and_moves_no_caret() {
        let mut report = Report::new("c", "{ secret: hunter2, tll: 1s }\n");
        report.error(Place { line: 1, column: 20 }, "unknown key `tll`");
        report.hide(&Secret::new("hunter2"));
        assert!(report.to_string().contains("{ secret: *******, tll: 1s }"), "{report}");
        assert!(!format!("{report:?}").contains("hunter2"));
    }

    #[test]
    fn a_long_line_is_shown_in_part_and_without_control_characters() {
        let mut report = Report::new("c", &format!("{}\x1b[2J{}", "x".repeat(500), "y".repeat(500)));
        report.error(Place { line: 1, column: 505 }, "there");
        report.error(Place { line: 9, column: 1 }, "beyond the file");
        assert!(report.to_string().lines().all(|line| line.len() < 140 && !line.contains('\x1b')));
    }

    #[test]
    fn only_a_close_word_is_suggested() {
        assert_eq!(did_you_mean("adress", ["weight", "address"]), Some("address"));
        assert_eq!(did_you_mean("colour", ["weight", "address"]), None);
    }
}
