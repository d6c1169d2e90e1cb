//! The sessions of one name in the plan: from a token to who it is.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use weir_config::plan;

use super::{
    claim::{Claim, Whose},
    grants::Granted,
    jwt::{BadKeys, Jwt, Lists},
    lookup::{Kind, Mirror, Read},
    memory::Answer,
    session::{Fields, Session},
    source::{Ask, Source, Unavailable},
    token::Digest,
};

/// The sessions of a plan's name, wherever they come from.
#[derive(Clone)]
pub struct Sessions(Arc<Inner>);

struct Inner {
    origin: Origin,
    granted: Option<Granted>,
}

/// Who says whose a token is.
enum Origin {
    /// Whoever holds something under it.
    Held(Mirror<Session>),
    /// Whoever signed it.
    Signed(Box<Jwt>),
}

/// Who is asked.
#[derive(Debug, Default)]
pub struct Sources {
    /// For what is under a token.
    pub held: Option<Source>,
    /// For the same, when that is a Redis that does not answer.
    pub ask: Option<Source>,
    /// For the keys of signed tokens.
    pub keys: Option<Arc<dyn Ask>>,
    /// Which signed tokens do not count any more.
    pub revoked: Option<Source>,
    /// Since when signed tokens count.
    pub revoked_before: Option<Source>,
    /// Which roles users have, where these are kept apart.
    pub roles: Option<Source>,
}

/// Sessions under tokens.
pub(super) fn kind(fields: &Fields, sliding: Option<Duration>) -> Kind<Session> {
    let fields = fields.to_vec();
    let read = move |said| {
        let session = Session::read(said, &fields).ok()?;
        let until = session.expires_at();
        Some(Read { fact: session, until })
    };
    // Tokens can be invented: those that are nobody's have less room than those that are somebody's, and none on an old word.
    Kind { what: "a session", read: Box::new(read), nothings: (1, 8), nothing_lasts: false, sliding }
}

impl Sessions {
    /// Sessions of `plan`, by what `sources` say.
    ///
    /// Shape:  must be called within a tokio runtime.
    /// Errors: [`BadKeys`] for what is given as keys and is none.
    pub fn new(plan: &plan::Session, sources: Sources) -> Result<Self, BadKeys> {
        let Sources { held, ask, keys, revoked, revoked_before, roles } = sources;
        let origin = match (&plan.jwt, held) {
            (Some(jwt), _) => {
                let jwt = Jwt::new(plan, jwt, keys, Lists { revoked, revoked_before })?;
                Origin::Signed(Box::new(jwt))
            }
            (None, held) => {
                let held = held.expect("a plan has sessions that are signed, or can be asked for");
                Origin::Held(Mirror::new(plan, || kind(&plan.fields, plan.sliding), held, ask))
            }
        };
        let granted = plan.roles_key.as_ref().zip(roles);
        let granted = granted.and_then(|(key, source)| Granted::new(plan, key, source));
        Ok(Self(Arc::new(Inner { origin, granted })))
    }

    /// From now on the keys of signed tokens are asked of `ask`.
    pub fn ask_now(&self, ask: Arc<dyn Ask>) {
        if let Origin::Signed(jwt) = &self.0.origin {
            jwt.ask_now(ask);
        }
    }

    /// Whether everybody who was asked answered the last time; before the first time, yes.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        let is_answered = match &self.0.origin {
            Origin::Held(sessions) => sessions.is_answered(),
            Origin::Signed(jwt) => jwt.is_answered(),
        };
        is_answered && self.0.granted.as_ref().is_none_or(Granted::is_answered)
    }

    /// What memory knows: `None` when somebody has to be asked.
    ///
    /// Shape:  must be called within a tokio runtime.
    #[must_use]
    pub fn known(&self, claim: &Claim, now: SystemTime) -> Option<Whose> {
        let whose = match &self.0.origin {
            Origin::Held(sessions) => {
                let answer = sessions.known(claim, now)?;
                sessions.used(claim, &answer, now);
                whose(answer, now)
            }
            Origin::Signed(jwt) => jwt.known(claim.digest(), now)?.into(),
        };
        match (whose, &self.0.granted) {
            (Whose::Session(session), Some(granted)) => Some(Whose::Session(granted.known(&session, now)?)),
            (whose, _) => Some(whose),
        }
    }

    /// Whose `claim` is, from memory or from whoever knows.
    ///
    /// Errors: [`Unavailable`] when memory does not know and nobody answers.
    pub async fn validate(&self, claim: &Claim, now: SystemTime) -> Result<Whose, Unavailable> {
        let whose = match &self.0.origin {
            Origin::Held(sessions) => {
                let answer = sessions.look_up(claim, now).await?;
                sessions.used(claim, &answer, now);
                whose(answer, now)
            }
            Origin::Signed(jwt) => jwt.validate(claim, now).await?.into(),
        };
        match (whose, &self.0.granted) {
            (Whose::Session(session), Some(granted)) => {
                granted.look_up(&session, now).await.map(Whose::Session)
            }
            (whose, _) => Ok(whose),
        }
    }

    /// Forgets a token at once: after a logout, or when somebody else says that it changed.
    pub fn forget(&self, token: Digest) {
        match &self.0.origin {
            Origin::Held(sessions) => sessions.forget(token),
            Origin::Signed(jwt) => jwt.forget(token),
        }
    }
}

/// Whose it is now.
fn whose(answer: Answer<Session>, now: SystemTime) -> Whose {
    answer.at(now).map_or(Whose::Nobody(answer.no), Whose::Session)
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.origin {
            Origin::Held(sessions) => f.debug_tuple("Sessions").field(sessions).finish(),
            Origin::Signed(_) => f.debug_tuple("Sessions").finish_non_exhaustive(),
        }
    }
}
