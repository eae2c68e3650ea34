//! Putting a replacement of kube-proxy into a cluster, by its manifests.

use std::path::Path;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use serde_json::Value;
use touchstone_spec::Family;
use touchstone_subject::{Manifest, Surroundings, Workload};

use super::cluster::{KindCluster, LOAD, READY_SECONDS};
use super::config::PodNetwork;
use super::tools::{ASKING, argument};
use super::trouble::{KindError, wants_credentials};

/// Where every control plane of kind's answers.
const API_PORT: u16 = 6443;
/// After how long pods that do not become ready are looked at, again and again.
const LOOK: &str = "--timeout=10s";
/// How long the cluster's name server may take once Services work.
const NAMES: &str = "--timeout=90s";
/// Starts of a container after which another one will not help.
const STARTS: u64 = 4;
/// How long an image may fail to be pulled before that is taken for an answer.
const PULLING: Duration = Duration::from_secs(60);
/// Last lines of a container that are shown.
const LINES: &str = "--tail=8";

impl KindCluster {
    /// What manifests may know of the cluster.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub async fn surroundings(&self) -> Result<Surroundings, KindError> {
        let args = [
            "--namespace=kube-system",
            "get",
            "configmap",
            "kubeadm-config",
            "--output=jsonpath={.data.ClusterConfiguration}",
        ];
        let what = "ask for the cluster's ranges";
        let told = self.kubectl(ASKING, what, &args).await?;
        let service_cidrs = ranges(&told, "serviceSubnet");
        let lacks = |what: &str| KindError::Refused {
            program: "kubectl",
            what: "ask for the cluster's ranges".to_owned(),
            said: format!("there is no {what}"),
        };
        let primary = service_cidrs.first().ok_or_else(|| lacks("range of cluster IPs"))?;
        let primary = Family::of(primary.addr());
        let nodes = self.nodes().await?;
        let plane = nodes.first().ok_or_else(|| lacks("control plane"))?;
        let addresses = self.addresses_of(plane).await?;
        let api_host = addresses.into_iter().find(|address| Family::of(*address) == primary);
        Ok(Surroundings {
            api_host: api_host.ok_or_else(|| lacks("address of the control plane"))?,
            api_port: API_PORT,
            cluster_cidrs: ranges(&told, "podSubnet"),
            service_cidrs,
        })
    }

    /// Applies manifests and waits until what they run is ready, saying what for, then for what
    /// needs it: nodes without another network, and the cluster's name server.
    ///
    /// # Errors
    /// Which manifest is refused, or which pods do not become ready, with their last lines.
    pub async fn install(
        &self,
        manifests: &[Manifest],
        network: PodNetwork,
        folder: &Path,
        tell: &(dyn Fn(&str) + Sync),
    ) -> Result<(), KindError> {
        for (number, manifest) in (1..).zip(manifests) {
            tell(&format!("applying {}", manifest.path.display()));
            self.apply(number, manifest, folder).await?;
        }
        for workload in manifests.iter().flat_map(|manifest| &manifest.workloads) {
            self.wait_for_workload(workload, tell).await?;
        }
        if network == PodNetwork::Subject {
            let not = "its nodes are not ready, which need the pod network that the subject's \
                       manifests are to bring,";
            self.wait_for_nodes(not, tell).await?;
        }
        tell("waiting for deployment/coredns to be ready, which needs Services");
        let args = ["--namespace=kube-system", "rollout", "status", "deployment/coredns", NAMES];
        match self.kubectl(2 * ASKING, "wait for the name server", &args).await {
            Ok(_) => {}
            // Not every proxy has to serve what a name server needs.
            Err(KindError::Refused { said, .. }) => {
                tell(&format!("it is not, so cases about names may not be judged ({said})"))
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn apply(
        &self,
        number: usize,
        manifest: &Manifest,
        folder: &Path,
    ) -> Result<(), KindError> {
        let file = folder.join(format!("manifest-{number}.yaml"));
        let shown = manifest.path.display().to_string();
        std::fs::write(&file, &manifest.text).map_err(|error| KindError::Refused {
            program: "the file system",
            what: format!("write {}", file.display()),
            said: error.to_string(),
        })?;
        // kubectl is on the node.
        let there = format!("/kind/touchstone-{number}.yaml");
        let to = format!("{}-control-plane:{there}", self.name());
        self.docker(&format!("copy {shown} to a node"), &["cp", argument(&file)?, &to]).await?;
        let name = format!("--filename={there}");
        let args = ["apply", "--server-side", "--field-manager=touchstone", &name];
        let applied = self.kubectl(LOAD, &format!("apply {shown}"), &args).await;
        applied.map_err(|error| {
            error.refused(|said| KindError::Manifest { manifest: shown.clone(), said })
        })?;
        if manifest.new_kinds.is_empty() {
            return Ok(());
        }
        // Objects of these kinds may come in the next file.
        let mut args = vec!["wait", "--for=condition=Established", "--timeout=60s"];
        let kinds: Vec<String> =
            manifest.new_kinds.iter().map(|kind| format!("crd/{kind}")).collect();
        args.extend(kinds.iter().map(String::as_str));
        let what = format!("wait for the kinds of {shown}");
        self.kubectl(2 * ASKING, &what, &args).await.map(drop)
    }

    async fn wait_for_workload(
        &self,
        workload: &Workload,
        tell: &(dyn Fn(&str) + Sync),
    ) -> Result<(), KindError> {
        let Workload { kind, namespace, name, labels: _ } = workload;
        let object = format!("{kind}/{name}");
        let what = format!("{object} in {namespace}");
        tell(&format!("waiting for {what} to be ready"));
        let inside = format!("--namespace={namespace}");
        let args = [inside.as_str(), "rollout", "status", &object, LOOK];
        let began = Instant::now();
        loop {
            let said = match self.kubectl(ASKING, &format!("wait for {what}"), &args).await {
                Ok(_) => return Ok(()),
                Err(KindError::Refused { said, .. }) => said,
                Err(error) => return Err(error),
            };
            let waited = began.elapsed();
            let pods = self.pods_of(workload).await?;
            let late = pods.iter().find_map(late);
            let hopeless = late.as_ref().is_some_and(|late| late.is_hopeless(waited));
            let over = waited > Duration::from_secs(READY_SECONDS) || !said.contains("timed out");
            if hopeless || over {
                let why = match &late {
                    Some(late) => self.last_lines(namespace, late).await,
                    None => self.last_warning(workload, &said).await,
                };
                return Err(KindError::Workload { what, why });
            }
        }
    }

    async fn pods_of(&self, workload: &Workload) -> Result<Vec<Value>, KindError> {
        let labels: Vec<String> =
            workload.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let inside = format!("--namespace={}", workload.namespace);
        let selector = format!("--selector={}", labels.join(","));
        let args = [inside.as_str(), "get", "pods", &selector, "--output=json"];
        let listed = self.kubectl(ASKING, "list pods", &args).await?;
        let listed: Value = serde_json::from_str(&listed).unwrap_or_default();
        Ok(listed["items"].as_array().cloned().unwrap_or_default())
    }

    /// Why a container is not ready, with the last lines that it printed.
    async fn last_lines(&self, namespace: &str, late: &Late) -> String {
        let inside = format!("--namespace={namespace}");
        let mut args =
            vec![inside.as_str(), "logs", &late.pod, "--container", &late.container, LINES];
        if late.restarts > 0 && !late.runs {
            args.push("--previous");
        }
        // Without lines the state alone has to do.
        let lines = self.kubectl(ASKING, "read a log", &args).await.unwrap_or_default();
        let mut why = late.words();
        for line in lines.lines() {
            why.push_str("\n    ");
            why.push_str(line);
        }
        why
    }

    /// Why there is no pod that could be asked.
    async fn last_warning(&self, workload: &Workload, said: &str) -> String {
        let inside = format!("--namespace={}", workload.namespace);
        let of = format!("--field-selector=type=Warning,involvedObject.name={}", workload.name);
        let last = "--output=jsonpath={.items[-1:].message}";
        let args = [inside.as_str(), "get", "events", &of, last];
        match self.kubectl(ASKING, "list events", &args).await {
            Ok(warning) if !warning.trim().is_empty() => warning.trim().to_owned(),
            Ok(_) | Err(_) => said.to_owned(),
        }
    }
}

/// Ranges on the line of kubeadm's configuration that begins with this key.
fn ranges(configuration: &str, key: &str) -> Vec<IpNet> {
    let line = configuration.lines().find_map(|line| {
        let (name, value) = line.trim().split_once(':')?;
        (name == key).then_some(value)
    });
    let ranges = line.unwrap_or_default().split(',');
    ranges.filter_map(|range| range.trim().trim_matches('"').parse().ok()).collect()
}

/// A container that is not ready.
#[derive(Debug, PartialEq, Eq)]
struct Late {
    pod: String,
    node: String,
    container: String,
    reason: String,
    message: String,
    restarts: u64,
    runs: bool,
}

impl Late {
    /// Whether waiting will not help.
    fn is_hopeless(&self, waited: Duration) -> bool {
        match self.reason.as_str() {
            "ErrImageNeverPull" | "InvalidImageName" => true,
            "ErrImagePull" | "ImagePullBackOff" => waited > PULLING,
            "CrashLoopBackOff" => self.restarts >= STARTS,
            _ => false,
        }
    }

    fn words(&self) -> String {
        let Late { pod, node, container, reason, message, restarts, runs: _ } = self;
        let mut words = format!("container {container} of pod {pod} on {node}: {reason}");
        if !message.is_empty() {
            words.push_str(": ");
            words.push_str(message);
        }
        if *restarts > 0 {
            words.push_str(&format!(", started {} times", restarts + 1));
        }
        if reason.contains("Image") {
            words.push_str(if wants_credentials(message) {
                "; the registry asks for credentials, which nodes do not have: write the image to a \
                 file with `docker save`, and name that under `cluster.images` of the subject's file"
            } else {
                "; an image that no registry has is named under `cluster.images` of the subject's \
                 file"
            });
        }
        words
    }
}

/// The first container of a pod that is not ready, the initial ones first.
fn late(pod: &Value) -> Option<Late> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let status = &pod["status"];
    let of = |key: &str| status[key].as_array().cloned().unwrap_or_default();
    let initial = of("initContainerStatuses").into_iter();
    let initial = initial.filter(|status| status["state"]["terminated"]["exitCode"] != 0);
    let others = of("containerStatuses");
    let container = initial.chain(others).find(|status| status["ready"] != true)?;
    let state = &container["state"];
    let runs = state["running"].is_object();
    let waits = [&state["waiting"], &state["terminated"]].into_iter().find(|s| s.is_object());
    let (reason, message) = waits.map_or_else(
        || ("it runs, but is not ready".to_owned(), String::new()),
        |state| (text(&state["reason"]), text(&state["message"])),
    );
    Some(Late {
        pod: text(&pod["metadata"]["name"]),
        node: text(&pod["spec"]["nodeName"]),
        container: text(&container["name"]),
        reason,
        message,
        restarts: container["restartCount"].as_u64().unwrap_or(0),
        runs,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// As kubeadm v1.37 writes it.
    const CONFIGURATION: &str = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n\
        networking:\n  dnsDomain: cluster.local\n  podSubnet: 10.244.0.0/16,fd00:10:244::/56\n  \
        serviceSubnet: 10.96.0.0/16,fd00:10:96::/112\n";

    #[test]
    fn a_cluster_s_ranges_are_read_from_kubeadm_s_configuration() {
        let texts = |key: &str| -> Vec<String> {
            ranges(CONFIGURATION, key).iter().map(ToString::to_string).collect()
        };
        assert_eq!(texts("podSubnet"), ["10.244.0.0/16", "fd00:10:244::/56"]);
        assert_eq!(texts("serviceSubnet"), ["10.96.0.0/16", "fd00:10:96::/112"]);
        assert_eq!(texts("other"), [""; 0]);
    }

    fn pod(state: &Value, restarts: u64) -> Value {
        json!({
            "metadata": { "name": "proxy-1" }, "spec": { "nodeName": "node-1" },
            "status": {
                "initContainerStatuses": [
                    { "name": "early", "ready": false, "state": { "terminated": { "exitCode": 0 } } },
                ],
                "containerStatuses": [
                    { "name": "fine", "ready": true, "state": { "running": {} } },
                    { "name": "proxy", "ready": false, "restartCount": restarts, "state": state },
                ],
            },
        })
    }

    #[test]
    fn a_container_that_will_never_be_ready_is_told_from_one_that_is_late() {
        let check = |reason: &str, restarts: u64, seconds: u64, hopeless: bool| {
            let pod = pod(&json!({ "waiting": { "reason": reason, "message": "why" } }), restarts);
            let late = late(&pod).expect("it is not ready");
            assert_eq!((late.container.as_str(), late.node.as_str()), ("proxy", "node-1"));
            let waited = Duration::from_secs(seconds);
            assert_eq!(late.is_hopeless(waited), hopeless, "{reason} {restarts} {seconds}");
            late.words()
        };
        check("ContainerCreating", 0, 200, false);
        check("CrashLoopBackOff", 1, 20, false);
        let words = check("CrashLoopBackOff", 4, 90, true);
        assert!(words.ends_with("CrashLoopBackOff: why, started 5 times"), "{words}");
        check("ImagePullBackOff", 0, 10, false);
        let words = check("ErrImageNeverPull", 0, 0, true);
        assert!(words.contains("that no registry has is named under `cluster.images`"), "{words}");
        let closed = "failed to authorize: failed to fetch anonymous token: 401 Unauthorized";
        let state = json!({ "waiting": { "reason": "ErrImagePull", "message": closed } });
        let words = late(&pod(&state, 0)).expect("it is not ready").words();
        assert!(words.contains("asks for credentials") && words.contains("docker save"), "{words}");
    }

    #[test]
    fn what_is_ready_is_not_late() {
        let mut pod = pod(&json!({ "running": {} }), 0);
        assert_eq!(
            late(&pod).map(|late| late.reason).as_deref(),
            Some("it runs, but is not ready")
        );
        pod["status"]["containerStatuses"][1]["ready"] = json!(true);
        assert_eq!(late(&pod), None);
    }
}
