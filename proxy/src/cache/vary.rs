//! Which requests a stored answer was made for: `Vary` (RFC 9111 §4.1).
//!
//! Values are compared as the field's grammar allows: whitespace around members never counts, the case and order of
//! `Accept-Encoding` neither. What is not known to be a list is compared as it stands. An answer in the language that a
//! request likes best is also for that request, whatever else it would take.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, header};

use super::{directives::members, policy::NotStored};
use crate::coding::weight;

/// More names than this in one `Vary`, and the answer is not stored: it would not be found again.
const MOST_FIELDS: usize = 16;

/// The request fields an answer depends on, with the values it was made for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Variant(pub(super) Box<[Field]>);

#[derive(Debug, Clone)]
pub(super) struct Field {
    pub(super) name: HeaderName,
    /// In the form that is compared; `None` is an absent field.
    pub(super) value: Option<Box<[u8]>>,
    /// As the first request wrote it, where that was one line: most others write the same, and are compared without
    /// bringing theirs into form.
    pub(super) written: Option<Box<[u8]>>,
    /// Of `Accept-Language`: the language that the answer is in.
    pub(super) language: Option<Box<[u8]>>,
}

impl PartialEq for Field {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, &self.value) == (&other.name, &other.value)
    }
}

impl Eq for Field {}

impl Field {
    fn of(name: HeaderName, response: &HeaderMap, request: &HeaderMap) -> Self {
        let value = value(&name, request).map(|value| value.into_owned().into_boxed_slice());
        let written = only_line(&name, request).map(Box::from);
        let language = only_line(&header::CONTENT_LANGUAGE, response)
            .filter(|language| name == header::ACCEPT_LANGUAGE && members(language).count() == 1)
            .map(|language| language.trim_ascii().to_ascii_lowercase().into_boxed_slice());
        Self { name, value, written, language }
    }

    fn matches(&self, request: &mut InForm<'_>) -> bool {
        let same = self.written.is_some() && only_line(&self.name, request.fields) == self.written.as_deref();
        same || {
            let asked = request.form(&self.name);
            asked.value.as_deref() == self.value.as_deref()
                || self.language.is_some() && asked.favourite == self.language
        }
    }

    fn bytes(&self) -> usize {
        let length = |value: &Option<Box<[u8]>>| value.as_ref().map_or(0, |value| value.len());
        size_of::<Self>()
            + self.name.as_str().len()
            + length(&self.value)
            + length(&self.written)
            + length(&self.language)
    }
}

/// A request that is held against many variants: each of its fields is brought into form once, when one depends on it.
#[derive(Debug)]
pub(super) struct InForm<'r> {
    fields: &'r HeaderMap,
    known: Vec<Form<'r>>,
}

#[derive(Debug)]
struct Form<'r> {
    name: HeaderName,
    value: Option<Cow<'r, [u8]>>,
    /// Of `Accept-Language`.
    favourite: Option<Box<[u8]>>,
}

impl<'r> From<&'r HeaderMap> for InForm<'r> {
    fn from(fields: &'r HeaderMap) -> Self {
        Self { fields, known: Vec::new() }
    }
}

impl<'r> InForm<'r> {
    fn form(&mut self, name: &HeaderName) -> &Form<'r> {
        let at = self.known.iter().position(|form| form.name == *name).unwrap_or_else(|| {
            let value = value(name, self.fields);
            let accepted = value.as_deref().filter(|_| *name == header::ACCEPT_LANGUAGE);
            let favourite = favourite(accepted).map(Box::from);
            self.known.push(Form { name: name.clone(), value, favourite });
            self.known.len() - 1
        });
        &self.known[at]
    }
}

impl Variant {
    /// What `response` says it depends on, with `request`'s values; and the `Origin` that it allows by repeating it, which
    /// many servers forget to say (Fetch, "CORS protocol and HTTP caches").
    ///
    /// # Errors
    /// [`NotStored::VaryStar`] for `*` or a member that is no field name, [`NotStored::VaryTooMany`].
    pub fn of(response: &HeaderMap, request: &HeaderMap) -> Result<Self, NotStored> {
        let mut names = Vec::new();
        for member in response.get_all(header::VARY).iter().flat_map(|value| members(value.as_bytes())) {
            // `*` is a token, and so would pass for a name.
            let name = HeaderName::from_bytes(member).ok().filter(|name| name.as_str() != "*");
            names.push(name.ok_or(NotStored::VaryStar)?);
        }
        let allowed = response.get(header::ACCESS_CONTROL_ALLOW_ORIGIN);
        if allowed.is_some() && allowed == request.get(header::ORIGIN) {
            names.push(header::ORIGIN);
        }
        names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        names.dedup();
        if names.len() > MOST_FIELDS {
            return Err(NotStored::VaryTooMany);
        }
        Ok(Self(names.into_iter().map(|name| Field::of(name, response, request)).collect()))
    }

    /// What tells a request from others, where answers depend on these fields.
    pub(super) fn asked(names: Vec<HeaderName>, request: &HeaderMap) -> Self {
        let none = HeaderMap::new();
        Self(names.into_iter().map(|name| Field::of(name, &none, request)).collect())
    }

    /// Whether the answer was made for requests like this one.
    #[must_use]
    pub fn matches(&self, request: &HeaderMap) -> bool {
        self.suits(&mut request.into())
    }

    /// The same of a request that is held against others, too.
    pub(super) fn suits(&self, request: &mut InForm<'_>) -> bool {
        self.0.iter().all(|field| field.matches(request))
    }

    /// The fields' names.
    pub(super) fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.0.iter().map(|field| &field.name)
    }

    /// The fields, each with the value that the answer was made for, if there was one.
    pub fn fields(&self) -> impl Iterator<Item = (&HeaderName, Option<&[u8]>)> {
        self.0.iter().map(|field| (&field.name, field.value.as_deref()))
    }

    /// Bytes it occupies besides itself.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.iter().map(Field::bytes).sum()
    }
}

/// The field's value where it is a single line.
fn only_line<'a>(name: &HeaderName, request: &'a HeaderMap) -> Option<&'a [u8]> {
    let mut lines = request.get_all(name).iter();
    let first = lines.next()?;
    lines.next().is_none().then(|| first.as_bytes())
}

#[cfg(test)]
thread_local! {
    /// Fields that were brought into form.
    pub(super) static FORMED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// The field's value in one form for all spellings that mean the same; borrowed if it is a single plain line.
fn value<'a>(name: &HeaderName, request: &'a HeaderMap) -> Option<Cow<'a, [u8]>> {
    #[cfg(test)]
    FORMED.set(FORMED.get() + 1);
    let mut lines = request.get_all(name).iter();
    let first = lines.next()?.as_bytes();
    let list = [header::ACCEPT, header::ACCEPT_ENCODING, header::ACCEPT_LANGUAGE].contains(name);
    if !list {
        let mut joined = Cow::Borrowed(first.trim_ascii());
        for line in lines {
            let joined = joined.to_mut();
            joined.extend_from_slice(b", ");
            joined.extend_from_slice(line.as_bytes().trim_ascii());
        }
        return Some(joined);
    }
    let mut parts: Vec<Vec<u8>> = std::iter::once(first)
        .chain(lines.map(http::HeaderValue::as_bytes))
        .flat_map(members)
        .map(|member| {
            let bare = member.iter().filter(|byte| !byte.is_ascii_whitespace());
            bare.map(u8::to_ascii_lowercase).collect()
        })
        .collect();
    // Among codings only the weights say what is preferred (RFC 9110 §12.5.3); the others keep their order, which
    // servers are known to read.
    if *name == header::ACCEPT_ENCODING {
        parts.sort_unstable();
        parts.dedup();
    }
    Some(Cow::Owned(parts.join(&b',')))
}

/// The one language that a request likes better than all others (RFC 9110 §12.5.4). Of equal ones none is: their order
/// tells some servers which, and others nothing.
fn favourite(accepted: Option<&[u8]>) -> Option<&[u8]> {
    let mut best = (0, None);
    for member in accepted?.split(|byte| *byte == b',') {
        let (language, weight) = match member.iter().position(|byte| *byte == b';') {
            Some(at) => (&member[..at], weight(member[at + 1..].strip_prefix(b"q=")?)?),
            None => (member, 1000),
        };
        match weight.cmp(&best.0) {
            std::cmp::Ordering::Greater => best = (weight, Some(language)),
            std::cmp::Ordering::Equal => best.1 = None,
            std::cmp::Ordering::Less => {}
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot build its input has failed")]
    use super::*;
    use crate::cache::testing::*;

    #[test]
    fn spellings_that_mean_the_same_match_and_others_do_not() {
        let vary = map(&[("vary", "Accept-Encoding"), ("vary", "x-a, accept-encoding")]);
        let made_for = map(&[("accept-encoding", "gzip, BR;q=0.5"), ("x-a", "one, two")]);
        let variant = Variant::of(&vary, &made_for).unwrap();
        assert!(variant.matches(&made_for));
        assert!(variant.matches(&map(&[
            ("accept-encoding", "br; q=0.5"),
            ("accept-encoding", "gzip"),
            ("x-a", "one"),
            ("x-a", "two")
        ])));
        for other in [
            map(&[("accept-encoding", "gzip"), ("x-a", "one, two")]),
            map(&[("accept-encoding", "gzip, br;q=0.5"), ("x-a", "two, one")]),
            map(&[("accept-encoding", "gzip, br;q=0.5")]),
            map(&[("accept-encoding", "gzip, br;q=0.5"), ("x-a", "")]),
        ] {
            assert!(!variant.matches(&other), "{other:?}");
        }
    }

    #[test]
    fn an_answer_in_the_language_liked_best_is_for_that_request_too() {
        let german = map(&[("vary", "accept-language"), ("content-language", "de-AT")]);
        let variant = Variant::of(&german, &map(&[("accept-language", "en, de-AT")])).unwrap();
        let suits = |accepted| variant.matches(&map(&[("accept-language", accepted)]));
        for accepted in ["en, de-at", "De-At", "fr;q=0.5, de-at;q=1.0", "de-at, en;q=0.999, *;q=0.1"] {
            assert!(suits(accepted), "{accepted}");
        }
        for accepted in [
            "de-at, en",
            "de",
            "de-at;q=0.5, en",
            "de-at;q=0",
            "de-at;q=2",
            "de-at;q=0.9, en;q=x",
            "de-at;level=1",
            "*",
            "",
        ] {
            assert!(!suits(accepted), "{accepted}");
        }
        assert!(!variant.matches(&map(&[])));
        let both = map(&[("vary", "accept-language"), ("content-language", "de, en")]);
        let variant = Variant::of(&both, &map(&[])).unwrap();
        assert!(!variant.matches(&map(&[("accept-language", "de")])));
    }

    #[test]
    fn absence_is_a_value() {
        let variant = Variant::of(&map(&[("vary", "x-a")]), &map(&[])).unwrap();
        assert!(variant.matches(&map(&[("x-b", "1")])));
        assert!(!variant.matches(&map(&[("x-a", "")])));
    }

    #[test]
    fn a_star_or_an_invalid_name_anywhere_forbids_storing() {
        for vary in ["*", "x-a, *", "*, x-a", "a b", "x-a, \"*\""] {
            assert_eq!(Variant::of(&map(&[("vary", vary)]), &map(&[])), Err(NotStored::VaryStar), "{vary}");
        }
        let many: Vec<_> = (0..17).map(|n| format!("x-{n}")).collect();
        let many = map(&[("vary", &many.join(","))]);
        assert_eq!(Variant::of(&many, &map(&[])), Err(NotStored::VaryTooMany));
        assert_eq!(Variant::of(&map(&[]), &map(&[])), Ok(Variant::default()));
    }
}
