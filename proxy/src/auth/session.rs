//! A session as its source holds it: JSON, a hash or the claims of a token, with the caller's fields, their roles and an end.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwapOption;
use serde_json::{Map, Value};

use super::{grants::Grants, identity::Signed, source::Said};

/// Our names of fields, each with the source's own.
pub(super) type Fields = [(String, String)];

/// Who a caller proved to be.
pub struct Session {
    user_id: Box<str>,
    /// All scalars of the JSON as text, in the order of their names.
    fields: Box<[(Box<str>, Box<str>)]>,
    roles: Box<[String]>,
    permissions: Box<[String]>,
    /// In whole seconds of Unix time.
    expires_at: Option<u64>,
    /// The identity header as it was last signed for this session; [`super::identity`] reads and writes it.
    pub(super) signed: ArcSwapOption<Signed>,
    /// Itself with the grants that it was given last.
    granted: ArcSwapOption<WithGrants>,
}

#[derive(Debug)]
struct WithGrants {
    grants: Option<Arc<Grants>>,
    session: Arc<Session>,
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
        Self::read(Said::Text(json.into()), &[])
    }

    /// Reads what a source says, by its names of our `fields`.
    pub(super) fn read(said: Said, fields: &Fields) -> Result<Self, NotASession> {
        match said {
            Said::Text(json) => match serde_json::from_slice(&json) {
                Ok(Value::Object(object)) => Self::of(object, fields, Lists::Arrays).and_then(Self::named),
                _ => Err(NotASession),
            },
            Said::Hash(hash) => Self::of(texts(hash), fields, Lists::Texts).and_then(Self::named),
            Said::Yes(yes) => {
                let session = Self::of(texts(yes), fields, Lists::Texts)?;
                let says_whose = fields.iter().any(|(ours, _)| ours == "user_id");
                if says_whose { session.named() } else { Ok(session) }
            }
        }
    }

    /// The same, if it says whose it is.
    pub(super) fn named(self) -> Result<Self, NotASession> {
        if self.is_named() { Ok(self) } else { Err(NotASession) }
    }

    /// Whether it says whose it is; a service that is asked about requests need not.
    #[must_use]
    pub fn is_named(&self) -> bool {
        !self.user_id.is_empty()
    }

    /// A session of these values, whosever it is.
    pub(super) fn of(
        mut object: Map<String, Value>,
        fields: &Fields,
        lists: Lists,
    ) -> Result<Self, NotASession> {
        let ours = fields.iter().map(|(ours, theirs)| (ours.clone(), find(&object, theirs).cloned()));
        for (ours, value) in ours.collect::<Vec<_>>() {
            // What has another name there is not what has ours.
            object.insert(ours, value.unwrap_or_default());
        }
        let expires_at = match object.get("expires_at") {
            None | Some(Value::Null) => None,
            Some(Value::String(at)) if lists == Lists::Texts => Some(at.parse().map_err(|_| NotASession)?),
            Some(at) => Some(at.as_u64().ok_or(NotASession)?),
        };
        let [roles, permissions] = ["roles", "permissions"].map(|name| lists.read(object.get(name)));
        let (roles, permissions) = (roles?.into(), permissions?.into());
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
            roles,
            permissions,
            expires_at,
            signed: ArcSwapOption::empty(),
            granted: ArcSwapOption::empty(),
        };
        session.user_id = session.field("user_id").unwrap_or_default().into();
        Ok(session)
    }

    /// The caller's id; empty where it says not whose it is.
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

    /// What the caller is.
    #[must_use]
    pub fn roles(&self) -> &[String] {
        &self.roles
    }

    /// What the caller may do.
    #[must_use]
    pub fn permissions(&self) -> &[String] {
        &self.permissions
    }

    /// When the session ends, where it says so itself.
    #[must_use]
    pub fn expires_at(&self) -> Option<SystemTime> {
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(self.expires_at?))
    }

    /// The same session with these roles and permissions instead of its own; none are none.
    pub(super) fn with(&self, grants: Option<Arc<Grants>>) -> Arc<Self> {
        let is_same = |kept: &WithGrants| match (&kept.grants, &grants) {
            (Some(kept), Some(grants)) => Arc::ptr_eq(kept, grants),
            (None, None) => true,
            _ => false,
        };
        if let Some(kept) = &*self.granted.load()
            && is_same(kept)
        {
            return Arc::clone(&kept.session);
        }
        let none = Grants::default();
        let Grants { roles, permissions } = grants.as_deref().unwrap_or(&none);
        let session = Arc::new(Self {
            user_id: self.user_id.clone(),
            fields: self.fields.clone(),
            roles: roles.clone(),
            permissions: permissions.clone(),
            expires_at: self.expires_at,
            signed: ArcSwapOption::empty(),
            granted: ArcSwapOption::empty(),
        });
        self.granted.store(Some(Arc::new(WithGrants { grants, session: Arc::clone(&session) })));
        session
    }
}

/// How lists are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lists {
    /// As arrays; nothing else is guessed at.
    Arrays,
    /// As arrays, or as words with commas or spaces between them: where there are only texts, or where that is usual.
    Texts,
}

impl Lists {
    pub(super) fn read(self, value: Option<&Value>) -> Result<Vec<String>, NotASession> {
        match value {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::String(text)) if self == Self::Texts => match text.trim_start().starts_with('[') {
                true => serde_json::from_str(text).map_err(|_| NotASession),
                false => Ok(words(text)),
            },
            Some(list) => serde_json::from_value(list.clone()).map_err(|_| NotASession),
        }
    }
}

/// The words of a text with commas or spaces between them.
pub(super) fn words(text: &str) -> Vec<String> {
    let words = text.split(|at: char| at == ',' || at.is_whitespace());
    words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn texts(fields: Vec<(String, String)>) -> Map<String, Value> {
    fields.into_iter().map(|(name, value)| (name, Value::String(value))).collect()
}

/// The value of this name, or, when there is none, of this path: `realm_access.roles`.
fn find<'o>(object: &'o Map<String, Value>, name: &str) -> Option<&'o Value> {
    object.get(name).or_else(|| {
        let (first, rest) = name.split_once('.')?;
        find(object.get(first)?.as_object()?, rest)
    })
}

/// Names the caller and nothing else: the fields are personal data.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("user_id", &self.user_id)
            .field("roles", &self.roles)
            .finish_non_exhaustive()
    }
}

impl PartialEq for Session {
    fn eq(&self, other: &Self) -> bool {
        // The user's id is one of the fields.
        (&self.fields, &self.roles, &self.permissions, self.expires_at)
            == (&other.fields, &other.roles, &other.permissions, other.expires_at)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test's panic is its report")]
    use super::*;

    #[test]
    fn scalars_are_fields_and_the_rest_is_not() {
        let json =
            r#"{"user_id":"u1","session_id":"s1","plan":3,"verified":true,"x":null,"y":{},"roles":["user"]}"#;
        let session = Session::parse(json).unwrap();
        assert_eq!((session.user_id(), session.roles()), ("u1", ["user".to_owned()].as_slice()));
        assert_eq!(session.field("plan"), Some("3"));
        assert_eq!(session.field("verified"), Some("true"));
        assert_eq!((session.field("x"), session.field("y"), session.field("roles")), (None, None, None));
        assert!(!format!("{session:?}").contains("s1"));
    }

    #[test]
    fn a_hash_has_texts_and_names_of_its_own() {
        let read = |hash: &[(&str, &str)]| {
            let hash = hash.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            Session::read(
                Said::Hash(hash),
                &[("user_id".into(), "uid".into()), ("roles".into(), "groups".into())],
            )
        };
        let session =
            read(&[("uid", "7"), ("groups", "user, admin"), ("expires_at", "100"), ("roles", "root")]);
        let session = session.unwrap();
        assert_eq!((session.user_id(), session.field("uid")), ("7", Some("7")));
        assert_eq!(session.roles(), ["user", "admin"], "what is called so there is something else");
        assert_eq!(session.expires_at(), Some(SystemTime::UNIX_EPOCH + Duration::from_secs(100)));
        assert_eq!(read(&[("uid", "7"), ("groups", r#"["a b"]"#)]).unwrap().roles(), ["a b"]);
        assert!(read(&[("user_id", "7")]).is_err(), "a name that is mapped is not read as it is");
        assert!(read(&[("uid", "7"), ("expires_at", "soon")]).is_err());
    }

    #[test]
    fn a_name_may_be_a_path() {
        let json = r#"{"a":{"b":{"c":["x"]}},"a.b":{"c":["y"]},"who":{"id":"u"}}"#;
        let read = |roles: &str| {
            let fields =
                [("user_id".to_owned(), "who.id".to_owned()), ("roles".to_owned(), roles.to_owned())];
            Session::read(Said::Text(json.into()), &fields).unwrap().roles().to_vec()
        };
        assert_eq!(read("a.b.c"), ["x"]);
        assert_eq!(read("a.c"), [""; 0]);
    }

    #[test]
    fn a_session_ends_when_it_says() {
        let end = |json| Session::parse(json).unwrap().expires_at();
        assert_eq!(
            end(r#"{"user_id":"u","expires_at":100}"#),
            Some(SystemTime::UNIX_EPOCH + Duration::from_secs(100))
        );
        assert_eq!(end(r#"{"user_id":"u"}"#), None);
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
