//! The access log: one line a request, through a bounded channel to a thread of its own.
//!
//! A slow disk never delays a request: when the queue is full the line is dropped and counted. A disk that takes nothing
//! ends no log either: what fits into the buffer waits for better times, and the rest is counted. Either trouble is told
//! once when it begins and once when it is over.

mod book;

use std::{
    io::{ErrorKind, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    time::{Duration, Instant},
};

use prometheus::{IntCounter, IntCounterVec};
use weir_config::plan::{AccessFormat, AccessLog};

use self::book::Book;
use super::Line;

/// How long a line may wait in the buffer when no other follows; operators watch logs with their eyes.
const FLUSH_AFTER: Duration = Duration::from_millis(200);
/// So long without a dropped line, and the writer is not behind any more.
const KEEPS_UP: Duration = Duration::from_secs(1);

/// Between two tries to get a word into a full queue, at the end.
const TRY_AGAIN: Duration = Duration::from_millis(10);

enum Message {
    Line(String),
    Flush(SyncSender<()>),
}

/// What the senders tell the writer beside the lines, however full their queue is.
#[derive(Debug, Default)]
struct Signs {
    /// The file was moved away: open it anew.
    reopen: AtomicBool,
    /// A line was dropped, and that was told.
    behind: AtomicBool,
}

/// The sending side; cheap to clone, never waits.
#[derive(Debug, Clone)]
pub struct AccessWriter {
    lines: SyncSender<Message>,
    signs: Arc<Signs>,
    format: AccessFormat,
    dropped: IntCounter,
}

impl AccessWriter {
    /// Opens the log and starts its thread, which ends when the last sender is dropped. `lost` counts by reason.
    ///
    /// # Errors
    /// When the file cannot be opened for appending; the message names it.
    pub fn open(log: &AccessLog, lost: &IntCounterVec) -> std::io::Result<Self> {
        let path = log.path.as_ref().map(|path| path.value.clone());
        let book = Book::new(Sink::open(path.as_deref())?, lost.with_label_values(&["failed"]));
        let (lines, waiting) = sync_channel(log.queue.max(1));
        let (signs, dropped) = (Arc::<Signs>::default(), lost.with_label_values(&["behind"]));
        let lag = Lag::new(Arc::clone(&signs), dropped.clone());
        std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || write_all(&waiting, book, path.as_deref(), lag))?;
        Ok(Self { lines, signs, format: log.format, dropped })
    }

    /// Queues one request's line, or counts it as dropped.
    pub fn write(&self, line: &Line<'_>) {
        let text = match self.format {
            AccessFormat::Json => line.json(),
            AccessFormat::Combined => line.combined(),
        };
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.lines.try_send(Message::Line(text))
        {
            self.dropped.inc();
            // The writer may be stuck, so it is told from here.
            if !self.signs.behind.swap(true, Ordering::Relaxed) {
                tracing::warn!("access log is behind: lines are dropped");
            }
        }
    }

    /// Opens the file anew: after a rotation moved it away.
    pub fn reopen(&self) {
        self.signs.reopen.store(true, Ordering::Release);
    }

    /// Waits until everything queued so far is written, at most `patience`.
    pub fn flush(&self, patience: Duration) {
        let until = Instant::now() + patience;
        let (done, wait) = sync_channel(1);
        let mut message = Message::Flush(done);
        // The queue may be full, and its writer stuck for good: nobody may need to read what it writes to.
        while let Err(problem) = self.lines.try_send(message) {
            match problem {
                TrySendError::Full(back) if Instant::now() < until => message = back,
                TrySendError::Full(_) | TrySendError::Disconnected(_) => return,
            }
            std::thread::sleep(TRY_AGAIN);
        }
        let _ = wait.recv_timeout(until.saturating_duration_since(Instant::now()));
    }
}

/// Whether the log could be opened, without making a file of it that would be this user's.
///
/// # Errors
/// When it could not; the message names it.
pub fn can_open(path: &Path) -> std::io::Result<()> {
    let named = |problem| in_words(path, &problem);
    let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    match std::fs::metadata(path) {
        // To open a pipe would wait for its reader.
        Ok(it) if !it.is_file() && !it.is_dir() => Ok(()),
        Ok(_) => std::fs::OpenOptions::new().append(true).open(path).map(drop).map_err(named),
        Err(problem) if problem.kind() == ErrorKind::NotFound => {
            std::fs::metadata(folder).map(drop).map_err(named)
        }
        Err(problem) => Err(named(problem)),
    }
}

fn in_words(path: &Path, problem: &std::io::Error) -> std::io::Error {
    std::io::Error::new(problem.kind(), format!("access log {}: {problem}", path.display()))
}

enum Sink {
    Stdout(std::io::Stdout),
    File(std::fs::File),
}

impl Sink {
    fn open(path: Option<&Path>) -> std::io::Result<Self> {
        let Some(path) = path else { return Ok(Self::Stdout(std::io::stdout())) };
        let opened = std::fs::OpenOptions::new().append(true).create(true).open(path);
        opened.map(Self::File).map_err(|problem| in_words(path, &problem))
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Stdout(out) => out.write(bytes),
            Self::File(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Stdout(out) => out.flush(),
            Self::File(file) => file.flush(),
        }
    }
}

fn write_all(lines: &Receiver<Message>, mut book: Book<Sink>, path: Option<&Path>, mut lag: Lag) {
    loop {
        let message = lines.recv_timeout(FLUSH_AFTER);
        if lag.signs.reopen.swap(false, Ordering::AcqRel) {
            match Sink::open(path) {
                Ok(sink) => book.go_on_in(sink),
                Err(problem) => {
                    tracing::warn!(%problem, "the old file is written to until this one can be opened")
                }
            }
        }
        match message {
            Ok(Message::Line(line)) => book.put(&line),
            Ok(Message::Flush(done)) => {
                book.write_out();
                let _ = done.send(());
            }
            Err(RecvTimeoutError::Timeout) => book.write_out(),
            Err(RecvTimeoutError::Disconnected) => return book.close(),
        }
        lag.look();
    }
}

/// Notices when the writer keeps up again.
struct Lag {
    signs: Arc<Signs>,
    dropped: IntCounter,
    /// How many had been dropped when that was told last.
    told: u64,
    /// How many had been dropped when one was dropped last, and when that was noticed.
    last: Option<(u64, Instant)>,
}

impl Lag {
    fn new(signs: Arc<Signs>, dropped: IntCounter) -> Self {
        Self { signs, told: dropped.get(), dropped, last: None }
    }

    fn look(&mut self) {
        if self.signs.behind.load(Ordering::Relaxed)
            && let Some(lost) = self.is_over(Instant::now())
        {
            self.signs.behind.store(false, Ordering::Relaxed);
            tracing::info!(lost, "access log keeps up again");
        }
    }

    /// How many lines were lost, once none has been for a while.
    fn is_over(&mut self, now: Instant) -> Option<u64> {
        let dropped = self.dropped.get();
        let (before, since) = *self.last.get_or_insert((dropped, now));
        if before != dropped {
            self.last = Some((dropped, now));
            return None;
        }
        if now.duration_since(since) < KEEPS_UP {
            return None;
        }
        let lost = dropped - self.told;
        (self.told, self.last) = (dropped, None);
        Some(lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_up_again_when_no_line_was_dropped_for_a_second() {
        #[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
        let dropped = IntCounter::new("lost", "lines").unwrap();
        let (mut lag, start) = (Lag::new(Arc::default(), dropped.clone()), Instant::now());
        let after = |ms| start + Duration::from_millis(ms);
        dropped.inc_by(3);
        assert_eq!((lag.is_over(after(0)), lag.is_over(after(900))), (None, None));
        dropped.inc();
        assert_eq!((lag.is_over(after(1000)), lag.is_over(after(1999))), (None, None));
        assert_eq!(lag.is_over(after(2000)), Some(4));
        dropped.inc();
        assert_eq!(
            (lag.is_over(after(2100)), lag.is_over(after(3100))),
            (None, Some(1)),
            "each spell for itself"
        );
    }
}
