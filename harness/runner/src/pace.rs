//! The only place that lets time pass: a named pause between two looks, inside settle or hold.

use std::time::Duration;

/// Between two looks at something that is not yet there.
pub(crate) const POLL: Duration = Duration::from_millis(100);
/// The same on a cluster that one case has for itself.
const POLL_ALONE: Duration = Duration::from_millis(20);
/// Between two rounds of holding.
pub(crate) const HOLD: Duration = Duration::from_millis(100);

/// Pause between two looks at cells that are not yet right after `waited`.
///
/// It grows with the time that has passed, so that what it adds stays a fraction of the wait: a
/// tenth where a case has its cluster for itself, else a quarter.
pub(crate) fn until_next_look(alone: bool, waited: Duration) -> Duration {
    if alone { POLL_ALONE.max(waited / 10) } else { POLL.max(waited / 4) }
}

/// Lets `interval` pass between two looks.
#[expect(clippy::disallowed_methods, reason = "settle and hold are where time may pass")]
pub(crate) async fn pace(interval: Duration) {
    tokio::time::sleep(interval).await;
}
