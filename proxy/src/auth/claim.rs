//! What a request claims: a token, mostly. Where a service is asked about requests and not about tokens, also what it is told
//! of this one, and then a request without a token has a claim as well.
//!
//! Everything that the answer may depend on is in the claim's digest, by which the answer is remembered: what was said of one
//! URI is never believed of another.

use std::{fmt, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use ring::digest::{Context, SHA256};
use weir_config::{
    plan::{self, TokenSource},
    template::Values,
};

use super::{
    session::Session,
    token::{Digest, Presented, Token},
};

/// What is asked about, and its name in memory.
#[derive(Clone)]
pub struct Claim {
    token: Option<Token>,
    told: Box<[(HeaderName, HeaderValue)]>,
    digest: Digest,
}

impl Claim {
    /// What a request with these fields claims; `None` for what can be nobody's.
    ///
    /// Shape:  `values` answers the templates of what a service is told. A field whose value is empty is not sent.
    pub fn find(plan: &plan::Session, headers: &HeaderMap, values: &impl Values) -> Option<Self> {
        let tells = !plan.told().is_empty();
        let token = match Presented::find(&plan.from, headers, plan.jwt.is_some()) {
            Presented::Token(token) => Some(token),
            Presented::Nothing if tells => None,
            Presented::Nothing | Presented::Malformed => return None,
        };
        if !tells {
            return token.map(Self::from);
        }
        let mut told = Vec::with_capacity(plan.told().len());
        for (name, template) in plan.told() {
            let mut text = String::new();
            template.render(values, &mut text);
            if !text.is_empty() {
                // A service that is told less than the plan says might let somebody pass.
                let mut value = HeaderValue::try_from(text).ok()?;
                value.set_sensitive(true);
                told.push((name.clone(), value));
            }
        }
        let digest = digest(token.as_ref(), &told);
        Some(Self { token, told: told.into(), digest })
    }

    /// The token, where there is one.
    #[must_use]
    pub fn token(&self) -> Option<&Token> {
        self.token.as_ref()
    }

    /// What names it.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The fields of the question about it, the token as the service expects it.
    pub(super) fn fields(&self, token: &TokenSource) -> Result<HeaderMap, header::InvalidHeaderValue> {
        let mut fields: HeaderMap = self.told.iter().cloned().collect();
        if let Some(shown) = &self.token {
            let shown = shown.expose();
            let (name, value) = match token {
                TokenSource::Bearer => (header::AUTHORIZATION, format!("Bearer {shown}")),
                TokenSource::Cookie(name) => (header::COOKIE, format!("{name}={shown}")),
                TokenSource::Header(name) => (name.clone(), shown.to_owned()),
            };
            let mut value = HeaderValue::try_from(value)?;
            value.set_sensitive(true);
            fields.insert(name, value);
        }
        Ok(fields)
    }
}

/// Each part behind its length, so that none can be taken for two.
fn digest(token: Option<&Token>, told: &[(HeaderName, HeaderValue)]) -> Digest {
    let mut context = Context::new(&SHA256);
    let mut part = |bytes: &[u8]| {
        context.update(&(bytes.len() as u64).to_le_bytes());
        context.update(bytes);
    };
    // A token is never empty.
    part(token.map_or("", Token::expose).as_bytes());
    for (name, value) in told {
        part(name.as_str().as_bytes());
        part(value.as_bytes());
    }
    Digest::of(&context.finish())
}

impl From<Token> for Claim {
    fn from(token: Token) -> Self {
        let digest = token.digest();
        Self { token: Some(token), told: Box::default(), digest }
    }
}

/// What it is made of is the caller's own.
impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Claim(***)")
    }
}

/// Whose a claim is.
#[derive(Debug, Clone, PartialEq)]
pub enum Whose {
    /// Somebody's.
    Session(Arc<Session>),
    /// Nobody's; and what the service said to that, where it has words of its own.
    Nobody(Option<Arc<No>>),
}

/// Challenges of one 401 that are passed on; a service has a few ways to log in, if more than one.
const MOST_CHALLENGES: usize = 8;
/// Bytes of them in all.
const LONGEST_CHALLENGES: usize = 8 << 10;

/// A service's own no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum No {
    /// 401, and what it challenges the client with (RFC 9110 §11.6.1).
    Challenge(Box<[HeaderValue]>),
    /// 403 to a request that it was told about.
    Forbid,
}

impl No {
    /// The no of an answer with this status, if there is more to it than that nobody is known.
    pub(super) fn of(status: StatusCode, fields: &HeaderMap, is_told: bool) -> Option<Self> {
        if status == StatusCode::FORBIDDEN && is_told {
            return Some(Self::Forbid);
        }
        let mut left = LONGEST_CHALLENGES;
        // Copied byte by byte: values off the wire share its buffer, and a no is remembered.
        let challenges = fields.get_all(header::WWW_AUTHENTICATE).iter().filter_map(|value| {
            left = left.checked_sub(value.len())?;
            HeaderValue::from_bytes(value.as_bytes()).ok()
        });
        let challenges = challenges.take(MOST_CHALLENGES).collect::<Box<[_]>>();
        (status == StatusCode::UNAUTHORIZED && !challenges.is_empty()).then_some(Self::Challenge(challenges))
    }
}

impl From<Option<Arc<Session>>> for Whose {
    fn from(session: Option<Arc<Session>>) -> Self {
        session.map_or(Self::Nobody(None), Self::Session)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test's panic is its report")]
    use std::borrow::Cow;

    use weir_config::template::Variable;

    use super::*;

    /// A target and a method.
    struct Request(&'static str, &'static str);

    impl Values for Request {
        fn value(&self, variable: &Variable) -> Option<Cow<'_, str>> {
            match variable {
                Variable::Target => Some(self.0.into()),
                Variable::Method => Some(self.1.into()),
                _ => None,
            }
        }
    }

    fn plan(more: &str) -> plan::Session {
        let yaml = format!(
            "listeners: [0.0.0.0:1]\nupstreams: {{ api: {{ servers: [127.0.0.1:1] }} }}\nsessions: {{ a: {{ from: [{{ cookie: sid }}], ask: {{ upstream: api, path: /me{more} }} }} }}\nroutes: [{{ session: {{ use: a }}, to: api }}]\n"
        );
        weir_config::load("config.yaml", &yaml, &|_: &str| None).unwrap().plan.sessions.remove(0)
    }

    fn told() -> plan::Session {
        plan(
            ", request_headers: { x-uri: \"${request.target}\", x-method: \"${request.method}\", x-none: \"${header.none}\" }",
        )
    }

    fn find(plan: &plan::Session, token: Option<&str>, request: &Request) -> Option<Claim> {
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            headers.insert(header::COOKIE, format!("sid={token}").parse().unwrap());
        }
        Claim::find(plan, &headers, request)
    }

    #[test]
    fn where_nothing_is_told_the_token_is_all_that_counts() {
        let plan = plan("");
        let [a, b] = ["/a", "/b"].map(|target| find(&plan, Some("t"), &Request(target, "GET")).unwrap());
        assert_eq!(a.digest(), b.digest());
        assert_eq!(a.digest(), &Token::parse(b"t").unwrap().digest(), "as invalidations name it");
        assert!(find(&plan, None, &Request("/a", "GET")).is_none());
    }

    #[test]
    fn whatever_is_told_tells_claims_apart() {
        let plan = told();
        let requests = [
            (Some("t"), Request("/a", "GET")),
            (Some("t"), Request("/b", "GET")),
            (Some("t"), Request("/a", "PUT")),
            (Some("t"), Request("/aGET", "")),
            (Some("u"), Request("/a", "GET")),
            (None, Request("/a", "GET")),
        ];
        let digests = requests.map(|(token, request)| *find(&plan, token, &request).unwrap().digest());
        for (nth, one) in digests.iter().enumerate() {
            assert!(!digests[..nth].contains(one), "{nth}");
        }
        let again = find(&plan, Some("t"), &Request("/a", "GET")).unwrap();
        assert_eq!(*again.digest(), digests[0]);
    }

    #[test]
    fn a_service_gets_the_token_and_what_is_told_and_nothing_that_is_not_there() {
        let claim = find(&told(), Some("t"), &Request("/a", "GET")).unwrap();
        let fields = claim.fields(&TokenSource::Bearer).unwrap();
        assert_eq!(
            (&fields["authorization"], &fields["x-uri"], &fields["x-method"]),
            (
                &HeaderValue::from_static("Bearer t"),
                &HeaderValue::from_static("/a"),
                &HeaderValue::from_static("GET")
            )
        );
        assert_eq!(fields.len(), 3);
        assert!(!format!("{claim:?}{fields:?}").contains("/a"));
    }

    #[test]
    fn what_cannot_be_told_is_nobody_s() {
        assert!(find(&told(), Some("t"), &Request("/a\r\nx: y", "GET")).is_none());
        assert!(find(&told(), Some("caf\u{e9}"), &Request("/a", "GET")).is_none(), "nor a broken token");
    }

    #[test]
    fn a_no_is_kept_with_what_the_client_has_to_hear() {
        let mut fields = HeaderMap::new();
        assert_eq!(No::of(StatusCode::UNAUTHORIZED, &fields, true), None);
        fields.append(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"x\""));
        fields.append(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        let Some(No::Challenge(challenges)) = No::of(StatusCode::UNAUTHORIZED, &fields, false) else {
            panic!()
        };
        assert_eq!(challenges.len(), 2);
        assert_eq!(No::of(StatusCode::FORBIDDEN, &fields, true), Some(No::Forbid));
        assert_eq!(No::of(StatusCode::FORBIDDEN, &fields, false), None, "a token that is nobody's");
    }

    /// Each was a part of the buffer it was read into, which it kept for as long as the no was remembered.
    #[test]
    fn a_no_that_is_remembered_keeps_nothing_of_the_wire_and_no_more_than_it_may() {
        let wire = bytes::Bytes::from("Basic realm=\"x\"".repeat(4096));
        let mut fields = HeaderMap::new();
        let mut append = |from, to| {
            let value = HeaderValue::from_maybe_shared(wire.slice(from..to)).unwrap();
            fields.append(header::WWW_AUTHENTICATE, value);
        };
        append(0, LONGEST_CHALLENGES + 1);
        (0..100).for_each(|_| append(0, 15));
        append(0, LONGEST_CHALLENGES);
        let no = No::of(StatusCode::UNAUTHORIZED, &fields, false);
        drop(fields);
        assert!(wire.is_unique(), "and it was the last to hold it");
        assert_eq!(no, Some(No::Challenge(vec![HeaderValue::from_static("Basic realm=\"x\""); 8].into())));
        let long = HeaderValue::from_bytes(&wire[..LONGEST_CHALLENGES / 2]).unwrap();
        let fields = (0..5).map(|_| (header::WWW_AUTHENTICATE, long.clone())).collect();
        let Some(No::Challenge(challenges)) = No::of(StatusCode::UNAUTHORIZED, &fields, false) else {
            panic!()
        };
        assert_eq!(challenges.len(), 2);
    }
}
