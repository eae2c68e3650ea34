//! How late the harness itself is: on a machine without time to spare, lost and late answers are
//! ours as likely as the proxy's (decision 0014).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use crate::ground::Ground;

/// Between two looks at the clock.
pub(crate) const TICK: Duration = Duration::from_millis(20);
/// How late one of them must be to be remembered.
const NOTED: Duration = Duration::from_millis(50);
/// How late one of them must be for lost answers to be in doubt.
const STARVED: Duration = Duration::from_millis(400);
/// What part of the time it must have been late, one in so many, for what never became right to be
/// in doubt.
const MOSTLY: u32 = 3;
/// How many late looks are remembered.
const KEPT: usize = 10_000;

/// Watches for as long as it lives.
#[derive(Clone)]
pub(crate) struct Machine {
    late: Arc<Mutex<VecDeque<(Instant, Duration)>>>,
}

impl Machine {
    /// Begins to watch.
    pub(crate) fn watch() -> Machine {
        let machine = Machine { late: Arc::default() };
        let late = Arc::downgrade(&machine.late);
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(TICK);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                let due = ticks.tick().await;
                let by = due.elapsed();
                let Some(late) = late.upgrade() else { break };
                if by >= NOTED {
                    let mut late = late.lock().unwrap_or_else(PoisonError::into_inner);
                    late.push_back((due + by, by));
                    if late.len() > KEPT {
                        late.pop_front();
                    }
                }
            }
        });
        machine
    }

    /// The longest that it was late since a moment.
    pub(crate) fn worst_since(&self, since: Instant) -> Duration {
        let late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = late.iter().rev().take_while(|(at, _)| *at >= since);
        recent.map(|(_, by)| *by).max().unwrap_or_default()
    }

    /// Why single losses since a moment say nothing about the proxy, if so. Whoever probes for the
    /// cluster `elsewhere` may have been late as well.
    pub(crate) fn starved_since(&self, since: Instant, elsewhere: Duration) -> Option<String> {
        let starved = |whose: &str, worst: Duration| {
            (worst >= STARVED).then(|| {
                format!("{whose} was too busy: probes were {} ms late meanwhile", worst.as_millis())
            })
        };
        starved("this machine", self.worst_since(since))
            .or_else(|| starved("a node of the cluster", elsewhere))
    }

    /// For how long it was late since a moment, all in all.
    pub(crate) fn late_since(&self, since: Instant) -> Duration {
        let late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        late.iter().rev().take_while(|(at, _)| *at >= since).map(|(_, by)| *by).sum()
    }

    /// Why it says nothing about the proxy that something never became right since a moment, if so.
    pub(crate) fn held_up_since(&self, since: Instant) -> Option<String> {
        let total = self.late_since(since);
        (total * MOSTLY >= since.elapsed()).then(|| {
            format!(
                "this machine was too busy: of {} ms the harness itself was late for {}",
                since.elapsed().as_millis(),
                total.as_millis()
            )
        })
    }
}

impl Ground {
    /// The same for what runs here, wherever the probes come from.
    pub(crate) fn starved_since(&self, since: Instant) -> Option<String> {
        self.machine.starved_since(since, self.cluster.late_since(since.into_std()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_thread_that_is_held_up_is_noticed() {
        let machine = Machine::watch();
        let start = Instant::now();
        let mut ticks = tokio::time::interval(TICK);
        for _ in 0..3 {
            ticks.tick().await;
        }
        assert_eq!(machine.starved_since(start, Duration::ZERO), None);
        // As when nobody runs for a while: the clock goes on, and the next look comes late.
        tokio::time::advance(STARVED + TICK).await;
        ticks.tick().await;
        assert!(machine.worst_since(start) >= STARVED);
        assert!(machine.starved_since(start, Duration::ZERO).is_some());
        assert!(machine.held_up_since(start).is_some());
        let now = Instant::now() + TICK;
        assert_eq!(machine.starved_since(now, Duration::ZERO), None);
        assert!(machine.starved_since(now, STARVED).is_some_and(|why| why.contains("a node")));
        for _ in 0..100 {
            ticks.tick().await;
        }
        assert!(machine.starved_since(start, Duration::ZERO).is_some(), "it was late once");
        assert_eq!(machine.held_up_since(start), None, "and not for most of the time");
    }
}
