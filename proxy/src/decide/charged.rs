//! Charging a route's limits: what needs no waiting at once, the rest where it may be awaited.

use std::{borrow::Cow, num::NonZeroU32, time::Instant};

use weir_config::{
    plan::{Cost, LimitUse, Route, RouteId},
    template::{Values, Variable},
};

use crate::{
    limit::{self, Admitted, Cause, Charge, Over, Progress, Tally},
    refusal::Refusal,
    request::Facts,
    running::Running,
};

/// How far a request's charges came without waiting.
pub(super) enum Charged {
    /// They are done.
    Admitted(Admitted),
    /// Redis has to be asked, or the request's turn has not come.
    Waits(Tally),
    /// One refused.
    Refused(Refusal, Admitted),
}

/// Charges those of a route's limits that are due before the session is known, or after it; all or none of them.
pub(super) fn charge(
    running: &Running,
    route: RouteId,
    after_session: bool,
    facts: Facts<'_>,
    now: Instant,
) -> Charged {
    let route = &running.plan.routes[route.index()];
    let due = route.limits.iter().filter(|used| used.after_session == after_session);
    let charges: Vec<_> = due.filter_map(|used| charge_of(running, route, used, facts)).collect();
    if charges.is_empty() {
        return Charged::Admitted(Admitted::default());
    }
    let mut tally = Tally::new(charges);
    match running.limits.charge(&mut tally, now) {
        Ok(Progress::Done) if tally.waits_until().is_none() => {
            count(running, &tally);
            Charged::Admitted(tally.into_admitted())
        }
        Ok(Progress::Done | Progress::Asks) => Charged::Waits(tally),
        Err(over) => {
            count(running, &tally);
            Charged::Refused(refusal_of(over), tally.into_admitted())
        }
    }
}

/// Ends what [`charge`] began: asks Redis, and waits until the request's turn has come. A future that waits is all that it costs.
pub(super) async fn settle(running: &Running, mut tally: Tally) -> Result<Admitted, (Refusal, Admitted)> {
    let mut settled = Ok(Progress::Asks);
    while settled == Ok(Progress::Asks) {
        settled = running.limits.charge(&mut tally, Instant::now());
        if settled == Ok(Progress::Asks) {
            let asked = running.limits.ask(&mut tally, Instant::now()).await;
            settled = asked.map(|()| Progress::Asks);
        }
    }
    count(running, &tally);
    match settled {
        Ok(_) => {
            if let Some(turn) = tally.waits_until() {
                tokio::time::sleep_until(turn.into()).await;
            }
            Ok(tally.into_admitted())
        }
        Err(over) => Err((refusal_of(over), tally.into_admitted())),
    }
}

/// None for a key that is empty: nobody is counted by what they do not have, as in nginx.
fn charge_of(running: &Running, route: &Route, used: &LimitUse, facts: Facts<'_>) -> Option<Charge> {
    let limit = &running.plan.limits[used.limit.index()];
    let mut key = String::with_capacity(48);
    limit.key.render_key(&Counted { facts, route: &route.name, ipv6_prefix: limit.ipv6_prefix }, &mut key);
    // A value that is there and empty is a lone `%`.
    let is_empty = limit.key.variables().next().is_some() && matches!(&*key, "" | "%");
    let cost = match &used.cost {
        Cost::Fixed(cost) => *cost,
        Cost::Asked(template) => {
            let mut text = String::new();
            template.render(&facts, &mut text);
            text.trim().parse().unwrap_or(NonZeroU32::MIN)
        }
    };
    (!is_empty).then_some(Charge { limit: used.limit, key, cost })
}

fn count(running: &Running, tally: &Tally) {
    for (limit, verdict) in tally.verdicts() {
        running.count_limit(limit, verdict);
    }
}

fn refusal_of(over: Over) -> Refusal {
    match over.cause {
        Cause::Full { retry_after, status } => Refusal::Limited { retry_after, status },
        Cause::Unavailable => Refusal::LimitsDown,
    }
}

/// A request's facts for counting: a client with an IPv6 network of its own is one client.
struct Counted<'a> {
    facts: Facts<'a>,
    route: &'a str,
    ipv6_prefix: u8,
}

impl Values for Counted<'_> {
    fn value(&self, variable: &Variable) -> Option<Cow<'_, str>> {
        match variable {
            Variable::ClientIp => {
                let client = limit::key::client(self.facts.request.client, self.ipv6_prefix);
                Some(client.to_string().into())
            }
            Variable::RouteName => Some(self.route.into()),
            other => self.facts.value(other),
        }
    }
}
