//! The rules that Services must keep, in Kubernetes' wording.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};

use crate::allocate::Family;
use crate::fields::{at, list, number, text, texts};
use crate::kinds::NameRule;
use crate::names;
use crate::service::{
    externally_accessible, is_headless, may_have_node_ports, needs_cluster_ip,
    needs_health_check_port,
};
use crate::status::Cause;

const PORT_RANGE: &str = "must be between 1 and 65535, inclusive";
const NOT_AN_ADDRESS: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";

/// Rules that hold before families are chosen.
pub(crate) fn validate(service: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    choices(service, &mut causes);
    ports(service, &mut causes);
    affinity(service, &mut causes);
    addresses(service, &mut causes);
    by_type(service, old, &mut causes);
    causes
}

/// Fields with a closed set of values.
fn choices(service: &Value, causes: &mut Vec<Cause>) {
    let table: [(&str, &[&str]); 6] = [
        ("spec.type", &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]),
        ("spec.sessionAffinity", &["ClientIP", "None"]),
        ("spec.internalTrafficPolicy", &["Cluster", "Local"]),
        ("spec.externalTrafficPolicy", &["Cluster", "Local"]),
        ("spec.ipFamilyPolicy", &["PreferDualStack", "RequireDualStack", "SingleStack"]),
        ("spec.trafficDistribution", &["PreferClose", "PreferSameNode", "PreferSameZone"]),
    ];
    for (field, allowed) in table {
        if let Some(value) = at(service, field)
            && !value.as_str().is_some_and(|value| allowed.contains(&value))
        {
            causes.push(Cause::unsupported(field, value.clone(), allowed));
        }
    }
    let mut seen = Vec::new();
    for (nth, family) in list(service, "spec.ipFamilies").iter().enumerate() {
        let field = format!("spec.ipFamilies[{nth}]");
        if family.as_str().and_then(Family::named).is_none() {
            causes.push(Cause::unsupported(&field, family.clone(), &["IPv4", "IPv6"]));
        } else if seen.contains(&family) {
            causes.push(Cause::duplicate(&field, family.clone()));
        }
        seen.push(family);
    }
}

fn ports(service: &Value, causes: &mut Vec<Cause>) {
    let ports = list(service, "spec.ports");
    if ports.is_empty() && needs_cluster_ip(service) && !is_headless(service) {
        causes.push(Cause::required("spec.ports", ""));
    }
    let mut names_seen = Vec::new();
    let mut seen = Vec::new();
    let mut node_ports = Vec::new();
    for (nth, port) in ports.iter().enumerate() {
        let here = format!("spec.ports[{nth}]");
        let name = text(port, "name");
        if name.is_empty() {
            if ports.len() > 1 {
                causes.push(Cause::required(format!("{here}.name"), ""));
            }
        } else {
            if let Some(why) = names::fault(NameRule::Label1123, name) {
                causes.push(Cause::invalid(format!("{here}.name"), name, why));
            } else if names_seen.contains(&name) {
                causes.push(Cause::duplicate(format!("{here}.name"), name));
            }
            names_seen.push(name);
        }
        let value = number(port, "port");
        if !(1..=65535).contains(&value) {
            causes.push(Cause::invalid(format!("{here}.port"), value, PORT_RANGE));
        }
        let protocol = text(port, "protocol");
        if !["TCP", "UDP", "SCTP"].contains(&protocol) {
            let field = format!("{here}.protocol");
            causes.push(Cause::unsupported(field, protocol, &["SCTP", "TCP", "UDP"]));
        }
        target_port(port, &here, causes);
        if seen.contains(&(value, protocol)) {
            causes.push(Cause::duplicate(&here, json!({ "port": value, "protocol": protocol })));
        }
        seen.push((value, protocol));
        let node_port = number(port, "nodePort");
        if node_port != 0 {
            if !may_have_node_ports(service) {
                let why = "may not be used when `type` is 'ClusterIP'";
                causes.push(Cause::forbidden(format!("{here}.nodePort"), why));
            } else if node_ports.contains(&(node_port, protocol)) {
                causes.push(Cause::duplicate(format!("{here}.nodePort"), node_port));
            }
            node_ports.push((node_port, protocol));
        }
    }
}

fn target_port(port: &Value, here: &str, causes: &mut Vec<Cause>) {
    let field = format!("{here}.targetPort");
    match port.get("targetPort") {
        Some(Value::String(name)) => {
            let letters = name
                .chars()
                .all(|one| one.is_ascii_lowercase() || one.is_ascii_digit() || one == '-');
            if name.len() > 15 {
                causes.push(Cause::invalid(
                    field,
                    name.as_str(),
                    "must be no more than 15 characters",
                ));
            } else if !letters || !name.chars().any(|one| one.is_ascii_lowercase()) {
                let why = "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-), \
                           and at least one letter (a-z)";
                causes.push(Cause::invalid(field, name.as_str(), why));
            }
        }
        Some(value) if !value.as_i64().is_some_and(|it| (1..=65535).contains(&it)) => {
            causes.push(Cause::invalid(field, value.clone(), PORT_RANGE));
        }
        Some(_) | None => {}
    }
}

fn affinity(service: &Value, causes: &mut Vec<Cause>) {
    let field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
    if text(service, "spec.sessionAffinity") == "ClientIP" {
        let seconds = number(service, field);
        if !(1..=86400).contains(&seconds) {
            let why = "must be greater than 0 and less than or equal to 86400";
            causes.push(Cause::invalid(field, seconds, why));
        }
    }
}

fn addresses(service: &Value, causes: &mut Vec<Cause>) {
    for (nth, given) in list(service, "spec.externalIPs").iter().enumerate() {
        let address = given.as_str().and_then(|text| text.parse::<IpAddr>().ok());
        let why = match address {
            None => Some(NOT_AN_ADDRESS),
            Some(address) => names::special_address(address),
        };
        let field = format!("spec.externalIPs[{nth}]");
        causes.extend(why.map(|why| Cause::invalid(field, given.clone(), why)));
    }
    for (nth, given) in list(service, "spec.loadBalancerSourceRanges").iter().enumerate() {
        if given.as_str().and_then(|text| text.trim().parse::<IpNet>().ok()).is_none() {
            let field = format!("spec.loadBalancerSourceRanges[{nth}]");
            let why = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
            causes.push(Cause::invalid(field, given.clone(), why));
        }
    }
    for (nth, ingress) in list(service, "status.loadBalancer.ingress").iter().enumerate() {
        let here = format!("status.loadBalancer.ingress[{nth}]");
        let ip = text(ingress, "ip");
        if !ip.is_empty() && ip.parse::<IpAddr>().is_err() {
            causes.push(Cause::invalid(format!("{here}.ip"), ip, NOT_AN_ADDRESS));
        }
        let mode = text(ingress, "ipMode");
        if !["", "VIP", "Proxy"].contains(&mode) {
            causes.push(Cause::unsupported(format!("{here}.ipMode"), mode, &["Proxy", "VIP"]));
        }
    }
}

fn by_type(service: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let kind = text(service, "spec.type");
    if kind == "ExternalName" {
        if !texts(service, "spec.clusterIPs").is_empty()
            || !text(service, "spec.clusterIP").is_empty()
        {
            let why = "may not be set when `type` is 'ExternalName'";
            causes.push(Cause::forbidden("spec.clusterIPs", why));
        }
        let name = text(service, "spec.externalName");
        if name.is_empty() {
            causes.push(Cause::required("spec.externalName", ""));
        } else if let Some(why) = names::fault(NameRule::Subdomain, name.trim_end_matches('.')) {
            causes.push(Cause::invalid("spec.externalName", name, why));
        }
    }
    if is_headless(service) && may_have_node_ports(service) {
        let why = format!("may not be set to 'None' for {kind} services");
        causes.push(Cause::invalid("spec.clusterIPs[0]", "None", why));
    }
    if kind != "LoadBalancer" && !list(service, "spec.loadBalancerSourceRanges").is_empty() {
        let why = "may only be used when `type` is 'LoadBalancer'";
        causes.push(Cause::forbidden("spec.loadBalancerSourceRanges", why));
    }
    let policy = text(service, "spec.externalTrafficPolicy");
    if !policy.is_empty() && !externally_accessible(service) {
        let why = "may only be set for externally-accessible services";
        causes.push(Cause::invalid("spec.externalTrafficPolicy", policy, why));
    }
    let health = number(service, "spec.healthCheckNodePort");
    if health != 0 && !needs_health_check_port(service) {
        let why =
            "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        causes.push(Cause::invalid("spec.healthCheckNodePort", health, why));
    }
    if let Some(old) =
        old.filter(|old| needs_health_check_port(old) && needs_health_check_port(service))
    {
        let before = number(old, "spec.healthCheckNodePort");
        if before != 0 && health != before {
            causes.push(Cause::invalid("spec.healthCheckNodePort", health, "field is immutable"));
        }
    }
}

/// Rules about cluster addresses, once families are chosen.
pub(crate) fn validate_families(service: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    if !needs_cluster_ip(service) {
        return causes;
    }
    let given = texts(service, "spec.clusterIPs");
    let families = texts(service, "spec.ipFamilies");
    let first = given.first().map_or("", String::as_str);
    if first != text(service, "spec.clusterIP") {
        let why = "first value must match `clusterIP`";
        causes.push(Cause::invalid("spec.clusterIPs", json!(given), why));
    }
    if given.len() > 2 {
        let why = "may only hold up to 2 values";
        causes.push(Cause::invalid("spec.clusterIPs", json!(given), why));
    }
    if is_headless(service) {
        if given.len() > 1 {
            let why = "'None' must be the first and only value";
            causes.push(Cause::invalid("spec.clusterIPs", json!(given), why));
        }
    } else {
        for (nth, text) in given.iter().enumerate() {
            let field = format!("spec.clusterIPs[{nth}]");
            let why = match (text.parse::<IpAddr>(), families.get(nth)) {
                (Err(_), _) => NOT_AN_ADDRESS.to_owned(),
                (Ok(address), Some(family)) if Family::of(address).as_str() != family => {
                    format!("expected an {family} value as indicated by `ipFamilies[{nth}]`")
                }
                (Ok(_), _) => continue,
            };
            causes.push(Cause::invalid(field, text.as_str(), why));
        }
    }
    if let Some(old) = old.filter(|old| needs_cluster_ip(old)) {
        unchanged(service, old, &given, &families, &mut causes);
    }
    causes
}

fn unchanged(
    service: &Value,
    old: &Value,
    given: &[String],
    families: &[String],
    causes: &mut Vec<Cause>,
) {
    let before = texts(old, "spec.clusterIPs");
    let single = text(service, "spec.ipFamilyPolicy") == "SingleStack";
    for (nth, was) in before.iter().enumerate() {
        let now = given.get(nth);
        // The second address may go when the second family goes.
        let given_up = nth == 1 && now.is_none() && single;
        if now != Some(was) && !given_up {
            let field = format!("spec.clusterIPs[{nth}]");
            causes.push(Cause::invalid(field, json!(given), "may not change once set"));
        }
    }
    let before = texts(old, "spec.ipFamilies");
    if let (Some(was), Some(now)) = (before.first(), families.first())
        && was != now
    {
        causes.push(Cause::invalid(
            "spec.ipFamilies[0]",
            json!(families),
            "may not change once set",
        ));
    }
}
