//! Origins that answer before they were asked to the end, and tunnels: both directions at once.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use super::harness::{Client, Weir, config};

/// Serves every connection so.
fn origin(serve: fn(TcpStream)) -> SocketAddr {
    let socket = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        socket.incoming().flatten().for_each(|stream| _ = std::thread::spawn(move || serve(stream)))
    });
    address
}

/// The bytes up to the end of a head; what came behind it.
fn read_head(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut piece) {
            Ok(read @ 1..) => bytes.extend_from_slice(&piece[..read]),
            _ => return None,
        }
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Some((String::from_utf8(bytes).unwrap(), rest));
        }
    }
}

/// Answers each head at once, whatever follows it; a body that stays behind would be its next head.
fn hasty(mut stream: TcpStream) {
    while let Some((head, _)) = read_head(&mut stream) {
        let line = head.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned();
        if stream
            .write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{line}", line.len()).as_bytes())
            .is_err()
        {
            return;
        }
    }
}

#[test]
fn a_connection_that_was_answered_early_is_given_to_nobody() {
    let weir = Weir::start(&config(origin(hasty)));
    for round in 0..10 {
        let mut client = weir.connect();
        client.send(b"POST /early HTTP/1.1\r\nHost: a.test\r\nContent-Length: 40\r\n\r\n");
        let answer = client.answer().unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, "POST /early"));
        // The rest of the body, which is no request.
        client.send(b"GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\nGET /victim/mine HTTP/1.1\r\nHost: a.test\r\n\r\n");
        if let Some(next) = client.answer() {
            assert_eq!(next.text(), "GET /victim/mine");
        }
        weir.connect().is_served(&round.to_string());
    }
    weir.assert_sane();
}

/// Begins its answer to a POST at once, ends it when the body has come, and takes that for its next request, too.
fn confused(mut stream: TcpStream) {
    let answer = |line: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{line}", line.len());
    while let Some((head, _)) = read_head(&mut stream) {
        let line = head.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned();
        if !line.starts_with("POST") {
            let _ = stream.write_all(answer(&line).as_bytes());
            continue;
        }
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nea");
        if read_head(&mut stream).is_some() {
            let _ = stream.write_all(b"rly");
            // Long enough for the connection to look quiet to whoever would take it.
            std::thread::sleep(Duration::from_millis(100));
            let _ = stream.write_all(answer("GET /smuggled").as_bytes());
        }
    }
}

#[test]
fn a_connection_whose_answer_began_before_the_request_ended_is_given_to_nobody() {
    let weir = Weir::start(&config(origin(confused)));
    let client = weir.connect();
    let mut socket = client.socket();
    let mut until = |end: &[u8]| {
        let (mut came, mut piece) = (Vec::new(), [0; 4096]);
        while !came.ends_with(end) {
            let read = socket.read(&mut piece).unwrap();
            assert_ne!(read, 0, "{:?}", String::from_utf8_lossy(&came));
            came.extend_from_slice(&piece[..read]);
        }
    };
    client.socket().write_all(b"POST /early HTTP/1.1\r\nHost: a.test\r\nContent-Length: 40\r\n\r\n").unwrap();
    until(b"ea");
    client.socket().write_all(b"GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n").unwrap();
    until(b"rly");
    weir.connect().is_served("victim");
}

/// Sends back what it gets, as it gets it, chunked or in a tunnel.
fn echo(mut stream: TcpStream) {
    let Some((head, rest)) = read_head(&mut stream) else { return };
    let answer: &[u8] = if head.to_ascii_lowercase().contains("upgrade: websocket") {
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    } else {
        b"HTTP/1.1 200 OK\r\n\r\n"
    };
    let (mut piece, mut more) = (vec![0; 64 << 10], rest);
    let _ = stream.write_all(answer);
    loop {
        if stream.write_all(&more).is_err() {
            return;
        }
        match stream.read(&mut piece) {
            Ok(read @ 1..) => more = piece[..read].to_vec(),
            _ => return,
        }
    }
}

/// How much comes back of what is sent without waiting for it.
fn through(client: &Client, size: usize) -> usize {
    let mut sending = client.socket().try_clone().unwrap();
    let writer = std::thread::spawn(move || {
        let piece = vec![b'x'; 64 << 10];
        for _ in 0..size / piece.len() {
            if sending.write_all(&piece).is_err() {
                return;
            }
        }
    });
    let (mut back, mut piece) = (0, vec![0; 64 << 10]);
    let mut socket = client.socket();
    while back < size
        && let Ok(read @ 1..) = socket.read(&mut piece)
    {
        back += read;
    }
    let _ = socket.shutdown(std::net::Shutdown::Both);
    let _ = writer.join();
    back
}

/// History: the bound on request bodies ended tunnels after as many bytes from the client.
#[test]
fn a_tunnel_carries_both_directions_at_once() {
    const SIZE: usize = 64 << 20;
    let weir = Weir::start(&config(origin(echo)));
    let mut client = weir.connect();
    client.send(b"GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
    assert_eq!(client.answer().unwrap().status, 101);
    let began = Instant::now();
    let back = through(&client, SIZE);
    println!("tunnel: {back} bytes back in {:?}", began.elapsed());
    assert!(back >= SIZE, "{back} of {SIZE} bytes came back");
    assert!(began.elapsed() < Duration::from_secs(30));
    weir.assert_sane();
}
