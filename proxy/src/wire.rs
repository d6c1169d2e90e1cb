//! HTTP/1 heads as bytes, as both our sides write them. A leaf: both lanes write answers with it, and forward requests.

mod prepared;

use std::{cell::RefCell, time::SystemTime};

use bytes::{BufMut, BytesMut};
use http::{
    HeaderMap, StatusCode,
    header::{CONNECTION, DATE},
};

pub use self::prepared::{Gap, Prepared};

/// Room for one field besides its name and value.
const AROUND: usize = ": \r\n".len();

/// How many bytes [`put_fields`] writes of these.
#[must_use]
pub fn fields_len(fields: &HeaderMap) -> usize {
    fields.iter().map(|(name, value)| name.as_str().len() + value.len() + AROUND).sum()
}

/// Writes the fields, a line each, in their order.
pub fn put_fields(out: &mut BytesMut, fields: &HeaderMap) {
    for (name, value) in fields {
        put_field(out, name.as_str(), value.as_bytes());
    }
}

/// Writes one field: `content-length` as `Content-Length`, for names have no case, and some old peers believe they do.
pub fn put_field(out: &mut BytesMut, name: &str, value: &[u8]) {
    out.reserve(name.len() + value.len() + AROUND);
    match name {
        // As RFC 9110 spells it, and everybody else.
        "etag" => out.put_slice(b"ETag"),
        name => {
            let from = out.len();
            out.put_slice(name.as_bytes());
            let mut begins = true;
            for byte in &mut out[from..] {
                if begins {
                    byte.make_ascii_uppercase();
                }
                begins = *byte == b'-';
            }
        }
    }
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}

/// Writes the head of an answer: a final one says what becomes of the connection, and the time.
pub fn put_answer(out: &mut BytesMut, status: StatusCode, fields: &HeaderMap, connection: Option<&str>) {
    // The line, Date and Connection take less than the rest.
    out.reserve(fields_len(fields) + 128);
    put_status(out, status);
    match connection {
        None => put_fields(out, fields),
        Some(connection) => {
            for (name, value) in fields.iter().filter(|(name, _)| *name != CONNECTION) {
                put_field(out, name.as_str(), value.as_bytes());
            }
            if !fields.contains_key(DATE) {
                date(|date| put_field(out, DATE.as_str(), date.as_bytes()));
            }
            put_field(out, CONNECTION.as_str(), connection.as_bytes());
        }
    }
    out.put_slice(b"\r\n");
}

fn put_status(out: &mut BytesMut, status: StatusCode) {
    out.put_slice(b"HTTP/1.1 ");
    out.put_slice(status.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.put_slice(b"\r\n");
}

/// What `read` makes of the time as HTTP writes it (RFC 9110 §5.6.7), which is made once a second and thread.
pub fn date<T>(read: impl FnOnce(&str) -> T) -> T {
    thread_local! {
        static DATE_OF: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    }
    let now = SystemTime::now();
    let second = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    DATE_OF.with_borrow_mut(|(of, text)| {
        if *of != second || text.is_empty() {
            (*of, *text) = (second, httpdate::fmt_http_date(now));
        }
        read(text)
    })
}

/// Writes a number in decimal.
pub fn put_number(out: &mut BytesMut, number: i64) {
    let (mut digits, mut at, mut left) = ([0; 20], 20, number.unsigned_abs());
    loop {
        at -= 1;
        digits[at] = b"0123456789"[(left % 10) as usize];
        left /= 10;
        if left == 0 {
            break;
        }
    }
    if number < 0 {
        out.put_u8(b'-');
    }
    out.put_slice(&digits[at..]);
}

/// Writes the line before a chunk of so many bytes.
pub fn put_chunk_line(out: &mut BytesMut, size: usize) {
    let digits = (usize::BITS - size.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        out.put_u8(b"0123456789abcdef"[size >> (4 * place) & 0xf]);
    }
    out.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, header};

    use super::*;

    #[test]
    fn fields_are_lines_with_the_names_that_old_peers_know() {
        let mut fields = HeaderMap::new();
        fields.append(header::CONTENT_LENGTH, HeaderValue::from(5));
        fields.append(header::ETAG, HeaderValue::from_static("\"1\""));
        fields.append("x-a", HeaderValue::from_static("1"));
        fields.append("x-a", HeaderValue::from_static(""));
        fields.append("x", HeaderValue::from_bytes(b"\xe9").expect("obs-text"));
        let mut out = BytesMut::new();
        put_fields(&mut out, &fields);
        assert_eq!(&out[..], b"Content-Length: 5\r\nETag: \"1\"\r\nX-A: 1\r\nX-A: \r\nX: \xe9\r\n");
        assert_eq!(fields_len(&fields), out.len());
    }

    #[test]
    fn numbers_are_decimal() {
        for number in [0, 1, -1, 9, 10, 3599, -86_400, i64::MAX, i64::MIN] {
            let mut out = BytesMut::new();
            put_number(&mut out, number);
            assert_eq!(out, number.to_string().as_bytes());
        }
    }

    #[test]
    fn sizes_are_hexadecimal() {
        for size in [0, 1, 15, 16, 255, 4096, 65_536, usize::MAX] {
            let mut out = BytesMut::new();
            put_chunk_line(&mut out, size);
            assert_eq!(out, format!("{size:x}\r\n").as_bytes());
        }
    }
}
