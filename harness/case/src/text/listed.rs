//! What a node's table of virtual servers has for a target.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `listed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "false, or what the virtual server is like")]
pub enum Listing {
    /// Whether there is a virtual server at all.
    There(bool),
    /// There is one, like this.
    Like(ListedText),
}

/// What a virtual server is like, and what else the node has for its address; what is left out is
/// not looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ListedText {
    /// Whether there is one; true when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub there: Option<bool>,
    /// Name of its scheduler.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<String>,
    /// For how many seconds a client keeps its real server; 0 for not at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persistent: Option<u32>,
    /// Exactly these are its real servers, with their weights: endpoints by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<BTreeMap<String, u32>>,
    /// Whether the node has the address for its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local: Option<bool>,
    /// After how many seconds the node forgets silent UDP flows of its virtual servers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp_timeout: Option<u32>,
    /// The same for silent TCP connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_timeout: Option<u32>,
    /// The same for TCP connections that one side has closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_fin_timeout: Option<u32>,
    /// Exactly these sets of the node have an entry for the target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sets: Option<BTreeSet<String>>,
}
