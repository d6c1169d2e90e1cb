//! HTTP/1 as we speak it to a client: one head in, one body in, one answer out.
//!
//! Below is the connection with its gate and its clocks ([`FrontIo`]), above whoever answers. A head waits for the first
//! piece of its body, so that both leave in one packet; whoever has to wait for that piece flushes the head.

use bytes::{BufMut, Bytes};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
};
use tokio::time::timeout;

use super::{DRAIN, Gone, Head};
use crate::{
    accept::{head::fields::split, io::FrontIo},
    wire::{put_answer, put_chunk_line, put_fields},
};

/// An exchange on a connection of HTTP/1.
pub(in crate::accept) struct Http1 {
    io: Box<FrontIo>,
    version: Version,
    /// The request is a CONNECT: its 2xx opens a tunnel.
    is_connect: bool,
    /// Whether the connection lives on.
    keep_alive: bool,
    sending: Sending,
}

/// How the answer goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sending {
    /// Its final head is to come.
    Head,
    /// So many bytes of it are missing.
    Length(u64),
    Chunked,
    /// It ends with the connection.
    ToEnd,
    /// The connection belongs to another protocol.
    Tunnel,
    Done,
}

/// Reads a head that was checked and has so many fields, so that nothing in it can surprise; `None` if something does.
pub(in crate::accept) fn read(bytes: &Bytes, fields: usize) -> Option<Head> {
    let mut lines = split(bytes);
    let mut line = lines.next()?.split(|byte| *byte == b' ');
    let method = Method::from_bytes(line.next()?).ok()?;
    let target = bytes.slice_ref(line.next()?);
    let mut headers = HeaderMap::with_capacity(fields);
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        let value = line[colon + 1..].trim_ascii();
        headers.append(name, HeaderValue::from_maybe_shared(bytes.slice_ref(value)).ok()?);
    }
    Some(Head { method, target, headers })
}

impl Http1 {
    /// On a connection whose gate is set for this request's body.
    pub(in crate::accept) fn new(
        io: Box<FrontIo>,
        version: Version,
        method: &Method,
        keep_alive: bool,
    ) -> Self {
        Self { io, version, is_connect: *method == Method::CONNECT, keep_alive, sending: Sending::Head }
    }

    pub(super) fn is_connect(&self) -> bool {
        self.is_connect
    }

    pub(super) fn has_body(&self) -> bool {
        !self.io.is_at_end()
    }

    pub(super) async fn body(&mut self) -> Result<Option<Bytes>, Gone> {
        self.io.body().await.map_err(|_| Gone)
    }

    pub(super) async fn left(&mut self) {
        self.io.left().await;
    }

    pub(super) async fn interim(&mut self, status: StatusCode, fields: &HeaderMap) -> Result<(), Gone> {
        if self.has_answered() {
            return Ok(());
        }
        put_answer(self.io.unsent(), status, fields, None);
        self.flush().await
    }

    pub(super) async fn head(
        &mut self,
        status: StatusCode,
        fields: HeaderMap,
        end: bool,
    ) -> Result<(), Gone> {
        if self.has_answered() {
            return Err(Gone);
        }
        if status == StatusCode::SWITCHING_PROTOCOLS || (self.is_connect && status.is_success()) {
            self.keep_alive = false;
            put_answer(self.io.unsent(), status, &fields, None);
            self.io.open_tunnel().map_err(|_| Gone)?;
            self.sending = Sending::Tunnel;
            return self.flush().await;
        }
        let length = fields.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        self.sending = match length {
            _ if end => Sending::Done,
            _ if fields.contains_key(TRANSFER_ENCODING) => Sending::Chunked,
            Some(length) => Sending::Length(length),
            None => Sending::ToEnd,
        };
        self.keep_alive &= self.sending != Sending::ToEnd;
        let connection = if self.keep_alive { "keep-alive" } else { "close" };
        put_answer(self.io.unsent(), status, &fields, Some(connection));
        self.io.answer_begun();
        if end { self.flush().await } else { Ok(()) }
    }

    pub(super) async fn write(&mut self, piece: Bytes) -> Result<(), Gone> {
        let end: &[u8] = match &mut self.sending {
            Sending::Length(left) => {
                *left = left.checked_sub(piece.len() as u64).ok_or(Gone)?;
                b""
            }
            Sending::Chunked => {
                put_chunk_line(self.io.unsent(), piece.len());
                b"\r\n"
            }
            Sending::ToEnd | Sending::Tunnel => b"",
            // An answer that has no body, whatever somebody sends as such.
            Sending::Done => return Ok(()),
            Sending::Head => return Err(Gone),
        };
        self.io.send(piece, end).await.map_err(|_| Gone)
    }

    pub(super) async fn flush(&mut self) -> Result<(), Gone> {
        self.io.send(Bytes::new(), b"").await.map_err(|_| Gone)
    }

    /// Only chunks have room for them.
    pub(super) fn trailers(&mut self, trailers: &HeaderMap) {
        if self.sending == Sending::Chunked {
            let out = self.io.unsent();
            out.put_slice(b"0\r\n");
            put_fields(out, trailers);
            out.put_slice(b"\r\n");
            self.sending = Sending::Done;
        }
    }

    pub(super) fn close_after(&mut self) {
        self.keep_alive = false;
    }

    pub(super) fn has_answered(&self) -> bool {
        self.sending != Sending::Head
    }

    pub(super) async fn abort(self) {
        // Where its end is the answer's, a FIN would say that it is whole.
        if self.sending == Sending::ToEnd && self.version == Version::HTTP_10 {
            self.io.reset();
        } else {
            self.io.close().await;
        }
    }

    pub(super) async fn finish(mut self) -> Option<Box<FrontIo>> {
        match self.sending {
            Sending::Chunked => self.io.unsent().put_slice(b"0\r\n\r\n"),
            Sending::Head | Sending::Length(1..) => self.keep_alive = false,
            Sending::Length(0) | Sending::ToEnd | Sending::Tunnel | Sending::Done => {}
        }
        if self.flush().await.is_err() {
            return None;
        }
        if self.keep_alive && !self.io.is_at_end() {
            // What is left of the body would be taken for the next request.
            self.keep_alive = matches!(timeout(DRAIN, self.drain()).await, Ok(Ok(())));
        }
        if self.keep_alive && self.io.is_reusable() {
            return Some(self.io);
        }
        self.io.close().await;
        None
    }

    async fn drain(&mut self) -> Result<(), Gone> {
        while self.body().await?.is_some() {}
        Ok(())
    }
}
