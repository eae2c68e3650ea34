//! The project as the tests see it: its files, its crates and what they depend on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Folders that hold no source: builds, results of runs, version control.
const NO_SOURCE: [&str; 3] = ["target", "touchstone-out", ".git"];

/// A text file of the project.
pub(crate) struct Source {
    /// Path from the project's folder, with slashes.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// The project's folder.
pub(crate) fn root() -> PathBuf {
    let tidy = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo says where this crate is");
    let tidy = PathBuf::from(tidy);
    tidy.parent().and_then(Path::parent).expect("this crate is in harness/").to_owned()
}

/// Every text file of the project, in the order of their paths.
pub(crate) fn sources() -> Vec<Source> {
    let root = root();
    let mut sources = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of the project") {
            let path = entry.expect("an entry of a folder").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_symlink() || NO_SOURCE.contains(&name.as_str()) {
                continue;
            }
            if path.is_dir() {
                // Cargo marks its build folders, wherever they are.
                if !path.join("CACHEDIR.TAG").exists() {
                    folders.push(path);
                }
                continue;
            }
            let bytes = std::fs::read(&path).expect("a file of the project");
            if let Ok(text) = String::from_utf8(bytes) {
                let path = path.strip_prefix(&root).expect("a path below the root");
                sources.push(Source { path: path.to_string_lossy().into_owned(), text });
            }
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(sources.len() > 100, "only {} files found in {}", sources.len(), root.display());
    sources
}

/// Every file whose name ends so, in the order of their paths.
pub(crate) fn sources_ending(end: &str) -> Vec<Source> {
    sources().into_iter().filter(|source| source.path.ends_with(end)).collect()
}

/// A crate of the workspace.
pub(crate) struct Member {
    /// Folder below `harness/`.
    pub(crate) folder: String,
    /// What its product is made of, by package name: normal and build dependencies.
    pub(crate) dependencies: BTreeSet<String>,
}

/// The crates of the workspace, by package name.
pub(crate) fn members() -> BTreeMap<String, Member> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo can be started");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo metadata: {complaint}");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("metadata is JSON");
    let packages = metadata["packages"].as_array().expect("metadata has packages");
    packages.iter().map(|package| (text(package, "name"), member(package))).collect()
}

fn member(package: &Value) -> Member {
    let manifest = PathBuf::from(text(package, "manifest_path"));
    let folder = manifest.parent().and_then(Path::file_name).expect("a crate has a folder");
    let dependencies = package["dependencies"].as_array().expect("a crate has dependencies");
    Member {
        folder: folder.to_string_lossy().into_owned(),
        dependencies: dependencies
            .iter()
            .filter(|dependency| dependency["kind"] != "dev")
            .map(|dependency| text(dependency, "name"))
            .collect(),
    }
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_else(|| panic!("metadata lacks {key}")).to_owned()
}

/// Fails with every complaint, one a line.
pub(crate) fn no_complaints(rule: &str, complaints: &[String]) {
    assert!(complaints.is_empty(), "{rule}:\n  {}\n", complaints.join("\n  "));
}
