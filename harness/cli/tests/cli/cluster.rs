//! Real clusters, as far as they can be tried without one: what is printed and written, and what
//! people get wrong.

use std::net::{Ipv4Addr, TcpListener};

use crate::common::{Bench, RUN_LIMIT, Running};

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
