//! Pods that the cluster's own controllers run: `slicesBy: cluster`.
//!
//! On each node the pods of a Service are those of one Deployment. They have the label `app` with
//! the Service's name, and the Service has endpoints as long as its selector matches that.

use std::collections::BTreeMap;

use touchstone_spec::api::{EndpointSlice, Service};
use touchstone_spec::{Change, Deployed};

use crate::objects::Context;
use crate::state::{State, conditions};
use crate::text::{EndpointText, Patch, ServiceText};
use crate::{At, CaseError};

/// The label of pods.
const LABEL: &str = "app";

fn labels(service: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(LABEL.to_owned(), service.to_owned())])
}

/// Whether a Service's selector matches its pods.
pub(crate) fn selects(name: &str, service: &Service) -> bool {
    let labels = labels(name);
    let selector = &service.spec.selector;
    !selector.is_empty() && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

impl Context<'_> {
    /// What controllers are to run for a Service.
    pub(crate) fn deployed(
        &self,
        state: &State,
        name: &str,
        service: &At<ServiceText>,
        slices: Vec<EndpointSlice>,
    ) -> Result<Deployed, CaseError> {
        if service.value.selector.get().is_none_or(BTreeMap::is_empty) {
            let error = self.wrong(service.place, format!("{name} has no selector"));
            return Err(error.help(format!(
                "with `slicesBy: cluster` its pods have the label `{LABEL}: {name}`"
            )));
        }
        let mut pods = BTreeMap::new();
        for (endpoint, text) in state.endpoints.get(name).into_iter().flatten() {
            if let Some(word) = decided_elsewhere(&text.value) {
                let error = self.wrong(text.place, format!("`{word}` is up to the controllers"));
                return Err(error.help("with `slicesBy: cluster` an endpoint has `node`, `ready`"));
            }
            let place = self.book.pod(&format!("{name}/{endpoint}")).map(|pod| pod.place.clone());
            let (ready, _, _) = conditions(&text.value);
            pods.insert(place.map_err(self.lack(text.place))?, ready);
        }
        let (service, namespace) = (name.to_owned(), self.namespace.clone());
        Ok(Deployed { namespace, labels: labels(name), service, pods, slices })
    }
}

/// What an endpoint says that controllers decide.
fn decided_elsewhere(text: &EndpointText) -> Option<&'static str> {
    let EndpointText {
        node: _,
        outside,
        ready: _,
        serving,
        terminating,
        omit,
        for_zones,
        for_nodes,
        slice,
        ports,
        host_network,
        node_name,
        hostname,
        address,
    } = text;
    let said = [
        ("outside", !matches!(outside, Patch::Keep)),
        ("serving", !matches!(serving, Patch::Keep)),
        ("terminating", !matches!(terminating, Patch::Keep)),
        ("omit", !matches!(omit, Patch::Keep)),
        ("forZones", !matches!(for_zones, Patch::Keep)),
        ("forNodes", !matches!(for_nodes, Patch::Keep)),
        ("slice", !matches!(slice, Patch::Keep)),
        ("ports", !matches!(ports, Patch::Keep)),
        ("hostNetwork", !matches!(host_network, Patch::Keep)),
        ("nodeName", !matches!(node_name, Patch::Keep)),
        ("hostname", !matches!(hostname, Patch::Keep)),
        ("address", !matches!(address, Patch::Keep)),
    ];
    said.into_iter().find(|(_, said)| *said).map(|(word, _)| word)
}

/// The changes from what ran before to what is to run; what is gone runs no more.
pub(crate) fn difference(
    before: &BTreeMap<String, Deployed>,
    after: &BTreeMap<String, Deployed>,
    changes: &mut Vec<Change>,
) {
    for (name, old) in before {
        if !after.contains_key(name) {
            let (pods, slices) = (BTreeMap::new(), Vec::new());
            changes.push(Change::Deploy(Deployed { pods, slices, ..old.clone() }));
        }
    }
    for (name, new) in after {
        if before.get(name) != Some(new) {
            changes.push(Change::Deploy(new.clone()));
        }
    }
}
