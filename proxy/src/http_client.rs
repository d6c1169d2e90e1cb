//! The edge's own questions over HTTP/1.1: is this peer well (balance), whose is this token (auth); and an operator's to the
//! admin listener. [`grpc`] asks the first one in gRPC.
//!
//! A leaf beside the stages: one connection a question, GET mostly, one deadline for the whole of it and a bound on the
//! answer. It leaves to others: pooling (a check that reuses a connection would not notice that no new one can be
//! made), redirects, and what the answer means.

mod address;
mod files;
pub mod grpc;
mod tls;

use std::{io, net::SocketAddr, pin::pin, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, header, response};
use http_body_util::{BodyExt, Empty, Full, LengthLimitError, Limited};
use hyper::body::Body;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::{TcpSocket, UnixStream},
};

pub use self::{
    address::Address,
    files::Files,
    tls::{BadTls, Tls},
};

/// The head of an answer; whoever needs more is not answering our question.
const HEAD_BYTES: usize = 16 << 10;

/// Whom to ask.
#[derive(Debug, Clone)]
pub struct Target<'a> {
    /// Where to connect.
    pub address: &'a Address,
    /// The `Host` of the question.
    pub host: &'a str,
    /// TLS, when the target speaks it.
    pub tls: Option<&'a Tls>,
    /// How to get there.
    pub way: Way,
}

/// How to get to a target: what requests that are forwarded there do too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Way {
    /// The local address to connect from.
    pub bind: Option<SocketAddr>,
    /// What is said before everything else: a PROXY header in which we speak for ourselves.
    pub preface: &'static [u8],
}

/// Whether a connection could not be opened for want of our own: ENOMEM 12, ENFILE 23, EMFILE 24, EADDRNOTAVAIL 99 (no port
/// is left), ENOBUFS 105. Nobody else can help that.
#[must_use]
pub fn is_our_want(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(12 | 23 | 24 | 99 | 105))
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The question itself cannot be written; the asker's fault.
    #[error("the request cannot be written")]
    Question(#[from] http::Error),
    /// No connection, or no TLS on it; the target's fault.
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    /// The exchange broke or was not HTTP; the target's fault.
    #[error("the exchange broke")]
    Exchange(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The body broke off; the target's fault.
    #[error("the answer broke off")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The answer has a head, but more body than was asked for.
    #[error("the answer is longer than {limit} bytes")]
    TooLong {
        /// The head it came with.
        head: Box<response::Parts>,
        /// In bytes.
        limit: usize,
    },
    /// The deadline passed; the target's fault.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

impl From<hyper::Error> for Failed {
    fn from(error: hyper::Error) -> Self {
        Self::Exchange(error.into())
    }
}

/// Asks `target` with `GET path`, and reads the whole answer.
///
/// Units:  `timeout` covers connecting, asking and reading; `max_body` in bytes.
/// Errors: [`Failed`]; any status is an answer, not an error.
pub async fn get(
    target: Target<'_>,
    path: &str,
    bearer: Option<&str>,
    timeout: Duration,
    max_body: usize,
) -> Result<Response<Bytes>, Failed> {
    let question = question(target.host, path, bearer)?;
    within(timeout, async { exchange(connect(&target).await?, question, max_body).await }).await
}

/// As [`get`], with these fields.
///
/// Units and errors as for [`get`].
pub async fn get_with(
    target: Target<'_>,
    path: &str,
    fields: HeaderMap,
    timeout: Duration,
    max_body: usize,
) -> Result<Response<Bytes>, Failed> {
    let mut question = question(target.host, path, None)?;
    question.headers_mut().extend(fields);
    within(timeout, async { exchange(connect(&target).await?, question, max_body).await }).await
}

/// Asks `target` with `POST path` and a body of JSON, and reads the whole answer.
///
/// Units and errors as for [`get`].
pub async fn post_json(
    target: Target<'_>,
    path: &str,
    body: String,
    timeout: Duration,
    max_body: usize,
) -> Result<Response<Bytes>, Failed> {
    let mut question = question(target.host, path, None)?.map(|_| Full::from(body));
    *question.method_mut() = Method::POST;
    question.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    within(timeout, async { exchange(connect(&target).await?, question, max_body).await }).await
}

/// Whether `target` accepts a connection, TLS included.
///
/// Errors: [`Failed`].
pub async fn knock(target: Target<'_>, timeout: Duration) -> Result<(), Failed> {
    within(timeout, async { connect(&target).await.map(drop) }).await
}

async fn within<T>(timeout: Duration, answer: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
    tokio::time::timeout(timeout, answer).await.unwrap_or(Err(Failed::Timeout(timeout)))
}

/// A connection, whatever it goes over.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

async fn connect(target: &Target<'_>) -> Result<Box<dyn Stream>, Failed> {
    let mut stream = reach(target.address, target.way.bind).await.map_err(Failed::Connect)?;
    stream.write_all(target.way.preface).await.map_err(Failed::Connect)?;
    match target.tls {
        None => Ok(stream),
        Some(tls) => Ok(Box::new(tls.connect(stream).await.map_err(Failed::Connect)?)),
    }
}

async fn reach(address: &Address, bind: Option<SocketAddr>) -> io::Result<Box<dyn Stream>> {
    let address = match address {
        Address::Inet(address) => *address,
        Address::Unix(path) => return Ok(Box::new(UnixStream::connect(path).await?)),
    };
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(bind) = bind {
        socket.bind(bind)?;
    }
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(Box::new(stream))
}

fn question(host: &str, path: &str, bearer: Option<&str>) -> Result<Request<Empty<Bytes>>, http::Error> {
    let mut question = Request::builder()
        .method(Method::GET)
        .uri(path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, concat!("weir/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close");
    if let Some(token) = bearer {
        let mut value = HeaderValue::try_from(format!("Bearer {token}"))?;
        value.set_sensitive(true);
        question = question.header(header::AUTHORIZATION, value);
    }
    question.body(Empty::new())
}

async fn exchange<B>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    question: Request<B>,
    max_body: usize,
) -> Result<Response<Bytes>, Failed>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(HEAD_BYTES)
        .handshake(TokioIo::new(stream))
        .await?;
    let mut connection = pin!(connection);
    let mut answer = pin!(async {
        let (head, body) = sender.send_request(question).await?.into_parts();
        match Limited::new(body, max_body).collect().await {
            Ok(body) => Ok(Response::from_parts(head, body.to_bytes())),
            Err(error) if error.is::<LengthLimitError>() => {
                Err(Failed::TooLong { head: Box::new(head), limit: max_body })
            }
            Err(error) => Err(Failed::Body(error)),
        }
    });
    // The connection is driven here rather than in a task: dropping the question closes it.
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        _ = &mut connection => answer.await,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use http::StatusCode;
    use tokio::{io::AsyncReadExt, net::TcpListener};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    /// A server that answers one connection with these bytes, and returns what it was asked.
    async fn answering(bytes: &'static str) -> (Address, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap().into();
        let asked = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                stream.read_buf(&mut asked).await.unwrap();
            }
            stream.write_all(bytes.as_bytes()).await.unwrap();
            String::from_utf8(asked).unwrap()
        });
        (address, asked)
    }

    fn plain(address: &Address) -> Target<'_> {
        Target { address, host: "api:3001", tls: None, way: Way::default() }
    }

    #[tokio::test]
    async fn asks_with_host_and_token_and_returns_status_and_body() {
        let (address, asked) = answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await;
        let answer = get(plain(&address), "/me?x=1", Some("secret"), PATIENCE, 100).await.unwrap();
        assert_eq!((answer.status(), answer.body().as_ref()), (StatusCode::OK, b"hi".as_slice()));
        let asked = asked.await.unwrap();
        assert!(asked.starts_with("GET /me?x=1 HTTP/1.1\r\nhost: api:3001\r\n"), "{asked}");
        assert!(asked.contains("authorization: Bearer secret\r\n"), "{asked}");
    }

    #[tokio::test]
    async fn what_has_to_be_said_first_is_said_first() {
        let (address, asked) = answering("HTTP/1.1 204 No\r\n\r\n").await;
        let way = Way { bind: Some(([127, 0, 0, 1], 0).into()), preface: b"PROXY UNKNOWN\r\n" };
        let target = Target { way, ..plain(&address) };
        assert_eq!(get(target, "/", None, PATIENCE, 100).await.unwrap().status(), 204);
        assert!(asked.await.unwrap().starts_with("PROXY UNKNOWN\r\nGET / HTTP/1.1\r\n"));
    }

    #[tokio::test]
    async fn an_error_status_is_an_answer() {
        let (address, _) = answering("HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(get(plain(&address), "/", None, PATIENCE, 100).await.unwrap().status(), 503);
    }

    #[tokio::test]
    async fn a_body_until_close_is_read_whole() {
        let (address, _) = answering("HTTP/1.1 200 OK\r\n\r\nall of it").await;
        assert_eq!(get(plain(&address), "/", None, PATIENCE, 100).await.unwrap().body(), "all of it");
    }

    #[tokio::test]
    async fn a_longer_body_is_refused_but_its_status_told() {
        let (address, _) = answering("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlong").await;
        let failed = get(plain(&address), "/", None, PATIENCE, 3).await.unwrap_err();
        assert!(matches!(failed, Failed::TooLong { head, limit: 3 } if head.status == StatusCode::OK));
    }

    #[tokio::test]
    async fn a_truncated_body_is_no_answer() {
        let (address, _) = answering("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort").await;
        let failed = get(plain(&address), "/", None, PATIENCE, 100).await.unwrap_err();
        assert!(matches!(failed, Failed::Body(_)), "{failed:?}");
    }

    #[tokio::test]
    async fn what_is_not_http_is_no_answer() {
        let (address, _) = answering("SSH-2.0-x\r\n").await;
        let failed = get(plain(&address), "/", None, PATIENCE, 100).await.unwrap_err();
        assert!(matches!(failed, Failed::Exchange(_)), "{failed:?}");
    }

    #[tokio::test]
    async fn an_endless_head_is_no_answer() {
        let head = format!("HTTP/1.1 200 OK\r\nx: {}", "a".repeat(HEAD_BYTES));
        let (address, _) = answering(head.leak()).await;
        let failed = get(plain(&address), "/", None, PATIENCE, 100).await.unwrap_err();
        assert!(matches!(failed, Failed::Exchange(_)), "{failed:?}");
    }

    #[tokio::test]
    async fn a_closed_port_is_a_connect_failure() {
        let address = TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap().into();
        let failed = get(plain(&address), "/", None, PATIENCE, 100).await.unwrap_err();
        assert!(matches!(failed, Failed::Connect(_)), "{failed:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_at_the_timeout() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap().into();
        let failed = get(plain(&address), "/", None, PATIENCE, 100).await.unwrap_err();
        assert!(matches!(failed, Failed::Timeout(PATIENCE)), "{failed:?}");
    }

    #[tokio::test]
    async fn a_path_or_token_that_would_split_the_request_is_refused() {
        let nobody = Address::from(([127, 0, 0, 1], 1));
        let target = plain(&nobody);
        let split = get(target.clone(), "/\r\nx: y", None, PATIENCE, 100).await.unwrap_err();
        assert!(matches!(split, Failed::Question(_)));
        let split = get(target, "/", Some("a\r\nx: y"), PATIENCE, 100).await.unwrap_err();
        assert!(matches!(split, Failed::Question(_)));
    }
}
