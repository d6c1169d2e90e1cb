//! The Redis that instances and edges share: one server, or a cluster.
//!
//! It is connected to when it is first needed, and again when the connection breaks: an origin starts without Redis. Nobody waits for it
//! longer than a second, connecting and following a failover included: it answers within a millisecond, or something is wrong.

use std::{sync::Arc, time::Duration};

use redis::{
    Client, Cmd, ErrorKind, Pipeline, RedisFuture, RedisResult, Value,
    aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig},
    cluster::ClusterClient,
    cluster_async::ClusterConnection,
};
use tokio::{sync::OnceCell, time::timeout};

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// A connection that all share; a clone is the same one.
#[derive(Clone)]
pub struct Redis {
    way: Way,
    patience: Duration,
}

#[derive(Clone)]
enum Way {
    Server(ConnectionManager),
    Cluster(Arc<ClusterClient>, Arc<OnceCell<ClusterConnection>>),
}

impl Redis {
    /// `redis[s]://[user:password@]host:port`, or `redis[s]-cluster://[user:password@]host:port,host:port` with some nodes of a cluster.
    ///
    /// # Errors
    /// When the URL is none.
    pub fn at(url: &str) -> RedisResult<Self> {
        Self::patient(url, PATIENCE)
    }

    /// One whose commands may wait for `longest` on the server, like BLPOP: others would wait behind them.
    ///
    /// # Errors
    /// When the URL is none.
    pub fn waiting(url: &str, longest: Duration) -> RedisResult<Self> {
        Self::patient(url, PATIENCE + longest)
    }

    fn patient(url: &str, patience: Duration) -> RedisResult<Self> {
        let way = match url.split_once("-cluster://") {
            None => {
                let config = ConnectionManagerConfig::new()
                    .set_connection_timeout(Some(PATIENCE))
                    .set_response_timeout(Some(patience))
                    .set_number_of_retries(1);
                Way::Server(ConnectionManager::new_lazy_with_config(Client::open(url)?, config)?)
            }
            Some((scheme, nodes)) => {
                let (user, nodes) = nodes.split_at(nodes.rfind('@').map_or(0, |at| at + 1));
                let nodes = nodes.split(',').map(|node| format!("{scheme}://{user}{node}"));
                let client = ClusterClient::builder(nodes)
                    .connection_timeout(PATIENCE)
                    .response_timeout(patience)
                    .overall_response_timeout(Some(patience))
                    .build()?;
                Way::Cluster(Arc::new(client), Arc::default())
            }
        };
        Ok(Self { way, patience })
    }
}

/// The connection, made by whoever needs it first; the others wait for that.
async fn connected(
    client: &ClusterClient,
    connection: &OnceCell<ClusterConnection>,
) -> RedisResult<ClusterConnection> {
    connection.get_or_try_init(|| client.get_async_connection()).await.cloned()
}

async fn within<T>(patience: Duration, answer: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
    timeout(patience, answer).await.unwrap_or_else(|_| Err((ErrorKind::Io, "Redis is silent").into()))
}

impl ConnectionLike for Redis {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match &mut self.way {
            Way::Server(server) => server.req_packed_command(command),
            Way::Cluster(client, connection) => Box::pin(within(self.patience, async {
                connected(client, connection).await?.req_packed_command(command).await
            })),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match &mut self.way {
            Way::Server(server) => server.req_packed_commands(pipeline, offset, count),
            Way::Cluster(client, connection) => Box::pin(within(self.patience, async move {
                let mut connection = connected(client, connection).await?;
                if pipeline.is_transaction() {
                    return connection.req_packed_commands(pipeline, offset, count).await;
                }
                // Its keys may have different owners, so that each command goes by itself; in order, as one may follow from another.
                let mut answers = Vec::with_capacity(count);
                for command in pipeline.cmd_iter() {
                    answers.push(connection.req_packed_command(command).await?);
                }
                Ok(answers)
            })),
        }
    }

    fn get_db(&self) -> i64 {
        match &self.way {
            Way::Server(server) => server.get_db(),
            // A cluster has no other.
            Way::Cluster(..) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use redis::AsyncCommands;
    use weir_testkit::RedisCluster;

    use super::*;

    #[test]
    fn what_is_no_url_is_refused() {
        let tried =
            |url: &str| tokio::runtime::Runtime::new().unwrap().block_on(async { Redis::at(url).is_ok() });
        for good in ["redis://127.0.0.1:1", "redis-cluster://a:1,b:2", "redis-cluster://user:word@a:1,b:2"] {
            assert!(tried(good), "{good}");
        }
        for bad in ["127.0.0.1:1", "http://127.0.0.1", "redis-cluster://", "redis-cluster://a:1,"] {
            assert!(!tried(bad), "{bad}");
        }
    }

    #[tokio::test]
    async fn keys_of_different_owners_go_into_one_batch_and_a_failover_is_followed() {
        let cluster = RedisCluster::start();
        let url = cluster.addresses().replace("[", "redis-cluster://").replace("]", "").replace(' ', "");
        let mut redis = Redis::at(&url).unwrap();
        let mut batch = redis::pipe();
        let keys: Vec<_> = (0..30).map(|number| format!("key:{number}")).collect();
        keys.iter().enumerate().for_each(|(number, key)| {
            batch.set(key, number).ignore().get(key);
        });
        let got: Vec<usize> = batch.query_async(&mut redis).await.unwrap();
        assert_eq!(got, (0..30).collect::<Vec<_>>(), "in their order");

        cluster.nodes()[0].child().signal("KILL");
        let answered = async {
            for key in &keys {
                let mut redis = redis.clone();
                while redis.incr::<_, _, i64>(key, 1).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        };
        timeout(weir_testkit::READY_WITHIN, answered).await.expect("a replica takes over");
    }
}
