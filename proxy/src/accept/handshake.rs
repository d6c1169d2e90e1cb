//! Why a TLS handshake came to nothing: whose fault it probably was, in a word for metrics and logs.

use std::io::{self, ErrorKind};

/// A reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoHandshake {
    /// It took longer than `header_timeout`, or we stopped.
    Timeout,
    /// The client went away.
    Closed,
    /// What came was no TLS: plain HTTP, or a scanner.
    NotTls,
    /// No version or cipher that both speak.
    Incompatible,
    /// The client ended it with an alert: most often it does not believe our certificate.
    Alert,
    /// Something else.
    Other,
}

impl NoHandshake {
    /// Every reason, in the order of the enum.
    pub const ALL: [Self; 6] =
        [Self::Timeout, Self::Closed, Self::NotTls, Self::Incompatible, Self::Alert, Self::Other];

    /// The log word and metric label.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::NotTls => "not_tls",
            Self::Incompatible => "incompatible",
            Self::Alert => "alert",
            Self::Other => "other",
        }
    }
}

impl From<&io::Error> for NoHandshake {
    fn from(error: &io::Error) -> Self {
        use rustls::Error;
        match error.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(Error::InvalidMessage(_) | Error::InappropriateMessage { .. }) => Self::NotTls,
            Some(Error::PeerIncompatible(_)) => Self::Incompatible,
            Some(Error::AlertReceived(_)) => Self::Alert,
            Some(_) => Self::Other,
            None => match error.kind() {
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Self::Closed,
                _ => Self::Other,
            },
        }
    }
}
