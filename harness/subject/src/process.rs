//! Runs helper programs to their end, with a limit.

use std::future::Future;
use std::process::{Command, Output};
use std::time::Duration;
use std::{io, thread};

/// A helper program that did not run to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error("failed to start it")]
    Start(#[source] io::Error),
    #[error("it did not end within {} s", .0.as_secs())]
    Limit(Duration),
}

/// Runs `command`; kills it when `limit` is over.
///
/// Blocks for at most `limit`.
pub(crate) fn run(command: Command, limit: Duration) -> Result<Output, RunError> {
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
