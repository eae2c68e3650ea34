//! That the suite can fail: a proxy that does not know a field, has lost a rule, or is not there
//! is found, by the case made for it and for the right reason; without the defect the same cases
//! pass.

use crate::common::{Bench, Failure, LabTurn, Report};

const CONFORMANCE: i32 = 1;

/// A defect, the case that must notice it, and what one of its failures must say.
struct Defect {
    arguments: &'static [&'static str],
    case: &'static str,
    reason: fn(&Failure) -> bool,
}

const EXTERNAL_POLICY: Defect = Defect {
    arguments: &["--lie", "Service:spec.externalTrafficPolicy"],
    case: "traffic-policy/external-local[v4,tcp]",
    // A node served its node port from an endpoint of another node, or hid the client's address.
    reason: |failure| {
        failure.is("outside → web nodePort@")
            && failure.says("policy Local")
            && failure.reached_wrongly()
    },
};

const AFFINITY: Defect = Defect {
    arguments: &["--lie", "Service:spec.sessionAffinity=\"None\""],
    case: "session-affinity/cluster-ip[v4,tcp]",
    // One client was served by several endpoints.
    reason: |failure| {
        failure.is("pod@n1 → web clusterIP")
            && failure.allows("always the same endpoint for one client address")
            && failure.seen.len() > 1
            && failure.says("sessionAffinity ClientIP")
            && failure.evidence.iter().any(|e| e.starts_with("one client address was served by "))
    },
};

const SOURCE_RANGES: Defect = Defect {
    arguments: &["--lie", "Service:spec.loadBalancerSourceRanges"],
    case: "source-ranges/outside-clients[v4,tcp]",
    // A client outside all ranges was let in.
    reason: |failure| {
        failure.is("outside2 → web loadBalancer@n1")
            && failure.allowed == ["pinned: dropped", "dropped"]
            && failure.says("outside loadBalancerSourceRanges")
            && failure.reached_wrongly()
    },
};

const READY: Defect = Defect {
    arguments: &["--lie", "EndpointSlice:endpoints[*].conditions.ready"],
    case: "endpoints/conditions[v4,tcp]",
    // An endpoint that is not ready was used.
    reason: |failure| {
        failure.flow.contains(" → web clusterIP")
            && failure.allows("reached web/a")
            && failure.allows("reached web/d")
            && failure.reached_wrongly()
    },
};

const HINTS: Defect = Defect {
    arguments: &["--lie", "EndpointSlice:endpoints[*].hints"],
    case: "topology/zone-hints[v4,tcp]",
    // An endpoint that is hinted for another zone was used.
    reason: |failure| {
        failure.flow.contains(" → web clusterIP")
            && failure.says("zone hint")
            && failure.reached_wrongly()
    },
};

const SECOND_PORT: Defect = Defect {
    arguments: &["--lie", "Service:spec.ports[1]"],
    case: "ports/two-ports[v4,tcp]",
    reason: |failure| {
        failure.is("pod@n1 → web clusterIP:admin")
            && failure.allows("reached web/b")
            && failure.seen_only("unhandled")
    },
};

const SECOND_FAMILY: Defect = Defect {
    arguments: &["--lie", "Service:clusterIP(v6)"],
    case: "dual-stack/both-families[dual,tcp]",
    reason: |failure| {
        failure.flow.contains("clusterIP (tcp [fd00:")
            && failure.allows("reached v4first/a ([fd00:")
            && failure.seen_only("unhandled")
    },
};

const LOST_RULE: Defect = Defect {
    // The last rule that leads from the Service's chain to an endpoint's: what fell through all
    // others was its share.
    arguments: &[
        "--sabotage",
        "test $(hostname) = n1 || exit 0; \
         rule=$(iptables-save -t nat | grep -e '-A KUBE-SVC-.*/web:.*-j KUBE-SEP-' | tail -n 1); \
         test -n \"$rule\" && echo \"$rule\" | sed 's/^-A/-t nat -D/' | xargs iptables",
    ],
    // A rule that is written anew after the first step is taken away again in the second.
    case: "endpoints/slice-one-of-several-goes[v4,tcp]",
    reason: |failure| {
        // Which flows through the node lose connections is chance; all together see it. Nobody
        // has the cluster IP; the node, which has the node port's address, refuses.
        (failure.flow.contains("@n1 → web ") || failure.flow.contains("→ web nodePort@n1"))
            && failure.allows("reached web/a")
            && failure.allows("reached web/b")
            && (failure.saw("unhandled")
                || failure.saw("dropped")
                || (failure.flow.contains("→ web nodePort@n1") && failure.saw("refused"))
                || failure.evidence.iter().any(|e| e.starts_with("never seen")))
    },
};

const NO_PROXY: Defect = Defect {
    arguments: &["--without-proxy", "n2"],
    case: "cluster-ip/basic[v4,tcp]",
    reason: |failure| {
        failure.is("pod@n2 → web clusterIP")
            && failure.seen_only("unhandled")
            && failure.evidence.iter().any(|e| e.contains("left its node unhandled"))
    },
};

const DEFECTS: [&Defect; 9] = [
    &EXTERNAL_POLICY,
    &AFFINITY,
    &SOURCE_RANGES,
    &READY,
    &HINTS,
    &SECOND_PORT,
    &SECOND_FAMILY,
    &LOST_RULE,
    &NO_PROXY,
];

impl Failure {
    fn is(&self, flow: &str) -> bool {
        self.pinned && self.flow.starts_with(flow)
    }

    fn allows(&self, text: &str) -> bool {
        self.allowed.iter().any(|allowed| allowed.starts_with(text))
    }

    /// What was seen, without how often and where.
    fn outcomes(&self) -> impl Iterator<Item = &str> {
        self.seen.iter().filter_map(|seen| seen.split_once(" × ").map(|(_, outcome)| outcome))
    }

    fn saw(&self, text: &str) -> bool {
        self.outcomes().any(|outcome| outcome.starts_with(text))
    }

    fn seen_only(&self, text: &str) -> bool {
        self.saw(text) && self.outcomes().all(|outcome| outcome == text)
    }

    /// Whether an endpoint answered that must not, or one that saw somebody else.
    fn reached_wrongly(&self) -> bool {
        self.outcomes().any(|outcome| {
            let right = |allowed: &String| outcome.starts_with(allowed.as_str());
            outcome.starts_with("reached web/") && !self.allowed.iter().any(right)
        })
    }

    fn says(&self, text: &str) -> bool {
        self.because.iter().any(|because| because.contains(text))
    }
}

/// Runs the case with its defect planted and looks at its failures.
fn check(subject: &str, defect: &Defect) {
    let _turn = LabTurn::take();
    let bench = Bench::new();
    let mut arguments = vec!["--subject", subject];
    arguments.extend(defect.arguments);
    arguments.push(defect.case);
    bench.run(&arguments).code(CONFORMANCE);
    let report = bench.report();
    report.expect(defect.case, "fail");
    let failures = report.failures(defect.case);
    assert!(
        failures.iter().any(defect.reason),
        "no failure of {} has the right reason:\n{failures:#?}",
        defect.case
    );
    assert!(
        failures[0].pinned || failures.iter().all(|failure| !failure.pinned),
        "pinned flows come first:\n{failures:#?}"
    );
    assert!(!failures[0].flow.contains("marker"), "markers come last:\n{failures:#?}");
    the_rest_is_fine(&report, defect.case);
}

/// A planted defect is no reason for any other verdict: the proxy itself is well.
fn the_rest_is_fine(report: &Report, case: &str) {
    for result in report.results().iter().filter(|result| result["case"] != case) {
        // The reference does not promise to forget UDP flows.
        let excused = result["case"] == "lifecycle/udp-flows-go-with-services";
        let verdict = if excused { "unsupported" } else { "pass" };
        assert_eq!(result["verdict"], verdict, "{result:#}");
    }
}

/// Runs the cases of all these defects without any.
fn control(subject: &str, defects: &[&Defect]) {
    let _turn = LabTurn::take();
    let bench = Bench::new();
    let mut arguments = vec!["--subject", subject];
    arguments.extend(defects.iter().map(|defect| defect.case));
    bench.run(&arguments).code(0);
    let report = bench.report();
    for defect in defects {
        report.expect(defect.case, "pass");
    }
}

#[test]
fn without_defects_the_cases_pass() {
    control("kube-proxy:iptables", &DEFECTS);
}

#[test]
fn without_defects_the_cases_pass_on_nftables() {
    control("kube-proxy:nftables", &[&EXTERNAL_POLICY, &AFFINITY]);
}

#[test]
fn a_hidden_external_traffic_policy_is_noticed() {
    check("kube-proxy:iptables", &EXTERNAL_POLICY);
}

#[test]
fn a_hidden_external_traffic_policy_is_noticed_on_nftables() {
    check("kube-proxy:nftables", &EXTERNAL_POLICY);
}

#[test]
fn a_changed_session_affinity_is_noticed() {
    check("kube-proxy:iptables", &AFFINITY);
}

#[test]
fn a_changed_session_affinity_is_noticed_on_nftables() {
    check("kube-proxy:nftables", &AFFINITY);
}

#[test]
fn hidden_source_ranges_are_noticed() {
    check("kube-proxy:iptables", &SOURCE_RANGES);
}

#[test]
fn hidden_readiness_is_noticed() {
    check("kube-proxy:iptables", &READY);
}

#[test]
fn hidden_hints_are_noticed() {
    check("kube-proxy:iptables", &HINTS);
}

#[test]
fn a_hidden_second_port_is_noticed() {
    check("kube-proxy:iptables", &SECOND_PORT);
}

#[test]
fn a_hidden_second_family_is_noticed() {
    check("kube-proxy:iptables", &SECOND_FAMILY);
}

#[test]
fn a_lost_rule_is_noticed() {
    check("kube-proxy:iptables", &LOST_RULE);
}

#[test]
fn a_missing_proxy_is_noticed() {
    check("kube-proxy:iptables", &NO_PROXY);
}
