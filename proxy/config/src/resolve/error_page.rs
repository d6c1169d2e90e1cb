//! What a route shows for errors.

use super::{Resolver, placed_path, route::Scope};
use crate::{
    defaults as d,
    plan::{self, Page},
    raw::{self, Route},
    span::Place,
};

impl Resolver<'_> {
    pub(super) fn error_pages(&mut self, raw: &Route, scope: &Scope) -> Vec<plan::ErrorPage> {
        if let Some(at) = raw.intercept_errors.place() {
            if raw.to.is_absent() {
                self.report
                    .error(at, "`intercept_errors` goes with `to`: nobody else's errors come through here");
            } else if raw.error_pages.is_absent() {
                self.report.error(at, "there are no `error_pages` to show instead");
            }
        }
        // An error may come before the path's parameters are known.
        let scope = scope.without_parameters();
        raw.error_pages.items().filter_map(|(page, place)| self.error_page(page, &scope, place)).collect()
    }

    fn error_page(&mut self, raw: &raw::ErrorPage, scope: &Scope, place: Place) -> Option<plan::ErrorPage> {
        let mut statuses = Vec::new();
        self.required(&raw.status, "status", place);
        for (status, at) in raw.status.items() {
            if !(400..600).contains(status) {
                self.report.error(at, format!("{status} is no error")).help("from 400 to 599");
            }
            statuses.push(*status);
        }
        let written =
            [("body", raw.body.place()), ("file", raw.file.place()), ("redirect", raw.redirect.place())];
        let mut written = written.iter().filter_map(|(key, at)| at.map(|at| (*key, at)));
        let Some((first, _)) = written.next() else {
            self.report
                .error(place, "this page shows nothing")
                .help("add one of `body`, `file` and `redirect`");
            return None;
        };
        for (second, at) in written {
            self.report.error(at, format!("a page is one thing: `{first}` or `{second}`"));
        }
        for at in [raw.shown_as.place(), raw.content_type.place()].into_iter().flatten() {
            if first == "redirect" {
                self.report.error(at, "a redirect has a status of its own and no body");
            }
        }
        let shown_as = raw.shown_as.placed().and_then(|(status, at)| {
            if !(200..600).contains(status) || matches!(status, 204 | 304) {
                self.report.error(at, format!("{status} is no status of an answer with a body"));
            }
            http::StatusCode::from_u16(*status).ok()
        });
        let content_type = raw.content_type.or(d::ERROR_PAGE_TYPE.to_owned());
        if let Some(at) = raw.content_type.place() {
            self.header_value(&content_type, at);
        }
        let page = match first {
            "body" => {
                let (body, at) = raw.body.placed()?;
                self.check(body, at, scope);
                Page::Body(body.clone())
            }
            "file" => Page::File(placed_path(raw.file.placed()?)),
            _ => {
                let (redirect, at) = raw.redirect.placed()?;
                Page::Redirect(self.redirect_to(redirect, scope, at)?)
            }
        };
        Some(plan::ErrorPage { statuses, shown_as, content_type, page })
    }
}
