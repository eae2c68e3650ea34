//! A person at the terminal of a run, who looks into its clusters from another one.

use std::fs::OpenOptions;
use std::io::Write;

use crate::common::{Bench, Done, LabTurn, RUN_LIMIT, Running, eventually};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

const PASSES: &str = "cluster-ip/basic[v4,tcp]";

/// Two terminals: one with the run, and one beside it.
struct Terminals {
    bench: Bench,
}

impl Terminals {
    fn new() -> Terminals {
        let bench = Bench::new();
        // A place for the state of labs that is this test's alone.
        std::fs::create_dir(bench.path("state")).expect("a folder can be made");
        Terminals { bench }
    }

    /// Starts a run whose input is the named pipe `keys`.
    fn run(&self, args: &[&str]) -> Running {
        let program = env!("CARGO_BIN_EXE_touchstone");
        let text = "program=$1; shift; exec \"$program\" run --out out \"$@\" < keys";
        let mut all = vec!["-c", text, "sh", program];
        all.extend(args);
        let mut command = self.bench.command("sh", &all);
        command.env("TMPDIR", self.bench.path("state"));
        Running::start(command)
    }

    fn shell(&self, args: &[&str]) -> Done {
        let mut command = self.bench.touchstone(&["lab", "shell"]);
        command.args(args).env("TMPDIR", self.bench.path("state"));
        Running::start(command).finish(RUN_LIMIT)
    }

    fn until_it_can_be_looked_into(&self) {
        eventually("the places of the cluster to be known", RUN_LIMIT, || {
            (self.shell(&["n1", "--", "true"]).status.code() == Some(0)).then_some(())
        });
    }
}

#[test]
fn a_failure_waits_for_a_person() {
    let _turn = LabTurn::take();
    let terminals = Terminals::new();
    let keys = terminals.bench.path("keys");
    mkfifo(&keys, Mode::S_IRUSR | Mode::S_IWUSR).expect("a named pipe can be made");
    // Opened for both, or it would wait for the run and the run for it.
    let mut keys = OpenOptions::new().read(true).write(true).open(&keys).expect("it opens");
    let lie = ["--lie", "Service:spec.sessionAffinity=\"None\""];
    let case = "session-affinity/cluster-ip[v4,tcp]";
    let mut run = terminals.run(&["--pause-on-failure", lie[0], lie[1], case]);
    terminals.until_it_can_be_looked_into();
    // The rules are those of the moment of the failure.
    let rules = terminals.shell(&["n1", "--", "iptables-save", "-t", "nat"]);
    rules.code(0).says(&["session-affinity-cluster-ip/web"]);
    assert!(!run.has_ended(), "nobody has told it to go on");
    keys.write_all(b"\n").expect("a key can be pressed");
    run.finish(RUN_LIMIT).code(1).complains(&[
        case,
        "its cluster is kept as it is",
        "Enter goes on",
    ]);
    terminals.bench.report().expect(case, "fail");
    terminals.shell(&["n1", "--", "true"]).code(3).complains(&["no lab is open"]);
}

#[test]
fn a_kept_cluster_ends_with_ctrl_c_and_the_run_as_it_would_have() {
    let _turn = LabTurn::take();
    let terminals = Terminals::new();
    terminals.bench.write("keys", "");
    let run = terminals.run(&["--keep", PASSES]);
    terminals.bench.event("case-ended");
    terminals.until_it_can_be_looked_into();
    run.signal(Signal::SIGINT);
    run.finish(RUN_LIMIT).code(0).complains(&["the cluster is kept"]);
    terminals.bench.report().expect(PASSES, "pass").expect("lifecycle/proxy-stays-up", "pass");
}
