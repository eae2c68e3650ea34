//! Slices that a case writes out itself.

use std::collections::BTreeMap;
use std::net::IpAddr;

use touchstone_spec::Family;
use touchstone_spec::api::{
    Conditions, Endpoint, EndpointPort, EndpointSlice, HintFor, Hints, Meta, SERVICE_NAME_LABEL,
};

use crate::objects::Context;
use crate::state::{State, no_endpoint};
use crate::text::{ConditionsText, FamilyAxis, HintText, Patch, SliceEndpointText, SliceText};
use crate::{At, CaseError};

impl Context<'_> {
    /// The objects of one slice of `world.slices`.
    pub(crate) fn raw_slices(
        &self,
        state: &State,
        name: &str,
        text: &At<SliceText>,
    ) -> Result<Vec<EndpointSlice>, CaseError> {
        let mut slices = Vec::new();
        match text.value.address_type.get() {
            None => {
                for family in self.family.families() {
                    let name = format!("{name}-{family}");
                    slices.push(self.raw_slice(state, name, text, family.api_name(), *family)?);
                }
            }
            Some(At { value: word, place }) => {
                let (word, family) = match (word.as_str(), self.family) {
                    ("IPv4", _) => ("IPv4", Family::V4),
                    ("IPv6", _) => ("IPv6", Family::V6),
                    ("$other", FamilyAxis::V4) => (Family::V6.api_name(), Family::V6),
                    ("$other", FamilyAxis::V6) => (Family::V4.api_name(), Family::V4),
                    ("$other", FamilyAxis::Dual) => {
                        let message = "a variant of both families has no other one";
                        return Err(self.wrong(*place, message));
                    }
                    (word, FamilyAxis::V4 | FamilyAxis::Dual) => (word, Family::V4),
                    (word, FamilyAxis::V6) => (word, Family::V6),
                };
                slices.push(self.raw_slice(state, name.to_owned(), text, word, family)?);
            }
        }
        Ok(slices)
    }

    fn raw_slice(
        &self,
        state: &State,
        name: String,
        text: &At<SliceText>,
        address_type: &str,
        family: Family,
    ) -> Result<EndpointSlice, CaseError> {
        let text = &text.value;
        let mut labels = text.labels.get().cloned().unwrap_or_default();
        if let Some(service) = text.service.get() {
            labels.insert(SERVICE_NAME_LABEL.to_owned(), service.clone());
        }
        let ports = text.ports.get().map(Vec::as_slice).unwrap_or_default();
        let mut endpoints = Vec::new();
        for endpoint in text.endpoints.get().map(Vec::as_slice).unwrap_or_default() {
            endpoints.push(self.raw_endpoint(state, endpoint, family)?);
        }
        Ok(EndpointSlice {
            metadata: Meta {
                name,
                namespace: self.namespace.clone(),
                labels,
                annotations: text.annotations.get().cloned().unwrap_or_default(),
            },
            address_type: address_type.to_owned(),
            ports: ports
                .iter()
                .map(|port| EndpointPort {
                    name: match &port.name {
                        Patch::Keep => Some(String::new()),
                        Patch::Remove => None,
                        Patch::Set(name) => Some(name.clone()),
                    },
                    protocol: port.protocol.unwrap_or(self.protocol),
                    port: port.port,
                })
                .collect(),
            endpoints,
        })
    }

    fn raw_endpoint(
        &self,
        state: &State,
        text: &SliceEndpointText,
        family: Family,
    ) -> Result<Endpoint, CaseError> {
        let mut addresses = Vec::new();
        for word in &text.addresses {
            addresses.push(self.raw_address(state, word, family)?);
        }
        // Not every proxy takes what is not said for ready: that is for one case to show.
        let conditions = text.conditions.unwrap_or(ConditionsText {
            ready: Some(true),
            serving: Some(true),
            terminating: Some(false),
        });
        let hint = |hint: &HintText| match hint {
            HintText::Name(name) | HintText::Full { name } => HintFor { name: name.clone() },
        };
        Ok(Endpoint {
            addresses,
            node_name: text.node_name.as_ref().map(|node| node.value.clone()),
            zone: text.zone.clone(),
            conditions: Conditions {
                ready: conditions.ready,
                serving: conditions.serving,
                terminating: conditions.terminating,
            },
            hints: text.hints.as_ref().map(|hints| Hints {
                for_zones: hints.for_zones.iter().map(hint).collect(),
                for_nodes: hints.for_nodes.iter().map(hint).collect(),
            }),
            hostname: None,
        })
    }

    /// What an address of a raw slice stands for.
    fn raw_address(
        &self,
        state: &State,
        word: &At<String>,
        family: Family,
    ) -> Result<String, CaseError> {
        let At { value, place } = word;
        let Some(named) = value.strip_prefix('$') else {
            return Ok(value.clone());
        };
        let parts: Vec<&str> = named.split('/').collect();
        let (service, name, how) = match parts.as_slice() {
            [service, name] => (*service, *name, ""),
            [service, name, how @ ("other" | "zeros")] => (*service, *name, *how),
            _ => {
                return Err(self.wrong(*place, format!("`{value}` names no endpoint")).help(
                    "write `$web/a`, `$web/a/other` or `$web/a/zeros`, or an address as it is",
                ));
            }
        };
        let Some(text) = state.find(service, name) else {
            let known = state.endpoints.get(service).cloned().unwrap_or_default();
            return Err(no_endpoint(self.source, *place, service, name, &known));
        };
        let family = match (how, family) {
            ("other", Family::V4) => Family::V6,
            ("other", Family::V6) => Family::V4,
            (_, family) => family,
        };
        let address = self.endpoint_address(state, service, name, text, family)?;
        Ok(if how == "zeros" { with_zeros(address) } else { address.to_string() })
    }
}

/// An address in its longest form: `010.001.000.012`, or eight groups of four digits.
fn with_zeros(address: IpAddr) -> String {
    match address {
        IpAddr::V4(ip) => ip.octets().map(|octet| format!("{octet:03}")).join("."),
        IpAddr::V6(ip) => ip.segments().map(|group| format!("{group:04x}")).join(":"),
    }
}

/// The names of slices, so that a change can say what it may have meant.
pub(crate) fn names(slices: &BTreeMap<String, At<SliceText>>) -> impl Iterator<Item = &str> {
    slices.keys().map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longest_forms() {
        let show = |text: &str| text.parse().map(with_zeros).unwrap_or_default();
        assert_eq!(show("10.1.0.12"), "010.001.000.012");
        assert_eq!(show("fd00::a"), "fd00:0000:0000:0000:0000:0000:0000:000a");
    }
}
