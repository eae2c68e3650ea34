//! Which endpoints a Service port may use: slices, conditions, policies, hints.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use touchstone_spec::api::{
    Conditions, HEADLESS_LABEL, Hints, Service, ServicePort, TrafficPolicy,
};
use touchstone_spec::{Family, Node, Reason, World};

/// An endpoint as one Service port and family sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend<'w> {
    /// Its own address and port.
    pub address: SocketAddr,
    /// Node on which it runs; without one it is local nowhere.
    pub node: Option<&'w str>,
    /// Conditions.
    pub conditions: Conditions,
    /// Hints.
    pub hints: Option<&'w Hints>,
}

impl Backend<'_> {
    fn is_ready(&self) -> bool {
        self.conditions.is_ready()
    }

    fn is_fallback(&self) -> bool {
        self.conditions.is_serving() && self.conditions.is_terminating()
    }

    fn hinted_for_zone(&self, zone: &str) -> bool {
        self.hints.is_some_and(|hints| hints.for_zones.iter().any(|z| z.name == zone))
    }

    fn hinted_for_node(&self, node: &str) -> bool {
        self.hints.is_some_and(|hints| hints.for_nodes.iter().any(|n| n.name == node))
    }
}

/// All endpoints of a Service port in one family, by address: every slice whose label names the
/// Service, whose address type is the family's, and whose ports have the name and protocol.
///
/// Spec: EndpointSlice API (`addresses` beyond the first are not used by proxies; a port without
/// a name or number does not count, nor does an address of another family than the slice's).
/// Where an address occurs twice, the entry that is not
/// terminating wins. The label of another proxy means something on a Service alone (adjudication
/// 0062).
#[must_use]
pub fn backends<'w>(
    world: &'w World,
    service: &Service,
    port: &ServicePort,
    family: Family,
) -> Vec<Backend<'w>> {
    let key = service.key();
    let mut found: BTreeMap<SocketAddr, Backend<'w>> = BTreeMap::new();
    let slices = world
        .slices
        .iter()
        .filter(|slice| slice.address_type == family.api_name())
        .filter(|slice| slice.service_key().as_ref() == Some(&key))
        .filter(|slice| !slice.metadata.labels.contains_key(HEADLESS_LABEL));
    for slice in slices {
        let numbers = slice
            .ports
            .iter()
            .filter(|p| p.name.as_ref() == Some(&port.name) && p.protocol == port.transport())
            .filter_map(|p| p.port)
            .filter(|number| *number != 0);
        for number in numbers {
            for endpoint in &slice.endpoints {
                let ip = endpoint.addresses.first().and_then(|text| address(text));
                let Some(ip) = ip.filter(|ip| Family::of(*ip) == family) else {
                    continue;
                };
                let address = SocketAddr::new(ip, number);
                let backend = Backend {
                    address,
                    node: endpoint.node_name.as_deref(),
                    conditions: endpoint.conditions,
                    hints: endpoint.hints.as_ref(),
                };
                let known = found.get(&address);
                if known.is_none_or(|known| known.conditions.is_terminating()) {
                    found.insert(address, backend);
                }
            }
        }
    }
    found.into_values().collect()
}

/// The address that a slice means: leading zeros of IPv4 addresses are decimal, as in the days
/// when the API server still let them in.
pub(crate) fn address(text: &str) -> Option<IpAddr> {
    let octet = |part: &str| {
        let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        part.parse::<u8>().ok().filter(|_| digits)
    };
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(ip);
    }
    let octets: Vec<u8> = text.split('.').map(octet).collect::<Option<_>>()?;
    <[u8; 4]>::try_from(octets).ok().map(IpAddr::from)
}

/// The endpoints one packet may go to.
pub(crate) struct Choice {
    /// The endpoints, in order.
    pub(crate) addresses: Vec<SocketAddr>,
    /// Whether the Service port has a usable endpoint anywhere.
    pub(crate) any_anywhere: bool,
    /// Why these.
    pub(crate) reasons: Vec<Reason>,
}

/// Chooses by policy, conditions and hints for a packet handled on `node`.
///
/// Spec: `internalTrafficPolicy`, `externalTrafficPolicy`; KEP-1669 for the fallback to serving
/// terminating endpoints; KEP-2433 and KEP-3015 for hints.
pub(crate) fn choose(all: &[Backend<'_>], policy: TrafficPolicy, node: &Node) -> Choice {
    let any_anywhere = all.iter().any(|b| b.is_ready() || b.is_fallback());
    let mut reasons = Vec::new();
    let scope: Vec<&Backend<'_>> = match policy {
        TrafficPolicy::Cluster => all.iter().collect(),
        TrafficPolicy::Local => all.iter().filter(|b| b.node == Some(node.name.as_str())).collect(),
    };
    let ready: Vec<&Backend<'_>> = scope.iter().copied().filter(|b| b.is_ready()).collect();
    let chosen = if ready.is_empty() {
        let fallback: Vec<&Backend<'_>> =
            scope.iter().copied().filter(|b| b.is_fallback()).collect();
        if !fallback.is_empty() {
            reasons.push(reason(
                "no ready endpoint in scope: serving terminating ones are used",
                "KEP-1669",
            ));
        }
        fallback
    } else {
        match policy {
            TrafficPolicy::Local => ready,
            TrafficPolicy::Cluster => hinted(ready, node, &mut reasons),
        }
    };
    if policy == TrafficPolicy::Local {
        reasons.push(reason(
            &format!(
                "policy Local: {} of the endpoints on {} may be used",
                chosen.len(),
                node.name
            ),
            "v1.Service internalTrafficPolicy / externalTrafficPolicy",
        ));
    }
    let mut addresses: Vec<SocketAddr> = chosen.iter().map(|b| b.address).collect();
    addresses.sort_unstable();
    Choice { addresses, any_anywhere, reasons }
}

/// Narrows ready endpoints by topology hints: node hints first, then zone hints, else all.
fn hinted<'b, 'w>(
    ready: Vec<&'b Backend<'w>>,
    node: &Node,
    reasons: &mut Vec<Reason>,
) -> Vec<&'b Backend<'w>> {
    let every = |has: fn(&Hints) -> bool| ready.iter().all(|b| b.hints.is_some_and(has));
    if every(|h| !h.for_nodes.is_empty()) {
        let mine: Vec<_> =
            ready.iter().copied().filter(|b| b.hinted_for_node(&node.name)).collect();
        if !mine.is_empty() {
            reasons.push(reason(
                &format!(
                    "every ready endpoint has a node hint and {} name {}",
                    mine.len(),
                    node.name
                ),
                "KEP-3015",
            ));
            return mine;
        }
    }
    if every(|h| !h.for_zones.is_empty()) {
        if let Some(zone) = &node.zone {
            let mine: Vec<_> = ready.iter().copied().filter(|b| b.hinted_for_zone(zone)).collect();
            if !mine.is_empty() {
                reasons.push(reason(
                    &format!(
                        "every ready endpoint has a zone hint and {} name zone {zone}",
                        mine.len()
                    ),
                    "KEP-2433",
                ));
                return mine;
            }
            reasons.push(reason(
                &format!("no ready endpoint is hinted for zone {zone}: all are used"),
                "KEP-2433",
            ));
        } else {
            reasons.push(reason(
                &format!("{} has no zone: zone hints are not used", node.name),
                "KEP-2433",
            ));
        }
    } else if ready.iter().any(|b| b.hints.is_some_and(|h| !h.for_zones.is_empty())) {
        reasons.push(reason(
            "not every ready endpoint has a zone hint: hints are not used",
            "KEP-2433",
        ));
    }
    ready
}

pub(crate) fn reason(text: &str, source: &str) -> Reason {
    Reason { text: text.to_owned(), source: source.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leading_zeros_are_decimal() {
        let show = |text: &str| address(text).map(|ip| ip.to_string());
        assert_eq!(show("010.001.000.012").as_deref(), Some("10.1.0.12"));
        assert_eq!(show("fd00:0000::000a").as_deref(), Some("fd00::a"));
        for bad in ["10.1.0", "10.1.0.256", "10.1.0.+1", "10.1.0.1.2", "web.example", ""] {
            assert_eq!(show(bad), None, "{bad}");
        }
    }
}
