//! The report as Markdown, for the summary of a job or a pull request.

use touchstone_spec::Verdict;

use crate::again::quote;
use crate::facts::{facts, labelled};
use crate::notes::notes;
use crate::table::{Row, areas, legend, subjects, sums};
use crate::words::span;
use crate::{CaseResult, ExitCode, Report, clean, exit_code, repeat_command, summary};

/// Bytes after which failing cases are only counted; a job summary may have 1,024 KiB.
const ROOM: usize = 800 * 1024;

/// The report as Markdown: matrix, failing cases folded, notes, figures, how to repeat.
#[must_use]
pub fn markdown(report: &Report) -> String {
    let mut out = String::new();
    let code = exit_code(report);
    let title = match code {
        ExitCode::Clean => "✓",
        ExitCode::Inconclusive => "?",
        ExitCode::Conformance
        | ExitCode::Harness
        | ExitCode::PlanMismatch
        | ExitCode::Interrupted
        | ExitCode::Terminated => "✗",
    };
    push(&mut out, &format!("## {title} touchstone: {}", code.meaning()));
    push(&mut out, "");
    let time = span(report.figures.total_ms);
    let sentence = clean::markdown(&summary::sentence(report));
    push(&mut out, &format!("{sentence}, in {time}; exit code {}.", code.code()));
    if !report.results.is_empty() {
        matrix(&mut out, report);
    }
    failures(&mut out, report);
    other_notes(&mut out, report);
    push(&mut out, "");
    push(&mut out, "### Figures");
    push(&mut out, "");
    for (label, text) in summary::figures(report) {
        push(&mut out, &format!("- {label}: {}", clean::markdown(&text)));
    }
    if let Some(run) = &report.run {
        let mut command: Vec<String> = run.command.iter().map(|a| quote(a)).collect();
        if !command.iter().any(|argument| argument.starts_with("--seed")) {
            command.push(format!("--seed {}", quote(&run.seed)));
        }
        push(&mut out, "");
        push(&mut out, "The whole run again:");
        push(&mut out, "");
        push(&mut out, &format!("<pre>{}</pre>", clean::html(&command.join(" "))));
    }
    out
}

fn push(out: &mut String, line: &str) {
    out.push_str(line);
    out.push('\n');
}

fn matrix(out: &mut String, report: &Report) {
    let names = subjects(report);
    let cells = |row: &Row| {
        let cells: Vec<String> = row.cells.iter().map(|cell| clean::markdown(cell)).collect();
        format!("| {} | {} |", clean::markdown(&row.name), cells.join(" | "))
    };
    push(out, "");
    let head = Row { name: "area".to_owned(), cells: names.clone() };
    push(out, &cells(&head));
    push(out, &format!("| --- |{}", " --- |".repeat(names.len())));
    for row in areas(report).iter().chain(&sums(report)) {
        push(out, &cells(row));
    }
    push(out, "");
    push(out, &clean::markdown(&legend(report)));
}

fn failures(out: &mut String, report: &Report) {
    let failing: Vec<&CaseResult> =
        report.results.iter().filter(|result| result.verdict == Verdict::Fail).collect();
    if failing.is_empty() {
        return;
    }
    push(out, "");
    push(out, "### Failing cases");
    for (i, result) in failing.iter().enumerate() {
        let block = failing_case(report, result);
        if out.len() + block.len() > ROOM {
            push(out, "");
            push(out, &format!("… and {} more failing cases in report.json.", failing.len() - i));
            return;
        }
        out.push_str(&block);
    }
}

fn failing_case(report: &Report, result: &CaseResult) -> String {
    let mut out = String::new();
    push(&mut out, "");
    push(
        &mut out,
        &format!(
            "<details><summary>✗ {} <b>{}</b> ({})</summary>",
            clean::html(&result.subject),
            clean::html(&result.case),
            result.level,
        ),
    );
    push(&mut out, "");
    if !result.about.is_empty() {
        push(&mut out, &clean::markdown(&result.about));
        push(&mut out, "");
    }
    push(&mut out, "<pre>");
    for note in result.note.iter().flat_map(|note| note.lines()) {
        push(&mut out, &format!("{:<8} {}", "note", clean::html(note)));
    }
    let (shown, rest) = facts(&result.failures);
    for line in shown.iter().flatten().flat_map(labelled).chain(rest) {
        push(&mut out, &clean::html(&line));
    }
    let again = repeat_command(report.run.as_ref(), &result.subject, &result.case);
    push(&mut out, &format!("{:<8} {}", "again", clean::html(&again)));
    push(&mut out, "</pre>");
    push(&mut out, "");
    push(&mut out, "</details>");
    out
}

fn other_notes(out: &mut String, report: &Report) {
    let notes = notes(report);
    if notes.is_empty() {
        return;
    }
    push(out, "");
    push(out, "### Notes");
    push(out, "");
    for note in notes {
        push(out, &format!("- {} {}", note.label, clean::markdown(&note.text)));
        for line in note.more {
            push(out, &format!("  <br>{}", clean::markdown(&line)));
        }
    }
}
