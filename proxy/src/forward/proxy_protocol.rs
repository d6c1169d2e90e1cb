//! The PROXY protocol towards peers: the client's address, said before everything else on a connection.
//!
//! A connection that began with it belongs to that client: its key in the pool of idle ones tells it from all others.
//!
//! Source: HAProxy's `proxy-protocol.txt`, sections 2.1 (v1) and 2.2 (v2).

use std::net::{IpAddr, SocketAddr};

use weir_config::plan::ProxyProtocol;

/// The twelve bytes that no other protocol begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, and the command PROXY.
const PROXY: u8 = 0x21;

/// The two ends of a client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ends {
    /// The client; port 0 where only its address is known, behind hops that forward for it.
    pub client: SocketAddr,
    /// Where it connected to.
    pub local: SocketAddr,
}

/// The header of a connection made for this client.
#[must_use]
pub fn header(version: ProxyProtocol, ends: Ends) -> Vec<u8> {
    let plain = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let (client, local) = (plain(ends.client), plain(ends.local));
    match version {
        ProxyProtocol::V1 => {
            let family = match (client.ip(), local.ip()) {
                (IpAddr::V4(_), IpAddr::V4(_)) => "TCP4",
                (IpAddr::V6(_), IpAddr::V6(_)) => "TCP6",
                // Version 1 cannot say two families; whoever listens uses the connection's own address then.
                _ => return b"PROXY UNKNOWN\r\n".to_vec(),
            };
            let (from, to) = (client.ip(), local.ip());
            format!("PROXY {family} {from} {to} {} {}\r\n", client.port(), local.port()).into_bytes()
        }
        ProxyProtocol::V2 => {
            let mut header = SIGNATURE.to_vec();
            header.push(PROXY);
            match (client.ip(), local.ip()) {
                (IpAddr::V4(from), IpAddr::V4(to)) => {
                    header.extend([0x11, 0, 12]);
                    header.extend(from.octets());
                    header.extend(to.octets());
                }
                (from, to) => {
                    header.extend([0x21, 0, 36]);
                    header.extend(wide(from));
                    header.extend(wide(to));
                }
            }
            header.extend(client.port().to_be_bytes());
            header.extend(local.port().to_be_bytes());
            header
        }
    }
}

/// The header of a connection that we make for ourselves, as a health check is.
#[must_use]
pub fn own_header(version: ProxyProtocol) -> &'static [u8] {
    match version {
        ProxyProtocol::V1 => b"PROXY UNKNOWN\r\n",
        // The command LOCAL.
        ProxyProtocol::V2 => b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
    }
}

fn wide(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn ends(client: &str, local: &str) -> Ends {
        Ends { client: client.parse().unwrap(), local: local.parse().unwrap() }
    }

    #[test]
    fn version_1_is_a_line() {
        let said = |client, local| String::from_utf8(header(ProxyProtocol::V1, ends(client, local))).unwrap();
        assert_eq!(said("192.0.2.7:4711", "10.0.0.1:443"), "PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\n");
        assert_eq!(said("[2001:db8::7]:1", "[::1]:443"), "PROXY TCP6 2001:db8::7 ::1 1 443\r\n");
        assert_eq!(said("[::ffff:192.0.2.7]:1", "10.0.0.1:2"), "PROXY TCP4 192.0.2.7 10.0.0.1 1 2\r\n");
        assert_eq!(said("[2001:db8::7]:1", "10.0.0.1:443"), "PROXY UNKNOWN\r\n");
    }

    #[test]
    fn version_2_is_what_another_reader_reads() {
        use ppp::v2::{Addresses, Header};
        for (client, local) in [
            ("192.0.2.7:4711", "10.0.0.1:443"),
            ("[2001:db8::7]:1", "[::1]:443"),
            ("[2001:db8::7]:1", "10.0.0.1:443"),
        ] {
            let bytes = header(ProxyProtocol::V2, ends(client, local));
            let read = Header::try_from(bytes.as_slice()).unwrap();
            let client: SocketAddr = client.parse().unwrap();
            match read.addresses {
                Addresses::IPv4(it) => {
                    assert_eq!((IpAddr::V4(it.source_address), it.source_port), (client.ip(), client.port()))
                }
                Addresses::IPv6(it) => {
                    assert_eq!((IpAddr::V6(it.source_address), it.source_port), (client.ip(), client.port()))
                }
                other => panic!("{other:?}"),
            }
            assert_eq!(read.len(), bytes.len());
        }
        let own = Header::try_from(own_header(ProxyProtocol::V2)).unwrap();
        assert_eq!((own.command, own.len()), (ppp::v2::Command::Local, 16));
    }
}
