//! Everything that can happen in a run.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use touchstone_spec::{Excuse, Expectation, Level, Observation, Verdict};

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunEvent {
    /// Milliseconds since the start of the run, by a monotonic clock.
    pub at: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The first line: what is planned, on what, with what.
    RunStarted {
        /// Format version of the log.
        format: String,
        /// Name of the run.
        run: String,
        /// Wall-clock time at the start, RFC 3339, UTC.
        started: String,
        /// Version of touchstone.
        version: String,
        /// The command line.
        command: Vec<String>,
        /// Number that repeats the run's choices.
        seed: u64,
        /// Subjects, in the order asked for.
        subjects: Vec<SubjectRecord>,
        /// Cells of the plan, in order; each is run on every subject.
        plan: Vec<PlannedCase>,
        /// Digest of the plan.
        digest: String,
        /// Supposed false alarms of the whole run, as a probability.
        false_alarm_rate: f64,
        /// The machine.
        host: HostFacts,
        /// What supplies clusters: lab, sim, ….
        provider: String,
        /// Whether unexpected passes fail the run.
        strict: bool,
        /// The weakest level whose failures fail the run.
        fail_on: Level,
    },
    /// A cluster is being started.
    ClusterStarting {
        /// Name of the cluster within the run.
        cluster: String,
        /// Subject.
        subject: String,
    },
    /// A cluster answers on every node and family.
    ClusterReady {
        /// Name of the cluster within the run.
        cluster: String,
        /// Subject.
        subject: String,
        /// Milliseconds of each part: `api`, `topology`, `proxy`, `canary`.
        took: BTreeMap<String, u64>,
        /// The proxy's whole configuration, per node.
        configuration: BTreeMap<String, String>,
        /// Remarks, such as kernel settings that are missing here.
        remarks: Vec<String>,
    },
    /// A cluster was taken down.
    ClusterClosed {
        /// Name of the cluster within the run.
        cluster: String,
        /// What was left behind or failed meanwhile.
        remarks: Vec<String>,
    },
    /// A proxy process ended.
    ProxyExited {
        /// Cluster.
        cluster: String,
        /// Node.
        node: String,
        /// Exit status in words.
        status: String,
        /// Which exit by design it was, if any; otherwise unexpected.
        by_design: Option<ExitByDesign>,
        /// The last lines of its log.
        last_lines: Vec<String>,
    },
    /// A proxy process was started again.
    ProxyRestarted {
        /// Cluster.
        cluster: String,
        /// Node.
        node: String,
    },
    /// A case starts.
    CaseStarted {
        /// Subject.
        subject: String,
        /// Case with its axes.
        case: String,
        /// First attempt is 1.
        attempt: u32,
        /// Cluster it runs on.
        cluster: String,
    },
    /// What a case waits for right now.
    Waiting {
        /// Subject.
        subject: String,
        /// Case with its axes.
        case: String,
        /// Sentence.
        what: String,
    },
    /// A cell was judged.
    CellJudged(CellRecord),
    /// A step came to its end.
    StepEnded {
        /// Subject.
        subject: String,
        /// Case with its axes.
        case: String,
        /// Attempt.
        attempt: u32,
        /// First step is 1.
        step: usize,
        /// Times of its settling.
        times: StepTimes,
    },
    /// A case has its verdict.
    CaseEnded(Ended),
    /// The run was interrupted.
    Interrupted {
        /// Signal.
        signal: String,
    },
    /// Trouble of the harness itself.
    HarnessError {
        /// What, and what to do about it.
        message: String,
    },
    /// The last line.
    RunEnded {
        /// Milliseconds of CPU time used by the harness, user and system.
        harness_cpu_ms: u64,
        /// Milliseconds of CPU time used by the proxies.
        proxy_cpu_ms: u64,
    },
}

impl Event {
    /// Whether it says how a run ended, so that nothing has to be added to a log with it.
    #[must_use]
    pub fn ends_a_run(&self) -> bool {
        matches!(
            self,
            Event::RunEnded { .. } | Event::Interrupted { .. } | Event::HarnessError { .. }
        )
    }
}

/// A subject at one version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SubjectRecord {
    /// As selected: `kube-proxy:nftables@v1.37.2`.
    pub id: String,
    /// Name.
    pub name: String,
    /// Mode.
    pub mode: String,
    /// Release.
    pub release: Option<String>,
    /// Named configuration.
    pub configuration: String,
    /// SHA-256 of the binary.
    pub digest: Option<String>,
    /// Where the binary was found.
    pub found: String,
    /// Features it declares.
    pub features: Vec<String>,
    /// Whether its file was written from documentation and nobody has run it yet.
    #[serde(default)]
    pub untested: bool,
}

/// One cell of the plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlannedCase {
    /// Case with its axes: `cluster-ip/basic[v4,tcp]`.
    pub case: String,
    /// Area.
    pub area: String,
    /// Level.
    pub level: Level,
    /// Behaviours it covers.
    pub covers: Vec<String>,
    /// What it is about.
    pub about: String,
}

/// The machine of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HostFacts {
    /// Kernel release.
    pub kernel: String,
    /// Architecture.
    pub arch: String,
    /// Number of CPUs.
    pub cpus: usize,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Whether the lab ran in a user namespace.
    pub user_namespace: bool,
    /// Options of the kernel on which Services may depend, without `CONFIG_` and with `=m` for
    /// modules; empty where it does not tell them.
    #[serde(default)]
    pub options: Vec<String>,
    /// What the kernel is, where it is not the machine's own.
    #[serde(default)]
    pub second_kernel: Option<SecondKernel>,
}

/// A kernel that ran as a program of the machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SecondKernel {
    /// Release of the machine's own kernel.
    pub machine: String,
    /// SHA-256 of the program.
    pub digest: String,
    /// Where it was found.
    pub found: String,
    /// How many of it there were, each on a CPU of its own with a part of the plan.
    #[serde(default = "one")]
    pub copies: usize,
}

/// What a log says that is older than several of them.
fn one() -> usize {
    1
}

/// Why a proxy is expected to end by itself and be started again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitByDesign {
    /// Name from the subject's file.
    pub name: String,
}

/// What one outcome was seen how often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// What was seen.
    pub saw: Observation,
    /// How often.
    pub count: u64,
}

/// Part of a step in which something was seen.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum PhaseKind {
    /// Becoming right.
    Settle,
    /// Staying right.
    Hold,
    /// Traffic through the change.
    Traffic,
    /// Past the proxy.
    Control,
}

/// One flow at one step: what was allowed, what was seen, what follows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CellRecord {
    /// Subject.
    pub subject: String,
    /// Case with its axes.
    pub case: String,
    /// Attempt.
    pub attempt: u32,
    /// First step is 1.
    pub step: usize,
    /// The flow as a case writes it.
    pub flow: String,
    /// Destination and protocol.
    pub to: String,
    /// Line of the case file that pins it; none for the model's matrix.
    pub line: Option<usize>,
    /// When it was seen.
    pub phase: PhaseKind,
    /// What was allowed; the settle phase also allows what was right before the change.
    pub expectation: Expectation,
    /// What was seen since the cell was last settled, in order of first sight.
    pub seen: Vec<Tally>,
    /// Milliseconds after the change of the first right answer.
    pub first_right: Option<u64>,
    /// Milliseconds after the change of the last wrong answer.
    pub last_wrong: Option<u64>,
    /// Whether it counts as right.
    pub agrees: bool,
}

/// Times of a step, in milliseconds after its change.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct StepTimes {
    /// Every cell had been right at least once.
    pub first_right: Option<u64>,
    /// The last wrong answer of any cell.
    pub last_wrong: Option<u64>,
    /// Every cell was right when it was looked at.
    pub settled: Option<u64>,
    /// The changes were made before the proxies served anything, so nothing was timed.
    #[serde(default)]
    pub early: bool,
    /// The step's end, hold included.
    pub ended: u64,
    /// Time spent in the harness's own sampling and controls, apart from waiting for the proxy.
    pub harness: u64,
    /// First-right and last-wrong per node that handled the packets.
    #[serde(default)]
    pub nodes: BTreeMap<String, (Option<u64>, Option<u64>)>,
    /// Probes sent.
    pub probes: u64,
    /// Cells that lost one answer and, asked many times again, no other.
    #[serde(default)]
    pub strays: u64,
    /// How late the harness itself was at worst, in milliseconds.
    #[serde(default)]
    pub late: u64,
}

/// One thing that was wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Failure {
    /// First step is 1; 0 for what concerns the whole case.
    pub step: usize,
    /// Milliseconds since the case started, at the first disagreement.
    pub at_ms: u64,
    /// The flow as a case writes it, or the invariant that broke.
    pub flow: String,
    /// Line of the case file that pins it.
    pub line: Option<usize>,
    /// What was allowed.
    pub allowed: Vec<String>,
    /// Why: sentences with their source.
    pub because: Vec<String>,
    /// What was seen, with counts.
    pub seen: Vec<String>,
    /// Which part of the step.
    pub phase: Option<PhaseKind>,
    /// The proxy's rules for that frontend.
    pub rules: Vec<String>,
    /// Further evidence, such as where packets ended.
    pub evidence: Vec<String>,
}

/// A case's end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// Subject.
    pub subject: String,
    /// Case with its axes.
    pub case: String,
    /// Attempt; the first decides, others only add `flaky`.
    pub attempt: u32,
    /// Verdict.
    pub verdict: Verdict,
    /// Why nothing was judged.
    pub excuse: Option<Excuse>,
    /// Sentence for verdicts other than pass: the known failure's reason, the broken control, ….
    pub note: Option<String>,
    /// What was wrong.
    pub failures: Vec<Failure>,
    /// Milliseconds from start to verdict.
    pub took: u64,
    /// Of these, waiting for the proxy.
    pub waited: u64,
    /// Probes sent.
    pub probes: u64,
    /// Other cases that were running on the cluster at some time of it.
    pub beside: Vec<String>,
}

impl Ended {
    /// The end of a first attempt of which there is nothing to tell but the verdict.
    #[must_use]
    pub fn with(subject: &str, case: &str, verdict: Verdict) -> Ended {
        Ended {
            subject: subject.to_owned(),
            case: case.to_owned(),
            attempt: 1,
            verdict,
            excuse: None,
            note: None,
            failures: vec![],
            took: 0,
            waited: 0,
            probes: 0,
            beside: vec![],
        }
    }
}
