//! Tree → raw types: a serde deserializer that knows places and goes on after a mistake.
//!
//! serde stops at the first error. Here every field is a [`Word`](crate::raw::Word), and a `Word` is where an error
//! ends: it is noted with its place, the word counts as wrong, and its neighbours are read as if nothing had
//! happened. Unknown keys are noted and skipped by [`Fields`], which knows the keys there are.

use std::cell::RefCell;

use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess,
    Visitor, value::StrDeserializer,
};

use crate::{
    raw::word::{SHORT, WORD},
    report::{Report, did_you_mean},
    span::Place,
    text::{Key, Node, Value},
};

/// Words that other programs use for our keys: a key of the left is answered with the word on the right.
const ELSEWHERE: [(&str, &str); 19] = [
    ("backend", "to"),
    ("host", "hosts"),
    ("keepalive_timeout", "keepalive"),
    ("key_file", "key"),
    ("listen", "listeners"),
    ("location", "match"),
    ("locations", "routes"),
    ("limits", "limit"),
    ("max_connections", "connections"),
    ("max_size", "memory"),
    ("method", "methods"),
    ("policy", "balance"),
    ("proxy_pass", "to"),
    ("return", "answer"),
    ("server", "servers"),
    ("size", "memory"),
    ("strategy", "balance"),
    ("upstream", "to"),
    ("workers", "threads"),
];

/// Reads a tree as `T`, noting every mistake; what is wrong or missing has its default.
pub(crate) fn decode<T: for<'de> Deserialize<'de> + Default>(node: &Node, report: &RefCell<Report>) -> T {
    if matches!(node.value, Value::Nothing) {
        return T::default();
    }
    match T::deserialize(Decoder { node, place: node.place, report }) {
        Ok(value) => value,
        Err(wrong) => {
            wrong.note(node.place, report);
            T::default()
        }
    }
}

/// A mistake on its way to the next [`Word`](crate::raw::Word).
#[derive(Debug)]
pub(crate) struct Wrong {
    message: String,
    help: Option<String>,
}

impl Wrong {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None }
    }

    /// Cause and way out in the form that [`de::Error::custom`] reads.
    pub(crate) fn sentence(self) -> String {
        [Some(self.message), self.help].into_iter().flatten().collect::<Vec<_>>().join("; ")
    }

    fn note(self, place: Place, report: &RefCell<Report>) {
        report.borrow_mut().error(place, self.message).help = self.help;
    }
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Wrong {}

impl de::Error for Wrong {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        // Our own types write `cause; way out`.
        let message = message.to_string();
        match message.split_once("; ") {
            Some((message, help)) => Self { message: message.to_owned(), help: Some(help.to_owned()) },
            None => Self::new(message),
        }
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let help = match did_you_mean(variant, expected.iter().copied()) {
            Some(close) => format!("did you mean `{close}`?"),
            None => format!("there is `{}`", expected.join("`, `")),
        };
        Self { message: format!("`{variant}` is not known here"), help: Some(help) }
    }
}

/// A node, and the place to blame for it: a scalar's own, the key's for anything larger.
#[derive(Clone, Copy)]
struct Decoder<'a> {
    node: &'a Node,
    place: Place,
    report: &'a RefCell<Report>,
}

impl<'a> Decoder<'a> {
    fn scalar(self, wanted: &str) -> Result<&'a str, Wrong> {
        match &self.node.value {
            Value::Text(text) => Ok(text),
            other => Err(Wrong::new(format!("{wanted} should stand here, not {}", other.kind()))),
        }
    }
}

macro_rules! whole_numbers {
    ($($method:ident $visit:ident $type:ty),+) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
            let text = self.scalar("a whole number")?;
            let number = text.parse::<$type>().map_err(|_| {
                Wrong::new(format!("`{text}` is not a whole number from {} to {}", <$type>::MIN, <$type>::MAX))
            })?;
            visitor.$visit(number)
        }
    )+};
}

impl<'de> Deserializer<'de> for Decoder<'de> {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match &self.node.value {
            Value::Nothing | Value::Wrong => visitor.visit_unit(),
            Value::Text(text) => visitor.visit_borrowed_str(text),
            Value::List(_) => self.deserialize_seq(visitor),
            Value::Map(_) => self.deserialize_map(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.scalar("`true` or `false`")? {
            "true" => visitor.visit_bool(true),
            "false" => visitor.visit_bool(false),
            other => Err(Wrong::new(format!("`{other}` is neither `true` nor `false`"))),
        }
    }

    whole_numbers! {
        deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16, deserialize_u32 visit_u32 u32,
        deserialize_u64 visit_u64 u64, deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16,
        deserialize_i32 visit_i32 i32, deserialize_i64 visit_i64 i64
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_borrowed_str(self.scalar("a single value")?)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.node.value {
            Value::Nothing => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        match (name, &self.node.value) {
            (WORD, Value::Nothing) => visitor.visit_unit(),
            (WORD, _) => visitor.visit_seq(Placed { decoder: self, place_given: false }),
            (SHORT, Value::Text(text)) => visitor.visit_borrowed_str(text),
            _ => visitor.visit_newtype_struct(self),
        }
    }

    /// A list of one may be written without brackets.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let items = match &self.node.value {
            Value::List(items) => items.as_slice(),
            _ => std::slice::from_ref(self.node),
        };
        visitor.visit_seq(Items { items: items.iter(), report: self.report })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        self.fields(None, visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        let hint = match &self.node.value {
            Value::Text(word) if matches!(&**word, "off" | "false" | "no" | "none" | "disabled") => off(name),
            _ => None,
        };
        self.fields(Some(known), visitor).map_err(|wrong| match hint {
            Some(hint) => Wrong { help: Some(hint.to_owned()), ..wrong },
            None => wrong,
        })
    }

    /// `word`, or `word: value` as a mapping of one key.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        match &self.node.value {
            Value::Text(text) => visitor.visit_enum(Variant { name: text, value: None }),
            Value::Map(entries) if entries.len() == 1 => {
                let (key, node) = &entries[0];
                let value = Some(Self { node, place: blame(key, node), report: self.report });
                visitor.visit_enum(Variant { name: &key.name, value })
            }
            other => {
                let words = known.join("`, `");
                Err(Wrong::new(format!("one of `{words}` should stand here, not {}", other.kind())))
            }
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct identifier
    }
}

impl<'a> Decoder<'a> {
    fn fields<V: Visitor<'a>>(
        self,
        known: Option<&'static [&'static str]>,
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        match &self.node.value {
            Value::Map(entries) => {
                visitor.visit_map(Fields { entries: entries.iter(), known, value: None, report: self.report })
            }
            other => {
                let mut wrong =
                    Wrong::new(format!("keys with values should stand here, not {}", other.kind()));
                wrong.help = known.map(|known| format!("the keys are `{}`", known.join("`, `")));
                Err(wrong)
            }
        }
    }
}

/// A word as a sequence of its place and its value, where a wrong value ends the sequence.
struct Placed<'a> {
    decoder: Decoder<'a>,
    place_given: bool,
}

impl<'de> SeqAccess<'de> for Placed<'de> {
    type Error = Wrong;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Wrong> {
        let Place { line, column } = self.decoder.place;
        if !std::mem::replace(&mut self.place_given, true) {
            let place = u64::from(line) << 32 | u64::from(column);
            return seed.deserialize(de::value::U64Deserializer::new(place)).map(Some);
        }
        if matches!(self.decoder.node.value, Value::Wrong) {
            return Ok(None);
        }
        seed.deserialize(self.decoder).map(Some).or_else(|wrong: Wrong| {
            wrong.note(self.decoder.place, self.decoder.report);
            Ok(None)
        })
    }
}

struct Items<'a> {
    items: std::slice::Iter<'a, Node>,
    report: &'a RefCell<Report>,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Wrong;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Wrong> {
        let Some(node) = self.items.next() else { return Ok(None) };
        seed.deserialize(Decoder { node, place: node.place, report: self.report }).map(Some)
    }
}

/// The entries of a mapping; those whose key is not `known` are noted and left out.
struct Fields<'a> {
    entries: std::slice::Iter<'a, (Key, Node)>,
    known: Option<&'static [&'static str]>,
    value: Option<Decoder<'a>>,
    report: &'a RefCell<Report>,
}

impl Fields<'_> {
    fn unknown(&self, key: &Key, known: &[&str]) {
        let mut report = self.report.borrow_mut();
        let problem = report.error(key.place, format!("unknown key `{}`", key.name));
        let renamed = ELSEWHERE.iter().find(|(theirs, ours)| *theirs == key.name && known.contains(ours));
        match renamed {
            Some((_, ours)) => problem.help(format!("the key is `{ours}` here")),
            None => problem.suggest(&key.name, known.iter().copied()),
        };
    }
}

impl<'de> MapAccess<'de> for Fields<'de> {
    type Error = Wrong;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Wrong> {
        while let Some((key, node)) = self.entries.next() {
            match self.known {
                Some(known) if !known.contains(&key.name.as_str()) => self.unknown(key, known),
                _ => {
                    self.value = Some(Decoder { node, place: blame(key, node), report: self.report });
                    return seed.deserialize(StrDeserializer::new(&key.name)).map(Some);
                }
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Wrong> {
        let decoder = self.value.take().expect("serde asks for a value after its key");
        seed.deserialize(decoder)
    }
}

/// What to write instead of `off`, which means nothing for these words of config.yaml.
fn off(name: &str) -> Option<&'static str> {
    match name {
        "Retry" => Some("to ask one server only, write `{ tries: 1 }`"),
        "CacheRule" | "CircuitBreaker" | "Concurrency" | "Health" | "Hedge" | "Identity" | "Jwt"
        | "PurgeRule" | "Queue" | "Redis" | "RedisSentinel" | "RedisTls" | "SessionRule" | "Sticky"
        | "Tls" | "UpstreamTls" => Some("leave the key out: it is off without it"),
        _ => None,
    }
}

fn blame(key: &Key, node: &Node) -> Place {
    match node.value {
        Value::Text(_) | Value::Wrong => node.place,
        _ => key.place,
    }
}

/// `word` or `word: value` of an enum.
struct Variant<'a> {
    name: &'a str,
    value: Option<Decoder<'a>>,
}

impl<'de> EnumAccess<'de> for Variant<'de> {
    type Error = Wrong;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Wrong> {
        let variant = seed.deserialize(StrDeserializer::<Wrong>::new(self.name))?;
        Ok((variant, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'de> {
    type Error = Wrong;

    fn unit_variant(self) -> Result<(), Wrong> {
        match self.value {
            None => Ok(()),
            Some(_) => Err(Wrong::new(format!("`{}` stands alone, without a value", self.name))),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Wrong> {
        match self.value {
            Some(value) => seed.deserialize(value),
            None => Err(Wrong::new(format!("`{}` needs a value: `{{ {}: … }}`", self.name, self.name))),
        }
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Wrong> {
        self.struct_variant(&[], visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, Wrong> {
        Err(Wrong::new(format!("`{}` is not known here", self.name)))
    }
}
