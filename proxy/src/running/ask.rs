//! An upstream that is asked about callers: one question over HTTP, to whichever peer the upstream's balance picks.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Instant,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::Response;
use rand::Rng;

use super::Upstream;
use crate::{
    auth::{Ask, Question, Unavailable},
    balance::{Asker, Tried},
    causes::Causes,
    http_client::{self, Target},
};

/// A session and a set of keys are small objects; more is an answer to another question.
const ANSWER_BYTES: usize = 64 * 1024;

/// Asks an upstream.
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
    async fn ask(&self, question: Question<'_>) -> Result<Response<Bytes>, Unavailable> {
        let plan = &self.upstream.plan;
        // The question is the edge's own: with ip_hash it has one place to go, as a client has.
        let own = Asker { seed: rand::rng().random(), ..IpAddr::V4(Ipv4Addr::LOCALHOST).into() };
        let mut tried = Tried::default();
        let mut last = Unavailable::new("no peer could be asked");
        let pool = self.upstream.pool();
        let until = Instant::now() + question.within;
        for _ in 0..plan.retry.tries.max(1) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
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
            let fields = question.fields.clone();
            let timeout = left.min(plan.timeouts.first_byte);
            let answer = http_client::get_with(target, question.path, fields, timeout, ANSWER_BYTES).await;
            if let Ok(answer) = &answer {
                picked.heard(answer.status().is_server_error(), Instant::now());
            }
            match answer {
                Ok(answer) if (question.is_answer)(answer.status()) => {
                    picked.succeeded(Instant::now());
                    return Ok(answer);
                }
                Ok(answer) => {
                    // It is there, and a client may have asked for this: its peers are no worse for it unless the plan says so.
                    match plan.retry.is_failure(answer.status().as_u16()) {
                        true => picked.failed(Instant::now()),
                        false => picked.succeeded(Instant::now()),
                    }
                    last = Unavailable::new(format_args!("the upstream answered {}", answer.status()));
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
