//! Sticky sessions: the requests of one session go to the peer where it began, as long as that peer can be asked.
//!
//! A peer is known by its *route*: the plan's word for it, or else the MD5 of its address, which tells a client nothing
//! and is the same on every edge and in nginx. Requests bring it in a cookie, a field or whatever the plan's templates
//! find; with `learn` they bring a session's name instead, and the table here knows its route. Where a peer is out, the
//! request is balanced as any other, and its answer names the new peer.
//!
//! The table is bounded; the session unused for longest is forgotten first. It survives a reload that leaves its rule as
//! it is, and belongs to this process alone: several edges learn each for itself, as several nginx do.
//!
//! Source: nginx 1.31 `ngx_http_upstream_sticky_module.c`; a session is learned with the head of an answer (its
//! parameter `header`). Sticking by a field of both is Envoy's (`stateful_session.header`).

use std::{
    fmt::Write as _,
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use lru::LruCache;
use md5::{Digest, Md5};
use parking_lot::Mutex;
use weir_config::{
    plan::{self, SameSite, StickyCookie, TokenSource},
    template::{Template, Values},
};

use crate::http_client::Address;

use super::peer::Peer;

/// How requests of one upstream stick to its peers.
#[derive(Debug)]
pub struct Sticky {
    plan: plan::Sticky,
    /// What in a request names its peer or session.
    lookup: Vec<Template>,
    learned: Option<Mutex<LruCache<Name, Learned>>>,
}

/// The MD5 of a session's name: as long as any other, and no secret once it is in memory.
type Name = [u8; 16];

#[derive(Debug)]
struct Learned {
    route: Arc<str>,
    used: Instant,
}

impl Sticky {
    /// The rule of an upstream, with what `old` has learned if it is the same rule.
    #[must_use]
    pub fn rebuild(old: Option<&Arc<Self>>, plan: &plan::Sticky) -> Arc<Self> {
        match old.filter(|old| old.plan == *plan) {
            Some(old) => Arc::clone(old),
            None => Arc::new(Self::new(plan)),
        }
    }

    fn new(plan: &plan::Sticky) -> Self {
        let ask = |variable: String| vec![variable.parse().expect("the plan checked the name")];
        let (lookup, learned) = match plan {
            plan::Sticky::Cookie(cookie) => (ask(format!("${{cookie.{}}}", cookie.name)), None),
            plan::Sticky::Header(name) => (ask(format!("${{header.{name}}}")), None),
            plan::Sticky::Route(templates) => (templates.clone(), None),
            plan::Sticky::Learn(learn) => {
                let most = NonZeroUsize::new(learn.sessions).unwrap_or(NonZeroUsize::MIN);
                (learn.lookup.clone(), Some(Mutex::new(LruCache::new(most))))
            }
        };
        Self { plan: plan.clone(), lookup, learned }
    }

    /// The route of the peer that has the session of this request.
    #[must_use]
    pub fn route(&self, facts: &impl Values, now: Instant) -> Option<Arc<str>> {
        let named = self.named(facts)?;
        let (plan::Sticky::Learn(rule), Some(learned)) = (&self.plan, &self.learned) else {
            return Some(named.into());
        };
        let learned = learned.lock();
        let session = learned.peek(&digest(&named))?;
        (!is_over(session, rule.timeout, now)).then(|| Arc::clone(&session.route))
    }

    /// `peer` answered: adds to the fields for the client what brings the next request to it, or learns its session.
    ///
    /// `now` is for sessions, `date` for the cookie's `Expires`.
    pub fn answered(
        &self,
        facts: &impl Values,
        peer: &Peer,
        fields: &mut HeaderMap,
        now: Instant,
        date: SystemTime,
    ) {
        let route = &peer.endpoint().route;
        match &self.plan {
            plan::Sticky::Cookie(cookie) => {
                if let Ok(value) = HeaderValue::try_from(set_cookie(cookie, route, date)) {
                    fields.append(header::SET_COOKIE, value);
                }
            }
            plan::Sticky::Header(name) => {
                if let Ok(value) = HeaderValue::try_from(&**route) {
                    fields.insert(name.clone(), value);
                }
            }
            plan::Sticky::Route(_) => {}
            plan::Sticky::Learn(rule) => self.learn(rule, facts, route, fields, now),
        }
    }

    /// nginx `ngx_http_upstream_sticky_learn_peer`: an answer that creates a session enters it; any other one keeps the
    /// session of its request alive.
    fn learn(
        &self,
        rule: &plan::Learn,
        facts: &impl Values,
        route: &Arc<str>,
        fields: &HeaderMap,
        now: Instant,
    ) {
        let Some(learned) = &self.learned else { return };
        let created = rule.create.iter().find_map(|source| created(source, fields));
        let (name, creates) = match created {
            Some(name) => (digest(name), true),
            None => match self.named(facts) {
                Some(name) => (digest(&name), false),
                None => return,
            },
        };
        let mut learned = learned.lock();
        if creates || learned.peek(&name).is_some_and(|session| !is_over(session, rule.timeout, now)) {
            learned.put(name, Learned { route: Arc::clone(route), used: now });
        }
    }

    /// The first name that is not empty.
    fn named(&self, facts: &impl Values) -> Option<String> {
        self.lookup.iter().find_map(|template| {
            let mut name = String::new();
            template.render(facts, &mut name);
            (!name.is_empty()).then_some(name)
        })
    }
}

fn is_over(session: &Learned, timeout: Duration, now: Instant) -> bool {
    now.saturating_duration_since(session.used) > timeout
}

/// The session that an answer begins.
fn created<'f>(source: &TokenSource, fields: &'f HeaderMap) -> Option<&'f str> {
    let text = |name: &HeaderName| fields.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    match source {
        TokenSource::Bearer => None,
        TokenSource::Header(name) => text(name).find(|value| !value.is_empty()),
        TokenSource::Cookie(name) => text(&header::SET_COOKIE)
            .filter_map(|cookie| cookie.split(';').next()?.split_once('='))
            .find(|(key, value)| key.trim() == name && !value.trim().is_empty())
            .map(|(_, value)| value.trim()),
    }
}

/// nginx `ngx_http_upstream_sticky_cookie_insert`; RFC 6265 §4.1.
fn set_cookie(cookie: &StickyCookie, route: &str, date: SystemTime) -> String {
    let mut text = format!("{}={route}", cookie.name);
    if let Some(expires) = cookie.expires {
        let until = httpdate::fmt_http_date(date + expires);
        // A String takes whatever is written to it.
        let _ = write!(text, "; Expires={until}; Max-Age={}", expires.as_secs());
    }
    for (attribute, value) in [("Domain", &cookie.domain), ("Path", &cookie.path)] {
        if let Some(value) = value {
            let _ = write!(text, "; {attribute}={value}");
        }
    }
    for (attribute, is_set) in [("HttpOnly", cookie.http_only), ("Secure", cookie.secure)] {
        if is_set {
            let _ = write!(text, "; {attribute}");
        }
    }
    if let Some(same_site) = cookie.same_site {
        text.push_str(match same_site {
            SameSite::Strict => "; SameSite=Strict",
            SameSite::Lax => "; SameSite=Lax",
            SameSite::None => "; SameSite=None",
        });
    }
    text
}

fn digest(name: &str) -> Name {
    Md5::digest(name).into()
}

/// The route of a peer for which the plan has no word: nginx `ngx_http_upstream_init_round_robin_sid`.
pub(super) fn route_of(address: &Address) -> Arc<str> {
    let hex = digest(&address.to_string()).iter().fold(String::with_capacity(32), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    hex.into()
}

#[cfg(test)]
#[path = "sticky/tests.rs"]
mod tests;
