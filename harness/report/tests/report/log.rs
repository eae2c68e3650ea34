//! A maker of logs.

use std::collections::BTreeMap;

use touchstone_record::{
    CellRecord, Ended, Event, Failure, HostFacts, PhaseKind, PlannedCase, RunEvent, StepTimes,
    SubjectRecord, Tally,
};
use touchstone_report::Report;
use touchstone_spec::{Expectation, Level, Observation, Outcome, Verdict};

pub(crate) const NFT: &str = "kube-proxy:nftables@v1.37.2";
pub(crate) const IPT: &str = "kube-proxy:iptables@v1.37.2";

/// Events of a run, in order; the clock moves 100 ms per event.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    pub(crate) events: Vec<RunEvent>,
}

impl Log {
    /// A run of these cases on these subjects, not strict, failing on `must`.
    pub(crate) fn new(subjects: &[&str], plan: &[(&str, Level)]) -> Log {
        Log::with(subjects, plan, false, Level::Must)
    }

    pub(crate) fn with(
        subjects: &[&str],
        plan: &[(&str, Level)],
        strict: bool,
        fail_on: Level,
    ) -> Log {
        let mut log = Log { events: Vec::new() };
        log.push(Event::RunStarted {
            format: touchstone_record::FORMAT.into(),
            run: "2026-01-02-abcd".into(),
            started: "2026-01-02T03:04:05Z".into(),
            version: "0.1.0".into(),
            command: ["touchstone", "run", "--subject", subjects.first().unwrap_or(&"")]
                .map(String::from)
                .to_vec(),
            seed: 18_446_744_073_709_551_615,
            subjects: subjects.iter().map(|id| subject(id)).collect(),
            plan: plan.iter().map(|(case, level)| planned(case, *level)).collect(),
            digest: "sha256:0123456789abcdef0123".into(),
            false_alarm_rate: 1e-6,
            host: HostFacts {
                kernel: "6.18.0".into(),
                arch: "x86_64".into(),
                cpus: 2,
                memory_mib: 7_900,
                user_namespace: true,
                options: vec![],
                second_kernel: None,
            },
            provider: "lab".into(),
            strict,
            fail_on,
        });
        log
    }

    pub(crate) fn push(&mut self, event: Event) {
        let at = u64::try_from(self.events.len()).expect("few events") * 100;
        self.events.push(RunEvent { at, event });
    }

    /// A cluster that starts and becomes ready.
    pub(crate) fn cluster(&mut self, cluster: &str, subject: &str, remarks: &[&str]) {
        let (cluster, subject) = (cluster.to_owned(), subject.to_owned());
        self.push(Event::ClusterStarting { cluster: cluster.clone(), subject: subject.clone() });
        let took = [("api", 12), ("topology", 80), ("proxy", 510), ("canary", 640)];
        self.push(Event::ClusterReady {
            cluster,
            subject,
            took: took.map(|(part, ms)| (part.to_owned(), ms)).into(),
            configuration: BTreeMap::from([("n1".to_owned(), "mode: nftables".to_owned())]),
            remarks: remarks.iter().map(|remark| (*remark).to_owned()).collect(),
        });
    }

    pub(crate) fn starts(&mut self, subject: &str, case: &str, attempt: u32) {
        self.push(Event::CaseStarted {
            subject: subject.into(),
            case: case.into(),
            attempt,
            cluster: "c1".into(),
        });
    }

    /// A judged cell that saw `count` drops.
    pub(crate) fn cell(&mut self, subject: &str, case: &str, open: bool, count: u64) {
        self.push(Event::CellJudged(CellRecord {
            subject: subject.into(),
            case: case.into(),
            attempt: 1,
            step: 1,
            flow: "from pod@n1 to web clusterIP".into(),
            to: "10.96.0.10:80/tcp".into(),
            line: None,
            phase: PhaseKind::Settle,
            expectation: Expectation { open, ..Expectation::default() },
            seen: vec![Tally { saw: Observation::Saw(Outcome::Dropped), count }],
            first_right: None,
            last_wrong: None,
            agrees: true,
        }));
    }

    pub(crate) fn step(&mut self, subject: &str, case: &str, step: usize, settled: Option<u64>) {
        self.push(Event::StepEnded {
            subject: subject.into(),
            case: case.into(),
            attempt: 1,
            step,
            times: StepTimes {
                first_right: Some(400),
                settled,
                ended: 1_000,
                harness: 30,
                probes: 20,
                ..StepTimes::default()
            },
        });
    }

    pub(crate) fn ends(&mut self, ended: Ended) {
        self.push(Event::CaseEnded(ended));
    }

    /// A case that starts and gets its verdict at the first attempt.
    pub(crate) fn case(&mut self, subject: &str, case: &str, verdict: Verdict) {
        self.starts(subject, case, 1);
        self.ends(ended(subject, case, verdict));
    }

    /// The last line.
    pub(crate) fn finish(&mut self) {
        self.push(Event::RunEnded { harness_cpu_ms: 900, proxy_cpu_ms: 1_500 });
    }

    pub(crate) fn report(&self) -> Report {
        Report::from_events(&self.events)
    }
}

pub(crate) fn ended(subject: &str, case: &str, verdict: Verdict) -> Ended {
    Ended {
        subject: subject.into(),
        case: case.into(),
        attempt: 1,
        verdict,
        excuse: None,
        note: None,
        failures: Vec::new(),
        took: 812,
        waited: 700,
        probes: 1_234,
        beside: Vec::new(),
    }
}

pub(crate) fn failure(flow: &str) -> Failure {
    Failure {
        step: 2,
        at_ms: 1_204,
        flow: flow.into(),
        line: Some(14),
        allowed: vec!["reached 10.0.1.2:80 as 10.9.0.2".into()],
        because: vec![
            "traffic to a node port stays on the node that received it \
             [v1.Service externalTrafficPolicy]"
                .into(),
        ],
        seen: vec!["reached 10.0.2.2:80 as 10.9.0.2 ×3".into(), "dropped ×2".into()],
        phase: Some(PhaseKind::Hold),
        rules: (1..=20)
            .map(|n| format!("\trule {n} of chain service-ABC dnat to 10.0.2.2:80"))
            .collect(),
        evidence: vec!["the packet left node n1 for node n2".into()],
    }
}

fn subject(id: &str) -> SubjectRecord {
    SubjectRecord {
        id: id.into(),
        name: "kube-proxy".into(),
        mode: "nftables".into(),
        release: Some("v1.37.2".into()),
        configuration: "default".into(),
        digest: Some("sha256:feed".into()),
        found: "cache".into(),
        features: Vec::new(),
        untested: false,
    }
}

fn planned(case: &str, level: Level) -> PlannedCase {
    PlannedCase {
        case: case.into(),
        area: case.split('/').next().unwrap_or_default().into(),
        level,
        covers: Vec::new(),
        about: format!("what {case} is about"),
    }
}
