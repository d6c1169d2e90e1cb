//! The URL that a client asked for, in the one spelling by which operators purge.

use std::sync::Arc;

use super::{key::without_default_port, tags::Tag};

/// `http://example.org/a?b`: host in lower case, without the port that the scheme implies; path and query as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    text: Arc<str>,
    /// Where path and query begin.
    target: usize,
    tag: Tag,
    origin: Tag,
}

impl Url {
    /// The URL of a request.
    #[must_use]
    pub fn new(scheme: &str, authority: &str, target: &str) -> Self {
        let mut text = format!("{scheme}://{}", without_default_port(scheme, authority));
        text.make_ascii_lowercase();
        let origin = Tag::origin(&text);
        let at = text.len();
        text.push_str(target);
        Self { tag: Tag::url(&text), text: text.into(), target: at, origin }
    }

    /// A URL, or the beginning of one, in an operator's words; `None` unless it begins with scheme and host.
    ///
    /// Without a path it is the root, so that `http://example.org` never means `example.org.elsewhere`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let scheme = ["http", "https"].into_iter().find(|known| scheme.eq_ignore_ascii_case(known))?;
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let is_host = |byte: u8| byte.is_ascii_graphic() && !b"@\\\"<>".contains(&byte);
        if authority.is_empty()
            || !authority.bytes().all(is_host)
            || !target.bytes().all(|b| b.is_ascii_graphic())
        {
            return None;
        }
        let slash = if target.starts_with('/') { "" } else { "/" };
        Some(Self::new(scheme, authority, &format!("{slash}{target}")))
    }

    /// The whole of it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Scheme, host with port, and target.
    #[must_use]
    pub fn parts(&self) -> (&str, &str, &str) {
        let (origin, target) = self.text.split_at(self.target);
        let (scheme, authority) = origin.split_once("://").unwrap_or(("", origin));
        (scheme, authority, target)
    }

    /// What every entry fetched for it is purged by.
    #[must_use]
    pub fn tag(&self) -> Tag {
        self.tag
    }

    /// What every entry of its origin (scheme, host, port) is purged by.
    #[must_use]
    pub fn origin(&self) -> Tag {
        self.origin
    }

    /// The tag of a group of responses (RFC 9875 §2): the same name at another origin is another group.
    #[must_use]
    pub fn group(&self, name: &[u8]) -> Tag {
        Tag::group(self.origin_text(), name)
    }

    /// Scheme, host and port.
    pub(super) fn origin_text(&self) -> &str {
        &self.text[..self.target]
    }

    /// Bytes it occupies besides itself.
    #[must_use]
    pub fn bytes(&self) -> usize {
        // The counts of the Arc, and the text.
        2 * size_of::<usize>() + self.text.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_and_requests_spell_alike() {
        let url = Url::new("https", "Example.org:443", "/A?b");
        assert_eq!(url.as_str(), "https://example.org/A?b");
        assert_eq!(url.parts(), ("https", "example.org", "/A?b"));
        for text in ["https://example.org/A?b", "HTTPS://EXAMPLE.ORG:443/A?b#part"] {
            assert_eq!(Url::parse(text).as_ref(), Some(&url), "{text}");
        }
        assert_eq!(Url::parse("http://h").map(|url| url.as_str().to_owned()).as_deref(), Some("http://h/"));
        assert_eq!(
            Url::parse("http://h?q").map(|url| url.as_str().to_owned()).as_deref(),
            Some("http://h/?q")
        );
        for text in ["", "/a", "h/a", "ftp://h/", "http://", "http:///a", "http://user@h/", "http://h/a b"] {
            assert_eq!(Url::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_group_belongs_to_its_origin() {
        let here = Url::new("http", "a", "/x");
        assert_eq!(here.group(b"g"), Url::new("http", "a", "/y").group(b"g"));
        assert_ne!(here.group(b"g"), Url::new("http", "b", "/x").group(b"g"));
        assert_ne!(here.group(b"g"), Url::new("https", "a", "/x").group(b"g"));
    }
}
