//! Edge, cache and origin in one process and a few screens, to plant faults in.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
};

/// What the toy does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    NeverInvalidates,
    SharesAnswers,
    KeepsSessions,
    FailsNowAndThen,
    RefusesTheWrongOnes,
    LimitsNobody,
    KeepsNothing,
}

/// Wrong passwords that one address may try.
const TRIES: u32 = 5;

#[derive(Default)]
struct Toy {
    fault: Option<Fault>,
    requests: u64,
    reads: u64,
    passwords: HashMap<String, String>,
    sessions: HashMap<String, String>,
    tries: HashMap<IpAddr, u32>,
    /// By owner, oldest first.
    items: HashMap<String, Vec<Value>>,
    /// By owner and target.
    cache: HashMap<(String, String), Value>,
}

type Answer = (u16, Value);

/// Starts one on a free port; it ends with the test's runtime.
pub(crate) async fn start(fault: Option<Fault>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let toy = Arc::new(Mutex::new(Toy { fault, ..Toy::default() }));
    tokio::spawn(async move {
        while let Ok((stream, client)) = listener.accept().await {
            tokio::spawn(serve(stream, client.ip(), toy.clone()));
        }
    });
    address
}

async fn serve(mut stream: TcpStream, client: IpAddr, toy: Arc<Mutex<Toy>>) {
    let mut head = [0; 512];
    let length = stream.peek(&mut head).await.unwrap_or(0);
    if is_mangled(&head[..length]) {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await;
        return;
    }
    let service = service_fn(move |request: Request<Incoming>| {
        let toy = toy.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            let body = serde_json::from_slice(&body).unwrap_or_default();
            let token = head.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
            let token = token.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or("");
            let target = head.uri.to_string();
            let (hit, (status, body)) =
                toy.lock().unwrap().answer(client, &head.method, &target, token, &body);
            let cache = if hit { "toy; hit" } else { "toy; fwd=miss" };
            let response = Response::builder()
                .status(status)
                .header("cache-status", cache)
                .header("x-origin", "toy")
                .header(header::RETRY_AFTER, "1");
            Ok::<_, hyper::Error>(response.body(Full::new(Bytes::from(body.to_string()))).unwrap())
        }
    });
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// Everything an honest client of these tests never sends.
fn is_mangled(head: &[u8]) -> bool {
    let text = String::from_utf8_lossy(head).to_lowercase();
    let lines = |name: &str| text.lines().filter(|line| line.starts_with(name)).count();
    lines("host: ") != 1
        || lines("content-length") > 1
        || lines("transfer-encoding") > 0
        || lines("x-a: ") > 0
}

impl Toy {
    /// Whether it came from the cache, and the answer.
    fn answer(
        &mut self,
        client: IpAddr,
        method: &Method,
        target: &str,
        token: &str,
        body: &Value,
    ) -> (bool, Answer) {
        self.requests += 1;
        match target {
            "/auth/register" => {
                self.passwords.insert(text(&body["email"]), text(&body["password"]));
                return (false, (201, Value::Null));
            }
            "/auth/login" => return (false, self.log_in(client, body)),
            _ => {}
        }
        let Some(owner) = self.sessions.get(token).cloned() else { return (false, (401, Value::Null)) };
        // Reads of people who are logged in: the others are refused by others, and a slow machine asks little of each.
        self.reads += u64::from(*method == Method::GET);
        let now_and_then = *method == Method::GET && self.reads.is_multiple_of(50);
        match self.fault {
            Some(Fault::FailsNowAndThen) if now_and_then => {
                return (false, (500, Value::Null));
            }
            Some(Fault::RefusesTheWrongOnes) if now_and_then => {
                return (false, (429, Value::Null));
            }
            _ => {}
        }
        if *method == Method::GET && target.starts_with("/api/") {
            return self.cached(&owner, target);
        }
        if target.starts_with("/api/") && self.fault != Some(Fault::NeverInvalidates) {
            self.cache.retain(|(of, _), _| *of != owner);
        }
        let items = self.items.entry(owner.clone()).or_default();
        let id = target.trim_start_matches("/api/vault/items/");
        let answer = match (method.as_str(), target) {
            ("GET", "/auth/me") => (200, json!({ "email": owner })),
            ("PUT", "/users/profile") => (200, Value::Null),
            ("POST", "/auth/logout") => {
                if self.fault != Some(Fault::KeepsSessions) {
                    self.sessions.remove(token);
                }
                (204, Value::Null)
            }
            ("POST", "/api/vault/items") => {
                let mut item = body.clone();
                item["id"] = json!(format!("i{}", self.requests));
                items.push(item.clone());
                (201, item)
            }
            ("PATCH", _) => match items.iter_mut().find(|item| item["id"] == id) {
                Some(item) => {
                    item["title"] = body["title"].clone();
                    item["content"] = body["content"].clone();
                    (200, item.clone())
                }
                None => (404, Value::Null),
            },
            ("DELETE", _) => {
                items.retain(|item| item["id"] != id);
                (204, Value::Null)
            }
            _ => (404, Value::Null),
        };
        (false, answer)
    }

    fn log_in(&mut self, client: IpAddr, body: &Value) -> Answer {
        let email = text(&body["email"]);
        let tries = self.tries.entry(client).or_default();
        if *tries >= TRIES && self.fault != Some(Fault::LimitsNobody) {
            return (429, Value::Null);
        }
        if self.passwords.get(&email) != Some(&text(&body["password"])) {
            *tries += 1;
            return (401, Value::Null);
        }
        let token = format!("t{}", self.requests);
        self.sessions.insert(token.clone(), email);
        (200, json!({ "token": token }))
    }

    fn cached(&mut self, owner: &str, target: &str) -> (bool, Answer) {
        let whose = if self.fault == Some(Fault::SharesAnswers) { "everybody" } else { owner };
        let key = (whose.to_owned(), target.to_owned());
        if let Some(kept) = self.cache.get(&key) {
            return (true, (200, kept.clone()));
        }
        let (status, body) = self.read(owner, target);
        if status == 200 && self.fault != Some(Fault::KeepsNothing) {
            self.cache.insert(key, body.clone());
        }
        (false, (status, body))
    }

    fn read(&self, owner: &str, target: &str) -> Answer {
        let nothing = Vec::new();
        let items = self.items.get(owner).unwrap_or(&nothing);
        if let Some(id) = target.strip_prefix("/api/vault/items/") {
            return items
                .iter()
                .find(|item| item["id"] == id)
                .map_or((404, Value::Null), |item| (200, item.clone()));
        }
        let from: usize =
            target.split_once("&cursor=").and_then(|(_, cursor)| cursor.parse().ok()).unwrap_or(0);
        let page: Vec<_> = items.iter().rev().skip(from).take(20).collect();
        let next = (from + 20 < items.len()).then(|| (from + 20).to_string());
        (200, json!({ "items": page, "nextCursor": next }))
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("").to_owned()
}
