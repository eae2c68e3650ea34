//! What a cluster's proxies were told, in addresses: a wish with everything filled in.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::{DetectLocal, Family, NodeFacts, ProxyWish};

/// The range of IPv4 loopback addresses.
pub const LOOPBACK_V4: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8));
/// The word in `excludeCIDRs` for the ranges of external IPs.
const EXTERNAL_IPS: &str = "$externalIPs";
const LOOPBACK_V6: IpNet = IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128));
const ALL_V4: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0));
const ALL_V6: IpNet = IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0));

/// How the proxies of a cluster are configured, as far as it changes what clients see.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ProxySettings {
    /// How a proxy tells pods from other clients.
    pub detector: LocalDetector,
    /// Whether traffic to cluster IPs is masqueraded for everyone.
    pub masquerade_all: bool,
    /// Which node addresses accept node ports.
    pub node_port_addresses: NodePortAddresses,
    /// Whether node ports answer on loopback addresses; the subject's default when none.
    pub localhost_node_ports: Option<bool>,
    /// The cluster's Service ranges.
    pub service_cidrs: Vec<IpNet>,
}

/// How a proxy tells pods from other clients (`detectLocalMode`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LocalDetector {
    /// It cannot.
    #[default]
    None,
    /// Sources within these ranges are pods, wherever they run.
    ClusterCidr(Vec<IpNet>),
    /// Sources within the pod ranges of the proxy's own node are pods; by node.
    NodeCidr(BTreeMap<String, Vec<IpNet>>),
    /// Packets that arrive by one link are of pods: those with these addresses; by node.
    BridgeInterface(BTreeMap<String, Vec<IpAddr>>),
    /// Packets that arrive by links of pods are of pods: of all pods of the proxy's own node.
    InterfaceNamePrefix,
}

/// Which node addresses accept node ports (`nodePortAddresses`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodePortAddresses {
    /// The subject's default: at least the InternalIPs; others are the subject's choice.
    #[default]
    Default,
    /// The addresses in the Node object, one per family.
    Primary,
    /// Those inside these ranges. A family without a range is not limited.
    Ranges(Vec<IpNet>),
}

/// A wish that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct WishError(String);

impl ProxySettings {
    /// What the proxies of a cluster of these nodes and ranges are told.
    ///
    /// Words of the wish that mean nothing are left out; [`ProxyWish::check`] finds them.
    #[must_use]
    pub fn of(
        wish: &ProxyWish,
        nodes: &[NodeFacts],
        pod_cidrs: &[IpNet],
        service_cidrs: &[IpNet],
    ) -> ProxySettings {
        let detector = match wish.detect_local {
            None | Some(DetectLocal::ClusterCidr) => LocalDetector::ClusterCidr(pod_cidrs.to_vec()),
            Some(DetectLocal::NodeCidr) => LocalDetector::NodeCidr(
                nodes.iter().map(|node| (node.name.clone(), node.pod_cidrs.clone())).collect(),
            ),
            Some(DetectLocal::BridgeInterface) => LocalDetector::BridgeInterface(
                nodes
                    .iter()
                    .map(|node| (node.name.clone(), node.client.addresses.clone()))
                    .collect(),
            ),
            Some(DetectLocal::InterfaceNamePrefix) => LocalDetector::InterfaceNamePrefix,
            Some(DetectLocal::None) => LocalDetector::None,
        };
        ProxySettings {
            detector,
            masquerade_all: wish.masquerade_all == Some(true),
            node_port_addresses: node_port_addresses(wish, nodes),
            localhost_node_ports: wish.localhost_node_ports,
            service_cidrs: service_cidrs.to_vec(),
        }
    }
}

fn node_port_addresses(wish: &ProxyWish, nodes: &[NodeFacts]) -> NodePortAddresses {
    let Some(words) = &wish.node_port_addresses else { return NodePortAddresses::Default };
    if words.iter().all(|word| word == "primary") {
        return NodePortAddresses::Primary;
    }
    let ranges = words.iter().flat_map(|word| match word.as_str() {
        "primary" => hosts(nodes, true),
        "localhost" => vec![LOOPBACK_V4, LOOPBACK_V6],
        "all" => vec![ALL_V4, ALL_V6],
        word => ranges(word, nodes),
    });
    NodePortAddresses::Ranges(ranges.collect())
}

/// The ranges that a word of `nodePortAddresses` stands for.
fn ranges(word: &str, nodes: &[NodeFacts]) -> Vec<IpNet> {
    match (word, word.strip_prefix("$node.")) {
        ("$node", _) => hosts(nodes, true),
        ("$more", _) => hosts(nodes, false),
        (_, Some(name)) => hosts(nodes.iter().filter(|node| node.name == name), true),
        (range, None) => range.parse().into_iter().collect(),
    }
}

/// The InternalIPs of nodes, or all their other addresses.
fn hosts<'n>(nodes: impl IntoIterator<Item = &'n NodeFacts>, internal: bool) -> Vec<IpNet> {
    let of_node = |node: &'n NodeFacts| {
        node.addresses.iter().copied().filter(move |ip| {
            let family = Family::of(*ip);
            let first = node.addresses.iter().find(|ip| Family::of(**ip) == family);
            (first == Some(ip)) == internal
        })
    };
    nodes.into_iter().flat_map(of_node).map(IpNet::from).collect()
}

impl ProxyWish {
    /// `nodePortAddresses` as a proxy reads them: words stay, `$…` becomes the ranges that it
    /// stands for in a cluster of these nodes.
    #[must_use]
    pub fn node_port_words(&self, nodes: &[NodeFacts]) -> Option<Vec<String>> {
        let words = self.node_port_addresses.as_ref()?;
        let filled = words.iter().flat_map(|word| {
            if word.starts_with('$') {
                ranges(word, nodes).iter().map(ToString::to_string).collect()
            } else {
                vec![word.clone()]
            }
        });
        Some(filled.collect())
    }

    /// `excludeCIDRs` as ranges, in a cluster whose Services have external IPs of these ranges.
    #[must_use]
    pub fn excluded_ranges(&self, external_ips: &[IpNet]) -> Option<Vec<String>> {
        let filled = self.exclude_cidrs.as_ref()?.iter().flat_map(|word| match word.as_str() {
            EXTERNAL_IPS => external_ips.iter().map(ToString::to_string).collect(),
            range => vec![range.to_owned()],
        });
        Some(filled.collect())
    }

    /// Finds what makes no sense in clusters of any addresses.
    ///
    /// # Errors
    /// The first such thing, with the remedy.
    pub fn check(&self, nodes: &[String]) -> Result<(), WishError> {
        let wrong = |what: String| Err(WishError(what));
        if let Some(words) = &self.node_port_addresses {
            if words.is_empty() {
                return wrong("`nodePortAddresses` is empty; leave it out".to_owned());
            }
            for word in words {
                let known = match word.strip_prefix("$node.") {
                    Some(name) => nodes.iter().any(|node| node == name),
                    None => {
                        matches!(word.as_str(), "primary" | "localhost" | "all" | "$node" | "$more")
                            || word.parse::<IpNet>().is_ok()
                    }
                };
                if !known {
                    return wrong(format!(
                        "`{word}` in `nodePortAddresses` is neither a range, such as 10.0.0.0/8, \
                         nor primary, localhost, all, $node, $node.n1 or $more"
                    ));
                }
            }
        }
        for word in self.exclude_cidrs.iter().flatten() {
            if word != EXTERNAL_IPS && word.parse::<IpNet>().is_err() {
                return wrong(format!(
                    "`{word}` in `excludeCIDRs` is neither a range, such as 192.0.2.0/24, nor \
                     {EXTERNAL_IPS}"
                ));
            }
        }
        for (key, text) in [
            ("syncPeriod", &self.sync_period),
            ("minSyncPeriod", &self.min_sync_period),
            ("udpTimeout", &self.udp_timeout),
            ("tcpTimeout", &self.tcp_timeout),
            ("tcpFinTimeout", &self.tcp_fin_timeout),
        ] {
            if let Some(text) = text
                && !is_duration(text)
            {
                return wrong(format!(
                    "`{key}: {text}`: a duration is written `100ms`, `5s` or `2m`"
                ));
            }
        }
        Ok(())
    }
}

fn is_duration(text: &str) -> bool {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    number.parse::<u32>().is_ok_and(|number| number > 0) && matches!(unit, "ms" | "s" | "m")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ClusterFacts, ClusterShape};

    fn wish(words: &[&str]) -> ProxyWish {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        ProxyWish { node_port_addresses: Some(words), ..ProxyWish::default() }
    }

    fn facts(proxy: &ProxyWish) -> ClusterFacts {
        let mut shape = ClusterShape { proxy: proxy.clone(), ..ClusterShape::default() };
        shape.zones.truncate(2);
        ClusterFacts::planned(&shape)
    }

    fn check_words(words: &[&str], told: &str, means: &str) {
        let wish = wish(words);
        let facts = facts(&wish);
        assert_eq!(wish.node_port_words(&facts.nodes).unwrap_or_default().join(" "), told);
        let got = match facts.proxy.node_port_addresses {
            NodePortAddresses::Default => "default".to_owned(),
            NodePortAddresses::Primary => "primary".to_owned(),
            NodePortAddresses::Ranges(ranges) => {
                ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
            }
        };
        assert_eq!(got, means);
    }

    #[test]
    fn words_stand_for_ranges() {
        let n1 = "172.18.1.2/32 fd00:172:18:1::2/128";
        let both = format!("{n1} 172.18.2.2/32 fd00:172:18:2::2/128");
        check_words(&["primary"], "primary", "primary");
        check_words(&["$node"], &both, &both);
        check_words(&["$node.n1"], n1, n1);
        check_words(&["$more"], "", "");
        check_words(
            &["$node.n1", "127.0.0.0/8"],
            &format!("{n1} 127.0.0.0/8"),
            &format!("{n1} 127.0.0.0/8"),
        );
        check_words(&["all"], "all", "0.0.0.0/0 ::/0");
        check_words(
            &["primary", "localhost"],
            "primary localhost",
            &format!("{both} 127.0.0.0/8 ::1/128"),
        );
    }

    #[test]
    fn detectors_know_their_nodes() {
        let detector = |mode| {
            let wish = ProxyWish { detect_local: Some(mode), ..ProxyWish::default() };
            format!("{:?}", facts(&wish).proxy.detector)
        };
        assert_eq!(detector(DetectLocal::None), "None");
        assert_eq!(detector(DetectLocal::InterfaceNamePrefix), "InterfaceNamePrefix");
        assert_eq!(
            detector(DetectLocal::ClusterCidr),
            "ClusterCidr([10.244.0.0/16, fd00:10:244::/48])"
        );
        assert_eq!(
            detector(DetectLocal::NodeCidr),
            "NodeCidr({\"n1\": [10.244.1.0/24, fd00:10:244:1::/64], \
             \"n2\": [10.244.2.0/24, fd00:10:244:2::/64]})"
        );
        assert_eq!(
            detector(DetectLocal::BridgeInterface),
            "BridgeInterface({\"n1\": [10.244.1.10, fd00:10:244:1::10], \
             \"n2\": [10.244.2.10, fd00:10:244:2::10]})"
        );
    }

    #[test]
    fn nonsense_is_found() {
        let nodes = ["n1".to_owned()];
        let said = |wish: ProxyWish| wish.check(&nodes).map_err(|error| error.to_string());
        assert_eq!(said(wish(&["10.0.0.0/8", "$node", "$node.n1", "primary"])), Ok(()));
        for bad in ["10.0.0.1", "prim", "$nodes", "$node.n9"] {
            assert!(said(wish(&[bad])).is_err_and(|text| text.contains(bad)), "{bad}");
        }
        assert!(said(wish(&[])).is_err());
        let period = |text: &str| ProxyWish {
            min_sync_period: Some(text.to_owned()),
            ..ProxyWish::default()
        };
        assert_eq!(said(period("100ms")), Ok(()));
        let excluded = |word: &str| ProxyWish {
            exclude_cidrs: Some(vec![word.to_owned()]),
            ..ProxyWish::default()
        };
        assert_eq!(said(excluded("192.0.2.0/24")), Ok(()));
        assert_eq!(said(excluded("$externalIPs")), Ok(()));
        assert!(said(excluded("$externalIP")).is_err_and(|text| text.contains("$externalIP`")));
        for bad in ["5", "0s", "1h", "-1s", ""] {
            assert!(said(period(bad)).is_err_and(|text| text.contains("minSyncPeriod")), "{bad}");
        }
    }
}
