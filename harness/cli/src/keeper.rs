//! The keeper of a second kernel: PID 2 in namespaces of this machine, outside of that kernel.
//!
//! It starts the kernel, writes down the events that come out of it, shows them, passes signals
//! in, and says why the kernel ended before the run did. When it is killed, so is the kernel.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, PipeReader, PipeWriter, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::mount::{MsFlags, mount};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, timeout, timeout_at};
use touchstone_record::{Event, LogWriter, RunEvent};

use crate::failed;
use crate::guest::{EVENTS_LINE, GUEST_ARGUMENT, GuestOrder};
use crate::job::{Job, KernelJob, Order, log_path};
use crate::live::Live;
use crate::say::{complain, note};
use crate::trouble::{self, Trouble};

/// A folder that every machine has, made private: the kernel's memory and its order are in it.
const ROOM: &str = "/dev/shm";
/// What the room needs beside the kernel's memory.
const ROOM_BESIDE_MIB: u64 = 64;
/// A kernel that has not begun the run by then will not.
const BOOT_LIMIT: Duration = Duration::from_secs(60);
/// How long a kernel may take to end a run after a signal.
const END_LIMIT: Duration = Duration::from_secs(10);
/// How long after the kernel's end its last words may take.
const WORDS_LIMIT: Duration = Duration::from_secs(5);
/// Later than any run.
const NEVER: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Lines of the console that are kept in memory.
const LINES: usize = 200;
/// The console of the kernel, in the folder of the proxies' logs.
pub(crate) const CONSOLE: &str = "kernel.log";

/// What the readers of the lines tell.
enum News {
    /// The run has begun.
    Begun,
    /// An event could not be written down.
    Failed(io::Error),
}

/// What became of the events.
#[derive(Default)]
struct Told {
    begun: bool,
    /// Whether the harness itself has said how the run ended.
    whole: bool,
}

/// What happened to the kernel, as the keeper saw it.
enum End {
    Exited(ExitStatus),
    /// It was killed for having been late to begin.
    NeverBegan,
    /// It was killed after a signal, which it may not have heard.
    Interrupted(&'static str),
    /// It was killed since nothing more could be written down.
    NotRecorded(io::Error),
}

/// Runs the job in the kernel; gives the exit code of the harness in there.
pub(crate) async fn keep(job: &KernelJob) -> Result<u8> {
    // Before anything that could end this process.
    let signals = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    prepare_room(job)?;
    let lines = Lines::new()?;
    let log = File::create(log_path(&job.run.out)).context(
        "the run cannot be recorded; free some space or choose another folder with --out",
    )?;
    let mut child = start(job, &lines)?;
    let HostEnds { console, words, events, mut control } = lines.host_ends();
    let (tell_live, live_events) = unbounded_channel();
    let live = Live::start(live_events, job.run.variants.len() * job.run.subjects.len());
    let (tell, mut news) = unbounded_channel();
    let events = std::thread::spawn(move || take_events(events, log, &tell_live, &tell));
    let words = std::thread::spawn(move || take_words(words));
    let seen = Arc::new(Mutex::new(VecDeque::new()));
    let console = {
        let (seen, path) = (Arc::clone(&seen), job.run.logs().join(CONSOLE));
        std::thread::spawn(move || take_console(console, &path, &seen))
    };
    let end = attend(&mut child, &mut control, &mut news, signals).await;
    let told = joined(events).await.unwrap_or_default();
    joined(words).await;
    joined(console).await;
    live.finish().await;
    let seen: Vec<String> =
        seen.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect();
    conclude(job, end?, &told, &seen)
}

/// Makes the private folder and writes the order into it.
fn prepare_room(job: &KernelJob) -> Result<()> {
    // A kernel that dies would leave a file as large as its memory.
    setrlimit(Resource::RLIMIT_CORE, 0, 0).context("failed to forbid core files")?;
    let size = format!("size={}m,mode=700", job.memory_mib + ROOM_BESIDE_MIB);
    mount(Some("tmpfs"), ROOM, Some("tmpfs"), MsFlags::MS_NOSUID, Some(size.as_str()))
        .with_context(|| format!("failed to mount a private folder on {ROOM}"))?;
    let env = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name != "TMPDIR")
        // The host's temporary folder cannot be written in there.
        .chain([("TMPDIR".to_owned(), "/run".to_owned())])
        .collect();
    let run = Job { line: Some(EVENTS_LINE.into()), user_namespace: false, ..job.run.clone() };
    let order = GuestOrder { env, logs: job.run.logs(), order: Order::Run(run) };
    let path = Path::new(ROOM).join("order.json");
    File::create(&path)
        .map_err(anyhow::Error::from)
        .and_then(|file| Ok(serde_json::to_writer(file, &order)?))
        .with_context(|| format!("failed to write {}", path.display()))
}

/// The lines between the kernel and the keeper, both ends of each.
struct Lines {
    console: (PipeReader, PipeWriter),
    words: (PipeReader, PipeWriter),
    events: (PipeReader, PipeWriter),
    control: (PipeReader, PipeWriter),
}

/// The keeper's ends.
struct HostEnds {
    console: PipeReader,
    words: PipeReader,
    events: PipeReader,
    control: PipeWriter,
}

impl Lines {
    fn new() -> Result<Lines> {
        let pipe = || io::pipe().context("failed to make a pipe");
        let lines = Lines { console: pipe()?, words: pipe()?, events: pipe()?, control: pipe()? };
        let kernels = [
            lines.console.1.as_fd(),
            lines.words.1.as_fd(),
            lines.events.1.as_fd(),
            lines.control.0.as_fd(),
        ];
        for end in kernels {
            fcntl(end, FcntlArg::F_SETFD(FdFlag::empty()))
                .context("failed to hand a pipe down to the kernel")?;
        }
        Ok(lines)
    }

    /// Closes the kernel's ends.
    fn host_ends(self) -> HostEnds {
        HostEnds {
            console: self.console.0,
            words: self.words.0,
            events: self.events.0,
            control: self.control.1,
        }
    }
}

fn start(job: &KernelJob, lines: &Lines) -> Result<Child> {
    let console = &lines.console.1;
    let copy = || console.try_clone().context("failed to hand a pipe down to the kernel");
    let number = |end: &dyn AsRawFd| end.as_raw_fd();
    Command::new(&job.program)
        .args(["rootfstype=hostfs", "rootflags=/", "ro"])
        .arg(format!("mem={}M", job.memory_mib))
        .arg(format!("ncpus={}", job.cpus))
        .arg("seccomp=on")
        .args(["con=null", "ssl=null"])
        .arg(format!("con0=null,fd:{}", number(console)))
        .arg(format!("ssl0=fd:{},fd:{}", number(&lines.control.0), number(&lines.events.1)))
        .arg(format!("ssl1=null,fd:{}", number(&lines.words.1)))
        .arg(format!("uml_dir={ROOM}"))
        .arg(format!("init=\"{}\"", job.touchstone.display()))
        .args(["--", GUEST_ARGUMENT])
        .arg(format!("{ROOM}/order.json"))
        .envs([("TMPDIR", ROOM), ("HOME", ROOM)])
        .stdin(Stdio::null())
        .stdout(copy()?)
        .stderr(copy()?)
        // It ends its whole process group when it panics, and a terminal's ^C is not for it.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("failed to start the kernel {}", job.program.display()))
}

/// Stays with the kernel until it has ended, by itself or killed.
async fn attend(
    child: &mut Child,
    control: &mut PipeWriter,
    news: &mut UnboundedReceiver<News>,
    (mut interrupt, mut terminate): (tokio::signal::unix::Signal, tokio::signal::unix::Signal),
) -> Result<End> {
    let mut deadline = Instant::now() + BOOT_LIMIT;
    let mut asked = None;
    loop {
        let happened = async {
            tokio::select! {
                status = child.wait() => Happened::Ended(status),
                _ = interrupt.recv() => Happened::Signal("SIGINT", Signal::SIGINT),
                _ = terminate.recv() => Happened::Signal("SIGTERM", Signal::SIGTERM),
                Some(news) = news.recv() => Happened::News(news),
            }
        };
        let end = match timeout_at(deadline, happened).await {
            Ok(Happened::Ended(status)) => {
                return Ok(End::Exited(status.context("failed to wait for the kernel")?));
            }
            Ok(Happened::News(News::Begun)) => {
                if asked.is_none() {
                    deadline = Instant::now() + NEVER;
                }
                continue;
            }
            Ok(Happened::News(News::Failed(error))) => End::NotRecorded(error),
            Ok(Happened::Signal(name, signal)) if asked.is_none() => {
                asked = Some(name);
                deadline = Instant::now() + END_LIMIT;
                let number = u8::try_from(signal as i32).unwrap_or_default();
                // A kernel that does not listen is killed at the deadline.
                let _ = control.write_all(&[number]);
                continue;
            }
            Ok(Happened::Signal(name, _)) => End::Interrupted(name),
            Err(_) => match asked {
                Some(name) => End::Interrupted(name),
                None => End::NeverBegan,
            },
        };
        child.kill().await.context("failed to kill the kernel")?;
        return Ok(end);
    }
}

enum Happened {
    Ended(io::Result<ExitStatus>),
    Signal(&'static str, Signal),
    News(News),
}

/// What a reader has at the end of its line; none when something holds the line open.
async fn joined<T: Send + 'static>(reader: JoinHandle<T>) -> Option<T> {
    let join = tokio::task::spawn_blocking(move || reader.join().ok());
    timeout(WORDS_LIMIT, join).await.ok()?.ok()?
}

/// Writes events down as they come, a whole line at a time, and tells the live display.
fn take_events(
    line: PipeReader,
    mut log: File,
    live: &UnboundedSender<RunEvent>,
    news: &UnboundedSender<News>,
) -> Told {
    let mut told = Told::default();
    let mut reader = BufReader::new(line);
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.read_until(b'\n', &mut line) {
            Ok(_) if line.last() == Some(&b'\n') => {}
            // A line without an end was cut off by the kernel's death.
            Ok(_) | Err(_) => return told,
        }
        let Ok(event) = serde_json::from_slice::<RunEvent>(&line) else {
            let text = String::from_utf8_lossy(&line);
            note(&format!("not an event from the second kernel: {}", text.trim_end()));
            continue;
        };
        if let Err(error) = log.write_all(&line).and_then(|()| log.flush()) {
            // Whoever attends is there until this thread ends.
            let _ = news.send(News::Failed(error));
            return told;
        }
        if !told.begun {
            told.begun = true;
            let _ = news.send(News::Begun);
        }
        told.whole |= event.event.ends_a_run();
        let _ = live.send(event);
    }
}

/// Passes on what the harness says in words.
fn take_words(line: PipeReader) {
    for text in lines_of(line) {
        note(&text);
    }
}

/// Keeps the kernel's console in a file, and its last lines.
fn take_console(line: PipeReader, path: &Path, seen: &Mutex<VecDeque<String>>) {
    // Without the file there are still the last lines.
    let mut file = OpenOptions::new().create(true).append(true).open(path).ok();
    for text in lines_of(line) {
        if let Some(file) = &mut file {
            let _ = writeln!(file, "{text}");
        }
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() == LINES {
            seen.pop_front();
        }
        seen.push_back(text);
    }
}

fn lines_of(line: PipeReader) -> impl Iterator<Item = String> {
    let pieces = BufReader::new(line).split(b'\n').map_while(Result::ok);
    pieces.map(|bytes| String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

/// Says how it ended, in the log where there is one.
fn conclude(job: &KernelJob, end: End, told: &Told, console: &[String]) -> Result<u8> {
    let trouble = trouble::of(console);
    let (code, event) = match end {
        End::Interrupted(_) if told.whole => (failed::HARNESS, None),
        End::Interrupted(name) => {
            (failed::HARNESS, Some(Event::Interrupted { signal: name.to_owned() }))
        }
        End::NotRecorded(error) => {
            let why = anyhow!(error).context(
                "the run was stopped; what was recorded so far is kept, free some space and run \
                 again",
            );
            return Err(why);
        }
        // What the harness did not say of its end is added outside, as for any other run.
        End::Exited(status) if trouble.is_none() && trouble::switched_off(console) => {
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            (code.unwrap_or(failed::HARNESS), None)
        }
        End::Exited(status) => {
            let what =
                if told.begun { "ended before the run did" } else { "did not begin the run" };
            (failed::HARNESS, Some(error(job, &format!("{what} ({status})"), trouble, console)))
        }
        End::NeverBegan => {
            let what = format!("did not begin the run within {} s", BOOT_LIMIT.as_secs());
            (failed::HARNESS, Some(error(job, &what, trouble, console)))
        }
    };
    let Some(event) = event else { return Ok(code) };
    if !told.begun {
        if let Event::HarnessError { message } = &event {
            complain(message);
        }
        return Ok(code);
    }
    let log = LogWriter::append(&log_path(&job.run.out))?;
    log.write(event)?;
    Ok(code)
}

/// Why the kernel ended, and what to do about it.
fn error(job: &KernelJob, what: &str, trouble: Option<Trouble>, console: &[String]) -> Event {
    let mut message = format!("the kernel {} {what}", job.program.display());
    match trouble {
        Some(trouble) => {
            message.push_str(&format!(": {}; {}", trouble.line, trouble.remedy));
        }
        None => {
            if let Some(last) = console.iter().rev().find(|line| !line.is_empty()) {
                message.push_str(&format!("; its last words: {last}"));
            }
        }
    }
    let log = job.run.logs().join(CONSOLE);
    message.push_str(&format!(" (its console is in {})", log.display()));
    Event::HarnessError { message }
}
