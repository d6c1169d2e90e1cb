//! Comma-separated field values, over all the fields of one name (RFC 9110 §5.6.1).

use http::{HeaderMap, header::AsHeaderName};

/// The elements of every field called `name`, trimmed; empty ones are left out, as the RFC asks of a recipient.
pub(super) fn elements(headers: &HeaderMap, name: impl AsHeaderName) -> impl Iterator<Item = &[u8]> {
    headers
        .get_all(name)
        .into_iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|element| !element.is_empty())
}

/// The one value of `name`; `None` when there is none, or more than one.
pub(super) fn only(headers: &HeaderMap, name: impl AsHeaderName) -> Option<&[u8]> {
    let mut values = headers.get_all(name).into_iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Some(value.as_bytes().trim_ascii()),
        _ => None,
    }
}
