//! Routes: what they match, and what a request has to be before they act.

use std::sync::Arc;

use ipnet::IpNet;

use super::{Action, CacheRule, Compress, ErrorPage, LimitRate, LimitUse, SessionId};
use crate::{
    span::Place,
    template::{Template, Variable},
    units::Bytes,
};

/// One route: what it matches, what it asks of the request, and what it does.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Route {
    /// As given, or made from methods, host and path (`GET /api/items`); the metric label, different for each route.
    pub name: Arc<str>,
    /// When it applies.
    pub when: Match,
    /// Who may pass by address; `None` asks nothing.
    pub access: Option<Access>,
    /// Limits charged in this order.
    pub limits: Vec<LimitUse>,
    /// Who the caller must be.
    pub session: Option<SessionRule>,
    /// Whether and how answers are kept.
    pub cache: Option<CacheRule>,
    /// Tags purged after a successful unsafe request, in every cache.
    pub invalidate: Vec<Template>,
    /// Fields set on the request for the origin; an empty value removes.
    pub request_headers: Vec<(http::HeaderName, Template)>,
    /// Fields set on the answer for the client; an empty value removes.
    pub response_headers: Vec<(http::HeaderName, Template)>,
    /// What happens to what passed.
    pub action: Action,
    /// Largest request body; overrides the listener's. 0 is no bound.
    pub body_bytes: Option<Bytes>,
    /// What is shown for errors; the first that names the status.
    pub error_pages: Vec<ErrorPage>,
    /// Whether they stand for the origin's errors too.
    pub intercept_errors: bool,
    /// How fast one answer may go; `None` is no bound.
    pub limit_rate: Option<LimitRate>,
    /// Which answers are compressed; `None` passes all on as they are.
    pub compress: Option<Compress>,
    /// Whether answers in gzip are unpacked for clients that do not take it.
    pub gunzip: bool,
    /// Where it was written.
    pub place: Place,
}

impl Route {
    /// Whether the origin hears something of the session besides the signed identity.
    #[must_use]
    pub fn tells_of_session(&self) -> bool {
        let asked_for = match &self.action {
            Action::Forward(forward) => [&forward.host, &forward.rewrite],
            _ => [&None, &None],
        };
        let asked_for = asked_for.into_iter().flatten();
        let mut sent = self.request_headers.iter().map(|(_, value)| value).chain(asked_for);
        sent.any(|value| value.variables().any(|variable| matches!(variable, Variable::Session(_))))
    }
}

/// When a route applies; everything given must hold.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Match {
    /// Any of these; empty is any host.
    pub hosts: Vec<HostPattern>,
    /// The path.
    pub path: PathPattern,
    /// Any of these; empty is any method but CONNECT. GET includes HEAD.
    pub methods: Vec<http::Method>,
    /// All of these.
    pub headers: Vec<HeaderMatch>,
}

/// A host that a route serves, in lower case without port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// `example.org`.
    Exact(String),
    /// `*.example.org`, held as `.example.org`: one label or more in front.
    Suffix(String),
}

/// A path that a route serves, compared with the normalised path.
#[derive(Debug, Clone)]
pub enum PathPattern {
    /// `/health`: this and nothing else.
    Exact(String),
    /// `/static/*`, held as `/static/`: everything below. `/*` or no path at all is everything.
    Prefix(String),
    /// `/users/{id}/items`: a segment a parameter.
    Segments(Vec<Segment>),
    /// `~ ^/v[0-9]+/`: a regular expression; named groups are `${path.name}`.
    Regex(regex::Regex),
}

/// One segment of a path with parameters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Segment {
    /// Itself.
    Literal(String),
    /// Anything that is not empty and has no slash.
    Parameter(String),
}

/// A condition on one field.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HeaderMatch {
    /// The field.
    pub name: http::HeaderName,
    /// What it must be.
    pub value: HeaderCondition,
}

/// What a field must be.
#[derive(Debug, Clone)]
pub enum HeaderCondition {
    /// There, with any value.
    Present,
    /// Not there.
    Absent,
    /// One of its values is exactly this.
    Equals(String),
    /// One of its values matches.
    Matches(regex::Regex),
}

impl HeaderCondition {
    /// Whether the field `name` of these is so.
    #[must_use]
    pub fn is_met(&self, name: &http::HeaderName, fields: &http::HeaderMap) -> bool {
        let mut values = fields.get_all(name).iter();
        match self {
            Self::Present => values.next().is_some(),
            Self::Absent => values.next().is_none(),
            Self::Equals(expected) => values.any(|value| value == expected),
            Self::Matches(regex) => {
                values.filter_map(|value| value.to_str().ok()).any(|value| regex.is_match(value))
            }
        }
    }
}

/// Who may pass by address; the most specific network wins, and `deny` wins a tie.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Access {
    /// When not empty, nobody else passes.
    pub allow: Vec<IpNet>,
    /// Never passes.
    pub deny: Vec<IpNet>,
}

/// Who the caller must be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionRule {
    /// Where tokens are looked up.
    pub session: SessionId,
    /// Whether a request without a session is refused (401).
    pub required: bool,
    /// Any of these; others are refused (403). Empty asks for none.
    pub roles: Vec<String>,
    /// All of these; others are refused (403).
    pub permissions: Vec<String>,
    /// Where browsers without a session are sent.
    pub login: Option<Template>,
    /// Whether a successful answer ends the session: this edge forgets it at once.
    pub ends: bool,
}
