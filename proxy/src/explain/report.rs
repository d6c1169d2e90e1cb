//! The answer, in JSON for programs and in lines for people.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What would become of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Method and URL, as the route sees them.
    pub request: String,
    /// In one sentence.
    pub outcome: String,
    /// What serves it.
    pub route: Option<Written>,
    /// What is known of the caller.
    pub caller: String,
    /// What would be charged, and is not.
    pub limits: Vec<String>,
    /// Where the route keeps answers.
    pub cache: Option<CacheReport>,
}

/// Something of the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// Its name.
    pub name: String,
    /// File, line and column.
    pub at: String,
}

/// What the cache says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheReport {
    /// Its name.
    pub name: String,
    /// File, line and column of the rule.
    pub at: String,
    /// What the request is looked up by, with hashes for secrets; `None` where only an origin could say whose it is.
    pub key: Option<String>,
    /// What the rule makes it of; `None` is scheme, host and target.
    pub key_template: Option<String>,
    /// What the route's templates purge it by.
    pub tags: Vec<String>,
    /// `hit`, `stale`, `miss`, `bypass`, `only-if-cached`.
    pub lookup: String,
    /// Whether and why it would be answered from here.
    pub served: String,
    /// Whether and why an origin's answer would be kept.
    pub stored: String,
    /// What was last not kept under the key.
    pub last_refusal: Option<Refused>,
    /// Answers under the key, whoever they were made for.
    pub under_key: usize,
    /// The request fields that each of them depends on.
    pub variants: Vec<Vec<String>>,
    /// The one that suits this request.
    pub entry: Option<EntryReport>,
}

/// An answer that was not kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The word of logs and `Cache-Status`.
    pub reason: String,
    /// In a sentence.
    pub why: String,
    /// When.
    pub seconds_ago: u64,
}

/// A stored answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryReport {
    /// The status.
    pub status: u16,
    /// What was asked for when it was fetched.
    pub url: String,
    /// Seconds since the origin made or confirmed it.
    pub age_s: u64,
    /// Seconds left of its lifetime; negative when over.
    pub ttl_s: i64,
    /// When it was fetched or confirmed.
    pub stored: String,
    /// Of its body.
    pub bytes: u64,
    /// `in memory`, `on disk`, or `on disk, its head in memory`.
    #[serde(default)]
    pub kept: String,
    /// Its validator.
    pub etag: Option<String>,
    /// Its other one.
    pub last_modified: Option<String>,
    /// The origin's own word.
    pub cache_control: Option<String>,
    /// The origin's tags, as it wrote them.
    pub origin_tags: Vec<String>,
    /// Whether it is stale by an operator's word.
    pub softly_purged: bool,
    /// The request fields it depends on.
    pub vary: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, value: &dyn fmt::Display| writeln!(f, "{name:<14}{value}");
        line("request", &self.request)?;
        line("outcome", &self.outcome)?;
        match &self.route {
            Some(route) => line("route", &format_args!("{} ({})", route.name, route.at))?,
            None => line("route", &"none")?,
        }
        line("caller", &self.caller)?;
        if !self.limits.is_empty() {
            line("limits", &format_args!("{} (not charged by asking)", self.limits.join(", ")))?;
        }
        let Some(cache) = &self.cache else { return Ok(()) };
        line("cache", &format_args!("{} ({})", cache.name, cache.at))?;
        line("key", &cache.key.as_deref().unwrap_or("not known without asking the origin"))?;
        line("made of", &cache.key_template.as_deref().unwrap_or("scheme, host and target"))?;
        if !cache.tags.is_empty() {
            line("tags", &cache.tags.join(", "))?;
        }
        line("stored?", &cache.stored)?;
        if let Some(last) = &cache.last_refusal {
            line("not kept", &format_args!("{} s ago, {}: {}", last.seconds_ago, last.reason, last.why))?;
        }
        line("under key", &cache.under_key)?;
        for variant in cache.variants.iter().filter(|variant| !variant.is_empty()) {
            line("  made for", &variant.join(", "))?;
        }
        let Some(entry) = &cache.entry else { return Ok(()) };
        line("entry", &format_args!("{} of {} bytes, fetched for {}", entry.status, entry.bytes, entry.url))?;
        line("  age", &format_args!("{} s, {} s left, stored {}", entry.age_s, entry.ttl_s, entry.stored))?;
        line("  kept", &entry.kept)?;
        let fields =
            [("  etag", &entry.etag), ("  modified", &entry.last_modified), ("  said", &entry.cache_control)];
        for (name, value) in fields {
            if let Some(value) = value {
                line(name, value)?;
            }
        }
        for tags in &entry.origin_tags {
            line("  its tags", tags)?;
        }
        if entry.softly_purged {
            line("  purged", &"softly: asked about before it is served")?;
        }
        Ok(())
    }
}
