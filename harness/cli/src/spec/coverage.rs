//! What saved runs have shown of the specification: behaviour × case × verdict, per subject.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use serde_json::{Value, json};
use touchstone_case::{Library, Specified};
use touchstone_record::LogReader;
use touchstone_report::{Counts, Report, clean, counts_cell, verdict_legend};
use touchstone_spec::{Level, Verdict};

use super::Paper;
use super::document::reason;
use crate::args::Format;
use crate::failed::Failed;
use crate::job::log_path;
use crate::say::{note, say};

/// The run that is read when none is named.
const LATEST: &str = "touchstone-out/latest";

/// Arguments of runs whose proxies were made wrong on purpose.
const DEFECTS: [&str; 3] = ["--lie", "--sabotage", "--without-proxy"];

pub(super) fn show(
    paper: &Paper,
    library: &Library,
    chosen: &[Specified<'_>],
    runs: &[PathBuf],
) -> Result<u8, Failed> {
    let latest = [PathBuf::from(LATEST)];
    let runs = if runs.is_empty() { &latest } else { runs };
    let mut seen = Seen::default();
    for run in runs {
        seen.add(run, library)?;
    }
    let rows: Vec<Row<'_>> = chosen.iter().map(|one| seen.row(one)).collect();
    match paper.format {
        Format::Text => say(&text(paper, &seen.subjects, &rows)),
        Format::Markdown => say(&markdown(&seen.subjects, &rows)),
        Format::Json => {
            let all: Vec<Value> = rows.iter().map(|row| row.value(&seen.subjects)).collect();
            let value = json!({ "runs": runs, "subjects": seen.subjects, "behaviours": all });
            say(&serde_json::to_string_pretty(&value).map_err(Failed::harness)?);
        }
    }
    Ok(0)
}

/// What the runs say, all together.
#[derive(Default)]
struct Seen {
    /// In the order in which the runs name them.
    subjects: Vec<String>,
    /// Verdict by subject and variant.
    verdicts: BTreeMap<(String, String), Verdict>,
    /// Cases that only a log knows, by behaviour.
    strangers: BTreeMap<String, BTreeSet<String>>,
}

impl Seen {
    fn add(&mut self, run: &Path, library: &Library) -> Result<(), Failed> {
        let log = if run.is_file() { run.to_owned() } else { log_path(run) };
        if !log.exists() {
            return Err(Failed::usage(anyhow!(
                "{} holds no saved run; name the folder of one with --run, or make one with \
                 `touchstone run`",
                run.display()
            )));
        }
        let events = LogReader::read(&log)
            .with_context(|| format!("{} cannot be used as a run", run.display()))
            .map_err(Failed::usage)?;
        let report = Report::from_events(&events);
        let command = report.run.as_ref().map(|facts| facts.command.as_slice()).unwrap_or_default();
        if let Some(defect) = DEFECTS.iter().find(|d| command.iter().any(|a| a.starts_with(**d))) {
            note(&format!("note: in {} {defect} had planted a defect", run.display()));
        }
        for subject in &report.subjects {
            if !self.subjects.contains(&subject.id) {
                self.subjects.push(subject.id.clone());
            }
        }
        for planned in &report.plan {
            let id = bare(&planned.case);
            if library.case(id).is_none() {
                for behaviour in &planned.covers {
                    self.strangers.entry(behaviour.clone()).or_default().insert(id.to_owned());
                }
            }
        }
        for result in &report.results {
            let key = (result.subject.clone(), result.case.clone());
            let verdict = self.verdicts.entry(key).or_insert(result.verdict);
            *verdict = worse(*verdict, result.verdict);
        }
        Ok(())
    }

    fn row<'a>(&self, one: &'a Specified<'a>) -> Row<'a> {
        let known = one.cases.iter().map(|case| case.id().as_str());
        let strangers = self.strangers.get(one.id).into_iter().flatten().map(String::as_str);
        let ids: BTreeSet<&str> = known.chain(strangers).collect();
        let cases = ids.into_iter().map(|id| (id.to_owned(), self.counts(id))).collect();
        Row { one, cases }
    }

    /// Verdicts of a case's variants, per subject.
    fn counts(&self, id: &str) -> Vec<Counts> {
        let of = |subject: &String| {
            let mut counts = Counts::new();
            for ((on, case), verdict) in &self.verdicts {
                if on == subject && bare(case) == id {
                    *counts.entry(*verdict).or_default() += 1;
                }
            }
            counts
        };
        self.subjects.iter().map(of).collect()
    }
}

/// The worse of two verdicts of different runs, so that no run hides another's failure; a run that
/// never came to the case says nothing.
fn worse(a: Verdict, b: Verdict) -> Verdict {
    match (a, b) {
        (Verdict::NotRun, other) | (other, Verdict::NotRun) => other,
        _ => a.max(b),
    }
}

/// A case's id without its axes.
fn bare(case: &str) -> &str {
    case.split_once('[').map_or(case, |(id, _)| id)
}

/// A behaviour with what was seen of it.
struct Row<'a> {
    one: &'a Specified<'a>,
    /// Cases with their verdicts, subject by subject.
    cases: Vec<(String, Vec<Counts>)>,
}

/// How a behaviour fared on a subject.
#[derive(PartialEq, Eq)]
enum Fared {
    /// Every judged variant passed, and there is one.
    Shown,
    /// Something failed.
    Failed,
    /// Nothing was judged.
    Unseen,
}

impl Row<'_> {
    fn fared(&self, subject: usize) -> Fared {
        let verdicts =
            || self.cases.iter().filter_map(|(_, all)| all.get(subject)).flat_map(Counts::keys);
        let failed = |verdict: &&Verdict| match verdict {
            Verdict::Fail | Verdict::KnownFailure => true,
            Verdict::Pass
            | Verdict::Survey
            | Verdict::Unsupported
            | Verdict::UnexpectedPass
            | Verdict::Inconclusive
            | Verdict::NotRun
            | Verdict::Error => false,
        };
        let shown = |verdict: &&Verdict| {
            matches!(verdict, Verdict::Pass | Verdict::Survey | Verdict::UnexpectedPass)
        };
        if verdicts().any(|verdict| failed(&verdict)) {
            Fared::Failed
        } else if verdicts().any(|verdict| shown(&verdict)) {
            Fared::Shown
        } else {
            Fared::Unseen
        }
    }

    fn value(&self, subjects: &[String]) -> Value {
        let case = |(id, counts): &(String, Vec<Counts>)| {
            let verdicts: BTreeMap<&String, &Counts> = subjects.iter().zip(counts).collect();
            json!({ "case": id, "verdicts": verdicts })
        };
        json!({
            "id": self.one.id,
            "level": self.one.behaviour.level,
            "topic": self.one.topic.heading,
            "cases": self.cases.iter().map(case).collect::<Vec<_>>(),
            "uncovered": self.one.behaviour.uncovered,
        })
    }
}

/// A cell; a case without a verdict says so.
fn cell(counts: &Counts) -> String {
    if counts.is_empty() {
        counts_cell(&Counts::from([(Verdict::NotRun, 1)]))
    } else {
        counts_cell(counts)
    }
}

/// A sentence per subject and level.
fn sums(subjects: &[String], rows: &[Row<'_>]) -> Vec<String> {
    let mut sums = Vec::new();
    for (at, subject) in subjects.iter().enumerate() {
        for level in [Level::Must, Level::Should, Level::May, Level::Survey] {
            let of: Vec<_> = rows.iter().filter(|row| row.one.behaviour.level == level).collect();
            let count = |fared: Fared| of.iter().filter(|row| row.fared(at) == fared).count();
            if !of.is_empty() {
                sums.push(format!(
                    "{}: of {} {level} behaviours {} shown, {} failing, {} without a verdict",
                    clean::line(subject),
                    of.len(),
                    count(Fared::Shown),
                    count(Fared::Failed),
                    count(Fared::Unseen)
                ));
            }
        }
    }
    sums
}

/// Verdicts of all rows together, for the legend.
fn used(rows: &[Row<'_>]) -> Counts {
    let mut used = Counts::new();
    let unseen = |counts: &Counts| counts.is_empty();
    for counts in rows.iter().flat_map(|row| &row.cases).flat_map(|(_, all)| all) {
        for (verdict, n) in counts {
            *used.entry(*verdict).or_default() += n;
        }
        if unseen(counts) {
            *used.entry(Verdict::NotRun).or_default() += 1;
        }
    }
    used
}

fn text(paper: &Paper, subjects: &[String], rows: &[Row<'_>]) -> String {
    let names: Vec<String> = subjects.iter().map(|subject| clean::line(subject)).collect();
    let ids = rows.iter().flat_map(|row| row.cases.iter().map(|(id, _)| id.chars().count() + 4));
    let first = ids.max().unwrap_or(0).clamp(20, 60);
    let columns: Vec<usize> = names.iter().map(|name| name.chars().count().max(8)).collect();
    let line = |name: &str, cells: &[String]| {
        let mut line = format!("{name:first$}");
        for (cell, width) in cells.iter().zip(&columns) {
            line.push_str(&format!("  {cell:width$}"));
        }
        format!("{}\n", line.trim_end())
    };
    let mut out = String::new();
    for rows in rows.chunk_by(|a, b| a.one.topic == b.one.topic) {
        let Some(topic) = rows.first().map(|row| row.one.topic) else { continue };
        let head = line(topic.heading, &names);
        out.push_str(&paper.bold(head.trim_end()));
        out.push_str("\n\n");
        for row in rows {
            out.push_str(&format!("{} ({})\n", row.one.id, row.one.behaviour.level));
            for (id, counts) in &row.cases {
                let cells: Vec<String> = counts.iter().map(cell).collect();
                out.push_str(&line(&format!("    {}", clean::line(id)), &cells));
            }
            if row.cases.is_empty() {
                out.push_str(&paper.labelled(super::NO_CASE, &reason(row.one).unwrap_or_default()));
            }
        }
        out.push('\n');
    }
    out.push_str(&format!("{}\n", verdict_legend(&used(rows))));
    out.push_str(&sums(subjects, rows).join("\n"));
    out
}

fn markdown(subjects: &[String], rows: &[Row<'_>]) -> String {
    let mut out = "# Coverage of the specification\n".to_owned();
    for sum in sums(subjects, rows) {
        out.push_str(&format!("\n- {}", clean::markdown(&sum)));
    }
    out.push('\n');
    let names: Vec<String> = subjects.iter().map(|subject| clean::markdown(subject)).collect();
    for rows in rows.chunk_by(|a, b| a.one.topic == b.one.topic) {
        let Some(topic) = rows.first().map(|row| row.one.topic) else { continue };
        out.push_str(&format!("\n## {}\n\n", topic.heading));
        out.push_str(&format!("| behaviour | level | case | {} |\n", names.join(" | ")));
        out.push_str(&format!("| --- | --- | --- |{}\n", " --- |".repeat(names.len())));
        for row in rows {
            let level = row.one.behaviour.level;
            for (id, counts) in &row.cases {
                let cells: Vec<String> =
                    counts.iter().map(|counts| clean::markdown(&cell(counts))).collect();
                let id = clean::markdown(id);
                out.push_str(&format!(
                    "| {} | {level} | {id} | {} |\n",
                    row.one.id,
                    cells.join(" | ")
                ));
            }
            if row.cases.is_empty() {
                let reason = clean::markdown(&reason(row.one).unwrap_or_default());
                let empty = "  |".repeat(names.len());
                out.push_str(&format!("| {} | {level} | none: {reason} |{empty}\n", row.one.id));
            }
        }
    }
    out.push_str(&format!("\n{}\n", clean::markdown(&verdict_legend(&used(rows)))));
    out
}
