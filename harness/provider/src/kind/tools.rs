//! Runs `docker` and `kind`, and says what is wrong with them.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::kernel::Kernel;
use super::trouble::{KindError, lack_of_docker};

/// What clusters are made with on this machine: programs, by path or by a name in the PATH, and the
/// kernel.
#[derive(Debug, Clone)]
pub struct Tools {
    /// Docker's client.
    pub docker: PathBuf,
    /// kind.
    pub kind: PathBuf,
    /// The kernel that nodes share.
    pub kernel: Kernel,
    /// Docker's engine, as `DOCKER_HOST` names it; none for the one that the environment names.
    pub engine: Option<String>,
}

impl Default for Tools {
    fn default() -> Tools {
        Tools {
            docker: "docker".into(),
            kind: "kind".into(),
            kernel: Kernel::default(),
            engine: None,
        }
    }
}

/// How long a command that only asks may take: a machine that is busy answers late.
pub(super) const ASKING: Duration = Duration::from_secs(60);

impl Tools {
    /// Docker's engine, as `DOCKER_HOST` would name it; none where docker does not say.
    pub async fn engine(&self) -> Option<String> {
        if self.engine.is_some() {
            return self.engine.clone();
        }
        let args = ["context", "inspect", "--format", "{{.Endpoints.docker.Host}}"];
        let host = self.docker("ask for its engine", &args).await.ok()?;
        let host = host.trim();
        (!host.is_empty()).then(|| host.to_owned())
    }

    /// A program that talks to the engine.
    fn command(&self, program: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args);
        if let Some(engine) = &self.engine {
            // A context would have precedence.
            command.env("DOCKER_HOST", engine).env_remove("DOCKER_CONTEXT");
        }
        command
    }

    /// What docker prints.
    ///
    /// # Errors
    /// When there is no docker, it cannot be talked to, or it refuses; `what` says what was done.
    pub(super) async fn docker(&self, what: &str, args: &[&str]) -> Result<String, KindError> {
        self.docker_within(ASKING, what, args).await
    }

    /// The same for a command that does something.
    pub(super) async fn docker_within(
        &self,
        limit: Duration,
        what: &str,
        args: &[&str],
    ) -> Result<String, KindError> {
        let output = output(&mut self.command(&self.docker, args), limit)
            .await
            .map_err(|lost| lost.of("docker", what))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = said(&output.stderr);
        Err(lack_of_docker(&said).unwrap_or(KindError::Refused {
            program: "docker",
            what: what.to_owned(),
            said,
        }))
    }

    /// What kind prints.
    ///
    /// # Errors
    /// As for docker.
    pub(super) async fn kind(&self, what: &str, args: &[&str]) -> Result<String, KindError> {
        let output = output(&mut self.command(&self.kind, args), ASKING)
            .await
            .map_err(|lost| lost.of("kind", what))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = said(&output.stderr);
        Err(lack_of_docker(&said).unwrap_or(KindError::Refused {
            program: "kind",
            what: what.to_owned(),
            said,
        }))
    }

    /// Runs kind and tells each line that it says, as it comes; gives the lines.
    ///
    /// # Errors
    /// When it does not start, or is not done within `limit`; its own failure is in the status.
    pub(super) async fn kind_telling(
        &self,
        limit: Duration,
        what: &str,
        args: &[&str],
        tell: &(dyn Fn(&str) + Sync),
    ) -> Result<(bool, Vec<String>), KindError> {
        let mut command = self.command(&self.kind, args);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.kill_on_drop(true).process_group(0);
        let mut child = command.spawn().map_err(|error| Lost::Start(error).of("kind", what))?;
        let mut lines = Vec::new();
        let reading = async {
            if let Some(errors) = child.stderr.take() {
                let mut errors = BufReader::new(errors).lines();
                while let Ok(Some(line)) = errors.next_line().await {
                    let line = plain(&line);
                    if !line.is_empty() {
                        tell(&line);
                        lines.push(line);
                    }
                }
            }
            child.wait().await
        };
        let ended = tokio::time::timeout(limit, reading).await;
        match ended {
            Ok(Ok(status)) => Ok((status.success(), lines)),
            Ok(Err(error)) => Err(Lost::Start(error).of("kind", what)),
            Err(_) => Err(Lost::Limit(limit).of("kind", what)),
        }
    }
}

/// A program that did not come to its end.
enum Lost {
    Start(std::io::Error),
    Limit(Duration),
}

impl Lost {
    fn of(self, program: &'static str, what: &str) -> KindError {
        match self {
            Lost::Start(error) if error.kind() == ErrorKind::NotFound => {
                KindError::NoProgram { program }
            }
            Lost::Start(error) => KindError::Refused {
                program,
                what: what.to_owned(),
                said: format!("it does not start: {error}"),
            },
            Lost::Limit(limit) => KindError::Refused {
                program,
                what: what.to_owned(),
                said: format!("it was not done within {} s", limit.as_secs()),
            },
        }
    }
}

async fn output(command: &mut Command, limit: Duration) -> Result<std::process::Output, Lost> {
    // A Ctrl-C is for us, who then delete the cluster, and not for them.
    command.stdin(Stdio::null()).kill_on_drop(true).process_group(0);
    match tokio::time::timeout(limit, command.output()).await {
        Ok(output) => output.map_err(Lost::Start),
        Err(_) => Err(Lost::Limit(limit)),
    }
}

/// The last lines of what a program says when it fails, on one line.
fn said(errors: &[u8]) -> String {
    let text = String::from_utf8_lossy(errors);
    let lines: Vec<String> = text.lines().map(plain).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(3)..].join("; ")
}

/// A line without what moves a terminal's cursor; kind's animations print some.
fn plain(line: &str) -> String {
    let last = line.rsplit('\r').next().unwrap_or(line);
    let mut text = String::new();
    let mut letters = last.chars();
    while let Some(letter) = letters.next() {
        if letter == '\u{1b}' {
            // A control sequence ends with its first letter.
            let _ = letters.by_ref().find(char::is_ascii_alphabetic);
        } else if !letter.is_control() {
            text.push(letter);
        }
    }
    text.trim().to_owned()
}

/// A path as an argument.
pub(super) fn argument(path: &(impl AsRef<OsStr> + ?Sized)) -> Result<&str, KindError> {
    path.as_ref().to_str().ok_or_else(|| KindError::Refused {
        program: "docker",
        what: "use a path".to_owned(),
        said: format!("{} is not UTF-8", path.as_ref().to_string_lossy()),
    })
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn lines_of_a_terminal_become_plain() {
        assert_eq!(
            plain(" \u{1b}[32m✓\u{1b}[0m Writing configuration 📜 "),
            "✓ Writing configuration 📜"
        );
        assert_eq!(plain("⠈⠁ Starting\r ✓ Starting control-plane"), "✓ Starting control-plane");
        assert_eq!(plain("\u{1b}[2K"), "");
    }
}
