//! HTTP/2 as we answer a client: one stream, its body in, its answer out.
//!
//! The library has the frames and the windows; the connection's own task moves them. Nothing here waits for more of a
//! client than its window or its next frame, and every wait for a window has an end.

use std::{future::poll_fn, time::Duration};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode,
    header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING, UPGRADE},
};
use tokio::time::timeout;

use super::{DRAIN, Gone};
use crate::wire;

/// Fields of an HTTP/1 connection, which HTTP/2 has none of (RFC 9113 §8.2.2).
const OF_CONNECTIONS: [HeaderName; 5] = [
    CONNECTION,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// An exchange on a stream of HTTP/2.
pub(in crate::accept) struct Http2 {
    request: RecvStream,
    answer: Answer,
    /// The request is a CONNECT: its stream is a tunnel from the 2xx on.
    is_connect: bool,
    /// The client waits for a 100 before it sends the body.
    continue_due: bool,
    /// For the client to open its window.
    patience: Option<Duration>,
}

/// How far the answer is.
enum Answer {
    /// Its final head is to come.
    Head(SendResponse<Bytes>),
    Body(SendStream<Bytes>),
    Over,
}

impl Http2 {
    pub(in crate::accept) fn new(
        request: RecvStream,
        answer: SendResponse<Bytes>,
        method: &Method,
        expects_continue: bool,
    ) -> Self {
        Self {
            continue_due: expects_continue && !request.is_end_stream(),
            request,
            answer: Answer::Head(answer),
            is_connect: *method == Method::CONNECT,
            patience: None,
        }
    }

    pub(in crate::accept) fn is_connect(&self) -> bool {
        self.is_connect
    }

    /// What a tunnel carries is no body.
    pub(in crate::accept) fn has_body(&self) -> bool {
        !self.is_connect && !self.request.is_end_stream()
    }

    pub(in crate::accept) fn set_write_timeout(&mut self, patience: Duration) {
        self.patience = Some(patience);
    }

    pub(super) async fn body(&mut self) -> Result<Option<Bytes>, Gone> {
        if std::mem::take(&mut self.continue_due) {
            self.interim(StatusCode::CONTINUE, HeaderMap::new())?;
        }
        let Some(piece) = self.request.data().await else { return Ok(None) };
        let piece = piece.map_err(|_| Gone)?;
        // Whoever asked takes it before the next one is asked for: that holds the client back.
        self.request.flow_control().release_capacity(piece.len()).map_err(|_| Gone)?;
        Ok(Some(piece))
    }

    pub(super) async fn left(&mut self) {
        let reset = poll_fn(|context| match &mut self.answer {
            Answer::Head(answer) => answer.poll_reset(context),
            Answer::Body(answer) => answer.poll_reset(context),
            Answer::Over => std::task::Poll::Pending,
        });
        // However it ends, nobody is there any more.
        let _ = reset.await;
    }

    pub(super) fn interim(&mut self, status: StatusCode, fields: HeaderMap) -> Result<(), Gone> {
        match &mut self.answer {
            Answer::Head(answer) => answer.send_informational(response(status, fields)).map_err(|_| Gone),
            Answer::Body(_) | Answer::Over => Ok(()),
        }
    }

    pub(in crate::accept) fn head(
        &mut self,
        status: StatusCode,
        mut fields: HeaderMap,
        end: bool,
    ) -> Result<(), Gone> {
        let Answer::Head(answer) = &mut self.answer else { return Err(Gone) };
        if self.is_connect && status.is_success() {
            fields.remove(CONTENT_LENGTH);
        }
        if !fields.contains_key(DATE)
            && let Ok(date) = wire::date(HeaderValue::from_str)
        {
            fields.insert(DATE, date);
        }
        // HTTP/2 says the end with the head itself; a later empty DATA frame would cost a packet.
        let stream = answer.send_response(response(status, fields), end).map_err(|_| Gone)?;
        self.answer = if end { Answer::Over } else { Answer::Body(stream) };
        Ok(())
    }

    pub(in crate::accept) async fn write(&mut self, mut piece: Bytes) -> Result<(), Gone> {
        let stream = match &mut self.answer {
            Answer::Body(stream) => stream,
            // An answer that has no body, whatever somebody sends as such.
            Answer::Over => return Ok(()),
            Answer::Head(_) => return Err(Gone),
        };
        while !piece.is_empty() {
            stream.reserve_capacity(piece.len());
            let room = stream.capacity();
            if room > 0 {
                stream.send_data(piece.split_to(room.min(piece.len())), false).map_err(|_| Gone)?;
                continue;
            }
            let opened = poll_fn(|context| stream.poll_capacity(context));
            let opened = match self.patience {
                Some(patience) => timeout(patience, opened).await.map_err(|_| Gone)?,
                None => opened.await,
            };
            if !matches!(opened, Some(Ok(_))) {
                return Err(Gone);
            }
        }
        Ok(())
    }

    /// Ends the answer with these bytes, if there is room for all of them in the client's windows; else gives them back.
    pub(in crate::accept) fn end_with(&mut self, body: Bytes) -> Result<(), Bytes> {
        if let Answer::Body(stream) = &mut self.answer {
            stream.reserve_capacity(body.len());
            // A stream that was reset has no room, either.
            if stream.capacity() < body.len() || stream.send_data(body.clone(), true).is_err() {
                return Err(body);
            }
            self.answer = Answer::Over;
        }
        Ok(())
    }

    pub(super) fn trailers(&mut self, trailers: HeaderMap) -> Result<(), Gone> {
        match std::mem::replace(&mut self.answer, Answer::Over) {
            Answer::Body(mut stream) => stream.send_trailers(trailers).map_err(|_| Gone),
            Answer::Over => Ok(()),
            Answer::Head(_) => Err(Gone),
        }
    }

    pub(super) fn has_answered(&self) -> bool {
        !matches!(self.answer, Answer::Head(_))
    }

    /// The client must notice that the answer is not whole.
    pub(in crate::accept) fn abort(self) {
        match self.answer {
            Answer::Head(mut answer) => answer.send_reset(Reason::INTERNAL_ERROR),
            Answer::Body(mut stream) => stream.send_reset(Reason::INTERNAL_ERROR),
            Answer::Over => {}
        }
    }

    pub(in crate::accept) async fn finish(mut self) {
        match &mut self.answer {
            Answer::Body(stream) => {
                if stream.send_data(Bytes::new(), true).is_err() {
                    return;
                }
            }
            Answer::Head(answer) => return answer.send_reset(Reason::INTERNAL_ERROR),
            Answer::Over => {}
        }
        // A client in the middle of its upload gets to read the answer; then the library says that the rest is not wanted.
        self.continue_due = false;
        let drain =
            async { while !self.request.is_end_stream() && matches!(self.body().await, Ok(Some(_))) {} };
        let _ = timeout(DRAIN, drain).await;
    }
}

fn response(status: StatusCode, mut fields: HeaderMap) -> Response<()> {
    for name in &OF_CONNECTIONS {
        fields.remove(name);
    }
    // Another one in each answer: in the client's table it would only push out what comes again (RFC 7541 §6.2.3).
    if let Some(id) = fields.get_mut("x-request-id") {
        id.set_sensitive(true);
    }
    let mut response = Response::new(());
    (*response.status_mut(), *response.headers_mut()) = (status, fields);
    response
}
