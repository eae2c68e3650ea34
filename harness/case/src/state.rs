//! The world while a case's changes are applied to it, still in the words of the file.

use std::collections::BTreeMap;

use touchstone_spec::NodeSays;

use crate::error::Source;
use crate::text::{
    ChangeText, EndpointChange, EndpointText, EndpointsText, FirewallChange, NodeChange, NodeText,
    Patch, ProxyChange, ServiceChange, ServiceText, SliceChange, SliceText, SlicesBy, SlicesChange,
    WorldText,
};
use crate::{At, CaseError, Change, Place, ProxyAction};

/// Services, endpoints and nodes of one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    /// Services by name.
    pub(crate) services: BTreeMap<String, At<ServiceText>>,
    /// Endpoints of Services that have slices.
    pub(crate) endpoints: BTreeMap<String, EndpointsText>,
    /// Slices that are written out, by name.
    pub(crate) slices: BTreeMap<String, At<SliceText>>,
    /// Who writes the slices of `endpoints`.
    pub(crate) slices_by: SlicesBy,
    /// What Nodes say of themselves.
    pub(crate) nodes: BTreeMap<String, NodeSays>,
}

/// What the compiler has to do after a change was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Applied {
    /// Objects differ; they may be written together with those of the next change.
    Quietly,
    /// Objects differ and must be written before anything else happens.
    Boundary,
    /// Something besides objects is to be done, after the objects are written.
    Do(Box<Change>),
}

impl State {
    pub(crate) fn new(world: &WorldText, nodes: BTreeMap<String, NodeSays>) -> State {
        State {
            services: world.services.clone(),
            endpoints: world
                .endpoints
                .iter()
                .map(|(service, endpoints)| (service.clone(), endpoints.value.clone()))
                .collect(),
            slices: world.slices.clone(),
            slices_by: world.slices_by,
            nodes,
        }
    }

    /// Applies one change.
    pub(crate) fn apply(
        &mut self,
        source: &Source,
        change: &At<ChangeText>,
        alone: bool,
    ) -> Result<Applied, CaseError> {
        let need_alone = |what: &str| {
            if alone {
                Ok(())
            } else {
                let message = format!("{what} touches other cases on the cluster");
                Err(CaseError::new(source, change.place, message)
                    .help("write `needs: { alone: true }`"))
            }
        };
        match &change.value {
            ChangeText::Endpoint(text) => self.endpoint(source, change.place, text),
            ChangeText::Service(text) => self.service(source, change.place, text),
            ChangeText::Slices(text) => self.slices(source, text),
            ChangeText::Slice(text) => self.slice(source, change.place, text),
            ChangeText::Node(text) => {
                need_alone("a change of a node")?;
                self.node(source, change.place, text)
            }
            ChangeText::Proxy(text) => {
                need_alone("stopping a proxy")?;
                self.proxy(source, change.place, text)
            }
            // It touches nothing that the API has, and needs addresses: the compiler's business.
            ChangeText::VirtualServer(_) => Ok(Applied::Quietly),
        }
    }

    fn endpoint(
        &mut self,
        source: &Source,
        place: Place,
        change: &EndpointChange,
    ) -> Result<Applied, CaseError> {
        let key = &change.endpoint;
        let Some((service, name)) = key.value.split_once('/') else {
            let message = format!("`{}` is not an endpoint: write SERVICE/ENDPOINT", key.value);
            return Err(CaseError::new(source, key.place, message));
        };
        if !self.services.contains_key(service) {
            return Err(no_service(source, key.place, service, &self.services));
        }
        let endpoints = self.endpoints.entry(service.to_owned()).or_default();
        match (&change.set, &change.add, change.remove) {
            (Some(set), None, None) => {
                if let Patch::Set(At { place, .. }) = &set.node {
                    return Err(CaseError::new(source, *place, "an endpoint cannot move")
                        .help("remove it, and add one of another name"));
                }
                let stands = [set.host_network != Patch::Keep, set.outside != Patch::Keep];
                if set.address != Patch::Keep || stands.contains(&true) {
                    let message = "the address of an endpoint cannot change";
                    return Err(CaseError::new(source, place, message)
                        .help("remove it, and add one of another name"));
                }
                match endpoints.get_mut(name) {
                    Some(text) => text.value.merge(set),
                    None => return Err(no_endpoint(source, key.place, service, name, endpoints)),
                }
            }
            (None, Some(add), None) => {
                if endpoints.contains_key(name) {
                    let message = format!("{} is there already", key.value);
                    return Err(CaseError::new(source, key.place, message));
                }
                endpoints.insert(name.to_owned(), At { value: add.clone(), place });
            }
            (None, None, Some(_)) => {
                if endpoints.remove(name).is_none() {
                    return Err(no_endpoint(source, key.place, service, name, endpoints));
                }
            }
            (Some(_) | None, Some(_) | None, Some(_) | None) => {
                return Err(one_of(source, place, "`set`, `add` or `remove`"));
            }
        }
        Ok(Applied::Quietly)
    }

    fn service(
        &mut self,
        source: &Source,
        place: Place,
        change: &ServiceChange,
    ) -> Result<Applied, CaseError> {
        let At { value: name, place: at } = &change.service;
        if change.endpoints.is_some() && change.create.is_none() {
            let message = "`endpoints` goes with `create`; use `endpoint:` changes otherwise";
            return Err(CaseError::new(source, place, message));
        }
        match (&change.set, change.delete, &change.create) {
            (Some(set), None, None) => match self.services.get_mut(name) {
                Some(text) => {
                    text.value.merge(set);
                    Ok(Applied::Quietly)
                }
                None => Err(no_service(source, *at, name, &self.services)),
            },
            (None, Some(_), None) => {
                if self.services.remove(name).is_none() {
                    return Err(no_service(source, *at, name, &self.services));
                }
                self.endpoints.remove(name);
                Ok(Applied::Boundary)
            }
            (None, None, Some(create)) => {
                if !crate::grammar::is_name(name) || name == "unallocated" {
                    let message = format!("`{name}` cannot name a Service");
                    return Err(CaseError::new(source, *at, message));
                }
                if self.services.contains_key(name) {
                    let message = format!("the Service `{name}` is there already");
                    return Err(CaseError::new(source, *at, message));
                }
                self.services.insert(name.clone(), At { value: create.clone(), place: *at });
                if let Some(endpoints) = &change.endpoints {
                    self.endpoints.insert(name.clone(), endpoints.clone());
                }
                Ok(Applied::Quietly)
            }
            (Some(_) | None, Some(_) | None, Some(_) | None) => {
                Err(one_of(source, place, "`set`, `delete` or `create`"))
            }
        }
    }

    fn slices(&mut self, source: &Source, change: &SlicesChange) -> Result<Applied, CaseError> {
        let At { value: service, place } = &change.slices;
        if self.endpoints.remove(service).is_some() {
            Ok(Applied::Boundary)
        } else {
            let message = format!("`{service}` has no slices");
            Err(CaseError::new(source, *place, message)
                .suggest(service, self.endpoints.keys().map(String::as_str)))
        }
    }

    fn slice(
        &mut self,
        source: &Source,
        place: Place,
        change: &SliceChange,
    ) -> Result<Applied, CaseError> {
        let At { value: name, place: at } = &change.slice;
        let unknown = |slices| {
            CaseError::new(source, *at, format!("there is no slice `{name}`"))
                .suggest(name, crate::raw::names(slices))
        };
        match (&change.set, change.delete, &change.create) {
            (Some(set), None, None) => match self.slices.get_mut(name) {
                Some(text) => text.value.merge(set),
                None => return Err(unknown(&self.slices)),
            },
            (None, Some(_), None) => {
                if self.slices.remove(name).is_none() {
                    return Err(unknown(&self.slices));
                }
            }
            (None, None, Some(create)) => {
                if !crate::grammar::is_name(name) {
                    let message = format!("`{name}` cannot name a slice");
                    return Err(CaseError::new(source, *at, message));
                }
                if self.slices.contains_key(name) {
                    let message = format!("the slice `{name}` is there already");
                    return Err(CaseError::new(source, *at, message));
                }
                self.slices.insert(name.clone(), At { value: create.clone(), place: *at });
            }
            (Some(_) | None, Some(_) | None, Some(_) | None) => {
                return Err(one_of(source, place, "`set`, `delete` or `create`"));
            }
        }
        Ok(Applied::Quietly)
    }

    fn node(
        &mut self,
        source: &Source,
        at: Place,
        change: &NodeChange,
    ) -> Result<Applied, CaseError> {
        let At { value: node, place } = &change.node;
        let set = match (&change.set, change.firewall) {
            (Some(set), None) => set,
            (None, Some(FirewallChange::Reload)) if self.nodes.contains_key(node) => {
                let change = Change::ReloadFirewall { node: node.clone() };
                return Ok(Applied::Do(Box::new(change)));
            }
            (None, Some(FirewallChange::Reload)) => return Err(self.no_node(source, *place, node)),
            (Some(_), Some(FirewallChange::Reload)) | (None, None) => {
                return Err(one_of(source, at, "`set` or `firewall`"));
            }
        };
        if *set == NodeText::default() {
            return Err(CaseError::new(source, *place, "`set` changes nothing"));
        }
        let Some(says) = self.nodes.get_mut(node) else {
            return Err(self.no_node(source, *place, node));
        };
        let NodeText { zone, labels, unschedulable, taints, ready } = set;
        match zone {
            Patch::Set(zone) => says.zone = Some(zone.clone()),
            Patch::Remove => says.zone = None,
            Patch::Keep => {}
        }
        says.labels.extend(labels.clone());
        says.unschedulable = unschedulable.unwrap_or(says.unschedulable);
        says.unready = ready.map_or(says.unready, |ready| !ready);
        if let Some(taints) = taints {
            says.taints.clone_from(taints);
        }
        Ok(Applied::Do(Box::new(Change::SetNode { node: node.clone(), says: says.clone() })))
    }

    fn proxy(
        &self,
        source: &Source,
        place: Place,
        change: &ProxyChange,
    ) -> Result<Applied, CaseError> {
        let At { value: node, place: at } = &change.proxy;
        if !self.nodes.contains_key(node) {
            return Err(self.no_node(source, *at, node));
        }
        let action = match (change.restart, change.stop, change.start, &change.refuses) {
            (Some(_), None, None, None) => ProxyAction::Restart,
            (None, Some(_), None, None) => ProxyAction::Stop,
            (None, None, Some(_), None) => ProxyAction::Start,
            (None, None, None, Some(wish)) => {
                let nodes: Vec<String> = self.nodes.keys().cloned().collect();
                wish.check(&nodes)
                    .map_err(|error| CaseError::new(source, place, error.to_string()))?;
                let (node, wish) = (node.clone(), Box::new(wish.clone()));
                return Ok(Applied::Do(Box::new(Change::ProxyRefuses { node, wish })));
            }
            (Some(_) | None, Some(_) | None, Some(_) | None, Some(_) | None) => {
                return Err(one_of(source, place, "`restart`, `stop`, `start` or `refuses`"));
            }
        };
        Ok(Applied::Do(Box::new(Change::Proxy { node: node.clone(), action })))
    }

    /// An endpoint of this moment.
    pub(crate) fn find(&self, service: &str, endpoint: &str) -> Option<&At<EndpointText>> {
        self.endpoints.get(service)?.get(endpoint)
    }

    pub(crate) fn no_node(&self, source: &Source, place: Place, node: &str) -> CaseError {
        CaseError::new(source, place, format!("there is no node `{node}`"))
            .suggest(node, self.nodes.keys().map(String::as_str))
    }
}

pub(crate) fn no_service<V>(
    source: &Source,
    place: Place,
    name: &str,
    known: &BTreeMap<String, V>,
) -> CaseError {
    CaseError::new(source, place, format!("there is no Service `{name}`"))
        .suggest(name, known.keys().map(String::as_str))
}

pub(crate) fn no_endpoint(
    source: &Source,
    place: Place,
    service: &str,
    name: &str,
    known: &EndpointsText,
) -> CaseError {
    CaseError::new(source, place, format!("{service} has no endpoint `{name}` in this step"))
        .suggest(name, known.keys().map(String::as_str))
}

fn one_of(source: &Source, place: Place, what: &str) -> CaseError {
    CaseError::new(source, place, format!("a change has exactly one of {what}"))
}

/// Conditions of an endpoint after the defaults of the format: ready, serving, terminating.
pub(crate) fn conditions(text: &EndpointText) -> (bool, bool, bool) {
    let terminating = text.terminating.get().copied().unwrap_or(false);
    let written = text.ready.get().copied();
    let serving = text.serving.get().copied().or(written).unwrap_or(true);
    (written.unwrap_or(serving && !terminating), serving, terminating)
}
