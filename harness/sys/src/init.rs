//! What PID 1 of the new namespaces does.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, read};

use crate::contain::{Ended, forwarded, sent_by_a_process};
use crate::descriptor::{AdoptError, adopt};

/// First argument of a program that was started as PID 1.
pub(crate) const INIT_ARGUMENT: &str = "__contained-init";

/// Exit status of a PID 1 that could not do its work.
pub const EXIT_INIT_FAILED: u8 = 120;

/// Exit status of a PID 1 that was not allowed to mount `/proc`.
pub const EXIT_PROC_REFUSED: u8 = 121;

/// Why PID 1 gave up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The arguments are not those of [`spawn_contained`](crate::spawn_contained).
    #[error("{INIT_ARGUMENT} is not meant for people: it needs the number of a pipe")]
    Arguments,
    /// The life pipe is not there.
    #[error("failed to take over the life pipe")]
    Life(#[from] AdoptError),
    /// Mounts could not be made private.
    #[error("failed to make the mounts of the new namespace private")]
    Private {
        /// What the kernel said.
        source: io::Error,
    },
    /// A fresh `/proc` was refused, as happens where the existing one is masked.
    #[error(
        "failed to mount a fresh /proc: parts of the existing one are masked, as in a container \
         (to change it: start the container with --security-opt systempaths=unconfined)"
    )]
    ProcRefused {
        /// What the kernel said.
        source: io::Error,
    },
    /// The program could not be started.
    #[error("failed to start the program as PID 2")]
    Start {
        /// What the kernel said.
        source: io::Error,
    },
    /// Signals, the life pipe, or the children could not be watched.
    #[error("failed to watch the program and the life pipe")]
    Watch {
        /// What the kernel said.
        source: io::Error,
    },
}

impl InitError {
    /// The exit status that tells the parent process about it.
    pub fn code(&self) -> u8 {
        match self {
            InitError::ProcRefused { .. } => EXIT_PROC_REFUSED,
            InitError::Arguments
            | InitError::Life(_)
            | InitError::Private { .. }
            | InitError::Start { .. }
            | InitError::Watch { .. } => EXIT_INIT_FAILED,
        }
    }
}

/// The order to be PID 1, read from the arguments of this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitRequest {
    life: RawFd,
    name: OsString,
    arguments: Vec<OsString>,
}

impl InitRequest {
    /// Reads the order; `None` if these are the arguments of an ordinary start.
    ///
    /// `args` is the whole list, the program's name first, as of [`std::env::args_os`].
    ///
    /// # Errors
    ///
    /// The arguments say that this is PID 1, but not with which pipe.
    pub fn from_args(args: impl IntoIterator<Item = OsString>) -> Result<Option<Self>, InitError> {
        let mut args = args.into_iter();
        let name = args.next().unwrap_or_default();
        if args.next().as_deref() != Some(OsStr::new(INIT_ARGUMENT)) {
            return Ok(None);
        }
        let life = args
            .next()
            .and_then(|number| number.to_str()?.parse().ok())
            .ok_or(InitError::Arguments)?;
        Ok(Some(Self { life, name, arguments: args.collect() }))
    }

    /// Is PID 1: prepares mounts, starts this program as PID 2, reaps, passes signals on, and
    /// ends when PID 2 or the process that made it ends.
    ///
    /// Call it before any thread starts, and exit with its status: the exit kills everything
    /// that is left inside.
    ///
    /// Blocks: until the end.
    ///
    /// # Errors
    ///
    /// A step failed; print it and exit with [`InitError::code`].
    pub fn run(self) -> Result<u8, InitError> {
        let life = adopt(self.life)?;
        prepare_mounts()?;
        let mut program = Command::new("/proc/self/exe");
        program.arg0(&self.name).args(&self.arguments);
        attend(program, Above::Life(&life))
    }
}

/// Is PID 1 of a kernel of its own: starts `program`, reaps, passes signals on, and ends when the
/// program does.
///
/// Every byte that comes by `line`, a terminal line in raw mode, is the number of a signal for the
/// program; the line's end ends everything.
/// Call it before any thread starts. What to do with the kernel afterwards is the caller's.
///
/// Blocks: until the end.
///
/// # Errors
///
/// The program could not be started or watched.
pub fn be_init_of_kernel(program: Command, line: &OwnedFd) -> Result<u8, InitError> {
    attend(program, Above::Line(line))
}

/// Whoever started PID 1, as far as PID 1 hears of it.
#[derive(Clone, Copy)]
enum Above<'a> {
    /// A pipe that nobody writes to: its end is the message.
    Life(&'a OwnedFd),
    /// A line whose bytes are signals.
    Line(&'a OwnedFd),
}

/// Starts the program and stays with it until its end.
fn attend(mut program: Command, above: Above<'_>) -> Result<u8, InitError> {
    let watch = |errno: Errno| InitError::Watch { source: errno.into() };
    let mut signals = forwarded();
    signals.add(Signal::SIGCHLD);
    signals.thread_block().map_err(watch)?;
    let signal_fd = open_signals(&signals).map_err(watch)?;
    // A child inherits the mask, and the program must get the signals that PID 1 holds back.
    // Unblocking them here instead would lose one that comes just then.
    let unblock = move || signals.thread_unblock().map_err(io::Error::from);
    #[expect(unsafe_code)]
    // SAFETY: between fork and execve it makes one system call and allocates nothing.
    unsafe {
        program.pre_exec(unblock);
    }
    let program = program.spawn().map_err(|source| InitError::Start { source })?;
    let pid = i32::try_from(program.id())
        .map(Pid::from_raw)
        .map_err(|error| InitError::Watch { source: io::Error::other(error) })?;
    supervise(pid, above, &signal_fd).map_err(watch)
}

fn open_signals(signals: &SigSet) -> nix::Result<SignalFd> {
    SignalFd::with_flags(signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

fn prepare_mounts() -> Result<(), InitError> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(|errno| InitError::Private { source: errno.into() })?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, none)
        .map_err(|errno| InitError::ProcRefused { source: errno.into() })
}

fn supervise(program: Pid, above: Above<'_>, signal_fd: &SignalFd) -> nix::Result<u8> {
    let gone = Ended::Killed(Signal::SIGKILL as i32).code();
    let (Above::Life(heard) | Above::Line(heard)) = above;
    loop {
        let mut ready = [
            PollFd::new(heard.as_fd(), PollFlags::POLLIN),
            PollFd::new(signal_fd.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut ready, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
        let event = ready[0].any().unwrap_or(true);
        match above {
            // Nobody writes into the life pipe: any event means that its writer is gone.
            Above::Life(_) if event => return Ok(gone),
            Above::Line(line) if event => match signals_from(line)? {
                Some(signals) => signals.into_iter().try_for_each(|it| pass_on(program, it))?,
                None => return Ok(gone),
            },
            Above::Life(_) | Above::Line(_) => {}
        }
        while let Some(info) = signal_fd.read_signal()? {
            if info.ssi_signo == Signal::SIGCHLD as u32 {
                continue;
            }
            if let Some(signal) = sent_by_a_process(&info) {
                pass_on(program, signal)?;
            }
        }
        if let Some(ended) = reap_all(program)? {
            return Ok(ended.code());
        }
    }
}

/// Sends the program a signal, unless it has just ended.
fn pass_on(program: Pid, signal: Signal) -> nix::Result<()> {
    match kill(program, signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// The signals that came by a line; `None` at its end. Bytes that name none are left out.
fn signals_from(line: &OwnedFd) -> nix::Result<Option<Vec<Signal>>> {
    let mut bytes = [0; 16];
    match read(line, &mut bytes) {
        Ok(0) | Err(Errno::EIO) => Ok(None),
        Ok(length) => {
            let named = bytes.iter().take(length);
            Ok(Some(named.filter_map(|byte| Signal::try_from(i32::from(*byte)).ok()).collect()))
        }
        Err(Errno::EINTR | Errno::EAGAIN) => Ok(Some(Vec::new())),
        Err(errno) => Err(errno),
    }
}

/// Reaps every child that has ended; tells how `program` did, if it was among them.
fn reap_all(program: Pid) -> nix::Result<Option<Ended>> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(status) => match (status.pid(), Ended::from_status(status)) {
                (Some(pid), Some(ended)) if pid == program => return Ok(Some(ended)),
                (Some(_), _) => {}
                (None, _) => return Ok(None),
            },
            Err(Errno::ECHILD) => return Ok(None),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Option<InitRequest>, InitError> {
        InitRequest::from_args(line.split(' ').map(OsString::from))
    }

    #[test]
    fn only_the_first_argument_makes_an_init() {
        assert_eq!(parse("name run --all").expect("ordinary"), None);
        assert_eq!(parse("name run __contained-init 3").expect("ordinary"), None);
        let request = parse("name __contained-init 3 run --all").expect("init").expect("init");
        assert_eq!((request.life, request.arguments.len()), (3, 2));
    }

    #[test]
    fn an_init_needs_its_pipe() {
        assert!(matches!(parse("name __contained-init"), Err(InitError::Arguments)));
        assert!(matches!(parse("name __contained-init x"), Err(InitError::Arguments)));
    }

    #[test]
    fn bytes_of_a_line_are_signals() {
        let (read, mut write) = io::pipe().expect("a pipe");
        let read = OwnedFd::from(read);
        // 200 is the number of no signal.
        io::Write::write_all(&mut write, &[2, 200, 15]).expect("written");
        let signals = signals_from(&read).expect("readable").expect("not at its end");
        assert_eq!(signals, [Signal::SIGINT, Signal::SIGTERM]);
        drop(write);
        assert_eq!(signals_from(&read).expect("readable"), None);
    }
}
