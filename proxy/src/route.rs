//! Which route a request takes: host, then path, then method and fields.
//!
//! **Host** first: a route of this very host, then of the longest wildcard above it, then of any host.
//!
//! **Path** within a host: exact, then patterns with parameters, then regular expressions in the order of the file,
//! then the longest prefix. A regular expression goes before a prefix, as in nginx, because it is written to carve
//! something out of one: were the prefix first, no expression would ever match beside a `/*`. It reads the
//! normalised path, in which everything but ASCII is escaped. Between two patterns with parameters the one with the
//! earlier literal wins, read from the left like a path of folders (`/a/{x}/{y}` before `/{z}/b/c`).
//!
//! **Method and fields** last, in the order of the file: a route whose conditions fail is passed over for the next
//! one, wherever that stands in the order above. Only when a path has routes, and the method alone kept all of them
//! from matching, is the answer 405 with the methods that would have.
//!
//! [`path`] reads paths, [`rewrite`] writes targets and locations, [`answer`] and [`files`] are what a route can do
//! without an upstream.

pub mod answer;
pub mod files;
mod host;
pub mod path;
mod paths;
pub mod rewrite;

use std::{ops::ControlFlow, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use weir_config::plan::{self, HeaderCondition, HostPattern, PathPattern, RouteId, Segment};

use self::{host::ByHost, path::Path, paths::Paths};

/// All routes, indexed.
#[derive(Debug)]
pub struct Router {
    rules: Vec<Rule>,
    hosts: ByHost<Paths>,
}

impl Router {
    /// Indexes the routes of a plan.
    #[must_use]
    pub fn new(routes: &[plan::Route]) -> Self {
        Self::index(routes.iter().map(Rule::from).collect())
    }

    fn index(rules: Vec<Rule>) -> Self {
        let mut hosts = ByHost::<Paths>::default();
        for (position, rule) in rules.iter().enumerate() {
            hosts.for_each(&rule.hosts, |paths| paths.add(&rule.path, position));
        }
        Self { rules, hosts }
    }

    /// The route of a request.
    ///
    /// Shape: `host` in lower case and without port; no allocation for exact paths and prefixes.
    #[must_use]
    pub fn find(&self, host: &str, path: &Path<'_>, method: &Method, headers: &HeaderMap) -> Found {
        let mut others = Vec::new();
        let mut try_rule = |position: usize| {
            let rule = &self.rules[position];
            if rule.takes_headers(headers)
                && let Some(params) = rule.params(path.as_str())
            {
                if rule.takes_method(method) {
                    return ControlFlow::Break(Matched { route: RouteId::at(position), params });
                }
                others.extend(&rule.methods);
            }
            ControlFlow::Continue(())
        };
        let search =
            self.hosts.levels(host).try_for_each(|paths| paths.candidates(path.as_str(), &mut try_rule));
        match search {
            ControlFlow::Break(matched) => Found::Route(matched),
            ControlFlow::Continue(()) if others.is_empty() => Found::NotFound,
            ControlFlow::Continue(()) => Found::MethodNotAllowed(allow(others)),
        }
    }
}

/// The `Allow` field of a path's methods, each once.
fn allow(methods: Vec<&Method>) -> HeaderValue {
    let mut names: Vec<&str> = methods.into_iter().map(Method::as_str).collect();
    if names.contains(&"GET") {
        names.push("HEAD");
    }
    names.sort_unstable();
    names.dedup();
    HeaderValue::from_str(&names.join(", ")).expect("methods are tokens")
}

/// What became of a search.
#[derive(Debug)]
pub enum Found {
    /// This route.
    Route(Matched),
    /// The path exists, but not for this method: 405, with the `Allow` field (RFC 9110 §15.5.6).
    MethodNotAllowed(HeaderValue),
    /// Nothing here: 404.
    NotFound,
}

/// A route that matched.
#[derive(Debug)]
pub struct Matched {
    /// Which.
    pub route: RouteId,
    /// What its path captured.
    pub params: Params,
}

/// What a route's path captured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Params(Vec<Param>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Param {
    name: Arc<str>,
    encoded: Box<str>,
    decoded: Box<str>,
}

impl Params {
    /// The percent-decoded value, as `${path.NAME}` has it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.find(name).map(|param| &*param.decoded)
    }

    /// The value as it stood in the normalised path: fit for another path, where `%2F` must not become a slash.
    #[must_use]
    pub fn encoded(&self, name: &str) -> Option<&str> {
        self.find(name).map(|param| &*param.encoded)
    }

    fn find(&self, name: &str) -> Option<&Param> {
        self.0.iter().find(|param| &*param.name == name)
    }

    /// Adds a piece of a normalised path; `None` unless it decodes to UTF-8.
    fn push(&mut self, name: &Arc<str>, piece: &str) -> Option<()> {
        let decoded = path::decode(piece)?.into();
        self.0.push(Param { name: Arc::clone(name), encoded: piece.into(), decoded });
        Some(())
    }
}

/// When a route applies, as the index needs it.
#[derive(Debug, Clone)]
struct Rule {
    hosts: Vec<HostPattern>,
    path: PathPattern,
    methods: Vec<Method>,
    headers: Vec<(HeaderName, HeaderCondition)>,
    /// The names of the path's parameters, in the order of their capture.
    names: Vec<Arc<str>>,
}

impl From<&plan::Route> for Rule {
    fn from(route: &plan::Route) -> Self {
        let when = &route.when;
        let headers = when.headers.iter().map(|header| (header.name.clone(), header.value.clone()));
        Self::new(when.hosts.clone(), when.path.clone(), when.methods.clone(), headers.collect())
    }
}

impl Rule {
    fn new(
        hosts: Vec<HostPattern>,
        path: PathPattern,
        methods: Vec<Method>,
        headers: Vec<(HeaderName, HeaderCondition)>,
    ) -> Self {
        let names = match &path {
            PathPattern::Segments(segments) => {
                let name = |segment: &Segment| match segment {
                    Segment::Parameter(name) => Some(name.as_str().into()),
                    Segment::Literal(_) => None,
                };
                segments.iter().filter_map(name).collect()
            }
            PathPattern::Regex(regex) => regex.capture_names().flatten().map(Arc::from).collect(),
            PathPattern::Exact(_) | PathPattern::Prefix(_) => Vec::new(),
        };
        Self { hosts, path, methods, headers, names }
    }

    fn takes_method(&self, method: &Method) -> bool {
        let get_takes_head = method == Method::HEAD && self.methods.contains(&Method::GET);
        (self.methods.is_empty() && method != Method::CONNECT)
            || self.methods.contains(method)
            || get_takes_head
    }

    fn takes_headers(&self, headers: &HeaderMap) -> bool {
        self.headers.iter().all(|(name, condition)| condition.is_met(name, headers))
    }

    /// What the path captures; `None` where a value is not UTF-8, which is no match.
    fn params(&self, path: &str) -> Option<Params> {
        let mut params = Params::default();
        match &self.path {
            PathPattern::Exact(_) | PathPattern::Prefix(_) => {}
            PathPattern::Segments(segments) => {
                // The index has matched the literals.
                let pieces = segments.iter().zip(path.split('/').skip(1));
                let captured = pieces.filter(|(segment, _)| matches!(segment, Segment::Parameter(_)));
                for (name, (_, piece)) in self.names.iter().zip(captured) {
                    params.push(name, piece)?;
                }
            }
            PathPattern::Regex(regex) if self.names.is_empty() => {
                return regex.is_match(path).then_some(params);
            }
            PathPattern::Regex(regex) => {
                let captures = regex.captures(path)?;
                for name in &self.names {
                    if let Some(piece) = captures.name(name) {
                        params.push(name, piece.as_str())?;
                    }
                }
            }
        }
        Some(params)
    }
}

#[cfg(test)]
mod tests;
