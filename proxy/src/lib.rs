//! The edge, in the order a request meets it:
//! - [`accept`]: sockets, TLS, HTTP/1 and HTTP/2 framing; what is ambiguous or too slow ends here.

pub mod accept;
