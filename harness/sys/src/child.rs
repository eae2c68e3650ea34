//! What the new process does between `clone` and `execve`.
//!
//! It is a copy of one thread of a possibly threaded program, so it may only make system calls:
//! no allocation, no lock, no panic.
//! Everything it needs is prepared by the parent in a [`Plan`].

use std::ffi::{CStr, CString};
use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::ptr;

/// A step of the new process before it runs the program again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Act {
    /// Create the process together with its namespaces.
    Clone,
    /// Write `deny` to `/proc/self/setgroups`, without which the kernel refuses the group map.
    DenySetgroups,
    /// Write `/proc/self/uid_map`.
    MapUser,
    /// Write `/proc/self/gid_map`.
    MapGroup,
    /// Let a descriptor survive `execve`.
    KeepDescriptor,
    /// Run `/proc/self/exe`.
    Execute,
}

impl Act {
    const ALL: [Act; 6] = [
        Act::Clone,
        Act::DenySetgroups,
        Act::MapUser,
        Act::MapGroup,
        Act::KeepDescriptor,
        Act::Execute,
    ];

    fn number(self) -> u8 {
        match self {
            Act::Clone => 0,
            Act::DenySetgroups => 1,
            Act::MapUser => 2,
            Act::MapGroup => 3,
            Act::KeepDescriptor => 4,
            Act::Execute => 5,
        }
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Act::Clone => "create a process in new namespaces",
            Act::DenySetgroups => "write deny to /proc/self/setgroups in the new user namespace",
            Act::MapUser => "write /proc/self/uid_map in the new user namespace",
            Act::MapGroup => "write /proc/self/gid_map in the new user namespace",
            Act::KeepDescriptor => "hand a descriptor down to the new process",
            Act::Execute => "run /proc/self/exe in the new namespaces",
        })
    }
}

/// Length of a report: the act's number, then errno.
pub(crate) const REPORT: usize = 5;

/// Reads what [`become_init`] wrote; `None` for bytes it cannot have written.
pub(crate) fn parse_report(bytes: [u8; REPORT]) -> Option<(Act, io::Error)> {
    let [number, errno @ ..] = bytes;
    let act = Act::ALL.into_iter().find(|act| act.number() == number)?;
    Some((act, io::Error::from_raw_os_error(i32::from_ne_bytes(errno))))
}

fn report_bytes(act: Act, errno: i32) -> [u8; REPORT] {
    let [a, b, c, d] = errno.to_ne_bytes();
    [act.number(), a, b, c, d]
}

/// The single identity that a new user namespace maps to 0.
pub(crate) struct Identity {
    pub(crate) user: Vec<u8>,
    pub(crate) group: Vec<u8>,
}

/// A null-terminated array of C strings, as `execve` takes it.
pub(crate) struct StringArray {
    pointers: Vec<*const libc::c_char>,
    // Owns what the pointers point to; moving the vector does not move the strings.
    _strings: Vec<CString>,
}

impl StringArray {
    pub(crate) fn new(strings: Vec<CString>) -> Self {
        let pointers = strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect();
        Self { pointers, _strings: strings }
    }
}

/// Everything the new process needs, allocated beforehand.
pub(crate) struct Plan {
    pub(crate) argv: StringArray,
    pub(crate) env: StringArray,
    /// `None`: stay in the caller's user namespace.
    pub(crate) identity: Option<Identity>,
    /// Descriptors that survive `execve`, the life pipe's read end among them.
    pub(crate) keep: Vec<RawFd>,
    /// Where a failure is reported; closed by `execve`.
    pub(crate) report: RawFd,
}

/// Runs the program again; reports to the parent and exits if that fails.
///
/// Only for the child of a fork-like clone: it never returns and it ends the process.
pub(crate) fn become_init(plan: &Plan) -> ! {
    let (act, errno) = match steps(plan) {
        Err(failure) => failure,
        Ok(()) => (Act::Execute, execute(plan)),
    };
    let report = report_bytes(act, errno);
    #[expect(unsafe_code)]
    // SAFETY: the buffer outlives the call; _exit ends only this process, which has one thread,
    // and runs no destructor of the memory copied from the parent.
    unsafe {
        libc::write(plan.report, report.as_ptr().cast(), report.len());
        libc::_exit(127)
    }
}

fn steps(plan: &Plan) -> Result<(), (Act, i32)> {
    if let Some(identity) = &plan.identity {
        write_file(c"/proc/self/setgroups", b"deny").map_err(|e| (Act::DenySetgroups, e))?;
        write_file(c"/proc/self/uid_map", &identity.user).map_err(|e| (Act::MapUser, e))?;
        write_file(c"/proc/self/gid_map", &identity.group).map_err(|e| (Act::MapGroup, e))?;
    }
    for &fd in &plan.keep {
        #[expect(unsafe_code)]
        // SAFETY: changes a flag of a descriptor in this process's own table.
        let result = unsafe { libc::fcntl(fd, libc::F_SETFD, 0) };
        if result < 0 {
            return Err((Act::KeepDescriptor, errno()));
        }
    }
    Ok(())
}

fn execute(plan: &Plan) -> i32 {
    #[expect(unsafe_code)]
    // SAFETY: both arrays end with a null pointer and point to strings that `plan` owns.
    unsafe {
        libc::execve(
            c"/proc/self/exe".as_ptr(),
            plan.argv.pointers.as_ptr(),
            plan.env.pointers.as_ptr(),
        );
    }
    errno()
}

fn write_file(path: &CStr, content: &[u8]) -> Result<(), i32> {
    #[expect(unsafe_code)]
    // SAFETY: the path ends with a null byte, the buffer is as long as stated, and the
    // descriptor is this function's own.
    unsafe {
        let fd = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if fd < 0 {
            return Err(errno());
        }
        let written = libc::write(fd, content.as_ptr().cast(), content.len());
        let result = if written < 0 { Err(errno()) } else { Ok(()) };
        libc::close(fd);
        result
    }
}

/// errno of this thread; reading it neither allocates nor locks.
fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_the_act_and_the_errno() {
        for act in Act::ALL {
            let (read, source) = parse_report(report_bytes(act, libc::EPERM)).expect("readable");
            assert_eq!((read, source.raw_os_error()), (act, Some(libc::EPERM)));
        }
        assert!(parse_report([99, 0, 0, 0, 0]).is_none());
    }
}
