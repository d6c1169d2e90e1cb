//! How fast answers go, how much of a message is held, and where requests go once more.

use weir_config::{
    raw::{Mirror, Route, Short, Word},
    units::Bytes,
};

use super::{Translator, forward, maybe};
use crate::{
    scope::Scope,
    value::{bytes, number},
    variable,
};

/// What a gathered body may hold where nginx would go on to disk.
const REQUEST_BUFFER: Bytes = Bytes::new(1 << 20);
/// The most that config.yaml takes.
const BUFFER_MAX: Bytes = Bytes::new(16 << 20);

impl<'a> Translator<'a, '_> {
    /// `limit_rate` and `limit_rate_after`.
    pub(super) fn bandwidth(&mut self, scope: &Scope<'a>, route: &mut Route) {
        for name in ["limit_rate", "limit_rate_after"] {
            let Some(directive) = scope.one(name) else { continue };
            if !variable::is_constant(directive.arg(0)) {
                self.ledger.refused(directive, "write the rate: it cannot depend on the request");
                continue;
            }
            let Some(value) = self.value(directive, bytes) else { continue };
            self.ledger.exact(directive);
            match name {
                "limit_rate" if value.get() > 0 => route.limit_rate = Word::new(value),
                "limit_rate_after" if !route.limit_rate.is_absent() => {
                    route.limit_rate_after = Word::new(value)
                }
                // Nothing is limited, or nothing that could begin later.
                _ => {}
            }
        }
    }

    /// `proxy_request_buffering`, `proxy_buffering` and `proxy_buffers`.
    pub(super) fn buffers(&mut self, scope: &Scope<'a>, route: &mut Route) {
        if let Some(directive) = scope.one("proxy_request_buffering") {
            if directive.arg(0) == "on" {
                self.ledger
                    .approximated(directive, "in memory, up to 1MiB; what is longer streams from there");
                route.request_buffer = Word::new(REQUEST_BUFFER);
            } else {
                self.ledger.exact(directive);
            }
        }
        if let Some(directive) = scope.one("proxy_buffers")
            && let (Some(count), Some(size)) = (number(directive.arg(0)), bytes(directive.arg(1)))
        {
            let all = Bytes::new(u64::from(count).saturating_mul(size.get()));
            route.response_buffer = Word::new(all.min(BUFFER_MAX));
            self.ledger.approximated(directive, "so much in all, in memory, and nothing on disk");
        }
        if let Some(directive) = scope.one("proxy_buffering") {
            if directive.arg(0) == "off" {
                route.response_buffer = Word::new(Bytes::new(0));
            }
            self.ledger.exact(directive);
        }
    }

    /// `mirror` to a location that does nothing but pass requests on.
    pub(super) fn mirrored(&mut self, scope: &Scope<'a>, route: &mut Route) {
        if let Some(body) = scope.one("mirror_request_body") {
            match body.arg(0) {
                "on" => self.ledger.exact(body),
                _ => self.ledger.approximated(body, "bodies are mirrored, too"),
            }
        }
        for (position, mirror) in scope.all("mirror").into_iter().enumerate() {
            if mirror.arg(0) == "off" {
                self.ledger.exact(mirror);
                continue;
            }
            let block = scope.location(mirror.arg(0));
            let inner = block.map(|block| scope.inner(block.inside()));
            let pass = inner.as_ref().and_then(|inner| inner.own("proxy_pass"));
            let target = pass.and_then(forward::Target::of).filter(forward::Target::passes_as_it_came);
            let (Some(inner), Some(target), 0) = (inner, target, position) else {
                let what_to_do = "name one location with `proxy_pass http://UPSTREAM$request_uri`, or write the route's `mirror`";
                self.ledger.refused(mirror, what_to_do);
                continue;
            };
            match self.upstream_of(&inner, &target) {
                Ok(to) => {
                    pass.into_iter().for_each(|pass| self.ledger.exact(pass));
                    route.mirror = Word::new(Short(Mirror { to: Word::new(to), ..Mirror::default() }));
                    self.ledger.approximated(mirror, "with the fields of the request that is mirrored");
                }
                Err(what_to_do) => self.ledger.refused(mirror, what_to_do),
            }
        }
    }

    /// `proxy_intercept_errors`, once the route has its pages.
    pub(super) fn intercepted(&mut self, scope: &Scope<'a>, route: &mut Route) {
        let Some(directive) = scope.one("proxy_intercept_errors") else { return };
        if directive.arg(0) == "on" && !route.error_pages.is_absent() {
            route.intercept_errors = maybe(Some(true));
        }
        self.ledger.exact(directive);
    }
}
