//! Cases and subjects do not know each other.

use std::collections::BTreeSet;

use crate::project::{Source, no_complaints, sources};

const SPECIFICATION: &str = "cases/behaviours.yaml";

/// Lines that are no comments; comments may say where a case came from.
fn lines(source: &Source) -> impl Iterator<Item = (usize, &str)> {
    let numbered = source.text.lines().enumerate().map(|(at, line)| (at + 1, line));
    numbered.filter(|(_, line)| !line.trim_start().starts_with('#'))
}

/// Whether `line` has `name` with nothing around it that could be part of a name.
fn names(line: &str, name: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '-' || c == '_' || c == '/';
    line.match_indices(name)
        .any(|(at, _)| !line[..at].ends_with(part) && !line[at + name.len()..].starts_with(part))
}

fn below<'a>(sources: &'a [Source], folder: &str) -> Vec<&'a Source> {
    sources.iter().filter(|s| s.path.starts_with(folder) && s.path.ends_with(".yaml")).collect()
}

/// A line without the settings of a network that have a program's name: that program is the
/// node's, whoever uses it.
fn without_settings(line: &str) -> String {
    ["iptables: legacy", "iptables: nft"]
        .into_iter()
        .fold(line.to_owned(), |line, setting| line.replace(setting, ""))
}

/// Complains about names in lines that are no comments.
fn complaints(files: &[&Source], words: &BTreeSet<String>) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files {
        for (number, line) in lines(file) {
            let line = without_settings(line);
            for word in words.iter().filter(|word| names(&line, word)) {
                complaints.push(format!("{}:{number}: {word}", file.path));
            }
        }
    }
    complaints
}

/// Names of the subjects and of their modes.
fn subject_words(sources: &[Source]) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    for file in below(sources, "subjects/") {
        words.extend(file.path.split('/').nth(1).map(ToOwned::to_owned));
        let modes = file.text.lines().skip_while(|line| *line != "modes:").skip(1);
        for line in modes.take_while(|line| line.is_empty() || line.starts_with([' ', '#'])) {
            let key = line.strip_prefix("  ").filter(|key| !key.starts_with([' ', '#']));
            words.extend(key.and_then(|key| key.split_once(':')).map(|(key, _)| key.to_owned()));
        }
    }
    words
}

#[test]
fn no_case_knows_a_subject() {
    let sources = sources();
    let words = subject_words(&sources);
    for known in ["kube-proxy", "iptables", "ipvs", "nftables"] {
        assert!(words.contains(known), "{known} is not among {words:?}");
    }
    let cases: Vec<_> =
        below(&sources, "cases/").into_iter().filter(|s| s.path != SPECIFICATION).collect();
    assert!(!cases.is_empty(), "there are no cases");
    no_complaints("cases that name a subject or its mode", &complaints(&cases, &words));
}

#[test]
fn no_subject_knows_a_case() {
    let sources = sources();
    let ids: BTreeSet<String> = below(&sources, "cases/")
        .into_iter()
        .filter(|s| s.path != SPECIFICATION)
        .filter_map(|s| s.path.strip_prefix("cases/")?.strip_suffix(".yaml"))
        .map(ToOwned::to_owned)
        .collect();
    assert!(ids.contains("cluster-ip/basic"), "cluster-ip/basic is not among {ids:?}");
    let subjects: Vec<_> = below(&sources, "subjects/")
        .into_iter()
        .filter(|s| !s.path.ends_with("/known-failures.yaml"))
        .collect();
    assert!(!subjects.is_empty(), "there are no subjects");
    no_complaints("subjects that name a case", &complaints(&subjects, &ids));
}

#[test]
fn a_name_is_a_whole_word() {
    assert!(names("why: kube-proxy does", "kube-proxy"));
    assert!(!names("why: kube-proxy-like", "kube-proxy"));
    assert!(!names("covers: [nftables-x]", "nftables"));
    assert!(!names(&without_settings("network: { iptables: nft }"), "iptables"));
    assert!(names(&without_settings("proxy: { mode: iptables }"), "iptables"));
}
