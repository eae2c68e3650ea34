//! Start this program again as PID 1 of new namespaces.

use std::ffi::{CString, OsStr, OsString};
use std::fmt;
use std::io::{self, PipeWriter, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, getegid, geteuid};

use crate::child::{Act, Identity, Plan, REPORT, StringArray, become_init, parse_report};
use crate::forbidden::Switch;
use crate::init::INIT_ARGUMENT;

/// Whether the new process gets a user namespace of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum UserNamespace {
    /// A new one in which the caller's identity is root; works without privileges.
    New,
    /// The caller's; needs `CAP_SYS_ADMIN`.
    Keep,
}

/// Why the new process could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ContainError {
    /// A C string cannot hold it.
    #[error("argument or variable {text:?} contains a null byte")]
    NullByte {
        /// The text in question.
        text: OsString,
    },
    /// There must be at least the program's name.
    #[error("the arguments of the contained program are empty")]
    NoArguments,
    /// A pipe between the two processes, or the signal mask.
    #[error("failed to prepare the start of a contained process")]
    Prepare {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The kernel refused a step.
    #[error("failed to {act}{}", Because(switches))]
    Refused {
        /// The step.
        act: Act,
        /// What the kernel said.
        #[source]
        source: io::Error,
        /// Settings of this machine that forbid namespaces; empty if the refusal has another
        /// cause.
        switches: Vec<Switch>,
    },
}

struct Because<'a>(&'a [Switch]);

impl fmt::Display for Because<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, switch) in self.0.iter().enumerate() {
            f.write_str(if number == 0 { ", likely since " } else { " and " })?;
            write!(f, "{switch} (to change it: {})", switch.remedy())?;
        }
        Ok(())
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ended {
    /// It exited with this status.
    Exited(u8),
    /// This signal killed it.
    Killed(i32),
}

impl Ended {
    /// The status a shell would show: 128 and the signal's number for a killed process.
    pub fn code(self) -> u8 {
        match self {
            Ended::Exited(code) => code,
            Ended::Killed(signal) => u8::try_from(128 + signal).unwrap_or(u8::MAX),
        }
    }

    /// `None` if the process has not ended.
    pub(crate) fn from_status(status: WaitStatus) -> Option<Self> {
        match status {
            // The kernel keeps only the low byte.
            WaitStatus::Exited(_, code) => Some(Ended::Exited((code & 0xff) as u8)),
            WaitStatus::Signaled(_, signal, _) => Some(Ended::Killed(signal as i32)),
            WaitStatus::Stopped(..)
            | WaitStatus::PtraceEvent(..)
            | WaitStatus::PtraceSyscall(_)
            | WaitStatus::Continued(_)
            | WaitStatus::StillAlive => None,
        }
    }
}

/// A process that is PID 1 of its own namespaces, and with it everything inside.
///
/// Invariant: when this value is dropped, or this process dies in whatever way, everything
/// inside is killed by the kernel.
/// [`AsFd`] gives a pidfd, which is readable when the process has ended.
#[derive(Debug)]
pub struct Contained {
    pid: Pid,
    pidfd: OwnedFd,
    ended: Option<Ended>,
    // Never written: that its other end sees this one close is the message.
    _life: PipeWriter,
}

impl Contained {
    /// The process's number in this process's PID namespace.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Waits for the end.
    ///
    /// Blocks: until PID 1 and with it every process inside has ended.
    ///
    /// # Errors
    ///
    /// What the kernel said.
    pub fn wait(&mut self) -> io::Result<Ended> {
        loop {
            if let Some(ended) = self.reap(WaitPidFlag::empty())? {
                return Ok(ended);
            }
        }
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    ///
    /// What the kernel said.
    pub fn try_wait(&mut self) -> io::Result<Option<Ended>> {
        self.reap(WaitPidFlag::WNOHANG)
    }

    fn reap(&mut self, flags: WaitPidFlag) -> io::Result<Option<Ended>> {
        if self.ended.is_none() {
            match waitid(Id::PIDFd(self.pidfd.as_fd()), WaitPidFlag::WEXITED | flags) {
                Ok(status) => self.ended = Ended::from_status(status),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(self.ended)
    }

    /// Sends a signal to PID 1, which passes SIGINT, SIGTERM and SIGHUP on to the program.
    ///
    /// # Errors
    ///
    /// What the kernel said; nothing happens if the process has been waited for.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        if self.ended.is_some() {
            return Ok(());
        }
        Ok(kill(self.pid, signal)?)
    }

    /// Waits for the end and passes SIGINT, SIGTERM and SIGHUP on meanwhile.
    ///
    /// A signal from the terminal reaches the whole process group by itself and is not passed
    /// on, so that the program inside gets it once.
    /// Only for a process with one thread: others would take the signals.
    ///
    /// Blocks: until every process inside has ended.
    ///
    /// # Errors
    ///
    /// What the kernel said.
    pub fn wait_forwarding(&mut self) -> io::Result<Ended> {
        let signals = forwarded();
        signals.thread_block()?;
        let signal_fd =
            SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let ended = self.forward_until_ended(&signal_fd);
        signals.thread_unblock()?;
        ended
    }

    fn forward_until_ended(&mut self, signal_fd: &SignalFd) -> io::Result<Ended> {
        loop {
            let mut ready = [
                PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN),
                PollFd::new(signal_fd.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut ready, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            while let Some(info) = signal_fd.read_signal()? {
                if let Some(signal) = sent_by_a_process(&info) {
                    self.signal(signal)?;
                }
            }
            if let Some(ended) = self.try_wait()? {
                return Ok(ended);
            }
        }
    }
}

impl AsFd for Contained {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Drop for Contained {
    fn drop(&mut self) {
        // Nothing can be done about a failure here: either the process has ended before, or the
        // life pipe, which closes next, ends it.
        if self.ended.is_none() && kill(self.pid, Signal::SIGKILL).is_ok() {
            let _ = self.wait();
        }
    }
}

/// The signals that travel from the user to the program.
pub(crate) fn forwarded() -> SigSet {
    SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP])
}

/// The signal, unless the kernel itself sent it, as a terminal does on ^C, to the whole group.
pub(crate) fn sent_by_a_process(info: &nix::sys::signalfd::siginfo) -> Option<Signal> {
    if info.ssi_code == libc::SI_KERNEL {
        return None;
    }
    i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok())
}

/// Starts this program again as PID 1 of new mount, PID, network, UTS and IPC namespaces, and of
/// a new user namespace if asked.
///
/// `argv` is the argument list that the *program* (PID 2) will see, its name first; `env` is its
/// whole environment.
/// The program's `main` must hand its arguments to [`InitRequest::from_args`] first.
/// `keep` are descriptors that the program finds open under the same numbers, see
/// [`adopt`](crate::adopt).
///
/// SIGINT, SIGTERM, SIGHUP and SIGCHLD are blocked in the new process from its first moment on,
/// so that none is lost before it is ready for them.
///
/// # Errors
///
/// A null byte in a text, or a step that the kernel refused; the error names the settings of
/// this machine that forbid it.
///
/// [`InitRequest::from_args`]: crate::InitRequest::from_args
pub fn spawn_contained(
    argv: &[OsString],
    env: &[(OsString, OsString)],
    user: UserNamespace,
    keep: &[BorrowedFd<'_>],
) -> Result<Contained, ContainError> {
    let prepare = |source: io::Error| ContainError::Prepare { source };
    let (name, rest) = argv.split_first().ok_or(ContainError::NoArguments)?;
    let (life_read, life_write) = io::pipe().map_err(prepare)?;
    let (mut report_read, report_write) = io::pipe().map_err(prepare)?;

    let life_number = OsString::from(life_read.as_raw_fd().to_string());
    let init_argv = [name.as_os_str(), OsStr::new(INIT_ARGUMENT), &life_number];
    let all_argv = init_argv.into_iter().chain(rest.iter().map(OsString::as_os_str));
    let mut keep: Vec<RawFd> = keep.iter().map(AsRawFd::as_raw_fd).collect();
    keep.push(life_read.as_raw_fd());
    let plan = Plan {
        argv: StringArray::new(all_argv.map(c_string).collect::<Result<_, _>>()?),
        env: StringArray::new(env.iter().map(variable).collect::<Result<_, _>>()?),
        identity: match user {
            UserNamespace::New => Some(Identity {
                user: format!("0 {} 1\n", geteuid()).into_bytes(),
                group: format!("0 {} 1\n", getegid()).into_bytes(),
            }),
            UserNamespace::Keep => None,
        },
        keep,
        report: report_write.as_raw_fd(),
    };

    let mut blocked = forwarded();
    blocked.add(Signal::SIGCHLD);
    let before =
        blocked.thread_swap_mask(SigmaskHow::SIG_BLOCK).map_err(|errno| prepare(errno.into()))?;
    let cloned = clone_into(&plan, user);
    before.thread_set_mask().map_err(|errno| prepare(errno.into()))?;
    let (pid, pidfd) = cloned.map_err(|source| refused(Act::Clone, source))?;
    let mut contained = Contained { pid, pidfd, ended: None, _life: life_write };
    drop((life_read, report_write));

    let mut report = [0; REPORT];
    match report_read.read_exact(&mut report) {
        // Closed by execve: the program runs.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(contained),
        Err(error) => Err(prepare(error)),
        Ok(()) => {
            contained.wait().map_err(prepare)?;
            let (act, source) = parse_report(report)
                .unwrap_or_else(|| (Act::Execute, io::Error::other("unreadable report")));
            Err(refused(act, source))
        }
    }
}

fn refused(act: Act, source: io::Error) -> ContainError {
    let by_a_switch = matches!(
        source.raw_os_error(),
        Some(libc::EPERM | libc::EACCES | libc::ENOSPC | libc::EUSERS | libc::ENOSYS)
    );
    let switches = if by_a_switch { Switch::found() } else { Vec::new() };
    ContainError::Refused { act, source, switches }
}

fn c_string(text: &OsStr) -> Result<CString, ContainError> {
    CString::new(text.as_bytes()).map_err(|_| ContainError::NullByte { text: text.to_owned() })
}

fn variable((name, value): &(OsString, OsString)) -> Result<CString, ContainError> {
    let mut text = name.clone();
    text.push("=");
    text.push(value);
    c_string(&text)
}

/// Makes the process; in the child it does not return.
fn clone_into(plan: &Plan, user: UserNamespace) -> io::Result<(Pid, OwnedFd)> {
    let mut flags = libc::SIGCHLD
        | libc::CLONE_PIDFD
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC;
    match user {
        UserNamespace::New => flags |= libc::CLONE_NEWUSER,
        UserNamespace::Keep => {}
    }
    let mut pidfd: libc::c_int = -1;
    let none: libc::c_long = 0;
    // clone3 would be clearer, but the filters of container runtimes refuse it.
    #[expect(unsafe_code)]
    // SAFETY: without CLONE_VM and without a stack the child is a copy, as after fork; it runs
    // only become_init, which makes nothing but system calls and never returns.
    // With CLONE_PIDFD the kernel stores the descriptor where the third argument points; the
    // arguments after it are unused, so their order, which differs by architecture, is no matter.
    let pid = unsafe {
        let pid = libc::syscall(
            libc::SYS_clone,
            libc::c_long::from(flags),
            none,
            &raw mut pidfd,
            none,
            none,
        );
        if pid == 0 {
            become_init(plan);
        }
        pid
    };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    let pid = i32::try_from(pid).map_err(io::Error::other)?;
    #[expect(unsafe_code)]
    // SAFETY: the kernel made the descriptor for this call, so nobody else owns it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok((Pid::from_raw(pid), pidfd))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_with_a_null_byte_are_refused() {
        let argv = [OsString::from("name"), OsString::from("a\0b")];
        let error = spawn_contained(&argv, &[], UserNamespace::New, &[]).expect_err("refused");
        assert_eq!(error.to_string(), r#"argument or variable "a\0b" contains a null byte"#);
        let error = spawn_contained(&[], &[], UserNamespace::New, &[]).expect_err("refused");
        assert_eq!(error.to_string(), "the arguments of the contained program are empty");
    }

    #[test]
    fn a_refusal_names_its_switch() {
        let error = ContainError::Refused {
            act: Act::MapUser,
            source: io::Error::from_raw_os_error(libc::EPERM),
            switches: vec![Switch::AppArmor],
        };
        assert_eq!(
            error.to_string(),
            "failed to write /proc/self/uid_map in the new user namespace, likely since \
             kernel.apparmor_restrict_unprivileged_userns is 1 (to change it: sysctl -w \
             kernel.apparmor_restrict_unprivileged_userns=0)"
        );
    }

    #[test]
    fn an_end_has_the_status_of_a_shell() {
        assert_eq!(Ended::Exited(3).code(), 3);
        assert_eq!(Ended::Killed(9).code(), 137);
    }
}
