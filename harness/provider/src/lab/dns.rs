//! The cluster's name server: CoreDNS, unmodified, in a pod, behind the Service `kube-dns`.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::watch;
use touchstone_apiserver::{ApiServer, ServeHandle};
use touchstone_spec::api::Endpoint;
use touchstone_spec::{
    CLUSTER_DOMAIN, Change, Client, ClientKind, ClusterFacts, DNS_PORT, DnsFacts, Family, Flow,
    FrontendKind, NameAnswer, NodeFacts, Observation, Outcome, PlainPort, PlainService, PodFacts,
    Protocol, Question, RecordType,
};

use super::places::Places;
use super::start::API_PORT;
use crate::ClusterError;

/// Namespace and name of the Service.
pub(super) const NAMESPACE: &str = "kube-system";
const NAME: &str = "kube-dns";
/// What the API server calls the name server.
const WATCHER: &str = "kube-dns";
/// Lines of its log that are kept for evidence.
const KEPT_LINES: usize = 50;
/// How long a question that only leads to a connection may take: that the connection must be
/// How long it may take to end when it is stopped.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// A running name server.
pub(super) struct NameServer {
    pid: Pid,
    state: Arc<Mutex<State>>,
    ended: watch::Receiver<bool>,
    /// Its own listener of the API server.
    _serving: Mutex<ServeHandle>,
}

#[derive(Default)]
struct State {
    stopping: bool,
    died: Option<String>,
    lines: VecDeque<String>,
    log: Option<File>,
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl NameServer {
    /// Starts the program in its pod, with the API server on the pod's loopback.
    pub(super) fn start(
        program: &Path,
        pod: &PodFacts,
        places: &Places,
        api: &ApiServer,
        log: Option<&PathBuf>,
    ) -> Result<NameServer, ClusterError> {
        let failed = |why: String| {
            ClusterError::new(
                format!("failed to start {} in {}", program.display(), pod.place),
                why,
            )
        };
        let held = places.hold(&pod.place).ok_or_else(|| failed("no such place".to_owned()))?;
        let namespace = held.namespace().ok_or_else(|| failed("it is gone".to_owned()))?;
        let api_address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), API_PORT);
        let listener =
            namespace.tcp_listener(api_address).map_err(|error| failed(error.to_string()))?;
        let serving =
            api.serve(listener, WATCHER, None).map_err(|error| failed(error.to_string()))?;
        let mut command = Command::new(program);
        command
            .args(["-conf", "stdin"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // So that the terminal's ^C reaches the harness alone.
            .process_group(0);
        let mut child = namespace.spawn(command).map_err(|error| failed(error.to_string()))?;
        if let Some(mut input) = child.stdin.take() {
            input
                .write_all(corefile().as_bytes())
                .map_err(|error| failed(format!("failed to write its configuration: {error}")))?;
        }
        let log = log
            .map(|path| File::create(path).map_err(|error| failed(error.to_string())))
            .transpose()?;
        let state = Arc::new(Mutex::new(State { log, ..State::default() }));
        let pid = Pid::from_raw(child.id().cast_signed());
        let (tell, ended) = watch::channel(false);
        let waiting = Arc::clone(&state);
        std::thread::spawn(move || {
            wait(child, &waiting);
            // Nobody waits for it any more when the cluster is gone.
            let _ = tell.send(true);
        });
        Ok(NameServer { pid, state, ended, _serving: Mutex::new(serving) })
    }

    /// Why it ended, when nobody wanted it to.
    pub(super) fn died(&self) -> Option<String> {
        lock(&self.state).died.clone()
    }

    /// The last lines of its log.
    pub(super) fn last_lines(&self) -> Vec<String> {
        lock(&self.state).lines.iter().cloned().collect()
    }

    /// Stops it and waits for its end.
    pub(super) async fn stop(&self) -> Result<(), ClusterError> {
        {
            let mut state = lock(&self.state);
            state.stopping = true;
            if state.died.is_none() && !*self.ended.borrow() {
                // It may have ended just now; then nothing is left to stop.
                let _ = kill(self.pid, Signal::SIGKILL);
            }
        }
        let mut ended = self.ended.clone();
        match tokio::time::timeout(STOP_LIMIT, ended.wait_for(|ended| *ended)).await {
            Ok(_) => Ok(()),
            Err(_) => Err(ClusterError::new(
                "failed to stop the name server",
                format!("it did not end within {} s", STOP_LIMIT.as_secs()),
            )),
        }
    }
}

fn wait(mut child: Child, state: &Arc<Mutex<State>>) {
    let outputs: Vec<Box<dyn Read + Send>> = [
        child.stdout.take().map(|out| Box::new(out) as Box<dyn Read + Send>),
        child.stderr.take().map(|out| Box::new(out) as Box<dyn Read + Send>),
    ]
    .into_iter()
    .flatten()
    .collect();
    let readers: Vec<_> = outputs
        .into_iter()
        .map(|output| {
            let state = Arc::clone(state);
            std::thread::spawn(move || keep_lines(output, &state))
        })
        .collect();
    let status = child.wait();
    for reader in readers {
        // A reader that panicked has kept what it read.
        let _ = reader.join();
    }
    let mut state = lock(state);
    if !state.stopping {
        let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        state.died = Some(format!("the name server ended: {how}"));
    }
}

fn keep_lines(output: Box<dyn Read + Send>, state: &Mutex<State>) {
    let mut reader = BufReader::new(output);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut reader).take(2_000).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                let mut state = lock(state);
                if let Some(log) = &mut state.log {
                    // A log that cannot be written is missing for a person, not for a verdict.
                    let _ = log.write_all(&line);
                }
                if state.lines.len() == KEPT_LINES {
                    state.lines.pop_front();
                }
                state.lines.push_back(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
        }
    }
}

/// The configuration.
pub(super) fn corefile() -> String {
    crate::corefile::corefile(&format!("        endpoint http://127.0.0.1:{API_PORT}\n"), &[])
}

/// The Service and its slices.
pub(super) fn objects(dns: &DnsFacts, families: &[Family]) -> Vec<Change> {
    let port = |name, protocol| PlainPort { name, protocol, port: DNS_PORT, target_port: DNS_PORT };
    PlainService {
        namespace: NAMESPACE,
        name: NAME,
        ips: families.iter().filter_map(|family| dns.address(*family)).collect(),
        ports: &[port("dns", Protocol::Udp), port("dns-tcp", Protocol::Tcp)],
    }
    .changes(|family| {
        let server = |server: &PodFacts| {
            Some(Endpoint {
                addresses: vec![server.address(family)?.to_string()],
                node_name: Some(server.node.clone()),
                ..Endpoint::default()
            })
        };
        dns.servers.iter().filter_map(server).collect()
    })
}

/// What a name server must have answered before the cluster is ready.
#[derive(Default)]
pub(super) struct FirstQuestions {
    /// To the server itself, which is the lab's affair.
    pub(super) direct: Vec<Flow>,
    /// Through its Service, from every node with a proxy in every family that the proxy has.
    pub(super) through: Vec<Flow>,
}

impl FirstQuestions {
    pub(super) fn of(
        facts: &ClusterFacts,
        families: &[Family],
        without_proxy: &BTreeSet<String>,
    ) -> FirstQuestions {
        let Some(dns) = &facts.dns else { return FirstQuestions::default() };
        let services: Vec<IpAddr> =
            families.iter().filter_map(|family| dns.address(*family)).collect();
        // A name server has an address of each family, its Service those of the proxy alone.
        let asked = |ip: &&IpAddr| families.contains(&Family::of(**ip));
        let own = || dns.servers.iter().flat_map(|server| &server.addresses).filter(asked);
        let nodes = facts.nodes.iter().filter(|node| !without_proxy.contains(&node.name));
        FirstQuestions {
            direct: facts
                .nodes
                .first()
                .into_iter()
                .flat_map(|node| own().filter_map(|ip| first_question(node, *ip)))
                .collect(),
            through: nodes
                .flat_map(|node| services.iter().filter_map(|ip| first_question(node, *ip)))
                .collect(),
        }
    }
}

/// The first question to a name server, from a node's client pod: what is `kube-dns` itself?
fn first_question(node: &NodeFacts, server: IpAddr) -> Option<Flow> {
    let family = Family::of(server);
    Some(Flow {
        client: Client {
            kind: ClientKind::Pod,
            place: node.client.place.clone(),
            node: Some(node.name.clone()),
            address: node.client.address(family)?,
        },
        via: None,
        to: SocketAddr::new(server, DNS_PORT),
        protocol: Protocol::Udp,
        frontend: FrontendKind::Name,
        question: Some(Question {
            name: format!("{NAME}.{NAMESPACE}.svc.{CLUSTER_DOMAIN}."),
            types: [RecordType::of(family)].into(),
            search: Vec::new(),
            then: None,
        }),
        size: 0,
        source_port: None,
        http: None,
        text: format!("the name server {server} from {}", node.name),
    })
}

/// Whether a question was answered with records.
pub(super) fn is_answered(saw: &Observation) -> bool {
    matches!(saw, Observation::Saw(Outcome::Answered(NameAnswer::Records(_))))
}
