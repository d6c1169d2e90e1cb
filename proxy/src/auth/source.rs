//! Where sessions are looked up when memory does not know: the fleet's Redis, or the origin.
//!
//! A source that does not answer in time is [`Unavailable`], which is not "no": nobody is let in, and nobody is told
//! that their session is gone.

use std::{fmt, sync::Arc, time::Duration};

use weir_config::template::{Part, Template, Variable};

use super::token::Token;
use crate::{causes::Causes, fleet::Redis};

/// The source of sessions did not answer: 503, worth trying again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unavailable {
    /// For the operator; no token, no password.
    pub cause: Arc<str>,
}

impl Unavailable {
    /// Says why, in the operator's words.
    #[must_use]
    pub fn new(cause: impl fmt::Display) -> Self {
        Self { cause: cause.to_string().into() }
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the source of sessions is unavailable: {}", self.cause)
    }
}

impl std::error::Error for Unavailable {}

/// The origin as a source: `GET path` with the token as bearer.
#[async_trait::async_trait]
pub trait Ask: fmt::Debug + Send + Sync {
    /// The body of a 200; `None` for 401, 403 and 404.
    ///
    /// Errors: [`Unavailable`] for everything else, and for an answer that takes too long: the bound is the asker's.
    async fn ask(&self, path: &str, token: &Token) -> Result<Option<String>, Unavailable>;
}

/// Where a plan's session looks tokens up.
#[derive(Debug)]
pub enum Source {
    /// `GET` of a key made from the token.
    Redis(RedisSource),
    /// The origin.
    Ask {
        /// Who asks.
        ask: Arc<dyn Ask>,
        /// For what.
        path: String,
    },
}

/// What a source holds under a token.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) json: String,
    /// How long it will be there, if the source says.
    pub(super) left: Option<Duration>,
}

impl Source {
    /// What is under `token`, if there is anything.
    pub(super) async fn look_up(&self, token: &Token) -> Result<Option<Held>, Unavailable> {
        match self {
            Self::Redis(redis) => redis.look_up(token).await,
            Self::Ask { ask, path } => Ok(ask.ask(path, token).await?.map(|json| Held { json, left: None })),
        }
    }
}

/// Sessions in Redis, each under its own key.
pub struct RedisSource {
    pub(super) key: Template,
    pub(super) redis: Redis,
}

impl RedisSource {
    /// Sessions under `key`, whose variable is the token.
    #[must_use]
    pub fn new(redis: Redis, key: Template) -> Self {
        Self { key, redis }
    }

    async fn look_up(&self, token: &Token) -> Result<Option<Held>, Unavailable> {
        get(self.redis.clone(), &key(self.key.parts(), token)).await
    }
}

impl fmt::Debug for RedisSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSource").field("key", &self.key).finish_non_exhaustive()
    }
}

/// The token goes into the key as it is: the origin that wrote the key did not escape it either.
fn key(parts: &[Part], token: &Token) -> String {
    let mut key = String::new();
    for part in parts {
        match part {
            Part::Text(text) => key.push_str(text),
            Part::Value(Variable::Token) => key.push_str(token.expose()),
            Part::Value(_) => {}
        }
    }
    key
}

async fn get(mut redis: Redis, key: &str) -> Result<Option<Held>, Unavailable> {
    let mut question = redis::pipe();
    question.get(key).pttl(key);
    let (json, left): (Option<String>, i64) = match question.query_async(&mut redis).await {
        Ok(held) => held,
        // Something else is kept under what a client made up: no session, and no trouble of Redis.
        Err(problem) if problem.code() == Some("WRONGTYPE") => return Ok(None),
        Err(problem) => return Err(Unavailable::new(Causes(&problem))),
    };
    // -1: it does not end by itself; -2: it has ended since.
    let left = u64::try_from(left.max(0)).ok().map(Duration::from_millis).filter(|_| left != -1);
    Ok(json.map(|json| Held { json, left }))
}

#[cfg(test)]
mod tests;
