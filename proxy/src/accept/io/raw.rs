//! The transport below the gate: TCP, perhaps under TLS; its last moments; and the timer of a side that does not move.

use std::{
    future::Future,
    io::{IoSlice, Result},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep},
};
use tokio_rustls::server::TlsStream;

use crate::accept::listener::Place;

/// How long a closed connection is read on, so that the last answer arrives; a round trip around the world and some.
const LINGER: Duration = Duration::from_secs(1);
/// How much is read on; a client that sends more than this after our FIN is not listening.
const LINGER_BYTES: usize = 1 << 20;

/// The transport.
#[derive(Debug, Default)]
pub(in crate::accept) enum Raw {
    /// Plain.
    Tcp(TcpStream),
    /// Under TLS, after the handshake.
    Tls(Box<TlsStream<TcpStream>>),
    /// Taken away.
    #[default]
    Gone,
}

impl Raw {
    /// The socket, while there is one.
    pub(super) fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(tcp) => Some(tcp),
            Self::Tls(tls) => Some(tls.get_ref().0),
            Self::Gone => None,
        }
    }

    /// Says FIN, and reads on in the background until the client does, or the linger is over.
    pub(super) fn linger(mut self, place: Place) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            let _ = tokio::time::timeout(LINGER, async {
                let _ = self.shutdown().await;
                let tcp = match &mut self {
                    Self::Tcp(tcp) => tcp,
                    Self::Tls(tls) => tls.get_mut().0,
                    Self::Gone => return,
                };
                let mut scratch = [0; 4096];
                let mut read = 0;
                while let Ok(more @ 1..) = tcp.read(&mut scratch).await
                    && read < LINGER_BYTES
                {
                    read += more;
                }
            })
            .await;
            drop(place);
        });
    }
}

impl AsyncRead for Raw {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_read(cx, buf),
            Self::Gone => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Raw {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_write(cx, bytes),
            Self::Gone => Poll::Ready(Ok(0)),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write_vectored(cx, parts),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_write_vectored(cx, parts),
            Self::Gone => Poll::Ready(Ok(0)),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_flush(cx),
            Self::Gone => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_shutdown(cx),
            Self::Gone => Poll::Ready(Ok(())),
        }
    }
}

/// Times one direction while it does not move.
#[derive(Debug, Default)]
pub(super) struct Stall(Option<(Instant, Pin<Box<Sleep>>)>);

impl Stall {
    /// The direction waits; ready when it has waited for so long. The first call starts the clock.
    pub(super) fn poll_expired(&mut self, patience: Duration, cx: &mut Context<'_>) -> Poll<()> {
        let (_, sleep) =
            self.0.get_or_insert_with(|| (Instant::now(), Box::pin(tokio::time::sleep(patience))));
        sleep.as_mut().poll(cx)
    }

    /// The direction moved; how long it had waited.
    pub(super) fn progress(&mut self) -> Duration {
        self.0.take().map_or(Duration::ZERO, |(since, _)| since.elapsed())
    }
}
