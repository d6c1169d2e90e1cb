//! `proxy_cache_path` → a cache; `proxy_cache` and what tunes it → a route's `cache`.
//!
//! What cannot be said must not make answers of one request those of another: where the key, a bypass or a condition has no
//! counterpart, the route keeps nothing. nginx heeds neither cookies nor the Cache-Control of requests, guesses no lifetime
//! and lets stale answers stand in for as long as it has them: that is written out.

use std::time::Duration;

use weir_config::{
    plan::{Ignored, RetryOn, TtlApplies},
    raw::{Cache, CacheDisk, CacheRule, Route, Word},
    template::Template,
    units::{Bytes, Span},
};

use super::{Translator, forward::failure, list, maybe, named, slice};
use crate::{
    scope::Scope,
    tree::Directive,
    value::{bytes, number, span},
    variable::{self, Known},
};

/// What nginx keys by without a word, and so do we, with the upstream's name before it.
const DEFAULT_KEY: &str = "$scheme$proxy_host$request_uri";
/// What `proxy_cache_valid` without statuses speaks of.
const UNNAMED: [&str; 3] = ["200", "301", "302"];
/// nginx's stale answers have no end but that of their place in the cache.
const FOR_GOOD: Span = Span::new(Duration::from_secs(30 * 24 * 60 * 60));
/// The memory of a cache in config.yaml without a word, and the least.
const MEMORY: [u64; 2] = [128 << 20, 1 << 20];
/// The least of its disk.
const DISK: u64 = 16 << 20;

const KEPT: &str =
    "answers to requests with Authorization are kept only where they say that they are for everybody";

/// Why a route keeps nothing although it has a `proxy_cache`.
struct KeepsNothing;

impl<'a> Translator<'a, '_> {
    /// The caches of `http`, by the names of their zones.
    pub(super) fn caches(&mut self, http: &'a [Directive]) -> Vec<(String, Cache)> {
        let paths = http.iter().filter(|directive| directive.name == "proxy_cache_path");
        paths.filter_map(|directive| self.cache_path(directive)).collect()
    }

    /// `proxy_cache_path PATH keys_zone=NAME:SIZE [max_size=SIZE] …`.
    fn cache_path(&mut self, directive: &'a Directive) -> Option<(String, Cache)> {
        let (mut name, mut most) = (None, None::<Bytes>);
        for word in &directive.args[1..] {
            let known = match word.text.split_once('=') {
                Some(("keys_zone", zone)) => zone
                    .split_once(':')
                    .filter(|(_, size)| bytes(size).is_some_and(|size| size.get() >= 8192))
                    .map(|(zone, _)| name = Some(zone.to_owned())),
                Some(("max_size", size)) => bytes(size).map(|size| most = Some(size)),
                Some(("min_free" | "manager_files" | "loader_files" | "purger_files", value)) => {
                    bytes(value).map(drop)
                }
                Some((
                    "inactive" | "manager_sleep" | "manager_threshold" | "loader_sleep" | "loader_threshold"
                    | "purger_sleep" | "purger_threshold",
                    time,
                )) => span(time).map(drop),
                Some(("use_temp_path" | "purger", "on" | "off")) | Some(("levels", _)) => Some(()),
                _ => None,
            };
            if known.is_none() {
                let what = match word.text.split_once('=') {
                    Some(("keys_zone", _)) => "invalid keys zone size",
                    Some(("max_size", _)) => "invalid max_size value",
                    Some(("inactive", _)) => "invalid inactive value",
                    _ => "invalid parameter",
                };
                self.problems.add(&word.at, format!("{what} \"{}\"", word.text));
                return None;
            }
        }
        let Some(name) = name else {
            self.problems.add(&directive.at, "\"proxy_cache_path\" must have \"keys_zone\" parameter");
            return None;
        };
        let [default, least] = MEMORY;
        let memory = most.map(|most| most.get().max(least)).filter(|most| *most < default);
        let path = directive.arg(0);
        // Whose bounds are not written cannot share a disk with others.
        let disk = most.filter(|most| path.starts_with('/') && most.get() >= DISK).map(|size| CacheDisk {
            path: Word::new(path.to_owned()),
            size: Word::new(size),
            entry_max: Word::new(size),
        });
        let below = match &disk {
            Some(disk) => format!(
                "below that in {} of files (`caches.{name}.disk`); what was not asked for leaves for want of room, and not for being `inactive`",
                disk.size.or(Bytes::new(0))
            ),
            None => "and nothing on the disk, for want of a `max_size` of 16m or more and an absolute path"
                .to_owned(),
        };
        self.ledger.approximated(
            directive,
            format!(
                "kept in {} of memory (`caches.{name}.memory`), in it bodies of up to 8MiB, {below}",
                Bytes::new(memory.unwrap_or(default)),
            ),
        );
        Some((name, Cache { memory: maybe(memory.map(Bytes::new)), disk: maybe(disk), ..Cache::default() }))
    }

    /// What a location that passes requests on keeps.
    pub(super) fn cached(&mut self, scope: &Scope<'a>, known: &Known, route: &mut Route) {
        let Some(cache) = scope.one("proxy_cache") else { return };
        let name = cache.arg(0);
        if name == "off" {
            return self.ledger.exact(cache);
        }
        if !variable::is_constant(name) {
            return self.ledger.refused(cache, "name the zone: it cannot be chosen by a variable");
        }
        if !self.caches.iter().any(|(known, _)| known == name) {
            let message = format!("\"proxy_cache\" zone \"{name}\" is unknown");
            return self.problems.add(&cache.args[0].at, message);
        }
        match self.cache_rule(scope, known, name) {
            Ok(rule) => {
                self.ledger.approximated(cache, KEPT);
                if !rule.slice.is_absent() {
                    self.not_compressed(scope, route);
                }
                route.cache = Word::new(rule);
            }
            Err(KeepsNothing) => {
                self.ledger.approximated(cache, "nothing is kept: see what of it could not be said");
            }
        }
    }

    fn cache_rule(
        &mut self,
        scope: &Scope<'a>,
        known: &Known,
        name: &str,
    ) -> Result<CacheRule, KeepsNothing> {
        let key = self.cache_key(scope, known);
        let (bypass, no_store) = (
            self.cache_conditions(scope, "proxy_cache_bypass", known),
            self.cache_conditions(scope, "proxy_no_cache", known),
        );
        let mut rule = CacheRule { cache: Word::new(name.to_owned()), ..CacheRule::default() };
        let cache = self.caches.iter().find(|(known, _)| known == name).map(|(_, cache)| cache.clone());
        rule.slice = maybe(self.slice(scope, cache.as_ref()));
        self.valid(scope, &mut rule);
        self.use_stale(scope, &mut rule);
        self.lock(scope, &mut rule);
        self.cache_methods(scope);
        // What nginx does not look at, and what it is told not to look at.
        let mut ignore = vec![Ignored::Cookie, Ignored::RequestCacheControl];
        self.ignore_headers(scope, &mut ignore);
        rule.ignore = list(ignore);
        rule.heuristics = Word::new(false);
        rule.revalidate = self.is_off("proxy_cache_revalidate", scope, false);
        rule.background_update = self.is_off("proxy_cache_background_update", scope, false);
        rule.convert_head = self.is_off("proxy_cache_convert_head", scope, true);
        if let Some(head) = scope.one("proxy_cache_convert_head").filter(|head| head.arg(0) == "off") {
            self.ledger.approximated(head, "HEAD is passed on, and its answer is kept for nobody");
        }
        rule.min_uses = maybe(self.said(scope, "proxy_cache_min_uses", number).filter(|uses| *uses > 1));
        if let Some(offset) = scope.one("proxy_cache_max_range_offset") {
            match self.value(offset, bytes).map(Bytes::get) {
                Some(0) => self.ledger.exact(offset),
                _ => {
                    self.ledger.approximated(offset, "as 0: parts of what is not kept are asked for as such")
                }
            }
        }
        if let Some(purge) = scope.one("proxy_cache_purge") {
            self.ledger.refused(purge, "list who may purge in the route's `cache.purge` in config.yaml");
        }
        rule.key = maybe(key?);
        rule.bypass = list(bypass?);
        rule.no_store = list(no_store?);
        Ok(rule)
    }

    /// The flag in our words, written where it is off; `default` is nginx's.
    fn is_off(&mut self, name: &str, scope: &Scope<'a>, default: bool) -> Word<bool> {
        let flag = scope.one(name);
        flag.into_iter().for_each(|flag| self.ledger.exact(flag));
        let is_on = flag.map_or(default, |flag| flag.arg(0) == "on");
        if is_on { Word::Absent } else { Word::new(false) }
    }

    fn cache_key(&mut self, scope: &Scope<'a>, known: &Known) -> Result<Option<Template>, KeepsNothing> {
        let Some(key) = scope.one("proxy_cache_key") else { return Ok(None) };
        let text = slice::without_range(key.arg(0));
        if text == DEFAULT_KEY {
            self.ledger.exact(key);
            return Ok(None);
        }
        match variable::key(&text, known) {
            Ok(template) => {
                self.ledger.exact(key);
                Ok(Some(template))
            }
            Err(what_to_do) => {
                self.ledger.refused(key, format!("{what_to_do}; until then nothing is kept"));
                Err(KeepsNothing)
            }
        }
    }

    /// `proxy_cache_bypass`, `proxy_no_cache`: conditions on requests.
    fn cache_conditions(
        &mut self,
        scope: &Scope<'a>,
        name: &str,
        known: &Known,
    ) -> Result<Vec<Template>, KeepsNothing> {
        let (mut conditions, mut keeps) = (Vec::new(), true);
        for directive in scope.all(name) {
            self.ledger.exact(directive);
            for text in directive.texts() {
                match variable::template(text, known) {
                    Ok(template) if variable::is_constant(text) => {
                        // It never holds, or for every request.
                        keeps &= template.as_text().is_some_and(|text| matches!(text, "" | "0"));
                    }
                    Ok(template) => conditions.push(template),
                    Err(what_to_do) => {
                        self.ledger.refused(directive, format!("{what_to_do}; until then nothing is kept"));
                        keeps = false;
                    }
                }
            }
        }
        if keeps { Ok(conditions) } else { Err(KeepsNothing) }
    }

    /// `proxy_cache_valid [STATUS…] TIME`: the first that fits counts in nginx, the narrowest here.
    fn valid(&mut self, scope: &Scope<'a>, rule: &mut CacheRule) {
        let mut statuses: Vec<(String, Span)> = Vec::new();
        for directive in scope.all("proxy_cache_valid") {
            let mut words: Vec<&str> = directive.texts().collect();
            let time = words.pop().unwrap_or_default();
            let Some(time) = span(time) else {
                let at = directive.args.last().map_or(&directive.at, |word| &word.at);
                self.problems.add(at, format!("invalid time value \"{time}\""));
                continue;
            };
            self.ledger.exact(directive);
            let words = if words.is_empty() { &UNNAMED[..] } else { &words[..] };
            for word in words {
                let is_status = |status: u32| (100..600).contains(&status);
                if *word != "any" && !number(word).is_some_and(is_status) {
                    self.problems.add(&directive.at, format!("invalid status \"{word}\""));
                } else if number(word) == Some(206) && !rule.slice.is_absent() {
                    slice::valid_parts(&mut statuses, time);
                } else if matches!(number(word), Some(..200 | 206 | 304)) {
                    let how = format!("without {word}, which is no whole answer");
                    self.ledger.approximated(directive, how);
                } else if !statuses.iter().any(|(before, _)| before == word || before == "any") {
                    statuses.push(((*word).to_owned(), time));
                }
            }
        }
        if !statuses.is_empty() {
            rule.ttl_applies = Word::new(TtlApplies::Unsaid);
            rule.statuses = named(statuses);
        }
    }

    fn use_stale(&mut self, scope: &Scope<'a>, rule: &mut CacheRule) {
        let Some(directive) = scope.one("proxy_cache_use_stale") else { return };
        let mut failures: Vec<RetryOn> = Vec::new();
        for word in &directive.args {
            match (word.text.as_str(), failure(&word.text)) {
                ("off", _) => {
                    self.ledger.exact(directive);
                    return;
                }
                ("updating", _) => rule.stale_while_revalidate = Word::new(FOR_GOOD),
                (_, Some(failure)) if failure != RetryOn::NonIdempotent => failures.push(failure),
                (text, _) => self.problems.add(&word.at, format!("invalid value \"{text}\"")),
            }
        }
        let how = "for 30 days, and not where the answer forbids it (must-revalidate, s-maxage)";
        self.ledger.approximated(directive, how);
        if !failures.is_empty() {
            rule.stale_if_error = Word::new(FOR_GOOD);
            rule.stale_on = list(failures);
        }
    }

    fn lock(&mut self, scope: &Scope<'a>, rule: &mut CacheRule) {
        scope.one("proxy_cache_lock").into_iter().for_each(|lock| self.ledger.exact(lock));
        let (timeout, age) = ("proxy_cache_lock_timeout", "proxy_cache_lock_age");
        if scope.is_on("proxy_cache_lock") {
            rule.lock_timeout = maybe(self.said(scope, timeout, span));
            rule.lock_age = maybe(self.said(scope, age, span));
        } else {
            // Each request for what is not kept asks the origin.
            rule.lock_age = Word::new(Span::new(Duration::ZERO));
            for directive in [timeout, age].into_iter().filter_map(|name| scope.one(name)) {
                self.ledger.ignored(directive, "it only tunes proxy_cache_lock, which is off");
            }
        }
    }

    fn cache_methods(&mut self, scope: &Scope<'a>) {
        let Some(directive) = scope.one("proxy_cache_methods") else { return };
        self.ledger.exact(directive);
        for word in &directive.args {
            match word.text.to_ascii_uppercase().as_str() {
                "GET" | "HEAD" => {}
                "POST" => self.ledger.refused(
                    directive,
                    "answers to POST are not kept: its body is no part of a key; ask with GET, or with QUERY",
                ),
                _ => self.problems.add(&word.at, format!("invalid value \"{}\"", word.text)),
            }
        }
    }

    /// `proxy_ignore_headers` of everything that holds in `scope`.
    fn ignore_headers(&mut self, scope: &Scope<'a>, ignore: &mut Vec<Ignored>) {
        for directive in scope.all("proxy_ignore_headers") {
            self.ledger.exact(directive);
            for word in &directive.args {
                let ignored: &[Ignored] = match word.text.to_ascii_lowercase().as_str() {
                    // nginx does not know the other one; whoever ignores the lifetimes of an origin means it, too.
                    "cache-control" => &[Ignored::CacheControl, Ignored::CdnCacheControl],
                    "expires" => &[Ignored::Expires],
                    "set-cookie" => &[Ignored::SetCookie],
                    "vary" => &[Ignored::Vary],
                    "x-accel-expires" => &[Ignored::XAccelExpires],
                    // Nobody obeys these.
                    "x-accel-redirect" | "x-accel-charset" => &[],
                    "x-accel-limit-rate" | "x-accel-buffering" => {
                        let how = format!("{} is obeyed: it is this one answer's", word.text);
                        self.ledger.approximated(directive, how);
                        &[]
                    }
                    _ => {
                        self.problems.add(&word.at, format!("invalid value \"{}\"", word.text));
                        &[]
                    }
                };
                ignore
                    .extend(ignored.iter().filter(|one| !ignore.contains(one)).copied().collect::<Vec<_>>());
            }
        }
    }
}
