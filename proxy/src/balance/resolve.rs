//! The plan's servers → endpoints: a socket is itself; a name is looked up, and each of its addresses becomes a peer
//! with the server's parameters, as in nginx.
//!
//! A server with `resolve` is looked up again whenever its answer expires, by whoever called; the others are looked up
//! by the system, once at start and once at each reload.

use std::{collections::HashSet, io, net::SocketAddr, sync::Arc, time::Duration};

use weir_config::{plan::Server, span::Place};

use super::{
    names::{Names, NoAnswer, Serving},
    peer::Endpoint,
    sticky::route_of,
};
use crate::http_client::Address;

/// A server whose name gave no address; the operator's fault or the resolver's, worth another try.
#[derive(Debug, thiserror::Error)]
#[error("{name} cannot be resolved: {source}")]
pub struct Unresolved {
    /// As written in the plan.
    pub name: String,
    /// Where it was written.
    pub place: Place,
    /// What the resolver said.
    pub source: Problem,
}

/// What the resolver said.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The system's.
    #[error(transparent)]
    System(#[from] io::Error),
    /// Our own.
    #[error(transparent)]
    Names(#[from] NoAnswer),
}

/// The endpoints of one server, and for how long they are believed; `None` is until the next reload.
///
/// # Errors
/// [`Unresolved`] when it has no address.
/// Source: nginx `ngx_http_upstream_init_round_robin` (one peer an address) and `ngx_http_upstream_zone_resolve_handler`.
pub async fn resolve(
    server: &Server,
    names: &Names,
) -> Result<(Vec<Endpoint>, Option<Duration>), Unresolved> {
    let unresolved =
        |source: Problem| Unresolved { name: server.address.clone(), place: server.place, source };
    if let Some(path) = server.address.strip_prefix("unix:") {
        return Ok((vec![endpoint(server, Address::unix(path))], None));
    }
    if let Some(service) = &server.service {
        let said = names.serving(service).await.map_err(|problem| unresolved(problem.into()))?;
        return Ok((of_service(server, said.it), Some(said.valid)));
    }
    if let (true, Some((host, port))) = (server.resolve, name_and_port(&server.address)) {
        let said = names.addresses(host).await.map_err(|problem| unresolved(problem.into()))?;
        let of = |ip| endpoint(server, SocketAddr::new(ip, port).into());
        return Ok((said.it.into_iter().map(of).collect(), Some(said.valid)));
    }
    let found = addresses(&server.address).await.map_err(|problem| unresolved(problem.into()))?;
    Ok((found.into_iter().map(|address| endpoint(server, address.into())).collect(), None))
}

/// The endpoints of a server with the parameters that it has now.
#[must_use]
pub fn with_parameters(server: &Server, found: &[Endpoint]) -> Vec<Endpoint> {
    let own = |found: &Endpoint| {
        let mut new = endpoint(server, found.address.clone());
        if server.service.is_some() {
            // What the service says of its servers stays, unless the server says it for all of them.
            new.name = Arc::clone(&found.name);
            new.backup = found.backup;
            new.weight = if server.weight == 1 { found.weight } else { server.weight };
        }
        new
    };
    found.iter().map(own).collect()
}

/// The best priority serves and the others back it up; of a `backup` server the best are backups and the others nobody.
fn of_service(server: &Server, serving: Vec<Serving>) -> Vec<Endpoint> {
    let best = serving.iter().map(|it| it.priority).min().unwrap_or_default();
    let used = serving.into_iter().filter(|it| it.priority == best || !server.backup);
    let endpoints = used.map(|it| Endpoint {
        name: format!("{}:{}", it.host, it.address.port()).into(),
        backup: server.backup || it.priority != best,
        weight: if server.weight == 1 { it.weight.into() } else { server.weight },
        ..endpoint(server, it.address.into())
    });
    endpoints.collect()
}

/// A name with its port; `None` where the address is one already.
fn name_and_port(address: &str) -> Option<(&str, u16)> {
    if address.parse::<SocketAddr>().is_ok() {
        return None;
    }
    let (host, port) = address.rsplit_once(':')?;
    Some((host, port.parse().ok()?))
}

/// The addresses of `host:port`, each once, in the resolver's order; at least one.
async fn addresses(name: &str) -> io::Result<Vec<SocketAddr>> {
    let mut seen = HashSet::new();
    let addresses: Vec<_> =
        tokio::net::lookup_host(name).await?.filter(|&address| seen.insert(address)).collect();
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    Ok(addresses)
}

fn endpoint(server: &Server, address: Address) -> Endpoint {
    let route = server.route.as_deref().map_or_else(|| route_of(&address), Into::into);
    Endpoint {
        name: server.address.as_str().into(),
        address,
        weight: server.weight,
        max_conns: server.max_conns,
        max_fails: server.max_fails,
        fail_timeout: server.fail_timeout,
        backup: server.backup,
        down: server.down,
        drain: server.drain,
        slow_start: server.slow_start,
        route,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_is_itself() {
        assert_eq!(addresses("127.0.0.1:3001").await.unwrap(), [([127, 0, 0, 1], 3001).into()]);
        assert_eq!(addresses("[::1]:3001").await.unwrap(), ["[::1]:3001".parse().unwrap()]);
    }

    #[tokio::test]
    async fn a_name_gives_each_of_its_addresses_once() {
        let found = addresses("localhost:3001").await.unwrap();
        assert!(!found.is_empty());
        assert!(found.iter().all(|address| address.ip().is_loopback() && address.port() == 3001));
        assert_eq!(found.iter().collect::<HashSet<_>>().len(), found.len());
    }

    #[tokio::test]
    async fn what_has_no_address_is_refused() {
        assert!(addresses("name-without-port").await.is_err());
        assert!(addresses("no-such-host.invalid:80").await.is_err());
    }

    #[test]
    fn the_best_priority_serves_and_the_others_back_it_up() {
        let serving = |priority, host: &str, weight| Serving {
            priority,
            host: host.to_owned(),
            address: ([10, 0, 0, 1], 80).into(),
            weight,
        };
        let server = |words: &str| {
            let yaml = format!(
                "listeners: [127.0.0.1:0]\nupstreams: {{ api: {{ servers: [{{ address: api.test, service: http, resolve: true{words} }}, a:1] }} }}\nroutes: [{{ to: api }}]\n"
            );
            let plan = weir_config::load("config.yaml", &yaml, &|_: &str| None).unwrap().plan;
            plan.upstreams[0].servers[0].clone()
        };
        let all = || vec![serving(5, "a", 7), serving(5, "b", 1), serving(9, "c", 2)];
        let seen = |server: &Server| -> Vec<_> {
            let endpoints = of_service(server, all());
            assert_eq!(
                with_parameters(server, &endpoints),
                endpoints,
                "parameters are the same the second time"
            );
            endpoints.iter().map(|it| (it.name.to_string(), it.weight, it.backup)).collect()
        };
        let it = |host: &str, weight, backup| (format!("{host}:80"), weight, backup);
        assert_eq!(seen(&server("")), [it("a", 7, false), it("b", 1, false), it("c", 2, true)]);
        assert_eq!(
            seen(&server(", weight: 3"))[0],
            it("a", 3, false),
            "the server's own weight is for all of them"
        );
        assert_eq!(seen(&server(", backup: true")), [it("a", 7, true), it("b", 1, true)]);
    }

    #[test]
    fn only_names_are_looked_up_again() {
        assert_eq!(name_and_port("api.internal:80"), Some(("api.internal", 80)));
        assert_eq!(name_and_port("10.0.0.5:80"), None);
        assert_eq!(name_and_port("[::1]:80"), None);
    }
}
