//! Real clusters, as far as they can be tried without one: what is printed and written, and what
//! people get wrong.

use std::net::{Ipv4Addr, TcpListener};

use nix::sys::signal::Signal;
use serde_json::json;
use tokio::runtime::Runtime;
use touchstone_apiserver::{ApiServer, Config, ServeHandle};

use crate::common::{Bench, RUN_LIMIT, Running, eventually};

const USAGE: i32 = 64;
const HARNESS: i32 = 3;

const KUBECONFIG: &str = "\
apiVersion: v1
kind: Config
current-context: c
clusters: [{ name: c, cluster: { server: \"http://ADDRESS\" } }]
users: [{ name: u, user: {} }]
contexts: [{ name: c, context: { cluster: c, user: u } }]
";

/// A kubeconfig of a cluster that does not answer.
fn nobody(bench: &Bench) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    let text = KUBECONFIG.replace("ADDRESS", &address.to_string());
    bench.write("kubeconfig", &text).display().to_string()
}

/// A cluster of two nodes without kubelets, and its kubeconfig as `touchstone lab up` writes it.
struct Somebody {
    api: ApiServer,
    kubeconfig: String,
    _serving: ServeHandle,
    _runtime: Runtime,
}

fn somebody(bench: &Bench) -> Somebody {
    let runtime = Runtime::new().expect("a runtime");
    let inside = runtime.enter();
    let api = ApiServer::new(Config::default());
    for (name, ip) in [("one", "192.0.2.1"), ("two", "192.0.2.2")] {
        let status = json!({
            "addresses": [{ "type": "InternalIP", "address": ip }],
            "conditions": [{ "type": "Ready", "status": "True" }],
        });
        let node = json!({
            "apiVersion": "v1", "kind": "Node", "metadata": { "name": name }, "status": status,
        });
        api.create(node).expect("a node");
    }
    let of_names = |name: &str| json!({ "namespace": "kube-system", "name": name });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": of_names("kube-dns"),
        "spec": { "clusterIP": "10.96.0.10", "ports": [{ "port": 53, "protocol": "UDP" }] },
    });
    api.create(service).expect("a Service");
    let mut slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": of_names("kube-dns-1"),
        "endpoints": [{ "addresses": ["10.244.0.2"], "targetRef": { "name": "coredns-1" } }],
    });
    slice["metadata"]["labels"] = json!({ "kubernetes.io/service-name": "kube-dns" });
    api.create(slice).expect("a slice");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let serving = api.serve(listener, "test", Some("hunter2".to_owned())).expect("a server");
    let address = format!("person:hunter2@{}", serving.address());
    let path = bench.write("kubeconfig", &KUBECONFIG.replace("ADDRESS", &address));
    let kubeconfig = path.display().to_string();
    drop(inside);
    Somebody { api, kubeconfig, _serving: serving, _runtime: runtime }
}

fn namespaces(api: &ApiServer) -> Vec<String> {
    let list = api.list("Namespace", None, "").expect("namespaces");
    let names = list.iter().filter_map(|object| object["metadata"]["name"].as_str());
    names.filter(|name| name.starts_with("touchstone")).map(str::to_owned).collect()
}

/// Runs one case on a cluster, with an image that need not be ours.
#[track_caller]
fn check(bench: &Bench, args: &[&str], code: i32, complaints: &[&str]) {
    let mut all = vec!["--provider", "cluster", "--agent-image", "registry.test/agent:1"];
    all.extend(args);
    bench.run(&all).code(code).complains(complaints);
    assert!(!bench.out().join("events.jsonl").exists(), "nothing was to be recorded");
}

#[test]
fn the_role_is_printed() {
    let bench = Bench::new();
    let role = bench.call(&["cluster", "rbac"]);
    role.code(0).says(&["kind: ClusterRole", "resources: [\"pods/portforward\"]"]);
    let zones = "put back at the end of a run";
    assert!(!role.stdout.contains(zones), "{}", role.stdout);
    bench.call(&["cluster", "rbac", "--harmful"]).code(0).says(&[zones]);
}

/// A program that `cargo test` has built carries no agent, one of `scripts/build` does.
#[test]
fn the_image_is_written_alike_or_missed() {
    let bench = Bench::new();
    let write = |name: &str| {
        let path = bench.path(name);
        let done = bench.call(&["cluster", "image", "--out", path.to_str().expect("text")]);
        (done, path)
    };
    let (first, one) = write("one.tar");
    if !one.exists() {
        first.code(HARNESS).complains(&["carries no agent", "scripts/build"]);
        return;
    }
    let (second, two) = write("two.tar");
    assert_eq!(first.code(0).stdout, second.code(0).stdout);
    let bytes = std::fs::read(one).expect("an image");
    assert!(bytes.len() < 5_000_000, "{} bytes", bytes.len());
    assert!(bytes == std::fs::read(two).expect("an image"), "the same agent, other bytes");
}

#[test]
fn kubeconfigs_that_lead_nowhere() {
    let bench = Bench::new();
    let case = "cluster-ip/without-selector[v4,tcp]";
    check(&bench, &["--kubeconfig", "none", case], HARNESS, &["the kubeconfig none"]);
    bench.write("broken", "clusters: [");
    check(&bench, &["--kubeconfig", "broken", case], HARNESS, &["the kubeconfig broken"]);
    let nobody = nobody(&bench);
    let unreached = ["cannot be reached", "kubectl get nodes"];
    check(&bench, &["--kubeconfig", &nobody, case], HARNESS, &unreached);
    check(&bench, &["--kubeconfig", &nobody, "--dry-run", case], HARNESS, &unreached);
    // Clusters of kind's that killed runs left on this machine would come first.
    let mut clean = bench.touchstone(&["clean", "--kubeconfig", &nobody]);
    clean.env("TOUCHSTONE_CACHE", bench.path("cache"));
    Running::start(clean).finish(RUN_LIMIT).code(HARNESS).complains(&unreached);
}

#[test]
fn options_that_make_no_sense_together() {
    let bench = Bench::new();
    let nobody = nobody(&bench);
    let cluster = ["--kubeconfig", nobody.as_str()];
    let with = |more: &[&'static str]| [cluster.to_vec(), more.to_vec()].concat();
    check(
        &bench,
        &with(&["-s", "kube-proxy:iptables", "-s", "kube-proxy:nftables"]),
        USAGE,
        &["one --subject"],
    );
    check(&bench, &with(&["--without-proxy", "n1"]), USAGE, &["only the lab"]);
    check(&bench, &with(&["--binary", "/bin/true"]), USAGE, &["--binary"]);
    check(&bench, &with(&["--kernel", "uml"]), USAGE, &["--kernel is for the lab"]);
    bench.run(&["--dry-run"]).code(USAGE).complains(&["--provider cluster"]);
    bench.run(&["--harmful"]).code(USAGE).complains(&["--provider cluster"]);
}

#[test]
fn a_run_that_is_stopped_while_agents_start_leaves_nothing() {
    for (signal, code) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130)] {
        let bench = Bench::new();
        let Somebody { api, kubeconfig, .. } = &somebody(&bench);
        let image = ["--agent-image", "registry.test/agent:1"];
        let case = ["--kubeconfig", kubeconfig, "cluster-ip/without-selector[v4,tcp]"];
        let args = [&["--provider", "cluster"], image.as_slice(), case.as_slice()].concat();
        let running = bench.start_run(&args);
        eventually("a namespace", RUN_LIMIT, || (!namespaces(api).is_empty()).then_some(()));
        running.signal(signal);
        let done = running.finish(RUN_LIMIT);
        done.code(code).complains(&["removing what was made", "interrupted before any case ran"]);
        assert_eq!(namespaces(api), Vec::<String>::new());
        assert!(!bench.out().exists(), "nothing was recorded");
    }
}

#[test]
fn a_dry_run_lists_each_thing_once_and_says_what_cannot_run() {
    let bench = Bench::new();
    let Somebody { api, kubeconfig, .. } = &somebody(&bench);
    let cases = ["cluster-ip/without-selector", "controllers/*", "sctp/*"];
    let args = ["--provider", "cluster", "--agent-image", "r.test/agent:1", "--dry-run"];
    let done = bench.run(&[&args, ["--kubeconfig", kubeconfig].as_slice(), &cases].concat());
    done.code(0).says(&[
        "-cluster-ip-without-selector, one for each of",
        "variants",
        "Deployment web-n1 of 1 pod at most on one",
        "cannot run here:",
        ": the cluster has no IPv6 addresses for pods and Services",
        ": a client outside of the cluster, which this provider does not have",
        "nothing was created",
    ]);
    let mut lines: Vec<&str> =
        done.stdout.lines().filter(|line| line.starts_with("namespace ")).collect();
    let all = lines.len();
    lines.dedup();
    assert!(all > 2 && lines.len() == all, "{}", done.stdout);
    assert!(!done.stdout.contains("hunter2"), "{}", done.stdout);
    assert_eq!(namespaces(api), Vec::<String>::new());
}
