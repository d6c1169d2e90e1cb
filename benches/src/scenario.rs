//! The reference workload: accounts with two devices each, and a handful of abusers among them.
//!
//! Two devices share an account but not a session: one writes, both read, so that reads of one race the writes of the
//! other as they do in life. Users pause between deeds (closed loop): the figures tell how it feels, not how much fits.

mod abuser;
mod device;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::{
    account::{Account, Known},
    api,
    client::{Ask, Client},
    promises::{Promise, Promises},
    tally::Tally,
};
use abuser::Abuser;
pub use abuser::{KINDS as ABUSERS, PER_KIND as ABUSERS_PER_KIND};
use device::Device;

/// Devices of each account.
pub const DEVICES: usize = 2;

/// The share of answers on cached routes that must come from the cache, in percent.
const HIT_RATE: u64 = 80;

/// How much of everything.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// Accounts.
    pub users: usize,
    /// Items that each account has before the run.
    pub items: usize,
    /// How long it runs.
    pub lasts: Duration,
    /// The mean pause of a device between two deeds.
    pub pause: Duration,
    /// What the dice start from.
    pub seed: u64,
    /// How long after a logout's answer its token may still be believed.
    pub logout_bound: Duration,
}

/// What a run showed.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// What was measured.
    pub tally: Tally,
    /// What held.
    pub promises: Promises,
    /// How long it took.
    pub lasted: Duration,
}

/// Deeds done so far, for whoever watches.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<AtomicU64>);

impl Progress {
    /// One more.
    pub fn step(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How many.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Why the accounts could not be prepared.
#[derive(Debug, thiserror::Error)]
#[error("cannot prepare account {account}: {what}")]
pub struct NotSeeded {
    account: usize,
    what: String,
}

/// Opens the accounts and writes their items, all through the edge and each from the account's own address.
///
/// # Errors
/// [`NotSeeded`] with the first answer that was not as expected.
pub async fn seed(
    edge: SocketAddr,
    scale: Scale,
    progress: &Progress,
) -> Result<Vec<Arc<Account>>, NotSeeded> {
    let mut opening = JoinSet::new();
    for number in 1..=scale.users {
        let progress = progress.clone();
        opening.spawn(async move { open_account(edge, number, scale.items, &progress).await });
    }
    let mut accounts = Vec::with_capacity(scale.users);
    while let Some(opened) = opening.join_next().await {
        accounts.push(opened.map_err(|panic| NotSeeded { account: 0, what: panic.to_string() })??);
    }
    accounts.sort_by_key(|account| account.number);
    Ok(accounts)
}

async fn open_account(
    edge: SocketAddr,
    number: usize,
    items: usize,
    progress: &Progress,
) -> Result<Arc<Account>, NotSeeded> {
    let account =
        Account::new(number, format!("owner-{number}@example.org"), format!("a weir holds {number:04}"));
    let mut client = Client::new(Some(address(0, number)), edge);
    let not = |what: String| NotSeeded { account: number, what };
    let mut ask = async |ask: Ask| {
        let said = format!("{} {}", ask.method, ask.target);
        let answer = client.send(&ask).await.map_err(|failure| not(format!("{said}: {failure}")))?;
        progress.step();
        match answer.status.is_success() {
            true => Ok(answer),
            false => Err(not(format!("{said}: {} {}", answer.status, excerpt(&answer.body)))),
        }
    };
    ask(api::register(&account)).await?;
    let answer = ask(api::login(&account.email, &account.password)).await?;
    let token = api::token(&answer).ok_or_else(|| not("the login's answer has no token".to_owned()))?;
    for _ in 0..items {
        let stamp = account.next_stamp();
        let answer = ask(api::create(stamp).with_token(&token)).await?;
        let seen =
            api::seen_item(&answer).ok_or_else(|| not("the new item's answer has no id".to_owned()))?;
        account.confirm(&seen.id, Known::At(stamp.version));
    }
    Ok(Arc::new(account))
}

/// Steps that [`seed`] will take.
#[must_use]
pub fn seeding_steps(scale: Scale) -> u64 {
    scale.users as u64 * (scale.items as u64 + 2)
}

/// Lets everybody loose until the time is over, and adds up what they saw.
pub async fn drive(
    edge: SocketAddr,
    accounts: &[Arc<Account>],
    scale: Scale,
    progress: &Progress,
) -> Outcome {
    let begun = Instant::now();
    let until = begun + scale.lasts;
    let mut people = JoinSet::new();
    for account in accounts {
        for nth in 0..DEVICES {
            let client = Client::new(Some(address(1 + nth, account.number)), edge);
            let device = Device::new(account.clone(), nth, client, scale);
            people.spawn(device.live(until, progress.clone()));
        }
    }
    for (number, abuser) in Abuser::crowd(accounts).into_iter().enumerate() {
        people.spawn(abuser.live(address(66, 1 + number), edge, until, progress.clone()));
    }
    let mut outcome = Outcome::default();
    while let Some(seen) = people.join_next().await {
        // A panic in a user is a bug of this program: it must not look like a quiet run.
        let (tally, promises) = seen.expect("no user panics");
        outcome.tally.merge(&tally);
        outcome.promises.merge(&promises);
    }
    outcome.lasted = begun.elapsed();
    let (hits, all) = outcome.tally.hits(&api::cached());
    outcome
        .promises
        .test(Promise::HitRate, hits * 100 > all * HIT_RATE, || format!("{hits} hits of {all} reads"));
    outcome
}

/// A source address of one's own: 127/8 is all loopback on Linux.
///
/// # Panics
/// Beyond 245 groups.
#[must_use]
pub fn address(group: usize, number: usize) -> IpAddr {
    let byte = |n: usize| u8::try_from(n).expect("at most 255 groups, and remainders below 256");
    IpAddr::V4(Ipv4Addr::new(127, byte(10 + group), byte((number / 250) % 256), byte(1 + number % 250)))
}

/// The beginning of a body, for a report.
fn excerpt(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(160)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_user_has_an_address_of_their_own() {
        let addresses: std::collections::BTreeSet<_> =
            [0, 1, 2, 66].into_iter().flat_map(|group| (0..1000).map(move |n| address(group, n))).collect();
        assert_eq!(addresses.len(), 4000);
        assert!(addresses.iter().all(IpAddr::is_loopback));
    }
}
