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

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Body;
use serde::Deserialize;
use serde_json::json;

use super::{json, read, refused, upstreams::is_cross_site};
use crate::{
    cache::{Purge, Url},
    running::{Order, PurgedBy, Running},
    state::State,
};

/// A long list of tags; more is a purge of everything.
const BODY_BYTES: usize = 256 << 10;
/// Each of them looks at every entry.
const MOST_COUNTED: usize = 32;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Wish {
    key: OneOrMany,
    url: OneOrMany,
    prefix: OneOrMany,
    tag: OneOrMany,
    all: Option<All>,
    soft: bool,
    count: bool,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum All {
    Every(bool),
    Of(String),
}

impl Default for OneOrMany {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl OneOrMany {
    fn all(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
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
    let wish = serde_json::from_slice::<Wish>(&body).map_err(|problem| problem.to_string());
    let (orders, wish) = match wish
        .and_then(|wish| orders(&wish, &snapshot.running).map(|orders| (orders, wish)))
    {
        Ok((orders, wish)) if !orders.is_empty() => (orders, wish),
        Ok(_) => return refused(StatusCode::UNPROCESSABLE_ENTITY, "name a key, url, prefix or tag, or all"),
        Err(problem) => return refused(StatusCode::UNPROCESSABLE_ENTITY, &problem),
    };
    let (mode, word) = if wish.soft { (Purge::Soft, "soft") } else { (Purge::Hard, "hard") };
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
    match tokio::task::spawn_blocking(purge).await {
        Ok(report) => json(StatusCode::OK, &report),
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
    for text in wish.key.all() {
        orders.push(Order::Key(named(text)?));
    }
    for text in wish.url.all() {
        orders.push(Order::Url(url(text)?));
    }
    for text in wish.prefix.all() {
        orders.push(Order::Prefix(url(text)?));
    }
    for text in wish.tag.all() {
        orders.push(Order::Tag(named(text)?));
    }
    if wish.count && orders.len() > MOST_COUNTED {
        return Err(format!("entries are counted for at most {MOST_COUNTED} purges at a time"));
    }
    match &wish.all {
        None | Some(All::Every(false)) => {}
        Some(All::Every(true)) => orders.push(Order::All(None)),
        Some(All::Of(name)) => {
            let at = running.plan.caches.iter().position(|cache| *cache.name == **name);
            orders.push(Order::All(Some(at.ok_or_else(|| format!("there is no cache `{name}`"))?)));
        }
    }
    Ok(orders)
}
