//! Upstreams while they run: who serves them, and how that is changed without a reload.
//!
//! | request | does |
//! |---|---|
//! | `GET /upstreams`, `GET /upstreams/NAME` | servers as they are meant now, peers as they are, idle connections |
//! | `POST /upstreams/NAME/servers` | adds a server; the body is what `servers` would hold in config.yaml, as JSON |
//! | `PATCH /upstreams/NAME/servers/SERVER` | changes its keys: `{"weight": 3}`, `{"drain": true}`, `{"down": true}` |
//! | `DELETE /upstreams/NAME/servers/SERVER` | removes it; requests that it has go on to their end |
//!
//! SERVER is a server's address, or the whole name of its service (`_http._tcp.api.internal`), percent-encoded where needed.
//! A change is checked as the file is, holds at once, and outlives reloads until the file says something else of that
//! server than before; a restart begins with the file. Every change is logged with who asked for it, and what it changed.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header, uri::Authority};
use http_body_util::Full;
use hyper::body::Body;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use weir_config::{
    change::{Change, Refused},
    plan::Server,
    units::Span,
};

use super::{json, read, refused};
use crate::{
    balance::Sight,
    running::{CannotChange, Upstream},
    state::State,
};

/// One server in JSON; more is something else.
const BODY_BYTES: usize = 16 << 10;

/// Answers a request below `/upstreams`; `path` is what follows that.
pub(super) async fn answer<B>(
    request: Request<B>,
    path: &str,
    peer: SocketAddr,
    state: &State,
) -> Response<Full<Bytes>>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    let parts: Vec<&str> = path.splitn(4, '/').filter(|part| !part.is_empty()).collect();
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return show(&parts, state);
    }
    if is_cross_site(request.headers()) {
        return refused(StatusCode::FORBIDDEN, "a page of another site may not change anything here");
    }
    let method = request.method().clone();
    let Some(body) = read(request, BODY_BYTES).await else {
        return refused(StatusCode::PAYLOAD_TOO_LARGE, "a server is described in a few words, and soon");
    };
    let (Ok(text), address) = (std::str::from_utf8(&body), parts.get(2).copied().unwrap_or_default()) else {
        return refused(StatusCode::UNPROCESSABLE_ENTITY, "the body is not text");
    };
    let Ok(address) = percent_decode_str(address).decode_utf8() else {
        return refused(StatusCode::NOT_FOUND, "there is no such server");
    };
    let (change, did, status) = match (&method, parts.as_slice()) {
        (&Method::POST, [_, "servers"]) => (Change::Add(text), "added", StatusCode::CREATED),
        (&Method::PATCH, [_, "servers", _]) => (Change::Alter(&address, text), "changed", StatusCode::OK),
        (&Method::DELETE, [_, "servers", _]) => (Change::Remove(&address), "removed", StatusCode::OK),
        (_, [] | [_] | [_, "servers", ..]) => {
            let mut refused = refused(StatusCode::METHOD_NOT_ALLOWED, "not here");
            let allow = match parts.len() {
                2 => "POST",
                3 => "PATCH, DELETE",
                _ => "GET, HEAD",
            };
            refused.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static(allow));
            return refused;
        }
        _ => return refused(StatusCode::NOT_FOUND, "upstreams/NAME/servers/SERVER"),
    };
    // A reload that is under way would take over what was before this change.
    let _no_reload = state.changing().await;
    let snapshot = state.snapshot();
    let Some(upstream) = find(&snapshot.running.upstreams, parts[0]) else { return unknown(parts[0]) };
    match upstream.roster.change(change).await {
        Ok((server, changes)) => {
            let what = changes.join(", ");
            tracing::info!(upstream = parts[0], server, by = %peer, did, changes = what, "server changed by an operator");
            let did = format!("{did} {server}");
            json(
                status,
                &json!({ "did": did, "changes": changes, "upstream": seen(upstream, Instant::now()) }),
            )
        }
        Err(problem) => {
            let status = match &problem {
                CannotChange::Refused(Refused::NotThere(_)) => StatusCode::NOT_FOUND,
                CannotChange::Refused(Refused::There(_)) => StatusCode::CONFLICT,
                CannotChange::Refused(Refused::Wrong(_)) | CannotChange::Unresolved(_) => {
                    StatusCode::UNPROCESSABLE_ENTITY
                }
            };
            refused(status, &problem.to_string())
        }
    }
}

fn show(parts: &[&str], state: &State) -> Response<Full<Bytes>> {
    let (snapshot, now) = (state.snapshot(), Instant::now());
    let upstreams = &snapshot.running.upstreams;
    match parts {
        [] => {
            let all: Vec<_> = upstreams.iter().map(|upstream| seen(upstream, now)).collect();
            json(StatusCode::OK, &json!({ "upstreams": all }))
        }
        [name] => match find(upstreams, name) {
            Some(upstream) => json(StatusCode::OK, &seen(upstream, now)),
            None => unknown(name),
        },
        _ => refused(StatusCode::NOT_FOUND, "upstreams or upstreams/NAME"),
    }
}

fn find<'a>(upstreams: &'a [Arc<Upstream>], name: &str) -> Option<&'a Arc<Upstream>> {
    let name = percent_decode_str(name).decode_utf8().ok()?;
    upstreams.iter().find(|upstream| *upstream.plan.name == *name)
}

fn unknown(name: &str) -> Response<Full<Bytes>> {
    refused(StatusCode::NOT_FOUND, &format!("there is no upstream `{name}`"))
}

fn seen(upstream: &Upstream, now: Instant) -> Value {
    let servers = upstream.roster.servers();
    let servers: Vec<_> = servers.iter().map(|(server, as_written)| meant(server, *as_written)).collect();
    let peers: Vec<_> = upstream.pool().sight(now).iter().map(peer).collect();
    json!({ "name": &*upstream.plan.name, "servers": servers, "peers": peers, "idle": upstream.idle.count() })
}

/// A server in the words of config.yaml, and whether the file says so too.
fn meant(server: &Server, as_written: bool) -> Value {
    json!({
        "server": server.name(), "address": server.address, "weight": server.weight, "max_conns": server.max_conns,
        "max_fails": server.max_fails, "fail_timeout": Span::new(server.fail_timeout).to_string(),
        "backup": server.backup, "down": server.down, "drain": server.drain, "resolve": server.resolve,
        "service": server.service, "changed": !as_written,
    })
}

fn peer(sight: &Sight) -> Value {
    let endpoint = sight.peer.endpoint();
    let state = match sight {
        _ if endpoint.down => "down",
        _ if endpoint.drain => "draining",
        _ if !sight.peer.is_healthy() => "unhealthy",
        _ if sight.out => "out",
        _ => "up",
    };
    json!({
        "server": &*endpoint.name, "address": endpoint.address.to_string(), "state": state,
        "active": sight.peer.active(), "fails": sight.fails, "weight": endpoint.weight,
        "backup": endpoint.backup, "healthy": sight.peer.is_healthy(),
    })
}

/// Whether a browser sends this for a page that is not ours.
///
/// An operator's tool sends neither field. A page of ours is at an address or at localhost: a name could be another
/// site's that has been made to point here (DNS rebinding).
pub(super) fn is_cross_site(headers: &HeaderMap) -> bool {
    let field = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    if field(header::HeaderName::from_static("sec-fetch-site")).is_some_and(|site| site != "same-origin") {
        return true;
    }
    field(header::ORIGIN).is_some_and(|origin| {
        let origin = origin.strip_prefix("http://").unwrap_or_default();
        let host = origin.parse::<Authority>().ok();
        let is_ours = host.is_some_and(|host| {
            let host = host.host().trim_start_matches('[').trim_end_matches(']');
            host == "localhost" || host.parse::<std::net::IpAddr>().is_ok()
        });
        !is_ours || field(header::HOST) != Some(origin)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cross_site(fields: &[(&'static str, &'static str)]) -> bool {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (header::HeaderName::from_static(name), header::HeaderValue::from_static(value))
        };
        is_cross_site(&fields.iter().map(pair).collect())
    }

    #[test]
    fn only_tools_and_pages_of_our_own_may_change_something() {
        let host = ("host", "127.0.0.1:9180");
        assert!(!cross_site(&[host]));
        assert!(!cross_site(&[host, ("origin", "http://127.0.0.1:9180"), ("sec-fetch-site", "same-origin")]));
        assert!(!cross_site(&[("host", "[::1]:9180"), ("origin", "http://[::1]:9180")]));
        for foreign in
            ["https://evil.test", "http://127.0.0.1:8080", "null", "http://127.0.0.1:9180.evil.test"]
        {
            assert!(cross_site(&[host, ("origin", foreign)]), "{foreign}");
        }
        for site in ["cross-site", "same-site", "none"] {
            assert!(cross_site(&[host, ("sec-fetch-site", site)]), "{site}");
        }
        assert!(
            cross_site(&[("host", "evil.test:9180"), ("origin", "http://evil.test:9180")]),
            "a name that was made to point here"
        );
    }
}
