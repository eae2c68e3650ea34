//! Which iptables the programs of a node find.
//!
//! A folder of the node's private file system has links under the names of iptables' programs and
//! stands first in the proxy's `PATH`.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use touchstone_netlab::Node;
use touchstone_spec::{IptablesBackend, NetworkWish};
use touchstone_subject::Launch;

use crate::ClusterError;

/// The folder, on each node.
const FOLDER: &str = "/run/lab-iptables";
/// Programs of iptables, by what comes before and after the name of the backend.
const PROGRAMS: [(&str, &str); 6] = [
    ("iptables", ""),
    ("iptables", "-save"),
    ("iptables", "-restore"),
    ("ip6tables", ""),
    ("ip6tables", "-save"),
    ("ip6tables", "-restore"),
];

/// The end of the names of a backend's programs.
fn suffix(backend: IptablesBackend) -> &'static str {
    match backend {
        IptablesBackend::Legacy => "-legacy",
        IptablesBackend::Nft => "-nft",
    }
}

/// Where a program of the machine is.
pub(super) fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/sbin"])
        .map(|folder| Path::new(folder).join(program))
        .find(|path| path.is_file())
}

/// The program of that name as a node of this network finds it.
pub(super) fn program(wish: &NetworkWish, name: &str) -> String {
    match wish.iptables {
        Some(_) => format!("{FOLDER}/{name}"),
        None => name.to_owned(),
    }
}

/// Makes the folder on a node, if the network asks for a backend.
///
/// # Errors
/// Names the program that the machine lacks.
pub(super) fn prepare(node: &Node, wish: &NetworkWish) -> Result<(), ClusterError> {
    let Some(backend) = wish.iptables else { return Ok(()) };
    let failed = |why: String| {
        ClusterError::new(format!("failed to choose an iptables for {}", node.name()), why)
    };
    let mut links = Vec::new();
    for (before, after) in PROGRAMS {
        let own = format!("{before}{}{after}", suffix(backend));
        let found = which(&own).ok_or_else(|| failed(format!("there is no {own}")))?;
        links.push((found, format!("{FOLDER}/{before}{after}")));
    }
    // On the node's own thread, since the folder is on its private file system.
    let make = move || -> std::io::Result<()> {
        std::fs::create_dir_all(FOLDER)?;
        links.iter().try_for_each(|(found, link)| symlink(found, link))
    };
    node.namespace()
        .run(make)
        .map_err(|error| failed(error.to_string()))?
        .map_err(|error| failed(error.to_string()))
}

/// Lets a proxy find the backend, and its rules be listed with it.
pub(super) fn choose(launch: &mut Launch, wish: &NetworkWish) {
    if wish.iptables.is_none() {
        return;
    }
    let path = launch.env.get("PATH").cloned().or_else(|| std::env::var("PATH").ok());
    let path = path.map_or_else(|| FOLDER.to_owned(), |path| format!("{FOLDER}:{path}"));
    launch.env.insert("PATH".to_owned(), path);
    let own =
        |name: &str| PROGRAMS.iter().any(|(before, after)| name == format!("{before}{after}"));
    for command in &mut launch.rules {
        if let Some(name) = command.first_mut().filter(|name| own(name)) {
            *name = format!("{FOLDER}/{name}");
        }
    }
}
