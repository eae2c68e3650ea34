//! Whatever a proxy reads of an object, some case fails when it cannot read it.
//!
//! `lies.yaml` says for every known field which case that is, or why there is none. A lie about
//! objects of a namespace is told in its own case alone, so one run tells many of them.

use std::collections::{BTreeMap, BTreeSet};

use crate::common::{Bench, Failure, LabTurn, RUN_LIMIT, Report};
use serde::Deserialize;
use serde_json::Value;

const CONFORMANCE: i32 = 1;

/// A case that no lie of the table is about: it passes wherever the proxy works at all.
const WITNESS: &str = "cluster-ip/no-endpoints[v4,tcp]";

/// Whether the proxies of a run stayed up.
const STAYS_UP: &str = "lifecycle/proxy-stays-up";

/// Kinds whose objects belong to the whole cluster.
const OF_THE_CLUSTER: [&str; 2] = ["Node:", "ServiceCIDR:"];

/// A row of the table.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    field: String,
    set: Option<Value>,
    lie: Option<String>,
    #[serde(default = "iptables")]
    mode: String,
    noticed: Option<String>,
    unnoticed: Option<String>,
    stillborn: Option<String>,
    case: Option<String>,
    /// Whether the marker, a Service of the case like any other, is what shows the lie.
    #[serde(default)]
    by_marker: bool,
}

fn iptables() -> String {
    "iptables".to_owned()
}

impl Row {
    /// What is told, as `--lie` has it.
    fn told(&self) -> String {
        match (&self.lie, &self.set) {
            (Some(lie), _) => lie.clone(),
            (None, Some(value)) => format!("{}={value}", self.field),
            (None, None) => self.field.clone(),
        }
    }

    fn is_of_the_cluster(&self) -> bool {
        OF_THE_CLUSTER.iter().any(|kind| self.field.starts_with(kind))
    }
}

fn table() -> Vec<Row> {
    serde_saphyr::from_str(include_str!("lies.yaml")).expect("the table can be read")
}

/// The id of a case without its axes.
fn bare(case: &str) -> &str {
    case.split_once('[').map_or(case, |(id, _)| id)
}

/// Runs cases with lies in a mode; the code is not looked at.
fn run(mode: &str, lies: &BTreeSet<String>, cases: &BTreeSet<&str>) -> Report {
    let _turn = LabTurn::take();
    let bench = Bench::new();
    let subject = format!("kube-proxy:{mode}");
    let mut arguments = vec!["--subject", &subject];
    for lie in lies {
        arguments.extend(["--lie", lie]);
    }
    arguments.extend(cases);
    // Cases that fail wait for their limits, and not all of them find room at a time.
    let done = bench.start_run(&arguments).finish(RUN_LIMIT * 2);
    assert!(matches!(done.status.code(), Some(0 | CONFORMANCE)), "{done}");
    bench.report()
}

/// Rows that some case notices, by mode.
fn noticed(rows: &[Row]) -> BTreeMap<&str, Vec<(&Row, &str)>> {
    let mut modes: BTreeMap<&str, Vec<(&Row, &str)>> = BTreeMap::new();
    for row in rows {
        if let Some(case) = &row.noticed {
            modes.entry(&row.mode).or_default().push((row, case));
        }
    }
    modes
}

/// Fails unless the case failed for a flow of its own.
fn fails(report: &Report, row: &Row, case: &str) {
    assert_eq!(report.verdict(case), "fail", "{} is not noticed by {case}", row.told());
    let own = |failure: &Failure| row.by_marker || !failure.flow.contains("marker");
    let failures = report.failures(case);
    assert!(failures.iter().any(own), "{case} fails for its markers alone with {}", row.told());
}

#[test]
fn every_known_field_has_a_row() {
    let rows = table();
    let listed: BTreeSet<String> = rows.iter().map(|row| row.field.clone()).collect();
    let mut known = BTreeSet::new();
    for kind in ["Service", "EndpointSlice", "Node", "ServiceCIDR"] {
        let fields = touchstone_apiserver::known_fields(kind).expect("its fields are known");
        known.extend(fields.iter().map(|field| format!("{kind}:{field}")));
    }
    assert_eq!(listed, known);
    for row in &rows {
        let answers = [&row.noticed, &row.unnoticed, &row.stillborn];
        assert_eq!(answers.into_iter().flatten().count(), 1, "one answer: {row:?}");
        assert_eq!(row.stillborn.is_some(), row.case.is_some(), "a stillborn has a case: {row:?}");
    }
}

#[test]
fn a_lie_in_one_case_is_noticed_by_that_case() {
    let rows = table();
    for (mode, rows) in noticed(&rows) {
        let rows: Vec<_> = rows.into_iter().filter(|(row, _)| !row.is_of_the_cluster()).collect();
        let cases: BTreeSet<&str> = rows.iter().map(|(_, case)| *case).collect();
        assert_eq!(cases.len(), rows.len(), "each case tells about one lie");
        let lies = rows.iter().map(|(row, case)| format!("{}@{}", bare(case), row.told()));
        if rows.is_empty() {
            continue;
        }
        let report = run(mode, &lies.collect(), &cases.into_iter().chain([WITNESS]).collect());
        report.expect(WITNESS, "pass").expect(STAYS_UP, "pass");
        rows.iter().for_each(|(row, case)| fails(&report, row, case));
    }
}

#[test]
fn a_lie_about_the_cluster_is_noticed() {
    let rows = table();
    for (mode, rows) in noticed(&rows) {
        // Kinds have nothing to do with each other, so a run can tell a lie about each.
        let mut rounds: BTreeMap<usize, Vec<(&Row, &str)>> = BTreeMap::new();
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        for (row, case) in rows.into_iter().filter(|(row, _)| row.is_of_the_cluster()) {
            let kind = row.field.split(':').next().unwrap_or_default();
            let round = seen.entry(kind).or_default();
            rounds.entry(*round).or_default().push((row, case));
            *round += 1;
        }
        for rows in rounds.into_values() {
            let cases: BTreeSet<&str> = rows.iter().map(|(_, case)| *case).collect();
            let lies = rows.iter().map(|(row, _)| row.told()).collect();
            let report = run(mode, &lies, &cases.into_iter().chain([WITNESS]).collect());
            report.expect(WITNESS, "pass").expect(STAYS_UP, "pass");
            rows.iter().for_each(|(row, case)| fails(&report, row, case));
        }
    }
}

/// The control: without a lie that somebody can notice, every case of the table passes.
#[test]
fn lies_that_nobody_can_notice_are_not_noticed() {
    let rows = table();
    for (mode, noticed) in noticed(&rows) {
        let lies = rows.iter().filter(|row| row.mode == mode && row.unnoticed.is_some());
        let cases: BTreeSet<&str> = noticed.into_iter().map(|(_, case)| case).collect();
        let lies: BTreeSet<String> = lies.map(Row::told).collect();
        let report = run(mode, &lies, &cases.iter().copied().chain([WITNESS]).collect());
        for case in cases.into_iter().chain([WITNESS, STAYS_UP]) {
            report.expect(case, "pass");
        }
    }
}

#[test]
fn a_proxy_that_cannot_live_with_a_lie_is_no_pass() {
    let mut told = BTreeSet::new();
    for row in table() {
        let Some(case) = &row.case else { continue };
        if told.insert(row.told()) {
            let report = run(&row.mode, &[row.told()].into(), &[case.as_str()].into());
            report.expect(STAYS_UP, "fail").expect(case, "inconclusive");
        }
    }
}
