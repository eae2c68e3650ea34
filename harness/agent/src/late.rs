//! How late an agent is: where it has no processor, what it loses is lost by nobody else.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};

/// Between two looks at the clock. Every place of a cluster has an agent, so they look seldom.
const TICK: Duration = Duration::from_millis(50);
/// How many late reports the harness remembers of an agent.
const KEPT: usize = 1_000;

/// The agent's own watch; it ends with its last holder.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watch(Arc<AtomicU64>);

impl Watch {
    /// Begins to watch.
    pub(crate) fn begin() -> Watch {
        let watch = Watch::default();
        let worst = Arc::downgrade(&watch.0);
        tokio::spawn(async move {
            let mut ticks = interval(TICK);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                let by = ticks.tick().await.elapsed();
                let Some(worst) = worst.upgrade() else { break };
                worst.fetch_max(
                    u64::try_from(by.as_millis()).unwrap_or(u64::MAX),
                    Ordering::Relaxed,
                );
            }
        });
        watch
    }

    /// The longest in milliseconds that it was late since this was last asked.
    pub(crate) fn take(&self) -> u64 {
        self.0.swap(0, Ordering::Relaxed)
    }
}

/// What the harness knows of an agent's lateness.
#[derive(Debug, Default)]
pub(crate) struct Lateness(VecDeque<(Instant, Duration)>);

impl Lateness {
    /// Notes what a report says.
    pub(crate) fn note(&mut self, millis: u64) {
        let by = Duration::from_millis(millis);
        if by >= TICK {
            self.0.push_back((Instant::now(), by));
            if self.0.len() > KEPT {
                self.0.pop_front();
            }
        }
    }

    /// The longest that it was late since a moment.
    pub(crate) fn worst_since(&self, since: Instant) -> Duration {
        let recent = self.0.iter().rev().take_while(|(at, _)| *at >= since);
        recent.map(|(_, by)| *by).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whoever_is_held_up_notices() {
        let watch = Watch::begin();
        let mut ticks = interval(TICK);
        for _ in 0..3 {
            ticks.tick().await;
        }
        assert!(watch.take() < 50, "nobody held it up");
        // As when nobody runs for a while: the clock goes on, and the next look comes late.
        tokio::time::advance(TICK * 10).await;
        for _ in 0..2 {
            ticks.tick().await;
        }
        assert!(watch.take() >= 400);
        assert_eq!(watch.take(), 0);
    }

    #[test]
    fn what_was_before_does_not_count() {
        let mut lateness = Lateness::default();
        let since = Instant::now();
        lateness.note(700);
        lateness.note(10);
        assert_eq!(lateness.worst_since(since), Duration::from_millis(700));
        assert_eq!(lateness.worst_since(Instant::now() + TICK), Duration::ZERO);
    }
}
