//! `slice` with its `$slice_range` in the key → a route's `cache.slice`.

use weir_config::{
    raw::{Cache, Route, Word},
    units::{Bytes, Span},
};

use super::Translator;
use crate::{scope::Scope, tree::Directive, value::bytes};

/// nginx's variable for what a slice is asked for by, as it may be written.
const RANGE: [&str; 2] = ["$slice_range", "${slice_range}"];
/// What config.yaml takes: the least slice, and the largest body kept where nothing else is said.
const BOUNDS: [u64; 2] = [4 << 10, 8 << 20];

/// A key without the range of the slice, which ours have of themselves.
pub(super) fn without_range(key: &str) -> String {
    RANGE.iter().fold(key.to_owned(), |key, range| key.replace(range, ""))
}

/// Whether this is the range of a slice and nothing else.
pub(super) fn is_range(value: &str) -> bool {
    RANGE.contains(&value)
}

/// The `slice` that a location's answers are kept by: it does nothing where no key names its range.
pub(super) fn kept_by<'a>(scope: &Scope<'a>) -> Option<&'a Directive> {
    let slice = scope.one("slice").filter(|slice| bytes(slice.arg(0)).is_some_and(|size| size.get() > 0))?;
    let is_kept = scope.one("proxy_cache").is_some_and(|cache| cache.arg(0) != "off");
    let is_named = |key: &Directive| RANGE.iter().any(|range| key.arg(0).contains(range));
    (is_kept && scope.one("proxy_cache_key").is_some_and(is_named)).then_some(slice)
}

impl<'a> Translator<'a, '_> {
    /// What is kept in slices goes out as it is.
    pub(super) fn not_compressed(&mut self, scope: &Scope<'a>, route: &mut Route) {
        route.compress = Word::Absent;
        for module in ["gzip", "brotli", "zstd"].into_iter().filter(|module| scope.is_on(module)) {
            let directives = scope.one(module).into_iter();
            directives.for_each(|on| self.ledger.approximated(on, "but not what is kept in slices"));
        }
    }

    /// How long the slices are in this cache.
    pub(super) fn slice(&mut self, scope: &Scope<'a>, cache: Option<&Cache>) -> Option<Bytes> {
        let directive = scope.one("slice")?;
        let size = self.value(directive, bytes)?;
        if kept_by(scope).is_none() {
            // Nothing asks for its range: in nginx, too, it has no effect.
            self.ledger.exact(directive);
            return None;
        }
        let [least, most] = BOUNDS;
        let memory = cache.and_then(|cache| cache.memory.get()).map_or(most, |memory| memory.get());
        let nearest = Bytes::new(size.get().clamp(least, most.min(memory)));
        if nearest == size {
            self.ledger.exact(directive);
        } else {
            self.ledger.approximated(directive, format!("as {nearest}: a slice is an entry of the cache"));
        }
        Some(nearest)
    }
}

/// What is said of parts is said of their whole.
pub(super) fn valid_parts(statuses: &mut Vec<(String, Span)>, time: Span) {
    if !statuses.iter().any(|(status, _)| matches!(status.as_str(), "200" | "any")) {
        statuses.push(("200".to_owned(), time));
    }
}
