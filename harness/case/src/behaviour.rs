//! The specification as data: what proxies do, how binding it is, and who says so.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use touchstone_spec::Level;

use crate::At;

/// One behaviour of `cases/behaviours.yaml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Behaviour {
    /// What is true of a proxy that has it, in one sentence.
    pub statement: String,
    /// How binding it is.
    pub level: Level,
    /// Why it is that binding.
    pub why: String,
    /// Kubernetes releases for which it holds, as a version requirement; every supported release
    /// when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub releases: Option<String>,
    /// API field, KEP, source or experiment that says so.
    pub source: String,
    /// Legitimate differences, by feature.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differs: Vec<Difference>,
    /// The test of the Kubernetes project that touches it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub e2e: Option<String>,
    /// Why no case covers it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uncovered: Option<String>,
}

/// A legitimate difference between implementations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Difference {
    /// The feature whose declaration tells the two apart.
    pub feature: At<String>,
    /// How they differ.
    pub how: String,
}

/// The file: behaviours by id.
pub(crate) type BehavioursText = BTreeMap<String, At<Behaviour>>;
