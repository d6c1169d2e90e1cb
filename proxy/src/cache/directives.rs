//! `Cache-Control` as a value: of requests, of responses, and of fields targeted at shared caches.
//!
//! Reading is lenient about form and strict about meaning: what restricts counts even when it is misspelt, and what
//! permits counts only when it is well formed. A malformed number of seconds is 0, conflicting duplicates agree on the
//! most restrictive, and a quote that is never closed hides nothing behind it (RFC 9111 §4.2.1, §5.2).

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, header};

use super::structured::{self, Item};

/// Larger numbers of seconds mean this many (RFC 9111 §1.2.2).
const MOST_SECONDS: u64 = 1 << 31;

/// Fields for caches of our kind, the most specific first; the first that parses replaces `Cache-Control` and
/// `Expires` (RFC 9213 §2.2).
const TARGETED: [HeaderName; 1] = [HeaderName::from_static("cdn-cache-control")];

/// nginx's own: seconds, or `@` and the time of the epoch.
const ACCEL_EXPIRES: HeaderName = HeaderName::from_static("x-accel-expires");

/// What `private` and `no-cache` speak of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Scope {
    /// Not said.
    #[default]
    Nothing,
    /// These fields of the response.
    Fields(Vec<HeaderName>),
    /// The whole response.
    Everything,
}

/// The directives of a message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Directives {
    /// §5.2.1.5, §5.2.2.5.
    pub(super) no_store: bool,
    /// §5.2.1.4, §5.2.2.4.
    pub(super) no_cache: Scope,
    /// §5.2.2.7.
    pub(super) private: Scope,
    /// §5.2.2.9.
    pub(super) public: bool,
    /// §5.2.2.2.
    pub(super) must_revalidate: bool,
    /// §5.2.2.8.
    pub(super) proxy_revalidate: bool,
    /// §5.2.2.3.
    pub(super) must_understand: bool,
    /// §5.2.1.7.
    pub(super) only_if_cached: bool,
    /// §5.2.1.1, §5.2.2.1.
    pub(super) max_age: Option<Duration>,
    /// §5.2.2.10.
    pub(super) s_maxage: Option<Duration>,
    /// §5.2.1.2; without a value, any staleness.
    pub(super) max_stale: Option<Duration>,
    /// §5.2.1.3.
    pub(super) min_fresh: Option<Duration>,
    /// RFC 5861 §3.
    pub(super) stale_while_revalidate: Option<Duration>,
    /// RFC 5861 §4.
    pub(super) stale_if_error: Option<Duration>,
    /// Whether they come from a targeted field, beside which `Expires` does not count.
    pub(super) targeted: bool,
}

impl Directives {
    /// Of a request; `Pragma: no-cache` counts where there is no `Cache-Control` (RFC 9111 §5.4).
    #[must_use]
    pub(super) fn of_request(headers: &HeaderMap) -> Self {
        if headers.contains_key(header::CACHE_CONTROL) {
            return Self::of(headers);
        }
        let mut directives = Self::default();
        let mut pragma = headers.get_all(header::PRAGMA).iter().flat_map(|value| members(value.as_bytes()));
        if pragma.any(|member| member.eq_ignore_ascii_case(b"no-cache")) {
            directives.no_cache = Scope::Everything;
        }
        directives
    }

    /// Of a response: of its targeted field if there is a valid one, else of `Cache-Control`.
    #[must_use]
    pub(super) fn of_response(headers: &HeaderMap) -> Self {
        TARGETED.iter().find_map(|name| Self::of_targeted(headers, name)).unwrap_or_else(|| Self::of(headers))
    }

    /// Of a response in nginx's words, which replace all others as a targeted field does: 0 forbids keeping it. Only what
    /// `Cache-Control` says of stale answers still counts. What cannot be read is as if it were not there. Unlike in nginx, a
    /// received `Age` counts.
    ///
    /// Source: nginx's `ngx_http_upstream_process_accel_expires`.
    #[must_use]
    pub(super) fn of_accel(headers: &HeaderMap, now: SystemTime) -> Option<Self> {
        let value = headers.get(ACCEL_EXPIRES)?.as_bytes();
        let span = match value.strip_prefix(b"@") {
            Some(time) => {
                let until = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(digits(time)?))?;
                capped(until.duration_since(now).unwrap_or_default().as_secs())
            }
            None => capped(digits(value)?),
        };
        let Self { stale_while_revalidate, stale_if_error, .. } = Self::of(headers);
        let said = Self { stale_while_revalidate, stale_if_error, ..Self::default() };
        Some(Self { targeted: true, no_store: value == b"0", max_age: Some(span), ..said })
    }

    fn of(headers: &HeaderMap) -> Self {
        let mut directives = Self::default();
        for value in headers.get_all(header::CACHE_CONTROL) {
            for member in members(value.as_bytes()) {
                directives.add(member);
            }
        }
        directives
    }

    fn add(&mut self, member: &[u8]) {
        let (written, argument) = match member.iter().position(|byte| *byte == b'=') {
            Some(at) => (&member[..at], Some(&member[at + 1..])),
            None => (member, None),
        };
        let name = written.trim_ascii();
        let span = || if name.len() == written.len() { seconds(argument) } else { Duration::ZERO };
        let is = |word: &str| name.eq_ignore_ascii_case(word.as_bytes());
        match name.len() {
            8 if is("no-store") => self.no_store = true,
            8 if is("no-cache") => self.no_cache.widen(argument),
            7 if is("private") => self.private.widen(argument),
            6 if is("public") => self.public |= argument.is_none(),
            15 if is("must-revalidate") => self.must_revalidate = true,
            16 if is("proxy-revalidate") => self.proxy_revalidate = true,
            15 if is("must-understand") => self.must_understand = true,
            14 if is("only-if-cached") => self.only_if_cached = true,
            7 if is("max-age") => least(&mut self.max_age, span()),
            8 if is("s-maxage") => least(&mut self.s_maxage, span()),
            9 if is("max-stale") => {
                let any = Duration::from_secs(MOST_SECONDS);
                least(&mut self.max_stale, if argument.is_none() { any } else { span() });
            }
            9 if is("min-fresh") => self.min_fresh = self.min_fresh.max(Some(span())),
            22 if is("stale-while-revalidate") => least(&mut self.stale_while_revalidate, span()),
            14 if is("stale-if-error") => least(&mut self.stale_if_error, span()),
            _ => {}
        }
    }

    /// RFC 9213 §2.1: a dictionary; one that does not parse, or is empty, is as if it were not there.
    fn of_targeted(headers: &HeaderMap, name: &HeaderName) -> Option<Self> {
        let mut text = Vec::new();
        for value in headers.get_all(name) {
            if !text.is_empty() {
                text.extend_from_slice(b", ");
            }
            text.extend_from_slice(value.as_bytes());
        }
        let dictionary = structured::dictionary(&text)?;
        if dictionary.is_empty() {
            return None;
        }
        let mut directives = Self { targeted: true, ..Self::default() };
        for (name, item) in dictionary {
            let said = item != Item::Boolean(false);
            let span = match item {
                Item::Integer(n) => Some(capped(u64::try_from(n).unwrap_or(0))),
                _ => Some(Duration::ZERO),
            };
            let scope = if said { Scope::Everything } else { Scope::Nothing };
            // A later member replaces an earlier one of the same name (RFC 9651 §4.2.2).
            match name {
                b"no-store" => directives.no_store = said,
                b"no-cache" => directives.no_cache = scope,
                b"private" => directives.private = scope,
                b"public" => directives.public = item == Item::Boolean(true),
                b"must-revalidate" => directives.must_revalidate = said,
                b"proxy-revalidate" => directives.proxy_revalidate = said,
                b"must-understand" => directives.must_understand = said,
                b"max-age" => directives.max_age = span,
                b"s-maxage" => directives.s_maxage = span,
                b"stale-while-revalidate" => directives.stale_while_revalidate = span,
                b"stale-if-error" => directives.stale_if_error = span,
                _ => {}
            }
        }
        Some(directives)
    }
}

impl Scope {
    /// Adds what one directive says: a list of names that are all valid, or else everything.
    fn widen(&mut self, argument: Option<&[u8]>) {
        let named = argument.and_then(|argument| {
            let list = unquoted(argument);
            let names: Option<Vec<_>> = list
                .split(|byte| *byte == b',')
                .map(<[u8]>::trim_ascii)
                .filter(|name| !name.is_empty())
                .map(|name| HeaderName::from_bytes(name).ok())
                .collect();
            names.filter(|names| !names.is_empty())
        });
        match (&mut *self, named) {
            (Self::Everything, _) => {}
            (_, None) => *self = Self::Everything,
            (Self::Nothing, Some(names)) => *self = Self::Fields(names),
            (Self::Fields(known), Some(names)) => known.extend(names),
        }
    }
}

/// The members of a comma-separated list, trimmed, without empty ones; commas in closed quotes do not separate.
///
/// A quote is looked for to the end of the value. One that is never closed had every later one escaped, and what is behind
/// each of these was read in vain already: none of them is ever closed either, nor looked at again.
pub(super) fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut rest, mut quotes) = (Some(value), true);
    std::iter::from_fn(move || {
        loop {
            let text = rest?;
            let mut at = 0;
            while at < text.len() && text[at] != b',' {
                let quoted = if quotes && text[at] == b'"' { quoted_length(&text[at..]) } else { Some(1) };
                quotes &= quoted.is_some();
                at += quoted.unwrap_or(1);
            }
            rest = text.get(at + 1..);
            let member = text[..at].trim_ascii();
            if !member.is_empty() {
                return Some(member);
            }
        }
    })
}

/// The length of the quoted string `text` begins with, if it is closed.
fn quoted_length(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    while at < text.len() {
        match text[at] {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    None
}

fn unquoted(argument: &[u8]) -> &[u8] {
    argument.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(argument)
}

/// Delta-seconds, bare or quoted (RFC 9111 §5.2); malformed ones are 0, huge ones as many as we count.
fn seconds(argument: Option<&[u8]>) -> Duration {
    argument.map(unquoted).and_then(digits).map_or(Duration::ZERO, capped)
}

/// A non-negative decimal number, saturating; `None` for anything else.
pub(super) fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |number, byte| {
        byte.is_ascii_digit().then(|| number.saturating_mul(10).saturating_add(u64::from(byte - b'0')))
    })
}

/// Seconds as a span, no longer than we count.
pub(super) fn capped(seconds: u64) -> Duration {
    Duration::from_secs(seconds.min(MOST_SECONDS))
}

fn least(known: &mut Option<Duration>, said: Duration) {
    *known = Some(known.map_or(said, |known| known.min(said)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::testing::*;

    fn response(fields: &[(&'static str, &str)]) -> Directives {
        Directives::of_response(&map(fields))
    }

    #[test]
    fn malformed_spans_are_zero_and_huge_ones_are_capped() {
        for (written, expected) in [
            ("max-age=60", 60),
            ("MAX-AGE=60", 60),
            ("max-age=\"60\"", 60),
            ("max-age=007", 7),
            ("max-age", 0),
            ("max-age=", 0),
            ("max-age=-1", 0),
            ("max-age=+1", 0),
            ("max-age=1.5", 0),
            ("max-age=1e3", 0),
            ("max-age=sixty", 0),
            ("max-age= 60", 0),
            ("max-age =60", 0),
            ("max-age=60 x", 0),
            ("max-age='60'", 0),
            ("max-age=\"60", 0),
            ("max-age=99999999999999999999999999", MOST_SECONDS),
            ("max-age=60, max-age=30", 30),
            ("max-age=30, max-age=60", 30),
            ("max-age=60, max-age=x", 0),
            (",, max-age=60,,", 60),
            ("foo=\"a, max-age=1\", max-age=60", 60),
            ("foo=\"a\\\", max-age=1\", max-age=60", 60),
        ] {
            assert_eq!(response(&[("cache-control", written)]).max_age, Some(secs(expected)), "{written}");
        }
        assert_eq!(response(&[("cache-control", "max-ages=60, xmax-age=1")]).max_age, None);
    }

    /// What a list means: each quote is looked at for itself.
    fn by_definition(value: &[u8]) -> Vec<&[u8]> {
        let (mut members, mut from, mut at) = (Vec::new(), 0, 0);
        while at <= value.len() {
            at = match value.get(at) {
                Some(b',') | None => {
                    members.push(value[from..at].trim_ascii());
                    from = at + 1;
                    from
                }
                Some(b'"') => at + quoted_length(&value[at..]).unwrap_or(1),
                Some(_) => at + 1,
            };
        }
        members.retain(|member| !member.is_empty());
        members
    }

    proptest::proptest! {
        #[test]
        fn a_quote_that_is_never_closed_is_looked_for_once_and_means_what_it_did(value in "[\"\\\\, a]{0,40}") {
            let read: Vec<_> = members(value.as_bytes()).collect();
            proptest::prop_assert_eq!(read, by_definition(value.as_bytes()));
        }
    }

    /// One request of 30 KB cost seconds.
    #[test]
    fn a_list_of_quotes_that_never_close_costs_one_look() {
        let value = format!("\"{}", "\\\",".repeat(1 << 20));
        assert_eq!(members(value.as_bytes()).count(), 1 << 20);
    }

    #[test]
    fn an_unclosed_quote_hides_nothing() {
        assert!(response(&[("cache-control", "foo=\"bar, no-store")]).no_store);
        assert!(!response(&[("cache-control", "foo=\"bar, no-store\"")]).no_store);
    }

    #[test]
    fn what_restricts_counts_even_misspelt_and_what_permits_does_not() {
        assert!(response(&[("cache-control", "No-Store=1")]).no_store);
        assert!(response(&[("cache-control", "a"), ("cache-control", "no-store")]).no_store);
        assert!(!response(&[("cache-control", "public=1")]).public);
        for everything in
            ["private", "private=\"\"", "private=\"a b\"", "private=\"x\", private", "private=\"x"]
        {
            assert_eq!(response(&[("cache-control", everything)]).private, Scope::Everything, "{everything}");
        }
        let Scope::Fields(names) =
            response(&[("cache-control", "private=\"X-A, x-b\", private=x-c")]).private
        else {
            panic!("a list of fields");
        };
        assert_eq!(names, ["x-a", "x-b", "x-c"]);
    }

    #[test]
    fn a_valid_targeted_field_replaces_and_an_invalid_one_is_not_there() {
        let both = |cdn| response(&[("cache-control", "no-store, max-age=1"), ("cdn-cache-control", cdn)]);
        for (written, expected) in
            [("max-age=60", 60), ("max-age=60;x=1, foo", 60), ("max-age=-5", 0), ("max-age=1, max-age=9", 9)]
        {
            let directives = both(written);
            assert_eq!((directives.max_age, directives.no_store), (Some(secs(expected)), false), "{written}");
        }
        for ignored in
            ["", "max-age=60,", "Max-Age=60", "max-age=60 no-store", "max-age=\"60", "&", "max-age=,"]
        {
            assert!(both(ignored).no_store, "{ignored}");
        }
        assert_eq!(both("max-age=\"60\"").max_age, Some(secs(0)));
        assert!(both("no-store").no_store);
        assert!(!both("no-store=?0, max-age=3").no_store);
        assert_eq!(both("private").private, Scope::Everything);
    }

    #[test]
    fn pragma_counts_only_alone() {
        let no_cache = |fields: &[_]| Directives::of_request(&map(fields)).no_cache == Scope::Everything;
        assert!(no_cache(&[("pragma", "foo, No-Cache")]));
        assert!(!no_cache(&[("pragma", "no-cache"), ("cache-control", "max-age=1")]));
        assert!(no_cache(&[("cache-control", "no-cache")]));
    }

    #[test]
    fn max_stale_without_a_value_is_any_staleness() {
        let stale = |value| Directives::of_request(&map(&[("cache-control", value)])).max_stale;
        assert_eq!(stale("max-stale"), Some(secs(MOST_SECONDS)));
        assert_eq!(stale("max-stale=x"), Some(secs(0)));
    }

    #[test]
    fn nginx_s_word_is_seconds_or_a_time_and_zero_keeps_nothing() {
        let now = noon().wall;
        let said = |value: &str| Directives::of_accel(&map(&[("x-accel-expires", value)]), now);
        let span = |value: &str| said(value).and_then(|said| said.max_age);
        assert_eq!((span("60"), said("60").unwrap().no_store), (Some(secs(60)), false));
        assert!(said("0").unwrap().no_store);
        assert_eq!([span("@1800000030"), span("@5")], [Some(secs(30)), Some(secs(0))]);
        assert!(["", "-1", "@", "1h", "@x", "1.5"].iter().all(|value| said(value).is_none()));
    }
}
