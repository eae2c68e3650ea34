//! Finds a subject's program: a path given, the cache, a download, a build.

use std::fmt;
use std::path::{Path, PathBuf};

use minijinja::{Value, context};
use sha2::{Digest, Sha256};

use crate::cache::{Cache, Lookup, Slot};
use crate::catalog::{CatalogError, Selection};
use crate::download::{DownloadError, download};
use crate::examine::{BinaryError, Examined, examine, hex};
use crate::format::Source;
use crate::golang::{GoBuildError, GoProgram};
use crate::release::Release;

/// A program that was found, looked at and asked for its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Where it is; absolute.
    pub program: PathBuf,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
    /// What it prints about itself; none when the subject's file does not say how to ask.
    pub version: Option<String>,
    /// Its release: the one it prints, else the one asked for or the default.
    pub release: Option<Release>,
    /// How it was found.
    pub found: Found,
}

/// How a program was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// At the path that was given.
    Given,
    /// At the path in the subject's file.
    Path,
    /// In the cache.
    Cached {
        /// Where it came from before.
        from: String,
    },
    /// By a download, now in the cache.
    Downloaded {
        /// The address.
        from: String,
    },
    /// By a build, now in the cache.
    Built {
        /// Module and version.
        from: String,
    },
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given => f.write_str("given by path"),
            Self::Path => f.write_str("at the subject's path"),
            Self::Cached { from } => write!(f, "cached, {from}"),
            Self::Downloaded { from } | Self::Built { from } => f.write_str(from),
        }
    }
}

/// A program with a release that can be downloaded or built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// File name.
    pub name: String,
    /// The release wanted.
    pub release: Release,
    /// Arguments that make it print its version; without them it is not asked.
    pub version_args: Option<Vec<String>>,
    /// The ways to get it, in order.
    pub recipes: Vec<Recipe>,
}

/// One way to get a program of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recipe {
    /// A download with its checksum.
    Download {
        /// Address of the program.
        url: String,
        /// Address of a text that begins with its SHA-256.
        sha256: String,
    },
    /// A build.
    Go(GoProgram),
}

/// A way that led to no program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// The way.
    pub way: String,
    /// Why it is closed.
    pub reason: String,
    /// How to open it.
    pub remedy: String,
}

/// A program that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The program at the path given cannot be used.
    #[error("failed to use the given binary: {0}")]
    Given(#[source] BinaryError),
    /// The selection does not fit the program's release.
    #[error(transparent)]
    Selection(#[from] CatalogError),
    /// A template of the subject's file does not fit.
    #[error("failed to render a source of {subject}: {reason}")]
    Source {
        /// The subject.
        subject: String,
        /// What is missing.
        reason: String,
    },
    /// It has no program that could run on a node of the lab.
    #[error(
        "{subject} has no program for the lab: it runs in clusters alone, with --provider kind or \
         --provider cluster"
    )]
    NoProgram {
        /// The subject.
        subject: String,
    },
    /// Every way is closed.
    #[error("found no {what}; every way is closed:{}", listing(.ways))]
    Closed {
        /// The program and its release.
        what: String,
        /// The ways, in the order in which they were tried.
        ways: Vec<Closed>,
    },
}

fn listing(ways: &[Closed]) -> String {
    ways.iter()
        .map(|Closed { way, reason, remedy }| format!("\n- {way}: {reason}\n  remedy: {remedy}"))
        .collect()
}

impl Program {
    /// A program of Kubernetes, such as `kubectl`: its official download, else a build.
    #[must_use]
    pub fn kubernetes(name: &str, release: Release, version_args: &[&str]) -> Self {
        let url =
            format!("https://dl.k8s.io/release/{release}/bin/linux/{}/{name}", go_architecture());
        Self {
            name: name.to_owned(),
            release: release.clone(),
            version_args: Some(version_args.iter().map(|&arg| arg.to_owned()).collect()),
            recipes: vec![
                Recipe::Download { sha256: format!("{url}.sha256"), url },
                Recipe::Go(GoProgram::kubernetes(name, release)),
            ],
        }
    }
}

/// Release of CoreDNS that name servers of the lab are.
pub const COREDNS: &str = "v1.15.0";

impl Program {
    /// CoreDNS: a build of its module.
    ///
    /// Its official downloads are archives, so there is no recipe for them.
    #[must_use]
    pub fn coredns(release: Release) -> Self {
        let module = "github.com/coredns/coredns".to_owned();
        Self {
            name: "coredns".to_owned(),
            release: release.clone(),
            version_args: Some(vec!["-version".to_owned()]),
            recipes: vec![Recipe::Go(GoProgram {
                package: module.clone(),
                module,
                version: release,
                version_variable: None,
            })],
        }
    }
}

impl Recipe {
    fn way(&self) -> &'static str {
        match self {
            Self::Download { .. } => "download",
            Self::Go(_) => "go build",
        }
    }

    fn from(&self) -> String {
        match self {
            Self::Download { url, .. } => format!("downloaded from {url}"),
            Self::Go(program) => {
                format!("built from {}@{}", program.package, program.version)
            }
        }
    }

    /// The part of the cache's key that changes with the recipe.
    fn digest(&self) -> String {
        let text = match self {
            Self::Download { url, sha256 } => format!("download 1\n{url}\n{sha256}"),
            Self::Go(GoProgram { module, package, version, version_variable }) => {
                let variable = version_variable.as_deref().unwrap_or_default();
                format!("go 1\n{module}\n{package}\n{version}\n{variable}")
            }
        };
        let digest = hex(&Sha256::digest(text));
        digest.get(..12).unwrap_or(&digest).to_owned()
    }
}

/// Finds the program of a selection and looks at it.
///
/// `given` is the path on the command line; nothing else is tried when there is one.
/// `progress` gets one line for each thing that is done.
///
/// # Errors
/// Lists every way with the reason why it is closed and the remedy.
///
/// Blocks for minutes when the program has to be downloaded or built.
/// Uses threads that end before it returns, and may be called from async code that accepts that.
pub fn resolve(
    selection: &Selection,
    given: Option<&Path>,
    cache: &Cache,
    progress: &mut dyn FnMut(&str),
) -> Result<Resolved, ResolveError> {
    selection.check_release(selection.release())?;
    let Some(binary) = &selection.subject.file.binary else {
        return Err(ResolveError::NoProgram { subject: selection.subject.name.to_string() });
    };
    let args = binary.version_args.as_deref();
    let release = selection.release().cloned();
    if let Some(path) = given {
        progress(&format!("looking at {}…", path.display()));
        // Only a release that was asked for binds the given program; the default does not.
        let examined =
            examine(path, args, selection.asked.as_ref(), None).map_err(ResolveError::Given)?;
        let resolved =
            resolved(path, examined, release, Found::Given).map_err(ResolveError::Given)?;
        selection.check_release(resolved.release.as_ref())?;
        return Ok(resolved);
    }
    let mut closed = vec![Closed {
        way: "--binary PATH".to_owned(),
        reason: "not given".to_owned(),
        remedy: "give the path of a binary".to_owned(),
    }];
    let mut recipes = Vec::new();
    for source in &binary.sources.value {
        match source {
            Source::Path(path) => {
                let path = selection.subject.beside(&path.value);
                progress(&format!("looking for {} at {}…", binary.name, path.display()));
                let looked = examine(&path, args, selection.asked.as_ref(), None)
                    .and_then(|examined| resolved(&path, examined, release.clone(), Found::Path));
                match looked {
                    Ok(resolved) => return Ok(resolved),
                    Err(err) => {
                        progress(&format!("closed: {err}"));
                        closed.push(Closed {
                            way: "path in the subject's file".to_owned(),
                            reason: err.to_string(),
                            remedy: "put the program there, or correct the path".to_owned(),
                        });
                    }
                }
            }
            Source::Download { url, sha256 } => {
                let facts: Value = context! {
                    release => release.as_ref().map(ToString::to_string),
                    arch => go_architecture(),
                };
                let render = |template: &crate::template::Template| {
                    template.render(&facts).map_err(|err| ResolveError::Source {
                        subject: selection.subject.name.to_string(),
                        reason: err.to_string(),
                    })
                };
                recipes.push(Recipe::Download { url: render(url)?, sha256: render(sha256)? });
            }
            Source::Go(go) => {
                // The check of the file asks for releases where there is such a source.
                if let Some(version) = &release {
                    recipes.push(Recipe::Go(GoProgram {
                        module: go.module.clone(),
                        package: go.package.clone(),
                        version: version.clone(),
                        version_variable: go.version_variable.clone(),
                    }));
                }
            }
        }
    }
    let what = match &release {
        Some(release) => format!("{} {release}", binary.name),
        None => binary.name.clone(),
    };
    match release {
        Some(release) if !recipes.is_empty() => {
            let program = Program {
                name: binary.name.clone(),
                release,
                version_args: binary.version_args.clone(),
                recipes,
            };
            follow(&program, cache, progress).map_err(|ways| {
                closed.extend(ways);
                ResolveError::Closed { what, ways: closed }
            })
        }
        Some(_) | None => Err(ResolveError::Closed { what, ways: closed }),
    }
}

/// Finds a program that is no subject, such as `kubectl`, in the cache, by download or by build.
///
/// # Errors
/// Lists every way with the reason why it is closed and the remedy.
///
/// Blocks for minutes when the program has to be downloaded or built.
pub fn obtain(
    program: &Program,
    cache: &Cache,
    progress: &mut dyn FnMut(&str),
) -> Result<Resolved, ResolveError> {
    follow(program, cache, progress).map_err(|ways| ResolveError::Closed {
        what: format!("{} {}", program.name, program.release),
        ways,
    })
}

fn resolved(
    path: &Path,
    examined: Examined,
    release: Option<Release>,
    found: Found,
) -> Result<Resolved, BinaryError> {
    let program = std::path::absolute(path)
        .map_err(|source| BinaryError::Read { path: path.to_owned(), source })?;
    let Examined { sha256, version, release: own } = examined;
    Ok(Resolved { program, sha256, version, release: own.or(release), found })
}

/// The cache first, for every recipe; then the recipes.
fn follow(
    program: &Program,
    cache: &Cache,
    progress: &mut dyn FnMut(&str),
) -> Result<Resolved, Vec<Closed>> {
    let Program { name, release, version_args, recipes } = program;
    let look = |path: &Path, found: Found, sha256: Option<String>| {
        let examined = examine(path, version_args.as_deref(), Some(release), sha256)?;
        resolved(path, examined, Some(release.clone()), found)
    };
    let close = |way: &str, reason: String, remedy: &str, progress: &mut dyn FnMut(&str)| {
        progress(&format!("closed: {reason}"));
        Closed { way: way.to_owned(), reason, remedy: remedy.to_owned() }
    };
    let mut closed = Vec::new();
    progress(&format!("looking for {name} {release} in the cache…"));
    let mut slots = Vec::new();
    for recipe in recipes {
        let key = format!("{name}-{release}-{}-{}", go_architecture(), recipe.digest());
        match cache.slot(name, &key) {
            Ok(slot) => slots.push((recipe, slot)),
            Err(err) => {
                let remedy = "set TOUCHSTONE_CACHE to a folder that can be written";
                closed.push(close("cache", err.to_string(), remedy, progress));
                return Err(closed);
            }
        }
    }
    let from_cache = |slot: &Slot| match slot.look() {
        Lookup::Missing => Err(None),
        Lookup::Damaged(why) => Err(Some(format!("the cached {name} is damaged: {why}"))),
        Lookup::Found { program, from, sha256 } => {
            look(&program, Found::Cached { from }, Some(sha256))
                .map_err(|err| Some(format!("the cached {name} cannot be used: {err}")))
        }
    };
    let mut spoiled = Vec::new();
    for (_, slot) in &slots {
        match from_cache(slot) {
            Ok(resolved) => return Ok(resolved),
            Err(None) => {}
            Err(Some(why)) => spoiled.push(why),
        }
    }
    let reason = if spoiled.is_empty() { "it is not there".to_owned() } else { spoiled.join("; ") };
    if !cache.may_be_filled() {
        let remedy = "`touchstone subject fetch` gets it, and so does the first run that needs it";
        closed.push(close("cache", reason, remedy, progress));
        return Err(closed);
    }
    closed.push(close("cache", reason, "it is filled by the ways below", progress));
    for (recipe, slot) in &slots {
        let way = recipe.way();
        let lock = {
            let progress = &mut *progress;
            slot.lock(|| progress(&format!("another process is preparing {name} {release}…")))
        };
        let lock = match lock {
            Ok(lock) => lock,
            Err(err) => {
                let remedy = "set TOUCHSTONE_CACHE to a folder that can be written, or let the \
                              other process end";
                closed.push(close(way, err.to_string(), remedy, progress));
                continue;
            }
        };
        // The process that had the lock may have done the work.
        if let Ok(resolved) = from_cache(slot) {
            return Ok(resolved);
        }
        let made = match recipe {
            Recipe::Download { url, sha256 } => {
                progress(&format!("downloading {url}…"));
                slot.fill(&lock, &recipe.from(), |into, _| download(url, sha256, into))
                    .map(|path| (path, Found::Downloaded { from: recipe.from() }))
                    .map_err(|err| (err.to_string(), download_remedy(&err)))
            }
            Recipe::Go(go) => {
                let log = slot.log();
                slot.fill(&lock, &recipe.from(), |into, work| go.build(into, work, &log, progress))
                    .map(|path| (path, Found::Built { from: recipe.from() }))
                    .map_err(|err| (err.to_string(), go_remedy(&err)))
            }
        };
        match made {
            Ok((path, found)) => match look(&path, found, None) {
                Ok(resolved) => return Ok(resolved),
                Err(err) => {
                    let remedy = "give another binary with --binary PATH";
                    closed.push(close(way, err.to_string(), remedy, progress));
                }
            },
            Err((reason, remedy)) => closed.push(close(way, reason, remedy, progress)),
        }
    }
    Err(closed)
}

fn download_remedy(err: &DownloadError) -> &'static str {
    match err {
        DownloadError::Prepare { .. } => "install the root certificates of your system",
        DownloadError::Transfer { .. } => "give this machine a way out, or set HTTPS_PROXY",
        DownloadError::Status { .. } => "check that this release exists for this machine",
        DownloadError::NoChecksum { .. } => "check the `sha256` of this source",
        DownloadError::Checksum { .. } => "try again; if it stays, do not trust that server",
        DownloadError::Write { .. } | DownloadError::Cache { .. } => {
            "set TOUCHSTONE_CACHE to a folder that can be written and has room"
        }
    }
}

fn go_remedy(err: &GoBuildError) -> &'static str {
    match err {
        GoBuildError::NoGo { .. } => "install Go and put it on the PATH",
        GoBuildError::Step { .. } => "read the log; a newer Go or another GOPROXY may be needed",
        GoBuildError::Answer { .. } => "use a Go that knows `-json`, 1.18 or newer",
        GoBuildError::Folder { .. } => "build the program by hand and give it with --binary PATH",
        GoBuildError::Write { .. } | GoBuildError::Cache { .. } => {
            "set TOUCHSTONE_CACHE to a folder that can be written and has room"
        }
    }
}

/// This machine's architecture in the words of Go.
fn go_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    }
}
