//! Older releases of the reference subject pass simple cases, and a mode that a release does not
//! have is refused.

use crate::common::{Bench, LabTurn, list};

const CASES: [&str; 2] = ["cluster-ip/basic", "node-port/every-node"];

/// TCP only: v1.30.0 once left UDP attempts to a remaining endpoint unanswered just after a change
/// of endpoints. Whether that is its clean-up of stale flows, or ours, is not settled yet.
fn check(subject: &str, release: &str) {
    let _turn = LabTurn::take();
    let bench = Bench::new();
    bench.run(&["--subject", subject, "-E", "protocol(tcp)", CASES[0], CASES[1]]).code(0);
    let report = bench.report();
    assert_eq!(report.0["subjects"][0]["release"], release, "{:#}", report.0["subjects"]);
    let passed = |case: &str| {
        let of = |result: &&serde_json::Value| {
            result["case"].as_str().is_some_and(|id| id.starts_with(&format!("{case}[")))
        };
        let results: Vec<_> = list(&report.0["results"]).iter().filter(of).collect();
        assert_eq!(results.len(), 2, "two families:\n{}", report.verdicts());
        assert!(results.iter().all(|result| result["verdict"] == "pass"), "{}", report.verdicts());
    };
    CASES.into_iter().for_each(passed);
    report.expect("lifecycle/proxy-stays-up", "pass");
}

#[test]
fn v1_30_iptables() {
    check("kube-proxy:iptables@v1.30.0", "v1.30.0");
}

#[test]
fn v1_30_nftables() {
    check("kube-proxy:nftables@v1.30.0", "v1.30.0");
}

#[test]
fn v1_25_iptables() {
    check("kube-proxy:iptables@v1.25.4", "v1.25.4");
}

#[test]
fn v1_25_has_no_nftables() {
    Bench::new()
        .run(&["--subject", "kube-proxy:nftables@v1.25.4", CASES[0]])
        .code(64)
        .complains(&["kube-proxy v1.25.4 has no mode nftables: it exists in >=1.29"]);
}
