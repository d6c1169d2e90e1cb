//! Conditions of requests on the version of what they touch (RFC 9110 §13).
//!
//! Every stored thing counts its writes; the count is its strong entity tag: equal tags mean equal bytes (§8.8.3).

use std::convert::Infallible;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderName, header, request::Parts},
};

use crate::refusal::Refusal;

/// A PATCH reads, merges and writes; so often it tries again when another write came in between.
pub const PATCH_TRIES: usize = 5;

/// The entity tag of a version.
#[must_use]
pub fn tag(version: i64) -> String {
    format!("\"v{version}\"")
}

/// Whether `If-None-Match` names the version, compared weakly (§13.1.2).
#[must_use]
pub fn is_known(headers: &HeaderMap, version: i64) -> bool {
    let tag = tag(version);
    tags(headers, header::IF_NONE_MATCH)
        .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

/// `If-Match` of a write: the versions it may overwrite (§13.1.1).
#[derive(Debug, Clone)]
pub struct IfMatch(Option<Vec<String>>);

impl IfMatch {
    /// Whether a version must be looked at before the write.
    #[must_use]
    pub fn is_given(&self) -> bool {
        self.0.is_some()
    }

    /// Whether `version` may be overwritten; compared strongly, so that a weak tag admits nothing.
    ///
    /// # Errors
    /// 412 when it is not named.
    pub fn admit(&self, version: i64) -> Result<(), Refusal> {
        let tag = tag(version);
        match &self.0 {
            Some(named) if !named.iter().any(|named| *named == tag || named == "*") => {
                Err(Refusal::PreconditionFailed)
            }
            _ => Ok(()),
        }
    }
}

impl IfMatch {
    /// The version that may be overwritten, of what is `stored`; `None` is any, and then it is not looked at.
    ///
    /// # Errors
    /// 404 where nothing is stored, 412 as [`IfMatch::admit`], and what the look itself says.
    pub async fn admitted(
        &self,
        stored: impl Future<Output = sqlx::Result<Option<i64>>>,
    ) -> Result<Option<i64>, Refusal> {
        if !self.is_given() {
            return Ok(None);
        }
        let version = stored.await?.ok_or(Refusal::NotFound)?;
        self.admit(version)?;
        Ok(Some(version))
    }
}

/// Why a write to an admitted version found nothing to overwrite: another write came first, or there is no such thing.
#[must_use]
pub fn missed(version: Option<i64>) -> Refusal {
    version.map_or(Refusal::NotFound, |_| Refusal::PreconditionFailed)
}

impl<S: Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let given = parts.headers.contains_key(header::IF_MATCH);
        Ok(Self(given.then(|| tags(&parts.headers, header::IF_MATCH).map(str::to_owned).collect())))
    }
}

/// The members of a list of tags. Ours have no comma; a foreign one that has is cut, and names nothing of ours either way.
fn tags(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}
