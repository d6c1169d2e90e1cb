//! DESIGN.md says which test shows which promise, and which tries which attack: every name there is a test's, so that no
//! table can outlive one.
#![allow(clippy::unwrap_used, reason = "a test's panic is its report")]

use std::{collections::BTreeSet, path::Path};

/// Names between backticks with at least two colons in them (`suite::file::test`), by the heading of their table.
fn named<'d>(design: &'d str, heading: &str) -> BTreeSet<&'d str> {
    let table = design.split("\n## ").find(|section| section.starts_with(heading)).unwrap();
    table.split('`').skip(1).step_by(2).filter(|name| name.matches("::").count() == 2).collect()
}

#[test]
fn every_promise_and_every_attack_names_tests_that_exist() {
    let proxy = Path::new(env!("CARGO_MANIFEST_DIR"));
    let design = std::fs::read_to_string(proxy.join("DESIGN.md")).unwrap();
    let mut names = BTreeSet::new();
    for heading in ["Which test shows which promise", "Which test tries which attack"] {
        let table = named(&design, heading);
        assert!(table.len() > 20, "{table:?}");
        names.extend(table);
    }
    let missing: Vec<_> = names
        .into_iter()
        .filter(|name| {
            let [suite, file, test] = name.split("::").collect::<Vec<_>>()[..] else { return true };
            let source = std::fs::read_to_string(proxy.join(format!("tests/{suite}/{file}.rs")));
            !source.unwrap_or_default().contains(&format!("fn {test}()"))
        })
        .collect();
    assert!(missing.is_empty(), "no such test: {missing:#?}");
}
