//! Which server of an upstream is asked: the method, and what keeps a session where it began.

use super::Resolver;
use crate::{
    defaults as d,
    plan::{self, Balance, Least, Spread, Until},
    raw::{self, List, Short, Word},
    span::Place,
    template::{Template, Variable},
};

impl Resolver<'_> {
    pub(super) fn balance(&mut self, word: &Word<Short<raw::Balance>>) -> Balance {
        let Some((Short(raw), place)) = word.placed() else { return d::BALANCE };
        // `least_time` says which time it is, to `random_two` as well.
        let ways = [
            raw.method.is_absent(),
            raw.hash.is_absent(),
            raw.random_two.is_absent() && raw.least_time.is_absent(),
        ];
        if ways.iter().filter(|absent| !**absent).count() > 1 {
            let problem = self.report.error(place, "a server is chosen by one method");
            problem.help("keep `method`, `hash`, `random_two` or `least_time`");
        }
        if let Some(at) = raw.consistent.place().filter(|_| raw.hash.is_absent()) {
            self.report.error(at, "`consistent` goes with `hash`");
        }
        if let Some(at) = raw.bound.place() {
            if !raw.consistent.or(false) {
                let problem = self.report.error(at, "`bound` goes with `hash` and `consistent: true`");
                problem.help("only a ring knows whose turn it is next");
            }
            if raw.bound.get().is_some_and(|bound| bound.thousandths() <= 1000) {
                self.report.error(at, "nobody can have less than its share").help("above 1, such as 1.25");
            }
        }
        let until = match raw.least_time.get() {
            Some(raw::Until::LastByte) => Until::LastByte,
            Some(raw::Until::Header) | None => Until::Header,
        };
        let inflight = raw.inflight.or(false);
        let is_least_time = raw.method.get() == Some(&raw::Method::LeastTime)
            || !raw.least_time.is_absent() && raw.random_two.is_absent();
        if let Some(at) = raw.inflight.place().filter(|_| !is_least_time) {
            self.report.error(at, "`inflight` goes with `least_time`");
        }
        if let Some((key, at)) = raw.hash.placed() {
            self.asked_of_requests(key, at);
            let spread = match raw.consistent.or(false) {
                true => Spread::Ring { bound: raw.bound.get().copied() },
                false => Spread::Remainder,
            };
            return Balance::Hash { key: key.clone(), spread };
        }
        match (raw.method.get(), raw.random_two.get()) {
            (_, Some(raw::Least::LeastTime)) => Balance::RandomTwo(Least::Time(until)),
            (_, Some(raw::Least::LeastConn)) => Balance::RandomTwo(Least::Conn),
            (None, None) if !raw.least_time.is_absent() => Balance::LeastTime { until, inflight },
            (Some(raw::Method::RoundRobin), _) => Balance::RoundRobin,
            (Some(raw::Method::LeastConn), _) => Balance::LeastConn,
            (Some(raw::Method::LeastTime), _) => Balance::LeastTime { until, inflight },
            (Some(raw::Method::IpHash), _) => Balance::IpHash,
            (Some(raw::Method::Random), _) => Balance::Random,
            (Some(raw::Method::RandomTwo), _) => Balance::RandomTwo(Least::Conn),
            (None, None) => d::BALANCE,
        }
    }

    /// What nginx's methods refuse of a server, for the same reasons.
    pub(super) fn server_fits(&mut self, raw: &raw::Server, server: &plan::Server, balance: &Balance) {
        let (method, draws) = match balance {
            Balance::IpHash => ("ip_hash", true),
            Balance::Hash { .. } => ("hash", true),
            Balance::Random => ("random", true),
            Balance::RandomTwo(_) => ("random_two", true),
            Balance::RoundRobin | Balance::LeastConn | Balance::LeastTime { .. } => ("", false),
        };
        if server.backup && draws {
            let problem =
                self.report.error(server.place, format!("`backup` does not go with `balance: {method}`"));
            problem.help(match balance {
                Balance::IpHash => "an address keeps its server there; use `down` for a server that rests",
                _ => "every server has its share there; use `down` for a server that rests",
            });
        }
        if let Some(at) = raw.slow_start.place().filter(|_| draws && !server.slow_start.is_zero()) {
            let problem = self.report.error(at, format!("`slow_start` does not go with `balance: {method}`"));
            problem.help("shares are fixed there, so that the same request finds the same server");
        }
    }

    /// A ring has points for every unit of weight.
    pub(super) fn ring_fits(&mut self, servers: &[plan::Server], balance: &Balance, place: Place) {
        let weights: u64 = servers.iter().map(|server| u64::from(server.weight)).sum();
        let is_ring = matches!(balance, Balance::Hash { spread: Spread::Ring { .. }, .. });
        if is_ring && weights > d::RING_WEIGHT {
            let problem =
                self.report.error(place, format!("weights of {weights} in all are too many for a ring"));
            problem.help(format!("up to {}; only their proportions count", d::RING_WEIGHT));
        }
    }

    pub(super) fn sticky(&mut self, raw: &raw::Sticky, place: Place) -> Option<plan::Sticky> {
        let ways =
            [raw.cookie.is_absent(), raw.route.is_absent(), raw.header.is_absent(), raw.learn.is_absent()];
        if ways.iter().filter(|absent| !**absent).count() != 1 {
            let problem = self.report.error(place, "a session sticks in one way");
            problem.help("one of `cookie`, `route`, `header` and `learn`");
            return None;
        }
        if let Some((Short(cookie), at)) = raw.cookie.placed() {
            return self.sticky_cookie(cookie, at).map(plan::Sticky::Cookie);
        }
        if let Some((name, at)) = raw.header.placed() {
            return self.header_name(name, at).map(plan::Sticky::Header);
        }
        if let Some((learn, at)) = raw.learn.placed() {
            return self.learn(learn, at).map(plan::Sticky::Learn);
        }
        let route = self.session_names(&raw.route);
        (!route.is_empty()).then_some(plan::Sticky::Route(route))
    }

    fn sticky_cookie(&mut self, raw: &raw::StickyCookie, place: Place) -> Option<plan::StickyCookie> {
        let (name, at) = self.required(&raw.name, "name", place)?;
        let at = if at == Place::default() { place } else { at };
        self.cookie_name(name, at);
        for word in [&raw.domain, &raw.path] {
            let Some((text, at)) = word.placed() else { continue };
            // RFC 6265 §4.1.1: av-octets; a `;` would begin another attribute.
            if text.is_empty() || !text.bytes().all(|byte| (b' '..0x7f).contains(&byte) && byte != b';') {
                self.report.error(at, format!("`{text}` cannot stand in a cookie"));
            }
        }
        let same_site = raw.same_site.get().map(|same_site| match same_site {
            raw::SameSite::Strict => plan::SameSite::Strict,
            raw::SameSite::Lax => plan::SameSite::Lax,
            raw::SameSite::None => plan::SameSite::None,
        });
        let secure = raw.secure.or(false);
        if let Some(at) = raw.same_site.place().filter(|_| same_site == Some(plan::SameSite::None) && !secure)
        {
            let problem = self.report.warning(at, "browsers refuse `same_site: none` without `secure`");
            problem.help("add `secure: true`");
        }
        Some(plan::StickyCookie {
            name: name.clone(),
            expires: raw.expires.get().map(|span| span.get()),
            domain: raw.domain.get().cloned(),
            path: raw.path.get().cloned(),
            http_only: raw.http_only.or(false),
            secure,
            same_site,
        })
    }

    fn learn(&mut self, raw: &raw::Learn, place: Place) -> Option<plan::Learn> {
        let timeout = self.time(&raw.timeout, d::STICKY_TIMEOUT);
        let sessions = self.count(&raw.sessions, d::STICKY_SESSIONS) as usize;
        let _ = (self.required(&raw.create, "create", place), self.required(&raw.lookup, "lookup", place));
        let mut create = Vec::new();
        for (source, at) in raw.create.items() {
            match source {
                raw::TokenSource::Bearer => {
                    self.report
                        .error(at, "answers carry no bearer token")
                        .help("`cookie: NAME` or `header: NAME`");
                }
                raw::TokenSource::Cookie(name) => {
                    self.cookie_name(name, at);
                    create.push(plan::TokenSource::Cookie(name.clone()));
                }
                raw::TokenSource::Header(name) => {
                    create.extend(self.header_name(name, at).map(plan::TokenSource::Header));
                }
            }
        }
        let lookup = self.session_names(&raw.lookup);
        (!create.is_empty() && !lookup.is_empty()).then_some(plan::Learn {
            create,
            lookup,
            timeout,
            sessions,
        })
    }

    fn session_names(&mut self, list: &Word<List<Template>>) -> Vec<Template> {
        let mut names = Vec::new();
        for (template, at) in list.items() {
            self.asked_of_requests(template, at);
            if template.as_text().is_some() {
                let problem = self.report.error(at, "every request has the same session by this");
                problem.help("ask the request: `${cookie.NAME}`, `${query.NAME}`");
            }
            names.push(template.clone());
        }
        if let Some(at) = list.place().filter(|_| names.is_empty() && list.get().is_some()) {
            self.report.error(at, "nothing names the session").help("add `${cookie.NAME}`");
        }
        names
    }

    pub(super) fn cookie_name(&mut self, name: &str, place: Place) {
        // A cookie's name is a token (RFC 6265 §4.1.1), as a header's is.
        if name.parse::<http::HeaderName>().is_err() {
            self.report.error(place, format!("`{name}` cannot be the name of a cookie"));
        }
    }

    fn asked_of_requests(&mut self, template: &Template, place: Place) {
        if template.variables().any(|variable| *variable == Variable::Token) {
            let problem = self.report.error(place, "`${token}` exists only in the key of a session");
            problem.help("use `${cookie.NAME}` or `${header.NAME}`");
        }
        if template.variables().any(|variable| *variable == Variable::CacheStatus) {
            self.report.error(place, "`${cache.status}` exists only in `response_headers`");
        }
        if template.variables().any(|variable| *variable == Variable::RouteName) {
            self.report.error(place, "`${route.name}` exists only in the key of a limit");
        }
    }
}
