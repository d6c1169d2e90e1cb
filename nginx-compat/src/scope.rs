//! What a level of nginx's configuration sees: its own directives, and those it inherits.
//!
//! The rule of nginx's merge functions is the same for scalars and for arrays (`proxy_set_header`, `add_header`, `allow`,
//! `limit_req`, …): a level that says nothing takes what the level above has; a level that says one thing takes nothing.

use crate::tree::Directive;

/// The levels around a place, outermost first: http, server, location, inner locations.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scope<'a> {
    levels: Vec<&'a [Directive]>,
}

impl<'a> Scope<'a> {
    /// One level further in.
    pub(crate) fn inner(&self, directives: &'a [Directive]) -> Self {
        let mut levels = self.levels.clone();
        levels.push(directives);
        Self { levels }
    }

    /// The directives of this name that hold here: the innermost level's that has any.
    pub(crate) fn all(&self, name: &str) -> Vec<&'a Directive> {
        let level =
            self.levels.iter().rev().find(|level| level.iter().any(|directive| directive.name == name));
        level.into_iter().flat_map(|level| level.iter()).filter(|directive| directive.name == name).collect()
    }

    /// As [`Self::all`] for names that inherit together, as `allow` and `deny` do.
    pub(crate) fn either(&self, names: [&str; 2]) -> Vec<&'a Directive> {
        let is_one = |directive: &&Directive| names.contains(&directive.name.as_str());
        let level = self.levels.iter().rev().find(|level| level.iter().any(|directive| is_one(&directive)));
        level.into_iter().flat_map(|level| level.iter()).filter(is_one).collect()
    }

    /// The directive of this name that holds here.
    pub(crate) fn one(&self, name: &str) -> Option<&'a Directive> {
        self.all(name).into_iter().next()
    }

    /// The first directive of this name on this very level; for what does not inherit, as `proxy_pass`.
    pub(crate) fn own(&self, name: &str) -> Option<&'a Directive> {
        self.levels.last()?.iter().find(|directive| directive.name == name)
    }

    /// The location for exactly this path, on the innermost level that has one.
    pub(crate) fn location(&self, path: &str) -> Option<&'a Directive> {
        self.levels.iter().rev().find_map(|level| location(level, path))
    }

    /// What that location sees: its own directives, and those of the levels around it.
    pub(crate) fn of_location(&self, path: &str) -> Option<Self> {
        let found = |level: &&'a [Directive]| location(level, path).is_some();
        let depth = self.levels.iter().rposition(found)?;
        let around = Self { levels: self.levels[..=depth].to_vec() };
        Some(around.inner(location(self.levels[depth], path)?.inside()))
    }

    /// Whether this flag is `on` here.
    pub(crate) fn is_on(&self, name: &str) -> bool {
        self.one(name).is_some_and(|directive| directive.arg(0) == "on")
    }
}

/// The location for exactly this path among these directives.
fn location<'a>(level: &'a [Directive], path: &str) -> Option<&'a Directive> {
    level.iter().find(|directive| {
        let words: Vec<&str> = directive.texts().collect();
        directive.name == "location"
            && (matches!(words.as_slice(), ["=" | "^~", other] if *other == path)
                || matches!(words.as_slice(), [other] if other.strip_prefix('=').unwrap_or(other) == path))
    })
}
