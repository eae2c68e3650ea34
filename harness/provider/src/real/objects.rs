//! Changes of cases, as a cluster's own API server takes them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use http::Method;
use serde_json::{Value, json};
use touchstone_spec::Change;
use touchstone_spec::api::{EndpointSlice, Service, ServiceType, ZONE_LABEL};

use super::access::Access;
use super::names::Names;
use super::trouble;
use crate::ClusterError;

/// Keeps a cluster's own load balancers away from Services whose balancer the harness plays.
const LOAD_BALANCER_CLASS: &str = "touchstone/played";

/// Writes objects of cases.
pub(super) struct Objects {
    access: Access,
    names: Names,
    /// Names of real nodes by what cases call them.
    nodes: BTreeMap<String, String>,
    /// Namespaces that were made.
    made: tokio::sync::Mutex<BTreeSet<String>>,
    /// Paths of objects that are there.
    there: Mutex<BTreeSet<String>>,
    /// Real nodes that a case has cordoned: others are none of its business.
    cordoned: Mutex<BTreeSet<String>>,
}

impl Objects {
    pub(super) fn new(access: Access, names: Names, nodes: BTreeMap<String, String>) -> Objects {
        let (there, cordoned) = (Mutex::default(), Mutex::default());
        Objects { access, names, nodes, made: Default::default(), there, cordoned }
    }

    /// Makes one change.
    pub(super) async fn apply(&self, change: &Change) -> Result<(), ClusterError> {
        match change {
            Change::ApplyService(service) => self.apply_service(service).await,
            Change::ApplySlice(slice) | Change::ApplyRawSlice(slice) => {
                self.apply_slice(slice).await
            }
            Change::DeleteService { namespace, name } => {
                self.delete(&services(namespace), name).await
            }
            Change::DeleteSlice { namespace, name } => self.delete(&slices(namespace), name).await,
            // What else a case has a Node say, only the lab provides (`needs: { lab: … }`); of a
            // node that is cordoned controllers say it by a taint, too.
            Change::SetNode { node, says } => {
                let real = self.real(node);
                let mut patch = json!({ "metadata": { "labels": { ZONE_LABEL: says.zone } } });
                if self.changes_cordon(&real, says.unschedulable) {
                    patch["spec"] = json!({ "unschedulable": says.unschedulable });
                }
                let path = format!("/api/v1/nodes/{real}");
                let done = self.access.send(Method::PATCH, &path, Some(&patch)).await;
                done.map(drop)
                    .map_err(|error| self.access.failed(&format!("set the zone of {real}"), &error))
            }
            Change::Deploy(wanted) => {
                let what = format!("failed to run pods of {}", wanted.service);
                Err(ClusterError::new(what, "they are nobody's objects but a Deployment's"))
            }
            Change::Proxy { node, .. }
            | Change::ProxyRefuses { node, .. }
            | Change::VirtualServer { node, .. }
            | Change::ReloadFirewall { node } => {
                Err(ClusterError::new(format!("failed to act on {node}"), "only the lab can"))
            }
        }
    }

    /// Whether a node is to be cordoned now, or no longer.
    fn changes_cordon(&self, real: &str, cordoned: bool) -> bool {
        let mut all = self.cordoned.lock().unwrap_or_else(PoisonError::into_inner);
        if cordoned { all.insert(real.to_owned()) } else { all.remove(real) }
    }

    async fn apply_service(&self, service: &Service) -> Result<(), ClusterError> {
        let meta = &service.metadata;
        let mut object = self.object(service, "v1", "Service")?;
        if service.spec.service_type == ServiceType::LoadBalancer
            && object["spec"]["loadBalancerClass"].is_null()
        {
            object["spec"]["loadBalancerClass"] = json!(LOAD_BALANCER_CLASS);
        }
        let path = services(&meta.namespace);
        let stored = self.put(&meta.namespace, &path, &meta.name, &object).await?;
        let wanted = &object["status"]["loadBalancer"]["ingress"];
        let has = &stored["status"]["loadBalancer"]["ingress"];
        let none = |ingress: &Value| ingress.as_array().is_none_or(Vec::is_empty);
        if same_ingress(has, wanted) || (none(has) && none(wanted)) {
            return Ok(());
        }
        // A load-balancer controller writes the status after the Service is there.
        let mut with_status = stored;
        with_status["status"]["loadBalancer"] = json!({ "ingress": wanted });
        let path = format!("{path}/{}/status", meta.name);
        let done = self.access.send(Method::PUT, &path, Some(&with_status)).await;
        done.map(drop).map_err(|error| self.access.failed(&format!("write {path}"), &error))
    }

    async fn apply_slice(&self, slice: &EndpointSlice) -> Result<(), ClusterError> {
        let meta = &slice.metadata;
        let mut object = self.object(slice, "discovery.k8s.io/v1", "EndpointSlice")?;
        for endpoint in object["endpoints"].as_array_mut().into_iter().flatten() {
            self.name_nodes(endpoint);
        }
        self.put(&meta.namespace, &slices(&meta.namespace), &meta.name, &object).await.map(drop)
    }

    /// Puts real nodes' names where a case's are.
    fn name_nodes(&self, endpoint: &mut Value) {
        let name = endpoint.get("nodeName").and_then(Value::as_str);
        if let Some(name) = name {
            endpoint["nodeName"] = json!(self.real(name));
        }
        let hints = endpoint.get_mut("hints").and_then(|hints| hints.get_mut("forNodes"));
        for hint in hints.and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(name) = hint["name"].as_str() {
                hint["name"] = json!(self.real(name));
            }
        }
    }

    /// Names of real nodes by what cases call them.
    pub(super) fn nodes(&self) -> &BTreeMap<String, String> {
        &self.nodes
    }

    /// The real name of a node.
    pub(super) fn real(&self, node: &str) -> String {
        self.nodes.get(node).cloned().unwrap_or_else(|| node.to_owned())
    }

    fn object<T: serde::Serialize>(
        &self,
        value: &T,
        version: &str,
        kind: &str,
    ) -> Result<Value, ClusterError> {
        let mut object = serde_json::to_value(value).map_err(|error| {
            ClusterError::new(format!("failed to write a {kind} as JSON"), error)
        })?;
        object["apiVersion"] = json!(version);
        object["kind"] = json!(kind);
        self.names.mark(&mut object);
        Ok(object)
    }

    /// Creates or replaces an object; gives what is stored.
    async fn put(
        &self,
        namespace: &str,
        path: &str,
        name: &str,
        object: &Value,
    ) -> Result<Value, ClusterError> {
        let own = format!("{path}/{name}");
        let failed =
            |act: &str, error: &kube::Error| self.access.failed(&format!("{act} {own}"), error);
        if self.lock().contains(&own) {
            // Without a version it replaces whatever is there.
            match self.access.send(Method::PUT, &own, Some(object)).await {
                Err(error) if trouble::code(&error) == Some(404) => {}
                done => return done.map_err(|error| failed("replace", &error)),
            }
        }
        self.need_namespace(namespace).await?;
        let created = self.access.send(Method::POST, path, Some(object)).await;
        let created = created.map_err(|error| failed("create", &error))?;
        self.lock().insert(own);
        Ok(created)
    }

    async fn need_namespace(&self, name: &str) -> Result<(), ClusterError> {
        let mut made = self.made.lock().await;
        if !made.contains(name) {
            self.access.need("/api/v1/namespaces", &self.names.namespace(name)).await?;
            made.insert(name.to_owned());
        }
        Ok(())
    }

    async fn delete(&self, path: &str, name: &str) -> Result<(), ClusterError> {
        let own = format!("{path}/{name}");
        if self.lock().remove(&own) { self.access.delete(&own).await } else { Ok(()) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.there.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether addresses of a load balancer are there as wanted; the API server may add to them.
fn same_ingress(has: &Value, wanted: &Value) -> bool {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let (has, wanted) = (list(has), list(wanted));
    has.len() == wanted.len()
        && has.iter().zip(&wanted).all(|(has, wanted)| {
            let fields = wanted.as_object().into_iter().flatten();
            fields.into_iter().all(|(name, value)| has.get(name) == Some(value))
        })
}

fn services(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/services")
}

fn slices(namespace: &str) -> String {
    format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices")
}
