//! What the model keeps of a log.

use touchstone_record::{Ended, Event, ExitByDesign};
use touchstone_report::{Quantiles, Report};
use touchstone_spec::{Level, Verdict};

use crate::log::{IPT, Log, NFT, ended, failure};

#[test]
fn the_first_attempt_decides() {
    let mut log = Log::new(&[NFT], &[("a/x", Level::Must), ("a/y", Level::Must)]);
    log.ends(Ended { failures: vec![failure("f")], ..ended(NFT, "a/x", Verdict::Fail) });
    log.ends(Ended { attempt: 2, took: 5, ..ended(NFT, "a/x", Verdict::Pass) });
    log.ends(ended(NFT, "a/y", Verdict::Pass));
    log.ends(Ended { attempt: 2, ..ended(NFT, "a/y", Verdict::Pass) });
    log.finish();
    let report = log.report();
    let (x, y) = (&report.results[0], &report.results[1]);
    assert_eq!((x.verdict, x.flaky, x.took_ms, x.failures.len()), (Verdict::Fail, true, 812, 1));
    let attempts: Vec<_> = x.attempts.iter().map(|a| (a.attempt, a.verdict)).collect();
    assert_eq!(attempts, [(1, Some(Verdict::Fail)), (2, Some(Verdict::Pass))]);
    assert_eq!((y.verdict, y.flaky, y.attempts.len()), (Verdict::Pass, false, 2));
    assert_eq!(report.totals[0].flaky, 1);
}

#[test]
fn figures_are_sums_and_quantiles() {
    let mut log = Log::new(&[NFT], &[("a/x", Level::Must), ("a/y", Level::Must)]);
    for case in ["a/x", "a/y"] {
        log.step(NFT, case, 1, Some(500));
        log.step(NFT, case, 2, None);
        log.cell(NFT, case, false, 3);
        log.case(NFT, case, Verdict::Pass);
    }
    log.finish();
    let report = log.report();
    let figures = &report.figures;
    assert_eq!((figures.cases_ms, figures.waited_ms, figures.harness_ms), (1_624, 1_400, 224));
    assert_eq!(figures.harness_share, Some(224.0 / 1_624.0));
    assert_eq!((figures.sampling_ms, figures.probes, figures.cells), (120, 2_468, 2));
    assert_eq!((figures.harness_cpu_ms, figures.proxy_cpu_ms), (Some(900), Some(1_500)));
    assert_eq!(figures.total_ms, 1_100);
    let settling = &report.totals[0].settling;
    let n2 = Quantiles { n: 2, min: 500, p50: 500, p90: 500, max: 500 };
    assert_eq!((settling.settled, settling.unsettled), (Some(n2), 2));
    assert_eq!(settling.first_right.map(|times| times.n), Some(4));
}

#[test]
fn a_survey_keeps_what_it_saw() {
    let mut log = Log::new(&[NFT], &[("a/x", Level::Must), ("a/s", Level::Survey)]);
    log.cell(NFT, "a/x", false, 1);
    log.cell(NFT, "a/x", true, 2);
    log.cell(NFT, "a/s", false, 3);
    let report = log.report();
    let seen = |i: usize| -> Vec<_> {
        report.results[i].recorded.iter().flat_map(|cell| cell.seen.clone()).collect()
    };
    assert_eq!(seen(0), ["dropped ×2"]);
    assert_eq!(seen(1), ["dropped ×3"]);
}

#[test]
fn clusters_and_exits_are_put_together() {
    let mut log = Log::new(&[NFT], &[("a/x", Level::Must)]);
    log.cluster("c1", NFT, &["no IPVS"]);
    let exited = |node: &str, by_design| Event::ProxyExited {
        cluster: "c1".into(),
        node: node.into(),
        status: "exit status 1".into(),
        by_design,
        last_lines: vec![],
    };
    log.push(exited("n1", None));
    log.push(exited("n2", Some(ExitByDesign { name: "node-changed".into() })));
    log.push(Event::ProxyRestarted { cluster: "c1".into(), node: "n2".into() });
    log.push(Event::ClusterClosed { cluster: "c1".into(), remarks: vec!["left".into()] });
    let report = log.report();
    let cluster = &report.clusters[0];
    assert_eq!((cluster.starting_ms, cluster.ready_ms), (Some(100), Some(200)));
    assert_eq!(cluster.took["canary"], 640);
    assert_eq!(cluster.remarks, ["no IPVS", "left"]);
    let exits: Vec<_> = report
        .proxy_exits
        .iter()
        .map(|exit| {
            (
                exit.node.as_str(),
                exit.by_design.as_deref(),
                exit.restarted_ms,
                exit.subject.as_deref(),
            )
        })
        .collect();
    assert_eq!(
        exits,
        [("n1", None, None, Some(NFT)), ("n2", Some("node-changed"), Some(500), Some(NFT))]
    );
}

#[test]
fn strangers_in_the_log_are_kept() {
    let mut log = Log::new(&[NFT], &[("a/x", Level::Must)]);
    log.case(NFT, "a/x", Verdict::Pass);
    log.case(IPT, "b/other[v6]", Verdict::Pass);
    let report: Report = log.report();
    let last = report.results.last().expect("results");
    assert_eq!((last.subject.as_str(), last.area.as_str(), last.planned), (IPT, "b", false));
    assert_eq!(report.totals.len(), 2);
    assert_eq!(report.matrix.len(), 2);
    assert_eq!(report.matrix[1].cells[0].verdicts.len(), 0);
}
