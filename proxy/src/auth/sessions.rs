//! The sessions of one name in the plan: from a token to who it is.

use std::{fmt, sync::Arc, time::SystemTime};

use weir_config::plan;

use super::{
    lookup::{Kind, Mirror, Read},
    session::{Fields, Session},
    source::{Source, Unavailable},
    token::{Digest, Token},
};

/// Where the sessions of a plan's name come from, and what is remembered of them.
#[derive(Clone)]
pub struct Sessions(Arc<Inner>);

struct Inner {
    sessions: Mirror<Session>,
}

/// Sessions under tokens.
pub(super) fn kind(fields: &Fields) -> Kind<Session> {
    let fields = fields.to_vec();
    let read = move |said| {
        let session = Session::read(said, &fields).ok()?;
        let until = session.expires_at();
        Some(Read { fact: session, until })
    };
    // Tokens can be invented: those that are nobody's have less room than those that are somebody's, and none on an old word.
    Kind { what: "a session", read: Box::new(read), nothings: (1, 8), nothing_lasts: false }
}

impl Sessions {
    /// Sessions of `plan`, asked of `source`; `ask` is asked when that is a Redis that does not answer.
    ///
    /// Shape:  must be called within a tokio runtime.
    #[must_use]
    pub fn new(plan: &plan::Session, source: Source, ask: Option<Source>) -> Self {
        let sessions = Mirror::new(plan, || kind(&plan.fields), source, ask);
        Self(Arc::new(Inner { sessions }))
    }

    /// Whether the source answered the last time it was asked; before the first time, yes.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.0.sessions.is_answered()
    }

    /// What memory knows: `None` when the source has to be asked, `Some(None)` for a token that is surely invalid.
    #[must_use]
    pub fn known(&self, token: &Token, now: SystemTime) -> Option<Option<Arc<Session>>> {
        Some(self.0.sessions.known(&token.digest(), now)?.at(now))
    }

    /// The session of `token`, from memory or from the source; `None` where there is no valid one.
    ///
    /// Errors: [`Unavailable`] when memory does not know and the source does not answer.
    pub async fn validate(
        &self,
        token: &Token,
        now: SystemTime,
    ) -> Result<Option<Arc<Session>>, Unavailable> {
        Ok(self.0.sessions.look_up(token, now).await?.at(now))
    }

    /// Forgets a token at once: after a logout, or when somebody else says that it changed.
    pub fn forget(&self, token: Digest) {
        self.0.sessions.forget(token);
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sessions").field(&self.0.sessions).finish()
    }
}
