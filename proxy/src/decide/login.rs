//! Where somebody is sent who has no session and asks for a page.

use std::borrow::Cow;

use http::{Method, header};
use weir_config::{
    plan::SessionRule,
    template::{Values, Variable},
};

use crate::request::{Facts, RequestView};

/// The address of the login, if this is a browser that goes to a page; whatever else asks wants to hear 401.
pub(super) fn location(rule: &SessionRule, request: &RequestView, facts: Facts<'_>) -> Option<String> {
    let template = rule.login.as_ref()?;
    let is_page = matches!(request.method, Method::GET | Method::HEAD)
        && request.headers.get_all(header::ACCEPT).iter().any(|accept| names_html(accept.as_bytes()));
    is_page.then(|| {
        let mut location = String::new();
        // Values are percent-encoded: none of them can become another host, or another parameter.
        template.render_key(&Back(facts), &mut location);
        location
    })
}

fn names_html(accept: &[u8]) -> bool {
    const HTML: &[u8] = b"text/html";
    accept.windows(HTML.len()).any(|part| part.eq_ignore_ascii_case(HTML))
}

/// A request's facts as the login may hand them back: its target is a path of ours, never `//another.host`.
struct Back<'a>(Facts<'a>);

impl Values for Back<'_> {
    fn value(&self, variable: &Variable) -> Option<Cow<'_, str>> {
        let value = self.0.value(variable).filter(|value| !value.is_empty())?;
        let is_target = matches!(variable, Variable::Target | Variable::Path);
        Some(if is_target && !is_here(&value) { "/".into() } else { value })
    }
}

/// Whether a browser would stay on this host: it reads a backslash as a slash.
fn is_here(target: &str) -> bool {
    target.starts_with('/') && !target.starts_with("//") && !target.starts_with("/\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_to_another_host_is_no_way_back() {
        assert!(is_here("/") && is_here("/a//b?x=//y"));
        for elsewhere in ["//evil.example", "/\\evil.example", "https://evil.example", "*", ""] {
            assert!(!is_here(elsewhere), "{elsewhere}");
        }
    }

    #[test]
    fn only_who_names_html_asks_for_a_page() {
        assert!(names_html(b"application/xhtml+xml, Text/HTML;q=0.9"));
        assert!(!names_html(b"*/*") && !names_html(b"application/json") && !names_html(b""));
    }
}
