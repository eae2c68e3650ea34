//! The example of a proxy under test does what it declares, and is caught when it declares more.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{Bench, LabTurn};

/// Builds the example in the test's folder; gives the path of its subject file.
fn built(bench: &Bench) -> PathBuf {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/minimal-proxy");
    for name in ["go.mod", "main.go", "subject.yaml", "known-failures.yaml"] {
        let text = fs::read_to_string(example.join(name)).expect("the example is there");
        bench.write(&format!("minimal-proxy/{name}"), &text);
    }
    let folder = bench.path("minimal-proxy");
    let status = bench
        .command("go", &["build", "-o", "minimal-proxy", "."])
        .current_dir(&folder)
        .env("CGO_ENABLED", "0")
        .status();
    assert!(status.is_ok_and(|status| status.success()), "go builds the example");
    folder.join("subject.yaml")
}

#[test]
fn does_what_it_declares() {
    let _turn = LabTurn::take();
    let bench = Bench::new();
    let subject = built(&bench);
    let subject = subject.to_str().expect("the path is text");
    bench.run(&["--strict", "--subject", subject]).code(0);
    let report = bench.report();
    report.expect("cluster-ip/basic[v4,tcp]", "pass");
    report.expect("cluster-ip/no-endpoints[v4,tcp]", "pass");
    report.expect("endpoints/raw-leading-zeros[v4,tcp]", "known-failure");
    report.expect("cluster-ip/basic[v4,udp]", "unsupported");
}

#[test]
fn may_not_declare_more() {
    let _turn = LabTurn::take();
    let bench = Bench::new();
    let subject = built(&bench);
    let honest = fs::read_to_string(&subject).expect("it was just written");
    fs::write(&subject, honest.replace("  tcp: {}\n", "  tcp: {}\n  udp: {}\n")).expect("writable");
    let subject = subject.to_str().expect("the path is text");
    bench.run(&["--subject", subject, "cluster-ip/basic"]).code(1);
    let report = bench.report();
    report.expect("cluster-ip/basic[v4,tcp]", "pass");
    report.expect("cluster-ip/basic[v4,udp]", "fail");
}
