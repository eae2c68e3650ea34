//! What the answer of an HTTP server must show.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::At;

/// `shows`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ShowsText {
    /// Status code; 200 when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Headers: a value, `$any` for any, null for none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub header: BTreeMap<String, Value>,
    /// Values of a JSON body by the names on the way to them, with dots between: a value, `$ns`
    /// for the namespace of the case, `$any` for any, null for none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub json: BTreeMap<String, Value>,
    /// The whole body without white space around it; `$mode` for the name of the subject's mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// A metric: the sum of the samples of this name with these labels,
    /// `name{label="value"}`; with `is`, `atLeast` or `grows`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric: Option<At<String>>,
    /// The metric is this number; null: there is none.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "even_null")]
    pub is: Option<Value>,
    /// The metric is this number or more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_least: Option<Value>,
    /// The metric is more than an earlier step saw, or more by this number exactly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grows: Option<Grows>,
}

/// `grows`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "true, or the number by which the metric grows")]
pub enum Grows {
    /// True: by any number. False: not at all.
    Somehow(bool),
    /// By this number.
    By(u32),
}

/// Null is a value here.
fn even_null<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}
