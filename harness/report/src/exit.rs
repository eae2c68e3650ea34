//! How a run ends for whoever started it.

use touchstone_spec::{Level, Verdict};

use crate::{CaseResult, Report};

/// What the process that ran the plan says at its end.
///
/// `touchstone spec --uncovered`, which runs nothing, ends with 1 as well when a `must` has
/// neither a case nor a reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExitCode {
    /// The plan is complete, and nothing counts against a subject.
    Clean,
    /// A case failed that must not, or, in a strict run, passed although listed as failing.
    Conformance,
    /// A required case could not be judged.
    Inconclusive,
    /// Trouble of the harness or the lab.
    Harness,
    /// Nothing, or less than planned, ran.
    PlanMismatch,
    /// Interrupted from the keyboard, or by a signal other than SIGTERM.
    Interrupted,
    /// Asked to end by SIGTERM.
    Terminated,
}

impl ExitCode {
    /// The number.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            ExitCode::Clean => 0,
            ExitCode::Conformance => 1,
            ExitCode::Inconclusive => 2,
            ExitCode::Harness => 3,
            ExitCode::PlanMismatch => 4,
            ExitCode::Interrupted => 130,
            ExitCode::Terminated => 143,
        }
    }

    /// The meaning, as a phrase.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            ExitCode::Clean => "plan complete, and nothing failed that must not",
            ExitCode::Conformance => "conformance failure",
            ExitCode::Inconclusive => "required cases inconclusive",
            ExitCode::Harness => "harness or lab error",
            ExitCode::PlanMismatch => "nothing, or less than was planned, ran",
            ExitCode::Interrupted => "interrupted, the report is partial",
            ExitCode::Terminated => "terminated, the report is partial",
        }
    }
}

/// The exit code of a run: the first that applies of interrupted, harness error, plan mismatch,
/// conformance failure, inconclusive.
///
/// A log without its last line, an empty plan, and a subject on which every case is unsupported
/// are plan mismatches: none of them may look green. What every run has besides its cases, such as
/// that no proxy ended, passes without a probe and makes nothing green either.
#[must_use]
pub fn exit_code(report: &Report) -> ExitCode {
    if let Some(interruption) = &report.interrupted {
        return match interruption.signal.as_str() {
            "SIGTERM" | "TERM" | "15" => ExitCode::Terminated,
            _ => ExitCode::Interrupted,
        };
    }
    let any = |what: &dyn Fn(&CaseResult) -> bool| report.results.iter().any(what);
    if !report.harness_errors.is_empty() || any(&|r| r.verdict == Verdict::Error) {
        return ExitCode::Harness;
    }
    let Some(run) = &report.run else {
        return ExitCode::PlanMismatch;
    };
    let something_ran_on = |subject: &str| {
        any(&|r| {
            let idle = r.verdict == Verdict::Pass && r.probes == 0 && r.cells == 0;
            r.planned && r.subject == subject && r.verdict != Verdict::Unsupported && !idle
        })
    };
    if !report.ended
        || report.plan.is_empty()
        || report.subjects.is_empty()
        || any(&|r| r.verdict == Verdict::NotRun)
        || !report.subjects.iter().all(|subject| something_ran_on(&subject.id))
    {
        return ExitCode::PlanMismatch;
    }
    let counts = |r: &CaseResult| match r.verdict {
        Verdict::Fail => r.level == Level::Must || r.level <= run.fail_on,
        Verdict::UnexpectedPass => run.strict,
        Verdict::Pass
        | Verdict::Survey
        | Verdict::Unsupported
        | Verdict::KnownFailure
        | Verdict::Inconclusive
        | Verdict::NotRun
        | Verdict::Error => false,
    };
    if any(&counts) {
        return ExitCode::Conformance;
    }
    if any(&|r| r.verdict == Verdict::Inconclusive && r.level == Level::Must) {
        return ExitCode::Inconclusive;
    }
    ExitCode::Clean
}
