//! What a proxy may know while a step's changes are under way.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use touchstone_case::ScriptStep;
use touchstone_spec::api::TrafficPolicy;
use touchstone_spec::{
    Change, Client, Expectation, Features, Flow, Observation, Outcome, OutcomeKind, World,
};

use crate::expected::expect;

/// The worlds around a change.
#[derive(Debug, Clone)]
pub(crate) struct Worlds {
    pub(crate) before: World,
    pub(crate) after: World,
    /// Worlds that a proxy may see in between, since objects of different kinds reach it in any
    /// order.
    pub(crate) between: Vec<World>,
    /// The world as a proxy sees it that has not heard of its node's zone: in a first step it knows
    /// none, after a change of zones the one of before.
    pub(crate) unheard: Option<World>,
    /// The worlds before `before`: what no cell of the last step looked at may still be in force.
    pub(crate) long_before: Vec<World>,
    pub(crate) first: bool,
    /// Whether the step damages what a proxy made: what then becomes of packets until it is healed
    /// nobody says.
    pub(crate) damaged: bool,
}

/// Above this number of changes not every subset of them is taken as an in-between world.
const ALL_SUBSETS_UP_TO: usize = 5;
/// Above this number of worlds only a common beginning or end of all kinds is taken.
const WORLDS_BETWEEN: usize = 256;

impl Worlds {
    /// Around a step that follows these.
    pub(crate) fn around(earlier: &[ScriptStep], step: &ScriptStep) -> Worlds {
        let before = earlier.last().map(|step| step.world.clone());
        let first = before.is_none();
        let before = before.unwrap_or_else(|| World {
            nodes: step.world.nodes.clone(),
            proxy: step.world.proxy.clone(),
            network: step.world.network.clone(),
            outside: step.world.outside.clone(),
            balancer: step.world.balancer.clone(),
            unhandled_is_silent: step.world.unhandled_is_silent,
            refusals_are_few: step.world.refusals_are_few,
            ..World::default()
        });
        let picks = picks(&step.changes);
        let between = picks
            .into_iter()
            .map(|changes| {
                let mut world = before.clone();
                for change in changes {
                    world.apply(change);
                }
                world
            })
            .collect();
        let moves = step.changes.iter().any(|change| matches!(change, Change::SetNode { .. }));
        let unheard = if first {
            Some(without_zones(&step.world))
        } else {
            moves.then(|| World { nodes: before.nodes.clone(), ..step.world.clone() })
        };
        let long_before = earlier.iter().rev().skip(1).map(|step| step.world.clone()).collect();
        let (after, damaged) = (step.world.clone(), !step.marked);
        Worlds { before, after, between, unheard, long_before, first, damaged }
    }

    /// Whether nothing of the case existed before.
    pub(crate) fn is_first(&self) -> bool {
        self.first
    }

    /// Whether an endpoint may be reached before, after and all through the changes.
    pub(crate) fn always_reach(
        &self,
        flow: &Flow,
        endpoint: SocketAddr,
        features: &Features,
    ) -> bool {
        self.moments()
            .map(|world| expect(world, flow, features))
            .all(|answer| answer.endpoints().contains(&endpoint))
    }

    /// Whether an answer is right before, after or between the changes: only its time is wrong.
    pub(crate) fn forgive(&self, flow: &Flow, saw: &Observation, features: &Features) -> bool {
        let outcome = match saw {
            Observation::ProbeBroke(_) => return true,
            Observation::Saw(outcome) => outcome,
        };
        match outcome {
            // Silence and late answers are what a change in progress looks like.
            Outcome::Dropped | Outcome::Unhandled | Outcome::Reached { resent: 1.., .. } => true,
            // A name server reads the API by itself; what it says meanwhile is no proxy's doing.
            Outcome::Answered(_) => true,
            Outcome::Refused(_) | Outcome::Unreachable | Outcome::Reset if self.is_first() => true,
            Outcome::Refused(_) | Outcome::Unreachable | Outcome::Reset | Outcome::Http { .. }
                if self.damaged =>
            {
                true
            }
            Outcome::Refused(_)
            | Outcome::Unreachable
            | Outcome::Reset
            | Outcome::Http { .. }
            | Outcome::Reached { .. } => {
                let passed_on = self.passed_on(flow);
                let flows = || [Some(flow), passed_on.as_ref()].into_iter().flatten();
                self.moments()
                    .flat_map(|world| flows().map(|flow| expect(world, flow, features)))
                    .any(|answer| {
                        answer.admits(outcome)
                            || between_silence(&answer, outcome)
                            || hung_up(&answer, outcome)
                    })
                    || (!features.has("changes-at-once")
                        && (self.half_done(flow, outcome, features)
                            || self.cut_off(flow, outcome, features)
                            || self.behind_the_address(flow, outcome)
                            || self.between_policies(flow, outcome, features)))
            }
        }
    }

    /// Every world that a proxy may have seen.
    fn moments(&self) -> impl Iterator<Item = &World> {
        [&self.before, &self.after].into_iter().chain(&self.between).chain(&self.unheard)
    }

    /// Whether an answer is right, now or in an earlier step, but for the address that the endpoint
    /// saw, for ranges of sources and for the external policy: what a proxy may not have got to yet
    /// that goes step by step (adjudication 0121).
    fn half_done(&self, flow: &Flow, outcome: &Outcome, features: &Features) -> bool {
        let Outcome::Reached { endpoint, .. } = outcome else { return false };
        self.moments().chain(&self.long_before).any(|world| {
            let mut open = world.clone();
            // What a firewall lets pass depends on whether the packet is masqueraded by then.
            open.network.firewall.clear();
            for service in &mut open.services {
                service.spec.load_balancer_source_ranges.clear();
            }
            let mut everywhere = open.clone();
            for service in &mut everywhere.services {
                service.spec.external_traffic_policy = None;
            }
            [open, everywhere]
                .iter()
                .any(|world| expect(world, flow, features).endpoints().contains(endpoint))
        })
    }

    /// Whether a connection that some moment serves was cut by the change, between its first packet
    /// and its answer (adjudication 0121).
    fn cut_off(&self, flow: &Flow, outcome: &Outcome, features: &Features) -> bool {
        *outcome == Outcome::Reset
            && self.moments().any(|world| !expect(world, flow, features).endpoints().is_empty())
    }

    /// Whether an external IP that some moment serves was refused while the change gives its Service
    /// another external policy: a proxy may list those of each policy apart, and refuse what is on
    /// neither list (adjudication 0121).
    fn between_policies(&self, flow: &Flow, outcome: &Outcome, features: &Features) -> bool {
        let to = flow.to.ip();
        let local = self.moments().flat_map(|world| &world.services).filter_map(|service| {
            let spec = &service.spec;
            let listed = service.external_ips(flow.family()).contains(&to);
            listed.then_some(spec.external_traffic_policy == Some(TrafficPolicy::Local))
        });
        let policies: BTreeSet<bool> = local.collect();
        matches!(outcome, Outcome::Refused(_))
            && policies.len() > 1
            && self.moments().any(|world| !expect(world, flow, features).endpoints().is_empty())
    }

    /// Whether a node itself answered on the address of a Service that comes or goes with the change:
    /// the node may have the address before the rules that close its other ports, and longer
    /// (adjudication 0121).
    fn behind_the_address(&self, flow: &Flow, outcome: &Outcome) -> bool {
        let has = |world: &World| {
            let mut services = world.services.iter();
            services.any(|service| service.addresses(flow.family()).contains(&flow.to.ip()))
        };
        matches!(outcome, Outcome::Reached { endpoint, .. } if *endpoint == flow.to)
            && self.moments().any(has)
            && !self.moments().all(has)
    }

    /// The flow as the owner of its destination meets it, where that is another node than the
    /// client's: whose proxy has not heard of the Service sends it on, and there it may have been.
    fn passed_on(&self, flow: &Flow) -> Option<Flow> {
        let own = flow.client.node.as_ref()?;
        let owner = self.after.owner(flow.to.ip())?;
        let client = Client { node: None, ..flow.client.clone() };
        (owner.name != *own).then(|| Flow { client, ..flow.clone() })
    }
}

/// Changes that a proxy may have heard of while others are still under way.
///
/// Objects of one kind come in order, each kind by a watch of its own, so of every kind it knows a
/// beginning. Of few changes any may be known: a proxy may take objects one by one.
fn picks(changes: &[Change]) -> Vec<Vec<&Change>> {
    let n = changes.len();
    if n <= ALL_SUBSETS_UP_TO {
        let chosen = |bits: usize| {
            changes.iter().enumerate().filter(move |(i, _)| bits & (1 << i) != 0).map(|(_, c)| c)
        };
        return (1..(1_usize << n).saturating_sub(1)).map(|bits| chosen(bits).collect()).collect();
    }
    let ends = (1..n).flat_map(|i| [&changes[..i], &changes[i..]]);
    let mut picks: Vec<Vec<&Change>> = ends.map(|part| part.iter().collect()).collect();
    let of_slices = changes.iter().filter(|change| is_of_a_slice(change)).count();
    if (of_slices + 1) * (n - of_slices + 1) <= WORLDS_BETWEEN {
        for slices in 0..=of_slices {
            for others in 0..=n - of_slices {
                let mut left = [others, slices];
                picks.push(
                    changes
                        .iter()
                        .filter(|change| {
                            let left = &mut left[usize::from(is_of_a_slice(change))];
                            let known = *left > 0;
                            *left = left.saturating_sub(1);
                            known
                        })
                        .collect(),
                );
            }
        }
    }
    picks
}

fn is_of_a_slice(change: &Change) -> bool {
    matches!(change, Change::ApplySlice(_) | Change::ApplyRawSlice(_) | Change::DeleteSlice { .. })
}

/// Whether a refusal may stand where some moment of the change has silence: rules of several
/// tables change one after the other (adjudication 0024).
fn between_silence(answer: &Expectation, outcome: &Outcome) -> bool {
    let refused = matches!(outcome, Outcome::Refused(_) | Outcome::Unreachable | Outcome::Reset);
    let silent = |kind: &OutcomeKind| matches!(kind, OutcomeKind::Dropped | OutcomeKind::Unhandled);
    refused && answer.kinds().iter().any(silent)
}

/// Whether an HTTP server of the proxy, which some moment of the change has, ended between taking
/// a connection and answering.
fn hung_up(answer: &Expectation, outcome: &Outcome) -> bool {
    *outcome == Outcome::Reset && answer.kinds().contains(&OutcomeKind::Http)
}

/// What a proxy sees that knows the first Services of a cluster and not yet its own Node.
fn without_zones(world: &World) -> World {
    let mut world = world.clone();
    for node in &mut world.nodes {
        node.zone = None;
    }
    world
}

#[cfg(test)]
pub(crate) mod tests {
    use touchstone_case::{Library, compile, planned_book};
    use touchstone_spec::api::{EndpointSlice, Service};
    use touchstone_spec::{Feature, Refusal};

    use super::*;

    /// The steps of a case of which every Service is a load balancer under policy Local, with one
    /// endpoint on n1, until the second step makes it a cluster IP.
    fn steps() -> Vec<ScriptStep> {
        steps_of("lifecycle/load-balancer-to-cluster-ip[v4,tcp]")
    }

    /// The steps of a bundled case.
    pub(crate) fn steps_of(id: &str) -> Vec<ScriptStep> {
        let library = Library::bundled().expect("the bundled cases are right");
        let mut variants = library.variants().into_iter();
        let variant = variants.find(|variant| variant.id() == id).expect("the case exists");
        compile(&variant, &mut planned_book(&variant)).expect("it can be compiled").steps
    }

    fn flow(step: &ScriptStep, text: &str) -> Flow {
        let flows = step.rows.iter().map(|row| &row.flow).chain(&step.matrix);
        flows.into_iter().find(|flow| flow.text == text).expect("the flow exists").clone()
    }

    /// Whether it is forgiven of a subject without and of one with the feature `changes-at-once`.
    fn forgiven(worlds: &Worlds, flow: &Flow, outcome: Outcome) -> (bool, bool) {
        let at_once = [Feature::new("changes-at-once").expect("it is known")];
        let saw = Observation::Saw(outcome);
        (
            worlds.forgive(flow, &saw, &Features::default()),
            worlds.forgive(flow, &saw, &at_once.into_iter().collect()),
        )
    }

    #[test]
    fn a_proxy_that_goes_step_by_step_may_serve_before_its_policy_is_in_force() {
        let steps = steps();
        let worlds = Worlds::around(&[], &steps[0]);
        let near = flow(&steps[0], "outside → web nodePort@n1");
        let answer = expect(&worlds.after, &near, &Features::default());
        let endpoint = *answer.endpoints().first().expect("it is served there");
        let far = flow(&steps[0], "outside → web nodePort@n2");
        let outcome = Outcome::Reached { endpoint, source: far.to.ip(), resent: 0 };
        assert_eq!(forgiven(&worlds, &far, outcome), (true, false));
    }

    #[test]
    fn a_proxy_that_goes_step_by_step_may_cut_a_connection_in_its_beginning() {
        let steps = steps();
        let worlds = Worlds::around(&steps[..1], &steps[1]);
        let near = flow(&steps[0], "outside → web nodePort@n1");
        assert_eq!(forgiven(&worlds, &near, Outcome::Reset), (true, false));
    }

    #[test]
    fn a_proxy_that_goes_step_by_step_may_refuse_an_external_ip_between_two_policies() {
        let steps = steps_of("cluster-ip/endpoint-outside[v4,udp]");
        let port = Outcome::Refused(Refusal::Icmp { kind: 3, code: 3, from: None });
        let refused = |step: usize, flow: &Flow| {
            let worlds = Worlds::around(&steps[..step - 1], &steps[step - 1]);
            forgiven(&worlds, flow, port.clone())
        };
        let external = flow(&steps[2], "pod@n2 → db externalIP");
        assert_eq!(refused(2, &external), (false, false), "its policy stays");
        assert_eq!(refused(3, &external), (true, false));
        assert_eq!(refused(4, &external), (true, false));
        let cluster = flow(&steps[2], "pod@n2 → db clusterIP");
        assert_eq!(refused(3, &cluster), (false, false), "a cluster IP has no external policy");
    }

    #[test]
    fn a_proxy_that_goes_step_by_step_may_have_an_address_before_its_ports_are_closed() {
        let steps = steps_of("cluster-ip/host-listener[dual,tcp]");
        let answered = |before: usize, text: &str| {
            let worlds = Worlds::around(&steps[..before], &steps[before]);
            let flow = flow(&steps[0], text);
            let outcome = Outcome::Reached { endpoint: flow.to, source: flow.to.ip(), resent: 0 };
            forgiven(&worlds, &flow, outcome)
        };
        assert_eq!(answered(0, "pod@n1 → web clusterIP:23456/tcp"), (true, false));
        assert_eq!(answered(1, "pod@n1 → web clusterIP:23456/tcp"), (false, false), "it stays");
        assert_eq!(answered(1, "pod@n1 → same clusterIP"), (true, false), "it goes");
    }

    #[test]
    fn a_proxy_that_goes_step_by_step_may_still_serve_what_went_two_steps_ago() {
        let steps = steps_of("ports/node-ports-swapped[v4,tcp]");
        let worlds = Worlds::around(&steps[..2], &steps[2]);
        let flow = flow(&steps[0], "outside → two nodePort@n2");
        let answer = expect(&steps[0].world, &flow, &Features::default());
        let endpoint = *answer.endpoints().first().expect("it was served there");
        let outcome = Outcome::Reached { endpoint, source: flow.to.ip(), resent: 0 };
        assert_eq!(forgiven(&worlds, &flow, outcome), (true, false));
    }

    #[test]
    fn a_health_check_may_hang_up_when_its_service_goes() {
        let steps = steps();
        let worlds = Worlds::around(&steps[..1], &steps[1]);
        let node_port = flow(&steps[0], "outside → web nodePort@n1");
        let health = health_port(&worlds.before);
        let health = Flow { to: SocketAddr::new(node_port.to.ip(), health), ..node_port };
        assert_eq!(forgiven(&worlds, &health, Outcome::Reset), (true, true));
    }

    fn health_port(world: &World) -> u16 {
        let mut ports = world.services.iter().filter_map(|s| s.spec.health_check_node_port);
        ports.next().expect("a load balancer under policy Local has one")
    }

    fn service() -> Change {
        Change::ApplyService(Service::default())
    }

    fn slice() -> Change {
        Change::ApplySlice(EndpointSlice::default())
    }

    /// How many changes of Services and of slices are known in each pick.
    fn known(changes: &[Change]) -> Vec<(usize, usize)> {
        let mut known: Vec<(usize, usize)> = picks(changes)
            .into_iter()
            .map(|pick| {
                let slices = pick.iter().filter(|change| is_of_a_slice(change)).count();
                (pick.len() - slices, slices)
            })
            .collect();
        known.sort_unstable();
        known.dedup();
        known
    }

    #[test]
    fn a_proxy_may_know_all_services_and_no_slice_yet() {
        let changes = [service(), slice(), service(), slice(), service(), slice()];
        let every = (0..=3).flat_map(|services| (0..=3).map(move |slices| (services, slices)));
        assert_eq!(known(&changes), every.collect::<Vec<_>>());
    }

    #[test]
    fn of_very_many_changes_beginnings_and_ends_are_taken() {
        let changes: Vec<Change> = (0..40).flat_map(|_| [service(), slice()]).collect();
        assert_eq!(picks(&changes).len(), 2 * (changes.len() - 1));
    }
}
