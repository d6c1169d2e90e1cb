//! Tokens of OpenSSL's, and tokens of our own that are not quite right.
#![allow(clippy::unwrap_used, reason = "a test's panic is its report")]

use ring::hmac;
use serde_json::json;
use weir_config::load;

use super::*;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn vectors() -> Value {
    serde_json::from_str(include_str!("../vectors.json")).unwrap()
}

fn public() -> KeySet {
    KeySet::parse(vectors()["jwks"].to_string().as_bytes()).unwrap()
}

/// The words of a plan's `jwt`, with all that public keys can do, or with a secret.
fn plan(words: &str) -> plan::Session {
    let yaml = format!(
        "listeners: [0.0.0.0:1]\nupstreams: {{ idp: {{ servers: [127.0.0.1:1] }} }}\nsessions: {{ a: {{ from: [bearer], jwt: {{ {words} }} }} }}\nroutes: [{{ session: {{ use: a }}, to: idp }}]\n"
    );
    load("config.yaml", &yaml, &|_: &str| None).unwrap().plan.sessions[0].clone()
}

fn asymmetric() -> plan::Session {
    plan(
        "jwks: { upstream: idp, path: /k }, algorithms: [RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA]",
    )
}

fn secret(more: &str) -> plan::Session {
    plan(&format!("secret: {SECRET}, {more}"))
}

fn check(token: &str, session: &plan::Session, keys: &KeySet, now: u64) -> Result<Claims, Invalid> {
    let jwt = session.jwt.as_ref().unwrap();
    Parts::of(token, jwt)?.check(keys, jwt, &session.fields, at(now).unwrap())
}

fn encode(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

/// Signed with [`SECRET`], or with whatever else is taken for one.
fn signed(head: &str, claims: &str, key: &[u8]) -> String {
    let text = format!("{}.{}", encode(head), encode(claims));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes());
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}

const HEAD: &str = r#"{"alg":"HS256"}"#;

fn outcome(claims: &Value, words: &str, now: u64) -> Result<(), Invalid> {
    let token = signed(HEAD, &claims.to_string(), SECRET.as_bytes());
    check(&token, &secret(words), &KeySet::secret(SECRET), now).map(drop)
}

#[test]
fn every_algorithm_is_understood_as_openssl_means_it() {
    let (vectors, session, keys) = (vectors(), asymmetric(), public());
    for (name, token) in vectors["tokens"].as_object().unwrap() {
        let token = token.as_str().unwrap();
        let claims = check(token, &session, &keys, 1500).unwrap_or_else(|why| panic!("{name}: {why:?}"));
        assert_eq!((claims.session.user_id(), claims.issued_at), ("anna", Some(1000)), "{name}");
        assert_eq!(claims.session.roles(), ["user"]);
        // One bit of the claims, and one of the signature.
        let (text, signature) = token.rsplit_once('.').unwrap();
        let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
        bytes[7] ^= 1;
        let forged = format!("{text}.{}", URL_SAFE_NO_PAD.encode(&bytes));
        assert_eq!(check(&forged, &session, &keys, 1500).unwrap_err(), Invalid::Signature, "{name}");
        let other = format!("{}.{}", text.split_once('.').unwrap().0, encode(r#"{"sub":"eve","exp":2000}"#));
        let forged = format!("{other}.{signature}");
        assert_eq!(check(&forged, &session, &keys, 1500).unwrap_err(), Invalid::Signature, "{name}");
    }
}

#[test]
fn only_the_algorithms_of_the_plan_count() {
    let vectors = vectors();
    let token = |name: &str| vectors["tokens"][name].as_str().unwrap();
    let session = plan("jwks: { upstream: idp, path: /k }");
    assert!(check(token("RS256"), &session, &public(), 1500).is_ok());
    assert_eq!(check(token("PS256"), &session, &public(), 1500).unwrap_err(), Invalid::Algorithm);
}

#[test]
fn unsigned_tokens_and_public_keys_taken_for_secrets_let_nobody_in() {
    let claims = r#"{"sub":"eve","exp":2000}"#;
    for name in ["none", "None", "NONE", "", "hs256", "HS256 "] {
        let head = format!(r#"{{"alg":"{name}"}}"#);
        let unsigned = format!("{}.{}.", encode(&head), encode(claims));
        for session in [secret(""), asymmetric()] {
            let keys = KeySet::secret(SECRET);
            assert_eq!(check(&unsigned, &session, &keys, 1500).unwrap_err(), Invalid::Algorithm, "{name}");
            let signed = signed(&head, claims, SECRET.as_bytes());
            assert_eq!(check(&signed, &session, &keys, 1500).unwrap_err(), Invalid::Algorithm, "{name}");
        }
    }
    // Whatever of the public key an attacker may sign with, and even if the plan allowed HMAC beside it.
    let n = vectors()["jwks"]["keys"][0]["n"].as_str().unwrap().to_owned();
    for key in [
        n.as_bytes(),
        &URL_SAFE_NO_PAD.decode(&n).unwrap(),
        vectors()["jwks"].to_string().as_bytes(),
        &[b'x'; 32],
    ] {
        for kid in ["rsa", "secret", "enc"] {
            let forged = signed(&format!(r#"{{"alg":"HS256","kid":"{kid}"}}"#), claims, key);
            assert_eq!(check(&forged, &asymmetric(), &public(), 1500).unwrap_err(), Invalid::Algorithm);
            assert_eq!(check(&forged, &secret(""), &public(), 1500).unwrap_err(), Invalid::Signature);
        }
    }
}

#[test]
fn a_key_that_the_token_brings_along_is_not_looked_at() {
    let jwk = vectors()["jwks"]["keys"][3].clone();
    let theirs = json!({"alg": "EdDSA", "kid": "ed", "jwk": jwk, "jku": "https://evil.example/keys"});
    let forged = format!(
        "{}.{}.{}",
        encode(&theirs.to_string()),
        encode(r#"{"sub":"eve","exp":2000}"#),
        encode(&"s".repeat(64))
    );
    assert_eq!(check(&forged, &asymmetric(), &public(), 1500).unwrap_err(), Invalid::Signature);
    assert!(
        !public().has(Some("enc")) && !public().has(Some("secret")),
        "keys for other uses are none of ours"
    );
}

#[test]
fn what_is_not_quite_a_token_is_none() {
    let good = signed(HEAD, r#"{"sub":"u","exp":2000}"#, SECRET.as_bytes());
    let session = secret("");
    let form = |token: &str| check(token, &session, &KeySet::secret(SECRET), 1500).map(drop);
    assert_eq!(form(&good), Ok(()));
    for token in
        ["", ".", "..", "a.b", "a.b.c", &format!("{good}.x"), &format!("{good}="), &good.replace('.', "")]
    {
        assert!(form(token).is_err(), "{token}");
    }
    let of = |head: &str, claims: &str| form(&signed(head, claims, SECRET.as_bytes()));
    let claims = r#"{"sub":"u","exp":2000}"#;
    assert_eq!(of(r#"{"alg":"HS256","crit":["b64"],"b64":true}"#, claims), Err(Invalid::Form));
    assert_eq!(of(r#"{"alg":"none","alg":"HS256"}"#, claims), Err(Invalid::Form));
    assert_eq!(of(r#"{"alg":"HS256","kid":7}"#, claims), Err(Invalid::Form));
    assert_eq!(of(r#"{"alg":["HS256"]}"#, claims), Err(Invalid::Form));
    assert_eq!(of("[]", claims), Err(Invalid::Form));
    assert_eq!(of(HEAD, r#"{"sub":"u","exp":2000,"sub":"root"}"#), Err(Invalid::Form));
    assert_eq!(of(HEAD, r#"["u"]"#), Err(Invalid::Form));
    assert_eq!(of(HEAD, "not json"), Err(Invalid::Form));
    for claims in [
        r#"{"exp":2000}"#,
        r#"{"sub":"","exp":2000}"#,
        r#"{"sub":{"id":"u"},"exp":2000}"#,
        r#"{"sub":"u","exp":2000,"roles":7}"#,
    ] {
        assert_eq!(of(HEAD, claims), Err(Invalid::Claim), "{claims}");
    }
}

#[test]
fn time_counts_with_its_leeway_and_no_more() {
    let claims = json!({"sub": "u", "exp": 2000, "nbf": 1000, "iat": 1000});
    let at = |now| outcome(&claims, "leeway: 30s", now);
    assert_eq!(
        [at(969), at(970), at(2029), at(2030)],
        [Err(Invalid::NotYet), Ok(()), Ok(()), Err(Invalid::Expired)]
    );
    assert_eq!(outcome(&claims, "leeway: 0s", 2000), Err(Invalid::Expired));
    assert_eq!(outcome(&json!({"sub": "u", "exp": 2000.9}), "leeway: 0s", 1999), Ok(()));
    assert_eq!(outcome(&json!({"sub": "u", "exp": 2000, "iat": 1600}), "", 1500), Err(Invalid::NotYet));
    for exp in [json!("2000"), json!(-1), json!(u64::MAX), json!(1e300), json!([2000])] {
        assert_eq!(outcome(&json!({"sub": "u", "exp": exp}), "", 1500), Err(Invalid::Claim), "{exp}");
    }
    assert_eq!(outcome(&json!({"sub": "u"}), "", 1500), Err(Invalid::Claim), "a token without an end");
    assert_eq!(outcome(&json!({"sub": "u", "exp": null}), "", 1500), Err(Invalid::Claim));
    assert_eq!(outcome(&json!({"sub": "u"}), "required: []", 1500), Ok(()));
}

#[test]
fn a_token_is_from_whom_and_for_whom_the_plan_says() {
    let of = |iss: Value, aud: Value, words: &str| {
        outcome(&json!({"sub": "u", "exp": 2000, "iss": iss, "aud": aud}), words, 1500)
    };
    let words = "issuer: [a, b], audience: [x, y]";
    assert_eq!(of(json!("b"), json!("y"), words), Ok(()));
    assert_eq!(of(json!("a"), json!(["other", "x"]), words), Ok(()));
    assert_eq!(of(json!("c"), json!("x"), words), Err(Invalid::Issuer));
    assert_eq!(of(json!("a"), json!(["other"]), words), Err(Invalid::Audience));
    assert_eq!(
        of(json!("a"), json!("x"), "issuer: [a]"),
        Err(Invalid::Audience),
        "for somebody, and we are nobody"
    );
    let bare = |words| outcome(&json!({"sub": "u", "exp": 2000}), words, 1500);
    assert_eq!(
        [bare("issuer: a"), bare("audience: x"), bare("")],
        [Err(Invalid::Issuer), Err(Invalid::Audience), Ok(())]
    );
    assert_eq!(bare("required: [exp, jti]"), Err(Invalid::Claim));
}

#[test]
fn a_session_ends_with_its_token_whatever_else_it_says() {
    let claims =
        json!({"sub": "u", "exp": 2000, "expires_at": 99999, "scope": "read write", "permissions": "a b"});
    let token = signed(HEAD, &claims.to_string(), SECRET.as_bytes());
    let found = check(&token, &secret("leeway: 10s"), &KeySet::secret(SECRET), 1500).unwrap();
    assert_eq!(found.session.expires_at(), at(2010));
    assert_eq!(found.session.permissions(), ["a", "b"]);
    assert_eq!(found.session.field("scope"), Some("read write"));
}
