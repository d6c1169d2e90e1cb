//! The edge as a child process, and a client that speaks bytes.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    process::Command,
    time::Duration,
};

use weir_testkit::{Child, READY_WITHIN};

/// Longer than any deadline of the edges under test; a wait that ends here is a failure.
const PATIENCE: Duration = Duration::from_secs(10);

/// The edge; ends with the value.
pub(crate) struct Weir {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Weir {
    /// Runs the binary with this configuration.
    pub(crate) fn start(config: &str) -> Self {
        Self::start_as(config, "exec \"$0\" run \"$1\"")
    }

    /// The same through a shell that may set limits first.
    pub(crate) fn start_as(config: &str, script: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.yaml");
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script, env!("CARGO_BIN_EXE_weir")]).arg(file);
        let child = Child::start(command, folder, "KILL", "dash").unwrap();
        let said = |child: &Child| {
            let output = child.output();
            let address = output.split("listening on http://").nth(1)?;
            address.split_once('\n')?.0.trim().parse().ok()
        };
        let child = child.ready(READY_WITHIN, |child| said(child).is_some()).unwrap();
        let address = said(&child).unwrap();
        Self { child, address }
    }

    pub(crate) fn connect(&self) -> Client {
        Client::to(self.address)
    }

    /// Resident memory in KiB.
    pub(crate) fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Processor time used so far, in clock ticks (hundredths of a second on Linux).
    pub(crate) fn ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let after_name = stat.rsplit_once(')').unwrap().1;
        after_name.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
    }

    /// Nothing was said that only a fault of ours explains.
    pub(crate) fn assert_sane(&self) {
        let output = self.child.output();
        for word in ["panicked", "that pingora cannot read"] {
            assert!(!output.contains(word), "the edge said: {output}");
        }
    }
}

/// One connection to the edge.
pub(crate) struct Client {
    socket: TcpStream,
    buffer: Vec<u8>,
    eof: bool,
}

/// An answer as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// With the status line, in lower case.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// It ended where its framing says.
    pub(crate) whole: bool,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A field's value, in lower case.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .skip(1)
            .find_map(|line| line.split_once(':').filter(|(key, _)| *key == name))
            .map(|(_, v)| v.trim())
    }
}

impl Client {
    pub(crate) fn to(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, buffer: Vec::new(), eof: false }
    }

    /// The socket itself, for what is no HTTP any more.
    pub(crate) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Sends; an edge that has closed already is no failure here.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let _ = self.socket.write_all(bytes);
    }

    /// Reads a little more; false at the end of the connection.
    fn more(&mut self) -> bool {
        let mut piece = [0; 16 << 10];
        match self.socket.read(&mut piece) {
            Ok(0) => self.eof = true,
            Ok(read) => self.buffer.extend_from_slice(&piece[..read]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => self.eof = true,
            Err(error) => panic!("nothing came: {error}; so far: {}", self.buffer.escape_ascii()),
        }
        !self.eof
    }

    fn until(&mut self, mark: &[u8]) -> Option<usize> {
        loop {
            if let Some(at) = self.buffer.windows(mark.len()).position(|window| window == mark) {
                return Some(at + mark.len());
            }
            if !self.more() {
                return None;
            }
        }
    }

    fn take(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < length {
            if !self.more() {
                return None;
            }
        }
        Some(self.buffer.drain(..length).collect())
    }

    /// The next final answer to `method`; `None` when the connection ends without one.
    pub(crate) fn answer_to(&mut self, method: &str) -> Option<Answer> {
        loop {
            let end = self.until(b"\r\n\r\n")?;
            let head = String::from_utf8_lossy(&self.take(end)?).to_ascii_lowercase();
            assert!(head.starts_with("http/1.1 ") || head.starts_with("http/1.0 "), "no answer: {head:?}");
            let status: u16 = head[9..12].parse().unwrap();
            if status / 100 == 1 && status != 101 {
                continue;
            }
            let mut answer = Answer { status, head, body: Vec::new(), whole: true };
            if method != "HEAD" && !matches!(status, 101 | 204 | 304) {
                (answer.body, answer.whole) = self.body(&answer);
            }
            return Some(answer);
        }
    }

    pub(crate) fn answer(&mut self) -> Option<Answer> {
        self.answer_to("GET")
    }

    fn body(&mut self, answer: &Answer) -> (Vec<u8>, bool) {
        let length = answer.field("content-length").map(|length| length.parse().unwrap());
        let is_chunked = answer.field("transfer-encoding").is_some();
        assert!(!(is_chunked && length.is_some()), "two framings: {}", answer.head);
        match length {
            Some(length) => match self.take(length) {
                Some(body) => (body, true),
                None => (std::mem::take(&mut self.buffer), false),
            },
            None if is_chunked => self.chunks(),
            None => {
                while self.more() {}
                (std::mem::take(&mut self.buffer), true)
            }
        }
    }

    fn chunks(&mut self) -> (Vec<u8>, bool) {
        let mut body = Vec::new();
        loop {
            let Some(end) = self.until(b"\r\n") else { return (body, false) };
            let Some(line) = self.take(end) else { return (body, false) };
            let size = usize::from_str_radix(std::str::from_utf8(&line[..end - 2]).unwrap(), 16).unwrap();
            let Some(piece) = self.take(size + 2) else { return (body, false) };
            assert!(piece.ends_with(b"\r\n"));
            if size == 0 {
                return (body, true);
            }
            body.extend_from_slice(&piece[..size]);
        }
    }

    /// Whether the edge has closed, or does so within our patience.
    pub(crate) fn is_closed(&mut self) -> bool {
        while self.more() {}
        assert!(self.buffer.is_empty(), "bytes behind the answer: {}", self.buffer.escape_ascii());
        true
    }

    pub(crate) fn get(&mut self, target: &str) -> Answer {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n").as_bytes());
        self.answer().unwrap_or_else(|| panic!("{target}: no answer"))
    }

    /// Asks for something of one's own, and gets exactly that.
    pub(crate) fn is_served(&mut self, name: &str) {
        let answer = self.get(&format!("/victim/{name}"));
        assert_eq!((answer.status, answer.text()), (200, format!("GET /victim/{name}")), "another's answer");
    }
}

/// Sends once, on a connection of its own.
pub(crate) fn once(weir: &Weir, bytes: &[u8]) -> Answer {
    let mut client = weir.connect();
    client.send(bytes);
    client.answer().unwrap_or_else(|| panic!("no answer to {}", bytes.escape_ascii()))
}

/// Everything to one origin; `/cached/` through a cache. Short deadlines, so that no test waits for long.
pub(crate) fn config(origin: SocketAddr) -> String {
    format!(
        "listeners:
  - address: 127.0.0.1:0
    bounds: {{ header_timeout: 1500ms, body_timeout: 1s, send_timeout: 2s, idle_timeout: 20s, body_bytes: 64KiB, uri_bytes: 2KiB, head_bytes: 8KiB, head_fields: 50 }}
admin: off
upstreams:
  origin:
    servers: [{{ address: \"{origin}\", max_fails: 0 }}]
    retry: {{ tries: 1 }}
    timeouts: {{ connect: 2s, first_byte: 3s, read: 3s }}
caches:
  store: {{ memory: 16MiB }}
routes:
  - match: /cached/*
    cache: {{ in: store }}
    to: origin
  - match: /*
    to: origin
log: {{ access: off, level: warn }}
"
    )
}
