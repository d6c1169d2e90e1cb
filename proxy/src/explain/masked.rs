//! What could be a secret is shown as a hash: credentials, cookies, session ids, and every field that is not known to be
//! none.

use std::{borrow::Cow, fmt::Write as _};

use http::{HeaderName, header};
use weir_config::template::{Template, Values, Variable};

use crate::{cache::Url, request::Facts};

/// Fields whose values say what a client can take, and not who it is.
const HARMLESS: [HeaderName; 6] = [
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    header::ACCEPT_LANGUAGE,
    header::HOST,
    header::ORIGIN,
    header::USER_AGENT,
];

/// A request's facts, fit to be shown.
pub(super) struct Masked<'a>(pub(super) Facts<'a>);

impl Values for Masked<'_> {
    fn value(&self, variable: &Variable) -> Option<Cow<'_, str>> {
        let value = self.0.value(variable)?;
        Some(match variable {
            Variable::Cookie(_) | Variable::Token => hash(&value).into(),
            Variable::Header(name) => field(name, &value).into_owned().into(),
            Variable::Session(field) if !matches!(&**field, "user_id" | "role" | "tenant") => {
                hash(&value).into()
            }
            _ => value,
        })
    }
}

/// Whether a key depends on who asks.
pub(super) fn names_session(key: &Template) -> bool {
    key.variables().any(|variable| matches!(variable, Variable::Session(_)))
}

/// A field's value.
pub(super) fn field<'v>(name: &HeaderName, value: &'v str) -> Cow<'v, str> {
    if HARMLESS.contains(name) { value.into() } else { hash(value).into() }
}

/// The URL of an entry. Another client's query may hold what only that client should know.
pub(super) fn url(url: &Url, asked: &Url) -> String {
    match url.as_str().split_once('?') {
        Some((path, query)) if url != asked => format!("{path}?{}", hash(query)),
        _ => url.as_str().to_owned(),
    }
}

fn hash(value: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, value.as_bytes());
    let mut text = "sha256-".to_owned();
    for byte in &digest.as_ref()[..6] {
        // Writing into a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test's panic is its report")]
    use super::*;

    #[test]
    fn what_is_not_known_to_be_harmless_is_hashed() {
        assert_eq!(field(&header::ACCEPT_LANGUAGE, "de"), "de");
        for name in ["authorization", "cookie", "x-api-key", "x-anything"] {
            let shown = field(&name.parse().unwrap(), "hunter2").into_owned();
            assert!(shown.starts_with("sha256-") && !shown.contains("hunter2"), "{name}: {shown}");
        }
        assert_eq!(hash("a"), hash("a"));
        assert_ne!(hash("a"), hash("b"));
    }

    #[test]
    fn another_client_s_query_is_hashed() {
        let one = Url::new("http", "h", "/a?sig=secret");
        assert_eq!(url(&one, &one), "http://h/a?sig=secret");
        assert!(!url(&one, &Url::new("http", "h", "/a")).contains("secret"));
    }
}
