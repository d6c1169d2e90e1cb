//! Heads for clients: what every answer carries, and how its body is framed.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};

use super::{Edge, Trip, accel, client::Client, compressing, error_page};
use crate::{
    decide::{CACHE_STATUS, frame_by_length},
    forward::{grpc, trace::X_REQUEST_ID},
    journey::Journey,
    limit::Standing,
    refusal::{PROXY_STATUS, Refusal},
    running::Running,
};

/// How long an answer's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    /// There is none, and no field says otherwise (304, 204, an answer to HEAD whose length nobody knows).
    None,
    /// This many bytes; of an answer to HEAD, what GET would have had.
    Known(u64),
    /// Told by its end.
    Unknown,
}

/// The head of an answer: the given fields, what the plan adds to them, the coding and the framing.
pub(super) fn head(
    trip: &Trip,
    journey: &Journey,
    client: &mut Client,
    status: StatusCode,
    mut fields: HeaderMap,
    length: Length,
) -> (StatusCode, HeaderMap) {
    accel::obey(trip, &mut fields, client);
    trip.passed.dress(trip.running(), &trip.request, journey.cache.as_ref(), &mut fields);
    Standing::tell(journey.admitted.standings(), &mut fields);
    close_if_last(client, journey);
    let length = compressing::answer(trip, client, status, &mut fields, length);
    frame(&mut fields, client, &trip.request.method, trip.request.version, status, length);
    (status, fields)
}

/// Asked when the head is written: we may have been told to stop while the origin was thinking.
fn close_if_last(client: &mut Client, journey: &Journey) {
    if journey.arrival.is_closing() {
        client.close_after();
    }
}

/// One framing, whatever the origin's was: a length, chunks, or the end of the connection for HTTP/1.0.
fn frame(
    fields: &mut HeaderMap,
    client: &mut Client,
    method: &Method,
    version: Version,
    status: StatusCode,
    length: Length,
) {
    fields.remove(header::CONTENT_LENGTH);
    fields.remove(header::TRANSFER_ENCODING);
    match length {
        // Of a status that could have one, or else the client would wait for it until the connection ends.
        Length::None if !matches!(*method, Method::HEAD | Method::CONNECT) && may_have_body(status) => {
            fields.insert(header::CONTENT_LENGTH, HeaderValue::from(0));
        }
        Length::None => {}
        Length::Known(length) => {
            if status != StatusCode::NO_CONTENT {
                frame_by_length(fields, length);
            }
        }
        Length::Unknown if method == Method::HEAD => {}
        Length::Unknown => match version {
            Version::HTTP_11 => {
                _ = fields.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"))
            }
            Version::HTTP_10 => client.close_after(),
            _ => {}
        },
    }
}

/// RFC 9112 §6.3, 1.
fn may_have_body(status: StatusCode) -> bool {
    !status.is_informational() && status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED
}

/// The fields and the body of a refusal.
fn refusal_parts(refusal: &Refusal) -> (HeaderMap, String) {
    let body = refusal.body();
    let mut fields = HeaderMap::new();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    fields.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    // Of us, for this request alone: no cache on the way may keep it.
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    fields.insert(PROXY_STATUS, HeaderValue::from_static(refusal.proxy_status()));
    // Appended: a client may be challenged in several ways, each in a field of its own.
    for (name, value) in refusal.fields() {
        fields.append(name, value);
    }
    (fields, body)
}

/// A refusal as the bytes of HTTP/1.1, for a client whose request never became a session.
pub(super) fn raw_refusal(refusal: &Refusal) -> Bytes {
    let said = refusal.said();
    let (fields, body) = refusal_parts(refusal);
    let reason = said.status.canonical_reason().unwrap_or("");
    let mut text = format!("HTTP/1.1 {} {reason}\r\n", said.status.as_str());
    for (name, value) in &fields {
        text.push_str(name.as_str());
        text.push_str(": ");
        text.push_str(value.to_str().unwrap_or_default());
        text.push_str("\r\n");
    }
    text.push_str("connection: close\r\n\r\n");
    text.push_str(&body);
    Bytes::from(text)
}

impl Edge {
    /// Says no; false when the client could not hear it.
    pub(super) async fn say(
        &self,
        running: &Running,
        refusal: &Refusal,
        client: &mut Client,
        journey: &mut Journey,
    ) -> bool {
        if *refusal == Refusal::ClientLeft || client.has_answered() {
            return false;
        }
        let said = refusal.said();
        close_if_last(client, journey);
        if said.closes {
            client.close_after();
        }
        let (mut fields, text) = refusal_parts(refusal);
        let (mut status, mut body) = (said.status, Bytes::from(text));
        if journey.request.as_ref().is_some_and(|request| grpc::is_call(&request.headers)) {
            grpc::say(&mut fields, said.status, said.sentence);
            body = Bytes::new();
        } else if let Some(shown) = error_page::of_ours(running, journey, said.status)
            .filter(|shown| !(client.is_connect() && shown.status.is_success()))
        {
            // To CONNECT a success would say that the tunnel is open.
            fields.remove(header::CONTENT_TYPE);
            fields.extend(shown.fields);
            (status, body) = (shown.status, shown.body);
            journey.answer.status = status.as_u16();
        }
        fields.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        Standing::tell(journey.admitted.standings(), &mut fields);
        if let Some(request) = &journey.request {
            fields.insert(X_REQUEST_ID, request.id.value());
        }
        if let Some(value) =
            journey.cache.as_ref().and_then(|status| HeaderValue::try_from(status.to_string()).ok())
        {
            fields.insert(CACHE_STATUS, value);
        }
        let bodiless = client.is_head() || body.is_empty();
        if client.head((status, fields), bodiless).await.is_err() {
            return false;
        }
        bodiless || client.body(body).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accept::BadRequest;

    #[test]
    fn a_refusal_in_bytes_is_one_whole_message_that_closes() {
        let bytes = raw_refusal(&Refusal::Bad(BadRequest::BareCr));
        let text = std::str::from_utf8(&bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}");
        assert!(head.contains("\r\nconnection: close"));
        assert!(head.contains(&format!("\r\ncontent-length: {}", body.len())));
    }
}
