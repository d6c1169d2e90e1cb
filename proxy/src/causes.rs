//! An error with its causes, for a line that people read: `cannot connect: Connection refused (os error 111)`.

use std::{error::Error, fmt};

/// Displays an error and everything that caused it, on one line.
#[derive(Debug)]
pub struct Causes<'a>(pub &'a dyn Error);

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        write!(f, "{said}")?;
        let mut cause = self.0.source();
        while let Some(next) = cause {
            let text = next.to_string();
            // Some libraries say their cause in their own words already.
            if !said.contains(&text) {
                write!(f, ": {text}")?;
            }
            (said, cause) = (text, next.source());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Level(&'static str, #[source] Option<Box<Level>>);

    #[test]
    fn each_cause_is_said_once() {
        let level = |text, cause| Some(Box::new(Level(text, cause)));
        let error = Level("cannot connect", level("broken: reset", level("reset", level("no route", None))));
        assert_eq!(Causes(&error).to_string(), "cannot connect: broken: reset: no route");
    }
}
