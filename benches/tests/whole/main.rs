//! The whole system, as it is deployed: edges, origins, workers, Redis and Postgres.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod delivery;
mod fleet;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use weir_benches::{
    account::Account,
    api,
    client::{Answer, Ask, Client},
};

/// How long anything may take that should happen soon: generous, because the machine may be busy with other tests.
const SOON: Duration = Duration::from_secs(30);

/// Where this repository is.
fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

async fn ask(client: &mut Client, ask: &Ask) -> Answer {
    client.send(ask).await.unwrap_or_else(|failure| panic!("{} {}: {failure}", ask.method, ask.target))
}

/// Registers and logs in; the token of the session.
async fn arrive(client: &mut Client, account: &Account) -> String {
    let registered = ask(client, &api::register(account)).await;
    assert_eq!(registered.status, 201, "{}", registered.json());
    let login = ask(client, &api::login(&account.email, &account.password)).await;
    api::token(&login).unwrap_or_else(|| panic!("{}: {}", login.status, login.json()))
}

async fn until(what: &str, mut ready: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !ready().await {
        assert!(begun.elapsed() < SOON, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
