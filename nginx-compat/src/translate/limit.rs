//! How often, and how many at once: `limit_req`, `limit_conn` and their zones.

use weir_config::{
    raw::{Limit, LimitUse, List, Short, Word},
    template::Template,
    units::Quota,
};

use super::{Translator, list};
use crate::{
    scope::Scope,
    tree::Directive,
    value::{bytes, number},
    variable::{self, Known},
};

/// What one key of a zone costs nginx on a 64-bit machine: 1 MiB holds about 8 thousand states.
const STATE_BYTES: u64 = 128;

/// A `limit_req_zone` or a `limit_conn_zone`.
pub(super) struct Zone<'a> {
    directive: &'a Directive,
    name: String,
    /// Without what each use brings: burst, delay, number. `None` when the key has no counterpart.
    limit: Option<Limit>,
}

impl<'a> Translator<'a, '_> {
    /// Reads every `limit_req_zone` and `limit_conn_zone` of `http`.
    pub(super) fn zones(&mut self, http: &'a [Directive]) {
        let is_one =
            |directive: &&Directive| matches!(&*directive.name, "limit_req_zone" | "limit_conn_zone");
        for directive in http.iter().filter(is_one) {
            if let Some(zone) = self.zone(directive) {
                self.zones.push(zone);
            }
        }
    }

    fn zone(&mut self, directive: &'a Directive) -> Option<Zone<'a>> {
        let counts_requests = directive.name == "limit_req_zone";
        let mut limit = Limit::default();
        let mut name = None;
        for word in &directive.args[1..] {
            let known = match word.text.split_once('=') {
                Some(("zone", zone)) => zone.split_once(':').and_then(|(zone, size)| {
                    let keys = bytes(size)?.get() / STATE_BYTES;
                    if counts_requests {
                        limit.keys = Word::new(u32::try_from(keys).unwrap_or(u32::MAX).max(1));
                    }
                    name = Some(zone.to_owned());
                    Some(())
                }),
                Some(("rate", rate)) if counts_requests => {
                    quota(rate).map(|rate| limit.rate = Word::new(rate))
                }
                None if word.text == "sync" && counts_requests => Some(()),
                _ => None,
            };
            if known.is_none() {
                self.problems.add(&word.at, format!("invalid parameter \"{}\"", word.text));
                return None;
            }
        }
        let Some(name) = name else {
            let problem = format!("\"{}\" must have \"zone\" parameter", directive.name);
            self.problems.add(&directive.at, problem);
            return None;
        };
        if limit.rate.is_absent() && counts_requests {
            limit.rate = Word::new(quota("1r/s")?);
        }
        let key = directive.arg(0);
        let template = match variable::key(key, &Known::default()) {
            Ok(template) => template,
            Err(what_to_do) => {
                self.ledger.refused(directive, what_to_do);
                return Some(Zone { directive, name, limit: None });
            }
        };
        if template != Template::default() && !matches!(key, "$binary_remote_addr" | "$remote_addr") {
            limit.key = Word::new(template);
        }
        self.ledger.exact(directive);
        Some(Zone { directive, name, limit: Some(limit) })
    }

    /// `limit_req` and `limit_conn`: the limits that hold in `scope`, in the order in which nginx asks them.
    pub(super) fn limits(&mut self, scope: &Scope<'a>) -> Word<List<Short<LimitUse>>> {
        let mut names: Vec<String> = Vec::new();
        for kind in ["limit_req", "limit_conn"] {
            let common = self.refusing(scope, kind);
            for directive in scope.all(kind) {
                let limit = match kind {
                    "limit_req" => self.limit_req(directive),
                    _ => self.limit_conn(directive),
                };
                let Some((zone, limit)) = limit else { continue };
                let Limit { status, dry_run, .. } = common.clone();
                names.extend(
                    self.named(zone, Limit { status, dry_run, ..limit }).filter(|name| !names.contains(name)),
                );
            }
        }
        list(names.into_iter().map(|name| Short(LimitUse { limit: Word::new(name), cost: Word::Absent })))
    }

    /// `…_status` and `…_dry_run`.
    fn refusing(&mut self, scope: &Scope<'a>, kind: &str) -> Limit {
        // nginx's default, which is not ours.
        let mut limit = Limit { status: Word::new(503), ..Limit::default() };
        if let Some(status) = scope.one(&format!("{kind}_status")) {
            match number(status.arg(0)).and_then(|number| u16::try_from(number).ok()) {
                Some(429) => limit.status = Word::Absent,
                Some(number @ 400..=599) => limit.status = Word::new(number),
                _ => {
                    self.problems.add(&status.at, "value must be between 400 and 599");
                    return limit;
                }
            }
            match limit.status.get() {
                Some(444) => self.ledger.approximated(status, "444 is answered, not closed upon"),
                _ => self.ledger.exact(status),
            }
        }
        if let Some(dry) = scope.one(&format!("{kind}_dry_run")) {
            self.ledger.exact(dry);
            if dry.arg(0) == "on" {
                limit.dry_run = Word::new(true);
            }
        }
        limit
    }

    fn limit_req(&mut self, directive: &'a Directive) -> Option<(usize, Limit)> {
        let (mut zone, mut burst, mut delay) = ("", 0, 0);
        for word in &directive.args {
            match word.text.split_once('=').unwrap_or((&word.text, "")) {
                ("zone", name) => zone = name,
                ("burst", count) if number(count).is_some() => burst = number(count)?,
                ("nodelay", "") => delay = u32::MAX,
                ("delay", count) if number(count).is_some() => delay = number(count)?,
                _ => self.problems.add(&word.at, format!("invalid parameter \"{}\"", word.text)),
            }
        }
        let (zone, mut limit) = self.base(directive, zone, "limit_req_zone")?;
        // nginx counts what exceeds the first request; weir counts them all.
        limit.burst = Word::new(burst.saturating_add(1));
        if delay < burst {
            limit.delay = Word::new(delay + 1);
        }
        Some((zone, limit))
    }

    fn limit_conn(&mut self, directive: &'a Directive) -> Option<(usize, Limit)> {
        let most = number(directive.arg(1)).filter(|most| (1..=65535).contains(most));
        let Some(most) = most else {
            let problem = format!("invalid number of connections \"{}\"", directive.arg(1));
            self.problems.add(&directive.args[1].at, problem);
            return None;
        };
        let (zone, limit) = self.base(directive, directive.arg(0), "limit_conn_zone")?;
        Some((zone, Limit { concurrent: Word::new(most), ..limit }))
    }

    /// The zone that a use names, and what it declares.
    fn base(&mut self, directive: &'a Directive, name: &str, kind: &str) -> Option<(usize, Limit)> {
        let is_it = |zone: &Zone<'_>| zone.name == name && zone.directive.name == kind;
        let Some(position) = self.zones.iter().position(is_it) else {
            self.problems.add(&directive.at, format!("zero size shared memory zone \"{name}\""));
            return None;
        };
        let Some(limit) = self.zones[position].limit.clone() else {
            self.ledger.refused(directive, "its zone has no counterpart: nothing is limited here");
            return None;
        };
        self.ledger.exact(directive);
        Some((position, limit))
    }

    /// The name of a limit; one for each way in which a zone is used.
    fn named(&mut self, zone: usize, limit: Limit) -> Option<String> {
        let Zone { directive, name: zone, .. } = self.zones.get(zone)?;
        let (declared, zone, mut name, mut copies) = (*directive, zone.clone(), zone.clone(), 1);
        while let Some((_, taken)) = self.limits.iter().find(|(taken, _)| *taken == name) {
            if *taken == limit {
                return Some(name);
            }
            copies += 1;
            name = format!("{zone}-{copies}");
        }
        if copies > 1 {
            self.ledger
                .approximated(declared, "once for each way it is used in; their requests are counted apart");
        }
        self.limits.push((name.clone(), limit));
        Some(name)
    }
}

/// `10r/s`, `30r/m`.
fn quota(text: &str) -> Option<Quota> {
    let (count, per) = text.split_once("r/")?;
    matches!(per, "s" | "m").then(|| format!("{count}/{per}").parse().ok()).flatten()
}
