//! The words about compressed answers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::word::{List, Named, Switched, Word};
use crate::units::Bytes;

/// Which answers are compressed, and how. A route overrides the words it has.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Compress {
    /// `zstd`, `br` and `gzip` with their levels; of those that a client likes equally well, the first.
    pub codings: Word<Named<u32>>,
    /// Shorter answers are passed on as they are.
    pub min_bytes: Word<Bytes>,
    /// Media types: `text/html`, `text/*`, `*`.
    pub types: Word<List<String>>,
    /// Whether answers that are one caller's own are compressed, too. Default: false.
    pub personal: Word<bool>,
}

impl Switched for Compress {}
