//! Places in the stream of purges, and what they are on this edge's own clock: how an entry that another edge fetched is
//! compared with the purges that are known here.
//!
//! Clocks of two machines, and of two processes, say nothing about each other; the stream that all edges read is one order of
//! things for all of them. Whoever shares an entry says up to which word of the stream it had heard when the entry's request
//! left ([`Timeline::place`]). Whoever finds it takes it for something that was asked for here just after hearing that word
//! ([`Timeline::moment`]), and from there on what was purged since is decided as for every other entry.
//!
//! Each word that is heard leaves a *mark*: its place, and two readings of the clock of purges. *applied*: all words up to this
//! one count for whoever reads as much or more. *believed*: what an entry with this place is taken to be asked for at. It is the
//! same, unless purges were ordered here of which the stream did not have, or this edge not hear, its own word yet: an entry of
//! another edge may be older than those, so they have to count as later.
//!
//! Marks are thinned out when there are many, from one end to the other; in a gap an entry counts as older than it is, and is
//! fetched anew rather than believed. What is older than the first mark was asked for before this edge began to hear, and is
//! never believed.

use std::{
    collections::VecDeque,
    fmt,
    str::FromStr,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::watch, time::timeout};

use super::tags::Moment;

/// Marks kept; beyond, every second one goes.
const MOST: usize = 4096;

/// A word's place in a stream of Redis: milliseconds, and a number within them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Place {
    pub(super) millis: u64,
    pub(super) number: u64,
}

/// What is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoPlace;

impl FromStr for Place {
    type Err = NoPlace;

    fn from_str(text: &str) -> Result<Self, NoPlace> {
        let (millis, number) = text.split_once('-').ok_or(NoPlace)?;
        let read = |text: &str| text.parse().map_err(|_| NoPlace);
        Ok(Self { millis: read(millis)?, number: read(number)? })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.millis, self.number)
    }
}

/// What was heard, and when that was.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    marks: Mutex<VecDeque<Mark>>,
    /// The last word heard; none while nothing is.
    heard: watch::Sender<Option<Place>>,
    /// Whether news are heard at the moment.
    is_current: AtomicBool,
}

#[derive(Debug, Clone, Copy)]
struct Mark {
    place: Place,
    applied: u64,
    believed: u64,
}

impl Timeline {
    /// From now on news are heard, or not.
    pub(super) fn set_current(&self, is_current: bool) {
        self.is_current.store(is_current, Ordering::Relaxed);
    }

    pub(super) fn is_current(&self) -> bool {
        self.is_current.load(Ordering::Relaxed)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.marks.lock().is_empty()
    }

    /// What was heard so far says nothing any more.
    pub(super) fn forget(&self) {
        self.marks.lock().clear();
        self.heard.send_replace(None);
    }

    /// The word at `place` counts here from `now` on. `unheard` is a moment before the first purge ordered here whose word
    /// has not come back.
    ///
    /// Shape:  `now` is to be read before `unheard`.
    pub(super) fn heard(&self, place: Place, now: Moment, unheard: Option<Moment>) {
        let mut marks = self.marks.lock();
        // Set back: nobody can tell what came in between.
        if marks.back().is_some_and(|last| last.place >= place) {
            marks.clear();
        }
        if marks.len() >= MOST {
            let mut nth = 0;
            marks.retain(|_| {
                nth += 1;
                nth % 2 == 1
            });
        }
        let believed = unheard.map_or(now, |unheard| unheard.min(now));
        marks.push_back(Mark { place, applied: now.0, believed: believed.0 });
        drop(marks);
        self.heard.send_replace(Some(place));
    }

    /// Up to where the stream had been heard at this moment of this edge; `None` before it was.
    pub(super) fn place(&self, asked: Moment) -> Option<Place> {
        let marks = self.marks.lock();
        let after = marks.partition_point(|mark| mark.applied <= asked.0);
        marks.get(after.checked_sub(1)?).map(|mark| mark.place)
    }

    /// When, for this edge, something was asked for by who had heard up to `place`; `None` where that cannot be said.
    pub(super) fn moment(&self, place: Place) -> Option<Moment> {
        let marks = self.marks.lock();
        if marks.back().is_none_or(|last| last.place < place) {
            return None;
        }
        let after = marks.partition_point(|mark| mark.place <= place);
        marks.get(after.checked_sub(1)?).map(|mark| Moment(mark.believed))
    }

    /// Waits until the word at `place` was heard, for at most `within`; false if it was not.
    pub(super) async fn reaches(&self, place: Place, within: Duration) -> bool {
        let mut heard = self.heard.subscribe();
        let reached = heard.wait_for(|heard| heard.is_some_and(|heard| heard >= place));
        matches!(timeout(within, reached).await, Ok(Ok(_)))
    }

    #[cfg(test)]
    fn marks(&self) -> usize {
        self.marks.lock().len()
    }

    /// How many wait for a word.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.heard.receiver_count()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot build its input has failed")]
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Place {
        Place { millis, number: 0 }
    }

    #[test]
    fn a_place_is_read_as_it_is_written_and_ordered_by_its_numbers() {
        let place: Place = "1700000000000-7".parse().unwrap();
        assert_eq!(place.to_string(), "1700000000000-7");
        assert!("9-1".parse::<Place>().unwrap() < "10-0".parse().unwrap());
        for text in ["", "1", "-", "1-", "-1", "1-x", "1-2-3"] {
            assert_eq!(text.parse::<Place>(), Err(NoPlace), "{text}");
        }
    }

    #[test]
    fn what_was_asked_for_before_a_word_does_not_have_its_place() {
        let line = Timeline::default();
        assert_eq!(line.place(Moment(9)), None, "nothing was heard");
        line.heard(at(10), Moment(3), None);
        line.heard(at(20), Moment(4), None);
        assert_eq!(line.place(Moment(2)), None);
        assert_eq!(line.place(Moment(3)), Some(at(10)));
        assert_eq!(line.place(Moment(9)), Some(at(20)));
    }

    #[test]
    fn what_another_had_not_heard_is_later_than_what_it_shared() {
        let line = Timeline::default();
        line.heard(at(10), Moment(3), None);
        line.heard(at(20), Moment(4), None);
        assert_eq!(line.moment(at(9)), None, "of before this edge began to hear");
        assert_eq!(line.moment(at(10)), Some(Moment(3)));
        assert_eq!(line.moment(at(19)), Some(Moment(3)), "it had not heard the word at 20, the purge of 4");
        assert_eq!(line.moment(at(20)), Some(Moment(4)));
        assert_eq!(line.moment(at(21)), None, "this edge has not heard as much");
    }

    #[test]
    fn a_purge_of_ours_that_has_not_come_back_is_later_than_whatever_others_heard() {
        let line = Timeline::default();
        // Ordered here as 5; then the word of another, as 6.
        line.heard(at(10), Moment(6), Some(Moment(4)));
        assert_eq!(line.moment(at(10)), Some(Moment(4)));
        line.heard(at(20), Moment(6), None);
        assert_eq!(line.moment(at(20)), Some(Moment(6)), "its own word came back");
        assert_eq!(line.moment(at(10)), Some(Moment(4)), "who had not heard that did not know of it");
    }

    #[test]
    fn a_stream_that_was_set_back_is_begun_anew() {
        let line = Timeline::default();
        line.heard(at(10), Moment(1), None);
        line.heard(at(20), Moment(2), None);
        line.heard(at(15), Moment(3), None);
        assert_eq!((line.moment(at(10)), line.moment(at(20))), (None, None));
        assert_eq!(line.moment(at(15)), Some(Moment(3)));
        line.forget();
        assert_eq!(line.moment(at(15)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_word_is_waited_for_and_not_for_long() {
        let line = Timeline::default();
        line.heard(at(10), Moment(1), None);
        let span = Duration::from_millis(20);
        assert!(line.reaches(at(10), span).await);
        assert!(!line.reaches(at(11), span).await);
        let (reached, ()) = tokio::join!(line.reaches(at(11), span), async {
            tokio::time::sleep(span / 2).await;
            line.heard(at(12), Moment(2), None);
        });
        assert!(reached);
    }

    proptest! {
        /// However many marks are thinned out: never younger than by all of them, and never by a place that was not heard.
        #[test]
        fn gaps_make_entries_older_and_never_younger(asked in 0..20_000_u64, count in 1..20_000_u64) {
            let line = Timeline::default();
            (1..=count).for_each(|word| line.heard(at(word), Moment(word * 2), None));
            prop_assert!(line.marks() <= MOST);
            match line.moment(at(asked)) {
                Some(Moment(moment)) => prop_assert!(asked <= count && moment <= asked * 2 && moment >= 2),
                None => prop_assert!(asked == 0 || asked > count),
            }
            if let Some(place) = line.place(Moment(asked)) {
                prop_assert!(place.millis * 2 <= asked);
            }
        }
    }
}
