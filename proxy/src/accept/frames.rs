//! Watches the frames of an HTTP/2 connection go by, for what the library behind does not bound.
//!
//! It sees frame headers only (RFC 9113 §4.1), keeps no bytes and changes none:
//! - a header block that has begun and not ended, any frame but DATA that has not come whole, and a frame cut in the middle
//!   of its header are *unfinished*; the connection may stay so only for `header_timeout`, as a slow HTTP/1 head may.
//! - RST_STREAM, and PING, SETTINGS, PRIORITY, empty DATA and whatever else carries nothing for us, cost us work and the
//!   client nothing; they draw on two buckets that refill slowly (CVE-2023-44487 and its relatives).
//!
//! WINDOW_UPDATE is left out: a fast download needs many. CONTINUATION is bounded by the library, through the head's size.

use std::time::Duration;

use tokio::time::Instant;

const PREFACE: usize = 24;
const HEADER: usize = 9;

/// Streams a client may reset at once, and then each second; a browser that cancels a page of images stays far below.
const RESETS: Rate = Rate { burst: 100, per_second: 10 };
/// The other frames that carry nothing; a client that measures its bandwidth by PING stays below.
const IDLE_FRAMES: Rate = Rate { burst: 1000, per_second: 100 };

#[derive(Debug)]
struct Rate {
    burst: u32,
    per_second: u32,
}

/// Where the byte stream stands.
#[derive(Debug)]
pub(super) struct Frames {
    preface_left: usize,
    header: [u8; HEADER],
    header_len: usize,
    payload_left: u32,
    /// Since when a header block, or a frame's header, is unfinished.
    unfinished: Option<Instant>,
    in_block: bool,
    /// The frame that goes by is no DATA: it must come at once, however its head says that it ends.
    in_control: bool,
    resets: Bucket,
    idle: Bucket,
}

/// Too many frames that carry nothing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Flood;

impl Frames {
    /// Before the preface.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            preface_left: PREFACE,
            header: [0; HEADER],
            header_len: 0,
            payload_left: 0,
            unfinished: None,
            in_block: false,
            in_control: false,
            resets: Bucket::full(&RESETS, now),
            idle: Bucket::full(&IDLE_FRAMES, now),
        }
    }

    /// How long the client has left to finish what it began, if it began something.
    pub(super) fn patience(&self, within: Duration, now: Instant) -> Option<Duration> {
        self.unfinished.map(|since| (since + within).saturating_duration_since(now))
    }

    /// Looks at the next bytes.
    pub(super) fn see(&mut self, mut bytes: &[u8], now: Instant) -> Result<(), Flood> {
        let preface = self.preface_left.min(bytes.len());
        self.preface_left -= preface;
        bytes = &bytes[preface..];
        while !bytes.is_empty() {
            if self.payload_left > 0 {
                let seen = usize::try_from(self.payload_left).unwrap_or(usize::MAX).min(bytes.len());
                self.payload_left -= u32::try_from(seen).unwrap_or(u32::MAX);
                bytes = &bytes[seen..];
                continue;
            }
            self.header[self.header_len] = bytes[0];
            self.header_len += 1;
            bytes = &bytes[1..];
            if self.header_len == HEADER {
                self.header_len = 0;
                self.frame(now)?;
            }
        }
        let in_control = self.in_control && self.payload_left > 0;
        let is_unfinished = self.in_block || in_control || self.header_len > 0;
        self.unfinished = is_unfinished.then(|| self.unfinished.unwrap_or(now));
        Ok(())
    }

    fn frame(&mut self, now: Instant) -> Result<(), Flood> {
        let [high, middle, low, kind, flags, ..] = self.header;
        self.payload_left = u32::from_be_bytes([0, high, middle, low]);
        let end_headers = flags & 0x4 != 0;
        self.in_control = kind != 0x0;
        match kind {
            // HEADERS, CONTINUATION
            0x1 | 0x9 => self.in_block = !end_headers,
            // RST_STREAM
            0x3 => self.resets.draw(&RESETS, now)?,
            // DATA without an end, and with nothing but the length of its padding at most; WINDOW_UPDATE.
            0x0 if flags & 0x1 != 0 || self.payload_left > u32::from(flags & 0x8 != 0) => {}
            0x8 => {}
            // Empty DATA, PRIORITY, SETTINGS, PUSH_PROMISE, PING, GOAWAY, and what nobody has defined yet.
            _ => self.idle.draw(&IDLE_FRAMES, now)?,
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    fn full(rate: &Rate, now: Instant) -> Self {
        Self { left: f64::from(rate.burst), at: now }
    }

    fn draw(&mut self, rate: &Rate, now: Instant) -> Result<(), Flood> {
        let refill = now.saturating_duration_since(self.at).as_secs_f64() * f64::from(rate.per_second);
        self.at = now;
        self.left = (self.left + refill).min(f64::from(rate.burst)) - 1.0;
        if self.left < 0.0 { Err(Flood) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let [.., high, middle, low] = payload.to_be_bytes();
        let mut frame = vec![high, middle, low, kind, flags, 0, 0, 0, 1];
        frame.resize(HEADER + payload, 0xff);
        frame
    }

    fn after_preface(now: Instant) -> Frames {
        let mut frames = Frames::new(now);
        assert_eq!(frames.see(&[b'P'; PREFACE], now), Ok(()));
        frames
    }

    #[test]
    fn a_head_that_drips_is_unfinished_although_its_frame_says_that_it_ends() {
        let now = Instant::now();
        for kind in [1, 4, 6, 9] {
            let mut frames = after_preface(now);
            let bytes = frame(kind, 5, 20);
            assert_eq!(frames.see(&bytes[..20], now), Ok(()));
            assert!(frames.patience(Duration::from_secs(1), now).is_some(), "{kind}");
            assert_eq!(frames.see(&bytes[20..], now), Ok(()));
            assert_eq!(frames.patience(Duration::from_secs(1), now), None, "{kind}");
        }
    }

    #[test]
    fn a_header_block_is_unfinished_until_its_end_flag() {
        let (now, within) = (Instant::now(), Duration::from_secs(10));
        let mut frames = after_preface(now);
        let bytes = [frame(1, 0, 20), frame(9, 0, 3), frame(9, 4, 300), frame(0, 0, 70_000)].concat();
        let end = 29 + 12 + HEADER;
        for (at, byte) in bytes.iter().enumerate() {
            assert_eq!(frames.see(&[*byte], now + Duration::from_secs(1)), Ok(()));
            let cut_header = (end + 300..end + 300 + HEADER - 1).contains(&at);
            let is_unfinished =
                frames.patience(within, now + Duration::from_secs(3)) == Some(Duration::from_secs(8));
            assert_eq!(is_unfinished, at < end + 300 - 1 || cut_header, "{at}");
        }
    }

    #[test]
    fn resets_are_free_at_an_honest_rate_and_a_flood_beyond() {
        let now = Instant::now();
        let mut frames = after_preface(now);
        for at in 0..600 {
            assert_eq!(frames.see(&frame(3, 0, 4), now + Duration::from_millis(at * 110)), Ok(()));
        }
        let mut frames = after_preface(now);
        let flood = frame(3, 0, 4).repeat(101);
        assert_eq!(frames.see(&flood, now), Err(Flood));
        let mut frames = after_preface(now);
        assert_eq!(frames.see(&frame(6, 0, 8).repeat(1001), now), Err(Flood));
        // Empty DATA, padded or not; GOAWAY; a kind that nobody has defined.
        for idle in [frame(0, 0, 0), frame(0, 8, 1), frame(7, 0, 8), frame(0xbb, 0, 1)] {
            let mut frames = after_preface(now);
            assert_eq!(frames.see(&idle.repeat(1001), now), Err(Flood));
        }
    }

    #[test]
    fn window_updates_and_bodies_are_never_a_flood() {
        let now = Instant::now();
        let mut frames = after_preface(now);
        assert_eq!(frames.see(&frame(8, 0, 4).repeat(5000), now), Ok(()));
        assert_eq!(frames.see(&frame(0, 0, 10).repeat(5000), now), Ok(()));
        assert_eq!(frames.see(&frame(0, 1, 0).repeat(5000), now), Ok(()));
    }
}
