#![allow(clippy::unwrap_used, reason = "a test's panic is its report")]
use super::*;

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);

/// Limits as a file has them, each for a route of its own.
pub(super) fn planned(limits: &[&str], redis: &str) -> weir_config::Plan {
    let named: String = limits.iter().map(|limit| format!("  {limit}\n")).collect();
    let names: Vec<_> = limits.iter().map(|limit| limit.split_once(':').unwrap().0).collect();
    let text = format!(
        "listeners: [127.0.0.1:8080]\n{redis}\nupstreams: {{ api: {{ servers: [127.0.0.1:1] }} }}\nlimits:\n{named}routes: [{{ match: /*, limit: [{}], to: api }}]\n",
        names.join(", ")
    );
    let loaded = weir_config::load("test.yaml", &text, &|_: &str| None);
    loaded.unwrap_or_else(|report| panic!("{report}")).plan
}

fn limits(limits: &[&str], now: Instant) -> Limits {
    Limits::new(None, &planned(limits, "").limits, None, now)
}

fn tally(keys: &[&str], cost: u32) -> Tally {
    let cost = NonZeroU32::new(cost).unwrap();
    let keys = keys.iter().enumerate();
    Tally::new(
        keys.map(|(at, key)| Charge { limit: LimitId::at(at), key: (*key).to_owned(), cost }).collect(),
    )
}

/// Charges one request to the first limits, under these keys.
fn admit(limits: &Limits, keys: &[&str], now: Instant) -> Result<Tally, Over> {
    let mut tally = tally(keys, 1);
    assert_eq!(limits.charge(&mut tally, now)?, Progress::Done);
    Ok(tally)
}

fn admitted(limits: &Limits, keys: &[&str], tries: usize, now: Instant) -> usize {
    (0..tries).filter(|_| admit(limits, keys, now).is_ok()).count()
}

fn retry_after(over: &Over) -> Duration {
    match over.cause {
        Cause::Full { retry_after, .. } => retry_after.unwrap(),
        Cause::Unavailable => panic!("{over:?}"),
    }
}

#[test]
fn a_burst_passes_and_then_one_each_interval() {
    let now = Instant::now();
    let limits = limits(&["api: { rate: 100/15m }"], now);
    assert_eq!(admitted(&limits, &["a"], 200, now), 100);
    let over = admit(&limits, &["a"], now + SECOND / 2).unwrap_err();
    assert_eq!(retry_after(&over), SECOND * 17 / 2);
    assert_eq!(admitted(&limits, &["a"], 5, now + SECOND * 9), 1);
    assert_eq!(admitted(&limits, &["a"], 200, now + SECOND * 2000), 100);
}

#[test]
fn who_returns_after_retry_after_is_let_in() {
    for limit in ["api: { rate: 7/s, burst: 1 }", "api: { rate: 1/s, window: sliding }"] {
        let now = Instant::now();
        let limits = limits(&[limit], now);
        assert_eq!(admitted(&limits, &["a"], 2, now), 1);
        let over = admit(&limits, &["a"], now).unwrap_err();
        let then = now + retry_after(&over);
        assert!(admit(&limits, &["a"], then.checked_sub(MILLI).unwrap()).is_err(), "not before");
        assert!(admit(&limits, &["a"], then).is_ok());
    }
}

#[test]
fn those_beyond_delay_wait_in_order_and_those_beyond_the_burst_are_refused() {
    let now = Instant::now();
    let limits = limits(&["api: { rate: 10/s, burst: 5, delay: 2 }"], now);
    let waits = |now| admit(&limits, &["a"], now).map(|tally| tally.waits_until());
    assert_eq!(waits(now).unwrap(), None);
    assert_eq!(waits(now).unwrap(), None);
    for turn in 1..=3 {
        assert_eq!(waits(now).unwrap(), Some(now + MILLI * 100 * turn));
    }
    assert!(waits(now).is_err());
    // A tenth of a second later there is room for one more, which waits as long as the last one did then.
    assert_eq!(waits(now + MILLI * 100).unwrap(), Some(now + MILLI * 400));
    assert!(waits(now + MILLI * 100).is_err());
}

/// nginx 1.26: `rate=10r/s burst=4`, six requests at once: the first passes, four wait 0.1 to 0.4 seconds, one is refused.
#[test]
fn a_burst_without_nodelay_is_nginxs() {
    let now = Instant::now();
    let limits = limits(&["api: { rate: 10/s, burst: 5, delay: 1 }"], now);
    let waits: Vec<_> = (0..6)
        .map(|_| admit(&limits, &["a"], now).map(|tally| tally.waits_until().map(|turn| turn - now)).ok())
        .collect();
    let millis = |millis: u64| Some(Some(Duration::from_millis(millis)));
    assert_eq!(waits, [Some(None), millis(100), millis(200), millis(300), millis(400), None]);
}

#[test]
fn keys_are_counted_apart_and_the_rest_is_told() {
    let now = Instant::now();
    for limit in ["api: { rate: 2/m, headers: both }", "api: { rate: 2/m, window: sliding, headers: both }"] {
        let limits = limits(&[limit], now);
        let told = |key: &str| {
            let mut fields = http::HeaderMap::new();
            let mut tally = tally(&[key], 1);
            let _refused_tell_as_well = limits.charge(&mut tally, now);
            Standing::tell(tally.into_admitted().standings(), &mut fields);
            fields["ratelimit"].to_str().unwrap().split(';').nth(1).unwrap().to_owned()
        };
        assert_eq!([told("a"), told("a"), told("a"), told("b")], ["r=1", "r=0", "r=0", "r=1"]);
    }
}

#[test]
fn refused_requests_are_not_charged_to_any_limit() {
    let now = Instant::now();
    let limits = limits(
        &["wide: { rate: 10/m }", "all: { rate: 10/m, window: sliding }", "narrow: { rate: 1/m }"],
        now,
    );
    assert_eq!(admitted(&limits, &["a", "a", "a"], 50, now), 1);
    assert_eq!(admit(&limits, &["a", "a", "a"], now).unwrap_err().limit, LimitId::at(2));
    assert_eq!(admitted(&limits, &["a", "a", "b"], 1, now), 1);
    assert_eq!(admitted(&limits, &["a"], 50, now), 8, "10 less the two that passed");
    assert_eq!(admitted(&limits, &["b", "a"], 50, now), 8);
}

#[test]
fn a_request_that_costs_more_counts_as_more() {
    let now = Instant::now();
    for limit in ["api: { rate: 10/m }", "api: { rate: 10/m, window: sliding }"] {
        let limits = limits(&[limit], now);
        let charge = |cost| limits.charge(&mut tally(&["a"], cost), now);
        assert_eq!(charge(4), Ok(Progress::Done));
        assert_eq!(charge(4), Ok(Progress::Done));
        assert!(charge(4).is_err());
        assert_eq!(charge(2), Ok(Progress::Done));
        let never = charge(11).unwrap_err().cause;
        assert!(matches!(never, Cause::Full { retry_after: None, .. }), "{never:?}");
    }
}

#[test]
fn no_span_of_a_sliding_window_sees_more_than_its_count() {
    let now = Instant::now();
    let limits = limits(&["api: { rate: 100/15m, window: sliding }"], now);
    // Everything at the end of one window and the beginning of the next, where two counters would let 200 pass.
    let late = now + SECOND * 899;
    assert_eq!(admitted(&limits, &["a"], 150, late), 100);
    assert_eq!(admitted(&limits, &["a"], 150, late + SECOND * 60), 0);
    assert_eq!(admitted(&limits, &["a"], 150, late + SECOND * 899), 0);
    // And a minute later, at the latest, all of it is there again.
    assert_eq!(admitted(&limits, &["a"], 150, late + SECOND * 960), 100);
}

#[test]
fn whatever_clients_do_a_sliding_window_holds() {
    let now = Instant::now();
    let limits = limits(&["api: { rate: 20/15s, window: sliding }"], now);
    let (mut seed, mut at) = (7_u64, Duration::ZERO);
    let mut passed: Vec<Duration> = Vec::new();
    for _ in 0..5_000 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        at += Duration::from_millis(seed >> 55);
        passed.extend(admit(&limits, &["a"], now + at).is_ok().then_some(at));
    }
    assert!(passed.len() > 500, "{}", passed.len());
    for (index, first) in passed.iter().enumerate().skip(20) {
        let before = passed[index - 20];
        assert!(*first - before >= SECOND * 15, "21 requests from {before:?} to {first:?}");
    }
}

#[test]
fn a_dry_run_refuses_and_delays_nobody_and_says_what_it_would_have_done() {
    let now = Instant::now();
    let limits = limits(
        &["api: { rate: 1/m, burst: 2, delay: 1, dry_run: true }", "some: { concurrent: 1, dry_run: true }"],
        now,
    );
    let verdicts = || {
        let tally = admit(&limits, &["a", "a"], now).unwrap();
        assert_eq!(tally.waits_until(), None);
        (tally.verdicts().map(|(_, verdict)| verdict).collect::<Vec<_>>(), tally)
    };
    let (_, _held) = verdicts();
    assert_eq!(verdicts().0, [Verdict::Admitted, Verdict::DryRun]);
    assert_eq!(verdicts().0, [Verdict::DryRun, Verdict::DryRun]);
}

#[test]
fn places_are_held_until_the_request_is_done_and_a_refusal_has_the_limits_status() {
    let now = Instant::now();
    let limits = limits(&["one: { concurrent: 1, status: 503 }", "rate: { rate: 1/m }"], now);
    let under_way = admit(&limits, &["a", "a"], now).unwrap().into_admitted();
    let over = admit(&limits, &["a"], now).unwrap_err();
    assert!(matches!(over.cause, Cause::Full { status: StatusCode::SERVICE_UNAVAILABLE, .. }));
    assert!(admit(&limits, &["b"], now).is_ok());
    drop(under_way);
    assert!(admit(&limits, &["a", "a"], now).is_err(), "the second limit refuses");
    assert!(admit(&limits, &["a"], now).is_ok(), "and the first has its place back");
}

/// Ten strangers for each slot of the table.
#[test]
fn a_flood_of_a_million_addresses_does_not_free_those_who_are_over() {
    let now = Instant::now();
    for (limit, strangers) in [
        ("api: { rate: 100/15m }", 1_000_000),
        ("api: { rate: 100/15m, window: sliding, keys: 10000 }", 100_000),
    ] {
        let limits = limits(&[limit], now);
        assert_eq!(admitted(&limits, &["abuser"], 150, now), 100);
        let mut charge = Charge { limit: LimitId::at(0), key: String::new(), cost: NonZeroU32::MIN };
        for address in 0..strangers {
            charge.key = address.to_string();
            assert!(limits.0[0].zone.take(&charge, now + SECOND).unwrap().is_ok());
        }
        assert_eq!(admitted(&limits, &["abuser"], 100, now + SECOND), 0);
    }
}

#[test]
fn a_key_takes_what_the_manual_says() {
    assert_eq!([steady::slot_bytes(), sliding::slot_bytes(), leased::slot_bytes()], [16, 80, 56]);
}

#[test]
fn a_reload_keeps_the_counts_of_what_did_not_change() {
    let now = Instant::now();
    let old = limits(
        &["same: { rate: 1/m }", "changed: { rate: 1/m }", "window: { rate: 1/m, window: sliding }"],
        now,
    );
    assert_eq!(admitted(&old, &["a", "a", "a"], 1, now), 1);
    let new = planned(
        &[
            "changed: { rate: 2/m }",
            "window: { rate: 1/m }",
            "same: { rate: 1/m, status: 503, headers: both }",
        ],
        "",
    );
    let new = Limits::new(Some(&old), &new.limits, None, now + SECOND);
    assert_eq!(admitted(&new, &["a"], 9, now + SECOND), 2);
    assert_eq!(admitted(&new, &["b", "a"], 9, now + SECOND), 1, "counted in another way");
    assert_eq!(admit(&new, &["c", "c", "a"], now + SECOND).unwrap_err().limit, LimitId::at(2));
}

#[test]
fn extreme_rates_neither_panic_nor_wrap() {
    let now = Instant::now();
    let limits = limits(
        &[
            "slow: { rate: 1/36500d, burst: 4294967295 }",
            "fast: { rate: 4294967295/s }",
            "slides: { rate: 4294967295/1ms, window: sliding }",
            "years: { rate: 1/36500d, window: sliding }",
        ],
        now,
    );
    assert!(admit(&limits, &["a", "a", "a", "a"], now).is_ok());
    assert!(admit(&limits, &["a", "a", "a", "b"], now).is_err());
}
