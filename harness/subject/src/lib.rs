//! Proxies under test: where the binary comes from, how it starts, its features and known failures.
//!
//! A subject is data: one folder with `subject.yaml` and, when it is known to fail somewhere,
//! `known-failures.yaml`. The path through this crate is
//! [`Selector`] (what the user wrote) → [`Catalog::select`] → [`Selection`] (subject, mode,
//! configuration, release) → [`resolve`] → [`Resolved`] (a program that was looked at and asked
//! for its version) → [`Launch::render`] (arguments and files for one node).
//! Starting the program is the provider's work.
//! For a cluster without kube-proxy the path is [`Selection`] → [`Installation::of`] → [`Manifest`].

mod cache;
mod catalog;
mod check;
mod download;
mod examine;
mod file;
mod format;
mod golang;
mod kernel;
mod known;
mod launch;
mod manifest;
mod name;
mod process;
mod release;
mod resolve;
mod selector;
mod template;

pub use cache::Cache;
pub use catalog::{Catalog, CatalogError, Origin, Selection, Subject};
pub use download::DownloadError;
pub use examine::{BinaryError, loader};
pub use file::{FileError, Placed};
pub use format::{
    Binary, Configuration, ExitByDesign, FeatureClaim, FormatVersion, GateRange, GoSource,
    ImageSource, InCluster, KernelNeed, Lab, LogPlace, Mode, Releases, Source, SubjectFile,
    subject_schema,
};
pub use golang::{GoBuildError, GoProgram};
pub use kernel::{KERNEL_REMEDY, Kernel, KernelError};
pub use known::{KnownFailure, KnownFailures, known_failures_schema};
pub use launch::{Launch, LaunchError, LaunchFile, LaunchLog, NodeFacts, ProxyFacts};
pub use manifest::{Installation, InstalledImage, Manifest, ManifestError, Surroundings, Workload};
pub use name::{ConfigurationName, ModeName, NameError, SubjectName, ValueName};
pub use release::{Release, ReleaseError, ReleaseRange, ReleaseRangeError};
pub use resolve::{
    COREDNS, Closed, Found, Program, Recipe, ResolveError, Resolved, obtain, resolve,
};
pub use selector::{Selector, SelectorError, Which};
pub use template::Template;

/// The word of `known` that `word` was probably meant to be.
pub(crate) fn suggest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(2);
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

/// The words of a list for a message: `a, b, c`, or `none`.
pub(crate) fn listed<T: std::fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    if items.is_empty() { "none".to_owned() } else { items.join(", ") }
}
