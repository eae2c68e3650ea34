//! How reports look. `INSTA_UPDATE=always cargo test -p touchstone-report` writes them anew.

use touchstone_record::{Ended, Event};
use touchstone_report::{
    Colour, TerminalOptions, junit, live, markdown, report_json, report_schema, terminal,
};
use touchstone_spec::{Excuse, Feature, Level, Verdict};

use crate::log::{IPT, Log, NFT, ended, failure};

macro_rules! snapshot {
    ($name:literal, $text:expr) => {
        insta::with_settings!({
            snapshot_path => "../snapshots",
            prepend_module_to_snapshot => false,
            omit_expression => true,
        }, { insta::assert_snapshot!($name, $text) })
    };
}

/// A run in which everything happens that can.
pub(crate) fn busy() -> Log {
    let mut log = Log::new(
        &[NFT, IPT],
        &[
            ("cluster-ip/basic[v4,tcp]", Level::Must),
            ("cluster-ip/basic[v6,tcp]", Level::Must),
            ("cluster-ip/no-endpoints[v4,tcp]", Level::Should),
            ("traffic-policy/external-local[v4,tcp]", Level::Must),
            ("session-affinity/timeout[v4]", Level::Must),
            ("ports/sctp[v4,sctp]", Level::May),
            ("ports/hairpin-source[v4,tcp]", Level::Survey),
            ("topology/node-hints[v4,tcp]", Level::Should),
        ],
    );
    log.cluster("c1", NFT, &["nf_conntrack_max cannot be raised here"]);
    log.cluster("c2", IPT, &["nf_conntrack_max cannot be raised here"]);
    for subject in [NFT, IPT] {
        log.step(subject, "cluster-ip/basic[v4,tcp]", 1, Some(412));
        log.case(subject, "cluster-ip/basic[v4,tcp]", Verdict::Pass);
        log.step(subject, "cluster-ip/basic[v6,tcp]", 1, Some(1_020));
        log.case(subject, "cluster-ip/basic[v6,tcp]", Verdict::Pass);
        log.cell(subject, "ports/hairpin-source[v4,tcp]", false, 12);
        log.case(subject, "ports/hairpin-source[v4,tcp]", Verdict::Survey);
        log.ends(Ended {
            excuse: Some(Excuse::HostLacks("sctp".into())),
            took: 0,
            ..ended(subject, "ports/sctp[v4,sctp]", Verdict::Unsupported)
        });
    }
    log.step(NFT, "traffic-policy/external-local[v4,tcp]", 2, None);
    let mut failures = vec![failure("from outside to web nodePort@n1")];
    failures.extend((2..=7).map(|n| {
        let mut failure = failure(&format!("from pod@n{n} to web clusterIP"));
        failure.rules.clear();
        failure.evidence.clear();
        failure.line = None;
        failure
    }));
    let fails = ended(NFT, "traffic-policy/external-local[v4,tcp]", Verdict::Fail);
    log.ends(Ended { failures, took: 3_412, waited: 3_000, ..fails });
    log.ends(Ended {
        attempt: 2,
        ..ended(NFT, "traffic-policy/external-local[v4,tcp]", Verdict::Pass)
    });
    log.ends(Ended {
        note: Some("the control past the proxy failed: pod b on n2 did not answer".into()),
        ..ended(NFT, "session-affinity/timeout[v4]", Verdict::Inconclusive)
    });
    log.ends(Ended {
        note: Some("kept for old clients: answers nothing where it should refuse".into()),
        ..ended(NFT, "cluster-ip/no-endpoints[v4,tcp]", Verdict::KnownFailure)
    });
    log.ends(ended(IPT, "cluster-ip/no-endpoints[v4,tcp]", Verdict::UnexpectedPass));
    log.case(IPT, "traffic-policy/external-local[v4,tcp]", Verdict::Pass);
    log.ends(Ended {
        note: Some("failed to open a socket in pod a: too many open files".into()),
        ..ended(IPT, "session-affinity/timeout[v4]", Verdict::Error)
    });
    let hints = Feature::new("node-hints").expect("a feature");
    log.ends(Ended {
        excuse: Some(Excuse::LacksFeature(hints)),
        ..ended(IPT, "topology/node-hints[v4,tcp]", Verdict::Unsupported)
    });
    log.push(Event::ProxyExited {
        cluster: "c1".into(),
        node: "n2".into(),
        status: "killed by signal 11".into(),
        by_design: None,
        last_lines: vec!["panic: runtime error".into(), "goroutine 1 [running]:".into()],
    });
    log.push(Event::HarnessError {
        message: "failed to write the capture of n1: no space left\nfree some space".into(),
    });
    log.finish();
    log
}

fn small() -> Log {
    let mut log = Log::new(&[NFT], &[("cluster-ip/basic[v4,tcp]", Level::Must)]);
    log.cluster("c1", NFT, &[]);
    log.step(NFT, "cluster-ip/basic[v4,tcp]", 1, Some(412));
    log.case(NFT, "cluster-ip/basic[v4,tcp]", Verdict::Pass);
    log.finish();
    log
}

fn plain(log: &Log, width: usize) -> String {
    let files = Some(std::path::Path::new("touchstone-out/2026-01-02-abcd"));
    terminal(&log.report(), TerminalOptions { width, colour: Colour::Plain, files })
}

#[test]
fn terminal_clean() {
    snapshot!("terminal-clean", plain(&small(), 100));
}

#[test]
fn terminal_busy() {
    snapshot!("terminal-busy-100", plain(&busy(), 100));
    snapshot!("terminal-busy-60", plain(&busy(), 60));
}

#[test]
fn terminal_interrupted() {
    let mut log = small();
    log.events.truncate(4);
    log.push(Event::Interrupted { signal: "SIGINT".into() });
    snapshot!("terminal-interrupted", plain(&log, 80));
}

#[test]
fn markdown_busy() {
    snapshot!("markdown-busy", markdown(&busy().report()));
}

#[test]
fn junit_busy() {
    snapshot!("junit-busy", junit(&busy().report()).expect("XML"));
}

#[test]
fn json_small() {
    snapshot!("json-small", report_json(&small().report()).expect("JSON"));
}

#[test]
fn a_subject_that_nobody_has_run_is_named_in_every_report() {
    let mut log = small();
    let tested = [plain(&log, 80), markdown(&log.report()), junit(&log.report()).expect("XML")];
    for event in &mut log.events {
        if let Event::RunStarted { subjects, .. } = &mut event.event {
            subjects[0].untested = true;
        }
    }
    let untested = [plain(&log, 80), markdown(&log.report()), junit(&log.report()).expect("XML")];
    for (tested, untested) in tested.iter().zip(&untested) {
        assert!(!tested.to_lowercase().contains("untested"), "{tested}");
        assert!(untested.to_lowercase().contains("untested"), "{untested}");
    }
    assert!(report_json(&log.report()).expect("JSON").contains("\"untested\": true"));
}

#[test]
fn what_befell_many_cases_is_told_once() {
    let cases = ["a/one[v4,tcp]", "a/two[v4,tcp]", "a/three[v4,tcp]"];
    let mut log = Log::new(&[NFT], &cases.map(|case| (case, Level::Must)));
    for (case, why) in cases.into_iter().zip(["the node n1 is gone", "the node n1 is gone", "no"]) {
        log.ends(Ended { note: Some(why.into()), ..ended(NFT, case, Verdict::Error) });
    }
    log.finish();
    let text = markdown(&log.report());
    assert_eq!(text.matches("the node n1 is gone").count(), 1, "{text}");
    assert!(text.contains("2 cases"), "{text}");
    assert!(text.contains("a/three"), "{text}");
}

#[test]
fn schema() {
    snapshot!("schema", report_schema().expect("JSON"));
}

#[test]
fn live_lines() {
    let lines: Vec<String> = busy().events.iter().filter_map(live::line).collect();
    snapshot!("live", lines.join("\n"));
}
