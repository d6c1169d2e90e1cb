//! Callers whose tokens are JWTs: checked here, remembered, and revoked through Redis.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair as _},
};
use weir_testkit::Redis;

use crate::{
    sessions::redis,
    support::{Edge, Origin, ok, until},
};

pub(crate) const SECRET: &str = "a secret that is shared with the issuer";

fn encode(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A token of an hour.
pub(crate) fn by_secret(user: &str, id: &str) -> String {
    let (iat, exp) = (now(), now() + 3600);
    let claims = format!(r#"{{"sub":"{user}","jti":"{id}","iat":{iat},"exp":{exp},"roles":["user"]}}"#);
    let text = format!("{}.{}", encode(r#"{"alg":"HS256"}"#), encode(claims));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), text.as_bytes());
    format!("{text}.{}", encode(signature))
}

/// Who signs with a key of Ed25519.
struct Issuer {
    key: Ed25519KeyPair,
    id: &'static str,
}

impl Issuer {
    fn new(id: &'static str) -> Self {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self { key: Ed25519KeyPair::from_pkcs8(key.as_ref()).unwrap(), id }
    }

    fn set(&self) -> String {
        let x = encode(self.key.public_key());
        format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"{}","x":"{x}"}}]}}"#, self.id)
    }

    fn token(&self, user: &str) -> String {
        let head = format!(r#"{{"alg":"EdDSA","kid":"{}"}}"#, self.id);
        let claims = format!(r#"{{"sub":"{user}","exp":{}}}"#, now() + 3600);
        let text = format!("{}.{}", encode(head), encode(claims));
        format!("{text}.{}", encode(self.key.sign(text.as_bytes())))
    }
}

fn edge(origin: &Origin, top: &str, jwt: &str) -> Edge {
    Edge::start(&format!(
        "{top}
sessions: {{ app: {{ from: [bearer], staleness: 10m, memory_ttl: 1h, jwt: {{ {jwt} }} }} }}
identity: {{ secret: \"{SECRET}\" }}
upstreams: {{ api: {{ servers: [{}] }} }}
routes:
  - {{ match: /logout, session: {{ use: app, required: true, ends: true }}, to: api }}
  - {{ match: /admin, session: {{ use: app, roles: [admin] }}, to: api }}
  - {{ match: /*, session: {{ use: app, required: true }}, to: api }}
",
        origin.address
    ))
}

fn ask(edge: &Edge, path: &str, token: &str) -> u16 {
    edge.ask(path, &format!("authorization: Bearer {token}\r\n")).status
}

#[test]
fn a_token_that_is_signed_lets_in_and_revoking_it_is_heard_of() {
    let (origin, server) = (Origin::named("in"), Redis::start());
    let edge = edge(
        &origin,
        &format!("redis: {{ url: \"{}\" }}", server.url()),
        &format!(
            "secret: {SECRET}, revoked: \"jwt:revoked:${{session.jti}}\", revoked_before: \"user:revoked:${{session.user_id}}\""
        ),
    );
    let (one, two) = (by_secret("anna", "1"), by_secret("anna", "2"));
    assert_eq!([ask(&edge, "/x", &one), ask(&edge, "/x", &two), ask(&edge, "/admin", &one)], [200, 200, 403]);
    assert_eq!(edge.record("target", "/x")["caller"], "anna");
    assert!(origin.last().has("x-weir-identity"));
    let (text, _) = one.rsplit_once('.').unwrap();
    assert_eq!(ask(&edge, "/x", &format!("{text}.{}", encode([0; 32]))), 401);
    assert_eq!(
        ask(&edge, "/x", &by_secret("anna", "not a key")),
        401,
        "what cannot be named cannot be revoked"
    );

    redis(&server, &["SET", "jwt:revoked:1", ""]);
    until("one is revoked", || ask(&edge, "/x", &one) == 401);
    assert_eq!(ask(&edge, "/x", &two), 200);
    redis(&server, &["DEL", "jwt:revoked:1"]);
    until("it counts again", || ask(&edge, "/x", &one) == 200);
    redis(&server, &["SADD", "jwt:revoked:1", "of any kind"]);
    until("it is revoked again", || ask(&edge, "/x", &one) == 401);

    redis(&server, &["SET", "user:revoked:anna", &now().to_string()]);
    until("all of one user are revoked", || ask(&edge, "/x", &two) == 401);
    redis(&server, &["SET", "user:revoked:anna", &(now() - 60).to_string()]);
    until("those issued later are not", || ask(&edge, "/x", &two) == 200);
    redis(&server, &["SET", "user:revoked:anna", "nonsense"]);
    until("somebody meant something", || ask(&edge, "/x", &two) == 401);
}

#[test]
fn a_long_token_that_is_signed_lets_in_and_one_that_is_too_long_is_told_in_the_log() {
    let origin = Origin::named("in");
    let edge = edge(&origin, "log: { level: debug }", &format!("secret: {SECRET}"));
    let long = by_secret("anna", &"j".repeat(4500));
    assert!(long.len() > 4096);
    assert_eq!(ask(&edge, "/x", &long), 200);
    let bearer = "t".repeat(8193);
    assert_eq!(ask(&edge, "/x", &bearer), 401);
    until("it is told", || edge.output().contains("a token is refused for its length"));
}

#[test]
fn a_logout_that_revokes_is_known_here_at_once_and_without_redis_nobody_is_let_in() {
    let server = Arc::new(Redis::start());
    let store = Arc::clone(&server);
    let origin = Origin::start(move |request, wire| {
        if request.target() == "/logout" {
            redis(&store, &["SET", "jwt:revoked:1", "1"]);
        }
        wire.send(ok(""));
    });
    let top = format!("redis: {{ url: \"{}\" }}", server.url());
    let edge = edge(&origin, &top, &format!("secret: {SECRET}, revoked: \"jwt:revoked:${{session.jti}}\""));
    let (one, two) = (by_secret("anna", "1"), by_secret("anna", "2"));
    assert_eq!(
        [ask(&edge, "/x", &one), ask(&edge, "/logout", &one), ask(&edge, "/x", &one)],
        [200, 200, 401]
    );
    server.child().signal("STOP");
    assert_eq!(ask(&edge, "/x", &two), 503, "nobody can say whether it was revoked");
    server.child().signal("CONT");
    until("it can be said", || ask(&edge, "/x", &two) == 200);
}

#[test]
fn keys_are_asked_for_and_new_ones_at_once_and_the_last_good_ones_outlive_their_issuer() {
    let (old, new) = (Issuer::new("old"), Issuer::new("new"));
    let told = Arc::new(Mutex::new(Some(old.set())));
    let asked = Arc::new(AtomicUsize::new(0));
    let (tells, counts) = (Arc::clone(&told), Arc::clone(&asked));
    let origin = Origin::start(move |request, wire| {
        if request.target() != "/keys" {
            wire.send(ok("in"));
            return;
        }
        counts.fetch_add(1, Ordering::SeqCst);
        let keys = tells.lock().unwrap().clone();
        wire.send(
            keys.map_or_else(|| "HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n".to_owned(), |keys| ok(&keys)),
        );
    });
    let edge = edge(&origin, "", "jwks: { upstream: api, path: /keys, refresh: 1s }");
    assert_eq!(ask(&edge, "/x", &old.token("anna")), 200);
    assert_eq!(ask(&edge, "/x", &new.token("anna")), 401, "nobody knows this key");
    let before = asked.load(Ordering::SeqCst);
    for _ in 0..50 {
        assert_eq!(ask(&edge, "/x", &Issuer::new("made up").token("eve")), 401);
    }
    assert!(asked.load(Ordering::SeqCst) <= before + 20, "made-up keys are not asked for each time");
    *told.lock().unwrap() = Some(new.set());
    until("the keys are new", || ask(&edge, "/x", &new.token("anna")) == 200);
    assert_eq!(ask(&edge, "/x", &old.token("anna")), 401, "a key that was taken back");
    *told.lock().unwrap() = None;
    until("it is said", || edge.output().contains("the last good ones stay in force"));
    assert_eq!(ask(&edge, "/x", &new.token("bert")), 200);
    assert_eq!(edge.metric("weir_session_source_up{session=\"app\"}"), 0.0);
}

#[test]
fn a_reload_keeps_what_is_known() {
    let issuer = Issuer::new("one");
    let (set, asked) = (issuer.set(), Arc::new(AtomicUsize::new(0)));
    let counts = Arc::clone(&asked);
    let origin = Origin::start(move |request, wire| {
        let is_keys = request.target() == "/keys";
        counts.fetch_add(usize::from(is_keys), Ordering::SeqCst);
        wire.send(ok(if is_keys { &set } else { "in" }));
    });
    let edge = edge(&origin, "", "jwks: { upstream: api, path: /keys }");
    let token = issuer.token("anna");
    assert_eq!(ask(&edge, "/x", &token), 200);
    let yaml = std::fs::read_to_string(edge.config()).unwrap();
    let other = format!("upstreams: {{ above: {{ servers: [{}] }}, ", origin.address);
    let (place, new) = ("upstreams: { ", yaml.replace("match: /admin", "match: /other"));
    assert!(new.contains(place), "{new}");
    edge.reload(&new.replace(place, &other));
    assert_eq!([ask(&edge, "/x", &token), ask(&edge, "/x", &issuer.token("bert"))], [200, 200]);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}
