//! `touchstone lab`: a cluster for a person.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};
use touchstone_provider::lab::{Lab as LabProvider, Person, READY_LIMIT};
use touchstone_provider::{ClusterRequest, Notice, Provider};
use touchstone_report::clean;
use touchstone_spec::ClusterShape;
use touchstone_sys::{Ended, adopt};

use crate::args::{Lab, LabShell, LabUp};
use crate::failed::Failed;
use crate::job::{LabJob, Order};
use crate::outside::contained_with;
use crate::say::{note, say};
use crate::subjects::{name_server, prepare};

/// How the file begins by which this user's tools reach the API server of an open lab.
const KUBECONFIG_OF_A_LAB: &str = "kubeconfig-";
/// The file by which a node's own proxy reaches the API server.
const KUBECONFIG_OF_NODES: &str = "/run/touchstone/kubeconfig";

/// Where the places of this user's open labs are found.
#[derive(Debug, Serialize, Deserialize)]
struct Places {
    /// By name: process and thread inside the lab's PID namespace.
    places: BTreeMap<String, (i32, i32)>,
}

pub(crate) fn run(lab: &Lab) -> Result<u8, Failed> {
    match lab {
        Lab::Up(up) => self::up(up),
        Lab::Shell(shell) => self::shell(shell),
    }
}

fn up(up: &LabUp) -> Result<u8, Failed> {
    if up.subjects.subjects.len() != 1 {
        return Err(Failed::usage(anyhow!("a lab has one subject")));
    }
    let subject =
        prepare(&up.subjects, &[])?.pop().ok_or_else(|| Failed::harness(anyhow!("no subject")))?;
    let listener = TcpListener::bind(("127.0.0.1", 0))
        .context("failed to listen on the host's loopback")
        .map_err(Failed::harness)?;
    let address = listener.local_addr().map_err(Failed::harness)?;
    let token = token().map_err(Failed::harness)?;
    let folder = state_folder().map_err(Failed::harness)?;
    sweep(&folder);
    let kubeconfig = folder.join(format!("{KUBECONFIG_OF_A_LAB}{}", std::process::id()));
    std::fs::write(&kubeconfig, kubeconfig_text(&address.to_string(), &token))
        .with_context(|| format!("failed to write {}", kubeconfig.display()))
        .map_err(Failed::harness)?;
    let name_server = if up.dns {
        Some(
            name_server(&touchstone_subject::Cache::from_environment())
                .map_err(|why| Failed::harness(anyhow!("no name server: {why}")))?,
        )
    } else {
        None
    };
    let zones = ClusterShape::default().zones;
    let job = LabJob {
        subject,
        shape: ClusterShape {
            zones: (0..up.nodes)
                .map(|i| zones.get(i).cloned().unwrap_or(zones[2].clone()))
                .collect(),
            dns: up.dns,
            ..ClusterShape::default()
        },
        listener: listener.as_raw_fd(),
        token,
        state: state_file(std::process::id()).map_err(Failed::harness)?,
        kubeconfig: kubeconfig.clone(),
        name_server,
        defects: (&up.defects).into(),
    };
    let nodes = job.shape.node_names().into_iter().collect();
    job.defects.nodes_exist(&nodes).map_err(Failed::usage)?;
    job.defects.lies().map_err(Failed::usage)?;
    // A lab for a person runs no case.
    job.defects.cases_run(&BTreeSet::new()).map_err(Failed::usage)?;
    let state = job.state.clone();
    let ended = contained_with(&Order::Lab(Box::new(job)), true, &[listener.as_fd()]);
    // Left over only where this process is killed as well; the next lab or shell sweeps them.
    let _ = std::fs::remove_file(state);
    let _ = std::fs::remove_file(kubeconfig);
    match ended? {
        Ended::Exited(code) => Ok(code),
        Ended::Killed(signal) => {
            Err(Failed::harness(anyhow!("the lab was killed by signal {signal}")))
        }
    }
}

/// The lab's own side: starts the cluster and keeps it until a signal.
pub(crate) async fn inside(job: &LabJob) -> Result<u8> {
    let (chosen, resolved) = job.subject.reopen()?;
    let listener = TcpListener::from(adopt(job.listener).context("the lab has no listener")?);
    let provider = LabProvider {
        selection: Arc::clone(&chosen.selection),
        resolved,
        lies: job.defects.lies()?,
        without_proxy: job.defects.without_proxy.clone(),
        sabotage: None,
        logs: None,
        name_server: job.name_server.clone(),
        ready_limit: READY_LIMIT,
        person: Some(Person { listener: Arc::new(listener), token: job.token.clone() }),
    };
    let request = ClusterRequest { name: "lab".to_owned(), shape: job.shape.clone() };
    let started = provider.start(&request).await?;
    if let Err(error) = started.cluster.ready().await {
        started.cluster.close().await;
        return Err(error.into());
    }
    let places = places(&started.cluster.how_to_join());
    std::fs::write(&job.state, serde_json::to_vec(&places)?)
        .with_context(|| format!("failed to write {}", job.state.display()))?;
    say(&format!("{} is up with {} nodes", job.subject.record.id, job.shape.zones.len()));
    say(&format!("  export KUBECONFIG={}", job.kubeconfig.display()));
    say("  kubectl get svc -A");
    say(&format!(
        "  touchstone lab shell n1     (places: {})",
        places.places.keys().cloned().collect::<Vec<_>>().join(", ")
    ));
    say("Ctrl-C ends it.");
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let mut notices = started.notices;
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => break,
            _ = terminate.recv() => break,
            Some(notice) = notices.recv() => note(&told(&notice)),
        }
    }
    started.cluster.close().await;
    Ok(0)
}

/// What the cluster tells by itself, in a sentence.
fn told(notice: &Notice) -> String {
    match notice {
        Notice::ProxyExited { node, status, by_design: Some(design), .. } => {
            let status = clean::line(status);
            format!("the proxy on {node} ended by design, since {design}: {status}")
        }
        Notice::ProxyExited { node, status, by_design: None, last_lines } => {
            let last: Vec<String> =
                last_lines.iter().map(|line| format!("\n    {}", clean::line(line))).collect();
            format!("the proxy on {node} ended: {}{}", clean::line(status), last.concat())
        }
        Notice::ProxyRestarted { node } => format!("the proxy on {node} was started again"),
    }
}

fn shell(shell: &LabShell) -> Result<u8, Failed> {
    let (owner, places) = open_lab().map_err(Failed::harness)?;
    let (_, thread) = places.places.get(&shell.place).ok_or_else(|| {
        Failed::usage(anyhow!(
            "the lab has no place {}; there are {}",
            shell.place,
            places.places.keys().cloned().collect::<Vec<_>>().join(", ")
        ))
    })?;
    let (init, harness) = chain(owner).map_err(Failed::harness)?;
    let thread = outer_thread(harness, *thread).map_err(Failed::harness)?;
    let ns = |pid: i32, kind: &str| format!("/proc/{pid}/ns/{kind}");
    let mine = format!("/proc/{harness}/task/{thread}/ns");
    let mut command = Command::new("nsenter");
    // As root the lab may be in the same user namespace; entering one's own again is an error.
    if std::fs::read_link(ns(init, "user")).ok() != std::fs::read_link("/proc/self/ns/user").ok() {
        command.arg(format!("--user={}", ns(init, "user"))).arg("--preserve-credentials");
    }
    command
        .arg(format!("--mount={mine}/mnt"))
        .arg(format!("--net={mine}/net"))
        .arg(format!("--uts={mine}/uts"))
        .arg(format!("--pid={}", ns(init, "pid")));
    if shell.command.is_empty() {
        let program = std::env::var("SHELL").unwrap_or_else(|_| "/bin/sh".to_owned());
        command.arg("--").arg(program).env("PS1", format!("{}$ ", shell.place));
    } else {
        command.arg("--").args(&shell.command);
    }
    // The host's loopback is not there; from a node the API server is reached as its proxy does.
    match is_node(&shell.place) {
        true => command.env("KUBECONFIG", KUBECONFIG_OF_NODES),
        false => command.env_remove("KUBECONFIG"),
    };
    let status = command
        .status()
        .context("failed to start nsenter (it comes with the package util-linux)")
        .map_err(Failed::harness)?;
    Ok(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1))
}

/// Whether a place is a node, by its name.
fn is_node(place: &str) -> bool {
    place.strip_prefix('n').is_some_and(|number| number.parse::<u8>().is_ok())
}

/// Removes what labs have left whose own process was killed: their places, and the tokens to
/// API servers that ended with them.
fn sweep(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| {
            name.strip_suffix(".json").or_else(|| name.strip_prefix(KUBECONFIG_OF_A_LAB))
        });
        let dead = |pid: i32| !Path::new(&format!("/proc/{pid}")).exists();
        if pid.and_then(|pid| pid.parse().ok()).is_some_and(dead) {
            // Whoever else sweeps may have been faster.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// The newest lab of this user that is still there: the process outside, and its places.
fn open_lab() -> Result<(i32, Places)> {
    let mut newest = None;
    let folder = state_folder()?;
    sweep(&folder);
    for entry in std::fs::read_dir(&folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|n| n.strip_suffix(".json")?.parse::<i32>().ok())
        else {
            continue;
        };
        let modified = entry.metadata()?.modified()?;
        if newest.as_ref().is_none_or(|(time, _, _)| *time < modified) {
            newest = Some((modified, pid, entry.path()));
        }
    }
    let (_, pid, path) = newest.context("no lab is open; `touchstone lab up` opens one")?;
    let text =
        std::fs::read(&path).with_context(|| format!("failed to read {}", path.display()))?;
    Ok((pid, serde_json::from_slice(&text)?))
}

/// PID 1 and the harness of a lab, as seen from here.
fn chain(owner: i32) -> Result<(i32, i32)> {
    let child = |pid: i32| -> Result<i32> {
        let path = format!("/proc/{pid}/task/{pid}/children");
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("failed to read {path}"))?;
        let first = text.split_whitespace().next().context("the lab is gone")?;
        Ok(first.parse()?)
    };
    let init = child(owner)?;
    Ok((init, child(init)?))
}

/// The thread of the harness whose innermost number is `inner`.
fn outer_thread(harness: i32, inner: i32) -> Result<i32> {
    for entry in std::fs::read_dir(format!("/proc/{harness}/task"))? {
        let entry = entry?;
        let status = std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        let last = numbers.and_then(|n| n.split_whitespace().next_back()?.parse::<i32>().ok());
        if last == Some(inner) {
            return Ok(entry.file_name().to_string_lossy().parse()?);
        }
    }
    Err(anyhow!("the place is gone"))
}

fn places(lines: &[String]) -> Places {
    let places = lines.iter().filter_map(|line| {
        let mut words = line.split_whitespace();
        let name = words.next()?.to_owned();
        Some((name, (words.next()?.parse().ok()?, words.next()?.parse().ok()?)))
    });
    Places { places: places.collect() }
}

/// Lets `lab shell` find the places of a run that waits for a person.
pub(crate) fn remember_places(lines: &[String]) {
    let written = outer_pid()
        .and_then(state_file)
        .and_then(|path| Ok(std::fs::write(path, serde_json::to_vec(&places(lines))?)?));
    if let Err(error) = written {
        note(&format!("warning: `touchstone lab shell` will not find this cluster: {error:#}"));
    }
}

/// Takes back what [`remember_places`] has written.
pub(crate) fn forget_places() {
    if let Ok(path) = outer_pid().and_then(state_file) {
        // It is passed by when its process is gone.
        let _ = std::fs::remove_file(path);
    }
}

/// The person's own process, which started this one: told by its environment.
fn outer_pid() -> Result<u32> {
    let pid = std::env::var(OUTER_PID).context("the person's process is not known")?;
    Ok(pid.parse()?)
}

/// Variable that tells the harness inside the process outside.
pub(crate) const OUTER_PID: &str = "TOUCHSTONE_OUTER_PID";

/// Variable that tells the harness inside the user outside.
pub(crate) const OUTER_UID: &str = "TOUCHSTONE_OUTER_UID";

fn state_folder() -> Result<PathBuf> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt};
    // Inside, every user is number 0; the variable tells who it is outside.
    let uid = std::env::var(OUTER_UID)
        .ok()
        .and_then(|uid| uid.parse::<u32>().ok())
        .unwrap_or_else(|| nix::unistd::geteuid().as_raw());
    let folder = std::env::temp_dir().join(format!("touchstone-{uid}"));
    match std::fs::DirBuilder::new().mode(0o700).create(&folder) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let owner = std::fs::metadata(&folder)?.uid();
            if owner != nix::unistd::geteuid().as_raw() {
                return Err(anyhow!("{} belongs to another user", folder.display()));
            }
        }
        Err(error) => return Err(anyhow!("failed to make {}: {error}", folder.display())),
    }
    Ok(folder)
}

fn state_file(pid: u32) -> Result<PathBuf> {
    Ok(state_folder()?.join(format!("{pid}.json")))
}

pub(crate) fn token() -> Result<String> {
    use std::io::Read;
    let mut bytes = [0_u8; 24];
    std::fs::File::open("/dev/urandom")?
        .read_exact(&mut bytes)
        .context("failed to make a token")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The token is in the address, since kubectl sends no user's token where there is no TLS.
fn kubeconfig_text(address: &str, token: &str) -> String {
    let server = format!("http://person:{token}@{address}");
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: touchstone\n\
         clusters: [{{ name: touchstone, cluster: {{ server: \"{server}\" }} }}]\n\
         contexts: [{{ name: touchstone, context: {{ cluster: touchstone, user: person }} }}]\n\
         users: [{{ name: person, user: {{}} }}]\n"
    )
}
