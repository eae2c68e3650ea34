//! The only place that lets time pass: a named pause between two looks, inside settle or hold.

use std::time::Duration;

/// Between two looks at a cell that is not yet right, on a cluster that many cases share.
pub(crate) const POLL: Duration = Duration::from_millis(100);
/// The same on a cluster that one case has for itself.
pub(crate) const POLL_ALONE: Duration = Duration::from_millis(20);
/// Between two rounds of holding.
pub(crate) const HOLD: Duration = Duration::from_millis(100);

/// Lets `interval` pass between two looks.
#[expect(clippy::disallowed_methods, reason = "settle and hold are where time may pass")]
pub(crate) async fn pace(interval: Duration) {
    tokio::time::sleep(interval).await;
}
