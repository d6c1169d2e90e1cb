//! Which edge asks the origin: a key in Redis for a fill, taken by who comes first, with an end in case its holder dies.
//!
//! The holder gives it back when its entry lies there, or when its fetch failed, and only if it is still its own. An answer that
//! is not for sharing leaves a word instead of it, unless another edge has it by then, for as long as an edge would remember
//! that itself: nobody waits then.

use std::{sync::LazyLock, time::Duration};

use redis::{RedisResult, Script};
use tokio::sync::mpsc;

use super::{super::desk::PASS, writer::Job};
use crate::fleet::Redis;

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
    held: Option<Box<Held>>,
    jobs: mpsc::Sender<Job>,
}

/// What was taken, and the word that tells it from what others took.
#[derive(Debug)]
pub(super) struct Held {
    name: String,
    token: String,
}

impl Lease {
    /// What is brought is not for sharing: the others need not wait.
    pub(in super::super) fn pass(mut self) {
        // What finds no room is known when the lease ends.
        self.held.take().into_iter().for_each(|held| drop(self.jobs.try_send(Job::Pass(held))));
    }

    /// For who gives it back later.
    pub(super) fn held(mut self) -> Option<Box<Held>> {
        self.held.take()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.held.take().into_iter().for_each(|held| drop(self.jobs.try_send(Job::GiveBack(held))));
    }
}

/// Takes the lease of this name, for so long, if nobody has it.
pub(super) async fn take(
    redis: &Redis,
    name: String,
    lasts: Duration,
    jobs: &mpsc::Sender<Job>,
) -> RedisResult<Turn> {
    let held = Box::new(Held { name, token: format!("{:016x}", rand::random::<u64>()) });
    let mut question = redis::pipe();
    question.cmd("SET").arg(&held.name).arg(&held.token).arg("NX").arg("PX").arg(lasts.as_millis() as u64);
    question.cmd("GET").arg(&held.name);
    let (_, holder): (Option<String>, Option<String>) = question.query_async(&mut redis.clone()).await?;
    Ok(match holder {
        Some(holder) if holder == held.token => Turn::Ours(Lease { held: Some(held), jobs: jobs.clone() }),
        Some(holder) if holder == NOT_SHARED => Turn::Alone,
        // None: it ended just now.
        _ => Turn::Another,
    })
}

impl Held {
    pub(super) async fn give_back(&self, redis: &Redis) -> RedisResult<()> {
        let mut giving = GIVE_BACK.key(&self.name);
        giving.arg(&self.token).invoke_async(&mut redis.clone()).await
    }

    pub(super) async fn pass(&self, redis: &Redis) -> RedisResult<()> {
        let mut saying = PASS_ON.key(&self.name);
        saying.arg(&self.token).arg(NOT_SHARED).arg(PASS.as_millis() as u64);
        saying.invoke_async(&mut redis.clone()).await
    }
}
