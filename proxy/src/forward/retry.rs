//! The next peer, or the end: what becomes of a failed attempt.
//!
//! The rule above all others: a request that is not idempotent is never sent again once a byte of it was sent (RFC 9110
//! §9.2.2), and nothing is repeated once the client has seen a byte of an answer.
//!
//! Source: nginx `proxy_next_upstream`, its `_tries` and `_timeout`. Departures: `Retry::timeout` is the plan's word,
//! where nginx reads 0 as "no bound"; and there is a budget ([`super::budget`]), which is asked last.

use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use weir_config::plan::{Retry, RetryOn};

/// How an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// No connection: refused, unreachable, or TLS failed. Nothing was sent.
    Connect,
    /// No connection, because we are out of descriptors, ports or memory: nothing that the peer could help.
    NoSocket,
    /// No connection in time. Nothing was sent.
    ConnectTimeout,
    /// The connection broke before anything of the request was sent (a kept-alive one that the peer had closed).
    ResetUnsent,
    /// The connection broke after a part of the request may have arrived.
    Reset,
    /// The request was sent, and no answer began in time.
    FirstByteTimeout,
    /// The request was sent, and the peer gives no sign of life to anybody.
    Silent,
    /// The answer began, and stopped.
    ReadTimeout,
    /// An answer that is refused (`response::BadAnswer`).
    BadAnswer,
    /// An answer whose status may count as a failure.
    Status(StatusCode),
}

/// Where a request stands when an attempt fails.
#[derive(Debug, Clone)]
pub struct Progress<'a> {
    /// The request's.
    pub method: &'a Method,
    /// Attempts begun so far, the failed one included.
    pub attempts: u32,
    /// When the first attempt began.
    pub started: Instant,
    /// Whether the request's body can be sent again.
    pub body: Body,
    /// Whether the client has seen a byte of a final answer.
    pub client: Client,
}

/// Whether a request's body can be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// There is none, or all that was read of it is still held.
    Held,
    /// A part of it is gone.
    Gone,
}

/// What the client has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// Nothing, or interim answers only.
    Waiting,
    /// A part of a final answer.
    Answered,
}

/// What becomes of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Ask the next peer.
    Next,
    /// No further attempt, for this reason.
    Stop(Stop),
}

/// Why there is no further attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stop {
    /// The plan does not count this status as a failure.
    NoFailure,
    /// The client has a part of an answer already.
    Answered,
    /// The request is not idempotent, and some of it was sent.
    Unsafe,
    /// The body cannot be sent again.
    BodyGone,
    /// The plan's tries are used up.
    Tries,
    /// The plan's time is used up.
    Time,
    /// Too many requests are being repeated already.
    Budget,
}

impl Stop {
    /// The log word and metric label.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::NoFailure => "no_failure",
            Self::Answered => "answered",
            Self::Unsafe => "unsafe",
            Self::BodyGone => "body_gone",
            Self::Tries => "tries",
            Self::Time => "time",
            Self::Budget => "budget",
        }
    }
}

impl Failure {
    /// What the client hears when no further attempt is made: the origin's own status, 504 for silence, 503 when the want is
    /// ours, 502 otherwise.
    ///
    /// Source: RFC 9110 §15.6.3 and §15.6.5; nginx `ngx_http_upstream_next`.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::Status(status) => status,
            Self::ConnectTimeout | Self::FirstByteTimeout | Self::Silent | Self::ReadTimeout => {
                StatusCode::GATEWAY_TIMEOUT
            }
            Self::Connect | Self::ResetUnsent | Self::Reset | Self::BadAnswer => StatusCode::BAD_GATEWAY,
            Self::NoSocket => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The log word and metric label.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::NoSocket => "no_socket",
            Self::ConnectTimeout => "connect_timeout",
            Self::ResetUnsent => "reset_unsent",
            Self::Reset => "reset",
            Self::FirstByteTimeout => "first_byte_timeout",
            Self::Silent => "silent",
            Self::ReadTimeout => "read_timeout",
            Self::BadAnswer => "bad_answer",
            Self::Status(_) => "status",
        }
    }

    /// Whether it counts against the peer (`Picked::failed`).
    ///
    /// 403 and 404 never do, even when they go to the next peer: the peer works, it only has nothing (nginx, the same).
    /// Neither does a kept-alive connection that broke unused, which every peer closes at times.
    #[must_use]
    pub fn blames_peer(self, retry: &Retry) -> bool {
        self.blames(&retry.on)
    }

    fn blames(self, on: &[RetryOn]) -> bool {
        match self {
            Self::Status(StatusCode::FORBIDDEN | StatusCode::NOT_FOUND) | Self::ResetUnsent => false,
            // Whoever found it silent has taken it out already, for longer each time.
            Self::Silent | Self::NoSocket => false,
            Self::Status(status) => on.iter().any(|on| on.is_status(status.as_u16())),
            // Without its word in `on` it is no reason to ask the next peer, but it is a failure of this one (nginx, the same).
            _ => true,
        }
    }

    /// Whether the plan's words send it to the next peer. What was not even sent is no failure that needs a word.
    #[must_use]
    pub fn is_in(self, on: &[RetryOn]) -> bool {
        let word = match self {
            Self::ResetUnsent => return true,
            // No peer has a socket for us then.
            Self::NoSocket => return false,
            Self::Connect | Self::Reset => RetryOn::Error,
            Self::ConnectTimeout | Self::FirstByteTimeout | Self::ReadTimeout | Self::Silent => {
                RetryOn::Timeout
            }
            Self::BadAnswer => RetryOn::InvalidHeader,
            Self::Status(status) => return on.iter().any(|on| on.is_status(status.as_u16())),
        };
        on.contains(&word)
    }

    /// Whether a part of the request may have reached the peer.
    fn was_sent(self) -> bool {
        !matches!(self, Self::Connect | Self::NoSocket | Self::ConnectTimeout | Self::ResetUnsent)
    }
}

/// Decides what becomes of a request whose attempt failed.
#[must_use]
pub fn decide(failure: Failure, progress: &Progress<'_>, retry: &Retry, now: Instant) -> Verdict {
    let rule = Rule { tries: retry.tries, timeout: retry.timeout, on: &retry.on };
    match rule.stop(failure, progress, now) {
        Some(stop) => Verdict::Stop(stop),
        None => Verdict::Next,
    }
}

/// The plan's words, apart from the plan: those can be written only by reading a file.
struct Rule<'a> {
    tries: u32,
    timeout: Duration,
    on: &'a [RetryOn],
}

impl Rule<'_> {
    fn stop(&self, failure: Failure, progress: &Progress<'_>, now: Instant) -> Option<Stop> {
        let repeatable = progress.method.is_idempotent() || self.on.contains(&RetryOn::NonIdempotent);
        if !failure.is_in(self.on) {
            Some(Stop::NoFailure)
        } else if progress.client == Client::Answered {
            Some(Stop::Answered)
        } else if failure.was_sent() && !repeatable {
            Some(Stop::Unsafe)
        } else if progress.body == Body::Gone {
            Some(Stop::BodyGone)
        } else if progress.attempts >= self.tries && failure != Failure::ResetUnsent {
            // nginx gives that try back (`u->peer.tries++`): a stale connection says nothing about the next attempt.
            Some(Stop::Tries)
        } else if now.saturating_duration_since(progress.started) >= self.timeout {
            Some(Stop::Time)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUSY: Failure = Failure::Status(StatusCode::SERVICE_UNAVAILABLE);
    const ON: &[RetryOn] =
        &[RetryOn::Error, RetryOn::Timeout, RetryOn::InvalidHeader, RetryOn::Http404, RetryOn::Http503];
    const RULE: Rule<'_> = Rule { tries: 3, timeout: Duration::from_secs(10), on: ON };
    const FAILURES: [Failure; 9] = [
        Failure::Connect,
        Failure::ConnectTimeout,
        Failure::ResetUnsent,
        Failure::Reset,
        Failure::FirstByteTimeout,
        Failure::Silent,
        Failure::ReadTimeout,
        Failure::BadAnswer,
        BUSY,
    ];

    #[test]
    fn our_own_want_of_sockets_is_no_peers_fault_and_no_reason_to_ask_another() {
        let first = first(&Method::GET);
        assert_eq!(RULE.stop(Failure::NoSocket, &first, first.started), Some(Stop::NoFailure));
        assert!(!Failure::NoSocket.blames(ON));
    }

    fn first(method: &Method) -> Progress<'_> {
        Progress { method, attempts: 1, started: Instant::now(), body: Body::Held, client: Client::Waiting }
    }

    fn stop(failure: Failure, progress: &Progress<'_>) -> Option<Stop> {
        RULE.stop(failure, progress, progress.started)
    }

    #[test]
    fn idempotent_requests_go_to_the_next_peer_after_every_failure() {
        for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE] {
            for failure in FAILURES {
                assert_eq!(stop(failure, &first(&method)), None, "{method} {failure:?}");
            }
        }
    }

    #[test]
    fn other_requests_go_on_only_when_nothing_was_sent() {
        for method in [Method::POST, Method::PATCH] {
            for failure in FAILURES {
                let unsent =
                    [Failure::Connect, Failure::ConnectTimeout, Failure::ResetUnsent].contains(&failure);
                let expected = if unsent { None } else { Some(Stop::Unsafe) };
                assert_eq!(stop(failure, &first(&method)), expected, "{method} {failure:?}");
            }
        }
    }

    #[test]
    fn non_idempotent_is_the_word_that_repeats_them_all() {
        let on = [ON, &[RetryOn::NonIdempotent]].concat();
        let rule = Rule { on: &on, ..RULE };
        for failure in FAILURES {
            let progress = first(&Method::POST);
            assert_eq!(rule.stop(failure, &progress, progress.started), None, "{failure:?}");
        }
    }

    #[test]
    fn only_failures_that_the_plan_names_go_on() {
        let stop = |word: RetryOn, failure: Failure| {
            let progress = first(&Method::GET);
            Rule { on: &[word], ..RULE }.stop(failure, &progress, progress.started)
        };
        assert_eq!(stop(RetryOn::Error, Failure::Reset), None);
        assert_eq!(stop(RetryOn::Error, Failure::FirstByteTimeout), Some(Stop::NoFailure));
        assert_eq!(stop(RetryOn::Timeout, Failure::Silent), None);
        assert_eq!(stop(RetryOn::Timeout, Failure::BadAnswer), Some(Stop::NoFailure));
        assert_eq!(stop(RetryOn::InvalidHeader, Failure::BadAnswer), None);
        assert_eq!(
            stop(RetryOn::InvalidHeader, Failure::ResetUnsent),
            None,
            "a stale connection is no failure"
        );
        assert_eq!(stop(RetryOn::Http5xx, BUSY), None);
    }

    #[test]
    fn a_status_that_the_plan_does_not_name_is_an_answer() {
        let teapot = Failure::Status(StatusCode::IM_A_TEAPOT);
        assert_eq!(stop(teapot, &first(&Method::GET)), Some(Stop::NoFailure));
    }

    #[test]
    fn nothing_is_repeated_once_the_client_has_a_part_of_an_answer() {
        let progress = Progress { client: Client::Answered, ..first(&Method::GET) };
        assert_eq!(stop(Failure::Reset, &progress), Some(Stop::Answered));
    }

    #[test]
    fn a_body_that_is_gone_ends_it() {
        let progress = Progress { body: Body::Gone, ..first(&Method::PUT) };
        assert_eq!(stop(Failure::Connect, &progress), Some(Stop::BodyGone));
    }

    #[test]
    fn tries_count_the_first_attempt() {
        let attempt = |attempts| stop(Failure::Connect, &Progress { attempts, ..first(&Method::GET) });
        assert_eq!((attempt(2), attempt(3)), (None, Some(Stop::Tries)));
        let stale = Progress { attempts: 3, ..first(&Method::GET) };
        assert_eq!(stop(Failure::ResetUnsent, &stale), None, "a stale connection was no attempt");
    }

    #[test]
    fn no_attempt_begins_after_the_time() {
        let progress = first(&Method::GET);
        let at = |seconds| RULE.stop(BUSY, &progress, progress.started + Duration::from_secs(seconds));
        assert_eq!((at(9), at(10)), (None, Some(Stop::Time)));
    }

    #[test]
    fn silence_is_504_and_other_failures_are_502() {
        for failure in FAILURES {
            let expected = match failure {
                BUSY => 503,
                Failure::ConnectTimeout
                | Failure::FirstByteTimeout
                | Failure::Silent
                | Failure::ReadTimeout => 504,
                _ => 502,
            };
            assert_eq!(failure.status(), expected, "{failure:?}");
        }
    }

    #[test]
    fn what_is_no_fault_of_the_peer_is_not_held_against_it() {
        assert!(Failure::Connect.blames(&[]));
        assert!(BUSY.blames(ON));
        assert!(!BUSY.blames(&[]));
        assert!(!Failure::Status(StatusCode::NOT_FOUND).blames(ON));
        assert!(!Failure::ResetUnsent.blames(&[]));
    }
}
