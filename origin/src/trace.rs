//! Which trace a line of the log belongs to, and which part of it.
//!
//! The edge says in `traceparent` (W3C Trace Context) which trace its request is of, and which part of that it is itself. Ours is one more
//! part: it is the [`tracing::Span`] that a request is done in, so that every line written meanwhile has it under `span`, also those of slow
//! or failed statements, and with `RUST_LOG=info,sqlx::query=debug` of each statement with its time. A job has the trace of the request that
//! queued it. Nothing is asked of others in a request, so that nothing is passed on.

use axum::http::HeaderMap;
use tracing::{Span, error_span};

/// Where something is in its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    /// Shared by all that follows from one request.
    id: u128,
    /// Our part.
    span: u64,
    /// The part that asked for ours.
    parent: Option<u64>,
}

impl Trace {
    /// The trace of a valid `traceparent`; otherwise one of its own.
    #[must_use]
    pub fn follow(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all("traceparent").iter();
        match (values.next(), values.next()) {
            (Some(value), None) => value
                .to_str()
                .ok()
                .and_then(parse)
                .map(|(id, parent)| Self { parent: Some(parent), ..Self::part_of(id) }),
            // §3.2: two of them are as good as none.
            _ => None,
        }
        .unwrap_or_else(Self::begin)
    }

    /// What follows from nothing.
    #[must_use]
    pub fn begin() -> Self {
        // Zero is no id (§3.2.2.3).
        Self::part_of(rand::random::<u128>().max(1))
    }

    /// What follows from a request of before; of an older version's job it may be unknown.
    #[must_use]
    pub fn resume(id: Option<&str>) -> Self {
        id.and_then(|id| u128::from_str_radix(id, 16).ok()).map_or_else(Self::begin, Self::part_of)
    }

    fn part_of(id: u128) -> Self {
        Self { id, span: rand::random::<u64>().max(1), parent: None }
    }

    /// The trace's id: 32 lower-case hexadecimal digits.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{:032x}", self.id)
    }

    /// What lines are written in.
    #[must_use]
    pub fn span(&self, name: &'static str) -> Span {
        let parent_id = self.parent.map(|parent| format!("{parent:016x}"));
        let span_id = format!("{:016x}", self.span);
        // Of this level, so that errors have it when nothing else is logged.
        error_span!("in", doing = name, trace_id = self.id(), span_id, parent_id)
    }
}

/// Trace and part of a `traceparent`.
fn parse(value: &str) -> Option<(u128, u64)> {
    let mut parts = value.split('-');
    let mut hex = |digits: usize| {
        let part = parts.next()?;
        let is_hex = part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        (part.len() == digits && is_hex).then(|| u128::from_str_radix(part, 16).ok())?
    };
    let (version, id, span, _flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
    // §3.2.2: `ff` is no version; of later versions the beginning is read as this one's.
    let ends = parts.next().is_none() || version > 0;
    (version != 0xff && ends && id != 0 && span != 0).then_some((id, u64::try_from(span).ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn follow(values: &[&str]) -> Trace {
        let name = axum::http::HeaderName::from_static("traceparent");
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(&name, value.parse().unwrap());
        }
        Trace::follow(&headers)
    }

    #[test]
    fn the_trace_is_that_of_the_edge_and_the_part_our_own() {
        for value in [format!("00-{ID}-00f067aa0ba902b7-01"), format!("01-{ID}-00f067aa0ba902b7-01-more")] {
            let trace = follow(&[&value]);
            assert_eq!((trace.id().as_str(), trace.parent), (ID, Some(0x00f0_67aa_0ba9_02b7)));
            assert_ne!(trace.span, 0x00f0_67aa_0ba9_02b7);
        }
    }

    #[test]
    fn what_is_no_trace_begins_one() {
        let (zero, upper, good) = ("0".repeat(32), ID.to_uppercase(), format!("00-{ID}-00f067aa0ba902b7-01"));
        for value in [
            "",
            "00",
            "00-short-00f067aa0ba902b7-01",
            &format!("00-{zero}-00f067aa0ba902b7-01"),
            &format!("00-{upper}-00f067aa0ba902b7-01"),
            &format!("00-{ID}-0000000000000000-01"),
            &format!("00-{ID}-00f067aa0ba902b7"),
            &format!("00-{ID}-00f067aa0ba902b7-01-more"),
            &format!("ff-{ID}-00f067aa0ba902b7-01"),
        ] {
            let trace = follow(&[value]);
            assert!(trace.id() != ID && trace.parent.is_none() && trace.id().len() == 32, "{value}");
        }
        assert_ne!(follow(&[&good, &good]).id(), ID);
        assert_ne!(follow(&[]).id(), follow(&[]).id());
    }

    #[test]
    fn a_job_goes_on_with_the_trace_that_it_was_queued_with() {
        assert_eq!(Trace::resume(Some(ID)).id(), ID);
        assert_ne!(Trace::resume(None).id(), Trace::resume(None).id());
    }
}
