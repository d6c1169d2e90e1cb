//! Where sessions are looked up when memory does not know: the fleet's Redis, or the origin.
//!
//! A source that does not answer in time is [`Unavailable`], which is not "no": nobody is let in, and nobody is told
//! that their session is gone.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Response, StatusCode};
use redis::Value;
use weir_config::{
    plan,
    plan::{AskAnswer, SessionFormat},
    template::{Part, Template},
};

use super::{
    claim::{Claim, No},
    token::Token,
};
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

/// What an upstream is asked: GET.
#[derive(Debug, Clone)]
pub struct Question<'q> {
    /// What for.
    pub path: &'q str,
    /// With these fields.
    pub fields: HeaderMap,
    /// Which statuses are answers; others are its trouble.
    pub is_answer: fn(StatusCode) -> bool,
    /// How long all of it may take, whoever is asked.
    pub within: Duration,
}

/// An upstream that is asked about callers: whose token is this, which keys are good?
#[async_trait::async_trait]
pub trait Ask: fmt::Debug + Send + Sync {
    /// Asks, another peer if need be.
    ///
    /// Errors: [`Unavailable`] for what is no answer, and for one that takes too long, or is too long: that bound is the asker's.
    async fn ask(&self, question: Question<'_>) -> Result<Response<Bytes>, Unavailable>;
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
        /// For what, and how.
        plan: plan::AskOrigin,
    },
}

/// What a source holds under a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) said: Said,
    /// How long it will be there, if the source says.
    pub(super) left: Option<Duration>,
}

/// How it says that.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// A text, JSON mostly.
    Text(Vec<u8>),
    /// The fields of a hash, which are texts themselves.
    Hash(Vec<(String, String)>),
    /// The fields of a yes, which need not say whose it is where the plan names no such field.
    Yes(Vec<(String, String)>),
}

/// What came of a look-up.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LookedUp {
    /// There is something.
    Held(Held),
    /// There is nothing; and what was said to that.
    Nothing(Option<No>),
}

impl Source {
    /// What is under `claim`, if there is anything.
    pub(super) async fn look_up(&self, claim: &Claim) -> Result<LookedUp, Unavailable> {
        match self {
            Self::Redis(redis) => match claim.token() {
                Some(token) => redis
                    .look_up(token)
                    .await
                    .map(|held| held.map_or(LookedUp::Nothing(None), LookedUp::Held)),
                None => Ok(LookedUp::Nothing(None)),
            },
            Self::Ask { ask, plan } => ask_for(&**ask, plan, claim).await,
        }
    }
}

/// Its yes is a session; of a token 401, 403 and 404 are none, of a request 401 and 403.
async fn ask_for(ask: &dyn Ask, plan: &plan::AskOrigin, claim: &Claim) -> Result<LookedUp, Unavailable> {
    let is_told = !plan.told.is_empty();
    let is_answer: fn(StatusCode) -> bool = match (&plan.answer, is_told) {
        (AskAnswer::Json, false) => |status: StatusCode| status == StatusCode::OK || is_no(status),
        (AskAnswer::Json, true) => |status: StatusCode| status == StatusCode::OK || is_refusal(status),
        (AskAnswer::Headers(_), false) => |status: StatusCode| status.is_success() || is_no(status),
        (AskAnswer::Headers(_), true) => |status: StatusCode| status.is_success() || is_refusal(status),
    };
    let fields = claim.fields(&plan.token).map_err(Unavailable::new)?;
    let question = Question { path: &plan.path, fields, is_answer, within: plan.timeout };
    let answer = ask.ask(question).await?;
    if !answer.status().is_success() {
        return Ok(LookedUp::Nothing(No::of(answer.status(), answer.headers(), is_told)));
    }
    let said = match &plan.answer {
        AskAnswer::Json => Said::Text(answer.into_body().into()),
        AskAnswer::Headers(names) => {
            let text = |name: &HeaderName| {
                // One that is there twice says nothing.
                let mut values = answer.headers().get_all(name).iter();
                let value = values.next().filter(|_| values.next().is_none())?.to_str().ok()?;
                Some((name.as_str().to_owned(), value.to_owned()))
            };
            let fields = names.iter().filter_map(text).collect();
            if is_told { Said::Yes(fields) } else { Said::Hash(fields) }
        }
    };
    Ok(LookedUp::Held(Held { said, left: None }))
}

/// nginx's two for `auth_request`; whatever else the service answers is its trouble.
fn is_refusal(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}

fn is_no(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND)
}

/// Something in Redis, each under its own key.
pub struct RedisSource {
    pub(super) key: Template,
    pub(super) redis: Redis,
    form: Form,
}

/// In which form Redis holds something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A text (GET).
    Text,
    /// A hash (HGETALL).
    Hash,
    /// A text (GET), and one that cannot be read where something else is there: what it is for must not be lost on that.
    Time,
    /// Anything; what counts is that it is there (EXISTS).
    Mark,
}

impl From<SessionFormat> for Form {
    fn from(format: SessionFormat) -> Self {
        match format {
            SessionFormat::Json => Self::Text,
            SessionFormat::Hash => Self::Hash,
        }
    }
}

impl RedisSource {
    /// What is under `key`, whose variable is what is looked up.
    #[must_use]
    pub fn new(redis: Redis, key: Template, form: Form) -> Self {
        Self { key, redis, form }
    }

    async fn look_up(&self, token: &Token) -> Result<Option<Held>, Unavailable> {
        get(self.redis.clone(), &key(self.key.parts(), token), self.form).await
    }

    /// Has these keys live on for `sliding`, where that is longer than they have; those that are gone stay so.
    pub(super) async fn touch(&self, tokens: &[Token], sliding: Duration) -> Result<(), Unavailable> {
        let millis = i64::try_from(sliding.as_millis()).unwrap_or(i64::MAX);
        // One by one, all at once: in a cluster each has an owner of its own.
        let touches = tokens.iter().map(async |token| {
            let mut touch = redis::cmd("PEXPIRE");
            touch.arg(key(self.key.parts(), token)).arg(millis).arg("GT");
            touch.query_async::<()>(&mut self.redis.clone()).await
        });
        let touched = futures_util::future::try_join_all(touches).await;
        touched.map(|_| ()).map_err(|problem| Unavailable::new(Causes(&problem)))
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
            // The plan sees to it that there is one, and that it is what is looked up.
            Part::Value(_) => key.push_str(token.expose()),
        }
    }
    key
}

async fn get(mut redis: Redis, key: &str, form: Form) -> Result<Option<Held>, Unavailable> {
    let mut question = redis::pipe();
    match form {
        Form::Text | Form::Time => question.get(key),
        Form::Hash => question.hgetall(key),
        Form::Mark => question.exists(key),
    };
    question.pttl(key);
    let (said, left): (Value, i64) = match question.query_async(&mut redis).await {
        Ok(held) => held,
        // Something else is kept under what a client made up: no session, and no trouble of Redis.
        Err(problem) if is_another_kind(&problem) => {
            let unread = Held { said: Said::Text(Vec::new()), left: None };
            return Ok((form == Form::Time).then_some(unread));
        }
        Err(problem) => return Err(Unavailable::new(Causes(&problem))),
    };
    // -1: it does not end by itself; -2: it has ended since.
    let left = u64::try_from(left.max(0)).ok().map(Duration::from_millis).filter(|_| left != -1);
    Ok(read(said).map(|said| Held { said, left }))
}

/// Whether the key holds a list, or whatever else we did not ask for.
fn is_another_kind(problem: &redis::RedisError) -> bool {
    let answers = problem.clone().into_server_errors();
    answers.is_some_and(|errors| errors.iter().any(|(_, error)| error.code() == "WRONGTYPE"))
}

/// What Redis answered; what is not there at all is nil, or a hash without fields.
fn read(said: Value) -> Option<Said> {
    match said {
        Value::BulkString(text) => Some(Said::Text(text)),
        Value::Int(there) => (there != 0).then(|| Said::Text(Vec::new())),
        // What is no text is no field of ours.
        hash => {
            let fields = redis::from_redis_value::<Vec<(Vec<u8>, Vec<u8>)>>(hash).ok()?.into_iter();
            let fields = fields.filter_map(|(name, value)| {
                Some((String::from_utf8(name).ok()?, String::from_utf8(value).ok()?))
            });
            Some(Said::Hash(fields.collect())).filter(|said| *said != Said::Hash(Vec::new()))
        }
    }
}

#[cfg(test)]
mod tests;
