//! Quantities with units: `10s`, `64MiB`, `100/15m`. Each parses what it displays.

use std::{num::NonZeroU32, time::Duration};

/// A number of bytes: `0`, `512`, `64KiB`, `10MiB`, `1GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Bytes(u64);

impl Bytes {
    /// This many bytes.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// As a plain number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// As a length in memory; saturates where `usize` is smaller.
    #[must_use]
    pub fn len(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// Whether it is 0, which most bounds read as "no bound".
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// A span of time: `500ms`, `10s`, `5m`, `1h`, `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span(Duration);

impl Span {
    /// This long.
    #[must_use]
    pub const fn new(span: Duration) -> Self {
        Self(span)
    }

    /// As the standard library's type.
    #[must_use]
    pub const fn get(self) -> Duration {
        self.0
    }
}

/// So many in so long: `10/s`, `100/15m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Quota {
    /// How many.
    pub count: NonZeroU32,
    /// In how long; never zero.
    pub per: Duration,
}
