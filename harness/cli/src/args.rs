//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use touchstone_spec::Level;

use crate::failed::Failed;

/// Conformance suite for Kubernetes Service proxies.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run cases on one or more subjects and judge them.
    Run(Box<Run>),
    /// List the cases of a selection, and the digest of the plan.
    List(List),
    /// Ask the oracle: what must happen, and why. Needs no lab.
    Explain(Explain),
    /// Print the specification, and how far cases and saved runs cover it. Needs no lab.
    Spec(Spec),
    /// Look for what is missing on this machine, and say how to mend it.
    Doctor(Doctor),
    /// Make the reports of a saved run again.
    Report(ReportArgs),
    /// Keep a lab open for a person, or join one.
    #[command(subcommand)]
    Lab(Lab),
    /// Prepare a cluster for `run --provider cluster`.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Remove what killed runs have left: clusters of kind's, and namespaces in a cluster.
    Clean(Clean),
    /// Look at subjects and fetch their programs.
    #[command(subcommand)]
    Subject(SubjectCommand),
    /// Print a JSON Schema, for editors and for readers of reports.
    Schema(Schema),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Which cases.
#[derive(Debug, Clone, Args)]
pub(crate) struct Cases {
    /// Case ids or globs: `cluster-ip/basic`, `udp/*`, an area, or one variant.
    #[arg(value_name = "CASE")]
    pub(crate) patterns: Vec<String>,
    /// A boolean expression: `level(must) and area(udp) and not family(v6)`. Of several, any may
    /// fit; with case ids, both must.
    #[arg(short = 'E', long = "expression", value_name = "EXPRESSION")]
    pub(crate) expressions: Vec<String>,
    /// A named set of cases, such as `smoke`.
    #[arg(long, value_name = "NAME")]
    pub(crate) profile: Option<String>,
    /// A folder with more case files, laid out like the bundled ones.
    #[arg(long, value_name = "DIR")]
    pub(crate) cases: Vec<PathBuf>,
}

/// Which subjects.
#[derive(Debug, Clone, Args)]
pub(crate) struct Subjects {
    /// NAME[:MODE][+CONFIGURATION][@RELEASE], or a path to a subject file. May be repeated.
    #[arg(short, long = "subject", value_name = "SUBJECT", default_value = "kube-proxy:iptables")]
    pub(crate) subjects: Vec<String>,
    /// A folder with more subjects.
    #[arg(long = "subjects", value_name = "DIR")]
    pub(crate) folders: Vec<PathBuf>,
    /// The subject's program, instead of looking for it.
    #[arg(long, value_name = "PATH")]
    pub(crate) binary: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) cases: Cases,
    #[command(flatten)]
    pub(crate) subjects: Subjects,
    /// What supplies the clusters.
    #[arg(long, value_enum, default_value_t = ProviderName::Lab)]
    pub(crate) provider: ProviderName,
    /// Where the log and the reports go [default: touchstone-out/RUN].
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// The most cases side by side on one cluster, fewer when the machine does not keep up
    /// [default: 64, of a real cluster 16, on kind 6, on a second kernel 24].
    #[arg(short, long, value_name = "N", value_parser = at_least_one())]
    pub(crate) jobs: Option<usize>,
    /// The number that repeats a run's choices [default: from the clock].
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Fail when a known failure passes.
    #[arg(long)]
    pub(crate) strict: bool,
    /// The weakest level whose failures fail the run.
    #[arg(long, value_enum, value_name = "LEVEL", default_value_t = FailOn::Must)]
    pub(crate) fail_on: FailOn,
    /// Stop at each failing case until Enter is pressed, so that a person can look.
    #[arg(long)]
    pub(crate) pause_on_failure: bool,
    /// Keep the last cluster after the run until Ctrl-C; one of kind's stays beyond that.
    #[arg(long)]
    pub(crate) keep: bool,
    /// As root: make no user namespace of the run's own, which proxies with eBPF programs need.
    #[arg(long)]
    pub(crate) no_userns: bool,
    /// Run the lab on another kernel: `uml`, which is built once and kept, or the path of a User
    /// Mode Linux program. Needs no root.
    #[arg(long, value_name = "uml|PATH")]
    pub(crate) kernel: Option<KernelName>,
    /// Memory of that kernel, of which several share the work where there is room for them
    /// [default: 3072, or what this machine has left of it].
    #[arg(long, value_name = "MIB", requires = "kernel")]
    pub(crate) kernel_memory: Option<u64>,
    #[command(flatten)]
    pub(crate) cluster: ClusterOptions,
    #[command(flatten)]
    pub(crate) kind: KindOptions,
    #[command(flatten)]
    pub(crate) defects: Defects,
}

/// Another kernel for the lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KernelName {
    /// The project's own.
    Own,
    /// A program.
    Path(PathBuf),
}

impl From<OsString> for KernelName {
    fn from(text: OsString) -> KernelName {
        if text == "uml" { KernelName::Own } else { KernelName::Path(text.into()) }
    }
}

/// Defects planted on purpose, to see that the suite notices.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Planted defects, to see that the suite notices")]
pub(crate) struct Defects {
    /// Hide a field from the proxies, or set it: `Service:spec.externalTrafficPolicy`,
    /// `Service:spec.sessionAffinity="None"`, `Service:clusterIP(v6)`; with `udp/basic@` before
    /// it only in the objects of that case.
    #[arg(long = "lie", value_name = "[CASE@]KIND:PATH[=JSON]")]
    pub(crate) lies: Vec<String>,
    /// Start no proxy on this node.
    #[arg(long, value_name = "NODE")]
    pub(crate) without_proxy: Vec<String>,
    /// Run this shell text on every node when a step has settled, before it is judged.
    #[arg(long, value_name = "COMMAND")]
    pub(crate) sabotage: Option<String>,
}

/// How a cluster that somebody else started is used.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "With --provider cluster")]
pub(crate) struct ClusterOptions {
    /// The cluster.
    #[arg(long, value_name = "FILE", env = "KUBECONFIG")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The agents' image, for clusters that pull images [default: the one of `cluster image`,
    /// which every node must have].
    #[arg(long, value_name = "REF")]
    pub(crate) agent_image: Option<String>,
    /// Run cases too that would harm a shared cluster: they change the zones of nodes, which are put
    /// back in the end, but not by a run that is killed.
    #[arg(long)]
    pub(crate) harmful: bool,
    /// List what the run would create, and create nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// The cluster that kind is to start.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "With --provider kind")]
pub(crate) struct KindOptions {
    /// Number of nodes; the first is the control plane [default: 2].
    #[arg(long, value_name = "N", value_parser = at_least_one())]
    pub(crate) nodes: Option<usize>,
    /// What nodes are made from: the name of an image, or the path of an archive, such as
    /// `scripts/kind-node-image` prints [default: what kind takes].
    #[arg(long, value_name = "IMAGE|FILE")]
    pub(crate) image: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Write the agents' image as a file for `kind load image-archive`, `docker load` and
    /// `ctr -n k8s.io images import`, and print its name.
    Image(ImageArgs),
    /// Print the ClusterRole that a run needs; nothing more is used.
    Rbac(RbacArgs),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ImageArgs {
    /// Where to.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct RbacArgs {
    /// For runs with --harmful.
    #[arg(long)]
    pub(crate) harmful: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Clean {
    /// A cluster to look into.
    #[arg(long, value_name = "FILE", env = "KUBECONFIG")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Only this run, even if it seems to be under way: the value of its label `touchstone/run`.
    #[arg(long, value_name = "TAG")]
    pub(crate) run: Option<String>,
}

/// What supplies clusters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProviderName {
    /// Real proxies in network namespaces of this machine.
    Lab,
    /// A cluster that kind starts for the run, and that is deleted afterwards.
    Kind,
    /// A cluster that runs already, of any making: see `touchstone cluster`.
    Cluster,
    /// A simulation that answers from the model.
    Sim,
}

/// Levels that can fail a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FailOn {
    /// What the API promises.
    Must,
    /// And what users expect.
    Should,
    /// And what a proxy may do.
    May,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct List {
    #[command(flatten)]
    pub(crate) cases: Cases,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Explain {
    /// A case id, one of its variants, or the path of a case file.
    #[arg(value_name = "CASE|FILE")]
    pub(crate) case: String,
    /// Only flows from this vantage, as a case writes it: `pod@n1`, `outside`. With --to any flow
    /// can be asked for, also one that the case does not have.
    #[arg(long, value_name = "VANTAGE")]
    pub(crate) from: Option<String>,
    /// Only flows to this target: `web nodePort@n1`, `web clusterIP:81/udp`.
    #[arg(long, value_name = "TARGET")]
    pub(crate) to: Option<String>,
    /// Only this step, from 1.
    #[arg(long, value_name = "N")]
    pub(crate) step: Option<usize>,
    /// A folder with more case files.
    #[arg(long, value_name = "DIR")]
    pub(crate) cases: Vec<PathBuf>,
}

impl Explain {
    /// Whether it asks for flows from one place to another, whether the case has them or not.
    pub(crate) fn is_question(&self) -> bool {
        self.from.is_some() && self.to.is_some()
    }
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Spec {
    /// Ids of behaviours, or globs: `affinity-*`.
    #[arg(value_name = "BEHAVIOUR")]
    pub(crate) patterns: Vec<String>,
    /// Only behaviours of this level. May be repeated.
    #[arg(long = "level", value_enum, value_name = "LEVEL")]
    pub(crate) levels: Vec<LevelName>,
    /// How it is written.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    pub(crate) format: Format,
    /// Show each behaviour with its cases and their verdicts in saved runs.
    #[arg(long)]
    pub(crate) coverage: bool,
    /// The folder of a saved run. May be repeated [default: touchstone-out/latest].
    #[arg(long = "run", value_name = "DIR", requires = "coverage")]
    pub(crate) runs: Vec<PathBuf>,
    /// List behaviours that have neither a case nor a reason for having none; ends with 1 when a
    /// must is among them.
    #[arg(long, conflicts_with = "coverage")]
    pub(crate) uncovered: bool,
    /// List those with a reason too.
    #[arg(long, requires = "uncovered")]
    pub(crate) all: bool,
    /// A folder with more case files.
    #[arg(long, value_name = "DIR")]
    pub(crate) cases: Vec<PathBuf>,
}

/// How the specification is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For a terminal.
    Text,
    /// Markdown.
    Markdown,
    /// JSON.
    Json,
}

/// How binding a behaviour is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LevelName {
    /// The API promises it, or every mode of the reference does it.
    Must,
    /// Users expect it.
    Should,
    /// A proxy may do it.
    May,
    /// Recorded, never judged.
    Survey,
}

impl LevelName {
    /// The level of that name.
    pub(crate) fn level(self) -> Level {
        match self {
            LevelName::Must => Level::Must,
            LevelName::Should => Level::Should,
            LevelName::May => Level::May,
            LevelName::Survey => Level::Survey,
        }
    }
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    pub(crate) subjects: Subjects,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ReportArgs {
    /// The folder of a run. Of several, such as of several kernels, the matrices are shown side by
    /// side with what kernels differ in.
    #[arg(value_name = "RUN", default_value = "touchstone-out/latest")]
    pub(crate) runs: Vec<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Lab {
    /// Start a cluster with the subject and keep it until Ctrl-C.
    Up(LabUp),
    /// Open a shell, or run a command, in a place of a running lab: n1, outside, ….
    Shell(LabShell),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct LabUp {
    #[command(flatten)]
    pub(crate) subjects: Subjects,
    /// Number of nodes.
    #[arg(long, default_value_t = 3, value_parser = at_least_one())]
    pub(crate) nodes: usize,
    /// With a name server, which is built first where it is not cached.
    #[arg(long)]
    pub(crate) dns: bool,
    #[command(flatten)]
    pub(crate) defects: Defects,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct LabShell {
    /// The place.
    pub(crate) place: String,
    /// A command instead of a shell.
    #[arg(last = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SubjectCommand {
    /// Find, download or build a subject's program and print its path.
    Fetch(Fetch),
    /// List the subjects with their modes and configurations.
    List,
    /// List the features that a subject's file may declare, with what each promises.
    Features,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Fetch {
    /// A subject, or `kubectl[@RELEASE]`, which the suite's own tests use, or `coredns[@RELEASE]`,
    /// which cases about names use, or `uml`, the kernel of `run --kernel uml`.
    #[arg(value_name = "SUBJECT")]
    pub(crate) subject: String,
    /// A folder with more subjects.
    #[arg(long = "subjects", value_name = "DIR")]
    pub(crate) folders: Vec<PathBuf>,
    /// The subject's program, instead of looking for it.
    #[arg(long, value_name = "PATH")]
    pub(crate) binary: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Schema {
    /// Of what.
    #[arg(value_enum)]
    pub(crate) of: SchemaOf,
}

/// What has a JSON Schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SchemaOf {
    /// Case files.
    Case,
    /// Subject files.
    Subject,
    /// Known-failures files.
    KnownFailures,
    /// `report.json`.
    Report,
}

/// A number of things of which none makes no sense.
fn at_least_one() -> clap::builder::RangedU64ValueParser<usize> {
    clap::builder::RangedU64ValueParser::new().range(1..)
}

impl Schema {
    pub(crate) fn text(&self) -> Result<String, Failed> {
        let failed = Failed::harness;
        match self.of {
            SchemaOf::Case => {
                serde_json::to_string_pretty(&touchstone_case::case_schema()).map_err(failed)
            }
            SchemaOf::Subject => {
                serde_json::to_string_pretty(&touchstone_subject::subject_schema()).map_err(failed)
            }
            SchemaOf::KnownFailures => {
                let schema = touchstone_subject::known_failures_schema();
                serde_json::to_string_pretty(&schema).map_err(failed)
            }
            SchemaOf::Report => {
                let schema = touchstone_report::report_schema();
                schema.map_err(Failed::harness)
            }
        }
    }
}
