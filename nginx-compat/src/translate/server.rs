//! Servers → routes: which server answers a host, and in which order its locations are tried.
//!
//! nginx: the exact location; else the longest prefix, which decides at once with `^~`; else the first regular expression;
//! else that longest prefix. Weir: exact paths, regular expressions in the order of the file, the longest prefix. So most
//! locations keep their kind. A prefix becomes an expression where weir has no prefix for it: without a slash at its end, or
//! when `proxy_pass` needs what follows it; and `^~` becomes one that stands before the others. A prefix below such a one must
//! become one too, and stand before it, or it would never be reached.

use std::collections::HashSet;

use regex::Regex;
use weir_config::raw::{Match, Short, Word};

use super::{Translator, forward, list, listen::Listen, maybe};
use crate::{scope::Scope, tree::Directive};

/// A server that answers.
struct Server<'a> {
    block: &'a Directive,
    scope: Scope<'a>,
    listens: Vec<Listen<'a>>,
    /// Whether it answers hosts that nobody else claims.
    default: bool,
    names: Vec<String>,
}

/// A location, flattened out of its parents.
pub(super) struct Location<'a> {
    pub(super) block: &'a Directive,
    pub(super) scope: Scope<'a>,
    pub(super) kind: Kind,
    /// The path, or the regular expression.
    pub(super) path: String,
}

/// How a location's path is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `=`.
    Exact,
    /// Nothing before the path.
    Prefix,
    /// `^~`.
    PrefixFirst,
    /// `~` or `~*`.
    Regex,
}

impl Location<'_> {
    fn is_prefix(&self) -> bool {
        matches!(self.kind, Kind::Prefix | Kind::PrefixFirst)
    }

    /// Whether `proxy_pass` replaces this prefix with another.
    pub(super) fn moves(&self) -> bool {
        let pass = self.scope.own("proxy_pass").and_then(forward::Target::of);
        pass.and_then(|target| target.uri)
            .is_some_and(|uri| self.is_prefix() && uri != self.path && !uri.contains('$'))
    }
}

impl<'a> Translator<'a, '_> {
    /// Every `server` of `http`.
    pub(super) fn servers(&mut self, http: &Scope<'a>, directives: &'a [Directive]) {
        let blocks = directives.iter().filter(|directive| directive.name == "server");
        let all: Vec<Server<'a>> = blocks.filter_map(|block| self.server(http, block)).collect();
        let mut kept = self.without_conflicts(all);
        let default = kept.iter().position(|server| server.default).unwrap_or(0);
        for (position, server) in kept.iter_mut().enumerate() {
            server.default = position == default;
        }
        for server in kept {
            self.listeners(&server.scope, &server.listens);
            self.socket_words(server.block.inside());
            self.routes(server);
        }
    }

    fn server(&mut self, http: &Scope<'a>, block: &'a Directive) -> Option<Server<'a>> {
        let scope = http.inner(block.inside());
        let listens = self.listens(&scope);
        if listens.is_empty() {
            self.ledger.refused(block, "none of its sockets can be opened: it is left out");
            self.left_out(block.inside());
            return None;
        }
        let names = self.names(&scope);
        let default = listens.iter().any(|listen| listen.default);
        Some(Server { block, scope, listens, default, names })
    }

    /// Routes do not look at the port. Servers that can only be told apart by it cannot both stay.
    fn without_conflicts(&mut self, servers: Vec<Server<'a>>) -> Vec<Server<'a>> {
        let mut kept: Vec<Server<'a>> = Vec::new();
        for server in servers {
            let clash = kept.iter().position(|other| clashes(other, &server));
            let Some(position) = clash else {
                kept.push(server);
                continue;
            };
            if same_sockets(&kept[position], &server) && !server.names.is_empty() {
                self.keep_free_names(&mut kept, server);
                continue;
            }
            // A server that only redirects (from http to https, as a rule) is missed the least.
            let dropped = if only_redirects(&kept[position]) && !only_redirects(&server) {
                std::mem::replace(&mut kept[position], server)
            } else {
                server
            };
            let what_to_do = "another server has its names on another port, and routes do not look at the port: \
                              give it names of its own, or a weir of its own";
            self.ledger.refused(dropped.block, what_to_do);
            self.left_out(dropped.block.inside());
        }
        for position in 1..kept.len() {
            if !same_sockets(&kept[0], &kept[position]) {
                for listen in kept[position].listens.iter().filter_map(|listen| listen.directive) {
                    self.ledger.approximated(
                        listen,
                        "hosts are answered on every socket, this one's on the others too",
                    );
                }
            }
        }
        kept
    }

    /// As nginx: a name that an earlier server has on the same socket is ignored.
    fn keep_free_names(&mut self, kept: &mut Vec<Server<'a>>, mut server: Server<'a>) {
        let taken: HashSet<&String> = kept.iter().flat_map(|other| &other.names).collect();
        let free: Vec<String> = server.names.iter().filter(|name| !taken.contains(name)).cloned().collect();
        if let Some(directive) = server.scope.own("server_name") {
            self.ledger.ignored(directive, "an earlier server has the name on this socket, in nginx too");
        }
        if free.is_empty() && !server.default {
            return server
                .block
                .inside()
                .iter()
                .for_each(|line| self.ledger.ignored(line, "no request reaches it, as in nginx"));
        }
        server.names = free;
        kept.push(server);
    }

    fn left_out(&mut self, directives: &'a [Directive]) {
        for directive in directives {
            self.ledger.refused(directive, "see its block");
            self.left_out(directive.inside());
        }
    }

    fn routes(&mut self, server: Server<'a>) {
        let Server { block, scope, listens, default, names } = server;
        if !default && names.is_empty() {
            let what_to_do =
                "no request reaches it: it is no default, and none of its names has a counterpart";
            self.ledger.refused(block, what_to_do);
            return self.left_out(block.inside());
        }
        let hosts = if default { Vec::new() } else { names.clone() };
        let port = listens.first().map_or(0, |listen| listen.address.port());
        let name = names.first().cloned().unwrap_or_default();
        let constants = vec![("server_name", name), ("server_port", port.to_string())];
        if scope.own("return").is_some() {
            for location in scope.all("location").into_iter().filter(|_| scope.own("location").is_some()) {
                self.ledger.ignored(location, "the server's return answers before, as in nginx");
            }
            let route = self.fallback(&scope, constants);
            return self.routes.push(at(route, &hosts, None));
        }
        let mut locations = Vec::new();
        self.flatten(&scope, block.inside(), None, &mut locations);
        let everything = locations.iter().any(|location| location.is_prefix() && location.path == "/");
        for (location, path) in self.ordered(locations) {
            let route = self.route(&location, path.as_deref(), constants.clone());
            self.routes.push(at(route, &hosts, path));
        }
        if !everything {
            let route = self.fallback(&scope, constants);
            self.routes.push(at(route, &hosts, None));
        }
    }

    /// Locations with those inside them, which nginx finds as if they stood side by side.
    fn flatten(
        &mut self,
        scope: &Scope<'a>,
        directives: &'a [Directive],
        parent: Option<&str>,
        into: &mut Vec<Location<'a>>,
    ) {
        for block in directives.iter().filter(|directive| directive.name == "location") {
            let inner = scope.inner(block.inside());
            self.socket_words(block.inside());
            let Some((kind, path)) = self.pattern(block) else {
                self.left_out(block.inside());
                continue;
            };
            let reaches_beyond = parent.is_some_and(|parent| kind == Kind::Regex && parent != "/");
            if reaches_beyond {
                self.ledger.approximated(
                    block,
                    "it applies outside of its outer location too: begin it with the outer path",
                );
            }
            self.flatten(&inner, block.inside(), Some(&path), into);
            // `^~` and a bare prefix are the same location, in nginx too.
            let class = |kind: Kind| if kind == Kind::PrefixFirst { Kind::Prefix } else { kind };
            if kind != Kind::Regex && into.iter().any(|it| class(it.kind) == class(kind) && it.path == path) {
                self.problems.add(&block.at, format!("duplicate location \"{path}\""));
            }
            into.push(Location { block, scope: inner, kind, path });
        }
    }

    /// The modifier and the path of a `location`; `None` where it has no counterpart.
    fn pattern(&mut self, block: &'a Directive) -> Option<(Kind, String)> {
        let (modifier, path) = match (block.args.len(), block.arg(0)) {
            (1, text) => {
                let end = text.find(|c: char| !matches!(c, '=' | '^' | '~' | '*')).unwrap_or(text.len());
                // `location =/path` is one word in nginx too.
                let known =
                    ["^~", "~*", "=", "~"].into_iter().find(|modifier| text[..end].starts_with(modifier));
                let modifier = known.unwrap_or("");
                (modifier, &text[modifier.len()..])
            }
            (_, modifier) => (modifier, block.arg(1)),
        };
        let kind = match modifier {
            "" if path.starts_with('@') => {
                self.ledger
                    .refused(block, "nothing leads to it: error_page and try_files have no counterpart");
                return None;
            }
            "" => Kind::Prefix,
            "=" => Kind::Exact,
            "^~" => Kind::PrefixFirst,
            "~" | "~*" => {
                let pattern = if modifier == "~*" { format!("(?i){path}") } else { path.to_owned() };
                if let Err(cause) = Regex::new(&pattern) {
                    let cause = cause.to_string();
                    let cause = cause.lines().last().unwrap_or_default().trim_start_matches("error: ");
                    self.ledger
                        .refused(block, format!("write the expression without what ours cannot do: {cause}"));
                    return None;
                }
                self.ledger.exact(block);
                return Some((Kind::Regex, pattern));
            }
            other => {
                self.problems.add(&block.args[0].at, format!("invalid location modifier \"{other}\""));
                return None;
            }
        };
        self.ledger.exact(block);
        Some((kind, path.to_owned()))
    }

    /// Each location with its path in config.yaml (`None` is everything), in the order in which they have to stand.
    fn ordered(&mut self, locations: Vec<Location<'a>>) -> Vec<(Location<'a>, Option<String>)> {
        let has_regex = locations.iter().any(|location| location.kind == Kind::Regex);
        let needs_regex = |location: &Location<'_>| {
            let first = location.kind == Kind::PrefixFirst && has_regex;
            location.is_prefix() && (first || location.moves() || !is_plain_prefix(&location.path))
        };
        let roots: Vec<(String, Kind)> = locations
            .iter()
            .filter(|location| needs_regex(location))
            .map(|location| (location.path.clone(), location.kind))
            .collect();
        let mut ranked = Vec::new();
        for location in locations {
            let under = |kind: Kind| {
                roots.iter().any(|(path, of)| {
                    *of == kind && location.is_prefix() && location.path.starts_with(path.as_str())
                })
            };
            let before = has_regex && under(Kind::PrefixFirst);
            let as_regex = before || under(Kind::Prefix) || under(Kind::PrefixFirst);
            if before && location.kind == Kind::Prefix {
                self.ledger
                    .approximated(location.block, "as with `^~`: regular expressions do not come before it");
            }
            let longest_first = usize::MAX - location.path.len();
            let (rank, length, path) = match location.kind {
                Kind::Exact => (0, 0, Some(exact(&location.path))),
                Kind::Regex => (2, 0, Some(format!("~ {}", location.path))),
                _ if as_regex => {
                    let rest = if location.moves() { "(?<rest>.*)$" } else { "" };
                    let path = format!("~ ^{}{rest}", regex::escape(&location.path));
                    (if before { 1 } else { 3 }, longest_first, Some(path))
                }
                _ => (4, 0, (location.path != "/").then(|| format!("{}*", location.path))),
            };
            ranked.push(((rank, length), (location, path)));
        }
        // The sort is stable: expressions keep the order of the file.
        ranked.sort_by_key(|(rank, _)| *rank);
        ranked.into_iter().map(|(_, location)| location).collect()
    }
}

/// The route with what it matches.
fn at(mut route: weir_config::raw::Route, hosts: &[String], path: Option<String>) -> weir_config::raw::Route {
    if path.is_some() || !hosts.is_empty() {
        let when = Match { hosts: list(hosts.iter().cloned()), path: maybe(path), ..Match::default() };
        route.when = Word::new(Short(when));
    }
    route
}

/// Whether config.yaml takes the text as a prefix.
fn is_plain_prefix(path: &str) -> bool {
    path.ends_with('/') && is_plain(path)
}

/// Whether no character of a path means something in config.yaml.
fn is_plain(path: &str) -> bool {
    let odd = |c: char| matches!(c, '*' | '{' | '}' | '?' | '#') || c.is_whitespace() || c.is_control();
    let dots = path.split('/').any(|segment| matches!(segment, "." | ".."));
    path.starts_with('/') && !path.contains(odd) && !path.contains("//") && !dots
}

fn exact(path: &str) -> String {
    if is_plain(path) { path.to_owned() } else { format!("~ ^{}$", regex::escape(path)) }
}

fn same_sockets(a: &Server<'_>, b: &Server<'_>) -> bool {
    let sockets =
        |server: &Server<'_>| server.listens.iter().map(|listen| listen.address).collect::<HashSet<_>>();
    sockets(a) == sockets(b)
}

/// Whether two servers claim the same host; servers without a name claim the rest.
fn clashes(a: &Server<'_>, b: &Server<'_>) -> bool {
    let nameless = a.names.is_empty() && b.names.is_empty() && !same_sockets(a, b);
    nameless || a.names.iter().any(|name| b.names.contains(name))
}

fn only_redirects(server: &Server<'_>) -> bool {
    let inside = server.block.inside();
    let in_root = |directive: &Directive| {
        directive.name == "location" && directive.inside().iter().any(|it| it.name == "return")
    };
    server.scope.own("return").is_some()
        || inside.iter().filter(|it| it.name == "location").all(in_root) && inside.iter().any(in_root)
}
