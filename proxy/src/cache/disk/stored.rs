//! A body that stays on disk, and how it is read: a piece at a time, each checked before it goes on.

use std::{
    collections::VecDeque,
    fs::File,
    ops::Range,
    path::PathBuf,
    sync::{Arc, Weak},
};

use bytes::Bytes;

use super::{
    super::{
        answer::{Piece, Plan},
        entry::Entry,
        waiting::Broken,
    },
    core::{Core, Unread, read_block},
    format::{Layout, block_of},
    index,
    pool::Pool,
};

/// Where a body lies.
#[derive(Debug)]
pub struct Stored {
    /// Weak, so that entries in memory do not keep a folder that the plan does not name any more.
    core: Weak<Core>,
    pool: Arc<Pool>,
    path: PathBuf,
    pub(super) file: index::File,
    layout: Layout,
}

impl Stored {
    pub(super) fn new(core: &Arc<Core>, file: index::File, layout: Layout) -> Self {
        let (pool, path) = (Arc::clone(&core.pool), core.folder.place(file));
        Self { core: Arc::downgrade(core), pool, path, file, layout }
    }

    /// Its length in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.layout.body
    }

    /// Bytes that it occupies in memory.
    pub(in super::super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.path.as_os_str().len()
    }

    fn unread(&self, unread: Unread) -> Broken {
        if let Some(core) = self.core.upgrade() {
            core.unread(self.file, unread);
        }
        Broken
    }
}

/// What of a body on disk is to be sent, and what comes between its parts.
#[derive(Debug)]
pub struct Pieces {
    stored: Arc<Stored>,
    file: Arc<File>,
    left: VecDeque<Piece>,
    first: Option<Bytes>,
}

impl Pieces {
    /// Begins to read what `plan` says of an entry whose body is on disk: the first piece is there, and in order.
    ///
    /// # Errors
    /// [`Broken`] when the file is gone or damaged; the disk has given it up then, and [`super::super::Cache::forget`]
    /// is to follow.
    pub async fn begin(entry: &Entry, plan: &Plan) -> Result<Self, Broken> {
        let stored = Arc::clone(entry.body().stored().ok_or(Broken)?);
        let path = stored.path.clone();
        let opened = stored.pool.run(move || Ok(Arc::new(File::open(path)?))).await;
        let file = opened.map_err(|unread| stored.unread(unread))?;
        let left = match plan {
            Plan::Nothing => VecDeque::new(),
            Plan::Whole => VecDeque::from([Piece::Part(0..stored.length())]),
            Plan::Pieces(pieces) => pieces.iter().cloned().collect(),
        };
        let mut pieces = Self { stored, file, left, first: None };
        pieces.first = pieces.next().await.transpose()?;
        Ok(pieces)
    }

    /// The next piece; `None` after the last.
    ///
    /// # Errors
    /// [`Broken`] when the file is damaged: close the connection, so that the client sees a truncated answer.
    pub async fn next(&mut self) -> Option<Result<Bytes, Broken>> {
        if let Some(first) = self.first.take() {
            return Some(Ok(first));
        }
        let range = match self.left.front_mut()? {
            Piece::Text(text) => {
                let text = std::mem::take(text);
                self.left.pop_front();
                return Some(Ok(text));
            }
            Piece::Part(range) => range,
        };
        let read = piece(&self.file, &self.stored.layout, range.clone(), &self.stored.pool).await;
        match read {
            Ok(bytes) => {
                range.start += bytes.len() as u64;
                if range.is_empty() {
                    self.left.pop_front();
                }
                Some(Ok(bytes))
            }
            Err(unread) => Some(Err(self.stored.unread(unread))),
        }
    }
}

/// The first bytes of a range, as far as they are in one piece.
pub(super) async fn piece(
    file: &Arc<File>,
    layout: &Layout,
    range: Range<u64>,
    pool: &Pool,
) -> Result<Bytes, Unread> {
    let ((block, within), file, layout) = (block_of(&range), Arc::clone(file), *layout);
    let bytes = pool.run(move || read_block(&file, &layout, block)).await?;
    Ok(bytes.slice(within))
}
