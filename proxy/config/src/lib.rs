//! config.yaml for Weir: text → [`raw`] (as written) → [`plan`] (as meant), or a [`report`] with every problem at once.
//!
//! Pure: no socket, no clock, no Pingora; the environment and the files a config names are asked of an [`Outside`].
//! Read in this order:
//! - [`text`]: YAML → a tree in which every node knows its line and column; the only file that names the YAML library.
//! - [`span`]: the places of that tree.
//! - [`raw`]: the words of config.yaml as types; JSON Schema comes from them.
//! - `decode`: the tree → raw, going on after a mistake.
//! - [`units`], [`template`], [`secret`]: values with a grammar of their own.
//! - [`defaults`]: every default with its reason.
//! - `resolve`: raw → plan.
//! - [`plan`]: what the rest of the house reads.
//! - [`report`]: problems with place, cause and suggestion.
//! - [`change`]: servers that come, go and change while the plan is in force.
//! - `emit`: raw → YAML again, for translators.

pub mod change;
mod decode;
pub mod defaults;
mod emit;
pub mod plan;
pub mod raw;
pub mod report;
mod resolve;
pub mod secret;
pub mod span;
pub mod template;
pub mod text;
pub mod units;

use std::{cell::RefCell, collections::BTreeMap, io, path::Path};

pub use emit::to_yaml;
pub use plan::Plan;
pub use raw::Raw;
pub use report::Report;

/// What a config may ask of the machine it is read on.
pub trait Outside {
    /// The value of an environment variable, if it is set.
    fn env(&self, name: &str) -> Option<String>;

    /// The text of a file that a `*_file` key names.
    ///
    /// # Errors
    /// As reading a file does; it becomes a problem of the report.
    fn read(&self, path: &Path) -> io::Result<String>;
}

/// An environment without files, for tests and translators.
impl<F: Fn(&str) -> Option<String>> Outside for F {
    fn env(&self, name: &str) -> Option<String> {
        self(name)
    }

    fn read(&self, _: &Path) -> io::Result<String> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// A config that may run.
#[derive(Debug)]
#[non_exhaustive]
pub struct Loaded {
    /// What it means.
    pub plan: Plan,
    /// What its operator should know nevertheless.
    pub warnings: Report,
}

/// Reads the text of a file called `name`.
///
/// # Errors
/// With every problem of the file, warnings included, when one of them is an error.
pub fn load(name: &str, text: &str, outside: &impl Outside) -> Result<Loaded, Report> {
    let (raw, report, tree) = words(name, text, outside)?;
    finish(&raw, outside, report, tree.paths())
}

/// Reads the words of a file without asking what they mean; for programs that change a config and write it again.
///
/// # Errors
/// With what is not YAML or not a word of config.yaml.
pub fn read(name: &str, text: &str, outside: &impl Outside) -> Result<Raw, Report> {
    let (raw, mut report, tree) = words(name, text, outside)?;
    report.settle(tree.paths());
    if report.has_errors() { Err(report) } else { Ok(raw) }
}

fn words(name: &str, text: &str, outside: &dyn Outside) -> Result<(Raw, Report, text::Node), Report> {
    let mut report = Report::new(name, text);
    let Some(tree) = text::parse(text, &|name| outside.env(name), &mut report) else {
        return Err(report);
    };
    if tree.value == text::Value::Nothing {
        let problem = report.error(span::Place::default(), "the file says nothing");
        problem
            .help("the least is `listeners: [0.0.0.0:8080]` and `routes`; config.yaml documents every key");
        return Err(report);
    }
    let report = RefCell::new(report);
    let raw = decode::decode(&tree, &report);
    let report = report.into_inner();
    // Nothing of it is known then, so everything would be missing.
    if matches!(tree.value, text::Value::Map(_)) { Ok((raw, report, tree)) } else { Err(report) }
}

/// Resolves what a program wrote; places in the report are those that the program gave its words.
///
/// # Errors
/// With every problem, warnings included, when one of them is an error.
pub fn resolve(name: &str, text: &str, raw: &Raw, outside: &impl Outside) -> Result<Loaded, Report> {
    finish(raw, outside, Report::new(name, text), BTreeMap::new())
}

fn finish(
    raw: &Raw,
    outside: &dyn Outside,
    mut report: Report,
    paths: BTreeMap<span::Place, String>,
) -> Result<Loaded, Report> {
    let redis = raw.redis.get();
    let secrets = [
        redis.map(|redis| &redis.url),
        redis.map(|redis| &redis.password),
        raw.identity.get().map(|identity| &identity.secret),
    ];
    secrets.into_iter().flatten().filter_map(|word| word.get()).for_each(|secret| report.hide(secret));
    let plan = resolve::resolve(raw, outside, &mut report);
    report.settle(paths);
    if report.has_errors() { Err(report) } else { Ok(Loaded { plan, warnings: report }) }
}

/// The JSON Schema of config.yaml, for editors.
#[must_use]
pub fn schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(Raw).to_value();
    schema["title"] = "Weir's config.yaml".into();
    forget_defaults(&mut schema);
    schema
}

/// Removes `default: null`, which is what serde knows of a word that is not written.
fn forget_defaults(schema: &mut serde_json::Value) {
    match schema {
        serde_json::Value::Object(map) => {
            if map.get("default").is_some_and(serde_json::Value::is_null) {
                map.remove("default");
            }
            map.values_mut().for_each(forget_defaults);
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(forget_defaults),
        _ => {}
    }
}
