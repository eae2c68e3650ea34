//! Where the harness goes before others, the programs that it starts do not.

use rustix::process::{getpriority_process, setpriority_process};

/// Starts something from this thread, which has the ordinary priority meanwhile: a child has that
/// of the thread that makes it.
///
/// On a second kernel the harness goes first, so that it is not late to see what a proxy does. An
/// ordinary user's harness goes before nobody, and nothing changes.
pub(super) fn ordinary<T>(start: impl FnOnce() -> T) -> T {
    let own = getpriority_process(None).unwrap_or(0);
    if own >= 0 {
        return start();
    }
    // Whoever may go before others may also step back, and forward again.
    let _ = setpriority_process(None, 0);
    let started = start();
    let _ = setpriority_process(None, own);
    started
}
