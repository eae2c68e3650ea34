//! How many cases are under way at a time, as far as the machine keeps up with them.
//!
//! Most of a case is waiting, so that many of them go side by side. Where the machine is slow or
//! has other things to do, more of them at a time get nothing done sooner: they look more often at
//! what is not yet right, and what they see comes too late to say something about the proxy.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::machine::Machine;
use crate::pace::pace;

/// How late the harness may be until no further case is begun: well before losses are in doubt.
const LATE: Duration = Duration::from_millis(100);
/// For how long that counts: what has just begun shows only after a while.
const RECENTLY: Duration = Duration::from_secs(2);
/// Cases under way for which nobody waits, since fewer would leave the machine idle.
const FEW: usize = 12;
/// The same for what is begun on a cluster that is not ready: it only prepares.
const PREPARING: usize = 48;
/// Between two looks, and at least between two cases that begin beside a few others.
const LOOK: Duration = Duration::from_millis(25);

/// The door through which cases begin.
#[derive(Clone)]
pub(crate) struct Crowd {
    machine: Machine,
    late: Duration,
    inside: Arc<AtomicUsize>,
    /// Whoever holds it is next; when the one before was let in.
    next: Arc<Mutex<Option<Instant>>>,
}

/// A case that is under way, until it is dropped.
pub(crate) struct Inside(Arc<AtomicUsize>);

impl Crowd {
    /// On a machine that is so many times slower than an ordinary one.
    pub(crate) fn new(machine: Machine, slowness: u32) -> Crowd {
        Crowd { machine, late: LATE * slowness, inside: Arc::default(), next: Arc::default() }
    }

    /// Waits, in the order of those who ask, until the machine has room for one more, on a cluster
    /// that is ready or not.
    pub(crate) async fn enter(&self, ready: bool) -> Inside {
        let mut last = self.next.lock().await;
        let free = if ready { FEW } else { PREPARING };
        while !self.has_room(free, *last) {
            pace(LOOK).await;
        }
        *last = Some(Instant::now());
        self.inside.fetch_add(1, Ordering::Relaxed);
        Inside(Arc::clone(&self.inside))
    }

    fn has_room(&self, free: usize, last: Option<Instant>) -> bool {
        if self.inside.load(Ordering::Relaxed) < free {
            return true;
        }
        let soon = last.is_some_and(|last| last.elapsed() < LOOK);
        let recently = Instant::now().checked_sub(RECENTLY);
        !soon && recently.is_none_or(|recently| self.machine.worst_since(recently) < self.late)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::time::advance;

    use super::*;

    /// Lets the watch of the machine look.
    async fn watched() {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_machine_has_room_for_a_few() {
        let crowd = Crowd::new(Machine::watch(), 1);
        watched().await;
        advance(LATE * 2).await;
        watched().await;
        let mut inside = Vec::new();
        for _ in 0..FEW {
            inside.push(crowd.enter(true).now_or_never().expect("nobody waits for the first"));
        }
        let late = Instant::now();
        let one_more = crowd.enter(true).await;
        assert!(late.elapsed() >= RECENTLY - LOOK, "{:?}", late.elapsed());
        drop(one_more);
        // Whoever leaves makes room, late or not.
        advance(LATE * 2).await;
        watched().await;
        drop(inside.pop());
        assert!(crowd.enter(true).now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_in_time_has_room_for_one_after_the_other() {
        let crowd = Crowd::new(Machine::watch(), 1);
        let began = Instant::now();
        let mut inside = Vec::new();
        for _ in 0..PREPARING {
            inside.push(crowd.enter(false).now_or_never().expect("they only prepare"));
        }
        for _ in 0..8 {
            inside.push(crowd.enter(true).await);
        }
        assert!(began.elapsed() >= LOOK * 8, "{:?}", began.elapsed());
        assert!(began.elapsed() <= LOOK * 9, "{:?}", began.elapsed());
    }
}
