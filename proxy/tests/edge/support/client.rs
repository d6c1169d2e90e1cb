//! A client that sends bytes and reads answers, and notices when one is not whole.

use std::{
    fmt,
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
};

use super::SOON;

/// The head of a message.
#[derive(Debug, Clone, Default)]
pub(crate) struct Head {
    /// The first line.
    pub(crate) line: String,
    /// Names in lower case.
    pub(crate) fields: Vec<(String, String)>,
}

impl Head {
    /// All values of a field, joined as a list.
    pub(crate) fn field(&self, name: &str) -> Option<String> {
        let values: Vec<_> =
            self.fields.iter().filter(|(key, _)| key == name).map(|(_, value)| &**value).collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.field(name).is_some()
    }
}

/// One answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
    /// Whether the body came to the end that its framing announced.
    pub(crate) whole: bool,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn field(&self, name: &str) -> String {
        self.head.field(name).unwrap_or_default()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.head.has(name)
    }

    /// Where the cache stood.
    pub(crate) fn cache(&self) -> String {
        self.field("cache-status")
    }
}

/// A connection with what was read beyond the last message.
pub(crate) struct Client<S = TcpStream> {
    pub(crate) stream: S,
    ahead: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::new(TcpStream::connect(address).unwrap())
    }

    pub(crate) fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.set_write_timeout(Some(SOON)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream)
    }

    /// Says that nothing more comes.
    pub(crate) fn finish(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }
}

impl<S: Read + Write> Client<S> {
    pub(crate) fn over(stream: S) -> Self {
        Self { stream, ahead: Vec::new() }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.stream.write_all(bytes.as_ref()).unwrap();
        self
    }

    /// Sends bytes to somebody who may have stopped listening.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Asks for a path, with more fields.
    #[track_caller]
    pub(crate) fn ask(&mut self, path: &str, fields: impl fmt::Display) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: edge.test\r\n{fields}\r\n")).answer()
    }

    /// The next answer that is not an interim one.
    #[track_caller]
    pub(crate) fn answer(&mut self) -> Answer {
        self.answer_to(false)
    }

    #[track_caller]
    pub(crate) fn answer_to_head(&mut self) -> Answer {
        self.answer_to(true)
    }

    #[track_caller]
    fn answer_to(&mut self, is_head: bool) -> Answer {
        loop {
            let (status, head) = self.answer_head();
            if (100..200).contains(&status) && status != 101 {
                continue;
            }
            let (body, whole) = self.body(&head, is_head || matches!(status, 101 | 204 | 304), true);
            return Answer { status, head, body, whole };
        }
    }

    /// The head of the next answer, interim ones included.
    #[track_caller]
    pub(crate) fn answer_head(&mut self) -> (u16, Head) {
        let head = self.head().expect("an answer, and not the end of the connection");
        let status = head.line.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.unwrap_or_else(|| panic!("no status line: {:?}", head.line)), head)
    }

    /// The head of the next message; `None` when the connection ends before.
    pub(crate) fn head(&mut self) -> Option<Head> {
        let end = loop {
            if let Some(end) = self.ahead.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            if !self.fill() {
                return None;
            }
        };
        let bytes: Vec<u8> = self.ahead.drain(..end + 4).collect();
        let text = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut lines = text.split("\r\n").map(str::to_owned);
        let line = lines.next().unwrap_or_default();
        let fields = lines.filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        });
        Some(Head { line, fields: fields.collect() })
    }

    /// The body that `head` announces, and whether it came to its end.
    pub(crate) fn body(&mut self, head: &Head, is_empty: bool, until_close: bool) -> (Vec<u8>, bool) {
        if is_empty {
            return (Vec::new(), true);
        }
        if head.field("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            return self.chunked();
        }
        match head.field("content-length") {
            Some(length) => {
                let length = length.parse().unwrap();
                let body = self.up_to(length);
                let whole = body.len() == length;
                (body, whole)
            }
            None if until_close => (self.rest(), true),
            None => (Vec::new(), true),
        }
    }

    fn chunked(&mut self) -> (Vec<u8>, bool) {
        let mut body = Vec::new();
        loop {
            let Some(line) = self.line() else { return (body, false) };
            let size = line.split(';').next().unwrap_or_default();
            let size =
                usize::from_str_radix(size.trim(), 16).unwrap_or_else(|_| panic!("no chunk size: {line:?}"));
            if size == 0 {
                // Trailers, then an empty line.
                while self.line().is_some_and(|line| !line.is_empty()) {}
                return (body, true);
            }
            let chunk = self.up_to(size);
            body.extend_from_slice(&chunk);
            if chunk.len() < size || self.line().is_none() {
                return (body, false);
            }
        }
    }

    pub(crate) fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.ahead.windows(2).position(|window| window == b"\r\n") {
                let bytes: Vec<u8> = self.ahead.drain(..end + 2).collect();
                return Some(String::from_utf8_lossy(&bytes[..end]).into_owned());
            }
            if !self.fill() {
                return None;
            }
        }
    }

    /// So many bytes, or fewer when the connection ends.
    pub(crate) fn up_to(&mut self, length: usize) -> Vec<u8> {
        while self.ahead.len() < length && self.fill() {}
        let rest = self.ahead.split_off(length.min(self.ahead.len()));
        std::mem::replace(&mut self.ahead, rest)
    }

    /// Everything until the connection ends.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.ahead)
    }

    /// Whether the other side ends the connection without another byte.
    pub(crate) fn is_ended(&mut self) -> bool {
        self.rest().is_empty()
    }

    /// Reads once; false at the end. Silence for too long is a failure of the test, not an end.
    fn fill(&mut self) -> bool {
        let mut piece = vec![0; 64 * 1024];
        match self.stream.read(&mut piece) {
            Ok(0) => false,
            Ok(read) => {
                self.ahead.extend_from_slice(&piece[..read]);
                true
            }
            Err(problem) if matches!(problem.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!(
                    "silence after {:?}",
                    String::from_utf8_lossy(&self.ahead[..self.ahead.len().min(500)])
                )
            }
            Err(problem) if problem.kind() == ErrorKind::Interrupted => true,
            Err(_) => false,
        }
    }
}

/// Asks on a connection of its own.
pub(crate) fn get(address: SocketAddr, path: &str) -> Answer {
    Client::connect(address).ask(path, "")
}
