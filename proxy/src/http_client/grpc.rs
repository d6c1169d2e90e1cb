//! The one question of gRPC's own health protocol: is this service being served.
//!
//! `grpc.health.v1.Health/Check` has one field in its question and one in its answer, so that both are written and read
//! here by hand. HTTP/2 by prior knowledge, or by ALPN where there is TLS ([`Tls::speaking`](super::Tls::speaking)).
//!
//! Source: grpc/doc/health-checking.md and PROTOCOL-HTTP2.md; protobuf's wire format.

use std::{pin::pin, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use http::{Method, Request, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Failed, Target, connect, within};

/// The answer is a message of two bytes behind a prefix of five; who sends more speaks of something else.
const MESSAGE_BYTES: usize = 1024;

/// `ServingStatus.SERVING`.
const SERVING: u8 = 1;

/// Why a peer that answered is not well.
#[derive(Debug, thiserror::Error)]
pub enum NotServing {
    /// No answer.
    #[error(transparent)]
    Failed(#[from] Failed),
    /// The HTTP status is not 200.
    #[error("status {0}")]
    Status(StatusCode),
    /// The call ended with another status than OK, such as 5 (`NOT_FOUND`: nobody knows the service).
    #[error("grpc-status {0:?}")]
    Grpc(String),
    /// The service exists, and is not served.
    #[error("the service is not being served")]
    NotServing,
}

impl From<h2::Error> for NotServing {
    fn from(error: h2::Error) -> Self {
        Self::Failed(Failed::Exchange(error.into()))
    }
}

/// Asks `target` whether `service` is being served; an empty one is the whole server.
///
/// Units:  `timeout` covers connecting, asking and reading.
/// Errors: [`NotServing`], with the reason.
pub async fn check(target: Target<'_>, service: &str, timeout: Duration) -> Result<(), NotServing> {
    let uri = format!(
        "{}://{}/grpc.health.v1.Health/Check",
        if target.tls.is_some() { "https" } else { "http" },
        target.host
    );
    let question = Request::builder()
        .method(Method::POST)
        .uri(uri)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", concat!("weir/", env!("CARGO_PKG_VERSION")))
        .body(())
        .map_err(Failed::Question)?;
    let message = message(service);
    let asked = within(timeout, async {
        let stream = connect(&target).await?;
        Ok(ask(stream, question, message).await)
    });
    asked.await?
}

async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    question: Request<()>,
    message: Bytes,
) -> Result<(), NotServing> {
    let (mut sender, connection) = h2::client::handshake(stream).await?;
    let mut connection = pin!(connection);
    let mut answer = pin!(async {
        let (answer, mut body) = sender.send_request(question, false)?;
        body.send_data(message, true)?;
        let answer = answer.await?;
        if answer.status() != StatusCode::OK {
            return Err(NotServing::Status(answer.status()));
        }
        let (head, mut body) = answer.into_parts();
        let mut said = BytesMut::new();
        while let Some(chunk) = body.data().await {
            let chunk = chunk?;
            body.flow_control().release_capacity(chunk.len())?;
            said.extend_from_slice(&chunk);
            if said.len() > MESSAGE_BYTES {
                return Err(NotServing::NotServing);
            }
        }
        // An answer without message says it in its head ("Trailers-Only").
        let trailers = body.trailers().await?.unwrap_or(head.headers);
        let status = trailers
            .get("grpc-status")
            .map_or_else(String::new, |status| String::from_utf8_lossy(status.as_bytes()).into_owned());
        match (status.as_str(), serving(&said)) {
            ("0", true) => Ok(()),
            ("0", false) => Err(NotServing::NotServing),
            _ => Err(NotServing::Grpc(status)),
        }
    });
    // The connection is driven here rather than in a task: dropping the question closes it.
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        _ = &mut connection => answer.await,
    }
}

/// `HealthCheckRequest { string service = 1; }` behind gRPC's prefix: not compressed, and its length.
fn message(service: &str) -> Bytes {
    let mut field = BytesMut::new();
    if !service.is_empty() {
        field.put_u8(1 << 3 | 2);
        let mut length = service.len();
        while length >= 0x80 {
            field.put_u8((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        field.put_u8(length as u8);
        field.put_slice(service.as_bytes());
    }
    let mut message = BytesMut::with_capacity(5 + field.len());
    message.put_u8(0);
    message.put_u32(u32::try_from(field.len()).unwrap_or(u32::MAX));
    message.unsplit(field);
    message.freeze()
}

/// Whether this is one message, `HealthCheckResponse { ServingStatus status = 1; }`, that says so.
fn serving(said: &[u8]) -> bool {
    said == [0, 0, 0, 0, 2, 1 << 3, SERVING]
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use http::{HeaderMap, HeaderValue, Response};
    use tokio::net::TcpListener;

    use super::*;
    use crate::http_client::Way;

    #[test]
    fn the_question_is_what_protobuf_writes() {
        assert_eq!(&message("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&message("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = message(&"x".repeat(300));
        assert_eq!(&long[..8], [0, 0, 0, 1, 0x2f, 0x0a, 0xac, 0x02]);
        assert_eq!(long.len(), 5 + 1 + 2 + 300);
    }

    /// A server that answers one call so, and whether the check passes.
    async fn asked(status: u16, body: &'static [u8], grpc: &'static str) -> Result<(), NotServing> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap().into();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(call) = connection.accept().await {
                let Ok((request, mut respond)) = call else { return };
                assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                let head = Response::builder().status(status).body(()).unwrap();
                let mut send = respond.send_response(head, false).unwrap();
                send.send_data(Bytes::from_static(body), false).unwrap();
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static(grpc));
                send.send_trailers(trailers).unwrap();
            }
        });
        let target = Target { address: &address, host: "api:1", tls: None, way: Way::default() };
        check(target, "vault", Duration::from_secs(5)).await
    }

    #[tokio::test]
    async fn who_serves_is_well() {
        asked(200, &[0, 0, 0, 0, 2, 8, 1], "0").await.unwrap();
    }

    #[tokio::test]
    async fn who_does_not_serve_or_does_not_know_is_not() {
        let not = asked(200, &[0, 0, 0, 0, 2, 8, 2], "0").await.unwrap_err();
        assert!(matches!(not, NotServing::NotServing), "{not:?}");
        let unknown = asked(200, &[], "5").await.unwrap_err();
        assert!(matches!(unknown, NotServing::Grpc(_)), "{unknown:?}");
        let other = asked(404, &[], "0").await.unwrap_err();
        assert!(matches!(other, NotServing::Status(StatusCode::NOT_FOUND)), "{other:?}");
    }

    #[tokio::test]
    async fn who_does_not_speak_http_2_is_not() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap().into();
        tokio::spawn(async move { drop(listener.accept().await) });
        let target = Target { address: &address, host: "api:1", tls: None, way: Way::default() };
        let failed = check(target, "", Duration::from_secs(5)).await.unwrap_err();
        assert!(matches!(failed, NotServing::Failed(_)), "{failed:?}");
    }
}
