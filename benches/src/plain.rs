//! A client without comforts, for programs that ask a million times: one connection, one request at a time, blocking.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
};

/// A kept-alive connection.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<TcpStream>,
    body: Vec<u8>,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// Whatever the system says.
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream), body: Vec::new() })
    }

    /// Asks for `target`, with further fields, each of which ends its line; gives the status, once the body has been read.
    ///
    /// # Errors
    /// When the connection ends before the answer does, or what comes is no answer with a length.
    pub fn get(&mut self, target: &str, fields: &str) -> io::Result<u16> {
        let request = format!("GET {target} HTTP/1.1\r\nhost: plain.test\r\n{fields}\r\n");
        self.stream.get_mut().write_all(request.as_bytes())?;
        let (mut status, mut length, mut line) = (None, 0, String::new());
        loop {
            line.clear();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match line.trim_end().split_once(':') {
                None if line == "\r\n" => break,
                None => status = line.split(' ').nth(1).and_then(|status| status.parse().ok()),
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.trim().parse().map_err(|_| io::Error::other("no length"))?;
                }
                Some(_) => {}
            }
        }
        self.body.resize(length, 0);
        self.stream.read_exact(&mut self.body)?;
        status.ok_or_else(|| io::Error::other("no status"))
    }
}
