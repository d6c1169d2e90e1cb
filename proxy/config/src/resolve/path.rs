//! When a route applies: hosts, paths, methods, header conditions.

use regex::Regex;

use super::{Resolver, address::is_host};
use crate::{
    plan::{HeaderCondition, HeaderMatch, HostPattern, Match, PathPattern, Segment},
    raw::{self, List, Word},
    report::did_you_mean,
    span::Place,
};

const METHODS: [&str; 10] =
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE", "QUERY"];

impl Resolver<'_> {
    /// `outer` is the place of a match that was written as a single word.
    pub(super) fn matching(&mut self, raw: &raw::Match, outer: Place) -> Match {
        let place = |at: Place| if at == Place::default() { outer } else { at };
        let path = raw.path.placed().and_then(|(text, at)| self.path(text, place(at)));
        let path = path.unwrap_or_else(|| PathPattern::Prefix("/".into()));
        let hosts = raw.hosts.items().filter_map(|(text, at)| self.host(text, at)).collect();
        let methods = self.methods(&raw.methods);
        let headers =
            raw.headers.entries().filter_map(|(name, is, at)| self.header_match(name, is, at)).collect();
        Match { hosts, path, methods, headers }
    }

    fn host(&mut self, text: &str, place: Place) -> Option<HostPattern> {
        let lower = text.to_ascii_lowercase();
        let (wild, name) = lower.strip_prefix("*.").map_or((false, lower.as_str()), |rest| (true, rest));
        let is_v6 = name
            .strip_prefix('[')
            .and_then(|it| it.strip_suffix(']'))
            .is_some_and(|it| it.parse::<std::net::Ipv6Addr>().is_ok());
        if is_host(name) || (is_v6 && !wild) {
            let name = name.strip_suffix('.').unwrap_or(name);
            return Some(if wild {
                HostPattern::Suffix(format!(".{name}"))
            } else {
                HostPattern::Exact(name.into())
            });
        }
        let problem = self.report.error(place, format!("`{text}` is not a host"));
        match text.rsplit_once(':') {
            Some((host, port)) if is_host(host) && port.parse::<u16>().is_ok() => {
                problem.help(format!("hosts are compared without port: `{host}`"))
            }
            _ => problem.help("write `example.org`, or `*.example.org` for everything below it"),
        };
        None
    }

    fn path(&mut self, text: &str, place: Place) -> Option<PathPattern> {
        if let Some(pattern) = text.strip_prefix('~') {
            return self.regex(pattern.trim(), place).map(PathPattern::Regex);
        }
        let wrong = |message: String, help: String| Some((message, help));
        let below = text.strip_suffix('*').filter(|path| path.ends_with('/'));
        let literal = below.unwrap_or(text);
        let problem = if !text.starts_with('/') {
            wrong(
                format!("`{text}` is not a path"),
                format!("did you mean `/{}`?", text.trim_start_matches('/')),
            )
        } else if let Some(bad) =
            text.chars().find(|c| matches!(c, '?' | '#') || c.is_whitespace() || c.is_control())
        {
            wrong(
                format!("a path has no `{}`", bad.escape_default()),
                "a route is matched by the path alone; the query is `${query.NAME}`".into(),
            )
        } else if literal.contains('*') {
            let at = literal.find('*').unwrap_or_default();
            let start = literal[..at].trim_end_matches('/');
            wrong(
                "`*` stands only at the end, after a slash".into(),
                format!("did you mean `{start}/*`? For more, write a regex: `~ ^/…`"),
            )
        } else if text.contains("//") || text.split('/').any(|segment| matches!(segment, "." | "..")) {
            wrong(format!("`{text}` never matches"), "paths are compared without `//`, `.` and `..`".into())
        } else if below.is_some() && text.contains(['{', '}']) {
            wrong(
                "parameters and `/*` do not go together".into(),
                "write a regex with named groups: `~ ^/items/(?<id>[^/]+)/`".into(),
            )
        } else {
            None
        };
        if let Some((message, help)) = problem {
            self.report.error(place, message).help(help);
            return None;
        }
        match below {
            Some(prefix) => Some(PathPattern::Prefix(prefix.to_owned())),
            None if text.contains(['{', '}']) => self.segments(text, place).map(PathPattern::Segments),
            None => Some(PathPattern::Exact(text.to_owned())),
        }
    }

    fn segments(&mut self, text: &str, place: Place) -> Option<Vec<Segment>> {
        let mut segments = Vec::new();
        for segment in text.split('/').skip(1) {
            let name = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
            let good =
                |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            segments.push(match name {
                None if !segment.contains(['{', '}']) => Segment::Literal(segment.to_owned()),
                Some(name) if good(name) => Segment::Parameter(name.to_owned()),
                _ => {
                    let problem = self.report.error(place, format!("`{segment}` is not a parameter"));
                    problem.help(
                        "a parameter is a whole segment: `/items/{id}`; for more, write a regex: `~ ^/…`",
                    );
                    return None;
                }
            });
        }
        let twice = segments.iter().enumerate().find(|(i, segment)| {
            matches!(segment, Segment::Parameter(_)) && segments[..*i].contains(segment)
        });
        if let Some((_, Segment::Parameter(name))) = twice {
            self.report.error(place, format!("the parameter `{{{name}}}` stands twice"));
            return None;
        }
        Some(segments)
    }

    fn regex(&mut self, pattern: &str, place: Place) -> Option<Regex> {
        match Regex::new(pattern) {
            Ok(regex) => Some(regex),
            Err(error) => {
                let text = error.to_string();
                let cause = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
                self.report.error(place, format!("`{pattern}` is not a regular expression: {cause}"));
                None
            }
        }
    }

    fn methods(&mut self, word: &Word<List<String>>) -> Vec<http::Method> {
        let mut methods = Vec::new();
        for (text, place) in word.items() {
            let upper = text.to_ascii_uppercase();
            let close = did_you_mean(&upper, METHODS);
            match text.parse::<http::Method>() {
                Ok(http::Method::CONNECT) => {
                    let problem =
                        self.report.error(place, "CONNECT asks for a tunnel, which this route has not");
                    problem.help("a route with `tunnel: UPSTREAM` takes CONNECT, and nothing else");
                }
                Ok(method) if *text == upper => {
                    if let Some(close) = close.filter(|close| *close != upper) {
                        let problem = self.report.warning(place, format!("`{text}` is no method of HTTP"));
                        problem.help(format!("did you mean `{close}`?"));
                    }
                    methods.push(method);
                }
                _ => {
                    let problem = self.report.error(place, format!("`{text}` is not a method"));
                    problem.suggest(&upper, METHODS);
                }
            }
        }
        methods
    }

    pub(super) fn header_match(
        &mut self,
        name: &str,
        is: &raw::HeaderCondition,
        place: Place,
    ) -> Option<HeaderMatch> {
        let name = self.header_name(name, place)?;
        let value = match is {
            raw::HeaderCondition::Present => HeaderCondition::Present,
            raw::HeaderCondition::Absent => HeaderCondition::Absent,
            raw::HeaderCondition::Equals(text) => HeaderCondition::Equals(text.clone()),
            raw::HeaderCondition::Matches(pattern) => HeaderCondition::Matches(self.regex(pattern, place)?),
        };
        Some(HeaderMatch { name, value })
    }
}

/// The parameters that a path gives to templates.
pub(super) fn parameters(path: &PathPattern) -> Vec<&str> {
    match path {
        PathPattern::Exact(_) | PathPattern::Prefix(_) => Vec::new(),
        PathPattern::Segments(segments) => segments
            .iter()
            .filter_map(|segment| match segment {
                Segment::Parameter(name) => Some(name.as_str()),
                Segment::Literal(_) => None,
            })
            .collect(),
        PathPattern::Regex(regex) => regex.capture_names().flatten().collect(),
    }
}

/// The literal beginning of a path, without its last slash: what `files` leave out.
pub(super) fn literal_folder(path: &PathPattern) -> String {
    match path {
        PathPattern::Prefix(prefix) => prefix.trim_end_matches('/').to_owned(),
        PathPattern::Exact(path) => {
            path.rsplit_once('/').map_or_else(String::new, |(folder, _)| folder.to_owned())
        }
        PathPattern::Segments(segments) => segments
            .iter()
            .map_while(|segment| match segment {
                Segment::Literal(text) => Some(format!("/{text}")),
                Segment::Parameter(_) => None,
            })
            .collect(),
        PathPattern::Regex(_) => String::new(),
    }
}

/// A path as it is written, for names and comparisons.
pub(super) fn path_text(path: &PathPattern) -> String {
    match path {
        PathPattern::Exact(path) => path.clone(),
        PathPattern::Prefix(prefix) => format!("{prefix}*"),
        PathPattern::Segments(segments) => segments
            .iter()
            .map(|segment| match segment {
                Segment::Literal(text) => format!("/{text}"),
                Segment::Parameter(name) => format!("/{{{name}}}"),
            })
            .collect(),
        PathPattern::Regex(regex) => format!("~ {regex}"),
    }
}
