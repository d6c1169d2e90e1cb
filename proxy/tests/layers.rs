//! Keeps the layers of the house: a module imports only what is below it, and a stage never another stage.
//!
//! Lowest first: weir-config < leaves < stages < refusal < request < running < decide < {explain, journey} < record < trial
//! < state < express < {edge, admin} < {operator, serve} < main. The test reads the sources; a failure names both ends of the arrow.

#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Modules by layer; those of one layer do not see each other.
const LAYERS: &[&[&str]] = &[
    &["causes", "pem", "stripes"],
    &["chunked", "coding", "fleet", "http_client", "metrics", "source", "wire"],
    &["accept", "route", "limit", "auth", "cache", "balance", "forward"],
    &["refusal"],
    &["request"],
    &["running"],
    &["decide"],
    &["explain", "journey"],
    &["record"],
    &["trial"],
    &["state"],
    &["express"],
    &["edge", "admin"],
    &["operator", "serve"],
];

/// Pingora's types belong to the ends of the path: the sockets of clients and those of peers.
const KNOW_PINGORA: &[&str] = &["forward/peer.rs", "edge"];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// The modules of this crate that a source names: every `crate::x`, in `use` groups and in paths.
fn named(text: &str) -> BTreeSet<String> {
    let code: String =
        text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let word = |rest: &str| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => {
                names.insert(word(rest));
            }
            Some(group) => {
                let (mut depth, mut item) = (0_u32, String::new());
                for c in group.chars() {
                    match c {
                        '}' if depth == 0 => break,
                        '{' => depth += 1,
                        '}' => depth -= 1,
                        ',' if depth == 0 => {
                            names.insert(word(item.trim()));
                            item.clear();
                            continue;
                        }
                        _ => {}
                    }
                    item.push(c);
                }
                names.insert(word(item.trim()));
            }
        }
    }
    names.remove("");
    names
}

fn owner(root: &Path, file: &Path) -> String {
    let inside = file.strip_prefix(root).unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

#[test]
fn no_arrow_points_up_and_no_stage_knows_another() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for file in sources(&root) {
        let module = owner(&root, &file);
        if module == "lib" || module == "main" {
            continue;
        }
        let own =
            layer(&module).unwrap_or_else(|| panic!("{module} has no layer: give it one in {}", file!()));
        for name in named(&fs::read_to_string(&file).unwrap()) {
            let Some(other) = layer(&name) else { continue };
            if name != module && other >= own {
                wrong.push(format!("{} imports {name}, which is not below {module}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn pingora_is_known_only_where_peers_are_connected_to() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for file in sources(&root) {
        let inside = file.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&file).unwrap();
        let names_it =
            text.lines().any(|line| !line.trim_start().starts_with("//") && line.contains("pingora::"));
        if names_it && !KNOW_PINGORA.iter().any(|known| inside.starts_with(known)) {
            wrong.push(inside);
        }
    }
    assert!(wrong.is_empty(), "these name pingora: {wrong:?}");
}

#[test]
fn the_reader_sees_through_groups_and_paths() {
    let text = "use crate::{accept::{Arrival, Bad}, cache, route::Path as P};\nfn f() { crate::limit::x() }\n// crate::edge";
    let expected = ["accept", "cache", "limit", "route"].map(str::to_owned).into_iter().collect();
    assert_eq!(named(text), expected);
}
