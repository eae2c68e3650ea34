//! Checks over whatever is bundled.

use std::collections::BTreeSet;

use touchstone_case::{CaseErrors, Library, check, compile, planned_book};
use touchstone_spec::{Features, Level};

fn library() -> Library {
    Library::bundled().unwrap_or_else(|errors: CaseErrors| panic!("{}", errors.render()))
}

#[test]
fn every_bundled_case_parses_and_its_pins_agree_with_the_model() {
    let library = library();
    let mut wrong = Vec::new();
    assert!(library.cases().count() > 0, "nothing is bundled");
    for variant in library.variants() {
        let id = variant.case().id();
        assert_eq!(variant.case().file(), format!("cases/{id}.yaml"));
        match check(&variant, &Features::default()) {
            Ok(conflicts) => wrong.extend(conflicts.iter().map(ToString::to_string)),
            Err(error) => wrong.push(error.render()),
        }
    }
    assert!(wrong.is_empty(), "{} conflicts\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_case_covers_a_known_behaviour() {
    let library = library();
    for case in library.cases() {
        assert!(case.covers().count() > 0, "{}", case.id());
        for behaviour in case.covers() {
            assert!(library.behaviours().contains_key(behaviour), "{}: {behaviour}", case.id());
        }
    }
}

#[test]
fn every_must_behaviour_is_covered_or_says_why_not() {
    let library = library();
    let covered: BTreeSet<&str> = library.cases().flat_map(|case| case.covers()).collect();
    let missing: Vec<&str> = library
        .behaviours()
        .iter()
        .filter(|(_, behaviour)| behaviour.level == Level::Must && behaviour.uncovered.is_none())
        .map(|(id, _)| id.as_str())
        .filter(|id| !covered.contains(id))
        .collect();
    assert!(missing.is_empty(), "neither covered nor excused: {}", missing.join(", "));
    for (id, behaviour) in library.behaviours() {
        let mut levels = library
            .cases()
            .filter(|case| case.covers().any(|covered| covered == id))
            .map(|case| case.body().level)
            .peekable();
        let weak = levels.peek().is_some() && levels.all(|level| level > behaviour.level);
        assert!(!weak, "{id} is {}, and every case that covers it is less", behaviour.level);
    }
    for (id, behaviour) in library.behaviours() {
        let idle = behaviour.uncovered.is_some() && covered.contains(id.as_str());
        assert!(!idle, "{id} says why no case covers it, but one does");
    }
}

#[test]
fn cases_survive_printing() {
    for case in library().cases() {
        let yaml = case.to_yaml().unwrap_or_else(|error| panic!("{error}"));
        let path = format!("{}.yaml", case.id());
        let behaviours: String = case
            .covers()
            .map(|id| format!("{id}: {{ statement: s, level: must, why: w, source: s }}\n"))
            .collect();
        let again = Library::of_texts([("behaviours.yaml", behaviours.as_str()), (&path, &yaml)])
            .unwrap_or_else(|errors| panic!("{}\n{yaml}", errors.render()));
        let again = again.case(case.id().as_str()).map(|case| case.body().clone());
        assert_eq!(again.as_ref(), Some(case.body()), "{yaml}");
    }
}

#[test]
fn scripts_are_the_same_each_time() {
    for variant in library().variants() {
        let script = |()| compile(&variant, &mut planned_book(&variant));
        assert_eq!(script(()), script(()), "{}", variant.id());
    }
}

#[test]
fn the_schema_knows_every_key_of_the_bundled_cases() {
    let schema = touchstone_case::case_schema();
    let text = schema.to_string();
    assert_eq!(schema["additionalProperties"], serde_json::Value::Bool(false));
    for case in library().cases() {
        let body = serde_json::to_value(case.body()).expect("a case is plain data");
        for key in body.as_object().into_iter().flat_map(|body| body.keys()) {
            assert!(schema["properties"].get(key).is_some(), "{key}");
        }
    }
    for key in ["externalTrafficPolicy", "forZones", "reaches", "restart", "sameAs", "keep"] {
        assert!(text.contains(&format!("\"{key}\"")), "{key}");
    }
}

#[test]
fn one_file_can_be_read_alone() {
    let cases = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cases");
    let case = Library::case_file(&cases.join("cluster-ip/basic.yaml"))
        .unwrap_or_else(|errors| panic!("{}", errors.render()));
    assert_eq!(case.id().as_str(), "cluster-ip/basic");
    let missing = Library::case_file(&cases.join("cluster-ip/none.yaml"));
    assert!(missing.is_err_and(|errors| errors.to_string().contains("failed to read the file")));
}
