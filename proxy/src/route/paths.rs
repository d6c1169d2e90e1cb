//! The index of one host's paths: from a path to the rules that may match it, in the order of precedence.
//!
//! Costs: one hash for exact paths, one per segment for those with parameters, one search per prefix that matches;
//! only regular expressions are tried one by one, which is their nature. Nothing is allocated.

use std::{
    collections::{BTreeMap, HashMap},
    ops::{Bound, ControlFlow},
};

use weir_config::plan::{PathPattern, Segment};

use super::path::literal;

/// Rules by path; a rule is its position in the router's list, and lists are in the order of the file.
#[derive(Debug, Default)]
pub(super) struct Paths {
    exact: HashMap<String, Vec<usize>>,
    segments: Node,
    regexes: Vec<usize>,
    prefixes: BTreeMap<Box<[u8]>, Vec<usize>>,
}

#[derive(Debug, Default)]
struct Node {
    literals: HashMap<String, Node>,
    parameter: Option<Box<Node>>,
    rules: Vec<usize>,
}

impl Paths {
    pub(super) fn add(&mut self, pattern: &PathPattern, rule: usize) {
        match pattern {
            PathPattern::Exact(path) => self.exact.entry(literal(path)).or_default(),
            PathPattern::Prefix(prefix) => {
                self.prefixes.entry(literal(prefix).into_bytes().into()).or_default()
            }
            PathPattern::Regex(_) => &mut self.regexes,
            PathPattern::Segments(segments) => {
                let leaf = segments.iter().fold(&mut self.segments, |node, segment| match segment {
                    Segment::Literal(text) => node.literals.entry(literal(text)).or_default(),
                    Segment::Parameter(_) => node.parameter.get_or_insert_default(),
                });
                &mut leaf.rules
            }
        }
        .push(rule);
    }

    /// Calls `visit` with every rule whose path matches, and with every regular expression, until it breaks.
    pub(super) fn candidates<B>(
        &self,
        path: &str,
        visit: &mut impl FnMut(usize) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        self.exact.get(path).into_iter().flatten().copied().try_for_each(&mut *visit)?;
        self.segments.candidates(path.strip_prefix('/'), visit)?;
        self.regexes.iter().copied().try_for_each(&mut *visit)?;
        self.matching_prefixes(path.as_bytes()).flatten().copied().try_for_each(visit)
    }

    /// The rules of each prefix of `path`, longest first.
    fn matching_prefixes<'s>(&'s self, path: &'s [u8]) -> impl Iterator<Item = &'s Vec<usize>> {
        let mut next = Some(path);
        std::iter::from_fn(move || {
            loop {
                // Whatever sorts between a prefix of the path and the path itself begins with that prefix; so the
                // remaining candidates are prefixes of the last entry before the path, too.
                let limit = next?;
                let range = (Bound::Unbounded, Bound::Included(limit));
                let (prefix, rules) = self.prefixes.range::<[u8], _>(range).next_back()?;
                let common = limit.iter().zip(prefix).take_while(|(a, b)| a == b).count();
                if common == prefix.len() {
                    next = common.checked_sub(1).map(|shorter| &limit[..shorter]);
                    return Some(rules);
                }
                next = Some(&limit[..common]);
            }
        })
    }
}

impl Node {
    /// `rest` is what follows the slash before this node's children; `None` at the path's end.
    fn candidates<B>(
        &self,
        rest: Option<&str>,
        visit: &mut impl FnMut(usize) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let Some(rest) = rest else {
            return self.rules.iter().copied().try_for_each(visit);
        };
        // Nothing is looked for where nothing is.
        if self.literals.is_empty() && self.parameter.is_none() {
            return ControlFlow::Continue(());
        }
        let (segment, rest) =
            rest.split_once('/').map_or((rest, None), |(segment, rest)| (segment, Some(rest)));
        if let Some(node) = self.literals.get(segment) {
            node.candidates(rest, visit)?;
        }
        match &self.parameter {
            Some(node) if !segment.is_empty() => node.candidates(rest, visit),
            _ => ControlFlow::Continue(()),
        }
    }
}
