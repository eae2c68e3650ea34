//! Behaviours that no case covers.

use serde_json::{Value, json};
use touchstone_case::Specified;
use touchstone_report::clean;
use touchstone_spec::Level;

use super::{NO_CASE, Paper, UNCOVERED};
use crate::args::Format;
use crate::failed::Failed;
use crate::say::say;

/// Lists behaviours with neither case nor reason and, if asked, those with a reason alone.
pub(super) fn show(paper: &Paper, chosen: &[Specified<'_>], all: bool) -> Result<u8, Failed> {
    let (excused, open): (Vec<_>, Vec<_>) = chosen
        .iter()
        .filter(|one| one.cases.is_empty())
        .partition(|one| one.behaviour.uncovered.is_some());
    let must = open.iter().filter(|one| one.behaviour.level == Level::Must).count();
    let excused_shown = if all { excused.as_slice() } else { &[] };
    match paper.format {
        Format::Text => {
            let mut out = String::new();
            section(paper, &mut out, "Neither a case nor a reason", &open);
            section(paper, &mut out, "No case, for a reason", excused_shown);
            out.push_str(&summary(open.len(), must, excused.len(), chosen.len()));
            say(&out);
        }
        Format::Markdown => {
            let mut out = "# Behaviours without a case\n\n".to_owned();
            out.push_str(&summary(open.len(), must, excused.len(), chosen.len()));
            out.push('\n');
            table(&mut out, "Neither a case nor a reason", &open);
            table(&mut out, "No case, for a reason", excused_shown);
            say(&out);
        }
        Format::Json => {
            let mut value =
                json!({ "open": open.iter().map(|one| entry(one)).collect::<Vec<_>>() });
            if all {
                value["excused"] = excused.iter().map(|one| entry(one)).collect();
            }
            say(&serde_json::to_string_pretty(&value).map_err(Failed::harness)?);
        }
    }
    Ok(if must > 0 { UNCOVERED } else { 0 })
}

fn summary(open: usize, must: usize, excused: usize, of: usize) -> String {
    format!(
        "Of {of} behaviours {open} have neither a case nor a reason, {must} of them must; \
         {excused} have no case for a reason."
    )
}

fn section(paper: &Paper, out: &mut String, heading: &str, behaviours: &[&Specified<'_>]) {
    if behaviours.is_empty() {
        return;
    }
    out.push_str(&format!("{}\n\n", paper.bold(heading)));
    for one in behaviours {
        out.push_str(&format!("{} ({})\n", paper.bold(one.id), one.behaviour.level));
        for line in touchstone_report::wrap(&one.behaviour.statement, paper.width - 4) {
            out.push_str(&format!("    {line}\n"));
        }
        if let Some(reason) = &one.behaviour.uncovered {
            out.push_str(&paper.labelled(NO_CASE, reason));
        }
    }
    out.push('\n');
}

fn table(out: &mut String, heading: &str, behaviours: &[&Specified<'_>]) {
    if behaviours.is_empty() {
        return;
    }
    out.push_str(&format!("\n## {heading}\n\n"));
    out.push_str("| behaviour | level | statement | reason |\n| --- | --- | --- | --- |\n");
    for one in behaviours {
        out.push_str(&format!(
            "| {} | {} | {} | {} |\n",
            one.id,
            one.behaviour.level,
            clean::markdown(&one.behaviour.statement),
            clean::markdown(one.behaviour.uncovered.as_deref().unwrap_or_default())
        ));
    }
}

fn entry(one: &Specified<'_>) -> Value {
    json!({
        "id": one.id,
        "level": one.behaviour.level,
        "statement": one.behaviour.statement,
        "uncovered": one.behaviour.uncovered,
    })
}
