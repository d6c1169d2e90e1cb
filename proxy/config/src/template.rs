//! Templates: `vault:${session.user_id}:${query.type}`, parsed once, rendered for each request.
//!
//! They are the one expression language of config.yaml: cache keys, tags, header values, rewrites, limit keys.

use std::borrow::Cow;

/// A parsed template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

/// One part of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
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
}

/// Whatever can answer a template's questions.
pub trait Values {
    /// The value of `variable` for this request; `None` where there is none.
    fn value(&self, variable: &Variable) -> Option<Cow<'_, str>>;
}

impl Template {
    /// Its parts, in order.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.parts
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
}
