//! Sessions in Redis, where the edges read them: `session:{token}` → the flat JSON of [`Session`].

use std::time::Duration;

use redis::{AsyncCommands, RedisResult, SetExpiry, SetOptions};

use super::Session;
use crate::{fleet::Redis, token::Token};

/// Publishes a session for `ttl`.
///
/// # Errors
/// When Redis did not take it.
pub async fn put(redis: &Redis, token: &Token, session: &Session, ttl: Duration) -> RedisResult<()> {
    let json = serde_json::to_string(session).expect("a session has only strings and numbers");
    let options = SetOptions::default().with_expiration(SetExpiry::EX(ttl.as_secs()));
    redis.clone().set_options(key(token), json, options).await
}

/// Takes sessions back.
///
/// # Errors
/// When Redis did not confirm it.
pub async fn remove(redis: &Redis, tokens: &[Token]) -> RedisResult<()> {
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
