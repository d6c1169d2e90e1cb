//! Whether an answer may be kept, and what of it (RFC 9111 §3), as one pure function: [`judge`].
//!
//! A route may say what does not count (`ignore`) and what does (`statuses`). Beyond that this is stricter than the RFC
//! where a mistake of the origin would hand one caller's answer to another: `Set-Cookie` is never kept, an answer to a
//! request with cookies only where the origin says it is for everybody, and failures only with a lifetime.

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use super::{
    date::date,
    directives::{Directives, Scope, digits, members},
    entry::Head,
    freshness::{Freshness, may_be_kept},
    guard::Mark,
    request::{Now, Rule},
    structured,
    tags::{Moment, Tag},
    url::Url,
    vary::Variant,
};

/// More tags than this cannot be kept, and an answer that cannot be purged by all its tags is not stored.
const MOST_TAGS: usize = 1024;

/// Servers answer 400 to a head that is too large for them, though the target is well, and no key tells such a request
/// from others. They draw the line at 4 KiB or above; below it, a 400 with a lifetime is the application's word.
const PLAIN_REQUEST: usize = 2048;

/// Fields that belong to the connection or to this one delivery (RFC 9110 §7.6.1, RFC 9111 §3.1).
const NEVER_STORED: [&str; 13] = [
    "age",
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
    "cache-status",
];

/// Where origins write the tags of an answer, separated by commas or spaces.
pub const TAG_FIELDS: [HeaderName; 2] =
    [HeaderName::from_static("cache-tag"), HeaderName::from_static("surrogate-key")];

/// The groups that a response belongs to at its origin (RFC 9875 §2).
const CACHE_GROUPS: HeaderName = HeaderName::from_static("cache-groups");

/// Why an answer is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NotStored {
    /// Only answers to GET are.
    Method,
    /// Not final, not understood, or about this one request only.
    Status,
    /// A part is no whole (206).
    Partial,
    /// The origin failed (500 and above, without a lifetime).
    OriginError,
    /// The request or the answer says so.
    NoStore,
    /// It is one caller's.
    Private,
    /// It starts a session.
    SetCookie,
    /// The request was authorized, and nothing says the answer is for everybody.
    Authorization,
    /// The request carried cookies, and nothing says the answer is for everybody.
    Cookie,
    /// The request had a body.
    RequestBody,
    /// It depends on more than can be compared.
    VaryStar,
    /// It depends on too much.
    VaryTooMany,
    /// It could never be used without asking, and cannot be asked about; or its status needs a lifetime, and it has none.
    NoLifetime,
    /// Larger than an entry may be.
    TooLarge,
    /// It carries more tags than can be kept, and could not be purged by all of them.
    TooManyTags,
    /// Its length is not clear, or not what was declared.
    Length,
    /// The memory is taken by other fills.
    Memory,
    /// It was purged while it was fetched.
    Purged,
    /// A 304 about another answer than the stored one.
    Mismatch,
    /// It was not asked for often enough yet.
    TooFewUses,
    /// The request had a session, and nothing says the answer is for everybody.
    Session,
    /// It depends on a field that only this edge writes.
    VaryEdge,
    /// It shows something of the caller's own, and would be kept for others.
    Leak(Mark),
    /// It may show something of the caller's own: in a coding that is not read here, or among too many values.
    Unreadable,
    /// Memory does not hold it, and the disk failed while it was written.
    Disk,
}

impl NotStored {
    /// The word in `Cache-Status`, logs and metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Status => "status",
            Self::Partial => "partial",
            Self::OriginError => "origin-error",
            Self::NoStore => "no-store",
            Self::Private => "private",
            Self::SetCookie => "set-cookie",
            Self::Authorization => "authorization",
            Self::Cookie => "cookie",
            Self::RequestBody => "request-body",
            Self::VaryStar => "vary-star",
            Self::VaryTooMany => "vary-too-many",
            Self::NoLifetime => "no-lifetime",
            Self::TooLarge => "too-large",
            Self::TooManyTags => "too-many-tags",
            Self::Length => "length",
            Self::Memory => "memory",
            Self::Purged => "purged",
            Self::Mismatch => "mismatch",
            Self::TooFewUses => "too-few-uses",
            Self::Session => "session",
            Self::VaryEdge => "vary-edge",
            Self::Leak(mark) => mark.leak(),
            Self::Unreadable => "unreadable",
            Self::Disk => "disk",
        }
    }

    /// Whether the next request will most likely hear the same, so that nobody should wait for it.
    pub(super) const fn lasts(self) -> bool {
        !matches!(
            self,
            Self::OriginError
                | Self::Length
                | Self::Memory
                | Self::Purged
                | Self::Mismatch
                | Self::TooFewUses
                | Self::Disk
        )
    }
}

/// The request an answer was made for, as it was sent.
#[derive(Debug)]
pub(super) struct Sent<'a> {
    pub(super) method: &'a Method,
    pub(super) headers: &'a HeaderMap,
    pub(super) has_body: bool,
    pub(super) moment: Moment,
    pub(super) at: Now,
    pub(super) url: &'a Url,
}

/// Decides whether an answer may be kept, and makes the head to keep.
///
/// `base` are the tags of key, target and route; the origin's own are added.
///
/// # Errors
/// [`NotStored`] with the first reason found.
pub(super) fn judge(
    status: StatusCode,
    headers: &HeaderMap,
    sent: &Sent<'_>,
    rule: &Rule,
    base: &[Tag],
    now: Now,
) -> Result<Head, NotStored> {
    let without: HeaderMap;
    let read = if rule.ignore.is_empty() {
        headers
    } else {
        let kept = headers.iter().filter(|(name, _)| !rule.ignores(name));
        without = kept.map(|(name, value)| (name.clone(), value.clone())).collect();
        &without
    };
    let directives = Directives::of_accel(read, now.wall).unwrap_or_else(|| Directives::of_response(read));
    // HEAD may be asked as GET by the edge; an answer to a real HEAD has no body to keep.
    if sent.method != Method::GET && sent.method != Method::HEAD {
        return Err(NotStored::Method);
    }
    if sent.has_body {
        return Err(NotStored::RequestBody);
    }
    check_status(status, &directives, sent.headers, rule)?;
    let understood_instead = directives.must_understand && is_understood(status);
    if directives.no_store && !understood_instead || rule.asked(sent.headers).no_store {
        return Err(NotStored::NoStore);
    }
    if !rule.private_to_caller {
        check_shareable(&directives, sent.headers, rule)?;
    }
    let variant = Variant::of(read, sent.headers)?;
    let tags = all_tags(base, headers, sent.url)?;
    let kept = stored_fields(headers, &directives, now);
    if kept.contains_key(header::SET_COOKIE) && !rule.ignores(&header::SET_COOKIE) {
        return Err(NotStored::SetCookie);
    }
    let freshness = Freshness::new(status, read, &directives, rule, sent.at, now);
    if needs_lifetime(status) && !freshness.begins_fresh() {
        return Err(if status.is_server_error() { NotStored::OriginError } else { NotStored::NoLifetime });
    }
    let can_be_asked_about = rule.revalidates
        && (kept.contains_key(header::ETAG) || date(&kept, &header::LAST_MODIFIED).is_some());
    // An error that nobody gave a lifetime must not become the answer that covers the next one.
    let of_use = freshness.begins_fresh() || (!is_error(status) && freshness.ever_useful(rule));
    if !(of_use || can_be_asked_about) || !may_be_kept(status, read, &directives, rule, now) {
        return Err(NotStored::NoLifetime);
    }
    Ok(Head { status, headers: kept, freshness, variant, tags, moment: sent.moment, url: sent.url.clone() })
}

/// RFC 9111 §3: final, understood, and not about the request's own form or a part of the answer. What the route names
/// counts as understood.
fn check_status(
    status: StatusCode,
    directives: &Directives,
    request: &HeaderMap,
    rule: &Rule,
) -> Result<(), NotStored> {
    match status.as_u16() {
        206 => return Err(NotStored::Partial),
        ..200 | 304 => return Err(NotStored::Status),
        _ if rule.names(status) => {}
        // Said about fields that are not part of any key.
        407 | 408 | 411..=413 | 415..=417 | 421 | 425 | 426 | 428 | 429 | 431 => {
            return Err(NotStored::Status);
        }
        400 if request.iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>()
            > PLAIN_REQUEST =>
        {
            return Err(NotStored::Status);
        }
        _ => {}
    }
    if directives.must_understand && !is_understood(status) {
        return Err(NotStored::Status);
    }
    Ok(())
}

/// Whether a validator is not enough to keep an answer: nobody asks whether a failure is still the same.
fn needs_lifetime(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::BAD_REQUEST
}

fn is_error(status: StatusCode) -> bool {
    status.is_client_error() || status.is_server_error()
}

fn is_understood(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200 | 203 | 204 | 300..=303 | 307 | 308 | 401 | 403..=405 | 410 | 414 | 451 | 500..=504
    )
}

/// RFC 9111 §3.5 for `Authorization`; the same, without `must-revalidate`, for cookies, which the RFC leaves open.
fn check_shareable(directives: &Directives, request: &HeaderMap, rule: &Rule) -> Result<(), NotStored> {
    if directives.private == Scope::Everything {
        return Err(NotStored::Private);
    }
    let for_everybody = directives.public || directives.s_maxage.is_some();
    if request.contains_key(header::AUTHORIZATION) && !(for_everybody || directives.must_revalidate) {
        return Err(NotStored::Authorization);
    }
    if request.contains_key(header::COOKIE) && !for_everybody && !rule.ignores(&header::COOKIE) {
        return Err(NotStored::Cookie);
    }
    Ok(())
}

/// The fields to keep: without those of the connection, those it nominates, and those that are private or may not be
/// used without asking. A `Date` is added where the origin sent none (RFC 9110 §6.6.1).
fn stored_fields(headers: &HeaderMap, directives: &Directives, now: Now) -> HeaderMap {
    // Copied byte by byte: values off the wire share its buffer, and would keep all of it alive.
    let copied = headers.iter().filter_map(|(name, value)| {
        HeaderValue::from_bytes(value.as_bytes()).ok().map(|value| (name.clone(), value))
    });
    let mut kept = HeaderMap::with_capacity(headers.keys_len());
    for (name, value) in copied {
        kept.append(name, value);
    }
    remove_unstorable(&mut kept);
    for scope in [&directives.private, &directives.no_cache] {
        if let Scope::Fields(names) = scope {
            for name in names {
                kept.remove(name);
            }
        }
    }
    if date(&kept, &header::DATE).is_none()
        && let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(now.wall))
    {
        kept.insert(header::DATE, date);
    }
    kept
}

/// Removes what is never stored and what `Connection` nominates, save `Vary`, without which a downstream cache would
/// mix up variants.
pub(super) fn remove_unstorable(headers: &mut HeaderMap) {
    let nominated: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| members(value.as_bytes()))
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        .filter(|name| name != header::VARY)
        .collect();
    for name in nominated {
        headers.remove(name);
    }
    for name in NEVER_STORED {
        headers.remove(name);
    }
}

fn all_tags(base: &[Tag], headers: &HeaderMap, url: &Url) -> Result<Box<[Tag]>, NotStored> {
    let mut tags = base.to_vec();
    tags.extend(groups_of(headers).iter().map(|name| url.group(name)));
    for value in TAG_FIELDS.iter().flat_map(|name| headers.get_all(name)) {
        let names = value.as_bytes().split(|byte| matches!(byte, b',' | b' ' | b'\t'));
        for name in names.filter(|name| !name.is_empty()) {
            tags.push(Tag::named(&String::from_utf8_lossy(name)));
            if tags.len() > MOST_TAGS {
                return Err(NotStored::TooManyTags);
            }
        }
    }
    tags.sort_unstable();
    tags.dedup();
    Ok(tags.into_boxed_slice())
}

/// The groups that an answer says it belongs to.
pub(super) fn groups_of(headers: &HeaderMap) -> Vec<Vec<u8>> {
    groups(headers, &CACHE_GROUPS)
}

/// The names in a field of groups (RFC 9875); none if it is not what it should be.
pub(super) fn groups(headers: &HeaderMap, field: &HeaderName) -> Vec<Vec<u8>> {
    let lines: Vec<&[u8]> = headers.get_all(field).iter().map(HeaderValue::as_bytes).collect();
    structured::strings(&lines.join(&b", "[..])).unwrap_or_default()
}

/// The declared length: `Ok(None)` if there is none.
///
/// # Errors
/// [`NotStored::Length`] for anything but one number (RFC 9110 §8.6).
pub(super) fn declared_length(headers: &HeaderMap) -> Result<Option<u64>, NotStored> {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter().map(|value| digits(value.as_bytes()));
    match (lengths.next(), lengths.next()) {
        (None, _) => Ok(None),
        (Some(Some(length)), None) => Ok(Some(length)),
        _ => Err(NotStored::Length),
    }
}

#[cfg(test)]
mod tests;
