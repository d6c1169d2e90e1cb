//! The one table of every "no": why a request was not served as asked, and what is said about it.
//!
//! A stage's error is small and local; here it becomes a status, a sentence for the client, a word for the log and a
//! metric label (the same word), and what the connection may do afterwards. The client's sentence never names a
//! route, a peer or a rule; the operator finds those in the record of the request.

mod proxy_status;

use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode, header};

pub use self::proxy_status::PROXY_STATUS;
use crate::{accept::BadRequest, forward::retry::Failure};

/// Why a request was not served as asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The front could not accept it; see [`BadRequest`].
    Bad(BadRequest),
    /// No route serves this host and path.
    NoRoute,
    /// A route serves the path, but not with this method; the `Allow` list.
    Method(String),
    /// The address may not pass.
    Address,
    /// Over a limit; when to come back.
    Limited {
        /// When one more would be admitted; `None` is never.
        retry_after: Option<Duration>,
        /// As the limit says.
        status: StatusCode,
    },
    /// Limits cannot be counted now.
    LimitsDown,
    /// A session is required, and there is none.
    NoSession,
    /// The same, and the service that was asked challenges the client with this.
    Challenged(Box<[HeaderValue]>),
    /// The service that was asked about the request forbids it.
    Forbidden,
    /// A session is required, there is none, and the caller is sent here to get one.
    Login(String),
    /// The caller lacks the role.
    Role,
    /// Sessions cannot be looked up now.
    SessionsDown,
    /// `only-if-cached`, and nothing is.
    NotCached,
    /// What is stored may not be used without asking, and nobody answers.
    NotValidated,
    /// The request names itself in a way that cannot be passed on (hop-by-hop nominations, unknown expectations).
    Hops,
    /// Every peer is out.
    NoPeer,
    /// Every peer that is up has all the requests it takes.
    PeersFull,
    /// We have no connection left to ask a peer on.
    NoSocket,
    /// The circuit breaker leaves the upstream alone.
    CircuitOpen {
        /// When it is worth coming back.
        retry_after: Duration,
    },
    /// A peer refused, broke off or answered nonsense.
    PeerFailed(Failure),
    /// A peer did not answer in time.
    PeerTimeout(Failure),
    /// A static file that is not there.
    NoFile,
    /// The client left before an answer was written; nobody reads this one, nginx logs it as 499.
    ClientLeft,
    /// Our own fault.
    Internal,
}

/// What is said about a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said {
    /// The status.
    pub status: StatusCode,
    /// For the client.
    pub sentence: &'static str,
    /// For the log and the metric label.
    pub word: &'static str,
    /// Whether the connection ends with this answer.
    pub closes: bool,
}

const fn said(status: u16, word: &'static str, sentence: &'static str) -> Said {
    let status = match StatusCode::from_u16(status) {
        Ok(status) => status,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Said { status, sentence, word, closes: false }
}

/// 499 is nginx's: written to the log only, for a client that is no longer there.
const CLIENT_LEFT: u16 = 499;

impl Refusal {
    /// The row of the table.
    #[must_use]
    pub fn said(&self) -> Said {
        match self {
            // After a message that two parsers could read differently, nothing more on this connection can be trusted.
            Self::Bad(bad) => Said {
                status: StatusCode::from_u16(bad.status()).unwrap_or(StatusCode::BAD_REQUEST),
                sentence: bad.sentence(),
                word: bad.word(),
                closes: true,
            },
            Self::NoRoute => said(404, "no_route", "nothing is served here"),
            Self::Method(_) => said(405, "method", "this method is not served here"),
            Self::Address => said(403, "address", "this address may not pass"),
            Self::Limited { status, .. } => {
                said(status.as_u16(), "limited", "too many requests; try again later")
            }
            // The limit's own word for it: otherwise it counts on each edge, or lets everybody pass.
            Self::LimitsDown => said(503, "limits_down", "requests cannot be counted at the moment"),
            Self::NoSession | Self::Challenged(_) => said(401, "no_session", "a valid session is needed"),
            Self::Forbidden => said(403, "forbidden", "this request may not pass"),
            Self::Login(_) => said(302, "login", "a valid session is needed"),
            Self::Role => said(403, "role", "this session may not do that"),
            // 503, not 401: the caller may be right, we cannot tell; failing open would let anyone pass.
            Self::SessionsDown => said(503, "sessions_down", "sessions cannot be checked at the moment"),
            Self::NotCached => said(504, "not_cached", "not in the cache (RFC 9111 section 5.2.1.7)"),
            // 504 whatever the failure is: it is the cache that cannot answer (RFC 9111 section 5.2.2.2).
            Self::NotValidated => {
                said(504, "not_validated", "what is stored cannot be confirmed at the moment")
            }
            // Who tries to have our fields dropped gets no second try on this connection.
            Self::Hops => Said { closes: true, ..said(400, "hop_by_hop", "the request cannot be passed on") },
            Self::NoPeer => said(502, "no_peer", "no server is available"),
            Self::PeersFull => said(503, "peers_full", "every server is busy"),
            Self::NoSocket => said(503, "no_socket", "no connection can be opened at the moment"),
            Self::CircuitOpen { .. } => said(503, "circuit_open", "the servers fail at the moment"),
            Self::PeerFailed(_) => said(502, "peer_failed", "the server's answer could not be used"),
            Self::PeerTimeout(_) => said(504, "peer_timeout", "the server did not answer in time"),
            Self::NoFile => said(404, "no_file", "nothing is served here"),
            Self::ClientLeft => said(CLIENT_LEFT, "client_left", ""),
            Self::Internal => said(500, "internal", "something went wrong"),
        }
    }

    /// The fields that belong to this refusal alone.
    #[must_use]
    pub fn fields(&self) -> Vec<(HeaderName, HeaderValue)> {
        let text =
            |name, text: &str| HeaderValue::try_from(text).map(|value| (name, value)).into_iter().collect();
        match self {
            Self::Limited { retry_after: None, .. } => Vec::new(),
            Self::Limited { retry_after: Some(retry_after), .. } | Self::CircuitOpen { retry_after } => {
                vec![(header::RETRY_AFTER, whole_seconds(*retry_after).into())]
            }
            Self::SessionsDown | Self::LimitsDown | Self::PeersFull | Self::NoSocket => {
                vec![(header::RETRY_AFTER, HeaderValue::from_static("1"))]
            }
            Self::Method(allow) => text(header::ALLOW, allow),
            Self::Login(location) => text(header::LOCATION, location),
            Self::NoSession => vec![(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))],
            Self::Challenged(with) => {
                with.iter().map(|challenge| (header::WWW_AUTHENTICATE, challenge.clone())).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The body for the client: one JSON object, as an API's clients expect.
    #[must_use]
    pub fn body(&self) -> String {
        let said = self.said();
        format!("{{\"error\":{{\"code\":\"{}\",\"message\":\"{}\"}}}}\n", said.word, said.sentence)
    }
}

/// `Retry-After` counts whole seconds (RFC 9110 §10.2.3); rounded up, so that a client that obeys is not early.
fn whole_seconds(span: Duration) -> u64 {
    (span.as_secs() + u64::from(span.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_obedient_client_is_never_early() {
        let seconds = |ms| whole_seconds(Duration::from_millis(ms));
        assert_eq!([seconds(1), seconds(1000), seconds(1001)], [1, 1, 2]);
    }

    #[test]
    fn a_closed_set_of_words_labels_the_metrics() {
        let all = [
            Refusal::NoRoute,
            Refusal::Address,
            Refusal::NoSession,
            Refusal::Forbidden,
            Refusal::Role,
            Refusal::NoPeer,
            Refusal::NoSocket,
            Refusal::PeerTimeout(Failure::ReadTimeout),
        ];
        for refusal in all {
            let said = refusal.said();
            assert!(said.word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{said:?}");
            assert!(serde_json::from_str::<serde_json::Value>(&refusal.body()).is_ok());
        }
    }
}
