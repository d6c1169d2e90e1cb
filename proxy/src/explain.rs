//! Why a request is, or would not be, answered from the cache: told without asking an origin, and without changing anything.
//!
//! The request is read, routed and looked up by the code that serves requests, so the answer is what would happen and not
//! what ought to. What could be a secret is shown as a hash ([`masked`]): two that are equal can be told to be, and that is
//! all. `POST /explain` of the admin listener and `weir explain` are made of this.

mod masked;
mod report;
mod words;

use std::{net::IpAddr, str::FromStr, time::SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header};
use serde::{Deserialize, Serialize};
use weir_config::{
    plan::{Action, CacheId, CacheRule, LimitUse, Route},
    span::Place,
};

use self::masked::Masked;
pub use self::report::{CacheReport, EntryReport, Refused, Report, Written};
use crate::{
    auth::Caller,
    cache::{
        Bypass, Cache, Entry, Key, Lookup, Now, RequestHead, Standing, Url, answer_from_part, first_slice,
    },
    decide::{self, Passed, Rehearsal, Seen},
    request::{Came, RequestView},
    running::Running,
};

/// What is asked about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// `http://example.org/path?query`.
    pub url: String,
    /// Default: GET.
    #[serde(default = "get")]
    pub method: String,
    /// Fields of the request, as `name: value`; a `host` replaces the URL's.
    #[serde(default)]
    pub headers: Vec<String>,
    /// Who asks. Default: this machine.
    #[serde(default = "this_machine")]
    pub client: IpAddr,
}

fn get() -> String {
    "GET".to_owned()
}

fn this_machine() -> IpAddr {
    std::net::Ipv4Addr::LOCALHOST.into()
}

/// What would become of a request. `file` is where the plan was read from.
///
/// # Errors
/// What in the question is no request, in words for the asker.
pub async fn explain(running: &Running, file: &str, question: &Question, now: Now) -> Result<Report, String> {
    let request = request(running, question)?;
    let place = |place: Place| match place.line {
        0 => file.to_owned(),
        _ => format!("{file}:{place}"),
    };
    let found = Rehearsal::of(running, &request, now).await;
    let mut report = Report {
        request: format!("{} {}", request.method, request.url().as_str()),
        caller: words::caller(&found.seen),
        ..Report::default()
    };
    let Some(route) = found.route.map(|id| &running.plan.routes[id.index()]) else {
        report.outcome = words::refused(found.verdict.as_ref().err());
        return Ok(report);
    };
    report.route = Some(Written { name: route.name.to_string(), at: place(route.place) });
    let name = |used: &LimitUse| running.plan.limits[used.limit.index()].name.to_string();
    report.limits = route.limits.iter().map(name).collect();
    let passed = match &found.verdict {
        Ok(passed) => passed,
        Err(refusal) => {
            report.outcome = words::refused(Some(refusal));
            return Ok(report);
        }
    };
    report.outcome = outcome(running, route, passed, &request);
    if let (Some(rule), Action::Forward(_)) = (&route.cache, &route.action) {
        let case = Case { running, route, rule, passed, request: &request, seen: &found.seen };
        let mut cache = case.report(now).await;
        cache.at = place(rule.place);
        report.outcome = cache.served.clone();
        report.cache = Some(cache);
    }
    Ok(report)
}

/// Where the answer to a plain GET of this URL is kept, if it is.
#[must_use]
pub fn kept(running: &Running, url: &Url) -> Option<(CacheId, Key)> {
    let (url, method) = (url.as_str().to_owned(), get());
    let question = Question { url, method, headers: Vec::new(), client: this_machine() };
    decide::kept(running, &request(running, &question).ok()?, Caller::Anonymous)
}

/// The question as the request path would read it.
fn request(running: &Running, question: &Question) -> Result<RequestView, String> {
    let url = Url::parse(&question.url).ok_or_else(|| {
        format!("`{}` is no URL: it begins with http:// or https:// and a host", question.url)
    })?;
    let (scheme, authority, target) = url.parts();
    let scheme = if scheme == "https" { "https" } else { "http" };
    let method = Method::from_str(&question.method)
        .map_err(|_| format!("`{}` cannot be a method", question.method))?;
    let target = if method == Method::CONNECT { authority } else { target };
    let mut headers = HeaderMap::new();
    for line in &question.headers {
        // A line that is wrong is not repeated: it may hold a token.
        let (name, value) = line.split_once(':').ok_or("a header is written as `name: value`")?;
        let name = HeaderName::from_str(name.trim()).map_err(|_| "a header's name is not one")?;
        let value = HeaderValue::from_str(value.trim());
        headers.append(name.clone(), value.map_err(|_| format!("the value of `{name}` cannot be one"))?);
    }
    if !headers.contains_key(header::HOST) {
        let host = HeaderValue::from_str(authority).map_err(|_| "the URL's host cannot be one")?;
        headers.insert(header::HOST, host);
    }
    let has_body = headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get(header::CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0");
    let local =
        running.plan.listeners.first().map_or(([127, 0, 0, 1], 80).into(), |listener| listener.address);
    let came = Came { peer: (question.client, 0).into(), local, scheme };
    RequestView::read_from(method, target, Version::HTTP_11, headers, has_body, came, &running.plan)
        .map_err(|refusal| words::refused(Some(&refusal)))
}

/// What a route does with what is not kept.
fn outcome(running: &Running, route: &Route, passed: &Passed, request: &RequestView) -> String {
    match &route.action {
        Action::Forward(forward) => {
            let upstream = &running.plan.upstreams[forward.upstream.index()].name;
            match passed.target(request, forward) {
                Ok(target) => format!("goes to upstream {upstream} as {target}: the route keeps nothing"),
                Err(refusal) => words::refused(Some(&refusal)),
            }
        }
        Action::Redirect(_) => "is answered by a redirect of the route".to_owned(),
        Action::Answer(_) => "is answered by a fixed answer of the route".to_owned(),
        Action::Files(_) => "is answered from the files of the route".to_owned(),
        Action::Tunnel(upstream) => {
            format!("opens a tunnel to upstream {}", running.plan.upstreams[upstream.index()].name)
        }
    }
}

/// A request under a cache rule.
struct Case<'a> {
    running: &'a Running,
    route: &'a Route,
    rule: &'a CacheRule,
    passed: &'a Passed,
    request: &'a RequestView,
    seen: &'a Seen,
}

impl Case<'_> {
    async fn report(&self, now: Now) -> CacheReport {
        let facts = Masked(self.passed.facts(self.request));
        let shown = |template: &weir_config::template::Template| {
            let mut text = String::new();
            template.render_key(&facts, &mut text);
            text
        };
        let mut report = CacheReport {
            name: self.running.plan.caches[self.rule.cache.index()].name.to_string(),
            key_template: self.rule.key.as_ref().map(ToString::to_string),
            tags: self.rule.tags.iter().map(shown).collect(),
            stored: words::stored(self.prospects(None)),
            ..CacheReport::default()
        };
        let Action::Forward(forward) = &self.route.action else { return report };
        let key = match self.passed.key(self.request, self.rule, forward) {
            Ok(key) => key,
            Err(refusal) => {
                report.served = words::refused(Some(&refusal));
                return report;
            }
        };
        if self.hangs_on_the_session() {
            (report.served, report.stored) = (words::UNSURE.to_owned(), words::UNSURE.to_owned());
            return report;
        }
        let request = RequestHead {
            method: &self.request.method,
            headers: &self.request.headers,
            has_body: self.request.has_body,
        };
        // Of an answer in slices, the one that decides.
        let mut key = match self.rule.slice {
            Some(size) => key.slice(first_slice(&request, size.get()), size.get()),
            None => key,
        };
        let shown_key = self.rule.key.as_ref().map_or_else(|| key.shown(), shown);
        let cache = &self.running.caches[self.rule.cache.index()];
        let (mut found, mut is_open) = self.find(cache, &key, &request, now).await;
        // Of parts that are kept as clients ask for them, the one that is held.
        let is_part = matches!(found, Lookup::Bypass(Bypass::Range)) && self.keeps_parts();
        if is_part {
            key = key.part();
            (found, is_open) = self.find(cache, &key, &request, now).await;
        }
        let under = cache.under(&key);
        report.key = Some(shown_key);
        report.under_key = under.len();
        report.variants = under.iter().map(|(entry, _)| variant(entry)).collect();
        report.lookup = words::lookup(&found).to_owned();
        report.served = match &found {
            Lookup::Hit { entry, .. } if is_part && answer_from_part(entry, &request, now).is_none() => {
                words::ANOTHER_PART.to_owned()
            }
            Lookup::Stale { .. } if is_part => words::ANOTHER_PART.to_owned(),
            found => words::served(found),
        };
        report.stored = words::stored(self.prospects(self.hindrance(cache, &key, &found)));
        if cache.is_shared() && matches!(found, Lookup::Miss(_) | Lookup::Stale { .. }) {
            report.served.push_str("; the fleet's tier is asked before the origin");
        }
        if let Lookup::Hit { entry, .. } | Lookup::Stale { entry, .. } = &found {
            let is_soft = under
                .iter()
                .any(|(one, standing)| std::ptr::eq(&**one, &**entry) && *standing == Standing::Soft);
            let kept = match (is_open, entry.body().stored()) {
                (true, _) => "on disk",
                (false, Some(_)) => "on disk, its head in memory",
                (false, None) => "in memory",
            };
            report.entry = Some(self.entry(entry, kept, is_soft, now));
        }
        report.last_refusal = cache.last_refusal(&key).map(|(reason, at)| Refused {
            reason: reason.word().to_owned(),
            why: words::not_stored(reason.word()).to_owned(),
            seconds_ago: now.wall.duration_since(at).unwrap_or_default().as_secs(),
        });
        report
    }

    /// What is found, and whether it is on disk alone.
    async fn find(&self, cache: &Cache, key: &Key, request: &RequestHead<'_>, now: Now) -> (Lookup, bool) {
        let policy = self.passed.policy(self.running, self.request, self.rule);
        let found = cache.peek(key, request, &policy, now);
        match cache.may_deepen(&found, key, &policy, now) {
            true => (cache.peek_deeper(found, key, request, &policy, now).await, true),
            false => (found, false),
        }
    }

    /// Whether a part that is asked for is kept.
    fn keeps_parts(&self) -> bool {
        self.rule.partial
            && self.request.method == Method::GET
            && !self.passed.keeps_nothing(self.request, self.rule)
    }

    /// Why what comes would not be kept, whatever the origin says of it.
    fn hindrance(&self, cache: &Cache, key: &Key, found: &Lookup) -> Option<String> {
        match found {
            Lookup::Miss(_) | Lookup::Bypass(Bypass::Route) => {
                let (uses, wanted) = (cache.uses(key) + 1, self.rule.keeping.min_uses);
                (uses < wanted).then(|| words::too_rare(uses, wanted))
            }
            Lookup::Bypass(reason) => Some(words::passed_by(*reason)),
            Lookup::OnlyIfCached => Some(words::NOT_ASKED.to_owned()),
            Lookup::Hit { .. } | Lookup::Stale { .. } => None,
        }
    }

    /// Whether nobody here can say what the key is.
    fn hangs_on_the_session(&self) -> bool {
        matches!(self.seen, Seen::Unsure) && self.rule.key.as_ref().is_some_and(masked::names_session)
    }

    fn prospects(&self, hindrance: Option<String>) -> words::Prospects {
        words::Prospects {
            method: self.request.method.clone(),
            has_body: self.request.has_body,
            headers: self.request.headers.clone(),
            has_session: self.passed.tells_who_asks(self.running, self.request),
            rule: self.passed.policy(self.running, self.request, self.rule).into_owned(),
            keeps_nothing: self.passed.keeps_nothing(self.request, self.rule),
            hindrance,
        }
    }

    fn entry(&self, entry: &Entry, kept: &str, softly_purged: bool, now: Now) -> EntryReport {
        let head = entry.head();
        let field = |name: HeaderName| {
            head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
        };
        let received = now.mono.saturating_duration_since(head.freshness.received());
        EntryReport {
            status: head.status.as_u16(),
            url: masked::url(&head.url, &self.request.url()),
            age_s: head.freshness.age(now).as_secs(),
            ttl_s: head.freshness.ttl(now),
            stored: stamp(now.wall.checked_sub(received)),
            bytes: entry.body().length(),
            kept: kept.to_owned(),
            etag: field(header::ETAG),
            last_modified: field(header::LAST_MODIFIED),
            cache_control: field(header::CACHE_CONTROL),
            origin_tags: crate::cache::TAG_FIELDS.into_iter().filter_map(field).collect(),
            softly_purged,
            vary: variant(entry),
        }
    }
}

/// What an entry was made for, as `name: value`.
fn variant(entry: &Entry) -> Vec<String> {
    let fields = entry.head().variant.fields();
    fields
        .map(|(name, value)| match value {
            Some(value) => format!("{name}: {}", masked::field(name, &String::from_utf8_lossy(value))),
            None => format!("{name} absent"),
        })
        .collect()
}

fn stamp(at: Option<SystemTime>) -> String {
    at.map(httpdate::fmt_http_date).unwrap_or_default()
}
