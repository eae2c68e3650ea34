//! What people get wrong, what a machine forbids, and what interrupts a run: each has its exit
//! code and says what to do.

use std::time::Duration;

use crate::common::{Bench, Done, LabTurn, Part, RUN_LIMIT, Running, eventually};
use nix::sys::signal::Signal;

const USAGE: i32 = 64;
const HARNESS: i32 = 3;
const PLAN: i32 = 4;
const CONFORMANCE: i32 = 1;

/// One cell that takes a second or two.
const ONE_CELL: &str = "cluster-ip/basic[v4,tcp]";

/// A case whose parts a test replaces.
const CASE: &str = "\
about: a client reaches the only endpoint
covers: [clusterip-tcp-basic]
level: must
axes: { family: [v4], protocol: [tcp] }
world:
  services:
    web: { ports: [{ name: p, port: 80 }] }
  endpoints:
    web: { a: { node: n1 } }
steps:
  - expect:
      - { from: pod, to: web clusterIP, reaches: a }
";

/// A subject that declares the least that a canary needs.
const SUBJECT: &str = "\
format: 1
about: A program that is no proxy.
binary:
  name: my-proxy
  sources: [{ path: my-proxy }]
features: { ipv4: {}, tcp: {} }
lab:
  args: []
";

/// Runs the case with one text replaced by another, and looks at its errors.
#[track_caller]
fn check_case(from: &str, to: &str, code: i32, complaints: &[&str]) {
    assert!(CASE.contains(from), "{from}");
    let bench = Bench::new();
    let file = bench.write("cases/own/one.yaml", &CASE.replace(from, to));
    let folder = bench.path("cases");
    bench
        .run(&["--provider", "sim", "--cases", folder.to_str().expect("text"), "own/one"])
        .code(code)
        .complains(complaints);
    assert_eq!(bench.out().exists(), code == 0, "a refused run leaves a folder behind");
    bench.call(&["explain", file.to_str().expect("text")]).code(code).complains(complaints);
}

#[test]
fn the_case_itself_is_fine() {
    check_case("a client", "a client", 0, &[]);
}

#[test]
fn an_unknown_key_comes_with_its_place_and_a_suggestion() {
    check_case(
        "services:",
        "servcies:",
        USAGE,
        &["own/one.yaml:6:3", "unknown key `servcies`", "did you mean `services`?"],
    );
}

#[test]
fn a_wrong_type_is_named() {
    check_case(
        "port: 80",
        "port: eighty",
        USAGE,
        &["own/one.yaml:7:", "expected a number up to 65535"],
    );
}

#[test]
fn an_endpoint_needs_a_node_that_exists() {
    check_case("node: n1", "node: n9", USAGE, &["own/one.yaml:9:", "n9"]);
}

#[test]
fn a_pin_that_the_model_contradicts_is_refused() {
    check_case(
        "reaches: a }",
        "is: refused }",
        USAGE,
        &["own/one.yaml:12:", "pin: refused", "model: reached web/a", "because"],
    );
}

/// Runs a cell on a subject of the test's own: its file, and its program if it has one.
fn on_own_subject(bench: &Bench, subject: &str, program: Option<&str>) -> Done {
    bench.write("my-proxy/subject.yaml", subject);
    if let Some(text) = program {
        bench.script("my-proxy/my-proxy", text);
    }
    bench.run(&["--subject", "./my-proxy", ONE_CELL])
}

#[test]
fn a_subject_names_its_binary() {
    let without =
        SUBJECT.replace("binary:\n  name: my-proxy\n  sources: [{ path: my-proxy }]\n", "");
    let bench = Bench::new();
    on_own_subject(&bench, &without, None).code(USAGE).complains(&["subject.yaml:1:", "`binary`"]);
    let without = SUBJECT.replace("  name: my-proxy\n", "");
    let bench = Bench::new();
    on_own_subject(&bench, &without, None).code(USAGE).complains(&["subject.yaml:4", "`name`"]);
}

#[test]
fn a_program_must_be_there_and_executable() {
    let bench = Bench::new();
    on_own_subject(&bench, SUBJECT, None).code(HARNESS).complains(&[
        "found no my-proxy",
        "my-proxy/my-proxy",
        "remedy:",
    ]);
    let text = bench.write("plain", "#!/bin/sh\n");
    bench
        .run(&["--binary", text.to_str().expect("text"), ONE_CELL])
        .code(USAGE)
        .complains(&["failed to use the given binary", "plain is not executable"]);
    bench
        .run(&["--binary", "/nowhere/kube-proxy", ONE_CELL])
        .code(USAGE)
        .complains(&["/nowhere/kube-proxy"]);
}

#[test]
fn a_proxy_that_ends_at_once_fails_with_its_last_words() {
    let _turn = LabTurn::take();
    let bench = Bench::new();
    on_own_subject(&bench, SUBJECT, Some("#!/bin/sh\necho this is too much for me\nexit 7\n"))
        .code(CONFORMANCE);
    let report = bench.report();
    report.expect(ONE_CELL, "inconclusive").expect("lifecycle/proxy-stays-up", "fail");
    let evidence = &report.failures("lifecycle/proxy-stays-up")[0].evidence.join("\n");
    assert!(evidence.contains("exit status: 7"), "{evidence}");
    assert!(evidence.contains("this is too much for me"), "{evidence}");
    bench.nothing_is_left(&[].into());
}

#[test]
fn a_proxy_that_does_nothing_is_given_up() {
    let _turn = LabTurn::take();
    let bench = Bench::new();
    on_own_subject(&bench, SUBJECT, Some("#!/bin/sh\necho I am healthy\nexec sleep 1000\n"))
        .code(CONFORMANCE);
    let report = bench.report();
    report.expect(ONE_CELL, "inconclusive").expect("lifecycle/proxy-stays-up", "fail");
    let evidence = &report.failures("lifecycle/proxy-stays-up")[0].evidence.join("\n");
    assert!(evidence.contains("the canary Service from n1 over v4 does not answer"), "{evidence}");
    assert!(evidence.contains("I am healthy"), "{evidence}");
    bench.nothing_is_left(&[].into());
}

/// Runs `touchstone run --out out CELL` after shell text in namespaces of its own.
fn in_namespaces(bench: &Bench, before: &str, after: &str) -> Running {
    let text = format!(
        "mkdir -p out && {before} && {{ {} run --out out '{ONE_CELL}'; code=$?; {after} exit $code; }}",
        env!("CARGO_BIN_EXE_touchstone")
    );
    Running::start(bench.command("unshare", &["-Urm", "sh", "-c", &text]))
}

#[test]
fn forbidden_user_namespaces_come_with_the_switch() {
    let bench = Bench::new();
    // The number counts for this user namespace and those in it, not for the machine.
    in_namespaces(&bench, "echo 0 > /proc/sys/user/max_user_namespaces", "")
        .finish(RUN_LIMIT)
        .code(HARNESS)
        .complains(&[
            "the lab could not be entered",
            "user.max_user_namespaces is 0",
            "sysctl -w user.max_user_namespaces=",
            "touchstone doctor",
        ]);
}

#[test]
fn a_masked_proc_comes_with_the_option() {
    let bench = Bench::new();
    in_namespaces(&bench, "mount --bind /dev/null /proc/interrupts", "")
        .finish(RUN_LIMIT)
        .code(HARNESS)
        .complains(&["failed to mount a fresh /proc", "--security-opt systempaths=unconfined"]);
}

#[test]
fn results_of_an_earlier_run_are_not_taken_for_those_of_this_one() {
    let bench = Bench::new();
    bench.run(&["--provider", "sim", ONE_CELL]).code(0);
    assert!(bench.out().join("report.json").exists());
    let done = in_namespaces(&bench, "mount --bind /dev/null /proc/interrupts", "");
    let done = done.finish(RUN_LIMIT);
    done.code(HARNESS).complains(&["failed to mount a fresh /proc"]);
    assert!(!done.stdout.contains("exit code 0"), "{done}");
    let left: Vec<_> = std::fs::read_dir(bench.out()).expect("a folder").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_subject_that_this_kernel_cannot_carry_is_refused() {
    if std::path::Path::new("/proc/net/ip_vs").exists() {
        return;
    }
    let _turn = LabTurn::take();
    let bench = Bench::new();
    bench.run(&["--subject", "kube-proxy:ipvs", ONE_CELL]).code(HARNESS).complains(&[
        "nothing can run on",
        "kube-proxy:ipvs needs IPVS",
        "--kernel uml",
    ]);
}

#[test]
fn a_full_disk_keeps_what_was_recorded() {
    let _turn = LabTurn::take();
    let bench = Bench::new();
    // The log of the cell alone is larger.
    in_namespaces(&bench, "mount -t tmpfs -o size=32k none out", "cp -r out kept;")
        .finish(RUN_LIMIT)
        .code(HARNESS)
        .complains(&["No space left on device", "is kept", "free some space"]);
    // Reports can be made of it elsewhere, and they are not green.
    // Whether there was room for the reason depends on what was written last.
    let done = bench.call(&["report", "kept"]);
    done.says(&["CUT SHORT", "NOT RUN kube-proxy:iptables", ONE_CELL]);
    assert!([HARNESS, PLAN].map(Some).contains(&done.status.code()), "{done}");
    bench.nothing_is_left(&[].into());
}

#[test]
fn output_that_nobody_takes_is_no_panic() {
    let bench = Bench::new();
    let calls: [&[&str]; 4] = [&["completions", "bash"], &["list"], &["spec"], &["schema", "case"]];
    for call in calls {
        let text = "program=$1; shift; exec \"$program\" \"$@\" > /dev/full";
        let mut all = vec!["-c", text, "sh", env!("CARGO_BIN_EXE_touchstone")];
        all.extend(call);
        let done = Running::start(bench.command("sh", &all)).finish(RUN_LIMIT);
        assert!(!done.code(0).stderr.contains("panicked"), "{done}");
    }
}

#[test]
fn completions_know_the_commands() {
    let bench = Bench::new();
    for shell in ["bash", "zsh", "fish"] {
        bench.call(&["completions", shell]).code(0).says(&["pause-on-failure", "doctor"]);
    }
    bench.call(&["completions", "cmd"]).code(USAGE).complains(&["bash", "zsh", "fish"]);
}

#[test]
fn the_log_needs_a_folder() {
    let bench = Bench::new();
    bench.write("file", "");
    bench
        .call(&["run", "--provider", "sim", "--out", "file/out", ONE_CELL])
        .code(HARNESS)
        .complains(&["failed to make the folder file/out", "--out"]);
}

/// A run that would take long, in its lab, with a case going on.
fn long_run(bench: &Bench) -> Running {
    let run = bench.start_run(&["--jobs", "1", "session-affinity/*", "cluster-ip/*"]);
    bench.event("case-started");
    run
}

/// Interrupts a run once and looks at what is left of it.
fn interrupted(signal: Signal, code: i32, word: &str) {
    let _turn = LabTurn::take();
    let bench = Bench::new();
    let run = long_run(&bench);
    let namespaces = bench.namespaces();
    assert!(namespaces.len() > 10, "a lab has many namespaces: {namespaces:?}");
    run.signal(signal);
    run.finish(Duration::from_secs(20)).code(code).says(&["partial"]);
    bench.nothing_is_left(&namespaces);
    let report = bench.report();
    assert_eq!(report.0["exit_code"], code);
    assert_eq!(report.0["ended"], false);
    let not_run = report.results().iter().filter(|result| result["verdict"] == "not-run").count();
    assert!(not_run > 10, "{}", report.verdicts());
    assert!(bench.events().iter().any(|e| e["event"] == "interrupted" && e["signal"] == word));
}

#[test]
fn ctrl_c_ends_a_run_with_a_partial_report() {
    interrupted(Signal::SIGINT, 130, "SIGINT");
}

#[test]
fn sigterm_ends_a_run_with_a_partial_report() {
    interrupted(Signal::SIGTERM, 143, "SIGTERM");
}

#[test]
fn a_second_ctrl_c_ends_a_run_at_once() {
    let _turn = LabTurn::take();
    let bench = Bench::new();
    let mut run = long_run(&bench);
    let namespaces = bench.namespaces();
    run.signal(Signal::SIGINT);
    run.signal(Signal::SIGINT);
    eventually("the end of the run", Duration::from_secs(20), || run.has_ended().then_some(()));
    let done = run.finish(RUN_LIMIT);
    // The second one may come while the reports are being written.
    assert!(
        done.status.code() == Some(130) || done.signal() == Some(Signal::SIGINT as i32),
        "{done}"
    );
    bench.nothing_is_left(&namespaces);
}

#[test]
fn a_harness_that_was_interrupted_ends_the_run() {
    let _turn = LabTurn::take();
    let bench = Bench::new();
    let run = long_run(&bench);
    let namespaces = bench.namespaces();
    // A terminal sends the signal to the whole group, and then nobody passes it on.
    bench.process(Part::Harness).signal(Signal::SIGINT);
    run.finish(Duration::from_secs(20)).code(130).says(&["partial"]);
    bench.nothing_is_left(&namespaces);
}

/// A command line that is refused before anything starts.
#[track_caller]
fn check_line(args: &[&str], code: i32, complaints: &[&str]) {
    let bench = Bench::new();
    bench.run(args).code(code).complains(complaints);
    assert!(!bench.out().exists(), "a refused run leaves a folder behind");
}

#[test]
fn selections() {
    check_line(
        &["cluster-ip/bsic"],
        PLAN,
        &["`cluster-ip/bsic` matches no case; did you mean `cluster-ip/basic`?", "list"],
    );
    let beside_a_good_one = ["cluster-ip/basic", "-E", "area(upd) or covers(nope)"];
    check_line(
        &beside_a_good_one,
        PLAN,
        &["area(upd) matches no case; did you mean `udp`?", "nope"],
    );
    check_line(&["--profile", "smok"], PLAN, &["matches no case (--profile smok)"]);
    check_line(&["-E", "lvl(must)"], USAGE, &["no set `lvl`", "did you mean `level`?"]);
    check_line(&["--cases", "nowhere", ONE_CELL], USAGE, &["nowhere"]);
}

#[test]
fn subjects() {
    let of = |subject: &'static str| ["--subject", subject, ONE_CELL];
    check_line(
        &of("kube-prox"),
        USAGE,
        &["no subject is called `kube-prox`", "did you mean `kube-proxy`?"],
    );
    check_line(
        &of("kube-proxy:nftable"),
        USAGE,
        &["no mode is called `nftable`", "did you mean `nftables`?"],
    );
    check_line(
        &of("kube-proxy+fst"),
        USAGE,
        &["no configuration is called `fst`", "did you mean `fast`?"],
    );
    check_line(
        &of("kube-proxy@1.30"),
        USAGE,
        &["failed to read `kube-proxy@1.30`:", "for example v1."],
    );
    check_line(
        &of("kube-proxy@v1.20.0"),
        USAGE,
        &["kube-proxy v1.20.0 is not supported", "describes >=1.25"],
    );
    check_line(
        &["--subject", "kube-proxy", "--subject", "kube-proxy:iptables", ONE_CELL],
        USAGE,
        &["--subject kube-proxy:iptables is given twice"],
    );
}

#[test]
fn arguments() {
    check_line(&["--jobs", "many"], USAGE, &["invalid value 'many' for '--jobs"]);
    check_line(&["--profil", "smoke"], USAGE, &["unexpected argument", "--profile"]);
    check_line(
        &["--lie", "spec.type", ONE_CELL],
        USAGE,
        &["--lie spec.type: write [CASE@]KIND:PATH"],
    );
    check_line(&["--lie", "Service:a..b", ONE_CELL], USAGE, &["failed to read field path"]);
    check_line(&["--lie", "Service:spec.type=x", ONE_CELL], USAGE, &["x is not JSON"]);
    check_line(
        &["--lie", "Serivce:spec.type", ONE_CELL],
        USAGE,
        &["--lie Serivce:spec.type: there is no kind Serivce", "did you mean Service?"],
    );
    check_line(
        &["--lie", "Service:spec.sesionAffinity", ONE_CELL],
        USAGE,
        &["Service has no field spec.sesionAffinity", "did you mean spec.sessionAffinity?"],
    );
    check_line(
        &["--lie", "Node:clusterIP(v4)", ONE_CELL],
        USAGE,
        &["a Node has no cluster addresses", "Service:clusterIP(v4)"],
    );
    check_line(
        &["--lie", "cluster-ip/basics@Service:spec.type", ONE_CELL],
        USAGE,
        &["cluster-ip/basics is not among the cases of this run", "touchstone list"],
    );
    check_line(
        &["--lie", "cluster-ip/basic@Node:metadata.labels", ONE_CELL],
        USAGE,
        &["a Node belongs to the whole cluster", "leave the case out"],
    );
    check_line(
        &["--without-proxy", "n9", ONE_CELL],
        USAGE,
        &["--without-proxy n9: there is no such node", "n1, n2, n3"],
    );
    Bench::new().call(&[]).code(USAGE).complains(&["Usage: touchstone"]);
    Bench::new().call(&["--version"]).code(0).says(&["touchstone"]);
}
