//! Changes: the first key says what is changed.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, DeserializeSeed, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use touchstone_spec::ProxyWish;

use super::{EndpointText, EndpointsText, Patch, ServiceText, SliceChange, Yes};
use crate::At;

/// A change; its first key says what is changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum ChangeText {
    /// An endpoint.
    Endpoint(Box<EndpointChange>),
    /// A Service.
    Service(Box<ServiceChange>),
    /// All slices of a Service.
    Slices(SlicesChange),
    /// A slice that is written out.
    Slice(Box<SliceChange>),
    /// A node.
    Node(NodeChange),
    /// A proxy.
    Proxy(Box<ProxyChange>),
    /// A virtual server that is somebody else's doing.
    VirtualServer(VirtualServerChange),
}

impl ChangeText {
    /// Whether it changes what a proxy has made, and nothing that the proxy reads.
    pub(crate) fn is_damage(&self) -> bool {
        matches!(self, ChangeText::VirtualServer(_))
    }
}

/// `{ endpoint: web/a, set | add | remove }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EndpointChange {
    /// `SERVICE/ENDPOINT`.
    pub endpoint: At<String>,
    /// Fields to change; null sets a field back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<EndpointText>,
    /// The endpoint to add.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub add: Option<EndpointText>,
    /// Remove it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remove: Option<Yes>,
}

/// `{ service: web, set | delete | create + endpoints }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceChange {
    /// Name.
    pub service: At<String>,
    /// Fields to change; null removes a field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<ServiceText>,
    /// Delete it, and its slices after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete: Option<Yes>,
    /// The Service to create.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub create: Option<ServiceText>,
    /// Endpoints of the Service that is created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<EndpointsText>,
}

/// `{ slices: web, delete: true }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SlicesChange {
    /// Service.
    pub slices: At<String>,
    /// Delete them.
    pub delete: Yes,
}

/// `{ node: n1, set: { zone: z2 } }`, `{ node: n1, firewall: reload }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeChange {
    /// Name.
    pub node: At<String>,
    /// What to set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<NodeText>,
    /// What becomes of the rules that others have in its firewall.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firewall: Option<FirewallChange>,
}

/// What becomes of the rules that others have in a node's firewall.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FirewallChange {
    /// They are taken away and loaded again.
    Reload,
}

/// Taint of a node that is cordoned.
const CORDONED: &str = "node.kubernetes.io/unschedulable";

/// What can be set on a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeText {
    /// Zone; null removes the label.
    #[serde(default, skip_serializing_if = "Patch::is_keep")]
    pub zone: Patch<String>,
    /// Other labels; null removes one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, Option<String>>,
    /// Whether it is cordoned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unschedulable: Option<bool>,
    /// Keys of all its taints; their effect is `NoSchedule`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taints: Option<Vec<String>>,
    /// Its condition `Ready`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<bool>,
}

impl NodeText {
    /// Whether nothing but the zone is set, which a real cluster's Node keeps as well.
    pub(crate) fn is_zone_alone(&self) -> bool {
        let NodeText { zone: _, labels, unschedulable, taints, ready } = self;
        labels.is_empty() && unschedulable.is_none() && taints.is_none() && ready.is_none()
    }

    /// Whether it is cordoned, as `kubectl cordon` does, or no longer, and nothing else but the zone
    /// is set: controllers of a real cluster taint such a node by themselves.
    pub(crate) fn is_cordon_alone(&self) -> bool {
        let NodeText { zone: _, labels, unschedulable, taints, ready } = self;
        let taint = [CORDONED.to_owned()];
        let own: &[String] = if *unschedulable == Some(true) { &taint } else { &[] };
        labels.is_empty()
            && ready.is_none()
            && unschedulable.is_some()
            && taints.as_deref().is_some_and(|taints| taints == own)
    }
}

/// `{ proxy: n1, restart | stop | start: true }`, `{ proxy: n1, refuses: { scheduler: none } }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProxyChange {
    /// Node of the proxy.
    pub proxy: At<String>,
    /// Stop it and start it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<Yes>,
    /// Stop it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<Yes>,
    /// Start it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Yes>,
    /// Settings with which it must end by itself when it is started; afterwards it is started with
    /// its own again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refuses: Option<ProxyWish>,
}

/// `{ virtualServer: web clusterIP:81, on: n1, add | remove: true }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct VirtualServerChange {
    /// A target with an address and a port.
    pub virtual_server: At<String>,
    /// The node in whose kernel it is.
    pub on: At<String>,
    /// Somebody else makes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub add: Option<Yes>,
    /// Somebody else removes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remove: Option<Yes>,
}

const CHANGES: &[&str] =
    &["endpoint", "service", "slices", "slice", "node", "proxy", "virtualServer"];

impl<'de> Deserialize<'de> for ChangeText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FirstKey;
        impl<'de> Visitor<'de> for FirstKey {
            type Value = ChangeText;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a change that begins with one of {}", CHANGES.join(", "))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ChangeText, A::Error> {
                let Some(first) = map.next_key::<String>()? else {
                    return Err(de::Error::invalid_length(0, &self));
                };
                let which = first.clone();
                let rest = MapAccessDeserializer::new(Again { first: Some(first), map });
                match which.as_str() {
                    "endpoint" => {
                        EndpointChange::deserialize(rest).map(Box::new).map(ChangeText::Endpoint)
                    }
                    "service" => {
                        ServiceChange::deserialize(rest).map(Box::new).map(ChangeText::Service)
                    }
                    "slices" => SlicesChange::deserialize(rest).map(ChangeText::Slices),
                    "slice" => SliceChange::deserialize(rest).map(Box::new).map(ChangeText::Slice),
                    "node" => NodeChange::deserialize(rest).map(ChangeText::Node),
                    "proxy" => ProxyChange::deserialize(rest).map(Box::new).map(ChangeText::Proxy),
                    "virtualServer" => {
                        VirtualServerChange::deserialize(rest).map(ChangeText::VirtualServer)
                    }
                    other => Err(de::Error::unknown_field(other, CHANGES)),
                }
            }
        }
        deserializer.deserialize_map(FirstKey)
    }
}

/// A map whose first key was taken and is given again.
struct Again<A> {
    first: Option<String>,
    map: A,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Again<A> {
    type Error = A::Error;
    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        match self.first.take() {
            Some(first) => seed.deserialize(first.into_deserializer()).map(Some),
            None => self.map.next_key_seed(seed),
        }
    }
    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}
