//! Clusters of kind's, as far as they can be tried without one: what people lack and get wrong.
//! `docker` and `kind` are played by scripts, which say what the real ones say.

use crate::common::{Bench, Done, RUN_LIMIT, Running};

const USAGE: i32 = 64;
const HARNESS: i32 = 3;

const CASE: &str = "cluster-ip/without-selector[v4,tcp]";

/// A machine with these programs and no others of their kinds.
fn machine(docker: Option<&str>, kind: Option<&str>) -> Bench {
    let bench = Bench::new();
    for (name, text) in [("docker", docker), ("kind", kind)] {
        if let Some(text) = text {
            let calls = bench.path("calls");
            let noted = format!("#!/bin/sh\necho \"{name} $*\" >>{}\n{text}\n", calls.display());
            bench.script(&format!("bin/{name}"), &noted);
        }
    }
    bench
}

fn call(bench: &Bench, args: &[&str]) -> Done {
    let mut command = bench.touchstone(args);
    let path = format!("{}:/usr/bin:/bin", bench.path("bin").display());
    // Somebody's own Docker must not be met in another folder of the PATH.
    command.env("PATH", path).env("TOUCHSTONE_CACHE", bench.path("cache"));
    Running::start(command).finish(RUN_LIMIT)
}

fn run(bench: &Bench, args: &[&str]) -> Done {
    let out = bench.out();
    let mut all = vec!["run", "--provider", "kind", "--out", out.to_str().expect("text")];
    all.extend(args);
    all.push(CASE);
    call(bench, &all)
}

#[track_caller]
fn check(bench: &Bench, args: &[&str], code: i32, complaints: &[&str]) {
    run(bench, args).code(code).complains(complaints);
    assert!(!bench.out().exists(), "nothing was to be recorded");
    let calls = std::fs::read_to_string(bench.path("calls")).unwrap_or_default();
    assert!(!calls.contains("create"), "nothing was to be started: {calls}");
}

#[test]
fn docker_does_not_run() {
    let silent = "echo 'Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the \
                  docker daemon running?' >&2; exit 1";
    let remedies = ["docker's engine does not run", "scripts/kind-engine start"];
    check(&machine(Some(silent), Some("exit 0")), &[], HARNESS, &remedies);
}

#[test]
fn docker_is_not_for_this_user() {
    let closed = "echo 'permission denied while trying to connect to the Docker daemon socket at \
                  unix:///var/run/docker.sock' >&2; exit 1";
    let remedies = ["may not use docker", "usermod -aG docker"];
    check(&machine(Some(closed), Some("exit 0")), &[], HARNESS, &remedies);
}

/// A replacement with this section `cluster`, and a manifest of this text beside it.
fn replacement(bench: &Bench, cluster: &str, manifest: &str) -> String {
    bench.write("other/proxy.yaml", manifest);
    bench.script("other/other", "#!/bin/sh");
    let subject = format!(
        "format: 1\nabout: another proxy\nbinary: {{ name: other, sources: [ {{ path: other }} ] }}\n\
         lab: {{ args: [] }}\n{cluster}\n"
    );
    bench.write("other/subject.yaml", &subject).display().to_string()
}

#[test]
fn what_a_replacement_lacks_shows_before_anything_starts() {
    let bench = machine(Some("exit 0"), Some("exit 0"));
    let check = |cluster: &str, manifest: &str, code: i32, complaints: &[&str]| {
        let subject = replacement(&bench, cluster, manifest);
        check(&bench, &["--subject", &subject], code, complaints);
    };
    let whole = "{ apiVersion: v1, kind: Namespace, metadata: { name: a } }";
    check("", whole, USAGE, &["under `cluster`", "--provider cluster"]);
    let named = "cluster: { manifests: [proxy.yaml] }";
    check(named, "a: [b", HARNESS, &["a manifest is no YAML", "proxy.yaml:1"]);
    check(named, "kind: Pod", HARNESS, &["document 1 of", "no `apiVersion`"]);
    check(named, "{{ api_sever }}", HARNESS, &["did you mean `api_server`", "{% raw %}"]);
    let missing = "cluster: { manifests: [no.yaml], made-by: make no.yaml }";
    check(missing, whole, HARNESS, &["no.yaml", "does not exist", "make no.yaml"]);
    let image = |image: &str| format!("cluster: {{ manifests: [proxy.yaml], images: [{image}] }}");
    check(&image("{ archive: no.tar }"), whole, HARNESS, &["no.tar", "does not exist"]);
    check(&image("{ binary: other:1 }"), whole, USAGE, &["localhost/NAME:TAG"]);
    check(&image("{ binary: localhost/other:1 }"), whole, HARNESS, &["/bin/sh", "static"]);
}

#[test]
fn a_bundled_replacement_says_where_its_manifests_come_from() {
    let bench = machine(Some("exit 0"), Some("exit 0"));
    let remedies =
        ["bundled without its manifests", "subjects/cilium/subject.yaml", "helm template"];
    check(&bench, &["--subject", "cilium"], HARNESS, &remedies);
    bench.run(&["--subject", "cilium", CASE]).code(USAGE).complains(&["cilium", "--provider kind"]);
    let listed = call(&bench, &["subject", "list"]);
    listed.code(0).says(&["cilium untested: "]);
}

#[test]
fn a_kept_cluster_is_remembered_until_somebody_deletes_it() {
    let nodes = "case \"$*\" in *io.x-k8s.kind.cluster*) cat $(dirname \"$0\")/nodes ;; esac";
    let bench = machine(Some(nodes), Some("exit 0"));
    let kept = bench.write("cache/kind/clusters/touchstone-1/kept", "");
    bench.write("cache/kind/clusters/touchstone-1/lock", "");
    bench.write("bin/nodes", "abc");
    call(&bench, &["clean"]).code(0).says(&["touchstone-1 was kept on purpose"]);
    assert!(kept.exists());
    bench.write("bin/nodes", "");
    let forgotten =
        "forgetting the cluster touchstone-1, which was kept: none of its nodes is left";
    call(&bench, &["clean"]).code(0).complains(&[forgotten]);
    assert!(!kept.exists());
    call(&bench, &["clean"]).code(0).says(&["no cluster of kind's is left"]);
}

#[test]
fn a_mode_that_kind_does_not_know_is_said() {
    let bench = machine(Some("exit 0"), Some("exit 0"));
    let remedies = ["is not for kind", "iptables, ipvs, nftables", "without --provider kind"];
    check(&bench, &["--subject", "kube-proxy:userspace@v1.25.0"], USAGE, &remedies);
}

#[test]
fn options_that_make_no_sense_together() {
    let bench = machine(Some("exit 0"), Some("exit 0"));
    let two = ["-s", "kube-proxy:iptables", "-s", "kube-proxy:nftables"];
    check(&bench, &two, USAGE, &["one --subject"]);
    check(&bench, &["--dry-run"], USAGE, &["--provider cluster"]);
    check(&bench, &["--without-proxy", "n1"], USAGE, &["only the lab"]);
    bench.run(&["--nodes", "3", CASE]).code(USAGE).complains(&["--provider kind"]);
    bench.run(&["--image", "a/node:1", CASE]).code(USAGE).complains(&["--provider kind"]);
}

#[test]
fn an_image_that_is_missing_leaves_nothing() {
    let none = "case $1 in image) exit 1 ;; pull) echo 'manifest unknown' >&2; exit 1 ;; esac";
    let bench = machine(Some(none), Some("exit 0"));
    let done = run(&bench, &["--image", "a/node:1"]);
    // A program that `cargo test` has built carries no agent, and says so first.
    if done.stderr.contains("carries no agent") {
        done.code(HARNESS).complains(&["scripts/build"]);
    } else {
        done.code(HARNESS).complains(&["a/node:1 is not here", "scripts/kind-node-image"]);
    }
    assert!(!bench.out().exists(), "nothing was to be recorded");
    call(&bench, &["clean"]).code(0).says(&["no cluster of kind's is left"]);
}

#[test]
fn a_cluster_of_kind_s_that_stays_keeps_no_other_from_being_cleaned() {
    let bench =
        machine(Some("echo 'Cannot connect to the Docker daemon' >&2; exit 1"), Some("exit 1"));
    bench.write("cache/kind/clusters/touchstone-a/lock", "");
    call(&bench, &["clean"]).code(HARNESS).complains(&["docker's engine does not run"]);
    let done = call(&bench, &["clean", "--kubeconfig", "none"]);
    done.code(HARNESS).complains(&["the kubeconfig none"]);
    assert!(bench.path("cache/kind/clusters/touchstone-a").exists());
}

#[test]
fn clusters_are_cleaned_in_the_engine_that_they_are_in() {
    let docker = "case $1 in context) echo unix:///run/own.sock; exit ;; esac
        case $DOCKER_HOST in
        tcp://gone) echo 'Cannot connect to the Docker daemon' >&2; exit 1 ;;
        tcp://there) echo abc ;;
        esac";
    let kind = "echo \"$DOCKER_HOST: $*\" >>$(dirname \"$0\")/deleted";
    let bench = machine(Some(docker), Some(kind));
    let note = |name: &str, file: &str, text: &str| {
        bench.write(&format!("cache/kind/clusters/touchstone-{name}/{file}"), text);
    };
    for (name, engine) in [
        ("a", "tcp://gone"),
        ("b", "tcp://there"),
        ("c", "tcp://empty"),
        ("d", "unix:///run/own.sock"),
    ] {
        note(name, "lock", "");
        note(name, "engine", engine);
    }
    note("b", "kept", "");
    let lost = bench.path("cache/kind/clusters/touchstone-a").display().to_string();
    call(&bench, &["clean"])
        .code(HARNESS)
        .complains(&["touchstone-a is in the Docker engine tcp://gone", &lost])
        .says(&["DOCKER_HOST=tcp://there kind delete cluster --name touchstone-b"]);
    let deleted = std::fs::read_to_string(bench.path("bin/deleted")).expect("some are deleted");
    assert!(deleted.contains("tcp://empty: delete cluster --name touchstone-c"), "{deleted}");
    assert!(deleted.contains("\n: delete cluster --name touchstone-d"), "{deleted}");
    assert!(!deleted.contains("touchstone-b"), "{deleted}");
    assert!(std::path::Path::new(&lost).exists(), "what cannot be deleted is remembered");
    assert!(!bench.path("cache/kind/clusters/touchstone-c").exists());
}

#[test]
fn clusters_of_killed_runs_are_found() {
    let nodes = "case \"$*\" in *io.x-k8s.kind.cluster=touchstone-b*) echo abc ;; esac";
    let bench = machine(Some(nodes), Some("exit 0"));
    for (name, file) in
        [("touchstone-a", "lock"), ("touchstone-b", "lock"), ("touchstone-b", "kept")]
    {
        bench.write(&format!("cache/kind/clusters/{name}/{file}"), "");
    }
    let done = call(&bench, &["clean"]);
    done.code(0)
        .complains(&["deleting the cluster touchstone-a"])
        .says(&["touchstone-b was kept on purpose", "kind delete cluster --name touchstone-b"]);
    let calls = std::fs::read_to_string(bench.path("calls")).expect("calls");
    assert!(calls.contains("kind delete cluster --name touchstone-a"), "{calls}");
    assert!(!calls.contains("delete cluster --name touchstone-b"), "{calls}");
    assert!(!bench.path("cache/kind/clusters/touchstone-a").exists());
    assert!(bench.path("cache/kind/clusters/touchstone-b").exists());
}

#[test]
fn only_the_cluster_of_the_run_that_is_named_is_deleted() {
    let bench = machine(Some("exit 0"), Some("exit 0"));
    let [mine, other] = ["touchstone-20261126-120000-cafe", "touchstone-20261127-120000-beef"];
    for name in [mine, other] {
        bench.write(&format!("cache/kind/clusters/{name}/lock"), "");
    }
    let clean = |tag: &str| call(&bench, &["clean", "--run", tag]);
    clean("26120000face").code(0).says(&["no cluster of kind's is left of run 26120000face"]);
    clean("26120000cafe").code(0).complains(&[&format!("deleting the cluster {mine}")]);
    let calls = std::fs::read_to_string(bench.path("calls")).expect("calls");
    assert!(calls.contains(&format!("kind delete cluster --name {mine}")), "{calls}");
    assert!(!calls.contains(other), "{calls}");
    assert!(!bench.path(&format!("cache/kind/clusters/{mine}")).exists());
    assert!(bench.path(&format!("cache/kind/clusters/{other}")).exists());
}
