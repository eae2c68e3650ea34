//! Several reports side by side: subject × mode × kernel, and what kernels differ in.

use std::collections::BTreeMap;

use touchstone_spec::Verdict;

use super::page::{Page, Style};
use super::{TerminalOptions, matrix};
use crate::{AreaRow, CaseResult, MatrixCell, Report, clean};

/// A case that another kernel judges differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelFinding {
    /// Subject as selected.
    pub subject: String,
    /// Case with its axes.
    pub case: String,
    /// Verdict by kernel release.
    pub verdicts: BTreeMap<String, Verdict>,
}

/// The cases that were judged on several kernels, not with the same verdict on all.
///
/// What a kernel was not asked about, or gave no clear answer to, is in the matrix and is no
/// finding.
#[must_use]
pub fn kernel_findings(reports: &[Report]) -> Vec<KernelFinding> {
    let mut seen: BTreeMap<(&str, &str), BTreeMap<String, Verdict>> = BTreeMap::new();
    for report in reports {
        for result in report.results.iter().filter(|result| is_judged(result)) {
            let verdicts = seen.entry((&result.subject, &result.case)).or_default();
            verdicts
                .entry(kernel(report).to_owned())
                // Of several runs on one kernel the worst counts.
                .and_modify(|verdict| *verdict = (*verdict).max(result.verdict))
                .or_insert(result.verdict);
        }
    }
    let differ = |verdicts: &BTreeMap<String, Verdict>| {
        verdicts.values().next().is_some_and(|one| verdicts.values().any(|other| other != one))
    };
    seen.into_iter()
        .filter(|(_, verdicts)| differ(verdicts))
        .map(|((subject, case), verdicts)| KernelFinding {
            subject: subject.to_owned(),
            case: case.to_owned(),
            verdicts,
        })
        .collect()
}

/// The matrix of several reports with a column per subject and kernel, then every case that
/// kernels differ in.
#[must_use]
pub fn side_by_side(reports: &[Report], options: TerminalOptions<'_>) -> String {
    let mut page = Page::new(options.width.max(40), options.colour);
    if let Some(merged) = merged(reports) {
        matrix::draw(&mut page, &merged);
    }
    page.blank();
    let findings = kernel_findings(reports);
    for finding in &findings {
        let verdicts: Vec<String> = finding
            .verdicts
            .iter()
            .map(|(kernel, verdict)| format!("{verdict} on {}", clean::line(kernel)))
            .collect();
        let text = format!("{}  {}", clean::line(&finding.subject), clean::line(&finding.case));
        page.labelled(Style::Bad, "DIFFERS", &text);
        page.labelled(Style::Calm, "", &verdicts.join(", "));
    }
    if findings.is_empty() {
        page.labelled(Style::Good, "Kernels", "no case has another verdict on another kernel");
    }
    page.finish()
}

/// A report with the columns of all; only good for a matrix.
fn merged(reports: &[Report]) -> Option<Report> {
    let mut merged = reports.first()?.clone();
    merged.totals.clear();
    merged.results.clear();
    let mut rows: Vec<AreaRow> = Vec::new();
    for report in reports {
        let name = |subject: &str| format!("{subject} on {}", kernel(report));
        for totals in &report.totals {
            merged
                .totals
                .push(crate::SubjectTotals { subject: name(&totals.subject), ..totals.clone() });
        }
        merged.results.extend(report.results.iter().cloned());
        for row in &report.matrix {
            if !rows.iter().any(|known| known.area == row.area) {
                rows.push(AreaRow { area: row.area.clone(), cells: Vec::new() });
            }
        }
    }
    for row in &mut rows {
        for report in reports {
            let of_area = report.matrix.iter().find(|other| other.area == row.area);
            for (i, totals) in report.totals.iter().enumerate() {
                let cell = of_area.and_then(|other| other.cells.get(i));
                row.cells.push(MatrixCell {
                    subject: format!("{} on {}", totals.subject, kernel(report)),
                    verdicts: cell.map(|cell| cell.verdicts.clone()).unwrap_or_default(),
                });
            }
        }
    }
    merged.matrix = rows;
    Some(merged)
}

fn kernel(report: &Report) -> &str {
    report.run.as_ref().map_or("an unknown kernel", |run| &run.host.kernel)
}

fn is_judged(result: &CaseResult) -> bool {
    match result.verdict {
        Verdict::Pass | Verdict::KnownFailure | Verdict::UnexpectedPass | Verdict::Fail => true,
        Verdict::Survey
        | Verdict::Unsupported
        | Verdict::Inconclusive
        | Verdict::NotRun
        | Verdict::Error => false,
    }
}
