#![allow(clippy::unwrap_used, reason = "a test's panic is its report")]
use std::sync::atomic::AtomicUsize;

use bytes::Bytes;
use http::Response;
use tokio::sync::Semaphore;

use super::*;
use crate::auth::{
    Session, sessions,
    source::{Ask, Question},
};

/// Knows what `tokens` knows, answers once per permit, and counts.
#[derive(Debug)]
struct Origin {
    tokens: Mutex<HashMap<String, String>>,
    permits: Semaphore,
    asked: AtomicUsize,
    down: Mutex<bool>,
}

#[async_trait::async_trait]
impl Ask for Origin {
    async fn ask(&self, question: Question<'_>) -> Result<Response<Bytes>, Unavailable> {
        assert_eq!(question.path, "/me");
        self.asked.fetch_add(1, Ordering::Relaxed);
        // Read before the wait, as a slow answer is.
        let bearer = question.fields["authorization"].to_str().unwrap();
        let answer = self.tokens.lock().get(bearer.strip_prefix("Bearer ").unwrap()).cloned();
        self.permits.acquire().await.unwrap().forget();
        if *self.down.lock() {
            return Err(Unavailable::new("down"));
        }
        let status = if answer.is_some() { 200 } else { 401 };
        Ok(Response::builder().status(status).body(answer.unwrap_or_default().into()).unwrap())
    }
}

/// `GET /me`.
fn asked() -> plan::AskOrigin {
    let yaml = "listeners: [0.0.0.0:1]\nupstreams: { api: { servers: [127.0.0.1:1] } }\nsessions: { a: { from: [bearer], ask: { upstream: api, path: /me } } }\nroutes: [{ session: { use: a }, to: api }]\n";
    let plan = weir_config::load("config.yaml", yaml, &|_: &str| None).unwrap().plan;
    plan.sessions[0].ask.clone().unwrap()
}

fn origin(permits: usize) -> (Arc<Origin>, Mirror<Session>) {
    origin_outlived(permits, Duration::ZERO)
}

/// The same, whose known sessions stay known for so long while it is down.
fn origin_outlived(permits: usize, serve_known_for: Duration) -> (Arc<Origin>, Mirror<Session>) {
    let json = r#"{"user_id":"u","expires_at":1000}"#;
    let origin = Arc::new(Origin {
        tokens: Mutex::new([("good".to_owned(), json.to_owned())].into()),
        permits: Semaphore::new(permits),
        asked: AtomicUsize::new(0),
        down: Mutex::new(false),
    });
    let source = Source::Ask { ask: Arc::clone(&origin) as Arc<dyn Ask>, plan: asked() };
    let mut inner =
        Inner::new("users".into(), sessions::kind(&[], None), source, 64, Duration::from_secs(30));
    inner.when_down.serve_known_for = serve_known_for;
    let sessions = Mirror(Arc::new(inner));
    (origin, sessions)
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn token(text: &str) -> Claim {
    Token::parse(text.as_bytes()).unwrap().into()
}

async fn valid(sessions: &Mirror<Session>, text: &str, now: u64) -> bool {
    sessions.look_up(&token(text), at(now)).await.unwrap().at(at(now)).is_some()
}

/// Whether memory knows, and what.
fn known(sessions: &Mirror<Session>, text: &str, now: u64) -> Option<bool> {
    Some(sessions.known(&token(text), at(now))?.at(at(now)).is_some())
}

#[tokio::test]
async fn an_answer_is_believed_for_its_time_and_no_longer() {
    let (origin, sessions) = origin(9);
    assert!(valid(&sessions, "good", 0).await && valid(&sessions, "good", 29).await);
    assert_eq!(origin.asked.load(Ordering::Relaxed), 1);
    assert!(valid(&sessions, "good", 30).await);
    assert_eq!(origin.asked.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_session_is_over_at_its_own_end_even_in_memory() {
    let (_, sessions) = origin(9);
    assert!(valid(&sessions, "good", 990).await);
    assert_eq!(known(&sessions, "good", 1000), Some(false));
    assert!(!valid(&sessions, "good", 1000).await);
    assert!(!valid(&sessions, "good", 2000).await);
}

#[tokio::test]
async fn an_unknown_token_is_unknown_for_a_moment_only() {
    let (origin, sessions) = origin(9);
    assert!(!valid(&sessions, "new", 0).await && !valid(&sessions, "new", 0).await);
    assert_eq!(origin.asked.load(Ordering::Relaxed), 1);
    origin.tokens.lock().insert("new".into(), r#"{"user_id":"n"}"#.into());
    assert!(valid(&sessions, "new", 1).await);
}

#[tokio::test]
async fn invented_tokens_displace_no_session() {
    let (_, sessions) = origin(2000);
    assert!(valid(&sessions, "good", 0).await);
    for number in 0..1000 {
        assert!(!valid(&sessions, &format!("bad{number}"), 0).await);
    }
    assert!(known(&sessions, "good", 0).is_some());
}

#[tokio::test]
async fn many_requests_of_one_token_ask_once_and_outlive_the_first() {
    let (origin, sessions) = origin(0);
    let good = token("good");
    let mut first = Box::pin(sessions.look_up(&good, at(0)));
    assert!(futures_util::poll!(&mut first).is_pending());
    let mut others: Vec<_> = (0..20).map(|_| Box::pin(sessions.look_up(&good, at(0)))).collect();
    for other in &mut others {
        assert!(futures_util::poll!(other).is_pending());
    }
    drop(first);
    origin.permits.add_permits(1);
    for other in others {
        assert!(other.await.unwrap().fact.is_some());
    }
    assert_eq!(origin.asked.load(Ordering::Relaxed), 1);
    assert!(sessions.0.lookups.lock().is_empty());
}

#[tokio::test]
async fn an_abandoned_lookup_leaves_nothing_behind() {
    let (_, sessions) = origin(0);
    let good = token("good");
    let mut only = Box::pin(sessions.look_up(&good, at(0)));
    assert!(futures_util::poll!(&mut only).is_pending());
    drop(only);
    assert!(sessions.0.lookups.lock().is_empty());
}

#[tokio::test]
async fn a_forgotten_token_is_asked_for_again() {
    let (origin, sessions) = origin(9);
    assert!(valid(&sessions, "good", 0).await);
    origin.tokens.lock().clear();
    sessions.forget(*token("good").digest());
    assert!(!valid(&sessions, "good", 0).await);
}

#[tokio::test]
async fn a_lookup_that_raced_a_logout_is_not_remembered() {
    let (origin, sessions) = origin(0);
    let good = token("good");
    let mut before = Box::pin(sessions.look_up(&good, at(0)));
    assert!(futures_util::poll!(&mut before).is_pending());
    origin.tokens.lock().clear();
    sessions.forget(*good.digest());
    let mut after = Box::pin(sessions.look_up(&good, at(0)));
    assert!(futures_util::poll!(&mut after).is_pending());
    origin.permits.add_permits(2);
    assert!(before.await.unwrap().fact.is_some(), "asked before the logout");
    assert!(after.await.unwrap().fact.is_none(), "asked after it");
    assert_eq!(known(&sessions, "good", 0), Some(false));
}

#[tokio::test]
async fn a_source_that_is_down_lets_nobody_new_in_and_knows_the_known() {
    let (origin, sessions) = origin(9);
    assert!(valid(&sessions, "good", 0).await);
    *origin.down.lock() = true;
    assert!(valid(&sessions, "good", 29).await);
    assert!(sessions.look_up(&token("good"), at(30)).await.is_err());
    *origin.down.lock() = false;
    assert!(valid(&sessions, "good", 30).await, "a failure is not remembered");
}

#[tokio::test]
async fn who_is_known_outlives_the_service_for_as_long_as_the_plan_says() {
    let (origin, sessions) = origin_outlived(99, Duration::from_secs(60));
    assert!(valid(&sessions, "good", 0).await && !valid(&sessions, "bad", 0).await);
    *origin.down.lock() = true;
    assert!(valid(&sessions, "good", 30).await, "its question failed");
    assert_eq!(known(&sessions, "good", 31), Some(true), "nobody waits for the next one");
    assert!(
        sessions.look_up(&token("bad"), at(31)).await.is_err(),
        "who was nobody stays nobody for a moment only"
    );
    assert!(sessions.look_up(&token("new"), at(31)).await.is_err());
    assert!(valid(&sessions, "good", 90).await);
    assert!(sessions.look_up(&token("good"), at(91)).await.is_err());
    *origin.down.lock() = false;
    assert!(valid(&sessions, "good", 91).await);
}

#[tokio::test]
async fn a_service_that_is_down_is_asked_by_one_at_a_time_and_heard_when_it_is_back() {
    let (origin, sessions) = origin_outlived(2, Duration::from_secs(3600));
    assert!(valid(&sessions, "good", 0).await);
    *origin.down.lock() = true;
    assert!(valid(&sessions, "good", 30).await);
    // It hangs from now on.
    sessions.0.failed.lock().as_mut().unwrap().0 -= REST;
    for _ in 0..100 {
        assert_eq!(known(&sessions, "good", 40), Some(true));
    }
    tokio::task::yield_now().await;
    assert_eq!(origin.asked.load(Ordering::Relaxed), 3, "all of them asked once");
    *origin.down.lock() = false;
    origin.permits.add_permits(1);
    while !sessions.is_answered() {
        tokio::task::yield_now().await;
    }
    assert!(sessions.0.known(token("good").digest(), at(69)).is_some(), "what it said is remembered");
}

#[tokio::test]
async fn what_is_not_a_session_lets_nobody_in() {
    let (origin, sessions) = origin(9);
    origin.tokens.lock().insert("odd".into(), "[]".into());
    assert!(!valid(&sessions, "odd", 0).await);
}
