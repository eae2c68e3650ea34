//! Older releases of the reference subject pass simple cases, and a mode that a release does not
//! have is refused.

use crate::common::{Bench, LabTurn, list};

const CASES: [&str; 2] = ["cluster-ip/basic", "node-port/every-node"];

/// TCP only: releases before the reconciler of conntrack (v1.32) forget UDP flows some time after
/// they loaded the rules, so that on a busy machine an answer under way gets lost.
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

/// What one case does to a proxy on its own cluster is that case's finding, and the run goes on:
/// a panic, rules that are refused, settings with which nothing works.
#[test]
fn v1_30_fails_as_it_is_known_to() {
    const KNOWN: [&str; 4] = [
        "endpoints/raw-nil-port-name[v4,tcp]",
        "configuration/detect-local-interface-prefix[v4,tcp]",
        "ports/names-as-long-as-the-api-allows-without-endpoints[v4,tcp]",
        "load-balancer/local-shortcut[v4,tcp]",
    ];
    let _turn = LabTurn::take();
    let bench = Bench::new();
    let mut arguments = vec!["--subject", "kube-proxy:nftables@v1.30.0", "--strict"];
    arguments.extend(KNOWN);
    bench.run(&arguments).code(0);
    let report = bench.report();
    for case in KNOWN {
        report.expect(case, "known-failure");
    }
    report.expect("lifecycle/proxy-stays-up", "pass");
}
