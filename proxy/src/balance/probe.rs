//! Active checks: a task a peer asks it at intervals, by HTTP, gRPC or a mere connection, and says whether it may be asked.
//!
//! States: *well* → (`fall` failures in a row) → *sick* → (`rise` successes in a row) → *well*. A peer starts as it
//! was before (if it is new: well, or sick where checks are mandatory), so a reload neither revives nor condemns anybody.
//! The first check of one that is well comes after a random part of the interval, and the others a little early or late,
//! so that a fleet does not ask in step; who is sick is asked at once.
//! A check opens its own connection: what it proves is that a new client could be served.

use std::{sync::Arc, time::Duration};

use http::{HeaderName, Response, response};
use tokio_util::sync::CancellationToken;
use weir_config::plan::{CheckAsk, Health};

use super::peer::Peer;
use crate::{
    causes::Causes,
    http_client::{
        self, Failed, Target, Tls, Way,
        grpc::{self, NotServing},
        is_our_want,
    },
};

/// More body than this is not read: nobody says that he is well at such length.
const BODY_BYTES: usize = 64 << 10;

/// What is asked of a peer, and how answers are judged.
#[derive(Debug, Clone)]
pub struct Check {
    /// What is asked.
    pub ask: CheckAsk,
    /// Where, if not at the peer's own port; a socket has none.
    pub port: Option<u16>,
    /// Between two checks.
    pub interval: Duration,
    /// How much of the interval a check may be early or late, from 0 to 1.
    pub jitter: f64,
    /// For one check.
    pub timeout: Duration,
    /// Failures in a row that take a peer out; 0 is read as 1.
    pub fall: u32,
    /// Successes in a row that bring it back; 0 is read as 1.
    pub rise: u32,
    /// TLS, when it is asked by that.
    pub tls: Option<Tls>,
    /// How to get to the peers.
    pub way: Way,
}

impl Check {
    /// The check that the plan asks for; `tls` is how requests speak to the peers.
    #[must_use]
    pub fn new(health: &Health, tls: Option<&Tls>, way: Way) -> Self {
        let tls = tls.filter(|_| health.tls);
        Self {
            ask: health.ask.clone(),
            port: health.port,
            interval: health.interval,
            jitter: health.jitter.fraction(),
            timeout: health.timeout,
            fall: health.fall,
            rise: health.rise,
            tls: match health.ask {
                CheckAsk::Grpc { .. } => tls.map(|tls| tls.speaking(b"h2")),
                CheckAsk::Http { .. } | CheckAsk::Tcp => tls.cloned(),
            },
            way,
        }
    }

    /// Asks `peer` once; the reason when it is not well.
    async fn ask(&self, peer: &Peer) -> Result<(), Sick> {
        let endpoint = peer.endpoint();
        let address = match self.port {
            Some(port) => &endpoint.address.with_port(port),
            None => &endpoint.address,
        };
        let target = Target { address, host: &endpoint.name, tls: self.tls.as_ref(), way: self.way };
        match &self.ask {
            CheckAsk::Tcp => http_client::knock(target, self.timeout).await.map_err(Sick::Failed),
            CheckAsk::Grpc { service } => {
                grpc::check(target, service, self.timeout).await.map_err(Sick::NotServing)
            }
            CheckAsk::Http { path, status, headers, body } => {
                let answer = http_client::get(target, path, None, self.timeout, BODY_BYTES).await;
                let (head, said) = match answer.map(Response::into_parts) {
                    Ok((head, said)) => (head, Some(said)),
                    // Too long to be searched, but who only looks at the head has seen enough.
                    Err(Failed::TooLong { head, .. }) => (*head, None),
                    Err(failed) => return Err(Sick::Failed(failed)),
                };
                let contains =
                    |text: &String| said.as_ref().is_some_and(|said| contains(said, text.as_bytes()));
                if !status.iter().any(|range| range.contains(&head.status.as_u16())) {
                    Err(Sick::Status(head.status.as_u16()))
                } else if let Some(name) = unmet(headers, &head) {
                    Err(Sick::Header(name))
                } else if !body.as_ref().is_none_or(contains) {
                    Err(Sick::Body)
                } else {
                    Ok(())
                }
            }
        }
    }
}

/// The first field that is not as it should be.
fn unmet(conditions: &[weir_config::plan::HeaderMatch], head: &response::Parts) -> Option<HeaderName> {
    let unmet = conditions.iter().find(|condition| !condition.value.is_met(&condition.name, &head.headers));
    unmet.map(|condition| condition.name.clone())
}

/// An empty text is in every body.
fn contains(body: &[u8], text: &[u8]) -> bool {
    text.is_empty() || body.windows(text.len()).any(|window| window == text)
}

/// Why a check failed.
#[derive(Debug, thiserror::Error)]
enum Sick {
    #[error(transparent)]
    Failed(Failed),
    #[error("status {0}")]
    Status(u16),
    #[error("the header {0} is not as it should be")]
    Header(HeaderName),
    #[error("the body does not say so")]
    Body,
    #[error(transparent)]
    NotServing(NotServing),
}

/// The verdicts in a row, and what they add up to.
#[derive(Debug, Clone)]
pub struct Streak {
    well: bool,
    /// Verdicts in a row that contradict `well`.
    against: u32,
}

/// A change of a peer's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It must not be asked any more.
    Out,
    /// It may be asked again.
    Back,
}

impl Streak {
    /// Starts from what is known.
    #[must_use]
    pub fn new(well: bool) -> Self {
        Self { well, against: 0 }
    }

    /// Takes one verdict; the change it brings about, if any.
    pub fn observe(&mut self, passed: bool, fall: u32, rise: u32) -> Option<Turn> {
        if passed == self.well {
            self.against = 0;
            return None;
        }
        self.against += 1;
        if self.against < if self.well { fall } else { rise } {
            return None;
        }
        *self = Self::new(passed);
        Some(if passed { Turn::Back } else { Turn::Out })
    }
}

/// Checks `peer` of `upstream` until `stop`.
///
/// Units: `random` gives numbers in `0.0..1.0`, for the jitter.
pub async fn watch(
    upstream: Arc<str>,
    peer: Arc<Peer>,
    check: Check,
    stop: CancellationToken,
    random: impl FnMut() -> f64,
) {
    let ask = || {
        let (check, peer) = (check.clone(), Arc::clone(&peer));
        async move { check.ask(&peer).await }
    };
    let watching = watch_with(&upstream, &peer, &check, random, ask);
    stop.run_until_cancelled(watching).await;
}

async fn watch_with<A: Future<Output = Result<(), Sick>>>(
    upstream: &str,
    peer: &Peer,
    check: &Check,
    mut random: impl FnMut() -> f64,
    ask: impl Fn() -> A,
) {
    let mut streak = Streak::new(peer.is_healthy());
    let endpoint = peer.endpoint();
    if peer.is_healthy() {
        tokio::time::sleep(check.interval.mul_f64(random())).await;
    }
    loop {
        let verdict = ask().await;
        // When we have no socket to ask on, the peer has said nothing.
        let turn = match &verdict {
            Err(Sick::Failed(Failed::Connect(error))) if is_our_want(error) => None,
            _ => streak.observe(verdict.is_ok(), check.fall, check.rise),
        };
        match (turn, &verdict) {
            (Some(turn), Err(sick)) => {
                peer.set_healthy(turn == Turn::Back);
                tracing::warn!(
                    upstream,
                    peer = %endpoint.name,
                    address = %endpoint.address,
                    reason = %Causes(sick),
                    "peer is out"
                );
            }
            (Some(turn), Ok(())) => {
                peer.set_healthy(turn == Turn::Back);
                tracing::info!(upstream, peer = %endpoint.name, address = %endpoint.address, "peer is back");
            }
            (None, _) => {}
        }
        tokio::time::sleep(check.interval.mul_f64(1.0 + check.jitter * (2.0 * random() - 1.0))).await;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::cell::RefCell;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        time::Instant,
    };

    use super::*;
    use crate::balance::peer::Endpoint;

    fn peer(address: std::net::SocketAddr) -> Arc<Peer> {
        Arc::new(Peer::new(Endpoint {
            name: "api:1".into(),
            address: address.into(),
            weight: 1,
            max_conns: 0,
            max_fails: 1,
            fail_timeout: Duration::from_secs(10),
            backup: false,
            down: false,
            drain: false,
            slow_start: Duration::ZERO,
            route: "a".into(),
        }))
    }

    fn check() -> Check {
        Check {
            ask: CheckAsk::Http {
                path: "/health".to_owned(),
                status: vec![200..=299],
                headers: Vec::new(),
                body: None,
            },
            port: None,
            interval: Duration::from_secs(5),
            jitter: 0.1,
            timeout: Duration::from_secs(1),
            fall: 3,
            rise: 2,
            tls: None,
            way: Way::default(),
        }
    }

    #[test]
    fn fall_failures_in_a_row_take_out_and_rise_successes_bring_back() {
        let mut streak = Streak::new(true);
        let mut after =
            |verdicts: &str| verdicts.chars().fold(None, |_, verdict| streak.observe(verdict == '+', 3, 2));
        assert_eq!(after("--+--"), None, "a success in between starts anew");
        assert_eq!(after("-"), Some(Turn::Out));
        assert_eq!(after("---+-+"), None);
        assert_eq!(after("+"), Some(Turn::Back));
        assert_eq!(after("++"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_goes_out_at_the_third_failure_and_back_at_the_second_success() {
        let (peer, check, start) = (peer(([127, 0, 0, 1], 1).into()), check(), Instant::now());
        let seen = RefCell::new(Vec::new());
        let ask = async || {
            let number = seen.borrow().len();
            seen.borrow_mut().push((start.elapsed().as_secs(), peer.is_healthy()));
            if number < 3 { Err(Sick::Status(500)) } else { Ok(()) }
        };
        let watching = watch_with("api", &peer, &check, || 0.5, ask);
        let _ = tokio::time::timeout(Duration::from_secs(30), watching).await;
        let healthy: Vec<_> = seen.borrow().clone();
        assert_eq!(
            healthy,
            [(2, true), (7, true), (12, true), (17, false), (22, false), (27, true)],
            "second of each check, and what was believed before it"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn our_own_want_of_descriptors_says_nothing_about_a_peer() {
        let (peer, check) = (peer(([127, 0, 0, 1], 1).into()), check());
        for (errno, healthy) in [(24, true), (99, true), (111, false)] {
            peer.set_healthy(true);
            let ask = async || Err(Sick::Failed(Failed::Connect(std::io::Error::from_raw_os_error(errno))));
            let watching = watch_with("api", &peer, &check, || 0.5, ask);
            let _ = tokio::time::timeout(Duration::from_secs(60), watching).await;
            assert_eq!(
                peer.is_healthy(),
                healthy,
                "EMFILE and EADDRNOTAVAIL are ours, ECONNREFUSED is the peer's"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_sick_peer_stays_sick_over_a_reload_until_it_proves_well() {
        let (peer, check) = (peer(([127, 0, 0, 1], 1).into()), check());
        peer.set_healthy(false);
        let watching = watch_with("api", &peer, &check, || 0.0, async || Ok(()));
        let _ = tokio::time::timeout(Duration::from_secs(4), watching).await;
        assert!(!peer.is_healthy(), "one success is not enough");
        let watching = watch_with("api", &peer, &check, || 0.0, async || Ok(()));
        let _ = tokio::time::timeout(Duration::from_secs(5), watching).await;
        assert!(peer.is_healthy());
    }

    #[tokio::test]
    async fn stopping_ends_the_watch() {
        let stop = CancellationToken::new();
        stop.cancel();
        watch("api".into(), peer(([127, 0, 0, 1], 1).into()), check(), stop, || 0.0).await;
    }

    #[tokio::test]
    async fn the_status_decides_and_the_peer_is_asked_by_its_name() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let peer = peer(listener.local_addr().unwrap());
        tokio::spawn(async move {
            for status in ["204 No Content", "503 Busy"] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut asked = Vec::new();
                while !asked.ends_with(b"\r\n\r\n") {
                    stream.read_buf(&mut asked).await.unwrap();
                }
                assert!(asked.starts_with(b"GET /health HTTP/1.1\r\nhost: api:1\r\n"));
                stream.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes()).await.unwrap();
            }
        });
        assert!(check().ask(&peer).await.is_ok());
        assert!(matches!(check().ask(&peer).await, Err(Sick::Status(503))));
        assert!(matches!(check().ask(&peer).await, Err(Sick::Failed(Failed::Connect(_)))));
    }
}
