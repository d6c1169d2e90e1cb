//! Which edge asks the origin: a key in Redis for a fill, taken by who comes first, with an end in case its holder dies.
//!
//! The holder gives it back when its entry lies there, or when its fetch failed, and only if it is still its own. An answer that
//! is not for sharing leaves a word instead of it, unless another edge has it by then, for as long as an edge would remember
//! that itself: nobody waits then.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use futures_util::future::join_all;
use redis::{RedisResult, Script};
use tokio::sync::mpsc::{self, OwnedPermit};

use super::{
    super::{desk::PASS, shelf::count},
    Common,
    writer::AT_ONCE,
};
use crate::fleet::Redis;

/// Leases that an edge holds or gives back.
pub(super) const MOST: usize = 1024;

/// Gives back what is still one's own.
static GIVE_BACK: LazyLock<Script> = LazyLock::new(|| {
    Script::new("return redis.call('get', KEYS[1]) == ARGV[1] and redis.call('del', KEYS[1])")
});
/// Leaves a word to those who would wait, for so many milliseconds, unless somebody else fetches meanwhile.
static PASS_ON: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local holder = redis.call('get', KEYS[1])
        return (not holder or holder == ARGV[1]) and redis.call('set', KEYS[1], ARGV[2], 'PX', ARGV[3])",
    )
});
/// Says that nobody need wait.
const NOT_SHARED: &str = "-";

/// Who asks the origin.
pub(in super::super) enum Turn {
    /// This fill, for all.
    Ours(Lease),
    /// That of another edge.
    Another,
    /// Each for itself.
    Alone,
}

/// The right to fetch for the fleet; given back when dropped.
#[derive(Debug)]
pub(in super::super) struct Lease {
    /// None when it was given back.
    held: Option<Box<Held>>,
    /// Room to give it back, kept from when it was taken.
    room: Option<OwnedPermit<Back>>,
}

/// What was taken, and the word that tells it from what others took.
#[derive(Debug)]
struct Held {
    name: String,
    token: String,
}

/// A lease that is over.
#[derive(Debug)]
pub(super) struct Back {
    held: Box<Held>,
    is_shared: bool,
}

impl Lease {
    /// What is brought is not for sharing: the others need not wait.
    pub(in super::super) fn pass(mut self) {
        self.end(false);
    }

    fn end(&mut self, is_shared: bool) {
        if let Some((held, room)) = self.held.take().zip(self.room.take()) {
            room.send(Back { held, is_shared });
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.end(true);
    }
}

/// Takes the lease of this name, for so long, if nobody has it. It goes back to `over`; where that has no room, so many are held
/// that this fill needs none.
pub(super) async fn take(
    redis: &Redis,
    name: String,
    lasts: Duration,
    over: &mpsc::Sender<Back>,
) -> RedisResult<Turn> {
    let Ok(room) = over.clone().try_reserve_owned() else { return Ok(Turn::Alone) };
    let token = format!("{:016x}", rand::random::<u64>());
    let mut question = redis::pipe();
    question.cmd("SET").arg(&name).arg(&token).arg("NX").arg("PX").arg(lasts.as_millis() as u64);
    question.cmd("GET").arg(&name);
    // From here on, as it may have been taken also where nobody waits for the answer, or none comes.
    let held = Box::new(Held { name, token: token.clone() });
    let mut lease = Lease { held: Some(held), room: Some(room) };
    let (_, holder): (Option<String>, Option<String>) = question.query_async(&mut redis.clone()).await?;
    if holder.as_ref() == Some(&token) {
        return Ok(Turn::Ours(lease));
    }
    lease.held = None;
    Ok(match holder {
        Some(holder) if holder == NOT_SHARED => Turn::Alone,
        // None: it ended just now.
        _ => Turn::Another,
    })
}

/// Gives back what is over, until nobody has a lease any more. Apart from what is written, so that no lease waits for an entry.
pub(super) async fn give_back(common: Arc<Common>, mut queue: mpsc::Receiver<Back>) {
    let mut over = Vec::with_capacity(AT_ONCE);
    while queue.recv_many(&mut over, AT_ONCE).await > 0 {
        let told = join_all(over.drain(..).map(|back| back.tell(&common.redis))).await;
        told.iter().filter(|told| told.is_err()).for_each(|_| count(&common.counts.errors));
    }
}

impl Back {
    async fn tell(self, redis: &Redis) -> RedisResult<()> {
        let Held { name, token } = &*self.held;
        if self.is_shared {
            return GIVE_BACK.key(name).arg(token).invoke_async(&mut redis.clone()).await;
        }
        let mut saying = PASS_ON.key(name);
        saying.arg(token).arg(NOT_SHARED).arg(PASS.as_millis() as u64);
        saying.invoke_async(&mut redis.clone()).await
    }
}
