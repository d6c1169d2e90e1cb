//! What a route does: one of `to`, `redirect`, `answer`, `files` and `tunnel`.

use super::{Resolver, path::literal_folder, placed_path, route::Scope};
use crate::{
    defaults as d,
    plan::{self, Action, Match, UpstreamId},
    raw::{self, Short},
    span::Place,
    template::Template,
};

impl Resolver<'_> {
    pub(super) fn action(
        &mut self,
        raw: &raw::Route,
        when: &Match,
        scope: &Scope,
        place: Place,
    ) -> Option<Action> {
        let written = [
            ("to", raw.to.place()),
            ("redirect", raw.redirect.place()),
            ("answer", raw.answer.place()),
            ("files", raw.files.place()),
            ("tunnel", raw.tunnel.place()),
        ];
        let mut written = written.iter().filter_map(|(key, place)| place.map(|place| (*key, place)));
        let Some((first, _)) = written.next() else {
            let problem = self.report.error(place, "this route does nothing");
            problem.help("add one of `to`, `redirect`, `answer`, `files` and `tunnel`");
            return None;
        };
        for (second, at) in written {
            self.report.error(at, format!("a route does one thing: `{first}` or `{second}`"));
        }
        let only_forwarded = [
            ("rewrite", raw.rewrite.place()),
            ("host", raw.host.place()),
            ("cache", raw.cache.place()),
            ("upgrade", raw.upgrade.place()),
            ("mirror", raw.mirror.place()),
            ("request_buffer", raw.request_buffer.place()),
            ("response_buffer", raw.response_buffer.place()),
        ];
        for (key, at) in only_forwarded.into_iter().filter_map(|(key, at)| at.map(|at| (key, at))) {
            if first != "to" {
                self.report.error(at, format!("`{key}` goes with `to`, not with `{first}`"));
            }
        }
        match first {
            "to" => self.forward(raw, scope),
            "redirect" => {
                let (redirect, place) = raw.redirect.placed()?;
                self.redirect_to(redirect, scope, place).map(Action::Redirect)
            }
            "answer" => raw.answer.get().map(|answer| self.answer(answer, scope)),
            "tunnel" => self.tunnel(raw),
            _ => raw.files.placed().and_then(|(files, place)| self.files(files, when, place)),
        }
    }

    /// CONNECT names a host and nothing else, so that nothing else can be asked for.
    fn tunnel(&mut self, raw: &raw::Route) -> Option<Action> {
        let (name, place) = raw.tunnel.placed()?;
        if let Some((Short(when), outer)) = raw.when.placed() {
            for (key, at) in [("path", when.path.place()), ("methods", when.methods.place())] {
                if let Some(at) = at {
                    let at = if at == Place::default() { outer } else { at };
                    self.report
                        .error(at, format!("a tunnel is asked for by host alone: there is no `{key}`"))
                        .help(format!("remove `{key}`; `tunnel` takes CONNECT, and nothing else does"));
                }
            }
        }
        let known = self.names.upstreams.clone();
        let upstream = UpstreamId(self.look_up("upstream", name, place, &known)?);
        Some(Action::Tunnel(upstream))
    }

    fn forward(&mut self, raw: &raw::Route, scope: &Scope) -> Option<Action> {
        for (template, place) in [raw.rewrite.placed(), raw.host.placed()].into_iter().flatten() {
            self.check(template, place, scope);
        }
        if let Some((rewrite, place)) = raw.rewrite.placed() {
            let text = rewrite.to_string();
            if !text.starts_with('/')
                && !text.starts_with("${request.path}")
                && !text.starts_with("${request.target}")
            {
                self.report.error(place, "a target starts with `/`").help(format!("did you mean `/{text}`?"));
            }
        }
        let (name, place) = raw.to.placed()?;
        let known = self.names.upstreams.clone();
        let upstream = UpstreamId(self.look_up("upstream", name, place, &known)?);
        Some(Action::Forward(plan::Forward {
            upstream,
            rewrite: raw.rewrite.get().cloned(),
            host: raw.host.get().cloned(),
            upgrades: self.upgrades(&raw.upgrade),
            request_buffer: self.buffer(&raw.request_buffer, d::REQUEST_BUFFER),
            response_buffer: self.buffer(&raw.response_buffer, d::RESPONSE_BUFFER),
            mirror: raw.mirror.placed().and_then(|(Short(mirror), place)| self.mirror(mirror, place)),
        }))
    }

    fn mirror(&mut self, raw: &raw::Mirror, place: Place) -> Option<plan::Mirror> {
        let percent = raw.percent.or(d::MIRROR_PERCENT);
        if let Some(at) = raw.percent.place().filter(|_| percent > 100) {
            self.report.error(at, format!("{percent} percent is more than all")).help("from 0 to 100");
        }
        let (name, at) = self.required(&raw.to, "to", place)?;
        let at = if at == Place::default() { place } else { at };
        let known = self.names.upstreams.clone();
        let upstream = UpstreamId(self.look_up("upstream", name, at, &known)?);
        Some(plan::Mirror { upstream, percent })
    }

    pub(super) fn redirect_to(
        &mut self,
        raw: &raw::Redirect,
        scope: &Scope,
        place: Place,
    ) -> Option<plan::Redirect> {
        let status = raw.status.or(d::REDIRECT_STATUS);
        if let Some(at) = raw.status.place().filter(|_| !matches!(status, 301 | 302 | 303 | 307 | 308)) {
            self.report
                .error(at, format!("{status} does not redirect"))
                .help("there is 301, 302, 303, 307 and 308");
        }
        let (location, at) = self.required(&raw.location, "location", place)?;
        self.check(location, at, scope);
        let status = http::StatusCode::from_u16(status).ok()?;
        Some(plan::Redirect { status, location: location.clone() })
    }

    fn answer(&mut self, raw: &raw::Answer, scope: &Scope) -> Action {
        let status = raw.status.or(d::ANSWER_STATUS);
        if let Some(at) = raw.status.place().filter(|_| !(200..600).contains(&status)) {
            self.report.error(at, format!("{status} is no status of an answer")).help("from 200 to 599");
        }
        if let Some((body, at)) = raw.body.placed() {
            self.check(body, at, scope);
            if matches!(status, 204 | 304) {
                self.report.error(at, format!("an answer with status {status} has no body"));
            }
        }
        let content_type = raw.content_type.or(d::ANSWER_TYPE.to_owned());
        if let Some(at) = raw.content_type.place() {
            self.header_value(&content_type, at);
        }
        let status = http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::OK);
        Action::Answer(plan::Answer { status, content_type, body: raw.body.or(Template::default()) })
    }

    fn files(&mut self, raw: &raw::Files, when: &Match, place: Place) -> Option<Action> {
        if let Some((value, at)) = raw.cache_control.placed() {
            self.header_value(value, at);
        }
        let root = self.required(&raw.root, "root", place)?;
        Some(Action::Files(plan::Files {
            root: placed_path(root),
            strip: raw.strip.or(literal_folder(&when.path)),
            index: raw.index.or(d::FILES_INDEX.to_owned()),
            cache_control: raw.cache_control.get().cloned(),
        }))
    }

    pub(super) fn header_value(&mut self, text: &str, place: Place) {
        if http::HeaderValue::from_str(text).is_err() {
            self.report.error(place, "a header's value has no line breaks or control characters");
        }
    }
}
