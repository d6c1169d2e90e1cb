//! Golden pairs in one file each: nginx.conf, a rule of dashes, the expected config.yaml, a rule, the expected report; or the
//! expected problems alone. Included files follow the first one under a line `== NAME`. A case is added by adding a file;
//! `BLESS=1` writes what came out.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::{collections::BTreeMap, fs, path::PathBuf};

use weir_nginx::{Problems, Translation, translate};

const RULE: &str = "\n----------\n";

/// nginx.conf and what it includes.
fn run(input: &str) -> Result<Translation, Problems> {
    let mut sections = input.split("\n== ");
    let main = sections.next().unwrap_or_default();
    let files: BTreeMap<&str, &str> = sections.filter_map(|section| section.split_once('\n')).collect();
    translate("nginx.conf", main, &|pattern| match pattern.split_once('*') {
        Some((start, end)) => {
            let matches = files.iter().filter(|(name, _)| name.starts_with(start) && name.ends_with(end));
            Ok(matches.map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect())
        }
        None => match files.get(pattern) {
            Some(text) => Ok(vec![(pattern.to_owned(), (*text).to_owned())]),
            None => Err("2: No such file or directory".to_owned()),
        },
    })
}

fn cases() -> Vec<(PathBuf, String)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn translations_come_out_as_written_down() {
    let bless = std::env::var_os("BLESS").is_some();
    let mut wrong = Vec::new();
    let cases = cases();
    assert!(cases.len() >= 20, "only {} cases were found", cases.len());
    for (path, text) in cases {
        let input = text.split(RULE).next().unwrap_or_default();
        let output = match run(input) {
            Ok(Translation { raw, report }) => {
                format!("{}{RULE}{report}", weir_config::to_yaml(&raw).trim_end())
            }
            Err(problems) => problems.to_string(),
        };
        let actual = format!("{}{RULE}{output}", input.trim_end());
        if bless {
            fs::write(&path, actual).unwrap();
        } else if actual != text {
            wrong.push(format!("{}:\n{actual}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n==========\n"));
}

/// What is emitted must be a config that runs, not only one that reads well.
#[test]
fn every_translation_resolves_to_a_plan() {
    let nothing_outside = |_: &str| None;
    let mut wrong = Vec::new();
    for (path, text) in cases() {
        let Ok(translation) = run(text.split(RULE).next().unwrap_or_default()) else { continue };
        let yaml = weir_config::to_yaml(&translation.raw);
        let read = weir_config::load("config.yaml", &yaml, &nothing_outside);
        let made = weir_config::resolve("nginx.conf", "", &translation.raw, &nothing_outside);
        for report in [read.err(), made.err()].into_iter().flatten() {
            wrong.push(format!("{}:\n{report}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
