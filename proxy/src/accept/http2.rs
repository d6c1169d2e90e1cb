//! The life of an HTTP/2 connection: handshake → streams, each a task → drained or idle → closed.
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

use http::{Method, Version};
use pingora::{
    protocols::{
        Digest, Stream,
        http::{
            ServerSession,
            v2::server::{H2Accept, H2Options, HttpSession, default_h2_options, handshake},
        },
    },
    server::ShutdownWatch,
};
use tokio::sync::Notify;
use weir_config::plan::Bounds;

use super::{
    Arrival, Connection, Service,
    exchange::Exchange,
    io::FrontIo,
    listener::{Listener, within},
    stream,
};

/// Streams that the library refused as malformed before the connection is dropped; an honest client sends none.
const REJECTED_MOST: usize = 32;
/// After GOAWAY and the last stream: for the client to say that it has understood.
const FAREWELL: Duration = Duration::from_millis(500);
/// Answer bytes buffered for a stream whose client reads slowly.
const SEND_BUFFER: usize = 256 << 10;

fn options(bounds: &Bounds) -> H2Options {
    let mut options = default_h2_options();
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
    mut stop: ShutdownWatch,
) {
    let bounds = listener.bounds();
    io.begin_frames();
    let io: Stream = io;
    let digest = Arc::new(Digest {
        ssl_digest: io.get_ssl_digest(),
        timing_digest: io.get_timing_digest(),
        proxy_digest: None,
        socket_digest: io.get_socket_digest(),
    });
    let opening = handshake(io, Some(options(&bounds)));
    let Some(Ok(mut streams)) = within(bounds.header_timeout, &mut stop, opening).await else {
        return;
    };
    let active = Arc::new(Active::default());
    let mut is_leaving = false;
    let mut rejected = 0;
    loop {
        let patience = if is_leaving { FAREWELL } else { bounds.idle_timeout };
        let idle = async {
            active.wait_for_none().await;
            tokio::time::sleep(patience).await;
        };
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop), if !is_leaving => {
                is_leaving = true;
                streams.graceful_shutdown();
                continue;
            }
            accepted = HttpSession::from_h2_conn(&mut streams, digest.clone()) => accepted,
            () = idle => {
                if is_leaving {
                    break;
                }
                is_leaving = true;
                streams.graceful_shutdown();
                continue;
            }
        };
        let session = match accepted {
            Ok(Some(H2Accept::Session(session))) => session,
            Ok(Some(H2Accept::Rejected)) => {
                listener.counters.streams_rejected.add();
                rejected += 1;
                if rejected > REJECTED_MOST {
                    break;
                }
                continue;
            }
            Ok(None) | Err(_) => break,
        };
        let count = connection.count();
        let limit = bounds.requests_per_connection;
        if limit > 0 && count >= limit && !is_leaving {
            is_leaving = true;
            streams.graceful_shutdown();
        }
        let guard = active.enter();
        let (connection, listener, stop) = (connection.clone(), listener.clone(), stop.clone());
        tokio::spawn(async move {
            one(session, connection, &listener, stop).await;
            drop(guard);
        });
    }
    // Dropping the connection fails what still runs; waiting for its end keeps the count of connections honest.
    drop(streams);
    active.wait_for_none().await;
}

/// Serves one stream.
async fn one<S: Service>(
    mut session: HttpSession,
    connection: Arc<Connection>,
    listener: &Listener<S>,
    stop: ShutdownWatch,
) {
    let bounds = listener.bounds();
    let refused = stream::check(session.req_header_mut(), &bounds).err();
    if let Some(bad) = refused {
        listener.counters.refuse(bad);
        // Pingora answers CONNECT before any hook could; the refusal is ours to word.
        if session.req_header().method == Method::CONNECT {
            session.req_header_mut().set_method(Method::GET);
        }
    }
    let arrival = Arrival {
        connection,
        started: Instant::now(),
        wall: SystemTime::now(),
        version: Version::HTTP_2,
        refused,
        last: false,
        fault: Arc::default(),
        stop: stop.clone(),
    };
    let (exchange, asked) = Exchange::http2(ServerSession::new_http2(session));
    let begun = listener.service.begin(asked, Arc::new(arrival));
    listener.service.serve(exchange, begun).await;
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
