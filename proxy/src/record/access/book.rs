//! The lines on their way to the disk.
//!
//! States: *written* → (the sink refuses) → *in trouble*, which is told: lines wait in the buffer, and those that do not
//! fit are counted → (the sink takes everything that waits) → *written*, which is told, too.

use std::io::{ErrorKind, Write};

use prometheus::IntCounter;

/// What is written at once, and what may wait while nothing can be.
const BUFFER: usize = 64 * 1024;

/// A buffer before a sink that may refuse.
#[derive(Debug)]
pub(super) struct Book<W> {
    sink: W,
    waiting: Vec<u8>,
    failed: IntCounter,
    /// Lines lost since the sink began to refuse; `None` while it does not.
    trouble: Option<u64>,
}

impl<W: Write> Book<W> {
    /// An empty one; `failed` counts the lines that are lost.
    pub(super) fn new(sink: W, failed: IntCounter) -> Self {
        Self { sink, waiting: Vec::with_capacity(BUFFER), failed, trouble: None }
    }

    /// Takes a line, or counts it as lost when nothing more may wait.
    pub(super) fn put(&mut self, line: &str) {
        if self.would_overflow(line) {
            self.write_out();
        }
        if self.would_overflow(line) {
            self.lose(1);
        } else {
            self.waiting.extend_from_slice(line.as_bytes());
        }
    }

    /// Writes what waits; what cannot be written goes on waiting.
    pub(super) fn write_out(&mut self) {
        let mut done = 0;
        let result = loop {
            if done == self.waiting.len() {
                break self.sink.flush();
            }
            match self.sink.write(&self.waiting[done..]) {
                Ok(0) => break Err(ErrorKind::WriteZero.into()),
                Ok(written) => done += written,
                Err(problem) if problem.kind() == ErrorKind::Interrupted => {}
                Err(problem) => break Err(problem),
            }
        };
        self.waiting.drain(..done);
        match (result, self.trouble) {
            (Ok(()), Some(lost)) => {
                self.trouble = None;
                tracing::info!(lost, "access log is written again");
            }
            (Err(problem), None) => {
                self.trouble = Some(0);
                tracing::warn!(%problem, "access log cannot be written");
            }
            _ => {}
        }
    }

    /// Another file is written from here on; what waits goes there if the old one does not take it.
    pub(super) fn go_on_in(&mut self, sink: W) {
        self.write_out();
        self.sink = sink;
    }

    /// The end: what cannot be written now never is.
    pub(super) fn close(mut self) {
        self.write_out();
        let left = self.waiting.iter().filter(|byte| **byte == b'\n').count();
        self.lose(left as u64);
    }

    fn would_overflow(&self, line: &str) -> bool {
        !self.waiting.is_empty() && self.waiting.len() + line.len() > BUFFER
    }

    fn lose(&mut self, lines: u64) {
        self.failed.inc_by(lines);
        if let Some(lost) = &mut self.trouble {
            *lost += lines;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::{cell::RefCell, io, rc::Rc};

    use super::*;

    /// A disk with so much room.
    #[derive(Debug, Clone, Default)]
    struct Disk(Rc<RefCell<(Vec<u8>, usize)>>);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (held, room) = &mut *self.0.borrow_mut();
            let taken = bytes.len().min(*room);
            if taken == 0 && !bytes.is_empty() {
                return Err(ErrorKind::StorageFull.into());
            }
            held.extend_from_slice(&bytes[..taken]);
            *room -= taken;
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn book(room: usize) -> (Disk, Book<Disk>) {
        let disk = Disk::default();
        disk.0.borrow_mut().1 = room;
        (disk.clone(), Book::new(disk, IntCounter::new("lost", "lines").unwrap()))
    }

    fn held(disk: &Disk) -> String {
        String::from_utf8(disk.0.borrow().0.clone()).unwrap()
    }

    #[test]
    fn what_a_full_disk_does_not_take_waits_and_is_written_once_there_is_room() {
        let (disk, mut book) = book(3);
        book.put("one\n");
        book.write_out();
        book.put("two\n");
        book.write_out();
        assert_eq!((&*held(&disk), book.trouble, book.failed.get()), ("one", Some(0), 0));
        disk.0.borrow_mut().1 = usize::MAX;
        book.write_out();
        assert_eq!((&*held(&disk), book.trouble, book.failed.get()), ("one\ntwo\n", None, 0));
    }

    #[test]
    fn lines_beyond_the_buffer_are_lost_and_counted_and_none_is_cut() {
        let (disk, mut book) = book(0);
        let line = format!("{}\n", "x".repeat(BUFFER / 4 - 1));
        for _ in 0..6 {
            book.put(&line);
        }
        assert_eq!((book.trouble, book.failed.get()), (Some(2), 2));
        disk.0.borrow_mut().1 = usize::MAX;
        book.put("later\n");
        book.write_out();
        assert_eq!(held(&disk), format!("{}later\n", line.repeat(4)));
    }

    #[test]
    fn what_waits_goes_into_the_next_file_and_at_the_end_it_is_counted() {
        let (_full, mut lost) = book(0);
        lost.put("one\n");
        let (disk, other) = book(4);
        lost.go_on_in(other.sink);
        lost.write_out();
        assert_eq!(held(&disk), "one\n");
        lost.put("two\n");
        lost.put("three\n");
        let failed = lost.failed.clone();
        lost.close();
        assert_eq!((&*held(&disk), failed.get()), ("one\n", 2));
    }

    #[test]
    fn a_line_longer_than_the_buffer_is_written() {
        let (disk, mut book) = book(usize::MAX);
        let line = format!("{}\n", "x".repeat(2 * BUFFER));
        book.put(&line);
        book.put("two\n");
        book.write_out();
        assert_eq!(held(&disk), format!("{line}two\n"));
    }
}
