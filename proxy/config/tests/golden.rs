//! Golden pairs: a config, a line of dashes, and what becomes of it. Adding a case is adding a file.
//!
//! `-----` is followed by the problems, or by `loads` and the warnings; `----- routes` by that part of the plan.
//! `BLESS=1 cargo test -p weir-config --test golden` writes what is found instead of comparing.
#![allow(clippy::unwrap_used, reason = "a test's panic is its report")]

use std::{fs, path::Path};

use weir_config::{Plan, load, resolve, to_yaml};

/// The environment of every case.
fn environment(name: &str) -> Option<String> {
    match name {
        "HOST" => Some("10.0.0.5".into()),
        "EMPTY" => Some(String::new()),
        _ => None,
    }
}

/// A pretty plan without the lines that say where things were written.
fn show(part: &str, plan: &Plan) -> String {
    let text = match part {
        "" => return String::new(),
        "plan" => format!("{plan:#?}"),
        "listeners" => format!("{:#?}", plan.listeners),
        "upstreams" => format!("{:#?}", plan.upstreams),
        "sessions" => format!("{:#?}", plan.sessions),
        "limits" => format!("{:#?}", plan.limits),
        "redis" => format!("{:#?}", plan.redis),
        "routes" => format!("{:#?}", plan.routes),
        "log" => format!("{:#?}", plan.log),
        other => panic!("no part `{other}` is shown"),
    };
    text.lines()
        .filter(|line| !line.trim_start().starts_with("place:"))
        .map(|line| format!("{line}\n"))
        .collect()
}

fn outcome(part: &str, input: &str) -> String {
    match load("config.yaml", input, &environment) {
        Ok(loaded) => format!("loads\n{}{}", loaded.warnings, show(part, &loaded.plan)),
        Err(report) => report.to_string(),
    }
}

/// The cases: name, input, part to show, expected.
fn cases() -> Vec<(std::path::PathBuf, String, String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let split = |path: std::path::PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let (input, rest) = text.split_once("-----").unwrap_or((&text, "\n"));
        let (part, expected) = rest.split_once('\n').unwrap_or((rest, ""));
        let (input, part, expected) = (input.to_owned(), part.trim().to_owned(), expected.to_owned());
        (path, input, part, expected)
    };
    paths.into_iter().map(split).collect()
}

#[test]
fn every_config_has_the_outcome_beside_it() {
    let (bless, mut failures) = (std::env::var_os("BLESS").is_some(), String::new());
    for (path, input, part, expected) in cases() {
        let found = outcome(&part, &input);
        if found == expected {
            continue;
        }
        if bless {
            let part = if part.is_empty() { part } else { format!(" {part}") };
            fs::write(&path, format!("{input}-----{part}\n{found}")).unwrap();
        } else {
            failures += &format!("\n=== {}\n{}", path.display(), diff(&expected, &found));
        }
    }
    assert!(failures.is_empty(), "{failures}\nBLESS=1 accepts what was found");
}

/// The lines that differ, each side after the common beginning and before the common end.
fn diff(expected: &str, found: &str) -> String {
    let (mut old, mut new): (Vec<_>, Vec<_>) = (expected.lines().collect(), found.lines().collect());
    let same = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    (old, new) = (old.split_off(same), new.split_off(same));
    let same_end = old.iter().rev().zip(new.iter().rev()).take_while(|(a, b)| a == b).count();
    old.truncate(old.len() - same_end);
    new.truncate(new.len() - same_end);
    let lines = |sign: &str, lines: Vec<&str>| {
        lines.iter().map(|line| format!("{sign} {line}\n")).collect::<String>()
    };
    format!("(line {})\n{}{}", same + 1, lines("-", old), lines("+", new))
}

#[test]
fn what_is_written_as_yaml_loads_to_the_same_plan() {
    let mut tried = 0;
    for (path, input, ..) in cases() {
        let Ok(loaded) = load("config.yaml", &input, &environment) else { continue };
        let raw = weir_config::read("config.yaml", &input, &environment).unwrap();
        let yaml = to_yaml(&raw);
        let again =
            load("again.yaml", &yaml, &environment).unwrap_or_else(|report| panic!("{report}\n{yaml}"));
        assert_eq!(show("plan", &loaded.plan), show("plan", &again.plan), "{}\n{yaml}", path.display());
        let resolved = resolve("raw", "", &raw, &environment).unwrap();
        assert_eq!(show("plan", &loaded.plan), show("plan", &resolved.plan), "{}", path.display());
        tried += 1;
    }
    assert!(tried >= 6, "only {tried} good configs");
}
