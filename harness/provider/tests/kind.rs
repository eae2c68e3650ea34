//! What is said when kind and Docker cannot do what is wanted. The two programs are played by
//! scripts, which say what the real ones say.

use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;

use tempfile::TempDir;
use touchstone_provider::kind::{
    Kernel, KindCluster, KindError, KindRequest, NodeImage, PodNetwork, ProxyMode, Tools, check,
    create, hold, leftovers,
};
use touchstone_spec::Family;
use touchstone_stand_in::stand_in;
use touchstone_subject::{Manifest, Workload};

/// A machine on which `docker` and `kind` are these scripts; each notes its arguments in `calls`.
struct Machine {
    folder: TempDir,
    tools: Tools,
}

const DOCKER_WORKS: &str = "exit 0";
const NO_CLUSTERS: &str = "exit 0";

impl Machine {
    fn new(docker: &str, kind: &str) -> Machine {
        let folder = TempDir::new().expect("a folder");
        let script = |name: &str, text: &str| -> PathBuf {
            let path = folder.path().join(name);
            let calls = folder.path().join("calls");
            let noted = format!("#!/bin/sh\necho \"{name} $*\" >>{}\n{text}\n", calls.display());
            stand_in(&path, &noted, "755").expect("a script");
            path
        };
        let tools = Tools {
            docker: script("docker", docker),
            kind: script("kind", kind),
            kernel: Kernel::default(),
            engine: None,
        };
        Machine { folder, tools }
    }

    fn request(&self, mode: ProxyMode) -> KindRequest {
        KindRequest {
            name: "touchstone-test".to_owned(),
            families: vec![Family::V4, Family::V6],
            mode,
            network: PodNetwork::Kind,
            nodes: 2,
            image: NodeImage::Default,
            folder: self.folder.path().to_owned(),
        }
    }

    async fn check(&self) -> Result<(), KindError> {
        check(&self.tools, &self.request(ProxyMode::Iptables)).await
    }

    async fn create(&self, image: NodeImage) -> (Result<KindCluster, KindError>, Vec<String>) {
        let told = Mutex::new(Vec::new());
        let tell = |line: &str| told.lock().expect("no panic").push(line.to_owned());
        let request = KindRequest { image, ..self.request(ProxyMode::Iptables) };
        let created = create(&self.tools, &request, &tell).await;
        (created, told.into_inner().expect("no panic"))
    }

    fn calls(&self) -> String {
        fs::read_to_string(self.folder.path().join("calls")).unwrap_or_default()
    }
}

fn fails(error: Result<impl std::fmt::Debug, KindError>) -> (KindError, String) {
    let error = error.expect_err("it must fail");
    let text = error.to_string();
    (error, text)
}

#[tokio::test]
async fn no_docker() {
    let mut machine = Machine::new(DOCKER_WORKS, NO_CLUSTERS);
    machine.tools.docker = "no-such-docker".into();
    let (error, text) = fails(machine.check().await);
    assert_eq!(error, KindError::NoProgram { program: "docker" });
    assert!(text.contains("scripts/kind-engine start"), "{text}");
}

#[tokio::test]
async fn no_kind() {
    let mut machine = Machine::new(DOCKER_WORKS, NO_CLUSTERS);
    machine.tools.kind = "no-such-kind".into();
    let (error, text) = fails(machine.check().await);
    assert_eq!(error, KindError::NoProgram { program: "kind" });
    assert!(text.contains("go install sigs.k8s.io/kind"), "{text}");
}

#[tokio::test]
async fn docker_does_not_run() {
    let machine = Machine::new(
        "echo 'Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker \
         daemon running?' >&2; exit 1",
        NO_CLUSTERS,
    );
    let (error, text) = fails(machine.check().await);
    assert!(matches!(error, KindError::NotRunning { .. }), "{error:?}");
    assert!(text.contains("scripts/kind-engine start"), "{text}");
}

#[tokio::test]
async fn docker_is_not_for_this_user() {
    let machine = Machine::new(
        "echo 'permission denied while trying to connect to the Docker daemon socket at \
         unix:///var/run/docker.sock' >&2; exit 1",
        NO_CLUSTERS,
    );
    let (error, text) = fails(machine.check().await);
    assert!(matches!(error, KindError::NoPermission { .. }), "{error:?}");
    assert!(text.contains("usermod -aG docker"), "{text}");
}

#[tokio::test]
async fn the_name_is_taken() {
    let machine = Machine::new(DOCKER_WORKS, "echo other; echo touchstone-test");
    let (error, text) = fails(machine.check().await);
    assert_eq!(error, KindError::NameTaken { name: "touchstone-test".to_owned() });
    assert!(text.contains("kind delete cluster --name touchstone-test"), "{text}");
    let machine = Machine::new(DOCKER_WORKS, "echo touchstone-test-2");
    machine.check().await.expect("another name is no obstacle");
}

#[tokio::test]
async fn a_name_that_is_taken_meanwhile_is_not_deleted() {
    let machine = Machine::new(
        DOCKER_WORKS,
        "echo 'ERROR: failed to create cluster: node(s) already exist for a cluster with the name \
         \"touchstone-test\"' >&2; exit 1",
    );
    let (created, _) = machine.create(NodeImage::Default).await;
    let (error, _) = fails(created);
    assert_eq!(error, KindError::NameTaken { name: "touchstone-test".to_owned() });
    assert!(!machine.calls().contains("delete"), "{}", machine.calls());
}

#[tokio::test]
async fn no_ipvs_is_said_before_anything_is_started() {
    let mut machine = Machine::new(DOCKER_WORKS, NO_CLUSTERS);
    let modules = machine.folder.path().to_owned();
    let list = modules.join("modules.dep");
    fs::write(&list, "kernel/net/netfilter/xt_ipvs.ko:\n").expect("a list");
    machine.tools.kernel = Kernel { ipvs: modules.join("no-table"), modules: Some(modules) };
    let request = machine.request(ProxyMode::Ipvs);
    let (error, text) = fails(check(&machine.tools, &request).await);
    assert_eq!(error, KindError::NoIpvs);
    assert!(text.contains("--kernel uml"), "{text}");
    assert_eq!(machine.calls(), "");
    fs::write(&list, "kernel/net/netfilter/ipvs/ip_vs.ko.xz: …\n").expect("a list");
    check(&machine.tools, &request).await.expect("a module is enough");
}

#[tokio::test]
async fn the_image_is_missing() {
    let machine = Machine::new(
        "case $1 in image) echo 'Error: No such image: a/node:1' >&2; exit 1 ;; \
         pull) echo 'Error response from daemon: manifest for a/node:1 not found' >&2; exit 1 ;; \
         esac",
        NO_CLUSTERS,
    );
    let (created, told) = machine.create(NodeImage::Named("a/node:1".to_owned())).await;
    let (error, text) = fails(created);
    assert!(matches!(error, KindError::NoImage { .. }), "{error:?}");
    assert!(text.contains("scripts/kind-node-image"), "{text}");
    assert_eq!(told, ["waiting for docker to pull the node image a/node:1"]);
    assert!(!machine.calls().contains("kind create"), "{}", machine.calls());
}

#[tokio::test]
async fn the_registry_wants_credentials() {
    let machine = Machine::new(
        "case $1 in image) exit 1 ;; pull) echo 'Error response from daemon: Head \
         \"https://r.test/v2/node/manifests/1\": unauthorized: authentication required' >&2; \
         exit 1 ;; esac",
        NO_CLUSTERS,
    );
    let (created, _) = machine.create(NodeImage::Named("r.test/node:1".to_owned())).await;
    let (error, text) = fails(created);
    assert!(matches!(error, KindError::Credentials { .. }), "{error:?}");
    assert!(text.contains("docker login"), "{text}");
}

#[tokio::test]
async fn an_archive_without_an_image() {
    let machine = Machine::new("echo 'invalid tar header' >&2; exit 1", NO_CLUSTERS);
    let (created, _) = machine.create(NodeImage::Archive("node.tar".into())).await;
    let (error, text) = fails(created);
    assert!(matches!(error, KindError::Archive { .. }), "{error:?}");
    assert!(text.contains("node.tar") && text.contains("invalid tar header"), "{text}");
}

#[tokio::test]
async fn an_archive_s_image_is_used_by_its_name() {
    let machine =
        Machine::new("case $1 in load) echo 'Loaded image: own/node:1' ;; esac", NO_CLUSTERS);
    let (created, told) = machine.create(NodeImage::Archive("node.tar".into())).await;
    created.expect("a cluster");
    assert!(machine.calls().contains("--image own/node:1"), "{}", machine.calls());
    let waited: Vec<&str> = told.iter().filter_map(|l| l.strip_prefix("waiting for ")).collect();
    assert_eq!(
        waited,
        [
            "docker to load node.tar",
            "kind to create the cluster touchstone-test: 2 nodes, kube-proxy iptables",
            "its nodes to be ready",
            "daemonset/kube-proxy to be ready",
            "deployment/coredns to be ready",
        ]
    );
}

#[tokio::test]
async fn a_cluster_that_does_not_become_ready_is_deleted() {
    let machine = Machine::new(
        "case \"$*\" in *rollout*status*coredns*) echo 'error: timed out waiting for the condition' >&2; \
         exit 1 ;; esac",
        NO_CLUSTERS,
    );
    let (created, _) = machine.create(NodeImage::Default).await;
    let (error, text) = fails(created);
    assert!(matches!(error, KindError::NotReady { .. }), "{error:?}");
    assert!(text.contains("deployment/coredns is not ready"), "{text}");
    assert!(text.contains("fewer --nodes") && text.contains("fs.inotify"), "{text}");
    let calls = machine.calls();
    assert!(calls.contains("kind delete cluster --name touchstone-test"), "{calls}");
}

#[tokio::test]
async fn deleting_is_tried_again() {
    let machine = Machine::new(
        DOCKER_WORKS,
        "case $1 in delete) if [ -e \"$0.tried\" ]; then exit 0; fi; touch \"$0.tried\"; echo \
         'ERROR: failed to delete nodes' >&2; exit 1 ;; esac",
    );
    let kubeconfig = machine.folder.path().join("kubeconfig");
    let cluster = KindCluster::existing(&machine.tools, "touchstone-test", kubeconfig);
    cluster.delete().await.expect("the second attempt counts");
    assert_eq!(machine.calls().matches("kind delete").count(), 2);
}

#[tokio::test]
async fn a_client_that_docker_cannot_remove_at_once_keeps_no_node() {
    let machine = Machine::new(
        "case $1 in ps) if [ ! -e \"$0.removed\" ]; then echo c1; fi ;; rm) if [ -e \"$0.tried\" ]; \
         then touch \"$0.removed\"; exit 0; fi; touch \"$0.tried\"; echo 'Error response from \
         daemon: did not receive an exit event' >&2; exit 1 ;; esac",
        NO_CLUSTERS,
    );
    let kubeconfig = machine.folder.path().join("kubeconfig");
    let cluster = KindCluster::existing(&machine.tools, "touchstone-test", kubeconfig);
    cluster.delete().await.expect("the second attempt counts");
    let calls = machine.calls();
    let removals: Vec<usize> = calls.match_indices("docker rm").map(|(at, _)| at).collect();
    let nodes = calls.find("kind delete").expect("the nodes are deleted");
    assert!(removals.len() == 2 && removals[0] < nodes && nodes < removals[1], "{calls}");
}

#[tokio::test]
async fn a_cluster_is_looked_for_in_its_own_engine() {
    let says = "test \"$1\" = context && echo unix:///run/own.sock; echo \"$DOCKER_HOST\" >&2
        test \"$DOCKER_HOST\" != tcp://gone || { echo 'Cannot connect to the Docker daemon' >&2; exit 1; }
        test \"$DOCKER_HOST\" = tcp://other && echo a-node || true";
    let machine = Machine::new(says, NO_CLUSTERS);
    assert_eq!(machine.tools.engine().await.as_deref(), Some("unix:///run/own.sock"));
    let gone = async |engine: Option<&str>| {
        let tools = Tools { engine: engine.map(str::to_owned), ..machine.tools.clone() };
        KindCluster::existing(&tools, "touchstone-a", PathBuf::new()).is_gone().await
    };
    assert_eq!(gone(None).await, Ok(true));
    assert_eq!(gone(Some("tcp://other")).await, Ok(false));
    assert!(matches!(gone(Some("tcp://gone")).await, Err(KindError::NotRunning { .. })));
}

#[test]
fn a_cluster_is_left_over_when_its_process_is_gone() {
    let home = TempDir::new().expect("a folder");
    assert_eq!(leftovers(&home.path().join("none")).expect("no home, no leftovers"), []);
    let held = hold(home.path(), "touchstone-a").expect("it is ours");
    hold(home.path(), "touchstone-a").expect_err("it is ours alone");
    assert_eq!(leftovers(home.path()).expect("readable"), []);
    held.keep().expect("noted");
    held.lives_in("unix:///run/a.sock").expect("noted");
    drop(held);
    let left = leftovers(home.path()).expect("readable");
    let [kept] = left.as_slice() else { panic!("one is left: {left:?}") };
    assert!(kept.name == "touchstone-a" && kept.kept);
    assert_eq!(kept.engine.as_deref(), Some("unix:///run/a.sock"));
    kept.forget().expect("it goes");
    assert_eq!(leftovers(home.path()).expect("readable"), []);
    hold(home.path(), "touchstone-b").expect("ours").forget().expect("it goes");
    assert_eq!(leftovers(home.path()).expect("readable"), []);
}

/// Installs a DaemonSet where kubectl says this; gives what went wrong.
async fn install(kubectl: &str) -> (Result<(), KindError>, String) {
    let machine = Machine::new(&format!("case \"$*\" in {kubectl} esac"), NO_CLUSTERS);
    let cluster =
        KindCluster::existing(&machine.tools, "touchstone-test", machine.folder.path().into());
    let manifest = Manifest {
        path: "proxy.yaml".into(),
        text: "kind: DaemonSet".to_owned(),
        workloads: vec![Workload {
            kind: "daemonset".to_owned(),
            namespace: "proxies".to_owned(),
            name: "proxy".to_owned(),
            labels: [("app".to_owned(), "proxy".to_owned())].into(),
        }],
        new_kinds: vec!["things.example.test".to_owned()],
    };
    let folder = machine.folder.path();
    let done = cluster.install(&[manifest], PodNetwork::Subject, folder, &|_| {}).await;
    (done, machine.calls())
}

#[tokio::test]
async fn a_replacement_is_applied_and_waited_for_in_order() {
    let (done, calls) = install("*) ;;").await;
    done.expect("everything is ready");
    let order = [
        "apply --server-side",
        "wait --for=condition=Established",
        "rollout status daemonset/proxy",
        "wait --for=condition=Ready nodes",
        "rollout status deployment/coredns",
    ];
    let places: Vec<usize> = order
        .iter()
        .map(|call| calls.find(call).unwrap_or_else(|| panic!("{call} is not in\n{calls}")))
        .collect();
    assert!(places.is_sorted(), "{calls}");
}

#[tokio::test]
async fn a_manifest_that_the_cluster_refuses_is_named() {
    let (done, _) = install("*apply*) echo 'unknown field spec.x' >&2; exit 1 ;;").await;
    let (_, text) = fails(done);
    assert_eq!(text, "the cluster refuses proxy.yaml: unknown field spec.x");
}

#[tokio::test]
async fn pods_that_will_never_be_ready_are_shown_with_their_last_lines() {
    let pods = r#"{"items":[{"metadata":{"name":"proxy-1"},"spec":{"nodeName":"node-1"},"status":
        {"containerStatuses":[{"name":"main","ready":false,"restartCount":4,"state":
        {"waiting":{"reason":"CrashLoopBackOff","message":"back-off"}}}]}}]}"#;
    let kubectl = format!(
        "*daemonset/proxy*) echo 'error: timed out waiting for the condition' >&2; exit 1 ;; \
         *'get pods --selector=app=proxy'*) echo '{pods}' ;; *logs*--previous*) echo no nft here ;;"
    );
    let (_, text) = fails(install(&kubectl).await.0);
    assert_eq!(
        text,
        "daemonset/proxy in proxies does not become ready: container main of pod proxy-1 on node-1: \
         CrashLoopBackOff: back-off, started 5 times\n    no nft here"
    );
}
