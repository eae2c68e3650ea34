//! `touchstone spec`: the specification as a document, its coverage by saved runs, and what
//! nothing covers.

use crate::common::Bench;
use serde_json::Value;

const USAGE: i32 = 64;
const UNCOVERED: i32 = 1;

/// Behaviours of a user's own: one with a case, one with a reason, and one with neither.
const BEHAVIOURS: &str = "\
own-covered:
  statement: A client reaches the only endpoint.
  level: must
  why: it is what a Service is for
  source: v1.Service
  differs: [{ feature: udp, how: no ports of that protocol }]
own-excused:
  statement: Nobody can see this.
  level: should
  why: a guess
  source: an experiment
  uncovered: no client sees it
own-open:
  statement: A thing that nobody has tried | yet.
  level: LEVEL
  why: it matters
  source: v1.Service
  releases: \">=1.30\"
";

const CASE: &str = "\
about: a client reaches the only endpoint
covers: [own-covered]
level: must
axes: { family: [v4], protocol: [tcp, udp] }
world:
  services:
    web: { ports: [{ name: p, port: 80 }] }
  endpoints:
    web: { a: { node: n1 } }
steps:
  - expect:
      - { from: pod, to: web clusterIP, reaches: a }
";

/// A bench with that case and those behaviours, and the folder they are in.
fn own(level: &str) -> (Bench, String) {
    let bench = Bench::new();
    bench.write("cases/own/one.yaml", CASE);
    bench.write("cases/behaviours.yaml", &BEHAVIOURS.replace("LEVEL", level));
    let folder = bench.path("cases").to_str().expect("text").to_owned();
    (bench, folder)
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}:\n{text}"))
}

#[test]
fn the_whole_specification_prints() {
    let bench = Bench::new();
    let done = bench.call(&["spec"]);
    done.code(0).says(&["Cluster IPs", "clusterip-tcp-basic (must)", "cluster-ip/basic"]);
    assert!(done.stdout.lines().all(|line| line.chars().count() <= 100), "a line is too wide");
    assert!(!done.stdout.contains('\x1b'), "a pipe gets no colours");
    let all = json(&bench.call(&["spec", "--format", "json"]).code(0).stdout);
    let behaviours = all["behaviours"].as_array().expect("a list");
    assert!(behaviours.len() > 400, "{}", behaviours.len());
    for one in behaviours {
        let headings = done.stdout.matches(one["id"].as_str().expect("an id")).count();
        assert!(headings > 0, "{one}");
    }
}

#[test]
fn a_selection_prints_alone_in_every_format() {
    let (bench, folder) = own("may");
    let call = |more: &[&str]| {
        let mut arguments = vec!["spec", "--cases", &folder, "own-*"];
        arguments.extend(more);
        bench.call(&arguments)
    };
    let text = call(&[]);
    text.code(0).says(&[
        "Others ──────",
        "own-covered (must) A client reaches the only endpoint. why it is what a Service is for",
        "differs udp: no ports of that protocol",
        "cases own/one",
        "releases >=1.30",
        "no case no client sees it",
        "no case and no reason is given",
        "3 behaviours: 1 must, 1 should, 1 may; cases cover 1.",
    ]);
    call(&["--format", "markdown"]).code(0).says(&[
        "# What a Service proxy does",
        "## Others",
        "### own-covered",
        "**may**: A thing that nobody has tried \\| yet.",
    ]);
    let value = json(&call(&["--format", "json", "--level", "must"]).code(0).stdout);
    let behaviours = value["behaviours"].as_array().expect("a list");
    assert_eq!(behaviours.len(), 1, "{value}");
    assert_eq!(behaviours[0]["cases"][0], "own/one");
    assert_eq!(behaviours[0]["differs"][0]["feature"], "udp");
}

#[test]
fn an_unknown_behaviour_comes_with_a_suggestion() {
    let bench = Bench::new();
    bench
        .call(&["spec", "clusterip-tcp-basics"])
        .code(USAGE)
        .complains(&["no behaviour `clusterip-tcp-basics`", "did you mean `clusterip-tcp-basic`?"]);
    bench
        .call(&["spec", "affinty-*"])
        .code(USAGE)
        .complains(&["no behaviour matches `affinty-*`", "did you mean `affinity-*`?"]);
    bench.call(&["spec", "--run", "x"]).code(USAGE).complains(&["--coverage"]);
    bench.call(&["spec", "--all"]).code(USAGE).complains(&["--uncovered"]);
}

#[test]
fn a_must_without_case_and_reason_fails() {
    let (bench, folder) = own("must");
    let done = bench.call(&["spec", "--cases", &folder, "own-*", "--uncovered"]);
    done.code(UNCOVERED).says(&[
        "Neither a case nor a reason own-open (must)",
        "Of 3 behaviours 1 have neither a case nor a reason, 1 of them must; 1 have no case",
    ]);
    assert!(!done.stdout.contains("own-excused"), "{done}");
    let all = ["spec", "--cases", &folder, "own-*", "--uncovered", "--all"];
    bench.call(&all).code(UNCOVERED).says(&["No case, for a reason own-excused (should)"]);
    let value = json(&bench.call(&[&all[..], &["--format", "json"]].concat()).stdout);
    assert_eq!(value["open"][0]["id"], "own-open");
    assert_eq!(value["excused"][0]["uncovered"], "no client sees it");
    bench
        .call(&[&all[..], &["--format", "markdown"]].concat())
        .code(UNCOVERED)
        .says(&["| own-open | must | A thing that nobody has tried \\| yet. | |"]);
}

#[test]
fn a_should_without_case_and_reason_is_listed_and_no_more() {
    let (bench, folder) = own("should");
    bench
        .call(&["spec", "--cases", &folder, "own-*", "--uncovered"])
        .code(0)
        .says(&["own-open (should)"]);
}

#[test]
fn coverage_comes_from_saved_runs() {
    let (bench, folder) = own("must");
    bench.run(&["--provider", "sim", "--cases", &folder, "own/one"]).code(0);
    let out = bench.out().to_str().expect("text").to_owned();
    let coverage = |more: &[&str]| {
        let mut arguments = vec!["spec", "--cases", &folder, "own-*", "--coverage", "--run", &out];
        arguments.extend(more);
        bench.call(&arguments)
    };
    coverage(&[]).code(0).says(&[
        "own-covered (must) own/one 2 ✓",
        "own-open (must) no case and no reason is given",
        "of 2 must behaviours 1 shown, 0 failing, 1 without a verdict",
    ]);
    coverage(&["--format", "markdown"]).code(0).says(&["| own-covered | must | own/one | 2 ✓ |"]);
    let value = json(&coverage(&["--format", "json"]).code(0).stdout);
    let subject = value["subjects"][0].as_str().expect("a subject");
    let covered = &value["behaviours"][0];
    assert_eq!(covered["cases"][0]["verdicts"][subject]["pass"], 2, "{value}");
    // Without the user's folder the log alone knows the case, but not its behaviour.
    let done = bench.call(&["spec", "clusterip-tcp-basic", "--coverage", "--run", &out]);
    done.code(0).says(&["cluster-ip/basic 1 ·"]);
}

#[test]
fn coverage_needs_a_run() {
    let bench = Bench::new();
    bench
        .call(&["spec", "--coverage"])
        .code(USAGE)
        .complains(&["touchstone-out/latest holds no saved run", "touchstone run"]);
    let file = bench.write("events.jsonl", "{}\n");
    bench
        .call(&["spec", "--coverage", "--run", file.to_str().expect("text")])
        .code(USAGE)
        .complains(&["cannot be used as a run", "events.jsonl"]);
}
