//! Purges of everything whose URL begins alike: a short list, newest last, read only for entries older than the newest.
//!
//! A purge adds one line, however many entries it ends. An entry asked for since the newest such purge, which is nearly
//! every entry nearly always, costs one comparison of numbers. The list holds [`MOST`] lines; when it is full, the oldest
//! one counts for every URL. So what was asked for before that is fetched anew, and nothing that was purged is served.

use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::{
    tags::{Moment, Purge, Standing},
    url::Url,
};

/// An entry older than all of them is compared with each.
pub(super) const MOST: usize = 128;

/// The purges by prefix.
#[derive(Debug, Default)]
pub(super) struct Prefixes {
    newest: AtomicU64,
    list: ArcSwap<List>,
    changing: Mutex<()>,
}

#[derive(Debug, Default, Clone)]
struct List {
    lines: Vec<Line>,
    /// Of lines that had to go: what was asked for before counts as purged, whatever its URL.
    hard_before: u64,
    soft_before: u64,
}

/// A line for who remembers it: the prefix, how far the purge went, and when it was.
pub(super) type Remembered = (Box<str>, Purge, u64);

#[derive(Debug, Clone)]
struct Line {
    prefix: Box<str>,
    at: u64,
    purge: Purge,
}

impl Prefixes {
    /// Ends everything asked for before `tick` whose URL begins with `prefix`.
    pub(super) fn purge(&self, prefix: &Url, purge: Purge, tick: impl FnOnce() -> u64) {
        let _alone = self.changing.lock();
        let (at, prefix) = (tick(), prefix.as_str());
        let mut list = List::clone(&self.list.load());
        // What this one says as well, and no less strictly.
        list.lines
            .retain(|old| !(old.prefix.starts_with(prefix) && (purge == Purge::Hard || old.purge == purge)));
        if list.lines.len() >= MOST {
            let oldest = list.lines.remove(0);
            match oldest.purge {
                Purge::Hard => list.hard_before = oldest.at,
                Purge::Soft => list.soft_before = oldest.at,
            }
        }
        list.lines.push(Line { prefix: prefix.into(), at, purge });
        self.list.store(list.into());
        self.newest.store(at, Ordering::Release);
    }

    /// The list, for who remembers it; and what was hard and softly purged before, whatever its URL.
    pub(super) fn list(&self) -> (Vec<Remembered>, [u64; 2]) {
        let list = self.list.load();
        let lines = list.lines.iter().map(|line| (line.prefix.clone(), line.purge, line.at)).collect();
        (lines, [list.hard_before, list.soft_before])
    }

    /// What [`Prefixes::list`] gave to somebody before this process began, besides what is known already.
    pub(super) fn restore(&self, lines: Vec<Remembered>, [hard, soft]: [u64; 2]) {
        let _alone = self.changing.lock();
        let mut list = List::clone(&self.list.load());
        list.lines.extend(lines.into_iter().map(|(prefix, purge, at)| Line { prefix, at, purge }));
        list.lines.sort_by_key(|line| line.at);
        (list.hard_before, list.soft_before) = (list.hard_before.max(hard), list.soft_before.max(soft));
        for oldest in list.lines.drain(..list.lines.len().saturating_sub(MOST)) {
            match oldest.purge {
                Purge::Hard => list.hard_before = list.hard_before.max(oldest.at),
                Purge::Soft => list.soft_before = list.soft_before.max(oldest.at),
            }
        }
        let newest = list.lines.last().map_or(0, |line| line.at).max(list.hard_before).max(list.soft_before);
        self.list.store(list.into());
        self.newest.fetch_max(newest, Ordering::AcqRel);
    }

    /// What is left of an entry of this URL, asked for at `since`.
    pub(super) fn standing(&self, url: &Url, since: Moment) -> Standing {
        if self.newest.load(Ordering::Acquire) <= since.count() {
            return Standing::Good;
        }
        let list = self.list.load();
        let later = list.lines.iter().rev().take_while(|line| line.at > since.count());
        let mut standing = if list.hard_before > since.count() {
            Standing::Gone
        } else if list.soft_before > since.count() {
            Standing::Soft
        } else {
            Standing::Good
        };
        for line in later.filter(|line| url.as_str().starts_with(&*line.prefix)) {
            standing = standing.max(match line.purge {
                Purge::Hard => Standing::Gone,
                Purge::Soft => Standing::Soft,
            });
        }
        standing
    }
}

#[cfg(test)]
impl Prefixes {
    pub(super) fn lines(&self) -> usize {
        self.list.load().lines.len()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot build its input has failed")]
    use proptest::prelude::*;

    use super::super::tags::Tags;
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn what_begins_so_and_was_asked_for_before_is_ended() {
        let tags = Tags::new();
        let before = tags.moment();
        tags.purge_prefix(&url("http://h/img/"), Purge::Hard);
        let standing = |text, since| tags.standing_of(&url(text), since);
        assert_eq!(standing("http://h/img/a.png", before), Standing::Gone);
        assert_eq!(standing("http://h/img/a.png", tags.moment()), Standing::Good);
        for other in ["http://h/img", "http://h/IMG/a", "https://h/img/a", "http://h.evil/img/a"] {
            assert_eq!(standing(other, before), Standing::Good, "{other}");
        }
    }

    #[test]
    fn a_soft_purge_never_softens_a_hard_one() {
        let tags = Tags::new();
        let (before, all) = (tags.moment(), url("http://h/"));
        tags.purge_prefix(&all, Purge::Hard);
        let between = tags.moment();
        tags.purge_prefix(&all, Purge::Soft);
        assert_eq!(tags.standing_of(&all, before), Standing::Gone);
        assert_eq!(tags.standing_of(&all, between), Standing::Soft);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Against a list that forgets nothing: no purge is forgotten, and while there is room none is invented.
        #[test]
        fn purges_count_as_in_a_list_without_bound(
            purges in proptest::collection::vec(("[ab/]{0,3}", any::<bool>()), 1..300),
            asked in "[ab/]{0,4}",
            since in any::<proptest::sample::Index>(),
        ) {
            let (tags, since) = (Tags::new(), since.index(purges.len()));
            let url = |path: &str| url(&format!("http://h/{path}"));
            let (mut moment, mut expected) = (tags.moment(), Standing::Good);
            for (at, (prefix, is_hard)) in purges.iter().enumerate() {
                if at == since {
                    moment = tags.moment();
                }
                let (mode, left) = if *is_hard { (Purge::Hard, Standing::Gone) } else { (Purge::Soft, Standing::Soft) };
                tags.purge_prefix(&url(prefix), mode);
                if at >= since && url(&asked).as_str().starts_with(url(prefix).as_str()) {
                    expected = expected.max(left);
                }
            }
            let found = tags.standing_of(&url(&asked), moment);
            prop_assert!(found >= expected);
            prop_assert!(found == expected || tags.prefix_lines() == MOST);
        }
    }

    #[test]
    fn the_list_is_bounded_and_forgets_no_purge() {
        let tags = Tags::new();
        let before = tags.moment();
        for number in 0..MOST * 3 {
            tags.purge_prefix(&url(&format!("http://h/{number}/")), Purge::Hard);
        }
        assert_eq!(tags.prefix_lines(), MOST);
        for number in 0..MOST * 3 {
            let one = url(&format!("http://h/{number}/x"));
            assert_eq!(tags.standing_of(&one, before), Standing::Gone, "{number}");
        }
        assert_eq!(tags.standing_of(&url("http://h/0/x"), tags.moment()), Standing::Good);
    }

    #[test]
    fn purging_the_same_again_and_again_takes_one_line() {
        let tags = Tags::new();
        for _ in 0..1000 {
            tags.purge_prefix(&url("http://h/a"), Purge::Soft);
        }
        assert_eq!(tags.prefix_lines(), 1);
    }
}
