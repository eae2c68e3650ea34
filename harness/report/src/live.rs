//! Progress for where no terminal is: one plain line per finished case.

use touchstone_record::{Event, RunEvent};

use crate::clean;
use crate::words::{label, seconds};

/// The line of an event, without its line feed; none for events that finish no case.
///
/// `PASS [  0.812s] kube-proxy:nftables  cluster-ip/basic[v4,tcp]`, the verdict right-aligned.
#[must_use]
pub fn line(event: &RunEvent) -> Option<String> {
    match &event.event {
        Event::CaseEnded(end) => {
            let attempt = match end.attempt {
                1 => String::new(),
                attempt => format!("  attempt {attempt}"),
            };
            Some(format!(
                "{:>12} [{:>8}] {}  {}{attempt}",
                label(end.verdict),
                seconds(end.took),
                clean::line(&end.subject),
                clean::line(&end.case),
            ))
        }
        Event::RunStarted { .. }
        | Event::ClusterStarting { .. }
        | Event::ClusterReady { .. }
        | Event::ClusterClosed { .. }
        | Event::ProxyExited { .. }
        | Event::ProxyRestarted { .. }
        | Event::CaseStarted { .. }
        | Event::Waiting { .. }
        | Event::CellJudged(_)
        | Event::StepEnded { .. }
        | Event::Interrupted { .. }
        | Event::HarnessError { .. }
        | Event::RunEnded { .. } => None,
    }
}
