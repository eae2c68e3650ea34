//! What the process outside tells the harness inside: everything decided before the namespaces
//! are entered.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};
use touchstone_apiserver::{Family, How, Lie};
use touchstone_case::{CaseErrors, Library, Variant, namespace_end};
use touchstone_record::{SecondKernel, SubjectRecord};
use touchstone_spec::{ClusterShape, Level, Listing};
use touchstone_subject::{Found, Resolved};

use crate::args::Defects;
use crate::subjects::{Chosen, choose};

/// An order for the harness inside.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Run cases.
    Run(Job),
    /// Run cases in another kernel.
    Kernel(KernelJob),
    /// Keep a lab open.
    Lab(Box<LabJob>),
    /// See what works in here, and which cases run on this kernel.
    Doctor(Vec<Wanting>),
}

/// Cases to run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) run: String,
    pub(crate) out: PathBuf,
    pub(crate) variants: Vec<String>,
    pub(crate) case_dirs: Vec<PathBuf>,
    pub(crate) subjects: Vec<SubjectJob>,
    pub(crate) jobs: usize,
    pub(crate) seed: u64,
    pub(crate) command: Vec<String>,
    pub(crate) strict: bool,
    pub(crate) fail_on: Level,
    pub(crate) pause: bool,
    pub(crate) keep: bool,
    pub(crate) user_namespace: bool,
    pub(crate) name_server: Option<PathBuf>,
    pub(crate) defects: DefectJob,
    pub(crate) started: String,
    /// The kernel it runs in, where that is not the machine's own.
    pub(crate) kernel: Option<SecondKernel>,
    /// Which part of the plan is run, from 0, and of how many.
    pub(crate) share: (usize, usize),
    /// By which events leave, where whoever keeps the log is in another kernel.
    pub(crate) line: Option<PathBuf>,
}

impl Job {
    /// Its cases, as whoever made it has chosen and checked them.
    pub(crate) fn chosen(&self) -> Result<Vec<Variant>, CaseErrors> {
        let ids = self.variants.iter().map(String::as_str).collect();
        Library::chosen(&self.case_dirs, &ids)
    }
}

/// What a subject and its cases want of a kernel.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Wanting {
    /// The subject, as selected.
    pub(crate) subject: String,
    /// What it needs for any case.
    pub(crate) needs: BTreeSet<String>,
    /// Its cases, with what each needs.
    pub(crate) cases: BTreeMap<String, BTreeSet<String>>,
}

/// Cases to run in another kernel.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct KernelJob {
    /// The kernel, a program.
    pub(crate) program: PathBuf,
    /// The CPUs of this machine that have one each.
    pub(crate) cpus: Vec<usize>,
    /// What each of them has.
    pub(crate) memory_mib: u64,
    /// This program, as the kernel finds it among the host's files.
    pub(crate) touchstone: PathBuf,
    pub(crate) run: Job,
}

impl Job {
    /// The folder of the proxies' logs.
    pub(crate) fn logs(&self) -> PathBuf {
        self.out.join("logs")
    }
}

/// A lab to keep open.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LabJob {
    pub(crate) subject: SubjectJob,
    pub(crate) shape: ClusterShape,
    /// Number of the descriptor on which a person's clients are served.
    pub(crate) listener: i32,
    pub(crate) token: String,
    pub(crate) state: PathBuf,
    pub(crate) kubeconfig: PathBuf,
    pub(crate) name_server: Option<PathBuf>,
    pub(crate) defects: DefectJob,
}

/// A subject whose program has been found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SubjectJob {
    pub(crate) selector: String,
    pub(crate) folders: Vec<PathBuf>,
    pub(crate) record: SubjectRecord,
    pub(crate) program: PathBuf,
    pub(crate) version: Option<String>,
    /// Known failures, by variant.
    pub(crate) known: BTreeMap<String, Listing>,
}

/// Planted defects.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct DefectJob {
    pub(crate) lies: Vec<String>,
    pub(crate) without_proxy: BTreeSet<String>,
    pub(crate) sabotage: Option<String>,
}

impl From<&Defects> for DefectJob {
    fn from(defects: &Defects) -> DefectJob {
        DefectJob {
            lies: defects.lies.clone(),
            without_proxy: defects.without_proxy.iter().cloned().collect(),
            sabotage: defects.sabotage.clone(),
        }
    }
}

impl DefectJob {
    /// The lies, as the API server tells them.
    pub(crate) fn lies(&self) -> Result<Vec<Lie>> {
        self.lies.iter().map(|text| lie(text)).collect()
    }

    /// Refuses lies about cases that are not run: nothing would be lied about.
    pub(crate) fn cases_run(&self, cases: &BTreeSet<&str>) -> Result<()> {
        for text in &self.lies {
            let case = text.split_once(':').and_then(|(head, _)| head.split_once('@'));
            if let Some((case, _)) = case.filter(|(case, _)| !cases.contains(case)) {
                return Err(anyhow!(
                    "--lie {text}: {case} is not among the cases of this run; name it as \
                     `touchstone list` does, without its axes"
                ));
            }
        }
        Ok(())
    }

    /// Refuses nodes that no cluster of the run has: nothing would be planted there.
    pub(crate) fn nodes_exist(&self, nodes: &BTreeSet<String>) -> Result<()> {
        match self.without_proxy.difference(nodes).next() {
            None => Ok(()),
            Some(node) => Err(anyhow!(
                "--without-proxy {node}: there is no such node; there are: {}",
                nodes.iter().cloned().collect::<Vec<_>>().join(", ")
            )),
        }
    }
}

/// `Service:spec.externalTrafficPolicy`, `Service:spec.type="ClusterIP"`, `Service:clusterIP(v6)`,
/// or any of them about the objects of one case: `udp/basic@Service:spec.type`.
fn lie(text: &str) -> Result<Lie> {
    let (head, rest) = text.split_once(':').with_context(|| {
        format!("--lie {text}: write [CASE@]KIND:PATH or [CASE@]KIND:PATH=JSON")
    })?;
    let (case, kind) = match head.split_once('@') {
        Some((case, kind)) => (Some(case), kind),
        None => (None, head),
    };
    let how = match rest {
        "clusterIP(v4)" => How::HideClusterIps(Family::V4),
        "clusterIP(v6)" => How::HideClusterIps(Family::V6),
        _ => match rest.split_once('=') {
            None => How::Hide(rest.parse().with_context(|| format!("--lie {text}"))?),
            Some((path, value)) => How::Set(
                path.parse().with_context(|| format!("--lie {text}"))?,
                serde_json::from_str(value)
                    .with_context(|| format!("--lie {text}: {value} is not JSON"))?,
            ),
        },
    };
    let within = case.map(namespace_end);
    let lie = Lie { watcher: None, kind: kind.to_owned(), spared: BTreeSet::new(), within, how };
    lie.check().with_context(|| format!("--lie {text}"))?;
    Ok(lie)
}

impl SubjectJob {
    /// The subject and its program as the lab wants them.
    pub(crate) fn reopen(&self) -> Result<(Chosen, Arc<Resolved>)> {
        let chosen = choose(&self.selector, &self.folders).map_err(|failed| anyhow!("{failed}"))?;
        let release = self.record.release.as_deref().map(str::parse).transpose()?;
        let resolved = Resolved {
            program: self.program.clone(),
            sha256: self.record.digest.clone().unwrap_or_default(),
            version: self.version.clone(),
            release,
            found: Found::Given,
        };
        Ok((chosen, Arc::new(resolved)))
    }
}

impl Order {
    /// Writes the order into a file without a name, to be handed down by its descriptor.
    pub(crate) fn to_file(&self) -> Result<std::fs::File> {
        self.to_file_in(&std::env::temp_dir())
    }

    /// The same, with the file in a given folder.
    pub(crate) fn to_file_in(&self, folder: &Path) -> Result<std::fs::File> {
        let mut file = tempfile::tempfile_in(folder).context("failed to make a temporary file")?;
        serde_json::to_writer(&file, self).context("failed to write the order for the harness")?;
        file.seek(SeekFrom::Start(0))?;
        Ok(file)
    }

    /// Reads an order that was handed down.
    pub(crate) fn from_fd(fd: OwnedFd) -> Result<Order> {
        let mut file = std::fs::File::from(fd);
        let mut text = String::new();
        file.seek(SeekFrom::Start(0))?;
        file.read_to_string(&mut text).context("failed to read the harness's order")?;
        serde_json::from_str(&text).context("failed to understand the harness's order")
    }
}

/// The log of a run in its folder.
pub(crate) fn log_path(out: &Path) -> PathBuf {
    out.join("events.jsonl")
}
