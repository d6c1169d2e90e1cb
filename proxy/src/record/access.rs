//! The access log: one line a request, through a bounded channel to a thread of its own.
//!
//! A slow disk never delays a request: when the queue is full the line is dropped and counted.

use std::{
    io::{BufWriter, ErrorKind, Write},
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
        let path = log.path.as_ref().map(|path| path.value.clone());
        let sink = Sink::open(path.as_deref())?;
        let (lines, waiting) = sync_channel(log.queue.max(1));
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
        Err(problem) if problem.kind() == ErrorKind::NotFound => folder.read_dir().map(drop).map_err(named),
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
