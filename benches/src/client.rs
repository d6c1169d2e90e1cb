//! A client: one kept-alive HTTP/1.1 connection, bound to a source address of its own.
//!
//! Every virtual user owns one, so that limits by client address see as many clients as there are users. A connection
//! that the server closed between two requests is opened anew; a request is never sent twice unless it is idempotent.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpSocket, TcpStream};

/// How long one exchange may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(15);

/// What to ask.
#[derive(Debug, Clone)]
pub struct Ask {
    /// GET, POST, …
    pub method: Method,
    /// Path and query.
    pub target: String,
    /// Sent as `Authorization: Bearer …`.
    pub token: Option<String>,
    /// Sent as JSON.
    pub body: Option<serde_json::Value>,
}

impl Ask {
    /// A request without token and body.
    pub fn new(method: Method, target: impl Into<String>) -> Self {
        Self { method, target: target.into(), token: None, body: None }
    }

    /// The same request in the name of a session.
    #[must_use]
    pub fn with_token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    /// The same request with a JSON body.
    #[must_use]
    pub fn with_body(mut self, body: serde_json::Value) -> Self {
        self.body = Some(body);
        self
    }
}

/// What came back, read to its end.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The fields.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// From the first byte sent to the last byte read; connecting is included when it was needed.
    pub took: Duration,
}

impl Answer {
    /// A field as text; empty when absent or not text.
    #[must_use]
    pub fn field(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    }

    /// The body as JSON; `Null` when it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No connection.
    #[error("cannot connect to {to}: {source}")]
    Connect {
        /// The address asked for.
        to: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The request could not be written down.
    #[error("not a request: {0}")]
    Request(#[from] http::Error),
    /// The connection broke, or what came was no HTTP.
    #[error("exchange broke: {0}")]
    Exchange(#[from] hyper::Error),
    /// Nothing, or not everything, came in time.
    #[error("no complete answer within {} s", PATIENCE.as_secs())]
    TooSlow,
}

/// One kept-alive connection to one server.
#[derive(Debug)]
pub struct Client {
    from: Option<IpAddr>,
    to: SocketAddr,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    /// A client that is not connected yet; `from` of `None` lets the system choose the source address.
    #[must_use]
    pub fn new(from: Option<IpAddr>, to: SocketAddr) -> Self {
        Self { from, to, sender: None }
    }

    /// Sends one request and reads its answer to the end.
    ///
    /// # Errors
    /// [`Failure`], after which the next request opens a new connection.
    pub async fn send(&mut self, ask: &Ask) -> Result<Answer, Failure> {
        let begun = Instant::now();
        let exchange = async {
            let reused = self.sender.as_ref().is_some_and(|sender| !sender.is_closed());
            match self.attempt(ask, begun).await {
                // RFC 9110 §9.2.2: a server may close an idle connection just as we write to it; an idempotent
                // request may then be sent again.
                Err(Failure::Exchange(error))
                    if reused && (was_not_sent(&error) || is_idempotent(&ask.method)) =>
                {
                    self.sender = None;
                    self.attempt(ask, begun).await
                }
                other => other,
            }
        };
        let result = tokio::time::timeout(PATIENCE, exchange).await.unwrap_or(Err(Failure::TooSlow));
        if result.is_err() {
            self.sender = None;
        }
        result
    }

    async fn attempt(&mut self, ask: &Ask, begun: Instant) -> Result<Answer, Failure> {
        let mut sender = match self.sender.take() {
            Some(open) if !open.is_closed() => open,
            _ => self.connect().await?,
        };
        sender.ready().await?;
        let response = sender.send_request(self.write(ask)?).await?;
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        self.sender = Some(sender);
        Ok(Answer { status: head.status, headers: head.headers, body, took: begun.elapsed() })
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Failure> {
        let stream =
            open(self.from, self.to).await.map_err(|source| Failure::Connect { to: self.to, source })?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // Its end is seen by the sender; there is nobody else to tell.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }

    fn write(&self, ask: &Ask) -> Result<Request<Full<Bytes>>, http::Error> {
        let mut request = Request::builder()
            .method(&ask.method)
            .uri(&ask.target)
            .header(header::HOST, self.to.to_string())
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, "weir-workload");
        if let Some(token) = &ask.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let body = match &ask.body {
            Some(json) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Bytes::from(json.to_string())
            }
            None => Bytes::new(),
        };
        request.body(Full::new(body))
    }
}

/// Opens a TCP connection, from an address of the caller's choice.
///
/// # Errors
/// Whatever the system says.
pub async fn open(from: Option<IpAddr>, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(from) = from {
        socket.bind(SocketAddr::new(from, 0))?;
    }
    let stream = socket.connect(to).await?;
    // Small requests must not wait for a full segment: we measure the server, not Nagle.
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn was_not_sent(error: &hyper::Error) -> bool {
    error.is_canceled() || error.is_closed()
}

fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::PUT | Method::DELETE | Method::OPTIONS)
}
