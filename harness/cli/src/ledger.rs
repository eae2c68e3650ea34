//! The log of a run that several kernels carry out, each a part of it: one run to its readers.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc::UnboundedSender;
use touchstone_record::{Ended, Event, RunEvent};
use touchstone_spec::Verdict;

use crate::live::OF_EVERY_RUN;

/// Writes down what kernels tell, and shows it.
///
/// What each of them says of the whole run is said once: the first one begins the run, the last
/// one ends it, and of the cases that every run has the worst end counts.
pub(crate) struct Ledger {
    kernels: usize,
    live: UnboundedSender<RunEvent>,
    state: Mutex<State>,
}

struct State {
    /// None after the ledger was closed.
    log: Option<File>,
    begun: bool,
    interrupted: bool,
    /// What was told before the run had begun.
    early: Vec<RunEvent>,
    /// Ends of the cases that every run has, by subject and case.
    own: BTreeMap<(String, String), Vec<Ended>>,
    /// CPU time of harness and proxies, of each kernel that has ended its part.
    ends: Vec<(u64, u64)>,
}

impl Ledger {
    pub(crate) fn new(log: File, kernels: usize, live: UnboundedSender<RunEvent>) -> Ledger {
        let state = State {
            log: Some(log),
            begun: false,
            interrupted: false,
            early: Vec::new(),
            own: BTreeMap::new(),
            ends: Vec::new(),
        };
        Ledger { kernels, live, state: Mutex::new(state) }
    }

    /// Takes what a kernel tells; `first` says whether it is the one that begins the run.
    ///
    /// # Errors
    ///
    /// It cannot be written down.
    pub(crate) fn take(&self, told: RunEvent, first: bool) -> io::Result<()> {
        let mut state = self.state();
        if matches!(told.event, Event::RunStarted { .. }) {
            if !first {
                return Ok(());
            }
            state.begun = true;
            self.write(&mut state, told)?;
            let early = std::mem::take(&mut state.early);
            return early.into_iter().try_for_each(|told| self.write(&mut state, told));
        }
        match state.once(told, self.kernels) {
            None => Ok(()),
            Some(told) if state.begun => self.write(&mut state, told),
            Some(told) => {
                state.early.push(told);
                Ok(())
            }
        }
    }

    /// Whether anything was written.
    pub(crate) fn has_begun(&self) -> bool {
        self.state().begun
    }

    /// Whether the log says how the run ended.
    pub(crate) fn is_whole(&self) -> bool {
        let state = self.state();
        state.interrupted || state.ends.len() == self.kernels
    }

    /// From now on nothing is written.
    pub(crate) fn close(&self) {
        self.state().log = None;
    }

    /// A whole line at a time: what was written is never half an event.
    fn write(&self, state: &mut State, told: RunEvent) -> io::Result<()> {
        let Some(log) = &mut state.log else { return Ok(()) };
        let mut line = serde_json::to_vec(&told)?;
        line.push(b'\n');
        log.write_all(&line)?;
        log.flush()?;
        // Whoever shows it may have gone.
        let _ = self.live.send(told);
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What the log gets of this; nothing as long as other kernels have to say the same.
    fn once(&mut self, told: RunEvent, kernels: usize) -> Option<RunEvent> {
        // What others still do is no part of the run.
        if self.interrupted {
            return None;
        }
        if let Event::CaseEnded(ended) = &told.event
            && OF_EVERY_RUN.contains(&ended.case.as_str())
        {
            let key = (ended.subject.clone(), ended.case.clone());
            let ends = self.own.entry(key).or_default();
            ends.push(ended.clone());
            let all = (ends.len() == kernels).then(|| std::mem::take(ends))?;
            let event = Event::CaseEnded(all.into_iter().reduce(of_both)?);
            return Some(RunEvent { event, ..told });
        }
        if let Event::RunEnded { harness_cpu_ms, proxy_cpu_ms } = told.event {
            self.ends.push((harness_cpu_ms, proxy_cpu_ms));
            let event = Event::RunEnded {
                harness_cpu_ms: self.ends.iter().map(|(harness, _)| harness).sum(),
                proxy_cpu_ms: self.ends.iter().map(|(_, proxies)| proxies).sum(),
            };
            return (self.ends.len() == kernels).then_some(RunEvent { event, ..told });
        }
        self.interrupted = matches!(told.event, Event::Interrupted { .. });
        Some(told)
    }
}

/// The end of a case that was judged twice: a part that had nothing to judge says nothing.
fn of_both(one: Ended, other: Ended) -> Ended {
    let weight = |ended: &Ended| (ended.verdict != Verdict::Unsupported, ended.verdict);
    let (mut worse, better) =
        if weight(&one) >= weight(&other) { (one, other) } else { (other, one) };
    worse.failures.extend(better.failures);
    worse
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek};

    use tokio::sync::mpsc::unbounded_channel;
    use touchstone_runner::PROXY_STAYS_UP;

    use super::*;

    fn ended(case: &str, verdict: Verdict) -> Event {
        Event::CaseEnded(Ended::with("a", case, verdict))
    }

    fn run_ended(harness_cpu_ms: u64) -> Event {
        Event::RunEnded { harness_cpu_ms, proxy_cpu_ms: 1 }
    }

    /// What a ledger of two kernels writes, of what each of them tells in this order.
    fn written(told: Vec<(usize, Event)>) -> (Vec<Event>, bool) {
        let file = tempfile::tempfile().expect("a temporary file");
        let mut copy = file.try_clone().expect("a second handle");
        let (live, _watcher) = unbounded_channel();
        let ledger = Ledger::new(file, 2, live);
        ledger.state().begun = true;
        for (kernel, event) in told {
            ledger.take(RunEvent { at: 7, event }, kernel == 0).expect("it can be written");
        }
        let mut text = String::new();
        copy.rewind().and_then(|()| copy.read_to_string(&mut text)).expect("it can be read");
        let events = text.lines().map(|line| {
            serde_json::from_str::<RunEvent>(line).expect("every line is an event").event
        });
        (events.collect(), ledger.is_whole())
    }

    #[test]
    fn the_worst_end_of_a_case_that_every_run_has_counts() {
        for (one, other, both) in [
            (Verdict::Pass, Verdict::Fail, Verdict::Fail),
            (Verdict::Inconclusive, Verdict::Pass, Verdict::Inconclusive),
            (Verdict::Unsupported, Verdict::Pass, Verdict::Pass),
        ] {
            let (events, _) = written(vec![
                (0, ended(PROXY_STAYS_UP, one)),
                (1, ended("udp/basic[v4,udp]", Verdict::Pass)),
                (1, ended(PROXY_STAYS_UP, other)),
            ]);
            assert_eq!(
                events,
                [ended("udp/basic[v4,udp]", Verdict::Pass), ended(PROXY_STAYS_UP, both)]
            );
        }
    }

    #[test]
    fn a_run_ends_with_its_last_part() {
        let (events, whole) = written(vec![(1, run_ended(10))]);
        assert!(events.is_empty() && !whole);
        let (events, whole) = written(vec![(1, run_ended(10)), (0, run_ended(5))]);
        assert_eq!(events, [Event::RunEnded { harness_cpu_ms: 15, proxy_cpu_ms: 2 }]);
        assert!(whole);
    }

    #[test]
    fn an_interruption_is_the_last_that_is_told() {
        let stop = || Event::Interrupted { signal: "SIGINT".to_owned() };
        let late = ended("udp/basic[v4,udp]", Verdict::Pass);
        let (events, whole) = written(vec![(0, stop()), (1, late), (1, stop())]);
        assert_eq!(events, [stop()]);
        assert!(whole);
    }
}
