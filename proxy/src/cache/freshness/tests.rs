#![allow(clippy::unwrap_used, reason = "a test that cannot build its input has failed")]
use super::*;
use crate::cache::testing::*;

fn freshness(fields: &[(&'static str, &str)], rule: &Rule, now: Now) -> Freshness {
    let headers = map(fields);
    Freshness::new(StatusCode::OK, &headers, &Directives::of_response(&headers), rule, now, now)
}

fn ttl(fields: &[(&'static str, &str)], now: Now) -> i64 {
    freshness(fields, &Rule::origin_alone(), now).ttl(now)
}

#[test]
fn the_most_specific_lifetime_counts() {
    let now = noon();
    let (date, later) = (ago(now, 0), httpdate::fmt_http_date(now.wall + secs(50)));
    assert_eq!(ttl(&[("cache-control", "max-age=10, s-maxage=20"), ("expires", &later)], now), 20);
    assert_eq!(ttl(&[("cache-control", "max-age=10"), ("expires", &later)], now), 10);
    assert_eq!(ttl(&[("expires", &later), ("date", &date)], now), 50);
    assert_eq!(ttl(&[("expires", &later)], now), 50);
    assert_eq!(ttl(&[("expires", &later), ("expires", "0")], now), 0);
    assert_eq!(ttl(&[("expires", "tomorrow"), ("last-modified", &ago(now, 1000))], now), 0);
    assert_eq!(ttl(&[("cdn-cache-control", "max-age=5"), ("expires", &later)], now), 5);
    assert_eq!(ttl(&[], now), 0);
}

#[test]
fn a_guess_is_a_tenth_and_at_most_a_day_or_of_an_error_a_minute() {
    let now = noon();
    let guess = |status, cache_control| {
        let headers = map(&[("last-modified", &ago(now, 100_000)), ("cache-control", cache_control)]);
        let directives = Directives::of_response(&headers);
        let status = StatusCode::from_u16(status).unwrap();
        Freshness::new(status, &headers, &directives, &Rule::origin_alone(), now, now).ttl(now)
    };
    for (status, cache_control, expected) in [
        (200, "", 10_000),
        (308, "", 10_000),
        (404, "", 60),
        (410, "", 60),
        (501, "", 60),
        (201, "", 0),
        (302, "", 0),
        (403, "", 0),
        (500, "", 0),
        (302, "public", 10_000),
        (403, "public", 60),
    ] {
        assert_eq!(guess(status, cache_control), expected, "{status} {cache_control}");
    }
    assert_eq!(ttl(&[("last-modified", &ago(now, 1000))], now), 100);
    assert_eq!(ttl(&[("last-modified", &ago(now, 365 * 86_400))], now), 86_400);
}

#[test]
fn age_counts_the_way_here_the_delay_and_the_stay() {
    let now = noon();
    assert_eq!(ttl(&[("cache-control", "max-age=60"), ("age", "50")], now), 10);
    assert_eq!(ttl(&[("cache-control", "max-age=60"), ("age", "7, 50")], now), 53);
    assert_eq!(ttl(&[("cache-control", "max-age=60"), ("age", "-7")], now), 60);
    assert_eq!(ttl(&[("cache-control", "max-age=60"), ("date", &ago(now, 20))], now), 40);
    assert!(ttl(&[("cache-control", "max-age=60"), ("age", "99999999999999999999")], now) < 0);
    let headers = map(&[("cache-control", "max-age=60")]);
    let directives = Directives::of_response(&headers);
    let got =
        Freshness::new(StatusCode::OK, &headers, &directives, &Rule::origin_alone(), now, now.after(secs(3)));
    assert_eq!(got.age(now.after(secs(10))), secs(10));
}

#[test]
fn the_rules_ttl_begins_at_receipt_and_speaks_only_of_answers() {
    let now = noon();
    let rule = Rule { ttl: Some(secs(60)), ..Rule::origin_alone() };
    assert_eq!(
        freshness(&[("cache-control", "max-age=1, no-cache"), ("age", "500")], &rule, now).ttl(now),
        60
    );
    assert!(freshness(&[("cache-control", "no-cache")], &rule, now).begins_fresh());
    let none = HeaderMap::new();
    let failed = Freshness::new(StatusCode::NOT_FOUND, &none, &Directives::default(), &rule, now, now);
    assert!(!failed.begins_fresh());
}

#[test]
fn a_span_for_a_status_counts_before_the_ttl_and_may_step_back_for_the_origin() {
    let now = noon();
    let always = Rule {
        ttl: Some(secs(60)),
        statuses: vec![(404..=404, secs(10)), (500..=599, secs(1))],
        ..Rule::origin_alone()
    };
    let unsaid = Rule { ttl_applies: TtlApplies::Unsaid, ..always.clone() };
    let ttl = |rule: &Rule, status, cache_control| {
        let headers = map(&[("cache-control", cache_control), ("last-modified", &ago(now, 100_000))]);
        let directives = Directives::of_response(&headers);
        let status = StatusCode::from_u16(status).unwrap();
        Freshness::new(status, &headers, &directives, rule, now, now).ttl(now)
    };
    for (status, cache_control, expected) in [
        (200, "max-age=5", [60, 5]),
        (200, "", [60, 60]),
        (404, "max-age=5", [10, 5]),
        (404, "", [10, 10]),
        (503, "", [1, 1]),
        (410, "max-age=5", [5, 5]),
        (410, "", [60, 60]),
    ] {
        let found = [ttl(&always, status, cache_control), ttl(&unsaid, status, cache_control)];
        assert_eq!(found, expected, "{status} {cache_control}");
    }
    let no_cache = |rule| !freshness(&[("cache-control", "no-cache")], rule, now).begins_fresh();
    assert_eq!([no_cache(&always), no_cache(&unsaid)], [false, true]);
}

#[test]
fn requests_may_ask_for_more_or_less() {
    let now = noon();
    let entry = freshness(&[("cache-control", "max-age=60")], &Rule::origin_alone(), now);
    let ask = |request: &str, after| {
        let request = Directives::of_request(&map(&[("cache-control", request)]));
        entry
            .assess(&request, &Rule::origin_alone(), false, now.after(secs(after)))
            .map_err(|stale| stale.expired)
    };
    for (request, after, expected) in [
        ("", 59, Ok(())),
        ("", 60, Err(Expired::Age)),
        ("max-age=10", 10, Ok(())),
        ("max-age=10", 11, Err(Expired::Request)),
        ("min-fresh=30", 30, Ok(())),
        ("min-fresh=30", 31, Err(Expired::Request)),
        ("no-cache", 0, Err(Expired::Request)),
        ("max-stale=5", 65, Ok(())),
        ("max-stale=5", 66, Err(Expired::Age)),
        ("max-stale", 9999, Ok(())),
    ] {
        assert_eq!(ask(request, after), expected, "{request} after {after}");
    }
}

#[test]
fn stale_answers_are_served_only_where_nobody_forbids_it() {
    let now = noon();
    let rule = Rule { stale_while_revalidate: secs(10), stale_if_error: secs(20), ..Rule::origin_alone() };
    let ask = |cache_control, after| {
        let entry = freshness(&[("cache-control", cache_control)], &rule, now);
        let stale = entry.assess(&Directives::default(), &rule, false, now.after(secs(after))).unwrap_err();
        (stale.while_revalidate, stale.on_error)
    };
    for (cache_control, after, expected) in [
        ("max-age=60", 65, (true, true)),
        ("max-age=60", 70, (false, true)),
        ("max-age=60", 80, (false, false)),
        ("max-age=60, stale-while-revalidate=2, stale-if-error=100", 65, (false, true)),
        ("max-age=60, must-revalidate", 65, (false, false)),
        ("max-age=60, proxy-revalidate, stale-if-error=9", 65, (false, false)),
        ("s-maxage=60", 65, (false, false)),
        ("s-maxage=60, stale-if-error=9", 65, (false, true)),
        ("no-cache, max-age=60", 5, (false, false)),
    ] {
        assert_eq!(ask(cache_control, after), expected, "{cache_control} after {after}");
    }
}

#[test]
fn a_softly_purged_entry_is_stale_from_that_moment() {
    let now = noon();
    let rule = Rule { stale_while_revalidate: secs(10), ..Rule::origin_alone() };
    let entry = freshness(&[("cache-control", "max-age=60")], &rule, now);
    let stale = entry.assess(&Directives::default(), &rule, true, now).unwrap_err();
    assert_eq!((stale.expired, stale.while_revalidate), (Expired::Purged, true));
}
