//! `Proxy-Status` (RFC 9209) on the answers that are ours: which kind of "no" it is, in the words of the registry.
//!
//! No peer is named (`next-hop`) and no rule (`details`): the client may be anybody.

use http::HeaderName;

use super::Refusal;
use crate::forward::retry::Failure;

/// The field.
pub const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

impl Refusal {
    /// The field's value.
    ///
    /// Source: RFC 9209 §2.3 for the types of error.
    #[must_use]
    pub fn proxy_status(&self) -> &'static str {
        match self {
            Self::Bad(_) | Self::Hops => "weir; error=http_request_error",
            Self::Address
            | Self::Limited { .. }
            | Self::NoSession
            | Self::Challenged(_)
            | Self::Forbidden
            | Self::Login(_)
            | Self::Role => "weir; error=http_request_denied",
            Self::NoPeer | Self::CircuitOpen { .. } | Self::NotValidated => {
                "weir; error=destination_unavailable"
            }
            Self::PeersFull | Self::NoSocket => "weir; error=connection_limit_reached",
            Self::PeerFailed(failure) | Self::PeerTimeout(failure) => of(*failure),
            Self::SessionsDown | Self::LimitsDown | Self::Internal => "weir; error=proxy_internal_error",
            // Not an error of the way to the origin: nobody was to be asked.
            Self::NoRoute | Self::Method(_) | Self::NotCached | Self::NoFile | Self::ClientLeft => {
                "weir; error=proxy_internal_response"
            }
        }
    }
}

fn of(failure: Failure) -> &'static str {
    match failure {
        Failure::Connect => "weir; error=connection_refused",
        Failure::NoSocket => "weir; error=connection_limit_reached",
        Failure::ConnectTimeout => "weir; error=connection_timeout",
        Failure::ResetUnsent | Failure::Reset => "weir; error=connection_terminated",
        Failure::FirstByteTimeout | Failure::Silent => "weir; error=http_response_timeout",
        Failure::ReadTimeout => "weir; error=connection_read_timeout",
        Failure::BadAnswer => "weir; error=http_protocol_error",
        // The peer's answer counted as a failure, and there was an older one to give: none of the registry's words is nearer.
        Failure::Status(_) => "weir; error=destination_unavailable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_our_name_and_a_type_of_error() {
        let all = [
            Refusal::Hops,
            Refusal::Role,
            Refusal::NoPeer,
            Refusal::PeersFull,
            Refusal::CircuitOpen { retry_after: std::time::Duration::from_secs(1) },
            Refusal::PeerFailed(Failure::Connect),
            Refusal::PeerTimeout(Failure::FirstByteTimeout),
            Refusal::PeerTimeout(Failure::Silent),
            Refusal::Internal,
            Refusal::NoRoute,
        ];
        for refusal in all {
            let error = refusal.proxy_status().strip_prefix("weir; error=").unwrap_or_default();
            assert!(
                !error.is_empty() && error.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
                "{refusal:?}"
            );
        }
    }
}
