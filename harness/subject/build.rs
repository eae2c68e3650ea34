//! Notices subjects that are added to or removed from the bundled folder.

fn main() {
    println!("cargo::rerun-if-changed=../../subjects");
}
