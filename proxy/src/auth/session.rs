//! A session as its source holds it: JSON with the caller's fields, their roles and an end.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwapOption;
use serde_json::Value;

use super::identity::Signed;

/// Who a caller proved to be.
pub struct Session {
    user_id: Box<str>,
    /// All scalars of the JSON as text, in the order of their names.
    fields: Box<[(Box<str>, Box<str>)]>,
    roles: Box<[String]>,
    /// In whole seconds of Unix time.
    expires_at: Option<u64>,
    /// The identity header as it was last signed for this session; [`super::identity`] reads and writes it.
    pub(super) signed: ArcSwapOption<Signed>,
}

/// What a source holds under a token is not a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotASession;

impl Session {
    /// Reads `{"user_id":"…","session_id":"…","email":"…","roles":["user"],"expires_at":1730000000, …}`.
    ///
    /// Shape:  only `user_id` must be there; every string, number and boolean is a field of `${session.NAME}`.
    /// Units:  `expires_at` in seconds of Unix time; without one the source alone ends the session.
    /// Errors: [`NotASession`], also for roles or an end of another type: a session is not guessed at.
    pub fn parse(json: &str) -> Result<Self, NotASession> {
        let Ok(Value::Object(object)) = serde_json::from_str(json) else { return Err(NotASession) };
        let roles = match object.get("roles") {
            None | Some(Value::Null) => Vec::new(),
            Some(roles) => serde_json::from_value(roles.clone()).map_err(|_| NotASession)?,
        };
        let expires_at = match object.get("expires_at") {
            None | Some(Value::Null) => None,
            Some(at) => Some(at.as_u64().ok_or(NotASession)?),
        };
        let mut fields: Vec<(Box<str>, Box<str>)> = Vec::with_capacity(object.len());
        for (name, value) in object {
            let text = match value {
                Value::String(text) => text,
                Value::Number(number) => number.to_string(),
                Value::Bool(bool) => bool.to_string(),
                Value::Null | Value::Array(_) | Value::Object(_) => continue,
            };
            fields.push((name.into(), text.into()));
        }
        fields.sort_unstable();
        let mut session = Self {
            user_id: "".into(),
            fields: fields.into(),
            roles: roles.into(),
            expires_at,
            signed: ArcSwapOption::empty(),
        };
        session.user_id = session.field("user_id").filter(|id| !id.is_empty()).ok_or(NotASession)?.into();
        Ok(session)
    }

    /// The caller's id; never empty.
    #[must_use]
    pub fn user_id(&self) -> &str {
        &self.user_id
    }

    /// A scalar field, as `${session.NAME}` has it.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        let at = self.fields.binary_search_by(|(known, _)| (**known).cmp(name)).ok()?;
        Some(&self.fields[at].1)
    }

    /// What the caller may do.
    #[must_use]
    pub fn roles(&self) -> &[String] {
        &self.roles
    }

    /// When the session ends, where it says so itself.
    #[must_use]
    pub fn expires_at(&self) -> Option<SystemTime> {
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(self.expires_at?))
    }

    /// Whether it is over.
    #[must_use]
    pub fn has_expired(&self, now: SystemTime) -> bool {
        self.expires_at().is_some_and(|end| end <= now)
    }

    /// The session if it is not over: an expired one is as good as unknown.
    pub(super) fn current(session: Option<Arc<Self>>, now: SystemTime) -> Option<Arc<Self>> {
        session.filter(|session| !session.has_expired(now))
    }
}

/// Names the caller and nothing else: the fields are personal data.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("user_id", &self.user_id).field("roles", &self.roles).finish_non_exhaustive()
    }
}

impl PartialEq for Session {
    fn eq(&self, other: &Self) -> bool {
        // The user's id is one of the fields.
        (&self.fields, &self.roles, self.expires_at) == (&other.fields, &other.roles, other.expires_at)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test's panic is its report")]
    use super::*;

    #[test]
    fn scalars_are_fields_and_the_rest_is_not() {
        let json = r#"{"user_id":"u1","session_id":"s1","plan":3,"verified":true,"x":null,"y":{},"roles":["user"]}"#;
        let session = Session::parse(json).unwrap();
        assert_eq!((session.user_id(), session.roles()), ("u1", ["user".to_owned()].as_slice()));
        assert_eq!(session.field("plan"), Some("3"));
        assert_eq!(session.field("verified"), Some("true"));
        assert_eq!((session.field("x"), session.field("y"), session.field("roles")), (None, None, None));
        assert!(!format!("{session:?}").contains("s1"));
    }

    #[test]
    fn a_session_ends_when_it_says() {
        let session = Session::parse(r#"{"user_id":"u","expires_at":100}"#).unwrap();
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert!(!session.has_expired(at(99)) && session.has_expired(at(100)));
        assert!(!Session::parse(r#"{"user_id":"u"}"#).unwrap().has_expired(at(1 << 40)));
    }

    #[test]
    fn what_is_not_surely_a_session_is_none() {
        for json in [
            "",
            "[]",
            "null",
            "{}",
            r#"{"user_id":""}"#,
            r#"{"user_id":null}"#,
            r#"{"user_id":"u","roles":"admin"}"#,
            r#"{"user_id":"u","roles":[1]}"#,
            r#"{"user_id":"u","expires_at":"soon"}"#,
            r#"{"user_id":"u","expires_at":-1}"#,
        ] {
            assert!(Session::parse(json).is_err(), "{json}");
        }
    }
}
