//! An honest device: it logs in, reads, now and then writes, and believes nothing that it did not check.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use super::{Progress, Scale, excerpt};
use crate::{
    account::{Account, Fault, Known, Ledger, Seen},
    api::{self, Kind},
    client::{Answer, Ask, Client},
    promises::{Promise, Promises},
    tally::Tally,
};

/// What a device does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Browse,
    Open,
    Me,
    Profile,
    Create,
    Change,
    Delete,
    Logout,
}

/// Of a thousand deeds. An app that keeps its user's notes: mostly looking, sometimes writing.
/// The second device only looks: its share of the other deeds goes to [`Deed::Browse`].
const MIX: [(Deed, u32); 8] = [
    (Deed::Browse, 620),
    (Deed::Open, 280),
    (Deed::Me, 50),
    (Deed::Profile, 10),
    (Deed::Create, 8),
    (Deed::Change, 20),
    (Deed::Delete, 7),
    (Deed::Logout, 5),
];

/// How long the answer to one device's deletion may be on its way while the other device already sees its effect.
const NEWS_TAKE: Duration = Duration::from_secs(2);

/// One device of an account.
#[derive(Debug)]
pub(super) struct Device {
    account: Arc<Account>,
    /// Whether this is the one that writes.
    writes: bool,
    client: Client,
    token: String,
    scale: Scale,
    dice: StdRng,
    tally: Tally,
    promises: Promises,
}

impl Device {
    pub(super) fn new(account: Arc<Account>, nth: usize, client: Client, scale: Scale) -> Self {
        let own = (account.number * super::DEVICES + nth) as u64;
        Self {
            account,
            writes: nth == 0,
            client,
            token: String::new(),
            scale,
            dice: StdRng::seed_from_u64(scale.seed.wrapping_add(own)),
            tally: Tally::default(),
            promises: Promises::default(),
        }
    }

    /// Logs in and lives until then; says what it saw.
    pub(super) async fn live(mut self, until: Instant, progress: Progress) -> (Tally, Promises) {
        self.pause().await;
        self.log_in().await;
        while Instant::now() < until {
            self.step().await;
            progress.step();
            self.pause().await;
        }
        (self.tally, self.promises)
    }

    async fn step(&mut self) {
        let deed =
            MIX.choose_weighted(&mut self.dice, |(_, weight)| *weight).expect("weights are above zero").0;
        match deed {
            Deed::Open => self.open().await,
            Deed::Me => self.me().await,
            Deed::Profile if self.writes => {
                self.ask(api::PROFILE, api::profile(&format!("owner-{}", self.account.number))).await;
            }
            Deed::Create if self.writes => self.create().await,
            Deed::Change if self.writes => self.change().await,
            Deed::Delete if self.writes => self.delete().await,
            Deed::Logout if self.writes => self.log_out().await,
            _ => self.browse().await,
        }
    }

    /// Somewhere between nothing and twice the mean.
    async fn pause(&mut self) {
        let pause = self.scale.pause.mul_f64(self.dice.random_range(0.0..2.0));
        tokio::time::sleep(pause).await;
    }

    async fn log_in(&mut self) {
        let ask = api::login(&self.account.email, &self.account.password);
        self.token.clear();
        let Some(answer) = self.ask(api::LOGIN, ask).await else { return };
        self.token = api::token(&answer).unwrap_or_default();
    }

    /// The first page, and as often as not the next ones.
    async fn browse(&mut self) {
        let mut cursor: Option<String> = None;
        loop {
            let Some(next) = self.page(cursor.as_deref()).await else { return };
            if self.dice.random_bool(0.5) {
                return;
            }
            cursor = Some(next);
        }
    }

    /// One page; gives the cursor of the next.
    async fn page(&mut self, cursor: Option<&str>) -> Option<String> {
        let known = self.account.ledger();
        let answer = self.ask(api::LIST, api::list(cursor)).await?;
        let Some((items, next)) = api::seen_page(&answer) else {
            self.misread(api::LIST, &answer);
            return None;
        };
        self.judge(&known, &items, api::LIST);
        if cursor.is_none() {
            self.judge_first_page(&known, &items).await;
        }
        next
    }

    /// Newest first: what the system confirmed to be the youngest item is on the first page.
    async fn judge_first_page(&mut self, known: &Ledger, items: &[Seen]) {
        let Some(youngest) = known.youngest() else { return };
        let fine = items.iter().any(|item| item.id == youngest) || self.is_gone_soon(youngest).await;
        self.promises.test(Promise::FreshAfterWrite, fine, || {
            format!("{}: item {youngest}, whose creation was confirmed, is missing", api::LIST.label)
        });
    }

    /// Whether an item that an answer says is gone was deleted: the answer to the deletion may still be on its way to
    /// the other device.
    async fn is_gone_soon(&mut self, id: &str) -> bool {
        let asked = Instant::now();
        loop {
            match self.account.ledger().get(id) {
                Some(Known::Gone) => return true,
                _ if self.writes || asked.elapsed() > NEWS_TAKE => return false,
                _ => self.pause().await,
            }
        }
    }

    async fn open(&mut self) {
        let known = self.account.ledger();
        if let Some(id) = self.pick(&known) {
            self.look_at(&id).await;
        }
    }

    /// Reads one item, which the other device may just have deleted.
    async fn look_at(&mut self, id: &str) -> Option<Seen> {
        let known = self.account.ledger();
        let answer = self.send(api::ITEM, api::item(id)).await?;
        if answer.status == 404 && self.is_gone_soon(id).await {
            return None;
        }
        self.expect(api::ITEM, &answer);
        if !answer.status.is_success() {
            return None;
        }
        let Some(seen) = api::seen_item(&answer) else {
            self.misread(api::ITEM, &answer);
            return None;
        };
        self.judge(&known, std::slice::from_ref(&seen), api::ITEM);
        Some(seen)
    }

    async fn me(&mut self) {
        let Some(answer) = self.ask(api::ME, api::me()).await else { return };
        let (shown, own) = (api::email(&answer), &self.account.email);
        self.promises.test(Promise::OwnDataOnly, shown == *own, || {
            format!("{}: {own} was shown {}", api::ME.label, excerpt(&answer.body))
        });
    }

    async fn create(&mut self) {
        let stamp = self.account.next_stamp();
        let Some(answer) = self.ask(api::CREATE, api::create(stamp)).await else { return };
        let Some(seen) = api::seen_item(&answer) else {
            self.misread(api::CREATE, &answer);
            return;
        };
        self.account.confirm(&seen.id, Known::At(stamp.version));
        self.after_write(&seen.id).await;
    }

    async fn change(&mut self) {
        let Some(id) = self.pick(&self.account.ledger()) else { return };
        let stamp = self.account.next_stamp();
        if self.ask(api::CHANGE, api::change(&id, stamp)).await.is_some() {
            self.account.confirm(&id, Known::At(stamp.version));
            self.after_write(&id).await;
        }
    }

    async fn delete(&mut self) {
        let known = self.account.ledger();
        // Users with next to nothing left keep it, or there would soon be nothing to read.
        if known.alive().count() <= self.scale.items / 2 {
            return;
        }
        let Some(id) = self.pick(&known) else { return };
        if self.ask(api::DELETE, api::delete(&id)).await.is_none() {
            return;
        }
        self.account.confirm(&id, Known::Gone);
        self.tally.writes += 1;
        self.page(None).await;
        if let Some(answer) = self.send(api::ITEM, api::item(&id)).await {
            let (shown, gone) = (answer.status.is_success(), answer.status == 404);
            self.promises.test(Promise::FreshAfterWrite, !shown, || {
                format!("{}: {} for item {id}, whose deletion was confirmed", api::ITEM.label, answer.status)
            });
            // What is neither says nothing of freshness, and is a fault of its own.
            if !shown && !gone {
                self.expect(api::ITEM, &answer);
            }
            self.tally.fresh_reads += u64::from(gone);
        }
    }

    /// Reads back what was just written: the item itself and the list that shows it.
    async fn after_write(&mut self, id: &str) {
        self.tally.writes += 1;
        let version = self.account.ledger().get(id);
        if let Some(Seen { stamp: Some(stamp), .. }) = self.look_at(id).await {
            self.tally.fresh_reads += u64::from(version == Some(Known::At(stamp.version)));
        }
        self.page(None).await;
    }

    /// Ends the session, insists on using the dead token, and comes back with a new one.
    async fn log_out(&mut self) {
        if self.ask(api::LOGOUT, api::logout()).await.is_some() {
            self.tally.logouts += 1;
            self.use_dead_token().await;
        }
        self.log_in().await;
    }

    /// Asks for what the cache surely holds: neither the session's memory nor the cached list may let it in.
    async fn use_dead_token(&mut self) {
        let ended = Instant::now();
        loop {
            let ask = api::list(None).with_token(&self.token);
            let Ok(answer) = self.client.send(&ask).await else { return };
            let refused = answer.status == 401;
            if refused || ended.elapsed() > self.scale.logout_bound {
                self.tally.refusal("dead token", answer.status);
                self.promises.test(Promise::DeadTokenRefused, refused, || {
                    format!("{}: {} for a token after its logout", api::LIST.label, answer.status)
                });
                return;
            }
            self.pause().await;
        }
    }

    /// Asks, and expects what an honest user may expect.
    async fn ask(&mut self, kind: Kind, ask: Ask) -> Option<Answer> {
        let answer = self.send(kind, ask).await?;
        self.expect(kind, &answer);
        kind.expected.contains(&answer.status.as_u16()).then_some(answer)
    }

    async fn send(&mut self, kind: Kind, ask: Ask) -> Option<Answer> {
        let ask = if self.token.is_empty() { ask } else { ask.with_token(&self.token) };
        match self.client.send(&ask).await {
            Ok(answer) => {
                self.tally.answer(kind.label, &answer);
                let server_error = answer.status.is_server_error();
                self.promises.test(Promise::NoServerError, !server_error, || told(kind, &answer));
                Some(answer)
            }
            Err(failure) => {
                self.promises.test(Promise::NoServerError, false, || format!("{}: {failure}", kind.label));
                None
            }
        }
    }

    fn expect(&mut self, kind: Kind, answer: &Answer) {
        // A 5xx has already been counted under its own promise.
        let expected = kind.expected.contains(&answer.status.as_u16()) || answer.status.is_server_error();
        self.promises.test(Promise::HonestServed, expected, || told(kind, answer));
    }

    fn misread(&mut self, kind: Kind, answer: &Answer) {
        self.promises
            .test(Promise::HonestServed, false, || format!("not understood: {}", told(kind, answer)));
    }

    fn judge(&mut self, known: &Ledger, items: &[Seen], kind: Kind) {
        for item in items {
            let verdict = known.judge(self.account.number, item);
            let (stale, foreign) = match &verdict {
                Ok(()) => (None, None),
                Err(Fault::Stale(what)) => (Some(what), None),
                Err(Fault::Foreign(what)) => (None, Some(what)),
            };
            let said =
                |what: &Option<&String>| format!("{}: {}", kind.label, what.map_or("", String::as_str));
            self.promises.test(Promise::FreshAfterWrite, stale.is_none(), || said(&stale));
            self.promises.test(Promise::OwnDataOnly, foreign.is_none(), || said(&foreign));
        }
    }

    /// An item, the lately written ones far more often than the others.
    fn pick(&mut self, known: &Ledger) -> Option<String> {
        let mut alive: Vec<_> = known.alive().collect();
        alive.sort_by_key(|(_, version)| std::cmp::Reverse(*version));
        let depth = self.dice.random_range(0.0..1.0_f64).powi(4) * alive.len() as f64;
        alive.get(depth as usize).map(|(id, _)| (*id).to_owned())
    }
}

fn told(kind: Kind, answer: &Answer) -> String {
    format!("{} → {} {}", kind.label, answer.status, excerpt(&answer.body))
}
