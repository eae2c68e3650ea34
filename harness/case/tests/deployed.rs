//! `slicesBy: cluster`: what controllers are to run, and what of it the model believes.

use touchstone_case::{Change, Library, compile, planned_book};

fn library(world: &str) -> Result<Library, String> {
    let head = "about: a\ncovers: [b]\nlevel: must\nneeds: { nodes: 2, outside: 0 }\naxes: { family: [v4] }\n";
    Library::of_texts([
        ("behaviours.yaml", "b: { statement: s, level: must, why: w, source: s }"),
        ("x/y.yaml", &format!("{head}{world}")),
    ])
    .map_err(|errors| errors.render())
}

/// What each step has controllers run, and how many endpoints that makes.
fn steps(world: &str) -> Vec<String> {
    let library = library(world).unwrap_or_else(|error| panic!("{error}"));
    let variant = library.variants().remove(0);
    assert!(variant.asks().controllers && variant.pods().iter().all(|pod| pod.deployed));
    let script = compile(&variant, &mut planned_book(&variant)).expect("it compiles");
    let line = |change: &Change| {
        if let Change::Deploy(pods) = change {
            let ready = pods.pods.values().filter(|ready| **ready).count();
            let listed: usize = pods.slices.iter().map(|slice| slice.endpoints.len()).sum();
            format!("{} pods, {ready} ready, {listed} listed", pods.pods.len())
        } else if let Change::ApplyService(service) = change {
            format!("service {}", service.metadata.name)
        } else {
            format!("{change:?}")
        }
    };
    let step = |changes: &[Change]| changes.iter().map(line).collect::<Vec<_>>().join("; ");
    script.steps.iter().map(|step_| step(&step_.changes)).collect()
}

const WORLD: &str = "\
world:
  slicesBy: cluster
  services: { web: { selector: { app: web }, ports: [{ name: p, port: 80 }] } }
  endpoints: { web: { a: { node: n1 }, b: { node: n2 } } }
steps:
  - expect: [{ from: pod@n1, to: web clusterIP, reaches: [a, b] }]
";

#[test]
fn nobody_writes_slices_but_controllers() {
    let more = "  - change: [{ endpoint: web/a, set: { ready: false } }]
    expect: [{ from: pod@n1, to: web clusterIP, reaches: b }]
  - change: [{ endpoint: web/a, remove: true }, { endpoint: web/b, remove: true }]
    expect: [{ from: pod@n1, to: web clusterIP, is: refused }]
  - change: [{ service: web, delete: true }]
";
    assert_eq!(
        steps(&format!("{WORLD}{more}"))[..3],
        [
            "service web; 2 pods, 2 ready, 2 listed",
            "2 pods, 1 ready, 2 listed",
            "0 pods, 0 ready, 0 listed"
        ]
    );
}

#[test]
fn a_selector_that_matches_nothing_leaves_pods_without_endpoints() {
    let other = WORLD.replace("{ app: web }", "{ app: nobody }");
    let other = other.replace("reaches: [a, b]", "is: refused");
    assert_eq!(steps(&other), ["service web; 2 pods, 2 ready, 0 listed"]);
}

#[test]
fn what_controllers_decide_is_not_for_cases_to_say() {
    let refused = |world: &str| {
        let library = library(world)?;
        let variant = library.variants().remove(0);
        compile(&variant, &mut planned_book(&variant)).map_err(|error| error.render())
    };
    let said = refused(&WORLD.replace("b: { node: n2 }", "b: { node: n2, terminating: true }"));
    assert!(said.is_err_and(|said| said.contains("`terminating` is up to the controllers")));
    let said = refused(&WORLD.replace("selector: { app: web }, ", ""));
    assert!(said.is_err_and(|said| said.contains("web has no selector")));
}
