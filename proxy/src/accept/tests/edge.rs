//! A tiny edge: Pingora's proxy with an answer for each path, and an upstream that knows websockets.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use pingora::{
    Error, ErrorSource, Result,
    apps::HttpServerApp,
    http::ResponseHeader,
    protocols::{Stream, http::ServerSession},
    proxy::{FailToProxy, HttpProxy, ProxyHttp, Session, http_proxy},
    server::configuration::ServerConf,
    upstreams::peer::HttpPeer,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::Semaphore,
};

use crate::accept::{Arrival, BadRequest, Service};

tokio::task_local! {
    /// Pingora's hooks take no argument of ours.
    static ARRIVAL: Arc<Arrival>;
}

pub(super) struct Edge {
    proxy: Arc<HttpProxy<Hooks>>,
    pub(super) shared: Arc<Shared>,
}

/// What tests look at, and act on.
pub(super) struct Shared {
    /// Requests that hooks saw.
    pub(super) served: AtomicUsize,
    /// `/wait` answers once for each permit.
    pub(super) may_answer: Semaphore,
    /// Requests that wait there.
    pub(super) waiting: Semaphore,
}

impl Edge {
    pub(super) async fn start() -> Self {
        let shared = Arc::new(Shared {
            served: AtomicUsize::new(0),
            may_answer: Semaphore::new(0),
            waiting: Semaphore::new(0),
        });
        let hooks = Hooks { upstream: upstream().await, shared: shared.clone() };
        Self { proxy: Arc::new(http_proxy(&Arc::new(ServerConf::default()), hooks)), shared }
    }

    pub(super) fn served(&self) -> usize {
        self.shared.served.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Service for Edge {
    fn refuse(&self, arrival: Arc<Arrival>, line: &[u8]) -> Bytes {
        let bad = arrival.refused.unwrap();
        let body = format!("{bad} {}", line.escape_ascii());
        format!(
            "HTTP/1.1 {} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            bad.status(),
            body.len()
        )
        .into()
    }

    async fn serve(&self, session: ServerSession, arrival: Arc<Arrival>) -> Option<Stream> {
        let (_, stop) = tokio::sync::watch::channel(false);
        let reused = ARRIVAL.scope(arrival, self.proxy.process_new_http(session, &stop)).await;
        reused.map(|reused| reused.consume().0)
    }
}

struct Hooks {
    upstream: SocketAddr,
    shared: Arc<Shared>,
}

async fn answer(session: &mut Session, status: u16, body: Bytes) -> Result<bool> {
    let mut head = ResponseHeader::build(status, Some(2))?;
    head.insert_header("content-length", body.len())?;
    session.write_response_header(Box::new(head), false).await?;
    session.write_response_body(Some(body), true).await?;
    Ok(true)
}

#[async_trait]
impl ProxyHttp for Hooks {
    type CTX = Option<Arc<Arrival>>;

    fn new_ctx(&self) -> Self::CTX {
        ARRIVAL.try_with(Arc::clone).ok()
    }

    async fn request_filter(&self, session: &mut Session, arrival: &mut Self::CTX) -> Result<bool> {
        let arrival = arrival.clone().unwrap();
        self.shared.served.fetch_add(1, Ordering::SeqCst);
        if arrival.is_closing() {
            session.set_keepalive(None);
        }
        if let Some(bad) = arrival.refused {
            return answer(session, bad.status(), bad.word().into()).await;
        }
        match session.req_header().uri.path() {
            "/echo" => {
                let mut body = Vec::new();
                while let Some(part) = session.read_request_body().await.map_err(|error| error.into_down())? {
                    body.extend_from_slice(&part);
                }
                answer(session, 200, body.into()).await
            }
            "/head" => {
                let head = session.req_header();
                let text = format!("{} {} {:?}", head.method, head.uri, head.headers);
                answer(session, 200, text.into()).await
            }
            "/wait" => {
                self.shared.waiting.add_permits(1);
                self.shared.may_answer.acquire().await.unwrap().forget();
                if arrival.is_closing() {
                    session.set_keepalive(None);
                }
                answer(session, 200, Bytes::from_static(b"waited")).await
            }
            "/big" => answer(session, 200, vec![b'x'; 64 << 20].into()).await,
            "/tls" => answer(session, 200, format!("{:?}", arrival.connection.tls).into()).await,
            "/ignore" => answer(session, 200, Bytes::from_static(b"ignored")).await,
            _ => Ok(false),
        }
    }

    async fn upstream_peer(&self, _: &mut Session, _: &mut Self::CTX) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.upstream, false, String::new())))
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        arrival: &mut Self::CTX,
    ) -> FailToProxy {
        let fault = arrival.as_ref().and_then(|arrival| arrival.fault());
        if fault.is_none() && error.esource() == &ErrorSource::Downstream {
            return FailToProxy { error_code: 499, can_reuse_downstream: false };
        }
        let code = fault.map_or(502, BadRequest::status);
        let _ = session.respond_error(code).await;
        FailToProxy { error_code: code, can_reuse_downstream: false }
    }
}

/// Answers every request with 200 and its own head; with 101 and an echo when it is asked for a websocket at `/chat`.
async fn upstream() -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = socket.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => return,
                    }
                }
                if head.starts_with(b"GET /chat ")
                    && String::from_utf8_lossy(&head).to_ascii_lowercase().contains("upgrade: websocket")
                {
                    let switch = b"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n";
                    stream.write_all(switch).await.unwrap();
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                    return;
                }
                let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
                let is_chunked = text.contains("\r\ntransfer-encoding: chunked");
                let length = text.split_once("\r\ncontent-length: ").map_or(0, |(_, rest)| {
                    rest.lines().next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
                });
                let mut body = Vec::new();
                while if is_chunked { !body.ends_with(b"0\r\n\r\n") } else { body.len() < length } {
                    match stream.read_u8().await {
                        Ok(byte) => body.push(byte),
                        Err(_) => return,
                    }
                }
                let answer =
                    format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", head.len());
                let _ = stream.write_all(&[answer.as_bytes(), &head].concat()).await;
            });
        }
    });
    address
}
