//! The life of an HTTP/2 connection: handshake → streams, answered at once or each in a task → drained or idle → closed.
//!
//! The library (h2) owns frames, flow control and HPACK; here are its bounds, and the clocks it lacks. Floods of frames
//! and header blocks without end are cut below it, in [`super::frames`].

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use h2::{
    Reason, RecvStream,
    server::{Builder, SendResponse},
};
use http::{Method, Request, Version};
use tokio::sync::Notify;
use weir_config::plan::Bounds;

use super::{
    Arrival, Connection, Express, Service,
    bad::BadRequest,
    exchange::{Exchange, Gone, Head, Http2},
    io::FrontIo,
    listener::{Listener, within},
    stream,
};

/// Requests that break a rule before the connection is dropped, as it would be after the first in HTTP/1; an honest client
/// sends none.
const REFUSED_MOST: usize = 32;
/// After GOAWAY and the last stream: for the client to say that it has understood.
const FAREWELL: Duration = Duration::from_millis(500);
/// Answer bytes buffered for a stream whose client reads slowly.
const SEND_BUFFER: usize = 256 << 10;

fn options(bounds: &Bounds) -> Builder {
    let mut options = Builder::new();
    options
        .max_concurrent_streams(bounds.http2_streams)
        // Counted with 32 bytes a field (RFC 9113 §6.5.2), which the plan's bound on the wire form does not.
        .max_header_list_size(
            u32::try_from(bounds.head_bytes.len() + 32 * bounds.head_fields).unwrap_or(u32::MAX),
        )
        // 64 KiB a stream and 1 MiB a connection: what an upload may have in flight, and what it may cost us in memory.
        .initial_window_size(64 << 10)
        .initial_connection_window_size(1 << 20)
        .max_concurrent_reset_streams(20)
        .max_pending_accept_reset_streams(20)
        // Resets that the client provokes (CVE-2025-8671).
        .max_local_error_reset_streams(Some(100))
        .max_send_buffer_size(SEND_BUFFER);
    options
}

/// Serves until one side is done; the last stream ends before it returns.
pub(super) async fn serve<S: Service>(
    mut io: Box<FrontIo>,
    connection: Arc<Connection>,
    listener: Arc<Listener<S>>,
) {
    let mut stop = connection.stop.clone();
    let bounds = listener.bounds();
    let is_full = io.begin_frames();
    let options = options(&bounds);
    let opening = options.handshake::<_, Bytes>(io);
    let Some(Ok(mut streams)) = within(bounds.header_timeout, &mut stop, opening).await else {
        return;
    };
    let active = Arc::new(Active::default());
    let mut is_leaving = false;
    let mut refused = 0;
    loop {
        let patience = if is_leaving { FAREWELL } else { bounds.idle_timeout };
        let idle = async {
            active.wait_for_none().await;
            tokio::time::sleep(patience).await;
            // Streams end when the library has their last byte; the client may still be reading, in its own time.
            while is_full.load(Ordering::Relaxed) {
                tokio::time::sleep(FAREWELL).await;
            }
        };
        let accepted = tokio::select! {
            biased;
            () = stop.wait(), if !is_leaving => {
                is_leaving = true;
                streams.graceful_shutdown();
                continue;
            }
            accepted = streams.accept() => accepted,
            () = idle => {
                if is_leaving {
                    break;
                }
                is_leaving = true;
                streams.graceful_shutdown();
                continue;
            }
        };
        let Some(Ok((request, answer))) = accepted else { break };
        let count = connection.count();
        let limit = bounds.requests_per_connection;
        if limit > 0 && count >= limit && !is_leaving {
            is_leaving = true;
            streams.graceful_shutdown();
        }
        let stream = Stream::new(request, answer, &listener.bounds());
        if let Some(bad) = stream.refused {
            listener.counters.refuse(bad);
            refused += 1;
        }
        if let Some(rest) = stream.answer_at_once(connection.clone(), &listener) {
            let (guard, listener) = (active.enter(), listener.clone());
            tokio::spawn(async move {
                rest.serve(&listener).await;
                drop(guard);
            });
        }
        if refused > REFUSED_MOST {
            streams.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
        }
    }
    // Dropping the connection fails what still runs; waiting for its end keeps the count of connections honest.
    drop(streams);
    active.wait_for_none().await;
}

/// One request.
struct Stream {
    head: Head,
    exchange: Http2,
    refused: Option<BadRequest>,
}

impl Stream {
    fn new(request: Request<RecvStream>, answer: SendResponse<Bytes>, bounds: &Bounds) -> Self {
        let (mut head, body) = request.into_parts();
        let checked = stream::check(&mut head, bounds);
        let exchange = Http2::new(body, answer, &head.method, checked == Ok(true));
        Self { head: stream::head(head), exchange, refused: checked.err() }
    }

    /// Answers on the express lane what has no body, if the client's windows have room for the whole answer; what is left
    /// needs a task of its own.
    fn answer_at_once<S: Service>(
        self,
        connection: Arc<Connection>,
        listener: &Listener<S>,
    ) -> Option<Rest<S>> {
        let now = Instant::now();
        let arrival = Arrival {
            connection,
            started: now,
            complete: now,
            wall: SystemTime::now(),
            version: Version::HTTP_2,
            refused: self.refused,
            last: false,
            fault: Arc::default(),
        };
        let (mut exchange, service) = (self.exchange, &listener.service);
        let is_head = self.head.method == Method::HEAD;
        let begun = service.begin(self.head, arrival);
        if self.refused.is_some() || exchange.has_body() || exchange.is_connect() {
            return Some(Rest::General(Exchange::http2(exchange, is_head), begun));
        }
        let (status, fields, answer) = match service.express_head(begun) {
            Ok(answer) => answer,
            Err(begun) => return Some(Rest::General(Exchange::http2(exchange, is_head), begun)),
        };
        let whole = match exchange.head(status, fields, answer.body.is_empty()) {
            Err(Gone) => false,
            Ok(()) => match exchange.end_with(answer.body) {
                Ok(()) => true,
                Err(body) => return Some(Rest::Body(exchange, Express { body, ..answer })),
            },
        };
        service.written(answer.answered, whole);
        None
    }
}

/// What is left to do for a request, and may have to wait.
enum Rest<S: Service> {
    /// The general lane.
    General(Exchange, S::Begun),
    /// The body of an answer of the express lane.
    Body(Http2, Express<S>),
}

impl<S: Service> Rest<S> {
    async fn serve(self, listener: &Listener<S>) {
        match self {
            Self::General(exchange, begun) => _ = listener.service.serve(exchange, begun).await,
            Self::Body(mut exchange, answer) => {
                exchange.set_write_timeout(listener.bounds().send_timeout);
                let whole = exchange.write(answer.body).await.is_ok();
                listener.service.written(answer.answered, whole);
                if whole { exchange.finish().await } else { exchange.abort() }
            }
        }
    }
}

/// The streams being served.
#[derive(Default)]
struct Active {
    count: AtomicUsize,
    none: Notify,
}

struct Entered(Arc<Active>);

impl Active {
    fn enter(self: &Arc<Self>) -> Entered {
        self.count.fetch_add(1, Ordering::AcqRel);
        Entered(self.clone())
    }

    async fn wait_for_none(&self) {
        while self.count.load(Ordering::Acquire) != 0 {
            self.none.notified().await;
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.none.notify_one();
        }
    }
}
