//! The access log: one line a request, through a bounded channel to a thread of its own.
//!
//! A slow disk never delays a request: when the queue is full the line is dropped and counted.

use std::{
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    time::Duration,
};

use prometheus::IntCounter;
use weir_config::plan::{AccessFormat, AccessLog};

use super::Line;

/// How long a line may wait in the buffer when no other follows; operators watch logs with their eyes.
const FLUSH_AFTER: Duration = Duration::from_millis(200);

enum Message {
    Line(String),
    Reopen,
    Flush(SyncSender<()>),
}

/// The sending side; cheap to clone, never waits.
#[derive(Debug, Clone)]
pub struct AccessWriter {
    lines: SyncSender<Message>,
    format: AccessFormat,
    dropped: IntCounter,
}

impl AccessWriter {
    /// Opens the log and starts its thread, which ends when the last sender is dropped.
    ///
    /// # Errors
    /// When the file cannot be opened for appending; the message names it.
    pub fn open(log: &AccessLog, dropped: IntCounter) -> std::io::Result<Self> {
        let sink = Sink::open(log.path.as_deref())?;
        let (lines, waiting) = sync_channel(log.queue.max(1));
        let path = log.path.clone();
        std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || write_all(waiting, sink, path))?;
        Ok(Self { lines, format: log.format, dropped })
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
        }
    }

    /// Opens the file anew: after a rotation moved it away.
    pub fn reopen(&self) {
        // A full queue means the writer is behind; it will see the file at the next reload.
        let _ = self.lines.try_send(Message::Reopen);
    }

    /// Waits until everything queued so far is written, at most `patience`.
    pub fn flush(&self, patience: Duration) {
        let (done, wait) = sync_channel(1);
        if self.lines.send(Message::Flush(done)).is_ok() {
            let _ = wait.recv_timeout(patience);
        }
    }
}

enum Sink {
    Stdout(std::io::Stdout),
    File(std::fs::File),
}

impl Sink {
    fn open(path: Option<&Path>) -> std::io::Result<Self> {
        let Some(path) = path else { return Ok(Self::Stdout(std::io::stdout())) };
        std::fs::OpenOptions::new().append(true).create(true).open(path).map(Self::File).map_err(|problem| {
            std::io::Error::new(problem.kind(), format!("access log {}: {problem}", path.display()))
        })
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

#[expect(clippy::needless_pass_by_value, reason = "the thread owns its end of the channel")]
fn write_all(lines: Receiver<Message>, sink: Sink, path: Option<PathBuf>) {
    let mut out = BufWriter::with_capacity(64 * 1024, sink);
    // A write error (disk full) must not end the log: the next line may fit again. It is said once per spell.
    let mut failing = false;
    let mut note = |result: std::io::Result<()>| match result {
        Ok(()) => failing = false,
        Err(problem) if !failing => {
            failing = true;
            tracing::warn!(%problem, "access log cannot be written");
        }
        Err(_) => {}
    };
    loop {
        match lines.recv_timeout(FLUSH_AFTER) {
            Ok(Message::Line(line)) => note(out.write_all(line.as_bytes())),
            Ok(Message::Reopen) => {
                note(out.flush());
                match Sink::open(path.as_deref()) {
                    Ok(sink) => out = BufWriter::with_capacity(64 * 1024, sink),
                    Err(problem) => note(Err(problem)),
                }
            }
            Ok(Message::Flush(done)) => {
                note(out.flush());
                let _ = done.send(());
            }
            Err(RecvTimeoutError::Timeout) => note(out.flush()),
            Err(RecvTimeoutError::Disconnected) => {
                note(out.flush());
                return;
            }
        }
    }
}
