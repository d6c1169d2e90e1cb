//! The word that every connection is to end with what it is doing.
//!
//! Each request asks twice whether it was said. That reads what nobody writes: were it a lock or a count, every thread would
//! write to the same cache line with every request.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::watch;

/// Says it, at the latest when dropped.
#[derive(Debug)]
pub struct Stopper {
    said: Arc<AtomicBool>,
    told: watch::Sender<bool>,
}

/// Hears it.
#[derive(Debug, Clone)]
pub struct Stop {
    said: Arc<AtomicBool>,
    told: watch::Receiver<bool>,
}

/// Who says it, and who hears.
#[must_use]
pub fn stop() -> (Stopper, Stop) {
    let (said, (sender, told)) = (Arc::<AtomicBool>::default(), watch::channel(false));
    (Stopper { said: Arc::clone(&said), told: sender }, Stop { said, told })
}

impl Stopper {
    /// Every connection ends with what it is doing.
    pub fn stop(&self) {
        // Whoever is woken must find it said.
        self.said.store(true, Ordering::Release);
        self.told.send_replace(true);
    }
}

impl Drop for Stopper {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Stop {
    /// Whether it was said.
    #[must_use]
    pub fn is_said(&self) -> bool {
        self.said.load(Ordering::Acquire)
    }

    /// Waits until it is said. May be dropped and called again.
    pub async fn wait(&mut self) {
        // The channel ends only after the word.
        let _ = self.told.wait_for(|told| *told).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_stop_is_heard_by_who_waits_and_by_who_asks() {
        let (stopper, stop) = stop();
        let mut waits = stop.clone();
        assert!(!stop.is_said());
        let waiting = tokio::spawn(async move {
            waits.wait().await;
            waits.wait().await;
            waits.is_said()
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        stopper.stop();
        assert!(waiting.await.is_ok_and(|said| said));
        assert!(stop.clone().is_said());
    }

    #[tokio::test]
    async fn nobody_waits_for_a_word_that_cannot_come() {
        let (stopper, mut stop) = stop();
        drop(stopper);
        stop.wait().await;
        assert!(stop.is_said());
    }
}
