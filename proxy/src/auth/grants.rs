//! Roles and permissions that are kept apart from sessions, each user's under a key of its own: taken back there, they are
//! taken back at once, whatever a session or a signed token still says.

use std::{sync::Arc, time::SystemTime};

use serde_json::Value;
use weir_config::{
    plan,
    template::{Template, Variable},
};

use super::{
    claim::Claim,
    lookup::{Kind, Mirror, Read},
    session::{Lists, Session, words},
    source::{Said, Source, Unavailable},
    token::Token,
};

/// What one user is and may do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Grants {
    pub(super) roles: Box<[String]>,
    pub(super) permissions: Box<[String]>,
}

/// The grants of all users.
pub(super) struct Granted {
    mirror: Mirror<Grants>,
    field: Box<str>,
}

impl Granted {
    /// Shape:  must be called within a tokio runtime.
    pub(super) fn new(plan: &plan::Session, key: &Template, source: Source) -> Option<Self> {
        let field = key.variables().find_map(|variable| match variable {
            Variable::Session(field) => Some(field.clone()),
            _ => None,
        })?;
        Some(Self { mirror: Mirror::new(plan, kind, source, None), field })
    }

    /// The session with its user's grants; `None` when they have to be looked up.
    pub(super) fn known(&self, session: &Arc<Session>, now: SystemTime) -> Option<Arc<Session>> {
        let grants = match self.name(session) {
            Some(name) => self.mirror.known(&name, now)?.at(now),
            None => None,
        };
        Some(session.with(grants))
    }

    /// As [`Granted::known`], looking them up.
    pub(super) async fn look_up(
        &self,
        session: &Arc<Session>,
        now: SystemTime,
    ) -> Result<Arc<Session>, Unavailable> {
        let grants = match self.name(session) {
            Some(name) => self.mirror.look_up(&name, now).await?.at(now),
            None => None,
        };
        Ok(session.with(grants))
    }

    pub(super) fn is_answered(&self) -> bool {
        self.mirror.is_answered()
    }

    /// Whose they are; who cannot be named in a key has none.
    fn name(&self, session: &Session) -> Option<Claim> {
        Token::parse(session.field(&self.field)?.as_bytes()).map(Claim::from)
    }
}

fn kind() -> Kind<Grants> {
    let read = |said| {
        let Said::Text(text) = said else { return None };
        Grants::parse(std::str::from_utf8(&text).ok()?).map(|fact| Read { fact, until: None })
    };
    Kind {
        what: "a list of roles",
        read: Box::new(read),
        nothings: (1, 1),
        nothing_lasts: true,
        sliding: None,
    }
}

impl Grants {
    /// Reads `admin`, `user,editor`, `["user"]` or `{"roles":["user"],"permissions":["vault:write"]}`.
    fn parse(text: &str) -> Option<Self> {
        let list = |value: Option<&Value>| Some(Lists::Texts.read(value).ok()?.into_boxed_slice());
        match text.trim_start().starts_with(['[', '{', '"']).then(|| serde_json::from_str(text)) {
            None => Some(Self { roles: words(text).into(), permissions: Box::default() }),
            Some(Ok(Value::Object(object))) => Some(Self {
                roles: list(object.get("roles"))?,
                permissions: list(object.get("permissions"))?,
            }),
            Some(Ok(value)) => Some(Self { roles: list(Some(&value))?, permissions: Box::default() }),
            Some(Err(_)) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test's panic is its report")]
    use super::*;

    #[test]
    fn roles_are_words_a_list_or_an_object() {
        let read = |text: &str| {
            let grants = Grants::parse(text)?;
            Some((grants.roles.join("|"), grants.permissions.join("|")))
        };
        let of = |roles: &str, permissions: &str| Some((roles.to_owned(), permissions.to_owned()));
        assert_eq!(read("admin"), of("admin", ""));
        assert_eq!(read("user, editor\n"), of("user|editor", ""));
        assert_eq!(read(r#"["user","a b"]"#), of("user|a b", ""));
        assert_eq!(read(r#""user editor""#), of("user|editor", ""));
        assert_eq!(
            read(r#"{"roles":["user"],"permissions":"vault:read vault:write"}"#),
            of("user", "vault:read|vault:write")
        );
        assert_eq!(read(""), of("", ""));
        for bad in ["[1]", "{", r#"{"roles":1}"#, r#"["user""#] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_session_keeps_what_it_was_given_and_has_nothing_of_its_own_beside_it() {
        let session = Arc::new(Session::parse(r#"{"user_id":"u","roles":["root"]}"#).unwrap());
        let grants = Arc::new(Grants::parse(r#"{"roles":["user"],"permissions":["read"]}"#).unwrap());
        let first = session.with(Some(Arc::clone(&grants)));
        assert_eq!(
            (first.roles(), first.permissions()),
            (&["user".to_owned()][..], &["read".to_owned()][..])
        );
        assert!(Arc::ptr_eq(&first, &session.with(Some(grants))), "made once");
        assert_eq!(session.with(None).roles(), [""; 0], "whose key is gone has no role");
    }
}
