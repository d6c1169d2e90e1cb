//! The folder of a cache: whose it is, where its files lie, and what lies there at a start.
//!
//! ```text
//! lock       held by the process that uses it
//! purges     what was purged, see `ledger`
//! tmp/       what is being written
//! 00/ … ff/  files, by the first letters of their names: key, variant, number
//! ```
//!
//! What is called otherwise is not ours, and left alone.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{FallocateFlags, fallocate},
};

use super::index::{self, Name};

/// For a process, or a generation, that is just ending.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// A folder that nobody else uses.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Takes the folder, which is made if its parent exists.
    pub(super) fn take(path: &Path) -> io::Result<Self> {
        make(path)?;
        let lock = file(&path.join("lock"))?;
        let until = Instant::now() + LOCK_PATIENCE;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) if Instant::now() < until => sleep(Duration::from_millis(20)),
                Err(TryLockError::WouldBlock) => {
                    let said = "another cache or process uses it: give each one a folder of its own, or end the other first";
                    return Err(io::Error::new(io::ErrorKind::ResourceBusy, said));
                }
            }
        }
        let folder = Self { path: path.to_owned(), _lock: lock };
        folder.prepare()?;
        Ok(folder)
    }

    /// Makes what lies in it.
    pub(super) fn prepare(&self) -> io::Result<()> {
        make(&self.path.join("tmp"))?;
        (0..=u8::MAX).try_for_each(|first| make(&self.path.join(format!("{first:02x}"))))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the purges are.
    pub(super) fn ledger(&self) -> PathBuf {
        self.path.join("purges")
    }

    /// Where a file is that is being written.
    pub(super) fn unfinished(&self, serial: u64) -> PathBuf {
        self.path.join("tmp").join(format!("{serial:016x}"))
    }

    /// Where a file is.
    pub(super) fn place(&self, file: index::File) -> PathBuf {
        let name = hex(&file.name.key);
        let variant = hex(&file.name.variant);
        self.path.join(&name[..2]).join(format!("{name}-{variant}-{:016x}", file.serial))
    }

    /// Deletes what an earlier life was writing when it ended.
    pub(super) fn clear_unfinished(&self, life: u64) -> io::Result<()> {
        for entry in fs::read_dir(self.path.join("tmp"))? {
            let entry = entry?;
            let serial = entry.file_name().to_str().and_then(|name| u64::from_str_radix(name, 16).ok());
            if serial.is_some_and(|serial| serial < life) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Every file of one of the 256 folders with its length; and how much else there is.
    pub(super) fn scan(&self, first: u8) -> io::Result<(Vec<(index::File, u64)>, usize)> {
        let (mut files, mut foreign) = (Vec::new(), 0);
        for entry in fs::read_dir(self.path.join(format!("{first:02x}")))? {
            let entry = entry?;
            let named = entry.file_name().to_str().and_then(named).filter(|file| file.name.key[0] == first);
            match (named, entry.metadata()) {
                (Some(file), Ok(about)) if about.is_file() => files.push((file, about.len())),
                (_, Ok(_)) => foreign += 1,
                (_, Err(_)) => {} // just deleted
            }
        }
        Ok((files, foreign))
    }
}

/// Whether a cache may be kept at `path`, as far as can be told without taking it.
///
/// # Errors
/// What the system says of it.
pub fn can_keep(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(about) if !about.is_dir() => Err(io::ErrorKind::NotADirectory.into()),
        Ok(_) => {
            let probe = path.join(format!("probe-{}", std::process::id()));
            file(&probe)?;
            fs::remove_file(probe)
        }
        // It is made at a start, by the user who starts it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent = path.parent().filter(|parent| *parent != Path::new(""));
            fs::metadata(parent.unwrap_or(Path::new("."))).map(drop)
        }
        Err(error) => Err(error),
    }
}

/// A file that only its owner reads, made if it is not there.
pub(super) fn file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Takes so many bytes from the file system, for a file that will have them.
pub(super) fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    let bytes = i64::try_from(bytes).map_err(|_| io::ErrorKind::FileTooLarge)?;
    match fallocate(file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, bytes) {
        // A file system that cannot do this tells when it is full.
        Ok(()) | Err(Errno::EOPNOTSUPP) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn make(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        made => made,
    }
}

fn named(text: &str) -> Option<index::File> {
    let (key, rest) = text.split_once('-')?;
    let (variant, serial) = rest.split_once('-')?;
    let name = Name { key: unhex(key)?, variant: unhex(variant)? };
    let serial = unhex::<8>(serial).map(u64::from_be_bytes)?;
    Some(index::File { name, serial })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let is_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if text.len() != 2 * N || !text.as_bytes().iter().all(is_hex) {
        return None;
    }
    let mut bytes = [0; N];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot build its input has failed")]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn one() -> index::File {
        index::File { name: Name { key: [0xab; 16], variant: [7; 8] }, serial: 1 << 40 }
    }

    #[test]
    fn a_file_is_found_by_its_name_and_nothing_else_is() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::take(&root.path().join("cache")).unwrap();
        let place = folder.place(one());
        fs::write(&place, b"12345").unwrap();
        for other in ["readme", "ab-cd-ef", &format!("{}x", place.file_name().unwrap().to_str().unwrap())] {
            fs::write(place.with_file_name(other), b"x").unwrap();
        }
        assert_eq!(folder.scan(0xab).unwrap(), (vec![(one(), 5)], 3));
        assert_eq!(folder.scan(0xac).unwrap(), (vec![], 0));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(folder.path()), mode(&folder.path().join("lock"))), (0o700, 0o600));
    }

    #[test]
    fn what_was_being_written_in_an_earlier_life_goes_and_what_is_now_stays() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::take(root.path()).unwrap();
        [5, 15].iter().for_each(|serial| fs::write(folder.unfinished(*serial), b"x").unwrap());
        folder.clear_unfinished(10).unwrap();
        assert_eq!([5, 15].map(|serial| folder.unfinished(serial).exists()), [false, true]);
    }

    #[test]
    fn a_folder_is_tried_without_being_made() {
        let root = tempfile::tempdir().unwrap();
        can_keep(root.path()).unwrap();
        can_keep(&root.path().join("new")).unwrap();
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
        assert!(can_keep(&root.path().join("no/new")).is_err());
        fs::write(root.path().join("file"), b"").unwrap();
        assert!(can_keep(&root.path().join("file")).is_err());
    }
}
