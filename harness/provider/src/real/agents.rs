//! Agents in pods: made, waited for, connected to, lent to cases.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;
use touchstone_agent::{Agent, protocol};
use touchstone_spec::{PodFacts, PodWish};

use super::access::Access;
use super::names::Names;
use super::survey::{chance, why_unfit};
use super::trouble;
use crate::ClusterError;

/// How long agents may take from their creation until they answer: images are pulled meanwhile.
const START_LIMIT: Duration = Duration::from_secs(180);
/// How long a connection to an agent outside may take.
const SEAT_LIMIT: Duration = Duration::from_secs(10);
/// After how long it is asked whether their nodes are still there.
const NODE_LIMIT: Duration = Duration::from_secs(5);
/// Between two looks at pods that start.
const INTERVAL: Duration = Duration::from_millis(250);
/// Pods of cases on one node at a time; beyond them cases wait for each other.
pub(super) const PODS_PER_NODE: usize = 40;
/// Ports of agents on the loopback of their place; one for each run, for nodes are shared.
const PORTS: std::ops::Range<u16> = 17_000..18_000;

/// Arguments of an agent that listens there and obeys whoever knows the token.
#[must_use]
pub fn agent_arguments(listens: SocketAddr, token: &str) -> [String; 2] {
    [listens.to_string(), protocol::digest(token)]
}

/// Which image agents are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentImage {
    /// Its name.
    pub reference: String,
    /// Whether nodes may pull it; otherwise they must have it.
    pub pulled: bool,
}

/// A place with an agent.
#[derive(Debug, Clone)]
pub(super) struct Manned {
    pub(super) facts: PodFacts,
    pub(super) agent: Agent,
}

/// A pod that is to be made.
#[derive(Debug, Clone)]
pub(super) struct Post {
    /// Name of the pod.
    pub(super) pod: String,
    /// The node as cases call it.
    pub(super) node: String,
    /// The same as the cluster calls it.
    pub(super) real: String,
    /// Whether it stands in the node's own network.
    pub(super) host: bool,
}

/// All agents of a run.
pub(super) struct Agents {
    access: Access,
    names: Names,
    image: AgentImage,
    token: String,
    port: u16,
    /// Real nodes by what cases call them.
    nodes: BTreeMap<String, String>,
    places: Mutex<BTreeMap<String, Agent>>,
    pool: Mutex<Pool>,
    freed: Notify,
}

/// Pods of cases.
#[derive(Default)]
struct Pool {
    /// Pods that nobody uses, by node, the longest unused first.
    idle: BTreeMap<String, VecDeque<PodFacts>>,
    /// Pods that there are, by node.
    made: BTreeMap<String, usize>,
    /// Pods that were ever named.
    named: usize,
}

/// Pods that a case has from now on, and those that must be made for it.
type Reserved = (Vec<PodFacts>, Vec<Post>);

impl Agents {
    pub(super) fn new(
        access: Access,
        names: Names,
        image: AgentImage,
        token: String,
        nodes: BTreeMap<String, String>,
    ) -> Agents {
        let offset = chance(&names.tag) % usize::from(PORTS.end - PORTS.start);
        Agents {
            access,
            port: PORTS.start + u16::try_from(offset).unwrap_or(0),
            names,
            image,
            token,
            nodes,
            places: Mutex::default(),
            pool: Mutex::default(),
            freed: Notify::new(),
        }
    }

    /// The agent of a place.
    pub(super) fn at(&self, place: &str) -> Option<Agent> {
        lock(&self.places).get(place).cloned()
    }

    /// Has an agent stand in a place that is no pod of ours.
    pub(super) fn station(&self, place: &str, agent: Agent) {
        lock(&self.places).insert(place.to_owned(), agent);
    }

    /// Forgets the agent of a place, whose end is nothing unexpected.
    pub(super) fn leave(&self, place: &str) {
        lock(&self.places).remove(place);
    }

    /// The first agent that is gone, with the reason.
    pub(super) fn gone(&self) -> Option<String> {
        let why = lock(&self.places).values().find_map(Agent::gone)?;
        Some(format!(
            "{why}; an agent ends when its pod is killed or evicted or its node is cut off: \
             `kubectl get events -A` and `kubectl get nodes` tell more"
        ))
    }

    /// The longest that any agent was late since a moment.
    pub(super) fn late_since(&self, since: Instant) -> Duration {
        lock(&self.places).values().map(|agent| agent.late_since(since)).max().unwrap_or_default()
    }

    /// Makes pods and connects to the agents in them.
    pub(super) async fn man(&self, posts: &[Post]) -> Result<Vec<Manned>, ClusterError> {
        let path = format!("/api/v1/namespaces/{}/pods", self.names.home());
        let objects: Vec<Value> = posts.iter().map(|post| self.pod(post)).collect();
        let made = objects.iter().map(|object| self.access.need(&path, object));
        for result in futures::future::join_all(made).await {
            result?;
        }
        let running = self.wait(&path, posts).await?;
        let connected = posts.iter().zip(running).map(|(post, addresses)| async move {
            let agent = self.connect(post).await?;
            let facts = PodFacts {
                place: if post.host { post.node.clone() } else { post.pod.clone() },
                node: post.node.clone(),
                addresses,
            };
            self.station(&facts.place, agent.clone());
            Ok(Manned { facts, agent })
        });
        futures::future::join_all(connected).await.into_iter().collect()
    }

    /// Waits until every pod runs; gives the addresses of each.
    async fn wait(&self, path: &str, posts: &[Post]) -> Result<Vec<Vec<IpAddr>>, ClusterError> {
        let began = Instant::now();
        let mut tick = tokio::time::interval(INTERVAL);
        loop {
            tick.tick().await;
            let pods = self.access.list(path, &self.names.selector()).await?;
            let found: Vec<Option<&Value>> = posts
                .iter()
                .map(|post| pods.iter().find(|pod| pod["metadata"]["name"] == json!(post.pod)))
                .collect();
            let mut late = None;
            for (post, pod) in posts.iter().zip(&found) {
                let failed = |why: String| {
                    let act = format!("failed to start the agent {} on {}", post.pod, post.real);
                    ClusterError::new(act, why)
                };
                match pod {
                    Some(pod) if pod["status"]["phase"] == json!("Running") => {}
                    Some(pod) => {
                        if let Some(why) =
                            trouble::of_pod(pod, &self.image.reference, self.image.pulled)
                        {
                            return Err(failed(why));
                        }
                        late = late.or_else(|| Some(failed(said(pod))));
                    }
                    None => late = late.or_else(|| Some(failed("its pod is gone".to_owned()))),
                }
            }
            match late {
                None => return Ok(found.into_iter().flatten().map(addresses).collect()),
                Some(error) if began.elapsed() > START_LIMIT => return Err(error),
                Some(_) if began.elapsed() > NODE_LIMIT => self.look_for_nodes(posts).await?,
                Some(_) => {}
            }
        }
    }

    /// Finds out whether a node is gone on which pods are waited for.
    async fn look_for_nodes(&self, posts: &[Post]) -> Result<(), ClusterError> {
        let nodes = self.access.list("/api/v1/nodes", "").await?;
        for post in posts {
            let node = nodes.iter().find(|node| node["metadata"]["name"] == json!(post.real));
            let why = node.map_or_else(|| Some("there is none any more".to_owned()), why_unfit);
            if let Some(why) = why {
                return Err(ClusterError::new(
                    format!("the node {} can no longer be used", post.real),
                    format!("{why}; `kubectl describe node {}` tells more", post.real),
                ));
            }
        }
        Ok(())
    }

    async fn connect(&self, post: &Post) -> Result<Agent, ClusterError> {
        self.connect_in(&self.names.home(), &post.pod).await.map_err(|error| {
            let act = format!("failed to reach the agent {} on {}", post.pod, post.real);
            ClusterError { act, ..error }
        })
    }

    /// Connects to the agent of a pod that runs, through the API server.
    pub(super) async fn connect_in(
        &self,
        namespace: &str,
        pod: &str,
    ) -> Result<Agent, ClusterError> {
        let pods = self.access.pods(namespace);
        let began = Instant::now();
        let mut tick = tokio::time::interval(INTERVAL);
        loop {
            tick.tick().await;
            let failed = |why: &dyn std::fmt::Display| {
                let act = format!("failed to reach the agent {namespace}/{pod}");
                ClusterError::new(act, why)
            };
            let why = match pods.portforward(pod, &[self.port]).await {
                Ok(mut forwarder) => match forwarder.take_stream(self.port) {
                    Some(stream) => match Agent::greet(stream, pod, &self.token).await {
                        Ok(agent) => {
                            let told = agent.clone();
                            // What ended the forwarding says more than that the stream ended.
                            tokio::spawn(async move {
                                if let Err(error) = forwarder.join().await {
                                    told.ended_by(&error.to_string());
                                }
                            });
                            return Ok(agent);
                        }
                        Err(error) => failed(&error),
                    },
                    None => failed(&"the port is not forwarded"),
                },
                Err(error) => {
                    failed(&trouble::words(&error, self.access.server(), self.access.harm()))
                }
            };
            // It may not listen yet, though its container runs.
            if began.elapsed() > START_LIMIT / 10 {
                return Err(why);
            }
        }
    }

    /// Connects to an agent that is in no pod and listens there.
    pub(super) async fn seat(&self, name: &str, listens: SocketAddr) -> Result<(), ClusterError> {
        let failed = |why: &dyn std::fmt::Display| {
            ClusterError::new(format!("failed to reach the agent {name} at {listens}"), why)
        };
        let stream = TcpStream::connect(listens);
        let stream = timeout(SEAT_LIMIT, stream).await.map_err(|_| failed(&"no answer"))?;
        let stream = stream.map_err(|error| failed(&error))?;
        // Small messages must not wait for each other; without it they are only slower.
        let _ = stream.set_nodelay(true);
        let agent = Agent::greet(stream, name, &self.token).await.map_err(|e| failed(&e))?;
        self.station(name, agent);
        Ok(())
    }

    fn pod(&self, post: &Post) -> Value {
        let mut spec = self.pod_spec();
        spec["nodeName"] = json!(post.real);
        if post.host {
            spec["hostNetwork"] = json!(true);
            // What belongs to a pod's own network is not to be set in a node's.
            spec["securityContext"]["sysctls"] = json!([]);
        }
        let mut object = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": post.pod, "labels": { "app": "touchstone-agent" } },
            "spec": spec,
        });
        self.names.mark(&mut object);
        object
    }

    /// What an agent's pod is like, wherever it stands.
    pub(super) fn pod_spec(&self) -> Value {
        json!({
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "tolerations": [{ "operator": "Exists" }],
            "securityContext": {
                "runAsNonRoot": true,
                "runAsUser": 65532,
                "seccompProfile": { "type": "RuntimeDefault" },
                // Endpoints listen on whatever port a case says.
                "sysctls": [{ "name": "net.ipv4.ip_unprivileged_port_start", "value": "0" }],
            },
            "containers": [{
                "name": "agent",
                "image": self.image.reference,
                "imagePullPolicy": if self.image.pulled { "IfNotPresent" } else { "Never" },
                "args": agent_arguments((Ipv4Addr::LOCALHOST, self.port).into(), &self.token),
                "resources": { "requests": { "cpu": "10m", "memory": "16Mi" } },
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "capabilities": { "drop": ["ALL"] },
                    "readOnlyRootFilesystem": true,
                },
            }],
        })
    }

    /// Pods for the wishes, in their order; waits while other cases have what is missing.
    pub(super) async fn take(&self, wishes: &[PodWish]) -> Result<Vec<PodFacts>, ClusterError> {
        let mut wanted: BTreeMap<&str, usize> = BTreeMap::new();
        for wish in wishes {
            *wanted.entry(&wish.node).or_default() += 1;
        }
        if let Some((node, count)) = wanted.iter().find(|(_, count)| **count > PODS_PER_NODE) {
            return Err(ClusterError::new(
                format!("a case wants {count} pods on {node}"),
                format!("a run makes {PODS_PER_NODE} at most"),
            ));
        }
        let (mut pods, posts) = loop {
            let freed = self.freed.notified();
            match self.reserve(&wanted)? {
                Some(reserved) => break reserved,
                None => freed.await,
            }
        };
        match self.man(&posts).await {
            Ok(new) => pods.extend(new.into_iter().map(|manned| manned.facts)),
            Err(error) => {
                self.give_back(pods);
                return Err(error);
            }
        }
        let mut by_node: BTreeMap<String, VecDeque<PodFacts>> = BTreeMap::new();
        for pod in pods {
            by_node.entry(pod.node.clone()).or_default().push_back(pod);
        }
        let pods = wishes.iter().map(|wish| {
            let pod = by_node.get_mut(&wish.node).and_then(VecDeque::pop_front);
            pod.ok_or_else(|| {
                ClusterError::new("failed to make pods", format!("none on {}", wish.node))
            })
        });
        pods.collect()
    }

    /// Takes so many pods on each node: idle ones, and posts for those that must be made; none
    /// while there is no room.
    fn reserve(&self, wanted: &BTreeMap<&str, usize>) -> Result<Option<Reserved>, ClusterError> {
        let mut pool = lock(&self.pool);
        let missing: Vec<(&str, usize)> = wanted
            .iter()
            .map(|(node, count)| {
                let idle = pool.idle.get(*node).map_or(0, VecDeque::len);
                (*node, count.saturating_sub(idle))
            })
            .collect();
        let made = |node: &str| pool.made.get(node).copied().unwrap_or(0);
        if missing.iter().any(|(node, count)| made(node) + count > PODS_PER_NODE) {
            return Ok(None);
        }
        let mut posts = Vec::new();
        for (node, count) in missing {
            *pool.made.entry(node.to_owned()).or_default() += count;
            for _ in 0..count {
                pool.named += 1;
                posts.push(self.post(format!("pod-{node}-{}", pool.named), node, false)?);
            }
        }
        let mut pods = Vec::new();
        for (node, count) in wanted {
            if let Some(idle) = pool.idle.get_mut(*node) {
                let count = (*count).min(idle.len());
                pods.extend(idle.drain(..count));
            }
        }
        Ok(Some((pods, posts)))
    }

    /// A pod of that name on a node as cases call it.
    pub(super) fn post(&self, pod: String, node: &str, host: bool) -> Result<Post, ClusterError> {
        let real = self.nodes.get(node);
        let real = real.ok_or_else(|| ClusterError::new("no such node", node))?.clone();
        Ok(Post { pod, node: node.to_owned(), real, host })
    }

    /// Forgets the agents that are gone, and the idle pods that they stood in.
    pub(super) fn bury(&self) {
        lock(&self.places).retain(|_, agent| agent.gone().is_none());
        let mut pool = lock(&self.pool);
        let mut gone = Vec::new();
        for idle in pool.idle.values_mut() {
            let (alive, dead): (VecDeque<_>, VecDeque<_>) =
                idle.drain(..).partition(|pod| self.at(&pod.place).is_some());
            *idle = alive;
            gone.extend(dead);
        }
        for pod in gone {
            if let Some(made) = pool.made.get_mut(&pod.node) {
                *made = made.saturating_sub(1);
            }
        }
    }

    /// Pods that nobody uses any more.
    pub(super) fn give_back(&self, pods: Vec<PodFacts>) {
        let mut pool = lock(&self.pool);
        for pod in pods {
            pool.idle.entry(pod.node.clone()).or_default().push_back(pod);
        }
        drop(pool);
        self.freed.notify_waiters();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The addresses of a pod, IPv4 first.
pub(super) fn addresses(pod: &Value) -> Vec<IpAddr> {
    let ips = pod["status"]["podIPs"].as_array().into_iter().flatten();
    let mut addresses: Vec<IpAddr> = ips.filter_map(|ip| ip["ip"].as_str()?.parse().ok()).collect();
    addresses.sort_by_key(IpAddr::is_ipv6);
    addresses
}

/// What a pod that does not run yet says of itself.
fn said(pod: &Value) -> String {
    let status = &pod["status"];
    let waiting = &status["containerStatuses"][0]["state"]["waiting"];
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let words = conditions
        .filter(|condition| condition["status"] != json!("True"))
        .map(|condition| &condition["message"])
        .chain([&status["phase"], &waiting["reason"], &waiting["message"]])
        .filter_map(Value::as_str)
        .filter(|word| !word.is_empty());
    let words: Vec<&str> = words.collect();
    format!(
        "it does not run within {} s: {}; `kubectl describe pod` tells more",
        START_LIMIT.as_secs(),
        words.join(", ")
    )
}

/// Shared by everything that uses the agents of a run.
pub(super) type Shared = Arc<Agents>;
