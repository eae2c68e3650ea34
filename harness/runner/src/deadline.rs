//! How long something may take on a machine that may be busy with others (decision 0014).

use std::time::Duration;

use tokio::time::Instant;

use crate::machine::Machine;

/// How many times its time something gets at most on a machine that is late all along.
const LONGEST: u32 = 4;

/// An end that moves away while the machine is late: what counts is time that the machine had.
pub(crate) struct Deadline {
    machine: Machine,
    from: Instant,
    within: Duration,
}

impl Deadline {
    /// So long after a moment.
    pub(crate) fn new(machine: &Machine, from: Instant, within: Duration) -> Deadline {
        Deadline { machine: machine.clone(), from, within }
    }

    /// Ends so long from now, unless it ends earlier.
    pub(crate) fn sooner(&mut self, left: Duration) {
        let now = Instant::now();
        if self.from + self.within > now + left {
            self.from = now;
            self.within = left;
        }
    }

    /// Whether the time is over.
    pub(crate) fn is_over(&self) -> bool {
        let elapsed = self.from.elapsed();
        elapsed > self.within && (elapsed > self.within * LONGEST || self.had() >= self.within)
    }

    /// Why it says nothing about the proxy that something was not right when the time was over, if
    /// so.
    pub(crate) fn doubt(&self) -> Option<String> {
        // What is enough on a machine that was late for less than a third of the time is enough
        // on any.
        if self.had() * 3 >= self.within * 2 {
            return None;
        }
        self.machine.held_up_since(self.from)
    }

    /// What the machine had of the time.
    fn had(&self) -> Duration {
        self.from.elapsed().saturating_sub(self.machine.late_since(self.from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::TICK;
    use crate::pace::pace;

    const WITHIN: Duration = Duration::from_secs(3);

    /// Lets time pass in turns of so much late and so much in time.
    async fn pass(turns: u32, late: Duration, in_time: Duration) {
        for _ in 0..turns {
            tokio::time::advance(late).await;
            pace(in_time).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn on_an_idle_machine_it_is_the_time_that_was_given() {
        let machine = Machine::watch();
        let deadline = Deadline::new(&machine, Instant::now(), WITHIN);
        pace(WITHIN).await;
        assert!(!deadline.is_over());
        pace(TICK).await;
        assert!(deadline.is_over());
        assert_eq!(deadline.doubt(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_that_is_late_half_of_the_time_gives_twice_as_much_and_no_doubt() {
        let machine = Machine::watch();
        let deadline = Deadline::new(&machine, Instant::now(), WITHIN);
        let turn = Duration::from_millis(100);
        pass(16, turn, turn).await;
        assert!(!deadline.is_over(), "a good second of the three was in time");
        assert!(deadline.doubt().is_some(), "a proxy may need the rest");
        pass(20, turn, turn).await;
        assert!(deadline.is_over());
        assert_eq!(deadline.doubt(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_that_is_never_in_time_ends_it_in_doubt() {
        let machine = Machine::watch();
        let deadline = Deadline::new(&machine, Instant::now(), WITHIN);
        pass(12, Duration::from_millis(980), TICK).await;
        assert!(!deadline.is_over());
        pass(1, Duration::from_millis(980), TICK).await;
        assert!(deadline.is_over());
        assert!(deadline.doubt().is_some_and(|why| why.contains("too busy")));
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_only_ever_brought_forward() {
        let machine = Machine::watch();
        let mut deadline = Deadline::new(&machine, Instant::now(), WITHIN);
        deadline.sooner(WITHIN * 2);
        deadline.sooner(Duration::from_secs(1));
        pace(Duration::from_millis(1_100)).await;
        assert!(deadline.is_over());
    }
}
