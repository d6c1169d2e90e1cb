//! The words about routes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    compress::Compress,
    limit::LimitUse,
    word::{FromShort, List, Named, Short, Switch, Word},
};
use crate::{
    plan::{Ignored, RetryOn, TtlApplies},
    template::Template,
    units::{Bytes, Span},
};

/// What it matches, what it asks of a request, and what it does. One of `to`, `tunnel`, `redirect`, `answer` and `files`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Route {
    /// As logs and metrics call it. Default: its methods, host and path.
    pub name: Word<String>,
    /// When it applies; a single word is a path. Default: always.
    #[serde(rename = "match")]
    pub when: Word<Short<Match>>,
    /// Who may pass by address.
    pub access: Word<Access>,
    /// Limits charged, in this order; a single word is a limit.
    pub limit: Word<List<Short<LimitUse>>>,
    /// Who the caller must be.
    pub session: Word<SessionRule>,
    /// Whether and how answers are kept.
    pub cache: Word<CacheRule>,
    /// Tags purged after a successful unsafe request, in every cache.
    pub invalidate: Word<List<Template>>,
    /// Fields set on the request for the origin; an empty value removes.
    pub request_headers: Word<Named<Template>>,
    /// Fields set on the answer for the client; an empty value removes.
    pub response_headers: Word<Named<Template>>,
    /// Largest request body; overrides the listener's. 0: no bound.
    pub body_bytes: Word<Bytes>,
    /// The upstream that answers.
    pub to: Word<String>,
    /// The target to ask the upstream for, instead of the client's.
    pub rewrite: Word<Template>,
    /// `Host` for the upstream. Default: the client's.
    pub host: Word<Template>,
    /// Protocols that a client may switch to through this route. Default: `websocket`.
    pub upgrade: Word<List<String>>,
    /// What is shown instead of a short JSON text when the answer is an error of ours.
    pub error_pages: Word<List<ErrorPage>>,
    /// Whether `error_pages` also stand for the origin's errors. Default: false.
    pub intercept_errors: Word<bool>,
    /// Bytes a second of one answer's body. 0: no bound.
    pub limit_rate: Word<Bytes>,
    /// How much of a body goes before `limit_rate` counts.
    pub limit_rate_after: Word<Bytes>,
    /// Which answers are compressed; what is not said here is as the whole file says.
    pub compress: Word<Short<Switch<Compress>>>,
    /// Whether answers in gzip are unpacked for clients that do not take it. Default: false.
    pub gunzip: Word<bool>,
    /// How much of a request's body is gathered before a server is asked. 0: none.
    pub request_buffer: Word<Bytes>,
    /// How much of an answer is read before its client takes it. 0: nothing.
    pub response_buffer: Word<Bytes>,
    /// Where requests go once more; a single word is an upstream.
    pub mirror: Word<Short<Mirror>>,
    /// The upstream to whose servers CONNECT opens a tunnel.
    pub tunnel: Word<String>,
    /// Sends the client elsewhere.
    pub redirect: Word<Redirect>,
    /// A fixed answer.
    pub answer: Word<Answer>,
    /// Files of a folder.
    pub files: Word<Files>,
}

/// When a route applies; everything given must hold.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Match {
    /// Any of these: `example.org`, `*.example.org`. Default: any.
    pub hosts: Word<List<String>>,
    /// `/exact`, `/below/*`, `/items/{id}` or `~ ^/regex$`. Default: any.
    pub path: Word<String>,
    /// Any of these; GET includes HEAD. Default: any.
    pub methods: Word<List<String>>,
    /// All of these: `present`, `absent`, `equals: TEXT`, `matches: REGEX`.
    pub headers: Word<Named<HeaderCondition>>,
}

impl FromShort for Match {
    const SHORT_FORM: &'static str = "a path";

    fn from_short(text: &str) -> Result<Self, String> {
        Ok(Self { path: Word::new(text.to_owned()), ..Self::default() })
    }
}

/// What a request field must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HeaderCondition {
    /// There, with any value.
    Present,
    /// Not there.
    Absent,
    /// Exactly this.
    Equals(String),
    /// Matched by this regular expression.
    Matches(String),
}

/// Who may pass by address; the most specific network wins, and `deny` wins a tie.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Access {
    /// Networks as CIDR; when there are any, nobody else passes.
    pub allow: Word<List<String>>,
    /// Networks as CIDR that never pass.
    pub deny: Word<List<String>>,
}

/// Who the caller must be.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SessionRule {
    /// The session source.
    #[serde(rename = "use")]
    pub source: Word<String>,
    /// Whether a request without session is refused (401). Default: false; true with `roles`, `permissions` or `on_missing`, and
    /// where the session's `ask` has `request_headers`.
    pub required: Word<bool>,
    /// Any of these; others are refused (403).
    pub roles: Word<List<String>>,
    /// All of these; others are refused (403).
    pub permissions: Word<List<String>>,
    /// What a browser without a session gets instead of 401. Default: 401.
    pub on_missing: Word<OnMissing>,
    /// Whether a successful answer ends the session (a logout): it is forgotten here at once. Default: false.
    pub ends: Word<bool>,
}

/// What a browser without a session gets that asks for a page (GET, and `Accept` names text/html).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OnMissing {
    /// The login, with 302: `/login?next=${request.target}`. Values are percent-encoded.
    pub redirect: Word<Template>,
}

/// Whether and how answers are kept.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CacheRule {
    /// The cache.
    #[serde(rename = "in")]
    pub cache: Word<String>,
    /// How long, whatever the origin says short of `no-store` and `private`. Default: as the origin says.
    pub ttl: Word<Span>,
    /// What tells answers apart. Default: scheme, host and target.
    pub key: Word<Template>,
    /// What they are purged by, besides the origin's own `Cache-Tag`.
    pub tags: Word<List<Template>>,
    /// The length of the parts in which answers are fetched and kept. Default: in one piece.
    pub slice: Word<Bytes>,
    /// Whether parts that clients ask for are kept, and put together. Default: false.
    pub partial: Word<bool>,
    /// How long after expiry an entry may still answer while it is fetched anew.
    pub stale_while_revalidate: Word<Span>,
    /// How long after expiry an entry may still answer when the origin fails.
    pub stale_if_error: Word<Span>,
    /// How long a request waits for another's fetch of the same entry.
    pub lock_timeout: Word<Span>,
    /// How old a fetch may become until one more request makes another.
    pub lock_age: Word<Span>,
    /// How long a fetch goes on for the cache when nobody is left who reads it; 0s ends it with its last reader. Default: 5m.
    pub background_fill: Word<Span>,
    /// A `ttl` for these statuses (`404`, `500-599`, `any`); the narrowest range counts.
    pub statuses: Word<Named<Span>>,
    /// Whether `ttl` and `statuses` count always, or only where the origin names no lifetime. Default: always.
    pub ttl_applies: Word<TtlApplies>,
    /// Fields that have no say in whether and how an answer is kept.
    pub ignore: Word<List<Ignored>>,
    /// Where one of these is neither empty nor `0`, the origin is asked whatever is stored.
    pub bypass: Word<List<Template>>,
    /// Where one of these is neither empty nor `0`, the answer is not kept.
    pub no_store: Word<List<Template>>,
    /// The methods whose answers are kept: GET and HEAD always are, QUERY where it is named.
    pub methods: Word<List<String>>,
    /// Requests for an entry until its answer is kept. Default: 1.
    pub min_uses: Word<u32>,
    /// Whether a HEAD that finds nothing is asked as GET. Default: true.
    pub convert_head: Word<bool>,
    /// Which failures of the origin `stale_if_error` speaks of, in nginx's words.
    pub stale_on: Word<List<RetryOn>>,
    /// Whether what is stale is fetched anew behind the client that is answered with it. Default: true.
    pub background_update: Word<bool>,
    /// Whether the origin is asked if what is stored is still good, and not for all of it. Default: true.
    pub revalidate: Word<bool>,
    /// Whether an answer without a lifetime has a tenth of the time since its last change. Default: true.
    pub heuristics: Word<bool>,
    /// Who may purge with the method PURGE. Default: nobody.
    pub purge: Word<PurgeRule>,
}

/// Who may purge what a route keeps, with the method PURGE.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PurgeRule {
    /// Networks as CIDR.
    pub allow: Word<List<String>>,
    /// Whether what is purged may still answer where stale entries may. Default: false, it is gone.
    pub soft: Word<bool>,
}

/// Sends the client elsewhere.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: Word<u16>,
    /// Where to.
    pub location: Word<Template>,
}

/// A fixed answer.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Answer {
    /// 200 to 599.
    pub status: Word<u16>,
    /// The `Content-Type`.
    #[serde(rename = "type")]
    pub content_type: Word<String>,
    /// The body.
    pub body: Word<Template>,
}

/// Files of a folder, with types, validators and ranges.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Files {
    /// The folder; nothing outside of it is ever served.
    pub root: Word<String>,
    /// What of the request path is left out. Default: the literal beginning of the route's path.
    pub strip: Word<String>,
    /// Asked for when a path ends in `/`.
    pub index: Word<String>,
    /// The `Cache-Control` of what is served.
    pub cache_control: Word<String>,
}

/// What is shown for an error: one of `body`, `file` and `redirect`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ErrorPage {
    /// For which errors, 400 to 599.
    pub status: Word<List<u16>>,
    /// The status that the client gets instead.
    #[serde(rename = "as")]
    pub shown_as: Word<u16>,
    /// The `Content-Type`. Default: `text/html; charset=utf-8`.
    #[serde(rename = "type")]
    pub content_type: Word<String>,
    /// The page.
    pub body: Word<Template>,
    /// A file that holds the page, read at start and reload; 1MiB at most.
    pub file: Word<String>,
    /// Where the client is sent.
    pub redirect: Word<Redirect>,
}

/// Where requests go once more; the answers are thrown away.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Mirror {
    /// The upstream.
    pub to: Word<String>,
    /// Which share of the requests, in percent. Default: 100.
    pub percent: Word<u32>,
}

impl FromShort for Mirror {
    const SHORT_FORM: &'static str = "an upstream";

    fn from_short(text: &str) -> Result<Self, String> {
        Ok(Self { to: Word::new(text.to_owned()), ..Self::default() })
    }
}
