//! Table answers: the columns of `kubectl get` for each kind.

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::fields;
use crate::kinds::Kind;

/// A column of a kind's table.
#[derive(Debug)]
pub(crate) struct Column {
    name: &'static str,
    /// 0 is always shown, 1 only in wide output.
    priority: u8,
}

/// Makes the cells of one object, as many as the kind has columns.
pub(crate) type Row = fn(&Value, OffsetDateTime) -> Vec<Value>;

const fn shown(name: &'static str) -> Column {
    Column { name, priority: 0 }
}

const fn wide(name: &'static str) -> Column {
    Column { name, priority: 1 }
}

/// What the rows of a table carry of their object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Include {
    /// Nothing.
    None,
    /// Its metadata.
    Metadata,
    /// All of it.
    Object,
}

/// Builds a table of objects; `metadata` is that of the list.
pub(crate) fn render<'a>(
    kind: &Kind,
    objects: impl IntoIterator<Item = &'a Value>,
    metadata: Value,
    include: Include,
    with_columns: bool,
) -> Value {
    let now = OffsetDateTime::now_utc();
    let rows: Vec<Value> = objects
        .into_iter()
        .map(|object| {
            let mut row = json!({ "cells": (kind.row)(object, now) });
            match include {
                Include::None => {}
                Include::Metadata => row["object"] = partial(object),
                Include::Object => row["object"] = object.clone(),
            }
            row
        })
        .collect();
    let columns: Vec<Value> = match with_columns {
        true => kind.columns.iter().map(definition).collect(),
        false => Vec::new(),
    };
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": columns, "rows": rows,
    })
}

/// The metadata of an object as an object of its own.
pub(crate) fn partial(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
        "metadata": object.get("metadata").cloned().unwrap_or_else(|| json!({})),
    })
}

fn definition(column: &Column) -> Value {
    let format = if column.name == "Name" { "name" } else { "" };
    json!({
        "name": column.name, "type": "string", "format": format, "description": column.name,
        "priority": column.priority,
    })
}

pub(crate) const NAMESPACE: &[Column] = &[shown("Name"), shown("Status"), shown("Age")];

pub(crate) fn namespace(object: &Value, now: OffsetDateTime) -> Vec<Value> {
    vec![name(object), fields::text(object, "status.phase").into(), age(object, now)]
}

pub(crate) const NODE: &[Column] = &[
    shown("Name"),
    shown("Status"),
    shown("Roles"),
    shown("Age"),
    shown("Version"),
    wide("Internal-IP"),
    wide("External-IP"),
    wide("OS-Image"),
    wide("Kernel-Version"),
    wide("Container-Runtime"),
];

pub(crate) fn node(object: &Value, now: OffsetDateTime) -> Vec<Value> {
    let ready = fields::list(object, "status.conditions")
        .iter()
        .find(|condition| fields::text(condition, "type") == "Ready");
    let mut status = match ready.map(|condition| fields::text(condition, "status")) {
        Some("True") => "Ready".to_owned(),
        Some("False") => "NotReady".to_owned(),
        Some(_) | None => "Unknown".to_owned(),
    };
    if fields::at(object, "spec.unschedulable") == Some(&Value::Bool(true)) {
        status.push_str(",SchedulingDisabled");
    }
    let labels = fields::at(object, "metadata.labels").and_then(Value::as_object);
    let roles: Vec<&str> = labels
        .into_iter()
        .flatten()
        .filter_map(|(key, _)| key.strip_prefix("node-role.kubernetes.io/"))
        .collect();
    let address = |kind: &str| {
        fields::list(object, "status.addresses")
            .iter()
            .find(|address| fields::text(address, "type") == kind)
            .map_or("<none>", |address| fields::text(address, "address"))
            .to_owned()
    };
    let info =
        |field: &str| or(fields::text(object, &format!("status.nodeInfo.{field}")), "<unknown>");
    vec![
        name(object),
        status.into(),
        or(&roles.join(","), "<none>"),
        age(object, now),
        fields::text(object, "status.nodeInfo.kubeletVersion").into(),
        address("InternalIP").into(),
        address("ExternalIP").into(),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

pub(crate) const SERVICE: &[Column] = &[
    shown("Name"),
    shown("Type"),
    shown("Cluster-IP"),
    shown("External-IP"),
    shown("Port(s)"),
    shown("Age"),
    wide("Selector"),
];

pub(crate) fn service(object: &Value, now: OffsetDateTime) -> Vec<Value> {
    let ports: Vec<String> = fields::list(object, "spec.ports")
        .iter()
        .map(|port| {
            let protocol = fields::text(port, "protocol");
            match (fields::number(port, "port"), fields::number(port, "nodePort")) {
                (number, 0) => format!("{number}/{protocol}"),
                (number, node_port) => format!("{number}:{node_port}/{protocol}"),
            }
        })
        .collect();
    vec![
        name(object),
        fields::text(object, "spec.type").into(),
        or(fields::text(object, "spec.clusterIP"), "<none>"),
        or(&external_addresses(object), "<none>"),
        or(&ports.join(","), "<none>"),
        age(object, now),
        or(&pairs(object, "spec.selector"), "<none>"),
    ]
}

fn external_addresses(service: &Value) -> String {
    let mut addresses = Vec::new();
    match fields::text(service, "spec.type") {
        "ExternalName" => return fields::text(service, "spec.externalName").to_owned(),
        "LoadBalancer" => {
            for ingress in fields::list(service, "status.loadBalancer.ingress") {
                let ip = fields::text(ingress, "ip");
                let shown = if ip.is_empty() { fields::text(ingress, "hostname") } else { ip };
                addresses.push(shown.to_owned());
            }
            addresses.extend(fields::texts(service, "spec.externalIPs"));
            if addresses.is_empty() {
                return "<pending>".to_owned();
            }
        }
        _ => addresses.extend(fields::texts(service, "spec.externalIPs")),
    }
    addresses.join(",")
}

pub(crate) const POD: &[Column] = &[
    shown("Name"),
    shown("Ready"),
    shown("Status"),
    shown("Restarts"),
    shown("Age"),
    wide("IP"),
    wide("Node"),
    wide("Nominated Node"),
    wide("Readiness Gates"),
];

pub(crate) fn pod(object: &Value, now: OffsetDateTime) -> Vec<Value> {
    let states = fields::list(object, "status.containerStatuses");
    let ready = states.iter().filter(|one| one.get("ready") == Some(&Value::Bool(true))).count();
    let restarts: i64 = states.iter().map(|one| fields::number(one, "restartCount")).sum();
    let deleted = fields::at(object, "metadata.deletionTimestamp").is_some();
    let phase = if deleted { "Terminating" } else { fields::text(object, "status.phase") };
    vec![
        name(object),
        format!("{ready}/{}", fields::list(object, "spec.containers").len()).into(),
        phase.into(),
        restarts.to_string().into(),
        age(object, now),
        or(fields::text(object, "status.podIP"), "<none>"),
        or(fields::text(object, "spec.nodeName"), "<none>"),
        or(fields::text(object, "status.nominatedNodeName"), "<none>"),
        "<none>".into(),
    ]
}

pub(crate) const CONFIG_MAP: &[Column] = &[shown("Name"), shown("Data"), shown("Age")];

pub(crate) fn config_map(object: &Value, now: OffsetDateTime) -> Vec<Value> {
    let count =
        |field| fields::at(object, field).and_then(Value::as_object).map_or(0, |map| map.len());
    vec![name(object), (count("data") + count("binaryData")).to_string().into(), age(object, now)]
}

pub(crate) const ENDPOINTS: &[Column] = &[shown("Name"), shown("Endpoints"), shown("Age")];

pub(crate) fn endpoints(object: &Value, now: OffsetDateTime) -> Vec<Value> {
    let mut all = Vec::new();
    for subset in fields::list(object, "subsets") {
        for address in fields::list(subset, "addresses") {
            let ip = fields::text(address, "ip");
            let ports = fields::list(subset, "ports");
            all.extend(ports.iter().map(|port| format!("{ip}:{}", fields::number(port, "port"))));
        }
    }
    vec![name(object), first_three(&all, "<none>"), age(object, now)]
}

pub(crate) const EVENT: &[Column] = &[
    shown("Last Seen"),
    shown("Type"),
    shown("Reason"),
    shown("Object"),
    shown("Message"),
    wide("Name"),
];

/// Both shapes of an Event: core/v1, and events.k8s.io/v1 with its other field names.
pub(crate) fn event(object: &Value, now: OffsetDateTime) -> Vec<Value> {
    let either = |old: &str, new: &str| {
        let text = fields::text(object, old);
        if text.is_empty() { fields::text(object, new).to_owned() } else { text.to_owned() }
    };
    let kind = either("involvedObject.kind", "regarding.kind").to_lowercase();
    let named = either("involvedObject.name", "regarding.name");
    let seen = either("lastTimestamp", "eventTime");
    let seen = if seen.is_empty() { age(object, now) } else { since(&seen, now) };
    vec![
        seen,
        fields::text(object, "type").into(),
        fields::text(object, "reason").into(),
        format!("{kind}/{named}").into(),
        either("message", "note").into(),
        name(object),
    ]
}

pub(crate) const ENDPOINT_SLICE: &[Column] =
    &[shown("Name"), shown("AddressType"), shown("Ports"), shown("Endpoints"), shown("Age")];

pub(crate) fn endpoint_slice(object: &Value, now: OffsetDateTime) -> Vec<Value> {
    let ports: Vec<String> = fields::list(object, "ports")
        .iter()
        .map(|port| match fields::number(port, "port") {
            0 => "*".to_owned(),
            number => number.to_string(),
        })
        .collect();
    let addresses: Vec<String> = fields::list(object, "endpoints")
        .iter()
        .flat_map(|endpoint| fields::texts(endpoint, "addresses"))
        .collect();
    vec![
        name(object),
        fields::text(object, "addressType").into(),
        first_three(&ports, "<unset>"),
        first_three(&addresses, "<unset>"),
        age(object, now),
    ]
}

pub(crate) const SERVICE_CIDR: &[Column] = &[shown("Name"), shown("CIDRs"), shown("Age")];

pub(crate) fn service_cidr(object: &Value, now: OffsetDateTime) -> Vec<Value> {
    vec![name(object), fields::texts(object, "spec.cidrs").join(",").into(), age(object, now)]
}

pub(crate) const IP_ADDRESS: &[Column] = &[shown("Name"), shown("ParentRef"), shown("Age")];

pub(crate) fn ip_address(object: &Value, now: OffsetDateTime) -> Vec<Value> {
    let parent: Vec<&str> = ["resource", "namespace", "name"]
        .iter()
        .map(|part| fields::text(object, &format!("spec.parentRef.{part}")))
        .filter(|part| !part.is_empty())
        .collect();
    vec![name(object), parent.join("/").into(), age(object, now)]
}

pub(crate) const NETWORK_POLICY: &[Column] = &[shown("Name"), shown("Pod-Selector"), shown("Age")];

pub(crate) fn network_policy(object: &Value, now: OffsetDateTime) -> Vec<Value> {
    let labels = fields::at(object, "spec.podSelector.matchLabels").and_then(Value::as_object);
    let chosen: Vec<String> = labels
        .into_iter()
        .flatten()
        .map(|(label, value)| format!("{label}={}", value.as_str().unwrap_or_default()))
        .collect();
    let chosen = if chosen.is_empty() { "<none>".to_owned() } else { chosen.join(",") };
    vec![name(object), chosen.into(), age(object, now)]
}

fn name(object: &Value) -> Value {
    fields::text(object, "metadata.name").into()
}

fn or(text: &str, otherwise: &str) -> Value {
    if text.is_empty() { otherwise.into() } else { text.into() }
}

fn pairs(object: &Value, path: &str) -> String {
    let map = fields::at(object, path).and_then(Value::as_object);
    let mut pairs: Vec<String> = map
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or("")))
        .collect();
    pairs.sort();
    pairs.join(",")
}

fn first_three(all: &[String], none: &str) -> Value {
    match all.len() {
        0 => none.into(),
        1..=3 => all.join(",").into(),
        more => format!("{} + {} more...", all[..3].join(","), more - 3).into(),
    }
}

fn age(object: &Value, now: OffsetDateTime) -> Value {
    since(fields::text(object, "metadata.creationTimestamp"), now)
}

fn since(moment: &str, now: OffsetDateTime) -> Value {
    match OffsetDateTime::parse(moment, &Rfc3339) {
        Ok(moment) => duration((now - moment).whole_seconds()).into(),
        Err(_) => "<unknown>".into(),
    }
}

/// A length of time in at most two units, as `kubectl` writes an age.
fn duration(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    let two = |big: i64, big_unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{big}{big_unit}"),
        small => format!("{big}{big_unit}{small}{small_unit}"),
    };
    if seconds < 120 {
        format!("{seconds}s")
    } else if minutes < 10 {
        two(minutes, "m", seconds % 60, "s")
    } else if hours < 3 {
        format!("{minutes}m")
    } else if hours < 8 {
        two(hours, "h", minutes % 60, "m")
    } else if hours < 48 {
        format!("{hours}h")
    } else if days < 8 {
        two(days, "d", hours % 24, "h")
    } else if days < 2 * 365 {
        format!("{days}d")
    } else {
        two(days / 365, "y", days % 365, "d")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_like_those_of_kubectl() {
        let table = [
            (-5, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (10_860, "3h1m"),
            (28_800, "8h"),
            (172_800, "2d"),
            (176_400, "2d1h"),
            (691_200, "8d"),
            (63_072_000, "2y"),
            (63_158_400, "2y1d"),
        ];
        for (seconds, text) in table {
            assert_eq!(duration(seconds), text, "{seconds} s");
        }
    }
}
