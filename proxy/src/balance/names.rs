//! What the name servers say: the addresses of a host, and the servers of a service (RFC 2782), each with the time
//! for which the answer may be believed.
//!
//! Nothing is remembered here; whoever asks keeps the answer for as long as it is valid, and the old one when there is
//! no new one.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig},
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::RData,
};
use tokio::time::timeout;
use weir_config::plan;

/// An answer that says it is valid for less is asked for no more often than this.
const SHORTEST: Duration = Duration::from_secs(1);
/// Hosts of one service; more are left out, so that an answer cannot make us ask a thousand questions.
const SERVICE_HOSTS: usize = 64;

/// Addresses taken from one answer: a pool is walked at each pick, and nobody means thousands.
const ADDRESSES: usize = 512;

/// Whom to ask, and how long.
#[derive(Debug)]
pub struct Names {
    /// Or why there is none, which matters only to whoever has a name to ask for.
    resolver: Result<TokioResolver, NetError>,
    timeout: Duration,
    valid: Option<Duration>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said<T> {
    /// What it says, in an order that does not change from answer to answer.
    pub it: Vec<T>,
    /// How long it may be believed.
    pub valid: Duration,
}

/// One server of a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Serving {
    /// Lower is asked first.
    pub priority: u16,
    /// The host that serves.
    pub host: String,
    /// Where.
    pub address: SocketAddr,
    /// Share among those of the same priority; at least 1.
    pub weight: u16,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    /// The system does not say whom to ask.
    #[error("there is no name server ({0}): name some with `resolver: {{ addresses: [...] }}`")]
    Nobody(NetError),
    /// The name servers said so, or could not be asked.
    #[error("{0}")]
    Said(#[from] NetError),
    /// The deadline passed.
    #[error("no answer within {0:?}")]
    Late(Duration),
    /// An answer without an address.
    #[error("the name has no address")]
    Empty,
}

impl Names {
    /// Asks as the plan says; the system's servers are read from `/etc/resolv.conf` now.
    #[must_use]
    pub fn new(plan: &plan::Resolver) -> Self {
        Self { resolver: resolver(plan), timeout: plan.timeout, valid: plan.valid }
    }

    fn resolver(&self) -> Result<&TokioResolver, NoAnswer> {
        self.resolver.as_ref().map_err(|problem| NoAnswer::Nobody(problem.clone()))
    }

    /// The addresses of `host`.
    ///
    /// # Errors
    /// [`NoAnswer`]; whether another try is worth it cannot be told from outside, so it always is.
    pub async fn addresses(&self, host: &str) -> Result<Said<IpAddr>, NoAnswer> {
        let found = timeout(self.timeout, self.resolver()?.lookup_ip(host)).await;
        let found = found.map_err(|_| NoAnswer::Late(self.timeout))??;
        self.said(found.iter().collect(), found.valid_until())
    }

    /// The servers of `service`, which is a whole name: `_http._tcp.api.internal`.
    ///
    /// Shape:  one for each address of each host; hosts without an address are left out.
    /// Errors: [`NoAnswer`] when nobody is left.
    /// Source: RFC 2782; nginx `ngx_resolver_process_srv`.
    pub async fn serving(&self, service: &str) -> Result<Said<Serving>, NoAnswer> {
        let found = timeout(self.timeout, self.resolver()?.srv_lookup(service)).await;
        let found = found.map_err(|_| NoAnswer::Late(self.timeout))??;
        let records = found.answers().iter().filter_map(|record| match &record.data {
            RData::SRV(srv) => Some(srv),
            _ => None,
        });
        let hosts = join_all(records.take(SERVICE_HOSTS).map(async |srv| {
            let host = srv.target.to_utf8().trim_end_matches('.').to_owned();
            (srv, self.addresses(&format!("{host}.")).await, host)
        }));
        let mut servers = Vec::new();
        let mut valid_until = found.valid_until();
        for (srv, addresses, host) in hosts.await {
            match addresses {
                Ok(addresses) => {
                    valid_until = valid_until.min(Instant::now() + addresses.valid);
                    servers.extend(addresses.it.into_iter().map(|ip| Serving {
                        priority: srv.priority,
                        host: host.clone(),
                        address: SocketAddr::new(ip, srv.port),
                        weight: srv.weight.max(1),
                    }));
                }
                Err(problem) => tracing::warn!(service, host, %problem, "host of a service without address"),
            }
        }
        self.said(servers, valid_until)
    }

    fn said<T: Ord>(&self, mut it: Vec<T>, valid_until: Instant) -> Result<Said<T>, NoAnswer> {
        if it.is_empty() {
            return Err(NoAnswer::Empty);
        }
        it.sort_unstable();
        it.dedup();
        it.truncate(ADDRESSES);
        let own = valid_until.saturating_duration_since(Instant::now());
        Ok(Said { it, valid: self.valid.unwrap_or(own).max(SHORTEST) })
    }
}

fn resolver(plan: &plan::Resolver) -> Result<TokioResolver, NetError> {
    let mut builder = if plan.addresses.is_empty() {
        TokioResolver::builder_tokio()?
    } else {
        let server = |address: &SocketAddr| {
            let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
            connections.iter_mut().for_each(|connection| connection.port = address.port());
            NameServerConfig::new(address.ip(), true, connections)
        };
        let servers = plan.addresses.iter().map(server).collect();
        let config = ResolverConfig::from_parts(None, Vec::new(), servers);
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
    };
    let options = builder.options_mut();
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.cache_size = 0;
    if !plan.addresses.is_empty() {
        // Whoever names the servers wants their answers and nobody else's, as in nginx.
        options.use_hosts_file = ResolveHosts::Never;
    }
    // A lost packet is sent again within the deadline of the question.
    options.timeout = plan.timeout / 2;
    options.attempts = 1;
    builder.build()
}
