//! YAML → a tree in which every node knows its line and column. The only file that names the YAML library.
//!
//! Scalars stay text: the field that reads one decides whether it is a number, so quotes never change a meaning.
//! `${NAME}` and `${NAME:-default}` are replaced by the environment here; `$${NAME}` stands for `${NAME}`. Names are
//! upper case, variables of templates are lower case: the two cannot clash. A value that consists of empty variables
//! counts as not written. Aliases work, but the tree is bounded, so that ten lines cannot become a billion.

mod environment;
mod hint;

use std::collections::{BTreeMap, HashMap};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, StrInput};

pub(crate) use self::environment::escape;
use self::{
    environment::{Reference, substitute, variable},
    hint::hint,
};
use crate::{report::Report, span::Place};

/// Nodes of one file at most, aliases followed: far beyond any real file, far below any real memory.
const NODES: usize = 100_000;
/// Levels of nesting at most; the deepest key of config.yaml is on level 7.
const DEPTH: usize = 32;

/// One value of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where it starts.
    pub place: Place,
    /// What it is.
    pub value: Value,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing written, `~`, `null`, or variables that are all empty.
    Nothing,
    /// Something that cannot be read; it is in the report.
    Wrong,
    /// A scalar, variables replaced.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order of the file.
    Map(Vec<(Key, Node)>),
}

/// A key of a mapping.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    /// The word.
    pub name: String,
    /// Where it starts.
    pub place: Place,
}

impl Value {
    /// What an operator calls it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Nothing | Self::Wrong => "nothing",
            Self::Text(_) => "a single value",
            Self::List(_) => "a list",
            Self::Map(_) => "keys with values",
        }
    }
}

impl Node {
    /// The path of every place: `routes[2].cache.in`. An item and its first key start at the same place: the item wins.
    #[must_use]
    pub fn paths(&self) -> BTreeMap<Place, String> {
        let mut paths = BTreeMap::new();
        self.collect_paths("", &mut paths);
        paths
    }

    fn collect_paths(&self, path: &str, paths: &mut BTreeMap<Place, String>) {
        match &self.value {
            Value::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    item.collect_paths(&path, paths);
                    paths.insert(item.place, path);
                }
            }
            Value::Map(entries) => {
                for (key, node) in entries {
                    let path =
                        if path.is_empty() { key.name.clone() } else { format!("{path}.{}", key.name) };
                    node.collect_paths(&path, paths);
                    paths.insert(key.place, path.clone());
                    paths.entry(node.place).or_insert(path);
                }
            }
            Value::Nothing | Value::Wrong | Value::Text(_) => {}
        }
    }

    fn count(&self) -> usize {
        1 + match &self.value {
            Value::List(items) => items.iter().map(Self::count).sum(),
            Value::Map(entries) => entries.iter().map(|(_, node)| node.count()).sum(),
            Value::Nothing | Value::Wrong | Value::Text(_) => 0,
        }
    }
}

/// Reads one document; `None` when it is not YAML (the report says where).
pub fn parse(text: &str, env: &dyn Fn(&str) -> Option<String>, report: &mut Report) -> Option<Node> {
    let mut reader = Reader {
        text,
        events: Parser::new_from_str(text),
        env,
        report,
        anchors: HashMap::new(),
        nodes: 0,
        depth: 0,
    };
    match reader.document() {
        Ok(node) => Some(node),
        Err(Stop { place, message }) => {
            let problem = reader.report.error(place, message);
            problem.help = if problem.message.contains("tab") {
                Some("YAML is indented with spaces".to_owned())
            } else {
                hint(text, place)
            };
            None
        }
    }
}

/// Why reading cannot go on.
struct Stop {
    place: Place,
    message: String,
}

impl From<ScanError> for Stop {
    fn from(error: ScanError) -> Self {
        Self { place: place(*error.marker()), message: format!("this is not YAML: {}", error.info()) }
    }
}

struct Reader<'a> {
    text: &'a str,
    events: Parser<'a, StrInput<'a>>,
    env: &'a dyn Fn(&str) -> Option<String>,
    report: &'a mut Report,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    depth: usize,
}

impl<'a> Reader<'a> {
    fn document(&mut self) -> Result<Node, Stop> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => {
                    let nothing = || Node { place: Place { line: 1, column: 1 }, value: Value::Nothing };
                    return Ok(root.unwrap_or_else(nothing));
                }
                Event::DocumentStart(_) if root.is_some() => {
                    return Err(Stop {
                        place: place(span.start),
                        message: "one file holds one document".into(),
                    });
                }
                Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
                event => root = Some(self.node(event, span)?),
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Stop> {
        self.events.next_event().unwrap_or(Ok((Event::StreamEnd, Span::default()))).map_err(Stop::from)
    }

    fn node(&mut self, event: Event<'a>, span: Span) -> Result<Node, Stop> {
        let place = place(span.start);
        self.spend(1, place)?;
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(Stop { place, message: format!("nested deeper than {DEPTH} levels") });
        }
        let (value, anchor) = match event {
            Event::Alias(id) => (self.alias(id, place)?, 0),
            Event::Scalar(text, style, anchor, _) => (self.scalar(&text, style, place), anchor),
            Event::SequenceStart(anchor, _) => (self.list()?, anchor),
            Event::MappingStart(anchor, _) => (self.map()?, anchor),
            _ => return Err(Stop { place, message: "this is not YAML: a value should stand here".into() }),
        };
        self.depth -= 1;
        let node = Node { place, value };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn spend(&mut self, nodes: usize, place: Place) -> Result<(), Stop> {
        self.nodes = self.nodes.saturating_add(nodes);
        match self.nodes <= NODES {
            true => Ok(()),
            false => Err(Stop { place, message: format!("more than {NODES} values, aliases followed") }),
        }
    }

    fn alias(&mut self, id: usize, place: Place) -> Result<Value, Stop> {
        let Some(target) = self.anchors.get(&id) else {
            return Err(Stop { place, message: "an alias inside of what it stands for".into() });
        };
        let nodes = target.count();
        self.spend(nodes, place)?;
        Ok(self.anchors[&id].value.clone())
    }

    fn list(&mut self) -> Result<Value, Stop> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::List(items)),
                (event, span) => items.push(self.node(event, span)?),
            }
        }
    }

    fn map(&mut self) -> Result<Value, Stop> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        let mut seen: HashMap<String, Place> = HashMap::new();
        loop {
            let (name, place) = match self.next()? {
                (Event::MappingEnd, _) => return Ok(Value::Map(entries)),
                (Event::Scalar(name, ..), span) => (name.into_owned(), place(span.start)),
                (_, span) => {
                    return Err(Stop {
                        place: place(span.start),
                        message: "a key must be a single word".into(),
                    });
                }
            };
            let (event, span) = self.next()?;
            let node = self.node(event, span)?;
            match seen.get(&name) {
                Some(first) => {
                    let message = format!(
                        "`{name}` is written twice; first in line {}, column {}",
                        first.line, first.column
                    );
                    self.report.error(place, message).help("keep one of them");
                }
                None => {
                    seen.insert(name.clone(), place);
                    entries.push((Key { name, place }, node));
                }
            }
        }
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, place: Place) -> Value {
        if style == ScalarStyle::Plain && matches!(text, "" | "~" | "null") {
            return Value::Nothing;
        }
        let (mut replaced, mut wrong) = (false, false);
        let text = substitute(text, |reference| {
            replaced = true;
            let value = match reference {
                Reference::Closed(reference) => {
                    let at = self.within(place, &format!("${{{reference}}}"));
                    variable(reference, self.env, at, self.report)
                }
                Reference::Open(rest) => {
                    let at = self.within(place, &format!("${{{rest}"));
                    let problem = self.report.error(at, format!("`${{{rest}` is not closed"));
                    problem.help("write `${NAME}`; `$${` stands for `${` itself");
                    None
                }
            };
            wrong |= value.is_none();
            value.unwrap_or_default()
        });
        match (wrong, replaced && text.is_empty()) {
            (true, _) => Value::Wrong,
            (false, true) => Value::Nothing,
            (false, false) => Value::Text(text),
        }
    }

    /// Where in a value that begins at `place` something is written: further right in its line, if it is found there.
    fn within(&self, place: Place, written: &str) -> Place {
        let line = self.text.lines().nth(place.line.saturating_sub(1) as usize).unwrap_or_default();
        let skipped = place.column.saturating_sub(1) as usize;
        let start = line.char_indices().nth(skipped).map_or(line.len(), |(start, _)| start);
        let before = line[start..].split_once(written).map_or(0, |(before, _)| before.chars().count());
        Place { column: place.column + u32::try_from(before).unwrap_or(0), ..place }
    }
}

fn place(marker: Marker) -> Place {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Place { line: number(marker.line()), column: number(marker.col() + 1) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test's panic is its report")]
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> (Option<Node>, Report) {
        let mut report = Report::new("t", text);
        let env = |name: &str| match name {
            "HOST" => Some("example.org".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        (parse(text, &env, &mut report), report)
    }

    fn value_of_a(text: &str) -> Value {
        let (node, report) = read(text);
        assert!(report.is_empty(), "{report}");
        match node.unwrap().value {
            Value::Map(mut entries) => entries.remove(0).1.value,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn places_count_from_one() {
        let (node, _) = read("a:\n  b: [x, y]\n");
        let paths = node.unwrap().paths();
        let of = |line, column| paths[&Place { line, column }].as_str();
        assert_eq!((of(1, 1), of(2, 3), of(2, 7), of(2, 10)), ("a", "a.b", "a.b[0]", "a.b[1]"));
    }

    #[test]
    fn the_environment_is_replaced_and_variables_of_templates_are_not() {
        for (written, meant) in [
            ("a: ${HOST}:80", "example.org:80"),
            ("a: ${NONE:-x}/${EMPTY:-y}", "x/y"),
            ("a: $${HOST} ${client.ip}", "${HOST} ${client.ip}"),
            ("a: '$$${HOST}'", "$${HOST}"),
            ("a: $${HOST", "${HOST"),
        ] {
            assert_eq!(value_of_a(written), Value::Text(meant.into()), "{written}");
        }
        for nothing in ["a: ${EMPTY}", "a: '${NONE:-}'", "a:", "a: ~"] {
            assert_eq!(value_of_a(nothing), Value::Nothing, "{nothing}");
        }
        assert_eq!(value_of_a("a: ''"), Value::Text(String::new()));
    }

    #[test]
    fn a_variable_that_is_not_set_is_named() {
        let (_, report) = read("a: ${NONE}");
        assert!(report.problems()[0].message.contains("`NONE`"));
    }

    #[test]
    fn a_reference_that_is_not_closed_is_no_text() {
        let (_, report) = read("a: 1\nb: x ${HOST:80");
        assert_eq!(report.problems()[0].place, Place { line: 2, column: 6 });
        assert!(report.problems()[0].message.contains("`${HOST:80` is not closed"), "{report}");
    }

    #[test]
    fn aliases_stand_for_their_anchor_within_bounds() {
        let (node, report) = read("a: &x [1, 2]\nb: *x\n");
        assert!(report.is_empty());
        assert_eq!(node.unwrap().count(), 7);

        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for i in 1..10 {
            let previous = vec![format!("*a{}", i - 1); 10].join(", ");
            bomb += &format!("a{i}: &a{i} [{previous}]\n");
        }
        let (node, report) = read(&bomb);
        assert!(node.is_none() && report.problems()[0].message.contains("aliases"), "{report}");
    }

    #[test]
    fn deep_nesting_is_refused() {
        for levels in [DEPTH, 5_000] {
            let (node, report) = read(&format!("a: {}{}", "[".repeat(levels), "]".repeat(levels)));
            assert!(node.is_none() && report.has_errors(), "{levels}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(\\PC|[\\n:{}&*$ -]|a: |\\$\\{A){0,40}") {
            let (node, report) = read(&text);
            prop_assert!(node.is_some() || report.has_errors());
            let _ = report.to_string();
        }
    }
}
