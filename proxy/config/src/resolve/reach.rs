//! Routes beside one another: none hides another, and none has another's name.

use std::collections::HashMap;

use super::{Resolver, path::path_text};
use crate::{
    plan::{self, HostPattern, Match},
    span::Place,
};

impl Resolver<'_> {
    /// Of routes with the same host and path the first decides, so a later one that asks for no less is never asked.
    pub(super) fn routes_can_be_reached(&mut self, routes: &[plan::Route]) {
        if routes.is_empty() {
            let place = self.raw.routes.place().unwrap_or_default();
            self.report.warning(place, "there are no routes: every request is answered with 404");
        }
        for (index, route) in routes.iter().enumerate() {
            let Some(first) = routes[..index].iter().find(|first| covers(&first.when, &route.when)) else {
                continue;
            };
            let message = format!(
                "`{}` is never reached: the route in line {} matches the same",
                route.name, first.place.line
            );
            self.report
                .warning(route.place, message)
                .help("of routes with the same host and path the first one decides");
        }
    }

    /// Names are metric labels: two routes must not share one. Names of our own making are told apart by a number.
    pub(super) fn names_differ(&mut self, mut routes: Vec<plan::Route>) -> Vec<plan::Route> {
        let raw = self.raw;
        let mut given: HashMap<&str, Place> = HashMap::new();
        for (route, _) in raw.routes.items() {
            let Some((name, place)) = route.name.placed() else { continue };
            match given.get(name.as_str()) {
                Some(first) => {
                    let message = format!("another route is called `{name}`, in line {}", first.line);
                    self.report
                        .error(place, message)
                        .help("logs and metrics tell routes apart by their names");
                }
                None => {
                    given.insert(name, place);
                }
            }
        }
        let mut uses: HashMap<String, u32> = HashMap::new();
        for route in &mut routes {
            let uses = uses.entry(route.name.to_string()).or_default();
            *uses += 1;
            if *uses > 1 {
                route.name = format!("{} #{uses}", route.name).into();
            }
        }
        routes
    }
}

/// `GET,POST example.org/api/items`.
pub(super) fn default_name(when: &Match) -> String {
    let methods: Vec<&str> = when.methods.iter().map(http::Method::as_str).collect();
    let gap = if methods.is_empty() { "" } else { " " };
    let host = when.hosts.first().map_or_else(String::new, |host| match host {
        HostPattern::Exact(host) => host.clone(),
        HostPattern::Suffix(suffix) => format!("*{suffix}"),
    });
    format!("{}{gap}{host}{}", methods.join(","), path_text(&when.path))
}

/// Whether everything that `second` matches is matched by `first`, as far as can be seen from equal words.
fn covers(first: &Match, second: &Match) -> bool {
    let hosts = first.hosts == second.hosts;
    // Without methods a route takes all but CONNECT.
    let methods = (first.methods.is_empty() && second.methods != [http::Method::CONNECT])
        || (!second.methods.is_empty() && second.methods.iter().all(|method| first.methods.contains(method)));
    hosts && methods && first.headers.is_empty() && path_text(&first.path) == path_text(&second.path)
}
