//! Steady traffic that runs through a change, and what it lost.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use touchstone_case::{Keep, Traffic};
use touchstone_provider::Cluster;
use touchstone_spec::{Features, Flow, FrontendKind, Observation, Outcome, Protocol, World};

use crate::deadline::Deadline;
use crate::expected::expect;
use crate::ground::Ground;
use crate::moves;
use crate::pace::{POLL, pace};
use crate::switch;
use crate::worlds::Worlds;

/// How long an attempt may take before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long an attempt on a kept UDP port may take: the next one asks again.
const UDP_PATIENCE: Duration = Duration::from_secs(1);
/// Answers in a row that are missing where a kept flow has become silent: one may have got lost.
const SILENCE: u32 = 3;
/// New connections that any proxy may lose on a busy machine while rules are exchanged, and of
/// which nothing follows (adjudication 0025).
const STRAYS: u64 = 2;
/// Attempts that must have gone out before the change is made.
const WARM_UP: u32 = 5;
/// Longest time for them.
const WARM_UP_LIMIT: Duration = Duration::from_secs(3);

/// Traffic that runs until it is finished.
pub(crate) struct Stream {
    traffic: Traffic,
    features: Arc<Features>,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
    seen: Arc<Mutex<Seen>>,
    /// What a flow past the proxy met meanwhile.
    control: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    /// Flow by number, what was seen, and when after the start it was sent.
    attempts: Vec<(usize, Observation, Duration)>,
    started: u32,
}

/// What came of traffic through a change.
pub(crate) struct TrafficResult {
    pub(crate) text: String,
    pub(crate) line: usize,
    pub(crate) sent: u64,
    pub(crate) lost: u64,
    pub(crate) budget: u64,
    /// Answers that no moment of the change allows, with counts.
    pub(crate) strange: Vec<String>,
    /// What was lost, with counts.
    pub(crate) losses: Vec<String>,
    /// When the first and the last that was lost were sent, since the traffic began.
    pub(crate) span: Option<(Duration, Duration)>,
    /// How many were lost while their flow went from one endpoint to another.
    pub(crate) at_a_switch: usize,
    /// Attempts past the proxy meanwhile.
    pub(crate) past_the_proxy: usize,
    /// A kept UDP flow that left an endpoint which could be used all the while.
    pub(crate) moved: Vec<String>,
    /// A kept flow whose last answer is not what must hold after the change.
    pub(crate) stuck: Vec<String>,
    /// Why nothing can be said.
    pub(crate) broken: Option<String>,
}

impl TrafficResult {
    /// That more was lost than may be for a reason which is not the proxy's.
    pub(crate) fn doubt(&mut self, why: &str) {
        let surely = [&self.strange, &self.moved, &self.stuck];
        if surely.into_iter().all(Vec::is_empty) && self.lost > self.budget {
            self.broken.get_or_insert_with(|| why.to_owned());
        }
    }
}

impl Stream {
    /// Starts the traffic and waits until its first attempts are under way.
    pub(crate) async fn start(ground: &Ground, traffic: &Traffic, worlds: &Worlds) -> Stream {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let began = Instant::now();
        let flows = traffic.flows.len().max(1) as u32;
        // Where everything takes so many times as long, an interruption does too: as many are lost.
        // How long a kept flow is silent means the same everywhere.
        let interval = match traffic.keep {
            Keep::Nothing => traffic.every * ground.slowness,
            Keep::Connection => traffic.every,
        };
        let one_at_a_time = Arc::new(tokio::sync::Mutex::new(()));
        let mut tasks: Vec<JoinHandle<()>> = traffic
            .flows
            .iter()
            .enumerate()
            .map(|(number, flow)| {
                let sender = Sender {
                    cluster: Arc::clone(&ground.cluster),
                    number,
                    flow: flow.clone(),
                    interval,
                    stop: Arc::clone(&stop),
                    seen: Arc::clone(&seen),
                    began,
                    one_at_a_time: flow.source_port.map(|_| Arc::clone(&one_at_a_time)),
                };
                match traffic.keep {
                    Keep::Nothing => tokio::spawn(sender.send_anew()),
                    Keep::Connection => tokio::spawn(sender.send_kept()),
                }
            })
            .collect();
        let control = Arc::new(Mutex::new(Seen::default()));
        if let Some(flow) = past_the_proxy(traffic, worlds, &ground.features) {
            let sender = Sender {
                cluster: Arc::clone(&ground.cluster),
                number: 0,
                flow,
                interval,
                stop: Arc::clone(&stop),
                seen: Arc::clone(&control),
                began,
                one_at_a_time: None,
            };
            tasks.push(tokio::spawn(sender.send_anew()));
        }
        let stream = Stream {
            control,
            traffic: traffic.clone(),
            features: Arc::clone(&ground.features),
            stop,
            tasks,
            seen,
        };
        let look = interval.clamp(Duration::from_millis(5), Duration::from_millis(200));
        let mut tick = tokio::time::interval(look);
        while stream.lock().started < WARM_UP * flows && began.elapsed() < WARM_UP_LIMIT {
            tick.tick().await;
        }
        stream
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until every kept flow has followed the change, or until the step's limit: a proxy may
    /// look after flows some time after its rules.
    pub(crate) async fn follow(&self, worlds: &Worlds, deadline: &Deadline) {
        let met = || met_last(&self.lock().attempts, SILENCE);
        while !deadline.is_over() && !self.stuck(&met(), worlds).is_empty() {
            pace(POLL).await;
        }
    }

    /// Stops the traffic, waits for what is under way, and judges it.
    pub(crate) async fn finish(mut self, worlds: &Worlds) -> TrafficResult {
        self.stop.store(true, Ordering::Relaxed);
        for task in std::mem::take(&mut self.tasks) {
            // A task that panicked is seen by its missing attempts.
            let _ = task.await;
        }
        let attempts = std::mem::take(&mut self.lock().attempts);
        let last = met_last(&attempts, 1);
        self.judge(&attempts, self.stuck(&last, worlds), worlds)
    }

    fn judge(
        &self,
        attempts: &[(usize, Observation, Duration)],
        stuck: Vec<String>,
        worlds: &Worlds,
    ) -> TrafficResult {
        let mut lost: BTreeMap<String, u64> = BTreeMap::new();
        let budget = u64::from(self.traffic.budget);
        let budget = match self.traffic.keep {
            Keep::Nothing => budget.max(STRAYS),
            Keep::Connection => budget,
        };
        let mut strange: BTreeMap<String, u64> = BTreeMap::new();
        let mut broken = None;
        let mut span: Option<(Duration, Duration)> = None;
        for (number, saw, at) in attempts {
            let flow = &self.traffic.flows[*number];
            match saw {
                Observation::ProbeBroke(why) => broken = Some(why.clone()),
                Observation::Saw(outcome) => {
                    if is_loss(outcome) {
                        span =
                            Some(span.map_or((*at, *at), |(first, last)| {
                                (first.min(*at), last.max(*at))
                            }));
                        *lost.entry(self.met(flow, outcome)).or_default() += 1;
                    } else if !self.allowed(flow, saw, worlds) {
                        *strange.entry(self.met(flow, outcome)).or_default() += 1;
                    }
                }
            }
        }
        let count = |counts: &BTreeMap<String, u64>| -> Vec<String> {
            counts.iter().map(|(what, n)| format!("{n} × {what}")).collect()
        };
        if lost.values().sum::<u64>() > budget {
            broken = broken.or_else(|| self.control_lost());
        }
        if attempts.is_empty() {
            broken.get_or_insert_with(|| "no attempt was made".to_owned());
        }
        TrafficResult {
            text: self.traffic.flows.first().map(called).unwrap_or_default(),
            line: self.traffic.line,
            sent: attempts.len() as u64,
            lost: lost.values().sum(),
            budget,
            strange: count(&strange),
            losses: count(&lost),
            span,
            at_a_switch: switch::losses(attempts),
            past_the_proxy: self.control_sent(),
            moved: moves::needless(&self.traffic, attempts, worlds, &self.features),
            stuck,
            broken,
        }
    }

    /// What a flow met, and which flow it was where there are several.
    fn met(&self, flow: &Flow, outcome: &Outcome) -> String {
        match self.traffic.flows.len() {
            0 | 1 => outcome.to_string(),
            _ => format!("{outcome}: {}", flow.text),
        }
    }

    fn control_sent(&self) -> usize {
        self.control.lock().unwrap_or_else(PoisonError::into_inner).attempts.len()
    }

    /// That a flow past the proxy lost packets too, if it did.
    fn control_lost(&self) -> Option<String> {
        let control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        let all = control.attempts.len();
        let lost = |saw: &Observation| match saw {
            Observation::Saw(outcome) => is_loss(outcome),
            Observation::ProbeBroke(_) => true,
        };
        let lost = control.attempts.iter().filter(|(_, saw, _)| lost(saw)).count();
        (lost > 0).then(|| format!("{lost} of {all} attempts past the proxy were lost too"))
    }

    /// Whether an answer is allowed at some moment of the change. An established connection may
    /// stay with the endpoint it has.
    fn allowed(&self, flow: &Flow, saw: &Observation, worlds: &Worlds) -> bool {
        worlds.forgive(flow, saw, &self.features)
    }

    /// Kept UDP flows must have followed the change when the traffic ends.
    fn stuck(
        &self,
        last: &BTreeMap<usize, (Observation, Duration)>,
        worlds: &Worlds,
    ) -> Vec<String> {
        if self.traffic.keep != Keep::Connection {
            return Vec::new();
        }
        let mut stuck = Vec::new();
        for (number, (saw, at)) in last {
            let flow = &self.traffic.flows[*number];
            let Observation::Saw(outcome) = saw else { continue };
            let kept = flow.protocol != Protocol::Udp && matches!(outcome, Outcome::Reached { .. });
            if !kept && !expect(&worlds.after, flow, &self.features).admits(outcome) {
                let at = at.as_millis();
                let flow = called(flow);
                stuck.push(format!("{flow}: still {outcome}, {at} ms after its start"));
            }
        }
        stuck
    }
}

/// What each flow met last, and when after the start it was sent. So many answers in a row must be
/// missing to count as silence; until then the answer before them counts.
fn met_last(
    attempts: &[(usize, Observation, Duration)],
    silence: u32,
) -> BTreeMap<usize, (Observation, Duration)> {
    let mut last = BTreeMap::new();
    let mut missing: BTreeMap<usize, u32> = BTreeMap::new();
    for (flow, saw, at) in attempts {
        let missing = missing.entry(*flow).or_default();
        *missing = if *saw == Observation::Saw(Outcome::Dropped) { *missing + 1 } else { 0 };
        if *missing == 0 || *missing >= silence || !last.contains_key(flow) {
            last.insert(*flow, (saw.clone(), *at));
        }
    }
    last
}

/// A flow from the first client of the traffic straight to an endpoint that is there before and
/// after the change, if there is one; one that may be used all the while comes first.
fn past_the_proxy(traffic: &Traffic, worlds: &Worlds, features: &Features) -> Option<Flow> {
    let flow = traffic.flows.first()?;
    let before = expect(&worlds.before, flow, features).endpoints();
    let after = expect(&worlds.after, flow, features).endpoints();
    let is_there = |at: &&SocketAddr| {
        [&worlds.before, &worlds.after].into_iter().all(|world| lists(world, at.ip()))
    };
    let to = *before
        .intersection(&after)
        .chain(before.union(&after).filter(is_there))
        .find(|at| at.ip() != flow.client.address)?;
    Some(Flow {
        via: None,
        to,
        frontend: FrontendKind::Direct,
        source_port: None,
        text: format!("control: {} → {to}", flow.client.place),
        ..flow.clone()
    })
}

/// Whether a slice has the address, whatever its conditions.
fn lists(world: &World, address: IpAddr) -> bool {
    let endpoints = world.slices.iter().flat_map(|slice| &slice.endpoints);
    endpoints
        .filter_map(|endpoint| endpoint.addresses.first())
        .any(|listed| listed.parse() == Ok(address))
}

struct Sender {
    cluster: Arc<dyn Cluster>,
    number: usize,
    flow: Flow,
    interval: Duration,
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    began: Instant,
    /// Held until a kept flow has its first answer: of two flows that begin at the same instant
    /// from one port to one endpoint, the kernel drops a packet, whatever the proxy (adjudication
    /// 0132).
    one_at_a_time: Option<Arc<tokio::sync::Mutex<()>>>,
}

impl Sender {
    /// Every attempt is a client of its own.
    async fn send_anew(self) {
        let sender = Arc::new(self);
        let mut under_way = tokio::task::JoinSet::new();
        let mut tick = sender.ticks();
        while !sender.stop.load(Ordering::Relaxed) {
            tick.tick().await;
            let sender = Arc::clone(&sender);
            let sent = sender.start();
            under_way.spawn(async move {
                let saw = sender.cluster.probe(&sender.flow, PATIENCE).await;
                sender.record(saw, sent);
            });
            while under_way.try_join_next().is_some() {}
        }
        while under_way.join_next().await.is_some() {}
    }

    /// One connection or source port for all; opened again when it broke, which counts as lost.
    async fn send_kept(self) {
        let mut kept = None;
        let mut tick = self.ticks();
        while !self.stop.load(Ordering::Relaxed) {
            tick.tick().await;
            let sent = self.start();
            let mut turn = None;
            let mut flow = match kept.take() {
                Some(flow) => flow,
                None => {
                    if let Some(turns) = &self.one_at_a_time {
                        turn = Some(turns.lock().await);
                    }
                    match self.cluster.open(&self.flow, PATIENCE).await {
                        Ok(flow) => flow,
                        Err(saw) => {
                            self.record(saw, sent);
                            continue;
                        }
                    }
                }
            };
            let udp = self.flow.protocol == Protocol::Udp;
            let saw = flow.ask(if udp { UDP_PATIENCE } else { PATIENCE }).await;
            drop(turn);
            let broke = !udp && !matches!(saw, Observation::Saw(Outcome::Reached { .. }));
            self.record(saw, sent);
            if !broke {
                kept = Some(flow);
            }
        }
        // Everything has settled now: what the flow meets in the end is what counts.
        if let Some(mut flow) = kept {
            let sent = self.start();
            self.record(flow.ask(PATIENCE).await, sent);
        }
    }

    fn ticks(&self) -> tokio::time::Interval {
        let mut tick = tokio::time::interval(self.interval);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tick
    }

    /// Notes that one more is sent, and says when.
    fn start(&self) -> Duration {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).started += 1;
        self.began.elapsed()
    }

    fn record(&self, saw: Observation, sent: Duration) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.attempts.push((self.number, saw, sent));
    }
}

/// A flow of traffic in reports, with the port that all flows of its client share, if they do.
fn called(flow: &Flow) -> String {
    match flow.source_port {
        Some(port) => format!("{}, all from port {port} of the client", flow.text),
        None => flow.text.clone(),
    }
}

/// Whether an attempt went without an answer, or had one only after a packet was sent again.
pub(crate) fn is_loss(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Reached { resent, .. } => *resent > 0,
        Outcome::Http { .. } => false,
        Outcome::Refused(_)
        | Outcome::Dropped
        | Outcome::Unhandled
        | Outcome::Unreachable
        | Outcome::Reset
        | Outcome::Answered(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::worlds::tests::steps_of;

    #[test]
    fn an_endpoint_that_leaves_but_is_still_there_is_asked_past_the_proxy() {
        let steps = steps_of("node-port/endpoint-moves[v4,udp]");
        let traffic = steps[1].traffic.as_ref().expect("its second step has traffic");
        let worlds = Worlds::around(&steps[..1], &steps[1]);
        let features = Features::default();
        let only = expect(&worlds.before, &traffic.flows[0], &features).endpoints();
        assert!(expect(&worlds.after, &traffic.flows[0], &features).endpoints().is_disjoint(&only));
        let asked = past_the_proxy(traffic, &worlds, &features).map(|flow| flow.to);
        assert_eq!(asked.as_ref(), only.first());
    }

    #[test]
    fn one_missing_answer_is_not_yet_silence() {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 80));
        let answer = || Outcome::Reached { endpoint: address, source: address.ip(), resent: 0 };
        let last = |outcomes: Vec<Outcome>| {
            let attempts: Vec<_> = outcomes
                .into_iter()
                .map(|outcome| (0, Observation::Saw(outcome), Duration::ZERO))
                .collect();
            met_last(&attempts, 3).remove(&0).map(|(saw, _)| saw)
        };
        let answered = Some(Observation::Saw(answer()));
        let silent = Some(Observation::Saw(Outcome::Dropped));
        let dropped = || Outcome::Dropped;
        assert_eq!(last(vec![answer(), dropped()]), answered);
        assert_eq!(last(vec![answer(), dropped(), dropped(), answer()]), answered);
        assert_eq!(last(vec![answer(), dropped(), dropped(), dropped()]), silent);
        assert_eq!(last(vec![dropped()]), silent);
        assert_eq!(last(vec![]), None);
    }
}
