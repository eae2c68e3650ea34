//! Settings of a cluster's kube-proxy and of its nodes' networks, as cases ask for them.
//!
//! kube-proxy is told as its users tell it: by the ConfigMap and the DaemonSet of kube-system. What
//! is done to a node's network is done as root on the node.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;
use touchstone_spec::{
    ClusterFacts, ClusterShape, DetectLocal, Family, Firewall, IPVS_NEED, NETWORK_NEEDS,
    NetworkWish, NodeFacts, ProxyAction, ProxyWish, SCTP_NEED,
};

use super::cluster::KindCluster;
use super::config::ProxyMode;
use super::tools::ASKING;
use super::trouble::KindError;
use crate::ClusterError;
use crate::owners::{self, Ranges};
use crate::real::Keeper;

/// How long kube-proxy may take to come up on every node.
const ROLLOUT: Duration = Duration::from_secs(120);
/// Between two looks at a pod that is replaced.
const INTERVAL: Duration = Duration::from_millis(250);
/// The selector of kube-proxy's pods.
const PODS: &str = "--selector=k8s-app=kube-proxy";
const NAMESPACE: &str = "--namespace=kube-system";
/// How the names of links of pods begin on nodes, with the plug-ins that kind and our image use.
const LINKS_OF_PODS: &str = "veth";

/// Whoever started a cluster may change it.
pub struct KindKeeper {
    cluster: KindCluster,
    mode: ProxyMode,
    state: Mutex<State>,
}

/// What holds now.
#[derive(Default)]
struct State {
    /// kube-proxy's configuration as the cluster came with it.
    original: Option<Value>,
    /// The one that it has now.
    proxy: Option<Value>,
    /// What was done to each node.
    nodes: Vec<String>,
    /// MTU of the ways of clients outside, where one is wished.
    mtu: Option<u32>,
}

impl KindKeeper {
    /// The keeper of a cluster whose kube-proxy forwards in that mode.
    #[must_use]
    pub fn new(cluster: KindCluster, mode: ProxyMode) -> KindKeeper {
        KindKeeper { cluster, mode, state: Mutex::default() }
    }

    async fn configure(
        &self,
        state: &mut State,
        wish: &ProxyWish,
        facts: &ClusterFacts,
    ) -> Result<(), KindError> {
        if state.original.is_none() {
            if *wish == ProxyWish::default() {
                return Ok(());
            }
            let read = self.read_configuration().await?;
            state.proxy = Some(read.clone());
            state.original = Some(read);
        }
        let Some(original) = &state.original else { return Ok(()) };
        let wanted = configuration(original, wish, self.mode, facts);
        if state.proxy.as_ref() != Some(&wanted) {
            // Whatever happens from here on, nobody knows which one it has.
            state.proxy = None;
            self.write_configuration(&wanted).await?;
            state.proxy = Some(wanted);
        }
        Ok(())
    }

    async fn read_configuration(&self) -> Result<Value, KindError> {
        let what = "read the configuration of kube-proxy";
        let output = "--output=jsonpath={.data.config\\.conf}";
        let args = ["get", NAMESPACE, "configmap", "kube-proxy", output];
        let text = self.cluster.kubectl(ASKING, what, &args).await?;
        serde_saphyr::from_str(&text).map_err(|error| KindError::Refused {
            program: "kubectl",
            what: what.to_owned(),
            said: error.to_string(),
        })
    }

    /// Writes a configuration, has every kube-proxy start with it, and waits until they are up.
    async fn write_configuration(&self, wanted: &Value) -> Result<(), KindError> {
        let text = wanted.to_string();
        let map = json!({ "data": { "config.conf": text } }).to_string();
        let args = ["patch", NAMESPACE, "configmap", "kube-proxy", "--type=merge", "--patch", &map];
        self.cluster.kubectl(ASKING, "configure kube-proxy", &args).await?;
        let mut digest = String::new();
        for byte in Sha256::digest(&text).iter().take(8) {
            // Writing to a string does not fail.
            let _ = write!(digest, "{byte:02x}");
        }
        let set = json!({ "spec": {
            "updateStrategy": { "rollingUpdate": { "maxUnavailable": "100%" } },
            "template": { "metadata": { "annotations": { "touchstone/configuration": digest } } },
        } });
        let set = set.to_string();
        let args = ["patch", NAMESPACE, "daemonset", "kube-proxy", "--patch", &set];
        self.cluster.kubectl(ASKING, "restart kube-proxy", &args).await?;
        let timeout = format!("--timeout={}s", ROLLOUT.as_secs());
        let args = ["rollout", "status", NAMESPACE, "daemonset/kube-proxy", &timeout];
        let what = "wait for kube-proxy with other settings";
        self.cluster.kubectl(ROLLOUT + ASKING, what, &args).await.map(drop)
    }

    async fn on_node(&self, node: &str, what: &str, script: &str) -> Result<(), KindError> {
        let args = ["exec", node, "bash", "-ec", script];
        self.cluster.docker(&format!("{what} on {node}"), &args).await.map(drop)
    }

    /// Names of kube-proxy's pods on a node with whether each is ready.
    async fn pods_on(&self, node: &str) -> Result<Vec<(String, bool)>, KindError> {
        let of_node = format!("--field-selector=spec.nodeName={node}");
        let output = "--output=jsonpath={range .items[*]}{.metadata.name} \
                      {.status.conditions[?(@.type==\"Ready\")].status}{\"\\n\"}{end}";
        let args = ["get", NAMESPACE, "pods", PODS, &of_node, output];
        let listed = self.cluster.kubectl(ASKING, "look for kube-proxy", &args).await?;
        let pods = listed.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?.to_owned(), words.next() == Some("True")))
        });
        Ok(pods.collect())
    }

    /// Has a new process take the place of a node's kube-proxy, whatever state that is in.
    async fn replace(&self, node: &str) -> Result<(), KindError> {
        let before: Vec<String> =
            self.pods_on(node).await?.into_iter().map(|(name, _)| name).collect();
        let mut args = vec!["delete", NAMESPACE, "pod", "--grace-period=1", "--wait=true"];
        args.extend(before.iter().map(String::as_str));
        self.cluster.kubectl(ROLLOUT, &format!("end kube-proxy on {node}"), &args).await?;
        let began = Instant::now();
        let mut tick = tokio::time::interval(INTERVAL);
        loop {
            tick.tick().await;
            let pods = self.pods_on(node).await?;
            if pods.iter().any(|(name, ready)| *ready && !before.contains(name)) {
                return Ok(());
            }
            if began.elapsed() > ROLLOUT {
                return Err(KindError::NotReady {
                    cluster: self.cluster.name().to_owned(),
                    what: format!("kube-proxy did not come back on {node}"),
                    seconds: ROLLOUT.as_secs(),
                    said: format!("{pods:?}"),
                });
            }
        }
    }
}

#[async_trait]
impl Keeper for KindKeeper {
    fn provides(&self) -> BTreeSet<String> {
        let of_kernel = |need: &&str| *need == SCTP_NEED || *need == IPVS_NEED;
        let needs = NETWORK_NEEDS.into_iter().filter(|need| !of_kernel(need));
        // How somebody else's proxy is restarted, only they know.
        let restart = (self.mode != ProxyMode::None).then_some("restart");
        needs.chain(restart).chain(["clients", "servers", "cordon"]).map(str::to_owned).collect()
    }

    fn lacks(&self, shape: &ClusterShape) -> Option<String> {
        let ClusterShape { zones: _, outside: _, dns: _, proxy, network } = shape;
        if self.mode == ProxyMode::None && *proxy != ProxyWish::default() {
            return Some("the settings of a proxy that somebody else has put in".to_owned());
        }
        if proxy.detect_local == Some(DetectLocal::BridgeInterface) {
            return Some("only the lab has one name for a link of pods on all nodes".to_owned());
        }
        let given =
            NetworkWish { only: None, nodes_joined: None, iptables: None, ..network.clone() };
        let drops = |owner: &Firewall| match owner {
            Firewall::ForwardDrop | Firewall::InputDrop => true,
            Firewall::SecondPostrouting | Firewall::Policy => false,
        };
        if *network != given || network.firewall.iter().any(drops) {
            return Some("only the lab sets how nodes are made and joined".to_owned());
        }
        None
    }

    async fn settle(
        &self,
        shape: &ClusterShape,
        facts: &ClusterFacts,
        nodes: &[String],
    ) -> Result<(), ClusterError> {
        let failed = |error: KindError| {
            ClusterError::new("failed to give the cluster the settings of a case", error)
        };
        let mut state = self.state.lock().await;
        state.nodes.resize(nodes.len(), String::new());
        for (number, (node, own)) in nodes.iter().zip(&facts.nodes).enumerate() {
            let wanted = script(&shape.network, facts, own, number);
            let plain = script(&NetworkWish::default(), facts, own, number);
            let Some(done) = state.nodes.get_mut(number) else { continue };
            if *done == wanted || (done.is_empty() && wanted == plain) {
                continue;
            }
            self.on_node(node, "set up the network", &wanted).await.map_err(failed)?;
            *done = wanted;
        }
        if state.mtu != shape.network.mtu {
            let ways = ways_of_clients(shape.network.mtu);
            self.cluster.in_outside_networks("set the MTU", &ways).await.map_err(failed)?;
            state.mtu = shape.network.mtu;
        }
        self.configure(&mut state, &shape.proxy, facts).await.map_err(failed)
    }

    /// A proxy that is stopped is frozen: nothing is left of it but its rules, and its pod stays, or
    /// the cluster would make another one.
    async fn act(&self, node: &str, action: ProxyAction) -> Result<(), ClusterError> {
        let done = match action {
            ProxyAction::Stop => {
                let freeze = "pkill -STOP -x kube-proxy";
                self.on_node(node, "stop kube-proxy", freeze).await
            }
            ProxyAction::Start | ProxyAction::Restart => self.replace(node).await,
        };
        done.map_err(|error| ClusterError::new(format!("failed to act on {node}"), error))
    }
}

/// kube-proxy's configuration with what a case wishes; all else is as the cluster came with it.
fn configuration(
    original: &Value,
    wish: &ProxyWish,
    mode: ProxyMode,
    facts: &ClusterFacts,
) -> Value {
    let ProxyWish {
        node_port_addresses: _,
        detect_local,
        masquerade_all,
        localhost_node_ports,
        sync_period,
        min_sync_period,
        scheduler,
        strict_arp,
        udp_timeout,
        tcp_timeout,
        tcp_fin_timeout,
        exclude_cidrs: _,
    } = wish;
    let mut config = original.clone();
    if let Some(words) = wish.node_port_words(&facts.nodes) {
        config["nodePortAddresses"] = json!(words);
    }
    match detect_local {
        None => {}
        Some(DetectLocal::ClusterCidr) => config["detectLocalMode"] = json!("ClusterCIDR"),
        Some(DetectLocal::NodeCidr) => config["detectLocalMode"] = json!("NodeCIDR"),
        Some(DetectLocal::BridgeInterface) => config["detectLocalMode"] = json!("BridgeInterface"),
        Some(DetectLocal::InterfaceNamePrefix) => {
            config["detectLocalMode"] = json!("InterfaceNamePrefix");
            config["detectLocal"] =
                json!({ "bridgeInterface": "", "interfaceNamePrefix": LINKS_OF_PODS });
        }
        // There is no word for it: without ranges the mode ClusterCIDR knows no pods.
        Some(DetectLocal::None) => {
            config["detectLocalMode"] = json!("");
            config["clusterCIDR"] = json!("");
        }
    }
    let section = mode.name();
    let mut set = |section: &str, key: &str, value: Option<Value>| {
        if let Some(value) = value {
            config[section][key] = value;
        }
    };
    // In ipvs mode the rules that masquerade are those of iptables.
    let rules = if mode == ProxyMode::Ipvs { ProxyMode::Iptables.name() } else { section };
    set(rules, "masqueradeAll", masquerade_all.map(|on| json!(on)));
    set(section, "localhostNodePorts", localhost_node_ports.map(|on| json!(on)));
    set(section, "syncPeriod", sync_period.as_ref().map(|period| json!(period)));
    set(section, "minSyncPeriod", min_sync_period.as_ref().map(|period| json!(period)));
    set(section, "scheduler", scheduler.as_ref().map(|name| json!(name)));
    set(section, "strictARP", strict_arp.map(|on| json!(on)));
    let timeouts = [
        ("udpTimeout", udp_timeout),
        ("tcpTimeout", tcp_timeout),
        ("tcpFinTimeout", tcp_fin_timeout),
    ];
    for (key, timeout) in timeouts {
        set(section, key, timeout.as_ref().map(|timeout| json!(timeout)));
    }
    let excluded = wish.excluded_ranges(&facts.external_ip_cidrs);
    set(section, "excludeCIDRs", excluded.map(|ranges| json!(ranges)));
    config
}

/// What gives a node the network that is wished, and takes away what another wish has made.
fn script(wish: &NetworkWish, facts: &ClusterFacts, node: &NodeFacts, number: usize) -> String {
    let families = ranges(facts, node);
    let mut text = format!("nft -f - <<'END'\n{}", owners::none());
    for table in owners::tables(wish, &families) {
        text.push_str(&table);
    }
    text.push_str("END\n");
    text.push_str(&ways_of_node(wish.mtu, facts, node));
    let offloads = if wish.offloads == Some(false) { "off" } else { "on" };
    let _ = write!(
        text,
        "for link in eth0 $(ls /sys/class/net | grep ^{LINKS_OF_PODS}); do
            ethtool -K $link tx {offloads} sg {offloads} tso {offloads} gso {offloads} gro {offloads} \
                >/dev/null 2>&1 || [ {offloads} = on ]
        done\n"
    );
    // A label marks our addresses of IPv4; of IPv6 it is their place at the end of the network.
    let more = wish.more_node_addresses.unwrap_or(0);
    let _ = write!(
        text,
        "ip -4 address flush dev eth0 label eth0:more
        old=$(ip -6 address show dev eth0 | grep -o '[0-9a-f:]*:7057:[0-9a-f]*/64' || true)
        for address in $old; do ip address delete $address dev eth0; done
        four=$(ip -4 -o address show dev eth0 scope global primary | awk '{{ print $4; exit }}')
        six=$(ip -6 -o address show dev eth0 scope global | awk '{{ print $4; exit }}')
        for index in $(seq 1 {more}); do
            if [ -n \"$four\" ]; then
                IFS=./ read -r a b _ <<<\"$four\"
                ip address add $a.$b.250.$(({number} * 16 + index))/16 dev eth0 label eth0:more
            fi
            if [ -n \"$six\" ]; then
                ip address add ${{six%::*}}::7057:$(printf %x $(({number} * 16 + index)))/64 dev eth0 nodad
            fi
        done\n"
    );
    text
}

/// Gives the routes of a table that another MTU leads over, or none. With a lock, forwarded packets
/// of IPv6 are told of it too; IPv4 needs none, and would not look for smaller ones any more.
const SET_MTU: &str = "
    set_mtu() {
        local family=$1 table=$2 pattern=$3 mtu=$4 route
        [ $family = -4 ] || mtu=${mtu/mtu/mtu lock}
        ip $family route show table $table dev eth0 2>/dev/null | { grep \"$pattern\" || true; } |
            sed 's/ mtu \\(lock \\)\\?[0-9]*//' |
            while read -r route; do ip $family route replace $route dev eth0 table $table $mtu; done
    }\n";

/// What has a client outside send no larger packets than that; as many as fit where none is said.
fn ways_of_clients(mtu: Option<u32>) -> String {
    let mtu = mtu.map(|mtu| format!("mtu {mtu}")).unwrap_or_default();
    format!(
        "{SET_MTU}for table in $(seq 101 114); do
            set_mtu -4 $table . '{mtu}'
            set_mtu -6 $table . '{mtu}'
        done\n"
    )
}

/// What has a node send no larger packets than that to other nodes, their pods and clients outside.
/// The link's own MTU stays: connections that stand would break, those to agents among them.
fn ways_of_node(mtu: Option<u32>, facts: &ClusterFacts, node: &NodeFacts) -> String {
    let others = facts.nodes.iter().filter(|other| other.name != node.name);
    let nodes = others.flat_map(|other| &other.addresses).map(|ip| ipnet::IpNet::from(*ip));
    let clients = facts.outside.iter().chain(&facts.balancer).flat_map(|client| &client.cidrs);
    let mut text = SET_MTU.to_owned();
    let words = mtu.map(|mtu| format!("mtu {mtu}")).unwrap_or_default();
    for peer in nodes.chain(clients.copied()) {
        let (family, lock) = if peer.addr().is_ipv4() { ("-4", "") } else { ("-6", "lock ") };
        // Writing to a string does not fail.
        let _ = match mtu {
            Some(mtu) => writeln!(
                text,
                "ip {family} route replace {peer} dev eth0 table main mtu {lock}{mtu}"
            ),
            None => writeln!(
                text,
                "ip {family} route delete {peer} dev eth0 table main 2>/dev/null || true"
            ),
        };
    }
    let _ = writeln!(
        text,
        "set_mtu -4 main '^[0-9].* via ' '{words}'\nset_mtu -6 main '^[0-9a-f:/]* via ' '{words}'"
    );
    text
}

/// The addresses of each family that the nodes have.
fn ranges(facts: &ClusterFacts, node: &NodeFacts) -> Vec<Ranges> {
    let of = |ranges: &[ipnet::IpNet], family: Family| {
        let of_family = ranges.iter().filter(|range| Family::of(range.addr()) == family);
        of_family.map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    let services: Vec<ipnet::IpNet> =
        [&facts.service_cidrs, &facts.load_balancer_cidrs, &facts.external_ip_cidrs]
            .into_iter()
            .flatten()
            .copied()
            .collect();
    let nodes = |family: Family| {
        let addresses = facts.nodes.iter().flat_map(|node| &node.addresses);
        let of_family = addresses.filter(|address| Family::of(**address) == family);
        of_family.map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    Family::BOTH
        .into_iter()
        .map(|family| Ranges {
            word: match family {
                Family::V4 => "ip",
                Family::V6 => "ip6",
            },
            own_pods: of(&node.pod_cidrs, family),
            pods: of(&facts.pod_cidrs, family),
            nodes: nodes(family),
            services: of(&services, family),
        })
        .filter(|ranges| !ranges.own_pods.is_empty() && !ranges.services.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn original() -> Value {
        json!({
            "mode": "iptables", "clusterCIDR": "10.244.0.0/16", "detectLocalMode": "",
            "iptables": { "masqueradeAll": false, "minSyncPeriod": "0s" },
        })
    }

    fn planned() -> ClusterFacts {
        ClusterFacts::planned(&ClusterShape::default())
    }

    #[test]
    fn only_what_is_wished_differs() {
        let wish = ProxyWish { masquerade_all: Some(true), ..ProxyWish::default() };
        let config = configuration(&original(), &wish, ProxyMode::Iptables, &planned());
        let mut wanted = original();
        wanted["iptables"]["masqueradeAll"] = json!(true);
        assert_eq!(config, wanted);
        let plain =
            configuration(&original(), &ProxyWish::default(), ProxyMode::Iptables, &planned());
        assert_eq!(plain, original());
    }

    #[test]
    fn who_knows_no_pods_has_no_ranges() {
        let wish = ProxyWish { detect_local: Some(DetectLocal::None), ..ProxyWish::default() };
        let config = configuration(&original(), &wish, ProxyMode::Iptables, &planned());
        assert_eq!((&config["clusterCIDR"], &config["detectLocalMode"]), (&json!(""), &json!("")));
    }

    #[test]
    fn a_network_that_nobody_wishes_has_no_rules_of_others() {
        let facts = ClusterFacts::planned(&ClusterShape::default());
        let node = &facts.nodes[0];
        let plain = script(&NetworkWish::default(), &facts, node, 0);
        assert!(!plain.contains(" masquerade\n"), "{plain}");
        let wish = NetworkWish {
            firewall: vec![Firewall::SecondPostrouting],
            more_node_addresses: Some(2),
            ..NetworkWish::default()
        };
        let more = script(&wish, &facts, node, 0);
        assert!(more.contains("seq 1 2") && more.contains(" masquerade\n"), "{more}");
    }
}
