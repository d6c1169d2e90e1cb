//! Answers that need no upstream: redirects and fixed answers.

use std::borrow::Cow;

use http::HeaderValue;
use weir_config::{
    plan,
    template::{Part, Values, Variable},
};

use super::{Params, rewrite};

/// The `Location` of a redirect.
///
/// A value at its beginning cannot name another site: `//evil.example` in a path would be one (RFC 3986 §4.2), so
/// leading slashes that the operator did not write become one.
#[must_use]
pub fn location(redirect: &plan::Redirect, values: &impl Values, params: &Params) -> HeaderValue {
    render_location(redirect.location.parts(), values, params)
}

fn render_location(parts: &[Part], values: &impl Values, params: &Params) -> HeaderValue {
    let rendered = rewrite::render(parts, values, params);
    let rendered = rendered.strip_suffix('?').unwrap_or(&rendered);
    let meant = matches!(parts.first(), Some(Part::Text(text)) if text.starts_with("//"));
    let local = rendered.trim_start_matches('/');
    let location =
        if rendered.starts_with("//") && !meant { format!("/{local}") } else { rendered.to_owned() };
    HeaderValue::try_from(location).expect("what is encoded is visible ASCII")
}

/// The body of a fixed answer, and its `Content-Length` with it. What a client sent is text in it, and never markup.
#[must_use]
pub fn body(answer: &plan::Answer, values: &impl Values) -> String {
    let kind = answer.content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let escape: fn(&str) -> String = match kind.rsplit(['/', '+']).next().unwrap_or_default() {
        "html" | "xhtml" | "xml" | "svg" => markup,
        "json" => json,
        _ => str::to_owned,
    };
    let mut body = String::new();
    answer.body.render(&Escaped { values, escape }, &mut body);
    body
}

/// Values as they may stand in a document.
struct Escaped<'v, V> {
    values: &'v V,
    escape: fn(&str) -> String,
}

impl<V: Values> Values for Escaped<'_, V> {
    fn value(&self, variable: &Variable) -> Option<Cow<'_, str>> {
        let value = self.values.value(variable)?;
        Some((self.escape)(&value).into())
    }
}

/// In text and in quoted attributes.
fn markup(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            char => escaped.push(char),
        }
    }
    escaped
}

/// Inside of a string.
fn json(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test's panic is its report")]
    use super::*;
    use crate::route::rewrite::tests::{Given, text};

    fn location(parts: &[Part], path: &'static str) -> String {
        let given = Given { path, query: "a=1", text: "x y\r\nSet-Cookie: z".into() };
        render_location(parts, &given, &Params::default()).to_str().unwrap().to_owned()
    }

    #[test]
    fn a_location_is_made_of_the_request() {
        let target = [Part::Value(Variable::Path), text("?"), Part::Value(Variable::QueryString)];
        let mut parts = vec![text("https://www.example.org")];
        parts.extend(target);
        assert_eq!(location(&parts, "/x"), "https://www.example.org/x?a=1");
        assert_eq!(location(&[text("/new#part")], "/x"), "/new#part");
    }

    #[test]
    fn a_path_cannot_redirect_to_another_site() {
        assert_eq!(location(&[Part::Value(Variable::Path)], "//evil.example/x"), "/evil.example/x");
        assert_eq!(location(&[text("/"), Part::Value(Variable::Path)], "/evil.example"), "/evil.example");
        assert_eq!(location(&[text("//cdn.example"), Part::Value(Variable::Path)], "/x"), "//cdn.example/x");
    }

    #[test]
    fn a_value_cannot_add_a_field() {
        let parts = [text("/u/"), Part::Value(Variable::Session("name".into()))];
        assert_eq!(location(&parts, "/"), "/u/x%20y%0D%0ASet-Cookie%3A%20z");
    }
}
