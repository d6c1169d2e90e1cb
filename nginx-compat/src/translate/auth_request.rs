//! `auth_request` and `auth_request_set` → a session whose service is asked about each request.
//!
//! nginx sends that service every field of the client. Here it gets those that the operator names: what its location sets, and
//! the two that say who a client is. nginx asks for each request, and so does the session that comes out (`memory_ttl: 0s`),
//! unless its location has a cache. Where something that the service is told cannot be said, the route stays closed: it might
//! let pass whom it would not if it heard more.

use weir_config::{
    raw::{Ask, AskAnswer, Named, Route, Session, SessionRule, Word},
    template::{Template, Variable},
    units::Span,
};

use super::{
    Translator,
    forward::{NGINX_TIMEOUT, Target, can_be_set},
    named,
};
use crate::{
    scope::Scope,
    tree::Directive,
    value::span,
    variable::{self, Known},
};

const CLOSED: &str = "; until then its routes answer 403";
/// The fields of a client by which services know it.
const CLIENTS: [&str; 2] = ["authorization", "cookie"];
const NEEDED: &str = "name a location of this server, as `location = /auth { internal; proxy_pass http://UPSTREAM/path; }`, or write a session with `ask:`";

/// The route must not be open.
pub(super) struct Closed;

impl<'a> Translator<'a, '_> {
    /// Who has to let a request pass; what `auth_request_set` sets is `known` from then on.
    pub(super) fn asked(
        &mut self,
        scope: &Scope<'a>,
        known: &mut Known,
    ) -> Result<Word<SessionRule>, Closed> {
        let Some(directive) = scope.one("auth_request") else { return Ok(Word::Absent) };
        if directive.arg(0) == "off" {
            self.ledger.exact(directive);
            return Ok(Word::Absent);
        }
        let asked = self.service(directive, scope, known);
        let mut session = asked.map_err(|what_to_do| {
            self.ledger.refused(directive, format!("{what_to_do}{CLOSED}"));
            Closed
        })?;
        self.ledger.approximated(
            directive,
            "the service gets what its location sets, Authorization and Cookie, and no other field of the client; its errors are 503, not 500",
        );
        session.fields = self.set(scope, known);
        let source = self.session_named(directive.arg(0), session);
        Ok(Word::new(SessionRule { source: Word::new(source), ..SessionRule::default() }))
    }

    /// The session whose service is the location that `directive` names; otherwise what to do.
    fn service(
        &mut self,
        directive: &'a Directive,
        scope: &Scope<'a>,
        known: &Known,
    ) -> Result<Session, String> {
        let path = directive.arg(0);
        let inner = scope.of_location(path).ok_or(NEEDED)?;
        let pass = inner.own("proxy_pass").ok_or(NEEDED)?;
        let target = Target::of(pass).ok_or(NEEDED)?;
        let asked_for = target.uri.unwrap_or(path);
        if !variable::is_constant(asked_for) {
            return Err(
                "ask the service for one path, and tell it the request in fields of its own".to_owned()
            );
        }
        // A subrequest has the path of its location and no query; what else it sees is the request's.
        let mut known = Known { captures: Vec::new(), ..known.clone() };
        known.constants.extend([
            ("proxy_host", target.host().to_owned()),
            ("uri", path.to_owned()),
            ("document_uri", path.to_owned()),
            ("args", String::new()),
            ("query_string", String::new()),
        ]);
        let told = self.told(&inner, &known)?;
        let upstream = self.upstream_of(&inner, &target)?;
        self.ledger.exact(pass);
        for flag in ["proxy_pass_request_body", "proxy_pass_request_headers"] {
            inner.one(flag).into_iter().for_each(|flag| self.ledger.exact(flag));
        }
        Ok(Session {
            memory_ttl: Word::new(self.remembered(&inner)),
            ask: Word::new(Ask {
                upstream: Word::new(upstream),
                path: Word::new(asked_for.to_owned()),
                answer: Word::new(AskAnswer::Headers),
                request_headers: named(told),
                timeout: Word::new(
                    inner.one("proxy_read_timeout").and_then(|it| span(it.arg(0))).unwrap_or(NGINX_TIMEOUT),
                ),
                ..Ask::default()
            }),
            ..Session::default()
        })
    }

    /// What the service is told; otherwise what to do.
    fn told(&mut self, inner: &Scope<'a>, known: &Known) -> Result<Vec<(String, Template)>, String> {
        let template = |text: &str| variable::template(text, known);
        let mut told: Vec<(String, Template)> = Vec::new();
        for directive in inner.all("proxy_set_header") {
            let (name, value) = (directive.arg(0), directive.arg(1));
            if !can_be_set(name) {
                // A question has no body, and a connection of its own.
                self.ledger.ignored(directive, "weir manages the connection, and asks without a body");
                continue;
            }
            if value == "$proxy_add_x_forwarded_for" {
                self.ledger.approximated(directive, "the client's address alone, not those that it claims");
                told.push((name.to_owned(), template("$remote_addr")?));
                continue;
            }
            let said = match value.contains("$arg_") || value.contains("$is_args") {
                true => Err("a subrequest has no query: write `$request_uri`".to_owned()),
                false => template(value),
            };
            match said {
                Ok(value) => told.push((name.to_owned(), value)),
                Err(what_to_do) => {
                    self.ledger.refused(directive, what_to_do);
                    return Err(format!("the service cannot be told its {name}"));
                }
            }
            self.ledger.exact(directive);
        }
        let is_set = |told: &[(String, Template)], name: &str| {
            told.iter().any(|(there, _)| there.eq_ignore_ascii_case(name))
        };
        if !is_set(&told, "host") {
            told.push(("Host".to_owned(), template("$proxy_host")?));
        }
        let passes = inner.one("proxy_pass_request_headers").is_none_or(|flag| flag.arg(0) == "on");
        for name in CLIENTS.into_iter().filter(|_| passes) {
            if !is_set(&told, name) {
                told.push((name.to_owned(), template(&format!("$http_{name}"))?));
            }
        }
        // nginx does not send what is empty either.
        told.retain(|(_, value)| value.as_text() != Some(""));
        Ok(told)
    }

    /// How long an answer counts: not at all, or as long as the location's cache would keep a 200.
    fn remembered(&mut self, inner: &Scope<'a>) -> Span {
        let Some(cache) = inner.one("proxy_cache").filter(|cache| cache.arg(0) != "off") else {
            return Span::new(std::time::Duration::ZERO);
        };
        let mut kept = None;
        for valid in inner.all("proxy_cache_valid") {
            let words: Vec<&str> = valid.texts().collect();
            let Some((time, statuses)) = words.split_last() else { continue };
            let is_yes = statuses.is_empty() || statuses.iter().any(|it| matches!(*it, "200" | "any"));
            match span(time) {
                Some(time) if is_yes => {
                    kept = kept.or(Some(time));
                    self.ledger.exact(valid);
                }
                _ => self.ledger.approximated(valid, "a no is remembered for a second"),
            }
        }
        inner.one("proxy_cache_key").into_iter().for_each(|key| {
            self.ledger.approximated(key, "an answer counts for requests that tell the service the same");
        });
        self.ledger.approximated(cache, "in memory (`memory_ttl`), as long as a 200 would be kept");
        kept.unwrap_or(Span::new(std::time::Duration::ZERO))
    }

    /// `auth_request_set $NAME $upstream_http_FIELD`: a field of the session, under the name of the answer's.
    fn set(&mut self, scope: &Scope<'a>, known: &mut Known) -> Word<Named<String>> {
        let mut fields: Vec<(String, String)> = Vec::new();
        for directive in scope.all("auth_request_set") {
            let field = directive.arg(1).strip_prefix("$upstream_http_").filter(|name| {
                !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            });
            let (Some(name), Some(field)) = (directive.arg(0).strip_prefix('$'), field) else {
                let what_to_do = "have the service answer with a field, and write `$upstream_http_NAME`";
                self.ledger.refused(directive, what_to_do);
                continue;
            };
            let field = field.to_ascii_lowercase().replace('_', "-");
            known.set.push((name.to_owned(), format!("${{session.{field}}}")));
            if fields.iter().all(|(there, _)| *there != field) {
                fields.push((field.clone(), field));
            }
            self.ledger.exact(directive);
        }
        named(fields)
    }

    /// The name of this session: locations that ask the same have one, with the fields of all of them.
    fn session_named(&mut self, path: &str, session: Session) -> String {
        let base: String =
            path.trim_matches('/').chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let base = if base.is_empty() { "auth".to_owned() } else { base };
        let (mut name, mut copies) = (base.clone(), 1);
        while let Some((_, taken)) = self.sessions.iter_mut().find(|(taken, _)| *taken == name) {
            let is_same = Session { fields: Word::Absent, ..taken.clone() }
                == Session { fields: Word::Absent, ..session.clone() };
            if is_same {
                let mut fields: Vec<_> = taken
                    .fields
                    .entries()
                    .map(|(ours, theirs, _)| (ours.to_owned(), theirs.clone()))
                    .collect();
                let more =
                    session.fields.entries().map(|(ours, theirs, _)| (ours.to_owned(), theirs.clone()));
                more.for_each(|field| {
                    if !fields.contains(&field) {
                        fields.push(field)
                    }
                });
                taken.fields = named(fields);
                return name;
            }
            copies += 1;
            name = format!("{base}-{copies}");
        }
        self.sessions.push((name.clone(), session));
        name
    }

    /// What an origin says to who asks, whom it hears of, is not for everybody: no cache without a key that says for whom.
    pub(super) fn kept_for_whom(&mut self, scope: &Scope<'a>, route: &mut Route) {
        let is_of_session = |value: &Template| value.variables().any(|it| matches!(it, Variable::Session(_)));
        let tells = route.request_headers.entries().any(|(_, value, _)| is_of_session(value))
            || route.host.get().is_some_and(is_of_session)
            || route.rewrite.get().is_some_and(is_of_session);
        let is_said = route.cache.get().and_then(|cache| cache.key.get()).is_some_and(is_of_session);
        if let Some(cache) =
            scope.one("proxy_cache").filter(|_| tells && !is_said && !route.cache.is_absent())
        {
            route.cache = Word::Absent;
            self.ledger.refused(
                cache,
                "the origin hears who asks (auth_request_set): add that variable to proxy_cache_key; until then nothing is kept",
            );
        }
    }
}
