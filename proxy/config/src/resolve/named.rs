//! What routes refer to by name: upstreams, sessions, caches.

use super::{Resolver, ask::tells, placed_path};
use crate::{
    defaults as d,
    plan::{self, Balance, WhenAllDown},
    raw::{self, Short, Word},
    span::Place,
    template::{Template, Variable},
};

impl Resolver<'_> {
    pub(super) fn upstreams(&mut self) -> Vec<plan::Upstream> {
        let raw = self.raw;
        raw.upstreams.entries().map(|(name, upstream, place)| self.upstream(name, upstream, place)).collect()
    }

    fn upstream(&mut self, name: &str, raw: &raw::Upstream, place: Place) -> plan::Upstream {
        let balance = self.balance(&raw.balance);
        let sticky = raw.sticky.placed().and_then(|(sticky, place)| self.sticky(sticky, place));
        let servers = self.servers(name, raw, &balance, place);
        self.ring_fits(&servers, &balance, place);
        plan::Upstream {
            name: name.into(),
            balance,
            sticky,
            when_all_down: match raw.when_all_down.get() {
                Some(raw::WhenAllDown::Pardon) => WhenAllDown::Pardon,
                Some(raw::WhenAllDown::FailOpen) => WhenAllDown::FailOpen,
                None => d::WHEN_ALL_DOWN,
            },
            health: raw.health.get().map(|health| self.health(health, !raw.tls.is_absent(), &servers)),
            retry: self.retry(raw.retry.get().unwrap_or(&raw::Retry::default())),
            outlier: self.outlier(&raw.outlier),
            circuit_breaker: raw.circuit_breaker.get().map(|breaker| self.circuit_breaker(breaker)),
            concurrency: raw.concurrency.get().map(|concurrency| self.concurrency(concurrency)),
            queue: raw.queue.get().map(|queue| self.queue(queue)),
            hedge: raw.hedge.get().map(|hedge| self.hedge(hedge)),
            timeouts: self.timeouts(raw.timeouts.get().unwrap_or(&raw::Timeouts::default())),
            keepalive: self.keepalive(raw.keepalive.get().map_or(&raw::Keepalive::default(), |it| &it.0)),
            tls: raw.tls.placed().map(|(tls, place)| self.upstream_tls(tls, &servers, place)),
            proxy_protocol: raw.proxy_protocol.get().map(|version| match version {
                raw::ProxyProtocol::V1 => plan::ProxyProtocol::V1,
                raw::ProxyProtocol::V2 => plan::ProxyProtocol::V2,
            }),
            bind: self.bind(&raw.bind, &servers),
            protocol: self.protocol(raw),
            servers,
            place,
        }
    }

    pub(super) fn servers(
        &mut self,
        name: &str,
        raw: &raw::Upstream,
        balance: &Balance,
        place: Place,
    ) -> Vec<plan::Server> {
        let mut servers: Vec<plan::Server> = Vec::new();
        for (Short(written), place) in raw.servers.items() {
            let Some(server) = self.server(written, place) else { continue };
            if let Some(first) = servers.iter().find(|known| known.name() == server.name()) {
                let message =
                    format!("`{}` is listed twice, first in line {}", server.name(), first.place.line);
                self.report.warning(place, message).help("use `weight` for a larger share");
            }
            self.server_fits(written, &server, balance);
            if let Some(at) = written.drain.place().filter(|_| server.drain && raw.sticky.is_absent()) {
                let problem = self.report.warning(at, "without `sticky` no session is left to be drained");
                problem.help("`down: true` says the same");
            }
            servers.push(server);
        }
        let all_read = servers.len() == raw.servers.get().map_or(0, |list| list.0.len());
        if matches!(raw.servers, Word::Wrong(_)) || !all_read {
            return servers;
        }
        if !servers.iter().any(|server| !server.down && !server.drain) {
            let none =
                if servers.is_empty() { "no servers" } else { "only servers that are `down` or `drain`" };
            self.report.error(place, format!("upstream `{name}` has {none}"));
        } else if !servers.iter().any(|server| !server.backup) {
            self.report.error(place, format!("upstream `{name}` has only servers that are `backup`"));
        }
        servers
    }

    fn server(&mut self, raw: &raw::Server, place: Place) -> Option<plan::Server> {
        if let Some((0, at)) = raw.weight.placed() {
            let problem = self.report.error(at, "a weight of 0 is no share at all");
            problem.help("use `down: true` for a server that must not be asked");
        }
        let fail_timeout = self.time(&raw.fail_timeout, d::FAIL_TIMEOUT);
        let (address, at) = self.required(&raw.address, "address", place)?;
        let at = if at == Place::default() { place } else { at };
        let (address, service) = self.server_name(raw, address, at)?;
        Some(plan::Server {
            address,
            weight: raw.weight.or(d::WEIGHT),
            max_conns: raw.max_conns.or(0),
            max_fails: raw.max_fails.or(d::MAX_FAILS),
            fail_timeout,
            backup: raw.backup.or(false),
            down: raw.down.or(false),
            drain: raw.drain.or(false),
            resolve: raw.resolve.or(false),
            service,
            slow_start: Self::span(&raw.slow_start, d::SLOW_START),
            route: self.route_word(&raw.route),
            place,
        })
    }

    /// nginx's bound on `route`, and what a cookie's value may be made of (RFC 6265 §4.1.1).
    fn route_word(&mut self, word: &Word<String>) -> Option<String> {
        let (route, at) = word.placed()?;
        let fits = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b',' | b';' | b'\\');
        if route.is_empty() || route.len() > 32 || !route.bytes().all(fits) {
            let problem = self.report.error(at, format!("`{route}` cannot be a route"));
            problem.help("up to 32 characters that a cookie may have, such as `a` or `web-1`");
        }
        Some(route.clone())
    }

    fn timeouts(&mut self, raw: &raw::Timeouts) -> plan::Timeouts {
        plan::Timeouts {
            connect: self.time(&raw.connect, d::CONNECT_TIMEOUT),
            first_byte: self.time(&raw.first_byte, d::FIRST_BYTE_TIMEOUT),
            read: self.time(&raw.read, d::READ_TIMEOUT),
            write: self.time(&raw.write, d::WRITE_TIMEOUT),
            total: raw.total.get().map(|span| span.get()).filter(|total| !total.is_zero()),
        }
    }

    /// A path to ask an origin for.
    pub(super) fn origin_path(&mut self, word: &Word<String>) -> String {
        if let Some((path, place)) = word.placed() {
            let bad = |c: char| c.is_whitespace() || c.is_control() || !c.is_ascii() || c == '#';
            if !path.starts_with('/') || path.contains(bad) {
                let problem = self.report.error(place, format!("`{path}` is not a path to ask for"));
                problem.help("it starts with `/` and has no spaces");
            }
        }
        word.or("/".to_owned())
    }

    pub(super) fn sessions(&mut self) -> Vec<plan::Session> {
        let raw = self.raw;
        raw.sessions.entries().map(|(name, session, place)| self.session(name, session, place)).collect()
    }

    fn session(&mut self, name: &str, raw: &raw::Session, place: Place) -> plan::Session {
        let mut from = Vec::new();
        for (source, at) in raw.from.items() {
            from.extend(self.token_source(source, at));
        }
        let nothing_written = raw.from.is_absent() || raw.from.get().is_some_and(|list| list.0.is_empty());
        if nothing_written && !tells(raw) {
            let problem =
                self.report.error(place, format!("session `{name}` has no place to take a token from"));
            problem.help("add `from: [bearer, { cookie: sid }]`");
        }
        plan::Session {
            name: name.into(),
            from,
            key: self.session_key(&raw.key),
            format: match raw.format.get() {
                Some(raw::SessionFormat::Hash) => plan::SessionFormat::Hash,
                Some(raw::SessionFormat::Json) | None => d::SESSION_FORMAT,
            },
            fields: Self::session_fields(raw),
            jwt: self.jwt(raw),
            roles_key: self.key_of_session(&raw.roles_key),
            sliding: (!raw.sliding.is_absent()).then(|| self.time(&raw.sliding, d::SESSION_SLIDING)),
            ask: raw.ask.placed().and_then(|(ask, place)| self.ask(ask, raw, place)),
            memory_ttl: Self::span(&raw.memory_ttl, d::SESSION_MEMORY_TTL),
            memory_entries: self.count(&raw.memory_entries, d::SESSION_MEMORY_ENTRIES) as usize,
            staleness: self.time(&raw.staleness, d::SESSION_STALENESS),
            serve_known_for: Self::span(&raw.serve_known_for, d::SESSION_SERVE_KNOWN_FOR),
            asks_when_down: self.asks_when_down(raw),
            place,
        }
    }

    fn session_fields(raw: &raw::Session) -> Vec<(String, String)> {
        let is_of_fields =
            raw.ask.get().is_some_and(|ask| ask.answer.get() == Some(&raw::AskAnswer::Headers));
        let theirs = |name: &String| if is_of_fields { name.to_ascii_lowercase() } else { name.clone() };
        let written = raw.fields.entries().map(|(ours, name, _)| (ours.to_owned(), theirs(name)));
        let mut fields: Vec<_> = written.collect();
        if !raw.jwt.is_absent() && !fields.iter().any(|(ours, _)| ours == "user_id") {
            fields.push(("user_id".to_owned(), d::JWT_USER_ID.to_owned()));
        }
        fields
    }

    fn asks_when_down(&mut self, raw: &raw::Session) -> bool {
        // Otherwise it fails closed.
        let asks = raw.on_redis_down.get() == Some(&raw::OnRedisDown::AskOrigin);
        if let Some(at) = raw.on_redis_down.place().filter(|_| asks && raw.ask.is_absent()) {
            let problem = self.report.error(at, "nobody says who is asked while Redis is down");
            problem.help("add `ask: { upstream: …, path: … }`");
        }
        asks
    }

    fn session_key(&mut self, word: &Word<Template>) -> Template {
        let key = word.or(d::SESSION_KEY.parse().expect("the default is a template"));
        if let Some((key, place)) = word.placed() {
            if let Some(other) = key.variables().find(|variable| **variable != Variable::Token) {
                let problem = self
                    .report
                    .error(place, format!("`${{{other}}}` does not exist in the key of a session"));
                problem.help("its only variable is `${token}`");
            } else if key.variables().count() != 1 {
                let problem = self.report.error(place, "the key of a session holds `${token}` once");
                problem.help("otherwise all tokens share one session");
            }
        }
        key
    }

    pub(super) fn token_source(&mut self, source: &raw::TokenSource, at: Place) -> Option<plan::TokenSource> {
        match source {
            raw::TokenSource::Bearer => Some(plan::TokenSource::Bearer),
            raw::TokenSource::Cookie(name) => {
                self.cookie_name(name, at);
                Some(plan::TokenSource::Cookie(name.clone()))
            }
            raw::TokenSource::Header(name) => self.header_name(name, at).map(plan::TokenSource::Header),
        }
    }

    /// A key in which two values stand side by side can be equal for two different requests.
    pub(super) fn key_is_certain(&mut self, key: &Template, place: Place) {
        if let Some((a, b)) = key.ambiguous() {
            let problem = self.report.error(place, format!("`${{{a}}}` and `${{{b}}}` run into each other"));
            problem.help(
                "put a character between them that values never contain when encoded, such as `:` or `/`",
            );
        }
    }

    pub(super) fn caches(&mut self) -> Vec<plan::Cache> {
        let raw = self.raw;
        let caches: Vec<_> =
            raw.caches.entries().map(|(name, cache, place)| self.cache(name, cache, place)).collect();
        self.disks_are_apart(&caches);
        caches
    }

    fn cache(&mut self, name: &str, raw: &raw::Cache, place: Place) -> plan::Cache {
        let memory = raw.memory.or(d::CACHE_MEMORY);
        let is_too_little = memory.get() < 1 << 20;
        if let Some(at) = raw.memory.place().filter(|_| is_too_little) {
            self.report.error(at, format!("{memory} is too little for a cache")).help("at least 1MiB");
        }
        let entry_bytes = raw.entry_max.or(d::CACHE_ENTRY_MAX.min(memory));
        // Beside a `memory` that is wrong itself this would be said of a default that nobody wrote.
        let comparable = !is_too_little && !matches!(raw.memory, Word::Wrong(_));
        if let Some(at) = raw.entry_max.place().filter(|_| comparable && entry_bytes > memory) {
            self.report.error(at, format!("`entry_max` ({entry_bytes}) is more than `memory` ({memory})"));
        }
        let disk = raw.disk.placed().and_then(|(disk, place)| self.cache_disk(disk, place));
        let shared = raw.shared.placed().map(|(shared, at)| self.cache_shared(shared, entry_bytes, at));
        plan::Cache { name: name.into(), memory, entry_bytes, disk, shared, place }
    }

    fn cache_disk(&mut self, raw: &raw::CacheDisk, place: Place) -> Option<plan::CacheDisk> {
        let path = self.required(&raw.path, "path", place);
        let size = self.required(&raw.size, "size", place);
        let ((path, path_at), (size, size_at)) = (path?, size?);
        if path.is_empty() {
            self.report.error(path_at, "an empty path is no folder");
        }
        let entry_bytes = raw.entry_max.or(d::CACHE_DISK_ENTRY_MAX.min(*size));
        if size.get() < 16 << 20 {
            self.report.error(size_at, format!("{size} is too little for a disk")).help("at least 16MiB");
        } else if let Some(at) = raw.entry_max.place().filter(|_| entry_bytes > *size) {
            self.report.error(at, format!("`entry_max` ({entry_bytes}) is more than `size` ({size})"));
        }
        let path = placed_path((path.as_str(), path_at));
        Some(plan::CacheDisk { path, size: *size, entry_bytes, place })
    }

    /// Each would take the other's files for its own.
    pub(super) fn disks_are_apart(&mut self, caches: &[plan::Cache]) {
        let mut seen: Vec<(&plan::Cache, &plan::CacheDisk)> = Vec::new();
        for (cache, disk) in caches.iter().filter_map(|cache| Some((cache, cache.disk.as_ref()?))) {
            // By components: `/a/b/` is `/a//b`.
            if let Some((other, _)) = seen.iter().find(|(_, other)| *other.path == *disk.path) {
                let said = format!("the caches `{}` and `{}` cannot share a folder", other.name, cache.name);
                self.report
                    .error(disk.path.place, said)
                    .help("give each one of its own, below this one if you like");
            }
            seen.push((cache, disk));
        }
    }
}
