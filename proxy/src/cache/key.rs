//! What tells answers apart: the full text, and a 128-bit hash of it under a seed of this process.
//!
//! The hash finds the shard and the slot; the text is compared on every hit, so a collision costs a miss and never
//! an answer of another key. The seed is random, so nobody outside can aim at one shard.

use std::{fmt::Write as _, sync::LazyLock};

use siphasher::sip128::SipHasher13;

use super::{slice::Slice, tags::Tag};

static SEED: LazyLock<SipHasher13> = LazyLock::new(|| SipHasher13::new_with_key(&rand::random()));

/// How keys of parts begin.
const PART: &str = "p0:";

/// A cache key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    text: String,
    hash: u128,
    /// Of a key of parts: the tag of the key of their whole.
    whole: Option<Tag>,
    slice: Option<Slice>,
}

impl Key {
    /// The key of a target: scheme, authority and the target exactly as it is forwarded, within a realm.
    ///
    /// Shape:  each part but the last carries its length, so no two of them render alike. The authority is compared
    ///         without regard to case, and the scheme's default port counts as none.
    /// Source: RFC 9111 §2; RFC 9110 §4.2.3 for case and port.
    #[must_use]
    pub fn target(realm: &str, scheme: &str, authority: &str, target: &str) -> Self {
        let host = without_default_port(scheme, authority);
        let length = realm.len() + scheme.len() + host.len() + target.len() + "t65535:5:65535:".len();
        let mut text = String::with_capacity(length);
        text.push('t');
        push_part(&mut text, realm);
        push_part(&mut text, scheme);
        push_length(&mut text, host);
        let from = text.len();
        text.push_str(host);
        text[from..].make_ascii_lowercase();
        text.push_str(target);
        Self::hashed(text)
    }

    /// A key the operator's template rendered, within a realm; `doubts` are what the template could not see.
    #[must_use]
    pub fn rendered(realm: &str, doubts: &str, rendered: &str) -> Self {
        let length = realm.len() + doubts.len() + rendered.len() + "k65535:65535:".len();
        let mut text = String::with_capacity(length);
        text.push('k');
        push_part(&mut text, realm);
        push_part(&mut text, doubts);
        text.push_str(rendered);
        Self::hashed(text)
    }

    /// The same for a QUERY that sends `content` of this kind (its type, coding and language): another content is another
    /// question (RFC 10008 §2.7). Of the content, the key has the SHA-256.
    #[must_use]
    pub fn with_content(self, kind: &str, content: &[u8]) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, content);
        let mut text = format!("q{}:{kind}", kind.len());
        for byte in digest.as_ref() {
            let _ = write!(text, "{byte:02x}");
        }
        text.push_str(&self.text);
        Self::hashed(text)
    }

    /// The key of a part of what this is the key of: the `index`th of so many bytes.
    #[must_use]
    pub fn slice(&self, index: u64, size: u64) -> Self {
        let mut text = String::from("s");
        push_part(&mut text, &format!("{index}x{size}"));
        text.push_str(&self.text);
        Self { whole: Some(Tag::key(self)), slice: Some(Slice { index, size }), ..Self::hashed(text) }
    }

    /// The key of a part of what this is the key of, as a client asked for it.
    #[must_use]
    pub fn part(&self) -> Self {
        let text = format!("{PART}{}", self.text);
        Self { whole: Some(Tag::key(self)), ..Self::hashed(text) }
    }

    /// The key of what [`Key::part`] was asked.
    pub(super) fn of_whole(&self) -> Option<Self> {
        Some(Self::hashed(self.text.strip_prefix(PART)?.to_owned()))
    }

    /// The tag of the key of the whole, if it stands for parts of that: who purges that purges them.
    pub(super) fn whole(&self) -> Option<Tag> {
        self.whole
    }

    /// Which slice of its whole it stands for, if for one.
    #[must_use]
    pub fn of_slice(&self) -> Option<&Slice> {
        self.slice.as_ref()
    }

    /// The full text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The key in an operator's words: what the template rendered, or the URL.
    #[must_use]
    pub fn shown(&self) -> String {
        shown(&self.text).unwrap_or_else(|| self.text.clone())
    }

    /// The hash, different in every process.
    #[must_use]
    pub fn hash(&self) -> u128 {
        self.hash
    }

    /// The key with this full text.
    pub(super) fn again(text: &str) -> Self {
        Self::hashed(text.to_owned())
    }

    fn hashed(text: String) -> Self {
        let hash = hash(text.as_bytes());
        Self { text, hash, whole: None, slice: None }
    }
}

/// A part that carries its length, and what follows it.
fn part(text: &str) -> Option<(&str, &str)> {
    let (length, rest) = text.split_once(':')?;
    rest.split_at_checked(length.parse().ok()?)
}

/// A part with its length.
fn push_part(text: &mut String, part: &str) {
    push_length(text, part);
    text.push_str(part);
}

/// How long a part is, and a colon.
fn push_length(text: &mut String, part: &str) {
    push_number(text, part.len());
    text.push(':');
}

fn push_number(text: &mut String, number: usize) {
    if number >= 10 {
        push_number(text, number / 10);
    }
    text.push(char::from(b"0123456789"[number % 10]));
}

fn shown(text: &str) -> Option<String> {
    let (kind, rest) = text.split_at_checked(1)?;
    // The realm, what a QUERY sends, or which slice it is.
    let (first, rest) = part(rest)?;
    Some(match kind {
        "t" => {
            let (scheme, rest) = part(rest)?;
            let (host, target) = part(rest)?;
            format!("{scheme}://{host}{target}")
        }
        "q" => {
            let (digest, rest) = rest.split_at_checked(64)?;
            format!("{} QUERY {digest}", shown(rest)?)
        }
        "s" => format!("{} slice {}", shown(rest)?, first.split('x').next()?),
        "p" => format!("{} part", shown(rest)?),
        _ => part(rest)?.1.to_owned(),
    })
}

/// 128 bits of SipHash under this process's seed.
pub(super) fn hash(text: &[u8]) -> u128 {
    SEED.hash(text).as_u128()
}

/// `authority` without the port that `scheme` implies.
pub(super) fn without_default_port<'a>(scheme: &str, authority: &'a str) -> &'a str {
    let port = if scheme.eq_ignore_ascii_case("https") { ":443" } else { ":80" };
    // A bare IPv6 address has no port to lose; in brackets, the suffix cannot match inside.
    authority.strip_suffix(port).unwrap_or(authority)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(scheme: &str, authority: &str, target: &str) -> Key {
        Key::target("", scheme, authority, target)
    }

    #[test]
    fn parts_cannot_be_moved_across_their_borders() {
        assert_ne!(target("http", "a", "b/c"), target("http", "ab", "/c"));
        assert_ne!(target("http", "a1:", "/"), target("http", "a", "1:/"));
        let rendered = |realm, doubts, text| Key::rendered(realm, doubts, text);
        assert_ne!(rendered("", "a", "bc"), rendered("", "ab", "c"));
        assert_ne!(rendered("a", "", "bc"), rendered("", "a", "bc"));
        assert_ne!(rendered("", "4:http1:a", "/").text(), target("http", "a", "/").text());
    }

    #[test]
    fn one_realms_answers_are_no_other_realms() {
        let target = |realm| Key::target(realm, "http", "a", "/");
        assert_ne!(target("3:api"), target("5:other"));
        assert_eq!(target("3:api").shown(), target("5:other").shown());
    }

    #[test]
    fn a_slice_is_no_other_slice_and_not_the_whole() {
        let whole = target("http", "a", "/");
        assert_eq!(whole.slice(1, 10), whole.slice(1, 10));
        assert_eq!(whole.part().of_whole(), Some(whole.clone()));
        assert_eq!(whole.slice(1, 10).of_whole(), None);
        for other in [
            whole.clone(),
            whole.part(),
            whole.slice(2, 10),
            whole.slice(1, 11),
            target("http", "b", "/").slice(1, 10),
        ] {
            assert_ne!(whole.slice(1, 10), other);
        }
    }

    #[test]
    fn every_length_is_written_whole() {
        for length in [0, 1, 9, 10, 99, 100, 8192] {
            let host = "h".repeat(length);
            assert_eq!(target("http", &host, "/").text(), format!("t0:4:http{length}:{host}/"));
        }
    }

    #[test]
    fn the_default_port_and_the_case_of_a_host_do_not_matter() {
        assert_eq!(target("http", "Example.org:80", "/A"), target("http", "example.org", "/A"));
        assert_eq!(target("https", "example.org:443", "/"), target("https", "example.org", "/"));
    }

    #[test]
    fn a_key_is_shown_as_operators_write_it() {
        assert_eq!(target("http", "A:80", "/b?c").shown(), "http://a/b?c");
        assert_eq!(Key::rendered("1:ar", "", "items:1:2").shown(), "items:1:2");
        assert_eq!(Key::rendered("", "n", "").shown(), "");
        assert_eq!(target("http", "a", "/b").slice(3, 1024).shown(), "http://a/b slice 3");
        assert_eq!(target("http", "a", "/b").part().shown(), "http://a/b part");
    }

    #[test]
    fn scheme_port_path_case_and_query_do_matter() {
        let one = target("http", "example.org", "/a?b");
        for other in [
            target("https", "example.org", "/a?b"),
            target("http", "example.org:8080", "/a?b"),
            target("http", "example.org:443", "/a?b"),
            target("http", "example.org", "/A?b"),
            target("http", "example.org", "/a"),
            target("http", "example.org.", "/a?b"),
        ] {
            assert_ne!(one, other);
            assert_ne!(one.hash(), other.hash());
        }
    }
}
