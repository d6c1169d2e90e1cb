//! Routes: what they match and ask for, and whether the parts go together; what they do is in [`super::action`], what
//! they keep in [`super::cached`], how they stand beside one another in [`super::reach`].

use super::{Resolver, ask::tells, path::parameters, reach::default_name};
use crate::{
    defaults as d,
    plan::{self, Match, SessionId},
    raw::{self, List, Named, Short, Word},
    span::Place,
    template::{Part, Template, Variable},
};

/// What templates of a route can ask for.
pub(super) struct Scope {
    parameters: Vec<String>,
    pub(super) session: bool,
}

/// Fields that belong to the framing of a message or to one connection: setting them by hand breaks either.
pub(super) const FRAMING: [&str; 9] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "host",
];

impl Resolver<'_> {
    pub(super) fn routes(&mut self) -> Vec<plan::Route> {
        let raw = self.raw;
        let compress = self.compress_all();
        let routes = raw.routes.items();
        let routes: Vec<_> =
            routes.filter_map(|(route, place)| self.route(route, compress.as_ref(), place)).collect();
        let mut routes = self.names_differ(routes);
        for route in &mut routes {
            if let Some(realm) = self.realm(route)
                && let Some(cache) = &mut route.cache
            {
                cache.realm = realm.into();
            }
        }
        routes
    }

    fn route(
        &mut self,
        raw: &raw::Route,
        compress: Option<&plan::Compress>,
        place: Place,
    ) -> Option<plan::Route> {
        let anything = Short::default();
        let (Short(when), at) = raw.when.placed().unwrap_or((&anything, place));
        let mut when = self.matching(when, at);
        if !raw.tunnel.is_absent() {
            when.methods = vec![http::Method::CONNECT];
        }
        let parameters = parameters(&when.path).into_iter().map(str::to_owned).collect();
        let scope = Scope { parameters, session: !raw.session.is_absent() };

        let session = raw.session.placed().and_then(|(rule, place)| self.session_rule(rule, &scope, place));
        let cache = raw.cache.placed().and_then(|(rule, place)| self.cache_rule(rule, &when, &scope, place));
        if let (Some(rule), Some(place)) = (&cache, raw.cache.place()) {
            self.answers_stay_private(rule, session.as_ref(), raw, place);
        }
        let access = raw.access.get().map(|access| plan::Access {
            allow: self.networks(&access.allow),
            deny: self.networks(&access.deny),
        });
        let limits = self.limit_uses(&raw.limit, &scope);
        let invalidate = self.tags(&raw.invalidate, &scope);
        if let Some(at) = raw.invalidate.place().filter(|_| only_safe(&when)) {
            let problem =
                self.report.warning(at, "`invalidate` has no effect here: this route has only safe methods");
            problem.help("entries are purged by POST, PUT, PATCH and DELETE");
        }
        let request_headers = self.headers(&raw.request_headers, &scope, true);
        let response_headers = self.headers(&raw.response_headers, &scope, false);
        let error_pages = self.error_pages(raw, &scope);
        let compress = self.compress(&raw.compress, compress);
        let compress = self.compress_sliced(raw, cache.as_ref(), compress);
        let action = self.action(raw, &when, &scope, place)?;
        Some(plan::Route {
            name: raw.name.get().map_or_else(|| default_name(&when), Clone::clone).into(),
            when,
            access,
            limits,
            session,
            cache,
            invalidate,
            request_headers,
            response_headers,
            action,
            body_bytes: raw.body_bytes.get().copied(),
            error_pages,
            intercept_errors: raw.intercept_errors.or(false),
            limit_rate: self.limit_rate(raw),
            compress,
            gunzip: raw.gunzip.or(false),
            place,
        })
    }

    fn session_rule(
        &mut self,
        raw: &raw::SessionRule,
        scope: &Scope,
        place: Place,
    ) -> Option<plan::SessionRule> {
        let [roles, permissions] = [&raw.roles, &raw.permissions]
            .map(|list| list.items().map(|(name, _)| name.clone()).collect::<Vec<String>>());
        let login = raw.on_missing.placed().and_then(|(raw, place)| self.login(raw, scope, place));
        let needs = [
            ("roles", !roles.is_empty()),
            ("permissions", !permissions.is_empty()),
            ("on_missing", login.is_some()),
        ];
        let needs = needs.iter().find(|(_, needs)| *needs).map(|(key, _)| key);
        let is_told = self.source_of(raw).is_some_and(tells);
        // What a service says of a request is about this one; that nobody asks it has to be said.
        let required = raw.required.or(needs.is_some() || is_told);
        if let (Some(key), Some(at)) = (needs, raw.required.place().filter(|_| !required)) {
            let problem = self.report.error(at, format!("`{key}` is for a session that is `required`"));
            problem.help(format!("remove `required: false`, or the {key}"));
        }
        let (name, at) = self.required(&raw.source, "use", place)?;
        let known = self.names.sessions.clone();
        let session = SessionId(self.look_up("session", name, at, &known)?);
        if let Some(at) = raw.ends.place().filter(|_| raw.ends.or(false) && is_told) {
            let problem = self
                .report
                .error(at, "no token ends here: the service of this session is asked about requests");
            problem.help("what it said is forgotten after `memory_ttl`");
        }
        Some(plan::SessionRule { session, required, roles, permissions, login, ends: raw.ends.or(false) })
    }

    pub(super) fn source_of(&self, rule: &raw::SessionRule) -> Option<&raw::Session> {
        let (raw, name) = (self.raw, rule.source.get()?);
        raw.sessions.entries().find(|(known, ..)| known == name).map(|(_, session, _)| session)
    }

    /// Where browsers without a session are sent: here, or to a host that is written out.
    fn login(&mut self, raw: &raw::OnMissing, scope: &Scope, place: Place) -> Option<Template> {
        let (template, at) = self.required(&raw.redirect, "redirect", place)?;
        self.check(template, at, scope);
        let first = match template.parts().first() {
            Some(Part::Text(text)) => &**text,
            _ => "",
        };
        let host = ["https://", "http://"].iter().find_map(|scheme| first.strip_prefix(scheme));
        let is_host = host.is_some_and(|host| host.find('/').is_some_and(|end| end > 0));
        let is_path = first.starts_with('/') && !first.starts_with("//") && !first.starts_with("/\\");
        if !is_host && !is_path {
            let problem = self.report.error(at, "this leads nobody knows where");
            problem.help("begin with a path, or with a host and `/`: `/login?next=${request.target}`");
        }
        Some(template.clone())
    }

    pub(super) fn tags(&mut self, word: &Word<List<Template>>, scope: &Scope) -> Vec<Template> {
        let mut tags = Vec::new();
        for (tag, place) in word.items() {
            self.check(tag, place, scope);
            self.key_is_certain(tag, place);
            if tag.as_text() == Some("") {
                self.report.error(place, "a tag needs a text");
            }
            tags.push(tag.clone());
        }
        tags
    }

    fn headers(
        &mut self,
        word: &Word<Named<Template>>,
        scope: &Scope,
        request: bool,
    ) -> Vec<(http::HeaderName, Template)> {
        let raw = self.raw;
        let identity =
            raw.identity.get().map(|it| it.header.or(d::IDENTITY_HEADER.to_owned()).to_ascii_lowercase());
        let mut headers = Vec::new();
        for (name, value, place) in word.entries() {
            match request {
                true => self.check(value, place, scope),
                false => self.check_answered(value, place, scope),
            }
            let Some(name) = self.header_name(name, place) else { continue };
            if name == http::header::HOST && request {
                self.report.error(place, "`host` has a key of its own").help("write `host: …` beside `to`");
            } else if FRAMING.contains(&name.as_str()) {
                self.report.error(place, format!("`{name}` belongs to the connection and cannot be set"));
            } else if request && identity.as_deref() == Some(name.as_str()) {
                self.report.error(place, format!("`{name}` is the signed identity and cannot be set"));
            }
            headers.push((name, value.clone()));
        }
        headers
    }

    /// Whether a template asks only for what this route has, before there is an answer.
    pub(super) fn check(&mut self, template: &Template, place: Place, scope: &Scope) {
        if template.variables().any(|variable| *variable == Variable::CacheStatus) {
            self.report.error(place, "`${cache.status}` exists only in `response_headers`");
        }
        self.check_answered(template, place, scope);
    }

    /// The same, once there is one.
    fn check_answered(&mut self, template: &Template, place: Place, scope: &Scope) {
        for variable in template.variables() {
            match variable {
                Variable::Token => {
                    let problem = self.report.error(place, "`${token}` exists only in `sessions.*.key`");
                    problem.help("a token must not get into keys, headers or logs; use `${session.FIELD}`");
                }
                Variable::RouteName => {
                    self.report.error(place, "`${route.name}` exists only in the key of a limit");
                }
                Variable::Session(_) if !scope.session => {
                    let message = format!("`${{{variable}}}` is always empty: this route has no session");
                    self.report.error(place, message).help("add `session: { use: … }`");
                }
                Variable::PathParam(name) if !scope.has(name) => {
                    let problem =
                        self.report.error(place, format!("the path of this route has no `{{{name}}}`"));
                    problem.suggest(name, scope.parameters.iter().map(String::as_str));
                }
                _ => {}
            }
        }
    }
}

impl Scope {
    /// The same before the path is known.
    pub(super) fn without_parameters(&self) -> Self {
        Self { parameters: Vec::new(), session: self.session }
    }

    pub(super) fn has(&self, parameter: &str) -> bool {
        self.parameters.iter().any(|known| known == parameter)
    }
}

fn only_safe(when: &Match) -> bool {
    !when.methods.is_empty() && when.methods.iter().all(http::Method::is_safe)
}
