//! What a request is looked up, kept and purged by, once it has its route: the target, the key, the tags.

use std::borrow::Cow;

use http::header;
use weir_config::{
    plan::{CacheRule, Forward},
    template::{Template, Values as _},
};

use super::{Passed, doubts::doubts};
use crate::{
    accept::BadRequest,
    auth::Presented,
    cache::{Key, Rule, Tag},
    refusal::Refusal,
    request::RequestView,
    route::rewrite,
    running::{Running, is_callers_own},
};

impl Passed {
    /// What the peer is asked for.
    ///
    /// # Errors
    /// 400 when what a template of the route makes of it is no target.
    pub fn target<'r>(&self, request: &'r RequestView, forward: &Forward) -> Result<Cow<'r, str>, Refusal> {
        match &forward.rewrite {
            None => Ok(request.target()),
            Some(template) => rewrite::target(template, &self.facts(request), self.params())
                .map(Cow::Owned)
                .map_err(|_| Refusal::Bad(BadRequest::BadTarget)),
        }
    }

    /// What tells its answer apart from others: the route's template, or scheme, host and target.
    ///
    /// # Errors
    /// As [`Passed::target`].
    pub fn key(&self, request: &RequestView, rule: &CacheRule, forward: &Forward) -> Result<Key, Refusal> {
        Ok(match &rule.key {
            Some(template) => {
                let mut text = String::with_capacity(96);
                template.render_key(&self.facts(request), &mut text);
                Key::rendered(&rule.realm, &doubts(request, template), &text)
            }
            None => {
                let target = self.target(request, forward)?;
                Key::target(&rule.realm, request.scheme, &request.authority, &target)
            }
        })
    }

    /// The same of a QUERY with what it sends.
    ///
    /// # Errors
    /// As [`Passed::target`].
    pub fn key_of_query(
        &self,
        request: &RequestView,
        rule: &CacheRule,
        forward: &Forward,
        content: &[u8],
    ) -> Result<Key, Refusal> {
        let fields = [header::CONTENT_TYPE, header::CONTENT_ENCODING, header::CONTENT_LANGUAGE];
        let lines = fields.iter().map(|name| {
            let values = request.headers.get_all(name).iter();
            values.map(|value| value.as_bytes().escape_ascii().to_string()).collect::<Vec<_>>().join(",")
        });
        let kind = lines.collect::<Vec<_>>().join("\n");
        Ok(self.key(request, rule, forward)?.with_content(&kind, content))
    }

    /// How its answer may be kept and used.
    #[must_use]
    pub fn policy<'r>(&self, running: &'r Running, request: &RequestView, rule: &CacheRule) -> Cow<'r, Rule> {
        let mut policy = Cow::Borrowed(running.cache_rule(self.route));
        if policy.private_to_caller && self.is_nameless(request, rule) {
            // All who have none of it ask under one key: to them it is one that everybody shares.
            let policy = policy.to_mut();
            (policy.private_to_caller, policy.bypassed) = (false, self.caller().is_some());
        }
        if self.holds(request, &rule.keeping.bypass) {
            policy.to_mut().bypassed = true;
        }
        policy
    }

    /// Whether the route forbids to keep its answer.
    #[must_use]
    pub fn keeps_nothing(&self, request: &RequestView, rule: &CacheRule) -> bool {
        self.caller().is_some() && self.is_nameless(request, rule)
            || self.holds(request, &rule.keeping.no_store)
    }

    /// Whether the key tells callers apart by what this one does not have, or who is nobody that is known: all of them would
    /// share what is each one's.
    fn is_nameless(&self, request: &RequestView, rule: &CacheRule) -> bool {
        let Some(key) = &rule.key else { return false };
        let facts = self.facts(request);
        let mut own = key.variables().filter(|variable| is_callers_own(variable)).peekable();
        own.peek().is_some() && own.all(|variable| facts.value(variable).is_none_or(|value| value.is_empty()))
    }

    /// Whether the origin may hear who asks: from us, or by what stands where tokens come. Also by one that nobody knows here, or
    /// that can be none to us: the origin has eyes of its own.
    #[must_use]
    pub fn tells_who_asks(&self, running: &Running, request: &RequestView) -> bool {
        let route = self.route(running);
        let shown = |rule| running.presented(rule, &request.headers) != Presented::Nothing;
        // Where a service only lets pass, the origin does not hear of it.
        self.caller().is_some_and(|caller| caller.is_named() || route.tells_of_session())
            || route.session.as_ref().is_some_and(shown)
    }

    /// Whether one of these is neither empty nor `0` (nginx's `proxy_cache_bypass`).
    fn holds(&self, request: &RequestView, conditions: &[Template]) -> bool {
        let facts = self.facts(request);
        conditions.iter().any(|condition| {
            let mut text = String::new();
            condition.render(&facts, &mut text);
            !text.is_empty() && text != "0"
        })
    }

    /// What the route's templates say it is purged by.
    #[must_use]
    pub fn tags(&self, request: &RequestView, rule: &CacheRule) -> Vec<Tag> {
        self.tag_names(request, &rule.tags).iter().map(|name| Tag::named(name)).collect()
    }

    /// Tags by their names.
    #[must_use]
    pub fn tag_names(&self, request: &RequestView, templates: &[Template]) -> Vec<String> {
        let facts = self.facts(request);
        let name = |template: &Template| {
            let mut text = String::new();
            template.render_key(&facts, &mut text);
            text
        };
        templates.iter().map(name).collect()
    }
}
