//! Changes to an upstream's servers while it runs: the same words as in the file, and the same checks.
//!
//! A change gives a new list of servers or a reason why not; whoever holds the upstream puts it in force. What a
//! change means for the next reload is said by [`carried_over`].

use std::{cell::RefCell, time::Duration};

use crate::{
    decode, defaults as d, plan,
    raw::{self, List, Short, Word},
    report::Report,
    resolve,
    span::Place,
    text,
    units::Span,
};

/// The words of a server that may change while it runs, in the order of [`overlay`].
const ALTERABLE: [&str; 10] = [
    "weight",
    "max_conns",
    "max_fails",
    "fail_timeout",
    "backup",
    "down",
    "drain",
    "slow_start",
    "route",
    "resolve",
];

/// What is asked for; the text is JSON or YAML, one server as `servers` holds it.
#[derive(Debug, Clone, Copy)]
pub enum Change<'a> {
    /// One server more.
    Add(&'a str),
    /// The words given take the place of those that the server of this name has ([`plan::Server::name`]).
    Alter(&'a str, &'a str),
    /// The server of this name goes.
    Remove(&'a str),
}

/// Why a change is not made.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// No server has this name.
    #[error("there is no server `{0}`")]
    NotThere(String),
    /// A server has this name already.
    #[error("the server `{0}` is there already")]
    There(String),
    /// The file would be refused if it said so.
    #[error("{0}")]
    Wrong(Report),
}

impl Change<'_> {
    /// The servers of `upstream` after this change, and the name of the one it is about.
    ///
    /// # Errors
    /// [`Refused`]; nothing has changed then.
    pub fn apply(
        &self,
        upstream: &plan::Upstream,
        servers: &[plan::Server],
    ) -> Result<(Vec<plan::Server>, String), Refused> {
        let mut words: Vec<raw::Server> = servers.iter().map(as_written).collect();
        let find = |name: &str| {
            let found = servers.iter().position(|server| server.name() == name);
            found.ok_or_else(|| Refused::NotThere(name.to_owned()))
        };
        let (mut report, about) = match *self {
            Self::Add(text) => {
                let (server, report) = read(text)?;
                words.push(server);
                (report, None)
            }
            Self::Alter(name, text) => {
                let position = find(name)?;
                let (server, mut report) = read(text)?;
                for word in [&server.address, &server.service] {
                    if let Some((new, place)) =
                        word.placed().filter(|(new, _)| **new != servers[position].address)
                    {
                        let problem = report.error(place, format!("`{name}` cannot become `{new}`"));
                        problem.help("add the one and remove the other");
                    }
                }
                if !overlay(&mut words[position], server) && !report.has_errors() {
                    let problem = report.error(Place::default(), "nothing is said that could change");
                    problem.help(format!("say one of `{}`", ALTERABLE.join("`, `")));
                }
                (report, Some(name))
            }
            Self::Remove(name) => {
                words.remove(find(name)?);
                (Report::new("change", ""), Some(name))
            }
        };
        let raw = raw::Upstream {
            servers: Word::new(words.into_iter().map(Short).collect::<List<_>>()),
            ..raw::Upstream::default()
        };
        let mut changed = resolve::servers(&raw, &upstream.name, &upstream.balance, &mut report);
        report.sort();
        if report.has_errors() {
            // What the file is warned of is no answer to this change.
            return Err(Refused::Wrong(report.errors()));
        }
        // What was read from the file stays where it was written.
        for server in &mut changed {
            if let Some(before) = servers.iter().find(|before| before.name() == server.name()) {
                server.place = before.place;
            }
        }
        let about = about.or(changed.last().map(plan::Server::name)).unwrap_or_default().to_owned();
        if matches!(self, Self::Add(_)) && find(&about).is_ok() {
            return Err(Refused::There(about));
        }
        Ok((changed, about))
    }
}

/// What differs between two servers, in the words of config.yaml: `weight 1 → 5`. Without `before`, what is said of
/// `after` beyond its address.
#[must_use]
pub fn differences(before: Option<&plan::Server>, after: &plan::Server) -> Vec<String> {
    let plain;
    let before = match before {
        Some(before) => before,
        None => {
            plain = plan::Server {
                weight: d::WEIGHT,
                max_conns: 0,
                max_fails: d::MAX_FAILS,
                fail_timeout: d::FAIL_TIMEOUT,
                backup: false,
                down: false,
                drain: false,
                resolve: false,
                slow_start: Duration::ZERO,
                route: None,
                ..after.clone()
            };
            &plain
        }
    };
    let words = |server: &plan::Server| {
        let span = |span| Span::new(span).to_string();
        [
            server.weight.to_string(),
            server.max_conns.to_string(),
            server.max_fails.to_string(),
            span(server.fail_timeout),
            server.backup.to_string(),
            server.down.to_string(),
            server.drain.to_string(),
            span(server.slow_start),
            server.route.clone().unwrap_or_else(|| "none".to_owned()),
            server.resolve.to_string(),
        ]
    };
    let changes = ALTERABLE.iter().zip(words(before).into_iter().zip(words(after)));
    changes
        .filter(|(_, (old, new))| old != new)
        .map(|(key, (old, new))| format!("{key} {old} → {new}"))
        .collect()
}

/// The servers after a reload: the file's, and what was changed while running as long as the file says the same of that
/// server as before.
///
/// Shape: `before` is what the old file says, `now` what holds, `file` what the new file says.
#[must_use]
pub fn carried_over(
    before: &[plan::Server],
    now: &[plan::Server],
    file: &[plan::Server],
) -> Vec<plan::Server> {
    let by_name = |list: &[plan::Server], name: &str| list.iter().find(|it| it.name() == name).cloned();
    let kept = file.iter().filter_map(|server| {
        match by_name(before, server.name()).filter(|before| same(before, server)) {
            Some(_) => by_name(now, server.name()),
            None => Some(server.clone()),
        }
    });
    let added =
        now.iter().filter(|server| [before, file].iter().all(|list| by_name(list, server.name()).is_none()));
    let servers: Vec<_> = kept.chain(added.cloned()).collect();
    let can_serve = servers.iter().any(|server| !server.down && !server.drain && !server.backup);
    // Whatever was meant at run time, it was not meant for a file in which nobody else is left.
    if can_serve { servers } else { file.to_vec() }
}

/// Whether the two are the same but for the line.
#[must_use]
pub fn same(a: &plan::Server, b: &plan::Server) -> bool {
    plan::Server { place: b.place, ..a.clone() } == *b
}

/// One server in words. The text has no variables: whoever changes an upstream may not read our environment.
fn read(text: &str) -> Result<(raw::Server, Report), Refused> {
    let mut report = Report::new("change", text);
    let Some(tree) = text::parse(text, &|_| None, &mut report) else {
        report.sort();
        return Err(Refused::Wrong(report));
    };
    let report = RefCell::new(report);
    let Short(server) = decode::decode::<Short<raw::Server>>(&tree, &report);
    Ok((server, report.into_inner()))
}

fn as_written(server: &plan::Server) -> raw::Server {
    raw::Server {
        address: Word::new(server.address.clone()),
        weight: Word::new(server.weight),
        max_conns: Word::new(server.max_conns),
        max_fails: Word::new(server.max_fails),
        fail_timeout: Word::new(Span::new(server.fail_timeout)),
        backup: Word::new(server.backup),
        down: Word::new(server.down),
        drain: Word::new(server.drain),
        resolve: Word::new(server.resolve),
        // The whole name begins with the service; the address is what follows it.
        service: server.service.as_ref().map_or(Word::Absent, |name| {
            Word::new(name.strip_suffix(&format!(".{}", server.address)).unwrap_or(name).to_owned())
        }),
        slow_start: Word::new(Span::new(server.slow_start)),
        route: server.route.clone().map_or(Word::Absent, Word::new),
    }
}

/// Puts the words given in the place of the server's; says whether there was any.
fn overlay(server: &mut raw::Server, words: raw::Server) -> bool {
    fn put<T>(word: &mut Word<T>, new: Word<T>) -> bool {
        let is_given = !new.is_absent();
        if is_given {
            *word = new;
        }
        is_given
    }
    let given = [
        put(&mut server.weight, words.weight),
        put(&mut server.max_conns, words.max_conns),
        put(&mut server.max_fails, words.max_fails),
        put(&mut server.fail_timeout, words.fail_timeout),
        put(&mut server.backup, words.backup),
        put(&mut server.down, words.down),
        put(&mut server.drain, words.drain),
        put(&mut server.slow_start, words.slow_start),
        put(&mut server.route, words.route),
        put(&mut server.resolve, words.resolve),
    ];
    given.contains(&true)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn upstream(servers: &str) -> plan::Upstream {
        let yaml = format!(
            "listeners: [127.0.0.1:0]\nupstreams: {{ api: {{ servers: {servers} }} }}\nroutes: [{{ to: api }}]\n"
        );
        crate::load("config.yaml", &yaml, &|_: &str| None).unwrap().plan.upstreams.remove(0)
    }

    fn changed(servers: &str, change: Change<'_>) -> Result<Vec<plan::Server>, String> {
        let upstream = upstream(servers);
        let applied = change.apply(&upstream, &upstream.servers);
        applied.map(|(servers, _)| servers).map_err(|refused| refused.to_string())
    }

    #[test]
    fn a_server_is_added_altered_and_removed_in_the_words_of_the_file() {
        let added = changed("[a:1]", Change::Add(r#"{"address": "b:2", "weight": 3, "fail_timeout": "5s"}"#));
        let added = added.unwrap();
        assert_eq!((added.len(), &*added[1].address, added[1].weight), (2, "b:2", 3));
        assert_eq!(changed("[a:1]", Change::Add("b:2")).unwrap()[1].address, "b:2");
        let altered =
            changed("[a:1, { address: b:2, weight: 4 }]", Change::Alter("b:2", r#"{"drain": true}"#));
        let altered = altered.unwrap();
        assert!(altered[1].drain && altered[1].weight == 4, "what is not said stays");
        let left = changed("[a:1, b:2]", Change::Remove("a:1")).unwrap();
        assert_eq!((left.len(), &*left[0].address), (1, "b:2"));
    }

    #[test]
    fn what_the_file_could_not_say_is_refused_with_the_files_words() {
        for (servers, change, says) in [
            ("[a:1]", Change::Add(r#"{"address": "b"}"#), "add the port"),
            ("[a:1]", Change::Add(r#"{"address": "b:2", "wieght": 3}"#), "did you mean `weight`?"),
            ("[a:1]", Change::Add(r#"{"address": "b:2", "weight": 0}"#), "no share at all"),
            ("[a:1]", Change::Add("{"), "error"),
            ("[a:1]", Change::Add("${HOME}:1"), "error"),
            ("[a:1]", Change::Add(""), "`address` is missing"),
            ("[a:1]", Change::Add("a:1"), "is there already"),
            ("[a:1]", Change::Alter("b:2", "{}"), "there is no server `b:2`"),
            ("[a:1]", Change::Alter("a:1", r#"{"address": "b:2"}"#), "cannot become"),
            ("[a:1]", Change::Alter("a:1", r#"{"down": true}"#), "only servers that are `down` or `drain`"),
            ("[a:1]", Change::Remove("b:2"), "there is no server `b:2`"),
            ("[a:1]", Change::Remove("a:1"), "has no servers"),
        ] {
            let refused = changed(servers, change).unwrap_err();
            assert!(refused.contains(says), "{change:?}: {refused}");
        }
    }

    #[test]
    fn a_change_of_nothing_is_refused_with_what_could_change() {
        for nothing in ["{}", "", r#"{"address": "a:1"}"#] {
            let refused = changed("[a:1, b:2]", Change::Alter("a:1", nothing)).unwrap_err();
            assert!(
                refused.contains("nothing is said") && refused.contains("`weight`, `max_conns`"),
                "{refused}"
            );
        }
        assert!(changed("[a:1]", Change::Alter("a:1", r#"{"weight": 1}"#)).is_ok(), "it may be so already");
    }

    #[test]
    fn what_changed_is_told_in_the_words_of_the_file() {
        let servers =
            upstream("[a:1, { address: a:1, weight: 5, drain: true, route: x, fail_timeout: 1m30s }]");
        let [before, after] = &*servers.servers else { panic!("two servers") };
        let told = differences(Some(before), after);
        assert_eq!(
            told,
            ["weight 1 → 5", "fail_timeout 10s → 1m30s", "drain false → true", "route none → x"]
        );
        assert_eq!(differences(None, after), told, "a new server differs from a plain one");
        assert_eq!(differences(Some(after), after), [""; 0]);
    }

    #[test]
    fn warnings_of_the_other_servers_are_no_answer_to_a_wrong_change() {
        let refused = changed("[a:1, a:1, b:2]", Change::Alter("b:2", r#"{"weight": 0}"#)).unwrap_err();
        assert!(refused.contains("no share at all") && !refused.contains("warning"), "{refused}");
    }

    #[test]
    fn a_service_keeps_its_name_through_a_change() {
        let servers = "[{ address: api.internal, service: http, resolve: true }]";
        let altered =
            changed(servers, Change::Alter("_http._tcp.api.internal", r#"{"max_conns": 5}"#)).unwrap();
        assert_eq!(altered[0].service.as_deref(), Some("_http._tcp.api.internal"));
    }

    #[test]
    fn a_change_outlives_a_reload_until_the_file_says_something_else_of_that_server() {
        let before = upstream("[a:1, b:2, c:3]").servers;
        let now = upstream("[{ address: a:1, drain: true }, { address: b:2, weight: 9 }, d:4]").servers;
        let file = upstream("[a:1, { address: b:2, weight: 2 }, c:3, e:5]").servers;
        let after = carried_over(&before, &now, &file);
        let seen: Vec<_> = after.iter().map(|it| (&*it.address, it.weight, it.drain)).collect();
        assert_eq!(seen, [("a:1", 1, true), ("b:2", 2, false), ("e:5", 1, false), ("d:4", 1, false)]);
    }

    #[test]
    fn a_file_in_which_nobody_would_be_left_counts_as_it_is() {
        let before = upstream("[a:1, b:2]").servers;
        let now = upstream("[{ address: a:1, down: true }, b:2]").servers;
        let file = upstream("[a:1]").servers;
        assert_eq!(carried_over(&before, &now, &file), file);
    }
}
