//! Pods that the cluster's own controllers run and list as endpoints.
//!
//! A case expects answers of pods that do not exist yet when its flows are written. So each of them
//! has a *seat*: a place with addresses of its own, which nobody else has, for the time in which
//! the case speaks of it. Which pod sits there is known once a controller has made one; from then
//! on the seat's addresses are exchanged for the pod's in everything that is sent and seen.
//!
//! The pods of a Service on one node are those of one Deployment. A pod is not ready before its
//! servers listen: its agent is told to, and then the pod's readiness gate opens.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};
use touchstone_agent::RemoteServers;
use touchstone_spec::{
    Deployed, Flow, NodeFacts, Observation, Outcome, PodFacts, PodWish, ServerWish,
};

use super::access::Access;
use super::agents::Shared;
use super::names::Names;
use crate::ClusterError;

/// How long controllers may take for one change: a rolling update starts and ends pods.
const LIMIT: Duration = Duration::from_secs(120);
/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(200);
/// For how long a pod that is to end goes on serving, as drained servers do.
const DRAIN_SECONDS: u64 = 10;
/// The condition that opens once a pod's servers listen.
const GATE: &str = "touchstone/serves";
/// The annotation that tells the generations of a Deployment's pods apart.
const GENERATION: &str = "touchstone/generation";

/// The seats of a run and who sits there.
pub(super) struct Deployments {
    access: Access,
    names: Names,
    agents: Shared,
    seats: Mutex<Seats>,
}

#[derive(Default)]
struct Seats {
    named: u32,
    by_place: BTreeMap<String, Seat>,
    /// Generation of each Deployment, by namespace, Service and node.
    generations: BTreeMap<(String, String, String), u32>,
}

/// A place for a pod.
struct Seat {
    node: String,
    addresses: Vec<IpAddr>,
    /// What shall listen there.
    wishes: Vec<ServerWish>,
    pod: Option<Sitting>,
    /// Namespace and name of the Service whose pods sit here.
    service: Option<(String, String)>,
    /// Whether a case counts on it at present.
    wanted: bool,
}

/// A pod in a seat.
struct Sitting {
    name: String,
    addresses: Vec<IpAddr>,
    ready: bool,
    _servers: RemoteServers,
}

impl Deployments {
    pub(super) fn new(access: Access, names: Names, agents: Shared) -> Deployments {
        Deployments { access, names, agents, seats: Mutex::default() }
    }

    /// Reserves a seat on a node.
    pub(super) fn reserve(
        &self,
        wish: &PodWish,
        nodes: &[NodeFacts],
    ) -> Result<PodFacts, ClusterError> {
        let node = nodes.iter().find(|node| node.name == wish.node);
        let node = node.ok_or_else(|| ClusterError::new("no such node", &wish.node))?;
        let mut seats = self.lock();
        seats.named += 1;
        let number = seats.named;
        let facts = PodFacts {
            place: format!("seat-{number}"),
            node: wish.node.clone(),
            addresses: node.pod_cidrs.iter().map(|range| reserved(range, number)).collect(),
        };
        let seat = Seat {
            node: facts.node.clone(),
            addresses: facts.addresses.clone(),
            wishes: Vec::new(),
            pod: None,
            service: None,
            wanted: false,
        };
        seats.by_place.insert(facts.place.clone(), seat);
        Ok(facts)
    }

    /// Whether a place is a seat.
    pub(super) fn has(&self, place: &str) -> bool {
        self.lock().by_place.contains_key(place)
    }

    /// Notes what shall listen in a seat as soon as somebody sits there.
    pub(super) fn serve(&self, place: &str, wishes: Vec<ServerWish>) {
        if let Some(seat) = self.lock().by_place.get_mut(place) {
            seat.wishes = wishes;
        }
    }

    /// Gives seats back; their pods are gone or going.
    pub(super) fn release(&self, places: &BTreeSet<String>) {
        for place in places {
            self.agents.leave(place);
        }
        self.lock().by_place.retain(|place, _| !places.contains(place));
    }

    /// Has controllers run what is wanted, and waits until the Service's slices say so.
    pub(super) async fn apply(
        &self,
        wanted: &Deployed,
        real: &BTreeMap<String, String>,
    ) -> Result<(), ClusterError> {
        for (node, replicas) in self.plan(wanted)? {
            self.deploy(wanted, &node, real.get(&node).unwrap_or(&node), replicas).await?;
        }
        let began = Instant::now();
        let mut tick = tokio::time::interval(INTERVAL);
        loop {
            tick.tick().await;
            let late = match self.look(wanted).await? {
                None => return Ok(()),
                Some(late) => late,
            };
            if began.elapsed() > LIMIT {
                return Err(ClusterError {
                    act: format!("failed to have pods of {}/{}", wanted.namespace, wanted.service),
                    why: format!("within {} s {late}", LIMIT.as_secs()),
                    proxy: false,
                    late: true,
                });
            }
        }
    }

    /// Notes who is wanted and gives the number of pods for each node whose Deployment changes.
    fn plan(&self, wanted: &Deployed) -> Result<BTreeMap<String, usize>, ClusterError> {
        let mut seats = self.lock();
        let Seats { by_place, generations, .. } = &mut *seats;
        let mut changed = BTreeMap::new();
        let of_service = |seat: &Seat, place: &String| {
            wanted.pods.contains_key(place) || (seat.wanted && seat.is_of(wanted))
        };
        let seated = by_place.iter().filter(|(place, seat)| of_service(seat, place));
        let mut nodes: BTreeSet<String> = seated.map(|(_, seat)| seat.node.clone()).collect();
        // Of a case that has ended no seat is left.
        let (namespace, service) = (&wanted.namespace, &wanted.service);
        let running = generations.keys().filter(|key| key.0 == *namespace && key.1 == *service);
        nodes.extend(running.map(|key| key.2.clone()));
        for node in nodes {
            let mut counts = (0, 0, 0);
            for (place, seat) in by_place.iter_mut().filter(|(_, seat)| seat.node == node) {
                if !of_service(seat, place) {
                    continue;
                }
                let wants = wanted.pods.contains_key(place);
                match (seat.wanted, wants) {
                    (true, true) => counts.0 += 1,
                    (true, false) => counts.1 += 1,
                    (false, _) => {
                        counts.2 += 1;
                        seat.pod = None;
                        seat.service = Some((wanted.namespace.clone(), wanted.service.clone()));
                    }
                }
                seat.wanted = wants;
            }
            let (kept, gone, new) = counts;
            if kept > 0 && gone > 0 {
                return Err(ClusterError::new(
                    format!("a case ends some of the pods of {service} on {node}"),
                    "which of them end is up to their controller: end all of a node, or none",
                ));
            }
            let key = key(wanted, &node);
            let generation = generations.entry(key).or_insert(0);
            if kept == 0 && new > 0 {
                *generation += 1;
            }
            changed.insert(node, kept + new);
        }
        Ok(changed)
    }

    async fn deploy(
        &self,
        wanted: &Deployed,
        node: &str,
        real: &str,
        replicas: usize,
    ) -> Result<(), ClusterError> {
        let name = deployment(wanted, node);
        let generation = self.lock().generations.get(&key(wanted, node)).copied();
        let generation = generation.unwrap_or_default();
        let mut spec = self.agents.pod_spec();
        spec["restartPolicy"] = json!("Always");
        let node_is = json!({ "key": "metadata.name", "operator": "In", "values": [real] });
        spec["affinity"] = json!({ "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{ "matchFields": [node_is] }],
            },
        } });
        spec["readinessGates"] = json!([{ "conditionType": GATE }]);
        spec["terminationGracePeriodSeconds"] = json!(DRAIN_SECONDS + 5);
        spec["containers"][0]["lifecycle"] =
            json!({ "preStop": { "sleep": { "seconds": DRAIN_SECONDS } } });
        let mut labels = json!(wanted.labels);
        labels["touchstone/node"] = json!(node);
        let mut template = json!({
            "metadata": {
                "labels": labels.clone(),
                "annotations": { GENERATION: generation.to_string() },
            },
            "spec": spec,
        });
        self.names.mark(&mut template);
        let mut object = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": { "name": name },
            "spec": {
                "replicas": replicas, "selector": { "matchLabels": labels }, "template": template,
            },
        });
        self.names.mark(&mut object);
        self.access.need("/api/v1/namespaces", &self.names.namespace(&wanted.namespace)).await?;
        let path = format!("/apis/apps/v1/namespaces/{}/deployments", wanted.namespace);
        let own = format!("{path}/{name}");
        // Without a version it replaces whatever is there.
        let done = match self.access.send(Method::PUT, &own, Some(&object)).await {
            Err(error) if super::trouble::code(&error) == Some(404) => {
                self.access.send(Method::POST, &path, Some(&object)).await
            }
            done => done,
        };
        done.map(drop).map_err(|error| self.access.failed(&format!("write {own}"), &error))
    }

    /// Seats pods that have come, and says what is still to be waited for.
    async fn look(&self, wanted: &Deployed) -> Result<Option<String>, ClusterError> {
        let namespace = &wanted.namespace;
        let path = format!("/api/v1/namespaces/{namespace}/pods");
        let pods = self.access.list(&path, &self.names.selector()).await?;
        let of_service = |pod: &&Value| {
            wanted.labels.iter().all(|(key, value)| pod["metadata"]["labels"][key] == json!(value))
        };
        let pods: Vec<&Value> = pods.iter().filter(of_service).collect();
        self.stand_up(wanted, &pods);
        for pod in &pods {
            self.seat(wanted, pod).await?;
        }
        self.set_readiness(wanted).await?;
        let waits = {
            let seats = self.lock();
            let empty =
                |place: &&String| seats.by_place.get(*place).is_none_or(|seat| seat.pod.is_none());
            wanted.pods.keys().filter(empty).count()
        };
        if waits > 0 {
            return Ok(Some(format!("{waits} of its pods did not come up")));
        }
        self.late_slices(wanted).await
    }

    /// Pods that end leave their seats before their agents do.
    fn stand_up(&self, wanted: &Deployed, pods: &[&Value]) {
        let stays = |name: &str| {
            pods.iter().any(|pod| {
                pod["metadata"]["name"] == json!(name)
                    && pod["metadata"]["deletionTimestamp"].is_null()
            })
        };
        for (place, seat) in &mut self.lock().by_place {
            let sitting = seat.pod.as_ref().filter(|_| !seat.wanted && seat.is_of(wanted));
            if sitting.is_some_and(|pod| !stays(&pod.name)) {
                self.agents.leave(place);
            }
        }
    }

    /// Gives a pod of the present generation that runs one of the empty seats of its node.
    async fn seat(&self, wanted: &Deployed, pod: &Value) -> Result<(), ClusterError> {
        let meta = &pod["metadata"];
        let name = meta["name"].as_str().unwrap_or_default().to_owned();
        let runs =
            pod["status"]["phase"] == json!("Running") && meta["deletionTimestamp"].is_null();
        let node = meta["labels"]["touchstone/node"].as_str().unwrap_or_default().to_owned();
        let key = key(wanted, &node);
        let (place, wishes, own) = {
            let seats = self.lock();
            let generation = seats.generations.get(&key).map(ToString::to_string);
            let present = meta["annotations"][GENERATION].as_str() == generation.as_deref();
            let sits = |seat: &Seat| seat.pod.as_ref().is_some_and(|pod| pod.name == name);
            if !runs || !present || seats.by_place.values().any(sits) {
                return Ok(());
            }
            let free = seats.by_place.iter().find(|(place, seat)| {
                wanted.pods.contains_key(*place) && seat.node == node && seat.pod.is_none()
            });
            let Some((place, seat)) = free else { return Ok(()) };
            (place.clone(), seat.wishes.clone(), seat.addresses.clone())
        };
        let addresses = super::agents::addresses(pod);
        let agent = self.agents.connect_in(&wanted.namespace, &name).await?;
        let there = |address: IpAddr| exchange(&own, &addresses, address);
        let wishes = wishes
            .into_iter()
            .map(|wish| ServerWish { address: there(wish.address), place: name.clone(), ..wish })
            .collect();
        let servers = agent.serve(wishes).await.map_err(|why| {
            ClusterError::new(format!("failed to serve in {}/{name}", wanted.namespace), why)
        })?;
        self.agents.station(&place, agent);
        if let Some(seat) = self.lock().by_place.get_mut(&place) {
            seat.pod = Some(Sitting { name, addresses, ready: false, _servers: servers });
        }
        Ok(())
    }

    /// Opens and shuts the readiness gates of pods.
    async fn set_readiness(&self, wanted: &Deployed) -> Result<(), ClusterError> {
        let other: Vec<(String, String, bool)> = {
            let seats = self.lock();
            let differs = |(place, ready): (&String, &bool)| {
                let pod = seats.by_place.get(place)?.pod.as_ref()?;
                (pod.ready != *ready).then(|| (place.clone(), pod.name.clone(), *ready))
            };
            wanted.pods.iter().filter_map(differs).collect()
        };
        for (place, pod, ready) in other {
            let path = format!("/api/v1/namespaces/{}/pods/{pod}/status", wanted.namespace);
            let status = if ready { "True" } else { "False" };
            let patch = json!({ "status": { "conditions": [{ "type": GATE, "status": status }] } });
            let done = self.access.patch_lists(&path, &patch).await;
            done.map_err(|error| self.access.failed(&format!("write {path}"), &error))?;
            if let Some(pod) = self.lock().by_place.get_mut(&place).and_then(|s| s.pod.as_mut()) {
                pod.ready = ready;
            }
        }
        Ok(())
    }

    /// What the Service's slices do not say yet.
    async fn late_slices(&self, wanted: &Deployed) -> Result<Option<String>, ClusterError> {
        let path =
            format!("/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices", wanted.namespace);
        let of_service = format!("labelSelector=kubernetes.io%2Fservice-name%3D{}", wanted.service);
        let slices = self.access.list(&path, &of_service).await?;
        // Who ends may be used while nobody else is there, so that is waited for as well.
        let listed = endpoints(&slices, wanted.pods.is_empty());
        let expected: BTreeMap<IpAddr, bool> = wanted
            .slices
            .iter()
            .flat_map(|slice| &slice.endpoints)
            .flat_map(|endpoint| {
                let ready = endpoint.conditions.ready != Some(false);
                endpoint.addresses.iter().filter_map(move |ip| Some((ip.parse().ok()?, ready)))
            })
            .map(|(address, ready): (IpAddr, bool)| (self.pod_of(address), ready))
            .collect();
        Ok((listed != expected).then(|| {
            format!("its slices did not come to have the endpoints {expected:?}: {listed:?}")
        }))
    }

    /// The address of the pod in whose seat that is; itself where it is none's.
    pub(super) fn pod_of(&self, address: IpAddr) -> IpAddr {
        self.find(address, |seat| Some((&seat.addresses, &seat.pod.as_ref()?.addresses)))
    }

    /// The address of the seat in which a pod with that one sits; itself where there is none.
    pub(super) fn seat_of(&self, address: IpAddr) -> IpAddr {
        self.find(address, |seat| Some((&seat.pod.as_ref()?.addresses, &seat.addresses)))
    }

    fn find(
        &self,
        address: IpAddr,
        pairs: impl Fn(&Seat) -> Option<(&Vec<IpAddr>, &Vec<IpAddr>)>,
    ) -> IpAddr {
        let seats = self.lock();
        let found = seats.by_place.values().find_map(|seat| {
            let (from, to) = pairs(seat)?;
            from.contains(&address).then(|| exchange(from, to, address))
        });
        found.unwrap_or(address)
    }

    /// A flow as it is sent.
    pub(super) fn sent(&self, flow: &Flow) -> Flow {
        let mut flow = flow.clone();
        flow.to = SocketAddr::new(self.pod_of(flow.to.ip()), flow.to.port());
        flow.client.address = self.pod_of(flow.client.address);
        flow
    }

    /// What was seen, as a case speaks of it.
    pub(super) fn seen(&self, saw: Observation) -> Observation {
        match saw {
            Observation::Saw(Outcome::Reached { endpoint, source, resent }) => {
                let endpoint = SocketAddr::new(self.seat_of(endpoint.ip()), endpoint.port());
                let source = self.seat_of(source);
                Observation::Saw(Outcome::Reached { endpoint, source, resent })
            }
            other @ (Observation::Saw(_) | Observation::ProbeBroke(_)) => other,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Whether it is for pods of that Service.
    fn is_of(&self, wanted: &Deployed) -> bool {
        self.service.as_ref().is_some_and(|(namespace, service)| {
            *namespace == wanted.namespace && *service == wanted.service
        })
    }
}

/// What a Service's Deployment on a node is known by.
fn key(wanted: &Deployed, node: &str) -> (String, String, String) {
    (wanted.namespace.clone(), wanted.service.clone(), node.to_owned())
}

/// The name of a Service's Deployment on a node.
fn deployment(wanted: &Deployed, node: &str) -> String {
    format!("{}-{node}", wanted.service)
}

/// The address at the same place of another list.
fn exchange(from: &[IpAddr], to: &[IpAddr], address: IpAddr) -> IpAddr {
    let of_family = |ip: &&IpAddr| ip.is_ipv6() == address.is_ipv6();
    let known = from.contains(&address);
    to.iter().find(of_family).copied().filter(|_| known).unwrap_or(address)
}

/// An address at the end of a node's pods, which plug-ins hand out last.
fn reserved(range: &ipnet::IpNet, number: u32) -> IpAddr {
    match range {
        ipnet::IpNet::V4(range) => {
            let room = u32::from(range.broadcast()) - u32::from(range.network());
            let back = 2 + number % (room / 3).max(1);
            Ipv4Addr::from(u32::from(range.broadcast()) - back).into()
        }
        ipnet::IpNet::V6(range) => {
            Ipv6Addr::from(u128::from(range.broadcast()) - u128::from(number) - 2).into()
        }
    }
}

/// The endpoints of slices as a cluster has them, each with whether it is ready; perhaps with those
/// that end.
fn endpoints(slices: &[Value], ending: bool) -> BTreeMap<IpAddr, bool> {
    let all = slices.iter().flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
    all.filter(|endpoint| ending || endpoint["conditions"]["terminating"] != json!(true))
        .flat_map(|endpoint| {
            let ready = endpoint["conditions"]["ready"] != json!(false);
            let addresses = endpoint["addresses"].as_array().into_iter().flatten();
            addresses.filter_map(move |ip| Some((ip.as_str()?.parse().ok()?, ready)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_at_the_end_of_a_node_s_pods() {
        let range = "10.244.1.0/24".parse().expect("a range");
        assert_eq!(reserved(&range, 1).to_string(), "10.244.1.252");
        assert_eq!(reserved(&range, 86).to_string(), "10.244.1.252", "they come round");
        let range = "fd00:10:244:1::/64".parse().expect("a range");
        assert_eq!(reserved(&range, 1).to_string(), "fd00:10:244:1:ffff:ffff:ffff:fffc");
    }

    #[test]
    fn endpoints_that_end_are_not_waited_for() {
        let slice = json!({ "endpoints": [
            { "addresses": ["10.0.0.1"], "conditions": { "ready": true } },
            { "addresses": ["10.0.0.2"], "conditions": { "ready": false } },
            { "addresses": ["10.0.0.3"], "conditions": { "ready": false, "terminating": true } },
        ] });
        let found: Vec<(String, bool)> = endpoints(&[slice], false)
            .into_iter()
            .map(|(ip, ready)| (ip.to_string(), ready))
            .collect();
        assert_eq!(found, [("10.0.0.1".to_owned(), true), ("10.0.0.2".to_owned(), false)]);
    }
}
