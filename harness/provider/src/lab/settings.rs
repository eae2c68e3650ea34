//! What a case asks of the proxies' configuration, in the lab's own names and addresses.

use touchstone_netlab::POD_LINK_PREFIX;
use touchstone_spec::{ClusterFacts, DetectLocal, ProxyWish};
use touchstone_subject::ProxyFacts;

use super::places::Places;
use crate::ClusterError;

/// What the proxy of one node is told.
///
/// Pods of the lab are routed, so there is no bridge to name. The setting is about the link by
/// which packets arrive, so the link of the node's client pod stands for a bridge with that one
/// pod behind it; all other pods are behind other links.
///
/// # Errors
/// When the lab does not have what the setting names.
pub(super) fn told(
    wish: &ProxyWish,
    node: &str,
    facts: &ClusterFacts,
    places: &Places,
) -> Result<ProxyFacts, ClusterError> {
    let failed = |why: String| {
        ClusterError::new(format!("failed to configure the proxy of {node} as the case asks"), why)
    };
    let node_port_addresses = wish.node_port_words(&facts.nodes);
    if node_port_addresses.as_ref().is_some_and(Vec::is_empty) {
        let why = "its nodePortAddresses stand for no address here; `$more` needs nodes with \
                   further addresses (`network: { moreNodeAddresses: 1 }`)";
        return Err(failed(why.to_owned()));
    }
    let (mut bridge_interface, mut interface_name_prefix) = (None, None);
    match wish.detect_local {
        Some(DetectLocal::BridgeInterface) => {
            let client = facts.nodes.iter().find(|known| known.name == node);
            let link = client.and_then(|known| places.link(&known.client.place));
            let link = link.ok_or_else(|| failed("its client pod has no link".to_owned()))?;
            bridge_interface = Some(link);
        }
        Some(DetectLocal::InterfaceNamePrefix) => {
            interface_name_prefix = Some(POD_LINK_PREFIX.to_owned());
        }
        Some(DetectLocal::ClusterCidr | DetectLocal::NodeCidr | DetectLocal::None) | None => {}
    }
    Ok(ProxyFacts {
        node_port_addresses,
        detect_local: wish.detect_local,
        bridge_interface,
        interface_name_prefix,
        masquerade_all: wish.masquerade_all,
        localhost_node_ports: wish.localhost_node_ports,
        sync_period: wish.sync_period.clone(),
        min_sync_period: wish.min_sync_period.clone(),
        scheduler: wish.scheduler.clone(),
        strict_arp: wish.strict_arp,
        udp_timeout: wish.udp_timeout.clone(),
        tcp_timeout: wish.tcp_timeout.clone(),
        tcp_fin_timeout: wish.tcp_fin_timeout.clone(),
        exclude_cidrs: wish.excluded_ranges(&facts.external_ip_cidrs),
    })
}
