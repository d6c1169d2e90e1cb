//! The origin as a source of sessions: one question over HTTP, to whichever peer the upstream's balance picks.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Instant,
};

use async_trait::async_trait;
use http::StatusCode;
use rand::Rng;

use super::Upstream;
use crate::{
    auth::{Ask, Token, Unavailable},
    balance::{Asker, Tried},
    causes::Causes,
    http_client::{self, Target},
};

/// A session is a small object; more is an answer to another question.
const ANSWER_BYTES: usize = 64 * 1024;

/// Asks an upstream about tokens.
#[derive(Debug)]
pub(super) struct AskUpstream {
    upstream: Arc<Upstream>,
}

impl AskUpstream {
    pub(super) fn new(upstream: Arc<Upstream>) -> Self {
        Self { upstream }
    }
}

#[async_trait]
impl Ask for AskUpstream {
    /// 200 is a session; 401, 403 and 404 are none. Whatever else is no answer, and another peer is asked.
    async fn ask(&self, path: &str, token: &Token) -> Result<Option<String>, Unavailable> {
        let plan = &self.upstream.plan;
        // The question is the edge's own: with ip_hash it has one place to go, as a client has.
        let own = Asker { seed: rand::rng().random(), ..IpAddr::V4(Ipv4Addr::LOCALHOST).into() };
        let mut tried = Tried::default();
        let mut last = Unavailable::new("no peer could be asked");
        let pool = self.upstream.pool();
        for _ in 0..plan.retry.tries.max(1) {
            let mut picked = match pool.pick(&own, &mut tried, Instant::now()) {
                Ok(picked) => picked,
                Err(none) => return Err(if tried.count() == 0 { Unavailable::new(none) } else { last }),
            };
            let endpoint = Arc::clone(picked.peer());
            let target = Target {
                address: &endpoint.endpoint().address,
                host: &endpoint.endpoint().name,
                tls: self.upstream.tls.as_ref(),
                way: self.upstream.way,
            };
            let answer =
                http_client::get(target, path, Some(token.expose()), plan.timeouts.first_byte, ANSWER_BYTES)
                    .await;
            if let Ok(answer) = &answer {
                picked.heard(answer.status().is_server_error(), Instant::now());
            }
            match answer.map(|answer| (answer.status(), answer.into_body())) {
                Ok((StatusCode::OK, body)) => {
                    picked.succeeded(Instant::now());
                    return String::from_utf8(body.to_vec()).map(Some).map_err(Unavailable::new);
                }
                Ok((StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND, _)) => {
                    picked.succeeded(Instant::now());
                    return Ok(None);
                }
                Ok((status, _)) => {
                    picked.failed(Instant::now());
                    last = Unavailable::new(format_args!("the origin answered {status}"));
                }
                Err(failed) => {
                    picked.failed(Instant::now());
                    last = Unavailable::new(Causes(&failed));
                }
            }
        }
        Err(last)
    }
}
