//! Which trace a request belongs to, as the edge says it in `traceparent`: its id stands in the log, and goes with a job.

use axum::http::HeaderMap;

/// The trace id: 32 lower-case hexadecimal digits, not all zero (W3C Trace Context §3.2.2.3).
#[must_use]
pub fn id(headers: &HeaderMap) -> Option<&str> {
    let mut parts = headers.get("traceparent")?.to_str().ok()?.split('-');
    let (version, id) = (parts.next()?, parts.next()?);
    let is_hex = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    // §3.2.2: `ff` is no version; of later versions the beginning is read as this one's.
    let known = version.len() == 2 && is_hex(version) && version != "ff";
    (known && id.len() == 32 && is_hex(id) && id.bytes().any(|byte| byte != b'0')).then_some(id)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn read(value: &str) -> Option<String> {
        let name = axum::http::HeaderName::from_static("traceparent");
        id(&HeaderMap::from_iter([(name, value.parse().unwrap())])).map(str::to_owned)
    }

    #[test]
    fn the_trace_is_that_of_the_edge() {
        for version in ["00", "01"] {
            assert_eq!(read(&format!("{version}-{ID}-00f067aa0ba902b7-01")).as_deref(), Some(ID));
        }
    }

    #[test]
    fn what_is_no_trace_is_none() {
        let (zero, upper) = ("0".repeat(32), ID.to_uppercase());
        for value in [
            "",
            "00",
            "00-short-00f067aa0ba902b7-01",
            &format!("00-{zero}-1-1"),
            &format!("00-{upper}-1-1"),
            &format!("ff-{ID}-1-1"),
        ] {
            assert_eq!(read(value), None, "{value}");
        }
    }
}
