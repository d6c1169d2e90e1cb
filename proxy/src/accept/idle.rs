//! The waits of an HTTP/1 connection between its requests.
//!
//! To arm a timer and to queue for the stop costs about as much as an answer from memory does. So both are done once and
//! kept from one wait to the next: a connection that is busy never touches them again. The timer of a wait that is long over
//! strikes at most once for each `idle_timeout`, and is set anew.

use std::{
    future::{Future, poll_fn},
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::{listener::LAST_LOOK, stop::Stop};

/// What a connection waits with.
pub(super) struct Idle {
    stop: Stop,
    armed: Option<Armed>,
}

struct Armed {
    clock: Pin<Box<Sleep>>,
    stopped: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Whom both wake.
    waker: Waker,
}

/// How a wait ended.
enum Ended {
    Read(io::Result<usize>),
    Late,
    Stopping,
}

impl Idle {
    /// For the connections of whoever says this stop.
    pub(super) fn new(stop: Stop) -> Self {
        Self { stop, armed: None }
    }

    /// Waits for bytes of the next request: so long, and hardly longer when we stop. False: none came.
    pub(super) async fn bytes(
        &mut self,
        patience: Duration,
        mut read: impl FnMut(&mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> bool {
        let deadline = Instant::now() + patience;
        let came = match poll_fn(|cx| self.poll(deadline, &mut read, cx)).await {
            Ended::Read(came) => came,
            Ended::Late => return false,
            Ended::Stopping => match timeout(LAST_LOOK, poll_fn(read)).await {
                Ok(came) => came,
                Err(_silent) => return false,
            },
        };
        matches!(came, Ok(1..))
    }

    fn poll(
        &mut self,
        deadline: Instant,
        read: &mut impl FnMut(&mut Context<'_>) -> Poll<io::Result<usize>>,
        cx: &mut Context<'_>,
    ) -> Poll<Ended> {
        if let Poll::Ready(came) = read(cx) {
            return Poll::Ready(Ended::Read(came));
        }
        // Neither has happened since both were armed for this task, so each will wake it when it does.
        let is_armed = |armed: &Armed| {
            armed.waker.will_wake(cx.waker())
                && !armed.clock.is_elapsed()
                && armed.clock.deadline() <= deadline
        };
        if self.armed.as_ref().is_some_and(is_armed) && !self.stop.is_said() {
            return Poll::Pending;
        }
        let armed = self.armed.get_or_insert_with(|| {
            let mut stop = self.stop.clone();
            Armed {
                clock: Box::pin(sleep_until(deadline)),
                stopped: Box::pin(async move { stop.wait().await }),
                waker: cx.waker().clone(),
            }
        });
        armed.waker.clone_from(cx.waker());
        let ended = if armed.stopped.as_mut().poll(cx).is_ready() {
            Ended::Stopping
        } else {
            if armed.clock.is_elapsed() || armed.clock.deadline() > deadline {
                armed.clock.as_mut().reset(deadline);
            }
            if armed.clock.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            Ended::Late
        };
        // What has ended is not asked again.
        self.armed = None;
        Poll::Ready(ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accept::stop::stop;

    const SECOND: Duration = Duration::from_secs(1);

    fn never(_: &mut Context<'_>) -> Poll<io::Result<usize>> {
        Poll::Pending
    }

    /// Bytes that come then.
    fn at(when: Instant) -> impl FnMut(&mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut clock = Box::pin(sleep_until(when));
        move |cx| clock.as_mut().poll(cx).map(|()| Ok(1))
    }

    #[tokio::test(start_paused = true)]
    async fn every_wait_is_as_long_as_it_may_be_whatever_was_armed_before() {
        let (_stopper, stopped) = stop();
        let mut idle = Idle::new(stopped);
        let begun = Instant::now();
        assert!(idle.bytes(SECOND * 10, at(begun + SECOND * 6)).await);
        assert!(idle.bytes(SECOND * 10, at(begun + SECOND * 15)).await, "beyond what the first wait armed");
        assert!(!idle.bytes(SECOND * 10, never).await);
        assert_eq!(begun.elapsed().as_secs(), 25);
        assert!(!idle.bytes(SECOND * 3, never).await);
        assert_eq!(begun.elapsed().as_secs(), 28, "a shorter one than before");
    }

    #[tokio::test(start_paused = true)]
    async fn the_stop_is_heard_in_a_wait_and_between_two() {
        for heard_between in [false, true] {
            let (stopper, stopped) = stop();
            let mut idle = Idle::new(stopped);
            let begun = Instant::now();
            assert!(idle.bytes(SECOND * 10, at(begun + SECOND)).await);
            if heard_between {
                stopper.stop();
            } else {
                tokio::spawn(async move {
                    sleep_until(begun + SECOND * 2).await;
                    stopper.stop();
                    std::future::pending::<()>().await;
                });
            }
            assert!(!idle.bytes(SECOND * 10, never).await);
            assert_eq!(begun.elapsed().as_secs(), if heard_between { 1 } else { 2 });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_that_had_arrived_when_the_stop_came_are_read() {
        let (stopper, stopped) = stop();
        stopper.stop();
        let mut idle = Idle::new(stopped);
        assert!(idle.bytes(SECOND, at(Instant::now() + LAST_LOOK / 2)).await);
    }
}
