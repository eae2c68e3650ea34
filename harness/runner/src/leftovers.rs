//! Invariants of a whole run: what Services leave behind on the nodes when they are gone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use touchstone_provider::Cluster;
use touchstone_record::{Ended, Failure};
use touchstone_spec::{Excuse, Feature, Features, Verdict};

use crate::deadline::Deadline;
use crate::machine::Machine;
use crate::pace::pace;
use crate::plan::{FLOWS_GO, RULES_GO};

/// How long a UDP flow may stay: less than the time after which the kernel itself forgets it (30 s).
const FLOWS_LIMIT: Duration = Duration::from_secs(15);
/// How long rules may stay where proxies are as fast as on an ordinary machine.
const RULES_LIMIT: Duration = Duration::from_secs(30);
/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(200);

/// Something that must go with its Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum What {
    /// The proxy's rules.
    Rules,
    /// UDP flows that the kernel goes on translating.
    UdpFlows,
}

impl What {
    pub(crate) const ALL: [What; 2] = [What::Rules, What::UdpFlows];

    fn case(self) -> &'static str {
        match self {
            What::Rules => RULES_GO,
            What::UdpFlows => FLOWS_GO,
        }
    }

    fn noun(self) -> &'static str {
        match self {
            What::Rules => "rules",
            What::UdpFlows => "UDP flows",
        }
    }

    /// The feature without which a subject is free to leave them.
    fn feature(self) -> Option<&'static str> {
        match self {
            What::Rules => None,
            What::UdpFlows => Some("flushes-udp-on-service-delete"),
        }
    }

    fn is_promised(self, features: &Features) -> bool {
        self.feature().is_none_or(|name| features.has(name))
    }

    /// How long it may stay: the kernel forgets flows no later where proxies are slow.
    fn limit(self, slowness: u32) -> Duration {
        match self {
            What::Rules => RULES_LIMIT * slowness,
            What::UdpFlows => FLOWS_LIMIT,
        }
    }

    async fn look(
        self,
        cluster: &dyn Cluster,
        addresses: &BTreeSet<IpAddr>,
    ) -> Option<BTreeMap<String, Vec<String>>> {
        match self {
            What::Rules => cluster.mentions(addresses).await,
            What::UdpFlows => cluster.udp_flows(addresses).await,
        }
    }
}

/// What was found in a run.
#[derive(Default)]
pub(crate) struct Leftovers(Mutex<BTreeMap<What, Seen>>);

/// What came of looking.
enum Seen {
    /// Nobody here can list such things.
    NoListing,
    Looked {
        /// These lines were left.
        lines: Vec<String>,
        /// Why lines that were left on some cluster say nothing about its proxies.
        doubt: Option<String>,
    },
}

impl Leftovers {
    /// Waits until nothing speaks of these addresses of a cluster any more; what is left in the
    /// end is kept as evidence.
    pub(crate) async fn look(
        &self,
        name: &str,
        cluster: &dyn Cluster,
        features: &Features,
        gone: &BTreeSet<IpAddr>,
        slowness: u32,
        machine: &Machine,
    ) {
        let began = Instant::now();
        for what in What::ALL.into_iter().filter(|what| what.is_promised(features)) {
            let deadline = Deadline::new(machine, began, what.limit(slowness));
            loop {
                let Some(left) = what.look(cluster, gone).await else {
                    let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                    found.entry(what).or_insert(Seen::NoListing);
                    break;
                };
                let last = deadline.is_over();
                let clean = left.is_empty();
                let doubt = match last && !clean {
                    true => deadline.doubt(),
                    false => None,
                };
                let blamed = last && doubt.is_none();
                self.keep(what, name, if blamed { left } else { BTreeMap::new() }, doubt);
                if clean || last {
                    break;
                }
                // To list them costs the proxies' own time where programs start slowly.
                pace(INTERVAL.max(began.elapsed() / 4)).await;
            }
        }
    }

    fn keep(
        &self,
        what: What,
        cluster: &str,
        left: BTreeMap<String, Vec<String>>,
        doubt: Option<String>,
    ) {
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // An entry without lines says that somebody looked.
        let more = left.iter().flat_map(|(node, lines)| {
            lines.iter().map(move |line| format!("{cluster}, {node}: {line}"))
        });
        let nothing = || Seen::Looked { lines: Vec::new(), doubt: None };
        match found.entry(what).or_insert_with(nothing) {
            Seen::Looked { lines, doubt: known } => {
                lines.extend(more);
                *known = known.take().or(doubt);
            }
            seen @ Seen::NoListing => *seen = Seen::Looked { lines: more.collect(), doubt },
        }
    }

    /// The ends of the run's own cases about them.
    pub(crate) fn judge(
        &self,
        features: &Features,
        ended: impl Fn(&str, Verdict) -> Ended,
    ) -> Vec<Ended> {
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        What::ALL.map(|what| judged(what, features, found.remove(&what), &ended)).into()
    }
}

fn judged(
    what: What,
    features: &Features,
    left: Option<Seen>,
    ended: &impl Fn(&str, Verdict) -> Ended,
) -> Ended {
    let noun = what.noun();
    let lacking = what.feature().filter(|name| !features.has(name));
    if let Some(feature) = lacking.and_then(|name| Feature::new(name).ok()) {
        return Ended {
            excuse: Some(Excuse::LacksFeature(feature)),
            ..ended(what.case(), Verdict::Unsupported)
        };
    }
    match left {
        None => Ended {
            note: Some("no cluster lived to its end, so nobody looked".to_owned()),
            ..ended(what.case(), Verdict::Inconclusive)
        },
        Some(Seen::NoListing) => Ended {
            excuse: Some(Excuse::HostLacks(format!("a listing of {noun}"))),
            ..ended(what.case(), Verdict::Unsupported)
        },
        Some(Seen::Looked { lines, doubt: None }) if lines.is_empty() => {
            ended(what.case(), Verdict::Pass)
        }
        Some(Seen::Looked { lines, doubt: Some(doubt) }) if lines.is_empty() => Ended {
            note: Some(format!("{noun} were left, but {doubt}")),
            ..ended(what.case(), Verdict::Inconclusive)
        },
        Some(Seen::Looked { lines, doubt: _ }) => {
            let failure = Failure {
                step: 0,
                at_ms: 0,
                flow: format!("{noun} on the nodes"),
                line: None,
                allowed: vec![format!("no {noun} for an address whose Service is gone")],
                because: vec![],
                seen: vec![format!("{} {noun} are left", lines.len())],
                phase: None,
                rules: lines,
                evidence: vec![],
            };
            Ended { failures: vec![failure], ..ended(what.case(), Verdict::Fail) }
        }
    }
}
