//! Files of a folder: types, validators, ranges; the caller streams what is opened here.
//!
//! What is never served: anything outside the root (links are resolved and must stay inside), names that begin with a
//! dot (except `/.well-known/`, RFC 8615), devices and pipes, and one file under two names (`a//b`, `a%2Fb`): all 404,
//! so that nobody learns which of them exist.
//!
//! An entity tag is made of modification time and size. A file changed within the last second may change again within
//! the same tick of the clock, so its tag is weak until then (RFC 9110 §8.8.1). Several ranges at once are answered
//! with the whole file, as §14.2 allows: nobody needs them enough to pay for `multipart/byteranges` in attack surface.

mod conditions;

use std::{
    fs, io,
    os::unix::ffi::OsStrExt as _,
    path::{Path as FsPath, PathBuf},
    time::SystemTime,
};

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use percent_encoding::percent_decode_str;
use weir_config::plan;

use self::conditions::{Range, Validators};
use super::path::Path;

/// A folder that is served.
#[derive(Debug, Clone)]
pub struct Files {
    root: PathBuf,
    strip: String,
    index: String,
    cache_control: Option<HeaderValue>,
}

/// The answer to a request for a file.
#[derive(Debug)]
pub struct FileAnswer {
    /// 200, 206, 301, 304, or one of 404, 405, 412, 416, 500.
    pub status: StatusCode,
    /// Everything that belongs to the answer, `Content-Length` included where there is a body or a HEAD.
    pub headers: HeaderMap,
    /// What to stream; `None` for HEAD and for everything but 200 and 206.
    pub body: Option<FileBody>,
}

/// A part of an open file.
#[derive(Debug)]
pub struct FileBody {
    /// Positioned at the first byte to send.
    pub file: tokio::fs::File,
    /// How many bytes to send; a file that ends before must break the connection, not shorten the answer.
    pub length: u64,
}

impl FileAnswer {
    fn status(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::new(), body: None }
    }

    fn with(mut self, name: header::HeaderName, value: impl TryInto<HeaderValue>) -> Self {
        // Every value is a number, a date, or text the plan has checked.
        if let Ok(value) = value.try_into() {
            self.headers.insert(name, value);
        }
        self
    }
}

impl From<io::Error> for FileAnswer {
    fn from(error: io::Error) -> Self {
        Self::status(match error.kind() {
            io::ErrorKind::NotFound
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::InvalidFilename
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::PermissionDenied => StatusCode::NOT_FOUND,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        })
    }
}

impl Files {
    /// The folder of a plan.
    ///
    /// Shape:  reads the file system, once: links in the root itself are resolved here.
    /// Errors: an [`io::Error`] when there is no such folder.
    pub fn new(plan: &plan::Files) -> io::Result<Self> {
        Self::with(&plan.root, &plan.strip, &plan.index, plan.cache_control.as_deref())
    }

    fn with(root: &FsPath, strip: &str, index: &str, cache_control: Option<&str>) -> io::Result<Self> {
        let root = root.canonicalize()?;
        if !root.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let cache_control = cache_control.map(HeaderValue::from_str).transpose().map_err(io::Error::other)?;
        Ok(Self { root, strip: strip.to_owned(), index: index.to_owned(), cache_control })
    }

    /// The answer to a request; the file is opened but not read.
    ///
    /// Shape:  `query` only for the redirect to a folder's own name; the file system is asked on tokio's blocking pool.
    /// Source: RFC 9110 §13 (conditions), §14 (ranges), §9.3.1 and §9.3.2.
    pub async fn open(
        &self,
        path: &Path<'_>,
        query: Option<&str>,
        method: &Method,
        headers: &HeaderMap,
        now: SystemTime,
    ) -> FileAnswer {
        if !matches!(*method, Method::GET | Method::HEAD) {
            let refused = FileAnswer::status(StatusCode::METHOD_NOT_ALLOWED);
            return refused.with(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        let Some(name) = self.name(path.as_str()) else {
            return FileAnswer::status(StatusCode::NOT_FOUND);
        };
        let (root, index) = (self.root.clone(), self.index.clone());
        let opened = tokio::task::spawn_blocking(move || open(&root, &name, &index)).await;
        match opened.unwrap_or_else(|stopped| Err(io::Error::other(stopped))) {
            Err(error) => error.into(),
            Ok(Opened::Folder) => {
                let query = query.map(|query| format!("?{query}")).unwrap_or_default();
                let moved = FileAnswer::status(StatusCode::MOVED_PERMANENTLY);
                moved.with(header::LOCATION, format!("{}/{query}", path.as_str()))
            }
            Ok(Opened::File(opened)) => {
                self.answer(opened, method, headers, now).await.unwrap_or_else(FileAnswer::from)
            }
        }
    }

    /// The path below the root that a request asks for; empty or with a slash at its end for a folder.
    fn name(&self, path: &str) -> Option<PathBuf> {
        let folder = self.strip.strip_suffix('/').unwrap_or(&self.strip);
        let rest = path.strip_prefix(folder)?.strip_prefix('/')?;
        let mut name = PathBuf::new();
        let mut pieces = rest.split('/').peekable();
        while let Some(piece) = pieces.next() {
            let decoded = percent_decode_str(piece).collect::<Vec<u8>>();
            let last = pieces.peek().is_none();
            if decoded.contains(&b'/') || (decoded.is_empty() && !last) {
                return None;
            }
            if decoded.starts_with(b".") && decoded != b".well-known" {
                return None;
            }
            // An empty last piece leaves the slash that asks for a folder.
            name.push(std::ffi::OsStr::from_bytes(&decoded));
        }
        Some(name)
    }

    async fn answer(
        &self,
        opened: Opening,
        method: &Method,
        headers: &HeaderMap,
        now: SystemTime,
    ) -> io::Result<FileAnswer> {
        let validators = Validators::new(opened.modified, opened.size, now);
        let dress = |status| {
            let answer = FileAnswer::status(status)
                .with(header::ETAG, validators.etag())
                .with(header::LAST_MODIFIED, validators.last_modified())
                .with(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
            match &self.cache_control {
                Some(value) => answer.with(header::CACHE_CONTROL, value.clone()),
                None => answer,
            }
        };
        if let Some(status) = validators.precondition(headers) {
            return Ok(dress(status));
        }
        let whole = opened.size;
        let range = if *method == Method::GET { validators.range(headers, whole) } else { Range::Whole };
        let (answer, start, length) = match range {
            Range::Whole => (dress(StatusCode::OK), 0, whole),
            Range::Part { start, end } => {
                let part = dress(StatusCode::PARTIAL_CONTENT);
                (
                    part.with(header::CONTENT_RANGE, format!("bytes {start}-{end}/{whole}")),
                    start,
                    end - start + 1,
                )
            }
            Range::Unsatisfiable => {
                let refused = FileAnswer::status(StatusCode::RANGE_NOT_SATISFIABLE);
                return Ok(refused.with(header::CONTENT_RANGE, format!("bytes */{whole}")));
            }
        };
        let mut answer =
            answer.with(header::CONTENT_TYPE, opened.content_type).with(header::CONTENT_LENGTH, length);
        if *method == Method::GET {
            let mut file = tokio::fs::File::from_std(opened.file);
            if start > 0 {
                tokio::io::AsyncSeekExt::seek(&mut file, io::SeekFrom::Start(start)).await?;
            }
            answer.body = Some(FileBody { file, length });
        }
        Ok(answer)
    }
}

enum Opened {
    File(Opening),
    /// A folder that was asked for without its slash.
    Folder,
}

struct Opening {
    file: fs::File,
    size: u64,
    modified: SystemTime,
    content_type: String,
}

fn open(root: &FsPath, name: &FsPath, index: &str) -> io::Result<Opened> {
    let asks_for_folder = name.as_os_str().is_empty() || name.as_os_str().as_bytes().ends_with(b"/");
    let wanted = if asks_for_folder { root.join(name).join(index) } else { root.join(name) };
    let real = wanted.canonicalize()?;
    if !real.starts_with(root) {
        return Err(io::ErrorKind::NotFound.into());
    }
    // Before it is opened: opening a pipe would wait for its writer.
    let meta = fs::metadata(&real)?;
    if meta.is_dir() && !asks_for_folder {
        return Ok(Opened::Folder);
    }
    if !meta.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let file = fs::File::open(&real)?;
    // Again, of what was opened: a deployment may have put another file there.
    let meta = file.metadata()?;
    let (size, modified) = (meta.len(), meta.modified()?);
    Ok(Opened::File(Opening { file, size, modified, content_type: content_type(&wanted) }))
}

fn content_type(name: &FsPath) -> String {
    let guess = mime_guess::from_path(name).first_or_octet_stream();
    // Without a charset a browser guesses; everything that is built today is UTF-8.
    if guess.type_() == mime_guess::mime::TEXT {
        format!("{guess}; charset=utf-8")
    } else {
        guess.to_string()
    }
}

#[cfg(test)]
mod tests;
