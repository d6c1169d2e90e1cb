//! The page that a run of the workload prints: what was asked, how it was answered, and what held.

use std::fmt::Write as _;

use crate::{
    api,
    promises::Promise,
    scenario::{ABUSERS, Outcome},
    table::{
        Ink,
        Side::{Left, Right},
        Table, count, paint, share, span,
    },
    tally::Tally,
};

/// The whole page.
#[must_use]
pub fn page(outcome: &Outcome) -> String {
    let tally = &outcome.tally;
    let mut page = String::new();
    for (heading, text) in [
        ("Honest requests", routes(outcome)),
        ("All answers", statuses(tally)),
        ("Origins", peers(tally)),
        ("Refused", refusals(tally)),
        ("Writes", writes(tally)),
        ("Promises", promises(outcome)),
    ] {
        // Writing to a string cannot fail.
        let _ = write!(page, "\n{}\n{text}", paint(Ink::Bold, heading));
    }
    page
}

fn routes(outcome: &Outcome) -> String {
    let mut table = Table::new(&[
        ("route", Left),
        ("requests", Right),
        ("per s", Right),
        ("p50", Right),
        ("p95", Right),
        ("p99", Right),
        ("from cache", Right),
    ]);
    let per_second = |n: u64| format!("{:.0}", n as f64 / outcome.lasted.as_secs_f64().max(f64::EPSILON));
    let mut all = crate::tally::Latencies::default();
    let (mut hits, mut cacheable) = (0, 0);
    for kind in api::KINDS {
        let Some(line) = outcome.tally.lines.get(kind.label) else { continue };
        let n = line.latencies.len();
        all.merge(&line.latencies);
        if kind.cached {
            hits += line.hits;
            cacheable += n;
        }
        table.row([
            kind.label.to_owned(),
            count(n),
            per_second(n),
            span(line.latencies.quantile(0.5)),
            span(line.latencies.quantile(0.95)),
            span(line.latencies.quantile(0.99)),
            if kind.cached { share(line.hits, n) } else { String::new() },
        ]);
    }
    table.row([
        "all".to_owned(),
        count(all.len()),
        per_second(all.len()),
        span(all.quantile(0.5)),
        span(all.quantile(0.95)),
        span(all.quantile(0.99)),
        share(hits, cacheable),
    ]);
    table.to_string()
}

fn statuses(tally: &Tally) -> String {
    let each = tally.statuses.iter().map(|(status, n)| format!("{status} × {}", count(*n)));
    line(each.collect())
}

fn peers(tally: &Tally) -> String {
    let asked: u64 = tally.peers.values().sum();
    let mut each: Vec<_> =
        tally.peers.iter().map(|(name, n)| format!("{name} {}", share(*n, asked))).collect();
    each.push(format!("{} of {} answers came from an origin", count(asked), count(tally.answers())));
    line(each)
}

fn refusals(tally: &Tally) -> String {
    let mut table = Table::new(&[
        ("who", Left),
        ("400", Right),
        ("401", Right),
        ("403/404", Right),
        ("429", Right),
        ("other", Right),
    ]);
    for who in ABUSERS.into_iter().chain(["dead token"]) {
        let of = |statuses: &[u16]| -> u64 {
            let known = |status: &&u16| tally.refusals.get(&(who, **status));
            statuses.iter().filter(|status| known(status).is_some()).filter_map(|status| known(&status)).sum()
        };
        let all: u64 = tally.refusals.iter().filter(|((kind, _), _)| *kind == who).map(|(_, n)| n).sum();
        let named = [of(&[400]), of(&[401]), of(&[403, 404]), of(&[429])];
        let other = all - named.iter().sum::<u64>();
        table.row(std::iter::once(who.to_owned()).chain(named.into_iter().chain([other]).map(dash)));
    }
    let hung_up = match tally.hung_up {
        0 => String::new(),
        n => {
            line(vec![format!("{} malformed heads ended in a closed connection without an answer", count(n))])
        }
    };
    format!("{table}{hung_up}")
}

fn writes(tally: &Tally) -> String {
    line(vec![
        format!("{} writes", count(tally.writes)),
        format!("{} seen at once by the read that followed", count(tally.fresh_reads)),
        format!("{} logouts", count(tally.logouts)),
    ])
}

fn promises(outcome: &Outcome) -> String {
    let mut text = String::new();
    let (hits, reads) = outcome.tally.hits(&api::cached());
    for promise in Promise::ALL {
        let verdict = outcome.promises.of(promise);
        let (mark, ink) = if verdict.held() { ("✓", Ink::Green) } else { ("✗", Ink::Red) };
        let detail = match (promise, verdict.tested, verdict.broken) {
            (Promise::HitRate, ..) => format!("{} of {} reads", share(hits, reads), count(reads)),
            (_, 0, _) => "never tested".to_owned(),
            (_, tested, 0) => format!("{} checks", count(tested)),
            (_, tested, broken) => format!("broken {} times in {} checks", count(broken), count(tested)),
        };
        let _ = writeln!(
            text,
            "  {} {:<56} {}",
            paint(ink, mark),
            promise.sentence(),
            paint(Ink::Faint, &detail)
        );
        for example in &verdict.examples {
            let _ = writeln!(text, "      {example}");
        }
    }
    text
}

fn line(parts: Vec<String>) -> String {
    format!("  {}\n", parts.join("   "))
}

fn dash(n: u64) -> String {
    if n == 0 { "–".to_owned() } else { count(n) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_promise_is_on_the_page_with_its_example() {
        let mut outcome = Outcome::default();
        outcome.promises.test(Promise::OwnDataOnly, true, String::new);
        outcome
            .promises
            .test(Promise::OwnDataOnly, false, || "owner-1 was shown item x of owner-2".to_owned());
        outcome.promises.test(Promise::NoServerError, true, String::new);
        let page = page(&outcome);
        assert!(page.contains("✗ no user sees another's answer"), "{page}");
        assert!(page.contains("broken 1 times in 2 checks"), "{page}");
        assert!(page.contains("owner-1 was shown item x of owner-2"), "{page}");
        assert!(page.contains("✓ no 5xx"), "{page}");
        assert!(page.contains("never tested"), "{page}");
    }

    #[test]
    fn abusers_are_counted_by_kind_and_status() {
        let mut outcome = Outcome::default();
        outcome.tally.refusal(ABUSERS[0], http::StatusCode::TOO_MANY_REQUESTS);
        outcome.tally.refusal(ABUSERS[0], http::StatusCode::IM_A_TEAPOT);
        let page = page(&outcome);
        let row = page.lines().find(|line| line.contains(ABUSERS[0])).unwrap_or_default();
        assert_eq!(row.split_whitespace().skip(2).collect::<Vec<_>>(), ["–", "–", "–", "1", "1"], "{page}");
    }
}
