//! kind's cluster files: the bundled ones, with the mode and the nodes of a run.

use touchstone_spec::Family;

/// Families of Services and pods.
const FILES: [(&[Family], &str); 3] = [
    (&[Family::V4], include_str!("../../../../kind-config/v4.yaml")),
    (&[Family::V6], include_str!("../../../../kind-config/v6.yaml")),
    (&[Family::V4, Family::V6], include_str!("../../../../kind-config/dual.yaml")),
];

/// The line of a file that says how kube-proxy forwards.
const MODE: &str = "  kubeProxyMode: ";
/// The line below which the nodes are.
const NODES: &str = "nodes:";

/// How kube-proxy forwards in a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyMode {
    /// `iptables`.
    Iptables,
    /// `ipvs`.
    Ipvs,
    /// `nftables`.
    Nftables,
    /// The cluster has no kube-proxy: a replacement comes with its manifests.
    None,
}

impl ProxyMode {
    /// The mode of that name; none where kube-proxy has no such mode on Linux.
    #[must_use]
    pub fn named(name: &str) -> Option<ProxyMode> {
        [ProxyMode::Iptables, ProxyMode::Ipvs, ProxyMode::Nftables, ProxyMode::None]
            .into_iter()
            .find(|mode| mode.name() == name)
    }

    /// Its name, as kube-proxy and kind write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ProxyMode::Iptables => "iptables",
            ProxyMode::Ipvs => "ipvs",
            ProxyMode::Nftables => "nftables",
            ProxyMode::None => "none",
        }
    }
}

/// Who makes the pods' interfaces of a cluster, and routes between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodNetwork {
    /// kind.
    Kind,
    /// What is put into the cluster afterwards; nodes are not ready before.
    Subject,
}

/// The cluster file for these families, the primary one first in a dual-stack cluster.
pub(super) fn file(
    families: &[Family],
    mode: ProxyMode,
    network: PodNetwork,
    nodes: usize,
) -> String {
    let dual = FILES[FILES.len() - 1];
    let (_, text) = FILES.into_iter().find(|(of, _)| *of == families).unwrap_or(dual);
    let mut file = String::new();
    for line in text.lines() {
        if line.starts_with(MODE) {
            file.push_str(MODE);
            file.push_str(mode.name());
            if network == PodNetwork::Subject {
                file.push_str("\n  disableDefaultCNI: true");
            }
        } else {
            file.push_str(line);
        }
        file.push('\n');
        if line == NODES {
            break;
        }
    }
    file.push_str("- role: control-plane\n");
    for _ in 1..nodes {
        file.push_str("- role: worker\n");
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bundled_file_is_a_cluster_of_two_nodes_in_iptables_mode() {
        for (families, text) in FILES {
            let one = |line: &dyn Fn(&str) -> bool| text.lines().filter(|text| line(text)).count();
            assert_eq!(one(&|line| line.starts_with(MODE)), 1, "{text}");
            assert_eq!(one(&|line| line == NODES), 1, "{text}");
            let made = file(families, ProxyMode::Iptables, PodNetwork::Kind, 2);
            let told = text.replace("  # or nftables, ipvs, none", "");
            assert_eq!(made, told, "what a run makes differs from the file");
        }
    }

    #[test]
    fn mode_families_and_nodes_are_as_asked() {
        let made = file(&[Family::V4, Family::V6], ProxyMode::Nftables, PodNetwork::Kind, 3);
        assert!(made.contains("\n  ipFamily: dual\n  kubeProxyMode: nftables\n"), "{made}");
        assert!(made.ends_with("nodes:\n- role: control-plane\n- role: worker\n- role: worker\n"));
        let made = file(&[Family::V6], ProxyMode::None, PodNetwork::Subject, 1);
        let said = "\n  ipFamily: ipv6\n  kubeProxyMode: none\n  disableDefaultCNI: true\n";
        assert!(made.contains(said), "{made}");
        assert!(made.ends_with("nodes:\n- role: control-plane\n"));
    }
}
