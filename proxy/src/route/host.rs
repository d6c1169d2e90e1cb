//! Which routes a host can reach: its own first, then those of the wildcards above it, longest first, then anybody's.
//!
//! The levels are searched one after another, they do not hide each other: a `/health` for any host also answers on
//! a host that has routes of its own, unless that host says otherwise.

use std::collections::HashMap;

use weir_config::plan::HostPattern;

/// One `T` for each host pattern.
#[derive(Debug, Default)]
pub(super) struct ByHost<T> {
    exact: HashMap<String, T>,
    /// By suffix with its leading dot.
    suffix: HashMap<String, T>,
    any: T,
}

impl<T: Default> ByHost<T> {
    /// Calls `add` for what each of `patterns` leads to; no pattern is any host.
    pub(super) fn for_each(&mut self, patterns: &[HostPattern], mut add: impl FnMut(&mut T)) {
        if patterns.is_empty() {
            add(&mut self.any);
        }
        for pattern in patterns {
            add(match pattern {
                HostPattern::Exact(host) => self.exact.entry(host.clone()).or_default(),
                HostPattern::Suffix(suffix) => self.suffix.entry(suffix.clone()).or_default(),
            });
        }
    }

    /// What `host` (lower case, without port) can reach, most specific first.
    pub(super) fn levels<'s>(&'s self, host: &'s str) -> impl Iterator<Item = &'s T> {
        // `example.org.` is the same name, fully qualified.
        let host = host.strip_suffix('.').unwrap_or(host);
        // Nothing is looked for where nothing is.
        let labels = if self.suffix.is_empty() { "" } else { host };
        let dots = labels.match_indices('.').filter(|(at, _)| *at > 0);
        let suffixes = dots.filter_map(|(at, _)| self.suffix.get(&host[at..]));
        self.exact.get(host).into_iter().chain(suffixes).chain([&self.any])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_host_comes_first_and_hides_nobody() {
        let mut hosts: ByHost<Vec<&str>> = ByHost::default();
        hosts.for_each(&[], |names| names.push("any"));
        hosts.for_each(&[HostPattern::Suffix(".example.org".into())], |names| names.push("wild"));
        hosts.for_each(&[HostPattern::Suffix(".a.example.org".into())], |names| names.push("longer"));
        hosts.for_each(&[HostPattern::Exact("x.a.example.org".into())], |names| names.push("exact"));
        let found = |host| hosts.levels(host).flatten().copied().collect::<Vec<_>>();
        assert_eq!(found("x.a.example.org"), ["exact", "longer", "wild", "any"]);
        assert_eq!(found("x.a.example.org."), ["exact", "longer", "wild", "any"]);
        assert_eq!(found("y.z.example.org"), ["wild", "any"]);
        assert_eq!(found("example.org"), ["any"]);
        assert_eq!(found("badexample.org"), ["any"]);
        assert_eq!(found(".example.org"), ["any"]);
        assert_eq!(found(""), ["any"]);
    }
}
