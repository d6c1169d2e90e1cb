//! Which server of an `upstream` is asked: its method, and `sticky`.

use weir_config::raw::{
    Balance, Learn, Least, Method, SameSite, Short, Sticky, StickyCookie, TokenSource, Until, Word,
};

use super::{Translator, list, maybe, upstream::with_port};
use crate::{
    scope::Scope,
    tree::Directive,
    value::{bytes, span},
    variable::{self, Known, is_constant},
};

/// Sessions in a mebibyte of a `zone`, by nginx's own account.
const SESSIONS_PER_MIB: u64 = 8000;

impl<'a> Translator<'a, '_> {
    /// How a server is chosen; `None` is round robin.
    pub(super) fn balance(&mut self, scope: &Scope<'a>) -> Option<Balance> {
        const METHODS: [&str; 5] = ["least_conn", "ip_hash", "hash", "random", "least_time"];
        let mut chosen = None;
        for name in METHODS {
            let Some(method) = scope.own(name) else { continue };
            self.ledger.exact(method);
            let balance = match name {
                "least_conn" => Some(Balance::by(Method::LeastConn)),
                "ip_hash" => Some(Balance::by(Method::IpHash)),
                "hash" => self.hash(method, scope),
                "random" => self.random(method),
                _ => self.least_time(method),
            };
            chosen = chosen.or(balance);
        }
        chosen
    }

    /// `hash KEY [consistent]`
    fn hash(&mut self, method: &'a Directive, scope: &Scope<'a>) -> Option<Balance> {
        let key = match variable::template(method.arg(0), &Known::default()) {
            Ok(key) => key,
            Err(what_to_do) => {
                self.ledger.refused(method, what_to_do);
                return None;
            }
        };
        if method.arg(0).contains("$binary_remote_addr") {
            self.ledger.approximated(method, "by the address as text: clients move to other servers once");
        }
        let consistent = match method.arg(1) {
            "" => false,
            "consistent" => true,
            other => {
                self.problems.add(&method.args[1].at, format!("invalid parameter \"{other}\""));
                return None;
            }
        };
        let has_port = |server: &&Directive| with_port(server.arg(0), 80).as_deref() == Some(server.arg(0));
        if consistent && !scope.all("server").iter().all(has_port) {
            let how = "servers without a port have `:80` in their names: their keys are spread anew once";
            self.ledger.approximated(method, how);
        }
        Some(Balance {
            hash: Word::new(key),
            consistent: maybe(consistent.then_some(true)),
            ..Balance::default()
        })
    }

    /// `random [two [METHOD]]`
    fn random(&mut self, method: &'a Directive) -> Option<Balance> {
        let two = |least, until| Balance {
            random_two: Word::new(least),
            least_time: maybe(until),
            ..Balance::default()
        };
        match (method.arg(0), method.arg(1)) {
            ("", _) => Some(Balance::by(Method::Random)),
            ("two", "" | "least_conn") => Some(two(Least::LeastConn, None)),
            ("two", "least_time=header") => Some(two(Least::LeastTime, Some(Until::Header))),
            ("two", "least_time=last_byte") => Some(two(Least::LeastTime, Some(Until::LastByte))),
            (first, second) => {
                let wrong = usize::from(first == "two");
                let text = [first, second][wrong];
                self.problems.add(&method.args[wrong].at, format!("invalid parameter \"{text}\""));
                None
            }
        }
    }

    /// `least_time header|last_byte [inflight]`
    fn least_time(&mut self, method: &'a Directive) -> Option<Balance> {
        let until = match method.arg(0) {
            "header" => Until::Header,
            "last_byte" => Until::LastByte,
            other => {
                self.problems.add(&method.args[0].at, format!("invalid value \"{other}\""));
                return None;
            }
        };
        let inflight = match method.arg(1) {
            "" => None,
            "inflight" => Some(true),
            other => {
                self.problems.add(&method.args[1].at, format!("invalid parameter \"{other}\""));
                None
            }
        };
        Some(Balance { least_time: Word::new(until), inflight: maybe(inflight), ..Balance::default() })
    }

    /// What keeps a session at its server.
    pub(super) fn sticky(&mut self, scope: &Scope<'a>) -> Option<Sticky> {
        let sticky = scope.own("sticky")?;
        self.ledger.exact(sticky);
        match sticky.arg(0) {
            "cookie" => self.sticky_cookie(sticky),
            "route" => {
                let route: Vec<_> =
                    sticky.texts().skip(1).filter_map(|name| self.session_name(sticky, name)).collect();
                (!route.is_empty()).then(|| Sticky { route: list(route), ..Sticky::default() })
            }
            "learn" => self.sticky_learn(sticky),
            other => {
                self.problems.add(&sticky.args[0].at, format!("unknown parameter \"{other}\""));
                None
            }
        }
    }

    /// `sticky cookie NAME [expires=] [domain=] [httponly] [samesite=] [secure] [path=]`
    fn sticky_cookie(&mut self, sticky: &'a Directive) -> Option<Sticky> {
        let mut cookie =
            StickyCookie { name: Word::new(sticky.arg(1).to_owned()), ..StickyCookie::default() };
        for word in sticky.args.iter().skip(2) {
            let (name, value) = word.text.split_once('=').unwrap_or((&word.text, ""));
            match (name, value) {
                ("domain" | "samesite", _) if !is_constant(value) => {
                    self.ledger.approximated(sticky, format!("without `{name}`: it cannot be a variable"));
                }
                // nginx: ten years.
                ("expires", "max") => cookie.expires = maybe(span("315360000")),
                ("expires", _) if span(value).is_some() => cookie.expires = maybe(span(value)),
                ("domain", _) if !value.is_empty() => cookie.domain = Word::new(value.to_owned()),
                ("path", _) if !value.is_empty() => cookie.path = Word::new(value.to_owned()),
                ("httponly", "") => cookie.http_only = Word::new(true),
                ("secure", "") => cookie.secure = Word::new(true),
                ("samesite", _) if same_site(value).is_some() => cookie.same_site = maybe(same_site(value)),
                _ => self.problems.add(&word.at, format!("unknown parameter \"{}\"", word.text)),
            }
        }
        Some(Sticky { cookie: Word::new(Short(cookie)), ..Sticky::default() })
    }

    /// `sticky learn create=$… lookup=$… zone=NAME:SIZE [timeout=] [header] [sync]`
    fn sticky_learn(&mut self, sticky: &'a Directive) -> Option<Sticky> {
        let (mut create, mut lookup, mut learn) = (Vec::new(), Vec::new(), Learn::default());
        let mut with_header = false;
        for word in sticky.args.iter().skip(1) {
            let (name, value) = word.text.split_once('=').unwrap_or((&word.text, ""));
            match (name, value) {
                ("create", _) => match creates(value) {
                    Some(source) => create.push(source),
                    None => self.ledger.refused(
                        sticky,
                        format!(
                            "create sessions by `$upstream_cookie_…` or `$upstream_http_…`, not by `{value}`"
                        ),
                    ),
                },
                ("lookup", _) => lookup.extend(self.session_name(sticky, value)),
                ("timeout", _) if span(value).is_some() => learn.timeout = maybe(span(value)),
                ("header", "") => with_header = true,
                ("zone", _) => match value.split_once(':').and_then(|(_, size)| bytes(size)) {
                    Some(size) => {
                        let sessions = size.get().saturating_mul(SESSIONS_PER_MIB) >> 20;
                        learn.sessions = Word::new(u32::try_from(sessions).unwrap_or(u32::MAX).max(1));
                    }
                    None => self.problems.add(&word.at, "invalid zone size"),
                },
                ("sync", "") => {
                    self.ledger.approximated(sticky, "without sync: each instance learns for itself");
                }
                _ => self.problems.add(&word.at, format!("unknown parameter \"{}\"", word.text)),
            }
        }
        if !with_header {
            self.ledger.approximated(sticky, "learned with the head of an answer, not at its end");
        }
        if create.is_empty() || lookup.is_empty() {
            return None;
        }
        (learn.create, learn.lookup) = (list(create), list(lookup));
        Some(Sticky { learn: Word::new(learn), ..Sticky::default() })
    }

    fn session_name(&mut self, sticky: &'a Directive, text: &str) -> Option<weir_config::template::Template> {
        match variable::template(text, &Known::default()) {
            Ok(template) => Some(template),
            Err(what_to_do) => {
                self.ledger.refused(sticky, what_to_do);
                None
            }
        }
    }
}

fn same_site(text: &str) -> Option<SameSite> {
    match text.to_ascii_lowercase().as_str() {
        "strict" => Some(SameSite::Strict),
        "lax" => Some(SameSite::Lax),
        "none" => Some(SameSite::None),
        _ => None,
    }
}

fn creates(variable: &str) -> Option<TokenSource> {
    if let Some(name) = variable.strip_prefix("$upstream_cookie_") {
        return Some(TokenSource::Cookie(name.to_owned()));
    }
    let name = variable.strip_prefix("$upstream_http_")?;
    Some(TokenSource::Header(name.replace('_', "-")))
}
