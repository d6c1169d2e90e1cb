//! `gzip`, `brotli` and `zstd` with what tunes them → a route's `compress`; `gunzip` → its `gunzip`.

use weir_config::{
    plan::Coding,
    raw::{Compress, Named, Route, Short, Switch, Word},
    units::Bytes,
};

use super::{Translator, list};
use crate::{
    scope::Scope,
    value::{bytes, number},
};

/// What the directives of one module begin with, with nginx's level.
const MODULES: [(&str, Coding, u32); 3] =
    [("zstd", Coding::Zstd, 3), ("brotli", Coding::Brotli, 6), ("gzip", Coding::Gzip, 1)];
/// The three modules' `…_min_length`.
const MIN_LENGTH: Bytes = Bytes::new(20);
/// What is always compressed.
const HTML: &str = "text/html";

impl<'a> Translator<'a, '_> {
    /// What of a location's answers is compressed.
    pub(super) fn compress(&mut self, scope: &Scope<'a>, route: &mut Route) {
        self.precompressed(scope);
        if let Some(directive) = scope.one("gunzip") {
            self.ledger.exact(directive);
            if directive.arg(0) == "on" {
                route.gunzip = Word::new(true);
            }
        }
        let several = MODULES.iter().filter(|(module, ..)| scope.is_on(module)).count() > 1;
        let (mut codings, mut min_bytes) = (Vec::new(), None::<Bytes>);
        let mut types = vec![HTML.to_owned()];
        for (module, coding, level) in MODULES {
            let said = |what: &str| scope.one(&format!("{module}{what}"));
            let Some(switch) = said("") else { continue };
            self.ledger.exact(switch);
            if switch.arg(0) == "off" {
                continue;
            }
            let level = said("_comp_level").map_or(level, |directive| self.level(directive, coding, level));
            codings.push((coding.name().to_owned(), level));
            let length = said("_min_length").and_then(|directive| {
                let length = self.value(directive, bytes)?;
                match several {
                    true => self.ledger.approximated(directive, "one length for all codings: the least"),
                    false => self.ledger.exact(directive),
                }
                Some(length)
            });
            let length = length.unwrap_or(MIN_LENGTH);
            min_bytes = Some(min_bytes.map_or(length, |before| before.min(length)));
            if let Some(directive) = said("_types") {
                match (several, directive.texts().any(|name| name == "*")) {
                    (true, _) => self.ledger.approximated(directive, "one list for all codings"),
                    (_, true) => self.ledger.approximated(directive, "all but text/event-stream: name it"),
                    _ => self.ledger.exact(directive),
                }
                let new = directive.texts().filter(|name| !types.iter().any(|known| known == name));
                types.extend(new.map(str::to_owned).collect::<Vec<_>>());
            }
        }
        let Some(min_bytes) = min_bytes else { return };
        self.gzip_words(scope);
        route.compress = Word::new(Short(Switch::On(Compress {
            codings: Word::new(codings.into_iter().collect::<Named<_>>()),
            min_bytes: Word::new(min_bytes),
            types: list(types),
            // nginx does not ask whose an answer is.
            personal: Word::new(true),
        })));
    }

    fn level(&mut self, directive: &'a crate::tree::Directive, coding: Coding, default: u32) -> u32 {
        let Some(level) = self.value(directive, number) else { return default };
        let nearest = level.clamp(1, coding.max_level());
        if nearest == level {
            self.ledger.exact(directive);
        } else {
            self.ledger.approximated(
                directive,
                format!("as {nearest}: while somebody waits there are levels 1 to {}", coding.max_level()),
            );
        }
        nearest
    }

    /// What is said about `gzip` and has no word of its own.
    fn gzip_words(&mut self, scope: &Scope<'a>) {
        if let Some(vary) = scope.one("gzip_vary") {
            match vary.arg(0) {
                "on" => self.ledger.exact(vary),
                _ => self
                    .ledger
                    .approximated(vary, "Vary is always said: caches would mix up answers without it"),
            }
        }
        if let Some(proxied) = scope.one("gzip_proxied") {
            match proxied.arg(0) {
                "any" => self.ledger.exact(proxied),
                _ => self
                    .ledger
                    .approximated(proxied, "as `any`: what proxies ask for is compressed like all else"),
            }
        }
        if let Some(version) = scope.one("gzip_http_version") {
            match version.arg(0) {
                "1.1" => self.ledger.exact(version),
                _ => self.ledger.approximated(version, "from HTTP/1.1 on: 1.0 gets answers as they are"),
            }
        }
    }

    fn precompressed(&mut self, scope: &Scope<'a>) {
        for (name, what_to_do) in [
            ("gzip_static", "`gzip on` compresses files as they are sent; nothing beside them is looked for"),
            (
                "brotli_static",
                "`brotli on` compresses files as they are sent; nothing beside them is looked for",
            ),
            ("zstd_static", "`zstd on` compresses files as they are sent; nothing beside them is looked for"),
        ] {
            match scope.one(name) {
                Some(directive) if directive.arg(0) == "off" => self.ledger.exact(directive),
                Some(directive) => self.ledger.refused(directive, what_to_do),
                None => {}
            }
        }
    }
}
