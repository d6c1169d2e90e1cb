//! HTTP/1 heads as bytes, as both our sides write them. A leaf: the front writes answers with it, and forward requests.

use bytes::{BufMut, BytesMut};
use http::HeaderMap;

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
    let from = out.len();
    out.put_slice(name.as_bytes());
    let mut begins = true;
    for byte in &mut out[from..] {
        if begins {
            byte.make_ascii_uppercase();
        }
        begins = *byte == b'-';
    }
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
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
        fields.append("x-a", HeaderValue::from_static("1"));
        fields.append("x-a", HeaderValue::from_static(""));
        fields.append("x", HeaderValue::from_bytes(b"\xe9").expect("obs-text"));
        let mut out = BytesMut::new();
        put_fields(&mut out, &fields);
        assert_eq!(&out[..], b"Content-Length: 5\r\nX-A: 1\r\nX-A: \r\nX: \xe9\r\n");
        assert_eq!(fields_len(&fields), out.len());
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
