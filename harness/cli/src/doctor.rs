//! `touchstone doctor`: what is missing, how to mend it, and what will not run because of it.

use std::path::Path;
use std::process::{Command, Stdio};

use touchstone_netlab::{NodeShape, Shape, Topology};
use touchstone_spec::NETWORK_NEEDS;
use touchstone_sys::{Ended, Switch};

use crate::args::Doctor;
use crate::failed::{self, Failed};
use crate::job::Order;
use crate::outside::contained;
use crate::say::say;
use crate::subjects::{choose, find, name_server};

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
    missing += namespaces();
    match name_server() {
        Ok(program) => fine("coredns", &program.display().to_string()),
        Err(why) => {
            missing += 1;
            lacking("coredns", &why, "every case about names (area dns)");
        }
    }
    for selector in &doctor.subjects.subjects {
        let chosen = choose(selector, &doctor.subjects.folders)?;
        match find(&chosen, doctor.subjects.binary.as_deref()) {
            Ok(resolved) => fine(selector, &resolved.program.display().to_string()),
            Err(failed) => {
                missing += 1;
                lacking(selector, &failed.to_string(), selector);
            }
        }
    }
    if missing == 0 {
        say("everything is there: all cases of these subjects can run");
        return Ok(0);
    }
    Ok(failed::HARNESS)
}

/// Tries the namespaces themselves; what the system says of its switches only explains.
fn namespaces() -> u32 {
    match contained(&Order::Doctor, true) {
        Ok(Ended::Exited(0)) => 0,
        // It has said what.
        Ok(ended) if ended.code() == WITHOUT_NETWORKS => 1,
        Ok(ended) => {
            lacking(
                "the lab's network",
                &format!("the trial in a user namespace ended with {}", ended.code()),
                "every case in the lab",
            );
            1
        }
        Err(error) => {
            lacking("user namespaces", &error.to_string(), "every case in the lab");
            for switch in Switch::found() {
                say(&format!("           {switch}: {}", switch.remedy()));
            }
            1
        }
    }
}

/// The trial inside: a small network, and the firewall tools in it.
pub(crate) fn inside() -> u8 {
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
    for (need, why) in touchstone_provider::lab::lacking(&wanted) {
        lacking(&need, &why, "cases that ask for it with `needs.network`");
        code = code.max(WITHOUT_NETWORKS);
    }
    code
}

fn fine(what: &str, how: &str) {
    say(&format!("  ok       {what}: {how}"));
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
