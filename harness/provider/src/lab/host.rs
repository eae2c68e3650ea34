//! What of `needs.network` this machine can supply, tried in a namespace before a run.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use touchstone_netlab::{Isolation, Joined, Namespace, Offloads, Role, Shape, Topology, sockets};
use touchstone_spec::NETWORK_NEEDS;

use super::backend::which;

/// There in every network namespace once the kernel has IPVS, built in or loaded.
const IPVS_TABLE: &str = "/proc/net/ip_vs";

/// Why the machine lacks what is wanted, by the words of [`NETWORK_NEEDS`]; only what is wanted
/// is tried.
pub(super) fn lacking(wanted: &BTreeSet<&str>) -> BTreeMap<String, String> {
    NETWORK_NEEDS
        .iter()
        .filter(|need| wanted.contains(**need))
        .filter_map(|need| Some(((*need).to_owned(), attempt(need).err()?)))
        .collect()
}

fn attempt(need: &str) -> Result<(), String> {
    let [nft, iptables, legacy, iptables_nft, offloads, bridges, sctp, ipvs] = NETWORK_NEEDS;
    match need {
        _ if need == nft => works(&[&["nft", "list", "tables"]]),
        _ if need == iptables => works(&[
            &["iptables-restore", "--version"],
            &["iptables", "-t", "filter", "-L", "-n"],
            &["ip6tables", "-t", "filter", "-L", "-n"],
        ]),
        _ if need == legacy => works(&[
            &["iptables-legacy-restore", "--version"],
            &["iptables-legacy", "-t", "nat", "-L", "-n"],
            &["ip6tables-legacy", "-t", "nat", "-L", "-n"],
        ]),
        _ if need == iptables_nft => works(&[
            &["iptables-nft-restore", "--version"],
            &["iptables-nft", "-t", "nat", "-L", "-n"],
            &["ip6tables-nft", "-t", "nat", "-L", "-n"],
        ]),
        _ if need == offloads => made(&Shape { offloads: Offloads::Off, ..Shape::default() }),
        _ if need == bridges => made(&Shape { joined: Joined::OneSegment, ..Shape::default() }),
        _ if need == ipvs => works(&[
            &["cat", IPVS_TABLE],
            &["ipset", "list", "-n"],
            &["ip", "link", "add", "trial", "type", "dummy"],
        ]),
        _ if need == sctp => speaks_sctp(),
        _ => Err("the lab knows no such need".to_owned()),
    }
}

/// Whether sockets for SCTP can be opened.
fn speaks_sctp() -> Result<(), String> {
    let trial = Namespace::new("trial", Isolation::Network, Role::Host);
    let listen = || sockets::sctp_listener((Ipv4Addr::LOCALHOST, 0).into()).map(drop);
    trial
        .and_then(|trial| trial.run(listen))
        .map_err(|error| in_full(&error))?
        .map_err(|error| format!("the kernel opens no SCTP socket: {error}"))
}

/// Whether a network can be made.
fn made(shape: &Shape) -> Result<(), String> {
    Topology::new(shape).map(drop).map_err(|error| in_full(&error))
}

/// Whether these commands work in a namespace of their own.
fn works(commands: &[&[&str]]) -> Result<(), String> {
    let isolation = Isolation::NetworkMountsAndHostName;
    let trial = Namespace::new("trial", isolation, Role::Host).map_err(|error| in_full(&error))?;
    for command in commands {
        let Some((name, args)) = command.split_first() else { continue };
        let program = which(name).ok_or_else(|| format!("there is no program {name}"))?;
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let run = move || Command::new(program).args(args).stdin(Stdio::null()).output();
        let output = trial
            .run(run)
            .map_err(|error| in_full(&error))?
            .map_err(|error| format!("{name}: {error}"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{}: {}", command.join(" "), said.trim()));
        }
    }
    Ok(())
}

fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
