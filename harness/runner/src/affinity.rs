//! Whether a client's affinity had run out because it was asked to wait too long.
//!
//! An affinity holds from one connection to the next. On a busy machine the harness itself may let
//! more time pass between two connections of a client than the Service's timeout.

use std::time::Duration;

use tokio::time::Instant;
use touchstone_spec::World;
use touchstone_spec::api::SessionAffinity;

/// How much earlier than its answer a connection may have been made.
const UNDER_WAY: Duration = Duration::from_secs(1);
/// Up to this timeout a client's connections wait for no others.
const SHORT: Duration = Duration::from_secs(30);

/// The time between the answers of one cell.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pauses {
    last: Option<Instant>,
    longest: Duration,
}

impl Pauses {
    /// An answer came.
    pub(crate) fn answered(&mut self, at: Instant) {
        if let Some(last) = self.last {
            self.longest = self.longest.max(at.saturating_duration_since(last));
        }
        self.last = Some(at);
    }

    /// Why nothing can be said about the affinity of some Service of the world, if so.
    pub(crate) fn doubt(&self, world: &World) -> Option<String> {
        let timeout = shortest(world)?;
        (self.longest + UNDER_WAY >= timeout).then(|| {
            format!(
                "{} ms passed between two of its connections, and the affinity lasts {} s",
                self.longest.as_millis(),
                timeout.as_secs()
            )
        })
    }
}

/// Whether a client's affinity may run out while its next connection waits in line.
pub(crate) fn runs_out_soon(world: &World) -> bool {
    shortest(world).is_some_and(|timeout| timeout <= SHORT)
}

/// The shortest affinity of a world's Services.
fn shortest(world: &World) -> Option<Duration> {
    let sticky = |affinity| affinity == Some(SessionAffinity::ClientIP);
    let services = world.services.iter().filter(|it| sticky(it.spec.session_affinity));
    let timeouts = services.filter_map(|it| it.spec.session_affinity_config.as_ref());
    let seconds = timeouts.map(|config| config.client_ip.timeout_seconds).min()?;
    Some(Duration::from_secs(u64::from(seconds)))
}

#[cfg(test)]
mod tests {
    use touchstone_spec::api::{ClientIpConfig, Service, SessionAffinityConfig};

    use super::*;

    fn world(timeout_seconds: u32) -> World {
        let mut web = Service::default();
        web.spec.session_affinity = Some(SessionAffinity::ClientIP);
        let client_ip = ClientIpConfig { timeout_seconds };
        web.spec.session_affinity_config = Some(SessionAffinityConfig { client_ip });
        World { services: vec![web], ..World::default() }
    }

    #[test]
    fn a_long_pause_leaves_affinity_in_doubt() {
        let start = Instant::now();
        let mut pauses = Pauses::default();
        for after in [0, 500, 3_500, 3_600] {
            pauses.answered(start + Duration::from_millis(after));
        }
        let told = "3000 ms passed between two of its connections, and the affinity lasts 4 s";
        assert_eq!(pauses.doubt(&world(4)).as_deref(), Some(told));
        assert_eq!(pauses.doubt(&world(5)), None);
        assert_eq!(pauses.doubt(&World::default()), None);
    }

    #[test]
    fn only_short_affinities_are_in_a_hurry() {
        assert!(runs_out_soon(&world(8)));
        assert!(!runs_out_soon(&world(10_800)));
        assert!(!runs_out_soon(&World::default()));
    }
}
