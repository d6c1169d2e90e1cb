//! What a route keeps: under which key, for whom, and who may purge it.

use super::{Resolver, ask::names_nobody, route::Scope};
use crate::{
    defaults as d,
    plan::{self, CacheId, Match},
    raw,
    span::Place,
    template::{Template, Variable},
};

impl Resolver<'_> {
    pub(super) fn cache_rule(
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
    pub(super) fn answers_stay_private(
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

    /// Answers of one upstream are one another's, as with nginx's `$proxy_host`, unless a route lets only some pass or
    /// asks the origin in other words: then they are its own. A key that the operator wrote is taken at its word about
    /// where the answers come from, never about who may see them.
    pub(super) fn realm(&self, route: &plan::Route) -> Option<String> {
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
}
