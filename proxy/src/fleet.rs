//! Redis, which the fleet shares: one handle to one server, to whichever master sentinels name, or to a cluster.
//!
//! [`Redis`] is what the `redis` crate calls a connection: commands, pipelines and scripts are sent through it as through any
//! other. What it adds:
//! - Every command has a *deadline*, connecting included. A Redis that is slow is one that is down.
//! - Every server has a *circuit* ([`circuit`]): one that failed rests, then one command tries it for all.
//! - *Where* a key is, is found out and kept ([`reach`]): a failure, a redirection or a demoted master has it looked up again,
//!   at most every tenth of a second. Nobody waits for that but who comes first.
//!
//! [`Listener`] hears what changes, on connections of its own to every master.

mod circuit;
mod listener;
mod node;
mod reach;
mod slot;

use std::{
    fmt,
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use futures_util::{FutureExt as _, future::join_all};
use parking_lot::Mutex;
use redis::{
    Cmd, ErrorKind, Pipeline, RedisError, RedisFuture, RedisResult, ServerErrorKind, Value,
    aio::{ConnectionLike, MultiplexedConnection},
};
use weir_config::{plan, span::Place};

pub use self::listener::Listener;
use self::{
    node::{Node, is_down},
    reach::{Address, Owners, Reach},
    slot::Slot,
};

/// Between two look-ups of where the servers are.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What a plan says of Redis and cannot be; the operator's to mend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("redis: {problem}")]
pub struct BadRedis {
    /// Where it was written.
    pub place: Place,
    /// Why it cannot be.
    pub problem: String,
}

/// A Redis, however it is deployed; clones share it.
#[derive(Clone)]
pub struct Redis(Arc<Inner>);

struct Inner {
    reach: Reach,
    /// Who owns which slots; none before the first look-up, and never without masters.
    map: ArcSwapOption<Map>,
    looking: tokio::sync::Mutex<()>,
    looked: Mutex<Option<Looked>>,
}

/// The last look-up.
struct Looked {
    at: Instant,
    problem: Option<RedisError>,
}

/// The masters, and the last slot of each range that one of them owns.
struct Map {
    owners: Owners,
    nodes: Vec<(Slot, Arc<Node>)>,
}

impl Redis {
    /// Reads the certificates that a plan names; connects when it is first asked.
    ///
    /// Errors: [`BadRedis`] for an address that can be none, and files that cannot be used.
    pub fn new(plan: &plan::Redis) -> Result<Self, BadRedis> {
        let (map, reach) = (ArcSwapOption::empty(), Reach::new(plan)?);
        Ok(Self(Arc::new(Inner { reach, map, looking: Default::default(), looked: Mutex::default() })))
    }

    /// Whether `plan` and its files as they are now mean this very Redis.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.0.reach == other.0.reach
    }

    /// Whether `other` means the same keys of the same servers, however it reaches them.
    #[must_use]
    pub fn holds_the_same(&self, other: &Self) -> bool {
        self.0.reach.holds_the_same(&other.0.reach)
    }

    /// How long a command may take.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.0.reach.timeout
    }

    /// Listens to every master; `push` is called for each push, in the order in which pushes and answers came.
    ///
    /// Errors: when one of them cannot be reached.
    pub async fn listen(&self, push: impl redis::aio::AsyncPushSender + Clone) -> RedisResult<Listener> {
        Listener::connect(&self.0.reach, &self.known(), push).await
    }

    /// A connection of one's own to whoever has this key, for commands that wait; without a deadline for answers.
    ///
    /// When an answer says that the key is elsewhere, call [`Redis::look_again`] and ask for another.
    ///
    /// Errors: when it cannot be reached in time.
    pub async fn dedicated(&self, key: &str) -> RedisResult<MultiplexedConnection> {
        let deadline = Instant::now() + self.0.reach.connect_timeout;
        let node = self.node(Slot::of(key.as_bytes()), deadline).await?;
        self.0.reach.open(&node.address, None).await
    }

    /// Somebody found a server that is not what it was.
    pub fn look_again(&self) {
        let now = Instant::now();
        let is_due = |looked: &Looked| now.saturating_duration_since(looked.at) >= LOOK_AGAIN;
        if self.0.reach.may_move()
            && self.0.looked.lock().as_ref().is_none_or(is_due)
            && self.0.looking.try_lock().is_ok()
        {
            let this = self.clone();
            tokio::spawn(async move {
                let _ = this.look().await;
            });
        }
    }

    /// Finds out who owns what, unless somebody just did.
    async fn look(&self) -> RedisResult<()> {
        let asked = Instant::now();
        let _alone = self.0.looking.lock().await;
        if let Some(looked) = &*self.0.looked.lock()
            && looked.at + LOOK_AGAIN > asked
        {
            return looked.problem.clone().map_or(Ok(()), Err);
        }
        let found = self.0.reach.owners(&self.known()).await;
        let looked = Looked { at: Instant::now(), problem: found.as_ref().err().cloned() };
        *self.0.looked.lock() = Some(looked);
        let owners = found?;
        let old = self.0.map.load_full();
        if old.as_ref().is_none_or(|old| old.owners != owners) {
            self.0.map.store(Some(Arc::new(Map::new(owners, old.as_deref()))));
        }
        Ok(())
    }

    /// The masters of the last look-up.
    fn known(&self) -> Vec<Address> {
        let map = self.0.map.load();
        map.iter().flat_map(|map| map.all().map(|node| node.address.clone())).collect()
    }

    async fn map(&self, deadline: Instant) -> RedisResult<Arc<Map>> {
        if let Some(map) = self.0.map.load_full() {
            return Ok(map);
        }
        // A task of its own: what is found is of use to others when this one waits no longer.
        let this = self.clone();
        let looking = tokio::spawn(async move { this.look().await });
        match tokio::time::timeout_at(deadline.into(), looking).await {
            Ok(Ok(looked)) => looked?,
            Ok(Err(_)) | Err(_) => return Err(node::late(self.timeout())),
        }
        self.0.map.load_full().ok_or_else(|| node::failed("nobody says where Redis is"))
    }

    async fn node(&self, slot: Slot, deadline: Instant) -> RedisResult<Arc<Node>> {
        let map = self.map(deadline).await?;
        let node = map.nodes.iter().find(|(last, _)| slot <= *last).or(map.nodes.last());
        node.map(|(_, node)| Arc::clone(node)).ok_or_else(|| node::failed("nobody owns this key"))
    }

    /// Asks the owner of a slot; once more where it says who has it instead.
    async fn ask<T, F>(
        &self,
        slot: Slot,
        question: impl Fn(MultiplexedConnection, bool) -> F,
    ) -> RedisResult<T>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let deadline = Instant::now() + self.timeout();
        let node = self.node(slot, deadline).await?;
        let answer = node.ask(&self.0.reach, deadline, |connection| question(connection, false)).await;
        let Err(problem) = answer else { return answer };
        let is_asking = match problem.kind() {
            ErrorKind::Server(ServerErrorKind::Moved) => false,
            ErrorKind::Server(ServerErrorKind::Ask) => true,
            _ if is_down(&problem) => {
                self.look_again();
                return Err(problem);
            }
            _ => return Err(problem),
        };
        let named = problem.redirect_node().and_then(|(address, _)| Address::read(address, &node.address));
        let Some(address) = named else { return Err(problem) };
        if !is_asking {
            self.look_again();
        }
        let map = self.map(deadline).await?;
        let other = map.at(&address).unwrap_or_else(|| Arc::new(Node::new(address)));
        other.ask(&self.0.reach, deadline, |connection| question(connection, is_asking)).await
    }

    /// Asks every master; an answer of one of them, if any gave one.
    async fn ask_all(&self, command: &Cmd, must_all: bool) -> RedisResult<Value> {
        let deadline = Instant::now() + self.timeout();
        let map = self.map(deadline).await.inspect_err(|_| self.look_again())?;
        let ask = |node: Arc<Node>| async move {
            node.ask(&self.0.reach, deadline, |connection| send(connection, command, false)).await
        };
        let answers = join_all(map.all().map(ask)).await;
        if answers.iter().any(|answer| answer.as_ref().is_err_and(is_down)) {
            self.look_again();
        }
        let (good, bad): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
        let all =
            if must_all { bad.into_iter().chain(good).next() } else { good.into_iter().chain(bad).next() };
        all.unwrap_or_else(|| Err(node::failed("there is no master")))
    }
}

impl Map {
    /// Servers that stay keep their connection and their circuit.
    fn new(owners: Owners, old: Option<&Self>) -> Self {
        let mut new = Self { nodes: Vec::with_capacity(owners.len()), owners: Vec::new() };
        for (last, address) in &owners {
            let node = new.at(address).or_else(|| old?.at(address));
            new.nodes.push((*last, node.unwrap_or_else(|| Arc::new(Node::new(address.clone())))));
        }
        Self { owners, ..new }
    }

    fn at(&self, address: &Address) -> Option<Arc<Node>> {
        self.all().find(|node| node.address == *address)
    }

    /// Each once.
    fn all(&self) -> impl Iterator<Item = Arc<Node>> {
        let is_first =
            |at: usize| !self.nodes[..at].iter().any(|(_, node)| Arc::ptr_eq(node, &self.nodes[at].1));
        (0..self.nodes.len()).filter(move |at| is_first(*at)).map(|at| Arc::clone(&self.nodes[at].1))
    }
}

async fn send(mut connection: MultiplexedConnection, command: &Cmd, asking: bool) -> RedisResult<Value> {
    if !asking {
        return connection.send_packed_command(command).await?.extract_error();
    }
    let mut both = redis::pipe();
    both.cmd("ASKING").add_command(command.clone());
    let mut answers = connection.send_packed_commands(&both, 0, 2).await?;
    answers.pop().unwrap_or_default().extract_error()
}

async fn send_all(
    mut connection: MultiplexedConnection,
    pipeline: &Pipeline,
    (offset, count): (usize, usize),
    asking: bool,
) -> RedisResult<Vec<Value>> {
    let answers = if asking && offset == 0 {
        let mut both = redis::pipe();
        for command in pipeline.cmd_iter() {
            both.cmd("ASKING").add_command(command.clone());
        }
        let answers = connection.send_packed_commands(&both, 0, 2 * count).await?;
        answers.into_iter().skip(1).step_by(2).collect()
    } else {
        connection.send_packed_commands(pipeline, offset, count).await?
    };
    // A redirection of one is one of all, as they have a slot in common.
    let redirected = |value: &&Value| matches!(value, Value::ServerError(error) if matches!(error.code(), "MOVED" | "ASK"));
    if let Some(value) = answers.iter().find(redirected) {
        value.clone().extract_error()?;
    }
    Ok(answers)
}

impl ConnectionLike for Redis {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        async move {
            match slot::of(command) {
                slot::Target::Key(slot) => {
                    self.ask(slot, |connection, asking| send(connection, command, asking)).await
                }
                slot::Target::Any => self.ask_all(command, false).await,
                slot::Target::Every => self.ask_all(command, true).await,
            }
        }
        .boxed()
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        async move {
            let slot = pipeline.cmd_iter().find_map(|command| match slot::of(command) {
                slot::Target::Key(slot) => Some(slot),
                slot::Target::Any | slot::Target::Every => None,
            });
            let question = |connection, asking| send_all(connection, pipeline, (offset, count), asking);
            self.ask(slot.unwrap_or_default(), question).await
        }
        .boxed()
    }

    fn get_db(&self) -> i64 {
        self.0.reach.database()
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("reach", &self.0.reach).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
