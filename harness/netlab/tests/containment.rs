//! Nothing outlives the process that made it, whoever is killed and when.
//!
//! The chain is: this test, an *outer* process as a user starts it, PID 1, the *inner* program as
//! PID 2, and *idle* processes of all kinds that it starts.
//! All have a marker among their arguments, and all hold the outer process's standard output, so
//! that its end is reached when the last of them is gone.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use nix::poll::{PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use touchstone_netlab::{NodeShape, Shape, Topology};
use touchstone_sys::{UserNamespace, spawn_contained};

mod common;

/// How long the kernel may take to end everything; it needs some ten milliseconds.
const LIMIT: Duration = Duration::from_secs(20);

/// Kills at different moments for each victim.
const ROUNDS: u64 = 16;

fn main() -> ExitCode {
    if let Some(code) = common::init() {
        return code;
    }
    let role = std::env::args().nth(1).unwrap_or_default();
    match role.as_str() {
        "outer" => outer(UserNamespace::New),
        "outer-keep" => outer(UserNamespace::Keep),
        "inner" => inner(),
        "exit" => ExitCode::from(7),
        "orphan" => orphan(),
        "idle" => idle(),
        _ => tests(),
    }
}

fn tests() -> ExitCode {
    let kill_when_up =
        |victim| Trial::test(format!("{victim:?} killed when up"), move || round(victim, None));
    let kill_early = |victim| {
        Trial::test(format!("{victim:?} killed at any moment"), move || {
            (0..ROUNDS)
                .try_for_each(|number| round(victim, Some(Duration::from_millis(number * 5))))
        })
    };
    let mut trials = vec![
        Trial::test("the program's status comes out", || status("outer")),
        Trial::test("the same without a user namespace", || status("outer-keep"))
            .with_ignored_flag(!geteuid().is_root()),
        Trial::test("SIGTERM goes in and its status comes out", terminate),
    ];
    trials.extend([Victim::Outer, Victim::Init, Victim::Inner].map(kill_when_up));
    trials.extend([Victim::Outer, Victim::Init, Victim::Inner].map(kill_early));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn outer(user: UserNamespace) -> ExitCode {
    let mut argv: Vec<OsString> = std::env::args_os().collect();
    argv.remove(1);
    let env: Vec<_> = std::env::vars_os().collect();
    let ended = spawn_contained(&argv, &env, user, &[])
        .map_err(std::io::Error::other)
        .and_then(|mut contained| contained.wait_forwarding());
    ended.map_or(ExitCode::FAILURE, |ended| ExitCode::from(ended.code()))
}

fn inner() -> ExitCode {
    let topology = Topology::new(&Shape {
        nodes: ["n1", "n2"].map(NodeShape::new).into(),
        outside: vec!["outside".to_owned()],
        ..Shape::default()
    });
    let Ok(topology) = topology else {
        return ExitCode::FAILURE;
    };
    let Ok(_pods) = topology.pods_on(&[("n1", 2), ("n2", 2)]) else {
        return ExitCode::FAILURE;
    };
    for node in topology.nodes() {
        for role in ["idle", "orphan"] {
            let mut command = again(role);
            command.process_group(0);
            if node.namespace().spawn(command).is_err() {
                return ExitCode::FAILURE;
            }
        }
    }
    let mut out = std::io::stdout();
    if out.write_all(b"up\n").and_then(|()| out.flush()).is_err() {
        return ExitCode::FAILURE;
    }
    idle()
}

/// This program in another role, with the same marker.
fn again(role: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg(role).args(std::env::args_os().skip(2));
    command
}

fn orphan() -> ExitCode {
    // Its parent, this process, ends at once.
    again("idle").spawn().map_or(ExitCode::FAILURE, |_| ExitCode::SUCCESS)
}

fn idle() -> ExitCode {
    loop {
        // Without descriptors and limit it ends only by a signal.
        let _ = poll(&mut [], PollTimeout::NONE);
    }
}

#[derive(Debug, Clone, Copy)]
enum Victim {
    Outer,
    Init,
    Inner,
}

/// What the standard output of all the processes says.
enum News {
    Up,
    AllGone,
}

struct Chain {
    marker: String,
    outer: Child,
    news: mpsc::Receiver<News>,
}

impl Drop for Chain {
    fn drop(&mut self) {
        // For a failed test; otherwise it has ended.
        let _ = self.outer.kill();
        let _ = self.outer.wait();
    }
}

fn start(outer: &str, role: &str) -> Result<Chain, Failed> {
    static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let marker = format!("touchstone-marker-{}-{number}", std::process::id());
    let mut command = Command::new("/proc/self/exe");
    command.args([outer, role, &marker]).stdout(Stdio::piped());
    let mut outer = command.spawn()?;
    let stdout = outer.stdout.take().ok_or("no standard output")?;
    let (sender, news) = mpsc::channel();
    thread::spawn(move || {
        let mut reader = BufReader::new(stdout);
        let mut line = String::new();
        if reader.read_line(&mut line).is_ok_and(|_| line == "up\n") {
            let _ = sender.send(News::Up);
        }
        let _ = reader.read_to_end(&mut Vec::new());
        let _ = sender.send(News::AllGone);
    });
    Ok(Chain { marker, outer, news })
}

fn status(outer: &str) -> Result<(), Failed> {
    let mut chain = start(outer, "exit")?;
    all_gone(&chain, &BTreeSet::new())?;
    let code = chain.outer.wait()?.code();
    if code == Some(7) { Ok(()) } else { Err(format!("status {code:?}").into()) }
}

fn terminate() -> Result<(), Failed> {
    let mut chain = start("outer", "inner")?;
    let Ok(News::Up) = chain.news.recv_timeout(LIMIT) else {
        return Err("not up in time".into());
    };
    kill(pid(&chain.outer)?, Signal::SIGTERM)?;
    all_gone(&chain, &BTreeSet::new())?;
    let code = chain.outer.wait()?.code();
    if code == Some(128 + 15) { Ok(()) } else { Err(format!("status {code:?}").into()) }
}

fn pid(child: &Child) -> Result<Pid, Failed> {
    Ok(Pid::from_raw(i32::try_from(child.id())?))
}

/// Starts a chain, kills one of it, and looks for anything that is left.
fn round(victim: Victim, at: Option<Duration>) -> Result<(), Failed> {
    let mut chain = start("outer", "inner")?;
    match (chain.news.recv_timeout(at.unwrap_or(LIMIT)), at) {
        (Ok(News::Up), _) | (Err(mpsc::RecvTimeoutError::Timeout), Some(_)) => {}
        (Ok(News::AllGone) | Err(_), _) => return Err("the chain did not come up".into()),
    }
    let marked = marked(&chain.marker)?;
    let namespaces = namespaces_of(marked.iter().map(|process| process.pid))?;
    let role = |process: &&Process| match victim {
        Victim::Outer => process.roles.first().is_some_and(|role| role == "outer"),
        Victim::Init => process.roles.first().is_some_and(|role| role == "__contained-init"),
        Victim::Inner => process.roles.first().is_some_and(|role| role == "inner"),
    };
    match (marked.iter().find(role), at) {
        (Some(process), _) => kill(process.pid, Signal::SIGKILL)?,
        // It has not started yet; the one that would start it is as good a victim.
        (None, Some(_)) => kill(pid(&chain.outer)?, Signal::SIGKILL)?,
        (None, None) => return Err(format!("no {victim:?} among {marked:?}").into()),
    }
    all_gone(&chain, &namespaces)?;
    let status = chain.outer.wait()?;
    match (victim, at) {
        (Victim::Init | Victim::Inner, None) if status.code() != Some(128 + 9) => {
            Err(format!("status {status}").into())
        }
        (Victim::Outer | Victim::Init | Victim::Inner, _) => Ok(()),
    }
}

fn all_gone(chain: &Chain, namespaces: &BTreeSet<PathBuf>) -> Result<(), Failed> {
    loop {
        match chain.news.recv_timeout(LIMIT) {
            Ok(News::Up) => {}
            Ok(News::AllGone) => break,
            Err(_) => {
                return Err(format!("left: {:?}", marked(&chain.marker)?).into());
            }
        }
    }
    let left: Vec<Process> = marked(&chain.marker)?
        .into_iter()
        .filter(|process| !process.roles[0].starts_with("outer"))
        .collect();
    if !left.is_empty() {
        return Err(format!("left: {left:?}").into());
    }
    let own = namespaces_of([Pid::this()])?;
    let start = Instant::now();
    loop {
        // A process closes its descriptors a moment before it leaves its namespaces.
        let everywhere = namespaces_of(processes()?.into_iter().filter(|&pid| !is_zombie(pid)))?;
        let left: Vec<_> =
            namespaces.difference(&own).filter(|one| everywhere.contains(*one)).collect();
        if left.is_empty() {
            return Ok(());
        }
        if start.elapsed() > LIMIT {
            return Err(format!("left: {left:?}").into());
        }
        thread::yield_now();
    }
}

/// Whether it has ended and only its new parent, which is not ours to hurry, does not know yet.
fn is_zombie(pid: Pid) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')))
}

#[derive(Debug)]
struct Process {
    pid: Pid,
    roles: Vec<String>,
}

/// Every process with the marker among its arguments.
fn marked(marker: &str) -> Result<Vec<Process>, Failed> {
    let mut found = Vec::new();
    for pid in processes()? {
        // It may end between the two steps.
        let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else {
            continue;
        };
        let line = String::from_utf8_lossy(&line);
        let roles: Vec<String> = line.split('\0').skip(1).map(str::to_owned).collect();
        if roles.iter().any(|argument| argument == marker) {
            found.push(Process { pid, roles });
        }
    }
    Ok(found)
}

fn processes() -> Result<Vec<Pid>, Failed> {
    let names =
        fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter_map(|name| name.parse().ok()).map(Pid::from_raw).collect())
}

/// Namespaces of processes and of each of their threads, as far as they can be seen.
fn namespaces_of(pids: impl IntoIterator<Item = Pid>) -> Result<BTreeSet<PathBuf>, Failed> {
    let mut found = BTreeSet::new();
    for pid in pids {
        let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
            continue;
        };
        for task in tasks.flatten() {
            let kinds = ["net", "mnt", "pid", "user", "uts", "ipc"];
            let links = kinds.map(|kind| task.path().join("ns").join(kind));
            found.extend(links.iter().filter_map(|link| fs::read_link(link).ok()));
        }
    }
    Ok(found)
}
