//! Routes: what they match and ask for, and whether the parts go together; what they do is in [`super::action`].

use std::collections::HashMap;

use super::{
    Resolver,
    ask::{names_nobody, tells},
    path::{parameters, path_text},
};
use crate::{
    defaults as d,
    plan::{self, CacheId, HostPattern, Match, SessionId},
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

    /// Answers of one upstream are one another's, as with nginx's `$proxy_host`, unless a route lets only some pass or
    /// asks the origin in other words: then they are its own. A key that the operator wrote is taken at its word about
    /// where the answers come from, never about who may see them.
    fn realm(&self, route: &plan::Route) -> Option<String> {
        let (Some(cache), plan::Action::Forward(forward)) = (&route.cache, &route.action) else {
            return None;
        };
        let lets_some_pass =
            route.access.is_some() || route.session.is_some() || !route.when.headers.is_empty();
        let asks_otherwise = !route.request_headers.is_empty() || forward.host.is_some();
        let is_own = lets_some_pass || (cache.key.is_none() && asks_otherwise);
        let name = if is_own { &*route.name } else { "" };
        let upstream = match &cache.key {
            None => self.names.upstreams.get(forward.upstream.index()).map_or("", |name| name),
            Some(_) => "",
        };
        Some(format!("{}:{upstream}{name}", upstream.len()))
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

    fn source_of(&self, rule: &raw::SessionRule) -> Option<&raw::Session> {
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

    fn cache_rule(
        &mut self,
        raw: &raw::CacheRule,
        when: &Match,
        scope: &Scope,
        place: Place,
    ) -> Option<plan::CacheRule> {
        let keeping = self.keeping(raw, scope);
        let is_kept = |method: &http::Method| match *method {
            http::Method::GET | http::Method::HEAD => true,
            http::Method::QUERY => keeping.queries,
            _ => false,
        };
        if !when.methods.is_empty() && !when.methods.iter().any(is_kept) {
            self.report
                .error(place, "only answers to GET and HEAD are kept")
                .help("move `cache` to a route for GET");
        }
        if let Some((key, at)) = raw.key.placed() {
            self.check(key, at, scope);
            self.key_is_certain(key, at);
            if key.variables().count() == 0 {
                let problem = self.report.warning(at, "this key is the same for every request of the route");
                problem.help("whatever the origin answers differently must be in it: `${request.target}`");
            }
            if key.variables().any(|variable| *variable == Variable::RequestId) {
                self.report
                    .error(at, "no two requests share their `${request.id}`: nothing would ever be found");
            }
        }
        let rule = plan::CacheRule {
            cache: CacheId(0),
            ttl: raw.ttl.get().map(|_| self.time(&raw.ttl, d::STALE)),
            key: raw.key.get().cloned(),
            realm: "".into(),
            tags: self.tags(&raw.tags, scope),
            slice: self.slice(raw),
            partial: raw.partial.or(d::CACHE_PARTIAL),
            stale_while_revalidate: Self::span(&raw.stale_while_revalidate, d::STALE),
            stale_if_error: Self::span(&raw.stale_if_error, d::STALE),
            lock_timeout: Self::span(&raw.lock_timeout, d::CACHE_LOCK_TIMEOUT),
            background_fill: Self::span(&raw.background_fill, d::CACHE_BACKGROUND_FILL),
            keeping,
            purge: raw.purge.placed().map(|(rule, place)| self.purge_rule(rule, place)),
            place,
        };
        let (name, at) = self.required(&raw.cache, "in", place)?;
        let known = self.names.caches.clone();
        Some(plan::CacheRule { cache: CacheId(self.look_up("cache", name, at, &known)?), ..rule })
    }

    fn purge_rule(&mut self, raw: &raw::PurgeRule, place: Place) -> plan::PurgeRule {
        let allow = self.networks(&raw.allow);
        if raw.allow.items().next().is_none() {
            let problem = self.report.error(place, "`allow` is missing: nobody may purge");
            problem.help("name the networks that may, as in `allow: [127.0.0.1]`, or leave out `purge`");
        }
        if let Some(network) = allow.iter().find(|network| network.prefix_len() == 0) {
            let at = raw.allow.place().unwrap_or(place);
            let problem =
                self.report.warning(at, format!("`{network}` is everybody: any stranger may purge"));
            problem.help("an origin whose answers are purged at will has no cache in front of it");
        }
        plan::PurgeRule { allow, soft: raw.soft.or(false) }
    }

    /// The origin is told who asks, so its answer may be meant for nobody else.
    fn answers_stay_private(
        &mut self,
        rule: &plan::CacheRule,
        session: Option<&plan::SessionRule>,
        raw: &raw::Route,
        place: Place,
    ) {
        let Some(session) = session else { return };
        let at = raw.cache.get().and_then(|cache| cache.key.place()).unwrap_or(place);
        let source = raw.session.get().and_then(|rule| self.source_of(rule));
        let names_nobody = source.is_some_and(names_nobody);
        let is_of_session = |it: &Variable| matches!(it, Variable::Session(_));
        let names_user = |it: &Variable| matches!(it, Variable::Session(field) if &**field == "user_id");
        if names_nobody && rule.key.iter().flat_map(Template::variables).any(names_user) {
            let problem =
                self.report.error(at, "`${session.user_id}` is always empty: nobody says whose a request is");
            problem.help("add `fields: { user_id: x-user }` to the session");
            return;
        }
        if rule.key.iter().flat_map(Template::variables).any(is_of_session) {
            return;
        }
        // Who may pass is no secret of theirs, as with `access`, and the origin hears nothing of them.
        let asked_for = raw.host.get().into_iter().chain(raw.rewrite.get());
        let mut sent = raw.request_headers.entries().map(|(_, value, _)| value).chain(asked_for);
        let tells_origin = sent.any(|value| value.variables().any(is_of_session));
        if names_nobody && session.required && !tells_origin {
            return;
        }
        let problem = match session.required {
            true => self.report.error(
                at,
                "one caller would be answered with another's data: the key has nothing of the session",
            ),
            false => self.report.warning(
                at,
                "the key has nothing of the session: callers with and without one share answers",
            ),
        };
        problem.help("add a field that tells callers apart, such as `${session.user_id}`, to `cache.key`");
    }

    fn tags(&mut self, word: &Word<List<Template>>, scope: &Scope) -> Vec<Template> {
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

    /// Of routes with the same host and path the first decides, so a later one that asks for no less is never asked.
    pub(super) fn routes_can_be_reached(&mut self, routes: &[plan::Route]) {
        if routes.is_empty() {
            let place = self.raw.routes.place().unwrap_or_default();
            self.report.warning(place, "there are no routes: every request is answered with 404");
        }
        for (index, route) in routes.iter().enumerate() {
            let Some(first) = routes[..index].iter().find(|first| covers(&first.when, &route.when)) else {
                continue;
            };
            let message = format!(
                "`{}` is never reached: the route in line {} matches the same",
                route.name, first.place.line
            );
            self.report
                .warning(route.place, message)
                .help("of routes with the same host and path the first one decides");
        }
    }

    /// Names are metric labels: two routes must not share one. Names of our own making are told apart by a number.
    fn names_differ(&mut self, mut routes: Vec<plan::Route>) -> Vec<plan::Route> {
        let raw = self.raw;
        let mut given: HashMap<&str, Place> = HashMap::new();
        for (route, _) in raw.routes.items() {
            let Some((name, place)) = route.name.placed() else { continue };
            match given.get(name.as_str()) {
                Some(first) => {
                    let message = format!("another route is called `{name}`, in line {}", first.line);
                    self.report
                        .error(place, message)
                        .help("logs and metrics tell routes apart by their names");
                }
                None => {
                    given.insert(name, place);
                }
            }
        }
        let mut uses: HashMap<String, u32> = HashMap::new();
        for route in &mut routes {
            let uses = uses.entry(route.name.to_string()).or_default();
            *uses += 1;
            if *uses > 1 {
                route.name = format!("{} #{uses}", route.name).into();
            }
        }
        routes
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

/// `GET,POST example.org/api/items`.
fn default_name(when: &Match) -> String {
    let methods: Vec<&str> = when.methods.iter().map(http::Method::as_str).collect();
    let gap = if methods.is_empty() { "" } else { " " };
    let host = when.hosts.first().map_or_else(String::new, |host| match host {
        HostPattern::Exact(host) => host.clone(),
        HostPattern::Suffix(suffix) => format!("*{suffix}"),
    });
    format!("{}{gap}{host}{}", methods.join(","), path_text(&when.path))
}

/// Whether everything that `second` matches is matched by `first`, as far as can be seen from equal words.
fn covers(first: &Match, second: &Match) -> bool {
    let hosts = first.hosts == second.hosts;
    // Without methods a route takes all but CONNECT.
    let methods = (first.methods.is_empty() && second.methods != [http::Method::CONNECT])
        || (!second.methods.is_empty() && second.methods.iter().all(|method| first.methods.contains(method)));
    hosts && methods && first.headers.is_empty() && path_text(&first.path) == path_text(&second.path)
}
