//! Writes a checked head anew in its ordinary form: origin-form target, CRLF, one Host, no field that the front took over.

use http::Version;

use super::{
    head::{Head, RequestLine, fields::Fields},
    target::Target,
};

/// The bytes of the head with its empty line.
pub(super) fn head(line: &RequestLine<'_>, fields: &Fields<'_>, host: Option<&[u8]>, head: &Head) -> Vec<u8> {
    let mut out = Vec::with_capacity(line.raw_target.len() + fields.count * 48 + 64);
    for part in [line.method, b" "] {
        out.extend_from_slice(part);
    }
    match line.target {
        Target::Absolute { rest: b"", .. } if line.method == b"OPTIONS" => out.push(b'*'),
        Target::Absolute { rest, .. } => {
            if rest.first() != Some(&b'/') {
                out.push(b'/');
            }
            out.extend_from_slice(rest);
        }
        Target::Origin | Target::Asterisk | Target::Authority(_) => out.extend_from_slice(line.raw_target),
    }
    out.extend_from_slice(if line.version == Version::HTTP_11 { b" HTTP/1.1\r\n" } else { b" HTTP/1.0\r\n" });
    if let Some(host) = host {
        field(&mut out, b"Host", host);
    }
    if !head.keep_alive && !fields.close {
        // First, so that whoever reads one Connection field only reads this one.
        field(&mut out, b"Connection", b"close");
    }
    for (name, value) in fields.all() {
        if !is_replaced(name, head) {
            field(&mut out, name, value);
        }
    }
    if let Some(length) = fields.length {
        field(&mut out, b"Content-Length", length.to_string().as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// Whether the field is written from what was checked, or met by the front itself.
fn is_replaced(name: &[u8], head: &Head) -> bool {
    let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
    is("host")
        || is("expect")
        || is("content-length")
        || (!head.may_switch && (is("upgrade") || is("http2-settings")))
}

fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for part in [name, b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}
