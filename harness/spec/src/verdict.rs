//! Levels, verdicts and excuses.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Feature;

/// How binding a behaviour is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The API promises it, or every mode of the reference does it.
    Must,
    /// Users expect it; a proxy may have a reason not to.
    Should,
    /// A proxy may do it.
    May,
    /// Recorded, never judged.
    Survey,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Must => "must",
            Level::Should => "should",
            Level::May => "may",
            Level::Survey => "survey",
        })
    }
}

/// What was decided about one case on one subject.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Everything required was seen, budgets kept, invariants clean.
    Pass,
    /// Recorded, never judged.
    Survey,
    /// The subject declared that it lacks a feature, or the host lacks what the case needs.
    Unsupported,
    /// Failed as listed in the subject's known failures.
    KnownFailure,
    /// Listed as a known failure, but passed.
    UnexpectedPass,
    /// A control failed, too few samples, or out of time for a reason of the harness.
    Inconclusive,
    /// Planned, but without a result.
    NotRun,
    /// An outcome outside the allowed set, or a budget or invariant broken.
    Fail,
    /// Trouble of the harness, the lab or the API.
    Error,
}

impl Verdict {
    /// Every verdict, in the order reports show them.
    pub const ALL: [Verdict; 9] = [
        Verdict::Pass,
        Verdict::Survey,
        Verdict::Unsupported,
        Verdict::KnownFailure,
        Verdict::UnexpectedPass,
        Verdict::Inconclusive,
        Verdict::NotRun,
        Verdict::Fail,
        Verdict::Error,
    ];
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Pass => "pass",
            Verdict::Survey => "survey",
            Verdict::Unsupported => "unsupported",
            Verdict::KnownFailure => "known-failure",
            Verdict::UnexpectedPass => "unexpected-pass",
            Verdict::Inconclusive => "inconclusive",
            Verdict::NotRun => "not-run",
            Verdict::Fail => "fail",
            Verdict::Error => "error",
        })
    }
}

/// Why nothing was judged.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Excuse {
    /// The subject does not declare this feature.
    LacksFeature(Feature),
    /// The host or the provider lacks this.
    HostLacks(String),
}

impl fmt::Display for Excuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Excuse::LacksFeature(feature) => write!(f, "the subject lacks the feature {feature}"),
            Excuse::HostLacks(what) => write!(f, "host-lacks: {what}"),
        }
    }
}

/// What a subject says of a case that it lists as a known failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// Why it fails.
    pub reason: String,
    /// Whether it fails only at times, so that a pass says nothing against the entry.
    pub intermittent: bool,
}
