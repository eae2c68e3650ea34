//! One proxy process on one node: started, watched, started again when it ends by design.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;
use touchstone_netlab::Topology;
use touchstone_subject::{Launch, LaunchLog, Resolved, Selection};

use super::priority;
use crate::{ClusterError, Notice};

/// Lines of a proxy's log that are kept for evidence.
const KEPT_LINES: usize = 200;
/// Lines shown when a proxy ended.
const LAST_LINES: usize = 15;
/// Bytes of a proxy's log that are kept in a file: the run's own log must not lack the space.
const LOG_ROOM: usize = 4 << 20;
/// Lines of trouble that are shown beside a node's rules.
const COMPLAINTS: usize = 4;
/// Longest line kept, in bytes.
const LONGEST_LINE: u64 = 2_000;
/// How long a stopped proxy may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// How long one may take to end by itself that was told what it must refuse: as long as the slowest
/// machine needs to start it.
const REFUSAL_LIMIT: Duration = Duration::from_secs(120);

/// A proxy on a node.
pub(super) struct Proxy {
    node: String,
    topology: Arc<Topology>,
    selection: Arc<Selection>,
    resolved: Arc<Resolved>,
    launch: Launch,
    state: Arc<Mutex<State>>,
    ended: watch::Sender<bool>,
    tell: UnboundedSender<Notice>,
}

/// Whether a process is to end by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Wanted,
    Unwanted,
}

#[derive(Default)]
struct State {
    pid: Option<Pid>,
    /// Whether its end is wanted.
    stopping: bool,
    lines: VecDeque<String>,
    /// Where the whole log goes.
    log: Option<File>,
    /// Bytes that it has said so far.
    logged: usize,
    /// CPU time of processes that have ended.
    spent: Duration,
    /// Why it ended, when nobody wanted it to.
    died: Option<String>,
}

impl Proxy {
    pub(super) fn new(
        node: &str,
        topology: Arc<Topology>,
        selection: Arc<Selection>,
        resolved: Arc<Resolved>,
        launch: Launch,
        log: Option<File>,
        tell: UnboundedSender<Notice>,
    ) -> Arc<Proxy> {
        Arc::new(Proxy {
            node: node.to_owned(),
            topology,
            selection,
            resolved,
            launch,
            state: Arc::new(Mutex::new(State { log, ..State::default() })),
            ended: watch::Sender::new(true),
            tell,
        })
    }

    pub(super) fn launch(&self) -> &Launch {
        &self.launch
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the process; its files are written first.
    pub(super) fn start(self: &Arc<Self>) -> Result<(), ClusterError> {
        self.start_as(&self.launch, End::Unwanted)
    }

    /// Stops the process, starts it in another way in which it must end by itself, and starts it
    /// again as ever.
    ///
    /// # Errors
    /// Of the proxy, when it does not end.
    pub(super) async fn refuses(self: &Arc<Self>, launch: &Launch) -> Result<(), ClusterError> {
        self.stop(Signal::SIGTERM).await?;
        self.start_as(launch, End::Wanted)?;
        if !self.ends_within(REFUSAL_LIMIT).await {
            self.stop(Signal::SIGKILL).await?;
            return Err(ClusterError {
                act: format!(
                    "the proxy on {} runs with settings with which it must not start",
                    self.node
                ),
                why: format!("it did not end within {} s", REFUSAL_LIMIT.as_secs()),
                proxy: true,
                late: false,
            });
        }
        self.start()
    }

    fn start_as(self: &Arc<Self>, launch: &Launch, end: End) -> Result<(), ClusterError> {
        let failed = |why: String| ClusterError {
            act: format!("failed to start {} on {}", launch.program.display(), self.node),
            why,
            proxy: true,
            late: false,
        };
        let node = self.topology.node(&self.node).ok_or_else(|| failed("no such node".into()))?;
        let launch = launch.clone();
        // On the node's own thread, since the files are on its private file system.
        let spawned = node
            .namespace()
            .run(move || spawn(&launch))
            .map_err(|error| failed(error.to_string()))?;
        let mut child = spawned.map_err(failed)?;
        let outputs: Vec<Box<dyn Read + Send>> = [
            child.stdout.take().map(|out| Box::new(out) as Box<dyn Read + Send>),
            child.stderr.take().map(|out| Box::new(out) as Box<dyn Read + Send>),
        ]
        .into_iter()
        .flatten()
        .collect();
        {
            let mut state = self.state();
            state.pid = Some(Pid::from_raw(child.id().cast_signed()));
            state.stopping = end == End::Wanted;
        }
        self.ended.send_replace(false);
        let readers: Vec<_> = outputs
            .into_iter()
            .map(|output| {
                let state = Arc::clone(&self.state);
                std::thread::spawn(move || keep_lines(output, &state))
            })
            .collect();
        let proxy = Arc::clone(self);
        std::thread::spawn(move || proxy.wait(child, readers));
        Ok(())
    }

    /// Waits for the end of the process, tells about it, and starts it again if it ended by
    /// design, as a kubelet would.
    fn wait(self: Arc<Self>, mut child: Child, readers: Vec<std::thread::JoinHandle<()>>) {
        let pid = Pid::from_raw(child.id().cast_signed());
        // Seen before it is reaped, so that its times can still be read.
        let _ = nix::sys::wait::waitid(
            nix::sys::wait::Id::Pid(pid),
            nix::sys::wait::WaitPidFlag::WEXITED | nix::sys::wait::WaitPidFlag::WNOWAIT,
        );
        let spent = cpu_time(pid);
        self.state().pid = None;
        let status = child.wait();
        for reader in readers {
            // A reader that panicked has kept what it read.
            let _ = reader.join();
        }
        let (wanted, last) = {
            let mut state = self.state();
            state.spent += spent;
            let skip = state.lines.len().saturating_sub(LAST_LINES);
            let last: Vec<String> = state.lines.iter().skip(skip).cloned().collect();
            (state.stopping, last)
        };
        if !wanted {
            let release = self.resolved.release.as_ref();
            let text = self.state().lines.iter().cloned().collect::<Vec<_>>().join("\n");
            let design = self.selection.subject.exit_by_design(release, &text);
            let by_design = design.map(|exit| exit.when.clone());
            let words = in_words(status);
            if by_design.is_none() {
                self.state().died = Some(format!("the proxy on {} ended: {words}", self.node));
            }
            // Nobody listens any more when the cluster is being closed.
            let _ = self.tell.send(Notice::ProxyExited {
                node: self.node.clone(),
                status: words,
                by_design: by_design.clone(),
                last_lines: last,
            });
            if by_design.is_some() {
                self.state().lines.clear();
                match self.start() {
                    Ok(()) => {
                        let _ = self.tell.send(Notice::ProxyRestarted { node: self.node.clone() });
                        return;
                    }
                    Err(error) => self.state().died = Some(error.to_string()),
                }
            }
        }
        self.ended.send_replace(true);
    }

    /// Stops the process and waits for its end.
    pub(super) async fn stop(&self, signal: Signal) -> Result<(), ClusterError> {
        {
            let mut state = self.state();
            state.stopping = true;
            if let Some(pid) = state.pid {
                // It may have ended just now; then nothing is left to stop.
                let _ = kill(pid, signal);
            }
        }
        if self.ends_within(STOP_LIMIT).await {
            return Ok(());
        }
        if let Some(pid) = self.state().pid {
            let _ = kill(pid, Signal::SIGKILL);
        }
        Err(ClusterError {
            act: format!("failed to stop the proxy on {}", self.node),
            why: format!("it did not end within {} s", STOP_LIMIT.as_secs()),
            proxy: true,
            late: false,
        })
    }

    async fn ends_within(&self, limit: Duration) -> bool {
        let mut ended = self.ended.subscribe();
        tokio::time::timeout(limit, ended.wait_for(|ended| *ended)).await.is_ok()
    }

    /// Why it ended, when nobody wanted it to.
    pub(super) fn died(&self) -> Option<String> {
        self.state().died.clone()
    }

    /// The last lines of its log.
    pub(super) fn last_lines(&self) -> Vec<String> {
        let state = self.state();
        let skip = state.lines.len().saturating_sub(LAST_LINES);
        state.lines.iter().skip(skip).cloned().collect()
    }

    /// The last lines of its log that sound like trouble.
    pub(super) fn complaints(&self) -> Vec<String> {
        let state = self.state();
        let bad = |line: &&String| line.contains("rror") || line.contains("ailed");
        let mut lines: Vec<String> =
            state.lines.iter().rev().filter(bad).take(COMPLAINTS).cloned().collect();
        lines.reverse();
        lines
    }

    /// CPU time of its processes so far.
    pub(super) fn cpu(&self) -> Duration {
        let state = self.state();
        state.spent + state.pid.map_or(Duration::ZERO, cpu_time)
    }
}

fn spawn(launch: &Launch) -> Result<Child, String> {
    for file in &launch.files {
        if let Some(folder) = file.path.parent() {
            std::fs::create_dir_all(folder)
                .map_err(|error| format!("failed to make {}: {error}", folder.display()))?;
        }
        std::fs::write(&file.path, &file.contents)
            .map_err(|error| format!("failed to write {}: {error}", file.path.display()))?;
    }
    let output = || -> Result<Stdio, String> {
        match &launch.log {
            LaunchLog::Output => Ok(Stdio::piped()),
            LaunchLog::File(_) => Ok(Stdio::null()),
        }
    };
    let mut command = Command::new(&launch.program);
    command
        .args(&launch.args)
        .envs(&launch.env)
        .stdin(Stdio::null())
        .stdout(output()?)
        .stderr(output()?)
        // So that the terminal's ^C reaches the harness alone.
        .process_group(0);
    priority::ordinary(|| command.spawn()).map_err(|error| error.to_string())
}

/// Keeps the last lines of an output. A line without end cannot fill the memory.
fn keep_lines(output: Box<dyn Read + Send>, state: &Mutex<State>) {
    let mut reader = BufReader::new(output);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut reader).take(LONGEST_LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                state.logged += line.len();
                let room = state.logged <= LOG_ROOM;
                if let (Some(log), true) = (&mut state.log, room) {
                    // A log that cannot be written is missing for a person, not for the verdict.
                    let _ = log.write_all(&line);
                }
                if state.lines.len() == KEPT_LINES {
                    state.lines.pop_front();
                }
                state.lines.push_back(text);
            }
        }
    }
}

fn in_words(status: std::io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => status.to_string(),
        Err(error) => format!("status unknown: {error}"),
    }
}

/// CPU time of a process, user and system; zero when it is gone.
fn cpu_time(pid: Pid) -> Duration {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return Duration::ZERO;
    };
    // The name in parentheses may hold anything; what follows it are numbers.
    let Some((_, rest)) = stat.rsplit_once(')') else { return Duration::ZERO };
    let ticks: u64 =
        rest.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<u64>().ok()).sum();
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)
        .ok()
        .flatten()
        .and_then(|ticks| u64::try_from(ticks).ok())
        .unwrap_or(100);
    Duration::from_millis(ticks * 1000 / per_second.max(1))
}
