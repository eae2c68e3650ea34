//! Programs that do not outlive whoever started them.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Has the program that this command starts end by SIGTERM when the thread that starts it ends,
/// as it does when this process is killed.
///
/// The thread must live until the program has ended; what the program itself starts is not told.
/// Source: prctl(2), `PR_SET_PDEATHSIG`.
pub fn dies_with_its_starter(command: &mut Command) {
    let starter = std::process::id();
    let ask = move || {
        #[expect(unsafe_code)]
        // SAFETY: changes an attribute of this process alone, and asks for a number.
        let (refused, parent) =
            unsafe { (libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) != 0, libc::getppid()) };
        if refused {
            return Err(io::Error::last_os_error());
        }
        // Whoever was killed before this was asked for sends nothing any more.
        match u32::try_from(parent) {
            Ok(parent) if parent == starter => Ok(()),
            Ok(_) | Err(_) => Err(io::Error::from_raw_os_error(libc::ESRCH)),
        }
    };
    #[expect(unsafe_code)]
    // SAFETY: between fork and exec only system calls are made; no error of these kinds allocates.
    unsafe {
        command.pre_exec(ask);
    }
}
