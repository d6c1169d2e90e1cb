//! References to the environment in a text: `${NAME}`, `${NAME:-default}`, and `$${` for `${` itself.

use crate::{report::Report, span::Place};

/// A reference to the environment, without `${`.
pub(super) enum Reference<'a> {
    /// What is between the braces.
    Closed(&'a str),
    /// All that follows, as no brace does.
    Open(&'a str),
}

/// Replaces every `${NAME…}` by what `value` says.
pub(super) fn substitute(text: &str, mut value: impl FnMut(Reference<'_>) -> String) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, inner)) = next_reference(rest) {
        if let Some(before) = before.strip_suffix('$') {
            out += before;
            out += "${";
            rest = inner;
            continue;
        }
        out += before;
        match inner.split_once('}') {
            Some((reference, after)) => {
                out += &value(Reference::Closed(reference));
                rest = after;
            }
            None => return out + &value(Reference::Open(inner)),
        }
    }
    out + rest
}

/// What stands before the next `${` that begins a name of the environment, and what follows it.
fn next_reference(text: &str) -> Option<(&str, &str)> {
    text.match_indices("${").find_map(|(index, _)| {
        let inner = &text[index + 2..];
        inner.starts_with(|c: char| c.is_ascii_uppercase() || c == '_').then_some((&text[..index], inner))
    })
}

/// Escapes what [`super::parse`] would take for a reference to the environment.
pub(crate) fn escape(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, inner)) = next_reference(rest) {
        out += before;
        out += "$${";
        rest = inner;
    }
    out + rest
}

/// The value of `NAME` or `NAME:-default`; a reference that has none is reported.
pub(super) fn variable(
    reference: &str,
    env: &dyn Fn(&str) -> Option<String>,
    place: Place,
    report: &mut Report,
) -> Option<String> {
    let (name, default) = match reference.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (reference, None),
    };
    if !name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_') {
        let problem = report.error(place, format!("`${{{name}}}` is no name of the environment"));
        problem.help("write `${NAME}` or `${NAME:-default}`; variables of a request are lower case");
        return None;
    }
    // As in a shell, `:-` counts a variable that is set to nothing as not set.
    let value = env(name).filter(|value| default.is_none() || !value.is_empty());
    let value = value.or_else(|| default.map(str::to_owned));
    if value.is_none() {
        let problem = report.error(place, format!("the environment has no `{name}`"));
        problem.help(format!("set {name}, or give a default: `${{{name}:-…}}`"));
    }
    value
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_escaped_reads_back(text in "(\\$|\\{|\\}|A|a|_|:-){0,12}") {
            prop_assert_eq!(substitute(&escape(&text), |_| "!".into()), text);
        }
    }
}
