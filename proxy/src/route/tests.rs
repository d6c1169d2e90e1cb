//! The router against its promises, and against a naive model that reads every rule.
#![allow(clippy::unwrap_used, reason = "a test's panic is its report")]

use proptest::prelude::*;

use super::*;

fn pattern(text: &str) -> PathPattern {
    if let Some(regex) = text.strip_prefix("~ ") {
        PathPattern::Regex(regex::Regex::new(regex).unwrap())
    } else if let Some(prefix) = text.strip_suffix('*') {
        PathPattern::Prefix(prefix.to_owned())
    } else if text.contains('{') {
        let segment = |piece: &str| match piece.strip_prefix('{').and_then(|piece| piece.strip_suffix('}')) {
            Some(name) => Segment::Parameter(name.to_owned()),
            None => Segment::Literal(piece.to_owned()),
        };
        PathPattern::Segments(text.split('/').skip(1).map(segment).collect())
    } else {
        PathPattern::Exact(text.to_owned())
    }
}

/// `GET,POST host/path`, methods and host optional.
fn rule(text: &str) -> Rule {
    let (methods, place) = match text.split_once(' ') {
        Some((methods, place)) if methods != "~" => (methods, place),
        _ => ("", text),
    };
    let methods = methods.split(',').filter(|name| !name.is_empty()).map(|name| name.parse().unwrap()).collect();
    let (host, path) = match place.find('/') {
        Some(at) if !place.starts_with('~') => place.split_at(at),
        _ => ("", place),
    };
    let hosts = match host.strip_prefix('*') {
        Some(suffix) => vec![HostPattern::Suffix(suffix.to_owned())],
        None if host.is_empty() => vec![],
        None => vec![HostPattern::Exact(host.to_owned())],
    };
    Rule::new(hosts, pattern(path), methods, vec![])
}

fn router(rules: &[&str]) -> Router {
    Router::index(rules.iter().map(|text| rule(text)).collect())
}

/// `Ok(position)`, or the `Allow` field, empty for 404.
fn find(router: &Router, method: &str, host: &str, path: &str) -> Result<usize, String> {
    match router.find(host, &Path::parse(path).unwrap(), &method.parse().unwrap(), &HeaderMap::new()) {
        Found::Route(matched) => Ok(matched.route.index()),
        Found::MethodNotAllowed(allow) => Err(allow.to_str().unwrap().to_owned()),
        Found::NotFound => Err(String::new()),
    }
}

#[test]
fn exact_beats_parameters_beat_expressions_beat_the_longest_prefix() {
    let rules = ["/*", "/api/*", "~ ^/api/[0-9]+$", "/api/{id}", "/api/7"];
    let at = |count: usize, path| find(&router(&rules[..count]), "GET", "h", path);
    assert_eq!(at(5, "/api/7"), Ok(4));
    assert_eq!(at(4, "/api/7"), Ok(3));
    assert_eq!(at(3, "/api/7"), Ok(2));
    assert_eq!(at(2, "/api/7"), Ok(1));
    assert_eq!(at(1, "/api/7"), Ok(0));
    assert_eq!(at(5, "/api/7/x"), Ok(1));
    assert_eq!(at(5, "/api"), Ok(0));
}

#[test]
fn prefixes_are_found_past_neighbours_that_sort_between() {
    let router = router(&["/a/*", "/a/b/*", "/a/b/c/d/*", "/a/b/ca/*", "/a/a/*"]);
    assert_eq!(find(&router, "GET", "h", "/a/b/cc/x"), Ok(1));
    assert_eq!(find(&router, "GET", "h", "/a/b/c/x"), Ok(1));
    assert_eq!(find(&router, "GET", "h", "/a/b/c/d/x"), Ok(2));
    assert_eq!(find(&router, "GET", "h", "/a/zz"), Ok(0));
    assert_eq!(find(&router, "GET", "h", "/b"), Err(String::new()));
}

#[test]
fn the_earlier_literal_decides_between_patterns() {
    let router = router(&["/{z}/b/c", "/a/{x}/{y}", "/a/{x}/c"]);
    assert_eq!(find(&router, "GET", "h", "/a/b/c"), Ok(2));
    assert_eq!(find(&router, "GET", "h", "/a/b/d"), Ok(1));
    assert_eq!(find(&router, "GET", "h", "/x/b/c"), Ok(0));
    assert_eq!(find(&router, "GET", "h", "/a//c"), Err(String::new()));
}

#[test]
fn the_host_decides_before_the_path_and_falls_through() {
    let router = router(&["/health", "a.example.org/*", "*.example.org/api/*"]);
    assert_eq!(find(&router, "GET", "a.example.org", "/health"), Ok(1));
    assert_eq!(find(&router, "GET", "b.example.org", "/health"), Ok(0));
    assert_eq!(find(&router, "GET", "b.example.org", "/api/x"), Ok(2));
    assert_eq!(find(&router, "GET", "b.example.org", "/x"), Err(String::new()));
}

#[test]
fn conditions_pass_a_request_on_and_the_file_orders_equals() {
    let rules = ["POST /items", "GET /items", "/i*"];
    assert_eq!(find(&router(&rules), "GET", "h", "/items"), Ok(1));
    assert_eq!(find(&router(&rules), "HEAD", "h", "/items"), Ok(1));
    assert_eq!(find(&router(&rules), "PUT", "h", "/items"), Ok(2));
    assert_eq!(find(&router(&rules[..2]), "PUT", "h", "/items"), Err("GET, HEAD, POST".into()));
    assert_eq!(find(&router(&rules[..1]), "HEAD", "h", "/items"), Err("POST".into()));
    assert_eq!(find(&router(&["/x", "/x"]), "GET", "h", "/x"), Ok(0));
}

#[test]
fn fields_must_hold_as_well() {
    let with = |name: &'static str, condition| {
        Rule::new(vec![], pattern("/x"), vec![], vec![(HeaderName::from_static(name), condition)])
    };
    let matches = HeaderCondition::Matches(regex::Regex::new("^v[0-9]$").unwrap());
    let router = Router::index(vec![
        with("x-a", HeaderCondition::Equals("1".into())),
        with("x-b", matches),
        with("x-c", HeaderCondition::Present),
        with("x-d", HeaderCondition::Absent),
    ]);
    let find = |fields: &[(&'static str, &'static str)]| {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        match router.find("h", &Path::parse("/x").unwrap(), &Method::GET, &headers) {
            Found::Route(matched) => Some(matched.route.index()),
            _ => None,
        }
    };
    assert_eq!(find(&[("x-a", "2"), ("x-a", "1")]), Some(0));
    assert_eq!(find(&[("x-b", "v1")]), Some(1));
    assert_eq!(find(&[("x-b", "v10"), ("x-c", "")]), Some(2));
    assert_eq!(find(&[]), Some(3));
    assert_eq!(find(&[("x-d", "")]), None);
}

#[test]
fn parameters_are_decoded_and_keep_their_encoded_form() {
    let router = router(&["/u/{id}/f/{name}", "~ ^/v(?P<version>[0-9]+)/(?P<rest>.*)$"]);
    let params = |path| match router.find("h", &Path::parse(path).unwrap(), &Method::GET, &HeaderMap::new()) {
        Found::Route(matched) => Some(matched.params),
        _ => None,
    };
    let of_path = params("/u/a%20b/f/x%2fy").unwrap();
    assert_eq!((of_path.get("id"), of_path.get("name")), (Some("a b"), Some("x/y")));
    assert_eq!((of_path.encoded("name"), of_path.get("none")), (Some("x%2Fy"), None));
    let of_regex = params("/v2/a/b%2Fc").unwrap();
    assert_eq!((of_regex.get("version"), of_regex.encoded("rest")), (Some("2"), Some("a/b%2Fc")));
    assert!(params("/u/%ff/f/x").is_none(), "a value that is not UTF-8 matches no parameter");
}

#[test]
fn patterns_and_paths_meet_in_their_normal_form() {
    let router = router(&["/caf\u{e9}", "/%7euser/*", "/admin"]);
    assert_eq!(find(&router, "GET", "h", "/caf%c3%a9"), Ok(0));
    assert_eq!(find(&router, "GET", "h", "/~user/x"), Ok(1));
    assert_eq!(find(&router, "GET", "h", "/x/../%61dmin"), Ok(2));
}

/// The rank of a rule for this request, smallest first; `None` where host or path do not match.
fn naive_rank(rule: &Rule, host: &str, path: &str) -> Option<(usize, usize, Vec<bool>, usize)> {
    let host = match rule.hosts.first() {
        None => 9_999,
        Some(HostPattern::Exact(name)) => (name == host).then_some(0)?,
        Some(HostPattern::Suffix(suffix)) => {
            (host.ends_with(suffix.as_str()) && host.len() > suffix.len()).then_some(9_000 - suffix.len())?
        }
    };
    let (kind, literals, length) = match &rule.path {
        PathPattern::Exact(text) => (text == path).then_some((0, vec![], 0))?,
        PathPattern::Segments(segments) => {
            let pieces: Vec<_> = path.split('/').skip(1).collect();
            let fits = |(segment, piece): (&Segment, &&str)| match segment {
                Segment::Literal(text) => text == piece,
                Segment::Parameter(_) => !piece.is_empty(),
            };
            let matches = pieces.len() == segments.len() && segments.iter().zip(&pieces).all(fits);
            let wild = segments.iter().map(|segment| matches!(segment, Segment::Parameter(_))).collect();
            matches.then_some((1, wild, 0))?
        }
        PathPattern::Regex(regex) => regex.is_match(path).then_some((2, vec![], 0))?,
        PathPattern::Prefix(prefix) => path.starts_with(prefix.as_str()).then_some((3, vec![], 999 - prefix.len()))?,
    };
    Some((host, kind, literals, length))
}

fn naive(rules: &[Rule], method: &Method, host: &str, path: &str) -> Result<usize, bool> {
    let ranked = |(at, rule)| naive_rank(rule, host, path).map(|rank| (rank, at));
    let mut ranked: Vec<_> = rules.iter().enumerate().filter_map(ranked).collect();
    ranked.sort();
    ranked.iter().find(|(_, at)| rules[*at].takes_method(method)).map(|(_, at)| *at).ok_or(!ranked.is_empty())
}

proptest! {
    #[test]
    fn the_index_finds_what_reading_every_rule_finds(
        rules in proptest::collection::vec(
            "(GET |POST |)(a\\.x|b\\.a\\.x|\\*\\.x|\\*\\.a\\.x|)((/[ab]{1,2}){1,3}(/\\*|\\*|/|)|(/([ab]|\\{p\\})){1,4}|/\\*)|~ \\^/[ab]/?", 0..12),
        host in "(a\\.x|b\\.a\\.x|c\\.a\\.x|x|y)",
        path in "(/[ab]{0,2}){1,4}",
        get: bool,
    ) {
        let method = if get { Method::GET } else { Method::POST };
        let rules: Vec<Rule> = rules.iter().map(|text| rule(text)).collect();
        let expected = naive(&rules, &method, &host, &path);
        let found = find(&Router::index(rules), method.as_str(), &host, &path).map_err(|allow| !allow.is_empty());
        prop_assert_eq!(found, expected);
    }
}
