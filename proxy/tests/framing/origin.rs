//! An origin that reads with the strictest eyes, writes down what it read, and answers what it was told to.

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard},
};

/// What is said to one target instead of the ordinary answer.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    pub(crate) bytes: Vec<u8>,
    /// Closes behind it.
    pub(crate) close: bool,
}

#[derive(Debug, Default)]
struct Book {
    requests: Vec<String>,
    violations: Vec<String>,
    scripts: HashMap<String, Script>,
}

/// Listens until the test process ends.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    book: Arc<Mutex<Book>>,
}

impl Origin {
    pub(crate) fn start() -> Self {
        let socket = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let origin = Self { address: socket.local_addr().unwrap(), book: Arc::default() };
        let serving = origin.clone();
        std::thread::spawn(move || {
            for stream in socket.incoming().flatten() {
                let origin = serving.clone();
                std::thread::spawn(move || origin.serve(stream));
            }
        });
        origin
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap()
    }

    /// Answers `target` so from now on.
    pub(crate) fn script(&self, target: &str, bytes: impl Into<Vec<u8>>, close: bool) {
        self.book().scripts.insert(target.to_owned(), Script { bytes: bytes.into(), close });
    }

    /// Every whole request since the last call, head and decoded body.
    pub(crate) fn seen(&self) -> Vec<String> {
        std::mem::take(&mut self.book().requests)
    }

    /// No request was anything but clean.
    pub(crate) fn assert_clean(&self) {
        let book = self.book();
        assert!(book.violations.is_empty(), "the origin saw: {:#?}", book.violations);
    }

    fn serve(&self, mut stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let mut bytes = Vec::new();
        let mut last = String::new();
        while let Some(request) = self.request(&mut stream, &mut bytes, &last) {
            last.clone_from(&request);
            let target = request.split(' ').nth(1).unwrap_or("").to_owned();
            let line = request.lines().next().unwrap_or("").trim_end_matches(" HTTP/1.1").to_owned();
            let is_head = request.starts_with("HEAD ");
            let script = {
                let mut book = self.book();
                book.requests.push(request);
                book.scripts.get(&target).cloned()
            };
            let script = script.unwrap_or_else(|| {
                let body = if is_head { "" } else { &line };
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", line.len());
                Script { bytes: head.into_bytes(), close: false }
            });
            if stream.write_all(&script.bytes).is_err() || script.close {
                return;
            }
        }
    }

    /// One whole request; what is not clean is noted, and ends the connection.
    fn request(&self, stream: &mut TcpStream, bytes: &mut Vec<u8>, last: &str) -> Option<String> {
        let end = fill_until(stream, bytes, b"\r\n\r\n")?;
        let head: Vec<_> = bytes.drain(..end).collect();
        let framing = match check(&head) {
            Ok(framing) => framing,
            Err(why) => {
                self.book().violations.push(format!("{why}: {} behind {last:?}", head.escape_ascii()));
                return None;
            }
        };
        let mut request = String::from_utf8_lossy(&head).into_owned();
        match framing {
            Framing::None => {}
            Framing::Length(length) => {
                fill(stream, bytes, length)?;
                request.push_str(&String::from_utf8_lossy(&bytes.drain(..length).collect::<Vec<_>>()));
            }
            Framing::Chunked => loop {
                let end = fill_until(stream, bytes, b"\r\n")?;
                let line: Vec<_> = bytes.drain(..end).collect();
                let digits = std::str::from_utf8(&line[..end - 2]).unwrap_or("?");
                let Ok(size) = usize::from_str_radix(digits, 16) else {
                    self.book().violations.push(format!("chunk line {}", line.escape_ascii()));
                    return None;
                };
                fill(stream, bytes, size + 2)?;
                let piece: Vec<_> = bytes.drain(..size + 2).collect();
                if !piece.ends_with(b"\r\n") {
                    self.book().violations.push(format!("chunk end {}", piece.escape_ascii()));
                    return None;
                }
                request.push_str(&String::from_utf8_lossy(&piece[..size]));
                if size == 0 {
                    break;
                }
            },
        }
        Some(request)
    }
}

fn fill(stream: &mut TcpStream, bytes: &mut Vec<u8>, length: usize) -> Option<()> {
    let mut piece = [0; 16 << 10];
    while bytes.len() < length {
        match stream.read(&mut piece) {
            Ok(read @ 1..) => bytes.extend_from_slice(&piece[..read]),
            _ => return None,
        }
    }
    Some(())
}

fn fill_until(stream: &mut TcpStream, bytes: &mut Vec<u8>, mark: &[u8]) -> Option<usize> {
    loop {
        if let Some(at) = bytes.windows(mark.len()).position(|window| window == mark) {
            return Some(at + mark.len());
        }
        fill(stream, bytes, bytes.len() + 1)?;
    }
}

enum Framing {
    None,
    Length(usize),
    Chunked,
}

/// Whether every parser reads this head alike.
fn check(head: &[u8]) -> Result<Framing, &'static str> {
    // Bytes above ASCII may stand in values only; one character each, so that none disappears.
    let text: String = head.iter().map(|byte| char::from(*byte)).collect();
    let text = text.strip_suffix("\r\n\r\n").ok_or("no end")?;
    let mut lines = text.split("\r\n");
    let line: Vec<_> = lines.next().unwrap_or("").split(' ').collect();
    let [method, target, "HTTP/1.1"] = line[..] else { return Err("request line") };
    if method.is_empty()
        || !method.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
    {
        return Err("method");
    }
    let is_visible = target.bytes().all(|byte| matches!(byte, 0x21..=0x7e) && byte != b'#');
    if !is_visible || !(target.starts_with('/') || target == "*") {
        return Err("target");
    }
    let (mut hosts, mut framing) = (0, Framing::None);
    for line in lines {
        let (name, value) = line.split_once(": ").ok_or("field without colon and space")?;
        let name = name.to_ascii_lowercase();
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return Err("field name");
        }
        if value.bytes().any(|byte| byte != b'\t' && byte.is_ascii_control()) {
            return Err("field value");
        }
        let is_framed = !matches!(framing, Framing::None);
        match name.as_str() {
            "host" => hosts += 1,
            "content-length" if is_framed => return Err("two framings"),
            "content-length" => {
                let length: usize = value.parse().map_err(|_| "length")?;
                if length.to_string() != value {
                    return Err("length not canonical");
                }
                framing = Framing::Length(length);
            }
            "transfer-encoding" if is_framed => return Err("two framings"),
            "transfer-encoding" if value != "chunked" => return Err("coding"),
            "transfer-encoding" => framing = Framing::Chunked,
            "connection" if value != "upgrade" => return Err("connection"),
            "upgrade" if value != "websocket" => return Err("upgrade"),
            "te"
            | "trailer"
            | "keep-alive"
            | "proxy-connection"
            | "proxy"
            | "proxy-authorization"
            | "http2-settings"
            | "expect" => {
                return Err("a field that ends at the edge");
            }
            _ => {}
        }
    }
    for ours in ["\r\nvia: ", "\r\nx-forwarded-for: 127.0.0.1", "\r\nx-request-id: "] {
        if !text.to_ascii_lowercase().contains(ours) {
            return Err("without our account of the client");
        }
    }
    if hosts == 1 { Ok(framing) } else { Err("hosts") }
}
