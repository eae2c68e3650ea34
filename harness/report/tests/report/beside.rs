//! Reports of several kernels and providers side by side.

use touchstone_record::Event;
use touchstone_report::{
    Aspect, Colour, Report, TerminalOptions, agreements, findings, side_by_side,
};
use touchstone_spec::Excuse;
use touchstone_spec::{Level, Verdict};

use crate::log::{IPT, Log};

const CASES: [(&str, Level); 3] = [
    ("cluster-ip/basic[v4,tcp]", Level::Must),
    ("node-port/basic[v4,tcp]", Level::Must),
    ("sctp/cluster-ip[v4,sctp]", Level::Must),
];

/// A run in the lab on a kernel, with a verdict for each case.
fn on(kernel: &str, verdicts: [Verdict; 3]) -> Report {
    at("lab", kernel, verdicts)
}

/// A run anywhere.
fn at(place: &str, kernel: &str, verdicts: [Verdict; 3]) -> Report {
    let mut log = Log::new(&[IPT], &CASES);
    for event in &mut log.events {
        if let Event::RunStarted { host, provider, .. } = &mut event.event {
            host.kernel = kernel.into();
            *provider = place.into();
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
    let findings = findings(&reports);
    assert_eq!(findings.len(), 1, "{findings:#?}");
    assert_eq!(findings[0].case, "node-port/basic[v4,tcp]");
    let page = page(&reports);
    for text in [
        "on 6.18.0",
        "on 7.2.12",
        "DIFFERS kube-proxy:iptables@v1.37.2  node-port/basic[v4,tcp]",
        "by kernel: pass on 6.18.0, fail on 7.2.12",
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
    assert_eq!(findings(&reports), []);
    assert!(page(&reports).contains("no case has another verdict on another kernel"));
}

#[test]
fn a_verdict_that_depends_on_the_provider_is_another_finding() {
    let mut kind = at("kind", "6.18.0", [Verdict::Pass, Verdict::Fail, Verdict::Unsupported]);
    kind.results[2].excuse = Some(Excuse::HostLacks("only the lab has it".into()));
    let reports = [at("lab", "6.18.0", [Verdict::Pass; 3]), kind];
    let found = findings(&reports);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!((found[0].case.as_str(), found[0].aspect), (CASES[1].0, Aspect::Provider));
    let agreement = &agreements(&reports)[0];
    assert_eq!((agreement.judged, agreement.everywhere, agreement.alike), (3, 2, 1));
    let page = page(&reports);
    for text in [
        "by provider: fail on kind, pass on lab",
        "of 3 must cases 2 (66.7 %) were judged on kind",
        "1 not on kind: host-lacks: only the lab has it",
    ] {
        assert!(page.contains(text), "no {text:?} in\n{page}");
    }
}

#[test]
fn who_differs_in_two_things_is_blamed_for_neither_unless_a_third_run_tells() {
    let reports = [
        at("lab", "6.18.0", [Verdict::Pass; 3]),
        at("kind", "7.2.12", [Verdict::Pass, Verdict::Pass, Verdict::Fail]),
    ];
    assert_eq!(findings(&reports)[0].aspect, Aspect::Both);
    let [lab, kind] = reports;
    let third = at("lab", "7.2.12", [Verdict::Pass, Verdict::Pass, Verdict::Fail]);
    assert_eq!(findings(&[lab, kind, third])[0].aspect, Aspect::Kernel);
}
