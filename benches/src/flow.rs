//! Requests at a rate of their own, however long the answers take: what a million people do who know nothing of each other.
//!
//! An open loop: a deed is due at its time, and its latency counts from then, also while it waits for one of the people to be free. A closed
//! loop would ask less of a slow system, and look well.

pub mod crowd;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval_at},
};

use crate::{
    account::Account,
    api::{self, Kind},
    client::{Ask, Client},
    tally::Latencies,
};

/// Deeds that wait or are under way; what comes on top is not done, and counts as failed.
const UNDER_WAY: usize = 20_000;

/// One kind of deed, and what is asked of it.
#[derive(Debug, Clone, Copy)]
pub struct Flow {
    /// What is done.
    pub kind: Kind,
    /// How often.
    pub per_minute: u32,
    /// What 95 of a hundred must not pass.
    pub p95: Duration,
}

/// What became of one kind of deed.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Of those that were done.
    pub latencies: Latencies,
    /// How many were refused, broke, or were not even begun.
    pub failed: u64,
    /// What became of the first of those.
    pub problem: Option<String>,
}

/// Somebody with a connection of their own, one deed at a time.
struct Person {
    account: Account,
    client: Client,
    /// Of the last log-in: an origin ends the oldest sessions of somebody who has too many.
    token: String,
    /// Of earlier ones, to be ended by log-outs.
    spare: VecDeque<String>,
}

/// Well below what an origin lets one person have.
const SPARE: usize = 20;

/// The people, and who of them is free: everybody in turn.
pub struct People {
    free: Mutex<VecDeque<Person>>,
    turns: Semaphore,
    registered: AtomicUsize,
}

impl People {
    /// Registers and logs in everybody; `clients` are theirs.
    ///
    /// # Errors
    /// The first answer that was not as expected.
    pub async fn gather(clients: impl IntoIterator<Item = Client>) -> Result<Self, String> {
        let mut free = VecDeque::new();
        for (number, mut client) in (1..).zip(clients) {
            let account = account(number);
            done(&mut client, api::REGISTER, &api::register(&account)).await?;
            let token = log_in(&mut client, &account).await?;
            free.push_back(Person { account, client, token, spare: VecDeque::new() });
        }
        let (turns, registered) = (Semaphore::new(free.len()), AtomicUsize::new(free.len()));
        Ok(Self { free: Mutex::new(free), turns, registered })
    }

    /// Lets all flows run for `lasts`, then waits for what is under way.
    pub async fn run(self: &Arc<Self>, flows: &[Flow], lasts: Duration) -> BTreeMap<&'static str, Seen> {
        let mut running = JoinSet::new();
        for flow in flows {
            running.spawn(Arc::clone(self).flow(*flow, lasts));
        }
        running.join_all().await.into_iter().collect()
    }

    async fn flow(self: Arc<Self>, flow: Flow, lasts: Duration) -> (&'static str, Seen) {
        let period = Duration::from_secs(60) / flow.per_minute;
        let begun = Instant::now();
        let mut due = interval_at(begun + period, period);
        // Late ones all the same: their latency counts from when they were due.
        due.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let (mut deeds, mut seen) = (JoinSet::new(), Seen::default());
        loop {
            let due = due.tick().await;
            if due > begun + lasts {
                break;
            }
            while let Some(ended) = deeds.try_join_next() {
                seen.add(ended);
            }
            if deeds.len() < UNDER_WAY {
                deeds.spawn(Arc::clone(&self).deed(flow.kind, due));
            } else {
                seen.fail("too many waited before it".to_owned());
            }
        }
        while let Some(ended) = deeds.join_next().await {
            seen.add(ended);
        }
        (flow.kind.label, seen)
    }

    async fn deed(self: Arc<Self>, kind: Kind, due: Instant) -> Result<Duration, String> {
        let _turn = self.turns.acquire().await.expect("it is never closed");
        let mut person = self.take_free().expect("as many as turns");
        let did = self.act(&mut person, kind).await;
        self.put_back(person);
        // A log-out may have needed a log-in first, which is not its own.
        did.map(|took| if kind == api::LOGOUT { took } else { due.elapsed() })
    }

    fn take_free(&self) -> Option<Person> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    fn put_back(&self, person: Person) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push_back(person);
    }

    async fn act(&self, person: &mut Person, kind: Kind) -> Result<Duration, String> {
        let Person { account: owner, client, token, spare } = person;
        let ask = match kind {
            api::REGISTER => api::register(&account(1 + self.registered.fetch_add(1, Ordering::Relaxed))),
            api::ME => api::me().with_token(token),
            api::PROFILE => api::profile(&owner.email).with_token(token),
            api::LOGOUT => {
                let token = match spare.pop_front() {
                    Some(token) => token,
                    None => log_in(client, owner).await?,
                };
                api::logout().with_token(&token)
            }
            _ => api::login(&owner.email, &owner.password),
        };
        let (took, new) = done(client, kind, &ask).await?;
        if let (api::LOGIN, Some(new)) = (kind, new) {
            spare.push_back(std::mem::replace(token, new));
            if spare.len() > SPARE {
                spare.pop_front();
            }
        }
        Ok(took)
    }
}

impl Seen {
    fn add(&mut self, ended: Result<Result<Duration, String>, tokio::task::JoinError>) {
        // A panic is a bug of this program: it must not look like a quiet run.
        match ended.expect("no deed panics") {
            Ok(took) => self.latencies.record(took),
            Err(problem) => self.fail(problem),
        }
    }

    fn fail(&mut self, problem: String) {
        self.failed += 1;
        self.problem.get_or_insert(problem);
    }
}

fn account(number: usize) -> Account {
    Account::new(number, format!("person-{number}@example.org"), format!("a weir holds {number:04}"))
}

async fn log_in(client: &mut Client, account: &Account) -> Result<String, String> {
    let (_, token) = done(client, api::LOGIN, &api::login(&account.email, &account.password)).await?;
    token.ok_or_else(|| "a log-in's answer has no token".to_owned())
}

/// Asks, and wants what is expected; gives how long it took, and a token if there is one.
async fn done(client: &mut Client, kind: Kind, ask: &Ask) -> Result<(Duration, Option<String>), String> {
    let answer = client.send(ask).await.map_err(|failure| failure.to_string())?;
    if !kind.expected.contains(&answer.status.as_u16()) {
        return Err(format!("{}: {}", kind.label, answer.status));
    }
    Ok((answer.took, api::token(&answer)))
}
