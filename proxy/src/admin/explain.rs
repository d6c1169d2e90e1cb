//! `POST /explain`: why a request is, or would not be, answered from the cache. The body is the question, as JSON:
//! `{"url": "http://example.org/x", "method": "GET", "headers": ["accept-language: de"], "client": "192.0.2.1"}`.
//!
//! By POST, because a header may be a token, and URLs are written down in more places than bodies.

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Body;

use super::{json, read, refused, upstreams::is_cross_site};
use crate::{
    cache::Now,
    explain::{Question, explain},
    state::State,
};

/// As large a head as a listener takes.
const BODY_BYTES: usize = 64 << 10;

/// Answers `/explain`.
pub(super) async fn answer<B>(request: Request<B>, state: &State) -> Response<Full<Bytes>>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    if request.method() != Method::POST {
        let mut refused = refused(StatusCode::METHOD_NOT_ALLOWED, "POST the question, as JSON");
        refused.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("POST"));
        return refused;
    }
    if is_cross_site(request.headers()) {
        return refused(StatusCode::FORBIDDEN, "a page of another site may not ask");
    }
    let Some(body) = read(request, BODY_BYTES).await else {
        return refused(StatusCode::PAYLOAD_TOO_LARGE, "a question is short, and asked soon");
    };
    let question = match serde_json::from_slice::<Question>(&body) {
        Ok(question) => question,
        Err(problem) => return refused(StatusCode::UNPROCESSABLE_ENTITY, &problem.to_string()),
    };
    let (snapshot, file) = (state.snapshot(), state.source().path().display().to_string());
    match explain(&snapshot.running, &file, &question, Now::read()).await {
        Ok(report) => json(StatusCode::OK, &serde_json::json!(report)),
        Err(problem) => refused(StatusCode::UNPROCESSABLE_ENTITY, &problem),
    }
}
