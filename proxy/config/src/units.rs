//! Quantities with units: `10s`, `64MiB`, `100/15m`, `20%`. Each parses what it displays.
//!
//! A bare number is a size in bytes, but never a time: `timeout: 10` would be ten of what?

use std::{fmt, num::NonZeroU32, str::FromStr, time::Duration};

/// A text that is not the quantity it should be; the message says what would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadUnit(String);

impl fmt::Display for BadUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadUnit {}

/// A number of bytes: `0`, `512`, `64KiB`, `10MiB`, `1GiB`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
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

const BYTE_UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

impl FromStr for Bytes {
    type Err = BadUnit;

    fn from_str(text: &str) -> Result<Self, BadUnit> {
        let (number, unit) = number_and_unit(text);
        let number: u64 = number.parse().map_err(|_| {
            BadUnit(format!("`{text}` is not a size; write bytes, or `64KiB`, `10MiB`, `1GiB`"))
        })?;
        let factor = match BYTE_UNITS.iter().find(|(name, _)| *name == unit) {
            Some((_, factor)) => *factor,
            None if unit.is_empty() || unit == "B" => 1,
            None => return Err(BadUnit(wrong_byte_unit(number, unit))),
        };
        number.checked_mul(factor).map(Self).ok_or_else(|| BadUnit(format!("`{text}` is more than 16 EiB")))
    }
}

/// nginx writes `10m`, others `10MB`; both mean different numbers to different people, so we ask for the exact word.
fn wrong_byte_unit(number: u64, unit: &str) -> String {
    let initial = unit.chars().next().map(|c| c.to_ascii_uppercase());
    match BYTE_UNITS.iter().find(|(name, _)| name.chars().next() == initial) {
        Some((name, _)) => format!("`{unit}` is not a unit of size; did you mean `{number}{name}`?"),
        None => format!("`{unit}` is not a unit of size; use KiB, MiB or GiB"),
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match BYTE_UNITS.iter().find(|(_, factor)| self.0 > 0 && self.0.is_multiple_of(*factor)) {
            Some((name, factor)) => write!(f, "{}{name}", self.0 / factor),
            None => write!(f, "{}", self.0),
        }
    }
}

/// A span of time: `500ms`, `10s`, `1m30s`, `1h`, `7d`; whole milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
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

/// Units of time in milliseconds, largest first: the order in which they may follow each other.
const TIME_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Longer than any sensible timeout, and short enough that adding it to a clock never overflows.
const LONGEST: u64 = 100 * 365 * 86_400_000;

impl FromStr for Span {
    type Err = BadUnit;

    fn from_str(text: &str) -> Result<Self, BadUnit> {
        let bad = || BadUnit(format!("`{text}` is not a time; write `500ms`, `10s`, `5m`, `1h` or `7d`"));
        if text == "0" {
            return Ok(Self(Duration::ZERO));
        }
        if let Ok(number) = text.parse::<u64>() {
            return Err(BadUnit(format!("a time needs a unit; did you mean `{number}s`?")));
        }
        let (mut rest, mut total, mut units) = (text, 0_u64, TIME_UNITS.as_slice());
        while !rest.is_empty() {
            let (number, after) = number_and_unit(rest);
            let unit_end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
            let (unit, next) = after.split_at(unit_end);
            let position = units.iter().position(|(name, _)| *name == unit).ok_or_else(bad)?;
            let amount = number.parse::<u64>().map_err(|_| bad())?.checked_mul(units[position].1);
            total = amount
                .and_then(|amount| total.checked_add(amount))
                .filter(|total| *total <= LONGEST)
                .ok_or_else(|| BadUnit(format!("`{text}` is more than 100 years")))?;
            (rest, units) = (next, &units[position + 1..]);
        }
        if text.is_empty() { Err(bad()) } else { Ok(Self(Duration::from_millis(total))) }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_millis();
        if rest == 0 {
            return f.write_str("0s");
        }
        for (name, factor) in TIME_UNITS {
            let amount = rest / u128::from(factor);
            rest %= u128::from(factor);
            if amount > 0 {
                write!(f, "{amount}{name}")?;
            }
        }
        Ok(())
    }
}

/// So many in so long: `10/s`, `100/15m`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Quota {
    /// How many.
    pub count: NonZeroU32,
    /// In how long; never zero.
    pub per: Duration,
}

impl FromStr for Quota {
    type Err = BadUnit;

    fn from_str(text: &str) -> Result<Self, BadUnit> {
        let bad =
            || BadUnit(format!("`{text}` is not a rate; write how many in how long: `10/s`, `100/15m`"));
        let (count, per) = text.split_once('/').ok_or_else(bad)?;
        let (count, per) = (count.trim(), per.trim());
        if let Some(number) = count.strip_suffix('r').filter(|number| number.parse::<u32>().is_ok()) {
            return Err(BadUnit(format!("`{text}` is nginx's spelling; write `{number}/{per}`")));
        }
        let count: u32 = count.parse().map_err(|_| bad())?;
        let count = NonZeroU32::new(count).ok_or_else(|| {
            BadUnit("a rate of 0 lets nobody through; to refuse everybody, answer 403".into())
        })?;
        let single = TIME_UNITS.iter().find(|(name, _)| *name == per);
        let per = match single {
            Some((_, millis)) => Duration::from_millis(*millis),
            None => per.parse::<Span>().map_err(|_| bad())?.get(),
        };
        if per.is_zero() { Err(bad()) } else { Ok(Self { count, per }) }
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.per.as_millis();
        match TIME_UNITS.iter().find(|(_, factor)| u128::from(*factor) == millis) {
            Some((name, _)) => write!(f, "{}/{name}", self.count),
            None => write!(f, "{}/{}", self.count, Span(self.per)),
        }
    }
}

/// A part of a whole: `20%`; whole percent, at most 100.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Share(u8);

impl Share {
    /// This many percent; more than 100 is read as 100.
    #[must_use]
    pub const fn percent(percent: u8) -> Self {
        Self(if percent > 100 { 100 } else { percent })
    }

    /// From 0 to 1.
    #[must_use]
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / 100.0
    }

    /// This part of `whole`, rounded down.
    #[must_use]
    pub const fn of(self, whole: usize) -> usize {
        whole * self.0 as usize / 100
    }
}

impl FromStr for Share {
    type Err = BadUnit;

    fn from_str(text: &str) -> Result<Self, BadUnit> {
        let number = text.strip_suffix('%').map(str::trim_end).and_then(|number| number.parse::<u8>().ok());
        let share = number.filter(|number| *number <= 100).map(Self);
        share.ok_or_else(|| BadUnit(format!("`{text}` is not a share; write whole percent: `20%`")))
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

fn number_and_unit(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// How many times as much: `1.25`, `2`; exact to a thousandth.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Factor(u32);

impl Factor {
    /// In thousandths.
    #[must_use]
    pub const fn thousandths(self) -> u32 {
        self.0
    }
}

impl FromStr for Factor {
    type Err = BadUnit;

    fn from_str(text: &str) -> Result<Self, BadUnit> {
        let bad = || BadUnit(format!("`{text}` is not a factor; write `1.25` or `2`"));
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(fraction) || fraction.len() > 3 {
            return Err(bad());
        }
        let thousandths: u32 = format!("{fraction:0<3}").parse().map_err(|_| bad())?;
        let whole = whole.parse::<u32>().ok().and_then(|whole| whole.checked_mul(1000));
        whole.and_then(|whole| whole.checked_add(thousandths)).map(Self).ok_or_else(bad)
    }
}

impl fmt::Display for Factor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:03}", self.0 / 1000, self.0 % 1000);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// What a type of words shares: it debugs as it displays, and serde and JSON Schema see its text.
macro_rules! written_as_text {
    ($type:ty, $name:literal, $pattern:literal, $($example:literal),+) => {
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.trim().parse().map_err(serde::de::Error::custom)
            }
        }
        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": ["string", "number"], "pattern": $pattern, "examples": [$($example),+] })
            }
        }
    };
}
written_as_text!(Factor, "Factor", "^[0-9]+([.][0-9]{1,3})?$", "1.25", "2");
written_as_text!(Bytes, "Bytes", "^[0-9]+(B|KiB|MiB|GiB|TiB)?$", "512", "64KiB", "10MiB");
written_as_text!(Span, "Span", "^(0|([0-9]+(ms|s|m|h|d))+)$", "500ms", "10s", "15m");
written_as_text!(Share, "Share", "^[0-9]{1,3}%$", "20%", "100%");
written_as_text!(Quota, "Quota", "^[0-9]+/[0-9]*(ms|s|m|h|d)", "10/s", "100/15m");

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test's panic is its report")]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_read_as_written() {
        for (text, bytes) in [("0", 0), ("512", 512), ("512B", 512), ("64KiB", 65_536), ("1GiB", 1 << 30)] {
            assert_eq!(text.parse::<Bytes>().unwrap().get(), bytes, "{text}");
        }
    }

    #[test]
    fn a_foreign_unit_of_size_is_refused_with_ours() {
        for (text, hint) in [("10m", "10MiB"), ("10MB", "10MiB"), ("8k", "8KiB"), ("1g", "1GiB")] {
            assert!(text.parse::<Bytes>().unwrap_err().to_string().contains(hint), "{text}");
        }
        assert!("99999999TiB".parse::<Bytes>().is_err());
    }

    #[test]
    fn times_read_as_written() {
        for (text, millis) in
            [("0", 0), ("500ms", 500), ("10s", 10_000), ("1m30s", 90_000), ("7d", 604_800_000)]
        {
            assert_eq!(text.parse::<Span>().unwrap().get(), Duration::from_millis(millis), "{text}");
        }
    }

    #[test]
    fn a_time_without_unit_or_out_of_order_is_refused() {
        for text in ["10", "", "s", "30s1m", "1s1s", "-1s", "1.5s", "ten"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
        assert!("10".parse::<Span>().unwrap_err().to_string().contains("`10s`"));
    }

    #[test]
    fn factors_read_as_written() {
        for (text, thousandths) in
            [("1.25", 1250), ("2", 2000), ("0.5", 500), ("1.001", 1001), ("10", 10_000)]
        {
            assert_eq!(text.parse::<Factor>().unwrap().thousandths(), thousandths, "{text}");
            assert_eq!(text.parse::<Factor>().unwrap().to_string(), text);
        }
        for text in ["", ".", "1.", ".5", "-1", "1.0001", "1,5", "125%", "4294968"] {
            assert!(text.parse::<Factor>().is_err(), "{text}");
        }
    }

    #[test]
    fn rates_read_as_written() {
        let quota: Quota = "100/15m".parse().unwrap();
        assert_eq!((quota.count.get(), quota.per), (100, Duration::from_secs(900)));
        assert_eq!("10/s".parse::<Quota>().unwrap().to_string(), "10/s");
        for text in ["0/s", "10", "10/", "/s", "10/0s", "10r/s", "10/year"] {
            assert!(text.parse::<Quota>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_share_is_whole_percent_up_to_all() {
        assert_eq!("20%".parse::<Share>().unwrap().of(11), 2);
        assert_eq!("100%".parse::<Share>().unwrap().to_string(), "100%");
        for text in ["20", "101%", "-1%", "%", "0.5%", "1/2"] {
            assert!(text.parse::<Share>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_displayed_reads_back(bytes: u64, millis in 0..=LONGEST, count in 1_u32.., per in 1..=LONGEST) {
            let (bytes, span) = (Bytes::new(bytes), Span::new(Duration::from_millis(millis)));
            let quota = Quota { count: NonZeroU32::new(count).unwrap(), per: Duration::from_millis(per) };
            prop_assert_eq!(bytes.to_string().parse(), Ok(bytes));
            prop_assert_eq!(span.to_string().parse(), Ok(span));
            prop_assert_eq!(quota.to_string().parse(), Ok(quota));
        }

        #[test]
        fn no_text_panics(text in "\\PC*", close in "[0-9]{0,30}[a-zA-Z/]{0,4}[0-9]{0,30}[a-zA-Z]{0,3}") {
            for text in [text, close] {
                let _ = (text.parse::<Bytes>(), text.parse::<Span>(), text.parse::<Quota>(), text.parse::<Factor>());
            }
        }
    }
}
