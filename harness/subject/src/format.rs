//! The format of `subject.yaml`, version 1.

use std::collections::{BTreeMap, BTreeSet};

use schemars::{JsonSchema, Schema};
use serde::Deserialize;

use crate::file::Placed;
use crate::name::{ConfigurationName, ModeName, ValueName};
use crate::release::{Release, ReleaseRange};
use crate::template::Template;
use touchstone_spec::{Feature, IPVS_NEED};

/// The version of a file's format; this program reads version 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "u32")]
pub struct FormatVersion(u32);

impl TryFrom<u32> for FormatVersion {
    type Error = String;
    fn try_from(number: u32) -> Result<Self, String> {
        if number == 1 {
            Ok(Self(number))
        } else {
            Err(format!("format {number} is not known, this program reads format 1"))
        }
    }
}

/// A proxy under test, as written in `subject.yaml`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SubjectFile {
    /// Version of this file's format: 1.
    pub format: Placed<FormatVersion>,
    /// One sentence: what this proxy is.
    pub about: String,
    /// Whether every `must` case has to pass on it before the case is accepted.
    #[serde(default)]
    pub reference: bool,
    /// Whether nobody has run this file yet: it was written from documentation, and every report
    /// says so.
    #[serde(default)]
    pub untested: bool,
    /// Where the program comes from; one that runs in clusters alone needs none.
    pub binary: Option<Binary>,
    /// Settings that templates may use as `values.NAME`, with their defaults.
    #[serde(default)]
    pub values: BTreeMap<ValueName, serde_json::Value>,
    /// The mode when none is named; needed when there are several.
    pub default_mode: Option<Placed<ModeName>>,
    /// The ways this proxy can forward traffic; none means one mode called `default`.
    #[serde(default)]
    pub modes: BTreeMap<ModeName, Mode>,
    /// Named sets of settings; `default` always exists.
    #[serde(default)]
    pub configurations: BTreeMap<ConfigurationName, Configuration>,
    /// Capabilities in every mode.
    #[serde(default)]
    pub features: BTreeMap<Feature, FeatureClaim>,
    /// How it runs on a node of the lab; left out where it cannot.
    pub lab: Option<Lab>,
    /// How it is put into a cluster without kube-proxy; left out where its author does that.
    pub cluster: Option<InCluster>,
}

/// Where a subject's program comes from.
///
/// A path given on the command line comes first, then the sources in their order; what a
/// download or a build made before is taken from the cache.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Binary {
    /// File name of the program.
    pub name: String,
    /// The releases that exist; needed by downloads and builds.
    pub releases: Option<Releases>,
    /// Arguments that make it print its version; without them it is not asked.
    pub version_args: Option<Vec<String>>,
    /// The places, in the order in which they are tried.
    pub sources: Placed<Vec<Source>>,
}

/// The releases of a subject.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Releases {
    /// The release used when none is named.
    pub default: Placed<Release>,
    /// The releases that this file describes.
    pub supported: ReleaseRange,
}

/// One place a program may come from. Templates may use `release` and `arch` (`amd64`, `arm64`, …).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// A file, relative to the subject's own file.
    Path(Placed<String>),
    /// A download, checked against a published checksum.
    Download {
        /// Address of the program.
        url: Template,
        /// Address of a text that begins with its SHA-256 in hexadecimal.
        sha256: Template,
    },
    /// A program built by `go build` from a published module.
    Go(GoSource),
}

/// A program in a Go module.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct GoSource {
    /// Path of the module.
    pub module: String,
    /// Path of the package that holds the program.
    pub package: String,
    /// The string variable that the program prints as its version, set to the release.
    pub version_variable: Option<String>,
}

/// One way a subject can forward traffic.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Mode {
    /// One sentence: how this mode forwards.
    pub about: String,
    /// The releases that have this mode.
    #[serde(default)]
    pub releases: ReleaseRange,
    /// What the kernel of a node must have beyond iptables and nftables.
    #[serde(default)]
    pub needs: BTreeSet<KernelNeed>,
    /// Settings of this mode.
    #[serde(default)]
    pub values: BTreeMap<ValueName, Placed<serde_json::Value>>,
    /// Feature gates that this mode needs, by release.
    #[serde(default)]
    pub feature_gates: Vec<GateRange>,
    /// Capabilities of this mode beyond those of the subject.
    #[serde(default)]
    pub features: BTreeMap<Feature, FeatureClaim>,
    /// Capabilities of the subject that this mode does not have.
    #[serde(default)]
    pub without: BTreeMap<Feature, Placed<FeatureClaim>>,
    /// Whether it reads Endpoints, as programs did before there were EndpointSlices.
    #[serde(default)]
    pub reads_endpoints: bool,
    /// Commands that list the mode's rules, as evidence.
    #[serde(default)]
    pub rules: Vec<Vec<Template>>,
}

/// Something that not every kernel has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum KernelNeed {
    /// IPVS, sets of addresses (ipset), and dummy devices.
    Ipvs,
}

impl KernelNeed {
    /// The need as excuses word it.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            KernelNeed::Ipvs => IPVS_NEED,
        }
    }
}

/// Feature gates for a range of releases.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct GateRange {
    /// The releases that need them.
    pub releases: ReleaseRange,
    /// Gate and setting.
    pub gates: BTreeMap<String, bool>,
}

/// A named set of settings.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Configuration {
    /// One sentence: what differs from the default.
    pub about: String,
    /// The settings; they win over those of the mode.
    #[serde(default)]
    pub values: BTreeMap<ValueName, Placed<serde_json::Value>>,
}

/// A declared capability.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct FeatureClaim {
    /// The releases that have it.
    #[serde(default)]
    pub releases: ReleaseRange,
    /// Where this is written, or why the range is what it is.
    pub why: Option<String>,
}

/// How a subject runs on a node of the lab.
///
/// Templates may use `program`, `release`, `mode`, `configuration`, `values.NAME`,
/// `feature_gates`, `run_dir`, `api_server`, `node.name`, `node.addresses`, `cluster_cidrs`,
/// `service_cidrs`, and what a case asks of the proxy's configuration, each none when it asks
/// nothing: `proxy.node_port_addresses`, `proxy.detect_local`, `proxy.bridge_interface`,
/// `proxy.interface_name_prefix`, `proxy.masquerade_all`, `proxy.localhost_node_ports`,
/// `proxy.sync_period`, `proxy.min_sync_period`, `proxy.scheduler`, `proxy.strict_arp`,
/// `proxy.udp_timeout`, `proxy.tcp_timeout`, `proxy.tcp_fin_timeout` and `proxy.exclude_cidrs`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Lab {
    /// Arguments of the program.
    #[serde(default)]
    pub args: Vec<Template>,
    /// Variables added to its environment.
    #[serde(default)]
    pub env: BTreeMap<String, Template>,
    /// Files written before it starts: path below `run_dir`, and contents.
    #[serde(default)]
    pub files: BTreeMap<String, Template>,
    /// Address that answers 200 when the program calls itself healthy; a hint, not readiness.
    pub healthz: Option<Template>,
    /// Address that answers 200 while the program is alive, whatever becomes of its node.
    pub livez: Option<Template>,
    /// Address that names its mode.
    pub mode: Option<Template>,
    /// Address of its metrics in the Prometheus text format.
    pub metrics: Option<Template>,
    /// Where it writes its log.
    #[serde(default)]
    pub log: LogPlace,
    /// Exits after which it expects to be started again.
    #[serde(default)]
    pub exits_by_design: Vec<ExitByDesign>,
    /// Command that removes its rules.
    #[serde(default)]
    pub clean_up: Vec<Template>,
}

/// How a subject is put into a cluster that has no kube-proxy.
///
/// Manifests are templates that may use `release`, `mode`, `configuration`, `values.NAME`, and of
/// the cluster `api_server`, `api_host`, `api_port`, `cluster_cidrs` and `service_cidrs`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct InCluster {
    /// Whether it makes the pods' interfaces itself: then the cluster has no other pod network.
    #[serde(default)]
    pub own_network: bool,
    /// Images that every node gets beforehand; all others are pulled by the cluster.
    #[serde(default)]
    pub images: Vec<ImageSource>,
    /// Files of API objects, relative to the subject's own file, applied in this order.
    pub manifests: Placed<Vec<Placed<String>>>,
    /// Where those files come from when they are not there; errors tell it.
    pub made_by: Option<String>,
}

/// An image for the nodes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ImageSource {
    /// An archive as `docker save` writes it, relative to the subject's own file.
    Archive(Placed<String>),
    /// The subject's own program, alone in an image of this name; it must be static.
    Binary(Placed<String>),
}

/// Where a subject writes its log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LogPlace {
    /// To standard output or standard error.
    #[default]
    Output,
    /// To a file.
    File(Template),
}

/// An exit after which a subject expects to be started again, as a kubelet would.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ExitByDesign {
    /// What happened before.
    pub when: String,
    /// Text in the last lines of the log.
    pub log: String,
    /// The releases that do so.
    #[serde(default)]
    pub releases: ReleaseRange,
}

/// The JSON Schema of `subject.yaml`, for editors.
#[must_use]
pub fn subject_schema() -> Schema {
    schemars::schema_for!(SubjectFile)
}
