//! Templates: `vault:${session.user_id}:${query.type}`, parsed once, rendered for each request.
//!
//! They are the one expression language of config.yaml: cache keys, tags, header values, rewrites, limit keys.
//! Variables are lower case with dots; `${NAME}` in upper case is the environment's and was replaced before
//! ([`crate::text`]), so the two never meet. `$${` stands for `${`.
//!
//! Keys and tags are rendered by [`Template::render_key`]: values are percent-encoded there, so that no client can
//! choose a value that makes its key equal to another's (`a:b` + `c` against `a` + `b:c`).

use std::{borrow::Cow, fmt, str::FromStr};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::report::did_you_mean;

/// A parsed template.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Template {
    parts: Vec<Part>,
}

/// One part of a template.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Part {
    /// Text as it stands.
    Text(Box<str>),
    /// A value of the request.
    Value(Variable),
}

/// What a template can ask of a request. A value that is absent renders as nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Variable {
    /// `${client.ip}`: the address, after trusted hops.
    ClientIp,
    /// `${request.id}`.
    RequestId,
    /// `${request.method}`.
    Method,
    /// `${request.scheme}`: `http` or `https`.
    Scheme,
    /// `${request.host}`: lower case, without port.
    Host,
    /// `${request.path}`: the path as it is forwarded.
    Path,
    /// `${request.query}`: everything after `?`, without it.
    QueryString,
    /// `${request.target}`: path and query as forwarded.
    Target,
    /// `${query.NAME}`: the first value of this parameter, percent-decoded.
    Query(Box<str>),
    /// `${header.NAME}`: the field's values joined by `, `.
    Header(http::HeaderName),
    /// `${cookie.NAME}`: the first cookie of this name.
    Cookie(Box<str>),
    /// `${path.NAME}`: a `{NAME}` of the route's path, percent-decoded.
    PathParam(Box<str>),
    /// `${session.FIELD}`: a field of the caller's session.
    Session(Box<str>),
    /// `${token}`: the session token; only in `sessions.*.key`.
    Token,
    /// `${cache.status}`: what the cache did, in nginx's word for it; only in `response_headers`.
    CacheStatus,
    /// `${route.name}`: what logs and metrics call the route; only in `limits.*.key`.
    RouteName,
}

/// The variables without a name of the operator's choice, as written.
const FIXED: [(&str, Variable); 11] = [
    ("client.ip", Variable::ClientIp),
    ("request.id", Variable::RequestId),
    ("request.method", Variable::Method),
    ("request.scheme", Variable::Scheme),
    ("request.host", Variable::Host),
    ("request.path", Variable::Path),
    ("request.query", Variable::QueryString),
    ("request.target", Variable::Target),
    ("token", Variable::Token),
    ("cache.status", Variable::CacheStatus),
    ("route.name", Variable::RouteName),
];

/// The families that take a name.
const FAMILIES: [&str; 5] = ["query", "header", "cookie", "path", "session"];

impl FromStr for Variable {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((_, variable)) = FIXED.iter().find(|(name, _)| *name == text) {
            return Ok(variable.clone());
        }
        let (family, name) = text.split_once('.').unwrap_or((text, ""));
        if name.is_empty() && FAMILIES.contains(&family) {
            return Err(format!("`${{{family}}}` needs a name: `${{{family}.NAME}}`"));
        }
        match family {
            "query" => Ok(Self::Query(name.into())),
            "cookie" => Ok(Self::Cookie(name.into())),
            "path" => Ok(Self::PathParam(name.into())),
            "session" => Ok(Self::Session(name.into())),
            "header" => {
                name.parse().map(Self::Header).map_err(|_| format!("`{name}` cannot be the name of a header"))
            }
            _ => Err(unknown_variable(text, family)),
        }
    }
}

fn unknown_variable(text: &str, family: &str) -> String {
    let fixed = did_you_mean(text, FIXED.iter().map(|(name, _)| *name)).map(str::to_owned);
    let close = fixed.or_else(|| {
        let name = text.strip_prefix(family)?;
        did_you_mean(family, FAMILIES).map(|family| format!("{family}{name}"))
    });
    match close {
        Some(close) => format!("there is no variable `${{{text}}}`; did you mean `${{{close}}}`?"),
        None => format!(
            "there is no variable `${{{text}}}`; there are {}, and query, header, cookie, path and session with `.NAME`",
            FIXED.map(|(name, _)| name).join(", ")
        ),
    }
}

impl fmt::Display for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Query(name) => write!(f, "query.{name}"),
            Self::Header(name) => write!(f, "header.{name}"),
            Self::Cookie(name) => write!(f, "cookie.{name}"),
            Self::PathParam(name) => write!(f, "path.{name}"),
            Self::Session(name) => write!(f, "session.{name}"),
            fixed => {
                f.write_str(FIXED.iter().find(|(_, variable)| variable == fixed).map_or("", |(name, _)| name))
            }
        }
    }
}

/// Whatever can answer a template's questions.
pub trait Values {
    /// The value of `variable` for this request; `None` where there is none.
    fn value(&self, variable: &Variable) -> Option<Cow<'_, str>>;
}

/// What [`Template::render_key`] leaves as it is: the unreserved characters of RFC 3986 §2.3.
const ENCODED: AsciiSet = NON_ALPHANUMERIC.remove(b'.').remove(b'_').remove(b'~').remove(b'-');

impl Template {
    /// Its parts, in order.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The values it asks for, in order.
    pub fn variables(&self) -> impl Iterator<Item = &Variable> {
        self.parts.iter().filter_map(|part| match part {
            Part::Value(variable) => Some(variable),
            Part::Text(_) => None,
        })
    }

    /// The text of a template that asks for nothing.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Appends the rendered text to `out`, values as they are.
    pub fn render(&self, values: &impl Values, out: &mut String) {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Value(variable) => {
                    if let Some(value) = values.value(variable) {
                        out.push_str(&value);
                    }
                }
            }
        }
    }

    /// Appends the key to `out`: values percent-encoded, an absent one as nothing and an empty one as a lone `%`.
    ///
    /// For one template, two requests share a key only if they share every value: what separates two values is a
    /// character that encoding never emits ([`Self::ambiguous`] refuses other templates when the plan is made).
    pub fn render_key(&self, values: &impl Values, out: &mut String) {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Value(variable) => match values.value(variable) {
                    None => {}
                    Some(value) if value.is_empty() => out.push('%'),
                    Some(value) => out.extend(utf8_percent_encode(&value, &ENCODED)),
                },
            }
        }
    }

    /// The first two values that a key could not tell apart, because nothing certain stands between them.
    #[must_use]
    pub fn ambiguous(&self) -> Option<(&Variable, &Variable)> {
        let mut before = None;
        for part in &self.parts {
            match part {
                Part::Text(text) if text.chars().any(separates) => before = None,
                Part::Text(_) => {}
                Part::Value(variable) => {
                    if let Some(before) = before.replace(variable) {
                        return Some((before, variable));
                    }
                }
            }
        }
        None
    }
}

/// Whether [`Template::render_key`] never writes this character for a value.
fn separates(c: char) -> bool {
    !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '~' | '-' | '%'))
}

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut parts, mut plain, mut rest) = (Vec::new(), String::new(), text);
        while let Some(start) = rest.find("${") {
            if rest[..start].ends_with('$') {
                plain.push_str(&rest[..start]);
                plain.push('{');
                rest = &rest[start + 2..];
                continue;
            }
            plain.push_str(&rest[..start]);
            let inner = &rest[start + 2..];
            // Upper case is the environment's: what is still here was escaped on purpose.
            if inner.starts_with(|c: char| c.is_ascii_uppercase() || c == '_') {
                plain.push_str("${");
                rest = inner;
                continue;
            }
            let end = inner.find('}').ok_or_else(|| format!("`${{{inner}` has no closing `}}`"))?;
            let variable = inner[..end].parse()?;
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain).into()));
            }
            parts.push(Part::Value(variable));
            rest = &inner[end + 1..];
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain.into()));
        }
        Ok(Self { parts })
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            match part {
                Part::Text(text) => f.write_str(&text.replace("${", "$${"))?,
                Part::Value(variable) => write!(f, "${{{variable}}}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{self}`")
    }
}

impl serde::Serialize for Template {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Template {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <Cow<'de, str>>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for Template {
    fn schema_name() -> Cow<'static, str> {
        "Template".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "text with `${client.ip}`, `${request.path}`, `${query.NAME}`, `${session.FIELD}` … in it"
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test's panic is its report")]
    use proptest::prelude::*;

    use super::*;

    struct Given(Vec<(&'static str, String)>);

    impl Values for Given {
        fn value(&self, variable: &Variable) -> Option<Cow<'_, str>> {
            let name = variable.to_string();
            self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
        }
    }

    fn key(template: &str, given: &[(&'static str, &str)]) -> String {
        let given = Given(given.iter().map(|(name, value)| (*name, (*value).to_owned())).collect());
        let mut out = String::new();
        template.parse::<Template>().unwrap().render_key(&given, &mut out);
        out
    }

    #[test]
    fn values_render_as_they_are_and_absent_ones_as_nothing() {
        let template: Template = "/v2${request.path}?${request.query}".parse().unwrap();
        let mut out = String::new();
        template.render(&Given(vec![("request.path", "/a b".into())]), &mut out);
        assert_eq!(out, "/v2/a b?");
    }

    #[test]
    fn a_value_cannot_pose_as_two() {
        let template = "v:${query.a}:${query.b}";
        assert_eq!(key(template, &[("query.a", "1:2")]), "v:1%3A2:");
        assert_ne!(
            key(template, &[("query.a", "x:y"), ("query.b", "z")]),
            key(template, &[("query.a", "x"), ("query.b", "y:z")])
        );
        assert_ne!(key(template, &[("query.a", "")]), key(template, &[]));
    }

    #[test]
    fn values_without_a_separator_are_ambiguous() {
        let ambiguous = |text: &str| text.parse::<Template>().unwrap().ambiguous().is_some();
        assert!(ambiguous("${query.a}${query.b}"));
        assert!(ambiguous("${query.a}-and-${query.b}"));
        assert!(!ambiguous("${query.a}:${query.b}|x${query.c}"));
        assert!(!ambiguous("a${query.a}b"));
    }

    #[test]
    fn a_wrong_variable_names_the_right_one() {
        let error = |text: &str| text.parse::<Template>().unwrap_err();
        assert!(error("${clientip}").contains("`${client.ip}`"));
        assert!(error("${sesion.user_id}").contains("`${session.user_id}`"));
        assert!(error("${query}").contains("`${query.NAME}`"));
        assert!(error("a${query.x").contains("closing"));
        assert!(error("${zzzzzz}").contains("there are client.ip"));
        assert!(error("${header.a b}").contains("header"));
    }

    #[test]
    fn dollars_that_open_nothing_are_text() {
        for (text, means) in
            [("$", "$"), ("$x", "$x"), ("$${client.ip}", "${client.ip}"), ("${HOME}", "${HOME}")]
        {
            assert_eq!(text.parse::<Template>().unwrap().as_text(), Some(means), "{text}");
        }
    }

    proptest! {
        #[test]
        fn keys_are_equal_only_when_all_values_are(a in proptest::collection::vec(proptest::option::of("[a:/%.]{0,3}"), 3),
                                                  b in proptest::collection::vec(proptest::option::of("[a:/%.]{0,3}"), 3)) {
            let template: Template = "${query.x}:${query.y}/${query.z}".parse().unwrap();
            let render = |values: &[Option<String>]| {
                let named = ["query.x", "query.y", "query.z"].into_iter().zip(values);
                let given = Given(named.filter_map(|(name, value)| Some((name, value.clone()?))).collect());
                let mut out = String::new();
                template.render_key(&given, &mut out);
                out
            };
            prop_assert_eq!(render(&a) == render(&b), a == b);
        }

        #[test]
        fn what_is_displayed_parses_back(text in "(\\PC|\\$|\\{|\\}|\\$\\{client.ip\\}|\\$\\{query\\.a\\}){0,8}") {
            if let Ok(template) = text.parse::<Template>() {
                prop_assert_eq!(template.to_string().parse::<Template>(), Ok(template));
            }
        }
    }
}
