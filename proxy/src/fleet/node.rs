//! One server: its connection, made when it is needed and made again when it breaks, and its circuit.

use std::{
    future::Future,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind, aio::MultiplexedConnection};

use super::{
    circuit::Circuit,
    reach::{Address, Reach},
};

/// One server.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) address: Address,
    circuit: Circuit,
    link: Arc<Link>,
}

/// The connection. One task at a time makes it, and goes on when whoever asked for it waits no longer.
#[derive(Default)]
struct Link {
    connection: Mutex<Option<(u64, MultiplexedConnection)>>,
    making: tokio::sync::Mutex<()>,
    tries: AtomicU64,
}

impl Node {
    pub(super) fn new(address: Address) -> Self {
        Self { address, circuit: Circuit::new(Instant::now()), link: Arc::default() }
    }

    /// Asks, and answers before `deadline`.
    ///
    /// Errors: the server's, and [`late`] or [`failed`] where there is no answer to wait for; [`is_down`] tells them apart.
    pub(super) async fn ask<T, F>(
        &self,
        reach: &Reach,
        deadline: Instant,
        question: impl FnOnce(MultiplexedConnection) -> F,
    ) -> RedisResult<T>
    where
        F: Future<Output = RedisResult<T>>,
    {
        let Some(pass) = self.circuit.enter(Instant::now()) else {
            return Err(failed("Redis has just failed, and is left alone for a moment"));
        };
        let mut used = None;
        let asked = async {
            let (number, connection) = self.connection(reach).await?;
            used = Some(number);
            question(connection).await
        };
        let answer = tokio::time::timeout_at(deadline.into(), asked).await;
        let answer = answer.unwrap_or_else(|_| Err(late(reach.timeout)));
        let Err(problem) = &answer else {
            pass.answered();
            return answer;
        };
        if !is_down(problem) {
            pass.answered();
            return answer;
        }
        // One that is silent may be a connection that the network forgot.
        let rests = pass.failed(Instant::now(), rand::random());
        if rests || !problem.is_timeout() {
            self.link.give_up(used);
        }
        answer
    }

    async fn connection(&self, reach: &Reach) -> RedisResult<(u64, MultiplexedConnection)> {
        if let Some(made) = self.link.made() {
            return Ok(made);
        }
        let (link, reach, address) = (Arc::clone(&self.link), reach.clone(), self.address.clone());
        let making = tokio::spawn(async move {
            let tries = link.tries.load(Ordering::Acquire);
            let _alone = link.making.lock().await;
            if let Some(made) = link.made() {
                return Ok(made);
            }
            // Who waited for a try that failed has had it.
            if tries != link.tries.load(Ordering::Acquire) {
                return Err(failed("Redis cannot be connected to"));
            }
            let opened = reach.open(&address, None).await;
            let number = link.tries.fetch_add(1, Ordering::AcqRel);
            let made = (number, opened?);
            *link.connection.lock() = Some(made.clone());
            Ok(made)
        });
        making.await.unwrap_or_else(|_| Err(failed("connecting was given up")))
    }
}

impl Link {
    fn made(&self) -> Option<(u64, MultiplexedConnection)> {
        self.connection.lock().clone()
    }

    fn give_up(&self, used: Option<u64>) {
        let mut connection = self.connection.lock();
        if connection.as_ref().is_some_and(|(number, _)| Some(*number) == used) {
            *connection = None;
        }
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}

/// Whether a problem is the server's, or the way to it, and not the question's.
pub(super) fn is_down(problem: &RedisError) -> bool {
    match problem.kind() {
        ErrorKind::Io | ErrorKind::Parse | ErrorKind::AuthenticationFailed => true,
        ErrorKind::Server(kind) => matches!(
            kind,
            ServerErrorKind::BusyLoading
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ReadOnly
                | ServerErrorKind::TryAgain
        ),
        _ => false,
    }
}

/// There was no answer in time.
pub(super) fn late(bound: Duration) -> RedisError {
    io::Error::new(io::ErrorKind::TimedOut, format!("no answer from Redis within {bound:?}")).into()
}

/// There is nothing to wait for.
pub(super) fn failed(why: &'static str) -> RedisError {
    (ErrorKind::Io, why).into()
}
