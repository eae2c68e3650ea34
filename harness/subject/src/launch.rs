//! A subject's arguments, environment and files on one node of the lab.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use minijinja::value::{Serde, Value};
use serde::Serialize;
use touchstone_spec::DetectLocal;

use crate::catalog::Selection;
use crate::format::LogPlace;
use crate::resolve::Resolved;
use crate::template::Template;

/// What the templates may know about a node and its cluster.
#[derive(Debug, Clone)]
pub struct NodeFacts {
    /// Name of the Node object.
    pub name: String,
    /// Its addresses, one for each family.
    pub addresses: Vec<IpAddr>,
    /// URL of the API server as seen from the node.
    pub api_server: String,
    /// Ranges of the pods' addresses, one for each family.
    pub cluster_cidrs: Vec<IpNet>,
    /// Ranges of the cluster IPs, one for each family.
    pub service_cidrs: Vec<IpNet>,
    /// How a case wants the proxy configured; all left out for the proxy's own defaults.
    pub proxy: ProxyFacts,
    /// The node's own folder, where the files are written and found.
    pub run_dir: PathBuf,
}

/// Settings that a case asks for, ready to be written into a proxy's configuration.
///
/// Templates know them as `proxy.NAME`; what no case asks for is none.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ProxyFacts {
    /// Ranges and words for the addresses that accept node ports.
    pub node_port_addresses: Option<Vec<String>>,
    /// How to tell pods: `ClusterCIDR`, `NodeCIDR`, `BridgeInterface`, `InterfaceNamePrefix`,
    /// `None`.
    pub detect_local: Option<DetectLocal>,
    /// For `BridgeInterface`: the link.
    pub bridge_interface: Option<String>,
    /// For `InterfaceNamePrefix`: what the names of the pods' links begin with.
    pub interface_name_prefix: Option<String>,
    /// Whether all traffic to cluster IPs is masqueraded.
    pub masquerade_all: Option<bool>,
    /// Whether node ports answer on loopback addresses.
    pub localhost_node_ports: Option<bool>,
    /// Longest time between two syncs.
    pub sync_period: Option<String>,
    /// Shortest time between two syncs.
    pub min_sync_period: Option<String>,
    /// How virtual servers of the kernel choose.
    pub scheduler: Option<String>,
    /// Whether nodes keep the addresses of Services to themselves on their links.
    pub strict_arp: Option<bool>,
    /// After how long the kernel forgets a silent UDP flow of a virtual server.
    pub udp_timeout: Option<String>,
    /// The same for a silent TCP connection.
    pub tcp_timeout: Option<String>,
    /// The same for a TCP connection that one side has closed.
    pub tcp_fin_timeout: Option<String>,
    /// Ranges in which virtual servers of others are left alone.
    pub exclude_cidrs: Option<Vec<String>>,
}

/// Everything needed to start a subject on one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Variables added to its environment.
    pub env: BTreeMap<String, String>,
    /// Files to write before the start.
    pub files: Vec<LaunchFile>,
    /// Address that answers 200 when the program calls itself healthy; a hint, not readiness.
    pub healthz: Option<String>,
    /// Address that answers 200 while the program is alive.
    pub livez: Option<String>,
    /// Address that names its mode.
    pub mode: Option<String>,
    /// Address of its metrics.
    pub metrics: Option<String>,
    /// Where its log is.
    pub log: LaunchLog,
    /// Commands that list its rules.
    pub rules: Vec<Vec<String>>,
    /// Command that removes its rules; empty when it has none.
    pub clean_up: Vec<String>,
    /// The settings in force, for the report: values and feature gates.
    pub settings: BTreeMap<String, String>,
}

/// A file that a subject wants before it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchFile {
    /// Where it is to be written, below the node's run directory.
    pub path: PathBuf,
    /// What is in it.
    pub contents: String,
}

/// Where a started subject writes its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LaunchLog {
    /// To standard output or standard error.
    Output,
    /// To this file.
    File(PathBuf),
}

/// A launch that cannot be rendered.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// A template does not fit the facts.
    #[error("failed to render {what} of {subject}: {reason}")]
    Render {
        /// Which template.
        what: String,
        /// The subject.
        subject: String,
        /// What is missing, with the line inside the template.
        reason: String,
    },
    /// The subject's file does not say how it runs there.
    #[error(
        "the file of {subject} has no `lab`, so the lab cannot start it; it runs in clusters alone, \
         with --provider kind or --provider cluster"
    )]
    NoLab {
        /// The subject.
        subject: String,
    },
    /// A path is not text, so it cannot stand in a file.
    #[error("failed to start {subject} with {path}: the path is not UTF-8")]
    Path {
        /// The subject.
        subject: String,
        /// The path.
        path: PathBuf,
    },
}

#[derive(Serialize)]
struct Context<'a> {
    program: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    release: Option<String>,
    mode: &'a str,
    configuration: &'a str,
    values: BTreeMap<&'a str, &'a serde_json::Value>,
    feature_gates: BTreeMap<&'a str, bool>,
    run_dir: &'a str,
    api_server: &'a str,
    node: NodeContext<'a>,
    cluster_cidrs: &'a [IpNet],
    service_cidrs: &'a [IpNet],
    proxy: &'a ProxyFacts,
}

#[derive(Serialize)]
struct NodeContext<'a> {
    name: &'a str,
    addresses: &'a [IpAddr],
}

impl Launch {
    /// Renders the subject's recipe for one node.
    ///
    /// Invariant: the release is the one that the program itself has, when it tells.
    ///
    /// # Errors
    /// Names the template that does not fit.
    pub fn render(
        selection: &Selection,
        resolved: &Resolved,
        node: &NodeFacts,
    ) -> Result<Self, LaunchError> {
        let subject = &selection.subject;
        let text = |path: &PathBuf| {
            path.to_str().map(str::to_owned).ok_or_else(|| LaunchError::Path {
                subject: subject.name.to_string(),
                path: path.clone(),
            })
        };
        let program = text(&resolved.program)?;
        let run_dir = text(&node.run_dir)?;
        let values = values(selection);
        let gates = feature_gates(selection, resolved);
        let context = Value::from(Serde(Context {
            program: &program,
            release: resolved.release.as_ref().map(ToString::to_string),
            mode: selection.mode.as_str(),
            configuration: selection.configuration.as_str(),
            values: values.clone(),
            feature_gates: gates.clone(),
            run_dir: &run_dir,
            api_server: &node.api_server,
            node: NodeContext { name: &node.name, addresses: &node.addresses },
            cluster_cidrs: &node.cluster_cidrs,
            service_cidrs: &node.service_cidrs,
            proxy: &node.proxy,
        }));
        let render = |what: &str, template: &Template| {
            template.render(&context).map_err(|err| LaunchError::Render {
                what: what.to_owned(),
                subject: subject.name.to_string(),
                reason: err.to_string(),
            })
        };
        let all = |what: &str, templates: &[Template]| {
            templates.iter().map(|template| render(what, template)).collect::<Result<Vec<_>, _>>()
        };
        let Some(lab) = &subject.file.lab else {
            return Err(LaunchError::NoLab { subject: subject.name.to_string() });
        };
        let mut env = BTreeMap::new();
        for (name, template) in &lab.env {
            env.insert(name.clone(), render(&format!("the variable {name}"), template)?);
        }
        let mut files = Vec::new();
        for (path, template) in &lab.files {
            let contents = render(&format!("the file {path}"), template)?;
            files.push(LaunchFile { path: node.run_dir.join(path), contents });
        }
        let log = match &lab.log {
            LogPlace::Output => LaunchLog::Output,
            LogPlace::File(path) => LaunchLog::File(node.run_dir.join(render("the log", path)?)),
        };
        let mut rules = Vec::new();
        for command in subject.file.modes.get(&selection.mode).into_iter().flat_map(|m| &m.rules) {
            rules.push(all("the rule listing", command)?);
        }
        let one = |what: &str, template: &Option<Template>| {
            template.as_ref().map(|template| render(what, template)).transpose()
        };
        let mut settings: BTreeMap<String, String> = values
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| ((*name).to_owned(), plain(value)))
            .collect();
        settings.extend(gates.iter().map(|(gate, on)| (format!("gate {gate}"), on.to_string())));
        Ok(Self {
            program: resolved.program.clone(),
            args: all("the arguments", &lab.args)?,
            env,
            files,
            healthz: one("the healthz address", &lab.healthz)?,
            livez: one("the livez address", &lab.livez)?,
            mode: one("the address of the mode", &lab.mode)?,
            metrics: one("the metrics address", &lab.metrics)?,
            log,
            rules,
            clean_up: all("the clean-up", &lab.clean_up)?,
            settings,
        })
    }
}

/// The subject's values, then the mode's, then the configuration's; the last wins.
pub(crate) fn values(selection: &Selection) -> BTreeMap<&str, &serde_json::Value> {
    let file = &selection.subject.file;
    let mode = file.modes.get(&selection.mode).map(|mode| &mode.values);
    let configuration = file.configurations.get(&selection.configuration).map(|conf| &conf.values);
    let mut values: BTreeMap<&str, &serde_json::Value> =
        file.values.iter().map(|(name, value)| (name.as_str(), value)).collect();
    for (name, value) in mode.into_iter().chain(configuration).flatten() {
        values.insert(name.as_str(), &value.value);
    }
    values
}

fn feature_gates<'a>(selection: &'a Selection, resolved: &Resolved) -> BTreeMap<&'a str, bool> {
    let mode = selection.subject.file.modes.get(&selection.mode);
    mode.into_iter()
        .flat_map(|mode| &mode.feature_gates)
        .filter(|range| range.releases.applies(resolved.release.as_ref()))
        .flat_map(|range| range.gates.iter().map(|(gate, &on)| (gate.as_str(), on)))
        .collect()
}

fn plain(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
