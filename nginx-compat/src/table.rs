//! The directives nginx knows, a row each: name, contexts, arguments, and what becomes of it here.
//!
//! Contexts and arguments are those of nginx's `ngx_command_t` tables (1.22 to 1.29); a name may have several rows, one a context,
//! as `server` does. A directive without a row is unknown. Rows are grouped by what they are about, a file each.

mod http;
mod main;
mod proxy;
mod upstream;

/// One directive in one set of contexts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) contexts: Contexts,
    pub(crate) args: Args,
    pub(crate) body: Body,
    /// How often one level may say it.
    pub(crate) times: Times,
    pub(crate) fate: Fate,
}

/// Where a directive may stand: a set of the constants below.
pub(crate) type Contexts = u16;

/// Outside of every block.
pub(crate) const MAIN: Contexts = 1;
/// `events {}`.
pub(crate) const EVENTS: Contexts = 1 << 1;
/// `http {}`.
pub(crate) const HTTP: Contexts = 1 << 2;
/// `upstream NAME {}`.
pub(crate) const UPSTREAM: Contexts = 1 << 3;
/// `server {}`.
pub(crate) const SERVER: Contexts = 1 << 4;
/// `location PATH {}`.
pub(crate) const LOCATION: Contexts = 1 << 5;
/// `if (…) {}` in a server.
pub(crate) const SERVER_IF: Contexts = 1 << 6;
/// `if (…) {}` in a location.
pub(crate) const LOCATION_IF: Contexts = 1 << 7;
/// `limit_except METHOD {}`.
pub(crate) const EXCEPT: Contexts = 1 << 8;
/// Every context that is checked.
pub(crate) const ANYWHERE: Contexts = (1 << 9) - 1;
/// The three that inherit from each other.
pub(crate) const HSL: Contexts = HTTP | SERVER | LOCATION;

/// How many arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Args {
    /// So many, both ends included.
    Between(usize, usize),
    /// `on` or `off`.
    Flag,
}

/// No argument.
pub(crate) const NONE: Args = Args::Between(0, 0);
/// One argument.
pub(crate) const ONE: Args = Args::Between(1, 1);
/// Two arguments.
pub(crate) const TWO: Args = Args::Between(2, 2);
/// One or two.
pub(crate) const ONE_OR_TWO: Args = Args::Between(1, 2);
/// At least one.
pub(crate) const SOME: Args = Args::Between(1, usize::MAX);
/// Two or more.
pub(crate) const TWO_UP: Args = Args::Between(2, usize::MAX);

/// What stands between the braces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    /// There are no braces.
    None,
    /// Directives of this context.
    Of(Contexts),
    /// Words that are not directives, as in `map` and `types`, or that no one here reads, as in `stream`.
    Words,
}

/// How often one level may say a directive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Times {
    /// nginx calls a second one a duplicate.
    Once,
    /// They add up.
    Often,
}

/// What becomes of a directive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It has a meaning in config.yaml; the translation says how well it fits.
    Means,
    /// Leaving it out changes nothing that a client could tell, because …
    Ignored(&'static str),
    /// Something would be missed; what to do instead.
    Refused(&'static str),
}

use Fate::{Ignored, Means, Refused};

/// A row for a directive that one level says once.
const fn once(name: &'static str, contexts: Contexts, args: Args, fate: Fate) -> Row {
    Row { name, contexts, args, body: Body::None, times: Times::Once, fate }
}

/// A row for a directive that adds up.
const fn often(name: &'static str, contexts: Contexts, args: Args, fate: Fate) -> Row {
    Row { name, contexts, args, body: Body::None, times: Times::Often, fate }
}

/// A row for a directive with braces.
const fn block(name: &'static str, contexts: Contexts, args: Args, body: Body, fate: Fate) -> Row {
    Row { name, contexts, args, body, times: Times::Often, fate }
}

/// Every row.
pub(crate) fn rows() -> impl Iterator<Item = &'static Row> {
    [main::ROWS, upstream::ROWS, http::ROWS, proxy::ROWS].into_iter().flatten()
}

/// Every row of this name.
pub(crate) fn named(name: &str) -> impl Iterator<Item = &'static Row> {
    rows().filter(move |row| row.name == name)
}

/// The row of this name in this context.
pub(crate) fn row(name: &str, context: Contexts) -> Option<&'static Row> {
    named(name).find(|row| row.contexts & context != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_row_in_a_context() {
        for (position, row) in rows().enumerate() {
            let again =
                rows().skip(position + 1).find(|it| it.name == row.name && it.contexts & row.contexts != 0);
            assert!(again.is_none(), "{} has two rows", row.name);
        }
    }

    #[test]
    fn the_server_of_an_upstream_is_not_the_server_of_http() {
        assert_eq!(row("server", UPSTREAM).map(|row| row.body), Some(Body::None));
        assert_eq!(row("server", HTTP).map(|row| row.body), Some(Body::Of(SERVER)));
        assert!(row("server", LOCATION).is_none());
    }
}
