//! Proxies that did not stay up, and the case of every run about them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use touchstone_record::{Ended, Failure};
use touchstone_spec::{Excuse, Verdict};

use crate::own;
use crate::plan::PROXY_STAYS_UP;

/// What is known of the proxies of a run's clusters.
#[derive(Default)]
pub(crate) struct Exits {
    clusters: AtomicUsize,
    ready: AtomicBool,
    failures: Mutex<Vec<Failure>>,
}

impl Exits {
    /// Counts a cluster that is started; gives its number, from 1.
    pub(crate) fn cluster_starts(&self) -> usize {
        self.clusters.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A cluster became ready, so there were proxies to watch.
    pub(crate) fn cluster_is_ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }

    /// A proxy ended without reason, or no cluster became ready with it.
    pub(crate) fn keep(&self, what: String, evidence: Vec<String>) {
        let failure = own::ended(what, evidence);
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
    }

    /// The end of the run's own case; `noticed` says whether the provider sees proxies end.
    ///
    /// Nothing passes that nobody has looked at.
    pub(crate) fn judge(&self, noticed: bool, ended: impl Fn(&str, Verdict) -> Ended) -> Ended {
        let failures =
            std::mem::take(&mut *self.failures.lock().unwrap_or_else(PoisonError::into_inner));
        let lacks = |what: &str| Some(Excuse::HostLacks(what.to_owned()));
        if !failures.is_empty() {
            Ended { failures, ..ended(PROXY_STAYS_UP, Verdict::Fail) }
        } else if self.clusters.load(Ordering::Relaxed) == 0 {
            let excuse = lacks("a case that can be judged");
            Ended { excuse, ..ended(PROXY_STAYS_UP, Verdict::Unsupported) }
        } else if !noticed {
            let excuse = lacks("a sight of proxies that end");
            Ended { excuse, ..ended(PROXY_STAYS_UP, Verdict::Unsupported) }
        } else if !self.ready.load(Ordering::Relaxed) {
            let note = Some("no cluster became ready, so nobody looked".to_owned());
            Ended { note, ..ended(PROXY_STAYS_UP, Verdict::Inconclusive) }
        } else {
            ended(PROXY_STAYS_UP, Verdict::Pass)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(exits: &Exits, noticed: bool) -> Verdict {
        let ended = |case: &str, verdict| Ended::with("s", case, verdict);
        exits.judge(noticed, ended).verdict
    }

    #[test]
    fn passes_only_what_was_watched() {
        let exits = Exits::default();
        assert_eq!(verdict(&exits, true), Verdict::Unsupported);
        assert_eq!(exits.cluster_starts(), 1);
        assert_eq!(verdict(&exits, true), Verdict::Inconclusive);
        exits.cluster_is_ready();
        assert_eq!(verdict(&exits, true), Verdict::Pass);
        assert_eq!(verdict(&exits, false), Verdict::Unsupported);
    }

    #[test]
    fn an_exit_fails_whatever_else_is_known() {
        let exits = Exits::default();
        exits.keep("it ended".to_owned(), vec![]);
        assert_eq!(verdict(&exits, false), Verdict::Fail);
    }
}
