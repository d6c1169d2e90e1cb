//! The table of all operations, and the shapes of bodies that have no type of their own.
#![allow(dead_code, reason = "of some types only the shape is used")]

use schemars::JsonSchema;
use uuid::Uuid;

use super::{Answer, Body, Operation, TEXT, Who, of};
use crate::{
    accounts::{Account, Profile},
    admin,
    database::Moment,
    items::{self, Item},
    jobs::sql::Dead,
    notes::{self, Note},
    posts::{self, Post},
    sessions::{Own, Session},
};

const fn row(
    method: &'static str,
    path: &'static str,
    who: Who,
    body: Body,
    answer: (u16, Answer),
    summary: &'static str,
) -> Operation {
    Operation { method, path, summary, who, query: None, body, answer }
}

impl Operation {
    const fn narrowed_by(self, query: super::Shape) -> Self {
        Self { query: Some(query), ..self }
    }
}

const NOTHING: (u16, Answer) = (204, Answer::None);

/// Every operation but this document's own.
pub const OPERATIONS: &[Operation] = {
    use Who::{Anybody, Caller, Either, Token};
    &[
        row(
            "get",
            "/health",
            Anybody,
            Body::None,
            (200, Answer::One(of::<Health>())),
            "whether to ask this instance",
        ),
        row(
            "post",
            "/auth/register",
            Anybody,
            Body::Whole(of::<Register>()),
            (201, Answer::One(of::<Account>())),
            "open an account",
        ),
        row(
            "post",
            "/auth/login",
            Anybody,
            Body::Whole(of::<Login>()),
            (200, Answer::One(of::<LoggedIn>())),
            "begin a session",
        ),
        row("post", "/auth/logout", Token, Body::None, NOTHING, "end the session of the token"),
        row("get", "/auth/me", Either, Body::None, (200, Answer::One(of::<Account>())), "one's own account"),
        row(
            "get",
            "/auth/session",
            Token,
            Body::None,
            (200, Answer::One(of::<Session>())),
            "the edge's question: who is this?",
        ),
        row(
            "get",
            "/auth/sessions",
            Either,
            Body::None,
            (200, Answer::Page("sessions", of::<Own>())),
            "one's own sessions, newest first",
        ),
        row(
            "delete",
            "/auth/sessions",
            Either,
            Body::None,
            (200, Answer::One(of::<Ended>())),
            "end all sessions but this one",
        ),
        row("delete", "/auth/sessions/{id}", Either, Body::None, NOTHING, "end one of one's own sessions"),
        row(
            "post",
            "/auth/verify-email",
            Anybody,
            Body::Whole(of::<Proof>()),
            NOTHING,
            "prove an address by what was mailed there",
        ),
        row(
            "post",
            "/auth/verification",
            Either,
            Body::None,
            (202, Answer::None),
            "have another link mailed to prove one's address with",
        ),
        row(
            "put",
            "/users/profile",
            Caller,
            Body::Whole(of::<Profile>()),
            (200, Answer::One(of::<Profile>())),
            "replace one's profile",
        ),
        row(
            "put",
            "/users/password",
            Caller,
            Body::Whole(of::<NewPassword>()),
            NOTHING,
            "change one's password; ends the other sessions",
        ),
        row(
            "get",
            "/admin/users",
            Caller,
            Body::None,
            (200, Answer::Page("users", of::<Account>())),
            "all accounts, newest first",
        )
        .narrowed_by(of::<admin::Filter>()),
        row(
            "get",
            "/admin/jobs",
            Caller,
            Body::None,
            (200, Answer::Page("jobs", of::<Dead>())),
            "the jobs that were given up, newest first",
        ),
        row(
            "put",
            "/admin/users/{id}/roles",
            Caller,
            Body::Whole(of::<Roles>()),
            (200, Answer::One(of::<RolesOf>())),
            "give roles; ends the user's sessions",
        ),
        row(
            "get",
            "/api/vault/items",
            Caller,
            Body::None,
            (200, Answer::Page("items", of::<Item>())),
            "one's own items, newest first",
        )
        .narrowed_by(of::<items::Filter>()),
        row(
            "post",
            "/api/vault/items",
            Caller,
            Body::Whole(of::<items::Draft>()),
            (201, Answer::One(of::<Item>())),
            "make an item; repeatable with Idempotency-Key",
        ),
        row(
            "post",
            "/api/vault/items/batch",
            Caller,
            Body::Many("items", of::<items::Draft>()),
            (201, Answer::One(of::<Made>())),
            "make many items; repeatable with Idempotency-Key",
        ),
        row(
            "delete",
            "/api/vault/items/batch",
            Caller,
            Body::Whole(of::<Ids>()),
            (200, Answer::One(of::<Deleted>())),
            "remove many items",
        ),
        row(
            "get",
            "/api/vault/items/{id}",
            Caller,
            Body::None,
            (200, Answer::One(of::<Item>())),
            "an item; If-None-Match is heeded",
        ),
        row(
            "put",
            "/api/vault/items/{id}",
            Caller,
            Body::Whole(of::<items::Draft>()),
            (200, Answer::One(of::<Item>())),
            "replace an item; If-Match is heeded",
        ),
        row(
            "patch",
            "/api/vault/items/{id}",
            Caller,
            Body::Part(of::<items::Draft>()),
            (200, Answer::One(of::<Item>())),
            "change an item; If-Match is heeded",
        ),
        row(
            "delete",
            "/api/vault/items/{id}",
            Caller,
            Body::None,
            NOTHING,
            "remove an item; If-Match is heeded",
        ),
        row(
            "get",
            "/api/notes",
            Caller,
            Body::None,
            (200, Answer::Page("notes", of::<notes::Line>())),
            "one's own notes, newest change first",
        )
        .narrowed_by(of::<notes::Filter>()),
        row(
            "post",
            "/api/notes",
            Caller,
            Body::Whole(of::<notes::Draft>()),
            (201, Answer::One(of::<Note>())),
            "make a note; repeatable with Idempotency-Key",
        ),
        row(
            "patch",
            "/api/notes",
            Caller,
            Body::Whole(of::<Mark>()),
            (200, Answer::One(of::<Changed>())),
            "mark many notes",
        ),
        row(
            "get",
            "/api/notes/{id}",
            Caller,
            Body::None,
            (200, Answer::One(of::<Note>())),
            "a note; If-None-Match is heeded",
        ),
        row(
            "patch",
            "/api/notes/{id}",
            Caller,
            Body::Part(of::<notes::Draft>()),
            (200, Answer::One(of::<Note>())),
            "change a note; If-Match is heeded",
        ),
        row("delete", "/api/notes/{id}", Caller, Body::None, NOTHING, "remove a note; If-Match is heeded"),
        row(
            "get",
            "/posts",
            Anybody,
            Body::None,
            (200, Answer::Page("posts", of::<Post>())),
            "all posts, newest first",
        )
        .narrowed_by(of::<Authored>()),
        row(
            "post",
            "/posts",
            Caller,
            Body::Whole(of::<posts::Draft>()),
            (201, Answer::One(of::<Post>())),
            "write a post; repeatable with Idempotency-Key",
        ),
        row(
            "get",
            "/posts/top",
            Anybody,
            Body::None,
            (200, Answer::One(of::<Top>())),
            "the ten most liked of a week",
        ),
        row(
            "get",
            "/posts/{id}",
            Anybody,
            Body::None,
            (200, Answer::One(of::<Post>())),
            "a post; If-None-Match is heeded",
        ),
        row(
            "patch",
            "/posts/{id}",
            Caller,
            Body::Part(of::<posts::Draft>()),
            (200, Answer::One(of::<Post>())),
            "change one's post; If-Match is heeded",
        ),
        row(
            "delete",
            "/posts/{id}",
            Caller,
            Body::None,
            NOTHING,
            "remove one's post, or any as a moderator; If-Match is heeded",
        ),
        row("put", "/posts/{id}/like", Caller, Body::None, NOTHING, "like a post"),
        row("delete", "/posts/{id}/like", Caller, Body::None, NOTHING, "take a like back"),
    ]
};

#[derive(JsonSchema)]
struct Health {
    status: String,
    checks: Checks,
}

#[derive(JsonSchema)]
struct Checks {
    database: String,
    replica: String,
    redis: String,
}

#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Register {
    #[schemars(email, length(min = 3, max = 254))]
    email: String,
    #[schemars(length(min = 8, max = 256), regex(pattern = TEXT))]
    password: String,
    #[schemars(default, length(max = 100), regex(pattern = TEXT))]
    display_name: String,
}

#[derive(JsonSchema)]
struct Login {
    #[schemars(email, length(min = 3, max = 254))]
    email: String,
    #[schemars(length(min = 1, max = 256), regex(pattern = TEXT))]
    password: String,
}

#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
struct LoggedIn {
    token: String,
    expires_at: Moment,
    user: Account,
}

#[derive(JsonSchema)]
struct Ended {
    ended: u64,
}

#[derive(JsonSchema)]
struct Proof {
    token: String,
}

#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
struct NewPassword {
    #[schemars(length(min = 1, max = 256), regex(pattern = TEXT))]
    current_password: String,
    #[schemars(length(min = 8, max = 256), regex(pattern = TEXT))]
    new_password: String,
}

#[derive(JsonSchema)]
struct Roles {
    #[schemars(length(min = 1))]
    roles: Vec<Role>,
}

#[derive(JsonSchema)]
struct RolesOf {
    id: Uuid,
    roles: Vec<Role>,
}

#[derive(JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Role {
    User,
    Moderator,
    Admin,
}

#[derive(JsonSchema)]
struct Ids {
    #[schemars(length(min = 1, max = 100))]
    ids: Vec<Uuid>,
}

#[derive(JsonSchema)]
struct Made {
    ids: Vec<Uuid>,
}

#[derive(JsonSchema)]
struct Deleted {
    deleted: u64,
}

#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("not" = notes::in_both_places()))]
struct Mark {
    #[schemars(length(min = 1, max = 100))]
    ids: Vec<Uuid>,
    is_pinned: Option<bool>,
    is_favourite: Option<bool>,
    is_archived: Option<bool>,
    is_trashed: Option<bool>,
}

#[derive(JsonSchema)]
struct Changed {
    changed: u64,
}

#[derive(JsonSchema)]
struct Authored {
    author: Option<Uuid>,
}

#[derive(JsonSchema)]
struct Top {
    posts: Vec<posts::Liked>,
}
