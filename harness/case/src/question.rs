//! A question about a case that none of its rows asks: from where to where, in any of its steps.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::compile::steps_and_errors;
use crate::text::{RowText, Words};
use crate::{At, Case, CaseError, CaseErrors, Place, Script, Variant, planned_book};

/// The script of a variant in which each step has the flows of one question and no others, with
/// nothing pinned.
///
/// `from` and `to` are written as in rows. A step in which such a flow cannot exist, since its
/// Service is not there yet, has none.
///
/// # Errors
/// When no step has such a flow: what is wrong with the question.
pub fn ask(variant: &Variant, from: &str, to: &str) -> Result<Script, CaseErrors> {
    let words = |text: &str| Words(vec![At { value: text.to_owned(), place: Place::default() }]);
    let row =
        RowText { from: words(from), to: words(to), is: Some(words("any")), ..RowText::default() };
    let case = variant.case();
    let mut body = case.body().clone();
    for step in &mut body.steps {
        step.value.expect = vec![At { value: row.clone(), place: step.place }];
        step.value.matrix = Some(false);
        step.value.traffic = None;
    }
    let asked = Case::from_body(case.id().clone(), body, case.source().clone())?;
    let asked = variant.of_case(Arc::new(asked));
    let (script, errors) = steps_and_errors(&asked, &mut planned_book(variant));
    match script.steps.iter().all(|step| step.rows.is_empty()) {
        true => Err(CaseErrors(once_each(errors))),
        false => Ok(script),
    }
}

/// Every step says the same of a question that is wrong.
fn once_each(mut errors: Vec<CaseError>) -> Vec<CaseError> {
    let mut said = BTreeSet::new();
    errors.retain(|error| said.insert(error.message.clone()));
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Library;

    fn variant(id: &str) -> Variant {
        let library = Library::bundled().expect("the bundled cases are right");
        let variants = library.variants();
        variants.into_iter().find(|variant| variant.id() == id).expect("the case exists")
    }

    #[test]
    fn flows_that_no_row_has_are_asked_for() {
        let variant = variant("ports/two-ports[v4,tcp]");
        let script = ask(&variant, "node@n2", "web clusterIP:81/udp").expect("a question");
        let flows: Vec<_> = script.steps.iter().flat_map(|step| &step.rows).collect();
        assert_eq!(flows.len(), script.steps.len());
        assert!(flows.iter().all(|row| row.flow.protocol == touchstone_spec::Protocol::Udp));
    }

    #[test]
    fn what_does_not_exist_is_named() {
        let variant = variant("cluster-ip/basic[v4,tcp]");
        for (from, to, word) in [
            ("pod@n7", "web clusterIP", "n7"),
            ("pod@n1", "wbe clusterIP", "wbe"),
            ("pod@n1", "web clusterip", "clusterip"),
        ] {
            let errors = ask(&variant, from, to).expect_err(word);
            assert!(errors.render().contains(word), "{}", errors.render());
        }
    }
}
