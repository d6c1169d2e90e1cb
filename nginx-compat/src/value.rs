//! Values with nginx's grammar: times, sizes, numbers (`ngx_parse_time`, `ngx_parse_size`).

use std::time::Duration;

use weir_config::units::{Bytes, Span};

/// `60`, `500ms`, `1m30s`, `1d`; a bare number is seconds.
pub(crate) fn span(text: &str) -> Option<Span> {
    const UNITS: [(&str, u64); 8] = [
        ("y", 31_536_000_000),
        ("M", 2_592_000_000),
        ("w", 604_800_000),
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
        ("ms", 1),
    ];
    let (mut rest, mut millis, mut units) = (text, 0_u64, UNITS.as_slice());
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, next) = after.split_at(letters);
        let unit = if unit.is_empty() && next.is_empty() { "s" } else { unit };
        let position = units.iter().position(|(name, _)| *name == unit)?;
        let part = number.parse::<u64>().ok()?.checked_mul(units[position].1)?;
        millis = millis.checked_add(part)?;
        (rest, units) = (next.trim_start_matches(' '), &units[position + 1..]);
    }
    // nginx's own bound is a signed 32-bit number of milliseconds or seconds; a century is far beyond both uses.
    (!text.is_empty() && millis <= 100 * 31_536_000_000).then(|| Span::new(Duration::from_millis(millis)))
}

/// `512`, `8k`, `1m`, `2g`.
pub(crate) fn bytes(text: &str) -> Option<Bytes> {
    let (number, factor) = match text.as_bytes().last()? {
        b'k' | b'K' => (&text[..text.len() - 1], 1 << 10),
        b'm' | b'M' => (&text[..text.len() - 1], 1 << 20),
        b'g' | b'G' => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1_u64),
    };
    let digits = number.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| number.parse::<u64>().ok()?.checked_mul(factor).map(Bytes::new)).flatten()
}

/// Digits only: `parse` alone would take `+1`.
pub(crate) fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(text: &str) -> Option<u128> {
        span(text).map(|span| span.get().as_millis())
    }

    #[test]
    fn times_have_nginx_units_and_seconds_without_one() {
        assert_eq!(
            ["60", "500ms", "1m30s", "1d", "0"].map(millis),
            [60_000, 500, 90_000, 86_400_000, 0].map(Some)
        );
        assert_eq!(["", "s", "1x", "1s1m", "-1", "1.5s", "99999999999999999999"].map(millis), [None; 7]);
    }

    #[test]
    fn sizes_have_nginx_units() {
        let sizes = ["512", "8k", "1M", "2g", "0"].map(|text| bytes(text).map(Bytes::get));
        assert_eq!(sizes, [512, 8192, 1 << 20, 2 << 30, 0].map(Some));
        assert_eq!(["", "k", "1kb", "-1", "18446744073709551615g"].map(bytes).iter().flatten().count(), 0);
    }
}
