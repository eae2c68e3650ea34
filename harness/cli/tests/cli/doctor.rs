//! What `touchstone doctor` says of a machine, and with which code.

use std::path::Path;

use crate::common::{Bench, Done, LabTurn, RUN_LIMIT, Running};

const HARNESS: i32 = 3;

/// With nothing in the cache, and no other programs than those that these folders have.
fn doctor(bench: &Bench, path: &str, args: &[&str]) -> Done {
    let _turn = LabTurn::take();
    let mut command = bench.touchstone(&[&["doctor"], args].concat());
    command.env("XDG_CACHE_HOME", bench.path("cache")).env("PATH", path);
    command.env_remove("TOUCHSTONE_COREDNS");
    Running::start(command).finish(RUN_LIMIT)
}

#[test]
fn without_go_there_is_no_name_server() {
    // The usual folders, without those in which Go is installed by hand.
    let usual = "/usr/sbin:/usr/bin:/sbin:/bin";
    if Path::new("/usr/bin/go").exists() {
        return;
    }
    let bench = Bench::new();
    doctor(&bench, usual, &[]).code(HARNESS).says(&[
        "missing coredns",
        "install Go",
        "every case about names",
        "where that is refused",
    ]);
}

#[test]
fn a_subject_that_runs_nowhere_is_not_fine() {
    if Path::new("/proc/net/ip_vs").exists() {
        return;
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let bench = Bench::new();
    doctor(&bench, &path, &["--subject", "kube-proxy:ipvs"]).code(HARNESS).says(&[
        "kube-proxy:ipvs: none of",
        "`--kernel uml`",
        "cannot run on this kernel",
    ]);
}
