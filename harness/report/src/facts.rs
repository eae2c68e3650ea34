//! What is said about one disagreement: the same facts in every rendering.

use touchstone_record::{Failure, PhaseKind};

use crate::clean;
use crate::words::span;
use crate::wrap::cut;

/// Lines of rules, evidence or a log that a report shows before it points to the whole.
const SHOWN: usize = 8;
/// Disagreements of one case that a report shows before it points to the rest.
const SHOWN_FAILURES: usize = 5;
/// Columns of such a line before it is cut; whole lines are in `report.json`.
const LINE: usize = 400;

/// A labelled part of what is said, in clean lines.
pub(crate) struct Fact {
    /// One word, at most eight columns wide.
    pub(crate) label: &'static str,
    /// At least one line.
    pub(crate) lines: Vec<String>,
}

/// The facts of a case's first disagreements, one list for each, and a remark about the rest.
///
/// Reasons and rules that the disagreement before had as well are not said again.
pub(crate) fn facts(failures: &[Failure]) -> (Vec<Vec<Fact>>, Option<String>) {
    let mut shown: Vec<Vec<Fact>> = Vec::new();
    let mut before: Option<&Failure> = None;
    for failure in failures.iter().take(SHOWN_FAILURES) {
        let mut facts = facts_of(failure);
        for fact in &mut facts {
            let same = before.is_some_and(|before| match fact.label {
                "because" => before.because == failure.because,
                "rules" => before.rules == failure.rules,
                _ => false,
            });
            if same {
                fact.lines = vec!["as above".to_owned()];
            }
        }
        shown.push(facts);
        before = Some(failure);
    }
    let rest = failures.len() - shown.len();
    let remark = match rest {
        0 => None,
        1 => Some("… 1 more disagreement of this case in report.json".to_owned()),
        _ => Some(format!("… {rest} more disagreements of this case in report.json")),
    };
    (shown, remark)
}

/// A fact as lines of text, the label before the first.
pub(crate) fn labelled(fact: &Fact) -> impl Iterator<Item = String> {
    fact.lines.iter().enumerate().map(|(i, line)| {
        let label = if i == 0 { fact.label } else { "" };
        format!("{label:<8} {line}")
    })
}

/// Everything a failing cell shows, apart from the case and the command that repeats it.
fn facts_of(failure: &Failure) -> Vec<Fact> {
    let all = |texts: &[String]| -> Vec<String> {
        let lines = texts.iter().flat_map(|text| clean::lines(text));
        lines.map(|line| cut(&line, LINE)).collect()
    };
    let flow = match failure.line {
        Some(line) => format!("{}  (case file, line {line})", clean::line(&failure.flow)),
        None => clean::line(&failure.flow),
    };
    let mut facts = vec![
        Fact { label: "flow", lines: vec![flow] },
        Fact { label: "allowed", lines: all(&failure.allowed) },
        Fact { label: "because", lines: all(&failure.because) },
        Fact { label: "seen", lines: all(&failure.seen) },
        Fact { label: "when", lines: vec![when(failure)] },
        Fact { label: "rules", lines: first(all(&failure.rules), "rules") },
        Fact { label: "evidence", lines: first(all(&failure.evidence), "evidence") },
    ];
    facts.retain(|fact| !fact.lines.is_empty());
    facts
}

/// The first lines of many, with a note where the rest is.
pub(crate) fn first(mut lines: Vec<String>, what: &str) -> Vec<String> {
    for line in &mut lines {
        *line = cut(line, LINE);
    }
    // A note in place of a single line would save nothing.
    if lines.len() > SHOWN + 1 {
        let rest = lines.len() - SHOWN;
        lines.truncate(SHOWN);
        lines.push(format!("… {rest} more lines under \"{what}\" in report.json"));
    }
    lines
}

/// Step and time of the first disagreement.
fn when(failure: &Failure) -> String {
    let phase = failure.phase.map(|phase| match phase {
        PhaseKind::Settle => "while it should become right",
        PhaseKind::Hold => "while it should stay right",
        PhaseKind::Traffic => "in the traffic through the change",
        PhaseKind::Control => "in the control past the proxy",
    });
    let mut when = match failure.step {
        0 => "the whole of it".to_owned(),
        step => format!("step {step}, {} after the case started", span(failure.at_ms)),
    };
    if let Some(phase) = phase {
        when.push_str(", ");
        when.push_str(phase);
    }
    when
}
