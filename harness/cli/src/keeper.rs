//! The keeper of second kernels: PID 2 in namespaces of this machine, outside of those kernels.
//!
//! It starts one for each CPU, writes down the events that come out of them, shows them, passes
//! signals in, and says why a kernel ended before the run did. When it is killed, so are they.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, PipeReader, PipeWriter, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::mount::{MsFlags, mount};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, timeout, timeout_at};
use touchstone_record::{Event, LogWriter, RunEvent};

use crate::failed;
use crate::guest::{EVENTS_LINE, GUEST_ARGUMENT, GuestOrder};
use crate::job::{Job, KernelJob, Order, log_path};
use crate::ledger::Ledger;
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

/// What the readers of the lines tell.
enum News {
    /// The run has begun.
    Begun,
    /// An event could not be written down.
    Failed(io::Error),
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

/// Runs the job in the kernels; gives the exit code of the harness in there.
///
/// They end together: as soon as one of them ends otherwise than by having done its part, the
/// others are killed, since the run cannot become whole any more.
pub(crate) async fn keep(job: &KernelJob) -> Result<u8> {
    prepare_room(job)?;
    let log = File::create(log_path(&job.run.out)).context(
        "the run cannot be recorded; free some space or choose another folder with --out",
    )?;
    let (tell_live, live_events) = unbounded_channel();
    let live = Live::start(live_events, job.run.variants.len() * job.run.subjects.len());
    let ledger = Arc::new(Ledger::new(log, job.cpus.len(), tell_live));
    let kernels = (0..job.cpus.len()).map(|index| Kernel::start(job, index, Arc::clone(&ledger)));
    let mut parts: FuturesUnordered<_> = kernels
        .collect::<Result<Vec<Kernel>>>()?
        .into_iter()
        .map(|kernel| kernel.end(job))
        .collect();
    let mut ended = Conclusion { code: 0, event: None };
    while let Some(part) = parts.next().await {
        ended = part?;
        if ended.code != 0 || ended.event.is_some() {
            break;
        }
    }
    drop(parts);
    ledger.close();
    live.finish().await;
    if let Some(event) = ended.event {
        if ledger.has_begun() {
            LogWriter::append(&log_path(&job.run.out))?.write(event)?;
        } else if let Event::HarnessError { message } = &event {
            complain(message);
        }
    }
    Ok(ended.code)
}

/// Makes the private folder and writes the orders into it.
fn prepare_room(job: &KernelJob) -> Result<()> {
    // A kernel that dies would leave a file as large as its memory.
    setrlimit(Resource::RLIMIT_CORE, 0, 0).context("failed to forbid core files")?;
    let kernels = job.cpus.len();
    let size = job.memory_mib * kernels as u64 + ROOM_BESIDE_MIB;
    let size = format!("size={size}m,mode=700");
    mount(Some("tmpfs"), ROOM, Some("tmpfs"), MsFlags::MS_NOSUID, Some(size.as_str()))
        .with_context(|| format!("failed to mount a private folder on {ROOM}"))?;
    let env: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name != "TMPDIR")
        // The host's temporary folder cannot be written in there.
        .chain([("TMPDIR".to_owned(), "/run".to_owned())])
        .collect();
    for index in 0..kernels {
        let run = Job {
            line: Some(EVENTS_LINE.into()),
            user_namespace: false,
            share: (index, kernels),
            ..job.run.clone()
        };
        let order = GuestOrder { env: env.clone(), logs: job.run.logs(), order: Order::Run(run) };
        let path = order_path(index);
        File::create(&path)
            .map_err(anyhow::Error::from)
            .and_then(|file| Ok(serde_json::to_writer(file, &order)?))
            .with_context(|| format!("failed to write {path}"))?;
    }
    Ok(())
}

fn order_path(index: usize) -> String {
    format!("{ROOM}/order-{index}.json")
}

/// The console of a kernel, in the folder of the proxies' logs.
fn console(index: usize) -> String {
    match index {
        0 => "kernel.log".to_owned(),
        _ => format!("kernel-{}.log", index + 1),
    }
}

/// One of the kernels, and what listens to it.
struct Kernel {
    index: usize,
    child: Child,
    control: PipeWriter,
    signals: (tokio::signal::unix::Signal, tokio::signal::unix::Signal),
    news: UnboundedReceiver<News>,
    /// Whether it has told anything.
    events: JoinHandle<bool>,
    words: JoinHandle<()>,
    console: JoinHandle<()>,
    /// The last lines of its console.
    seen: Arc<Mutex<VecDeque<String>>>,
    ledger: Arc<Ledger>,
}

/// How one of them ended: the exit code of its harness, and what the log still lacks.
struct Conclusion {
    code: u8,
    event: Option<Event>,
}

impl Kernel {
    fn start(job: &KernelJob, index: usize, ledger: Arc<Ledger>) -> Result<Kernel> {
        // Before anything that could end this process.
        let signals = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let lines = Lines::new()?;
        let child = start(job, index, &lines)?;
        let HostEnds { console: console_line, words, events, control } = lines.host_ends();
        let (tell, news) = unbounded_channel();
        let first = index == 0;
        let told = Arc::clone(&ledger);
        let events = std::thread::spawn(move || take_events(events, &told, first, &tell));
        let words = std::thread::spawn(move || take_words(words));
        let seen = Arc::new(Mutex::new(VecDeque::new()));
        let console = {
            let (seen, path) = (Arc::clone(&seen), job.run.logs().join(console(index)));
            std::thread::spawn(move || take_console(console_line, &path, &seen))
        };
        Ok(Kernel { index, child, control, signals, news, events, words, console, seen, ledger })
    }

    /// Stays with it to its end.
    async fn end(mut self, job: &KernelJob) -> Result<Conclusion> {
        let end =
            attend(&mut self.child, &mut self.control, &mut self.news, &mut self.signals).await?;
        let begun = joined(self.events).await.unwrap_or_default();
        joined(self.words).await;
        joined(self.console).await;
        let seen: Vec<String> =
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect();
        let whole = self.ledger.is_whole();
        conclude(job, self.index, end, (begun, whole), &seen)
    }
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

/// Starts one of the kernels on a CPU of its own.
///
/// It would use several, and be slower: whatever a process in there does is done by one process of
/// this machine, which several of its threads would wait for, and every step from that process to
/// the kernel and back would wake another CPU.
fn start(job: &KernelJob, index: usize, lines: &Lines) -> Result<Child> {
    let console = &lines.console.1;
    let copy = || console.try_clone().context("failed to hand a pipe down to the kernel");
    let number = |end: &dyn AsRawFd| end.as_raw_fd();
    let everywhere = sched_getaffinity(Pid::from_raw(0)).context("failed to read the CPUs")?;
    let mut own = CpuSet::new();
    job.cpus.get(index).map_or(Ok(()), |cpu| own.set(*cpu)).context("failed to choose a CPU")?;
    let stay = |cpus: &CpuSet| {
        sched_setaffinity(Pid::from_raw(0), cpus).context("failed to choose a CPU for a kernel")
    };
    // The kernel inherits it from this thread.
    stay(&own)?;
    let child = Command::new(&job.program)
        .args(["rootfstype=hostfs", "rootflags=/", "ro"])
        .arg(format!("mem={}M", job.memory_mib))
        .arg("seccomp=on")
        // Proxies read the whole table at every sync, and it has room for a namespace's 65536 flows.
        .arg("nf_conntrack.hashsize=8192")
        .args(["con=null", "ssl=null"])
        .arg(format!("con0=null,fd:{}", number(console)))
        .arg(format!("ssl0=fd:{},fd:{}", number(&lines.control.0), number(&lines.events.1)))
        .arg(format!("ssl1=null,fd:{}", number(&lines.words.1)))
        .arg(format!("uml_dir={ROOM}"))
        .arg(format!("init=\"{}\"", job.touchstone.display()))
        .args(["--", GUEST_ARGUMENT])
        .arg(order_path(index))
        .envs([("TMPDIR", ROOM), ("HOME", ROOM)])
        .stdin(Stdio::null())
        .stdout(copy()?)
        .stderr(copy()?)
        // It ends its whole process group when it panics, and a terminal's ^C is not for it.
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    stay(&everywhere)?;
    child.with_context(|| format!("failed to start the kernel {}", job.program.display()))
}

/// Stays with the kernel until it has ended, by itself or killed.
async fn attend(
    child: &mut Child,
    control: &mut PipeWriter,
    news: &mut UnboundedReceiver<News>,
    (interrupt, terminate): &mut (tokio::signal::unix::Signal, tokio::signal::unix::Signal),
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

/// Writes events down as they come; says whether there was any.
fn take_events(
    line: PipeReader,
    ledger: &Ledger,
    first: bool,
    news: &UnboundedSender<News>,
) -> bool {
    let mut begun = false;
    let mut reader = BufReader::new(line);
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.read_until(b'\n', &mut line) {
            Ok(_) if line.last() == Some(&b'\n') => {}
            // A line without an end was cut off by the kernel's death.
            Ok(_) | Err(_) => return begun,
        }
        let Ok(event) = serde_json::from_slice::<RunEvent>(&line) else {
            let text = String::from_utf8_lossy(&line);
            note(&format!("not an event from the second kernel: {}", text.trim_end()));
            continue;
        };
        if let Err(error) = ledger.take(event, first) {
            // Whoever attends is there until this thread ends.
            let _ = news.send(News::Failed(error));
            return begun;
        }
        if !begun {
            begun = true;
            let _ = news.send(News::Begun);
        }
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

/// Says how it ended. It has `begun` where it told anything, and the run is `whole` where the log
/// says how that ended.
fn conclude(
    job: &KernelJob,
    index: usize,
    end: End,
    (begun, whole): (bool, bool),
    console: &[String],
) -> Result<Conclusion> {
    let trouble = trouble::of(console);
    let failed = |event| Ok(Conclusion { code: failed::HARNESS, event });
    match end {
        End::Interrupted(_) if whole => failed(None),
        End::Interrupted(name) => failed(Some(Event::Interrupted { signal: name.to_owned() })),
        End::NotRecorded(error) => Err(anyhow!(error).context(
            "the run was stopped; what was recorded so far is kept, free some space and run again",
        )),
        // What the harness did not say of its end is added outside, as for any other run.
        End::Exited(status) if trouble.is_none() && trouble::switched_off(console) => {
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            Ok(Conclusion { code: code.unwrap_or(failed::HARNESS), event: None })
        }
        End::Exited(status) => {
            let what = if begun { "ended before the run did" } else { "did not begin the run" };
            let what = format!("{what} ({status})");
            failed(Some(error(job, index, &what, trouble, console)))
        }
        End::NeverBegan => {
            let what = format!("did not begin the run within {} s", BOOT_LIMIT.as_secs());
            failed(Some(error(job, index, &what, trouble, console)))
        }
    }
}

/// Why the kernel ended, and what to do about it.
fn error(
    job: &KernelJob,
    index: usize,
    what: &str,
    trouble: Option<Trouble>,
    lines: &[String],
) -> Event {
    let mut message = format!("the kernel {} {what}", job.program.display());
    match trouble {
        Some(trouble) => {
            message.push_str(&format!(": {}; {}", trouble.line, trouble.remedy));
        }
        None => {
            if let Some(last) = lines.iter().rev().find(|line| !line.is_empty()) {
                message.push_str(&format!("; its last words: {last}"));
            }
        }
    }
    let log = job.run.logs().join(console(index));
    message.push_str(&format!(" (its console is in {})", log.display()));
    Event::HarnessError { message }
}
