//! From the events of a run to the report's model.

use std::collections::{BTreeMap, BTreeSet};

use touchstone_record::{Ended, Event, PlannedCase, RunEvent, SubjectRecord};
use touchstone_spec::{Level, Observation, Verdict};

use crate::{
    AreaRow, Attempt, CaseResult, Cluster, Counts, FORMAT, Figures, HarnessTrouble, Interruption,
    MatrixCell, ProxyExit, Recorded, Report, RunFacts, StepResult, SubjectTotals, exit_code,
    figures,
};

/// One attempt as far as the log tells it.
#[derive(Default)]
struct Seen<'a> {
    started: Option<(u64, &'a str)>,
    waiting: Option<&'a str>,
    cells: u64,
    recorded: Vec<Recorded>,
    steps: Vec<StepResult>,
    ended: Option<&'a Ended>,
}

/// Attempts of one case on one subject.
type Attempts<'a> = BTreeMap<u32, Seen<'a>>;

impl Report {
    /// The report of a log, whole or cut anywhere.
    #[must_use]
    pub fn from_events(events: &[RunEvent]) -> Report {
        let mut gathering = Gathering::default();
        for event in events {
            gathering.take(event);
        }
        gathering.report()
    }
}

#[derive(Default)]
struct Gathering<'a> {
    ended: bool,
    run: Option<RunFacts>,
    subjects: Vec<SubjectRecord>,
    plan: Vec<PlannedCase>,
    surveys: BTreeSet<&'a str>,
    attempts: BTreeMap<(&'a str, &'a str), Attempts<'a>>,
    clusters: Vec<Cluster>,
    proxy_exits: Vec<ProxyExit>,
    harness_errors: Vec<HarnessTrouble>,
    interrupted: Option<Interruption>,
    figures: Figures,
}

impl<'a> Gathering<'a> {
    fn attempt(&mut self, subject: &'a str, case: &'a str, attempt: u32) -> &mut Seen<'a> {
        self.attempts.entry((subject, case)).or_default().entry(attempt).or_default()
    }

    fn cluster(&mut self, name: &str) -> Option<&mut Cluster> {
        self.clusters.iter_mut().rev().find(|cluster| cluster.cluster == name)
    }

    fn take(&mut self, event: &'a RunEvent) {
        let at_ms = event.at;
        self.figures.total_ms = self.figures.total_ms.max(at_ms);
        match &event.event {
            Event::RunStarted {
                format: _,
                run,
                started,
                version,
                command,
                seed,
                subjects,
                plan,
                digest,
                false_alarm_rate,
                host,
                provider,
                strict,
                fail_on,
            } => {
                self.subjects.clone_from(subjects);
                self.plan.clone_from(plan);
                let surveys = plan.iter().filter(|planned| planned.level == Level::Survey);
                self.surveys = surveys.map(|planned| planned.case.as_str()).collect();
                self.run = Some(RunFacts {
                    run: run.clone(),
                    started: started.clone(),
                    version: version.clone(),
                    command: command.clone(),
                    seed: seed.to_string(),
                    digest: digest.clone(),
                    false_alarm_rate: *false_alarm_rate,
                    host: host.clone(),
                    provider: provider.clone(),
                    strict: *strict,
                    fail_on: *fail_on,
                });
            }
            Event::ClusterStarting { cluster, subject } => self.clusters.push(Cluster {
                cluster: cluster.clone(),
                subject: subject.clone(),
                starting_ms: Some(at_ms),
                ready_ms: None,
                took: BTreeMap::new(),
                configuration: BTreeMap::new(),
                remarks: Vec::new(),
            }),
            Event::ClusterReady { cluster, subject, took, configuration, remarks } => {
                if let Some(known) = self.cluster(cluster).filter(|c| c.ready_ms.is_none()) {
                    known.ready_ms = Some(at_ms);
                    known.took.clone_from(took);
                    known.configuration.clone_from(configuration);
                    known.remarks.clone_from(remarks);
                } else {
                    self.clusters.push(Cluster {
                        cluster: cluster.clone(),
                        subject: subject.clone(),
                        starting_ms: None,
                        ready_ms: Some(at_ms),
                        took: took.clone(),
                        configuration: configuration.clone(),
                        remarks: remarks.clone(),
                    });
                }
            }
            Event::ClusterClosed { cluster, remarks } => {
                if let Some(known) = self.cluster(cluster) {
                    known.remarks.extend_from_slice(remarks);
                }
            }
            Event::ProxyExited { cluster, node, status, by_design, last_lines } => {
                let subject = self.cluster(cluster).map(|known| known.subject.clone());
                self.proxy_exits.push(ProxyExit {
                    at_ms,
                    subject,
                    cluster: cluster.clone(),
                    node: node.clone(),
                    status: status.clone(),
                    by_design: by_design.as_ref().map(|design| design.name.clone()),
                    last_lines: last_lines.clone(),
                    restarted_ms: None,
                });
            }
            Event::ProxyRestarted { cluster, node } => {
                let last = self.proxy_exits.iter_mut().rev();
                if let Some(exit) = last
                    .filter(|exit| exit.cluster == *cluster && exit.node == *node)
                    .find(|exit| exit.restarted_ms.is_none())
                {
                    exit.restarted_ms = Some(at_ms);
                }
            }
            Event::CaseStarted { subject, case, attempt, cluster } => {
                self.attempt(subject, case, *attempt).started = Some((at_ms, cluster));
            }
            Event::Waiting { subject, case, what } => {
                let attempts = self.attempts.get_mut(&(subject.as_str(), case.as_str()));
                if let Some(last) = attempts.and_then(|attempts| attempts.values_mut().next_back())
                {
                    last.waiting = Some(what);
                }
            }
            Event::CellJudged(cell) => {
                self.figures.cells += 1;
                let unjudged = cell.expectation.open || self.surveys.contains(cell.case.as_str());
                let seen = self.attempt(&cell.subject, &cell.case, cell.attempt);
                seen.cells += 1;
                if unjudged {
                    let tally = cell.seen.iter().map(|tally| match &tally.saw {
                        Observation::Saw(outcome) => format!("{outcome} ×{}", tally.count),
                        Observation::ProbeBroke(why) => {
                            format!("probe broke: {why} ×{}", tally.count)
                        }
                    });
                    seen.recorded.push(Recorded {
                        step: cell.step,
                        flow: cell.flow.clone(),
                        seen: tally.collect(),
                    });
                }
            }
            Event::StepEnded { subject, case, attempt, step, times } => {
                self.figures.strays = self.figures.strays.saturating_add(times.strays);
                self.figures.sampling_ms = self.figures.sampling_ms.saturating_add(times.harness);
                let seen = self.attempt(subject, case, *attempt);
                seen.steps.push(StepResult { step: *step, times: times.clone() });
            }
            Event::CaseEnded(end) => {
                let figures = &mut self.figures;
                figures.cases_ms = figures.cases_ms.saturating_add(end.took);
                figures.waited_ms = figures.waited_ms.saturating_add(end.waited.min(end.took));
                figures.probes = figures.probes.saturating_add(end.probes);
                self.attempt(&end.subject, &end.case, end.attempt).ended = Some(end);
            }
            Event::Interrupted { signal } => {
                self.interrupted
                    .get_or_insert_with(|| Interruption { at_ms, signal: signal.clone() });
            }
            Event::HarnessError { message } => {
                self.harness_errors.push(HarnessTrouble { at_ms, message: message.clone() });
            }
            Event::RunEnded { harness_cpu_ms, proxy_cpu_ms } => {
                self.ended = true;
                self.figures.harness_cpu_ms = Some(*harness_cpu_ms);
                self.figures.proxy_cpu_ms = Some(*proxy_cpu_ms);
            }
        }
    }

    fn report(mut self) -> Report {
        let mut left = std::mem::take(&mut self.attempts);
        let mut results = Vec::new();
        for subject in &self.subjects {
            for planned in &self.plan {
                let attempts =
                    left.remove(&(subject.id.as_str(), planned.case.as_str())).unwrap_or_default();
                results.push(result(&subject.id, planned, true, &attempts));
            }
        }
        for ((subject, case), attempts) in &left {
            let planned = PlannedCase {
                case: (*case).to_owned(),
                area: case.split('/').next().unwrap_or(case).to_owned(),
                level: Level::Must,
                covers: Vec::new(),
                about: String::new(),
            };
            results.push(result(subject, &planned, false, attempts));
        }
        let figures = &mut self.figures;
        figures.harness_ms = figures.cases_ms - figures.waited_ms;
        figures.harness_share = figures::share(figures.harness_ms, figures.cases_ms);

        let subjects = subjects_of(&self.subjects, &results);
        let mut report = Report {
            format: FORMAT.to_owned(),
            exit_code: 0,
            ended: self.ended,
            run: self.run,
            subjects: self.subjects,
            plan: self.plan,
            totals: subjects.iter().map(|subject| totals(subject, &results)).collect(),
            matrix: matrix(&subjects, &results),
            results,
            figures: self.figures,
            clusters: self.clusters,
            proxy_exits: self.proxy_exits,
            harness_errors: self.harness_errors,
            interrupted: self.interrupted,
        };
        report.exit_code = exit_code(&report).code();
        report
    }
}

/// The result of one case on one subject: its first ended attempt decides.
fn result(subject: &str, planned: &PlannedCase, known: bool, seen: &Attempts<'_>) -> CaseResult {
    let attempts: Vec<Attempt> = seen
        .iter()
        .map(|(number, seen)| Attempt {
            attempt: *number,
            verdict: seen.ended.map(|end| end.verdict),
            note: seen.ended.and_then(|end| end.note.clone()),
            failures: seen.ended.map(|end| end.failures.clone()).unwrap_or_default(),
            took_ms: seen.ended.map_or(0, |end| end.took),
            waited_ms: seen.ended.map_or(0, |end| end.waited),
            probes: seen.ended.map_or(0, |end| end.probes),
        })
        .collect();
    let verdicts: BTreeSet<Verdict> = attempts.iter().filter_map(|a| a.verdict).collect();
    let first = seen.values().find(|seen| seen.ended.is_some()).or_else(|| seen.values().next());
    let end = first.and_then(|seen| seen.ended);
    let cut_short = first.filter(|seen| seen.ended.is_none()).map(|seen| match seen.waiting {
        Some(what) => format!("the run ended while it was waiting: {what}"),
        None => "the run ended while it was running".to_owned(),
    });
    CaseResult {
        subject: subject.to_owned(),
        case: planned.case.clone(),
        area: planned.area.clone(),
        level: planned.level,
        about: planned.about.clone(),
        planned: known,
        verdict: end.map_or(Verdict::NotRun, |end| end.verdict),
        flaky: verdicts.len() > 1,
        excuse: end.and_then(|end| end.excuse.clone()),
        note: end.map_or(cut_short, |end| end.note.clone()),
        failures: end.map(|end| end.failures.clone()).unwrap_or_default(),
        started_ms: first.and_then(|seen| seen.started).map(|(at, _)| at),
        took_ms: end.map_or(0, |end| end.took),
        waited_ms: end.map_or(0, |end| end.waited),
        probes: end.map_or(0, |end| end.probes),
        cells: first.map_or(0, |seen| seen.cells),
        cluster: first.and_then(|seen| seen.started).map(|(_, cluster)| cluster.to_owned()),
        beside: end.map(|end| end.beside.clone()).unwrap_or_default(),
        steps: first.map(|seen| seen.steps.clone()).unwrap_or_default(),
        recorded: first.map(|seen| seen.recorded.clone()).unwrap_or_default(),
        attempts,
    }
}

/// The run's subjects, then those that only results name.
fn subjects_of(known: &[SubjectRecord], results: &[CaseResult]) -> Vec<String> {
    let mut subjects: Vec<String> = known.iter().map(|subject| subject.id.clone()).collect();
    for result in results {
        if !subjects.contains(&result.subject) {
            subjects.push(result.subject.clone());
        }
    }
    subjects
}

fn totals(subject: &str, results: &[CaseResult]) -> SubjectTotals {
    let mine: Vec<&CaseResult> = results.iter().filter(|r| r.subject == subject).collect();
    let mut verdicts = Counts::new();
    let mut levels: BTreeMap<Level, Counts> = BTreeMap::new();
    for result in &mine {
        *verdicts.entry(result.verdict).or_default() += 1;
        *levels.entry(result.level).or_default().entry(result.verdict).or_default() += 1;
    }
    SubjectTotals {
        subject: subject.to_owned(),
        cases: verdicts.values().sum(),
        verdicts,
        levels,
        flaky: mine.iter().map(|result| u64::from(result.flaky)).sum(),
        settling: figures::settling(&mine),
    }
}

/// Areas in the order in which the plan first names them.
fn matrix(subjects: &[String], results: &[CaseResult]) -> Vec<AreaRow> {
    let mut areas: Vec<&str> = Vec::new();
    let mut counts: BTreeMap<(&str, &str), Counts> = BTreeMap::new();
    for result in results {
        if !areas.contains(&result.area.as_str()) {
            areas.push(&result.area);
        }
        let cell = counts.entry((&result.area, &result.subject)).or_default();
        *cell.entry(result.verdict).or_default() += 1;
    }
    let cell = |area: &str, subject: &String| MatrixCell {
        subject: subject.clone(),
        verdicts: counts.get(&(area, subject.as_str())).cloned().unwrap_or_default(),
    };
    areas
        .iter()
        .map(|area| AreaRow {
            area: (*area).to_owned(),
            cells: subjects.iter().map(|subject| cell(area, subject)).collect(),
        })
        .collect()
}
