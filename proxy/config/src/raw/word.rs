//! What fields of [`Raw`](super::Raw) are made of: words with places, lists, names, short forms and switches.

use std::{borrow::Cow, fmt, marker::PhantomData};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};

use crate::span::Place;

/// Asks [`crate::decode`] for a value together with its place.
pub(crate) const WORD: &str = "weir:word";
/// Asks [`crate::decode`] to tell a scalar from the long form.
pub(crate) const SHORT: &str = "weir:short";

/// A field of config.yaml: not written, written wrongly (and already in the report), or given.
#[derive(Clone, PartialEq, Default)]
pub enum Word<T> {
    /// Not written: the default applies.
    #[default]
    Absent,
    /// Written, but not readable; it has been reported, so that nothing else needs to complain.
    Wrong(Place),
    /// Written.
    Given(T, Place),
}

impl<T> Word<T> {
    /// A word that is not from a file.
    pub fn new(value: T) -> Self {
        Self::Given(value, Place::default())
    }

    /// A word from this place.
    pub fn at(value: T, place: Place) -> Self {
        Self::Given(value, place)
    }

    /// Its value, if it has one.
    pub fn get(&self) -> Option<&T> {
        match self {
            Self::Given(value, _) => Some(value),
            Self::Absent | Self::Wrong(_) => None,
        }
    }

    /// Its value with its place, if it has one.
    pub fn placed(&self) -> Option<(&T, Place)> {
        match self {
            Self::Given(value, place) => Some((value, *place)),
            Self::Absent | Self::Wrong(_) => None,
        }
    }

    /// Whether it is not written at all.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    /// Its place, if it is written.
    pub fn place(&self) -> Option<Place> {
        match self {
            Self::Given(_, place) | Self::Wrong(place) => Some(*place),
            Self::Absent => None,
        }
    }
}

impl<T: Clone> Word<T> {
    /// Its value, or the default.
    pub fn or(&self, default: T) -> T {
        self.get().cloned().unwrap_or(default)
    }
}

impl<T> From<T> for Word<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

impl<T> Word<List<T>> {
    /// The items that could be read.
    pub fn items(&self) -> impl Iterator<Item = (&T, Place)> {
        self.get().into_iter().flat_map(|list| list.0.iter().filter_map(Word::placed))
    }
}

impl<T> Word<Named<T>> {
    /// The entries that could be read, with the places of their names.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &T, Place)> {
        let entries = self.get().into_iter().flat_map(|named| named.0.iter());
        entries.filter_map(|(name, word)| word.placed().map(|(value, place)| (name.as_str(), value, place)))
    }
}

impl<T: fmt::Debug> fmt::Debug for Word<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("-"),
            Self::Wrong(place) => write!(f, "wrong at {place}"),
            Self::Given(value, _) => value.fmt(f),
        }
    }
}

impl<T: Serialize> Serialize for Word<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.get().serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Word<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Words<T> {
            type Value = Word<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a word")
            }

            fn visit_unit<E: Error>(self) -> Result<Word<T>, E> {
                Ok(Word::Absent)
            }

            /// From [`crate::decode`]: the place, then the value unless it is wrong.
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Word<T>, A::Error> {
                let packed: u64 =
                    seq.next_element()?.ok_or_else(|| A::Error::custom("a word has a place"))?;
                let [line, column] =
                    [packed >> 32, packed & 0xffff_ffff].map(|n| u32::try_from(n).unwrap_or(0));
                let place = Place { line, column };
                Ok(seq.next_element()?.map_or(Word::Wrong(place), |value| Word::Given(value, place)))
            }

            /// From any other format, which knows no places.
            fn visit_newtype_struct<D: Deserializer<'de>>(
                self,
                deserializer: D,
            ) -> Result<Word<T>, D::Error> {
                Ok(Option::deserialize(deserializer)?.map_or(Word::Absent, Word::new))
            }
        }
        deserializer.deserialize_newtype_struct(WORD, Words(PhantomData))
    }
}

/// A word has the schema of its value: what is absent is simply not written.
impl<T: JsonSchema> JsonSchema for Word<T> {
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// Items in order; a list of one may be written without brackets.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct List<T>(pub Vec<Word<T>>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> FromIterator<T> for List<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        Self(items.into_iter().map(Word::new).collect())
    }
}

impl<T: fmt::Debug> fmt::Debug for List<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T: JsonSchema> JsonSchema for List<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("ListOf{}", T::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let item = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [item, { "type": "array", "items": item }] })
    }
}

/// Values under names of the operator's choice, in the order of the file.
#[derive(Clone, PartialEq)]
pub struct Named<T>(pub Vec<(String, Word<T>)>);

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T, N: Into<String>> FromIterator<(N, T)> for Named<T> {
    fn from_iter<I: IntoIterator<Item = (N, T)>>(entries: I) -> Self {
        Self(entries.into_iter().map(|(name, value)| (name.into(), Word::new(value))).collect())
    }
}

impl<T: fmt::Debug> fmt::Debug for Named<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter().map(|(name, value)| (name, value))).finish()
    }
}

impl<T: Serialize> Serialize for Named<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Names<T> {
            type Value = Named<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("names with values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Named<T>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Named(entries))
            }
        }
        deserializer.deserialize_map(Names(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for Named<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("Named{}", T::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "additionalProperties": generator.subschema_for::<T>() })
    }
}

/// What may also be written as a single word: `servers: [127.0.0.1:3001]`, `match: /health`, `admin: off`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Short<T>(pub T);

/// A type with a short form.
pub trait FromShort: Sized {
    /// What the short form may be, for the schema and for messages.
    const SHORT_FORM: &'static str;

    /// Reads the short form.
    ///
    /// # Errors
    /// With what should have been written.
    fn from_short(text: &str) -> Result<Self, String>;

    /// Writes the short form, of what is better said so than with keys.
    fn to_short(&self) -> Option<String> {
        None
    }
}

impl<T: Serialize + FromShort> Serialize for Short<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.to_short() {
            Some(word) => serializer.serialize_str(&word),
            None => self.0.serialize(serializer),
        }
    }
}

impl<'de, T: Deserialize<'de> + FromShort> Deserialize<'de> for Short<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Forms<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de> + FromShort> Visitor<'de> for Forms<T> {
            type Value = Short<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(T::SHORT_FORM)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Short<T>, E> {
                T::from_short(text).map(Short).map_err(E::custom)
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(
                self,
                deserializer: D,
            ) -> Result<Short<T>, D::Error> {
                T::deserialize(deserializer).map(Short)
            }
        }
        deserializer.deserialize_newtype_struct(SHORT, Forms(PhantomData))
    }
}

impl<T: JsonSchema + FromShort> JsonSchema for Short<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("Short{}", T::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let long = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [{ "type": ["string", "boolean", "integer"], "description": T::SHORT_FORM }, long] })
    }
}

/// Something that can be switched off.
#[derive(Debug, Clone, PartialEq)]
pub enum Switch<T> {
    /// `off`.
    Off,
    /// Its keys.
    On(T),
}

impl<T: Default> Default for Switch<T> {
    fn default() -> Self {
        Self::On(T::default())
    }
}

/// What a [`Switch`] switches.
pub trait Switched: Default {
    /// What may be said in one word, for the schema and for messages.
    const SHORT_FORM: &'static str = "`on`, `off`";

    /// What another word than `on` and `off` means.
    fn from_word(_: &str) -> Option<Self> {
        None
    }
}

impl<T: Switched> FromShort for Switch<T> {
    const SHORT_FORM: &'static str = T::SHORT_FORM;

    fn from_short(text: &str) -> Result<Self, String> {
        match text {
            "off" | "false" => Ok(Self::Off),
            "on" | "true" => Ok(Self::On(T::default())),
            _ => T::from_word(text).map(Self::On).ok_or_else(|| {
                format!("{} or keys with values should stand here, not `{text}`", T::SHORT_FORM)
            }),
        }
    }
}

impl<T: Serialize> Serialize for Switch<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_str("off"),
            Self::On(value) => value.serialize(serializer),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Switch<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(Self::On)
    }
}

impl<T: JsonSchema> JsonSchema for Switch<T> {
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}
