//! The life of an HTTP/1 connection: idle → head → (refused | served) → idle …, one request at a time.
//!
//! Between requests no buffer is held. After a refusal, or an answer that closes, nothing
//! that the client has sent beyond is ever looked at.

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use bytes::{Bytes, BytesMut};
use http::Version;
use tokio::{io::AsyncWriteExt, time::timeout_at};
use weir_config::plan::Bounds;

use super::{
    Arrival, Connection, Service, Stop,
    bad::BadRequest,
    exchange::{self, Exchange, Http1, Reusable},
    head::{self, Head, Progress},
    http2,
    io::FrontIo,
    listener::{Listener, within},
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Of a refused request's first line, for the log.
const LINE_SHOWN: usize = 512;

/// What a connection turned out to bring.
enum Came {
    /// A request that may be served: what the front made of its head, and the head.
    Request(Head, exchange::Head),
    /// One that may not.
    Bad(BadRequest),
    /// HTTP/2 by prior knowledge.
    Preface,
    /// Nothing more.
    End,
}

/// Serves until one side is done.
pub(super) async fn serve<S: Service>(
    mut io: Box<FrontIo>,
    connection: Arc<Connection>,
    listener: Arc<Listener<S>>,
    mut stop: Stop,
) {
    loop {
        let bounds = listener.bounds();
        if io.ahead().is_empty() {
            // A fresh connection has as long for its first head as a head has; a kept one may be idle.
            let is_fresh = connection.requests() == 0;
            let patience = if is_fresh { bounds.header_timeout } else { bounds.idle_timeout };
            if !matches!(within(patience, &mut stop, io.fill()).await, Some(Ok(1..))) {
                return io.close().await;
            }
        }
        let started = Instant::now();
        let deadline =
            if connection.requests() == 0 { connection.opened } else { started } + bounds.header_timeout;
        let came = match timeout_at(deadline.into(), read_head(&mut io, &connection, &bounds)).await {
            Ok(came) => came,
            Err(_late) => Came::Bad(BadRequest::HeadTimeout),
        };
        match came {
            Came::End => return io.close().await,
            Came::Preface => return Box::pin(http2::serve(io, connection, listener, stop)).await,
            Came::Bad(bad) => return refuse(io, connection, &listener, bad, started, stop).await,
            Came::Request(head, asked) => {
                let count = connection.count();
                let limit = bounds.requests_per_connection;
                let fault = io.begin(&head, bounds);
                let last = !head.keep_alive || (limit > 0 && count >= limit);
                let arrival = Arrival {
                    connection: connection.clone(),
                    started,
                    wall: SystemTime::now(),
                    version: head.version,
                    refused: None,
                    last,
                    fault: fault.clone(),
                    stop: stop.clone(),
                };
                let http1 = Http1::new(io, head.version, &asked.method, head.keep_alive);
                let exchange = Exchange::http1(http1, &asked, head.version);
                let reused = listener.service.serve(exchange, asked, Arc::new(arrival)).await;
                if let Some(bad) = fault.get() {
                    listener.counters.refuse(*bad);
                }
                let Some(Reusable(back)) = reused else { return };
                io = back;
                if last || *stop.borrow() {
                    return io.close().await;
                }
            }
        }
    }
}

/// Reads until a head is complete or cannot become so.
async fn read_head(io: &mut FrontIo, connection: &Connection, bounds: &Bounds) -> Came {
    let may_be_http2 = connection.tls.is_none() && connection.requests() == 0;
    let mut seen = 0;
    loop {
        let bytes = io.ahead();
        let preface = bytes.len().min(PREFACE.len());
        if may_be_http2 && preface > 3 && bytes[..preface] == PREFACE[..preface] {
            if preface == PREFACE.len() {
                return Came::Preface;
            }
        } else {
            match head::progress(bytes, seen, bounds) {
                Progress::Complete { skip, len } => {
                    let _ = bytes.split_to(skip);
                    return match head::check(&bytes[..len], bounds) {
                        Ok(head) => take_head(io, head, len),
                        Err(bad) => Came::Bad(bad),
                    };
                }
                Progress::Bad(bad) => return Came::Bad(bad),
                Progress::Partial => seen = bytes.len(),
            }
        }
        if !matches!(io.fill().await, Ok(1..)) {
            return Came::End;
        }
    }
}

/// Parts the head from what follows it.
fn take_head(io: &mut FrontIo, mut head: Head, len: usize) -> Came {
    let ahead = io.ahead();
    let came = ahead.split_to(len);
    if ahead.is_empty() {
        *ahead = BytesMut::new();
    }
    let bytes = head.rewritten.take().map_or_else(|| came.freeze(), Bytes::from);
    match exchange::read(&bytes) {
        Some(asked) => Came::Request(head, asked),
        // The check let something pass that is no head: the check is the one to mend.
        None => Came::Bad(BadRequest::BadLine),
    }
}

/// Answers what cannot be served, and closes; the connection lingers so that the answer arrives.
async fn refuse<S: Service>(
    mut io: Box<FrontIo>,
    connection: Arc<Connection>,
    listener: &Listener<S>,
    bad: BadRequest,
    started: Instant,
    stop: Stop,
) {
    connection.count();
    listener.counters.refuse(bad);
    let ahead = io.ahead();
    let end = ahead.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(ahead.len());
    let arrival = Arrival {
        connection,
        started,
        wall: SystemTime::now(),
        version: Version::HTTP_11,
        refused: Some(bad),
        last: true,
        fault: Arc::default(),
        stop,
    };
    let answer = listener.service.refuse(Arc::new(arrival), &ahead[..end.min(LINE_SHOWN)]);
    let _ = io.write_all(&answer).await;
    let _ = io.flush().await;
}
