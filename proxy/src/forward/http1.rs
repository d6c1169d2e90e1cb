//! HTTP/1.1 as we speak it to a peer: one request out, one answer in, on any stream.
//!
//! The peer is not trusted: a head has a bound and one meaning, chunks are read strictly, and a byte behind the answer means
//! that the connection is never used again. What the head *says* is judged by [`super::response`]; here is where it ends.
//!
//! Writes are collected until [`Connection::flush`], so that a head and a small body leave in one packet. Reads may be
//! dropped and begun again. Clocks are the caller's.

use std::{
    io,
    mem::MaybeUninit,
    task::{Context, Waker},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING},
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{list, retry::Failure};
use crate::{
    chunked::Chunks,
    wire::{fields_len, put_chunk_line, put_fields},
};

/// The largest head of an answer; nginx's `proxy_buffer_size` is 8 KiB at most, and some frameworks set many cookies.
const HEAD_BYTES: usize = 64 << 10;
/// Fields of an answer.
const HEAD_FIELDS: usize = 128;
/// Read at once while a head is awaited: with a small body, most answers are one read.
const HEAD_READ: usize = 4 << 10;
/// Read at once of a body.
const BODY_READ: usize = 64 << 10;
/// With this much room left in a buffer, the next read goes there.
const ROOM: usize = 16 << 10;
/// Pieces from this size are written as they are; smaller ones are collected.
const COLLECT: usize = 8 << 10;

/// A connection to a peer, with one exchange on it.
#[derive(Debug)]
pub struct Connection<S> {
    stream: S,
    /// Of the request, what was not sent.
    unsent: BytesMut,
    /// Of the answer, what came and was not taken.
    ahead: BytesMut,
    /// How far `ahead` was searched for the end of a head.
    searched: usize,
    /// Whether a byte of an answer came.
    heard: bool,
    sending: Sending,
    reading: Reading,
    keep_alive: bool,
    trailers: Option<Box<HeaderMap>>,
}

/// How the request's body goes out.
#[derive(Debug)]
enum Sending {
    Length(u64),
    Chunked,
    Done,
    Tunnel,
}

/// Where the answer stands.
#[derive(Debug)]
enum Reading {
    Head,
    Length(u64),
    Chunked(Chunks),
    ToEnd,
    Tunnel,
    Done,
}

/// The head of an answer, as it came.
#[derive(Debug)]
pub struct Head {
    /// 100 to 999.
    pub status: StatusCode,
    /// 1.0 or 1.1.
    pub version: Version,
    /// In the order in which they came.
    pub headers: HeaderMap,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Over a stream on which nothing is under way.
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            unsent: BytesMut::new(),
            ahead: BytesMut::new(),
            searched: 0,
            heard: false,
            sending: Sending::Done,
            reading: Reading::Head,
            keep_alive: false,
            trailers: None,
        }
    }

    /// Begins the request; `headers` say how its body is framed: a length, `chunked`, or none.
    pub fn request(&mut self, method: &Method, target: &str, headers: &HeaderMap) {
        self.sending = match headers.get(CONTENT_LENGTH) {
            _ if headers.contains_key(TRANSFER_ENCODING) => Sending::Chunked,
            Some(length) => match length.to_str().ok().and_then(|length| length.parse().ok()) {
                None | Some(0) => Sending::Done,
                Some(length) => Sending::Length(length),
            },
            None => Sending::Done,
        };
        let out = &mut self.unsent;
        out.reserve(method.as_str().len() + target.len() + fields_len(headers) + 16);
        out.put_slice(method.as_str().as_bytes());
        out.put_u8(b' ');
        out.put_slice(target.as_bytes());
        out.put_slice(b" HTTP/1.1\r\n");
        put_fields(out, headers);
        out.put_slice(b"\r\n");
    }

    /// Adds a piece of the request's body, or of a tunnel. An empty one is nothing.
    ///
    /// Errors: what the stream says; a piece beyond the length that was announced.
    pub async fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        if piece.is_empty() {
            return Ok(());
        }
        let chunked = match &mut self.sending {
            Sending::Length(left) => {
                *left = left
                    .checked_sub(piece.len() as u64)
                    .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "more body than announced"))?;
                false
            }
            Sending::Chunked => true,
            Sending::Tunnel => false,
            Sending::Done => {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "a body that was not announced"));
            }
        };
        if chunked {
            put_chunk_line(&mut self.unsent, piece.len());
        }
        if piece.len() < COLLECT {
            self.unsent.put_slice(piece);
        } else {
            self.send().await?;
            self.stream.write_all(piece).await?;
        }
        if chunked {
            self.unsent.put_slice(b"\r\n");
        }
        Ok(())
    }

    /// Ends the request's body and sends what was collected.
    ///
    /// Errors: what the stream says; a body that is shorter than announced.
    pub async fn finish(&mut self) -> io::Result<()> {
        match std::mem::replace(&mut self.sending, Sending::Done) {
            Sending::Chunked => self.unsent.put_slice(b"0\r\n\r\n"),
            Sending::Length(1..) => {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "less body than announced"));
            }
            Sending::Length(0) | Sending::Done | Sending::Tunnel => {}
        }
        self.flush().await
    }

    /// Sends what was collected.
    ///
    /// Errors: what the stream says.
    pub async fn flush(&mut self) -> io::Result<()> {
        self.send().await?;
        self.stream.flush().await
    }

    async fn send(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.unsent).await?;
        self.unsent.clear();
        Ok(())
    }

    /// Reads the next head: an interim one, or the final one.
    ///
    /// Errors: [`Failure::BadAnswer`] for what is no head of HTTP/1, or too large a one; [`Failure::Reset`].
    pub async fn head(&mut self) -> Result<Head, Failure> {
        loop {
            if let Some(length) = self.head_end()? {
                self.searched = 0;
                return self.parse(length);
            }
            self.fill(HEAD_READ).await?;
        }
    }

    /// Where the head ends, if it came; what cannot become one is not waited for.
    fn head_end(&mut self) -> Result<Option<usize>, Failure> {
        const LINE: &[u8] = b"HTTP/1.";
        let begins = self.ahead.len().min(LINE.len());
        if self.ahead[..begins] != LINE[..begins] {
            return Err(Failure::BadAnswer);
        }
        // Looked at once: an answer that drips in is not searched anew for every byte.
        let from = self.searched.saturating_sub(2);
        for (at, _) in self.ahead.iter().enumerate().skip(from).filter(|(_, byte)| **byte == b'\n') {
            let rest = &self.ahead[at + 1..];
            let line = usize::from(rest.first() == Some(&b'\r'));
            if rest.get(line) == Some(&b'\n') {
                return Ok(Some(at + 1 + line + 1));
            }
        }
        self.searched = self.ahead.len();
        if self.ahead.len() > HEAD_BYTES { Err(Failure::BadAnswer) } else { Ok(None) }
    }

    fn parse(&mut self, length: usize) -> Result<Head, Failure> {
        if length > HEAD_BYTES {
            return Err(Failure::BadAnswer);
        }
        let bytes = self.ahead.split_to(length).freeze();
        let mut fields = [MaybeUninit::uninit(); HEAD_FIELDS];
        let mut response = httparse::Response::new(&mut []);
        let mut rules = httparse::ParserConfig::default();
        // RFC 9112 §5.1: white space before the colon of an answer is removed, and not refused.
        rules.allow_spaces_after_header_name_in_responses(true);
        match rules.parse_response_with_uninit_headers(&mut response, &bytes, &mut fields) {
            Ok(httparse::Status::Complete(end)) if end == bytes.len() => {}
            _ => return Err(Failure::BadAnswer),
        }
        let status =
            response.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(Failure::BadAnswer)?;
        let version = if response.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
        let mut headers = HeaderMap::with_capacity(response.headers.len() + 4);
        for field in response.headers.iter() {
            let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Failure::BadAnswer)?;
            let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value))
                .map_err(|_| Failure::BadAnswer)?;
            headers.append(name, value);
        }
        let says =
            |word: &[u8]| list::elements(&headers, CONNECTION).any(|said| said.eq_ignore_ascii_case(word));
        self.keep_alive = if version == Version::HTTP_11 { !says(b"close") } else { says(b"keep-alive") };
        Ok(Head { status, version, headers })
    }

    /// Says how the body of the final head ends; `headers` are those that [`super::response::Answer::check`] let pass.
    pub fn expect_body(&mut self, method: &Method, status: StatusCode, headers: &HeaderMap) {
        let bodiless =
            *method == Method::HEAD || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        self.reading = match length {
            _ if bodiless => Reading::Done,
            _ if headers.contains_key(TRANSFER_ENCODING) => Reading::Chunked(Chunks::with_trailers(u64::MAX)),
            Some(0) => Reading::Done,
            Some(length) => Reading::Length(length),
            None => Reading::ToEnd,
        };
    }

    /// From here on both directions carry another protocol, to the end of the connection.
    pub fn open_tunnel(&mut self) {
        (self.sending, self.reading) = (Sending::Tunnel, Reading::Tunnel);
    }

    /// The next piece of the body, never empty; `None` at its end.
    ///
    /// Errors: [`Failure::Reset`] when it ends before its end, [`Failure::BadAnswer`] when its coding is broken.
    pub async fn body(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            match &mut self.reading {
                Reading::Done | Reading::Head => return Ok(None),
                Reading::ToEnd | Reading::Tunnel => {
                    if self.ahead.is_empty() && self.fill_or_end(BODY_READ).await? == 0 {
                        self.reading = Reading::Done;
                        self.keep_alive = false;
                        return Ok(None);
                    }
                    return Ok(Some(self.ahead.split().freeze()));
                }
                Reading::Length(left) => {
                    let left = *left;
                    if self.ahead.is_empty() {
                        self.fill(usize::try_from(left).unwrap_or(BODY_READ).min(BODY_READ)).await?;
                    }
                    let (piece, left) = take(&mut self.ahead, left);
                    self.reading = if left == 0 { Reading::Done } else { Reading::Length(left) };
                    return Ok(Some(piece));
                }
                Reading::Chunked(chunks) => {
                    let data = chunks.data_left();
                    if data > 0 && !self.ahead.is_empty() {
                        let (piece, _) = take(&mut self.ahead, data);
                        chunks.take(&piece).map_err(|_| Failure::BadAnswer)?;
                        self.look_for_end();
                        return Ok(Some(piece));
                    }
                    let framing = chunks.take_framing(&self.ahead).map_err(|_| Failure::BadAnswer)?;
                    self.ahead.advance(framing);
                    if chunks.is_done() {
                        self.trailers = trailers(chunks.trailers()).map(Box::new);
                        self.reading = Reading::Done;
                    } else if self.ahead.is_empty() {
                        self.fill(BODY_READ).await?;
                    }
                }
            }
        }
    }

    /// What followed the body, once.
    pub fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.trailers.take().map(|trailers| *trailers)
    }

    /// Whether the end of the chunks has come with the last piece: the peer is free then, before anybody has taken that.
    fn look_for_end(&mut self) {
        let Reading::Chunked(chunks) = &mut self.reading else { return };
        let mut rest = chunks.clone();
        // What is wrong with it is for the next read to say.
        let Ok(framing) = rest.take_framing(&self.ahead) else { return };
        // Trailers are for who asks behind the last piece.
        if rest.is_done() && rest.trailers().is_empty() {
            self.ahead.advance(framing);
            self.reading = Reading::Done;
        }
    }

    /// Whether all of the answer was read.
    #[must_use]
    pub fn is_read(&self) -> bool {
        matches!(self.reading, Reading::Done)
    }

    /// Whether a byte of an answer came: without one, a connection that broke may have been closed before our request.
    #[must_use]
    pub fn has_heard(&self) -> bool {
        self.heard
    }

    /// Whether an answer is there already, as far as can be said without waiting.
    ///
    /// Asked at the end of a request's body: a peer that answered before may take what it did not read for a request.
    pub fn has_begun(&mut self) -> bool {
        if !self.ahead.is_empty() {
            return true;
        }
        let read = std::pin::pin!(self.fill_or_end(HEAD_READ));
        // The next read asks to be woken again.
        read.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    /// The stream, if the next request may go out on it: both messages are whole, nothing came behind, nobody said close.
    #[must_use]
    pub fn into_reusable(self) -> Option<S> {
        let whole = matches!((&self.sending, &self.reading), (Sending::Done, Reading::Done));
        (whole && self.keep_alive && self.ahead.is_empty() && self.unsent.is_empty()).then_some(self.stream)
    }

    /// Reads more; the end is an error.
    async fn fill(&mut self, most: usize) -> Result<(), Failure> {
        if self.fill_or_end(most).await? == 0 { Err(Failure::Reset) } else { Ok(()) }
    }

    async fn fill_or_end(&mut self, most: usize) -> Result<usize, Failure> {
        // A piece that waits for its reader keeps the whole buffer alive. With a new one for each read, an answer that drips
        // would hold 64 KiB for every few bytes.
        if !self.ahead.try_reclaim(most) && self.ahead.capacity() - self.ahead.len() < most.min(ROOM) {
            self.ahead.reserve(most);
        }
        let read = self.stream.read_buf(&mut self.ahead).await.map_err(|_| Failure::Reset)?;
        self.heard |= read > 0;
        Ok(read)
    }
}

/// At most `most` bytes from the front of `ahead`, and how many are missing to `most`.
fn take(ahead: &mut BytesMut, most: u64) -> (Bytes, u64) {
    let here = usize::try_from(most).unwrap_or(usize::MAX).min(ahead.len());
    (ahead.split_to(here).freeze(), most - here as u64)
}

/// The fields of trailer lines, which [`Chunks`] found to be such.
fn trailers(lines: &[u8]) -> Option<HeaderMap> {
    let mut fields = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()) {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        fields.append(name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?);
    }
    (!fields.is_empty()).then_some(fields)
}

#[cfg(test)]
mod tests;
