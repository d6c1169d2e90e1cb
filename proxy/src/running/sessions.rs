//! The sessions of a plan: who is asked for them, and what of an earlier plan they still are.

use std::sync::Arc;

use weir_config::{
    Plan,
    plan::{self, JwtKeys, UpstreamId},
    template::Template,
};

use super::{CannotRun, Running, Upstream, ask::AskUpstream};
use crate::{
    auth::{Ask, Form, Sessions, Source, Sources, source::RedisSource},
    fleet::Redis,
};

/// Builds them; the same sources mean the same sessions, and what is known of them stays known.
pub(super) fn build(
    plan: &Plan,
    old: Option<&Running>,
    upstreams: &[Arc<Upstream>],
    redis: Option<&Redis>,
) -> Result<Vec<Sessions>, Vec<CannotRun>> {
    let build = |session| {
        old.and_then(|old| old.same_sessions(plan, session, redis))
            .map_or_else(|| new(session, upstreams, redis), Ok)
    };
    plan.sessions.iter().map(build).collect::<Result<_, _>>().map_err(|problem| vec![problem])
}

fn new(
    session: &plan::Session,
    upstreams: &[Arc<Upstream>],
    redis: Option<&Redis>,
) -> Result<Sessions, CannotRun> {
    let in_redis = |key: &Template, form: Form| {
        redis.map(|redis| Source::Redis(RedisSource::new(redis.clone(), key.clone(), form)))
    };
    let mut sources = Sources::default();
    if let Some(jwt) = &session.jwt {
        sources.keys = asked_for_keys(jwt).map(|upstream| ask(upstreams, upstream));
        let of = |key: &Option<Template>, form| key.as_ref().and_then(|key| in_redis(key, form));
        sources.revoked = of(&jwt.revoked, Form::Mark);
        sources.revoked_before = of(&jwt.revoked_before, Form::Time);
    } else {
        let ask = session
            .ask
            .as_ref()
            .map(|asked| Source::Ask { ask: ask(upstreams, asked.upstream), plan: asked.clone() });
        if session.is_in_redis() {
            sources.held = in_redis(&session.key, session.format.into());
        }
        match sources.held {
            None => sources.held = ask,
            Some(_) => sources.ask = ask.filter(|_| session.asks_when_down),
        }
    }
    if let Some(key) = &session.roles_key {
        sources.roles = in_redis(key, Form::Text);
    }
    Sessions::new(session, sources).map_err(|problem| {
        let place = match session.jwt.as_ref().map(|jwt| &jwt.keys) {
            Some(JwtKeys::Set(text)) => text.place,
            _ => session.place,
        };
        CannotRun::new(place, crate::causes::Causes(&problem))
    })
}

fn asked_for_keys(jwt: &plan::Jwt) -> Option<UpstreamId> {
    match jwt.keys {
        JwtKeys::Asked { upstream, .. } => Some(upstream),
        JwtKeys::Secret(_) | JwtKeys::Set(_) => None,
    }
}

/// Whether tokens mean the same under both plans. Keys are believed because of who tells them: by name and servers, as its
/// place among the upstreams says nothing.
fn same_jwt((old_plan, old): (&Plan, &plan::Session), (plan, session): (&Plan, &plan::Session)) -> bool {
    let issuer = |plan: &Plan, jwt| {
        asked_for_keys(jwt).map(|issuer| {
            let upstream = &plan.upstreams[issuer.index()];
            let servers = upstream.servers.iter().map(|server| server.name().to_owned());
            (Arc::clone(&upstream.name), servers.collect::<Vec<_>>())
        })
    };
    match (&old.jwt, &session.jwt) {
        (Some(old), Some(new)) => {
            let mut same_place = new.clone();
            if let (JwtKeys::Asked { upstream, .. }, Some(old)) = (&mut same_place.keys, asked_for_keys(old))
            {
                *upstream = old;
            }
            *old == same_place && issuer(old_plan, old) == issuer(plan, new)
        }
        (old, new) => old == new,
    }
}

fn ask(upstreams: &[Arc<Upstream>], upstream: UpstreamId) -> Arc<dyn Ask> {
    Arc::new(AskUpstream::new(Arc::clone(&upstreams[upstream.index()])))
}

impl Running {
    fn same_sessions(&self, plan: &Plan, session: &plan::Session, redis: Option<&Redis>) -> Option<Sessions> {
        let position = self.plan.sessions.iter().position(|old| old.name == session.name)?;
        let old = &self.plan.sessions[position];
        let same = old.key == session.key
            && old.from == session.from
            && (old.format, &old.fields) == (session.format, &session.fields)
            && same_jwt((&self.plan, old), (plan, session))
            && (old.memory_ttl, old.memory_entries) == (session.memory_ttl, session.memory_entries)
            && (&old.roles_key, old.sliding) == (&session.roles_key, session.sliding)
            && (old.staleness, old.serve_known_for) == (session.staleness, session.serve_known_for)
            // Who asks an origin asks one of this generation's upstreams.
            && !(old.asks_when_down || session.asks_when_down)
            && (session.jwt.is_some() || (old.is_in_redis() && session.is_in_redis()))
            && match (&self.redis, redis) {
                (Some(old), Some(new)) => old.is(new),
                (old, new) => old.is_none() && new.is_none() && session.jwt.is_some(),
            };
        same.then(|| self.sessions[position].clone())
    }

    /// This generation is in force: sessions that were there before ask its upstreams for keys from now on.
    pub(super) fn rewire_sessions(&self) {
        for (plan, sessions) in self.plan.sessions.iter().zip(&self.sessions) {
            if let Some(upstream) = plan.jwt.as_ref().and_then(asked_for_keys) {
                sessions.ask_now(ask(&self.upstreams, upstream));
            }
        }
    }
}
