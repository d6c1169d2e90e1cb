//! From a session, or none, to a caller: what a route asks of whoever comes.

use std::sync::Arc;

use weir_config::plan::SessionRule;

use super::{
    claim::{No, Whose},
    session::Session,
};

/// Proof that a request may pass its route's session rule.
#[derive(Debug, Clone, PartialEq)]
pub enum Caller {
    /// Nobody in particular, where the route allows that.
    Anonymous,
    /// The holder of this session.
    Known(Arc<Session>),
}

/// Why a caller may not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// No valid session: 401.
    Unauthenticated,
    /// None either, in the words of the service that was asked.
    Said(Arc<No>),
    /// A session without any of the roles, or without all of the permissions: 403.
    Forbidden,
}

impl Caller {
    /// Holds whosever it is against the rule of a route.
    ///
    /// Errors: [`Denied`].
    pub fn admit(whose: Whose, rule: &SessionRule) -> Result<Self, Denied> {
        Self::with(whose, rule.required, &rule.roles, &rule.permissions)
    }

    fn with(whose: Whose, required: bool, roles: &[String], permissions: &[String]) -> Result<Self, Denied> {
        let may = |session: &Session| {
            (roles.is_empty() || roles.iter().any(|role| session.roles().contains(role)))
                && permissions.iter().all(|permission| session.permissions().contains(permission))
        };
        match whose {
            Whose::Session(session) if may(&session) => Ok(Self::Known(session)),
            Whose::Session(_) => Err(Denied::Forbidden),
            // A role can only be held by somebody, whether the rule says `required` or not.
            Whose::Nobody(no) if required || !roles.is_empty() || !permissions.is_empty() => {
                Err(no.map_or(Denied::Unauthenticated, Denied::Said))
            }
            Whose::Nobody(_) => Ok(Self::Anonymous),
        }
    }

    /// The session, if somebody is known.
    #[must_use]
    pub fn session(&self) -> Option<&Arc<Session>> {
        match self {
            Self::Anonymous => None,
            Self::Known(session) => Some(session),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test's panic is its report")]
    use super::*;

    fn outcome(session: Option<&str>, required: bool, roles: &[&str]) -> Result<bool, Denied> {
        let session = session.map(|json| Arc::new(Session::parse(json).unwrap()));
        let roles: Vec<String> = roles.iter().map(|role| (*role).to_owned()).collect();
        Caller::with(session.into(), required, &roles, &[]).map(|caller| caller.session().is_some())
    }

    const USER: Option<&str> = Some(r#"{"user_id":"u","roles":["user","author"]}"#);

    #[test]
    fn any_of_the_roles_lets_a_caller_pass() {
        assert_eq!(outcome(USER, true, &[]), Ok(true));
        assert_eq!(outcome(USER, true, &["admin", "author"]), Ok(true));
        assert_eq!(outcome(USER, true, &["admin"]), Err(Denied::Forbidden));
        assert_eq!(outcome(USER, false, &["admin"]), Err(Denied::Forbidden));
    }

    #[test]
    fn all_of_the_permissions_let_a_caller_pass() {
        let session = Session::parse(r#"{"user_id":"u","permissions":["read","write"]}"#).unwrap();
        let session = Arc::new(session);
        let may = |permissions: &[&str]| {
            let permissions: Vec<String> = permissions.iter().map(|it| (*it).to_owned()).collect();
            Caller::with(Whose::Session(Arc::clone(&session)), true, &[], &permissions).is_ok()
        };
        assert!(may(&[]) && may(&["write"]) && may(&["read", "write"]));
        assert!(!may(&["read", "delete"]));
    }

    #[test]
    fn a_service_s_own_no_is_passed_on_where_somebody_is_needed() {
        let no = Arc::new(No::Forbid);
        let admit = |required| Caller::with(Whose::Nobody(Some(Arc::clone(&no))), required, &[], &[]);
        assert_eq!(admit(true), Err(Denied::Said(Arc::clone(&no))));
        assert_eq!(admit(false), Ok(Caller::Anonymous));
    }

    #[test]
    fn without_a_session_only_an_optional_rule_lets_pass() {
        assert_eq!(outcome(None, false, &[]), Ok(false));
        assert_eq!(outcome(None, true, &[]), Err(Denied::Unauthenticated));
        assert_eq!(outcome(None, false, &["user"]), Err(Denied::Unauthenticated));
    }
}
