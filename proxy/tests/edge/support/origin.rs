//! An origin with a script: reads each request whole, writes it down, and lets the test write the answer.

use std::{
    collections::HashMap,
    io,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};

use socket2::{Domain, Socket, Type};

use super::{
    Gate,
    client::{Client, Head},
};

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn method(&self) -> &str {
        self.head.line.split(' ').next().unwrap_or_default()
    }

    pub(crate) fn target(&self) -> &str {
        self.head.line.split(' ').nth(1).unwrap_or_default()
    }

    pub(crate) fn field(&self, name: &str) -> String {
        self.head.field(name).unwrap_or_default()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.head.has(name)
    }
}

/// The origin's end of a connection.
pub(crate) struct Wire {
    pub(crate) client: Client,
    keep: bool,
}

impl Wire {
    /// Writes as it is. Whoever reads may be gone, which is the test's business.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.client.try_send(bytes)
    }

    /// Answers 200 with a length and these fields.
    pub(crate) fn answer(&mut self, fields: &str, body: impl AsRef<[u8]>) {
        let body = body.as_ref();
        let mut bytes =
            format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n{fields}\r\n", body.len()).into_bytes();
        bytes.extend_from_slice(body);
        self.send(bytes);
    }

    /// Ends the connection.
    pub(crate) fn cut(&mut self) {
        self.keep = false;
    }
}

/// A 200 with a length.
pub(crate) fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// A running origin; ends with its drop.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
    connections: Arc<AtomicUsize>,
    open: Arc<Mutex<HashMap<usize, TcpStream>>>,
    stopped: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
    /// Keeps the address from everybody else while nobody listens there.
    held: Option<Socket>,
}

/// An address at which nobody listens, for as long as the process lives: once free, the next program would get it.
pub(crate) fn nobody() -> SocketAddr {
    let socket = bound(([127, 0, 0, 1], 0).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    std::mem::forget(socket);
    address
}

/// A socket that has an address and refuses connections.
fn bound(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // Connections of whoever listened here may linger, and whoever returns binds the address beside us.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// The clone of a connection that is kept for the drop would hold it open when its thread has ended, in whatever way.
struct Closing {
    opened: Arc<Mutex<HashMap<usize, TcpStream>>>,
    nth: usize,
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.opened.lock().unwrap().remove(&self.nth);
    }
}

impl Origin {
    /// Answers each request as `script` does.
    pub(crate) fn start(script: impl Fn(&Request, &mut Wire) + Send + Sync + 'static) -> Self {
        Self::on(([127, 0, 0, 1], 0).into(), script)
    }

    /// Numbers its answers, and says these fields with them.
    pub(crate) fn counting(fields: &'static str) -> Self {
        let count = AtomicUsize::new(0);
        Self::start(move |_, wire| {
            wire.answer(fields, (count.fetch_add(1, Ordering::SeqCst) + 1).to_string())
        })
    }

    /// The same answer to every request.
    pub(crate) fn saying(answer: impl Into<String>) -> Self {
        let answer = answer.into();
        Self::start(move |request, wire| {
            let bodiless = request.method() == "HEAD";
            let end = if bodiless {
                answer.find("\r\n\r\n").map_or(answer.len(), |end| end + 4)
            } else {
                answer.len()
            };
            wire.send(&answer[..end]);
        })
    }

    /// Answers every request with its own name.
    pub(crate) fn named(name: &str) -> Self {
        Self::saying(ok(name))
    }

    /// Answers as `script` does with the version that there is: 1, until the test says another.
    pub(crate) fn of_versions(
        script: impl Fn(u64, &Request, &mut Wire) + Send + Sync + 'static,
    ) -> (Self, Arc<AtomicU64>) {
        let version = Arc::new(AtomicU64::new(1));
        let now = Arc::clone(&version);
        (Self::start(move |request, wire| script(now.load(Ordering::SeqCst), request, wire)), version)
    }

    /// Numbers its answers: 0 has these fields, and the later ones are good for a minute and wait at the gate.
    pub(crate) fn held_after_the_first(fields: &'static str) -> (Self, Arc<Gate>) {
        let gate = Arc::new(Gate::default());
        let (release, number) = (Arc::clone(&gate), AtomicUsize::new(0));
        let origin = Self::start(move |_, wire| {
            let number = number.fetch_add(1, Ordering::SeqCst);
            if number > 0 {
                release.pass();
            }
            wire.answer(
                if number == 0 { fields } else { "cache-control: max-age=60\r\n" },
                number.to_string(),
            );
        });
        (origin, gate)
    }

    pub(crate) fn on(
        address: SocketAddr,
        script: impl Fn(&Request, &mut Wire) + Send + Sync + 'static,
    ) -> Self {
        let seen: Arc<Mutex<Vec<Request>>> = Arc::default();
        let noted = Arc::clone(&seen);
        Self::raw(
            address,
            move |client| {
                let mut wire = Wire { client, keep: true };
                while wire.keep {
                    let Some(head) = wire.client.head() else { return };
                    let (body, whole) = wire.client.body(&head, false, false);
                    if !whole {
                        return;
                    }
                    let request = Request { head, body };
                    noted.lock().unwrap().push(request.clone());
                    script(&request, &mut wire);
                }
            },
            seen,
        )
    }

    /// Does as `script` says with every connection.
    pub(crate) fn connections(script: impl Fn(Client) + Send + Sync + 'static) -> Self {
        Self::raw(([127, 0, 0, 1], 0).into(), script, Arc::default())
    }

    fn raw(
        address: SocketAddr,
        script: impl Fn(Client) + Send + Sync + 'static,
        seen: Arc<Mutex<Vec<Request>>>,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, stopped) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let open: Arc<Mutex<HashMap<usize, TcpStream>>> = Arc::default();
        let (script, count, stop, opened) =
            (Arc::new(script), Arc::clone(&connections), Arc::clone(&stopped), Arc::clone(&open));
        let accepting = std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let nth = count.fetch_add(1, Ordering::SeqCst);
                opened.lock().unwrap().insert(nth, stream.try_clone().unwrap());
                let (script, opened) = (Arc::clone(&script), Arc::clone(&opened));
                std::thread::spawn(move || {
                    let _closing = Closing { opened, nth };
                    script(Client::new(stream));
                });
            }
        });
        Self { address, seen, connections, open, stopped, accepting: Some(accepting), held: None }
    }

    /// The requests so far.
    pub(crate) fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    pub(crate) fn last(&self) -> Request {
        self.seen.lock().unwrap().last().cloned().expect("a request reached the origin")
    }

    /// Connections accepted so far.
    pub(crate) fn accepted(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Connections that are open now.
    pub(crate) fn open(&self) -> usize {
        self.open.lock().unwrap().len()
    }

    /// Dies at once, its connections with it; nobody but a test's own origin gets the address.
    pub(crate) fn die(&mut self) {
        let Some(accepting) = self.accepting.take() else { return };
        self.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        let _ = accepting.join();
        self.held = bound(self.address).ok();
        for (_, stream) in self.open.lock().unwrap().drain() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.die();
    }
}
