//! One location → one route: what it does, who may pass, which fields it sets.

use regex::Regex;
use weir_config::{
    raw::{Answer, Files, Redirect, Route, SessionRule, Word},
    template::Template,
};

use super::{
    Translator,
    auth_request::Closed,
    forward, maybe, named,
    server::{Kind, Location},
};
use crate::{
    scope::Scope,
    tree::Directive,
    value::{bytes, number, span},
    variable::{self, Known},
};

/// The variables that are constant in a server.
pub(super) type Constants = Vec<(&'static str, String)>;

impl<'a> Translator<'a, '_> {
    /// The route of a location; `path` is what it matches in config.yaml.
    pub(super) fn route(
        &mut self,
        location: &Location<'a>,
        path: Option<&str>,
        constants: Constants,
    ) -> Route {
        let pattern =
            path.and_then(|path| path.strip_prefix("~ ")).and_then(|pattern| Regex::new(pattern).ok());
        let captures =
            pattern.iter().flat_map(|regex| regex.capture_names().flatten()).map(str::to_owned).collect();
        let mut known = Known { captures, constants, set: Vec::new() };
        let asked = self.guarded(&location.scope, &mut known);
        let mut route = self.common(&location.scope, &known);
        let passes = location.scope.own("proxy_pass").or_else(|| location.scope.own("grpc_pass"));
        if let Some(internal) = location.scope.own("internal") {
            self.ledger.exact(internal);
            // No client reaches it, whatever it does for mirrors and error pages.
            route = unavailable(404);
        } else if let Some(pass) = passes.filter(|_| !answers(&location.scope)) {
            let forwarded = self.forward(pass, &location.scope, &mut known, &mut route);
            match forwarded.and_then(|()| self.rewrite(pass, location, &known)) {
                Ok(rewrite) => {
                    route.rewrite = maybe(rewrite);
                    self.buffers(&location.scope, &mut route);
                    self.mirrored(&location.scope, &mut route);
                    self.intercepted(&location.scope, &mut route);
                    if pass.name == "proxy_pass" {
                        self.cached(&location.scope, &known, &mut route);
                        self.kept_for_whom(&location.scope, &mut route);
                    }
                    self.ledger.exact(pass);
                }
                Err(what_to_do) => {
                    self.ledger.refused(pass, format!("{what_to_do}; until then it answers 501"));
                    route = unavailable(501);
                }
            }
        } else {
            self.action(&location.scope, Some(location), &known, &mut route);
        }
        self.closed_if_unguardable(&location.scope, asked, route)
    }

    /// The route of a server for what none of its locations takes.
    pub(super) fn fallback(&mut self, scope: &Scope<'a>, constants: Constants) -> Route {
        let mut known = Known { captures: Vec::new(), constants, set: Vec::new() };
        let asked = self.guarded(scope, &mut known);
        let mut route = self.common(scope, &known);
        self.action(scope, None, &known, &mut route);
        self.closed_if_unguardable(scope, asked, route)
    }

    /// Who is asked, where somebody is. nginx asks nobody before a `return`, nor about what no client reaches.
    fn guarded(&mut self, scope: &Scope<'a>, known: &mut Known) -> Result<Word<SessionRule>, Closed> {
        let is_unasked = answers(scope) || scope.own("internal").is_some();
        if is_unasked { Ok(Word::Absent) } else { self.asked(scope, known) }
    }

    fn closed_if_unguardable(
        &mut self,
        scope: &Scope<'a>,
        asked: Result<Word<SessionRule>, Closed>,
        mut route: Route,
    ) -> Route {
        let is_open = !self.unguardable(scope) || answers(scope);
        match asked {
            Ok(session) if is_open => {
                // What answers itself is guarded all the same.
                route.session = session;
                route
            }
            _ => unavailable(403),
        }
    }

    /// What every kind of route can have.
    fn common(&mut self, scope: &Scope<'a>, known: &Known) -> Route {
        let mut route = Route::default();
        self.compress(scope, &mut route);
        self.response_headers(scope, known, &mut route);
        if !answers(scope) {
            route.access = self.access(scope);
            route.limit = self.limits(scope);
            route.body_bytes = maybe(self.said(scope, "client_max_body_size", bytes));
            self.bandwidth(scope, &mut route);
            self.error_pages(scope, known, &mut route);
        }
        route
    }

    /// What is done with a request that is not forwarded.
    fn action(
        &mut self,
        scope: &Scope<'a>,
        location: Option<&Location<'a>>,
        known: &Known,
        route: &mut Route,
    ) {
        const OTHERS: [&str; 6] =
            ["fastcgi_pass", "uwsgi_pass", "scgi_pass", "memcached_pass", "stub_status", "empty_gif"];
        if let Some(answer) = scope.own("return") {
            return self.answer(answer, scope, known, route);
        }
        // Their files must not be shown instead: what a PHP location guards is its source.
        if OTHERS.iter().any(|name| scope.own(name).is_some()) {
            *route = unavailable(501);
            return;
        }
        self.files(scope, location, route);
    }

    /// `return CODE [text]`, `return CODE URL`, `return URL`.
    fn answer(&mut self, directive: &'a Directive, scope: &Scope<'a>, known: &Known, route: &mut Route) {
        let (code, text) = match (number(directive.arg(0)), directive.args.len()) {
            (Some(code @ 0..=999), _) => (code, directive.arg(1)),
            (None, 1)
                if ["http://", "https://", "$scheme"].iter().any(|it| directive.arg(0).starts_with(it)) =>
            {
                (302, directive.arg(0))
            }
            _ => {
                let message = format!("invalid return code \"{}\"", directive.arg(0));
                return self.problems.add(&directive.args[0].at, message);
            }
        };
        let template = match variable::template(text, known) {
            Ok(template) => template,
            Err(what_to_do) => {
                self.ledger.refused(directive, format!("{what_to_do}; until then it answers 501"));
                *route = unavailable(501);
                return;
            }
        };
        if matches!(code, 301 | 302 | 303 | 307 | 308) && !text.is_empty() {
            let status = maybe(u16::try_from(code).ok());
            route.redirect = Word::new(Redirect { status, location: Word::new(template) });
            return self.ledger.exact(directive);
        }
        let status = match u16::try_from(code) {
            Ok(status @ 200..=599) if status != 444 => status,
            _ => {
                self.ledger.approximated(
                    directive,
                    "answered with 400: a connection is not closed without an answer",
                );
                400
            }
        };
        let mut answer = Answer { status: Word::new(status), ..Answer::default() };
        if text.is_empty() {
            if status >= 300 {
                self.ledger.approximated(directive, "with an empty body, not with nginx's page");
            }
        } else {
            answer.body = Word::new(template);
            // Without a word, nginx says `text/plain`.
            let kind = scope.one("default_type");
            kind.iter().for_each(|kind| self.ledger.exact(kind));
            answer.content_type = Word::new(kind.map_or("text/plain", |kind| kind.arg(0)).to_owned());
        }
        route.answer = Word::new(answer);
        self.ledger.exact(directive);
    }

    /// `root` and `alias` with `index`; nothing to serve is 404.
    fn files(&mut self, scope: &Scope<'a>, location: Option<&Location<'a>>, route: &mut Route) {
        self.try_files(scope);
        let alias = scope.own("alias");
        let Some(folder) = alias.or_else(|| scope.one("root")) else {
            *route = Route { answer: unavailable(404).answer, ..std::mem::take(route) };
            return;
        };
        if !variable::is_constant(folder.arg(0)) {
            self.ledger.refused(
                folder,
                "name the folder: it cannot depend on the request; until then it answers 404",
            );
            *route = unavailable(404);
            return;
        }
        let literal = location.map_or("/", |location| &location.path);
        let mut files = Files { root: Word::new(folder.arg(0).to_owned()), ..Files::default() };
        match (alias.is_some(), location.map(|location| location.kind)) {
            (true, Some(Kind::Prefix | Kind::PrefixFirst)) => {
                files.strip = Word::new(literal.trim_end_matches('/').to_owned());
                self.ledger.exact(folder);
            }
            (true, _) => {
                self.ledger.refused(folder, "write the location as a prefix; until then it answers 404");
                *route = unavailable(404);
                return;
            }
            (false, _) => {
                // nginx's root keeps the location's own path; without a word, ours leaves it out.
                if literal != "/" {
                    files.strip = Word::new(String::new());
                }
                self.ledger.exact(folder);
            }
        }
        if let Some(autoindex) = scope.one("autoindex") {
            match autoindex.arg(0) {
                "on" => self.ledger.refused(autoindex, "folders are not listed: write an index.html"),
                _ => self.ledger.exact(autoindex),
            }
        }
        for (position, index) in scope.all("index").into_iter().enumerate() {
            match (position, index.args.len()) {
                (0, 1) => self.ledger.exact(index),
                (0, _) => self.ledger.approximated(index, format!("only `{}` is looked for", index.arg(0))),
                _ => self.ledger.approximated(index, "only the first one is looked for"),
            }
            if position == 0 {
                files.index = Word::new(index.arg(0).to_owned());
            }
        }
        if let Some(kind) = scope.one("default_type") {
            self.ledger.approximated(kind, "unknown endings are application/octet-stream");
        }
        route.files = Word::new(files);
    }

    fn try_files(&mut self, scope: &Scope<'a>) {
        let Some(directive) = scope.own("try_files") else { return };
        let words: Vec<&str> = directive.texts().collect();
        match words.as_slice() {
            ["$uri", "=404"] | ["$uri", "$uri/", "=404"] => self.ledger.exact(directive),
            _ => self.ledger.refused(
                directive,
                "write a location for what is a file, and one with proxy_pass or return for the rest",
            ),
        }
    }

    /// What `proxy_pass` with a URI asks for; `None` is what the client asked for.
    fn rewrite(
        &mut self,
        pass: &'a Directive,
        location: &Location<'a>,
        known: &Known,
    ) -> Result<Option<Template>, String> {
        let target = forward::Target::of(pass);
        let Some(uri) = target.and_then(|target| target.uri) else { return Ok(None) };
        if uri.contains('$') {
            return match uri {
                "$request_uri" | "$uri$is_args$args" => Ok(None),
                _ => variable::template(uri, known).map(Some),
            };
        }
        if location.kind == Kind::Regex {
            let message = "\"proxy_pass\" cannot have URI part in location given by regular expression, or inside named \
                           location, or inside \"if\" statement, or inside \"limit_except\" block";
            self.problems.add(&pass.at, message);
            return Ok(None);
        }
        if uri.contains('?') {
            return Err("write the query with variables: `$uri?…`".to_owned());
        }
        // nginx appends the query to a path without variables.
        if location.moves() {
            return format!("{uri}${{path.rest}}?${{request.query}}")
                .parse()
                .map(Some)
                .map_err(|cause| format!("write it by hand: {cause}"));
        }
        if uri == location.path {
            Ok(None)
        } else {
            variable::template(&format!("{uri}?$args"), known).map(Some)
        }
    }

    /// `add_header`, `expires`, `proxy_hide_header`: fields for the client.
    fn response_headers(&mut self, scope: &Scope<'a>, known: &Known, route: &mut Route) {
        // Only here: there is an answer.
        let mut known = known.clone();
        known.constants.push(("upstream_cache_status", "${cache.status}".to_owned()));
        let known = &known;
        // In nginx's words: what is added under one name is joined, which means the same (RFC 9110 §5.3).
        let mut fields: Vec<(String, String)> = Vec::new();
        for directive in scope.all("proxy_hide_header") {
            if forward::can_be_set(directive.arg(0))
                && fields.iter().all(|(there, _)| !there.eq_ignore_ascii_case(directive.arg(0)))
            {
                fields.push((directive.arg(0).to_owned(), String::new()));
            }
            self.ledger.exact(directive);
        }
        if let Some(expires) = scope.one("expires") {
            match cache_control(expires) {
                Ok(None) => self.ledger.exact(expires),
                Ok(Some(value)) => {
                    fields.push(("Cache-Control".to_owned(), value));
                    self.ledger.approximated(expires, "as Cache-Control, without Expires");
                }
                Err(what_to_do) => self.ledger.refused(expires, what_to_do),
            }
        }
        for directive in scope.all("add_header") {
            let name = directive.arg(0);
            if !forward::can_be_set(name) {
                self.ledger.refused(directive, "it belongs to the connection, or is no name: leave it out");
                continue;
            }
            if let Err(what_to_do) = variable::template(directive.arg(1), known) {
                self.ledger.refused(directive, what_to_do);
                continue;
            }
            match fields.iter_mut().find(|(there, _)| there.eq_ignore_ascii_case(name)) {
                Some(_) if name.eq_ignore_ascii_case("set-cookie") => {
                    self.ledger
                        .refused(directive, "a field is set once: have the origin set the other cookies");
                    continue;
                }
                Some((_, before)) if !before.is_empty() => {
                    *before = format!("{before}, {}", directive.arg(1))
                }
                Some((_, before)) => directive.arg(1).clone_into(before),
                None => fields.push((name.to_owned(), directive.arg(1).to_owned())),
            }
            match directive.arg(2) {
                "always" => self.ledger.exact(directive),
                _ => self.ledger.approximated(directive, "on errors too, as with `always`"),
            }
        }
        for name in ["proxy_redirect", "proxy_cookie_domain", "proxy_cookie_path", "proxy_cookie_flags"] {
            for directive in scope.all(name) {
                match directive.arg(0) {
                    "off" => self.ledger.exact(directive),
                    _ => self.ledger.refused(
                        directive,
                        "have the origin write public names: answers are passed on as they are",
                    ),
                }
            }
        }
        let templates = fields
            .into_iter()
            .filter_map(|(name, value)| Some((name, variable::template(&value, known).ok()?)));
        route.response_headers = named(templates);
    }
}

/// Whether `return` answers here, before anything else is asked.
fn answers(scope: &Scope<'_>) -> bool {
    scope.own("return").is_some()
}

/// A route that answers with this status and nothing else.
fn unavailable(status: u16) -> Route {
    Route { answer: Word::new(Answer { status: Word::new(status), ..Answer::default() }), ..Route::default() }
}

/// The `Cache-Control` of an `expires`.
fn cache_control(expires: &Directive) -> Result<Option<String>, String> {
    match expires.texts().collect::<Vec<_>>().as_slice() {
        ["off"] => Ok(None),
        ["epoch"] => Ok(Some("no-cache".to_owned())),
        ["max"] => Ok(Some("max-age=315360000".to_owned())),
        [time] if time.starts_with('-') => Ok(Some("no-cache".to_owned())),
        [time] => match span(time) {
            Some(span) => Ok(Some(format!("max-age={}", span.get().as_secs()))),
            None => Err("write an add_header Cache-Control".to_owned()),
        },
        _ => Err("write an add_header Cache-Control".to_owned()),
    }
}
