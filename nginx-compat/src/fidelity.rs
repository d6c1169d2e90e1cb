//! What became of each directive: the report that goes with a translation.

use std::fmt;

use crate::{place::At, tree::Directive};

/// How well config.yaml says what a directive said, best first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The same.
    Exact,
    /// Left out, harmless, because of this.
    Ignored(String),
    /// Not quite the same, in this way.
    Approximated(String),
    /// Left out, and missed; this is what to do.
    Refused(String),
}

impl Outcome {
    /// Its word in the report.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Ignored(_) => "ignored",
            Self::Approximated(_) => "approximated",
            Self::Refused(_) => "refused",
        }
    }

    /// Worse is more.
    fn rank(&self) -> u8 {
        match self {
            Self::Exact => 0,
            Self::Ignored(_) => 1,
            Self::Approximated(_) => 2,
            Self::Refused(_) => 3,
        }
    }

    /// Why, or what to do; nothing where there is nothing to say.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Exact => "",
            Self::Ignored(reason) | Self::Approximated(reason) | Self::Refused(reason) => reason,
        }
    }
}

/// One directive of the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Where it stands.
    pub at: At,
    /// Its name and arguments, shortened.
    pub directive: String,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of each directive, in the order of reading. `Display` is an aligned table with a summary.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fidelity(Vec<Line>);

impl Fidelity {
    /// Each directive.
    pub fn lines(&self) -> std::slice::Iter<'_, Line> {
        self.0.iter()
    }

    /// Those that are left out and missed; a strict operator wants none.
    pub fn refused(&self) -> impl Iterator<Item = &Line> {
        self.0.iter().filter(|line| matches!(line.outcome, Outcome::Refused(_)))
    }

    /// `12 directives: 9 exact, 1 approximated, 2 ignored, 0 refused`.
    #[must_use]
    pub fn summary(&self) -> String {
        let count = |word| self.0.iter().filter(|line| line.outcome.word() == word).count();
        let [exact, approximated, ignored, refused] =
            ["exact", "approximated", "ignored", "refused"].map(count);
        let (all, s) = (self.0.len(), if self.0.len() == 1 { "" } else { "s" });
        format!(
            "{all} directive{s}: {exact} exact, {approximated} approximated, {ignored} ignored, {refused} refused"
        )
    }
}

impl fmt::Display for Fidelity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = |line: &Line| format!("{}:{}", line.at.file, line.at.line);
        let places = self.0.iter().map(|line| place(line).chars().count()).max().unwrap_or(0);
        let words = self.0.iter().map(|line| line.directive.chars().count()).max().unwrap_or(0);
        for line in &self.0 {
            let (place, outcome) = (place(line), &line.outcome);
            let row = format!(
                "{place:places$}  {:words$}  {:12}  {}",
                line.directive,
                outcome.word(),
                outcome.reason()
            );
            writeln!(f, "{}", row.trim_end())?;
        }
        writeln!(f, "{}", self.summary())
    }
}

/// The report while it is written: what was said about each directive, by its id.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Vec<Option<Outcome>>);

impl Ledger {
    /// Notes an outcome. A directive that several routes inherit is noted several times; the worst
    /// outcome counts, and its first reason.
    pub(crate) fn note(&mut self, directive: &Directive, outcome: Outcome) {
        if self.0.len() <= directive.id {
            self.0.resize(directive.id + 1, None);
        }
        let slot = &mut self.0[directive.id];
        if slot.as_ref().is_none_or(|before| before.rank() < outcome.rank()) {
            *slot = Some(outcome);
        }
    }

    /// Whether anything was said about it.
    pub(crate) fn has(&self, directive: &Directive) -> bool {
        self.0.get(directive.id).is_some_and(Option::is_some)
    }

    pub(crate) fn exact(&mut self, directive: &Directive) {
        self.note(directive, Outcome::Exact);
    }

    pub(crate) fn ignored(&mut self, directive: &Directive, why: impl Into<String>) {
        self.note(directive, Outcome::Ignored(why.into()));
    }

    pub(crate) fn approximated(&mut self, directive: &Directive, how: impl Into<String>) {
        self.note(directive, Outcome::Approximated(how.into()));
    }

    pub(crate) fn refused(&mut self, directive: &Directive, what_to_do: impl Into<String>) {
        self.note(directive, Outcome::Refused(what_to_do.into()));
    }

    /// The finished report on these directives and everything inside them.
    pub(crate) fn report(mut self, directives: &[Directive]) -> Fidelity {
        let mut lines = Vec::new();
        self.lines(directives, &mut lines);
        lines.sort_by_key(|(id, _)| *id);
        Fidelity(lines.into_iter().map(|(_, line)| line).collect())
    }

    fn lines(&mut self, directives: &[Directive], lines: &mut Vec<(usize, Line)>) {
        for directive in directives {
            let noted = self.0.get_mut(directive.id).and_then(Option::take);
            let outcome = noted.unwrap_or_else(|| match directive.block {
                Some(_) => Outcome::Exact,
                None => Outcome::Ignored("nothing in its reach uses it, in nginx neither".to_owned()),
            });
            lines.push((
                directive.id,
                Line { at: directive.at.clone(), directive: shown(directive), outcome },
            ));
            self.lines(directive.inside(), lines);
        }
    }
}

/// Name and arguments on one line, of bearable length.
fn shown(directive: &Directive) -> String {
    const LONGEST: usize = 48;
    let words = std::iter::once(directive.name.as_str()).chain(directive.texts());
    let text = words.map(|word| if word.is_empty() { "\"\"" } else { word }).collect::<Vec<_>>().join(" ");
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
