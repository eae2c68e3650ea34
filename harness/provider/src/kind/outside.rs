//! Clients on a cluster's network that are no nodes: containers whose source address chooses the
//! node by which their packets come in, as in the lab.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde_json::Value;
use touchstone_spec::ClientFacts;

use super::cluster::{KindCluster, LABEL, NETWORK};
use super::tools::ASKING;
use super::trouble::KindError;

/// Addresses of a client in each family: one for each node, and itself.
const BLOCK: u8 = 16;
/// As much of a block as nodes may use; the cluster files have fewer.
const NODES: usize = 14;

/// A client that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutsideClient {
    /// The address that its container has from docker, where whoever waits in it listens.
    pub address: IpAddr,
    /// What cases see of it.
    pub client: ClientFacts,
}

impl KindCluster {
    /// Starts a client by this name with these arguments, and gives it an address for each of these
    /// nodes by which its packets enter there; of a crowd, a whole range of them for each.
    ///
    /// # Errors
    /// When docker refuses it, or its network is too small.
    pub async fn outside_client(
        &self,
        name: &str,
        image: &str,
        args: &[&str],
        nodes: &[String],
        crowd: bool,
    ) -> Result<OutsideClient, KindError> {
        let container = format!("{}-{name}", self.name());
        let label = format!("{LABEL}={}", self.name());
        let mut run = vec!["run", "--detach", "--pull=never", "--network", NETWORK];
        run.extend(["--cap-drop", "ALL", "--read-only", "--label", &label]);
        run.extend(["--name", &container, image]);
        run.extend(args);
        self.docker(&format!("start {container}"), &run).await?;
        let own = self.addresses_of(&container).await?;
        let mut places = Vec::new();
        for node in nodes {
            places.push(self.addresses_of(node).await?);
        }
        let networks = ["network", "inspect", "--format", "{{json .IPAM.Config}}", NETWORK];
        let networks = subnets(&self.docker("ask for the network", &networks).await?);
        let plan =
            plan(name, &own, &places, &networks, crowd).ok_or_else(|| KindError::Refused {
                program: "docker",
                what: format!("give {container} addresses"),
                said: format!("its network {networks:?} has no room for them beside {own:?}"),
            })?;
        // A node's image has `ip`, the client's need not; and nobody keeps these rights.
        let first = nodes.first().map_or("", String::as_str);
        let inspect = ["inspect", "--format", "{{.Config.Image}}", first];
        let image = self.docker("ask for an image", &inspect).await?;
        let network = format!("container:{container}");
        let mut set = vec!["run", "--rm", "--pull=never", "--privileged", "--network", &network];
        let ranges = self.pod_ranges(nodes, &places).await?;
        set.extend(["--entrypoint", "bash", image.trim(), "-c", ENTER_BY_NODE, "bash", &ranges]);
        set.extend(plan.words.iter().map(String::as_str));
        self.docker(&format!("give {container} addresses"), &set).await?;
        if crowd {
            let back = plan.ways_back();
            for node in nodes {
                let args = ["exec", node, "bash", "-ec", &back];
                self.docker(&format!("lead {node} to {container}"), &args).await?;
            }
        }
        let address = own.first().copied().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        Ok(OutsideClient { address, client: plan.client })
    }

    /// Runs a script as root in the network of each client outside.
    pub(super) async fn in_outside_networks(
        &self,
        what: &str,
        script: &str,
    ) -> Result<(), KindError> {
        let label = format!("label={LABEL}={}", self.name());
        let list = ["ps", "--quiet", "--filter", &label];
        let clients = self.docker("list outside clients", &list).await?;
        let first = format!("{}-control-plane", self.name());
        let inspect = ["inspect", "--format", "{{.Config.Image}}", &first];
        let image = self.docker("ask for an image", &inspect).await?;
        for client in clients.split_whitespace() {
            let network = format!("container:{client}");
            let mut run =
                vec!["run", "--rm", "--pull=never", "--privileged", "--network", &network];
            run.extend(["--entrypoint", "bash", image.trim(), "-ec", script]);
            self.docker(&format!("{what} of {client}"), &run).await?;
        }
        Ok(())
    }

    /// The ranges of these nodes' pods, each with the address of its node.
    async fn pod_ranges(
        &self,
        nodes: &[String],
        places: &[Vec<IpAddr>],
    ) -> Result<String, KindError> {
        let mut ranges = Vec::new();
        for (node, addresses) in nodes.iter().zip(places) {
            let args = ["get", "node", node, "--output", "jsonpath={.spec.podCIDRs[*]}"];
            let listed = self.kubectl(ASKING, "ask for pod ranges", &args).await?;
            for range in listed.split_whitespace() {
                let of_family = |node: &&IpAddr| node.is_ipv6() == range.contains(':');
                ranges
                    .extend(addresses.iter().find(of_family).map(|node| format!("{range}={node}")));
            }
        }
        Ok(ranges.join(","))
    }

    pub(super) async fn addresses_of(&self, container: &str) -> Result<Vec<IpAddr>, KindError> {
        let format = "{{json .NetworkSettings.Networks}}";
        let inspect = ["inspect", "--format", format, container];
        Ok(addresses(&self.docker("ask for an address", &inspect).await?))
    }
}

/// Gives a client its addresses: for each node a table in which everything leads to that node, and
/// a rule that chooses it by the source address.
const ENTER_BY_NODE: &str = include_str!("enter-by-node");

/// Addresses of a client.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    client: ClientFacts,
    /// Number of a node, its address, the client's address, the network, the crowd's range or a
    /// hyphen; again and again.
    words: Vec<String>,
}

impl Plan {
    /// A script that leads a node to every crowd, by the address that enters by the same node.
    fn ways_back(&self) -> String {
        let mut text = String::new();
        for (ranges, addresses) in self.client.crowds.iter().zip(&self.client.addresses) {
            for range in ranges {
                let family = if range.addr().is_ipv4() { "-4" } else { "-6" };
                let of_family = |ip: &&IpAddr| ip.is_ipv4() == range.addr().is_ipv4();
                let Some(address) = addresses.iter().find(of_family) else { continue };
                // Writing to a string does not fail.
                let _ = writeln!(text, "ip {family} route replace {range} via {address} dev eth0");
            }
        }
        text
    }
}

/// Chooses addresses at the far end of docker's networks, where docker comes last, by the address
/// that docker has given to the container: so no two clients get the same.
fn plan(
    name: &str,
    own: &[IpAddr],
    nodes: &[Vec<IpAddr>],
    networks: &[IpNet],
    crowd: bool,
) -> Option<Plan> {
    if nodes.len() > NODES {
        return None;
    }
    let has = |range: &IpNet| own.iter().any(|own| own.is_ipv4() == range.addr().is_ipv4());
    let mut crowds = ClientFacts::planned_crowds(if crowd { nodes.len() } else { 0 });
    crowds.iter_mut().for_each(|ranges| ranges.retain(has));
    let mut client = ClientFacts {
        name: name.to_owned(),
        addresses: vec![Vec::new(); nodes.len()],
        cidrs: vec![],
        crowds,
    };
    let mut words = Vec::new();
    for own in own {
        let network = networks.iter().find(|network| network.contains(own))?;
        let block = block(*own, network)?;
        client.cidrs.push(block);
        for (number, node) in (1_u8..).zip(nodes) {
            let node = node.iter().find(|node| node.is_ipv4() == own.is_ipv4())?;
            let address = nth(block.addr(), number);
            let place = usize::from(number) - 1;
            client.addresses.get_mut(place)?.push(address);
            let mut ranges = client.crowds.get(place).into_iter().flatten();
            let range = ranges.find(|range| range.addr().is_ipv4() == own.is_ipv4());
            words.extend([
                number.to_string(),
                node.to_string(),
                address.to_string(),
                network.trunc().to_string(),
                range.map_or("-".to_owned(), ToString::to_string),
            ]);
        }
    }
    Some(Plan { client, words })
}

/// The block of a container, counted from the end of its network by its own number in there; none
/// where it would meet what docker gives out.
fn block(own: IpAddr, network: &IpNet) -> Option<IpNet> {
    match (own, network) {
        (IpAddr::V4(own), IpNet::V4(network)) => {
            let first = u32::from(network.network());
            let last = u32::from(network.broadcast());
            let number = u32::from(own) - first;
            let begin = (last + 1).checked_sub((number + 1).checked_mul(u32::from(BLOCK))?)?;
            // The lower half stays docker's.
            let room = begin > first + (last - first) / 2;
            let begin = IpAddr::V4(Ipv4Addr::from(begin));
            room.then(|| IpNet::new(begin, 28).ok()).flatten()
        }
        (IpAddr::V6(own), IpNet::V6(network)) => {
            let first = u128::from(network.network());
            let last = u128::from(network.broadcast());
            let number = u128::from(own) - first;
            let begin = (last + 1).checked_sub((number + 1).checked_mul(u128::from(BLOCK))?)?;
            let room = begin > first + (last - first) / 2;
            let begin = IpAddr::V6(Ipv6Addr::from(begin));
            room.then(|| IpNet::new(begin, 124).ok()).flatten()
        }
        _ => None,
    }
}

/// The address of that number in a block.
fn nth(block: IpAddr, number: u8) -> IpAddr {
    match block {
        IpAddr::V4(block) => Ipv4Addr::from(u32::from(block) + u32::from(number)).into(),
        IpAddr::V6(block) => Ipv6Addr::from(u128::from(block) + u128::from(number)).into(),
    }
}

/// Addresses in what docker says of a container's networks, IPv4 first.
fn addresses(networks: &str) -> Vec<IpAddr> {
    let networks: Value = serde_json::from_str(networks).unwrap_or_default();
    let of = |field: &str| networks[NETWORK][field].as_str().and_then(|text| text.parse().ok());
    ["IPAddress", "GlobalIPv6Address"].iter().filter_map(|field| of(field)).collect()
}

/// Ranges in what docker says of a network.
fn subnets(config: &str) -> Vec<IpNet> {
    let config: Value = serde_json::from_str(config).unwrap_or_default();
    let ranges = config.as_array().into_iter().flatten();
    ranges.filter_map(|range| range["Subnet"].as_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTAINER: &str =
        r#"{"kind":{"IPAddress":"172.18.0.4","GlobalIPv6Address":"fc00:f853:ccd:e793::4"}}"#;
    const RANGES: &str = r#"[{"Subnet":"172.18.0.0/16"},{"Subnet":"fc00:f853:ccd:e793::/64"}]"#;

    fn parsed(addresses: &[&str]) -> Vec<IpAddr> {
        addresses.iter().filter_map(|address| address.parse().ok()).collect()
    }

    #[test]
    fn a_client_enters_by_the_node_that_its_address_belongs_to() {
        let own = addresses(CONTAINER);
        assert_eq!(own, parsed(&["172.18.0.4", "fc00:f853:ccd:e793::4"]));
        let nodes = ["2", "3"]
            .map(|n| parsed(&[&format!("172.18.0.{n}"), &format!("fc00:f853:ccd:e793::{n}")]));
        let plan = plan("outside", &own, &nodes, &subnets(RANGES), false).expect("there is room");
        let cidrs: Vec<String> = plan.client.cidrs.iter().map(ToString::to_string).collect();
        assert_eq!(cidrs, ["172.18.255.176/28", "fc00:f853:ccd:e793:ffff:ffff:ffff:ffb0/124"]);
        assert_eq!(
            plan.client.addresses[1],
            parsed(&["172.18.255.178", "fc00:f853:ccd:e793:ffff:ffff:ffff:ffb2"])
        );
        assert_eq!(plan.words[..5], ["1", "172.18.0.2", "172.18.255.177", "172.18.0.0/16", "-"]);
        assert_eq!(plan.words.len(), 20);
    }

    #[test]
    fn clients_never_share_a_block_and_leave_docker_its_half() {
        let networks = subnets(RANGES);
        let of = |number: u8| block(IpAddr::V4([172, 18, 0, number].into()), &networks[0]);
        assert_ne!(of(4), of(5));
        assert_eq!(of(5).map(|block| block.to_string()).as_deref(), Some("172.18.255.160/28"));
        let small = subnets(r#"[{"Subnet":"172.18.0.0/26"}]"#);
        assert_eq!(block(IpAddr::V4([172, 18, 0, 4].into()), &small[0]), None);
    }

    #[test]
    fn a_network_of_one_family_gives_a_client_of_one() {
        let own = parsed(&["172.18.0.4"]);
        let nodes = [parsed(&["172.18.0.2"])];
        let plan = plan("outside", &own, &nodes, &subnets(RANGES), true).expect("there is room");
        assert_eq!(plan.client.cidrs.len(), 1);
        assert_eq!(plan.words[4..], ["100.64.1.0/24"]);
    }

    #[test]
    fn answers_to_a_crowd_go_where_its_packets_came_from() {
        let own = addresses(CONTAINER);
        let nodes = ["2", "3"]
            .map(|n| parsed(&[&format!("172.18.0.{n}"), &format!("fc00:f853:ccd:e793::{n}")]));
        let plan = plan("outside", &own, &nodes, &subnets(RANGES), true).expect("there is room");
        assert_eq!(plan.words[9], "100.64.2.0/24");
        assert_eq!(
            plan.ways_back().lines().collect::<Vec<_>>(),
            [
                "ip -4 route replace 100.64.1.0/24 via 172.18.255.177 dev eth0",
                "ip -6 route replace 2001:db8:65:1::/64 via fc00:f853:ccd:e793:ffff:ffff:ffff:ffb1 dev eth0",
                "ip -4 route replace 100.64.2.0/24 via 172.18.255.178 dev eth0",
                "ip -6 route replace 2001:db8:65:2::/64 via fc00:f853:ccd:e793:ffff:ffff:ffff:ffb2 dev eth0",
            ]
        );
    }
}
