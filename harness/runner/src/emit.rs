//! Where events go: into the log, and to whoever watches the run.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc::UnboundedSender;
use touchstone_record::{Event, LogError, LogWriter, RunEvent};

/// Writes events to the log and passes them on. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Emitter {
    log: Arc<LogWriter>,
    watcher: Option<UnboundedSender<RunEvent>>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    failed: Option<LogError>,
    /// The run was interrupted: what its tasks still do until the process ends is no part of it.
    over: bool,
}

impl Emitter {
    /// An emitter for a log; `watcher` also gets every event.
    #[must_use]
    pub fn new(log: LogWriter, watcher: Option<UnboundedSender<RunEvent>>) -> Emitter {
        Emitter { log: Arc::new(log), watcher, state: Arc::default() }
    }

    /// Records an event. After the first failure to write, and after an interruption, nothing more
    /// is written, so that the log stays a true beginning of the run.
    pub fn emit(&self, event: Event) {
        let mut state = self.state();
        if state.failed.is_some() || state.over {
            return;
        }
        state.over = matches!(event, Event::Interrupted { .. });
        match self.log.write(event) {
            Ok(event) => {
                if let Some(watcher) = &self.watcher {
                    // A watcher that has gone away misses nothing that the log does not have.
                    let _ = watcher.send(event);
                }
            }
            Err(error) => state.failed = Some(error),
        }
    }

    /// Whether the log could not be written.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.state().failed.is_some()
    }

    /// Why the log could not be written, once.
    #[must_use]
    pub fn take_failure(&self) -> Option<LogError> {
        self.state().failed.take()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
