//! Redis: one server, or sentinels, or a cluster, and how each is spoken to.

use super::{Resolver, placed_path};
use crate::{
    defaults as d,
    plan::{self, RedisServers},
    raw::{self, List, Word},
    span::{Place, Placed},
};

const URL: &str = "write `redis://[user:password@]host[:port][/db]`, or `rediss://` for TLS";

impl Resolver<'_> {
    pub(super) fn redis(&mut self) -> Option<plan::Redis> {
        let raw = self.raw.redis.get()?;
        let connect_timeout = self.time(&raw.connect_timeout, d::REDIS_CONNECT_TIMEOUT);
        let timeout = self.time(&raw.timeout, d::REDIS_TIMEOUT);
        let servers = self.redis_servers(raw)?;
        let password = self.secret(&raw.password, &raw.password_file, "password");
        if let Some(place) = raw.username.place().filter(|_| password.is_none()) {
            self.report.error(place, "`username` needs a `password` or a `password_file`");
        }
        let tls = raw.tls.get().map(|tls| plan::RedisTls {
            ca: tls.ca.placed().map(placed_path),
            certificate: self.own_certificate(&tls.certificate, &tls.key),
        });
        if let (Some(at), RedisServers::One(url)) = (raw.tls.place(), &servers)
            && url.expose().starts_with("redis://")
        {
            let problem = self.report.error(at, "the URL of this Redis does not ask for TLS");
            problem.help("begin it with `rediss://`");
        }
        Some(plan::Redis {
            servers,
            username: raw.username.get().cloned(),
            password: password.map(|(password, _)| password),
            tls,
            connect_timeout,
            timeout,
            prefix: raw.prefix.get().map_or_else(|| d::REDIS_PREFIX.to_owned(), Clone::clone),
            purges: raw.purges.or(d::REDIS_PURGES),
        })
    }

    /// One of three; none when there is no URL, which is how an environment says that there is no Redis.
    fn redis_servers(&mut self, raw: &raw::Redis) -> Option<RedisServers> {
        let url = self.secret(&raw.url, &raw.url_file, "url").filter(|(url, _)| !url.expose().is_empty());
        let others = [("sentinel", raw.sentinel.place()), ("cluster", raw.cluster.place())];
        let written: Vec<(&str, Place)> =
            others.into_iter().filter_map(|(key, at)| Some((key, at?))).collect();
        let second = if url.is_some() { written.first() } else { written.get(1) };
        if let Some((key, at)) = second {
            let first = if url.is_some() { "url" } else { written[0].0 };
            let problem = self.report.error(*at, format!("`{key}` beside `{first}`: which one is it?"));
            problem.help("name one server by its `url`, or a master by its `sentinel`s, or a `cluster`");
        }
        if let Some((url, place)) = url {
            match url.expose().split_once("://") {
                Some(("redis" | "rediss", host)) if !host.is_empty() && !host.starts_with('/') => {}
                _ => {
                    self.report.error(place, "this is not the URL of a Redis").help(URL);
                }
            }
            return Some(RedisServers::One(Placed::new(url, place)));
        }
        if let Some((sentinel, place)) = raw.sentinel.placed() {
            let master = self.required(&sentinel.master, "master", place)?.0.clone();
            return Some(RedisServers::Sentinel { master, nodes: self.nodes(&sentinel.nodes, place) });
        }
        let (_, place) = raw.cluster.placed()?;
        Some(RedisServers::Cluster(self.nodes(&raw.cluster, place)))
    }

    fn nodes(&mut self, word: &Word<List<String>>, place: Place) -> Vec<String> {
        let nodes: Vec<_> = word.items().filter_map(|(text, at)| self.server_address(text, at)).collect();
        if word.get().is_none_or(|list| list.0.is_empty()) {
            self.report
                .error(place, "no node is named")
                .help("write some as `[10.0.0.1:6379, 10.0.0.2:6379]`");
        }
        nodes
    }
}
