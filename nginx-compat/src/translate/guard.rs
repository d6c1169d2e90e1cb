//! Who may pass: `allow`, `deny`, and the protections that have no counterpart.

use ipnet::IpNet;
use weir_config::raw::{Access, Word};

use super::{Translator, list};
use crate::{scope::Scope, tree::Directive};

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
}
