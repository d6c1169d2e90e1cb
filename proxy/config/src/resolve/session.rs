//! Tokens that are signed: whose keys, and what a token must say.

use super::Resolver;
use crate::{
    defaults as d,
    plan::{self, Algorithm, JwtKeys, UpstreamId},
    raw::{self, List, Word},
    span::{Place, Placed},
    template::{Template, Variable},
};

impl Resolver<'_> {
    /// What a session with signed tokens says besides.
    pub(super) fn jwt(&mut self, session: &raw::Session) -> Option<plan::Jwt> {
        let (raw, place) = session.jwt.placed()?;
        let idle = [
            ("key", session.key.place()),
            ("format", session.format.place()),
            ("ask", session.ask.place()),
            ("sliding", session.sliding.place()),
            ("on_redis_down", session.on_redis_down.place()),
        ];
        for (key, at) in idle {
            let Some(at) = at else { continue };
            let problem = self.report.error(at, format!("`{key}` means nothing beside `jwt`"));
            problem.help("a signed token is not looked up; take it out, or `jwt`");
        }
        for (_, _, at) in session.fields.entries().filter(|(ours, _, _)| *ours == "expires_at") {
            self.report.error(at, "a signed token ends as its `exp` says");
        }
        let (keys, least) = self.jwt_keys(raw, place)?;
        let algorithms = self.algorithms(&raw.algorithms, &keys);
        let needed = algorithms.iter().filter_map(|algorithm| algorithm.secret_bytes()).max();
        if let (Some((length, at)), Some(needed)) = (least, needed)
            && length < needed
        {
            self.report
                .error(at, format!("the secret has {length} bytes; it needs {needed}"))
                .help("RFC 7518 §3.2; make one with `openssl rand -hex 32`");
        }
        let [revoked, revoked_before] =
            [&raw.revoked, &raw.revoked_before].map(|key| self.key_of_session(key));
        let texts =
            |word: &Word<List<String>>| word.items().map(|(text, _)| text.clone()).collect::<Vec<_>>();
        let required = match raw.required.is_absent() {
            true => d::JWT_REQUIRED.map(str::to_owned).to_vec(),
            false => texts(&raw.required),
        };
        Some(plan::Jwt {
            keys,
            algorithms,
            issuer: texts(&raw.issuer),
            audience: texts(&raw.audience),
            leeway: Self::span(&raw.leeway, d::JWT_LEEWAY),
            required,
            revoked,
            revoked_before,
        })
    }

    /// The keys, and the length of a secret where that is what they are.
    fn jwt_keys(&mut self, raw: &raw::Jwt, place: Place) -> Option<(JwtKeys, Option<(usize, Place)>)> {
        let ways = [raw.jwks.place(), raw.jwks_file.place(), raw.secret.place().or(raw.secret_file.place())];
        let written: Vec<Place> = ways.into_iter().flatten().collect();
        match *written {
            [] => {
                let problem = self.report.error(place, "nobody says what the tokens are signed with");
                problem.help("add `jwks: { upstream: …, path: … }`, `jwks_file` or `secret_file`");
                return None;
            }
            [_] => {}
            [_, second, ..] => {
                let problem = self.report.error(second, "the tokens have keys already");
                problem.help("one of `jwks`, `jwks_file`, `secret` and `secret_file`");
                return None;
            }
        }
        if let Some((raw, at)) = raw.jwks.placed() {
            if raw.path.is_absent() {
                let problem = self.report.error(at, "`path` is missing");
                problem.help("what answers with the keys: `path: /.well-known/jwks.json`");
            }
            let path = self.origin_path(&raw.path);
            let refresh = self.time(&raw.refresh, d::JWKS_REFRESH);
            let (upstream, at) = self.required(&raw.upstream, "upstream", at)?;
            let known = self.names.upstreams.clone();
            let upstream = UpstreamId(self.look_up("upstream", upstream, at, &known)?);
            return Some((JwtKeys::Asked { upstream, path, refresh }, None));
        }
        if let Some((file, at)) = raw.jwks_file.placed() {
            let (text, _) = self.secret(&Word::Absent, &Word::at(file.clone(), at), "jwks")?;
            return Some((JwtKeys::Set(Placed::new(text.expose().into(), at)), None));
        }
        let (secret, at) = self.secret(&raw.secret, &raw.secret_file, "secret")?;
        let length = secret.expose().len();
        Some((JwtKeys::Secret(secret), Some((length, at))))
    }

    /// The algorithms, which must all fit the keys: a public key that is taken for a secret lets everybody sign.
    fn algorithms(&mut self, word: &Word<List<Algorithm>>, keys: &JwtKeys) -> Vec<Algorithm> {
        let has_secret = matches!(keys, JwtKeys::Secret(_));
        if word.is_absent() {
            return if has_secret { d::JWT_ALGORITHMS_SECRET.into() } else { d::JWT_ALGORITHMS.into() };
        }
        let mut algorithms = Vec::new();
        for (algorithm, at) in word.items() {
            if algorithm.secret_bytes().is_some() != has_secret {
                let keys = if has_secret { "a secret" } else { "public keys" };
                let problem = self.report.error(at, format!("{algorithm:?} does not work with {keys}"));
                problem.help("HS256, HS384 and HS512 need a secret, all others public keys");
            }
            algorithms.push(*algorithm);
        }
        if let Some(at) = word.place().filter(|_| word.get().is_some_and(|list| list.0.is_empty())) {
            self.report.error(at, "without an algorithm no token can be checked");
        }
        algorithms
    }

    /// The Redis key of something that belongs to one session, by one of its fields.
    pub(super) fn key_of_session(&mut self, word: &Word<Template>) -> Option<Template> {
        let (key, at) = word.placed()?;
        let mut variables = key.variables();
        if !matches!((variables.next(), variables.next()), (Some(Variable::Session(_)), None)) {
            let problem = self.report.error(at, "this key has one variable, a field of the session");
            problem.help("such as `${session.user_id}`");
        }
        Some(key.clone())
    }
}
