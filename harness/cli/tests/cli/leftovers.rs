//! Whoever of a run is killed, and whenever: nothing is left, and who remains says what happened.

use std::time::{Duration, Instant};

use crate::common::{Bench, GONE_LIMIT, LabTurn, Part, RUN_LIMIT, Running, eventually, scattered};
use nix::sys::signal::Signal;
use serde_json::Value;

/// Repeats the choice of moments.
const SEED: u64 = 0x70_75_63_68;

/// Kills of each victim.
const ROUNDS: u64 = 2;

/// The latest moment after the victim's appearance; a cluster is ready after a second or so.
const LATEST: u64 = 2_500;

/// Cells that take longer than [`LATEST`] together.
const CASES: [&str; 3] = ["--jobs=2", "session-affinity/*", "cluster-ip/*"];

fn moment(victim: Part, round: u64) -> Duration {
    Duration::from_millis(scattered(SEED ^ (round << 8) ^ (victim as u64)) % LATEST)
}

/// Kills the victim some time after it appeared and looks at what remains.
fn kill(victim: Part, round: u64) {
    let _turn = LabTurn::take();
    let bench = Bench::new();
    let run = bench.start_run(&CASES);
    let process = bench.process(victim);
    let moment = moment(victim, round);
    let told = format!("{victim:?} was killed {moment:?} after it appeared, round {round}");
    let began = Instant::now();
    eventually("the moment", RUN_LIMIT, || (began.elapsed() >= moment).then_some(()));
    let namespaces = bench.namespaces();
    process.signal(Signal::SIGKILL);
    let done = run.finish(GONE_LIMIT);
    bench.nothing_is_left(&namespaces);
    match victim {
        Part::Outside => {
            assert_eq!(done.signal(), Some(Signal::SIGKILL as i32), "{told}\n{done}");
        }
        Part::Init | Part::Harness | Part::Proxy => {
            assert_eq!(done.status.code(), Some(3), "{told}\n{done}");
            done.complains(&["the harness was killed by signal 9"]);
            // Before there was a log there is nothing to report.
            if !bench.events().is_empty() {
                let report = bench.report();
                assert_eq!(report.0["exit_code"], 3, "{told}");
                assert_eq!(report.0["ended"], false, "{told}");
                let cut = report.results().iter().filter(|r| r["verdict"] == "not-run").count();
                assert!(cut > 0, "{told}\n{}", report.verdicts());
            }
        }
    }
}

#[test]
fn the_person_s_process_killed() {
    (0..ROUNDS).for_each(|round| kill(Part::Outside, round));
}

#[test]
fn the_first_process_inside_killed() {
    (0..ROUNDS).for_each(|round| kill(Part::Init, round));
}

#[test]
fn the_harness_killed() {
    (0..ROUNDS).for_each(|round| kill(Part::Harness, round));
}

/// While a program is looked for, nobody is in namespaces yet that would end with them.
#[test]
fn a_build_ends_with_whoever_asked_for_it() {
    let bench = Bench::new();
    let pid = bench.path("pid");
    let script =
        format!("#!/bin/sh\necho $$ > {0}.new; mv {0}.new {0}\nexec sleep 1000\n", pid.display());
    let go = bench.script("go", &script);
    let folder = go.parent().expect("a folder").to_string_lossy().into_owned();
    let path = format!("{folder}:{}", std::env::var("PATH").unwrap_or_default());
    let subject = bench.write(
        "built/subject.yaml",
        "format: 1\nabout: built from a module\nbinary:\n  name: built\n  releases: { default: v1.0.0, supported: '>=1.0' }\n  \
         sources: [{ go: { module: example.test/built, package: example.test/built } }]\n\
         modes: { plain: { about: plain } }\nlab: { args: [] }\nfeatures: { ipv4: {} }\n",
    );
    let mut command = bench.touchstone(&["subject", "fetch", &subject.to_string_lossy()]);
    command.env("PATH", path).env("XDG_CACHE_HOME", bench.path("cache"));
    let mut run = Running::start(command);
    let built = eventually("the build", RUN_LIMIT, || {
        let built = std::fs::read_to_string(&pid).ok();
        (built.is_some() || run.has_ended()).then_some(built)
    });
    let Some(built) = built else { panic!("it built nothing\n{}", run.finish(GONE_LIMIT)) };
    run.signal(Signal::SIGKILL);
    run.finish(GONE_LIMIT);
    let state = format!("/proc/{}/stat", built.trim());
    eventually("the end of the build", GONE_LIMIT, || {
        let stat = std::fs::read_to_string(&state).unwrap_or_default();
        (stat.is_empty() || stat.contains(") Z ")).then_some(())
    });
}

fn names_of<'a>(events: &'a [Value], kind: &str) -> Vec<&'a str> {
    let of_kind = events.iter().filter(|event| event["event"] == kind);
    of_kind.filter_map(|event| event["case"].as_str()).collect()
}

/// Kills a proxy once the run's log has an event; gives the finished run, and the cases that were
/// in flight.
fn kill_a_proxy(event: &str) -> (Bench, Vec<String>) {
    let bench = Bench::new();
    let run = bench.start_run(&["--jobs=2", "cluster-ip/basic"]);
    bench.event(event);
    let proxy = bench.process(Part::Proxy);
    proxy.signal(Signal::SIGKILL);
    let events = bench.events();
    let ended = names_of(&events, "case-ended");
    let started = names_of(&events, "case-started").into_iter();
    let in_flight = started.filter(|case| !ended.contains(case)).map(str::to_owned).collect();
    run.finish(RUN_LIMIT).code(1);
    bench.nothing_is_left(&[].into());
    (bench, in_flight)
}

/// The case that every run has names the proxy that was killed, with its last lines.
fn proxy_did_not_stay_up(bench: &Bench, evidence: &[&str]) {
    let report = bench.report();
    report.expect("lifecycle/proxy-stays-up", "fail");
    let failures = report.failures("lifecycle/proxy-stays-up");
    for text in evidence {
        assert!(
            failures.iter().any(|failure| failure.evidence.join("\n").contains(text)),
            "no {text:?} in {failures:#?}"
        );
    }
}

#[test]
fn a_proxy_killed_while_cases_run() {
    let _turn = LabTurn::take();
    let (bench, in_flight) = kill_a_proxy("cluster-ready");
    // kube-proxy's own words: it logs each change that it has applied.
    proxy_did_not_stay_up(&bench, &["signal: 9 (SIGKILL)", "SyncProxyRules"]);
    let report = bench.report();
    assert!(!in_flight.is_empty(), "no case was in flight:\n{}", report.verdicts());
    for case in in_flight {
        report.expect(&case, "inconclusive");
        let note = report.result(&case)["note"].as_str().unwrap_or_default().to_owned();
        assert!(note.contains("ended: signal: 9"), "{case}: {note}");
        // It was given another chance on a cluster of its own, which decides nothing.
        let again = bench.events().into_iter().any(|event| {
            event["event"] == "case-ended" && event["case"] == *case && event["attempt"] == 2
        });
        assert!(again, "{case} was not repeated");
    }
    let not_run = report.results().iter().filter(|result| result["verdict"] == "not-run").count();
    assert_eq!(not_run, 0, "the other cases ran on another cluster:\n{}", report.verdicts());
}

#[test]
fn a_proxy_killed_before_it_is_ready() {
    let _turn = LabTurn::take();
    let (bench, _) = kill_a_proxy("cluster-starting");
    proxy_did_not_stay_up(&bench, &["the cluster did not become ready", "signal: 9 (SIGKILL)"]);
    let report = bench.report();
    let cases = report.results().iter().filter(|r| r["area"] != "lifecycle");
    for result in cases {
        assert_eq!(result["verdict"], "inconclusive", "{result:#}");
    }
}
