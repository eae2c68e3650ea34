//! The specification itself, for a terminal, as Markdown and as JSON.

use serde_json::{Value, json};
use touchstone_case::{Specified, Topic};
use touchstone_report::clean;
use touchstone_spec::Level;

use super::{NO_CASE, Paper};
use crate::args::Format;
use crate::failed::Failed;
use crate::say::say;

pub(super) fn show(paper: &Paper, chosen: &[Specified<'_>]) -> Result<u8, Failed> {
    match paper.format {
        Format::Text => say(&text(paper, chosen)),
        Format::Markdown => say(&markdown(chosen)),
        Format::Json => {
            let all: Vec<Value> = chosen.iter().map(value).collect();
            say(&serde_json::to_string_pretty(&json!({ "behaviours": all }))
                .map_err(Failed::harness)?);
        }
    }
    Ok(0)
}

/// Behaviours under their headings, in order.
fn chapters<'a, 'b>(
    chosen: &'b [Specified<'a>],
) -> impl Iterator<Item = (Topic, &'b [Specified<'a>])> {
    chosen
        .chunk_by(|a, b| a.topic == b.topic)
        .filter_map(|chapter| Some((chapter.first()?.topic, chapter)))
}

/// What is known of a behaviour beside its statement, with its label.
fn facts(one: &Specified<'_>) -> Vec<(&'static str, String)> {
    let behaviour = one.behaviour;
    let mut facts = vec![("why", behaviour.why.clone())];
    facts.extend(behaviour.releases.as_ref().map(|range| ("releases", range.clone())));
    facts.push(("source", behaviour.source.clone()));
    for difference in &behaviour.differs {
        facts.push(("differs", format!("{}: {}", difference.feature.value, difference.how)));
    }
    facts.extend(behaviour.e2e.as_ref().map(|test| ("e2e", test.clone())));
    if !one.cases.is_empty() {
        facts.push(("cases", ids(one).join(", ")));
    }
    facts.extend(reason(one).map(|reason| (NO_CASE, reason)));
    facts
}

/// Why no case covers the whole of it.
pub(super) fn reason(one: &Specified<'_>) -> Option<String> {
    let nothing = || one.cases.is_empty().then(|| "and no reason is given".to_owned());
    one.behaviour.uncovered.clone().or_else(nothing)
}

pub(super) fn ids<'a>(one: &Specified<'a>) -> Vec<&'a str> {
    one.cases.iter().map(|case| case.id().as_str()).collect()
}

/// A sentence about how many there are.
fn summary(chosen: &[Specified<'_>]) -> String {
    let count = |level: Level| chosen.iter().filter(|one| one.behaviour.level == level).count();
    let levels: Vec<String> = [Level::Must, Level::Should, Level::May, Level::Survey]
        .into_iter()
        .filter(|level| count(*level) > 0)
        .map(|level| format!("{} {level}", count(level)))
        .collect();
    let covered = chosen.iter().filter(|one| !one.cases.is_empty()).count();
    format!("{} behaviours: {}; cases cover {covered}.", chosen.len(), levels.join(", "))
}

fn text(paper: &Paper, chosen: &[Specified<'_>]) -> String {
    let mut out = String::new();
    for (topic, chapter) in chapters(chosen) {
        out.push_str(&paper.bold(topic.heading));
        out.push_str(&format!("\n{}\n\n", "─".repeat(topic.heading.chars().count())));
        for one in chapter {
            out.push_str(&format!("{} ({})\n", paper.bold(one.id), one.behaviour.level));
            for line in touchstone_report::wrap(&one.behaviour.statement, paper.width - 4) {
                out.push_str(&format!("    {line}\n"));
            }
            for (label, fact) in facts(one) {
                out.push_str(&paper.labelled(label, &fact));
            }
            out.push('\n');
        }
    }
    out.push_str(&summary(chosen));
    out
}

fn markdown(chosen: &[Specified<'_>]) -> String {
    let mut out = format!("# What a Service proxy does\n\n{}\n", summary(chosen));
    for (topic, chapter) in chapters(chosen) {
        out.push_str(&format!("\n## {}\n", topic.heading));
        for one in chapter {
            out.push_str(&format!("\n### {}\n\n", one.id));
            let statement = clean::markdown(&one.behaviour.statement);
            out.push_str(&format!("**{}**: {statement}\n\n", one.behaviour.level));
            for (label, fact) in facts(one) {
                out.push_str(&format!("- {label}: {}\n", clean::markdown(&fact)));
            }
        }
    }
    out
}

/// A behaviour as JSON: its fields as the file has them, with id, topic and cases.
fn value(one: &Specified<'_>) -> Value {
    let behaviour = one.behaviour;
    let differs: Vec<Value> = behaviour
        .differs
        .iter()
        .map(|difference| json!({ "feature": difference.feature.value, "how": difference.how }))
        .collect();
    json!({
        "id": one.id,
        "topic": one.topic.heading,
        "statement": behaviour.statement,
        "level": behaviour.level,
        "why": behaviour.why,
        "releases": behaviour.releases,
        "source": behaviour.source,
        "differs": differs,
        "e2e": behaviour.e2e,
        "cases": ids(one),
        "uncovered": behaviour.uncovered,
    })
}
