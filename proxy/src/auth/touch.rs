//! Sessions that live as long as they are used: their keys are given a new end, in batches and not at every use.
//!
//! - A key is due when an eighth of its time is gone, by the end that Redis told. So one edge's touch is enough for all, and a
//!   session costs eight touches in its time at most, however often it is used.
//! - `PEXPIRE … GT` never shortens a life, never ends a key that has no end, and does nothing to one that is gone: a revoked session
//!   stays revoked, whatever was under way.
//! - Redis tells every edge of the touch as of any change, ours included, and what was remembered is forgotten: the push may
//!   stand for somebody else's change of the same moment, so it is not passed over. What we touched is looked up again before
//!   anybody asks for it.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use super::{
    claim::Claim,
    lookup::Mirror,
    memory::Answer,
    token::{Digest, Token},
};

/// The part of its time after which a session is touched again.
const PART: u32 = 8;
/// Between two batches.
const BEAT: Duration = Duration::from_secs(1);
/// Keys of one batch; those beyond are due again at their next use.
const BATCH: usize = 4096;

/// What is to be touched.
pub(super) struct Touches {
    sliding: Duration,
    due: Mutex<HashMap<Digest, Token>>,
    /// Touched with the last batch, until Redis tells of it.
    touched: Mutex<HashMap<Digest, Token>>,
    again: mpsc::Sender<Token>,
}

impl Touches {
    /// Whose keys get `sliding` more; the receiver hears what is to be looked up again.
    pub(super) fn new(sliding: Duration) -> (Self, mpsc::Receiver<Token>) {
        let (again, receiver) = mpsc::channel(BATCH);
        (Self { sliding, due: Mutex::default(), touched: Mutex::default(), again }, receiver)
    }

    pub(super) fn sliding(&self) -> Duration {
        self.sliding
    }

    /// A token was used, whose session is this.
    pub(super) fn used<T>(&self, claim: &Claim, answer: &Answer<T>, now: SystemTime) {
        if !self.is_due(answer, now) {
            return;
        }
        let Some(token) = claim.token() else { return };
        let mut due = self.due.lock();
        if due.len() < BATCH {
            due.entry(*claim.digest()).or_insert_with(|| token.clone());
        }
    }

    /// Whether a key needs a new end; not where its session has an end of its own before that.
    fn is_due<T>(&self, answer: &Answer<T>, now: SystemTime) -> bool {
        let young = now + self.sliding * (PART - 1) / PART;
        // What is no session is not ours to prolong.
        answer.fact.is_some()
            && answer.key_until.is_some_and(|end| now < end && end < young && answer.until == Some(end))
    }

    /// A key was forgotten because it changed; if we changed it, it is looked up again.
    pub(super) fn forgotten(&self, digest: &Digest) {
        if let Some(key) = self.touched.lock().remove(digest) {
            // Where there is no room, whoever comes next looks it up.
            let _ = self.again.try_send(key);
        }
    }

    fn take(&self) -> Vec<Token> {
        let due = std::mem::take(&mut *self.due.lock());
        let keys = due.values().cloned().collect();
        *self.touched.lock() = due;
        keys
    }
}

/// Touches what is due, until nobody remembers any more.
pub(super) async fn run<T: Send + Sync + 'static>(
    name: Arc<str>,
    touches: Weak<Touches>,
    mut again: mpsc::Receiver<Token>,
    mirror: impl Fn() -> Option<Mirror<T>>,
) {
    let (mut beat, mut is_told) = (interval(BEAT), false);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            key = again.recv() => {
                let (Some(key), Some(mirror)) = (key, mirror()) else { return };
                let _ = mirror.look_up(&key.into(), SystemTime::now()).await;
            }
            _ = beat.tick() => {
                let (Some(touches), Some(mirror)) = (touches.upgrade(), mirror()) else { return };
                let keys = touches.take();
                if keys.is_empty() {
                    continue;
                }
                match mirror.touch(&keys, touches.sliding()).await {
                    Ok(()) => is_told = false,
                    Err(problem) if !std::mem::replace(&mut is_told, true) => {
                        tracing::warn!(session = %name, cause = %problem.cause, "sessions cannot be prolonged");
                    }
                    Err(_) => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test's panic is its report")]
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn answer(key_until: Option<u64>, own: Option<u64>) -> Answer<()> {
        let until = key_until.into_iter().chain(own).min().map(at);
        Answer { asked_at: at(0), until, key_until: key_until.map(at), fact: Some(Arc::new(())), no: None }
    }

    #[test]
    fn a_session_is_touched_when_an_eighth_of_its_time_is_gone() {
        let (touches, _) = Touches::new(Duration::from_secs(800));
        let is_due = |key, own, now| touches.is_due(&answer(key, own), at(now));
        assert!(
            !is_due(Some(1800), None, 1000)
                && !is_due(Some(1800), None, 1100)
                && is_due(Some(1800), None, 1101)
        );
        assert!(!is_due(None, None, 5000), "it does not end");
        assert!(!is_due(Some(1800), Some(1500), 1400), "it ends by itself before");
        assert!(is_due(Some(1800), Some(9000), 1400));
        assert!(!is_due(Some(1800), None, 1800), "it has ended");
    }

    #[test]
    fn a_token_is_touched_once_a_batch_and_looked_up_once_when_that_is_heard() {
        let (touches, mut again) = Touches::new(Duration::from_secs(800));
        let key = Token::parse(b"t").unwrap();
        for _ in 0..3 {
            touches.used(&key.clone().into(), &answer(Some(1800), None), at(1500));
        }
        assert_eq!(touches.take(), std::slice::from_ref(&key));
        touches.forgotten(&key.digest());
        touches.forgotten(&key.digest());
        touches.forgotten(&Token::parse(b"other").unwrap().digest());
        assert_eq!(again.try_recv(), Ok(key));
        assert!(again.try_recv().is_err());
    }

    #[test]
    fn a_batch_is_bounded() {
        let (touches, _) = Touches::new(Duration::from_secs(800));
        for nth in 0..BATCH + 10 {
            let key = Token::parse(format!("t{nth}").as_bytes()).unwrap();
            touches.used(&key.into(), &answer(Some(1800), None), at(1500));
        }
        assert_eq!(touches.take().len(), BATCH);
    }
}
