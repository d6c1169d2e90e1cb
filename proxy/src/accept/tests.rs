//! The front on loopback, with a tiny edge behind it that answers by path.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod edge;
mod express;
mod fragments;
mod http1;
mod http2;
mod limits;

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};
use weir_config::plan::Bounds;

use self::edge::Edge;
use super::{
    counters::Counters,
    listener::{Listener, Settings, bind, serve},
    stop::{Stopper, stop},
    tls::Tls,
};

/// A running front.
struct Front {
    address: std::net::SocketAddr,
    listener: Arc<Listener<Edge>>,
    stop: Stopper,
    done: JoinHandle<()>,
}

impl Front {
    async fn start(change: impl FnOnce(&mut Bounds)) -> Self {
        Self::with_tls(change, None).await
    }

    async fn with_tls(change: impl FnOnce(&mut Bounds), tls: Option<Arc<Tls>>) -> Self {
        let mut bounds = Bounds::default();
        change(&mut bounds);
        let socket = bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = socket.local_addr().unwrap();
        let listener = Arc::new(Listener {
            address,
            settings: ArcSwap::from_pointee(Settings { bounds: Arc::new(bounds), tls, hops: None }),
            service: Arc::new(Edge::start()),
            counters: Arc::new(Counters::default()),
        });
        let (stop, stopped) = stop();
        let done = tokio::spawn(serve(listener.clone(), socket, stopped));
        Self { address, listener, stop, done }
    }

    async fn connect(&self) -> Client {
        Client(TcpStream::connect(self.address).await.unwrap())
    }

    /// Sends everything on a fresh connection and reads until it is closed.
    async fn exchange(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut client = self.connect().await;
        client.send(bytes).await;
        client.rest().await
    }

    fn refused(&self, word: &str) -> u64 {
        self.listener.counters.refused().find(|(bad, _)| bad.word() == word).unwrap().1
    }
}

/// A raw client.
struct Client(TcpStream);

impl Client {
    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Reads to the end of the connection, which must be a FIN within bounds.
    async fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        tokio::time::timeout(Duration::from_secs(10), self.0.read_to_end(&mut bytes))
            .await
            .expect("a close")
            .unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Reads one answer with Content-Length.
    async fn answer(&mut self) -> String {
        let mut bytes = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head
                    .to_ascii_lowercase()
                    .split_once("content-length: ")
                    .map_or(0, |(_, rest)| rest.lines().next().unwrap().parse().unwrap());
                if body.len() >= length {
                    return text;
                }
            }
            let mut byte = [0];
            let read = tokio::time::timeout(Duration::from_secs(10), self.0.read(&mut byte))
                .await
                .expect("an answer")
                .unwrap();
            assert_eq!(read, 1, "closed after {text:?}");
            bytes.push(byte[0]);
        }
    }
}

/// The statuses of the answers in what a connection brought.
fn statuses(text: &str) -> Vec<&str> {
    text.match_indices("HTTP/1.1 ").map(|(at, found)| &text[at + found.len()..at + found.len() + 3]).collect()
}
