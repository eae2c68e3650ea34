//! Rebuilds the crate when a case file appears or goes: the bundling macro sees changes only of
//! files that it already knows.

fn main() {
    println!("cargo::rerun-if-changed=../../cases");
    println!("cargo::rerun-if-changed=build.rs");
}
