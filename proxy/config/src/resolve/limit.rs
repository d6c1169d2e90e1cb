//! Limits, and how routes charge them.

use std::num::NonZeroU32;

use http::StatusCode;

use super::{Resolver, route::Scope};
use crate::{
    defaults as d,
    plan::{self, Cost, Counting, LimitId, LimitUse, names_session},
    raw::{self, LimitIn, LimitWindow, List, Short, Word},
    span::Place,
    template::{Template, Variable},
};

impl Resolver<'_> {
    pub(super) fn limits(&mut self) -> Vec<plan::Limit> {
        let raw = self.raw;
        raw.limits.entries().filter_map(|(name, limit, place)| self.limit(name, limit, place)).collect()
    }

    fn limit(&mut self, name: &str, raw: &raw::Limit, place: Place) -> Option<plan::Limit> {
        let key = raw.key.or(d::LIMIT_KEY.parse().expect("the default is a template"));
        if let Some(at) = raw.key.place() {
            self.limit_key(&key, at);
        }
        let keys = self.count(&raw.keys, d::LIMIT_KEYS) as usize;
        let ipv6_prefix = raw.ipv6_prefix.or(d::LIMIT_IPV6_PREFIX);
        if let Some(at) = raw.ipv6_prefix.place().filter(|_| !(1..=128).contains(&ipv6_prefix)) {
            self.report.error(at, "an IPv6 address has 128 bits").help("from 1 to 128; a subscriber has 64");
        }
        let status = StatusCode::from_u16(raw.status.or(d::LIMIT_STATUS)).unwrap_or_default();
        if let Some(at) = raw.status.place().filter(|_| !(400..600).contains(&status.as_u16())) {
            self.report.error(at, "a refusal has a status from 400 to 599").help("429, or 503 as nginx");
        }
        let counting = self.counting(raw, place)?;
        Some(plan::Limit {
            name: name.into(),
            key,
            ipv6_prefix: u8::try_from(ipv6_prefix).unwrap_or(128),
            shared: self.shared(raw, &counting),
            counting,
            dry_run: raw.dry_run.or(false),
            status,
            headers: raw.headers.or(d::LIMIT_HEADERS),
            keys,
            place,
        })
    }

    fn limit_key(&mut self, key: &Template, at: Place) {
        self.key_is_certain(key, at);
        for variable in key.variables() {
            let (problem, help) = match variable {
                Variable::RequestId => {
                    self.report.error(at, "no two requests share their `${request.id}`: this limits nobody");
                    continue;
                }
                Variable::Token => (
                    "exists only in the key of a session",
                    "use `${client.ip}`, a header, or `${session.user_id}`",
                ),
                Variable::CacheStatus => {
                    ("is not known yet when limits are charged", "use something that the request has")
                }
                _ => continue,
            };
            self.report.error(at, format!("`${{{variable}}}` {problem}")).help(help);
        }
    }

    /// Requests in time or at once.
    fn counting(&mut self, raw: &raw::Limit, place: Place) -> Option<Counting> {
        if let Some((most, at)) = raw.concurrent.placed() {
            let of_time = [
                (raw.rate.place(), "rate"),
                (raw.window.place(), "window"),
                (raw.burst.place(), "burst"),
                (raw.delay.place(), "delay"),
                (raw.counted.place(), "in"),
                (raw.keys.place(), "keys"),
            ];
            for (at, word) in of_time.into_iter().filter_map(|(at, word)| Some((at?, word))) {
                let problem = self.report.error(at, format!("`{word}` means nothing beside `concurrent`"));
                problem.help("write two limits: a route may charge several");
            }
            let Some(most) = NonZeroU32::new(*most) else {
                self.report.error(at, "this must be at least 1");
                return None;
            };
            return Some(Counting::Concurrent { most });
        }
        // A word that is wrong was told already.
        if !raw.concurrent.is_absent() {
            return None;
        }
        let (rate, _) = self.required(&raw.rate, "rate", place)?;
        if raw.window.or(d::LIMIT_WINDOW) == LimitWindow::Sliding {
            for (at, word) in [(raw.burst.place(), "burst"), (raw.delay.place(), "delay")] {
                let Some(at) = at else { continue };
                let problem = self.report.error(at, format!("`{word}` means nothing with `window: sliding`"));
                problem.help("all that the rate counts may pass at once, and no more until it is over");
            }
            return Some(Counting::Sliding { rate: *rate });
        }
        let burst = match raw.burst.get() {
            Some(_) => NonZeroU32::new(self.count(&raw.burst, 1)).unwrap_or(NonZeroU32::MIN),
            None => rate.count,
        };
        let at_once = self.count(&raw.delay, burst.get());
        if let Some(at) = raw.delay.place().filter(|_| at_once > burst.get()) {
            let problem = self.report.error(at, format!("only {burst} pass at once in all (`burst`)"));
            problem.help("those beyond `delay` wait; without it nobody does");
        }
        Some(Counting::Steady { rate: *rate, burst, at_once })
    }

    fn shared(&mut self, raw: &raw::Limit, counting: &Counting) -> Option<plan::Shared> {
        if raw.counted.or(LimitIn::Memory) == LimitIn::Memory {
            // A word that is wrong was told already.
            if matches!(raw.counted, Word::Wrong(_)) {
                return None;
            }
            for (at, word) in [(raw.lease.place(), "lease"), (raw.on_redis_down.place(), "on_redis_down")] {
                let Some(at) = at else { continue };
                self.report.error(at, format!("`{word}` means nothing without `in: redis`"));
            }
            return None;
        }
        if let Some(at) = raw.delay.place() {
            let problem = self.report.error(at, "requests wait in order only where they are counted");
            problem.help("leave out `delay` or `in: redis`");
        }
        let most = counting.most();
        let lease = self.count(&raw.lease, (most.get() / d::LIMIT_LEASE_PART).max(1));
        if let Some(at) = raw.lease.place().filter(|_| lease > most.get()) {
            self.report.error(at, format!("the limit has only {most} to lease"));
        }
        let lease = NonZeroU32::new(lease).unwrap_or(NonZeroU32::MIN);
        Some(plan::Shared { lease, on_redis_down: raw.on_redis_down.or(d::LIMIT_ON_REDIS_DOWN) })
    }

    /// Whoever is shared needs something to share it by.
    pub(super) fn limits_can_be_shared(&mut self, plan: &plan::Plan) {
        let raw = self.raw;
        if plan.redis.is_some() || raw.redis.get().is_some_and(|redis| !redis.url_file.is_absent()) {
            return;
        }
        let shared = raw.limits.entries().filter_map(|(name, limit, _)| {
            let (counted, at) = limit.counted.placed()?;
            (*counted == LimitIn::Redis).then_some((name, at))
        });
        for (name, at) in shared {
            let problem = self.report.error(at, format!("limit `{name}` has no `redis` to be counted in"));
            problem.help("define it at the top of the file: `redis: { url: … }`");
        }
    }

    /// The limits of a route, in its order.
    pub(super) fn limit_uses(
        &mut self,
        word: &Word<List<Short<raw::LimitUse>>>,
        scope: &Scope,
    ) -> Vec<LimitUse> {
        let (raw, known) = (self.raw, self.names.limits.clone());
        let mut uses: Vec<LimitUse> = Vec::new();
        for (Short(used), place) in word.items() {
            let Some((name, at)) = self.required(&used.limit, "use", place) else { continue };
            // The short form has no place of its own.
            let at = if at == Place::default() { place } else { at };
            let Some(limit) = self.look_up("limit", name, at, &known).map(LimitId) else { continue };
            if uses.iter().any(|known| known.limit == limit) {
                self.report.error(at, format!("limit `{name}` would be charged twice"));
            }
            // The limit is checked for itself; here only what depends on the route.
            let limited = raw.limits.entries().find(|(known, ..)| known == name).map(|(_, limit, _)| limit);
            let key = limited.and_then(|limit| limit.key.get());
            if let Some(key) = key {
                self.key_is_known(name, key, at, scope);
            }
            let cost = self.cost(used, limited, scope);
            let after_session = key.is_some_and(names_session)
                || matches!(&cost, Cost::Asked(template) if names_session(template));
            uses.push(LimitUse { limit, cost, after_session });
        }
        uses
    }

    /// Whether the route has what the limit counts by.
    fn key_is_known(&mut self, name: &str, key: &Template, at: Place, scope: &Scope) {
        for variable in key.variables() {
            match variable {
                Variable::PathParam(parameter) if !scope.has(parameter) => {
                    let message = format!(
                        "limit `{name}` counts by `${{{variable}}}`, which this route's path does not have"
                    );
                    self.report.error(at, message);
                }
                Variable::Session(_) if !scope.session => {
                    let message =
                        format!("limit `{name}` counts by `${{{variable}}}`, and this route has no session");
                    self.report.error(at, message).help("add `session: { use: … }`");
                }
                _ => {}
            }
        }
    }

    fn cost(&mut self, raw: &raw::LimitUse, limit: Option<&raw::Limit>, scope: &Scope) -> Cost {
        let one = Cost::Fixed(NonZeroU32::MIN);
        let Some((cost, at)) = raw.cost.placed() else { return one };
        if limit.is_some_and(|limit| !limit.concurrent.is_absent()) {
            self.report.error(at, "a request under way is one request, whatever it costs");
            return one;
        }
        let Some(text) = cost.as_text() else {
            self.check(cost, at, scope);
            return Cost::Asked(cost.clone());
        };
        let Some(number) = text.parse().ok().and_then(NonZeroU32::new) else {
            let problem = self.report.error(at, format!("`{text}` is no number of requests"));
            problem.help("write `5`, or a value that the request has: `${header.x-cost}`");
            return one;
        };
        let most = limit.and_then(|limit| {
            let rate = limit.rate.get().map(|rate| rate.count.get());
            limit.burst.get().copied().or(rate)
        });
        if let Some(most) = most.filter(|most| number.get() > *most) {
            self.report.error(at, format!("the limit never lets more than {most} through at once"));
        }
        Cost::Fixed(number)
    }
}
