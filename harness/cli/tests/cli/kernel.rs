//! The lab on another kernel: that it runs there, that nothing outlives it, and what is said when
//! the kernel does not do.
//!
//! The kernel is the project's own, or the one in `TOUCHSTONE_TEST_KERNEL`; without either the
//! first test that needs it builds it.

use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use crate::common::{
    self, Bench, GONE_LIMIT, LabTurn, Part, RUN_LIMIT, eventually, scattered, text,
};
use nix::sys::signal::Signal;

const USAGE: i32 = 64;
const HARNESS: i32 = 3;

/// One cell.
const CASE: &str = "cluster-ip/basic[v4,tcp]";

/// Cells that take longer than any test waits.
const MANY: [&str; 3] = ["--jobs=2", "session-affinity/*", "cluster-ip/*"];

/// What a kernel must say to be believed: its release and its options.
const BELIEVED: &str = "\
#!/bin/sh
case $1 in
--version) echo 7.2.0 ;;
--showconfig) for o in UML HOSTFS SSL NULL_CHAN MULTIUSER BINFMT_ELF PROC_FS SYSFS TMPFS DEVTMPFS \
NET_NS VETH IPV6; do echo CONFIG_$o=y; done ;;
*) ";

static KERNEL: LazyLock<String> = LazyLock::new(|| {
    if let Some(path) = std::env::var_os("TOUCHSTONE_TEST_KERNEL") {
        return PathBuf::from(path).display().to_string();
    }
    let fetch = Command::new(env!("CARGO_BIN_EXE_touchstone"))
        .args(["subject", "fetch", "uml"])
        .output()
        .expect("touchstone starts");
    assert!(fetch.status.success(), "{}", String::from_utf8_lossy(&fetch.stderr));
    String::from_utf8_lossy(&fetch.stdout).trim().to_owned()
});

fn on_the_kernel<'a>(args: &[&'a str]) -> Vec<&'a str> {
    [&["--kernel", KERNEL.as_str()], args].concat()
}

#[test]
fn a_run_there_is_as_any_other() {
    let _turn = LabTurn::take();
    let bench = Bench::new();
    let done = bench.run(&on_the_kernel(&[CASE]));
    done.code(0).complains(&["PASS", CASE]).says(&["kernel 7.", "-touchstone"]);
    let report = bench.report();
    report.expect(CASE, "pass");
    let host = &report.0["run"]["host"];
    assert!(text(&host["kernel"]).ends_with("-touchstone"), "{host:#}");
    let options: Vec<&str> =
        common::list(&host["options"]).iter().filter_map(|option| option.as_str()).collect();
    assert!(options.contains(&"IP_VS_RR") && options.contains(&"IP_SCTP"), "{options:?}");
    assert_eq!(text(&host["second_kernel"]["digest"]).len(), 64, "{host:#}");
    assert!(bench.out().join("logs/kernel.log").exists());
    assert!(bench.out().join("logs/kube-proxy-iptables-c1-n1.log").exists());
    bench.nothing_is_left(&[].into());
}

/// Starts a long run and waits until its first case has started.
fn long_run(bench: &Bench) -> common::Running {
    let run = bench.start_run(&on_the_kernel(&MANY));
    bench.event("case-started");
    run
}

#[test]
fn ctrl_c_ends_it_with_a_partial_report() {
    let _turn = LabTurn::take();
    let bench = Bench::new();
    let run = long_run(&bench);
    let namespaces = bench.namespaces();
    run.signal(Signal::SIGINT);
    run.finish(GONE_LIMIT).code(130).says(&["partial"]);
    bench.nothing_is_left(&namespaces);
    let ended = bench.events();
    assert_eq!(ended.last().map(|event| text(&event["signal"])), Some("SIGINT".to_owned()));
}

#[test]
fn a_second_ctrl_c_ends_it_at_once() {
    let _turn = LabTurn::take();
    let bench = Bench::new();
    let run = long_run(&bench);
    let namespaces = bench.namespaces();
    run.signal(Signal::SIGINT);
    run.signal(Signal::SIGINT);
    let done = run.finish(GONE_LIMIT);
    assert!(
        done.status.code() == Some(130) || done.signal() == Some(Signal::SIGINT as i32),
        "{done}"
    );
    bench.nothing_is_left(&namespaces);
}

/// Kills one of the chain and looks at what remains.
fn killed(part: Part) {
    let _turn = LabTurn::take();
    let bench = Bench::new();
    let run = long_run(&bench);
    let namespaces = bench.namespaces();
    bench.process(part).signal(Signal::SIGKILL);
    let done = run.finish(GONE_LIMIT);
    bench.nothing_is_left(&namespaces);
    if part == Part::Outside {
        assert_eq!(done.signal(), Some(Signal::SIGKILL as i32), "{done}");
    } else {
        done.code(HARNESS);
        assert_eq!(bench.report().0["exit_code"], HARNESS, "{done}");
    }
}

#[test]
fn the_person_s_process_killed() {
    killed(Part::Outside);
}

#[test]
fn the_keeper_killed() {
    killed(Part::Harness);
}

#[test]
fn the_kernel_killed() {
    let _turn = LabTurn::take();
    let bench = Bench::new();
    let run = long_run(&bench);
    let namespaces = bench.namespaces();
    let kernel = bench.processes().into_iter().find(is_kernel).expect("the kernel is a process");
    kernel.signal(Signal::SIGKILL);
    let done = run.finish(GONE_LIMIT);
    done.code(HARNESS).says(&["ended before the run did", "signal: 9", "kernel.log"]);
    bench.nothing_is_left(&namespaces);
}

/// Moments follow from it.
const SEED: u64 = 0x75_6d_6c;

/// Whether a process is the one to kill.
type IsVictim<'a> = &'a dyn Fn(&common::Process) -> bool;

/// Whether it is a kernel that runs; before that it is asked what is built into it (`--showconfig`).
fn is_kernel(process: &common::Process) -> bool {
    let boots = process.argv.get(1).is_some_and(|word| word.starts_with("rootfstype="));
    process.argv.first() == Some(&*KERNEL) && boots
}

/// Latest moment of a kill in milliseconds: by then the first cases run.
const LATEST: u64 = 12_000;

#[test]
fn killed_at_random_moments() {
    let victims: [(&str, IsVictim<'_>); 4] = [
        ("the person's process", &|process| process.plays(Part::Outside)),
        ("PID 1", &|process| process.plays(Part::Init)),
        ("the keeper", &|process| process.plays(Part::Harness)),
        ("the kernel", &is_kernel),
    ];
    let _turn = LabTurn::take();
    for (round, (who, is_victim)) in (0..).zip(victims) {
        let at = Duration::from_millis(scattered(SEED ^ round) % LATEST);
        let bench = Bench::new();
        let began = Instant::now();
        let mut run = bench.start_run(&on_the_kernel(&MANY));
        eventually("the moment", RUN_LIMIT, || (began.elapsed() >= at).then_some(()));
        // Whoever is not there yet is killed as soon as it is.
        let victim = eventually(who, RUN_LIMIT, || {
            assert!(!run.has_ended(), "the run has ended by itself");
            bench.processes().into_iter().find(|process| is_victim(process))
        });
        let namespaces = bench.namespaces();
        victim.signal(Signal::SIGKILL);
        let done = run.finish(GONE_LIMIT);
        bench.nothing_is_left(&namespaces);
        assert!(!done.status.success(), "{who} was killed after {at:?}: {done}");
    }
}

#[test]
fn a_panic_is_an_error_that_keeps_the_log() {
    let _turn = LabTurn::take();
    let bench = Bench::new();
    // From a node, once a step has settled.
    let panic = ["--sabotage", "echo c > /proc/sysrq-trigger", CASE];
    let done = bench.run(&on_the_kernel(&panic));
    done.code(HARNESS).says(&[
        "Kernel panic - not syncing: sysrq triggered crash",
        "run again",
        "kernel.log",
    ]);
    bench.nothing_is_left(&[].into());
    // What was recorded is kept, and so is the console.
    let events = bench.events();
    assert!(events.iter().any(|event| event["event"] == "cluster-ready"), "{events:#?}");
    let console = std::fs::read_to_string(bench.out().join("logs/kernel.log"));
    assert!(console.expect("a console").contains("Kernel panic"));
}

#[test]
fn a_kernel_without_ipvs_carries_no_proxy_that_needs_it() {
    let bench = Bench::new();
    let kernel = bench.script("kernel", &format!("{BELIEVED}exit 1 ;;\nesac\n"));
    let kernel = kernel.to_str().expect("text");
    bench.run(&["--kernel", kernel, "--subject", "kube-proxy:ipvs", CASE]).code(HARNESS).complains(
        &["kube-proxy:ipvs needs IPVS", "IP_VS, IP_SET, DUMMY", "`--kernel uml` builds"],
    );
    bench.nothing_is_left(&[].into());
}

/// A program that claims to be a kernel, and what is said of it.
fn check(text: &str, code: i32, complaints: &[&str]) {
    let bench = Bench::new();
    let kernel = bench.script("kernel", text);
    let done = bench.run(&["--kernel", kernel.to_str().expect("text"), CASE]);
    done.code(code).complains(complaints);
    bench.nothing_is_left(&[].into());
}

#[test]
fn what_is_no_kernel_is_refused() {
    let no = |text: &str, complaints: &[&str]| check(text, HARNESS, complaints);
    no("#!/bin/sh\necho 1", &["is no User Mode Linux", "`--kernel uml` builds one"]);
    no("#!/bin/sh\nexit 5", &["exits at once with status 5"]);
    no("MZ", &["neither an ELF program nor a script"]);
    no("\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x07\x7f", &["the ELF machine", "this machine"]);
    let lacks = "#!/bin/sh\necho CONFIG_UML=y";
    no(lacks, &["was built without CONFIG_HOSTFS, CONFIG_SSL", "`--kernel uml` builds one"]);
}

#[test]
fn a_kernel_that_does_not_boot_says_why() {
    let boots = |does: &str, complaints: &[&str]| {
        check(&format!("{BELIEVED}{does} ;;\nesac\n"), HARNESS, complaints);
    };
    boots(
        "echo 'ptrace set fp regs failed, errno = 5'; exit 1",
        &["did not begin the run", "fp regs failed", "cannot handle this machine's CPU"],
    );
    boots(
        "echo '[    0.1] Kernel panic - not syncing: VFS: Unable to mount root fs on hostfs'; exit 1",
        &["Unable to mount root fs", "CONFIG_HOSTFS"],
    );
    boots(
        "echo 'Kernel panic - not syncing: Out of memory: compulsory panic_on_oom'; exit 1",
        &["Out of memory", "--kernel-memory", "--jobs"],
    );
    boots("echo some words; exit 1", &["did not begin the run", "its last words: some words"]);
    boots("kill -9 $$", &["did not begin the run (signal: 9"]);
}

#[test]
fn options_that_do_not_go_with_it_are_refused() {
    let refused = |args: &[&str], complaint: &str| {
        let bench = Bench::new();
        bench.run(args).code(USAGE).complains(&[complaint]);
        assert!(!bench.out().exists(), "a refused run leaves a folder behind");
    };
    refused(&["--kernel", "uml", "--provider", "sim", CASE], "--kernel is for the lab");
    refused(&["--kernel", "uml", "--keep", CASE], "no way into another kernel");
    refused(&["--kernel", "uml", "--kernel-memory", "10", CASE], "256 MiB or more");
    refused(&["--kernel-memory", "1000", CASE], "--kernel");
}

#[test]
fn a_missing_kernel_is_named() {
    let bench = Bench::new();
    bench
        .run(&["--kernel", "no/such/kernel", CASE])
        .code(HARNESS)
        .complains(&["no/such/kernel does not exist", "`--kernel uml` builds one"]);
}
