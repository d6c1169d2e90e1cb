//! A request as every stage behind the front sees it: one method, one host, one path, and the fields that may be
//! passed on.
//!
//! [`RequestView::read`] is the border. What it lets through is cleaned (hop-by-hop fields, claims about the client,
//! the identity field) and parsed; nobody behind it looks at the client's own bytes again. So a route, a limit, a cache
//! key and the origin cannot disagree about what was asked.

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
};

use http::{HeaderMap, HeaderValue, Method, Version, header};
use rand::Rng;
use uuid::Uuid;
use weir_config::{
    Plan,
    template::{Values, Variable},
};

use crate::{
    accept::{Arrival, BadRequest, client, exchange::Head},
    auth::Session,
    cache::Url,
    forward::{
        headers::Hop,
        hop_by_hop,
        proxy_protocol::Ends,
        trace::{RequestId, Trace},
        upgrade::Upgrade,
    },
    refusal::Refusal,
    route::{Params, path::Path},
};

/// A request, cleaned and parsed.
#[derive(Debug, Clone)]
pub struct RequestView {
    /// The method.
    pub method: Method,
    /// As the client spoke.
    pub version: Version,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// `Host` in lower case, with the port if the client gave one.
    pub authority: String,
    /// Parsed; what is matched and what is forwarded.
    pub path: Path<'static>,
    /// After `?`, without it.
    pub query: Option<String>,
    /// What may be passed on.
    pub headers: HeaderMap,
    /// Whether a body follows.
    pub has_body: bool,
    /// Whether the client takes trailers.
    pub trailers: bool,
    /// The other protocol it asks for; the route says whether that is passed on.
    pub upgrade: Option<Upgrade>,
    /// The client, behind trusted hops.
    pub client: IpAddr,
    /// Who connected to us.
    pub peer: IpAddr,
    /// Whether `peer` is a trusted hop.
    pub is_trusted: bool,
    /// The port that was connected to.
    pub port: u16,
    /// What peers hear of the client's connection before they hear the request, where they want to.
    pub ends: Ends,
    /// Its name in logs here and at the origin.
    pub id: RequestId,
    /// What names the trace that it begins, unless it continues one, and its own part of either; see [`RequestView::trace`].
    pub span: (Uuid, u64),
}

/// How a request came.
#[derive(Debug, Clone, Copy)]
pub struct Came {
    /// Who connected.
    pub peer: SocketAddr,
    /// To which address of ours.
    pub local: SocketAddr,
    /// `http` or `https`.
    pub scheme: &'static str,
}

impl RequestView {
    /// Reads a head that the front let pass.
    ///
    /// # Errors
    /// 400s that need the whole head: a path without an agreed meaning, `Connection` naming what is not the connection's.
    pub fn read(head: Head, has_body: bool, arrival: &Arrival, plan: &Plan) -> Result<Self, Refusal> {
        let target = std::str::from_utf8(&head.target).map_err(|_| Refusal::Bad(BadRequest::BadTarget))?;
        let connection = &arrival.connection;
        let came = Came { peer: connection.peer, local: connection.local, scheme: connection.scheme() };
        Self::read_from(head.method, target, arrival.version, head.headers, has_body, came, plan)
    }

    /// The same, of a request that came over no connection of ours.
    ///
    /// # Errors
    /// As [`RequestView::read`].
    pub fn read_from(
        method: Method,
        target: &str,
        version: Version,
        mut headers: HeaderMap,
        has_body: bool,
        came: Came,
        plan: &Plan,
    ) -> Result<Self, Refusal> {
        // CONNECT names a host and a port, and no path.
        let is_connect = method == Method::CONNECT;
        let (raw_path, query) = if is_connect { ("/", None) } else { split_target(target) };
        let path = Path::parse(raw_path).map_err(|_| Refusal::Bad(BadRequest::BadTarget))?.into_owned();
        let peer = came.peer.ip().to_canonical();
        let is_trusted = plan.clients.trusted.iter().any(|net| net.contains(&peer));
        let client = client::client(peer, &headers, &plan.clients);
        let identity = plan.identity.as_ref().map(|identity| &identity.header);
        let (mut upgrade, mut trailers) = (None, false);
        if !hop_by_hop::is_clean(&headers) {
            upgrade = Upgrade::recognise(&method, version, &headers).filter(|_| !is_connect);
            trailers = version != Version::HTTP_10 && hop_by_hop::takes_trailers(&headers);
            hop_by_hop::clean_request(&mut headers, identity).map_err(|_| Refusal::Hops)?;
        }
        if let Some(identity) = identity {
            headers.remove(identity);
        }
        // HTTP/1.0 may come without Host; such a request is for nobody by name.
        let host = headers.get_mut(header::HOST);
        let authority = host.as_deref().and_then(|host| host.to_str().ok()).unwrap_or("");
        let authority = if is_connect { target } else { authority }.to_ascii_lowercase();
        // The cache compares hosts without regard to case: so must the origin, or one client's spelling is another's answer.
        if let Some(host) = host.filter(|host| host.as_bytes() != authority.as_bytes())
            && let Ok(lower) = HeaderValue::try_from(&authority)
        {
            *host = lower;
        }
        // From the thread's generator: the system's would cost a call into the kernel for each request.
        let (random, span): (u128, u64) = rand::rng().random();
        let fresh = uuid::Builder::from_random_bytes(random.to_ne_bytes()).into_uuid();
        let id = RequestId::of(&headers, is_trusted, fresh);
        Ok(Self {
            method,
            version,
            scheme: came.scheme,
            authority,
            path,
            query,
            headers,
            has_body,
            trailers,
            upgrade,
            client,
            peer,
            is_trusted,
            port: came.local.port(),
            ends: Ends {
                // Behind hops that forward for it, nobody knows the client's port.
                client: SocketAddr::new(client, if client == peer { came.peer.port() } else { 0 }),
                local: came.local,
            },
            id,
            span: (fresh, span),
        })
    }

    /// `authority` without the port.
    #[must_use]
    pub fn host(&self) -> &str {
        without_port(&self.authority)
    }

    /// Its place in a trace: read from the fields only when somebody is told.
    #[must_use]
    pub fn trace(&self) -> Trace {
        let (fresh, span) = self.span;
        Trace::follow(&self.headers, fresh, span)
    }

    /// Its name in logs, as text.
    #[must_use]
    pub fn id(&self) -> &str {
        self.id.as_str()
    }

    /// Path and query as they are forwarded when the route does not rewrite them; of CONNECT, host and port.
    #[must_use]
    pub fn target(&self) -> Cow<'_, str> {
        if self.method == Method::CONNECT {
            return Cow::Borrowed(&self.authority);
        }
        let path = self.path.forwarded();
        match &self.query {
            Some(query) => Cow::Owned(format!("{path}?{query}")),
            None => Cow::Borrowed(path),
        }
    }

    /// The URL that was asked for, as operators purge it.
    #[must_use]
    pub fn url(&self) -> Url {
        Url::new(self.scheme, &self.authority, &self.target())
    }

    /// What the origin is told about the way this request came.
    #[must_use]
    pub fn hop(&self) -> Hop<'_> {
        Hop {
            client: self.client,
            peer: self.peer,
            is_trusted: self.is_trusted,
            scheme: self.scheme,
            host: &self.authority,
            port: self.port,
            version: self.version,
            request_id: self.id.value(),
            trace: self.trace(),
        }
    }

    /// The first value of a query parameter, percent-decoded; `+` is a space, as forms send it.
    fn query_value(&self, name: &str) -> Option<Cow<'_, str>> {
        let pairs = self.query.as_deref()?.split('&');
        let mut pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let (_, value) = pairs.find(|(key, _)| decoded(key) == name)?;
        Some(decoded(value))
    }

    fn cookie(&self, name: &str) -> Option<Cow<'_, str>> {
        let crumbs = self.headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut pairs =
            crumbs.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| Cow::Borrowed(value))
    }

    fn field(&self, name: &http::HeaderName) -> Option<Cow<'_, str>> {
        let mut values = self.headers.get_all(name).iter();
        let first = String::from_utf8_lossy(values.next()?.as_bytes());
        // Cookies are the one list whose members have another sign between them (RFC 6265 §4.2.1).
        let between = if *name == header::COOKIE { "; " } else { ", " };
        Some(values.fold(first, |all, value| {
            let mut all = all.into_owned();
            all.push_str(between);
            all.push_str(&String::from_utf8_lossy(value.as_bytes()));
            Cow::Owned(all)
        }))
    }
}

/// Path and query of a target in any form; the absolute form's authority was compared with `Host` by the front.
fn split_target(target: &str) -> (&str, Option<String>) {
    let authority = if target.starts_with('/') { None } else { target.find("://") };
    let origin_form = match authority {
        Some(at) => {
            let rest = &target[at + 3..];
            rest.find(['/', '?']).map_or("/", |slash| &rest[slash..])
        }
        None => target,
    };
    match origin_form.split_once('?') {
        Some(("", query)) => ("/", Some(query.to_owned())),
        Some((path, query)) => (path, Some(query.to_owned())),
        // `OPTIONS *` asks about the server itself.
        None if origin_form == "*" => ("/*", None),
        None => (origin_form, None),
    }
}

fn without_port(authority: &str) -> &str {
    // What follows the last of these signs is short: bytes from the end are found sooner than by a search.
    match authority.bytes().rposition(|byte| matches!(byte, b':' | b']')) {
        Some(colon) if authority.as_bytes()[colon] == b':' => &authority[..colon],
        _ => authority,
    }
}

/// Percent-decoded; what is not UTF-8 stays as it was written, so that different inputs stay different.
fn decoded(text: &str) -> Cow<'_, str> {
    let spaced = if text.contains('+') { Cow::Owned(text.replace('+', " ")) } else { Cow::Borrowed(text) };
    match spaced {
        Cow::Borrowed(text) => {
            percent_encoding::percent_decode_str(text).decode_utf8().unwrap_or(Cow::Borrowed(text))
        }
        Cow::Owned(text) => match percent_encoding::percent_decode_str(&text).decode_utf8() {
            Ok(decoded) => Cow::Owned(decoded.into_owned()),
            Err(_) => Cow::Owned(text),
        },
    }
}

/// What templates can ask about a request that has found its route.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The request.
    pub request: &'a RequestView,
    /// What its path captured.
    pub params: &'a Params,
    /// Who asks.
    pub caller: Option<&'a Session>,
    /// What the cache did, in nginx's word, once that is known.
    pub cache: &'static str,
}

impl Values for Facts<'_> {
    fn value(&self, variable: &Variable) -> Option<Cow<'_, str>> {
        let request = self.request;
        Some(match variable {
            Variable::ClientIp => Cow::Owned(request.client.to_string()),
            Variable::RequestId => Cow::Borrowed(request.id()),
            Variable::Method => Cow::Borrowed(request.method.as_str()),
            Variable::Scheme => Cow::Borrowed(request.scheme),
            Variable::Host => Cow::Borrowed(request.host()),
            Variable::Path => Cow::Borrowed(request.path.forwarded()),
            Variable::QueryString => Cow::Borrowed(request.query.as_deref()?),
            Variable::Target => request.target(),
            Variable::Query(name) => return request.query_value(name),
            Variable::Header(name) => return request.field(name),
            Variable::Cookie(name) => return request.cookie(name),
            Variable::PathParam(name) => Cow::Borrowed(self.params.get(name)?),
            Variable::Session(field) => return self.caller?.field(field).map(Cow::Borrowed),
            // Only the key of a session look-up may name the token, and that has values of its own.
            Variable::Token => return None,
            Variable::CacheStatus => Cow::Borrowed(self.cache),
            // Only the key of a limit may name it, and that has values of its own.
            Variable::RouteName => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_target_is_a_path_and_a_query() {
        let split = |target| {
            let (path, query) = split_target(target);
            (path.to_owned(), query)
        };
        assert_eq!(split("/a?b=c?d"), ("/a".into(), Some("b=c?d".into())));
        assert_eq!(split("http://h:1/a"), ("/a".into(), None));
        assert_eq!(split("http://h?x"), ("/".into(), Some("x".into())));
        assert_eq!(split("/go?to=http://x/"), ("/go".into(), Some("to=http://x/".into())));
        assert_eq!(split("*"), ("/*".into(), None));
    }

    #[test]
    fn a_host_loses_its_port_and_keeps_its_brackets() {
        assert_eq!(without_port("example.org:80"), "example.org");
        assert_eq!(without_port("[::1]:80"), "[::1]");
        assert_eq!(without_port("[::1]"), "[::1]");
        assert_eq!(without_port(""), "");
    }

    #[test]
    fn what_does_not_decode_stays_as_written() {
        assert_eq!(decoded("a%20b+c"), "a b c");
        assert_eq!(decoded("%ff"), "%ff");
        assert_eq!(decoded("%zz"), "%zz");
    }
}
