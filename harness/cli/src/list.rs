//! `touchstone list`.

use std::time::Instant;

use serde_json::json;
use touchstone_case::digest;
use touchstone_runner::planned;

use crate::args::List;
use crate::failed::Failed;
use crate::say::say;
use crate::selection::{library, pins_agree, select};

pub(crate) fn run(list: &List) -> Result<u8, Failed> {
    let library = library(&list.cases.cases)?;
    let variants = select(&library, &list.cases)?;
    let began = Instant::now();
    pins_agree(&variants)?;
    let checked = began.elapsed();
    let digest = digest(&variants);
    if list.json {
        let plan = json!({ "digest": digest, "cases": planned(&variants) });
        say(&serde_json::to_string_pretty(&plan).map_err(Failed::harness)?);
        return Ok(0);
    }
    let plan = planned(&variants);
    let width = plan.iter().map(|cell| cell.case.len()).max().unwrap_or(0);
    for cell in &plan {
        say(&format!("{:width$}  {:6}  {}", cell.case, cell.level.to_string(), cell.about));
    }
    let cases = library.cases().filter(|case| variants.iter().any(|v| v.case().id() == case.id()));
    say(&format!(
        "{} cells of {} cases, plan {}; pins checked against the model in {} ms",
        plan.len(),
        cases.count(),
        digest.get(..12).unwrap_or(&digest),
        checked.as_millis()
    ));
    Ok(0)
}
