//! Prints how long a network takes to make: three nodes, an outside client and sixteen pods.
//!
//! Works as any user: `cargo run -p touchstone-netlab --example topology [ROUNDS]`.

use std::process::ExitCode;
use std::time::Instant;

use touchstone_netlab::{Error, Family, NodeShape, Shape, Topology};

#[path = "../tests/common/mod.rs"]
mod common;

const INSIDE: &str = "TOUCHSTONE_EXAMPLE_INSIDE";

fn main() -> ExitCode {
    if let Some(code) = common::init() {
        return code;
    }
    if std::env::var_os(INSIDE).is_none() {
        return common::contained(INSIDE);
    }
    let rounds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(3);
    for _ in 0..rounds {
        match measure() {
            Ok(line) => print(&line),
            Err(error) => {
                print(&format!("{error}: {:?}", std::error::Error::source(&error)));
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

fn measure() -> Result<String, Error> {
    let shape = Shape {
        nodes: ["n1", "n2", "n3"].map(NodeShape::new).into(),
        outside: vec!["outside".to_owned()],
        ..Shape::default()
    };
    let start = Instant::now();
    let topology = Topology::new(&shape)?;
    let base = start.elapsed();
    let pods = topology.pods_on(&[("n1", 6), ("n2", 5), ("n3", 5)])?;
    let all = start.elapsed();
    for (namespace, unset) in topology.unset() {
        for setting in unset {
            print(&format!("  not set in {namespace}: {setting}"));
        }
    }
    let start = Instant::now();
    let sockets = pods[0].namespace().tcp_sockets(Family::V4, 1000)?;
    let each = start.elapsed() / 1000;
    drop(sockets);
    let start = Instant::now();
    for _ in 0..1000 {
        drop(pods[0].namespace().tcp_socket(Family::V4)?);
    }
    let alone = start.elapsed() / 1000;
    let start = Instant::now();
    for pod in pods {
        pod.remove()?;
    }
    let removed = start.elapsed();
    let start = Instant::now();
    drop(topology);
    Ok(format!(
        "3 nodes, fabric, sink, outside: {base:.1?}; with 16 pods: {all:.1?}; \
         a socket of 1000: {each:.1?}, alone: {alone:.1?}; \
         16 pods removed: {removed:.1?}; the rest dropped: {:.1?}",
        start.elapsed()
    ))
}

#[expect(clippy::print_stdout)]
fn print(line: &str) {
    println!("{line}");
}
