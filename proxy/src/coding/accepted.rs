//! What a client accepts (RFC 9110 §12.5.3), as far as we could send it.

use http::{Version, header};
use weir_config::plan::{Coding, Compress};

use super::Asked;

/// The coding that the client likes best; `None` where that is none at all. Of equal ones, the first of the rule.
///
/// Without the field anything would be allowed; nobody who wants a coding leaves it out, and nginx sends none either.
/// HTTP/1.0 gets none, as from nginx: without chunks the end of a body of unknown length would not be certain.
pub(super) fn best(rule: &Compress, asked: &Asked<'_>) -> Option<Coding> {
    let Named { weights, identity, others } = named(asked)?;
    let weight = |coding: Coding| weights[coding as usize].or(others).unwrap_or(0);
    let mut best: Option<(Coding, u16)> = None;
    for (coding, _) in &rule.codings {
        if weight(*coding) > best.map_or(0, |(_, weight)| weight) {
            best = Some((*coding, weight(*coding)));
        }
    }
    // What is not named is liked least, if at all.
    best.filter(|(_, weight)| *weight >= identity.unwrap_or(0)).map(|(coding, _)| coding)
}

/// Whether gzip is among what is taken at all.
pub(super) fn takes_gzip(asked: &Asked<'_>) -> bool {
    let weight = |named: Named| named.weights[Coding::Gzip as usize].or(named.others);
    named(asked).and_then(weight).is_some_and(|weight| weight > 0)
}

/// The weights of what a client names, in thousandths.
struct Named {
    weights: [Option<u16>; Coding::ALL.len()],
    identity: Option<u16>,
    others: Option<u16>,
}

/// `None` for a client that takes no coding whatever it says.
fn named(asked: &Asked<'_>) -> Option<Named> {
    if matches!(asked.version, Version::HTTP_09 | Version::HTTP_10) {
        return None;
    }
    let (mut weights, mut identity, mut others) = ([None; Coding::ALL.len()], None, None);
    for line in asked.headers.get_all(header::ACCEPT_ENCODING) {
        for member in line.as_bytes().split(|byte| *byte == b',') {
            let mut parts = member.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
            let (name, q) = (parts.next().unwrap_or_default(), parts.next());
            let Some(weight) = q.map_or(Some(1000), quality) else { continue };
            let slot = if name == b"*" {
                &mut others
            } else if name.eq_ignore_ascii_case(b"identity") {
                &mut identity
            } else if let Some(coding) = coding(name) {
                &mut weights[coding as usize]
            } else {
                continue;
            };
            *slot = Some(weight);
        }
    }
    Some(Named { weights, identity, others })
}

fn coding(name: &[u8]) -> Option<Coding> {
    // RFC 9110 §8.4.1.3: the same as gzip.
    if name.eq_ignore_ascii_case(b"x-gzip") {
        return Some(Coding::Gzip);
    }
    Coding::ALL.into_iter().find(|coding| name.eq_ignore_ascii_case(coding.name().as_bytes()))
}

fn quality(parameter: &[u8]) -> Option<u16> {
    let (name, value) = parameter.split_at_checked(parameter.iter().position(|byte| *byte == b'=')?)?;
    name.trim_ascii().eq_ignore_ascii_case(b"q").then(|| weight(value[1..].trim_ascii())).flatten()
}

/// A weight (RFC 9110 §12.4.2) in thousandths.
#[must_use]
pub fn weight(weight: &[u8]) -> Option<u16> {
    let (whole, fraction) = match weight {
        [whole, b'.', fraction @ ..] => (whole, fraction),
        [whole] => (whole, &[][..]),
        _ => return None,
    };
    let valid =
        matches!(whole, b'0' | b'1') && fraction.len() <= 3 && fraction.iter().all(u8::is_ascii_digit);
    let digits = fraction.iter().chain(b"000").take(3);
    let parts = digits.fold(0, |parts, digit| parts * 10 + u16::from(digit.saturating_sub(b'0')));
    valid.then(|| u16::from(whole - b'0') * 1000 + parts).filter(|weight| *weight <= 1000)
}
