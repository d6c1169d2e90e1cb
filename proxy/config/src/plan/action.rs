//! What a route does with what passed.

use std::path::PathBuf;

use super::UpstreamId;
use crate::{span::Placed, template::Template, units::Bytes};

/// What happens to what passed.
#[derive(Debug, Clone)]
pub enum Action {
    /// To an upstream, perhaps under another path.
    Forward(Forward),
    /// To another address.
    Redirect(Redirect),
    /// A fixed answer.
    Answer(Answer),
    /// Files of a folder.
    Files(Files),
    /// A tunnel to a server of this upstream; such a route takes CONNECT, and no other does.
    Tunnel(UpstreamId),
}

/// How fast one answer may go to its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LimitRate {
    /// Bytes of body a second, at least 1.
    pub per_second: Bytes,
    /// Bytes that go before at any speed.
    pub after: Bytes,
}

/// What is shown for an error.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ErrorPage {
    /// For which, 400 to 599.
    pub statuses: Vec<u16>,
    /// The status the client gets instead; a redirect has its own.
    pub shown_as: Option<http::StatusCode>,
    /// The `Content-Type`, where there is a body.
    pub content_type: String,
    /// What it is.
    pub page: Page,
}

/// An error page's content.
#[derive(Debug, Clone)]
pub enum Page {
    /// A text; knows nothing of the path's parameters.
    Body(Template),
    /// A file, read at start and reload.
    File(Placed<PathBuf>),
    /// Another address.
    Redirect(Redirect),
}

/// To an upstream.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Forward {
    /// Which.
    pub upstream: UpstreamId,
    /// The target to ask for instead of the client's: path, and query if it has a `?`.
    pub rewrite: Option<Template>,
    /// `Host` for the origin; `None` passes the client's on.
    pub host: Option<Template>,
    /// Protocols that a client may switch to, in lower case.
    pub upgrades: Vec<String>,
    /// How much of a request's body is gathered before a peer is asked; a longer one streams from there.
    pub request_buffer: Bytes,
    /// How much of an answer is read before its client takes it.
    pub response_buffer: Bytes,
    /// Where requests go once more.
    pub mirror: Option<Mirror>,
}

/// Where requests go once more; the answers are thrown away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mirror {
    /// To whom.
    pub upstream: UpstreamId,
    /// Which share of the requests, 0 to 100.
    pub percent: u32,
}

/// To another address.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: http::StatusCode,
    /// The `Location`.
    pub location: Template,
}

/// A fixed answer.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Answer {
    /// The status.
    pub status: http::StatusCode,
    /// The `Content-Type`.
    pub content_type: String,
    /// The body.
    pub body: Template,
}

/// Files of a folder, with types, validators and ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Files {
    /// The folder; nothing outside of it is ever served.
    pub root: Placed<PathBuf>,
    /// What of the request path is left out; the route's literal prefix by default.
    pub strip: String,
    /// Asked for when a path ends in `/`.
    pub index: String,
    /// The `Cache-Control` of what is served.
    pub cache_control: Option<String>,
}
