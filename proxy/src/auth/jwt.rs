//! Tokens that are signed: checked once, remembered until their end, and looked up only in the lists of what was revoked.
//!
//! Whoever signs says who the caller is, and Redis says only that this does not count any more: by a key for one token
//! (`revoked`), or by the time up to which a user's tokens are void (`revoked_before`). Both are mirrored as sessions are
//! ([`super::lookup`]), so that neither a valid nor a revoked token needs a question while Redis can be heard.
//!
//! A token that is not valid is not remembered: there is no end to them, and refusing one costs a signature at most.

mod check;
mod keys;
mod rotation;

use std::{
    sync::{Arc, atomic::Ordering},
    time::SystemTime,
};

use weir_config::{
    plan,
    template::{Template, Variable},
};

pub use self::keys::BadKeys;
use self::{check::Parts, rotation::Keys};
use super::{
    claim::Claim,
    lookup::{Kind, Mirror, Read},
    memory::{Answer, Sharded},
    session::Session,
    source::{Ask, Said, Source, Unavailable},
    token::{Digest, Token},
};

/// The tokens of one name in the plan.
pub(super) struct Jwt {
    name: Arc<str>,
    plan: plan::Jwt,
    fields: Vec<(String, String)>,
    keys: Arc<Keys>,
    verified: Sharded<Arc<Verified>>,
    revoked: Option<List<()>>,
    revoked_before: Option<List<u64>>,
}

/// What of revocations is in Redis, by a field of the session.
struct List<T> {
    mirror: Mirror<T>,
    field: Box<str>,
}

/// A token whose signature and claims are right.
struct Verified {
    session: Arc<Session>,
    issued_at: Option<u64>,
    until: Option<SystemTime>,
    /// The keys that it was checked with.
    keys: u64,
    /// Under which names it would be revoked.
    names: [Option<Claim>; 2],
}

/// Where the lists of revocations are.
#[derive(Debug, Default)]
pub(super) struct Lists {
    /// Of tokens.
    pub(super) revoked: Option<Source>,
    /// Of times.
    pub(super) revoked_before: Option<Source>,
}

impl Jwt {
    /// Tokens as `plan` says, whose keys are asked of `ask` where that says so.
    ///
    /// Shape:  must be called within a tokio runtime.
    pub(super) fn new(
        session: &plan::Session,
        plan: &plan::Jwt,
        ask: Option<Arc<dyn Ask>>,
        lists: Lists,
    ) -> Result<Self, BadKeys> {
        let revoked = lists.revoked.map(|source| Mirror::new(session, mark, source, None));
        let before = lists.revoked_before.map(|source| Mirror::new(session, time, source, None));
        Ok(Self {
            name: Arc::clone(&session.name),
            plan: plan.clone(),
            fields: session.fields.clone(),
            keys: Keys::new(&session.name, &plan.keys, ask)?,
            verified: Sharded::new(session.memory_entries),
            revoked: List::of(revoked, plan.revoked.as_ref()),
            revoked_before: List::of(before, plan.revoked_before.as_ref()),
        })
    }

    /// From now on the keys are asked of `ask`.
    pub(super) fn ask_now(&self, ask: Arc<dyn Ask>) {
        self.keys.ask_now(ask);
    }

    /// Whether all that is asked answered the last time.
    pub(super) fn is_answered(&self) -> bool {
        self.keys.is_answered()
            && self.revoked.as_ref().is_none_or(|list| list.mirror.is_answered())
            && self.revoked_before.as_ref().is_none_or(|list| list.mirror.is_answered())
    }

    /// What memory knows: `None` when the token has to be checked, or its revocation to be looked up.
    pub(super) fn known(&self, token: &Digest, now: SystemTime) -> Option<Option<Arc<Session>>> {
        let verified = self.remembered(token)?;
        if verified.until.is_some_and(|until| until <= now) {
            return Some(None);
        }
        let [token, time] = &verified.names;
        if let (Some(list), Some(name)) = (&self.revoked, token)
            && list.mirror.known(name, now)?.at(now).is_some()
        {
            return Some(None);
        }
        if let (Some(list), Some(name)) = (&self.revoked_before, time)
            && verified.is_before(&list.mirror.known(name, now)?, now)
        {
            return Some(None);
        }
        Some(Some(Arc::clone(&verified.session)))
    }

    /// Checks a token, and looks up whether it was revoked.
    pub(super) async fn validate(
        &self,
        claim: &Claim,
        now: SystemTime,
    ) -> Result<Option<Arc<Session>>, Unavailable> {
        let Some(token) = claim.token() else { return Ok(None) };
        let verified = match self.remembered(claim.digest()) {
            Some(verified) => verified,
            None => match self.verify(token, now).await? {
                Some(verified) => {
                    self.verified.put(*claim.digest(), Arc::clone(&verified));
                    verified
                }
                None => return Ok(None),
            },
        };
        if verified.until.is_some_and(|until| until <= now) {
            return Ok(None);
        }
        let [token, time] = &verified.names;
        if let (Some(list), Some(name)) = (&self.revoked, token)
            && list.mirror.look_up(name, now).await?.at(now).is_some()
        {
            return Ok(None);
        }
        if let (Some(list), Some(name)) = (&self.revoked_before, time)
            && verified.is_before(&list.mirror.look_up(name, now).await?, now)
        {
            return Ok(None);
        }
        Ok(Some(Arc::clone(&verified.session)))
    }

    /// Whoever asks next looks again whether it was revoked.
    pub(super) fn forget(&self, token: Digest) {
        let Some(verified) = self.verified.get(&token) else { return };
        self.verified.forget(&token);
        let [token, time] = &verified.names;
        if let (Some(list), Some(name)) = (&self.revoked, token) {
            list.mirror.forget(*name.digest());
        }
        if let (Some(list), Some(name)) = (&self.revoked_before, time) {
            list.mirror.forget(*name.digest());
        }
    }

    fn remembered(&self, token: &Digest) -> Option<Arc<Verified>> {
        self.verified.get(token).filter(|verified| verified.keys == self.keys.number.load(Ordering::Acquire))
    }

    async fn verify(&self, token: &Token, now: SystemTime) -> Result<Option<Arc<Verified>>, Unavailable> {
        let parts = match Parts::of(token.expose(), &self.plan) {
            Ok(parts) => parts,
            Err(why) => return Ok(self.refuse(why)),
        };
        let keys = self.keys.with(parts.key_id.as_deref()).await?;
        let claims = match parts.check(&keys.set, &self.plan, &self.fields, now) {
            Ok(claims) => claims,
            Err(why) => return Ok(self.refuse(why)),
        };
        let name = |field: &str| Token::parse(claims.session.field(field)?.as_bytes()).map(Claim::from);
        let names = [
            self.revoked.as_ref().map(|list| name(&list.field)),
            self.revoked_before.as_ref().map(|list| name(&list.field)),
        ];
        // What cannot be named cannot be revoked.
        if names.iter().any(|name| matches!(name, Some(None))) {
            return Ok(self.refuse(check::Invalid::Claim));
        }
        Ok(Some(Arc::new(Verified {
            session: Arc::new(claims.session),
            issued_at: claims.issued_at,
            until: claims.until,
            keys: keys.number,
            names: names.map(Option::flatten),
        })))
    }

    fn refuse<T>(&self, why: check::Invalid) -> Option<T> {
        tracing::debug!(session = %self.name, ?why, "a token is not valid");
        None
    }
}

impl Verified {
    /// Whether it was issued when tokens did not count yet; one that does not say so, at any time.
    fn is_before(&self, time: &Answer<u64>, now: SystemTime) -> bool {
        time.at(now).is_some_and(|time| self.issued_at.is_none_or(|at| at <= *time))
    }
}

impl<T> List<T> {
    fn of(mirror: Option<Mirror<T>>, key: Option<&Template>) -> Option<Self> {
        let field = key?.variables().find_map(|variable| match variable {
            Variable::Session(field) => Some(field.clone()),
            _ => None,
        })?;
        Some(Self { mirror: mirror?, field })
    }
}

/// A key that is there.
fn mark() -> Kind<()> {
    let read = |_| Some(Read { fact: (), until: None });
    // Nearly all tokens are not revoked, and stay so as long as sessions would.
    Kind { what: "a mark", read: Box::new(read), nothings: (1, 1), nothing_lasts: true, sliding: None }
}

/// A key with a time.
fn time() -> Kind<u64> {
    let read = |said| {
        let Said::Text(text) = said else { return None };
        let time = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok());
        // Whatever it is, somebody wrote it to revoke something.
        Some(Read { fact: time.unwrap_or(u64::MAX), until: None })
    };
    Kind { what: "a time", read: Box::new(read), nothings: (1, 1), nothing_lasts: true, sliding: None }
}
