//! The README's first configuration is one that loads: what people copy first must not be what breaks first.

const README: &str = include_str!("../../../README.md");

/// The first block of YAML.
fn first_configuration() -> &'static str {
    let (_, rest) = README.split_once("```yaml\n").expect("the README shows a configuration");
    rest.split_once("```").expect("and ends it").0
}

fn nothing_set(_: &str) -> Option<String> {
    None
}

#[test]
fn the_readmes_first_configuration_loads_without_a_warning() {
    let loaded = weir_config::load("README.md", first_configuration(), &nothing_set)
        .unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(loaded.plan.routes.len(), 3);
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
}

#[test]
fn the_readmes_first_configuration_is_really_checked() {
    let misspelt = first_configuration().replace("invalidate:", "invalidates:");
    assert!(weir_config::load("README.md", &misspelt, &nothing_set).is_err());
}
