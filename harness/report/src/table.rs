//! The matrix as rows of text, for whoever draws it.

use std::collections::BTreeMap;

use touchstone_spec::{Level, Verdict};

use crate::words::{cell, sign};
use crate::{Counts, Report, clean};

/// A row: a name and a cell per subject, all clean.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) cells: Vec<String>,
}

/// Names of the subjects, in the order of the cells, with the kernel where it is a second one.
pub(crate) fn subjects(report: &Report) -> Vec<String> {
    let host = report.run.as_ref().map(|run| &run.host);
    let second = host.filter(|host| host.second_kernel.is_some());
    let kernel = second.map(|host| format!(" on {}", clean::line(&host.kernel)));
    let named = |name: String| match &kernel {
        // Reports side by side have named it already.
        Some(kernel) if !name.ends_with(kernel.as_str()) => name + kernel,
        Some(_) | None => name,
    };
    report.totals.iter().map(|totals| named(clean::line(&totals.subject))).collect()
}

/// A row per area.
pub(crate) fn areas(report: &Report) -> Vec<Row> {
    let cells = |cells: &[crate::MatrixCell]| cells.iter().map(|c| cell(&c.verdicts)).collect();
    report
        .matrix
        .iter()
        .map(|row| Row { name: clean::line(&row.area), cells: cells(&row.cells) })
        .collect()
}

/// A row per level that has cases, and one for all together.
pub(crate) fn sums(report: &Report) -> Vec<Row> {
    let none = Counts::new();
    let mut rows: Vec<Row> = [Level::Must, Level::Should, Level::May, Level::Survey]
        .into_iter()
        .filter(|level| report.totals.iter().any(|totals| totals.levels.contains_key(level)))
        .map(|level| Row {
            name: format!("all {level}"),
            cells: report
                .totals
                .iter()
                .map(|totals| cell(totals.levels.get(&level).unwrap_or(&none)))
                .collect(),
        })
        .collect();
    let cells = report.totals.iter().map(|totals| cell(&totals.verdicts)).collect();
    rows.push(Row { name: "all".to_owned(), cells });
    rows
}

/// What the signs in use mean; a sign and its word are not broken apart.
pub(crate) fn legend(report: &Report) -> String {
    legend_of(&sum(report))
}

/// What the signs of some verdicts mean.
#[must_use]
pub fn legend_of(all: &Counts) -> String {
    let used = Verdict::ALL.into_iter().filter(|verdict| all.contains_key(verdict));
    let parts: Vec<String> =
        used.map(|verdict| format!("{}\u{a0}{verdict}", sign(verdict))).collect();
    parts.join("  ")
}

/// Verdicts of all subjects together.
pub(crate) fn sum(report: &Report) -> Counts {
    let mut all: Counts = BTreeMap::new();
    for (verdict, n) in report.totals.iter().flat_map(|totals| &totals.verdicts) {
        *all.entry(*verdict).or_default() += n;
    }
    all
}
