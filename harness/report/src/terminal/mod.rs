//! The report on a terminal: the matrix, every failing cell, what could not be judged, figures.

mod beside;
mod matrix;
mod page;

pub use beside::side_by_side;

use std::path::Path;

use touchstone_spec::Verdict;

use self::page::{Page, Style};
use crate::again::command_lines;
use crate::facts::facts;
use crate::notes::{Tone, headline, notes};
use crate::words::{label, seconds};
use crate::{CaseResult, ExitCode, Report, clean, exit_code, summary};

/// Whether the report is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// Text alone.
    Plain,
    /// ANSI escapes for colours.
    Ansi,
}

/// How the report is to look.
#[derive(Debug, Clone, Copy)]
pub struct TerminalOptions<'a> {
    /// Columns of the terminal; less than 40 counts as 40.
    pub width: usize,
    /// Whether it is coloured.
    pub colour: Colour,
    /// Folder with the run's files, to be named at the end.
    pub files: Option<&'a Path>,
}

/// The report as lines of at most the terminal's width.
#[must_use]
pub fn terminal(report: &Report, options: TerminalOptions<'_>) -> String {
    let mut page = Page::new(options.width.max(40), options.colour);
    matrix::draw(&mut page, report);
    for result in report.results.iter().filter(|result| result.verdict == Verdict::Fail) {
        page.blank();
        failing(&mut page, report, result);
    }
    let notes = notes(report);
    if !notes.is_empty() {
        page.blank();
    }
    for note in notes {
        let style = match note.tone {
            Tone::Bad => Style::Bad,
            Tone::Warn => Style::Warn,
            Tone::Calm => Style::Calm,
        };
        page.labelled(style, note.label, &note.text);
        for line in note.more {
            page.labelled(Style::Calm, "", &line);
        }
    }
    page.rule();
    let style = match exit_code(report) {
        ExitCode::Clean => Style::Good,
        ExitCode::Inconclusive => Style::Warn,
        ExitCode::Conformance
        | ExitCode::Harness
        | ExitCode::PlanMismatch
        | ExitCode::Interrupted
        | ExitCode::Terminated => Style::Bad,
    };
    let time = seconds(report.figures.total_ms);
    page.labelled(style, "Summary", &format!("[{time:>8}] {}", summary::sentence(report)));
    for (label, text) in summary::figures(report) {
        page.labelled(Style::Calm, label, &text);
    }
    if let Some(files) = options.files {
        page.labelled(Style::Calm, "Files", &clean::line(&files.display().to_string()));
    }
    page.labelled(style, "Result", &summary::ending(report));
    page.finish()
}

/// A failing case with its cells and the command that repeats it.
fn failing(page: &mut Page, report: &Report, result: &CaseResult) {
    page.labelled(Style::Bad, label(result.verdict), &headline(result));
    if !result.about.is_empty() {
        page.labelled(Style::Calm, "about", &clean::line(&result.about));
    }
    for note in result.note.iter().flat_map(|note| clean::lines(note)) {
        page.labelled(Style::Calm, "note", &note);
    }
    let (shown, rest) = facts(&result.failures);
    for (i, facts) in shown.iter().enumerate() {
        if i > 0 {
            page.blank();
        }
        for fact in facts {
            let mut label = fact.label;
            for line in &fact.lines {
                page.labelled(Style::Calm, label, line);
                label = "";
            }
        }
    }
    if let Some(rest) = rest {
        page.labelled(Style::Calm, "", &rest);
    }
    let run = report.run.as_ref();
    let lines = command_lines(run, &result.subject, &result.case, page.room());
    // An argument in pieces is one word only without blanks between them.
    if lines.iter().any(|line| line.ends_with("'\\")) {
        page.labelled(Style::Calm, "again", "");
        for line in command_lines(run, &result.subject, &result.case, page.width()) {
            page.bare(&line);
        }
    } else {
        let mut label = "again";
        for line in lines {
            page.labelled(Style::Calm, label, &line);
            label = "";
        }
    }
}
