//! What is found, in sentences.

use http::{HeaderMap, Method, header};
use weir_config::units::Span;

use crate::{
    auth::Whose,
    cache::{Bypass, Expired, Lookup, Rule, Staleness},
    decide::Seen,
    refusal::Refusal,
};

pub(super) const UNSURE: &str =
    "depends on the session, which only the origin could look up, and it is not asked";

pub(super) const ANOTHER_PART: &str =
    "goes to the origin: what is held of it is another part, or no longer fresh";

pub(super) const NOT_ASKED: &str = "no: nobody is asked";

/// What a request brings along that decides whether its answer may be kept.
pub(super) struct Prospects {
    pub(super) method: Method,
    pub(super) has_body: bool,
    pub(super) headers: HeaderMap,
    pub(super) has_session: bool,
    pub(super) rule: Rule,
    /// Whether the route's `no_store` holds.
    pub(super) keeps_nothing: bool,
    /// What is in the way besides, as a sentence.
    pub(super) hindrance: Option<String>,
}

pub(super) fn caller(seen: &Seen) -> String {
    match seen {
        Seen::Unasked => "anybody: the route asks for no session".to_owned(),
        Seen::Nothing => "nobody: the request has no session token".to_owned(),
        Seen::Known(Whose::Nobody(_)) => "nobody: the session token is not known".to_owned(),
        Seen::Known(Whose::Session(session)) if session.is_named() => format!("user {}", session.user_id()),
        Seen::Known(Whose::Session(_)) => "somebody whom the service lets pass".to_owned(),
        Seen::Unsure => {
            "somebody with a session token that is not in memory; the origin is not asked".to_owned()
        }
        Seen::Unavailable => "somebody with a session token; Redis does not answer".to_owned(),
    }
}

pub(super) fn refused(refusal: Option<&Refusal>) -> String {
    refusal.map_or_else(String::new, |refusal| {
        let said = refusal.said();
        format!("is refused with {}: {} ({})", said.status.as_u16(), said.sentence, said.word)
    })
}

pub(super) fn lookup(found: &Lookup) -> &'static str {
    match found {
        Lookup::Hit { .. } => "hit",
        Lookup::Stale { .. } => "stale",
        Lookup::Miss(_) => "miss",
        Lookup::Bypass(_) => "bypass",
        Lookup::OnlyIfCached => "only-if-cached",
    }
}

pub(super) fn served(found: &Lookup) -> String {
    match found {
        Lookup::Hit { ttl, .. } if *ttl < 0 => {
            format!("is answered from the cache: {} s too old, which the request takes", -ttl)
        }
        Lookup::Hit { ttl, .. } => format!("is answered from the cache: fresh for {ttl} s"),
        Lookup::Stale { staleness, .. } => stale(staleness),
        Lookup::Miss(miss) => format!("goes to the origin: {}", miss_because(miss.word())),
        Lookup::Bypass(Bypass::Route) => {
            "goes to the origin, whatever is stored: the route's bypass holds for it".to_owned()
        }
        Lookup::Bypass(reason) => {
            format!("goes to the origin, and nothing is kept: {}", bypass_because(reason.word()))
        }
        Lookup::OnlyIfCached => {
            "is refused with 504: it wants a stored answer or none (only-if-cached)".to_owned()
        }
    }
}

fn stale(staleness: &Staleness) -> String {
    let why = match staleness.expired {
        Expired::Age => "its lifetime is over",
        Expired::Purged => "it was softly purged",
        Expired::NoCache => "the origin wants to be asked each time (no-cache)",
        Expired::Request => "the request asks for a fresher one",
    };
    if staleness.while_revalidate {
        format!("is answered from the cache while the entry is fetched anew: {why}")
    } else if staleness.on_error {
        format!(
            "asks the origin whether the entry is still good: {why}; if the origin fails, the entry answers"
        )
    } else {
        format!("asks the origin whether the entry is still good: {why}")
    }
}

fn miss_because(word: &str) -> &str {
    match word {
        "uri-miss" => "nothing is stored under the key",
        "vary-miss" => "what is stored under the key was made for other requests (Vary)",
        "purged" => "what was stored has been purged",
        other => other,
    }
}

fn bypass_because(word: &str) -> &str {
    match word {
        "method" => "only GET and HEAD are looked up",
        "request-body" => "it has a body, which is no part of the key",
        "no-store" => "it says no-store",
        "precondition" => "it has a precondition that only the origin can judge",
        "range" => "it asks for a part of what is not stored",
        other => other,
    }
}

/// Of what is not asked for often enough.
pub(super) fn too_rare(uses: u32, wanted: u32) -> String {
    format!("no, not yet: min_uses wants {wanted} requests for it, and this is number {uses}")
}

/// Of what the cache takes no part in.
pub(super) fn passed_by(reason: Bypass) -> String {
    format!("no: {}", bypass_because(reason.word()))
}

pub(super) fn stored(of: Prospects) -> String {
    if !matches!(of.method, Method::GET | Method::HEAD) {
        return "no: only answers to GET and HEAD are kept".to_owned();
    }
    if of.has_body {
        return "no: the request has a body, which is no part of the key".to_owned();
    }
    if of.keeps_nothing {
        return "no: the route's no_store holds for it".to_owned();
    }
    let asked = of.headers.get_all(header::CACHE_CONTROL).iter();
    let mut words = asked.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    if of.rule.heeds_requests && words.any(|word| word.trim().eq_ignore_ascii_case("no-store")) {
        return "no: the request says no-store".to_owned();
    }
    if let Some(hindrance) = of.hindrance {
        return hindrance;
    }
    let span = match of.rule.ttl {
        Some(ttl) => format!("for {} (ttl), unless the origin says no-store or Set-Cookie", Span::new(ttl)),
        None => "for as long as the origin says".to_owned(),
    };
    if of.rule.private_to_caller {
        return format!("yes, for this caller alone, {span}");
    }
    let brings = [
        (of.headers.contains_key(header::AUTHORIZATION), "Authorization"),
        (of.headers.contains_key(header::COOKIE) && !of.rule.ignores(&header::COOKIE), "cookies"),
        (of.has_session, "a session"),
    ];
    match brings.iter().find(|(there, _)| *there) {
        Some((_, what)) => format!(
            "only if the origin says that it is for everybody (public, s-maxage), because the request has {what}; and if \
             it shows nothing of the caller's own; then {span}"
        ),
        None => format!("yes, unless the origin says private, {span}"),
    }
}

/// Why an answer was not kept, by its word.
pub(super) fn not_stored(word: &str) -> &str {
    match word {
        "method" => "only answers to GET and HEAD are kept",
        "status" => "its status says nothing about the next request",
        "partial" => "it was a part (206)",
        "origin-error" => "the origin failed",
        "no-store" => "the request or the answer said no-store",
        "private" => "the origin said private",
        "set-cookie" => "it set a cookie",
        "authorization" => {
            "the request had Authorization, and nothing said that the answer was for everybody"
        }
        "cookie" => "the request had cookies, and nothing said that the answer was for everybody",
        "session" => "the request had a session, and nothing said that the answer was for everybody",
        "request-body" => "the request had a body",
        "vary-star" => "it varied by more than can be compared",
        "vary-too-many" => "it varied by too many fields",
        "vary-edge" => "it varied by a field that this edge writes itself, such as the signed identity",
        "no-lifetime" => "it had no lifetime and no validator",
        "too-large" => "it was larger than an entry may be",
        "too-many-tags" => "it had too many tags",
        "length" => "its length was not what it said",
        "memory" => "the memory was taken by other fills",
        "purged" => "it was purged while it was fetched",
        "too-few-uses" => "it was not asked for often enough yet",
        "mismatch" => "the origin confirmed another answer than the stored one",
        "disk" => "memory does not hold it, and the disk failed while it was written",
        "unreadable" => {
            "its coding is not read here, or the request had too much to look for: it may have shown something of the \
             caller's own"
        }
        "leak-credentials" => "it said it was for everybody, and showed the caller's credentials",
        "leak-cookie" => "it said it was for everybody, and showed one of the caller's cookies",
        "leak-token" => "it said it was for everybody, and showed the caller's session token",
        "leak-session-id" => "it said it was for everybody, and showed the caller's session id",
        "leak-user-id" => "it said it was for everybody, and showed the caller's id",
        "leak-email" => "it said it was for everybody, and showed the caller's address",
        other => other,
    }
}
