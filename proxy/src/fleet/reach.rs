//! Where the servers are and how they are spoken to: addresses, names and certificates, and who owns which slots.
//!
//! One server and a master behind sentinels own all of them. Of a cluster, every node that is known is asked at once and
//! the first answer counts: one that is hung delays nobody.

use std::{fmt, fs, io, time::Duration};

use futures_util::{FutureExt as _, future::select_ok};
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, IntoConnectionInfo as _,
    RedisConnectionInfo, RedisResult, TlsCertificates, Value, aio::MultiplexedConnection,
};
use weir_config::plan::{self, RedisServers};

use super::{BadRedis, node::failed, slot::Slot};
use crate::pem;

/// Host and port of a server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
}

/// The last slot of each range, and who owns it; in the order of slots, without a gap.
pub(super) type Owners = Vec<(Slot, Address)>;

/// How to reach the servers.
#[derive(Clone)]
pub(super) struct Reach {
    servers: Servers,
    settings: RedisConnectionInfo,
    /// With TLS.
    certificates: Option<TlsCertificates>,
    pub(super) connect_timeout: Duration,
    pub(super) timeout: Duration,
    /// What it was made of, to tell whether it is still the same.
    made_of: (plan::Redis, Vec<Vec<u8>>),
}

#[derive(Clone, PartialEq, Eq)]
enum Servers {
    One(Address),
    Sentinel { master: String, nodes: Vec<Address> },
    Cluster(Vec<Address>),
}

/// What a server is, beyond one that answers.
enum Role {
    Any,
    Master,
}

impl Address {
    /// `host:port`, IPv6 with or without brackets; an empty host is that of whoever said so.
    pub(super) fn read(text: &str, said_by: &Self) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let host = if host.is_empty() { &said_by.host } else { host };
        Some(Self { host: host.to_owned(), port: port.parse().ok()? })
    }

    fn written(text: &str) -> Option<Self> {
        let nobody = Self { host: String::new(), port: 0 };
        Self::read(text, &nobody)
    }
}

impl Reach {
    pub(super) fn new(plan: &plan::Redis) -> Result<Self, BadRedis> {
        let bad = |place, problem: &dyn fmt::Display| BadRedis { place, problem: problem.to_string() };
        let mut settings = RedisConnectionInfo::default();
        let mut is_tls = plan.tls.is_some();
        let nodes = |nodes: &[String]| nodes.iter().filter_map(|node| Address::written(node)).collect();
        let servers = match &plan.servers {
            RedisServers::One(url) => {
                let info = url.expose().into_connection_info().map_err(|problem| bad(url.place, &problem))?;
                settings = info.redis_settings().clone();
                let (host, port) = match info.addr() {
                    ConnectionAddr::Tcp(host, port) => (host, port),
                    ConnectionAddr::TcpTls { insecure: true, .. } => {
                        return Err(bad(
                            url.place,
                            &"`#insecure` would believe anybody: name the authority in `tls.ca`",
                        ));
                    }
                    ConnectionAddr::TcpTls { host, port, .. } => {
                        is_tls = true;
                        (host, port)
                    }
                    _ => return Err(bad(url.place, &"this URL names no host")),
                };
                Servers::One(Address { host: host.clone(), port: *port })
            }
            RedisServers::Sentinel { master, nodes: named } => {
                Servers::Sentinel { master: master.clone(), nodes: nodes(named) }
            }
            RedisServers::Cluster(named) => Servers::Cluster(nodes(named)),
        };
        if let Some(username) = &plan.username {
            settings = settings.set_username(username);
        }
        if let Some(password) = &plan.password {
            settings = settings.set_password(password.expose());
        }
        let certificates = if is_tls { Some(certificates(plan)?) } else { None };
        let files = certificates.iter().flat_map(|certificates| {
            let own = certificates
                .client_tls
                .iter()
                .flat_map(|own| [own.client_cert.clone(), own.client_key.clone()]);
            certificates.root_cert.clone().into_iter().chain(own)
        });
        let made_of = (plan.clone(), files.collect());
        let (connect_timeout, timeout) = (plan.connect_timeout, plan.timeout);
        Ok(Self { servers, settings, certificates, connect_timeout, timeout, made_of })
    }

    pub(super) fn holds_the_same(&self, other: &Self) -> bool {
        (&self.servers, self.database()) == (&other.servers, other.database())
            && self.made_of.0.prefix == other.made_of.0.prefix
    }

    pub(super) fn database(&self) -> i64 {
        self.settings.db()
    }

    /// Whether the servers can be others tomorrow.
    pub(super) fn may_move(&self) -> bool {
        !matches!(self.servers, Servers::One(_))
    }

    /// Connects to one that owns slots; `push` hears what the server says unasked.
    ///
    /// Errors: also when sentinels named it and it is no master any more.
    pub(super) async fn open(
        &self,
        address: &Address,
        config: Option<AsyncConnectionConfig>,
    ) -> RedisResult<MultiplexedConnection> {
        let role = if matches!(self.servers, Servers::Sentinel { .. }) { Role::Master } else { Role::Any };
        let is_listening = config.is_some();
        let config = config.unwrap_or_default().set_connection_timeout(Some(self.connect_timeout));
        let config = config.set_response_timeout(is_listening.then_some(self.timeout));
        let protocol =
            if is_listening { redis::ProtocolVersion::RESP3 } else { redis::ProtocolVersion::RESP2 };
        let settings = self.settings.clone().set_protocol(protocol);
        let mut connection = self.connect(address, settings, &config).await?;
        if let Role::Master = role {
            let asked = tokio::time::timeout(self.timeout, is_master(&mut connection)).await;
            if !asked.map_err(|_| super::node::late(self.timeout))?? {
                return Err(failed("whom the sentinels named is no master"));
            }
        }
        Ok(connection)
    }

    async fn connect(
        &self,
        address: &Address,
        settings: RedisConnectionInfo,
        config: &AsyncConnectionConfig,
    ) -> RedisResult<MultiplexedConnection> {
        let Address { host, port } = address.clone();
        let client = match &self.certificates {
            Some(certificates) => {
                let address = ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None };
                let info = address.into_connection_info()?.set_redis_settings(settings);
                Client::build_with_tls(info, certificates.clone())?
            }
            None => Client::open(
                ConnectionAddr::Tcp(host, port).into_connection_info()?.set_redis_settings(settings),
            )?,
        };
        client.get_multiplexed_async_connection_with_config(config).await
    }

    /// Who owns which slots now.
    ///
    /// `known` are those of before, who know as well as those who are named in the plan.
    ///
    /// Errors: when nobody can say, or says that some are nobody's.
    pub(super) async fn owners(&self, known: &[Address]) -> RedisResult<Owners> {
        match &self.servers {
            Servers::One(address) => Ok(vec![(Slot::LAST, address.clone())]),
            Servers::Sentinel { master, nodes } => {
                // What a sentinel is called and asked for is its own: neither user nor database are the master's.
                let settings = RedisConnectionInfo::default();
                let mut question = redis::cmd("SENTINEL");
                question.arg("get-master-addr-by-name").arg(master);
                let read = |value: Value, _: &Address| {
                    let named: Option<(String, u16)> = redis::from_redis_value(value)?;
                    let Some((host, port)) = named else {
                        return Err(failed("the sentinels know no master of this name"));
                    };
                    Ok(vec![(Slot::LAST, Address { host, port })])
                };
                self.first(nodes, &settings, &question, read).await
            }
            Servers::Cluster(nodes) => {
                let question = slots_question();
                let others = known.iter().filter(|node| !nodes.contains(node)).cloned();
                let nodes: Vec<_> = nodes.iter().cloned().chain(others).collect();
                self.first(&nodes, &self.settings, &question, owners_in).await
            }
        }
    }

    /// The first good answer of any of them.
    async fn first(
        &self,
        nodes: &[Address],
        settings: &RedisConnectionInfo,
        question: &redis::Cmd,
        read: impl Fn(Value, &Address) -> RedisResult<Owners> + Copy + Send + Sync,
    ) -> RedisResult<Owners> {
        let config = AsyncConnectionConfig::new().set_connection_timeout(Some(self.connect_timeout));
        let config = &config.set_response_timeout(Some(self.timeout));
        let ask = |node| {
            async move {
                let mut connection = self.connect(node, settings.clone(), config).await?;
                read(question.query_async(&mut connection).await?, node)
            }
            .boxed()
        };
        if nodes.is_empty() {
            return Err(failed("no node of this Redis is named"));
        }
        Ok(select_ok(nodes.iter().map(ask)).await?.0)
    }

    /// Asks a master whether all is as it was. What it pushed before it was asked comes before its answer.
    pub(super) async fn is_as_before(
        &self,
        master: &mut MultiplexedConnection,
        address: &Address,
        owners: &Owners,
    ) -> RedisResult<bool> {
        Ok(match &self.servers {
            Servers::One(_) => redis::cmd("PING").query_async::<()>(master).await.map(|()| true)?,
            Servers::Sentinel { .. } => is_master(master).await?,
            Servers::Cluster(_) => {
                owners_in(slots_question().query_async(master).await?, address)? == *owners
            }
        })
    }
}

fn slots_question() -> redis::Cmd {
    redis::cmd("CLUSTER").arg("SLOTS").clone()
}

async fn is_master(connection: &mut MultiplexedConnection) -> RedisResult<bool> {
    Ok(says_master(&redis::cmd("ROLE").query_async(connection).await?))
}

fn says_master(role: &Value) -> bool {
    let Value::Array(role) = role else { return false };
    matches!(role.first(), Some(Value::BulkString(word)) if word == b"master")
}

/// `[first, last, [host, port, …], replicas…]` of each range.
fn owners_in(slots: Value, said_by: &Address) -> RedisResult<Owners> {
    let mut owners = Vec::new();
    for range in redis::from_redis_value::<Vec<Vec<Value>>>(slots)? {
        let mut range = range.into_iter();
        let (Some(first), Some(last), Some(master)) = (range.next(), range.next(), range.next()) else {
            return Err(failed("a node describes its cluster in words unknown here"));
        };
        let (first, last): (u16, u16) = (redis::from_redis_value(first)?, redis::from_redis_value(last)?);
        let mut master = redis::from_redis_value::<Vec<Value>>(master)?.into_iter();
        let host: Option<String> = redis::from_redis_value(master.next().unwrap_or_default())?;
        let port: u16 = redis::from_redis_value(master.next().unwrap_or_default())?;
        let host = host.filter(|host| !host.is_empty()).unwrap_or_else(|| said_by.host.clone());
        let last = Slot::numbered(last).ok_or_else(|| failed("a slot has a number that none has"))?;
        owners.push((first, last, Address { host, port }));
    }
    owners.sort();
    let mut next = 0;
    for (first, last, _) in &owners {
        if *first != next {
            return Err(failed("some slots of the cluster are nobody's"));
        }
        next = last.number() + 1;
    }
    if next != Slot::COUNT {
        return Err(failed("some slots of the cluster are nobody's"));
    }
    Ok(owners.into_iter().map(|(_, last, address)| (last, address)).collect())
}

/// What a plan's files hold, seen to be usable.
fn certificates(plan: &plan::Redis) -> Result<TlsCertificates, BadRedis> {
    let Some(tls) = &plan.tls else { return Ok(TlsCertificates { client_tls: None, root_cert: None }) };
    let bad = |place, problem: String| BadRedis { place, problem };
    let read = |file: &weir_config::span::Placed<std::path::PathBuf>| {
        let unread = |problem: io::Error| bad(file.place, format!("{}: {problem}", file.display()));
        fs::read(file.as_path()).map_err(unread)
    };
    if let Some(file) = &tls.ca {
        pem::certificates(file).map_err(|problem| bad(file.place, problem.to_string()))?;
    }
    if let Some(own) = &tls.certificate {
        pem::pair(&own.chain, &own.key).map_err(|problems| {
            let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
            bad(own.chain.place, problems.join("; "))
        })?;
    }
    let own = tls
        .certificate
        .as_ref()
        .map(|own| Ok(ClientTlsConfig { client_cert: read(&own.chain)?, client_key: read(&own.key)? }));
    Ok(TlsCertificates { client_tls: own.transpose()?, root_cert: tls.ca.as_ref().map(read).transpose()? })
}

impl PartialEq for Reach {
    fn eq(&self, other: &Self) -> bool {
        self.made_of == other.made_of
    }
}

impl fmt::Debug for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The plan hides its secrets.
        f.debug_struct("Reach").field("plan", &self.made_of.0).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test's panic is its report")]
    use super::*;

    fn range(first: i64, last: i64, host: &str, port: i64) -> Value {
        let master = vec![Value::BulkString(host.into()), Value::Int(port), Value::BulkString("id".into())];
        Value::Array(vec![Value::Int(first), Value::Int(last), Value::Array(master)])
    }

    #[test]
    fn owners_are_whole_or_none() {
        let node = Address { host: "10.0.0.9".into(), port: 1 };
        let read = |ranges| owners_in(Value::Array(ranges), &node);
        let owners = read(vec![range(100, 16383, "", 2), range(0, 99, "10.0.0.1", 1)]).unwrap();
        let named: Vec<_> = owners.iter().map(|(last, address)| (last.number(), &*address.host)).collect();
        assert_eq!(named, [(99, "10.0.0.1"), (16383, "10.0.0.9")], "no host is that of whoever answers");
        for wrong in [
            vec![],
            vec![range(0, 99, "a", 1)],
            vec![range(0, 99, "a", 1), range(101, 16383, "b", 1)],
            vec![range(0, 16384, "a", 1)],
        ] {
            assert!(read(wrong).is_err());
        }
    }

    #[test]
    fn addresses_are_read_as_redis_writes_them() {
        let here = Address { host: "h".into(), port: 1 };
        let read = |text| Address::read(text, &here).map(|address| (address.host, address.port));
        assert_eq!(read("10.0.0.1:6379"), Some(("10.0.0.1".into(), 6379)));
        assert_eq!(read("::1:6379"), Some(("::1".into(), 6379)));
        assert_eq!(read("[::1]:6379"), Some(("::1".into(), 6379)));
        assert_eq!(read(":6379"), Some(("h".into(), 6379)));
        assert_eq!(read("nowhere"), None);
    }
}
