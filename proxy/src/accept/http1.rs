//! The life of an HTTP/1 connection: idle → head → (refused | answered at once | served) → idle …, one request at a time.
//!
//! Answers of the express lane to requests that came together leave together: before anything that may wait.
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
    Arrival, Connection, Express, Service,
    bad::BadRequest,
    exchange::{self, Exchange, Http1, Reusable},
    head::{self, Framing, Head, Progress},
    http2,
    idle::Idle,
    io::FrontIo,
    listener::Listener,
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Answers to pipelined requests leave together up to this.
const TOGETHER: usize = 16 << 10;
/// Of a refused request's first line, for the log.
const LINE_SHOWN: usize = 512;

/// What a connection turned out to bring.
#[allow(clippy::large_enum_variant, reason = "it lives for one step, and a box would cost each request one")]
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
) {
    let service = &*listener.service;
    let stop = &connection.stop;
    let mut idle = Idle::new(stop.clone());
    let mut quick = Quick::<S>(Vec::new());
    let mut bounds = listener.bounds();
    loop {
        listener.refresh(&mut bounds);
        if io.ahead().is_empty() {
            // A fresh connection has as long for its first head as a head has; a kept one may be idle.
            let is_fresh = connection.requests() == 0;
            let patience = if is_fresh { bounds.header_timeout } else { bounds.idle_timeout };
            if !quick.send(Bytes::new(), &mut io, service).await
                || !idle.bytes(patience, |cx| io.poll_fill(cx)).await
            {
                return io.close().await;
            }
        }
        let started = Instant::now();
        let mut complete = started;
        let mut seen = 0;
        let came = match head_in(&mut io, &connection, &bounds, &mut seen) {
            Some(came) => came,
            None if !quick.send(Bytes::new(), &mut io, service).await => return io.close().await,
            None => {
                let since = if connection.requests() == 0 { connection.opened } else { started };
                let rest = read_head(&mut io, &connection, &bounds, seen);
                let came = timeout_at((since + bounds.header_timeout).into(), rest).await;
                complete = Instant::now();
                came.unwrap_or(Came::Bad(BadRequest::HeadTimeout))
            }
        };
        let (head, asked) = match came {
            Came::Request(head, asked) => (head, asked),
            _ if !quick.send(Bytes::new(), &mut io, service).await => return io.close().await,
            Came::End => return io.close().await,
            Came::Preface => return Box::pin(http2::serve(io, connection, listener)).await,
            Came::Bad(bad) => return refuse(io, connection, &listener, bad, started).await,
        };
        let count = connection.count();
        let limit = bounds.requests_per_connection;
        let fault = io.begin(&head, &bounds);
        let last = !head.keep_alive || (limit > 0 && count >= limit);
        let arrival = Arrival {
            connection: connection.clone(),
            started,
            complete,
            wall: SystemTime::now(),
            version: head.version,
            refused: None,
            last,
            fault: fault.clone(),
        };
        let method = asked.method.clone();
        let mut begun = service.begin(asked, arrival);
        if head.framing == Framing::None && !head.may_switch {
            match service.express(begun, io.unsent()) {
                Ok(answer) => {
                    if quick.add(answer, &mut io, service).await && !stop.is_said() {
                        continue;
                    }
                    quick.send(Bytes::new(), &mut io, service).await;
                    return io.close().await;
                }
                Err(back) => begun = back,
            }
        }
        if !quick.send(Bytes::new(), &mut io, service).await {
            return io.close().await;
        }
        // The origin may take its time.
        io.hold_nothing();
        let http1 = Http1::new(io, head.version, &method, head.keep_alive);
        let exchange = Exchange::http1(http1, &method, head.version);
        let reused = service.serve(exchange, begun).await;
        if let Some(bad) = fault.get() {
            listener.counters.refuse(*bad);
        }
        let Some(Reusable(back)) = reused else { return };
        io = back;
        if last || stop.is_said() {
            return io.close().await;
        }
    }
}

/// Answers of the express lane that leave together.
struct Quick<S: Service>(Vec<S::Answered>);

/// Room for answers that is kept while a connection is idle.
const QUICK_KEPT: usize = 4;

impl<S: Service> Quick<S> {
    /// Takes another one, and sends them when it must not wait for the next. False: the connection ends here.
    async fn add(&mut self, answer: Express<S>, io: &mut FrontIo, service: &S) -> bool {
        self.0.push(answer.answered);
        if answer.body.is_empty() && !answer.closes && io.unsent().len() < TOGETHER {
            return !io.ahead().is_empty() || self.send(Bytes::new(), io, service).await;
        }
        self.send(answer.body, io, service).await && !answer.closes
    }

    /// Sends them, and `body` behind them. False: not all of it arrives. Which answers did is not known then, and none of
    /// them counts as whole.
    async fn send(&mut self, body: Bytes, io: &mut FrontIo, service: &S) -> bool {
        if self.0.is_empty() {
            return true;
        }
        let whole = io.send(body, b"").await.is_ok();
        self.0.drain(..).for_each(|answered| service.written(answered, whole));
        self.0.shrink_to(QUICK_KEPT);
        whole
    }
}

/// What the bytes that are here are the beginning of; `None` while that cannot be said.
fn head_in(io: &mut FrontIo, connection: &Connection, bounds: &Bounds, seen: &mut usize) -> Option<Came> {
    let bytes = io.ahead();
    let preface = bytes.len().min(PREFACE.len());
    let may_be_http2 = connection.tls.is_none() && connection.requests() == 0;
    if may_be_http2 && preface > 3 && bytes[..preface] == PREFACE[..preface] {
        return (preface == PREFACE.len()).then_some(Came::Preface);
    }
    match head::progress(bytes, *seen, bounds) {
        Progress::Complete { skip, len } => {
            let _ = bytes.split_to(skip);
            Some(match head::check(&bytes[..len], bounds) {
                Ok(head) => take_head(io, head, len),
                Err(bad) => Came::Bad(bad),
            })
        }
        Progress::Bad(bad) => Some(Came::Bad(bad)),
        Progress::Partial => {
            *seen = bytes.len();
            None
        }
    }
}

/// Reads until a head is complete or cannot become so.
async fn read_head(io: &mut FrontIo, connection: &Connection, bounds: &Bounds, mut seen: usize) -> Came {
    loop {
        if !matches!(io.fill().await, Ok(1..)) {
            return Came::End;
        }
        if let Some(came) = head_in(io, connection, bounds, &mut seen) {
            return came;
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
    match exchange::read(&bytes, head.fields) {
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
) {
    connection.count();
    listener.counters.refuse(bad);
    let ahead = io.ahead();
    let end = ahead.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(ahead.len());
    let arrival = Arrival {
        connection,
        started,
        complete: Instant::now(),
        wall: SystemTime::now(),
        version: Version::HTTP_11,
        refused: Some(bad),
        last: true,
        fault: Arc::default(),
    };
    let answer = listener.service.refuse(arrival, &ahead[..end.min(LINE_SHOWN)]);
    let _ = io.write_all(&answer).await;
    let _ = io.flush().await;
}
