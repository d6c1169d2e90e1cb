//! Dates as caches read them (RFC 9110 §5.6.7): the three forms, in any case of letters, and no other zone than GMT.
//!
//! Not `httpdate`'s reading: RFC 9111 §4.2 asks caches to match without regard to case. A day that is not the date's is
//! no reason to doubt the date, but a form that is almost right is: an `Expires` that cannot be read has passed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName};

const DAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
const MONTHS: [&[u8; 3]; 12] =
    [b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec"];
/// Two digits below this are of the century that began in 2000. RFC 9110 says "not more than 50 years ahead", which a
/// form that nobody has written since 1995 need not follow to the year.
const PIVOT: u64 = 70;

/// A field that holds one date.
pub(super) fn date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    parse(headers.get(name)?.as_bytes())
}

/// The moment that `text` names, since 1970.
pub(super) fn parse(text: &[u8]) -> Option<SystemTime> {
    let text = text.trim_ascii().to_ascii_lowercase();
    let (day, rest) = text.split_at_checked(text.iter().position(|byte| !byte.is_ascii_alphabetic())?)?;
    let long = DAYS.iter().any(|name| name.as_bytes() == day);
    let short = DAYS.iter().any(|name| &name.as_bytes()[..3] == day);
    let seconds = match rest {
        // Sun, 06 Nov 1994 08:49:37 GMT
        [b',', b' ', d @ .., b' ', b'g', b'm', b't'] if short => {
            let (date, clock) = split(d, 11)?;
            let [d1, d2, b' ', m1, m2, m3, b' ', year @ ..] = date else { return None };
            seconds(number(year)?, &[*m1, *m2, *m3], number(&[*d1, *d2])?, clock)
        }
        // Sunday, 06-Nov-94 08:49:37 GMT
        [b',', b' ', d @ .., b' ', b'g', b'm', b't'] if long => {
            let (date, clock) = split(d, 9)?;
            let [d1, d2, b'-', m1, m2, m3, b'-', year @ ..] = date else { return None };
            let year = number(year)?;
            let century = if year < PIVOT { 2000 } else { 1900 };
            seconds(century + year, &[*m1, *m2, *m3], number(&[*d1, *d2])?, clock)
        }
        // Sun Nov  6 08:49:37 1994
        [b' ', m1, m2, m3, b' ', d1, d2, b' ', clock @ .., b' ', y1, y2, y3, y4] if short => {
            let day = if *d1 == b' ' { number(&[*d2]) } else { number(&[*d1, *d2]) };
            seconds(number(&[*y1, *y2, *y3, *y4])?, &[*m1, *m2, *m3], day?, clock)
        }
        _ => None,
    }?;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// The date's characters, and the clock's behind a space.
fn split(text: &[u8], at: usize) -> Option<(&[u8], &[u8])> {
    let (date, clock) = text.split_at_checked(at)?;
    Some((date, clock.strip_prefix(b" ")?))
}

fn number(digits: &[u8]) -> Option<u64> {
    let valid = digits.iter().all(u8::is_ascii_digit);
    valid.then(|| digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

/// Seconds since 1970; the 61st second of a minute is a leap second's.
fn seconds(year: u64, month: &[u8; 3], day: u64, clock: &[u8]) -> Option<u64> {
    let [h1, h2, b':', m1, m2, b':', s1, s2] = clock else { return None };
    let (hour, minute, second) = (number(&[*h1, *h2])?, number(&[*m1, *m2])?, number(&[*s1, *s2])?);
    let month = MONTHS.iter().position(|name| *name == month)?;
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let lengths = [31, if is_leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let valid =
        year >= 1970 && (1..=lengths[month]).contains(&day) && hour < 24 && minute < 60 && second < 61;
    let leap_days = |year: u64| (year - 1) / 4 - (year - 1) / 100 + (year - 1) / 400;
    valid.then(|| {
        let days = (year - 1970) * 365 + leap_days(year) - leap_days(1970);
        let days = days + lengths[..month].iter().sum::<u64>() + day - 1;
        ((days * 24 + hour) * 60 + minute) * 60 + second
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot build its input has failed")]
    use super::*;

    fn read(text: &str) -> Option<u64> {
        Some(parse(text.as_bytes())?.duration_since(UNIX_EPOCH).unwrap().as_secs())
    }

    #[test]
    fn the_three_forms_are_read_in_any_case_of_letters() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            " sun, 06 NOV 1994 08:49:37 gmt ",
            "Mon, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "Sun Nov 06 08:49:37 1994",
        ] {
            assert_eq!(read(text), Some(784_111_777), "{text}");
        }
        assert_eq!(read("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(read("Thursday, 18-Aug-50 02:01:18 GMT"), read("Thu, 18 Aug 2050 02:01:18 GMT"));
    }

    #[test]
    fn every_day_of_two_centuries_is_the_one_another_reader_finds() {
        for day in 0..73_000 {
            let at = UNIX_EPOCH + Duration::from_secs(day * 86_400 + 5);
            assert_eq!(parse(httpdate::fmt_http_date(at).as_bytes()), Some(at));
        }
    }

    #[test]
    fn what_is_almost_a_date_is_none() {
        for text in [
            "",
            "0",
            "-1",
            "Sun",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1994 08:49:37 AEST",
            "Sun, 06 Nov 1994 08:49:37 +0000",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 94 08:49:37 GMT",
            "Sun, 06 Nov 1994 8:49:37 GMT",
            "Sun, 06 Nov 1994 08.49.37 GMT",
            "Sun, 06  Nov 1994 08:49:37 GMT",
            "Sun 06 Nov 1994 08:49:37 GMT",
            "Sun, 06-Nov-1994 08:49:37 GMT",
            "Sunday, 06-Nov-1994 08:49:37 GMT",
            "Sun, 06 Now 1994 08:49:37 GMT",
            "Sun, 31 Nov 1994 08:49:37 GMT",
            "Wed, 29 Feb 2100 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sun, 06 Nov 1994 08:60:37 GMT",
            "Sun, 06 Nov 1969 08:49:37 GMT",
            "Sun, \u{660}6 Nov 1994 08:49:37 GMT",
            "Xyz, 06 Nov 1994 08:49:37 GMT",
            "Sun Nov 6 08:49:37 1994",
            "Sun Nov  6 08:49:37 1994 GMT",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
