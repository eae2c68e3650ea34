//! Slices as authors write them out: what a controller would not do, or not in this way.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use touchstone_spec::Protocol;

use super::{Patch, Yes};
use crate::At;

/// `world.slicesBy`: who writes the slices of `world.endpoints`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SlicesBy {
    /// As the slice controller does: 100 endpoints each, after their Service, labels copied.
    #[default]
    Controller,
    /// The cluster's own controllers, for pods that they run: what no lab has.
    Cluster,
    /// As somebody who writes them by hand: one endpoint each, before their Service, and gone
    /// before it.
    Hand,
}

/// A slice as it is; no defaulting, no validation.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SliceText {
    /// Service that its label names; null or left out for no such label.
    #[serde(skip_serializing_if = "Patch::is_keep")]
    pub service: Patch<String>,
    /// `IPv4`, `IPv6`, `FQDN`, or `$other` for the family that the variant is not about. Left
    /// out: one slice for each family of the variant.
    #[serde(skip_serializing_if = "Patch::is_keep")]
    pub address_type: Patch<At<String>>,
    /// Ports.
    #[serde(skip_serializing_if = "Patch::is_keep")]
    pub ports: Patch<Vec<SlicePortText>>,
    /// Endpoints.
    #[serde(skip_serializing_if = "Patch::is_keep")]
    pub endpoints: Patch<Vec<SliceEndpointText>>,
    /// Labels besides that of the Service.
    #[serde(skip_serializing_if = "Patch::is_keep")]
    pub labels: Patch<BTreeMap<String, String>>,
    /// Annotations.
    #[serde(skip_serializing_if = "Patch::is_keep")]
    pub annotations: Patch<BTreeMap<String, String>>,
}

impl SliceText {
    /// Applies a later text over this one, field by field.
    pub(crate) fn merge(&mut self, later: &SliceText) {
        let SliceText { service, address_type, ports, endpoints, labels, annotations } = later;
        self.service.merge(service);
        self.address_type.merge(address_type);
        self.ports.merge(ports);
        self.endpoints.merge(endpoints);
        self.labels.merge(labels);
        self.annotations.merge(annotations);
    }
}

/// A port of a slice.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SlicePortText {
    /// Name; empty when left out, absent in the slice when null.
    #[serde(skip_serializing_if = "Patch::is_keep")]
    pub name: Patch<String>,
    /// `TCP`, `UDP`, `SCTP`; the protocol axis when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Number; absent in the slice when null or left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// An endpoint of a slice.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SliceEndpointText {
    /// Addresses: `$web/a` for that of an endpoint, `$web/a/other` for that of its other family,
    /// `$web/a/zeros` for the same written with leading zeros; anything else as it is.
    pub addresses: Vec<At<String>>,
    /// Node; absent when null or left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_name: Option<At<String>>,
    /// Zone, which no proxy reads; absent when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Conditions; those of a pod that is ready when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conditions: Option<ConditionsText>,
    /// Topology hints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hints: Option<HintsText>,
}

/// Conditions of an endpoint; absent where left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ConditionsText {
    /// Takes new connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<bool>,
    /// Passes its readiness check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serving: Option<bool>,
    /// Is being deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminating: Option<bool>,
}

/// Names of zones and nodes in hints.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HintsText {
    /// Zones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub for_zones: Vec<HintText>,
    /// Nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub for_nodes: Vec<HintText>,
}

/// A zone or node of a hint: its name alone, or as the API writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a name, or { name: … }")]
pub enum HintText {
    /// `z1`.
    Name(String),
    /// `{ name: z1 }`.
    Full {
        /// Its name.
        name: String,
    },
}

/// `{ slice: extra, set | delete | create }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SliceChange {
    /// Name in `world.slices`.
    pub slice: At<String>,
    /// Fields to change; null sets a field back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<SliceText>,
    /// Delete it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete: Option<Yes>,
    /// The slice to create.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub create: Option<SliceText>,
}
