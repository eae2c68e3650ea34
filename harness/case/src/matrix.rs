//! The flows that nobody writes by hand: every vantage with every frontend.

use std::collections::BTreeSet;

use touchstone_spec::{Family, Feature, Flow, FrontendKind};

use crate::grammar::{Target, Vantage};
use crate::rows::Scene;
use crate::{CaseError, Place, Row};

/// Every vantage of the case with every frontend of its Services, without those flows that rows
/// name already, and without frontends for which the variant asks no feature.
///
/// Services that are gone and frontends that were taken away stay in: nothing must answer there.
/// A second outside client differs from the first only where source ranges do.
pub(crate) fn matrix(
    scene: &mut Scene<'_, '_>,
    rows: &[Row],
    features: &BTreeSet<Feature>,
) -> Result<Vec<Flow>, CaseError> {
    let has = |name: &str| features.iter().any(|feature| feature.name() == name);
    let kinds = [
        (FrontendKind::ClusterIp, true),
        (FrontendKind::NodePort, has("node-port")),
        (FrontendKind::ExternalIp, has("external-ips")),
        (FrontendKind::LoadBalancer, has("load-balancer")),
        (FrontendKind::HealthCheck, has("health-check-node-port")),
    ];
    let further = usize::from(scene.context.book.facts.network.more_node_addresses.unwrap_or(0));
    let mut targets = Vec::new();
    for service in scene.history.keys() {
        for (kind, wanted) in kinds {
            if wanted {
                for index in indexes(kind, further) {
                    let service = service.clone();
                    targets.push(Target::Frontend { service, kind, index, node: None, port: None });
                }
            }
        }
    }
    let outside =
        if has("source-ranges") { scene.outside.len() } else { scene.outside.len().min(1) };
    let mut vantages = vec![Vantage::Pod(None), Vantage::Node(None)];
    vantages.extend(scene.outside.iter().take(outside).cloned().map(Vantage::Outside));
    if scene.context.book.facts.neighbour.is_some() {
        vantages.push(Vantage::Neighbour);
    }
    for (service, endpoints) in &scene.state.endpoints {
        for (name, text) in endpoints {
            let own = text.value.address.get().is_none() && text.value.outside.get().is_none();
            if own && text.value.host_network.get() != Some(&true) {
                vantages.push(Vantage::Endpoint(service.clone(), name.clone()));
            }
        }
    }
    let mut seen: BTreeSet<_> = rows.iter().map(|row| packets(&row.flow)).collect();
    let mut flows = Vec::new();
    let families: &[Family] = scene.context.family.families();
    for family in families {
        for target in &targets {
            for goal in scene.goals(target, Place::default(), *family)? {
                for vantage in &vantages {
                    for flow in scene.from(vantage, &goal, Place::default(), *family)? {
                        if seen.insert(packets(&flow)) {
                            flows.push(flow);
                        }
                    }
                }
            }
        }
    }
    Ok(flows)
}

/// Indexes of the targets of one kind: every address of a Service, and each address of the nodes.
fn indexes(kind: FrontendKind, further: usize) -> Vec<Option<usize>> {
    match kind {
        FrontendKind::NodePort => std::iter::once(None).chain((1..=further).map(Some)).collect(),
        FrontendKind::ClusterIp
        | FrontendKind::ExternalIp
        | FrontendKind::LoadBalancer
        | FrontendKind::HealthCheck
        | FrontendKind::Direct
        | FrontendKind::Name
        | FrontendKind::Page
        | FrontendKind::Table
        | FrontendKind::Address => vec![None],
    }
}

/// What makes two flows the same packets.
fn packets(flow: &Flow) -> Flow {
    Flow { text: String::new(), frontend: FrontendKind::Address, ..flow.clone() }
}
