//! How an upstream outlives its servers' failures: checks, retries, outliers, breaker, queue.

use std::{ops::RangeInclusive, time::Duration};

use super::Resolver;
use crate::{
    defaults as d,
    plan::{self, CheckAsk},
    raw::{self, CheckType, Short, Switch, Word},
    span::Place,
};

impl Resolver<'_> {
    /// `tls`: whether requests go by TLS.
    pub(super) fn health(&mut self, raw: &raw::Health, tls: bool, servers: &[plan::Server]) -> plan::Health {
        let kind = raw.kind.or(CheckType::Http);
        let words = [
            (raw.path.place(), "path", CheckType::Http),
            (raw.status.place(), "status", CheckType::Http),
            (raw.headers.place(), "headers", CheckType::Http),
            (raw.body.place(), "body", CheckType::Http),
            (raw.service.place(), "service", CheckType::Grpc),
        ];
        for (place, word, of) in words {
            if let Some(place) = place.filter(|_| kind != of) {
                let problem =
                    self.report.error(place, format!("`{word}` means nothing to this type of check"));
                problem.help(match of {
                    CheckType::Grpc => "it is for `type: grpc`",
                    CheckType::Http | CheckType::Tcp => "it is for `type: http`",
                });
            }
        }
        if let Some((true, place)) = raw.tls.placed().filter(|_| !tls) {
            let problem = self.report.error(place, "nothing says whom to expect behind TLS");
            problem.help("give the upstream a `tls` with a `name`");
        }
        if let Some((0, place)) = raw.port.placed() {
            self.report.error(place, "nobody listens on port 0");
        }
        let socket = servers.iter().find(|server| server.address.starts_with("unix:"));
        if let Some((place, socket)) = raw.port.place().zip(socket) {
            let problem = self.report.error(place, format!("`{}` has no port", socket.address));
            problem.help("without `port` each server is checked where requests go");
        }
        let interval = self.time(&raw.interval, d::HEALTH_INTERVAL);
        if interval < Duration::from_millis(100) {
            let place = raw.interval.place().unwrap_or_default();
            self.report.error(place, "checks more often than every 100ms are a load test");
        }
        plan::Health {
            ask: match kind {
                CheckType::Http => self.http_check(raw),
                CheckType::Tcp => CheckAsk::Tcp,
                CheckType::Grpc => CheckAsk::Grpc { service: raw.service.or(String::new()) },
            },
            port: raw.port.get().copied(),
            tls: raw.tls.or(tls),
            interval,
            jitter: raw.jitter.or(d::HEALTH_JITTER),
            timeout: self.time(&raw.timeout, d::HEALTH_TIMEOUT),
            fall: self.count(&raw.fall, d::HEALTH_FALL),
            rise: self.count(&raw.rise, d::HEALTH_RISE),
            mandatory: raw.mandatory.or(false),
        }
    }

    fn http_check(&mut self, raw: &raw::Health) -> CheckAsk {
        let default = Word::new(d::HEALTH_PATH.to_owned());
        let path = self.origin_path(if raw.path.is_absent() { &default } else { &raw.path });
        let mut status: Vec<_> =
            raw.status.items().filter_map(|(text, at)| self.statuses(text, at)).collect();
        if status.is_empty() {
            status.push(d::HEALTH_STATUS);
        }
        let headers =
            raw.headers.entries().filter_map(|(name, is, at)| self.header_match(name, is, at)).collect();
        CheckAsk::Http { path, status, headers, body: raw.body.get().cloned() }
    }

    /// `200` or `200-399`.
    pub(super) fn statuses(&mut self, text: &str, place: Place) -> Option<RangeInclusive<u16>> {
        let status =
            |text: &str| text.trim().parse::<u16>().ok().filter(|status| (100..600).contains(status));
        let (from, to) = text.split_once('-').unwrap_or((text, text));
        match (status(from), status(to)) {
            (Some(from), Some(to)) if from <= to => Some(from..=to),
            _ => {
                let problem = self.report.error(place, format!("`{text}` is not a range of statuses"));
                problem.help("write `200` or `200-399`");
                None
            }
        }
    }

    pub(super) fn retry(&mut self, raw: &raw::Retry) -> plan::Retry {
        let on = match raw.on.get() {
            Some(_) => raw.on.items().map(|(on, _)| *on).collect(),
            None => d::RETRY_ON.to_vec(),
        };
        plan::Retry {
            on,
            tries: self.count(&raw.tries, d::RETRY_TRIES),
            timeout: self.time(&raw.timeout, d::RETRY_TIMEOUT),
            budget: raw.budget.or(d::RETRY_BUDGET),
            floor: raw.floor.or(d::RETRY_FLOOR),
        }
    }

    pub(super) fn outlier(&mut self, word: &Word<Short<Switch<raw::Outlier>>>) -> Option<plan::Outlier> {
        let default = raw::Outlier::default();
        let raw = match word {
            Word::Given(Short(Switch::Off), _) => return None,
            Word::Given(Short(Switch::On(outlier)), _) => outlier,
            Word::Absent | Word::Wrong(_) => &default,
        };
        let ejection = self.time(&raw.ejection, d::OUTLIER_EJECTION);
        let max_ejection = self.time(&raw.max_ejection, d::OUTLIER_MAX_EJECTION.max(ejection));
        if let Some(place) = raw.max_ejection.place().filter(|_| max_ejection < ejection) {
            self.report.error(place, "the longest rest is shorter than the first (`ejection`)");
        }
        Some(plan::Outlier {
            window: self.time(&raw.window, d::OUTLIER_WINDOW),
            requests: self.count(&raw.requests, d::OUTLIER_REQUESTS),
            errors: raw.errors.or(d::OUTLIER_ERRORS),
            latency: raw.latency.or(d::OUTLIER_LATENCY),
            silence: Self::span(&raw.silence, d::OUTLIER_SILENCE),
            ejection,
            max_ejection,
            max_ejected: raw.max_ejected.or(d::OUTLIER_MAX_EJECTED),
        })
    }

    pub(super) fn circuit_breaker(&mut self, raw: &raw::CircuitBreaker) -> plan::CircuitBreaker {
        if let Some((share, place)) = raw.failures.placed().filter(|(share, _)| share.fraction() <= 0.0) {
            self.report.error(place, format!("at {share} failures it would open by every success"));
        }
        plan::CircuitBreaker {
            window: self.time(&raw.window, d::BREAKER_WINDOW),
            requests: self.count(&raw.requests, d::BREAKER_REQUESTS),
            failures: raw.failures.or(d::BREAKER_FAILURES),
            consecutive: raw.consecutive.or(d::BREAKER_CONSECUTIVE),
            open: self.time(&raw.open, d::BREAKER_OPEN),
            probes: self.count(&raw.probes, d::BREAKER_PROBES),
        }
    }

    pub(super) fn concurrency(&mut self, raw: &raw::Concurrency) -> plan::Concurrency {
        let min = self.count(&raw.min, d::CONCURRENCY_MIN);
        let max = self.count(&raw.max, d::CONCURRENCY_MAX.max(min));
        if let Some(place) = raw.max.place().filter(|_| max < min) {
            self.report.error(place, format!("`max` is less than `min` ({min})"));
        }
        plan::Concurrency { min, max, probe: self.time(&raw.probe, d::CONCURRENCY_PROBE) }
    }

    pub(super) fn queue(&mut self, raw: &raw::Queue) -> plan::Queue {
        plan::Queue {
            length: self.count(&raw.length, d::QUEUE_LENGTH) as usize,
            timeout: self.time(&raw.timeout, d::QUEUE_TIMEOUT),
        }
    }

    pub(super) fn hedge(&mut self, raw: &raw::Hedge) -> plan::Hedge {
        let quantile = raw.quantile.or(d::HEDGE_QUANTILE);
        if let Some(place) = raw.quantile.place().filter(|_| !(0.5..1.0).contains(&quantile.fraction())) {
            let problem = self.report.error(place, format!("{quantile} is no measure of a slow answer"));
            problem.help("from 50% to 99%");
        }
        plan::Hedge { quantile, share: raw.share.or(d::HEDGE_SHARE) }
    }
}
