//! The PROXY header that the hop in front of us puts before everything else: who really connected, and where to.
//!
//! Only trusted hops get as far as this, and from them it is not optional: a connection without it would be somebody who
//! found a way around. Not a byte beyond the header is read, as what follows may be TLS.
//!
//! Source: HAProxy's `proxy-protocol.txt`; nginx reads no more than 4096 bytes either.

use std::{io, net::SocketAddr};

use ppp::{v1, v2};
use tokio::{io::AsyncReadExt, net::TcpStream};

/// Of version 1, by its text: `PROXY`, two long IPv6 addresses and ports.
const LINE_BYTES: usize = 107;
/// Of version 2: addresses, and a few words about TLS and the cloud's network.
const BINARY_BYTES: usize = 4096;
/// Of version 2, up to and with the length of the rest.
const BINARY_START: usize = 16;
/// What every header of either version has at least, and what tells them apart.
const FIRST_BYTES: usize = 12;

/// The client's end and ours, as the hop says.
pub(super) type Ends = (SocketAddr, SocketAddr);

/// Reads the header; `None` when the hop speaks for itself (a health check), or of nobody on the internet.
pub(super) async fn read(tcp: &mut TcpStream) -> io::Result<Option<Ends>> {
    let mut header = vec![0; FIRST_BYTES];
    tcp.read_exact(&mut header).await?;
    if header == v2::PROTOCOL_PREFIX {
        return binary(tcp, header).await;
    }
    if !header.starts_with(b"PROXY ") {
        return Err(junk("no PROXY header"));
    }
    line(tcp, header).await
}

async fn line(tcp: &mut TcpStream, mut header: Vec<u8>) -> io::Result<Option<Ends>> {
    let mut ahead = [0; LINE_BYTES];
    while !header.ends_with(b"\n") {
        let room = LINE_BYTES - header.len();
        let seen = tcp.peek(&mut ahead[..room]).await?;
        if seen == 0 {
            return Err(junk("a PROXY line without an end"));
        }
        let ours = ahead[..seen].iter().position(|byte| *byte == b'\n').map_or(seen, |end| end + 1);
        tcp.read_exact(&mut ahead[..ours]).await?;
        header.extend_from_slice(&ahead[..ours]);
    }
    let line = v1::Header::try_from(header.as_slice()).map_err(|_| junk("not a PROXY line"))?;
    Ok(match line.addresses {
        v1::Addresses::Tcp4(it) => {
            Some(ends((it.source_address, it.source_port), (it.destination_address, it.destination_port)))
        }
        v1::Addresses::Tcp6(it) => {
            Some(ends((it.source_address, it.source_port), (it.destination_address, it.destination_port)))
        }
        v1::Addresses::Unknown => None,
    })
}

async fn binary(tcp: &mut TcpStream, mut header: Vec<u8>) -> io::Result<Option<Ends>> {
    header.resize(BINARY_START, 0);
    tcp.read_exact(&mut header[FIRST_BYTES..]).await?;
    let rest = usize::from(u16::from_be_bytes([header[14], header[15]]));
    if BINARY_START + rest > BINARY_BYTES {
        return Err(junk("a PROXY header that is too long"));
    }
    header.resize(BINARY_START + rest, 0);
    tcp.read_exact(&mut header[BINARY_START..]).await?;
    let read = v2::Header::try_from(header.as_slice()).map_err(|_| junk("not a PROXY header"))?;
    Ok(match (read.command, read.addresses) {
        (v2::Command::Proxy, v2::Addresses::IPv4(it)) => {
            Some(ends((it.source_address, it.source_port), (it.destination_address, it.destination_port)))
        }
        (v2::Command::Proxy, v2::Addresses::IPv6(it)) => {
            Some(ends((it.source_address, it.source_port), (it.destination_address, it.destination_port)))
        }
        _ => None,
    })
}

fn ends(from: impl Into<SocketAddr>, to: impl Into<SocketAddr>) -> Ends {
    (from.into(), to.into())
}

fn junk(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use tokio::{io::AsyncWriteExt, net::TcpListener};

    use super::*;

    /// What is read of these bytes, sent in pieces, and what is left behind it.
    async fn of(pieces: &[&[u8]]) -> (io::Result<Option<Ends>>, Vec<u8>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let sending = async {
            for piece in pieces {
                client.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            client.shutdown().await.unwrap();
        };
        let (read, ()) = tokio::join!(read(&mut server), sending);
        let mut rest = Vec::new();
        let _ = server.read_to_end(&mut rest).await;
        (read, rest)
    }

    fn addresses(from: &str, to: &str) -> Option<Ends> {
        Some((from.parse().unwrap(), to.parse().unwrap()))
    }

    #[tokio::test]
    async fn a_line_tells_both_ends_and_leaves_what_follows() {
        let (read, rest) =
            of(&[b"PROXY TCP4 192.0.2.7", b" 10.0.0.1 4711 443\r", b"\nGET / HTTP/1.1\r\n"]).await;
        assert_eq!(read.unwrap(), addresses("192.0.2.7:4711", "10.0.0.1:443"));
        assert_eq!(rest, b"GET / HTTP/1.1\r\n");
        let (read, rest) = of(&[b"PROXY TCP6 2001:db8::7 ::1 1 2\r\nx"]).await;
        assert_eq!((read.unwrap(), rest.as_slice()), (addresses("[2001:db8::7]:1", "[::1]:2"), &b"x"[..]));
        assert_eq!(of(&[b"PROXY UNKNOWN\r\n"]).await.0.unwrap(), None);
    }

    #[tokio::test]
    async fn a_binary_header_tells_both_ends_and_leaves_what_follows() {
        let start = b"\r\n\r\n\0\r\nQUIT\n";
        let v4 = [&start[..], &[0x21, 0x11, 0, 15, 192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x67, 1, 187, 4, 0, 0]]
            .concat();
        let (read, rest) = of(&[&v4[..5], &v4[5..20], &v4[20..], b"rest"]).await;
        assert_eq!(
            read.unwrap(),
            addresses("192.0.2.7:4711", "10.0.0.1:443"),
            "words behind the addresses are skipped"
        );
        assert_eq!(rest, b"rest");
        let local = [&start[..], &[0x20, 0, 0, 0]].concat();
        assert_eq!(of(&[&local]).await.0.unwrap(), None, "the hop's own health check");
    }

    #[tokio::test]
    async fn junk_is_refused_without_waiting_for_more() {
        let long = [&b"PROXY TCP4 "[..], &[b'1'; 200]].concat();
        let start = b"\r\n\r\n\0\r\nQUIT\n";
        let huge = [&start[..], &[0x21, 0x11, 0xff, 0xff]].concat();
        let version = [&start[..], &[0x31, 0x11, 0, 0]].concat();
        for bytes in [
            &b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..],
            b"PROXY TCP4 192.0.2.7 10.0.0.1 4711\r\n",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\n",
            b"PROXY TCP4 300.0.2.7 10.0.0.1 4711 443\r\n",
            b"PROXY TCP4 19",
            b"",
            &long,
            &huge,
            &version,
        ] {
            assert!(of(&[bytes]).await.0.is_err(), "{:?}", String::from_utf8_lossy(bytes));
        }
    }
}
