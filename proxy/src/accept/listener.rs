//! A listening socket: accepts while there is room, and ends when all its connections have.
//!
//! Room is asked for *before* `accept`, so that when the listener is full new clients wait in the kernel's queue, where they
//! cost us nothing. When the process is out of descriptors the loop pauses instead of spinning.
//!
//! Stop: the socket closes at once, idle connections close at once, requests in flight finish, and then [`serve`] returns.

use std::{
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use ipnet::IpNet;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc},
    time::{sleep, timeout},
};
use weir_config::plan::Bounds;

use super::{
    Connection, Service, TlsInfo,
    counters::Counters,
    handshake::NoHandshake,
    http1, http2,
    io::{FrontIo, Raw},
    proxy_protocol,
    stop::Stop,
    tls::Tls,
};

/// Clients that the kernel lets wait; it caps the number itself (net.core.somaxconn).
const BACKLOG: i32 = 4096;
/// After an accept that failed for want of descriptors or memory: long enough not to spin, short enough to recover within a second.
const PAUSE: Duration = Duration::from_millis(100);

/// When we stop, for bytes that have arrived and not been heard of: closing on them would reset their client.
pub(super) const LAST_LOOK: Duration = Duration::from_millis(50);

/// What may change while a listener runs: swapped whole at a reload, and read again by every request.
#[derive(Debug)]
pub struct Settings {
    /// The listener's bounds. `body_bytes` must be the largest that any route allows: routes are known only later.
    pub bounds: Arc<Bounds>,
    /// TLS, when the socket speaks it. Takes effect for new connections.
    pub tls: Option<Arc<Tls>>,
    /// The hops that may connect, where every connection begins with a PROXY header.
    pub hops: Option<Arc<[IpNet]>>,
}

/// One listener as its tasks share it.
pub struct Listener<S> {
    /// Its address in the plan, by which its words are found there.
    pub address: SocketAddr,
    /// See there.
    pub settings: ArcSwap<Settings>,
    /// What serves the requests.
    pub service: Arc<S>,
    /// What it counts.
    pub counters: Arc<Counters>,
}

impl<S> Listener<S> {
    pub(super) fn bounds(&self) -> Arc<Bounds> {
        self.settings.load().bounds.clone()
    }

    /// Those in force now, for whoever knows others. Held anew only if they are: the count of who holds them would be
    /// written to by every request.
    pub(super) fn refresh(&self, bounds: &mut Arc<Bounds>) {
        let settings = self.settings.load();
        if !Arc::ptr_eq(bounds, &settings.bounds) {
            bounds.clone_from(&settings.bounds);
        }
    }
}

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
pub struct BindError {
    /// Which.
    pub address: SocketAddr,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// Opens the socket of a listener.
///
/// Shape:  SO_REUSEADDR, so that a restart need not wait for old connections; an IPv6 address serves IPv6 only, so that
///         `0.0.0.0:80` and `[::]:80` can stand side by side, as in nginx. Needs a tokio runtime.
/// Errors: [`BindError`] with the address.
pub fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    let open = || {
        let socket = bound(address)?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    open().map_err(|source| BindError { address, source })
}

/// Whether [`bind`] could open this socket; nobody can connect meanwhile.
///
/// Errors: [`BindError`] with the address.
pub fn try_bind(address: SocketAddr) -> Result<(), BindError> {
    bound(address).map(drop).map_err(|source| BindError { address, source })
}

fn bound(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(address))?;
    Ok(socket)
}

/// Accepts on `socket` until the stop, and returns when the last connection is done.
///
/// The caller bounds the end by dropping the future, which leaves the remaining connections to their tasks.
pub async fn serve<S: Service>(listener: Arc<Listener<S>>, socket: TcpListener, stop: Stop) {
    let (alive, mut all_done) = mpsc::channel(1);
    let room = Arc::new(Room::default());
    let begin = |accepted| {
        let place = Place::take(&listener.counters, &room, &alive);
        listener.counters.accepted.add();
        tokio::spawn(connection(listener.clone(), accepted, place, stop.clone()));
    };
    let mut stopped = stop.clone();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stopped.wait() => break,
            accepted = accept(&listener, &room, &socket) => accepted,
        };
        begin(accepted);
    }
    close(socket, || !room.is_full(listener.bounds().connections), begin);
    drop(alive);
    // Nothing is ever sent: the channel ends when the last place is given back.
    let _ = all_done.recv().await;
}

/// Closes the socket; whoever is in the kernel's queue has connected, and would be reset with it, so they begin first.
fn close(socket: TcpListener, has_room: impl Fn() -> bool, begin: impl Fn((TcpStream, SocketAddr))) {
    // The runtime may not have heard of them yet; the system call knows.
    let Ok(socket) = socket.into_std() else { return };
    while has_room()
        && let Ok((tcp, peer)) = socket.accept()
    {
        if let Ok(tcp) = tcp.set_nonblocking(true).and_then(|()| TcpStream::from_std(tcp)) {
            begin((tcp, peer));
        }
    }
}

/// The next connection, once there is room for it.
async fn accept<S>(listener: &Listener<S>, room: &Room, socket: &TcpListener) -> (TcpStream, SocketAddr) {
    let mut is_paused = false;
    loop {
        if room.is_full(listener.bounds().connections) {
            listener.counters.full.add();
            room.wait(|| listener.bounds().connections).await;
        }
        match socket.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                listener.counters.accept_failed.add();
                // ENFILE 23, EMFILE 24, ENOBUFS 105, ENOMEM 12; every other error is about the one client that left.
                if matches!(error.raw_os_error(), Some(12 | 23 | 24 | 105)) {
                    if !std::mem::replace(&mut is_paused, true) {
                        tracing::warn!(%error, "out of descriptors or memory, new clients wait");
                    }
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

/// One connection from its accept to its end.
async fn connection<S: Service>(
    listener: Arc<Listener<S>>,
    (mut tcp, mut peer): (TcpStream, SocketAddr),
    place: Place,
    mut stop: Stop,
) {
    let opened = Instant::now();
    let Ok(mut local) = tcp.local_addr() else { return };
    // Without it the last packet of an answer may wait for the client's delayed ACK.
    let _ = tcp.set_nodelay(true);
    let settings = listener.settings.load_full();
    if let Some(hops) = &settings.hops {
        let is_trusted = hops.iter().any(|hop| hop.contains(&peer.ip().to_canonical()));
        let reading = async { if is_trusted { proxy_protocol::read(&mut tcp).await.ok() } else { None } };
        match within(settings.bounds.header_timeout, &mut stop, reading).await.flatten() {
            Some(Some(ends)) => (peer, local) = ends,
            Some(None) => {}
            None => {
                listener.counters.hops_refused.add();
                return;
            }
        }
    }
    let (raw, tls, speaks_http2) = match &settings.tls {
        None => (Raw::Tcp(tcp), None, false),
        Some(tls) => {
            let handshake = Box::pin(tls.accept(tcp));
            let stream = match within(settings.bounds.header_timeout, &mut stop, handshake).await {
                Some(Ok(stream)) => stream,
                failed => {
                    let problem = failed.and_then(Result::err);
                    let reason = problem.as_ref().map_or(NoHandshake::Timeout, NoHandshake::from);
                    listener.counters.failed_handshake(reason);
                    let problem = problem.as_ref().map(tracing::field::display);
                    tracing::debug!(listener = %listener.address, %peer, reason = reason.word(), problem, "no TLS handshake");
                    return;
                }
            };
            let session = stream.get_ref().1;
            let info = TlsInfo {
                version: session.protocol_version().and_then(|version| version.as_str()).unwrap_or(""),
                sni: session.server_name().map(str::to_ascii_lowercase),
            };
            let speaks_http2 = session.alpn_protocol() == Some(b"h2");
            (Raw::Tls(Box::new(stream)), Some(info), speaks_http2)
        }
    };
    let connection =
        Connection { peer, local, tls, listener: listener.address, opened, requests: 0.into(), stop };
    let io = Box::new(FrontIo::new(raw, settings.bounds.clone(), place));
    if speaks_http2 {
        Box::pin(http2::serve(io, Arc::new(connection), listener)).await;
    } else {
        http1::serve(io, Arc::new(connection), listener).await;
    }
}

/// Waits for a client that has asked for nothing yet: so long, and hardly longer when we stop.
pub(super) async fn within<T>(
    patience: Duration,
    stop: &mut Stop,
    came: impl Future<Output = T>,
) -> Option<T> {
    let mut came = pin!(timeout(patience, came));
    tokio::select! {
        biased;
        came = &mut came => return came.ok(),
        () = stop.wait() => {}
    }
    timeout(LAST_LOOK, came).await.ok()?.ok()
}

/// How many connections there are, and who waits for fewer.
#[derive(Debug, Default)]
struct Room {
    taken: AtomicUsize,
    freed: Notify,
}

impl Room {
    fn is_full(&self, most: usize) -> bool {
        self.taken.load(Ordering::Acquire) >= most.max(1)
    }

    /// Waits for room; asks for the bound again from time to time, as a reload may raise it.
    async fn wait(&self, most: impl Fn() -> usize) {
        while self.is_full(most()) {
            let _ = timeout(Duration::from_secs(1), self.freed.notified()).await;
        }
    }
}

/// One connection's place among the listener's; given back when the last clone is dropped.
#[derive(Debug, Clone)]
pub(super) struct Place(#[allow(dead_code, reason = "held for its drop")] Arc<Held>);

#[derive(Debug)]
struct Held {
    counters: Arc<Counters>,
    room: Arc<Room>,
    _alive: mpsc::Sender<()>,
}

impl Place {
    fn take(counters: &Arc<Counters>, room: &Arc<Room>, alive: &mpsc::Sender<()>) -> Self {
        counters.active.add();
        room.taken.fetch_add(1, Ordering::AcqRel);
        Self(Arc::new(Held { counters: counters.clone(), room: room.clone(), _alive: alive.clone() }))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.counters.active.sub();
        self.room.taken.fetch_sub(1, Ordering::AcqRel);
        self.room.freed.notify_one();
    }
}
