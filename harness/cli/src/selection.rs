//! From the command line to the cases of a plan.

use anyhow::anyhow;
use touchstone_case::select::Selection;
use touchstone_case::{Library, Variant, check};
use touchstone_spec::Features;

use crate::args::Cases;
use crate::failed::Failed;

/// The library with the user's own cases.
pub(crate) fn library(dirs: &[std::path::PathBuf]) -> Result<Library, Failed> {
    Library::load(dirs).map_err(|errors| Failed::usage(anyhow!("{}", errors.render())))
}

/// The variants of a selection, in the order of their ids.
///
/// # Errors
/// When a pattern or expression cannot be read, or nothing matches: an empty plan is never run.
pub(crate) fn select(library: &Library, cases: &Cases) -> Result<Vec<Variant>, Failed> {
    let usage = |error: touchstone_case::select::SelectError| Failed::usage(anyhow!("{error}"));
    let mut selection =
        Selection::patterns(cases.patterns.iter().map(String::as_str)).map_err(usage)?;
    let mut expressions = cases.expressions.iter().map(|text| Selection::expression(text));
    if let Some(first) = expressions.next() {
        let any = expressions.try_fold(first.map_err(usage)?, |any, one| Ok(any.or(one?)));
        selection = selection.and(any.map_err(usage)?);
    }
    let misses = selection.misses(library);
    if !misses.is_empty() {
        return Err(Failed::plan(anyhow!(
            "{}; `touchstone list` shows what there is",
            misses.join(", ")
        )));
    }
    let chosen: Vec<Variant> = library
        .variants()
        .into_iter()
        .filter(|variant| selection.matches(variant))
        .filter(|variant| {
            let profiles = variant.case().profiles();
            cases.profile.as_deref().is_none_or(|name| profiles.contains(name))
        })
        .collect();
    if chosen.is_empty() {
        return Err(Failed::plan(anyhow!(
            "the selection matches no case ({}); {}`touchstone list` shows what there is",
            described(cases),
            meant(library, cases)
        )));
    }
    Ok(chosen)
}

/// Refuses variants whose pins the model contradicts: whatever a proxy did, one of the two would
/// hold it against the proxy.
pub(crate) fn pins_agree(variants: &[Variant]) -> Result<(), Failed> {
    let mut conflicts = Vec::new();
    for variant in variants {
        let found = check(variant, &Features::default())
            .map_err(|error| Failed::usage(anyhow!("{}", error.render())))?;
        conflicts.extend(found.iter().map(ToString::to_string));
    }
    if conflicts.is_empty() {
        return Ok(());
    }
    Err(Failed::usage(anyhow!(
        "a pin and the model disagree, so no proxy could be judged by them:\n{}",
        conflicts.join("\n")
    )))
}

/// What may have been meant by a selection that matches nothing.
fn meant(library: &Library, cases: &Cases) -> String {
    let known = library.profiles();
    if let Some(profile) = cases.profile.as_deref().filter(|profile| !known.contains(profile)) {
        let known: Vec<&str> = known.into_iter().collect();
        return format!("no case has the profile `{profile}`, known are: {}; ", known.join(", "));
    }
    cases
        .patterns
        .iter()
        .find_map(|pattern| library.case_like(pattern).filter(|like| like != pattern))
        .map(|like| format!("did you mean `{like}`? "))
        .unwrap_or_default()
}

fn described(cases: &Cases) -> String {
    let mut parts: Vec<String> = cases.patterns.clone();
    parts.extend(cases.expressions.iter().map(|e| format!("-E '{e}'")));
    parts.extend(cases.profile.iter().map(|p| format!("--profile {p}")));
    if parts.is_empty() { "there are no cases at all".to_owned() } else { parts.join(" ") }
}
