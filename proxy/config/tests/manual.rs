//! config.yaml at the root of the repository is the manual: it loads, and it documents exactly the keys there are.
#![allow(clippy::unwrap_used, reason = "a test's panic is its report")]

use std::collections::BTreeSet;

use proptest::{collection::vec, prelude::*, sample::Index};
use serde_json::Value;
use weir_config::{load, read, schema};

const MANUAL: &str = include_str!("../../../config.yaml");

fn unset(_: &str) -> Option<String> {
    None
}

#[test]
fn the_manual_loads_without_a_warning() {
    let loaded = load("config.yaml", MANUAL, &unset).unwrap_or_else(|report| panic!("{report}"));
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    assert!(loaded.plan.redis.is_none(), "without REDIS_URL everything is kept in process");
    assert_eq!(loaded.plan.upstreams[0].servers.len(), 3);
}

#[test]
fn the_environment_reaches_the_manual() {
    let set = |name: &str| match name {
        "REDIS_URL" => Some("redis://127.0.0.1:6379".to_owned()),
        "WEIR_PORT" => Some("18080".to_owned()),
        "API_RATE" => Some("9/s".to_owned()),
        _ => None,
    };
    let plan = load("config.yaml", MANUAL, &set).unwrap_or_else(|report| panic!("{report}")).plan;
    assert!(plan.redis.is_some());
    assert_eq!(plan.listeners[0].address.port(), 18080);
    assert_eq!(plan.limits[0].counting.most().get(), 9);
}

/// The manual with every key in force: a `#` that is followed by no space hides one.
fn everything() -> String {
    let shown = |line: &str| {
        let text = line.trim_start();
        let hidden = text.strip_prefix('#').filter(|rest| !rest.is_empty() && !rest.starts_with(' '));
        hidden.map_or_else(|| line.to_owned(), |key| format!("{}{key}", &line[..line.len() - text.len()]))
    };
    MANUAL.lines().map(|line| shown(line) + "\n").collect()
}

#[test]
fn every_key_in_the_manual_exists() {
    read("config.yaml", &everything(), &unset).unwrap_or_else(|report| panic!("{report}"));
}

#[test]
fn every_key_that_exists_is_in_the_manual() {
    let schema = schema();
    // What is made of empty variables counts as not written.
    let set = |name: &str| (name == "REDIS_URL").then(|| "redis://127.0.0.1".to_owned());
    let raw = serde_json::to_value(read("config.yaml", &everything(), &set).unwrap()).unwrap();
    let mut written = BTreeSet::new();
    walk(&schema, &schema, "", &raw, &mut written);
    let definitions =
        schema["$defs"].as_object().unwrap().iter().map(|(name, definition)| (name.as_str(), definition));
    let missing: Vec<String> = definitions
        .chain([("", &schema)])
        .flat_map(|(name, definition)| {
            let keys = definition["properties"].as_object().into_iter().flat_map(serde_json::Map::keys);
            keys.map(move |key| format!("{name}.{key}"))
        })
        .filter(|key| !written.contains(key))
        .collect();
    // These are written as `{ equals: … }`; the manual's one condition shows one of them.
    let missing: Vec<_> = missing.iter().filter(|key| !key.starts_with("HeaderCondition.")).collect();
    assert!(missing.is_empty(), "config.yaml says nothing of {missing:?}");
}

proptest! {
    /// A file that is half edited, cut off or mistyped ends in a report, whatever is broken in it.
    #[test]
    fn no_damage_to_the_manual_panics(cuts in vec((any::<Index>(), any::<Index>(), "[\\[\\]{}:,#&*$~'\"0-9a-zA-Z \\n-]{0,6}"), 1..6)) {
        let mut text = everything();
        for (from, length, instead) in cuts {
            let bounds: Vec<usize> = text.char_indices().map(|(index, _)| index).collect();
            let from = from.index(bounds.len());
            let to = (from + length.index(20)).min(bounds.len() - 1);
            text.replace_range(bounds[from]..bounds[to], &instead);
        }
        match load("config.yaml", &text, &unset) {
            Ok(loaded) => prop_assert!(!loaded.warnings.has_errors()),
            Err(report) => prop_assert!(report.has_errors() && !report.to_string().is_empty()),
        }
    }
}

/// Collects `Definition.key` of every key that has a value.
fn walk(root: &Value, schema: &Value, name: &str, value: &Value, written: &mut BTreeSet<String>) {
    if value.is_null() {
        return;
    }
    if let Some(target) = schema["$ref"].as_str() {
        let name = target.rsplit('/').next().unwrap();
        return walk(root, &root["$defs"][name], name, value, written);
    }
    for alternative in ["anyOf", "oneOf", "allOf"].iter().filter_map(|key| schema[key].as_array()).flatten() {
        walk(root, alternative, name, value, written);
    }
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                if let Some(inner) = schema["properties"].get(key) {
                    if !value.is_null() {
                        written.insert(format!("{name}.{key}"));
                    }
                    walk(root, inner, name, value, written);
                } else if schema["additionalProperties"].is_object() {
                    walk(root, &schema["additionalProperties"], name, value, written);
                }
            }
        }
        Value::Array(items) => {
            items.iter().for_each(|item| walk(root, &schema["items"], name, item, written))
        }
        _ => {}
    }
}
