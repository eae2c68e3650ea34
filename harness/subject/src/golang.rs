//! Builds programs from published Go modules.
//!
//! `go install module/cmd@version` refuses modules that replace others by local folders, as
//! Kubernetes does with its staging modules.
//! So a module of our own requires the wanted one, and repeats its replacements with the published
//! twins of those folders.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::Deserialize;

use crate::cache::CacheError;
use crate::process::{self, RunError};
use crate::release::Release;

const MODULE_LIMIT: Duration = Duration::from_secs(10 * 60);
const BUILD_LIMIT: Duration = Duration::from_secs(30 * 60);

/// A program in a published Go module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoProgram {
    /// Path of the module, such as `k8s.io/kubernetes`.
    pub module: String,
    /// Path of the package that holds the program, such as `k8s.io/kubernetes/cmd/kubectl`.
    pub package: String,
    /// The module's version.
    pub version: Release,
    /// The string variable that the program prints as its version.
    pub version_variable: Option<String>,
}

/// A build that failed.
#[derive(Debug, thiserror::Error)]
pub enum GoBuildError {
    /// There is no Go.
    #[error("failed to run `go version`: {source}")]
    NoGo {
        /// What the system says.
        source: io::Error,
    },
    /// One step failed.
    #[error("`{command}` failed: {last} (the whole output is in {log})")]
    Step {
        /// The command.
        command: String,
        /// Its last lines, or why it did not run.
        last: String,
        /// The log.
        log: PathBuf,
    },
    /// The module's own files are not understood.
    #[error("failed to read what `{command}` printed: {source}")]
    Answer {
        /// The command.
        command: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// The module replaces another one by a folder whose published twin is unknown.
    #[error(
        "{module} replaces {replaced} by a folder of its own; its published version is known only \
         for modules of version v1"
    )]
    Folder {
        /// The module.
        module: String,
        /// The module that it replaces.
        replaced: String,
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
    #[error("{reason}")]
    Cache {
        /// What the cache says.
        reason: String,
    },
}

impl From<CacheError> for GoBuildError {
    fn from(err: CacheError) -> Self {
        Self::Cache { reason: err.to_string() }
    }
}

#[derive(Deserialize)]
struct Downloaded {
    #[serde(rename = "GoMod")]
    go_mod: PathBuf,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GoMod {
    go: Option<String>,
    #[serde(rename = "GoDebug")]
    go_debug: Option<Vec<GoDebug>>,
    replace: Option<Vec<Replace>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GoDebug {
    key: String,
    value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Replace {
    old: Module,
    new: Module,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Module {
    path: String,
    version: Option<String>,
}

impl GoProgram {
    /// A program of Kubernetes: `k8s.io/kubernetes/cmd/NAME`.
    #[must_use]
    pub fn kubernetes(name: &str, version: Release) -> Self {
        Self {
            module: "k8s.io/kubernetes".to_owned(),
            package: format!("k8s.io/kubernetes/cmd/{name}"),
            version,
            version_variable: Some("k8s.io/component-base/version.gitVersion".to_owned()),
        }
    }

    /// Builds the program into the file `into`, in the empty folder `work`.
    ///
    /// The commands and their output go to `log`.
    /// The environment decides where modules come from and which Go is used.
    ///
    /// # Errors
    /// Names the step that failed, with its last lines and the log.
    ///
    /// Blocks for some minutes, at most for the limits of the three steps together.
    pub fn build(
        &self,
        into: &Path,
        work: &Path,
        log: &Path,
        progress: &mut dyn FnMut(&str),
    ) -> Result<(), GoBuildError> {
        let go = Go { work, log };
        let version = go.version()?;
        File::create(log).map_err(write_error(log))?;
        let wanted = format!("{}@{}", self.module, self.version);
        progress(&format!("fetching the Go module {wanted}…"));
        let source: Downloaded = go.answer(["mod", "download", "-json", &wanted], MODULE_LIMIT)?;
        let source: GoMod = go.answer(
            [OsStr::new("mod"), "edit".as_ref(), "-json".as_ref(), source.go_mod.as_os_str()],
            MODULE_LIMIT,
        )?;
        let go_mod = work.join("go.mod");
        fs::write(&go_mod, self.go_mod(&source)?).map_err(write_error(&go_mod))?;
        progress(&format!(
            "building {} {} with {version}; this takes some minutes (log: {})…",
            self.package,
            self.version,
            log.display()
        ));
        let mut flags = "-s -w".to_owned();
        if let Some(variable) = &self.version_variable {
            let _ = write!(flags, " -X {variable}={}", self.version);
        }
        let args = ["build", "-mod=mod", "-trimpath", "-buildvcs=false", "-ldflags", &flags, "-o"];
        let args = args.iter().map(OsStr::new).chain([into.as_os_str(), self.package.as_ref()]);
        go.run(args, BUILD_LIMIT).map(drop)
    }

    /// The `go.mod` of a module that stands where the wanted one would stand.
    fn go_mod(&self, source: &GoMod) -> Result<String, GoBuildError> {
        let mut text = "module touchstone-build\n\n".to_owned();
        if let Some(go) = &source.go {
            let _ = writeln!(text, "go {go}\n");
        }
        for GoDebug { key, value } in source.go_debug.iter().flatten() {
            let _ = writeln!(text, "godebug {key}={value}");
        }
        let _ = writeln!(text, "require {} {}", self.module, self.version);
        for Replace { old, new } in source.replace.iter().flatten() {
            let left = match &old.version {
                Some(version) => format!("{} {version}", old.path),
                None => old.path.clone(),
            };
            let right = match &new.version {
                Some(version) => format!("{} {version}", new.path),
                None => format!("{} {}", old.path, self.twin(&old.path)?),
            };
            let _ = writeln!(text, "replace {left} => {right}");
        }
        Ok(text)
    }

    /// The version under which a module in a local folder is published.
    ///
    /// Kubernetes v1.N.P publishes its staging modules as v0.N.P.
    fn twin(&self, replaced: &str) -> Result<String, GoBuildError> {
        let version = self.version.to_string();
        match version.strip_prefix("v1.") {
            Some(rest) => Ok(format!("v0.{rest}")),
            None => Err(GoBuildError::Folder {
                module: self.module.clone(),
                replaced: replaced.to_owned(),
            }),
        }
    }
}

struct Go<'a> {
    work: &'a Path,
    log: &'a Path,
}

impl Go<'_> {
    fn version(&self) -> Result<String, GoBuildError> {
        let shown = "go version".to_owned();
        let failed =
            |last| GoBuildError::Step { command: shown.clone(), last, log: self.log.to_owned() };
        let mut command = Command::new("go");
        command.arg("version").current_dir(self.work).stdin(Stdio::null());
        match process::run(command, MODULE_LIMIT) {
            Ok(output) if output.status.success() => {
                let text = String::from_utf8_lossy(&output.stdout);
                Ok(text.split_whitespace().nth(2).unwrap_or("go").to_owned())
            }
            Ok(output) => Err(failed(process::last_lines(&output.stderr, 3))),
            Err(RunError::Start(source)) => Err(GoBuildError::NoGo { source }),
            Err(err @ RunError::Limit(_)) => Err(failed(err.to_string())),
        }
    }

    fn answer<T, A>(
        &self,
        args: impl IntoIterator<Item = A>,
        limit: Duration,
    ) -> Result<T, GoBuildError>
    where
        T: for<'de> Deserialize<'de>,
        A: AsRef<OsStr>,
    {
        let (command, stdout) = self.run(args, limit)?;
        serde_json::from_slice(&stdout).map_err(|source| GoBuildError::Answer { command, source })
    }

    fn run<A: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = A>,
        limit: Duration,
    ) -> Result<(String, Vec<u8>), GoBuildError> {
        let mut command = Command::new("go");
        command
            .args(args)
            .current_dir(self.work)
            .env("CGO_ENABLED", "0")
            // A workspace file above the cache would change what is built.
            .env("GOWORK", "off")
            .stdin(Stdio::null());
        let shown = std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(OsStr::to_string_lossy)
            .collect::<Vec<_>>()
            .join(" ");
        let mut log = File::options().append(true).open(self.log).map_err(write_error(self.log))?;
        let outcome = process::run(command, limit);
        let (stdout, stderr, last) = match outcome {
            Ok(output) if output.status.success() => (output.stdout, output.stderr, None),
            Ok(output) => {
                // `go mod download -json` puts its error into the answer.
                let wrote = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
                let last = process::last_lines(wrote, 3);
                (output.stdout, output.stderr, Some(last))
            }
            Err(RunError::Start(err)) => (Vec::new(), Vec::new(), Some(err.to_string())),
            Err(err @ RunError::Limit(_)) => (Vec::new(), Vec::new(), Some(err.to_string())),
        };
        writeln!(log, "$ {shown}")
            .and_then(|()| log.write_all(&stdout))
            .and_then(|()| log.write_all(&stderr))
            .and_then(|()| last.as_ref().map_or(Ok(()), |last| writeln!(log, "failed: {last}")))
            .map_err(write_error(self.log))?;
        match last {
            None => Ok((shown, stdout)),
            Some(last) => {
                Err(GoBuildError::Step { command: shown, last, log: self.log.to_owned() })
            }
        }
    }
}

fn write_error(path: &Path) -> impl Fn(io::Error) -> GoBuildError {
    move |source| GoBuildError::Write { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EDITED: &str = r#"{
        "Module": {"Path": "k8s.io/kubernetes"},
        "Go": "1.26.0",
        "GoDebug": [{"Key": "default", "Value": "go1.26"}],
        "Replace": [
            {"Old": {"Path": "k8s.io/api"}, "New": {"Path": "./staging/src/k8s.io/api"}},
            {"Old": {"Path": "a.example/b", "Version": "v1.0.0"},
             "New": {"Path": "a.example/c", "Version": "v1.0.1"}}
        ]
    }"#;

    fn check(module: &str, version: &str) -> Result<String, Box<dyn std::error::Error>> {
        let program = GoProgram {
            module: module.to_owned(),
            package: format!("{module}/cmd/x"),
            version: version.parse()?,
            version_variable: None,
        };
        Ok(program.go_mod(&serde_json::from_str(EDITED)?)?)
    }

    #[test]
    fn local_folders_become_published_modules() -> Result<(), Box<dyn std::error::Error>> {
        assert_eq!(
            check("k8s.io/kubernetes", "v1.37.2")?,
            "module touchstone-build\n\ngo 1.26.0\n\ngodebug default=go1.26\n\
             require k8s.io/kubernetes v1.37.2\n\
             replace k8s.io/api => k8s.io/api v0.37.2\n\
             replace a.example/b v1.0.0 => a.example/c v1.0.1\n"
        );
        Ok(())
    }

    #[test]
    fn a_folder_of_another_kind_of_module_is_refused() {
        let message = check("b.example/d", "v2.0.0").map_err(|err| err.to_string());
        assert!(
            message
                .is_err_and(|text| text.starts_with("b.example/d replaces k8s.io/api by a folder"))
        );
    }
}
