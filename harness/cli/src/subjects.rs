//! Choosing subjects and finding their programs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::anyhow;
use touchstone_case::Variant;
use touchstone_record::SubjectRecord;
use touchstone_spec::{Feature, Features, KNOWN_FEATURES, KnownFeature, Listing};
use touchstone_subject::{
    COREDNS, Cache, Catalog, Kernel, ModeName, Program, Release, ResolveError, Resolved, Selection,
    Selector, SelectorError, obtain, resolve,
};

use crate::args::{Fetch, Subjects};
use crate::failed::Failed;
use crate::job::SubjectJob;
use crate::say::{note, say};

/// Release of kubectl that the suite's own tests use where the machine has none.
const KUBECTL: &str = "v1.37.2";

/// A subject as chosen on the command line.
#[derive(Debug, Clone)]
pub(crate) struct Chosen {
    pub(crate) selector: String,
    pub(crate) selection: Arc<Selection>,
}

fn catalog(folders: &[PathBuf]) -> Result<Catalog, Failed> {
    let mut catalog = Catalog::bundled().map_err(Failed::harness)?;
    for folder in folders {
        catalog.add_folder(folder).map_err(Failed::usage)?;
    }
    Ok(catalog)
}

/// Chooses a subject by its selector.
pub(crate) fn choose(selector: &str, folders: &[PathBuf]) -> Result<Chosen, Failed> {
    let parsed: Selector = selector.parse().map_err(|error: SelectorError| Failed::usage(error))?;
    let selection = catalog(folders)?.select(&parsed).map_err(Failed::usage)?;
    Ok(Chosen { selector: selector.to_owned(), selection: Arc::new(selection) })
}

/// Chooses every subject of the command line and finds its program.
pub(crate) fn prepare(
    subjects: &Subjects,
    variants: &[Variant],
) -> Result<Vec<SubjectJob>, Failed> {
    let mut jobs: Vec<SubjectJob> = Vec::new();
    for selector in &subjects.subjects {
        let chosen = choose(selector, &subjects.folders)?;
        if chosen.selection.subject.file.lab.is_none() {
            return Err(Failed::usage(anyhow!(
                "the file of {selector} does not say how it runs in the lab: it is for clusters, \
                 with --provider kind or --provider cluster"
            )));
        }
        let resolved = find(&chosen, subjects.binary.as_deref())?;
        let job = describe(chosen, &resolved, &subjects.folders, variants);
        if jobs.iter().any(|other| other.record.id == job.record.id) {
            return Err(Failed::usage(anyhow!("--subject {selector} is given twice")));
        }
        jobs.push(job);
    }
    Ok(jobs)
}

/// Finds a subject's program, with a progress line for each thing that is done.
pub(crate) fn find(chosen: &Chosen, binary: Option<&Path>) -> Result<Resolved, Failed> {
    find_in(&Cache::from_environment(), chosen, binary)
}

/// Finds a subject's program by way of a cache.
pub(crate) fn find_in(
    cache: &Cache,
    chosen: &Chosen,
    binary: Option<&Path>,
) -> Result<Resolved, Failed> {
    resolve(&chosen.selection, binary, cache, &mut |line| note(&format!("  {line}"))).map_err(
        |error| match &error {
            // Its text has its source already.
            ResolveError::Given(_) => Failed::usage(anyhow!("{error}")),
            ResolveError::Selection(_) | ResolveError::NoProgram { .. } => Failed::usage(error),
            ResolveError::Source { .. } | ResolveError::Closed { .. } => Failed::harness(error),
        },
    )
}

/// Features that a subject declares in its mode, at a release.
pub(crate) fn features(selection: &Selection, release: Option<&Release>) -> Features {
    let all = selection.subject.features(&selection.mode, release);
    all.into_keys().cloned().collect()
}

fn describe(
    chosen: Chosen,
    resolved: &Resolved,
    folders: &[PathBuf],
    variants: &[Variant],
) -> SubjectJob {
    let selection = &chosen.selection;
    let release = resolved.release.as_ref();
    let record = SubjectRecord {
        digest: Some(resolved.sha256.clone()),
        found: resolved.found.to_string(),
        ..record(selection, release)
    };
    SubjectJob {
        record,
        known: known(selection, release, variants),
        program: resolved.program.clone(),
        version: resolved.version.clone(),
        folders: folders.to_vec(),
        selector: chosen.selector,
    }
}

/// A subject as it runs in a cluster of that version, which is the release of what comes with
/// Kubernetes.
pub(crate) fn describe_in_cluster(
    chosen: &Chosen,
    folders: &[PathBuf],
    version: Option<&str>,
    variants: &[Variant],
) -> SubjectJob {
    let selection = &chosen.selection;
    let of_cluster = version.and_then(|version| version.parse::<Release>().ok());
    let release = match &selection.subject.file.cluster {
        Some(_) => selection.release(),
        None => selection.asked.as_ref().or(of_cluster.as_ref()),
    };
    SubjectJob {
        record: SubjectRecord { found: "in the cluster".to_owned(), ..record(selection, release) },
        known: known(selection, release, variants),
        program: PathBuf::new(),
        version: version.map(str::to_owned),
        folders: folders.to_vec(),
        selector: chosen.selector.clone(),
    }
}

/// What the log says of a subject, apart from where its program is.
fn record(selection: &Selection, release: Option<&Release>) -> SubjectRecord {
    let mut id = format!("{}:{}", selection.subject.name, selection.mode);
    let configuration = selection.configuration.to_string();
    if configuration != "default" {
        id.push_str(&format!("+{configuration}"));
    }
    if selection.asked.is_some()
        && let Some(release) = release
    {
        id.push_str(&format!("@{release}"));
    }
    let features = features(selection, release);
    SubjectRecord {
        id,
        name: selection.subject.name.to_string(),
        mode: selection.mode.to_string(),
        release: release.map(ToString::to_string),
        configuration,
        digest: None,
        found: String::new(),
        features: features.iter().map(|feature: &Feature| feature.to_string()).collect(),
        untested: selection.subject.file.untested,
    }
}

/// The variants that the subject lists as known failures today.
fn known(
    selection: &Selection,
    release: Option<&Release>,
    variants: &[Variant],
) -> BTreeMap<String, Listing> {
    let today = time::OffsetDateTime::now_utc().date();
    let mut known = BTreeMap::new();
    for variant in variants {
        let axes = BTreeMap::from([
            ("family".to_owned(), variant.family().to_string()),
            ("protocol".to_owned(), variant.protocol().to_string()),
        ]);
        let failures = &selection.subject.known_failures;
        let id = variant.case().id().as_str();
        if let Some(entry) = failures.find(&selection.mode, release, id, &axes)
            && !entry.expired(today)
        {
            let (reason, intermittent) = (entry.reason.clone(), entry.intermittent);
            known.insert(variant.id(), Listing { reason, intermittent });
        }
    }
    known
}

/// The environment variable with the path of a CoreDNS to use instead of the suite's own.
pub(crate) const COREDNS_PATH: &str = "TOUCHSTONE_COREDNS";

/// A program that is no subject, with a progress line for each thing that is done.
fn get(cache: &Cache, program: &Program) -> Result<Resolved, ResolveError> {
    obtain(program, cache, &mut |line| note(&format!("  {line}")))
}

/// The program of name servers: the one given in the environment, else the suite's own.
///
/// Gives the reason when there is none.
pub(crate) fn name_server(cache: &Cache) -> Result<PathBuf, String> {
    if let Some(given) = std::env::var_os(COREDNS_PATH).filter(|path| !path.is_empty()) {
        let path = PathBuf::from(given);
        return if path.is_file() {
            std::path::absolute(&path).map_err(|error| error.to_string())
        } else {
            Err(format!("{COREDNS_PATH} names {}, which is no file", path.display()))
        };
    }
    let release = COREDNS.parse().map_err(|error| format!("{COREDNS}: {error}"))?;
    get(cache, &Program::coredns(release))
        .map(|found| found.program)
        .map_err(|error| error.to_string())
}

/// The program of name servers, where any of the cases needs one. Without it those cases are not
/// judged, and the reason is told.
pub(crate) fn name_server_for(variants: &[Variant]) -> Option<PathBuf> {
    if !variants.iter().any(|variant| variant.shape().dns) {
        return None;
    }
    match name_server(&Cache::from_environment()) {
        Ok(program) => Some(program),
        Err(why) => {
            note(&format!("cases that need a name server will not be judged: {why}"));
            None
        }
    }
}

/// `touchstone subject fetch`.
pub(crate) fn fetch(fetch: &Fetch) -> Result<u8, Failed> {
    let (name, release) = match fetch.subject.split_once('@') {
        Some((name, release)) => (name, Some(release)),
        None => (fetch.subject.as_str(), None),
    };
    if name == "uml" && release.is_none() {
        let kernel =
            Kernel::built(&Cache::from_environment(), &mut |line| note(&format!("  {line}")));
        say(&kernel.map_err(Failed::harness)?.program.display().to_string());
        return Ok(0);
    }
    let tool: Option<fn(Release) -> Program> = match name {
        "kubectl" => {
            Some(|release| Program::kubernetes("kubectl", release, &["version", "--client"]))
        }
        "coredns" => Some(Program::coredns),
        _ => None,
    };
    if let Some(tool) = tool {
        let release = release.unwrap_or(if name == "coredns" { COREDNS } else { KUBECTL });
        let release: Release =
            release.parse().map_err(|error| Failed::usage(anyhow!("{release}: {error}")))?;
        let resolved = get(&Cache::from_environment(), &tool(release)).map_err(Failed::harness)?;
        say(&resolved.program.display().to_string());
        return Ok(0);
    }
    let chosen = choose(&fetch.subject, &fetch.folders)?;
    let resolved = find(&chosen, fetch.binary.as_deref())?;
    say(&resolved.program.display().to_string());
    Ok(0)
}

/// `touchstone subject list`.
pub(crate) fn list() -> Result<u8, Failed> {
    for subject in catalog(&[])?.iter() {
        let untested = if subject.file.untested { "untested: " } else { "" };
        say(&format!("{}  {untested}{}", subject.name, subject.file.about));
        for (mode, about) in &subject.file.modes {
            let mode: &ModeName = mode;
            say(&format!("  :{mode}  {}", about.about));
        }
        for (name, configuration) in &subject.file.configurations {
            say(&format!("  +{name}  {}", configuration.about));
        }
    }
    Ok(0)
}

/// Prints every feature that a subject may declare.
pub(crate) fn promises() -> u8 {
    let longest = KNOWN_FEATURES.iter().map(|feature| feature.name.len()).max().unwrap_or_default();
    for KnownFeature { name, promise } in KNOWN_FEATURES {
        say(&format!("{name:<longest$}  {promise}"));
    }
    0
}
