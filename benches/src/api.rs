//! The origin's API as a client sees it. When the API changes, this is the file of this package that changes with it.

use http::Method;
use serde_json::{Value, json};

use crate::{
    account::{Account, Seen, Stamp},
    client::{Answer, Ask},
};

/// One kind of request: a line of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// The line's label.
    pub label: &'static str,
    /// The statuses an honest client expects.
    pub expected: &'static [u16],
    /// Whether config.yaml lets the edge keep answers.
    pub cached: bool,
}

macro_rules! kinds {
    ($($name:ident: $label:literal, $expected:expr, $cached:literal;)*) => {
        $(#[doc = concat!("`", $label, "`.")] pub const $name: Kind = Kind { label: $label, expected: &$expected, cached: $cached };)*
        /// Every kind, in the order of the report.
        pub const KINDS: &[Kind] = &[$($name),*];
    };
}

kinds! {
    LIST:    "GET    /api/vault/items",      [200],      true;
    ITEM:    "GET    /api/vault/items/{id}", [200],      true;
    ME:      "GET    /auth/me",              [200],      false;
    PROFILE: "PUT    /users/profile",        [200, 204], false;
    CREATE:  "POST   /api/vault/items",      [201],      false;
    CHANGE:  "PATCH  /api/vault/items/{id}", [200, 204], false;
    DELETE:  "DELETE /api/vault/items/{id}", [200, 204], false;
    LOGIN:   "POST   /auth/login",           [200],      false;
    LOGOUT:  "POST   /auth/logout",          [200, 204], false;
    REGISTER: "POST   /auth/register",       [201],      false;
}

/// The labels of what the edge may keep.
#[must_use]
pub fn cached() -> Vec<&'static str> {
    KINDS.iter().filter(|kind| kind.cached).map(|kind| kind.label).collect()
}

/// Items of one page.
pub const PAGE: usize = 20;

/// Proves who one is; the answer carries the token.
#[must_use]
pub fn login(email: &str, password: &str) -> Ask {
    Ask::new(Method::POST, "/auth/login").with_body(json!({ "email": email, "password": password }))
}

/// Opens an account.
#[must_use]
pub fn register(account: &Account) -> Ask {
    Ask::new(Method::POST, "/auth/register").with_body(json!({
        "email": account.email,
        "password": account.password,
        "displayName": format!("owner-{}", account.number),
    }))
}

/// The token of a login's answer.
#[must_use]
pub fn token(answer: &Answer) -> Option<String> {
    answer.json()["token"].as_str().map(str::to_owned)
}

/// Who the session belongs to.
#[must_use]
pub fn me() -> Ask {
    Ask::new(Method::GET, "/auth/me")
}

/// The e-mail address in the answer to [`me`].
#[must_use]
pub fn email(answer: &Answer) -> String {
    answer.json()["email"].as_str().unwrap_or("").to_owned()
}

/// Ends the session.
#[must_use]
pub fn logout() -> Ask {
    Ask::new(Method::POST, "/auth/logout")
}

/// Changes one's own profile.
#[must_use]
pub fn profile(name: &str) -> Ask {
    Ask::new(Method::PUT, "/users/profile").with_body(json!({ "displayName": name }))
}

/// A page of one's own items, newest first; without a cursor the first one.
#[must_use]
pub fn list(cursor: Option<&str>) -> Ask {
    let cursor = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
    Ask::new(Method::GET, format!("/api/vault/items?limit={PAGE}{cursor}"))
}

/// One item.
#[must_use]
pub fn item(id: &str) -> Ask {
    Ask::new(Method::GET, format!("/api/vault/items/{id}"))
}

/// A new item.
#[must_use]
pub fn create(stamp: Stamp) -> Ask {
    Ask::new(Method::POST, "/api/vault/items").with_body(words(stamp))
}

/// Another version of an item.
#[must_use]
pub fn change(id: &str, stamp: Stamp) -> Ask {
    Ask::new(Method::PATCH, format!("/api/vault/items/{id}")).with_body(words(stamp))
}

/// The end of an item.
#[must_use]
pub fn delete(id: &str) -> Ask {
    Ask::new(Method::DELETE, format!("/api/vault/items/{id}"))
}

/// The item of an answer to [`create`] or [`item`].
#[must_use]
pub fn seen_item(answer: &Answer) -> Option<Seen> {
    seen(&answer.json())
}

/// The items of a page, and the cursor of the next one.
#[must_use]
pub fn seen_page(answer: &Answer) -> Option<(Vec<Seen>, Option<String>)> {
    let json = answer.json();
    let items = json["items"].as_array()?.iter().map(seen).collect::<Option<Vec<_>>>()?;
    Some((items, json["nextCursor"].as_str().map(str::to_owned)))
}

fn seen(item: &Value) -> Option<Seen> {
    let id =
        item["id"].as_str().map(str::to_owned).or_else(|| item["id"].as_i64().map(|id| id.to_string()))?;
    let title = item["title"].as_str().unwrap_or("");
    // Both places must tell the same: an answer stitched together from two would show here.
    let agrees = item["content"].as_str().is_none_or(|content| Stamp::read(content) == Stamp::read(title));
    Some(Seen { id, stamp: Stamp::read(title).filter(|_| agrees) })
}

fn words(stamp: Stamp) -> Value {
    const NOTE: &str =
        "the river does not ask the weir for leave, and the weir does not ask the river for thanks";
    json!({
        "type": "letter",
        "title": format!("{stamp} a note"),
        "content": format!("{stamp} {NOTE}; {NOTE}."),
        "importanceScore": stamp.version % 10,
        "keywords": ["river", "weir"],
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;

    fn answer(body: &Value) -> Answer {
        Answer {
            status: http::StatusCode::OK,
            headers: http::HeaderMap::new(),
            body: body.to_string().into(),
            took: std::time::Duration::ZERO,
        }
    }

    #[test]
    fn what_was_written_is_recognised_when_it_comes_back() {
        let stamp = Stamp { owner: 3, version: 14 };
        let mut item = words(stamp);
        item["id"] = json!("x1");
        let (page, next) = seen_page(&answer(&json!({ "items": [item], "nextCursor": "c" }))).unwrap();
        assert_eq!(page, [Seen { id: "x1".to_owned(), stamp: Some(stamp) }]);
        assert_eq!(next.as_deref(), Some("c"));
    }

    #[test]
    fn an_item_whose_parts_come_from_two_is_nobodys() {
        let mixed = json!({ "id": "x1", "title": "owner-1 v1 a", "content": "owner-2 v1 b" });
        assert_eq!(seen_item(&answer(&mixed)).unwrap().stamp, None);
    }

    #[test]
    fn what_is_not_an_item_is_not_taken_for_one() {
        assert!(seen_item(&answer(&json!({ "error": "no" }))).is_none());
        assert!(seen_page(&answer(&json!([]))).is_none());
    }
}
