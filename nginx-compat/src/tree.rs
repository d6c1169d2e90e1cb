//! Statements → a tree of directives, `include` resolved through the caller's closure.
//!
//! nginx stops at the first mistake; this goes on where it can, so that one run shows them all.

use std::sync::Arc;

use crate::{
    Read,
    lex::{Broken, Lexer, Statement, Word},
    place::{At, Problems},
};

/// Blocks and includes within each other; a file that includes itself ends here.
const DEPTH: usize = 64;
/// Files of one run; includes that double at each level end here.
const FILES: usize = 4096;
/// Text of one run.
const BYTES: usize = 64 << 20;

/// One directive as written.
#[derive(Debug, Clone)]
pub(crate) struct Directive {
    /// Its position in the order of reading; the report is kept under it.
    pub(crate) id: usize,
    pub(crate) name: String,
    pub(crate) at: At,
    pub(crate) args: Vec<Word>,
    /// What stands between its braces, if it has them.
    pub(crate) block: Option<Vec<Directive>>,
}

impl Directive {
    /// The text of argument `index`, counted from 0; nothing where there is none.
    pub(crate) fn arg(&self, index: usize) -> &str {
        self.args.get(index).map_or("", |word| &word.text)
    }

    /// The text of each argument.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &str> {
        self.args.iter().map(|word| word.text.as_str())
    }

    /// What stands between its braces; nothing if it has none.
    pub(crate) fn inside(&self) -> &[Self] {
        self.block.as_deref().unwrap_or_default()
    }
}

/// Reads `text` and what it includes.
pub(crate) fn parse(name: &str, text: &str, read: &Read<'_>, problems: &mut Problems) -> Vec<Directive> {
    let mut parser = Parser { read, problems, files: 0, bytes: 0, directives: 0 };
    let mut directives = Vec::new();
    parser.file(name, text, 0, &mut directives);
    directives
}

struct Parser<'a> {
    read: &'a Read<'a>,
    problems: &'a mut Problems,
    files: usize,
    bytes: usize,
    directives: usize,
}

impl Parser<'_> {
    fn file(&mut self, name: &str, text: &str, depth: usize, into: &mut Vec<Directive>) {
        self.files += 1;
        self.bytes = self.bytes.saturating_add(text.len());
        let mut lexer = Lexer::new(&Arc::from(name), text);
        // What was read before the file broke is kept: its mistakes are worth telling too.
        if let Err(broken) = self.statements(&mut lexer, None, depth, into) {
            self.problems.add(&broken.at, broken.message);
        }
    }

    /// Reads to the `}` of the block that `opened`, or to the end of a file where nothing is open.
    fn statements(
        &mut self,
        lexer: &mut Lexer<'_>,
        opened: Option<&At>,
        depth: usize,
        into: &mut Vec<Directive>,
    ) -> Result<(), Broken> {
        while let Some(statement) = lexer.statement()? {
            match statement {
                Statement::Simple(words) => self.simple(words, depth, into),
                Statement::Open(words) => {
                    let Some(mut directive) = self.directive(words) else { continue };
                    if depth >= DEPTH {
                        let message = format!("blocks are nested more than {DEPTH} deep");
                        return Err(Broken { at: directive.at, message });
                    }
                    let mut block = Vec::new();
                    let read = self.statements(lexer, Some(&directive.at), depth + 1, &mut block);
                    directive.block = Some(block);
                    into.push(directive);
                    read?;
                }
                Statement::Close(_) if opened.is_some() => return Ok(()),
                Statement::Close(at) => self.problems.add(&at, "unexpected \"}\""),
                Statement::Stray(char, at) => self.problems.add(&at, format!("unexpected \"{char}\"")),
                Statement::Unfinished(words, at) => {
                    let last = words.last().map_or(at.line, |word| word.at.line);
                    let help = format!("is \";\" missing at the end of line {last}?");
                    self.problems.add_with_help(&at, "unexpected \"}\"", help);
                    if opened.is_some() {
                        return Ok(());
                    }
                }
            }
        }
        match opened {
            None => Ok(()),
            Some(at) => {
                let message = format!(
                    "unexpected end of file, expecting \"}}\" of the block opened in line {}",
                    at.line
                );
                Err(Broken { at: lexer.here().clone(), message })
            }
        }
    }

    fn simple(&mut self, words: Vec<Word>, depth: usize, into: &mut Vec<Directive>) {
        let Some(directive) = self.directive(words) else { return };
        let include = (directive.name == "include" && directive.args.len() == 1)
            .then(|| (directive.at.clone(), directive.arg(0).to_owned()));
        into.push(directive);
        if let Some((at, pattern)) = include {
            self.include(&at, &pattern, depth, into);
        }
    }

    fn include(&mut self, at: &At, pattern: &str, depth: usize, into: &mut Vec<Directive>) {
        if depth >= DEPTH {
            let message = format!("\"{pattern}\" is included more than {DEPTH} deep");
            return self.problems.add_with_help(at, message, "does a file include itself?");
        }
        let files = match (self.read)(pattern) {
            Ok(files) => files,
            Err(cause) => return self.problems.add(at, format!("open() \"{pattern}\" failed ({cause})")),
        };
        for (name, text) in files {
            if self.files >= FILES || self.bytes >= BYTES {
                let message =
                    format!("\"{pattern}\" goes beyond {FILES} files or {BYTES} bytes of configuration");
                return self.problems.add(at, message);
            }
            self.file(&name, &text, depth + 1, into);
        }
    }

    /// The first word is the name; the lexer gives no statement without words.
    fn directive(&mut self, words: Vec<Word>) -> Option<Directive> {
        let mut words = words.into_iter();
        let name = words.next()?;
        let id = self.directives;
        self.directives += 1;
        Some(Directive { id, name: name.text, at: name.at, args: words.collect(), block: None })
    }
}
