//! Reports of several kernels side by side.

use touchstone_record::Event;
use touchstone_report::{Colour, Report, TerminalOptions, kernel_findings, side_by_side};
use touchstone_spec::{Level, Verdict};

use crate::log::{IPT, Log};

const CASES: [(&str, Level); 3] = [
    ("cluster-ip/basic[v4,tcp]", Level::Must),
    ("node-port/basic[v4,tcp]", Level::Must),
    ("sctp/cluster-ip[v4,sctp]", Level::Must),
];

/// A run on a kernel, with a verdict for each case.
fn on(kernel: &str, verdicts: [Verdict; 3]) -> Report {
    let mut log = Log::new(&[IPT], &CASES);
    for event in &mut log.events {
        if let Event::RunStarted { host, .. } = &mut event.event {
            host.kernel = kernel.into();
        }
    }
    for ((case, _), verdict) in CASES.iter().zip(verdicts) {
        log.case(IPT, case, verdict);
    }
    log.report()
}

fn page(reports: &[Report]) -> String {
    let options = TerminalOptions { width: 100, colour: Colour::Plain, files: None };
    side_by_side(reports, options)
}

#[test]
fn a_verdict_that_depends_on_the_kernel_is_a_finding() {
    let reports = [
        on("6.18.0", [Verdict::Pass, Verdict::Pass, Verdict::Unsupported]),
        on("7.2.12", [Verdict::Pass, Verdict::Fail, Verdict::Pass]),
    ];
    let findings = kernel_findings(&reports);
    assert_eq!(findings.len(), 1, "{findings:#?}");
    assert_eq!(findings[0].case, "node-port/basic[v4,tcp]");
    let page = page(&reports);
    for text in [
        "on 6.18.0",
        "on 7.2.12",
        "DIFFERS kube-proxy:iptables@v1.37.2  node-port/basic[v4,tcp]",
        "pass on 6.18.0, fail on 7.2.12",
    ] {
        assert!(page.contains(text), "no {text:?} in\n{page}");
    }
}

#[test]
fn what_a_kernel_lacks_is_no_finding() {
    let reports = [
        on("6.18.0", [Verdict::Pass, Verdict::Pass, Verdict::Unsupported]),
        on("7.2.12", [Verdict::Pass, Verdict::Pass, Verdict::Pass]),
    ];
    assert_eq!(kernel_findings(&reports), []);
    assert!(page(&reports).contains("no case has another verdict on another kernel"));
}
