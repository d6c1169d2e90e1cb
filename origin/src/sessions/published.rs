//! Sessions in Redis, where the edges read them: `session:{token}` → the flat JSON of [`Session`].

use std::time::Duration;

use redis::{
    AsyncCommands, Client, RedisResult, SetExpiry, SetOptions,
    aio::{ConnectionManager, ConnectionManagerConfig},
};

use super::Session;
use crate::token::Token;

/// Longest wait for Redis: it answers within a millisecond or something is wrong.
const PATIENCE: Duration = Duration::from_secs(1);

/// A connection that is made when first needed and made again when it breaks: an origin starts without Redis.
///
/// # Errors
/// When the URL is not one.
pub fn connect(url: &str) -> RedisResult<ConnectionManager> {
    let config = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(PATIENCE))
        .set_response_timeout(Some(PATIENCE))
        .set_number_of_retries(1);
    ConnectionManager::new_lazy_with_config(Client::open(url)?, config)
}

/// Publishes a session for `ttl`.
///
/// # Errors
/// When Redis did not take it.
pub async fn put(
    redis: &ConnectionManager,
    token: &Token,
    session: &Session,
    ttl: Duration,
) -> RedisResult<()> {
    let json = serde_json::to_string(session).expect("a session has only strings and numbers");
    let options = SetOptions::default().with_expiration(SetExpiry::EX(ttl.as_secs()));
    redis.clone().set_options(key(token), json, options).await
}

/// Takes sessions back.
///
/// # Errors
/// When Redis did not confirm it.
pub async fn remove(redis: &ConnectionManager, tokens: &[Token]) -> RedisResult<()> {
    // A DEL without keys is an error.
    if tokens.is_empty() {
        return Ok(());
    }
    // One command each: in a cluster their keys live on different masters.
    let mut batch = redis::pipe();
    for token in tokens {
        batch.del(key(token)).ignore();
    }
    batch.query_async(&mut redis.clone()).await
}

fn key(token: &Token) -> String {
    format!("session:{}", token.expose())
}
