//! What a write makes obsolete (RFC 9111 §4.4): its target, and what it names in `Location` and `Content-Location`,
//! as long as they are of the same origin.

use http::{HeaderMap, Method, StatusCode, header};

use super::{
    key::without_default_port,
    tags::{Purge, Tag, Tags},
};

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
    tags.purge(Tag::uri(scheme, authority, target), Purge::Hard);
    for name in [header::LOCATION, header::CONTENT_LOCATION] {
        let named = response.get(&name).and_then(|value| value.to_str().ok());
        if let Some(other) = named.and_then(|reference| same_origin(reference, scheme, authority, target)) {
            tags.purge(Tag::uri(scheme, authority, &other), Purge::Hard);
        }
    }
    true
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
    use crate::cache::Standing;

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
}
