//! Runs helper programs to their end, with a limit.

use std::future::Future;
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use std::{io, thread};

use tokio::io::{AsyncBufReadExt, BufReader};
use touchstone_sys::dies_with_its_starter;

/// A helper program that did not run to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error("failed to start it")]
    Start(#[source] io::Error),
    #[error("it did not end within {} s", .0.as_secs())]
    Limit(Duration),
}

/// Runs `command`; kills it when `limit` is over. It ends when this process is killed.
///
/// Blocks for at most `limit`.
pub(crate) fn run(mut command: Command, limit: Duration) -> Result<Output, RunError> {
    dies_with_its_starter(&mut command);
    block_on(|| async move {
        let mut command = tokio::process::Command::from(command);
        command.kill_on_drop(true);
        match tokio::time::timeout(limit, command.output()).await {
            Ok(output) => output.map_err(RunError::Start),
            Err(_) => Err(RunError::Limit(limit)),
        }
    })
    .map_err(RunError::Start)?
}

/// Runs `command`, tells each line of its standard output as it comes; kills it when `limit` is
/// over. It ends when this process is killed.
///
/// Blocks for at most `limit`.
pub(crate) fn run_telling(
    mut command: Command,
    limit: Duration,
    tell: &mut dyn FnMut(&str),
) -> Result<ExitStatus, RunError> {
    let (send, lines) = mpsc::channel::<String>();
    dies_with_its_starter(&mut command);
    command.stdout(Stdio::piped());
    thread::scope(|scope| {
        let running = scope.spawn(move || {
            block_on(|| async move {
                let mut command = tokio::process::Command::from(command);
                command.kill_on_drop(true);
                let mut child = command.spawn().map_err(RunError::Start)?;
                let all = async {
                    if let Some(output) = child.stdout.take() {
                        let mut output = BufReader::new(output).lines();
                        while let Ok(Some(line)) = output.next_line().await {
                            // Whoever listens is there until the end.
                            let _ = send.send(line);
                        }
                    }
                    child.wait().await.map_err(RunError::Start)
                };
                let ended = tokio::time::timeout(limit, all).await;
                ended.unwrap_or(Err(RunError::Limit(limit)))
            })
            .map_err(RunError::Start)?
        });
        for line in lines {
            tell(&line);
        }
        running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Runs a future to its end on a thread of its own, so that callers may be async or not.
pub(crate) fn block_on<F, T>(make: impl FnOnce() -> F + Send) -> io::Result<T>
where
    F: Future<Output = T>,
    T: Send,
{
    thread::scope(|scope| {
        let thread =
            thread::Builder::new().name("subject".to_owned()).spawn_scoped(scope, || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                Ok(runtime.block_on(make()))
            })?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The last `count` lines of what a program printed.
pub(crate) fn last_lines(text: &[u8], count: usize) -> String {
    let text = String::from_utf8_lossy(text);
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines.get(lines.len().saturating_sub(count)..).unwrap_or_default().join("\n")
}
