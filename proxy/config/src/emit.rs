//! Raw → YAML again: tidy enough to be committed, and read by [`crate::load`] to the same plan.

use serde_json::Value;

use crate::{raw::Raw, text};

/// Writes a config as YAML. Words that are absent are left out; comments are the caller's.
#[must_use]
pub fn to_yaml(raw: &Raw) -> String {
    let mut out = String::new();
    // Raw has only text, numbers and string keys, for which JSON cannot fail.
    let value = serde_json::to_value(raw).unwrap_or_default();
    block(&value, 0, &mut out);
    out
}

/// Writes a value that has lines of its own, indented by `depth` levels; the cursor stands at its first line's indent.
fn block(value: &Value, depth: usize, out: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(map) => {
            let entries = map.iter().filter(|(_, value)| !value.is_null());
            for (index, (key, value)) in entries.enumerate() {
                if index > 0 {
                    out.push_str(&indent);
                }
                *out += &format!("{}:", key_text(key));
                entry(value, depth + 1, out);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().filter(|item| !item.is_null()).enumerate() {
                if index > 0 {
                    out.push_str(&indent);
                }
                out.push('-');
                match flow(item) {
                    Some(text) => *out += &format!(" {text}\n"),
                    None => {
                        out.push(' ');
                        block(item, depth + 1, out);
                    }
                }
            }
        }
        scalar => *out += &format!("{}\n", flow(scalar).unwrap_or_default()),
    }
}

/// What follows a key: on its line when it is short, below it otherwise.
fn entry(value: &Value, depth: usize, out: &mut String) {
    match flow(value) {
        Some(text) => *out += &format!(" {text}\n"),
        None => {
            *out += &format!("\n{}", "  ".repeat(depth));
            block(value, depth, out);
        }
    }
}

/// A scalar, a list of scalars, or nothing at all, in one line.
fn flow(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some("~".into()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(value) => Some(value.to_string()),
        Value::String(text) => Some(scalar(text)),
        Value::Array(items) => {
            let items = items.iter().filter(|item| !item.is_null());
            let items: Option<Vec<String>> = items
                .map(|item| if item.is_array() || item.is_object() { None } else { flow(item) })
                .collect();
            items.map(|items| format!("[{}]", items.join(", ")))
        }
        Value::Object(map) => map.values().all(Value::is_null).then(|| "{}".into()),
    }
}

fn key_text(key: &str) -> String {
    if is_plain(key) { key.to_owned() } else { quoted(key) }
}

fn scalar(text: &str) -> String {
    let escaped = text::escape(text);
    if is_plain(&escaped) { escaped } else { quoted(&escaped) }
}

/// Whether YAML reads it as this very text without quotes, even inside of brackets, and people do not stumble.
fn is_plain(text: &str) -> bool {
    let inner =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '/' | '-' | ':' | '+' | '%' | '@');
    text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/')
        && text.chars().all(inner)
        && !text.ends_with(':')
        && !matches!(text, "null" | "true" | "false" | "yes" | "no")
}

/// JSON's quotes are YAML's; what JSON leaves as it is and YAML does not is escaped beside.
fn quoted(text: &str) -> String {
    let json = Value::from(text).to_string();
    json.chars()
        .map(|c| match c {
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' => format!("\\u{:04x}", u32::from(c)),
            c => c.to_string(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test's panic is its report")]
    use proptest::prelude::*;

    use super::*;
    use crate::raw::{Answer, Listener, Named, Route, Short, Switch, Word};

    fn read_again(raw: &Raw) -> String {
        let yaml = to_yaml(raw);
        let again =
            crate::read("again.yaml", &yaml, &|_: &str| None).unwrap_or_else(|it| panic!("{it}\n{yaml}"));
        assert_eq!(serde_json::to_value(&again).unwrap(), serde_json::to_value(raw).unwrap(), "{yaml}");
        yaml
    }

    #[test]
    fn a_config_made_by_a_program_is_tidy_yaml() {
        let listener = Listener { address: Word::new("0.0.0.0:80".into()), ..Listener::default() };
        let raw = Raw {
            listeners: Word::new([Short(listener)].into_iter().collect()),
            admin: Word::new(Short(Switch::Off)),
            routes: Word::new(
                [Route { to: Word::new("api".into()), ..Route::default() }].into_iter().collect(),
            ),
            ..Raw::default()
        };
        assert_eq!(
            read_again(&raw),
            "listeners:\n  - address: 0.0.0.0:80\nadmin: off\nroutes:\n  - to: api\n"
        );
    }

    proptest! {
        #[test]
        fn any_text_survives(text in "(\\PC|[\\n\\t\\r\"'#:{}$~-]|\\$\\{A\\}|null|true|- |\\PC: ){0,8}", name in "\\PC{1,8}") {
            let answer = Answer { content_type: Word::new(text.clone()), ..Answer::default() };
            let route = Route {
                name: Word::new(text),
                answer: Word::new(answer),
                response_headers: Word::new(Named::from_iter([(name, crate::template::Template::default())])),
                ..Route::default()
            };
            read_again(&Raw { routes: Word::new([route].into_iter().collect()), ..Raw::default() });
        }
    }
}
