//! `touchstone doctor`: what is missing, how to mend it, and what will not run because of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};

use touchstone_netlab::{NodeShape, Shape, Topology};
use touchstone_spec::NETWORK_NEEDS;
use touchstone_subject::{Cache, Kernel};
use touchstone_sys::{EXIT_PROC_REFUSED, Ended, Switch};

use crate::args::{Doctor, Subjects};
use crate::failed::{self, Failed};
use crate::host;
use crate::job::{Order, Wanting};
use crate::outside::contained;
use crate::say::say;
use crate::selection::library;
use crate::subjects::{COREDNS_PATH, choose, features, find_in, name_server};

/// A program that the lab or a subject starts, the package that has it, and what needs it.
const PROGRAMS: [(&str, &str, &str); 6] = [
    ("iptables-save", "iptables", "kube-proxy:iptables"),
    ("ip6tables-save", "iptables", "kube-proxy:iptables over IPv6"),
    ("nft", "nftables", "kube-proxy:nftables"),
    ("conntrack", "conntrack", "looking into flows by hand (`touchstone lab shell`)"),
    ("nsenter", "util-linux", "`touchstone lab shell`"),
    (
        "kubectl",
        "kubernetes-client",
        "`touchstone lab up` by hand; `touchstone subject fetch kubectl` gets one",
    ),
];

/// Exit code of the trial when nothing is lacking but what single networks need.
const WITHOUT_NETWORKS: u8 = 1;

/// Exit code of the trial when some subject can run no case at all.
const WITHOUT_SUBJECTS: u8 = 2;

pub(crate) fn run(doctor: &Doctor) -> Result<u8, Failed> {
    let mut missing = 0;
    for (program, package, what) in PROGRAMS {
        match which(program) {
            Some(path) => fine(program, &path),
            None => {
                missing += u32::from(program != "kubectl" && program != "conntrack");
                lacking(program, &format!("install the package {package}"), what);
            }
        }
    }
    let trial = namespaces(wanting(&doctor.subjects)?);
    missing += u32::from(trial == Trial::Failed);
    second_kernel();
    let cache = Cache::from_environment().as_it_is();
    match name_server(&cache) {
        Ok(program) => fine("coredns", &program.display().to_string()),
        Err(why) if std::env::var_os(COREDNS_PATH).is_some() => {
            missing += 1;
            lacking("coredns", &why, "every case about names (area dns)");
        }
        // No release of it is downloaded.
        Err(_) if which("go").is_none() => {
            missing += 1;
            let remedy = "not in the cache, and built with Go alone: install Go 1.21 or newer, or \
                          name a coredns by TOUCHSTONE_COREDNS";
            lacking("coredns", remedy, "every case about names (area dns)");
        }
        Err(_) => later("coredns", "builds it with Go"),
    }
    for selector in &doctor.subjects.subjects {
        let chosen = choose(selector, &doctor.subjects.folders)?;
        let binary = doctor.subjects.binary.as_deref();
        match find_in(&cache, &chosen, binary) {
            Ok(resolved) => fine(selector, &resolved.program.display().to_string()),
            Err(_) if binary.is_none() && chosen.selection.subject.is_fetched() => {
                later(
                    selector,
                    match which("go") {
                        Some(_) => "downloads it, or builds it with Go",
                        None => {
                            "downloads it; where that is refused it needs Go, which is not here"
                        }
                    },
                );
            }
            Err(failed) => {
                missing += 1;
                lacking(selector, &failed.to_string(), selector);
            }
        }
    }
    match (missing, trial) {
        (0, Trial::Whole) => say("everything is there: all cases of these subjects can run"),
        (0, Trial::WithoutSubjects) => {
            say("some of these subjects cannot run on this kernel, as said above");
            return Ok(failed::HARNESS);
        }
        (0, Trial::WithoutNetworks) => {
            say("these subjects can run, and the cases named above will be unsupported");
        }
        (_, _) => return Ok(failed::HARNESS),
    }
    Ok(0)
}

/// What came of the trial of namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trial {
    /// Everything works.
    Whole,
    /// What some cases need of the network is lacking.
    WithoutNetworks,
    /// What some subject needs for any case is lacking.
    WithoutSubjects,
    /// No lab is to be had.
    Failed,
}

/// Tries the namespaces themselves; what the system says of its switches only explains.
fn namespaces(wanting: Vec<Wanting>) -> Trial {
    match contained(&Order::Doctor(wanting), true) {
        Ok(Ended::Exited(0)) => Trial::Whole,
        // It has said what.
        Ok(ended) if ended.code() == WITHOUT_NETWORKS => Trial::WithoutNetworks,
        Ok(ended) if ended.code() == WITHOUT_SUBJECTS => Trial::WithoutSubjects,
        Ok(Ended::Exited(EXIT_PROC_REFUSED)) => {
            let remedy = "/proc is masked here, as in many containers: see the message above";
            lacking("a /proc of the lab's own", remedy, "every case in the lab");
            Trial::Failed
        }
        Ok(ended) => {
            lacking(
                "the lab's network",
                &format!("the trial in a user namespace ended with {}", ended.code()),
                "every case in the lab",
            );
            Trial::Failed
        }
        Err(error) => {
            // Its first words are for those who have not asked yet.
            let cause = error.why.root_cause().to_string();
            lacking("user namespaces", &cause, "every case in the lab");
            for switch in Switch::found() {
                say(&format!("           {switch}: {}", switch.remedy()));
            }
            Trial::Failed
        }
    }
}

/// The trial inside: a small network, and the firewall tools in it.
pub(crate) fn inside(wanting: &[Wanting]) -> u8 {
    let shape = Shape {
        nodes: vec![NodeShape::new("n1")],
        outside: vec!["outside".to_owned()],
        ..Shape::default()
    };
    let topology = match Topology::new(&shape) {
        Ok(topology) => topology,
        Err(error) => {
            lacking("network namespaces", &error.to_string(), "every case in the lab");
            return failed::HARNESS;
        }
    };
    fine("user, mount, PID and network namespaces", "work");
    for (namespace, unset) in topology.unset() {
        for setting in unset {
            say(&format!("  note     {namespace}: kernel setting not available: {setting:?}"));
        }
    }
    let Some(node) = topology.node("n1") else { return failed::HARNESS };
    let trials = [
        ("iptables -t nat -L -n", "kernel support for iptables NAT", "kube-proxy:iptables"),
        (
            "ip6tables -t nat -L -n",
            "kernel support for ip6tables NAT",
            "kube-proxy:iptables over IPv6",
        ),
        (
            "nft add table ip t && nft add chain ip t c '{ type nat hook prerouting priority -100; }'",
            "kernel support for nftables NAT",
            "kube-proxy:nftables",
        ),
    ];
    let mut code = 0;
    for (command, what, needs) in trials {
        let result = node
            .namespace()
            .run(move || Command::new("sh").args(["-c", command]).stdin(Stdio::null()).output());
        match result {
            Ok(Ok(output)) if output.status.success() => fine(what, "works"),
            Ok(Ok(output)) => {
                let text = String::from_utf8_lossy(&output.stderr);
                lacking(what, text.trim(), needs);
                code = failed::HARNESS;
            }
            Ok(Err(error)) => {
                lacking(what, &error.to_string(), needs);
                code = failed::HARNESS;
            }
            Err(error) => {
                lacking(what, &error.to_string(), needs);
                code = failed::HARNESS;
            }
        }
    }
    let wanted = NETWORK_NEEDS.into_iter().collect();
    let lacks = touchstone_provider::lab::lacking(&wanted);
    for (need, why) in &lacks {
        lacking(need, why, "whatever is said below of cases and subjects that need it");
        code = code.max(WITHOUT_NETWORKS);
    }
    for wanting in wanting {
        if !say_where(wanting, &lacks) {
            code = code.max(WITHOUT_SUBJECTS);
        }
    }
    code
}

/// Says on which kernel the cases of a subject would run, and why; gives whether any runs here.
fn say_where(wanting: &Wanting, lacks: &BTreeMap<String, String>) -> bool {
    let Wanting { subject, needs, cases } = wanting;
    let own = host::release();
    let all = cases.len();
    if let Some((need, why)) = lacks.iter().find(|(need, _)| needs.contains(*need)) {
        say(&format!("  kernel   {subject}: none of {all} cases on {own}: it lacks {need}"));
        say(&format!("           ({why})"));
        return false;
    }
    let mut elsewhere = BTreeMap::new();
    for (case, needs) in cases {
        if let Some(need) = lacks.keys().find(|need| needs.contains(*need)) {
            elsewhere.insert(case, need);
        }
    }
    let here = all - elsewhere.len();
    say(&format!("  kernel   {subject}: {here} of {all} cases on {own}, which has what they need"));
    for (case, need) in elsewhere {
        say(&format!("           not {case}: {own} lacks {need}"));
    }
    true
}

/// Cases that each subject of the command line promises to be right in, with their needs.
fn wanting(subjects: &Subjects) -> Result<Vec<Wanting>, Failed> {
    let variants = library(&[])?.variants();
    let mut all = Vec::new();
    for selector in &subjects.subjects {
        let selection = choose(selector, &subjects.folders)?.selection;
        let has = features(&selection, selection.release());
        let mut cases: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let promised = variants
            .iter()
            .filter(|variant| variant.features().iter().all(|feature| has.has(feature.name())));
        for variant in promised {
            let needs = variant.host_needs().into_iter().map(str::to_owned);
            cases.entry(variant.case().id().as_str().to_owned()).or_default().extend(needs);
        }
        let needs = selection.subject.needs(&selection.mode);
        all.push(Wanting {
            subject: selector.clone(),
            needs: needs.into_iter().map(str::to_owned).collect(),
            cases,
        });
    }
    Ok(all)
}

/// Says whether there is a second kernel; it is needed only where something is missing.
fn second_kernel() {
    match Kernel::cached(&Cache::from_environment()) {
        Some(kernel) => fine(
            "the kernel of `--kernel uml`",
            &format!("{}, {}", kernel.release, kernel.program.display()),
        ),
        None => say(
            "  note     the kernel of `--kernel uml` is not built yet; the first run with it does \
             so, or `touchstone subject fetch uml`",
        ),
    }
}

fn fine(what: &str, how: &str) {
    say(&format!("  ok       {what}: {how}"));
}

/// What is not in the cache: nothing is downloaded or built to find out whether it can be had.
fn later(what: &str, how: &str) {
    say(&format!(
        "  later    {what}: not in the cache; the first run that needs it, or `touchstone subject \
         fetch {what}`, {how}"
    ));
}

fn lacking(what: &str, remedy: &str, without: &str) {
    say(&format!("  missing  {what}: {remedy}"));
    say(&format!("           without it this will not run: {without}"));
}

fn which(program: &str) -> Option<String> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/sbin"])
        .map(|folder| Path::new(folder).join(program))
        .find(|path| path.is_file())
        .map(|path| path.display().to_string())
}
