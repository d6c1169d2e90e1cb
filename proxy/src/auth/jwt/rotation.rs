//! The keys in force: given once, or asked of an upstream again and again.
//!
//! - Asked in the background, at the start and then every `refresh`; whatever fails, the last good keys stay in force.
//! - A token with the name of an unknown key has them asked for at once and waits for the answer, since its key may be new; but
//!   not more often than every [`PAUSE`], whatever names are made up.
//! - New keys have a new number, by which what was verified with the old ones is verified again.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use weir_config::plan::JwtKeys;

use super::keys::{BadKeys, KeySet};
use crate::{
    auth::source::{Ask, Question, Unavailable},
    causes::Causes,
};

/// Between two questions that unknown keys cause.
const PAUSE: Duration = Duration::from_secs(10);
/// Between two questions while none is answered.
const RETRY: Duration = Duration::from_secs(1);
/// For one question, other peers included.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

/// See the head of this file.
pub(super) struct Keys {
    name: Arc<str>,
    current: ArcSwapOption<Current>,
    /// The number of the current ones.
    pub(super) number: AtomicU64,
    asked: Option<Asked>,
}

/// Keys, all of one moment.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) set: KeySet,
    pub(super) number: u64,
}

struct Asked {
    ask: Mutex<Arc<dyn Ask>>,
    path: String,
    refresh: Duration,
    state: Mutex<State>,
    wanted: Arc<Notify>,
    answers: watch::Sender<u64>,
    is_down: AtomicBool,
    _stop: DropGuard,
}

#[derive(Default)]
struct State {
    /// When they were asked for last.
    at: Option<Instant>,
    is_under_way: bool,
}

impl Keys {
    /// The keys of a plan; `ask` is asked where it says so.
    pub(super) fn new(
        name: &Arc<str>,
        plan: &JwtKeys,
        ask: Option<Arc<dyn Ask>>,
    ) -> Result<Arc<Self>, BadKeys> {
        let given = match plan {
            JwtKeys::Secret(secret) => Some(KeySet::secret(secret.expose())),
            JwtKeys::Set(text) => Some(KeySet::parse(text.as_bytes())?),
            JwtKeys::Asked { .. } => None,
        };
        let stop = CancellationToken::new();
        let asked = match (plan, ask) {
            (JwtKeys::Asked { path, refresh, .. }, Some(ask)) => Some(Asked {
                ask: Mutex::new(ask),
                path: path.clone(),
                refresh: *refresh,
                // The first question is on its way.
                state: Mutex::new(State { at: None, is_under_way: true }),
                wanted: Arc::default(),
                answers: watch::Sender::new(0),
                is_down: AtomicBool::new(false),
                _stop: stop.clone().drop_guard(),
            }),
            _ => None,
        };
        let wanted = asked.as_ref().map(|asked| Arc::clone(&asked.wanted));
        let keys = Arc::new(Self {
            name: Arc::clone(name),
            current: ArcSwapOption::from_pointee(given.map(|set| Current { set, number: 0 })),
            number: AtomicU64::new(0),
            asked,
        });
        if let Some(wanted) = wanted {
            tokio::spawn(rotate(Arc::downgrade(&keys), wanted, stop));
        }
        Ok(keys)
    }

    /// From now on they are asked of `ask`.
    pub(super) fn ask_now(&self, ask: Arc<dyn Ask>) {
        if let Some(asked) = &self.asked {
            *asked.ask.lock() = ask;
        }
    }

    /// Whether there are any, and whoever is asked answered the last time.
    pub(super) fn is_answered(&self) -> bool {
        self.asked.as_ref().is_none_or(|asked| !asked.is_down.load(Ordering::Relaxed))
    }

    /// The keys in force, asked for once more when none has this name.
    ///
    /// Errors: [`Unavailable`] when there are none yet.
    pub(super) async fn with(&self, id: Option<&str>) -> Result<Arc<Current>, Unavailable> {
        let none = || Unavailable::new("the keys of signed tokens are not known yet");
        let current = self.current.load_full();
        let Some(asked) = self.asked.as_ref().filter(|_| !current.as_ref().is_some_and(|it| it.set.has(id)))
        else {
            return current.ok_or_else(none);
        };
        // From before the question is asked, so that no answer is missed.
        let mut answers = asked.answers.subscribe();
        if asked.is_wanted() {
            // What comes too late is of no use; what is in force by then decides.
            let _ = timeout(ANSWERED_WITHIN, answers.changed()).await;
        }
        self.current.load_full().ok_or_else(none)
    }

    /// Asks once, and says when to ask again.
    async fn fetch(&self) -> Duration {
        let Some(asked) = &self.asked else { return Duration::MAX };
        *asked.state.lock() = State { at: Some(Instant::now()), is_under_way: true };
        let ask = Arc::clone(&asked.ask.lock());
        let question = Question {
            path: &asked.path,
            fields: HeaderMap::new(),
            is_answer: |status| status == StatusCode::OK,
            within: ANSWERED_WITHIN,
        };
        let answer = timeout(ANSWERED_WITHIN, ask.ask(question)).await;
        let answer = answer.unwrap_or_else(|_| Err(Unavailable::new("no answer in time")));
        let set = answer.and_then(|answer| {
            KeySet::parse(answer.body()).map_err(|problem| Unavailable::new(Causes(&problem)))
        });
        let was_down = asked.is_down.swap(set.is_err(), Ordering::Relaxed);
        let next = match set {
            Ok(set) => {
                if was_down {
                    tracing::info!(session = %self.name, "the keys of signed tokens are told again");
                }
                self.put(set);
                asked.refresh
            }
            Err(problem) => {
                if !was_down {
                    tracing::warn!(session = %self.name, cause = %problem.cause, "the keys of signed tokens cannot be asked for: the last good ones stay in force");
                }
                RETRY.min(asked.refresh)
            }
        };
        asked.state.lock().is_under_way = false;
        asked.answers.send_modify(|answers| *answers += 1);
        next
    }

    fn put(&self, set: KeySet) {
        let current = self.current.load();
        if current.as_ref().is_some_and(|current| current.set == set) {
            return;
        }
        let number = self.number.load(Ordering::Relaxed) + 1;
        // The keys first: what is verified with the old ones has their number, and does not count once the new one is known.
        self.current.store(Some(Arc::new(Current { set, number })));
        self.number.store(number, Ordering::Release);
        tracing::info!(session = %self.name, "tokens are checked with new keys");
    }
}

impl Asked {
    /// Has them asked for, unless that was done a moment ago; false when there is nothing to wait for.
    fn is_wanted(&self) -> bool {
        let mut state = self.state.lock();
        if !state.is_under_way {
            if state.at.is_some_and(|at| at.elapsed() < PAUSE) {
                return false;
            }
            state.is_under_way = true;
            self.wanted.notify_one();
        }
        true
    }
}

async fn rotate(keys: Weak<Keys>, wanted: Arc<Notify>, stop: CancellationToken) {
    while let Some(keys) = keys.upgrade() {
        let pause = keys.fetch().await;
        drop(keys);
        tokio::select! {
            () = stop.cancelled() => return,
            () = wanted.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test's panic is its report")]
    use std::sync::atomic::AtomicUsize;

    use bytes::Bytes;
    use http::Response;

    use super::*;

    /// Tells one key, of the name that was set last; nothing without one.
    #[derive(Debug, Default)]
    struct Issuer {
        key: Mutex<Option<&'static str>>,
        asked: AtomicUsize,
    }

    #[async_trait::async_trait]
    impl Ask for Issuer {
        async fn ask(&self, question: Question<'_>) -> Result<Response<Bytes>, Unavailable> {
            assert_eq!(question.path, "/keys");
            self.asked.fetch_add(1, Ordering::Relaxed);
            let key = self.key.lock().ok_or_else(|| Unavailable::new("down"))?;
            let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
            Ok(Response::new(
                format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","x":"{x}","kid":"{key}"}}]}}"#).into(),
            ))
        }
    }

    fn keys(issuer: &Arc<Issuer>) -> Arc<Keys> {
        let plan = weir_config::load(
            "config.yaml",
            "listeners: [0.0.0.0:1]\nupstreams: { idp: { servers: [127.0.0.1:1] } }\nsessions: { a: { from: [bearer], jwt: { jwks: { upstream: idp, path: /keys } } } }\nroutes: [{ session: { use: a }, to: idp }]\n",
            &|_: &str| None,
        );
        let plan = plan.unwrap().plan;
        let jwt = plan.sessions[0].jwt.as_ref().unwrap();
        Keys::new(&"a".into(), &jwt.keys, Some(Arc::clone(issuer) as Arc<dyn Ask>)).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn an_unknown_key_is_asked_for_at_once_and_a_flood_of_them_is_not() {
        let issuer = Arc::new(Issuer { key: Mutex::new(Some("one")), asked: AtomicUsize::new(0) });
        let keys = keys(&issuer);
        let asked = || issuer.asked.load(Ordering::Relaxed);
        assert!(keys.with(Some("one")).await.unwrap().set.has(Some("one")));
        assert_eq!(asked(), 1);
        *issuer.key.lock() = Some("two");
        for _ in 0..100 {
            assert!(!keys.with(Some("two")).await.unwrap().set.has(Some("two")), "a moment ago it was asked");
        }
        assert_eq!(asked(), 1);
        tokio::time::advance(PAUSE).await;
        let number = keys.number.load(Ordering::Relaxed);
        assert!(keys.with(Some("two")).await.unwrap().set.has(Some("two")));
        assert_eq!((asked(), keys.number.load(Ordering::Relaxed)), (2, number + 1));
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_good_keys_stay_in_force() {
        let issuer = Arc::new(Issuer::default());
        let keys = keys(&issuer);
        assert!(keys.with(Some("one")).await.is_err(), "there were none yet");
        *issuer.key.lock() = Some("one");
        tokio::time::sleep(RETRY * 2).await;
        assert!(keys.with(Some("one")).await.unwrap().set.has(Some("one")) && keys.is_answered());
        *issuer.key.lock() = None;
        let number = keys.number.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert!(!keys.is_answered());
        assert!(keys.with(Some("one")).await.unwrap().set.has(Some("one")));
        assert_eq!(keys.number.load(Ordering::Relaxed), number);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_asks_for_keys_that_nobody_needs() {
        let issuer = Arc::new(Issuer::default());
        drop(keys(&issuer));
        tokio::time::sleep(RETRY * 10).await;
        assert!(issuer.asked.load(Ordering::Relaxed) <= 1);
        assert_eq!(Arc::strong_count(&issuer), 1);
    }
}
