//! What a purge names, in words that every edge of a fleet understands; a [`Tag`] is this process's own number for it.

use super::{key::Key, tags::Tag, url::Url};

/// What a purge names: a letter for its kind, and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject(Vec<u8>);

/// What an edge does about a subject.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meant<'s> {
    Tag(Tag),
    Prefix(Url),
    Cache(&'s str),
    /// Every cache; also what is not understood, for a newer edge may mean anything.
    Everything,
}

impl Subject {
    /// What carries a tag, as operators and origins write it.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self::of(b'n', &[name.as_bytes()])
    }

    /// What was fetched from this target (RFC 9111 §4.4).
    #[must_use]
    pub fn uri(scheme: &str, authority: &str, target: &str) -> Self {
        Self::url(&Url::new(scheme, authority, target))
    }

    /// What was asked for by this URL.
    #[must_use]
    pub fn url(url: &Url) -> Self {
        Self::of(b'u', &[url.as_str().as_bytes()])
    }

    /// What is of the origin of this URL.
    #[must_use]
    pub fn origin(url: &Url) -> Self {
        Self::of(b'o', &[url.origin_text().as_bytes()])
    }

    /// What is of a group at the origin of this URL (RFC 9875 §2).
    #[must_use]
    pub fn group(url: &Url, name: &[u8]) -> Self {
        Self::of(b'g', &[url.origin_text().as_bytes(), b" ", name])
    }

    /// What is kept for one caller alone.
    #[must_use]
    pub fn caller(user_id: &str) -> Self {
        Self::of(b'c', &[user_id.as_bytes()])
    }

    /// What is kept under a key.
    #[must_use]
    pub fn key(key: &Key) -> Self {
        Self::of(b'k', &[key.text().as_bytes()])
    }

    /// What was asked for by URLs that begin like this one.
    #[must_use]
    pub fn prefix(prefix: &Url) -> Self {
        Self::of(b'p', &[prefix.as_str().as_bytes()])
    }

    /// What one cache holds.
    #[must_use]
    pub fn cache(name: &str) -> Self {
        Self::of(b'a', &[name.as_bytes()])
    }

    /// Nothing, told to have a place in the stream: what a cache without a name holds, of which there is none.
    #[must_use]
    pub fn nothing() -> Self {
        Self::cache("")
    }

    /// Everything.
    #[must_use]
    pub fn everything() -> Self {
        Self::of(b'*', &[])
    }

    fn of(kind: u8, parts: &[&[u8]]) -> Self {
        Self(std::iter::once(&[kind][..]).chain(parts.iter().copied()).collect::<Vec<_>>().concat())
    }

    /// As another edge wrote it.
    pub(super) fn read(text: Vec<u8>) -> Self {
        Self(text)
    }

    /// For other edges.
    pub(super) fn text(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn meant(&self) -> Meant<'_> {
        let Some((kind, text)) = self.0.split_first() else { return Meant::Everything };
        let meant = match kind {
            b'n' | b'u' | b'o' | b'g' | b'c' | b'k' => Some(Meant::Tag(Tag::hashed(&[*kind], &[text]))),
            b'p' => std::str::from_utf8(text).ok().and_then(Url::parse).map(Meant::Prefix),
            b'a' => std::str::from_utf8(text).ok().map(Meant::Cache),
            _ => None,
        };
        meant.unwrap_or(Meant::Everything)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot build its input has failed")]
    use super::*;

    #[test]
    fn a_subject_means_the_tag_that_entries_carry() {
        let url = Url::parse("http://example.org/a?b").unwrap();
        let key = Key::rendered("", "", "k");
        for (subject, tag) in [
            (Subject::named("news"), Tag::named("news")),
            (Subject::uri("http", "Example.org:80", "/a?b"), url.tag()),
            (Subject::origin(&url), url.origin()),
            (Subject::group(&url, b"g"), url.group(b"g")),
            (Subject::caller("anna"), Tag::caller("anna")),
            (Subject::key(&key), Tag::key(&key)),
        ] {
            let read = Subject::read(subject.text().to_vec());
            assert_eq!(read.meant(), Meant::Tag(tag), "{subject:?}");
        }
        assert_eq!(Subject::prefix(&url).meant(), Meant::Prefix(url));
        assert_eq!(Subject::cache("default").meant(), Meant::Cache("default"));
    }

    #[test]
    fn what_is_not_understood_is_everything() {
        for text in [&b""[..], b"*", b"zwhat a newer edge may say", b"p not a url", b"a\xff"] {
            assert_eq!(Subject::read(text.to_vec()).meant(), Meant::Everything, "{text:?}");
        }
    }
}
