//! Those who mean no good, each from an address of their own: they must get nothing, and spoil nothing for others.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Progress, excerpt};
use crate::{
    account::{Account, Stamp},
    api,
    client::{Client, open},
    promises::{Promise, Promises},
    tally::Tally,
};

/// Between two attempts: fast enough to be a nuisance, slow enough to leave the measurement to the honest.
const PAUSE: Duration = Duration::from_millis(20);

/// How long the edge may keep the connection of a malformed head open.
const CLOSES_WITHIN: Duration = Duration::from_secs(5);

/// Abusers of each kind.
pub const PER_KIND: usize = 2;

/// The kinds, as the report calls them.
pub const KINDS: [&str; 4] = ["password guesser", "token guesser", "snooper", "mangler"];

/// Request heads on which two parsers may disagree; the first line of each says what is wrong with it.
const MANGLED: [(&str, &[u8]); 8] = [
    ("length and chunked", b"POST /auth/login HTTP/1.1\r\nHost: weir\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("two lengths", b"POST /auth/login HTTP/1.1\r\nHost: weir\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde"),
    ("no host", b"GET /api/vault/items HTTP/1.1\r\n\r\n"),
    ("two hosts", b"GET /api/vault/items HTTP/1.1\r\nHost: weir\r\nHost: other\r\n\r\n"),
    ("NUL in a value", b"GET /api/vault/items HTTP/1.1\r\nHost: weir\r\nX-A: a\0b\r\n\r\n"),
    ("bare CR in a value", b"GET /api/vault/items HTTP/1.1\r\nHost: weir\r\nX-A: a\rb\r\n\r\n"),
    ("space before the colon", b"GET /api/vault/items HTTP/1.1\r\nHost : weir\r\n\r\n"),
    ("unknown coding", b"POST /auth/login HTTP/1.1\r\nHost: weir\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
];

/// One of them.
#[derive(Debug)]
pub(super) enum Abuser {
    /// Tries passwords on an account that exists.
    PasswordGuesser(Arc<Account>),
    /// Tries tokens.
    TokenGuesser,
    /// Has an account, and asks for the items of another.
    Snooper { own: Arc<Account>, victim: Arc<Account> },
    /// Sends heads on which parsers disagree.
    Mangler,
}

impl Abuser {
    /// A few of every kind; none of them where there is nobody to abuse.
    pub(super) fn crowd(accounts: &[Arc<Account>]) -> Vec<Self> {
        let (Some(first), Some(last)) = (accounts.first(), accounts.last()) else { return Vec::new() };
        let each = |_| {
            [
                Self::PasswordGuesser(first.clone()),
                Self::TokenGuesser,
                Self::Snooper { own: last.clone(), victim: first.clone() },
                Self::Mangler,
            ]
        };
        (0..PER_KIND).flat_map(each).collect()
    }

    fn label(&self) -> &'static str {
        match self {
            Self::PasswordGuesser(_) => KINDS[0],
            Self::TokenGuesser => KINDS[1],
            Self::Snooper { .. } => KINDS[2],
            Self::Mangler => KINDS[3],
        }
    }

    /// Makes a nuisance of itself until then.
    pub(super) async fn live(
        self,
        from: IpAddr,
        edge: SocketAddr,
        until: Instant,
        progress: Progress,
    ) -> (Tally, Promises) {
        let mut seen = Seen { label: self.label(), tally: Tally::default(), promises: Promises::default() };
        let mut client = Client::new(Some(from), edge);
        match &self {
            Self::PasswordGuesser(account) => {
                guess_passwords(&mut client, account, &mut seen, until, &progress).await;
            }
            Self::TokenGuesser => guess_tokens(&mut client, &mut seen, until, &progress).await,
            Self::Snooper { own, victim } => {
                snoop(&mut client, own, victim, &mut seen, until, &progress).await
            }
            Self::Mangler => mangle(from, edge, &mut seen, until, &progress).await,
        }
        (seen.tally, seen.promises)
    }
}

/// What an abuser got.
struct Seen {
    label: &'static str,
    tally: Tally,
    promises: Promises,
}

impl Seen {
    /// Counts an answer, which must be one of these refusals.
    fn refused(&mut self, answer: &crate::client::Answer, with: &[u16]) {
        self.tally.refusal(self.label, answer.status);
        let (label, status) = (self.label, answer.status);
        self.promises
            .test(Promise::NoServerError, !status.is_server_error(), || format!("{label}: {status}"));
        if status.is_server_error() {
            // A fault of its own, which says nothing of limits.
            return;
        }
        self.promises.test(Promise::AbuseLimited, with.contains(&status.as_u16()), || {
            format!("a {label} got {status} {}", excerpt(&answer.body))
        });
    }
}

async fn guess_passwords(
    client: &mut Client,
    account: &Account,
    seen: &mut Seen,
    until: Instant,
    progress: &Progress,
) {
    let mut limited = false;
    for guess in 0_u64.. {
        if Instant::now() >= until {
            break;
        }
        let ask = api::login(&account.email, &format!("guess number {guess}"));
        if let Ok(answer) = client.send(&ask).await {
            seen.refused(&answer, &[401, 429]);
            let retry_after: Option<u64> = answer.field("retry-after").parse().ok();
            limited |= answer.status == 429 && retry_after.is_some();
        }
        progress.step();
        tokio::time::sleep(PAUSE).await;
    }
    seen.promises.test(Promise::AbuseLimited, limited, || {
        "a password guesser never got 429 with Retry-After".to_owned()
    });
}

async fn guess_tokens(client: &mut Client, seen: &mut Seen, until: Instant, progress: &Progress) {
    while Instant::now() < until {
        // Shaped like a real one (32 bytes as base64url), so that it has to be looked up.
        let token = format!("{:042x}A", rand::random::<u128>());
        if let Ok(answer) = client.send(&api::list(None).with_token(&token)).await {
            seen.refused(&answer, &[401, 429]);
        }
        progress.step();
        tokio::time::sleep(PAUSE).await;
    }
}

async fn snoop(
    client: &mut Client,
    own: &Account,
    victim: &Account,
    seen: &mut Seen,
    until: Instant,
    progress: &Progress,
) {
    // With one account there is nobody to snoop on.
    if own.number == victim.number {
        return;
    }
    let Ok(answer) = client.send(&api::login(&own.email, &own.password)).await else { return };
    let Some(token) = api::token(&answer) else { return };
    while Instant::now() < until {
        let Some(id) = victim.ledger().youngest().map(str::to_owned) else { return };
        if let Ok(answer) = client.send(&api::item(&id).with_token(&token)).await {
            seen.refused(&answer, &[403, 404, 429]);
            let stamp = Stamp::read(answer.json()["title"].as_str().unwrap_or(""));
            seen.promises.test(Promise::OwnDataOnly, stamp.is_none(), || {
                format!("owner-{} was shown item {id} of owner-{}", own.number, victim.number)
            });
        }
        progress.step();
        tokio::time::sleep(PAUSE).await;
    }
}

async fn mangle(from: IpAddr, edge: SocketAddr, seen: &mut Seen, until: Instant, progress: &Progress) {
    for (wrong, head) in MANGLED.iter().cycle() {
        if Instant::now() >= until {
            return;
        }
        match tokio::time::timeout(CLOSES_WITHIN, exchange(from, edge, head)).await {
            Ok(Ok(answer)) => seen.mangled(wrong, &answer),
            // Reset instead of closed: refused all the same.
            Ok(Err(_)) => seen.mangled(wrong, b""),
            Err(_) => seen.promises.test(Promise::AbuseLimited, false, || {
                format!("{wrong}: the connection was still open after {} s", CLOSES_WITHIN.as_secs())
            }),
        }
        progress.step();
        tokio::time::sleep(PAUSE).await;
    }
}

impl Seen {
    fn mangled(&mut self, wrong: &str, answer: &[u8]) {
        match status_of(answer) {
            Some(status) => self.tally.refusal(self.label, status),
            None => self.tally.hung_up += 1,
        }
        let answers = answer.windows(9).filter(|bytes| bytes == b"HTTP/1.1 ").count();
        // 501 is what RFC 9112 §6.1 asks for a transfer coding that is not understood; any other 5xx is a fault.
        let fine = status_of(answer).is_none_or(|status| status.is_client_error() || status == 501);
        self.promises.test(Promise::AbuseLimited, fine && answers <= 1, || {
            format!("{wrong}: {answers} answers, {}", excerpt(answer))
        });
    }
}

/// Sends bytes and reads until the other side closes.
async fn exchange(from: IpAddr, edge: SocketAddr, head: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = open(Some(from), edge).await?;
    stream.write_all(head).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer)
}

fn status_of(answer: &[u8]) -> Option<http::StatusCode> {
    http::StatusCode::from_bytes(answer.strip_prefix(b"HTTP/1.1 ")?.get(..3)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mangler() -> Seen {
        Seen { label: KINDS[3], tally: Tally::default(), promises: Promises::default() }
    }

    #[test]
    fn a_mangled_head_may_be_refused_or_hung_up_on() {
        let mut seen = mangler();
        seen.mangled("x", b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
        seen.mangled("x", b"HTTP/1.1 501 Not Implemented\r\n\r\n");
        seen.mangled("x", b"");
        assert!(seen.promises.of(Promise::AbuseLimited).held());
        assert_eq!(seen.tally.hung_up, 1);
    }

    #[test]
    fn a_mangled_head_may_not_be_served_or_split_or_break_the_edge() {
        for answer in [
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 500 Internal Server Error\r\n\r\n",
        ] {
            let mut seen = mangler();
            seen.mangled("x", answer.as_bytes());
            assert!(!seen.promises.of(Promise::AbuseLimited).held(), "{answer}");
        }
    }
}
