//! Starts the built program, waits for it with a limit, and reads what it left.
//!
//! Every run gets a mark in its environment, which all processes of the run inherit, so that a
//! test finds its own processes and no others.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;
use touchstone_stand_in::stand_in;

/// The longest that any run of these tests may take.
pub(crate) const RUN_LIMIT: Duration = Duration::from_secs(150);

/// How soon after a run's end nothing of it may be left; the kernel needs milliseconds.
pub(crate) const GONE_LIMIT: Duration = Duration::from_secs(20);

/// Labs that are open at a time: most of the time a lab waits, for a proxy or for a limit.
const LABS: usize = 3;

/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(10);

/// Variable that marks the processes of a run.
const MARK: &str = "TOUCHSTONE_TEST_RUN";

/// Waits until `look` finds something.
///
/// # Panics
/// When it finds nothing within `limit`.
pub(crate) fn eventually<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::park_timeout(LOOK);
    }
}

/// Scatters numbers over all numbers (splitmix64).
pub(crate) fn scattered(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

static OPEN: Mutex<usize> = Mutex::new(0);
static CLOSED: Condvar = Condvar::new();

/// The right to have a lab open; waits while as many are open as the machine should bear.
pub(crate) struct LabTurn(());

impl LabTurn {
    pub(crate) fn take() -> LabTurn {
        let open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut open: MutexGuard<'_, usize> =
            CLOSED.wait_while(open, |open| *open >= LABS).unwrap_or_else(PoisonError::into_inner);
        *open += 1;
        LabTurn(())
    }
}

impl Drop for LabTurn {
    fn drop(&mut self) {
        *OPEN.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        CLOSED.notify_one();
    }
}

/// A folder for one test, which every user may look into, and the mark of its processes.
pub(crate) struct Bench {
    folder: TempDir,
    mark: String,
}

impl Bench {
    pub(crate) fn new() -> Bench {
        let folder = tempfile::Builder::new()
            .prefix("touchstone-test-")
            .tempdir()
            .expect("a temporary folder can be made");
        let mark = folder.path().display().to_string();
        Bench { folder, mark }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The `--out` of the run.
    pub(crate) fn out(&self) -> PathBuf {
        self.path("out")
    }

    /// Writes a file, with the folders that lead to it.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        let parent = path.parent().expect("it is below the folder");
        fs::create_dir_all(parent).expect("a folder can be made");
        fs::write(&path, text).expect("a file can be written");
        path
    }

    /// Writes a program, with the folders that lead to it.
    pub(crate) fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        let parent = path.parent().expect("it is below the folder");
        fs::create_dir_all(parent).expect("a folder can be made");
        stand_in(&path, text, "755").expect("a program can be written");
        path
    }

    /// The program with arguments.
    pub(crate) fn touchstone(&self, args: &[&str]) -> Command {
        self.command(env!("CARGO_BIN_EXE_touchstone"), args)
    }

    /// Any program, marked, in the test's folder.
    pub(crate) fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).env(MARK, &self.mark).current_dir(self.folder.path());
        command
    }

    /// `touchstone run` into [`Bench::out`], to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Done {
        self.start_run(args).finish(RUN_LIMIT)
    }

    /// Starts `touchstone run` into [`Bench::out`].
    pub(crate) fn start_run(&self, args: &[&str]) -> Running {
        let out = self.out();
        let mut all = vec!["run", "--out", out.to_str().expect("the path is text")];
        all.extend(args);
        Running::start(self.touchstone(&all))
    }

    /// `touchstone` with any arguments, to its end.
    pub(crate) fn call(&self, args: &[&str]) -> Done {
        Running::start(self.touchstone(args)).finish(RUN_LIMIT)
    }

    /// The run's `report.json`.
    pub(crate) fn report(&self) -> Report {
        Report::read(&self.out())
    }

    /// The events that were written so far; a torn last line is not one.
    pub(crate) fn events(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.out().join("events.jsonl")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits for the first event of a kind.
    pub(crate) fn event(&self, kind: &str) -> Value {
        eventually(&format!("the event {kind}"), RUN_LIMIT, || {
            self.events().into_iter().find(|event| event["event"] == kind)
        })
    }

    /// The processes of this test that live, whatever they are.
    pub(crate) fn processes(&self) -> Vec<Process> {
        living().filter(|process| process.mark.as_deref() == Some(&self.mark)).collect()
    }

    /// Waits for a process of the run that plays this part.
    pub(crate) fn process(&self, part: Part) -> Process {
        eventually(&format!("{part:?} of the run"), RUN_LIMIT, || {
            self.processes().into_iter().find(|process| process.plays(part))
        })
    }

    /// Fails when a process of this test is left, or one that lives in `namespaces`.
    ///
    /// The kernel gives the number of a namespace that is gone to the next one, which may be
    /// another test's: processes with another test's mark are not meant.
    pub(crate) fn nothing_is_left(&self, namespaces: &BTreeSet<String>) {
        let began = Instant::now();
        loop {
            let left: Vec<Process> = living()
                .filter(|process| match &process.mark {
                    Some(mark) => *mark == self.mark,
                    None => !namespaces_of(process.pid).is_disjoint(namespaces),
                })
                .collect();
            if left.is_empty() {
                return;
            }
            assert!(began.elapsed() < GONE_LIMIT, "left after {GONE_LIMIT:?}: {left:#?}");
            std::thread::park_timeout(LOOK);
        }
    }

    /// The namespaces that processes of this test live in and this process does not.
    pub(crate) fn namespaces(&self) -> BTreeSet<String> {
        let own = namespaces_of(i32::try_from(std::process::id()).expect("a process number"));
        let all: BTreeSet<String> =
            self.processes().iter().flat_map(|process| namespaces_of(process.pid)).collect();
        all.difference(&own).cloned().collect()
    }
}

/// What a process is in the chain of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// The person's own process.
    Outside,
    /// PID 1 of the namespaces.
    Init,
    /// The harness inside.
    Harness,
    /// A kube-proxy.
    Proxy,
}

/// A living process.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) argv: Vec<String>,
    /// The mark of the test that it belongs to.
    mark: Option<String>,
}

impl Process {
    pub(crate) fn plays(&self, part: Part) -> bool {
        let first = self.argv.get(1).map_or("", String::as_str);
        match part {
            Part::Outside => first == "run" || first == "lab",
            Part::Init => first == "__contained-init",
            Part::Harness => first == "__harness",
            Part::Proxy => first.starts_with("--config=/run/touchstone/"),
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        signal_to(self.pid, signal);
    }
}

/// Sends a signal; the process may have ended just now.
fn signal_to(pid: i32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid), signal);
}

/// Every process that can be read now.
fn living() -> impl Iterator<Item = Process> {
    let words = |file: String| {
        let bytes = fs::read(file).ok()?;
        let words = bytes.split(|byte| *byte == 0);
        Some(words.map(|word| String::from_utf8_lossy(word).into_owned()).collect::<Vec<_>>())
    };
    numbers("/proc").into_iter().filter_map(move |pid| {
        let argv = words(format!("/proc/{pid}/cmdline"))?;
        let environment = words(format!("/proc/{pid}/environ")).unwrap_or_default();
        let mark = environment.iter().find_map(|one| one.strip_prefix(MARK)?.strip_prefix('='));
        Some(Process { pid, argv, mark: mark.map(str::to_owned) })
    })
}

fn numbers(folder: &str) -> Vec<i32> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Namespaces of all threads of a process, as `net:[4026531840]`.
fn namespaces_of(pid: i32) -> BTreeSet<String> {
    let tasks = numbers(&format!("/proc/{pid}/task"));
    let links = tasks.iter().flat_map(|task| {
        ["net", "mnt", "pid", "user", "uts", "ipc"]
            .map(|kind| fs::read_link(format!("/proc/{pid}/task/{task}/ns/{kind}")))
    });
    links.flatten().map(|link| link.display().to_string()).collect()
}

/// A program that was started; killed when it is dropped.
pub(crate) struct Running {
    child: Child,
    status: Option<ExitStatus>,
    stdout: Option<JoinHandle<String>>,
    stderr: Option<JoinHandle<String>>,
    shown: String,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Running {
        let shown = format!("{command:?}");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{shown}: {error}"));
        let stdout = child.stdout.take().map(reader);
        let stderr = child.stderr.take().map(reader);
        Running { child, status: None, stdout, stderr, shown }
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a process number")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        signal_to(self.pid(), signal);
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("the child can be waited for");
        }
        self.status.is_some()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it has not ended within `limit`.
    pub(crate) fn finish(mut self, limit: Duration) -> Done {
        let began = Instant::now();
        while !self.has_ended() {
            if began.elapsed() > limit {
                self.kill();
                let (stdout, stderr) = self.said();
                panic!("{} has not ended within {limit:?}\n{stdout}\n{stderr}", self.shown);
            }
            std::thread::park_timeout(LOOK);
        }
        let (stdout, stderr) = self.said();
        let status = self.status.expect("it has ended");
        Done { status, stdout, stderr, shown: self.shown.clone() }
    }

    fn said(&mut self) -> (String, String) {
        let text = |reader: &mut Option<JoinHandle<String>>| {
            reader.take().and_then(|reader| reader.join().ok()).unwrap_or_default()
        };
        (text(&mut self.stdout), text(&mut self.stderr))
    }

    fn kill(&mut self) {
        // It may have ended just now.
        let _ = self.child.kill();
        self.status = self.child.wait().ok();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.status.is_none() {
            self.kill();
        }
    }
}

fn reader(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What could be read until an error is what was said.
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// A program that has ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    shown: String,
}

impl Done {
    /// Fails unless it ended with this exit code.
    #[track_caller]
    pub(crate) fn code(&self, code: i32) -> &Done {
        assert_eq!(self.status.code(), Some(code), "{self}");
        self
    }

    /// Fails unless every one of the texts is in what it said to standard error.
    #[track_caller]
    pub(crate) fn complains(&self, texts: &[&str]) -> &Done {
        for text in texts {
            assert!(unwrapped(&self.stderr).contains(text), "no {text:?} in\n{self}");
        }
        self
    }

    /// Fails unless every one of the texts is in what it said to standard output.
    #[track_caller]
    pub(crate) fn says(&self, texts: &[&str]) -> &Done {
        for text in texts {
            assert!(unwrapped(&self.stdout).contains(text), "no {text:?} in\n{self}");
        }
        self
    }

    pub(crate) fn signal(&self) -> Option<i32> {
        self.status.signal()
    }
}

/// Text in one line, so that a sentence is found wherever it was wrapped.
fn unwrapped(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Done { status, stdout, stderr, shown } = self;
        write!(f, "{shown}: {status}\n--- output\n{stdout}\n--- errors\n{stderr}")
    }
}

/// A `report.json`.
#[derive(Debug, Clone)]
pub(crate) struct Report(pub(crate) Value);

impl Report {
    pub(crate) fn read(out: &Path) -> Report {
        let path = out.join("report.json");
        let text = fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{} cannot be read: {error}", path.display()));
        Report(serde_json::from_str(&text).expect("report.json is JSON"))
    }

    pub(crate) fn results(&self) -> &[Value] {
        list(&self.0["results"])
    }

    /// The result of a case with its axes.
    #[track_caller]
    pub(crate) fn result(&self, case: &str) -> &Value {
        self.results()
            .iter()
            .find(|result| result["case"] == case)
            .unwrap_or_else(|| panic!("the report has no result of {case}:\n{}", self.verdicts()))
    }

    #[track_caller]
    pub(crate) fn verdict(&self, case: &str) -> &str {
        self.result(case)["verdict"].as_str().expect("a verdict is a word")
    }

    /// Fails unless the case has this verdict.
    #[track_caller]
    pub(crate) fn expect(&self, case: &str, verdict: &str) -> &Report {
        assert_eq!(self.verdict(case), verdict, "{case}: {:#}", self.result(case));
        self
    }

    /// What was wrong in a case.
    #[track_caller]
    pub(crate) fn failures(&self, case: &str) -> Vec<Failure> {
        list(&self.result(case)["failures"])
            .iter()
            .map(|failure| Failure {
                flow: text(&failure["flow"]),
                pinned: failure["line"].is_u64(),
                allowed: texts(&failure["allowed"]),
                because: texts(&failure["because"]),
                seen: texts(&failure["seen"]),
                evidence: texts(&failure["evidence"]),
            })
            .collect()
    }

    /// A verdict per line.
    pub(crate) fn verdicts(&self) -> String {
        let lines = self.results().iter().map(|result| {
            format!("{} {}: {}\n", text(&result["verdict"]), text(&result["case"]), result["note"])
        });
        lines.collect()
    }
}

/// One flow that went wrong, in the words of the report.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) flow: String,
    pub(crate) pinned: bool,
    pub(crate) allowed: Vec<String>,
    pub(crate) because: Vec<String>,
    pub(crate) seen: Vec<String>,
    pub(crate) evidence: Vec<String>,
}

pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn texts(value: &Value) -> Vec<String> {
    list(value).iter().map(text).collect()
}
