//! Text → statements, byte for byte as nginx reads them.
//!
//! A port of `ngx_conf_read_token` (src/core/ngx_conf_file.c) with its corners: a `#` begins a comment only where a word
//! may begin; `}` inside a word belongs to it; `${` does not open a block; after a closing quote only space, `;`, `{` or `)`
//! may follow; `\` keeps the next character from meaning anything, and is itself dropped before quotes and `\`.
//! All bytes that mean something are ASCII, so slices between them stay valid UTF-8.

use std::sync::Arc;

use crate::place::At;

/// nginx reads through a buffer of 4096 bytes; a longer word is a forgotten quote.
const WORD_BYTES: usize = 4095;

/// One word, with escapes resolved and quotes removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) text: String,
    pub(crate) at: At,
}

/// What nginx's tokenizer returns at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Statement {
    /// `words;`
    Simple(Vec<Word>),
    /// `words {`
    Open(Vec<Word>),
    /// `}`
    Close(At),
    /// `words }`: the `;` is missing; nginx stops here, we read on to find the other mistakes.
    Unfinished(Vec<Word>, At),
    /// A `;` or `{` without words.
    Stray(char, At),
}

/// Why nothing after this place can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Broken {
    pub(crate) at: At,
    pub(crate) message: String,
}

pub(crate) struct Lexer<'a> {
    text: &'a str,
    /// The next byte.
    next: usize,
    /// The place of the next character.
    here: At,
}

impl<'a> Lexer<'a> {
    pub(crate) fn new(file: &Arc<str>, text: &'a str) -> Self {
        // A byte order mark would become part of the first word, and no one would see why it is unknown.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Self { text, next: 0, here: At { file: Arc::clone(file), line: 1, column: 1 } }
    }

    /// The place of the next character.
    pub(crate) fn here(&self) -> &At {
        &self.here
    }

    /// The next statement; `None` at the end of the file.
    pub(crate) fn statement(&mut self) -> Result<Option<Statement>, Broken> {
        let mut words = Vec::new();
        loop {
            let (start, at) = (self.next, self.here.clone());
            let Some(byte) = self.bump() else {
                return if words.is_empty() { Ok(None) } else { Err(self.ends_early()) };
            };
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => {}
                b'#' => while self.bump().is_some_and(|byte| byte != b'\n') {},
                b';' | b'{' if words.is_empty() => return Ok(Some(Statement::Stray(byte.into(), at))),
                b';' => return Ok(Some(Statement::Simple(words))),
                b'{' => return Ok(Some(Statement::Open(words))),
                b'}' if words.is_empty() => return Ok(Some(Statement::Close(at))),
                b'}' => return Ok(Some(Statement::Unfinished(words, at))),
                b'"' | b'\'' => words.push(self.quoted(byte, at)?),
                _ => words.push(self.bare(byte, start, at)?),
            }
        }
    }

    /// A word that began with `first` at `start`; what ends it is left for [`Self::statement`].
    fn bare(&mut self, first: u8, start: usize, at: At) -> Result<Word, Broken> {
        let mut escaped = first == b'\\';
        let mut variable = first == b'$';
        while let Some(byte) = self.peek() {
            let ends = matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b';' | b'{');
            if ends && !escaped && !(byte == b'{' && variable) {
                return Ok(self.word(start, self.next, at));
            }
            (escaped, variable) = after(byte, escaped, variable);
            self.bump();
            if self.next - start > WORD_BYTES {
                let message = format!("too long parameter \"{}...\" started", self.beginning(start));
                return Err(Broken { at, message });
            }
        }
        Err(self.ends_early())
    }

    /// A word after its opening quote, and what may follow the closing one.
    fn quoted(&mut self, quote: u8, at: At) -> Result<Word, Broken> {
        let start = self.next;
        let (mut escaped, mut variable) = (false, false);
        loop {
            let Some(byte) = self.bump() else {
                // nginx says only "unexpected end of file"; the place of the quote is what one needs to know.
                let message =
                    "unexpected end of file, expecting \";\" or \"}\"; a quote opened here is not closed";
                return Err(Broken { at, message: message.to_owned() });
            };
            if byte == quote && !escaped {
                break;
            }
            (escaped, variable) = after(byte, escaped, variable);
            if self.next - start > WORD_BYTES {
                let quote = char::from(quote);
                let message =
                    format!("too long parameter, probably missing terminating \"{quote}\" character");
                return Err(Broken { at, message });
            }
        }
        let word = self.word(start, self.next - 1, at);
        match self.rest().chars().next() {
            None | Some(' ' | '\t' | '\r' | '\n' | ';' | '{' | ')') => Ok(word),
            Some(other) => Err(Broken { at: self.here.clone(), message: format!("unexpected \"{other}\"") }),
        }
    }

    /// The word in these bytes, escapes resolved.
    fn word(&self, start: usize, end: usize, at: At) -> Word {
        let raw = &self.text[start..end];
        if !raw.contains('\\') {
            return Word { text: raw.to_owned(), at };
        }
        let mut text = String::with_capacity(raw.len());
        let mut chars = raw.chars().peekable();
        while let Some(char) = chars.next() {
            let plain = match (char, chars.peek()) {
                ('\\', Some(&quoted @ ('"' | '\'' | '\\'))) => quoted,
                ('\\', Some('t')) => '\t',
                ('\\', Some('r')) => '\r',
                ('\\', Some('n')) => '\n',
                _ => {
                    text.push(char);
                    continue;
                }
            };
            chars.next();
            text.push(plain);
        }
        Word { text, at }
    }

    fn rest(&self) -> &'a str {
        // `next` always stands on a character boundary: `bump` moves by whole characters.
        &self.text[self.next..]
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.next).copied()
    }

    /// Moves past one character and gives its first byte.
    fn bump(&mut self) -> Option<u8> {
        let char = self.rest().chars().next()?;
        let first = self.peek();
        self.next += char.len_utf8();
        if char == '\n' {
            self.here.line += 1;
            self.here.column = 1;
        } else {
            self.here.column += 1;
        }
        first
    }

    /// The first ten characters from `start`, as nginx quotes them.
    fn beginning(&self, start: usize) -> String {
        self.text[start..].chars().take(10).collect()
    }

    fn ends_early(&self) -> Broken {
        let message = "unexpected end of file, expecting \";\" or \"}\"".to_owned();
        Broken { at: self.here.clone(), message }
    }
}

/// Whether the byte after `byte` is escaped, and whether it follows a `$`.
fn after(byte: u8, escaped: bool, variable: bool) -> (bool, bool) {
    match byte {
        _ if escaped => (false, variable),
        b'{' if variable => (false, true),
        b'\\' => (true, false),
        byte => (false, byte == b'$'),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

    use proptest::prelude::*;

    use super::*;

    fn all(text: &str) -> Result<Vec<Statement>, Broken> {
        let mut lexer = Lexer::new(&"f".into(), text);
        std::iter::from_fn(|| lexer.statement().transpose()).collect()
    }

    /// The words of the only statement.
    fn words(text: &str) -> Vec<String> {
        match all(text).unwrap().remove(0) {
            Statement::Simple(words) | Statement::Open(words) => words.into_iter().map(|w| w.text).collect(),
            other => panic!("{other:?}"),
        }
    }

    fn broken(text: &str) -> String {
        let broken = all(text).unwrap_err();
        format!("{} {}:{}", broken.message, broken.at.line, broken.at.column)
    }

    #[test]
    fn words_end_where_nginx_ends_them() {
        assert_eq!(words("a b\tc\r\n d;"), ["a", "b", "c", "d"]);
        assert_eq!(words("a}b c#d;"), ["a}b", "c#d"]);
        assert_eq!(words("a ${b}c $d${{e;"), ["a", "${b}c", "$d${{e"]);
        assert_eq!(words("a\\;b c\\ d;"), ["a\\;b", "c\\ d"]);
        assert_eq!(words("a \"b\")c;"), ["a", "b", ")c"]);
        assert_eq!(words("a \"\";"), ["a", ""]);
        assert_eq!(words("\u{feff}é ü;"), ["é", "ü"]);
    }

    #[test]
    fn escapes_are_resolved_as_nginx_resolves_them() {
        assert_eq!(
            words(r#"a "b\"c" 'd\'e' "f'g" \\ \t\r\n \x;"#),
            ["a", "b\"c", "d'e", "f'g", "\\", "\t\r\n", "\\x"]
        );
    }

    #[test]
    fn braces_and_semicolons_in_quotes_are_text() {
        assert_eq!(words("a \"b;{}\" 'c;{}' {"), ["a", "b;{}", "c;{}"]);
    }

    #[test]
    fn comments_end_with_their_line() {
        let statements = all("# a { ; \" '\nb; # c\n}").unwrap();
        assert!(matches!(&statements[..], [Statement::Simple(b), Statement::Close(_)] if b[0].at.line == 2));
    }

    #[test]
    fn what_nginx_refuses_is_refused_in_its_words() {
        assert_eq!(broken("a \"b\"c;"), "unexpected \"c\" 1:6");
        assert_eq!(broken("a \"b\"}"), "unexpected \"}\" 1:6");
        assert_eq!(broken("a b\n"), "unexpected end of file, expecting \";\" or \"}\" 2:1");
        assert!(broken("a\n  \"b;").ends_with("a quote opened here is not closed 2:3"));
        let long = "x".repeat(WORD_BYTES);
        assert_eq!(words(&format!("{long};")), [long.as_str()]);
        assert_eq!(broken(&format!("a {long}x;")), "too long parameter \"xxxxxxxxxx...\" started 1:3");
        let quoted = broken(&format!("a '{long}x';"));
        assert_eq!(quoted, "too long parameter, probably missing terminating \"'\" character 1:3");
    }

    #[test]
    fn a_missing_semicolon_does_not_hide_the_rest() {
        let statements = all("a { b c } ; d;").unwrap();
        assert!(matches!(
            &statements[..],
            [Statement::Open(_), Statement::Unfinished(..), Statement::Stray(';', _), Statement::Simple(_)]
        ));
    }

    proptest! {
        #[test]
        fn every_place_is_in_the_text(text in "[ -~éü\t\r\n]{0,200}") {
            let lines: Vec<&str> = text.split('\n').collect();
            for statement in all(&text).unwrap_or_default() {
                let (Statement::Simple(words) | Statement::Open(words)) = statement else { continue };
                for word in words {
                    let line = lines[word.at.line as usize - 1];
                    prop_assert!((word.at.column as usize) <= line.chars().count());
                }
            }
        }
    }
}
