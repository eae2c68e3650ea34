//! API objects between the words of the suite and the embedded API server.

use serde_json::{Value, json};
use touchstone_apiserver::{ApiServer, Reason, Status};
use touchstone_spec::api::{EndpointSlice, Service, ZONE_LABEL};
use touchstone_spec::{Change, Family, NodeFacts, NodeSays};

use crate::ClusterError;

/// Makes a change of API objects. What concerns proxies is not made here.
pub(super) fn apply(api: &ApiServer, change: &Change) -> Result<(), ClusterError> {
    match change {
        Change::ApplyService(service) => apply_service(api, service),
        Change::ApplySlice(slice) => apply_slice(api, slice, Rules::Kept),
        Change::ApplyRawSlice(slice) => apply_slice(api, slice, Rules::Skipped),
        Change::DeleteService { namespace, name } => delete(api, "Service", namespace, name),
        Change::DeleteSlice { namespace, name } => delete(api, "EndpointSlice", namespace, name),
        Change::SetNode { node, says } => set_node(api, node, says),
        Change::Deploy(wanted) => {
            let what = format!("failed to run pods of {}", wanted.service);
            Err(ClusterError::new(what, "the lab has no controllers"))
        }
        Change::Proxy { .. }
        | Change::ProxyRefuses { .. }
        | Change::VirtualServer { .. }
        | Change::ReloadFirewall { .. } => Ok(()),
    }
}

/// The Node object of a node, still without its zone.
pub(super) fn node(facts: &NodeFacts, pod_cidrs: &[String]) -> Value {
    // Only one address of a family is an InternalIP; a kubelet tells no others.
    let addresses: Vec<Value> = Family::BOTH
        .into_iter()
        .filter_map(|family| facts.addresses.iter().find(|ip| Family::of(**ip) == family))
        .map(|ip| json!({ "type": "InternalIP", "address": ip.to_string() }))
        .collect();
    let labels = json!({ "kubernetes.io/hostname": facts.name });
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": facts.name, "labels": labels },
        "spec": { "podCIDR": pod_cidrs.first(), "podCIDRs": pod_cidrs },
        "status": {
            "addresses": addresses,
            "conditions": [ready(true)],
        },
    })
}

/// Has a Node say this; its other fields stay as they are.
fn set_node(api: &ApiServer, node: &str, says: &NodeSays) -> Result<(), ClusterError> {
    let refused = |status: Status| refused("change node", node, &status);
    let taint = |key: &String| json!({ "key": key, "effect": "NoSchedule" });
    let mut labels = json!(says.labels);
    labels[ZONE_LABEL] = json!(says.zone);
    let patch = json!({
        "metadata": { "labels": labels },
        "spec": {
            "unschedulable": says.unschedulable.then_some(true),
            "taints": says.taints.iter().map(taint).collect::<Vec<Value>>(),
        },
    });
    let mut stored = api.get("Node", None, node).map_err(refused)?;
    let ready = json!([ready(!says.unready)]);
    // It comes first, so that whoever follows the zone has read it.
    if stored["status"]["conditions"] != ready {
        stored["status"]["conditions"] = ready;
        api.replace_status(stored).map_err(refused)?;
    }
    api.patch("Node", None, node, &patch).map(drop).map_err(refused)
}

/// The condition `Ready` of a node.
fn ready(is_ready: bool) -> Value {
    let status = if is_ready { "True" } else { "False" };
    json!({ "type": "Ready", "status": status, "reason": "Lab" })
}

/// Whether the API server's defaulting and validation are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rules {
    Kept,
    Skipped,
}

/// Creates a namespace unless it exists.
fn need_namespace(api: &ApiServer, namespace: &str) -> Result<(), ClusterError> {
    let object = json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace },
    });
    match api.create(object) {
        Ok(_) => Ok(()),
        Err(status) if status.reason() == Reason::AlreadyExists => Ok(()),
        Err(status) => Err(refused("create namespace", namespace, &status)),
    }
}

fn apply_service(api: &ApiServer, service: &Service) -> Result<(), ClusterError> {
    let meta = &service.metadata;
    let object = object(service, "v1", "Service")?;
    let stored = put(api, "Service", &meta.namespace, &meta.name, object.clone(), Rules::Kept)?;
    // A load-balancer controller writes the status after the Service is there.
    if stored.get("status").and_then(|s| s.get("loadBalancer"))
        != object["status"].get("loadBalancer")
    {
        api.replace_status(object)
            .map_err(|status| refused("write the status of Service", &meta.name, &status))?;
    }
    Ok(())
}

fn apply_slice(api: &ApiServer, slice: &EndpointSlice, rules: Rules) -> Result<(), ClusterError> {
    let meta = &slice.metadata;
    let object = object(slice, "discovery.k8s.io/v1", "EndpointSlice")?;
    put(api, "EndpointSlice", &meta.namespace, &meta.name, object, rules).map(drop)
}

fn put(
    api: &ApiServer,
    kind: &str,
    namespace: &str,
    name: &str,
    object: Value,
    rules: Rules,
) -> Result<Value, ClusterError> {
    let (act, result) = match (api.get(kind, Some(namespace), name), rules) {
        (Ok(_), Rules::Kept) => ("replace", api.replace(object)),
        (Ok(_), Rules::Skipped) => ("replace", api.replace_raw(object)),
        (Err(_), rules) => {
            need_namespace(api, namespace)?;
            let create = match rules {
                Rules::Kept => api.create(object),
                Rules::Skipped => api.create_raw(object),
            };
            ("create", create)
        }
    };
    result.map_err(|status| {
        refused(&format!("{act} {kind}"), &format!("{namespace}/{name}"), &status)
    })
}

/// Writes an object without asking for defaults and validation.
pub(super) fn put_as_is(
    api: &ApiServer,
    kind: &str,
    namespace: &str,
    name: &str,
    object: Value,
) -> Result<(), ClusterError> {
    put(api, kind, namespace, name, object, Rules::Skipped).map(drop)
}

fn delete(api: &ApiServer, kind: &str, namespace: &str, name: &str) -> Result<(), ClusterError> {
    match api.delete(kind, Some(namespace), name) {
        Ok(_) => Ok(()),
        Err(status) if status.reason() == Reason::NotFound => Ok(()),
        Err(status) => {
            Err(refused(&format!("delete {kind}"), &format!("{namespace}/{name}"), &status))
        }
    }
}

fn object<T: serde::Serialize>(
    value: &T,
    version: &str,
    kind: &str,
) -> Result<Value, ClusterError> {
    let mut object = serde_json::to_value(value)
        .map_err(|error| ClusterError::new(format!("failed to write a {kind} as JSON"), error))?;
    object["apiVersion"] = json!(version);
    object["kind"] = json!(kind);
    Ok(object)
}

fn refused(act: &str, what: &str, status: &Status) -> ClusterError {
    ClusterError::new(format!("the API server refused to {act} {what}"), status)
}
