//! Structured fields, as much as a dictionary of cache directives needs (RFC 9651 §4.2), strictly: one wrong byte and
//! the whole field does not parse.

/// A member's value, without its parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Item {
    /// A whole number.
    Integer(i64),
    /// `?0`, `?1`, or a key alone.
    Boolean(bool),
    /// Strings, tokens, decimals, byte sequences, dates and inner lists: valid, and of no use to us.
    Other,
}

/// The members of a dictionary in the order written; `None` if it does not parse.
pub(super) fn dictionary(text: &[u8]) -> Option<Vec<(&[u8], Item)>> {
    members(text, |input| {
        let key = input.key()?;
        Some((key, if input.eat(b'=') { input.member()? } else { Item::Boolean(true) }))
    })
}

/// The members of a list of strings (RFC 9651 §3.1, §3.3.3); `None` if it does not parse or has anything else in it.
/// Parameters mean nothing.
pub(super) fn strings(text: &[u8]) -> Option<Vec<Vec<u8>>> {
    members(text, |input| {
        let from = input.at + 1;
        input.peek().filter(|byte| *byte == b'"')?;
        input.string()?;
        let quoted = &input.text[from..input.at - 1];
        let mut escaped = false;
        let plain = quoted.iter().filter(|byte| {
            escaped = **byte == b'\\' && !escaped;
            !escaped
        });
        Some(plain.copied().collect())
    })
}

/// What stands between commas, as `member` reads it, with its parameters passed over.
fn members<'a, T>(text: &'a [u8], member: impl Fn(&mut Input<'a>) -> Option<T>) -> Option<Vec<T>> {
    let mut input = Input { text: text.trim_ascii_start(), at: 0 };
    let mut members = Vec::new();
    // Trailing spaces are part of no member (§4.2 step 6); tabs are not allowed there.
    while let [rest @ .., b' '] = input.text {
        input.text = rest;
    }
    while !input.done() {
        members.push(member(&mut input)?);
        input.parameters()?;
        input.skip(b" \t");
        if input.done() {
            break;
        }
        if !input.eat(b',') {
            return None;
        }
        input.skip(b" \t");
        if input.done() {
            return None; // a trailing comma
        }
    }
    Some(members)
}

struct Input<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    fn done(&self) -> bool {
        self.at >= self.text.len()
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let eaten = self.peek() == Some(byte);
        self.at += usize::from(eaten);
        eaten
    }

    fn skip(&mut self, bytes: &[u8]) {
        self.take(|byte| bytes.contains(&byte));
    }

    fn take(&mut self, allowed: impl Fn(u8) -> bool) -> &'a [u8] {
        let from = self.at;
        while self.peek().is_some_and(&allowed) {
            self.at += 1;
        }
        &self.text[from..self.at]
    }

    fn key(&mut self) -> Option<&'a [u8]> {
        self.peek().filter(|byte| byte.is_ascii_lowercase() || *byte == b'*')?;
        Some(self.take(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-' | b'.' | b'*')
        }))
    }

    fn member(&mut self) -> Option<Item> {
        if !self.eat(b'(') {
            return self.bare();
        }
        loop {
            self.skip(b" ");
            if self.eat(b')') {
                return Some(Item::Other);
            }
            self.bare()?;
            self.parameters()?;
            if !matches!(self.peek(), Some(b' ' | b')')) {
                return None;
            }
        }
    }

    fn parameters(&mut self) -> Option<()> {
        while self.eat(b';') {
            self.skip(b" ");
            self.key()?;
            if self.eat(b'=') {
                self.bare()?;
            }
        }
        Some(())
    }

    fn bare(&mut self) -> Option<Item> {
        match self.peek()? {
            b'-' | b'0'..=b'9' => self.number(),
            b'"' => self.string(),
            b'?' => {
                self.at += 1;
                let value = self.peek().filter(|byte| matches!(byte, b'0' | b'1'))?;
                self.at += 1;
                Some(Item::Boolean(value == b'1'))
            }
            b':' => {
                self.at += 1;
                self.take(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='));
                self.eat(b':').then_some(Item::Other)
            }
            b'@' => {
                self.at += 1;
                matches!(self.number()?, Item::Integer(_)).then_some(Item::Other)
            }
            byte if byte.is_ascii_alphabetic() || byte == b'*' => {
                self.take(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte));
                Some(Item::Other)
            }
            _ => None,
        }
    }

    fn number(&mut self) -> Option<Item> {
        let negative = self.eat(b'-');
        let whole = self.take(|byte| byte.is_ascii_digit());
        if self.eat(b'.') {
            let fraction = self.take(|byte| byte.is_ascii_digit());
            let valid = (1..=12).contains(&whole.len()) && (1..=3).contains(&fraction.len());
            return valid.then_some(Item::Other);
        }
        if !(1..=15).contains(&whole.len()) {
            return None;
        }
        let number = whole.iter().fold(0, |number, byte| number * 10 + i64::from(byte - b'0'));
        Some(Item::Integer(if negative { -number } else { number }))
    }

    fn string(&mut self) -> Option<Item> {
        self.at += 1;
        loop {
            match self.peek()? {
                b'"' => break,
                b'\\' if matches!(self.text.get(self.at + 1), Some(b'"' | b'\\')) => self.at += 2,
                b'\\' => return None,
                b' '..=b'~' => self.at += 1,
                _ => return None,
            }
        }
        self.at += 1;
        Some(Item::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_dictionaries_parse() {
        let members =
            dictionary(b" a=1, b , c=?0;x;y=\"\\\"\",d=(1 2;q=1 \"z\"), e=:YQ==:,f=tok/en ,g=-1.5,h=@1 ");
        let expected: [(&[u8], Item); 8] = [
            (b"a", Item::Integer(1)),
            (b"b", Item::Boolean(true)),
            (b"c", Item::Boolean(false)),
            (b"d", Item::Other),
            (b"e", Item::Other),
            (b"f", Item::Other),
            (b"g", Item::Other),
            (b"h", Item::Other),
        ];
        assert_eq!(members.as_deref(), Some(&expected[..]));
        assert_eq!(dictionary(b""), Some(Vec::new()));
    }

    #[test]
    fn one_wrong_byte_spoils_the_field() {
        for text in [
            "a=",
            "a,",
            ",a",
            "a=1 b",
            "A=1",
            "a=(1",
            "a=(1,2)",
            "a=\"",
            "a=\"\\x\"",
            "a=?2",
            "a=1.",
            "a;",
            "a=1;=1",
            "a=:Y",
        ] {
            assert_eq!(dictionary(text.as_bytes()), None, "{text}");
        }
        assert_eq!(dictionary(b"a=1234567890123456"), None);
    }

    #[test]
    fn lists_of_strings_are_strings_and_nothing_else() {
        let list = |text: &str| {
            let members = strings(text.as_bytes())?;
            Some(members.into_iter().map(|member| String::from_utf8_lossy(&member).into_owned()).collect())
        };
        let some =
            |members: &[&str]| Some(members.iter().map(|member| (*member).to_owned()).collect::<Vec<_>>());
        assert_eq!(list(r#" "a", "b c";x=1 ,"\"\\" "#), some(&["a", "b c", r#""\"#]));
        assert_eq!(list(""), some(&[]));
        for text in ["a", r#""a""#.trim_end_matches('"'), r#""a","#, r#""a" "b""#, r#""a", 1"#, r#"("a")"#] {
            assert_eq!(list(text), None, "{text}");
        }
    }
}
