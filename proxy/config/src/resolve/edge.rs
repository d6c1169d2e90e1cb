//! Listeners, operators, clients, identity, log.

use super::{Resolver, placed_path};
use crate::{
    defaults::{self as d},
    plan,
    raw::{self, Short, Switch, Word},
    span::{Place, Placed},
};

impl Resolver<'_> {
    pub(super) fn listeners(&mut self) -> Vec<plan::Listener> {
        let raw = self.raw;
        if raw.listeners.is_absent() || raw.listeners.get().is_some_and(|list| list.0.is_empty()) {
            let place = raw.listeners.place().unwrap_or_default();
            self.report.error(place, "there is nothing to listen on").help("add `listeners: [0.0.0.0:8080]`");
        }
        raw.listeners.items().filter_map(|(Short(listener), place)| self.listener(listener, place)).collect()
    }

    fn listener(&mut self, raw: &raw::Listener, place: Place) -> Option<plan::Listener> {
        let tls = raw.tls.placed().and_then(|(tls, place)| self.tls(tls, place));
        let bounds = self.bounds(raw.bounds.get().unwrap_or(&raw::Bounds::default()));
        let (address, at) = self.required(&raw.address, "address", place)?;
        // The short form has no place of its own.
        let at = if at == Place::default() { place } else { at };
        let address = self.socket(address, at)?;
        let proxy_protocol = self.listens_behind_proxies(&raw.proxy_protocol);
        Some(plan::Listener { address, tls, bounds, proxy_protocol, place })
    }

    fn tls(&mut self, raw: &raw::Tls, place: Place) -> Option<plan::Tls> {
        let mut certificates = Vec::new();
        if raw.certificates.get().is_none_or(|list| list.0.is_empty())
            && !matches!(raw.certificates, Word::Wrong(_))
        {
            let problem = self.report.error(place, "TLS needs a certificate");
            problem.help("add `certificates: [{ chain: cert.pem, key: key.pem }]`");
        }
        for (certificate, place) in raw.certificates.items() {
            let chain = self.required(&certificate.chain, "chain", place).map(placed_path);
            let key = self.required(&certificate.key, "key", place).map(placed_path);
            if let (Some(chain), Some(key)) = (chain, key) {
                certificates.push(plan::Certificate { chain, key });
            }
        }
        Some(plan::Tls { certificates, http2: raw.http2.or(true) })
    }

    fn bounds(&mut self, raw: &raw::Bounds) -> plan::Bounds {
        let size = |word: &Word<_>, default| word.or(default);
        let bounds = plan::Bounds {
            header_timeout: self.time(&raw.header_timeout, d::HEADER_TIMEOUT),
            idle_timeout: self.time(&raw.idle_timeout, d::IDLE_TIMEOUT),
            body_timeout: self.time(&raw.body_timeout, d::BODY_TIMEOUT),
            body_min_rate: size(&raw.body_min_rate, d::BODY_MIN_RATE),
            send_timeout: self.time(&raw.send_timeout, d::SEND_TIMEOUT),
            head_bytes: size(&raw.head_bytes, d::HEAD_BYTES),
            uri_bytes: size(&raw.uri_bytes, d::URI_BYTES),
            head_fields: self.count(&raw.head_fields, d::HEAD_FIELDS) as usize,
            body_bytes: size(&raw.body_bytes, d::BODY_BYTES),
            connections: self.count(&raw.connections, d::CONNECTIONS) as usize,
            requests_per_connection: raw.requests_per_connection.or(d::REQUESTS_PER_CONNECTION),
            http2_streams: self.count(&raw.http2_streams, d::HTTP2_STREAMS),
            bare_lf: match raw.bare_lf.get() {
                Some(raw::BareLf::Accept) => plan::BareLf::Accept,
                Some(raw::BareLf::Refuse) | None => plan::BareLf::Refuse,
            },
            // Known with the routes.
            connect: false,
        };
        // A head of less than 256 bytes or more than 1 MiB is a slip of the unit, and the latter a gift to a flood.
        for (word, value) in [(&raw.head_bytes, bounds.head_bytes), (&raw.uri_bytes, bounds.uri_bytes)] {
            if let Some(place) = word.place().filter(|_| !(256..=1 << 20).contains(&value.get())) {
                self.report.error(place, format!("{value} is out of range")).help("from 256 to 1MiB");
            }
        }
        if bounds.uri_bytes > bounds.head_bytes {
            let place = raw.uri_bytes.place().or(raw.head_bytes.place()).unwrap_or_default();
            let message = format!(
                "`uri_bytes` ({}) is more than `head_bytes` ({})",
                bounds.uri_bytes, bounds.head_bytes
            );
            self.report.error(place, message).help("the request target is a part of the head");
        }
        bounds
    }

    pub(super) fn admin(&mut self) -> Option<plan::Admin> {
        let default = raw::Admin::default();
        let raw = match &self.raw.admin {
            Word::Given(Short(Switch::Off), _) => return None,
            Word::Given(Short(Switch::On(admin)), _) => admin,
            Word::Absent | Word::Wrong(_) => &default,
        };
        let owner = self.raw.admin.place().unwrap_or_default();
        let default_address = Word::new(d::ADMIN_ADDRESS.to_owned());
        let default_allow = Word::new(d::ADMIN_ALLOW.map(str::to_owned).into_iter().collect());
        let allow = self.networks(if raw.allow.is_absent() { &default_allow } else { &raw.allow });
        let (address, place) = raw.address.placed().or(default_address.placed())?;
        // The short form has no place of its own.
        let place = if place == Place::default() { owner } else { place };
        Some(plan::Admin { address: Placed::new(self.socket(address, place)?, place), allow })
    }

    pub(super) fn clients(&mut self) -> plan::Clients {
        let default = raw::Clients::default();
        let raw = self.raw.clients.get().unwrap_or(&default);
        let trusted = self.networks(&raw.trusted);
        for (network, place) in raw.trusted.items().filter(|(text, _)| text.ends_with("/0")) {
            let problem = self.report.warning(place, format!("`{network}` believes everybody"));
            problem.help("any client can then choose its own address: name the hops in front of us");
        }
        let header = match raw.header.get() {
            Some(raw::ForwardedBy::Forwarded) => plan::ForwardedBy::Forwarded,
            Some(raw::ForwardedBy::XForwardedFor) | None => plan::ForwardedBy::XForwardedFor,
        };
        plan::Clients { trusted, header }
    }

    pub(super) fn identity(&mut self) -> Option<plan::Identity> {
        let (raw, place) = self.raw.identity.placed()?;
        let ttl = self.time(&raw.ttl, d::IDENTITY_TTL);
        let default = Word::new(d::IDENTITY_HEADER.to_owned());
        let (header, at) = raw.header.placed().or(default.placed())?;
        let header = self.header_name(header, at);
        let hint = "make one with `openssl rand -hex 32`";
        if raw.secret.is_absent() && raw.secret_file.is_absent() {
            self.report.error(place, "`secret` or `secret_file` is missing").help(hint);
        }
        let (secret, at) = self.secret(&raw.secret, &raw.secret_file, "secret")?;
        let length = secret.expose().len();
        if length < d::IDENTITY_SECRET_BYTES {
            let least = d::IDENTITY_SECRET_BYTES;
            self.report.error(at, format!("the secret has {length} bytes; it needs {least}")).help(hint);
        }
        Some(plan::Identity { header: header?, secret, ttl })
    }

    pub(super) fn log(&mut self) -> plan::Log {
        let default = raw::Log::default();
        let raw = self.raw.log.get().unwrap_or(&default);
        let lines = raw::AccessLog::default();
        let access = match &raw.access {
            Word::Given(Short(Switch::Off), _) => None,
            Word::Given(Short(Switch::On(access)), _) => Some(access),
            Word::Absent | Word::Wrong(_) => Some(&lines),
        };
        let access = access.map(|raw| plan::AccessLog {
            format: match raw.format.get() {
                Some(raw::AccessFormat::Combined) => plan::AccessFormat::Combined,
                Some(raw::AccessFormat::Json) | None => plan::AccessFormat::Json,
            },
            path: raw.path.placed().map(placed_path),
            queue: self.count(&raw.queue, d::LOG_QUEUE) as usize,
        });
        let level = raw.level.get().map_or(d::LOG_LEVEL, |level| match level {
            raw::Level::Error => "error",
            raw::Level::Warn => "warn",
            raw::Level::Info => "info",
            raw::Level::Debug => "debug",
            raw::Level::Trace => "trace",
        });
        plan::Log { access, slow: self.time(&raw.slow, d::LOG_SLOW), level: level.to_owned() }
    }
}
