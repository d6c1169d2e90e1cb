//! The command line's questions to an edge that runs, by its admin listener.

use std::{
    net::{SocketAddr, ToSocketAddrs},
    time::Duration,
};

use bytes::Bytes;
use http::{Response, StatusCode};
use serde::de::DeserializeOwned;

use crate::{
    admin::caches::CacheSight,
    causes::Causes,
    explain::{Question, Report},
    http_client::{self, Address, Failed, Target, Way},
    source::Source,
};

/// For the whole of a question.
const PATIENCE: Duration = Duration::from_secs(10);
/// An explanation is a few lines for each variant.
const ANSWER_BYTES: usize = 1 << 20;

/// The admin listener of the edge that runs with a configuration.
///
/// # Errors
/// Why it is not known, in words for the operator.
pub fn admin_of(source: &Source) -> Result<SocketAddr, String> {
    let loaded = source.load().map_err(|report| format!("the configuration does not load:\n{report}"))?;
    let file = source.path().display();
    let admin = loaded.plan.admin.ok_or_else(|| format!("{file} says `admin: off`: nobody can be asked"))?;
    match admin.address.port() {
        0 => Err(format!("{file} leaves the admin listener's port to the system: name it with --admin")),
        _ => Ok(*admin.address),
    }
}

/// The addresses of an admin listener that is named by hand: `127.0.0.1:9180`, `localhost:9180`.
///
/// # Errors
/// Why there is none, in words for the operator.
pub fn addresses(admin: &str) -> Result<Vec<SocketAddr>, String> {
    let found =
        admin.to_socket_addrs().map_err(|problem| format!("`{admin}` is no host and port: {problem}"))?;
    let found: Vec<_> = found.collect();
    if found.is_empty() { Err(format!("`{admin}` has no address")) } else { Ok(found) }
}

/// Asks the edge why, at the first of these addresses that answers.
///
/// # Errors
/// Why there is no explanation, in words for the operator.
pub fn explain(admin: &[SocketAddr], question: &Question) -> Result<Report, String> {
    let body = serde_json::json!(question).to_string();
    asked(admin, async |target| {
        http_client::post_json(target, "/explain", body.clone(), PATIENCE, ANSWER_BYTES).await
    })
}

/// Asks the edge about its caches.
///
/// # Errors
/// Why there is no answer, in words for the operator.
pub fn caches(admin: &[SocketAddr]) -> Result<Vec<CacheSight>, String> {
    asked(admin, async |target| http_client::get(target, "/caches", None, PATIENCE, ANSWER_BYTES).await)
}

/// What the admin listener says to a question, at the first of its addresses that answers.
fn asked<T: DeserializeOwned>(
    admin: &[SocketAddr],
    ask: impl AsyncFn(Target<'_>) -> Result<Response<Bytes>, Failed>,
) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|problem| problem.to_string())?;
    let mut silent = Vec::new();
    for admin in admin {
        let (address, host) = (Address::Inet(*admin), admin.to_string());
        let target = Target { address: &address, host: &host, tls: None, way: Way::default() };
        match runtime.block_on(ask(target)) {
            Ok(answer) => return read(*admin, &answer),
            Err(problem) => {
                silent.push(format!("the admin listener at {admin} does not answer: {}", Causes(&problem)));
            }
        }
    }
    Err(silent.join("\n"))
}

fn read<T: DeserializeOwned>(admin: SocketAddr, answer: &Response<Bytes>) -> Result<T, String> {
    if answer.status() == StatusCode::OK {
        return serde_json::from_slice(answer.body())
            .map_err(|problem| format!("{admin} answers, but not as an edge of this version: {problem}"));
    }
    let said = serde_json::from_slice::<serde_json::Value>(answer.body()).unwrap_or_default();
    let said = said["error"]
        .as_str()
        .map_or_else(|| String::from_utf8_lossy(answer.body()).trim().to_owned(), str::to_owned);
    Err(format!("{admin} says {}: {said}", answer.status().as_u16()))
}
