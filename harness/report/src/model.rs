//! What a report says.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use touchstone_record::{Failure, HostFacts, PlannedCase, StepTimes, SubjectRecord};
use touchstone_spec::{Excuse, Level, Verdict};

/// Version of the report's format.
pub const FORMAT: &str = "touchstone-report/1";

/// How many cases have which verdict; a verdict nobody has is left out.
pub type Counts = BTreeMap<Verdict, u64>;

/// Everything that is said about one run. All times are milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// `touchstone-report/1`.
    pub format: String,
    /// Exit code of the run, from 0 to 4, 130 or 143.
    pub exit_code: u8,
    /// Whether the log has its last line; without it the run was cut short.
    pub ended: bool,
    /// What was run on what; none when the log lacks its first line.
    pub run: Option<RunFacts>,
    /// Subjects, in the order asked for.
    pub subjects: Vec<SubjectRecord>,
    /// Cells of the plan, in order; each is run on every subject.
    pub plan: Vec<PlannedCase>,
    /// One result for each planned case on each subject, subject by subject in the plan's order,
    /// then results of cases that were not planned.
    pub results: Vec<CaseResult>,
    /// Totals, one per subject.
    pub totals: Vec<SubjectTotals>,
    /// Area by subject.
    pub matrix: Vec<AreaRow>,
    /// Figures of the whole run.
    pub figures: Figures,
    /// Clusters, in the order of their start.
    pub clusters: Vec<Cluster>,
    /// Proxy processes that ended.
    pub proxy_exits: Vec<ProxyExit>,
    /// Trouble of the harness itself.
    pub harness_errors: Vec<HarnessTrouble>,
    /// How the run was interrupted, if it was.
    pub interrupted: Option<Interruption>,
}

/// What was run, with what, where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunFacts {
    /// Name of the run.
    pub run: String,
    /// Wall-clock time at the start, RFC 3339, UTC.
    pub started: String,
    /// Version of touchstone.
    pub version: String,
    /// The command line.
    pub command: Vec<String>,
    /// Number that repeats the run's choices, in decimal; a string because not every reader of
    /// JSON keeps 64 bits.
    pub seed: String,
    /// Digest of the plan.
    pub digest: String,
    /// Supposed false alarms of the whole run, as a probability.
    pub false_alarm_rate: f64,
    /// The machine.
    pub host: HostFacts,
    /// What supplied the clusters: lab, sim, ….
    pub provider: String,
    /// Whether unexpected passes fail the run.
    pub strict: bool,
    /// The weakest level whose failures fail the run.
    pub fail_on: Level,
}

/// One case on one subject.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CaseResult {
    /// Subject as selected.
    pub subject: String,
    /// Case with its axes: `cluster-ip/basic[v4,tcp]`.
    pub case: String,
    /// Area.
    pub area: String,
    /// Level; `must` for a case outside the plan.
    pub level: Level,
    /// What it is about; empty for a case outside the plan.
    pub about: String,
    /// Whether the plan names it.
    pub planned: bool,
    /// The first attempt's verdict; `not-run` without one.
    pub verdict: Verdict,
    /// Whether attempts differ.
    pub flaky: bool,
    /// Why nothing was judged.
    pub excuse: Option<Excuse>,
    /// Sentence for verdicts other than pass.
    pub note: Option<String>,
    /// What was wrong at the first attempt.
    pub failures: Vec<Failure>,
    /// Start of the first attempt, since the start of the run.
    pub started_ms: Option<u64>,
    /// From the first attempt's start to its verdict.
    pub took_ms: u64,
    /// Of these, waiting for the proxy.
    pub waited_ms: u64,
    /// Probes sent at the first attempt.
    pub probes: u64,
    /// Cells judged at the first attempt.
    pub cells: u64,
    /// Cluster of the first attempt.
    pub cluster: Option<String>,
    /// Other cases that were running on that cluster at some time of it.
    pub beside: Vec<String>,
    /// Steps of the first attempt.
    pub steps: Vec<StepResult>,
    /// What was recorded without being judged.
    pub recorded: Vec<Recorded>,
    /// Every attempt, the first included.
    pub attempts: Vec<Attempt>,
}

/// Times of one step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StepResult {
    /// First step is 1.
    pub step: usize,
    /// Its times.
    pub times: StepTimes,
}

/// A cell whose answer is recorded and not judged, because implementations legitimately differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Recorded {
    /// First step is 1.
    pub step: usize,
    /// The flow as a case writes it.
    pub flow: String,
    /// What was seen, with counts.
    pub seen: Vec<String>,
}

/// One execution of a case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Attempt {
    /// First attempt is 1.
    pub attempt: u32,
    /// Verdict; none when the run ended before it.
    pub verdict: Option<Verdict>,
    /// Sentence for verdicts other than pass.
    pub note: Option<String>,
    /// What was wrong.
    pub failures: Vec<Failure>,
    /// From start to verdict.
    pub took_ms: u64,
    /// Of these, waiting for the proxy.
    pub waited_ms: u64,
    /// Probes sent.
    pub probes: u64,
}

/// Totals of one subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SubjectTotals {
    /// Subject as selected.
    pub subject: String,
    /// Results, those of cases outside the plan included.
    pub cases: u64,
    /// Per verdict.
    pub verdicts: Counts,
    /// Per level and verdict.
    pub levels: BTreeMap<Level, Counts>,
    /// Cases whose attempts differ.
    pub flaky: u64,
    /// From change to agreement.
    pub settling: Settling,
}

/// One row of the matrix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AreaRow {
    /// Area.
    pub area: String,
    /// One cell per subject, in the subjects' order.
    pub cells: Vec<MatrixCell>,
}

/// One area on one subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MatrixCell {
    /// Subject as selected.
    pub subject: String,
    /// Verdicts of the area's cases.
    pub verdicts: Counts,
}

/// How long subjects took to become right after a change, over all steps of first attempts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Settling {
    /// Every cell had been right at least once.
    pub first_right: Option<Quantiles>,
    /// All samples of all cells agreed.
    pub settled: Option<Quantiles>,
    /// Steps that never settled.
    pub unsettled: u64,
    /// Steps whose changes were made before the proxies served anything: their time says nothing.
    pub untimed: u64,
}

/// Quantiles of a sample by nearest rank, so that each was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Quantiles {
    /// Size of the sample.
    pub n: u64,
    /// Smallest.
    pub min: u64,
    /// Half are not larger.
    pub p50: u64,
    /// Nine in ten are not larger.
    pub p90: u64,
    /// Largest.
    pub max: u64,
}

/// Figures of the whole run. Sums over cases can exceed the total time, since cases run side by
/// side; they count every attempt.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Figures {
    /// From the run's start to the last event.
    pub total_ms: u64,
    /// Sum over cases, start to verdict.
    pub cases_ms: u64,
    /// Of these, waiting for the proxy.
    pub waited_ms: u64,
    /// Of these, the harness itself: all that is not waiting for the proxy.
    pub harness_ms: u64,
    /// Sum over steps of the harness's own sampling and controls.
    pub sampling_ms: u64,
    /// `harness_ms` over `cases_ms`, 0 to 1; none before a case ended.
    pub harness_share: Option<f64>,
    /// CPU time of the harness, user and system; none when the run was cut short.
    pub harness_cpu_ms: Option<u64>,
    /// CPU time of the proxies; none when the run was cut short.
    pub proxy_cpu_ms: Option<u64>,
    /// Probes sent.
    pub probes: u64,
    /// Cells judged.
    pub cells: u64,
    /// Cells that lost one answer and, asked many times again, no other; they count as right.
    #[serde(default)]
    pub strays: u64,
}

/// One cluster of the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cluster {
    /// Name within the run.
    pub cluster: String,
    /// Subject as selected.
    pub subject: String,
    /// Start, since the start of the run.
    pub starting_ms: Option<u64>,
    /// When it answered on every node and family, since the start of the run.
    pub ready_ms: Option<u64>,
    /// Parts of the start: `api`, `topology`, `proxy`, `canary`.
    pub took: BTreeMap<String, u64>,
    /// The proxy's whole configuration, per node.
    pub configuration: BTreeMap<String, String>,
    /// Remarks of its start, then of its end.
    pub remarks: Vec<String>,
}

/// A proxy process that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProxyExit {
    /// When, since the start of the run.
    pub at_ms: u64,
    /// Subject, where the cluster's start is in the log.
    pub subject: Option<String>,
    /// Cluster.
    pub cluster: String,
    /// Node.
    pub node: String,
    /// Exit status in words.
    pub status: String,
    /// Which exit by design it was; none for an unexpected one.
    pub by_design: Option<String>,
    /// The last lines of its log.
    pub last_lines: Vec<String>,
    /// When a proxy was started there again, since the start of the run.
    pub restarted_ms: Option<u64>,
}

/// Trouble of the harness itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HarnessTrouble {
    /// When, since the start of the run.
    pub at_ms: u64,
    /// What, and what to do about it.
    pub message: String,
}

/// An interruption of the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Interruption {
    /// When, since the start of the run.
    pub at_ms: u64,
    /// Signal: `SIGINT`, `SIGTERM`.
    pub signal: String,
}
