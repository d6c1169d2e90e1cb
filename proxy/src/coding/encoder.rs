//! The compressors: bytes in, bytes out, flushed whenever whoever feeds them has to wait.
//!
//! Memory: a window of 256 KiB at most and the tables beside it, whatever the answer's length; how much that is depends on
//! coding and level. As a slow client holds its compressor, all of them together have [`MEMORY`]; what comes when that is
//! taken is passed on as it is, which is always right.

use std::{
    io::{self, Write},
    sync::Arc,
};

use brotli::enc::BrotliEncoderParams;
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use prometheus::IntCounter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use weir_config::plan::Coding;

use super::decoder::{self, Decoder};

/// Compressed at once, without a turn for others: less than a millisecond at the default levels.
pub const PIECE: usize = 16 << 10;
/// Of all compressors at work, in KiB: a quarter of what an instance should need in all. That is 256 answers in gzip, 128 in
/// zstd at 3, or 51 in br at 4.
const MEMORY: usize = 128 << 10;
/// Repetitions further apart than this are not found, and a stream costs no more than this and its tables.
const WINDOW_BITS: i32 = 18;

/// Who may compress, and how much was.
#[derive(Debug, Clone)]
pub struct Compressors {
    free: Arc<Semaphore>,
    meters: [[IntCounter; 2]; Coding::ALL.len()],
}

impl Compressors {
    /// With nobody at work; counts the bytes of each coding, taken and given.
    #[must_use]
    pub fn new(meter: impl FnMut(Coding) -> [IntCounter; 2]) -> Self {
        Self { free: Arc::new(Semaphore::new(MEMORY)), meters: Coding::ALL.map(meter) }
    }

    /// A compressor; `None` while others have the memory.
    #[must_use]
    pub fn begin(&self, coding: Coding, level: u32) -> Option<Encoder> {
        let permit = Arc::clone(&self.free).try_acquire_many_owned(cost(coding, level)).ok()?;
        let [taken, given] = self.meters[coding as usize].clone();
        let work = Work::new(coding, level).ok()?;
        Some(Encoder { work, taken, given, waits: false, _permit: permit })
    }

    /// A decoder of gzip; `None` while others have the memory.
    #[must_use]
    pub fn unpack(&self) -> Option<Decoder> {
        let permit = Arc::clone(&self.free).try_acquire_many_owned(decoder::COST).ok()?;
        Some(Decoder::new(permit))
    }
}

/// What a compressor holds after a MiB of text, in KiB; measured, and rounded up.
fn cost(coding: Coding, level: u32) -> u32 {
    match (coding, level) {
        (Coding::Gzip, _) => 512,
        (Coding::Brotli, ..=3) => 1280,
        (Coding::Brotli, 4) => 2560,
        (Coding::Brotli, _) => 4608,
        (Coding::Zstd, ..=3) => 1024,
        (Coding::Zstd, _) => 3072,
    }
}

/// One answer's compressor. Dropped before its end, it leaves what no decoder takes for whole.
pub struct Encoder {
    work: Work,
    taken: IntCounter,
    given: IntCounter,
    /// Whether something was taken that was not given yet.
    waits: bool,
    _permit: OwnedSemaphorePermit,
}

enum Work {
    Gzip(GzEncoder<Vec<u8>>),
    // In a box: its state alone is kilobytes, and most answers are in another coding.
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Work {
    fn new(coding: Coding, level: u32) -> io::Result<Self> {
        Ok(match coding {
            Coding::Gzip => Self::Gzip(GzEncoder::new(Vec::new(), Compression::new(level))),
            Coding::Brotli => {
                let params = BrotliEncoderParams {
                    quality: i32::try_from(level).unwrap_or_default(),
                    lgwin: WINDOW_BITS,
                    lgblock: 16,
                    ..BrotliEncoderParams::default()
                };
                Self::Brotli(Box::new(brotli::CompressorWriter::with_params(Vec::new(), 4096, &params)))
            }
            Coding::Zstd => {
                let level = i32::try_from(level).unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL);
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), level)?;
                encoder.window_log(WINDOW_BITS.unsigned_abs())?;
                Self::Zstd(encoder)
            }
        })
    }

    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Self::Gzip(work) => work,
            Self::Brotli(work) => work,
            Self::Zstd(work) => work,
        }
    }

    fn made(&mut self) -> Vec<u8> {
        std::mem::take(match self {
            Self::Gzip(work) => work.get_mut(),
            Self::Brotli(work) => work.get_mut(),
            Self::Zstd(work) => work.get_mut(),
        })
    }

    fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip(work) => work.finish(),
            Self::Brotli(work) => Ok(work.into_inner()),
            Self::Zstd(work) => work.finish(),
        }
    }
}

impl Encoder {
    /// Takes a piece, of [`PIECE`] bytes at most where others wait for their turn; gives what is ready, which is often
    /// nothing.
    ///
    /// # Errors
    /// Of the library; none is known for memory to memory.
    pub fn push(&mut self, piece: &[u8]) -> io::Result<Bytes> {
        self.taken.inc_by(piece.len() as u64);
        self.waits |= !piece.is_empty();
        self.work.writer().write_all(piece)?;
        Ok(self.give())
    }

    /// Gives everything that was taken, as bytes that a decoder can read to their end; nothing when there is nothing new.
    ///
    /// # Errors
    /// As [`Encoder::push`].
    pub fn flush(&mut self) -> io::Result<Bytes> {
        if !std::mem::take(&mut self.waits) {
            return Ok(Bytes::new());
        }
        self.work.writer().flush()?;
        Ok(self.give())
    }

    /// Ends the stream, and gives the rest of it.
    ///
    /// # Errors
    /// As [`Encoder::push`].
    pub fn finish(self) -> io::Result<Bytes> {
        let rest = self.work.finish()?;
        self.given.inc_by(rest.len() as u64);
        Ok(Bytes::from(rest))
    }

    fn give(&mut self) -> Bytes {
        let made = self.work.made();
        self.given.inc_by(made.len() as u64);
        Bytes::from(made)
    }
}
