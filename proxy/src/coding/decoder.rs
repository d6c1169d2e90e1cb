//! Unpacking gzip for a client that does not take it (nginx's `ngx_http_gunzip_module`).
//!
//! What comes out may be a thousand times what goes in: a step gives 64 KiB at most, and the next one is taken when the client
//! has those. So a bomb costs time for as long as its client reads, and no memory.

use std::io::{self, Write};

use bytes::{Buf, Bytes};
use flate2::write::MultiGzDecoder;
use http::{HeaderMap, header};
use tokio::sync::OwnedSemaphorePermit;

use super::{Asked, DIGESTS, accepted, names_tag, says, vary, weaken};

/// What one holds, in KiB: the window, the library's buffer, and what was made.
pub(super) const COST: u32 = 128;

/// One answer's decoder. What is left when it is dropped was not whole.
#[derive(Debug)]
pub struct Decoder {
    work: MultiGzDecoder<Vec<u8>>,
    has_begun: bool,
    _permit: OwnedSemaphorePermit,
}

impl Decoder {
    pub(super) fn new(permit: OwnedSemaphorePermit) -> Self {
        Self { work: MultiGzDecoder::new(Vec::new()), has_begun: false, _permit: permit }
    }

    /// Takes some of a piece, and gives what comes of it; again, until all of it is taken.
    ///
    /// # Errors
    /// It is no gzip, or broken.
    pub fn push(&mut self, piece: &mut Bytes) -> io::Result<Bytes> {
        let taken = self.work.write(piece)?;
        if taken == 0 && !piece.is_empty() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.has_begun |= taken > 0;
        piece.advance(taken);
        Ok(self.give())
    }

    /// Gives everything that can be made of what was taken.
    ///
    /// # Errors
    /// As [`Decoder::push`].
    pub fn flush(&mut self) -> io::Result<Bytes> {
        if self.has_begun {
            self.work.flush()?;
        }
        Ok(self.give())
    }

    /// The rest, if it is whole and its checksum is right.
    ///
    /// # Errors
    /// As [`Decoder::push`].
    pub fn finish(mut self) -> io::Result<Bytes> {
        if self.has_begun {
            self.work.try_finish()?;
        }
        Ok(self.give())
    }

    fn give(&mut self) -> Bytes {
        Bytes::from(std::mem::take(self.work.get_mut()))
    }
}

/// Whether an answer is in gzip and in nothing else.
#[must_use]
pub fn is_gzip(fields: &HeaderMap) -> bool {
    let mut codings = fields.get_all(header::CONTENT_ENCODING).iter();
    let (Some(coding), None) = (codings.next(), codings.next()) else { return false };
    let coding = coding.as_bytes().trim_ascii();
    coding.eq_ignore_ascii_case(b"gzip") || coding.eq_ignore_ascii_case(b"x-gzip")
}

/// Whether an answer in gzip is unpacked for this client. As nginx's, who names no coding takes none, and neither does HTTP/1.0.
/// Not a part of one, which cannot be read, nor where it is forbidden (RFC 9110 §7.7).
#[must_use]
pub fn unpacks(asked: &Asked<'_>, fields: &HeaderMap) -> bool {
    !fields.contains_key(header::CONTENT_RANGE) && unpacks_whole(asked, fields)
}

/// The same of the whole that an answer is, or is a part of.
#[must_use]
pub fn unpacks_whole(asked: &Asked<'_>, fields: &HeaderMap) -> bool {
    is_gzip(fields)
        && !accepted::takes_gzip(asked)
        && !says(fields, "no-transform")
        && !says(asked.headers, "no-transform")
}

/// Changes the head of an answer that is unpacked: its length is not known any more, and its bytes are not those of the
/// validator, of the digests or of ranges.
pub fn mark_unpacked(fields: &mut HeaderMap) {
    for name in
        [header::CONTENT_LENGTH, header::ACCEPT_RANGES, header::CONTENT_ENCODING].iter().chain(&DIGESTS)
    {
        fields.remove(name);
    }
    vary(fields);
    weaken(fields);
}

/// A 304 to a client that got the answer unpacked carries the validator of that, unless the client named the other one.
pub fn mark_not_modified_unpacked(asked: &Asked<'_>, fields: &mut HeaderMap) {
    if !accepted::takes_gzip(asked) && !names_tag(asked, fields) {
        weaken(fields);
    }
}

#[cfg(test)]
mod tests;
