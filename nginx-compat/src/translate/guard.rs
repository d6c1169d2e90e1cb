//! Who may pass, and how often: `allow`, `deny`, `limit_req`, and the protections that have no counterpart.

use ipnet::IpNet;
use weir_config::{
    raw::{Access, Limit, Word},
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

/// A `limit_req_zone`.
pub(super) struct Zone<'a> {
    directive: &'a Directive,
    name: String,
    /// Without burst: each `limit_req` brings its own. `None` when the key has no counterpart.
    limit: Option<Limit>,
}

/// An address or a network, without bits beyond its prefix.
pub(super) fn network(text: &str) -> Option<IpNet> {
    let network =
        text.parse::<IpNet>().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from));
    network.map(|network| network.trunc())
}

/// All of both families.
fn everybody() -> [IpNet; 2] {
    [IpNet::V4(ipnet::Ipv4Net::default()), IpNet::V6(ipnet::Ipv6Net::default())]
}

impl<'a> Translator<'a, '_> {
    /// `allow` and `deny`: nginx takes the first rule that holds, weir the most specific one.
    ///
    /// A rule whose network an earlier rule contains never decides in nginx; without those, both readings are the same.
    pub(super) fn access(&mut self, scope: &Scope<'a>) -> Word<Access> {
        let (mut allow, mut deny, mut seen) = (Vec::new(), Vec::new(), Vec::<IpNet>::new());
        for rule in scope.either(["allow", "deny"]) {
            let networks = match rule.arg(0) {
                "all" => everybody().to_vec(),
                "unix:" => {
                    self.ledger.ignored(rule, "clients come by TCP");
                    continue;
                }
                text => match network(text) {
                    Some(network) => vec![network],
                    None => {
                        self.problems.add(&rule.args[0].at, format!("invalid parameter \"{text}\""));
                        continue;
                    }
                },
            };
            self.ledger.exact(rule);
            for network in networks {
                if seen.iter().any(|earlier| earlier.contains(&network)) {
                    continue;
                }
                seen.push(network);
                if rule.name == "allow" { allow.push(network) } else { deny.push(network) }
            }
        }
        let denies_rest = everybody().iter().all(|all| deny.contains(all));
        if !allow.is_empty() {
            // An allow list is closed in weir: who is not in it does not pass. nginx's is open unless `deny all` ends it.
            if denies_rest {
                deny.retain(|network| network.prefix_len() > 0);
            } else {
                let open: Vec<IpNet> = everybody()
                    .into_iter()
                    .filter(|all| !deny.contains(all) && !allow.contains(all))
                    .collect();
                allow.extend(open);
            }
        }
        if allow.is_empty() && deny.is_empty() {
            return Word::Absent;
        }
        let text = |networks: Vec<IpNet>| list(networks.into_iter().map(|network| network.to_string()));
        Word::new(Access { allow: text(allow), deny: text(deny) })
    }

    /// Notes protections that hold in `scope` but have no counterpart; whether there are any.
    ///
    /// The route then refuses everybody: a request that nginx would have stopped must not pass here unnoticed.
    pub(super) fn unguardable(&mut self, scope: &Scope<'a>) -> bool {
        const CLOSED: &str = "; until then its routes answer 403";
        let mut found = false;
        let mut refuse = |translator: &mut Self, directive: &'a Directive, what_to_do: &str| {
            translator.ledger.refused(directive, format!("{what_to_do}{CLOSED}"));
            found = true;
        };
        for (name, what_to_do) in [
            ("auth_basic", "use sessions, or an allow list"),
            ("auth_request", "use sessions with `ask:`"),
            ("auth_jwt", "use sessions"),
            ("ssl_verify_client", "use sessions, or verify client certificates in front"),
            ("limit_except", "write a route with `methods:`"),
        ] {
            let Some(directive) = (if name == "limit_except" { scope.own(name) } else { scope.one(name) })
            else {
                continue;
            };
            match directive.arg(0) {
                "off" => self.ledger.exact(directive),
                _ => refuse(self, directive, what_to_do),
            }
        }
        if let Some(file) = scope.one("auth_basic_user_file") {
            self.ledger.ignored(file, "it only tunes auth_basic");
        }
        match scope.one("satisfy") {
            Some(satisfy) if satisfy.arg(0) == "any" => {
                self.ledger.approximated(satisfy, "all conditions must hold, as with `satisfy all`");
            }
            Some(satisfy) => self.ledger.exact(satisfy),
            None => {}
        }
        found
    }

    /// Reads every `limit_req_zone` of `http`.
    pub(super) fn zones(&mut self, http: &'a [Directive]) {
        for directive in http.iter().filter(|directive| directive.name == "limit_req_zone") {
            if let Some(zone) = self.zone(directive) {
                self.zones.push(zone);
            }
        }
    }

    fn zone(&mut self, directive: &'a Directive) -> Option<Zone<'a>> {
        let mut limit = Limit::default();
        let mut name = None;
        for word in &directive.args[1..] {
            let known = match word.text.split_once('=') {
                Some(("zone", zone)) => zone.split_once(':').and_then(|(zone, size)| {
                    let keys = bytes(size)?.get() / STATE_BYTES;
                    limit.keys = Word::new(u32::try_from(keys).unwrap_or(u32::MAX).max(1));
                    name = Some(zone.to_owned());
                    Some(())
                }),
                Some(("rate", rate)) => quota(rate).map(|rate| limit.rate = Word::new(rate)),
                None if word.text == "sync" => Some(()),
                _ => None,
            };
            if known.is_none() {
                self.problems.add(&word.at, format!("invalid parameter \"{}\"", word.text));
                return None;
            }
        }
        let Some(name) = name else {
            self.problems.add(&directive.at, "\"limit_req_zone\" must have \"zone\" parameter");
            return None;
        };
        if limit.rate.is_absent() {
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

    /// `limit_req`: the names of the limits that hold in `scope`.
    pub(super) fn limits(&mut self, scope: &Scope<'a>) -> Vec<String> {
        let status = scope.one("limit_req_status");
        if let Some(status) = status {
            match status.arg(0) {
                "429" => self.ledger.exact(status),
                _ => self.ledger.approximated(status, "refusals are 429 with Retry-After"),
            }
        }
        if let Some(dry) = scope.one("limit_req_dry_run") {
            if dry.arg(0) == "on" {
                self.ledger
                    .refused(dry, "limits are in force or not there: the limits of this level are left out");
                return Vec::new();
            }
            self.ledger.exact(dry);
        }
        let mut names = Vec::new();
        for directive in scope.all("limit_req") {
            if let Some(name) = self.limit(directive, status.is_some()).filter(|name| !names.contains(name)) {
                names.push(name);
            }
        }
        names
    }

    fn limit(&mut self, directive: &'a Directive, status_said: bool) -> Option<String> {
        let (mut zone_name, mut burst, mut delays) = ("", 0, true);
        for word in &directive.args {
            match word.text.split_once('=').unwrap_or((&word.text, "")) {
                ("zone", name) => zone_name = name,
                ("burst", count) if number(count).is_some() => burst = number(count)?,
                ("nodelay", "") => delays = false,
                ("delay", count) if number(count).is_some() => {}
                _ => self.problems.add(&word.at, format!("invalid parameter \"{}\"", word.text)),
            }
        }
        let Some(zone) = self.zones.iter().find(|zone| zone.name == zone_name) else {
            self.problems.add(&directive.at, format!("zero size shared memory zone \"{zone_name}\""));
            return None;
        };
        let declared = zone.directive;
        let Some(base) = zone.limit.clone() else {
            self.ledger.refused(directive, "its zone has no counterpart: nothing is limited here");
            return None;
        };
        if delays && burst > 0 {
            self.ledger.approximated(directive, "what fits in the burst passes at once, as with nodelay");
        } else if status_said {
            self.ledger.exact(directive);
        } else {
            self.ledger.approximated(directive, "refusals are 429 with Retry-After, not 503");
        }
        // nginx counts what exceeds the first request; weir counts them all.
        let limit = Limit { burst: Word::new(burst.saturating_add(1)), ..base };
        let mut name = zone_name.to_owned();
        let mut copies = 1;
        while let Some((_, taken)) = self.limits.iter().find(|(taken, _)| *taken == name) {
            if *taken == limit {
                return Some(name);
            }
            copies += 1;
            name = format!("{zone_name}-{copies}");
        }
        if copies > 1 {
            self.ledger.approximated(declared, "once for each burst; their requests are counted apart");
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
