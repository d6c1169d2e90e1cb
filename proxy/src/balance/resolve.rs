//! The plan's servers → endpoints: names are looked up once, at start and at each reload, and each address of a name
//! becomes a peer with the server's parameters, as in nginx.

use std::{collections::HashSet, io, net::SocketAddr};

use weir_config::{
    plan::{Server, Upstream},
    span::Place,
};

use super::{peer::Endpoint, sticky::route_of};

/// A server whose name gave no address; the operator's fault or the resolver's, worth another try.
#[derive(Debug, thiserror::Error)]
#[error("cannot resolve {name}")]
pub struct Unresolved {
    /// As written in the plan, `host:port`.
    pub name: String,
    /// Where it was written.
    pub place: Place,
    /// What the resolver said.
    pub source: io::Error,
}

/// The endpoints of `upstream`, in the order of the plan.
///
/// Errors: every name that has no address, not only the first.
/// Source: nginx `ngx_http_upstream_init_round_robin` (one peer an address).
pub async fn resolve(upstream: &Upstream) -> Result<Vec<Endpoint>, Vec<Unresolved>> {
    let mut endpoints = Vec::with_capacity(upstream.servers.len());
    let mut problems = Vec::new();
    for server in &upstream.servers {
        match addresses(&server.address).await {
            Ok(addresses) => endpoints.extend(addresses.into_iter().map(|address| endpoint(server, address))),
            Err(source) => {
                problems.push(Unresolved { name: server.address.clone(), place: server.place, source })
            }
        }
    }
    if problems.is_empty() { Ok(endpoints) } else { Err(problems) }
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

fn endpoint(server: &Server, address: SocketAddr) -> Endpoint {
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
        route: server.route.as_deref().map_or_else(|| route_of(address), Into::into),
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
}
