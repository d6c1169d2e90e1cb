//! Services that are asked about callers: what they are told, and what of their answers is looked at.

use super::{Resolver, route::FRAMING};
use crate::{
    defaults as d,
    plan::{self, TokenSource, UpstreamId},
    raw::{self, Named, Word},
    span::Place,
    template::{Template, Variable},
};

/// Whether this session's service is told about each request, and so is asked about requests.
pub(super) fn tells(session: &raw::Session) -> bool {
    let told = session.ask.get().and_then(|ask| ask.request_headers.get());
    told.is_some_and(|told| !told.0.is_empty())
}

/// Whether its answers say only that a request may pass, and not whose it is.
pub(super) fn names_nobody(session: &raw::Session) -> bool {
    let answer = session.ask.get().and_then(|ask| ask.answer.get());
    let is_named = session.fields.entries().any(|(ours, ..)| ours == "user_id");
    tells(session) && answer == Some(&raw::AskAnswer::Headers) && !is_named
}

impl Resolver<'_> {
    pub(super) fn ask(
        &mut self,
        raw: &raw::Ask,
        session: &raw::Session,
        place: Place,
    ) -> Option<plan::AskOrigin> {
        if raw.path.is_absent() {
            self.report
                .error(place, "`path` is missing")
                .help("what answers with the session: `path: /auth/me`");
        }
        let path = self.origin_path(&raw.path);
        let (upstream, at) = self.required(&raw.upstream, "upstream", place)?;
        let upstreams = self.names.upstreams.clone();
        let upstream = UpstreamId(self.look_up("upstream", upstream, at, &upstreams)?);
        let token = raw.token.placed().and_then(|(source, at)| self.token_source(source, at));
        let token = token.unwrap_or(TokenSource::Bearer);
        let answer = match raw.answer.placed() {
            Some((raw::AskAnswer::Headers, at)) => self.answered_fields(session, at),
            Some((raw::AskAnswer::Json, _)) | None => plan::AskAnswer::Json,
        };
        let told = self.told(&raw.request_headers, &token, session);
        if let Some(at) = raw.always.place().filter(|_| !told.is_empty() && !raw.always.or(true)) {
            let problem = self.report.error(at, "a service that is told about requests is asked always");
            problem.help("what it says of one is nowhere in Redis; take out `always`, or `request_headers`");
        }
        let always = raw.always.or(!told.is_empty());
        let timeout = self.time(&raw.timeout, d::ASK_TIMEOUT);
        Some(plan::AskOrigin { upstream, path, token, answer, always, told, timeout })
    }

    /// The fields of an answer that are looked at. Who is asked about a token has to say whose it is.
    fn answered_fields(&mut self, session: &raw::Session, at: Place) -> plan::AskAnswer {
        let fields = &session.fields;
        if !tells(session) && !fields.entries().any(|(ours, ..)| ours == "user_id") {
            let problem = self.report.error(at, "nobody says which field names the caller");
            problem.help("add `fields: { user_id: x-user }` to the session");
        }
        let names = fields.entries().filter_map(|(_, theirs, at)| self.header_name(theirs, at));
        plan::AskAnswer::Headers(names.collect())
    }

    /// What a service is told about the request: whatever every request has, before anybody knows whose it is.
    fn told(
        &mut self,
        word: &Word<Named<Template>>,
        token: &TokenSource,
        session: &raw::Session,
    ) -> Vec<(http::HeaderName, Template)> {
        let of_token = match token {
            _ if session.from.is_absent() => None,
            TokenSource::Bearer => Some(http::header::AUTHORIZATION),
            TokenSource::Cookie(_) => Some(http::header::COOKIE),
            TokenSource::Header(name) => Some(name.clone()),
        };
        let mut told = Vec::new();
        for (name, value, place) in word.entries() {
            for variable in value.variables() {
                if let Variable::PathParam(_)
                | Variable::Session(_)
                | Variable::Token
                | Variable::CacheStatus
                | Variable::RouteName = variable
                {
                    let problem = self.report.error(place, format!("`${{{variable}}}` is not known yet"));
                    problem.help("there are `${client.ip}`, `${request.…}`, `${query.…}`, `${header.…}` and `${cookie.…}`");
                }
            }
            let Some(name) = self.header_name(name, place) else { continue };
            if name != http::header::HOST && FRAMING.contains(&name.as_str()) {
                self.report.error(place, format!("`{name}` belongs to the connection and cannot be set"));
            } else if of_token.as_ref() == Some(&name) {
                let problem = self.report.error(place, format!("`{name}` carries the token already"));
                problem
                    .help("leave out `from`, and the service finds it in this field; or leave out the field");
            }
            told.push((name, value.clone()));
        }
        told
    }
}
