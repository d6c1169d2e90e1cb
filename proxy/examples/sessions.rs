//! What does it cost to know whose a request is? What `make bench-sessions` runs, on one thread and a real Redis of its own.
//!
//! - *warm* is all that a hit pays: the token is found in the request's fields, hashed, and looked up in a memory that Redis keeps
//!   true. Promised: less than 1 µs.
//! - *cold* is a token that was never seen: the same, and one question to Redis. Promised: a p99 below 5 ms.
//!
//! Warm is the best of many short loops, since a busy machine only adds; the exit status is 1 where a promise is broken.

use std::{
    borrow::Cow,
    hint::black_box,
    process::ExitCode,
    time::{Duration, Instant, SystemTime},
};

use http::{HeaderMap, HeaderValue, header};
use weir::{
    auth::{Claim, Form, Sessions, Source, Sources, Whose, source::RedisSource},
    fleet::Redis,
};
use weir_config::template::{Values, Variable};

const WARM: Duration = Duration::from_micros(1);
const COLD_P99: Duration = Duration::from_millis(5);
/// Tokens that are known, and as many that are asked for once.
const TOKENS: usize = 10_000;
const LOOPS: u32 = 50;

/// Nothing is told about requests.
struct Nothing;

impl Values for Nothing {
    fn value(&self, _: &Variable) -> Option<Cow<'_, str>> {
        None
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok((warm, cold)) => {
            println!("warm: {warm:?} (promised: less than {WARM:?})");
            println!("cold: p99 {cold:?} (promised: less than {COLD_P99:?})");
            if warm < WARM && cold < COLD_P99 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(problem) => {
            eprintln!("sessions: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// One warm validation, and the 99th percentile of cold ones.
async fn run() -> Result<(Duration, Duration), Box<dyn std::error::Error>> {
    let server = weir_testkit::Redis::start();
    let yaml = format!(
        "listeners: [127.0.0.1:1]\nredis: {{ url: \"{}\" }}\nsessions: {{ app: {{ from: [bearer] }} }}\n\
         upstreams: {{ api: {{ servers: [127.0.0.1:2] }} }}\nroutes: [{{ session: {{ use: app }}, to: api }}]\n",
        server.url()
    );
    let loaded =
        weir_config::load("sessions", &yaml, &|_: &str| None).map_err(|report| report.to_string())?;
    let plan = &loaded.plan.sessions[0];
    let redis = Redis::new(loaded.plan.redis.as_ref().ok_or("a plan without its Redis")?)?;
    let tokens: Vec<String> = (0..TOKENS).map(|nth| format!("{nth:032x}")).collect();
    let mut writes = redis::pipe();
    for token in &tokens {
        let session = r#"{"user_id":"u1","session_id":"s1","email":"u1@example.org","roles":["user"]}"#;
        writes.set(format!("session:{token}"), session).ignore();
    }
    writes.query_async::<()>(&mut redis.clone()).await?;
    let source = Source::Redis(RedisSource::new(redis, plan.key.clone(), Form::Text));
    let sessions = Sessions::new(plan, Sources { held: Some(source), ..Sources::default() })?;
    let requests: Vec<HeaderMap> = tokens
        .iter()
        .map(|token| Ok([(header::AUTHORIZATION, HeaderValue::try_from(format!("Bearer {token}"))?)]))
        .map(|fields| fields.map(HeaderMap::from_iter))
        .collect::<Result<_, header::InvalidHeaderValue>>()?;
    let claim = |headers: &HeaderMap| Claim::find(plan, headers, &Nothing).ok_or("a request without a claim");

    // What is remembered before Redis tells of changes is looked up again.
    let first = claim(&requests[0])?;
    while sessions.known(&first, SystemTime::now()).is_none() {
        sessions.validate(&first, SystemTime::now()).await?;
    }
    let mut cold = Vec::with_capacity(TOKENS);
    for headers in &requests[1..] {
        let begun = Instant::now();
        let whose = sessions.validate(&claim(headers)?, SystemTime::now()).await?;
        cold.push(begun.elapsed());
        if !matches!(whose, Whose::Session(_)) {
            return Err("a session that is there was not found".into());
        }
    }
    cold.sort_unstable();
    let mut warm = Duration::MAX;
    for _ in 0..LOOPS {
        // Redis is heard in between, as it is on a runtime that serves.
        tokio::time::sleep(Duration::from_millis(5)).await;
        let (begun, now) = (Instant::now(), SystemTime::now());
        for headers in &requests {
            if black_box(sessions.known(&claim(black_box(headers))?, now)).is_none() {
                return Err("a session that is remembered was not known".into());
            }
        }
        warm = warm.min(begun.elapsed() / u32::try_from(TOKENS)?);
    }
    Ok((warm, cold[cold.len() * 99 / 100]))
}
