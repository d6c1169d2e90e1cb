//! What a run promises, how often each promise was put to the test, and where it broke.
//!
//! A promise that was never tested counts as broken: a run in which nobody logged in has shown nothing.

use std::fmt;

/// Examples kept of one broken promise; the count goes on.
const EXAMPLES: usize = 3;

/// What the reference workload holds the system to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// Most reads on cached routes are answered without the origin.
    HitRate,
    /// Nothing a client does is answered with a 5xx, or not at all.
    NoServerError,
    /// Honest requests get what they asked for: no refusal hits the wrong one.
    HonestServed,
    /// A read that began after a write was answered shows that write, whoever of the account's devices reads.
    FreshAfterWrite,
    /// No answer carries what belongs to another account.
    OwnDataOnly,
    /// A token is refused after its logout was answered, within the bound that the scale states.
    DeadTokenRefused,
    /// Abusers get nothing, and those who insist are limited.
    AbuseLimited,
}

impl Promise {
    /// In the order of the report.
    pub const ALL: [Self; 7] = [
        Self::HitRate,
        Self::NoServerError,
        Self::HonestServed,
        Self::FreshAfterWrite,
        Self::OwnDataOnly,
        Self::DeadTokenRefused,
        Self::AbuseLimited,
    ];

    /// The promise in words.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::HitRate => "the cache answers more than 80 % of what it may keep",
            Self::NoServerError => "no 5xx, and no request without an answer",
            Self::HonestServed => "no honest request is refused",
            Self::FreshAfterWrite => "no stale read after a write",
            Self::OwnDataOnly => "no user sees another's answer",
            Self::DeadTokenRefused => "a token is dead after its logout",
            Self::AbuseLimited => "abusers get nothing, and are limited",
        }
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sentence())
    }
}

/// How one promise fared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// How often it was put to the test.
    pub tested: u64,
    /// How often it broke.
    pub broken: u64,
    /// The first few breaks: what was asked, and what came.
    pub examples: Vec<String>,
}

impl Verdict {
    /// Whether it was tested and never broke.
    #[must_use]
    pub fn held(&self) -> bool {
        self.tested > 0 && self.broken == 0
    }
}

/// All promises of a run.
#[derive(Debug, Clone, Default)]
pub struct Promises([Verdict; Promise::ALL.len()]);

impl Promises {
    /// Puts a promise to the test once; `example` is asked for only when it broke.
    pub fn test(&mut self, promise: Promise, held: bool, example: impl FnOnce() -> String) {
        let verdict = &mut self.0[promise as usize];
        verdict.tested += 1;
        if !held {
            verdict.broken += 1;
            if verdict.examples.len() < EXAMPLES {
                verdict.examples.push(example());
            }
        }
    }

    /// How a promise fared.
    #[must_use]
    pub fn of(&self, promise: Promise) -> &Verdict {
        &self.0[promise as usize]
    }

    /// Whether every promise was tested and none broke.
    #[must_use]
    pub fn all_held(&self) -> bool {
        self.0.iter().all(Verdict::held)
    }

    /// Adds all of another's.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            mine.tested += theirs.tested;
            mine.broken += theirs.broken;
            let room = EXAMPLES.saturating_sub(mine.examples.len());
            mine.examples.extend(theirs.examples.iter().take(room).cloned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_tested_once() -> Promises {
        let mut promises = Promises::default();
        Promise::ALL.into_iter().for_each(|promise| promises.test(promise, true, String::new));
        promises
    }

    #[test]
    fn a_run_in_which_all_held_holds() {
        assert!(all_tested_once().all_held());
    }

    #[test]
    fn each_broken_promise_alone_breaks_the_run_and_shows_an_example() {
        for promise in Promise::ALL {
            let mut promises = all_tested_once();
            promises.test(promise, false, || "GET /x → 500".to_owned());
            assert!(!promises.all_held(), "{promise:?}");
            assert_eq!(promises.of(promise).examples, ["GET /x → 500"]);
        }
    }

    #[test]
    fn a_promise_that_was_never_tested_is_broken() {
        assert!(!Promises::default().all_held());
    }

    #[test]
    fn merging_keeps_every_break_and_a_few_examples() {
        let mut sum = all_tested_once();
        for user in 0..5 {
            let mut one = Promises::default();
            one.test(Promise::OwnDataOnly, false, || format!("user {user}"));
            sum.merge(&one);
        }
        let verdict = sum.of(Promise::OwnDataOnly);
        assert_eq!((verdict.tested, verdict.broken, verdict.examples.len()), (6, 5, EXAMPLES));
    }
}
