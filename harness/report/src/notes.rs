//! What is worth a line beside the failing cells.

use std::collections::BTreeMap;

use touchstone_spec::Verdict;

use crate::facts::first;
use crate::words::{label, many, seconds};
use crate::{CaseResult, Report, clean};

/// How much a note matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// It changes how the run ends, or may.
    Bad,
    /// It explains a gap.
    Warn,
    /// To be known.
    Calm,
}

/// A labelled line with further lines below it, all clean.
pub(crate) struct Note {
    pub(crate) label: &'static str,
    pub(crate) tone: Tone,
    pub(crate) text: String,
    pub(crate) more: Vec<String>,
}

/// What to think of results of a subject file that nobody has run.
pub const UNTESTED: &str = "its subject file was written from documentation and nobody is known to \
                            have run it; where a case fails, doubt the file before the proxy, and \
                            take `untested` out of it once its results were looked at";

/// How many cases a note lists by name before it only counts them.
const NAMED: usize = 5;

/// All notes: what ended the run first, then case by case, then the clusters.
pub(crate) fn notes(report: &Report) -> Vec<Note> {
    let mut notes = Vec::new();
    of_the_run(report, &mut notes);
    of_subjects(report, &mut notes);
    of_cases(report, &mut notes);
    of_groups(report, &mut notes);
    of_clusters(report, &mut notes);
    notes
}

fn of_the_run(report: &Report, notes: &mut Vec<Note>) {
    for trouble in &report.harness_errors {
        let mut lines: Vec<String> = clean::lines(&trouble.message).collect();
        let text = if lines.is_empty() { String::new() } else { lines.remove(0) };
        notes.push(Note {
            label: "HARNESS",
            tone: Tone::Bad,
            text: format!("[{:>8}] {text}", seconds(trouble.at_ms)),
            more: first(lines, "harness_errors"),
        });
    }
    if let Some(interruption) = &report.interrupted {
        let signal = clean::line(&interruption.signal);
        notes.push(Note {
            label: "INTERRUPTED",
            tone: Tone::Bad,
            text: format!("[{:>8}] by {signal}", seconds(interruption.at_ms)),
            more: Vec::new(),
        });
    } else if !report.ended {
        notes.push(Note {
            label: "CUT SHORT",
            tone: Tone::Bad,
            text: "the log has no last line: the run was killed, or is still running".to_owned(),
            more: Vec::new(),
        });
    }
}

fn of_subjects(report: &Report, notes: &mut Vec<Note>) {
    for subject in report.subjects.iter().filter(|subject| subject.untested) {
        notes.push(Note {
            label: "UNTESTED",
            tone: Tone::Warn,
            text: format!("{}: {UNTESTED}", clean::line(&subject.id)),
            more: Vec::new(),
        });
    }
}

/// The reason of an error that befell other cases of the subject as well: what is true of all of
/// them is told once.
fn shared_error<'a>(report: &Report, result: &'a CaseResult) -> Option<&'a str> {
    let note = result.note.as_deref().filter(|_| result.verdict == Verdict::Error)?;
    let same = |other: &&CaseResult| {
        (other.verdict, &other.subject, &other.note)
            == (result.verdict, &result.subject, &result.note)
    };
    (report.results.iter().filter(same).count() > 1).then_some(note)
}

fn of_cases(report: &Report, notes: &mut Vec<Note>) {
    let strict = report.run.as_ref().is_some_and(|run| run.strict);
    for result in &report.results {
        let tone = match result.verdict {
            Verdict::Error => shared_error(report, result).is_none().then_some(Tone::Bad),
            Verdict::Inconclusive => Some(Tone::Warn),
            Verdict::UnexpectedPass if strict => Some(Tone::Bad),
            Verdict::UnexpectedPass => Some(Tone::Warn),
            // A case that was under way says what it was waiting for.
            Verdict::NotRun => result.note.is_some().then_some(Tone::Bad),
            Verdict::Pass
            | Verdict::Survey
            | Verdict::Unsupported
            | Verdict::KnownFailure
            | Verdict::Fail => None,
        };
        if let Some(tone) = tone {
            let listed = (result.verdict == Verdict::UnexpectedPass)
                .then_some("listed as a known failure, but passed");
            let why = result.note.as_deref().or(listed);
            notes.push(Note {
                label: label(result.verdict),
                tone,
                text: headline(result),
                more: why.map(|why| clean::lines(why).collect()).unwrap_or_default(),
            });
        }
        if result.flaky {
            let attempts = result.attempts.iter().filter_map(|attempt| attempt.verdict);
            let attempts: Vec<String> = attempts.map(|verdict| verdict.to_string()).collect();
            notes.push(Note {
                label: "FLAKY",
                tone: Tone::Warn,
                text: headline(result),
                more: vec![format!(
                    "attempts, of which the first decides: {}",
                    attempts.join(", ")
                )],
            });
        }
    }
}

/// Time, if there is one, subject, case and level of a result.
pub(crate) fn headline(result: &CaseResult) -> String {
    let (subject, case) = (clean::line(&result.subject), clean::line(&result.case));
    let what = format!("{subject}  {case} ({})", result.level);
    if result.verdict == Verdict::NotRun {
        return what;
    }
    format!("[{:>8}] {what}", seconds(result.took_ms))
}

/// Cases with the same reason, counted together; what changes how the run ends comes first.
fn of_groups(report: &Report, notes: &mut Vec<Note>) {
    let mut groups: BTreeMap<(&str, Verdict, String), Vec<&CaseResult>> = BTreeMap::new();
    for result in &report.results {
        let shares = match result.verdict {
            Verdict::NotRun => result.note.is_none(),
            Verdict::KnownFailure | Verdict::Unsupported => true,
            Verdict::Error => shared_error(report, result).is_some(),
            Verdict::Pass
            | Verdict::Survey
            | Verdict::UnexpectedPass
            | Verdict::Inconclusive
            | Verdict::Fail => false,
        };
        if shares {
            let excuse = result.excuse.as_ref().map(ToString::to_string);
            let reason = excuse.or_else(|| result.note.clone()).unwrap_or_default();
            let key = (result.subject.as_str(), result.verdict, reason);
            groups.entry(key).or_default().push(result);
        }
    }
    let mut grouped = Vec::new();
    for ((subject, verdict, reason), results) in groups {
        let names = results.iter().take(NAMED).map(|result| clean::line(&result.case));
        let mut names: Vec<String> = names.collect();
        if results.len() > NAMED {
            names.push(format!("… {} more", results.len() - NAMED));
        }
        let count = many(u64::try_from(results.len()).unwrap_or(u64::MAX), "case");
        let mut text = format!("{}  {count}", clean::line(subject));
        if !reason.is_empty() {
            text.push_str(": ");
            text.push_str(&clean::line(&reason));
        }
        grouped.push(Note {
            label: label(verdict),
            tone: if matches!(verdict, Verdict::NotRun | Verdict::Error) {
                Tone::Bad
            } else {
                Tone::Calm
            },
            text,
            more: vec![names.join(" ")],
        });
    }
    grouped.sort_by_key(|note| note.tone != Tone::Bad);
    notes.extend(grouped);
}

fn of_clusters(report: &Report, notes: &mut Vec<Note>) {
    for exit in report.proxy_exits.iter().filter(|exit| exit.by_design.is_none()) {
        let subject = exit.subject.as_deref().map(clean::line).unwrap_or_default();
        let again = if exit.restarted_ms.is_some() { ", started again" } else { "" };
        notes.push(Note {
            label: "PROXY EXIT",
            tone: Tone::Bad,
            text: format!(
                "[{:>8}] {subject}  node {} of cluster {}: {}{again}",
                seconds(exit.at_ms),
                clean::line(&exit.node),
                clean::line(&exit.cluster),
                clean::line(&exit.status),
            ),
            more: first(
                exit.last_lines.iter().flat_map(|line| clean::lines(line)).collect(),
                "proxy_exits",
            ),
        });
    }
    let mut remarks: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for cluster in &report.clusters {
        for remark in &cluster.remarks {
            remarks.entry(remark).or_default().push(clean::line(&cluster.cluster));
        }
    }
    for (remark, clusters) in remarks {
        notes.push(Note {
            label: "REMARK",
            tone: Tone::Calm,
            text: format!("{} (cluster {})", clean::line(remark), clusters.join(", ")),
            more: Vec::new(),
        });
    }
}
