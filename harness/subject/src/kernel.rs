//! Kernels that run as a program (User Mode Linux): one given by path, or the project's own build.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::Found;
use crate::cache::{Cache, CacheError, Lookup, Slot};
use crate::examine::{BinaryError, examine, hex};
use crate::process::{self, RunError};

/// File name in the cache.
const NAME: &str = "linux";
/// The project's own build: script and configuration.
const SCRIPT: &str = include_str!("../../../kernels/build");
const CONFIGURATION: &str = include_str!("../../../kernels/uml.config");
/// What the cache says of such a kernel.
const FROM: &str = "built from Debian's kernel source by kernels/build";

const BUILD_LIMIT: Duration = Duration::from_secs(60 * 60);
const LOOK_LIMIT: Duration = Duration::from_secs(20);

/// Without these the lab cannot run in a kernel: its files, its lines, its namespaces.
const NEEDED: [&str; 13] = [
    "UML",
    "HOSTFS",
    "SSL",
    "NULL_CHAN",
    "MULTIUSER",
    "BINFMT_ELF",
    "PROC_FS",
    "SYSFS",
    "TMPFS",
    "DEVTMPFS",
    "NET_NS",
    "VETH",
    "IPV6",
];

/// A kernel that runs as a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// Where it is; absolute.
    pub program: PathBuf,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
    /// Its release, as `uname -r` shows it.
    pub release: String,
    /// Its options that are built in, without `CONFIG_`.
    pub options: BTreeSet<String>,
    /// How it was found.
    pub found: Found,
}

/// A kernel that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// It is no program for this machine.
    #[error("failed to use the kernel: {0}; {KERNEL_REMEDY}")]
    Binary(BinaryError),
    /// It does not answer as User Mode Linux does.
    #[error("{path} is no User Mode Linux: {why}; {KERNEL_REMEDY}")]
    Other {
        /// The path.
        path: PathBuf,
        /// What it did instead.
        why: String,
    },
    /// It was built without what the lab cannot do without.
    #[error(
        "{path} was built without {}, and the lab needs that; {KERNEL_REMEDY}",
        options(missing)
    )]
    Lacks {
        /// The path.
        path: PathBuf,
        /// The options, without `CONFIG_`.
        missing: Vec<String>,
    },
    /// The build failed.
    #[error("failed to build a kernel: {why} (the whole output is in {log})")]
    Build {
        /// What the script says, or why it did not run.
        why: String,
        /// The log.
        log: PathBuf,
    },
    /// A file cannot be written.
    #[error("failed to write {path}: {source}")]
    Write {
        /// The path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The cache does not take it.
    #[error("{reason}; set TOUCHSTONE_CACHE to a folder that can be written and has 3 GB of room")]
    Cache {
        /// What the cache says.
        reason: String,
    },
}

/// What to do where a kernel does not fit.
pub const KERNEL_REMEDY: &str = "`--kernel uml` builds one that fits";

fn options(names: &[String]) -> String {
    names.iter().map(|name| format!("CONFIG_{name}")).collect::<Vec<_>>().join(", ")
}

// Its text has its source already.
impl From<BinaryError> for KernelError {
    fn from(error: BinaryError) -> KernelError {
        KernelError::Binary(error)
    }
}

impl From<CacheError> for KernelError {
    fn from(error: CacheError) -> KernelError {
        KernelError::Cache { reason: error.to_string() }
    }
}

impl Kernel {
    /// The kernel at a path.
    ///
    /// # Errors
    /// When it is no User Mode Linux for this machine, or lacks what the lab needs.
    ///
    /// Blocks for moments: the program is asked for its release and its options.
    pub fn given(path: &Path) -> Result<Kernel, KernelError> {
        looked_at(path, Found::Given, None)
    }

    /// The project's own kernel, from the cache or built now.
    ///
    /// `progress` gets one line for each thing that is done.
    ///
    /// # Errors
    /// When it cannot be built, with the reason and what to install.
    ///
    /// Blocks for minutes when it has to be built.
    pub fn built(cache: &Cache, progress: &mut dyn FnMut(&str)) -> Result<Kernel, KernelError> {
        let slot = cache.kernel_slot(NAME, &key())?;
        if let Some(kernel) = cached(&slot, progress) {
            return Ok(kernel);
        }
        let lock = slot.lock(|| progress("another process is building the kernel…"))?;
        // The process that had the lock may have done the work.
        if let Some(kernel) = cached(&slot, &mut |_| {}) {
            return Ok(kernel);
        }
        let log = slot.log();
        let program = slot.fill(&lock, FROM, |into, work| build(into, work, &log, progress))?;
        looked_at(&program, Found::Built { from: FROM.to_owned() }, None)
    }

    /// The project's own kernel, if it has been built.
    #[must_use]
    pub fn cached(cache: &Cache) -> Option<Kernel> {
        cached(&cache.kernel_slot(NAME, &key()).ok()?, &mut |_| {})
    }
}

/// Changes with everything that the project decides about its kernel.
///
/// Debian's version is not in it: a newer one is no reason to build again.
fn key() -> String {
    let digest = hex(&Sha256::digest(format!("1\n{SCRIPT}\n{CONFIGURATION}")));
    let digest = digest.get(..12).unwrap_or(&digest);
    format!("uml-{}-{digest}", std::env::consts::ARCH)
}

fn cached(slot: &Slot, progress: &mut dyn FnMut(&str)) -> Option<Kernel> {
    let why = match slot.look() {
        Lookup::Missing => return None,
        Lookup::Damaged(why) => why,
        Lookup::Found { program, from, sha256 } => {
            match looked_at(&program, Found::Cached { from }, Some(sha256)) {
                Ok(kernel) => return Some(kernel),
                Err(error) => error.to_string(),
            }
        }
    };
    progress(&format!("the cached kernel cannot be used: {why}"));
    None
}

/// Runs the project's script, which tells what it does line by line.
fn build(
    into: &Path,
    work: &Path,
    log: &Path,
    progress: &mut dyn FnMut(&str),
) -> Result<(), KernelError> {
    let write = |path: &Path, text: &str| {
        let failed = |source| KernelError::Write { path: path.to_owned(), source };
        fs::write(path, text).map_err(failed)
    };
    let script = work.join("build");
    write(&script, SCRIPT)?;
    write(&work.join("uml.config"), CONFIGURATION)?;
    let errors =
        File::create(log).map_err(|source| KernelError::Write { path: log.to_owned(), source })?;
    let failed = |why: String| KernelError::Build { why, log: log.to_owned() };
    let mut command = Command::new("bash");
    command.arg(&script).arg(into).arg(work.join("work"));
    command.stdin(Stdio::null()).stderr(errors);
    let mut told = String::new();
    let status = process::run_telling(command, BUILD_LIMIT, &mut |line| {
        progress(&format!("{line}…"));
        told.push_str(line);
        told.push('\n');
    });
    let status = match status {
        Ok(status) => status,
        Err(error @ RunError::Start(_)) => return Err(failed(format!("no bash: {error}"))),
        Err(error @ RunError::Limit(_)) => return Err(failed(error.to_string())),
    };
    if status.success() {
        return Ok(());
    }
    let said = fs::read(log).unwrap_or_default();
    let why = process::last_lines(&said, 1);
    // The log has both, so that one place tells everything.
    if let Ok(mut log) = File::options().append(true).open(log) {
        let _ = log.write_all(told.as_bytes());
    }
    Err(failed(why.trim_start_matches("error: ").to_owned()))
}

fn looked_at(path: &Path, found: Found, sha256: Option<String>) -> Result<Kernel, KernelError> {
    let path = std::path::absolute(path)
        .map_err(|source| BinaryError::Read { path: path.to_owned(), source })?;
    let examined = examine(&path, Some(&["--version".to_owned()]), None, sha256)?;
    let release = examined.version.unwrap_or_default();
    let other = |why: String| KernelError::Other { path: path.clone(), why };
    let mut command = Command::new(&path);
    command.arg("--showconfig").stdin(Stdio::null());
    let output = process::run(command, LOOK_LIMIT)
        .map_err(|error| other(format!("--showconfig: {error}")))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let options: BTreeSet<String> = text.lines().filter_map(built_in).map(str::to_owned).collect();
    if !options.contains("UML") {
        return Err(other("--showconfig does not show CONFIG_UML=y".to_owned()));
    }
    let missing: Vec<String> = NEEDED
        .iter()
        .filter(|name| !options.contains(**name))
        .map(|name| (*name).to_owned())
        .collect();
    if !missing.is_empty() {
        return Err(KernelError::Lacks { path, missing });
    }
    Ok(Kernel { program: path, sha256: examined.sha256, release, options, found })
}

/// The name in a line of a configuration that builds something in.
fn built_in(line: &str) -> Option<&str> {
    line.trim().strip_prefix("CONFIG_")?.strip_suffix("=y")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_built_in_counts() {
        let names: Vec<&str> =
            ["CONFIG_A=y", "# CONFIG_B is not set", "CONFIG_C=m", "CONFIG_D=8", " CONFIG_E=y"]
                .into_iter()
                .filter_map(built_in)
                .collect();
        assert_eq!(names, ["A", "E"]);
    }

    #[test]
    fn the_own_kernel_has_whatever_the_lab_needs() {
        let has: BTreeSet<&str> = CONFIGURATION.lines().filter_map(built_in).collect();
        // User Mode Linux itself is the architecture's, not the configuration's.
        let missing: Vec<&&str> =
            NEEDED.iter().filter(|name| **name != "UML" && !has.contains(**name)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}
