//! The Service by which programs in a cluster find its API servers.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::api::Endpoint;
use crate::{Change, ClusterFacts, Family, PlainPort, PlainService, Protocol};

/// The Service `kubernetes` in the namespace `default`, which API servers keep by themselves: of
/// one family, and its endpoints are addresses of nodes, on a port other than the Service's.
///
/// Source: kubernetes `pkg/controlplane/controller/kubernetesservice`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiService {
    /// Its cluster IP, of the cluster's first family.
    pub address: IpAddr,
    /// Names of the nodes on which API servers listen, and where.
    pub servers: Vec<(String, IpAddr)>,
}

impl ApiService {
    /// Port of the Service.
    pub const PORT: u16 = 443;
    /// Port on which API servers listen.
    pub const TARGET_PORT: u16 = 6443;
    /// A path that every API server answers to everybody, with its release.
    pub const PATH: &str = "/version";
    const NAMESPACE: &str = "default";
    const NAME: &str = "kubernetes";

    /// By the address plan: the first address of the first Service range, and one API server, on
    /// the first node.
    pub(crate) fn planned(facts: &ClusterFacts) -> Option<ApiService> {
        let address = match facts.service_cidrs.first()?.network() {
            IpAddr::V4(ip) => IpAddr::V4((u32::from(ip) + 1).into()),
            IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) + 1).into()),
        };
        let node = facts.nodes.first()?;
        let of_family = |ip: &&IpAddr| Family::of(**ip) == Family::of(address);
        let server = *node.addresses.iter().find(of_family)?;
        Some(ApiService { address, servers: vec![(node.name.clone(), server)] })
    }

    /// The changes that make it.
    #[must_use]
    pub fn changes(&self) -> Vec<Change> {
        PlainService {
            namespace: Self::NAMESPACE,
            name: Self::NAME,
            ips: vec![self.address],
            ports: &[PlainPort {
                name: "https",
                protocol: Protocol::Tcp,
                port: Self::PORT,
                target_port: Self::TARGET_PORT,
            }],
        }
        .changes(|_| {
            // API servers say no node, as they know of none.
            let server = |(_, address): &(String, IpAddr)| Endpoint {
                addresses: vec![address.to_string()],
                ..Endpoint::default()
            };
            self.servers.iter().map(server).collect()
        })
    }
}
