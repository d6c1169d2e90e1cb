//! Places in nginx files, and the problems found there.

use std::{fmt, sync::Arc};

/// A character of a file: name as it was read, line and column counted from 1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct At {
    /// The file, as its `include` found it.
    pub file: Arc<str>,
    /// The line.
    pub line: u32,
    /// The column, in characters.
    pub column: u32,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// One reason why nginx would not start with this file either.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub at: At,
    /// In nginx's words.
    pub message: String,
    /// What probably was meant.
    pub help: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.message, self.at)?;
        match &self.help {
            Some(help) => write!(f, "; {help}"),
            None => Ok(()),
        }
    }
}

/// Every problem of one run, in the order of reading; never empty when it is returned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Problems(pub(crate) Vec<Problem>);

impl Problems {
    /// Each of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }

    pub(crate) fn add(&mut self, at: &At, message: impl Into<String>) {
        self.push(Problem { at: at.clone(), message: message.into(), help: None });
    }

    pub(crate) fn add_with_help(&mut self, at: &At, message: impl Into<String>, help: impl Into<String>) {
        self.push(Problem { at: at.clone(), message: message.into(), help: Some(help.into()) });
    }

    /// What several locations inherit is wrong once.
    fn push(&mut self, problem: Problem) {
        if !self.0.contains(&problem) {
            self.0.push(problem);
        }
    }

    /// Nothing when there are none; otherwise all of them by file and line, files in the order of their first problem.
    pub(crate) fn settle(mut self) -> Result<(), Self> {
        let mut files: Vec<Arc<str>> = Vec::new();
        for problem in &self.0 {
            if !files.contains(&problem.at.file) {
                files.push(Arc::clone(&problem.at.file));
            }
        }
        let file = |at: &At| files.iter().position(|file| *file == at.file);
        self.0.sort_by_key(|problem| (file(&problem.at), problem.at.line, problem.at.column));
        if self.0.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|problem| writeln!(f, "{problem}"))
    }
}

impl std::error::Error for Problems {}
