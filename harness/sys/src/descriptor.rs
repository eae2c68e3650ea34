//! Descriptors handed down by number.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// Why a descriptor could not be taken over.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// Nothing is open under this number.
    #[error("failed to take over descriptor {number}")]
    NotOpen {
        /// The descriptor's number.
        number: RawFd,
        /// What the kernel said.
        source: io::Error,
    },
    /// A descriptor has one owner.
    #[error("descriptor {number} has been taken over before")]
    Taken {
        /// The descriptor's number.
        number: RawFd,
    },
    /// Standard input, output and error belong to the standard library.
    #[error("descriptor {number} is a standard stream and cannot be taken over")]
    Standard {
        /// The descriptor's number.
        number: RawFd,
    },
    /// It was opened by this process itself: it closes on `execve`, so nobody handed it down.
    #[error("descriptor {number} was not handed down by the parent process")]
    OwnedHere {
        /// The descriptor's number.
        number: RawFd,
    },
}

static TAKEN: Mutex<BTreeSet<RawFd>> = Mutex::new(BTreeSet::new());

/// Takes over a descriptor that the parent process handed down by number, once.
///
/// The descriptor will not be inherited further.
///
/// # Errors
///
/// A number that is not open, was taken before, is a standard stream, or was opened by this
/// process (everything Rust opens closes on `execve`, what was handed down does not).
pub fn adopt(number: RawFd) -> Result<OwnedFd, AdoptError> {
    if number < 3 {
        return Err(AdoptError::Standard { number });
    }
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    if taken.contains(&number) {
        return Err(AdoptError::Taken { number });
    }
    #[expect(unsafe_code)]
    // SAFETY: borrowed only for two fcntl calls, which fail with EBADF if nothing is open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    let not_open = |errno: nix::Error| AdoptError::NotOpen { number, source: errno.into() };
    let flags = fcntl(borrowed, FcntlArg::F_GETFD).map_err(not_open)?;
    if FdFlag::from_bits_retain(flags).contains(FdFlag::FD_CLOEXEC) {
        return Err(AdoptError::OwnedHere { number });
    }
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map_err(not_open)?;
    taken.insert(number);
    #[expect(unsafe_code)]
    // SAFETY: the descriptor is open, came over execve and so has no owner in this process, and
    // the set above gives it only one.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn what_this_process_owns_cannot_be_taken() {
        let file = File::open("/dev/null").expect("/dev/null");
        assert!(matches!(adopt(file.as_raw_fd()), Err(AdoptError::OwnedHere { .. })));
        assert!(matches!(adopt(1), Err(AdoptError::Standard { .. })));
        assert!(matches!(adopt(1 << 20), Err(AdoptError::NotOpen { .. })));
    }

    #[test]
    fn a_descriptor_is_taken_once() {
        let file = File::open("/dev/null").expect("/dev/null");
        // What a descriptor from the parent looks like: open and not closed by execve.
        let number = fcntl(&file, FcntlArg::F_DUPFD(100)).expect("duplicate");
        assert!(adopt(number).is_ok());
        assert!(matches!(adopt(number), Err(AdoptError::Taken { .. })));
    }
}
