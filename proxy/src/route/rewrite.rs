//! Targets and locations written from templates, so that no value can be more than a value.
//!
//! How a value is encoded depends on what it is and on where it stands:
//! - what came from the request's own target (`${request.path}`, `${request.query}`, …) is encoded already, and only
//!   what no target may contain is escaped;
//! - `${path.NAME}` before the `?` is written as it stood in the normalised path, where `%2F` is no slash;
//! - everything else is text: all but the unreserved characters are escaped, so that it can neither end a segment nor
//!   begin a parameter, a field or a line.
//!
//! A rewritten path is parsed like a client's ([`Path::parse`]) and refused when it is bad or has dot segments: a value
//! `..` must not lead out of the folder that the operator wrote.

use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};
use weir_config::template::{Part, Template, Values, Variable};

use super::{
    Params,
    path::{BadPath, Path},
};

/// Everything but RFC 3986's unreserved characters.
const TEXT: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What no target may contain; `%` stays, it begins an escape.
const ENCODED: AsciiSet = CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'<')
    .add(b'>')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// The operator's own words may name a fragment.
const TEMPLATE: AsciiSet = ENCODED.remove(b'#');

/// The target to ask an upstream for.
///
/// Shape:  path, and query if the template has a `?`; a query that turned out empty leaves no `?` behind.
/// Errors: [`BadPath`] for a path that the request's values made bad; the client's fault, 400.
pub fn target(template: &Template, values: &impl Values, params: &Params) -> Result<String, BadPath> {
    render_target(template.parts(), values, params)
}

fn render_target(parts: &[Part], values: &impl Values, params: &Params) -> Result<String, BadPath> {
    let mut target = render(parts, values, params);
    if target.ends_with('?') {
        target.pop();
    }
    let path = target.split_once('?').map_or(target.as_str(), |(path, _)| path);
    if Path::parse(path)?.had_dots() {
        return Err(BadPath::HiddenDots);
    }
    Ok(target)
}

/// The template with every value encoded for where it stands.
pub(super) fn render(parts: &[Part], values: &impl Values, params: &Params) -> String {
    let mut out = String::new();
    let mut in_query = false;
    for part in parts {
        let from = out.len();
        match part {
            Part::Text(text) => out.extend(utf8_percent_encode(text, &TEMPLATE)),
            Part::Value(Variable::PathParam(name)) if !in_query => {
                out.push_str(params.encoded(name).unwrap_or(""))
            }
            Part::Value(variable) => {
                let value = values.value(variable).unwrap_or_default();
                let set = if is_encoded(variable) { &ENCODED } else { &TEXT };
                out.extend(utf8_percent_encode(&value, set));
            }
        }
        in_query = in_query || out[from..].contains('?');
    }
    out
}

/// Whether a variable has the form of a piece of a target already.
fn is_encoded(variable: &Variable) -> bool {
    matches!(
        variable,
        Variable::Path | Variable::QueryString | Variable::Target | Variable::Host | Variable::Scheme
    )
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used, reason = "a test's panic is its report")]
    use std::borrow::Cow;

    use proptest::prelude::*;

    use super::*;

    /// Answers every variable of a kind alike.
    pub(in crate::route) struct Given {
        pub(in crate::route) path: &'static str,
        pub(in crate::route) query: &'static str,
        pub(in crate::route) text: String,
    }

    impl Values for Given {
        fn value(&self, variable: &Variable) -> Option<Cow<'_, str>> {
            Some(match variable {
                Variable::Path => self.path.into(),
                Variable::QueryString => self.query.into(),
                _ => self.text.as_str().into(),
            })
        }
    }

    pub(in crate::route) fn text(text: &str) -> Part {
        Part::Text(text.into())
    }

    fn given(text: &str) -> Given {
        Given { path: "/p/a%20b", query: "x=1&y=%2F", text: text.to_owned() }
    }

    fn session() -> Part {
        Part::Value(Variable::Session("user_id".into()))
    }

    fn params(encoded: &str) -> Params {
        let mut params = Params::default();
        params.push(&"rest".into(), encoded).unwrap();
        params
    }

    fn rest() -> Part {
        Part::Value(Variable::PathParam("rest".into()))
    }

    #[test]
    fn pieces_of_the_target_pass_and_an_empty_query_leaves_no_mark() {
        let parts = [text("/v2"), Part::Value(Variable::Path), text("?"), Part::Value(Variable::QueryString)];
        let target = |given| render_target(&parts, &given, &Params::default());
        assert_eq!(target(given("")).unwrap(), "/v2/p/a%20b?x=1&y=%2F");
        assert_eq!(target(Given { query: "", ..given("") }).unwrap(), "/v2/p/a%20b");
    }

    #[test]
    fn a_value_is_one_segment_or_one_parameter_and_never_a_line() {
        let parts = [text("/u/"), session(), text("?id="), session()];
        let target = render_target(&parts, &given("a/b?c&d=e f\r\nX: y#%"), &Params::default()).unwrap_err();
        assert_eq!(target, BadPath::Control, "an escaped line end is no path either");
        let target = render_target(&parts, &given("a/b?c&d=e f#%"), &Params::default()).unwrap();
        assert_eq!(target, "/u/a%2Fb%3Fc%26d%3De%20f%23%25?id=a%2Fb%3Fc%26d%3De%20f%23%25");
    }

    #[test]
    fn a_capture_keeps_its_slashes_in_the_path_and_loses_them_in_the_query() {
        let target = |parts: &[Part]| render_target(parts, &given("a/b&c"), &params("a/b%2Fc&d"));
        assert_eq!(target(&[text("/new/"), rest()]).unwrap(), "/new/a/b%2Fc&d");
        assert_eq!(target(&[text("/new?f="), rest()]).unwrap(), "/new?f=a%2Fb%26c");
    }

    #[test]
    fn a_value_cannot_lead_out_of_its_folder() {
        let parts = [text("/files/"), session(), text("/x")];
        for bad in ["..", "."] {
            assert_eq!(
                render_target(&parts, &given(bad), &Params::default()),
                Err(BadPath::HiddenDots),
                "{bad}"
            );
        }
        assert_eq!(render_target(&parts, &given("../etc"), &Params::default()), Err(BadPath::HiddenDots));
        assert!(render_target(&parts, &given("..."), &Params::default()).is_ok());
        assert_eq!(render_target(&[session()], &given("x"), &Params::default()), Err(BadPath::NotAbsolute));
    }

    proptest! {
        #[test]
        fn no_value_breaks_a_target(value in "(\\PC|[\r\n\t %./?#&])*") {
            let parts = [text("/u/"), session(), text("?id="), session(), text("&end=1")];
            if let Ok(target) = render_target(&parts, &given(&value), &Params::default()) {
                let uri: http::Uri = target.parse().unwrap();
                prop_assert_eq!(uri.path().matches('/').count(), 2);
                prop_assert_eq!(uri.query().unwrap().matches('&').count(), 1);
                prop_assert!(target.bytes().all(|byte| byte.is_ascii_graphic()));
            }
        }
    }
}
