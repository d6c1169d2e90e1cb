//! The error pages of one route: files are read when the plan comes to life, so that an error needs no disk.

use std::{io::Read, path::Path};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use weir_config::plan::{Page, Route};

use crate::{
    request::Facts,
    route::{self, Params},
};

/// A page is for people; more is a mistake, and would stay in memory.
const FILE_BYTES: u64 = 1 << 20;

/// The files' contents, by the place of the page in the plan.
#[derive(Debug)]
pub(super) struct ErrorPages {
    files: Vec<Option<Bytes>>,
}

/// A page as it is sent.
#[derive(Debug)]
pub struct Shown {
    /// The status the client gets.
    pub status: StatusCode,
    /// `Content-Type` or `Location`.
    pub fields: HeaderMap,
    /// The page; empty for a redirect.
    pub body: Bytes,
}

impl ErrorPages {
    /// Reads the files. One that cannot be read is as if its page were not written, as in nginx: an edge that does not start
    /// serves nobody. [`crate::trial`] has warned of it.
    pub(super) fn read(route: &Route) -> Self {
        let file = |page: &Page| match page {
            Page::File(path) => whole(path).ok(),
            Page::Body(_) | Page::Redirect(_) => None,
        };
        Self { files: route.error_pages.iter().map(|page| file(&page.page)).collect() }
    }

    /// The first page that names the status.
    pub(super) fn show(&self, route: &Route, status: StatusCode, facts: &Facts<'_>) -> Option<Shown> {
        let named = |(page, _): &(&weir_config::plan::ErrorPage, _)| page.statuses.contains(&status.as_u16());
        let (page, file) = route.error_pages.iter().zip(&self.files).find(named)?;
        let mut fields = HeaderMap::new();
        let body = match &page.page {
            Page::Redirect(redirect) => {
                let location = route::answer::location(redirect, facts, &Params::default());
                fields.insert(header::LOCATION, location);
                return Some(Shown { status: redirect.status, fields, body: Bytes::new() });
            }
            Page::File(_) => file.clone()?,
            Page::Body(template) => {
                let mut text = String::new();
                template.render(facts, &mut text);
                Bytes::from(text)
            }
        };
        if let Ok(kind) = HeaderValue::try_from(&page.content_type) {
            fields.insert(header::CONTENT_TYPE, kind);
        }
        Some(Shown { status: page.shown_as.unwrap_or(status), fields, body })
    }
}

pub(crate) fn whole(path: &Path) -> std::io::Result<Bytes> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES {
        return Err(std::io::Error::other("it is larger than 1MiB"));
    }
    Ok(bytes.into())
}
