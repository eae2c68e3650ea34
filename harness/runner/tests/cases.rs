//! Every bundled case on the simulation, as a test each: the suite agrees with itself.
//!
//! No privileges, no proxy, no waiting.

mod common;

use libtest_mimic::{Arguments, Failed, Trial};
use touchstone_case::Library;
use touchstone_spec::Verdict;

fn main() {
    let arguments = Arguments::from_args();
    let library = match Library::bundled() {
        Ok(library) => library,
        Err(errors) => panic!("{}", errors.render()),
    };
    let trials = library
        .variants()
        .into_iter()
        // A model has no answers over HTTP to look into.
        .filter(|variant| !variant.lab_needs().contains("pages"))
        .map(|variant| {
            Trial::test(variant.id(), move || {
                let id = variant.id();
                let ended = common::run_on_sim(&[variant], None)?;
                let end = ended
                    .iter()
                    .find(|end| end.case == id)
                    .ok_or_else(|| Failed::from("the case has no end"))?;
                if matches!(end.verdict, Verdict::Pass | Verdict::Survey) {
                    return Ok(());
                }
                Err(Failed::from(format!("{}: {:#?}", end.verdict, end.failures)))
            })
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit();
}
