//! `proxy_pass` and `grpc_pass`, and the directives that tune them.

use weir_config::{
    plan::RetryOn,
    raw::{Protocol, Retry, Route, Timeouts, Upstream, UpstreamTls, Word},
    template::Template,
    units::Span,
};

use super::{Translator, list, maybe, slice};
use crate::{
    scope::Scope,
    tree::Directive,
    value::{number, span},
    variable::{self, Known},
};

/// What nginx waits without a word for a connection, for an answer, and between two reads.
pub(super) const NGINX_TIMEOUT: Span = Span::new(std::time::Duration::from_secs(60));

/// Fields between two hops: weir manages them for each connection.
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "upgrade",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "content-length",
    "proxy-connection",
];

/// Whether a field of this name can be set: a token (RFC 9110 §5.6.2) that does not belong to the connection.
pub(super) fn can_be_set(name: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(token) && !HOP_BY_HOP.contains(&name.to_ascii_lowercase().as_str())
}

/// The failure that `proxy_next_upstream` and `proxy_cache_use_stale` call so.
pub(super) fn failure(word: &str) -> Option<RetryOn> {
    Some(match word {
        "error" => RetryOn::Error,
        "timeout" => RetryOn::Timeout,
        "invalid_header" => RetryOn::InvalidHeader,
        "non_idempotent" => RetryOn::NonIdempotent,
        "http_403" => RetryOn::Http403,
        "http_404" => RetryOn::Http404,
        "http_429" => RetryOn::Http429,
        "http_500" => RetryOn::Http500,
        "http_502" => RetryOn::Http502,
        "http_503" => RetryOn::Http503,
        "http_504" => RetryOn::Http504,
        _ => return None,
    })
}

/// What a location adds to the upstream it uses.
#[derive(Debug, Clone)]
pub(super) struct Tuning {
    timeouts: Timeouts,
    retry: Retry,
    tls: Word<UpstreamTls>,
    bind: Word<String>,
    protocol: Word<Protocol>,
}

/// Which module's words tune a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Module {
    Proxy,
    Grpc,
}

impl Module {
    /// The directive of this module with this rest of a name.
    fn word(self, rest: &str) -> String {
        let prefix = match self {
            Self::Proxy => "proxy",
            Self::Grpc => "grpc",
        };
        format!("{prefix}_{rest}")
    }
}

impl Tuning {
    /// The upstream with this tuning; `tries` where it does not say how often.
    pub(super) fn apply(self, base: Upstream, tries: u32) -> Upstream {
        let mut retry = self.retry;
        if retry.tries.is_absent() {
            retry.tries = Word::new(tries);
        }
        Upstream {
            timeouts: Word::new(self.timeouts),
            retry: Word::new(retry),
            tls: self.tls,
            bind: self.bind,
            protocol: self.protocol,
            ..base
        }
    }
}

/// `proxy_pass SCHEME://AUTHORITY[URI]`, `grpc_pass [SCHEME://]AUTHORITY`.
pub(super) struct Target<'t> {
    module: Module,
    tls: bool,
    authority: &'t str,
    /// Replaces the part of the path that the location matched; `None` passes the target as it came.
    pub(super) uri: Option<&'t str>,
}

impl<'t> Target<'t> {
    /// Reads a `proxy_pass` or a `grpc_pass`; `None` is an URL without a scheme we know.
    pub(super) fn of(pass: &'t Directive) -> Option<Self> {
        let url = pass.arg(0);
        if pass.name == "grpc_pass" {
            let (tls, authority) = match url.split_once("://") {
                None => (false, url),
                Some(("grpc", rest)) => (false, rest),
                Some(("grpcs", rest)) => (true, rest),
                Some(_) => return None,
            };
            return Some(Self { module: Module::Grpc, tls, authority, uri: None });
        }
        let (tls, rest) = match url.strip_prefix("http://") {
            Some(rest) => (false, rest),
            None => (true, url.strip_prefix("https://")?),
        };
        if let Some(path) = rest.strip_prefix("unix:") {
            // `unix:/path:/uri`: the second colon ends the path of the socket.
            let (path, uri) = path.split_once(':').unwrap_or((path, ""));
            let authority = &rest[.."unix:".len() + path.len()];
            let uri = (!uri.is_empty()).then_some(uri);
            return Some(Self { module: Module::Proxy, tls, authority, uri });
        }
        let uri_at =
            ["/", "?", "$request_uri", "$uri"].into_iter().filter_map(|start| rest.find(start)).min();
        let uri_at = uri_at.unwrap_or(rest.len());
        let (authority, uri) = rest.split_at(uri_at);
        Some(Self { module: Module::Proxy, tls, authority, uri: (!uri.is_empty()).then_some(uri) })
    }
}

impl Target<'_> {
    /// The name of the target. A socket has none; nginx says localhost.
    pub(super) fn host(&self) -> &str {
        if self.authority.starts_with("unix:") { "localhost" } else { self.authority }
    }

    /// Whether the upstream is asked for what the client asked for.
    pub(super) fn passes_as_it_came(&self) -> bool {
        matches!(self.uri, None | Some("$request_uri" | "$uri$is_args$args"))
    }
}

impl<'a> Translator<'a, '_> {
    /// The upstream for a target, tuned as `scope` says; otherwise what to do.
    pub(super) fn upstream_of(&mut self, scope: &Scope<'a>, target: &Target<'_>) -> Result<String, String> {
        if !variable::is_constant(target.authority) {
            return Err("name the upstream: it cannot be chosen by a variable".to_owned());
        }
        let host = target.host().split(':').next().unwrap_or_default();
        let tuning = self.tuning(scope, target.module, target.tls.then_some(host));
        self.upstream(target.authority, target.tls, tuning)
    }

    /// Makes `route` forward as `pass` says; otherwise what to do.
    pub(super) fn forward(
        &mut self,
        pass: &'a Directive,
        scope: &Scope<'a>,
        known: &mut Known,
        route: &mut Route,
    ) -> Result<(), String> {
        let Some(target) = Target::of(pass) else {
            self.problems.add(&pass.args[0].at, "invalid URL prefix");
            return Ok(());
        };
        known.constants.push(("proxy_host", target.host().to_owned()));
        route.to = Word::new(self.upstream_of(scope, &target)?);
        self.request_headers(scope, target.module, known, route);
        for (name, what_to_do) in [
            (
                "proxy_pass_request_headers",
                "fields are passed on: empty those that must not be with proxy_set_header",
            ),
            ("proxy_pass_request_body", "bodies are passed on: take the directive out"),
        ] {
            match scope.one(name) {
                Some(flag) if flag.arg(0) == "off" => self.ledger.refused(flag, what_to_do),
                Some(flag) => self.ledger.exact(flag),
                None => {}
            }
        }
        Ok(())
    }

    /// Timeouts, retries, protocol and TLS that hold in `scope`; `tls` is the host of an https URL.
    pub(super) fn tuning(&mut self, scope: &Scope<'a>, module: Module, tls: Option<&str>) -> Tuning {
        let connect = self.said(scope, &module.word("connect_timeout"), span).unwrap_or(NGINX_TIMEOUT);
        let read = self.said(scope, &module.word("read_timeout"), span).unwrap_or(NGINX_TIMEOUT);
        let write = self.said(scope, &module.word("send_timeout"), span);
        let timeouts = Timeouts {
            connect: Word::new(connect),
            first_byte: Word::new(read),
            read: Word::new(read),
            write: maybe(write),
            ..Timeouts::default()
        };
        let (retry, bind) = (self.retry(scope, module), self.bind(scope));
        let protocol = maybe(self.protocol(scope, module, tls.is_some()));
        let tls = maybe(tls.map(|host| self.peer_tls(scope, module, host)));
        Tuning { timeouts, retry, tls, bind, protocol }
    }

    /// `grpc_pass`, or `proxy_http_version 2`; `None` is HTTP/1.1.
    fn protocol(&mut self, scope: &Scope<'a>, module: Module, tls: bool) -> Option<Protocol> {
        let http2 = Some(if tls { Protocol::H2 } else { Protocol::H2c });
        let version = match module {
            Module::Grpc => return http2,
            Module::Proxy => scope.one("proxy_http_version")?,
        };
        match version.arg(0) {
            "2" => {
                self.ledger.exact(version);
                return http2;
            }
            "1.1" => self.ledger.exact(version),
            "1.0" => self.ledger.approximated(version, "peers are spoken to in HTTP/1.1"),
            other => self.problems.add(&version.args[0].at, format!("invalid value \"{other}\"")),
        }
        None
    }

    fn retry(&mut self, scope: &Scope<'a>, module: Module) -> Retry {
        let mut retry = Retry::default();
        if let Some(tries) =
            self.said(scope, &module.word("next_upstream_tries"), number).filter(|tries| *tries > 0)
        {
            retry.tries = Word::new(tries);
        }
        if let Some(timeout) =
            self.said(scope, &module.word("next_upstream_timeout"), span).filter(|span| !span.get().is_zero())
        {
            retry.timeout = Word::new(timeout);
        }
        let Some(next) = scope.one(&module.word("next_upstream")) else { return retry };
        self.ledger.exact(next);
        let mut on = Vec::new();
        for word in &next.args {
            match (word.text.as_str(), failure(&word.text)) {
                (_, Some(failure)) => on.push(failure),
                // Of a cache; `off` stands alone.
                ("updating", None) if matches!(module, Module::Proxy) => {}
                ("off", None) => {
                    retry.tries = Word::new(1);
                    return retry;
                }
                (other, None) => self.problems.add(&word.at, format!("invalid value \"{other}\"")),
            }
        }
        retry.on = list(on);
        retry
    }

    fn peer_tls(&mut self, scope: &Scope<'a>, module: Module, host: &str) -> UpstreamTls {
        let mut name = host.to_owned();
        if let Some(directive) = scope.one(&module.word("ssl_name")) {
            if variable::is_constant(directive.arg(0)) {
                self.ledger.exact(directive);
                directive.arg(0).clone_into(&mut name);
            } else {
                self.ledger.approximated(
                    directive,
                    format!("the name is `{host}`: it cannot depend on the request"),
                );
            }
        }
        if let Some(directive) = scope.one(&module.word("ssl_server_name")) {
            match directive.arg(0) {
                "on" => self.ledger.exact(directive),
                _ => self.ledger.approximated(directive, "the name is always sent"),
            }
        }
        if let Some(directive) = scope.one(&module.word("ssl_verify")) {
            self.ledger.exact(directive);
        }
        // Without a word, nginx verifies nobody.
        let verify = Word::new(scope.is_on(&module.word("ssl_verify")));
        let mut tls = UpstreamTls { name: Word::new(name), verify, ..UpstreamTls::default() };
        self.peer_tls_files(scope, &mut tls);
        tls
    }

    /// `proxy_set_header` and `grpc_set_header`: `Host` and fields for the origin.
    fn request_headers(&mut self, scope: &Scope<'a>, module: Module, known: &Known, route: &mut Route) {
        let mut fields: Vec<(String, Template)> = Vec::new();
        // Without a word, nginx sends the name that proxy_pass has.
        let mut host = variable::template("$proxy_host", known).ok();
        for directive in scope.all(&module.word("set_header")) {
            let (name, value) = (directive.arg(0).to_ascii_lowercase(), directive.arg(1));
            if HOP_BY_HOP.contains(&name.as_str()) {
                self.ledger.ignored(directive, "weir manages the connection, upgrades included");
                continue;
            }
            if !can_be_set(&name) {
                self.ledger.refused(directive, "give the field a name of letters, digits and dashes");
                continue;
            }
            if name == "x-forwarded-for" && value == "$proxy_add_x_forwarded_for" {
                self.ledger.ignored(directive, "weir does this itself");
                continue;
            }
            if name == "host" && value == "$http_host" {
                // The client's own is what passes when nothing is said.
                host = None;
                self.ledger.exact(directive);
                continue;
            }
            if name == "range" && slice::is_range(value) {
                // What is asked of the origin follows from `cache.slice`.
                self.ledger.exact(directive);
                continue;
            }
            match variable::template(value, known) {
                Ok(template) if name == "host" => host = Some(template),
                Ok(template) if fields.iter().all(|(there, _)| !there.eq_ignore_ascii_case(&name)) => {
                    fields.push((directive.arg(0).to_owned(), template));
                }
                Ok(_) => {
                    self.ledger.refused(directive, "a field is set once: join the values with a comma");
                    continue;
                }
                Err(what_to_do) => {
                    self.ledger.refused(directive, what_to_do);
                    continue;
                }
            }
            self.ledger.exact(directive);
        }
        route.host = maybe(host);
        route.request_headers = super::named(fields);
    }
}
