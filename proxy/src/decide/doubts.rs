//! What keeps a request apart of which the origin may see more than the key does.
//!
//! A key's template sees one parameter, cookie or field of a name. Programs disagree about which one that is: the first of
//! two or the last, whether `;` or `,` parts them, whether a quoted string hides one, whether `lang[x]` is `lang`. Where
//! such a program may see another value than the template does, everything that it may have read becomes part of the key:
//! then nobody's answer lies under the key of those who ask plainly. Most requests leave no doubt, and cost one search.

use std::{borrow::Cow, fmt::Write as _};

use http::{HeaderMap, HeaderName, header};
use weir_config::template::{Template, Variable};

use crate::request::RequestView;

/// So many cookies in all are read as browsers mean them; of more, an origin may read only some.
const MOST_COOKIES: usize = 64;

/// What the key must have besides what its template makes of the request; nothing, for most requests.
pub(super) fn doubts(request: &RequestView, key: &Template) -> String {
    let (mut doubts, mut cookies, mut query) = (String::new(), false, false);
    for variable in key.variables() {
        match variable {
            Variable::Query(name) => {
                query =
                    query || request.query.as_deref().is_some_and(|query| doubtful_parameter(query, name));
            }
            Variable::Cookie(name) => cookies = cookies || doubtful_cookie(&request.headers, name),
            Variable::Header(name) if doubtful_field(&request.headers, name) => {
                push_lines(&mut doubts, &request.headers, name);
            }
            _ => {}
        }
    }
    if query {
        // No query has a space.
        let _ = write!(doubts, " {}", request.query.as_deref().unwrap_or_default());
    }
    if cookies {
        push_lines(&mut doubts, &request.headers, &header::COOKIE);
    }
    doubts
}

/// A field as it came, line by line; no two lists of lines render alike.
fn push_lines(text: &mut String, headers: &HeaderMap, name: &HeaderName) {
    for line in headers.get_all(name) {
        // Writing into a String cannot fail.
        let _ = write!(text, " {name}={}:{}", line.len(), line.as_bytes().escape_ascii());
    }
}

fn doubtful_parameter(query: &str, name: &str) -> bool {
    let spaced = query.replace('+', " ");
    let decoded: Cow<'_, [u8]> = percent_encoding::percent_decode_str(&spaced).into();
    match mentions(&decoded, name) {
        0 => false,
        1 => {
            let mut names = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")).0);
            std::str::from_utf8(&decoded).is_err() || !names.any(|written| written == name)
        }
        _ => true,
    }
}

fn doubtful_cookie(headers: &HeaderMap, name: &str) -> bool {
    let lines = || headers.get_all(header::COOKIE).iter().map(http::HeaderValue::as_bytes);
    let mentioned: usize = lines()
        .map(|line| {
            let decoded: Cow<'_, [u8]> = percent_encoding::percent_decode(line).into();
            mentions(line, name).max(mentions(&decoded, name))
        })
        .sum();
    match mentioned {
        0 => false,
        1 => {
            let (mut count, mut is_there) = (0, false);
            for crumb in lines().flat_map(|line| line.split(|byte| *byte == b';')) {
                count += 1;
                let crumb = crumb.trim_ascii();
                let at = crumb.iter().position(|byte| *byte == b'=').unwrap_or(crumb.len());
                let (written, value) = crumb.split_at(at);
                // A quoted string that goes on behind the `;` may hide the next cookie.
                if value.starts_with(b"=\"") && (value.len() < 3 || !value.ends_with(b"\"")) {
                    return true;
                }
                is_there = is_there || written == name.as_bytes();
            }
            // Lines with other bytes are dropped whole by some.
            !is_there || count > MOST_COOKIES || lines().any(|line| !line.iter().all(u8::is_ascii))
        }
        _ => true,
    }
}

fn doubtful_field(headers: &HeaderMap, name: &HeaderName) -> bool {
    let mut lines = headers.get_all(name).iter();
    lines.next().is_some_and(|line| line.to_str().is_err()) || lines.next().is_some()
}

/// How often a program could read `name` as that of a value: as a word of its own, before `=` or `[`, whatever its case.
fn mentions(text: &[u8], name: &str) -> usize {
    let name = name.as_bytes();
    if name.is_empty() || text.len() < name.len() {
        return 0;
    }
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte);
    // From the end, so that what stands behind the white space is known when one comes to it, and not looked for again.
    let mut after = None;
    (0..=text.len() - name.len())
        .rev()
        .filter(|&at| {
            let (before, rest) = text.split_at(at);
            let (word, behind) = rest.split_at(name.len());
            after = behind.first().filter(|byte| !byte.is_ascii_whitespace()).or(after);
            word.iter().zip(name).all(|(&byte, &expected)| reads_as(byte, expected))
                && matches!(after, None | Some(b'=' | b'[' | b'&' | b';'))
                && !before.last().is_some_and(|&byte| is_word(byte) && byte != b'&')
        })
        .count()
}

/// PHP reads some bytes of a name as `_`.
fn reads_as(byte: u8, expected: u8) -> bool {
    byte.eq_ignore_ascii_case(&expected) || (expected == b'_' && matches!(byte, b'.' | b' ' | b'['))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test's panic is its report")]
    use http::HeaderValue;

    use super::*;

    fn cookies(lines: &[&[u8]]) -> HeaderMap {
        let lines = lines.iter().map(|line| (header::COOKIE, HeaderValue::from_bytes(line).unwrap()));
        let mut headers = HeaderMap::new();
        for (name, line) in lines {
            headers.append(name, line);
        }
        headers
    }

    #[test]
    fn plain_requests_leave_no_doubt() {
        for query in
            ["", "page=1", "x=2&page=1", "page=", "page", "pages=1&page=2", "homepage=1", "page=a+b%20c"]
        {
            assert!(!doubtful_parameter(query, "page"), "{query}");
        }
        for line in [
            &b""[..],
            b"lang=de",
            b"a=1; lang=de",
            b"slang=1;lang=de",
            b"q=\"x\"; lang=de",
            b"json={\"a\":1,\"lang\":2}; lang=de",
            b"n=J\xc3\xbcrgen",
        ] {
            assert!(!doubtful_cookie(&cookies(&[line]), "lang"), "{}", line.escape_ascii());
        }
        assert!(!doubtful_cookie(&cookies(&[b"a=1", b"lang=de"]), "lang"));
    }

    #[test]
    fn a_parameter_that_an_origin_may_read_otherwise_is_in_doubt() {
        for query in [
            "page=1&page=2",
            "page=1&Page=2",
            "page=1&p%61ge=2",
            "p%61ge=2",
            "x=1;page=2",
            "page=1;page=2",
            "page[]=2",
            "page%5B%5D=2",
            "page=1&page[x]=2",
            "page=%ff",
        ] {
            assert!(doubtful_parameter(query, "page"), "{query}");
        }
        assert!(doubtful_parameter("my.page=1", "my_page"));
    }

    #[test]
    fn a_cookie_that_an_origin_may_read_otherwise_is_in_doubt() {
        for line in [
            &b"lang=en; lang=evil"[..],
            b"lang=en; Lang=evil",
            b"lang =evil",
            b"x=1, lang=evil",
            b"l%61ng=evil",
            b"x=\"; lang=en; y=\"",
            b"lang=\"e",
            b"lang[x]=evil",
            b"lang=en; n=J\xc3\xbcrgen",
        ] {
            assert!(doubtful_cookie(&cookies(&[line]), "lang"), "{}", line.escape_ascii());
        }
        assert!(doubtful_cookie(&cookies(&[b"lang=en", b"lang=evil"]), "lang"));
        let many = "x=1; ".repeat(MOST_COOKIES) + "lang=en";
        assert!(doubtful_cookie(&cookies(&[many.as_bytes()]), "lang"));
    }

    proptest::proptest! {
        #[test]
        fn what_stands_behind_a_word_is_what_follows_its_white_space(text in "[a _=;\t]{0,12}", name in "[a_]{1,2}") {
            let is_word = |byte: &u8| matches!(byte, b'a' | b'_');
            let mentioned = (0..text.len()).filter(|&at| {
                let (before, rest) = text.as_bytes().split_at(at);
                let Some((word, after)) = rest.split_at_checked(name.len()) else { return false };
                word.iter().zip(name.bytes()).all(|(&byte, expected)| reads_as(byte, expected))
                    && matches!(after.trim_ascii_start().first(), None | Some(b'=' | b';'))
                    && !before.last().is_some_and(is_word)
            });
            proptest::prop_assert_eq!(mentions(text.as_bytes(), &name), mentioned.count());
        }
    }

    /// One cookie of 30 KB of spaces cost seconds.
    #[test]
    fn white_space_is_read_once() {
        let spaces = " ".repeat(1 << 19);
        for (text, name, expected) in [
            (format!("lang{spaces}=x"), "lang", 1),
            (format!("lang{spaces}x lang{spaces}"), "lang", 1),
            (format!("{spaces}x"), "lang", 0),
            (format!("{spaces}x"), "_", 0),
            (format!("x;{spaces}="), "_", 1 << 19),
        ] {
            assert_eq!(mentions(text.as_bytes(), name), expected, "{name}");
        }
    }

    #[test]
    fn different_bytes_stay_different() {
        let text = |lines: &[&[u8]]| {
            let mut text = String::new();
            push_lines(&mut text, &cookies(lines), &header::COOKIE);
            text
        };
        let all =
            [text(&[b"\xff"]), text(&[b"\xfe"]), text(&[b"\\xff"]), text(&[b"a", b"b"]), text(&[b"a b"])];
        assert!(all.iter().enumerate().all(|(at, one)| !all[..at].contains(one)), "{all:?}");
    }
}
