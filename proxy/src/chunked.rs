//! The chunked coding as a state machine that looks at every byte of framing and skips over data (RFC 9112 §7.1).
//!
//! It copies nothing: it says how far the bytes are this body's, so that nobody behind it reads one byte more, and which
//! of them are data; it stops at the first byte on which two parsers could disagree. A leaf: the front holds clients to
//! it, and forward the peers.
//!
//! States: size → (extension) → LF → data → CR → LF → size …; size 0 → trailer lines → empty line → done.
//! Stricter than the RFC, each because parsers are known to differ there: no white space around the size, extensions and
//! trailers bounded, no control character inside them.

/// Extensions of one body, in all; more has no honest use and costs us work per byte of data.
const EXTENSION_BYTES: u32 = 4096;
/// Trailer lines of one body, in all.
const TRAILER_BYTES: u32 = 4096;
/// Of a size: as many as a u64 has.
const SIZE_DIGITS: u8 = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size { digits: u8, size: u64 },
    Extension { size: u64 },
    SizeLf { size: u64 },
    Data { left: u64 },
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    Done,
}

/// Why a body is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadBody {
    /// The coding is broken, or could be read in two ways.
    #[error("the chunked coding is broken")]
    Coding,
    /// More data than there may be.
    #[error("the body is too large")]
    TooLarge,
}

/// How far a chunked body has been seen.
#[derive(Debug, Clone)]
pub struct Chunks {
    state: State,
    data: u64,
    data_max: u64,
    extension: u32,
    trailer: u32,
    /// The trailer lines, where they are wanted.
    trailers: Option<Vec<u8>>,
}

impl Chunks {
    /// A body of which nothing was seen, with at most `data_max` bytes of data.
    #[must_use]
    pub const fn new(data_max: u64) -> Self {
        let state = State::Size { digits: 0, size: 0 };
        Self { state, data: 0, data_max, extension: 0, trailer: 0, trailers: None }
    }

    /// The same, keeping the trailer lines.
    #[must_use]
    pub fn with_trailers(data_max: u64) -> Self {
        Self { trailers: Some(Vec::new()), ..Self::new(data_max) }
    }

    /// The trailer lines that came, each with its CRLF; none unless they are kept.
    #[must_use]
    pub fn trailers(&self) -> &[u8] {
        self.trailers.as_deref().unwrap_or_default()
    }

    /// Whether the last byte of the body was seen.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// How many of the next bytes are data, whatever they are.
    #[must_use]
    pub const fn data_left(&self) -> u64 {
        match self.state {
            State::Data { left } => left,
            _ => 0,
        }
    }

    /// Takes what belongs to the body from the front of `bytes` and says how much that is.
    ///
    /// Errors: [`BadBody::Coding`], [`BadBody::TooLarge`]; after one, nothing of `bytes` may be passed on.
    pub fn take(&mut self, bytes: &[u8]) -> Result<usize, BadBody> {
        let mut at = 0;
        while at < bytes.len() && !self.is_done() {
            if let State::Data { left } = self.state {
                let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len() - at);
                at += here;
                let left = left - here as u64;
                self.state = if left == 0 { State::DataCr } else { State::Data { left } };
            } else {
                self.state = self.step(bytes[at])?;
                at += 1;
            }
        }
        Ok(at)
    }

    /// As [`Chunks::take`], but stops before the next byte of data: what it takes is framing.
    ///
    /// Errors: as there.
    pub fn take_framing(&mut self, bytes: &[u8]) -> Result<usize, BadBody> {
        let mut at = 0;
        while at < bytes.len() && !self.is_done() && self.data_left() == 0 {
            self.state = self.step(bytes[at])?;
            at += 1;
        }
        Ok(at)
    }

    fn step(&mut self, byte: u8) -> Result<State, BadBody> {
        let next = self.next(byte)?;
        let is_trailer = matches!(self.state, State::TrailerName | State::TrailerValue | State::TrailerLf)
            || matches!(next, State::TrailerName);
        if let Some(lines) = self.trailers.as_mut().filter(|_| is_trailer) {
            lines.push(byte);
        }
        Ok(next)
    }

    fn next(&mut self, byte: u8) -> Result<State, BadBody> {
        let bad = Err(BadBody::Coding);
        Ok(match (self.state, byte) {
            (State::Size { digits, size }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F')
                if digits < SIZE_DIGITS =>
            {
                let digit = char::from(byte).to_digit(16).unwrap_or(0);
                // 16 digits fill the 64 bits exactly, so the shift loses nothing.
                State::Size { digits: digits + 1, size: (size << 4) | u64::from(digit) }
            }
            (State::Size { digits: 1.., size }, b';') => State::Extension { size },
            (State::Size { digits: 1.., size } | State::Extension { size }, b'\r') => State::SizeLf { size },
            (State::Extension { size }, _) if is_text(byte) => {
                self.extension += 1;
                if self.extension > EXTENSION_BYTES {
                    return bad;
                }
                State::Extension { size }
            }
            (State::SizeLf { size: 0 }, b'\n') => State::TrailerStart,
            (State::SizeLf { size }, b'\n') => {
                self.data = self.data.checked_add(size).ok_or(BadBody::Coding)?;
                if self.data > self.data_max {
                    return Err(BadBody::TooLarge);
                }
                State::Data { left: size }
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size { digits: 0, size: 0 },
            (State::TrailerStart, b'\r') => State::EndLf,
            (State::TrailerStart | State::TrailerName, _) if is_token(byte) => {
                self.trailing(State::TrailerName)?
            }
            (State::TrailerName, b':') => self.trailing(State::TrailerValue)?,
            (State::TrailerValue, b'\r') => State::TrailerLf,
            (State::TrailerValue, _) if is_text(byte) => self.trailing(State::TrailerValue)?,
            (State::TrailerLf, b'\n') => State::TrailerStart,
            (State::EndLf, b'\n') => State::Done,
            _ => return bad,
        })
    }

    fn trailing(&mut self, next: State) -> Result<State, BadBody> {
        self.trailer += 1;
        if self.trailer > TRAILER_BYTES { Err(BadBody::Coding) } else { Ok(next) }
    }
}

/// A token's byte (RFC 9110 §5.6.2).
#[must_use]
pub const fn is_token(byte: u8) -> bool {
    // Asked of every byte of every name: a table is quicker than the comparisons.
    const TOKEN: [bool; 256] = table(b"!#$%&'*+-.^_`|~");
    TOKEN[byte as usize]
}

/// Letters, digits, and what is told.
pub(crate) const fn table(others: &[u8]) -> [bool; 256] {
    let (mut table, mut at) = ([false; 256], 0);
    while at < 256 {
        table[at] = (at as u8).is_ascii_alphanumeric();
        at += 1;
    }
    at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
}

/// What may stand in an extension or a trailer's value.
const fn is_text(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=0x7e | 0x80..)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(bytes: &[u8]) -> Result<Option<usize>, BadBody> {
        let mut chunks = Chunks::new(1000);
        let taken = chunks.take(bytes)?;
        Ok(chunks.is_done().then_some(taken))
    }

    fn bytewise(bytes: &[u8]) -> Result<Option<usize>, BadBody> {
        let mut chunks = Chunks::new(1000);
        let mut taken = 0;
        for byte in bytes {
            taken += chunks.take(&[*byte])?;
        }
        Ok(chunks.is_done().then_some(taken))
    }

    #[test]
    fn a_body_ends_where_its_last_line_ends() {
        for (body, rest) in [
            ("0\r\n\r\n", ""),
            ("5\r\nhello\r\n0\r\n\r\n", "GET / HTTP/1.1\r\n"),
            ("00000A\r\n0123456789\r\n000\r\n\r\n", "x"),
            ("1;a=b;c=\"d e\"\r\n\n\r\n0;last\r\n\r\n", "\r\n"),
            ("2\r\n\r\n\r\n0\r\nX-Sum: 1\r\nY:\r\n\r\n", "0\r\n\r\n"),
        ] {
            assert_eq!(whole(format!("{body}{rest}").as_bytes()), Ok(Some(body.len())), "{body:?}");
        }
    }

    #[test]
    fn every_known_disagreement_is_refused() {
        for body in [
            "\r\n",
            "\n",
            " 5\r\n",
            "5 \r\n",
            "5\t;a\r\n",
            "+5\r\n",
            "-5\r\n",
            "0x5\r\n",
            "5\n",
            "5\rX",
            "5;a\nb\r\n",
            "5;\0\r\n",
            "g\r\n",
            ";a\r\n",
            "11111111111111111\r\n",
            "00000000000000000\r\n",
            "5\r\nhello0\r\n",
            "5\r\nhello\n",
            "5\r\nhello\rx",
            "5\r\nhelloX\r\n",
            "0\r\n\n",
            "0\r\n\rx",
            "0\r\nA : b\r\n",
            "0\r\n: b\r\n",
            "0\r\n a: b\r\n",
            "0\r\nno colon\r\n",
            "0\r\na: b\n",
            "0\r\na: \0\r\n",
            "0\r\na\r\n",
            "5_0\r\n",
            "5,\r\n",
        ] {
            assert_eq!(whole(body.as_bytes()), Err(BadBody::Coding), "{body:?}");
        }
    }

    #[test]
    fn sizes_are_counted_before_their_data_arrives() {
        assert_eq!(whole(b"3e8\r\n"), Ok(None));
        assert_eq!(whole(b"3e9\r\n"), Err(BadBody::TooLarge));
        assert_eq!(whole(b"ffffffffffffffff\r\n"), Err(BadBody::TooLarge));
        assert_eq!(whole(b"1\r\na\r\n3e8\r\n"), Err(BadBody::TooLarge));
        assert_eq!(whole(b"1\r\na\r\nffffffffffffffff\r\n"), Err(BadBody::Coding));
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        let long = "x".repeat(4096);
        assert_eq!(whole(format!("1;{long}\r\n").as_bytes()), Ok(None));
        assert_eq!(whole(format!("1;{long}y\r\n").as_bytes()), Err(BadBody::Coding));
        let spread = "1;aaaa\r\nx\r\n".repeat(1025);
        let mut chunks = Chunks::new(1 << 20);
        assert_eq!(chunks.take(spread.as_bytes()), Err(BadBody::Coding));
        assert_eq!(whole(format!("0\r\na: {long}\r\n").as_bytes()), Err(BadBody::Coding));
    }

    #[test]
    fn framing_ends_where_data_begins() {
        let body = b"5;x\r\nhello\r\n2\r\nyo\r\n0\r\nT: 1\r\n\r\nrest";
        let (mut chunks, mut at, mut data) = (Chunks::new(1000), 0, Vec::new());
        while !chunks.is_done() {
            at += chunks.take_framing(&body[at..]).unwrap();
            let here = usize::try_from(chunks.data_left()).unwrap();
            data.extend_from_slice(&body[at..at + here]);
            at += chunks.take(&body[at..at + here]).unwrap();
        }
        assert_eq!((&*data, &body[at..]), (&b"helloyo"[..], &b"rest"[..]));
    }

    #[test]
    fn trailer_lines_are_kept_where_they_are_wanted() {
        let body = b"2\r\nab\r\n0;x\r\nA: 1\r\nB-c:\t\r\n\r\nrest";
        for piece in [1, 3, body.len()] {
            let (mut kept, mut plain) = (Chunks::with_trailers(10), Chunks::new(10));
            for part in body.chunks(piece) {
                assert_eq!(kept.take(part), plain.take(part));
            }
            assert!(kept.is_done() && plain.is_done());
            assert_eq!((kept.trailers(), plain.trailers()), (&b"A: 1\r\nB-c:\t\r\n"[..], &b""[..]));
        }
    }

    proptest! {
        #[test]
        fn feeding_byte_by_byte_equals_feeding_whole(bytes in proptest::collection::vec(
            prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'0'), Just(b'1'), Just(b';'), Just(b':'), Just(b'a'), any::<u8>()], 0..60)) {
            prop_assert_eq!(whole(&bytes), bytewise(&bytes));
        }

        #[test]
        fn what_we_encode_is_taken_exactly(parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..8),
                                           rest in proptest::collection::vec(any::<u8>(), 0..20)) {
            let mut body = Vec::new();
            for part in &parts {
                body.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
                body.extend_from_slice(part);
                body.extend_from_slice(b"\r\n");
            }
            body.extend_from_slice(b"0\r\n\r\n");
            let len = body.len();
            body.extend_from_slice(&rest);
            prop_assert_eq!(whole(&body), Ok(Some(len)));
            prop_assert_eq!(bytewise(&body), Ok(Some(len)));
        }
    }
}
