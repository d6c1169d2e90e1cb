//! An instant as both stores keep it.

use std::{borrow::Cow, time::Duration};

use jiff::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sqlx::{
    Database, Decode, Encode, Postgres, Sqlite, Type,
    encode::IsNull,
    error::BoxDynError,
    postgres::{PgTypeInfo, types::Oid},
};

/// An instant with microseconds, as Postgres has them: `timestamptz` there, microseconds since 1970 in SQLite, RFC 3339 in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(Timestamp);

/// `timestamptz` in pg_type.dat; built-in types never change their number.
const TIMESTAMPTZ: Oid = Oid(1184);
/// Postgres counts from 2000-01-01T00:00:00Z: that many microseconds after 1970.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

impl Moment {
    /// This instant, cut to microseconds, so that what is answered now equals what is read later.
    #[must_use]
    pub fn now() -> Self {
        Self::cut(Timestamp::now())
    }

    /// `instant` without its nanoseconds.
    #[must_use]
    pub fn cut(instant: Timestamp) -> Self {
        Timestamp::from_microsecond(instant.as_microsecond()).map_or(Self(instant), Self)
    }

    /// Seconds since 1970.
    #[must_use]
    pub fn unix_seconds(self) -> i64 {
        self.0.as_second()
    }

    /// Microseconds since 1970.
    #[must_use]
    pub fn microseconds(self) -> i64 {
        self.0.as_microsecond()
    }

    /// Back from [`Moment::microseconds`]; `None` beyond all years.
    #[must_use]
    pub fn from_microseconds(since_1970: i64) -> Option<Self> {
        Timestamp::from_microsecond(since_1970).map(Self).ok()
    }

    /// So much later; the end of all years at most.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span).unwrap_or(Timestamp::MAX))
    }

    /// The instant itself.
    #[must_use]
    pub fn timestamp(self) -> Timestamp {
        self.0
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self::cut).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Moment {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Moment".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date-time" })
    }
}

impl Type<Sqlite> for Moment {
    fn type_info() -> <Sqlite as Database>::TypeInfo {
        <i64 as Type<Sqlite>>::type_info()
    }

    fn compatible(column: &<Sqlite as Database>::TypeInfo) -> bool {
        <i64 as Type<Sqlite>>::compatible(column)
    }
}

impl Encode<'_, Sqlite> for Moment {
    fn encode_by_ref(
        &self,
        buffer: &mut <Sqlite as Database>::ArgumentBuffer,
    ) -> Result<IsNull, BoxDynError> {
        Encode::<Sqlite>::encode_by_ref(&self.0.as_microsecond(), buffer)
    }
}

impl<'r> Decode<'r, Sqlite> for Moment {
    fn decode(value: <Sqlite as Database>::ValueRef<'r>) -> Result<Self, BoxDynError> {
        Ok(Self(Timestamp::from_microsecond(<i64 as Decode<Sqlite>>::decode(value)?)?))
    }
}

impl Type<Postgres> for Moment {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(TIMESTAMPTZ)
    }
}

impl Encode<'_, Postgres> for Moment {
    fn encode_by_ref(
        &self,
        buffer: &mut <Postgres as Database>::ArgumentBuffer,
    ) -> Result<IsNull, BoxDynError> {
        Encode::<Postgres>::encode_by_ref(&(self.0.as_microsecond() - POSTGRES_EPOCH), buffer)
    }
}

impl<'r> Decode<'r, Postgres> for Moment {
    fn decode(value: <Postgres as Database>::ValueRef<'r>) -> Result<Self, BoxDynError> {
        // Bind parameters make sqlx speak the binary format, in which this is a plain 64-bit count.
        let since_2000 = <i64 as Decode<Postgres>>::decode(value)?;
        let since_1970 = since_2000.checked_add(POSTGRES_EPOCH).ok_or("an instant beyond all years")?;
        Ok(Self(Timestamp::from_microsecond(since_1970)?))
    }
}
