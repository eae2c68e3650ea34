//! Endpoints objects for proxies that read nothing newer: what a cluster's own controller makes of
//! the pods of a Service, made here of its slices.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use touchstone_apiserver::{ApiServer, Status};
use touchstone_spec::api::{Endpoint, EndpointSlice, SERVICE_NAME_LABEL, Service};
use touchstone_spec::{Change, Family};

use super::objects;
use crate::ClusterError;

/// Brings the Endpoints of a namespace up to its slices after a change.
///
/// # Errors
/// What the API server refused.
pub(super) fn follow(api: &ApiServer, change: &Change) -> Result<(), ClusterError> {
    match change {
        Change::ApplyService(Service { metadata, .. })
        | Change::ApplySlice(EndpointSlice { metadata, .. })
        | Change::ApplyRawSlice(EndpointSlice { metadata, .. }) => mirror(api, &metadata.namespace),
        Change::DeleteService { namespace, .. } | Change::DeleteSlice { namespace, .. } => {
            mirror(api, namespace)
        }
        Change::SetNode { .. }
        | Change::Deploy(_)
        | Change::Proxy { .. }
        | Change::ProxyRefuses { .. }
        | Change::VirtualServer { .. }
        | Change::ReloadFirewall { .. } => Ok(()),
    }
}

fn mirror(api: &ApiServer, namespace: &str) -> Result<(), ClusterError> {
    let failed = |why: &dyn std::fmt::Display| {
        ClusterError::new(format!("failed to write the Endpoints of {namespace}"), why)
    };
    let list = |kind| api.list(kind, Some(namespace), "").map_err(|status| failed(&status));
    let mut subsets: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for service in list("Service")? {
        let service: Service = serde_json::from_value(service).map_err(|error| failed(&error))?;
        subsets.insert(service.metadata.name, Vec::new());
    }
    for slice in list("EndpointSlice")? {
        let slice: EndpointSlice = serde_json::from_value(slice).map_err(|error| failed(&error))?;
        // They have one family only, and those who read them serve IPv4.
        if slice.address_type != Family::V4.api_name() {
            continue;
        }
        let of = slice.metadata.labels.get(SERVICE_NAME_LABEL);
        if let Some(of) = of.and_then(|name| subsets.get_mut(name)) {
            of.push(subset(&slice));
        }
    }
    for old in list("Endpoints")? {
        let name = old["metadata"]["name"].as_str().unwrap_or_default();
        if !subsets.contains_key(name) {
            let gone: Result<Value, Status> = api.delete("Endpoints", Some(namespace), name);
            gone.map_err(|status| failed(&status))?;
        }
    }
    for (name, subsets) in subsets {
        objects::put_as_is(
            api,
            "Endpoints",
            namespace,
            &name,
            json!({
                "apiVersion": "v1",
                "kind": "Endpoints",
                "metadata": { "name": name, "namespace": namespace },
                "subsets": subsets,
            }),
        )?;
    }
    Ok(())
}

fn subset(slice: &EndpointSlice) -> Value {
    let addresses = |ready: bool| -> Vec<Value> {
        let those = |endpoint: &&Endpoint| endpoint.conditions.ready.unwrap_or(true) == ready;
        let endpoints = slice.endpoints.iter().filter(those);
        let each = |endpoint: &Endpoint| {
            let ip = endpoint.addresses.first()?;
            Some(json!({ "ip": ip, "nodeName": endpoint.node_name }))
        };
        endpoints.filter_map(each).collect()
    };
    let ports: Vec<Value> = slice
        .ports
        .iter()
        .map(|port| json!({ "name": port.name, "port": port.port, "protocol": port.protocol }))
        .collect();
    json!({ "addresses": addresses(true), "notReadyAddresses": addresses(false), "ports": ports })
}

#[cfg(test)]
mod tests {
    use touchstone_apiserver::Config;
    use touchstone_spec::api::Conditions;
    use touchstone_spec::{PlainPort, PlainService, Protocol};

    use super::*;

    type Done = Result<(), Box<dyn std::error::Error>>;

    fn change(api: &ApiServer, change: &Change) -> Done {
        objects::apply(api, change)?;
        Ok(follow(api, change)?)
    }

    #[test]
    fn they_follow_services_and_slices() -> Done {
        let api = ApiServer::new(Config::default());
        let port = PlainPort { name: "p", protocol: Protocol::Udp, port: 53, target_port: 5353 };
        let web = PlainService {
            namespace: "test",
            name: "web",
            ips: vec!["10.96.0.16".parse()?, "fd00:10:96::16".parse()?],
            ports: &[port],
        };
        let endpoint = |address: &str, ready| Endpoint {
            addresses: vec![address.to_owned()],
            conditions: Conditions { ready: Some(ready), ..Conditions::default() },
            node_name: Some("n1".to_owned()),
            ..Endpoint::default()
        };
        let changes = web.changes(|family| match family {
            Family::V4 => vec![endpoint("10.244.1.11", true), endpoint("10.244.1.12", false)],
            Family::V6 => vec![endpoint("fd00:10:244:1::11", true)],
        });
        for one in &changes {
            change(&api, one)?;
        }
        let found = api.get("Endpoints", Some("test"), "web")?;
        assert_eq!(
            found["subsets"],
            json!([{
                "addresses": [{ "ip": "10.244.1.11", "nodeName": "n1" }],
                "notReadyAddresses": [{ "ip": "10.244.1.12", "nodeName": "n1" }],
                "ports": [{ "name": "p", "port": 5353, "protocol": "UDP" }],
            }])
        );
        change(&api, &Change::DeleteService { namespace: "test".into(), name: "web".into() })?;
        assert!(api.get("Endpoints", Some("test"), "web").is_err());
        Ok(())
    }
}
