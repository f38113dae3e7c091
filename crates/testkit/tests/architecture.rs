//! The table of crates in ARCHITECTURE.md is what the manifests say, and arrows only point down.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().and_then(Path::parent).expect("the repository").to_owned()
}

/// The names in one section of a manifest.
fn uses(manifest: &str, section: &str) -> Vec<String> {
    let section = manifest.split("\n[").find_map(|s| s.strip_prefix(section)).unwrap_or_default();
    let names = section.lines().skip(1).filter_map(|l| l.split(['.', ' ', '=']).next());
    names.filter(|n| !n.is_empty()).map(str::to_owned).collect()
}

/// What each crate of the workspace uses of the workspace, by its manifest.
fn manifests() -> BTreeMap<String, BTreeSet<String>> {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    let directories = std::fs::read_dir(root().join("crates")).unwrap().map(|e| e.unwrap().path());
    for directory in directories.chain([root().join("xtask")]) {
        let text = std::fs::read_to_string(directory.join("Cargo.toml")).unwrap();
        let name = text.lines().find_map(|l| l.strip_prefix("name = \"")).expect("a name").trim_end_matches('"');
        found.push((name.to_owned(), [uses(&text, "dependencies]"), uses(&text, "build-dependencies]")].concat()));
    }
    let ours: BTreeSet<String> = found.iter().map(|(name, _)| name.clone()).collect();
    found.into_iter().map(|(name, uses)| (name, uses.into_iter().filter(|u| ours.contains(u)).collect())).collect()
}

/// The rows of the table, in its order: from the bottom up.
fn table() -> Vec<(String, BTreeSet<String>)> {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let rows = text.split("| crate | may use |").nth(1).expect("the table of crates").lines().skip(2);
    rows.take_while(|l| l.starts_with('|'))
        .map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            (cells[1].to_owned(), cells[2].split_whitespace().map(str::to_owned).collect())
        })
        .collect()
}

#[test]
fn the_table_of_crates_is_what_the_manifests_say() {
    let (manifests, table) = (manifests(), table());
    let listed: BTreeMap<_, _> = table.into_iter().collect();
    assert_eq!(listed.keys().collect::<Vec<_>>(), manifests.keys().collect::<Vec<_>>());
    for (name, uses) in &manifests {
        assert_eq!(&listed[name], uses, "{name}");
    }
}

#[test]
fn arrows_only_point_down() {
    let mut below = BTreeSet::new();
    for (name, uses) in table() {
        assert!(uses.is_subset(&below), "{name} uses {:?}, which stand above it", uses.difference(&below));
        below.insert(name);
    }
    let manifests = manifests();
    let workers = ["network", "resolver", "image", "runtime"];
    for worker in workers {
        assert!(workers.iter().all(|w| !manifests[worker].contains(*w)), "{worker} knows another worker");
    }
}

/// Tests may use whom their crate may, and testkit.
#[test]
fn tests_use_no_more_than_their_crates() {
    let manifests = manifests();
    for entry in std::fs::read_dir(root().join("crates")).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path().join("Cargo.toml")).unwrap();
        let name = text.lines().find_map(|l| l.strip_prefix("name = \"")).expect("a name").trim_end_matches('"');
        for used in uses(&text, "dev-dependencies]").iter().filter(|u| manifests.contains_key(*u)) {
            assert!(used == "testkit" || manifests[name].contains(used), "{name}'s tests use {used}");
        }
    }
}

#[test]
fn unsafe_code_has_two_homes() {
    for entry in std::fs::read_dir(root().join("crates")).unwrap() {
        let directory = entry.unwrap().path();
        let name = directory.file_name().unwrap().to_string_lossy().into_owned();
        let manifest = std::fs::read_to_string(directory.join("Cargo.toml")).unwrap();
        let in_files = testkit::rows::sources(&directory).unwrap().iter().any(|f| {
            // Put together, so that this file is none of them.
            std::fs::read_to_string(f).unwrap().contains(&["allow(", "unsafe_code)"].concat())
        });
        let allows = manifest.contains("unsafe_code = \"allow\"") || in_files;
        assert_eq!(allows, ["kernel", "isle-shim"].contains(&name.as_str()), "{name}");
    }
}

#[test]
fn system_calls_have_their_homes() {
    for entry in std::fs::read_dir(root().join("crates")).unwrap() {
        let directory = entry.unwrap().path();
        let name = directory.file_name().unwrap().to_string_lossy().into_owned();
        let manifest = std::fs::read_to_string(directory.join("Cargo.toml")).unwrap();
        let uses = manifest.split("\n[").find_map(|s| s.strip_prefix("dependencies]")).unwrap_or_default();
        let calls = uses.lines().any(|l| l.starts_with("rustix") || l.starts_with("libc"));
        assert_eq!(calls, ["kernel", "isle-shim", "shim-protocol", "cli"].contains(&name.as_str()), "{name}");
    }
}

#[test]
fn the_checklist_names_the_tests_that_there_are() {
    let written = std::fs::read_to_string(root().join("docs/networking.md")).unwrap();
    assert_eq!(written, testkit::rows::render(&root()).unwrap(), "cargo xtask rows");
}

#[test]
fn every_operation_of_the_api_is_asked_for_by_a_test() {
    let written = std::fs::read_to_string(root().join("docs/engine-api.md")).unwrap();
    assert_eq!(written, testkit::operations::render(&root()).unwrap(), "cargo xtask rows");
}
