//! Several reports side by side: subject × mode × place, and what places differ in.

use super::page::{Page, Style};
use super::{TerminalOptions, matrix};
use crate::compare::{Agreement, Aspect, Place, agreements, findings};
use crate::{AreaRow, MatrixCell, Report, clean};

/// The matrix of several reports with a column per subject and place, then every case that places
/// differ in, and how far providers agree.
#[must_use]
pub fn side_by_side(reports: &[Report], options: TerminalOptions<'_>) -> String {
    let mut page = Page::new(options.width.max(40), options.colour);
    let places: Vec<Place> = reports.iter().map(Place::of).collect();
    // Runs in one place are named by their kernel, as one of several would be.
    let aspect = Aspect::of(&places).unwrap_or(Aspect::Kernel);
    if let Some(merged) = merged(reports, aspect) {
        matrix::draw(&mut page, &merged);
    }
    page.blank();
    let findings = findings(reports);
    for finding in &findings {
        let verdicts: Vec<String> = finding
            .verdicts
            .iter()
            .map(|(place, verdict)| format!("{verdict} on {}", clean::line(&aspect.name(place))))
            .collect();
        let text = format!("{}  {}", clean::line(&finding.subject), clean::line(&finding.case));
        page.labelled(Style::Bad, "DIFFERS", &text);
        let verdicts = verdicts.join(", ");
        page.labelled(Style::Calm, "", &format!("by {}: {verdicts}", finding.aspect));
    }
    if findings.is_empty() {
        let text = format!("no case has another verdict on another {aspect}");
        page.labelled(Style::Good, "Verdicts", &text);
    }
    for agreement in agreements(reports) {
        show_agreement(&mut page, &agreement);
    }
    page.finish()
}

/// How many of the `must` cases were judged with every provider, and why the others were not.
fn show_agreement(page: &mut Page, agreement: &Agreement) {
    let Agreement { subject, providers, judged, everywhere, alike, missing } = agreement;
    let providers: Vec<&str> = providers.iter().map(String::as_str).collect();
    #[expect(clippy::cast_precision_loss, reason = "there are fewer cases than 2^52")]
    let share = 100.0 * *everywhere as f64 / (*judged).max(1) as f64;
    let text = format!(
        "{}: of {judged} must cases {everywhere} ({share:.1} %) were judged on {}, {alike} of them \
         alike",
        clean::line(subject),
        clean::line(&providers.join(" and ")),
    );
    let style = if alike == everywhere { Style::Good } else { Style::Bad };
    page.labelled(style, "Agreement", &text);
    for ((provider, why), count) in missing {
        let text = format!("{count} not on {}: {}", clean::line(provider), clean::line(why));
        page.labelled(Style::Calm, "", &text);
    }
}

/// A report with the columns of all; only good for a matrix.
fn merged(reports: &[Report], aspect: Aspect) -> Option<Report> {
    let mut merged = reports.first()?.clone();
    merged.totals.clear();
    merged.results.clear();
    let mut rows: Vec<AreaRow> = Vec::new();
    for report in reports {
        let name = |subject: &str| format!("{subject} on {}", aspect.name(&Place::of(report)));
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
                    subject: format!("{} on {}", totals.subject, aspect.name(&Place::of(report))),
                    verdicts: cell.map(|cell| cell.verdicts.clone()).unwrap_or_default(),
                });
            }
        }
    }
    merged.matrix = rows;
    Some(merged)
}
