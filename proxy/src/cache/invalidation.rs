//! What a write makes obsolete (RFC 9111 §4.4): its target, and what it names in `Location` and `Content-Location`,
//! as long as they are of the same origin. And what an origin asks to be forgotten: groups of its responses
//! (`Cache-Group-Invalidation`, RFC 9875 §3), or all of them (`Clear-Site-Data: "cache"`).
//!
//! A safe request ends nothing that is kept for others, whatever its answer says: any page on the web can make a browser
//! send one.

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use super::{
    key::without_default_port,
    policy::groups,
    subject::Subject,
    tags::{Purge, Tags},
    url::Url,
};

const CACHE_GROUP_INVALIDATION: HeaderName = HeaderName::from_static("cache-group-invalidation");
const CLEAR_SITE_DATA: HeaderName = HeaderName::from_static("clear-site-data");

/// Purges what an unsafe request changed, once the origin has said it succeeded; in every cache, and for fills under
/// way too. Call it before the client hears of the success, so that its next read is a new one.
///
/// `target` is as forwarded. Says whether anything was purged.
pub fn after_unsafe(
    tags: &Tags,
    method: &Method,
    (scheme, authority, target): (&str, &str, &str),
    status: StatusCode,
    response: &HeaderMap,
) -> bool {
    // A method we do not know may be unsafe; errors change nothing (§4.4: "non-error" is 2xx or 3xx).
    if method.is_safe() || !(status.is_success() || status.is_redirection()) {
        return false;
    }
    tags.order(Subject::uri(scheme, authority, target), Purge::Hard);
    for name in [header::LOCATION, header::CONTENT_LOCATION] {
        let named = response.get(&name).and_then(|value| value.to_str().ok());
        if let Some(other) = named.and_then(|reference| same_origin(reference, scheme, authority, target)) {
            tags.order(Subject::uri(scheme, authority, &other), Purge::Hard);
        }
    }
    true
}

/// Whether an answer to this method can make anything obsolete; most cannot.
#[must_use]
pub fn may_purge(method: &Method, response: &HeaderMap) -> bool {
    !method.is_safe() || response.contains_key(CLEAR_SITE_DATA)
}

/// Purges what the origin asks for in an answer that succeeded; in every cache, and for fills under way too.
///
/// `Clear-Site-Data` is written for one browser: from an answer to a known caller, it ends what is kept for that caller.
/// Where no caller is known, an unsafe request's answer ends everything of the origin. Says how many purges it was.
///
/// Source: RFC 9875 §3 (ignored on answers to safe methods); W3C Clear Site Data §3.1.
pub fn at_the_origin_s_word(
    tags: &Tags,
    method: &Method,
    url: &Url,
    caller: Option<&str>,
    status: StatusCode,
    response: &HeaderMap,
) -> usize {
    if !(status.is_success() || status.is_redirection()) {
        return 0;
    }
    let mut named = Vec::new();
    if !method.is_safe() {
        named
            .extend(groups(response, &CACHE_GROUP_INVALIDATION).iter().map(|name| Subject::group(url, name)));
    }
    if clears_caches(response) {
        named.extend(
            caller.map(Subject::caller).or_else(|| (!method.is_safe()).then(|| Subject::origin(url))),
        );
    }
    let count = named.len();
    named.into_iter().for_each(|subject| tags.order(subject, Purge::Hard));
    count
}

fn clears_caches(response: &HeaderMap) -> bool {
    let lines = response.get_all(CLEAR_SITE_DATA).iter().map(HeaderValue::as_bytes);
    let mut kinds = lines.flat_map(|line| line.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    kinds.any(|kind| matches!(kind, b"\"cache\"" | b"\"*\""))
}

/// The target a reference points to from `target`, if that is of the same origin (RFC 3986 §5.2).
fn same_origin(reference: &str, scheme: &str, authority: &str, target: &str) -> Option<String> {
    let reference = reference.split('#').next().unwrap_or_default();
    let after_scheme = match reference.split_once("://") {
        Some((other, rest)) if !other.contains(['/', '?']) => {
            if !other.eq_ignore_ascii_case(scheme) {
                return None;
            }
            Some(rest)
        }
        _ => reference.strip_prefix("//"),
    };
    if let Some(rest) = after_scheme {
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (other, path) = rest.split_at(end);
        let same =
            without_default_port(scheme, other).eq_ignore_ascii_case(without_default_port(scheme, authority));
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        return same.then(|| without_dots(&path));
    }
    let base = target.split('?').next().unwrap_or_default();
    if reference.is_empty() {
        return None; // the target itself
    }
    if reference.starts_with('?') {
        return Some(format!("{base}{reference}"));
    }
    if reference.starts_with('/') {
        return Some(without_dots(reference));
    }
    let folder = &base[..base.rfind('/').map_or(0, |slash| slash + 1)];
    Some(without_dots(&format!("{folder}{reference}")))
}

/// The target with `.` and `..` segments of its path resolved (RFC 3986 §5.2.4).
fn without_dots(target: &str) -> String {
    let (path, query) = target.find('?').map_or((target, ""), |at| target.split_at(at));
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." if last => kept.push(""),
            "." => {}
            ".." => {
                kept.pop();
                if last {
                    kept.push("");
                }
            }
            segment => kept.push(segment),
        }
    }
    format!("/{}{query}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot build its input has failed")]
    use super::*;
    use crate::cache::{Standing, Tag};

    #[test]
    fn references_resolve_against_the_target() {
        let resolve = |reference| same_origin(reference, "https", "example.org", "/a/b?q");
        for (reference, expected) in [
            ("https://example.org/x?y#z", Some("/x?y")),
            ("HTTPS://Example.org:443/x", Some("/x")),
            ("//example.org/x", Some("/x")),
            ("https://example.org", Some("/")),
            ("/x", Some("/x")),
            ("c", Some("/a/c")),
            ("../c/./d?e=../f", Some("/c/d?e=../f")),
            ("?r", Some("/a/b?r")),
            ("/go?to=http://elsewhere/", Some("/go?to=http://elsewhere/")),
            ("#here", None),
            ("http://example.org/x", None),
            ("https://example.org.evil/x", None),
            ("//elsewhere/x", None),
        ] {
            assert_eq!(resolve(reference).as_deref(), expected, "{reference}");
        }
    }

    #[test]
    fn a_successful_write_purges_its_target_and_what_it_names() {
        let tags = Tags::new();
        let mut response = HeaderMap::new();
        response.insert(header::LOCATION, "/items/7".parse().unwrap());
        response.insert(header::CONTENT_LOCATION, "https://elsewhere/items".parse().unwrap());
        let before = tags.moment();
        let here = ("https", "example.org", "/items");
        assert!(after_unsafe(&tags, &Method::POST, here, StatusCode::CREATED, &response));
        let standing = |authority, target| tags.standing(&[Tag::uri("https", authority, target)], before);
        assert_eq!(standing("example.org", "/items"), Standing::Gone);
        assert_eq!(standing("example.org", "/items/7"), Standing::Gone);
        assert_eq!(standing("elsewhere", "/items"), Standing::Good);
        assert_eq!(standing("example.org", "/items/8"), Standing::Good);
    }

    #[test]
    fn reads_and_failed_writes_purge_nothing() {
        let tags = Tags::new();
        let here = ("https", "example.org", "/items");
        let none = HeaderMap::new();
        assert!(!after_unsafe(&tags, &Method::GET, here, StatusCode::OK, &none));
        assert!(!after_unsafe(&tags, &Method::PUT, here, StatusCode::CONFLICT, &none));
        assert!(!after_unsafe(&tags, &Method::DELETE, here, StatusCode::BAD_GATEWAY, &none));
        let unknown = Method::from_bytes(b"FROB").unwrap();
        assert!(after_unsafe(&tags, &unknown, here, StatusCode::OK, &none));
    }

    #[test]
    fn groups_end_at_their_origin_by_unsafe_requests_alone() {
        let (tags, here) = (Tags::new(), Url::new("https", "example.org", "/write"));
        let mut response = HeaderMap::new();
        response.append(CACHE_GROUP_INVALIDATION, "\"a\", \"b\"".parse().unwrap());
        response.append(CACHE_GROUP_INVALIDATION, "\"c\"".parse().unwrap());
        let before = tags.moment();
        let say =
            |method: Method, status| at_the_origin_s_word(&tags, &method, &here, None, status, &response);
        assert_eq!(say(Method::GET, StatusCode::OK), 0);
        assert_eq!(say(Method::POST, StatusCode::CONFLICT), 0);
        assert_eq!(tags.standing(&[here.group(b"a")], before), Standing::Good);
        assert_eq!(say(Method::POST, StatusCode::OK), 3);
        for name in ["a", "b", "c"] {
            assert_eq!(tags.standing(&[here.group(name.as_bytes())], before), Standing::Gone, "{name}");
        }
        assert_eq!(tags.standing(&[Url::new("https", "other.org", "/").group(b"a")], before), Standing::Good);
    }

    #[test]
    fn clear_site_data_ends_a_caller_s_entries_or_by_an_unsafe_request_the_origin_s() {
        let (tags, here) = (Tags::new(), Url::new("https", "example.org", "/logout"));
        let (before, caller, origin) = (tags.moment(), Tag::caller("anna"), here.origin());
        let say = |method: Method, caller, value: &str| {
            let mut response = HeaderMap::new();
            response.insert(CLEAR_SITE_DATA, value.parse().unwrap());
            at_the_origin_s_word(&tags, &method, &here, caller, StatusCode::OK, &response)
        };
        assert_eq!(say(Method::POST, None, "\"cookies\", cache"), 0);
        assert_eq!(say(Method::GET, None, "\"cache\""), 0, "any page can send a GET");
        assert_eq!(say(Method::GET, Some("anna"), "\"cookies\", \"cache\""), 1);
        assert_eq!(tags.standing(&[caller], before), Standing::Gone);
        assert_eq!(tags.standing(&[origin], before), Standing::Good);
        assert_eq!(say(Method::POST, None, "\"*\""), 1);
        assert_eq!(tags.standing(&[origin], before), Standing::Gone);
    }
}
