//! Purging by hand: `POST /purge` with what is to go, as JSON.
//!
//! | key | purges |
//! |---|---|
//! | `key` | one key, as `explain` shows it |
//! | `url` | what was fetched for a URL, under whatever key: every variant, and every caller's |
//! | `prefix` | what was fetched for URLs that begin like this |
//! | `tag` | what carries a tag: the route's, as `explain` shows it, or the origin's `Cache-Tag` and `Surrogate-Key` |
//! | `all` | `true`: every cache; a name: that one |
//!
//! The first four take one or a list. `"soft": true` makes entries stale instead of gone. Each purge is done in every cache
//! and for fills under way, at once, however many entries it ends; how many that are is said for keys, and for others
//! with `"count": true`, which looks at every entry. Every purge is logged with who asked for it.
//!
//! Where edges share a Redis, `"fleet"` says whether the others have been told; 202 says that they will be.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Body;
use serde_json::{Value, json};

use super::{json, read, refused, upstreams::is_cross_site};
use crate::{
    cache::{Purge, Told, Url},
    running::{Order, PurgedBy, Running},
    state::State,
};

/// A long list of tags; more is a purge of everything.
const BODY_BYTES: usize = 256 << 10;
/// Each of them looks at every entry.
const MOST_COUNTED: usize = 32;

/// What is asked for.
#[derive(Debug, Default)]
struct Wish {
    key: Vec<String>,
    url: Vec<String>,
    prefix: Vec<String>,
    tag: Vec<String>,
    all: Option<All>,
    soft: bool,
    count: bool,
}

#[derive(Debug)]
enum All {
    Every,
    Of(String),
}

impl Wish {
    /// Reads the body; an error says of the key what it takes.
    fn read(body: &[u8]) -> Result<Self, String> {
        let body = serde_json::from_slice(body).map_err(|problem| format!("this is not JSON: {problem}"))?;
        let Value::Object(keys) = body else {
            return Err(r#"an object should stand here: {"tag": "news"}"#.to_owned());
        };
        let mut wish = Self::default();
        for (key, value) in &keys {
            let wrong = |takes: &str| format!("`{key}` takes {takes}, not {value}");
            let text = |value: &Value| {
                let text = value.as_str().map(str::to_owned);
                text.ok_or_else(|| wrong("a text or a list of texts"))
            };
            let texts = || match value {
                Value::Array(items) => items.iter().map(text).collect(),
                one => Ok(vec![text(one)?]),
            };
            let switch = || value.as_bool().ok_or_else(|| wrong("true or false"));
            match &**key {
                "key" => wish.key = texts()?,
                "url" => wish.url = texts()?,
                "prefix" => wish.prefix = texts()?,
                "tag" => wish.tag = texts()?,
                "soft" => wish.soft = switch()?,
                "count" => wish.count = switch()?,
                "all" => {
                    wish.all = match value {
                        Value::Bool(every) => every.then_some(All::Every),
                        Value::String(name) => Some(All::Of(name.clone())),
                        _ => return Err(wrong("true or the name of a cache")),
                    }
                }
                _ => {
                    let known = "`key`, `url`, `prefix`, `tag`, `all`, `soft` and `count`";
                    return Err(format!("unknown key `{key}`: there is {known}"));
                }
            }
        }
        Ok(wish)
    }
}

/// Answers `/purge`.
pub(super) async fn answer<B>(request: Request<B>, peer: SocketAddr, state: &State) -> Response<Full<Bytes>>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    if request.method() != Method::POST {
        let mut refused = refused(StatusCode::METHOD_NOT_ALLOWED, "POST what is to be purged, as JSON");
        refused.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("POST"));
        return refused;
    }
    if is_cross_site(request.headers()) {
        return refused(StatusCode::FORBIDDEN, "a page of another site may not purge anything here");
    }
    let Some(body) = read(request, BODY_BYTES).await else {
        return refused(
            StatusCode::PAYLOAD_TOO_LARGE,
            "what is to be purged is said in a few words, and soon",
        );
    };
    let snapshot = state.snapshot();
    let (orders, wish) = match Wish::read(&body)
        .and_then(|wish| orders(&wish, &snapshot.running).map(|orders| (orders, wish)))
    {
        Ok((orders, wish)) if !orders.is_empty() => (orders, wish),
        Ok(_) => return refused(StatusCode::UNPROCESSABLE_ENTITY, "name a key, url, prefix or tag, or all"),
        Err(problem) => return refused(StatusCode::UNPROCESSABLE_ENTITY, &problem),
    };
    let (mode, word) = if wish.soft { (Purge::Soft, "soft") } else { (Purge::Hard, "hard") };
    let in_force = snapshot.clone();
    let purge = move || {
        let done = |order: &Order| {
            // Counted before: afterwards they are gone.
            let entries = snapshot.running.entries(order, wish.count);
            snapshot.running.purge(order, mode, PurgedBy::Admin);
            let (kind, name) = order.said(&snapshot.running);
            tracing::info!(kind, name, mode = word, entries, by = %peer, "purged by an operator");
            json!({ kind: name, "entries": entries })
        };
        json!({ "purged": orders.iter().map(done).collect::<Vec<_>>(), "mode": word })
    };
    // Counting takes a while when there are many, and requests must not wait for it.
    let purged = tokio::task::spawn_blocking(purge).await;
    in_force.running.tags.recorded().await;
    match purged {
        Ok(mut report) => {
            let told = in_force.running.told().await;
            if let Some(word) = told.word() {
                report["fleet"] = word.into();
            }
            let status = if told == Told::Waiting { StatusCode::ACCEPTED } else { StatusCode::OK };
            json(status, &report)
        }
        Err(_) => refused(StatusCode::INTERNAL_SERVER_ERROR, "the purge broke off"),
    }
}

/// What a wish orders, in its own words where they are wrong.
fn orders(wish: &Wish, running: &Running) -> Result<Vec<Order>, String> {
    let url = |text: &String| {
        Url::parse(text)
            .ok_or_else(|| format!("`{text}` is no URL: it begins with http:// or https:// and a host"))
    };
    let named = |text: &String| match &**text {
        "" => Err("a tag or key needs a text".to_owned()),
        text => Ok(text.to_owned()),
    };
    let mut orders = Vec::new();
    for text in &wish.key {
        orders.push(Order::Key(named(text)?));
    }
    for text in &wish.url {
        orders.push(Order::Url(url(text)?));
    }
    for text in &wish.prefix {
        orders.push(Order::Prefix(url(text)?));
    }
    for text in &wish.tag {
        orders.push(Order::Tag(named(text)?));
    }
    if wish.count && orders.len() > MOST_COUNTED {
        return Err(format!("entries are counted for at most {MOST_COUNTED} purges at a time"));
    }
    match &wish.all {
        None => {}
        Some(All::Every) => orders.push(Order::All(None)),
        Some(All::Of(name)) => {
            let at = running.plan.caches.iter().position(|cache| *cache.name == **name);
            orders.push(Order::All(Some(at.ok_or_else(|| format!("there is no cache `{name}`"))?)));
        }
    }
    Ok(orders)
}
