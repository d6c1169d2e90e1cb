//! The workload must be able to fail: it is let loose on a toy system, once honest and once with each fault planted.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod toy;

use std::time::Duration;

use weir_benches::{
    promises::Promise,
    scenario::{self, Outcome, Progress, Scale},
};

use toy::Fault;

const SCALE: Scale = Scale {
    users: 6,
    items: 30,
    lasts: Duration::from_secs(2),
    pause: Duration::from_millis(1),
    seed: 1,
    logout_bound: Duration::ZERO,
};

async fn outcome(fault: Option<Fault>) -> Outcome {
    let edge = toy::start(fault).await;
    let accounts = scenario::seed(edge, SCALE, &Progress::default()).await.unwrap();
    scenario::drive(edge, &accounts, SCALE, &Progress::default()).await
}

async fn only_breaks(fault: Fault, promise: Promise) {
    let outcome = outcome(Some(fault)).await;
    for other in Promise::ALL {
        let verdict = outcome.promises.of(other);
        assert_eq!(verdict.held(), other != promise, "{fault:?} and {other:?}: {verdict:?}");
    }
    assert!(!outcome.promises.of(promise).examples.is_empty());
}

#[tokio::test]
async fn an_honest_system_keeps_every_promise() {
    let outcome = outcome(None).await;
    for promise in Promise::ALL {
        assert!(outcome.promises.of(promise).held(), "{promise:?}: {:?}", outcome.promises.of(promise));
    }
    assert!(outcome.tally.writes > 0 && outcome.tally.fresh_reads > outcome.tally.writes / 2);
}

#[tokio::test]
async fn a_list_that_ignores_a_write_is_noticed() {
    only_breaks(Fault::NeverInvalidates, Promise::FreshAfterWrite).await;
}

#[tokio::test]
async fn an_answer_kept_for_all_users_is_noticed() {
    let outcome = outcome(Some(Fault::SharesAnswers)).await;
    assert!(outcome.promises.of(Promise::OwnDataOnly).broken > 0);
}

#[tokio::test]
async fn a_token_that_outlives_its_logout_is_noticed() {
    only_breaks(Fault::KeepsSessions, Promise::DeadTokenRefused).await;
}

#[tokio::test]
async fn a_server_error_is_noticed() {
    only_breaks(Fault::FailsNowAndThen, Promise::NoServerError).await;
}

#[tokio::test]
async fn refusing_honest_users_is_noticed() {
    only_breaks(Fault::RefusesTheWrongOnes, Promise::HonestServed).await;
}

#[tokio::test]
async fn unlimited_guessing_is_noticed() {
    only_breaks(Fault::LimitsNobody, Promise::AbuseLimited).await;
}

#[tokio::test]
async fn a_cache_that_keeps_nothing_is_noticed() {
    only_breaks(Fault::KeepsNothing, Promise::HitRate).await;
}
