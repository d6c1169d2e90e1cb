//! A head that is written many times, made once: bytes with gaps for what differs from one answer to the next.

use bytes::{BufMut, BytesMut};
use http::{
    HeaderMap, HeaderName, StatusCode,
    header::{CONNECTION, DATE},
};

use super::{put_field, put_status};

/// A value that differs from answer to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gap {
    /// `Age`.
    Age,
    /// What is left of the lifetime, at the end of `Cache-Status`.
    Ttl,
    /// `X-Request-Id`.
    RequestId,
}

/// The head of an answer but for its gaps and for what becomes of the connection.
#[derive(Debug)]
pub struct Prepared {
    maker: u64,
    text: Box<[u8]>,
    /// How much of the text comes before each, in order.
    gaps: Box<[(usize, Gap)]>,
}

impl Prepared {
    /// The head with these fields, as [`super::put_answer`] writes it. `None` without a date: that would be a gap, too.
    ///
    /// Shape: `maker` says under which rules the fields were made, see [`Prepared::is_by`]. `gap` is told a field's name, its
    ///        value, and whether it is the last of that name; it says which gap follows how much of the value.
    #[must_use]
    pub fn new(
        maker: u64,
        status: StatusCode,
        fields: &HeaderMap,
        gap: impl Fn(&HeaderName, &[u8], bool) -> Option<(usize, Gap)>,
    ) -> Option<Self> {
        if !fields.contains_key(DATE) {
            return None;
        }
        let (mut text, mut gaps) = (BytesMut::new(), Vec::new());
        put_status(&mut text, status);
        for name in fields.keys().filter(|name| **name != CONNECTION) {
            let mut values = fields.get_all(name).iter().peekable();
            while let Some(value) = values.next() {
                let value = value.as_bytes();
                match gap(name, value, values.peek().is_none()) {
                    None => put_field(&mut text, name.as_str(), value),
                    Some((before, gap)) => {
                        put_field(&mut text, name.as_str(), &value[..before]);
                        gaps.push((text.len() - b"\r\n".len(), gap));
                    }
                }
            }
        }
        Some(Self { maker, text: Box::from(&*text), gaps: gaps.into() })
    }

    /// Whether it was made by this maker.
    #[must_use]
    pub fn is_by(&self, maker: u64) -> bool {
        self.maker == maker
    }

    /// Writes it, with room for `more` behind it; `fill` writes what stands in a gap.
    pub fn put(
        &self,
        out: &mut BytesMut,
        keeps: bool,
        more: usize,
        mut fill: impl FnMut(Gap, &mut BytesMut),
    ) {
        // What is filled in is shorter, save for ids that hops made up.
        out.reserve(self.text.len() + 128 + more);
        let mut from = 0;
        for (to, gap) in &self.gaps {
            out.put_slice(&self.text[from..*to]);
            fill(*gap, out);
            from = *to;
        }
        out.put_slice(&self.text[from..]);
        let connection =
            if keeps { &b"Connection: keep-alive\r\n\r\n"[..] } else { b"Connection: close\r\n\r\n" };
        out.put_slice(connection);
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, header};

    use super::*;
    use crate::wire::{put_answer, put_number};

    fn fields() -> HeaderMap {
        let mut fields = HeaderMap::new();
        for (name, value) in [
            (DATE, "Sat, 21 Nov 2026 20:00:00 GMT"),
            (header::AGE, "17"),
            (header::VIA, "1.1 a"),
            (CONNECTION, "x"),
            (header::VIA, "1.1 b"),
            (header::CONTENT_LENGTH, "5"),
        ] {
            fields.append(name, HeaderValue::from_static(value));
        }
        fields
    }

    #[test]
    fn what_is_filled_in_makes_the_head_that_is_written_at_once() {
        let fields = fields();
        let gap = |name: &HeaderName, value: &[u8], is_last: bool| match name.as_str() {
            "age" => Some((0, Gap::Age)),
            "via" if is_last => Some((value.len() - 1, Gap::Ttl)),
            _ => None,
        };
        let prepared = Prepared::new(7, StatusCode::OK, &fields, gap).expect("a date");
        assert!(prepared.is_by(7) && !prepared.is_by(8));
        for (keeps, connection) in [(true, "keep-alive"), (false, "close")] {
            let (mut one, mut other) = (BytesMut::new(), BytesMut::from("before"));
            put_answer(&mut one, StatusCode::OK, &fields, Some(connection));
            prepared.put(&mut other, keeps, 9, |gap, out| match gap {
                Gap::Age => put_number(out, 17),
                _ => out.put_slice(b"b"),
            });
            assert_eq!(other, [b"before", &one[..]].concat());
        }
    }

    #[test]
    fn a_head_whose_date_is_ours_is_not_prepared() {
        let mut fields = fields();
        fields.remove(DATE);
        assert!(Prepared::new(0, StatusCode::OK, &fields, |_, _, _| None).is_none());
    }
}
