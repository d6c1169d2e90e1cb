//! A tiny edge: an answer for each path.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::accept::{
    Arrival, Express, Service,
    exchange::{Exchange, Gone, Head, Reusable},
};

pub(super) struct Edge {
    pub(super) shared: Arc<Shared>,
}

/// What tests look at, and act on.
pub(super) struct Shared {
    /// Requests that were to be served.
    pub(super) served: AtomicUsize,
    /// `/wait` answers once for each permit.
    pub(super) may_answer: Semaphore,
    /// Requests that wait there.
    pub(super) waiting: Semaphore,
    /// Answers of the express lane, and whether they were written whole.
    pub(super) written: Mutex<Vec<bool>>,
}

impl Edge {
    pub(super) fn start() -> Self {
        Self {
            shared: Arc::new(Shared {
                served: AtomicUsize::new(0),
                may_answer: Semaphore::new(0),
                waiting: Semaphore::new(0),
                written: Mutex::default(),
            }),
        }
    }

    pub(super) fn served(&self) -> usize {
        self.shared.served.load(Ordering::SeqCst)
    }

    async fn serve(&self, exchange: &mut Exchange, head: &Head, arrival: &Arrival) -> Result<(), Gone> {
        if let Some(bad) = arrival.refused {
            return answer(exchange, arrival, bad.status(), bad.word()).await;
        }
        let target = std::str::from_utf8(&head.target).unwrap();
        match target {
            "/head" => {
                let text = format!("{} {target} {:?}", head.method, head.headers);
                answer(exchange, arrival, 200, text).await
            }
            "/wait" => {
                self.shared.waiting.add_permits(1);
                self.shared.may_answer.acquire().await.unwrap().forget();
                answer(exchange, arrival, 200, "waited").await
            }
            "/big" => answer(exchange, arrival, 200, vec![b'x'; 64 << 20]).await,
            "/tls" => answer(exchange, arrival, 200, format!("{:?}", arrival.connection.tls)).await,
            "/ignore" => answer(exchange, arrival, 200, "ignored").await,
            "/chat" if head.headers.contains_key(header::UPGRADE) => {
                exchange.head(StatusCode::SWITCHING_PROTOCOLS, HeaderMap::new(), false).await?;
                while let Some(piece) = exchange.body().await? {
                    exchange.write(piece).await?;
                }
                Ok(())
            }
            _ => {
                let mut body = Vec::new();
                while let Some(part) = exchange.body().await? {
                    body.extend_from_slice(&part);
                }
                answer(exchange, arrival, 200, body).await
            }
        }
    }
}

async fn answer(
    exchange: &mut Exchange,
    arrival: &Arrival,
    status: u16,
    body: impl Into<Bytes>,
) -> Result<(), Gone> {
    let body = body.into();
    if arrival.is_closing() {
        exchange.close_after();
    }
    let mut fields = HeaderMap::new();
    fields.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    let end = body.is_empty() || exchange.is_head();
    exchange.head(StatusCode::from_u16(status).unwrap(), fields, end).await?;
    if end { Ok(()) } else { exchange.write(body).await }
}

#[async_trait]
impl Service for Edge {
    type Begun = (Head, Arrival);
    type Answered = ();

    fn refuse(&self, arrival: Arrival, line: &[u8]) -> Bytes {
        let bad = arrival.refused.unwrap();
        let body = format!("{bad} {}", line.escape_ascii());
        format!(
            "HTTP/1.1 {} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            bad.status(),
            body.len()
        )
        .into()
    }

    fn begin(&self, head: Head, arrival: Arrival) -> Self::Begun {
        (head, arrival)
    }

    fn express(&self, begun: Self::Begun, out: &mut BytesMut) -> Result<Express<Self>, Self::Begun> {
        let (copied, body) = match &*begun.0.target {
            b"/express" => (&b"quick"[..], Bytes::new()),
            b"/express/big" => (&b""[..], Bytes::from(vec![b'x'; 64 << 20])),
            _ => return Err(begun),
        };
        let closes = begun.1.is_closing();
        let connection = if closes { "close" } else { "keep-alive" };
        let length = copied.len() + body.len();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: {connection}\r\n\r\n");
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(copied);
        Ok(Express { body, closes, answered: () })
    }

    fn express_head(
        &self,
        begun: Self::Begun,
    ) -> Result<(StatusCode, HeaderMap, Express<Self>), Self::Begun> {
        let body = match &*begun.0.target {
            b"/express" => Bytes::from_static(b"quick"),
            b"/express/big" => Bytes::from(vec![b'x'; 1 << 20]),
            _ => return Err(begun),
        };
        Ok((StatusCode::OK, HeaderMap::new(), Express { body, closes: false, answered: () }))
    }

    fn written(&self, (): (), whole: bool) {
        self.shared.written.lock().push(whole);
    }

    async fn serve(&self, mut exchange: Exchange, (head, arrival): Self::Begun) -> Option<Reusable> {
        self.shared.served.fetch_add(1, Ordering::SeqCst);
        if self.serve(&mut exchange, &head, &arrival).await.is_ok() {
            return exchange.finish().await;
        }
        match arrival.fault() {
            Some(fault) if !exchange.has_answered() => {
                exchange.close_after();
                let _ = answer(&mut exchange, &arrival, fault.status(), fault.word()).await;
                exchange.finish().await
            }
            _ => {
                exchange.abort().await;
                None
            }
        }
    }
}
