//! `touchstone explain`: ask the oracle without a lab.

use std::path::Path;
use std::sync::Arc;

use anyhow::anyhow;
use touchstone_case::{
    Case, CaseError, Library, Names, Script, Variant, ask, compile, planned_book,
};
use touchstone_model::expect;
use touchstone_spec::{Allowed, Expectation, Features, Flow, FrontendKind, World};

use crate::args::Explain;
use crate::failed::Failed;
use crate::say::say;
use crate::selection::{library, pins_agree};

pub(crate) fn run(explain: &Explain) -> Result<u8, Failed> {
    let variants = variants(explain)?;
    pins_agree(&variants)?;
    let mut shown = 0;
    for variant in &variants {
        let script = match (&explain.from, &explain.to) {
            (Some(from), Some(to)) => ask(variant, from, to)
                .map_err(|errors| Failed::usage(anyhow!("{}", errors.render())))?,
            (Some(_) | None, Some(_) | None) => {
                compile(variant, &mut planned_book(variant)).map_err(|e| bad(&e))?
            }
        };
        say(&format!("{}  {}", variant.id(), variant.case().about()));
        say(&format!(
            "  {} · covers {}",
            variant.level(),
            variant.case().covers().collect::<Vec<_>>().join(", ")
        ));
        shown += steps(explain, variant, &script);
    }
    if shown == 0 {
        return Err(Failed::usage(anyhow!(
            "no flow of {} fits --from, --to and --step; without them every flow is shown",
            explain.case
        )));
    }
    Ok(0)
}

fn variants(explain: &Explain) -> Result<Vec<Variant>, Failed> {
    let path = Path::new(&explain.case);
    if path.extension().is_some_and(|e| e == "yaml" || e == "yml") || path.is_file() {
        let case = Library::case_file(path)
            .map_err(|errors| Failed::usage(anyhow!("{}", errors.render())))?;
        return Ok(Variant::all(&case));
    }
    let library = library(&explain.cases)?;
    let (id, axes) = match explain.case.split_once('[') {
        Some((id, _)) => (id, true),
        None => (explain.case.as_str(), false),
    };
    let case: &Arc<Case> = library.case(id).ok_or_else(|| {
        let like = library.case_like(id).map(|like| format!("did you mean `{like}`? "));
        Failed::usage(anyhow!(
            "there is no case {id}; {}`touchstone list` shows what there is",
            like.unwrap_or_default()
        ))
    })?;
    let all = Variant::all(case);
    let chosen: Vec<Variant> =
        all.into_iter().filter(|variant| !axes || variant.id() == explain.case).collect();
    if chosen.is_empty() {
        return Err(Failed::usage(anyhow!("{id} has no variant {}", explain.case)));
    }
    Ok(chosen)
}

fn steps(explain: &Explain, variant: &Variant, script: &Script) -> usize {
    let features: Features = variant.features().into_iter().collect();
    let mut shown = 0;
    for (number, step) in (1..).zip(&script.steps) {
        if explain.step.is_some_and(|wanted| wanted != number) {
            continue;
        }
        say(&format!("  step {number}"));
        for row in &step.rows {
            if fits(explain, &row.flow) {
                shown += 1;
                match explain.is_question() {
                    true => say(&format!("    {}", row.flow.text)),
                    false => say(&format!("    {}  (line {})", row.text, row.line)),
                }
                answer(&step.world, &row.flow, &features, &script.names);
            }
        }
        for flow in &step.matrix {
            if fits(explain, flow) {
                shown += 1;
                say(&format!("    {}", flow.text));
                answer(&step.world, flow, &features, &script.names);
            }
        }
    }
    shown
}

/// Whether a flow is one of those that were asked for by one of its ends: its text begins or ends as asked, up to a word's end.
fn fits(explain: &Explain, flow: &Flow) -> bool {
    if explain.is_question() {
        return true;
    }
    let (from, to) = flow.text.split_once(" → ").unwrap_or((&flow.text, ""));
    let same = |asked: &Option<String>, word: &str| {
        asked.as_ref().is_none_or(|asked| {
            word.strip_prefix(asked.as_str())
                .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric()))
        })
    };
    same(&explain.from, from) && same(&explain.to, to)
}

fn answer(world: &World, flow: &Flow, features: &Features, names: &Names) {
    let expectation = expect(world, flow, features);
    let allowed = match flow.frontend {
        FrontendKind::Page | FrontendKind::Table => "as the row says".to_owned(),
        FrontendKind::ClusterIp
        | FrontendKind::NodePort
        | FrontendKind::ExternalIp
        | FrontendKind::LoadBalancer
        | FrontendKind::HealthCheck
        | FrontendKind::Direct
        | FrontendKind::Name
        | FrontendKind::Address => words(&expectation, names),
    };
    say(&format!("      {} {}: {allowed}", flow.protocol, flow.to));
    for reason in &expectation.reasons {
        say(&format!("        because {reason}"));
    }
}

fn words(expectation: &Expectation, names: &Names) -> String {
    if expectation.open {
        return "anything (recorded, not judged)".to_owned();
    }
    let each = expectation.allowed.iter().map(|allowed| match allowed {
        Allowed::Reached { endpoint, sources } => {
            let name = names.of(*endpoint).unwrap_or("an endpoint");
            let sources: Vec<String> = sources.iter().map(ToString::to_string).collect();
            format!("reached {name} seeing {}", sources.join(" or "))
        }
        Allowed::Http { status, local_endpoints, shows: _ } => {
            format!("http {status} with {local_endpoints} local endpoints")
        }
        Allowed::Refused | Allowed::Closed | Allowed::Dropped | Allowed::Unhandled => {
            allowed.kind().to_string()
        }
        Allowed::Answered(answer) => answer.to_string(),
    });
    let mut text = each.collect::<Vec<_>>().join(", or ");
    if expectation.sticky {
        text.push_str("; always the same endpoint for one client");
    } else if expectation.cover && expectation.allowed.len() > 1 {
        text.push_str("; each of them, given enough connections");
    }
    text
}

fn bad(error: &CaseError) -> Failed {
    Failed::usage(anyhow!("{}", error.render()))
}
