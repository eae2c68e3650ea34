//! Defaulting and validation of EndpointSlices.

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::allocate::Family;
use crate::fields;
use crate::kinds::NameRule;
use crate::names;
use crate::status::Cause;

const MOST_ENDPOINTS: usize = 1000;
const MOST_ADDRESSES: usize = 100;
const MOST_PORTS: usize = 20_000;

/// Fills what Kubernetes fills: protocol and name of each port.
pub(crate) fn default(slice: &mut Value) {
    for port in fields::list_mut(slice, "ports").iter_mut().filter(|port| port.is_object()) {
        fields::default(port, "protocol", "TCP");
        fields::default(port, "name", "");
    }
    if fields::at(slice, "endpoints").is_none() {
        fields::set(slice, "endpoints", json!([]));
    }
}

/// The rules a slice breaks.
pub(crate) fn validate(slice: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let family = address_type(slice, old, &mut causes);
    let endpoints = fields::list(slice, "endpoints");
    if endpoints.len() > MOST_ENDPOINTS {
        causes.push(Cause::too_many("endpoints", endpoints.len(), MOST_ENDPOINTS));
    }
    for (at, endpoint) in endpoints.iter().enumerate() {
        let addresses = fields::texts(endpoint, "addresses");
        let field = format!("endpoints[{at}].addresses");
        if addresses.is_empty() {
            causes.push(Cause::required(&field, "must contain at least 1 endpoint"));
        }
        if addresses.len() > MOST_ADDRESSES {
            causes.push(Cause::too_many(&field, addresses.len(), MOST_ADDRESSES));
        }
        for (nth, address) in addresses.iter().enumerate() {
            let field = format!("{field}[{nth}]");
            causes.extend(
                address_fault(family, address)
                    .map(|why| Cause::invalid(field, address.as_str(), why)),
            );
        }
    }
    ports(fields::list(slice, "ports"), &mut causes);
    causes
}

fn address_type(slice: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) -> Option<Family> {
    let name = fields::text(slice, "addressType");
    match name {
        "" => causes.push(Cause::required("addressType", "")),
        "IPv4" | "IPv6" | "FQDN" => {
            let before = old.map(|old| fields::text(old, "addressType"));
            if before.is_some_and(|before| before != name) {
                causes.push(Cause::invalid("addressType", name, "field is immutable"));
            }
        }
        _ => causes.push(Cause::unsupported("addressType", name, &["FQDN", "IPv4", "IPv6"])),
    }
    Family::named(name)
}

fn address_fault(family: Option<Family>, text: &str) -> Option<String> {
    match (family, text.parse::<IpAddr>()) {
        (Some(family), Ok(address)) if Family::of(address) == family => {
            names::special_address(address).map(str::to_owned)
        }
        (Some(family), _) => Some(format!("must be a valid {} address", family.as_str())),
        (None, _) => names::fault(NameRule::Subdomain, text),
    }
}

fn ports(ports: &[Value], causes: &mut Vec<Cause>) {
    if ports.len() > MOST_PORTS {
        causes.push(Cause::too_many("ports", ports.len(), MOST_PORTS));
    }
    let mut seen = Vec::new();
    for (at, port) in ports.iter().enumerate() {
        let name = fields::text(port, "name");
        if !name.is_empty()
            && let Some(why) = names::fault(NameRule::Label1123, name)
        {
            causes.push(Cause::invalid(format!("ports[{at}].name"), name, why));
        }
        if seen.contains(&name) {
            causes.push(Cause::duplicate(format!("ports[{at}].name"), name));
        }
        seen.push(name);
        let protocol = fields::text(port, "protocol");
        if !["TCP", "UDP", "SCTP"].contains(&protocol) {
            let field = format!("ports[{at}].protocol");
            causes.push(Cause::unsupported(field, protocol, &["SCTP", "TCP", "UDP"]));
        }
        // An absent number means all ports.
        if let Some(number) = fields::at(port, "port")
            && !number.as_i64().is_some_and(|number| (1..=65535).contains(&number))
        {
            let why = "must be between 1 and 65535, inclusive";
            causes.push(Cause::invalid(format!("ports[{at}].port"), number.clone(), why));
        }
    }
}
