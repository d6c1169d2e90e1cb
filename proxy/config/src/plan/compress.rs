//! Which answers are compressed for clients that take it, and how.

use crate::units::Bytes;

/// Which answers of a route are compressed, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Compress {
    /// With their levels, at least one; of those that a client likes equally well, the first.
    pub codings: Vec<(Coding, u32)>,
    /// Bodies known to be shorter are passed on as they are.
    pub min_bytes: Bytes,
    /// Media types whose answers are compressed.
    pub types: Vec<MediaRange>,
    /// Whether answers that are one caller's own are compressed, too.
    pub personal: bool,
}

impl Compress {
    /// The level of a coding that may be used.
    #[must_use]
    pub fn level(&self, coding: Coding) -> Option<u32> {
        self.codings.iter().find(|(known, _)| *known == coding).map(|(_, level)| *level)
    }
}

/// A content coding (RFC 9110 §8.4.1, RFC 7932, RFC 8878).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Coding {
    /// RFC 1952.
    Gzip,
    /// RFC 7932.
    Brotli,
    /// RFC 8878; with a window within RFC 9659's bound.
    Zstd,
}

impl Coding {
    /// Every coding there is; a coding's place here is its number.
    pub const ALL: [Self; 3] = [Self::Gzip, Self::Brotli, Self::Zstd];

    /// As HTTP and config.yaml call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }

    /// The highest level for answers that somebody waits for. Beyond, those of br and zstd have 5 to 40 MiB each while they
    /// are under way, for a percent.
    #[must_use]
    pub const fn max_level(self) -> u32 {
        match self {
            Self::Gzip => 9,
            Self::Brotli | Self::Zstd => 6,
        }
    }
}

/// Some media types, in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MediaRange {
    /// `*`.
    Any,
    /// `text/*`, held as `text/`.
    Below(String),
    /// `text/html`.
    One(String),
}

/// Each of its events is a pause, and each of its streams would hold a compressor for hours: only by its own name.
const EVENTS: &str = "text/event-stream";

impl MediaRange {
    /// Whether a `Content-Type` without parameters is one of these, whatever its case.
    #[must_use]
    pub fn holds(&self, media: &str) -> bool {
        match self {
            Self::One(one) => one.eq_ignore_ascii_case(media),
            Self::Any => !media.eq_ignore_ascii_case(EVENTS),
            Self::Below(main) => {
                media.get(..main.len()).is_some_and(|start| start.eq_ignore_ascii_case(main))
                    && !media.eq_ignore_ascii_case(EVENTS)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_what_is_below_it_and_events_only_by_name() {
        let below = MediaRange::Below("text/".to_owned());
        assert!(below.holds("Text/HTML") && !below.holds("application/json") && !below.holds("té"));
        assert!(MediaRange::Any.holds("application/json") && MediaRange::Any.holds(""));
        assert!(!MediaRange::Any.holds("text/event-stream") && !below.holds("Text/Event-Stream"));
        assert!(MediaRange::One("text/event-stream".to_owned()).holds("Text/Event-Stream"));
    }
}
