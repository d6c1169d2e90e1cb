//! Connections that hear what changes: one to every master, RESP3, each with its own pushes.
//!
//! Pushes and answers share a connection and its order: an answer to [`Listener::beat`] means that everything that was
//! pushed before it was asked has been heard, of every master, and that the masters are still these. Any failure of any of
//! them ends the listener, because what was missed meanwhile is anybody's guess: make a new one.

use futures_util::future::try_join_all;
use redis::{AsyncConnectionConfig, Cmd, RedisResult, aio::MultiplexedConnection};

use super::{
    node::failed,
    reach::{Address, Owners, Reach},
};

/// Hears every master.
pub struct Listener {
    reach: Reach,
    owners: Owners,
    connections: Vec<(Address, MultiplexedConnection)>,
}

impl Listener {
    pub(super) async fn connect(
        reach: &Reach,
        known: &[Address],
        push: impl redis::aio::AsyncPushSender + Clone,
    ) -> RedisResult<Self> {
        let owners = reach.owners(known).await?;
        let mut masters: Vec<_> = owners.iter().map(|(_, address)| address.clone()).collect();
        masters.sort();
        masters.dedup();
        let connections = try_join_all(masters.into_iter().map(|address| {
            let config = AsyncConnectionConfig::new().set_push_sender(push.clone());
            async move {
                let connection = reach.open(&address, Some(config)).await?;
                Ok::<_, redis::RedisError>((address, connection))
            }
        }));
        let connections = connections.await?;
        Ok(Self { reach: reach.clone(), owners, connections })
    }

    /// Says this to every master.
    ///
    /// Errors: the first of them.
    pub async fn tell(&mut self, command: &Cmd) -> RedisResult<()> {
        let told = self.connections.iter_mut().map(|(_, connection)| command.query_async::<()>(connection));
        try_join_all(told).await.map(|_| ())
    }

    /// Waits for an answer of every master: whatever was pushed before this was called has been heard then.
    ///
    /// Errors: when one does not answer, or is not what it was.
    pub async fn beat(&mut self) -> RedisResult<()> {
        let (reach, owners) = (&self.reach, &self.owners);
        let answers = self.connections.iter_mut().map(|(address, connection)| async move {
            if reach.is_as_before(connection, address, owners).await? {
                Ok(())
            } else {
                Err(failed("the masters are others now"))
            }
        });
        try_join_all(answers).await.map(|_| ())
    }
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener").field("owners", &self.owners).finish_non_exhaustive()
    }
}
