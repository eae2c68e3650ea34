//! What the networks of others change about answers: text in, text out.

use std::net::{IpAddr, SocketAddr};

use touchstone_model::expect;
use touchstone_spec::api::{
    Endpoint, EndpointPort, EndpointSlice, LoadBalancerIngress, Meta, SERVICE_NAME_LABEL, Service,
    ServicePort, ServiceSpec, ServiceType, TrafficPolicy,
};
use touchstone_spec::{
    Allowed, Client, ClientKind, ClusterFacts, ClusterShape, Family, Feature, Features, Firewall,
    Flow, FrontendKind, LoadBalancers, NetworkWish, Node, PodsToNodes, Protocol, World,
};

const NODE_PORT: u16 = 30_080;
const HEALTH_PORT: u16 = 30_090;

/// A load balancer under this policy with endpoint a on n1 and b on n2, in this network.
fn world(policy: TrafficPolicy, network: NetworkWish) -> World {
    let facts = ClusterFacts::planned(&ClusterShape { network, ..ClusterShape::default() });
    let meta = |name: &str| Meta {
        name: name.to_owned(),
        namespace: "test".to_owned(),
        labels: [(SERVICE_NAME_LABEL.to_owned(), "web".to_owned())].into(),
        annotations: [].into(),
    };
    let mut service = Service {
        metadata: Meta { labels: [].into(), ..meta("web") },
        spec: ServiceSpec {
            service_type: ServiceType::LoadBalancer,
            cluster_ip: Some("10.96.0.16".to_owned()),
            cluster_ips: vec!["10.96.0.16".to_owned()],
            ports: vec![ServicePort {
                protocol: Some(Protocol::Tcp),
                port: 80,
                node_port: Some(NODE_PORT),
                ..ServicePort::default()
            }],
            external_traffic_policy: Some(policy),
            health_check_node_port: (policy == TrafficPolicy::Local).then_some(HEALTH_PORT),
            ..ServiceSpec::default()
        },
        ..Service::default()
    };
    service.status.load_balancer.ingress = vec![LoadBalancerIngress {
        ip: Some([198, 18, 0, 1].into()),
        hostname: None,
        ip_mode: None,
    }];
    let endpoint = |address: &str, node: &str| Endpoint {
        addresses: vec![address.to_owned()],
        node_name: Some(node.to_owned()),
        ..Endpoint::default()
    };
    World {
        unhandled_is_silent: false,
        refusals_are_few: false,
        nodes: facts
            .nodes
            .iter()
            .map(|node| Node {
                name: node.name.clone(),
                zone: node.zone.clone(),
                addresses: node.addresses.clone(),
            })
            .collect(),
        services: vec![service],
        slices: vec![EndpointSlice {
            metadata: meta("web-1"),
            address_type: Family::V4.api_name().to_owned(),
            ports: vec![EndpointPort {
                name: Some(String::new()),
                protocol: Protocol::Tcp,
                port: Some(8000),
            }],
            endpoints: vec![endpoint("10.244.1.11", "n1"), endpoint("10.244.2.11", "n2")],
        }],
        proxy: facts.proxy.clone(),
        network: facts.network.clone(),
        outside: facts.outside.clone(),
        balancer: facts.balancer.clone(),
    }
}

/// `pod@n1`, `node@n2`, `outside` or `outside@n1`, which enters by that node.
fn flow(from: &str, to: &str) -> Flow {
    let (kind, node) = from.split_once('@').unwrap_or((from, ""));
    let number = node.trim_start_matches('n').parse::<u8>().unwrap_or(1);
    let address = |text: String| text.parse::<IpAddr>().expect("an address");
    let (kind, address, home) = match kind {
        "pod" => (ClientKind::Pod, address(format!("10.244.{number}.10")), Some(node)),
        "node" => (ClientKind::Node, address(format!("172.18.{number}.2")), Some(node)),
        _ => (ClientKind::Outside, address(format!("198.51.100.{}", 16 + number)), None),
    };
    let frontend = match to {
        "198.18.0.1:80" => FrontendKind::LoadBalancer,
        _ => FrontendKind::Address,
    };
    Flow {
        client: Client {
            kind,
            place: if home.is_some() { from.to_owned() } else { "outside".to_owned() },
            node: home.map(str::to_owned),
            address,
        },
        via: (home.is_none() && !node.is_empty()).then(|| node.to_owned()),
        to: to.parse::<SocketAddr>().expect("an address and port"),
        protocol: Protocol::Tcp,
        frontend,
        question: None,
        size: 0,
        source_port: None,
        http: None,
        text: format!("{from} → {to}"),
    }
}

fn check(world: &World, features: &[&str], from: &str, to: &str, expected: &str) {
    let features: Features = features.iter().map(|f| Feature::new(f).expect("known")).collect();
    let answer = expect(world, &flow(from, to), &features);
    let words: Vec<String> = answer
        .allowed
        .iter()
        .map(|allowed| match allowed {
            Allowed::Reached { endpoint, sources } => {
                let sources: Vec<String> = sources.iter().map(ToString::to_string).collect();
                format!("{} as {}", endpoint.ip(), sources.join("|"))
            }
            Allowed::Http { status, .. } => format!("http {status}"),
            Allowed::Refused | Allowed::Closed | Allowed::Dropped | Allowed::Unhandled => {
                allowed.kind().to_string()
            }
            Allowed::Answered(answer) => answer.to_string(),
        })
        .collect();
    assert_eq!(words.join(", "), expected, "{from} → {to}: {:#?}", answer.reasons);
    assert!(!answer.open, "{from} → {to} is open: {:#?}", answer.reasons);
}

#[test]
fn a_masqueraded_pod_arrives_as_its_node() {
    let pods_to_nodes = Some(PodsToNodes::Masqueraded);
    let network = NetworkWish { pods_to_nodes, ..NetworkWish::default() };
    let local = world(TrafficPolicy::Local, network);
    check(&local, &[], "pod@n2", "172.18.1.2:30080", "10.244.1.11 as 172.18.2.2");
    check(&local, &[], "pod@n1", "172.18.3.2:30080", "dropped");
    check(
        &local,
        &[],
        "pod@n1",
        "172.18.1.2:30080",
        "10.244.1.11 as 10.244.1.10, 10.244.2.11 as 10.244.1.10",
    );
}

#[test]
fn further_addresses_are_the_proxys_choice() {
    let network = NetworkWish { more_node_addresses: Some(1), ..NetworkWish::default() };
    let local = world(TrafficPolicy::Local, network);
    let either = "10.244.1.11 as 198.51.100.17, refused";
    check(&local, &[], "outside", "172.18.1.101:30080", either);
    let primary = ["node-ports-on-primary-addresses"];
    check(&local, &primary, "outside", "172.18.1.101:30080", "refused");
    let all = ["node-ports-on-all-addresses"];
    check(&local, &all, "outside", "172.18.1.101:30080", "10.244.1.11 as 198.51.100.17");
}

#[test]
fn forwarding_is_dropped_unless_the_proxy_accepts_what_it_masquerades() {
    let network = NetworkWish { firewall: vec![Firewall::ForwardDrop], ..NetworkWish::default() };
    let cluster = world(TrafficPolicy::Cluster, network.clone());
    let accepts = ["forwards-through-drop-policy"];
    let both = "10.244.1.11 as 172.18.1.2, 10.244.2.11 as 172.18.1.2";
    check(&cluster, &[], "outside", "172.18.1.2:30080", "dropped");
    check(&cluster, &accepts, "outside", "172.18.1.2:30080", both);
    check(&cluster, &[], "node@n2", "172.18.1.2:30080", both);
    check(&cluster, &[], "outside@n1", "198.18.0.9:80", "dropped");
    check(&cluster, &[], "outside", "10.244.1.11:8000", "dropped");
    check(&cluster, &[], "pod@n2", "10.244.1.11:8000", "10.244.1.11 as 10.244.2.10");
    let local = world(TrafficPolicy::Local, network);
    check(&local, &accepts, "outside", "172.18.1.2:30080", "dropped");
    let takes = ["sends-on-as-the-node"];
    check(&local, &takes, "outside", "172.18.1.2:30080", "10.244.1.11 as 198.51.100.17");
    check(&local, &takes, "outside", "10.244.1.11:8000", "dropped");
    check(&local, &takes, "outside@n1", "198.18.0.9:80", "dropped");
}

#[test]
fn input_is_dropped_but_on_the_loopback() {
    let network = NetworkWish { firewall: vec![Firewall::InputDrop], ..NetworkWish::default() };
    let local = world(TrafficPolicy::Local, network);
    let opens = ["opens-health-check-in-input"];
    check(&local, &[], "outside", "172.18.1.2:30090", "dropped");
    check(&local, &opens, "outside", "172.18.1.2:30090", "http 200");
    check(&local, &[], "node@n3", "172.18.3.2:30090", "http 503");
    check(&local, &[], "outside", "172.18.1.2:81", "dropped");
    check(&local, &[], "node@n1", "172.18.1.2:81", "refused");
    check(&local, &[], "outside", "172.18.1.2:30080", "10.244.1.11 as 198.51.100.17");
    let takes = ["sends-on-as-the-node"];
    let kept = "10.244.1.11 as 10.244.1.10, 10.244.2.11 as 10.244.1.10";
    check(&local, &takes, "outside", "172.18.1.2:30080", "dropped");
    check(&local, &takes, "pod@n1", "172.18.1.2:30080", "dropped");
    check(&local, &takes, "pod@n1", "10.96.0.16:80", kept);
    let both = "10.244.1.11 as 172.18.1.2, 10.244.2.11 as 172.18.1.2";
    check(&local, &takes, "node@n1", "172.18.1.2:30080", both);
}

#[test]
fn whom_endpoints_see_is_free_where_answers_come_back() {
    let mut cluster = world(TrafficPolicy::Cluster, NetworkWish::default());
    let keeps = ["keeps-pods-on-external-addresses"];
    let node = "10.244.1.11 as 172.18.1.2, 10.244.2.11 as 172.18.1.2";
    let either = "10.244.1.11 as 10.244.1.10|172.18.1.2, 10.244.2.11 as 10.244.1.10|172.18.1.2";
    check(&cluster, &keeps, "pod@n1", "172.18.1.2:30080", either);
    check(&cluster, &[], "pod@n1", "172.18.1.2:30080", node);
    check(&cluster, &keeps, "outside", "172.18.1.2:30080", node);

    let service = ["hairpin-as-the-service"];
    check(&cluster, &service, "pod@n1", "172.18.1.2:30080", node);
    cluster.slices[0].endpoints.truncate(1);
    cluster.slices[0].endpoints[0].addresses = vec!["10.244.1.10".to_owned()];
    check(&cluster, &service, "pod@n1", "10.96.0.16:80", "10.244.1.10 as 10.96.0.16|172.18.1.2");
    check(&cluster, &[], "pod@n1", "10.96.0.16:80", "10.244.1.10 as 172.18.1.2");
    check(&cluster, &keeps, "pod@n1", "172.18.1.2:30080", "10.244.1.10 as 172.18.1.2");
}

#[test]
fn a_relay_has_connections_of_its_own() {
    let relays = ["relays"];
    let mut cluster = world(TrafficPolicy::Cluster, NetworkWish::default());
    let node = "10.244.1.11 as 172.18.1.2, 10.244.2.11 as 172.18.1.2";
    check(&cluster, &relays, "pod@n1", "10.96.0.16:80", node);
    check(&cluster, &relays, "outside", "172.18.1.2:30080", node);
    cluster.slices.clear();
    check(&cluster, &relays, "pod@n1", "10.96.0.16:80", "reset");
    check(&cluster, &[], "pod@n1", "10.96.0.16:80", "refused");
}

#[test]
fn a_network_policy_admits_pods_it_can_recognise() {
    let network = NetworkWish { firewall: vec![Firewall::Policy], ..NetworkWish::default() };
    let cluster = world(TrafficPolicy::Cluster, network);
    let kept = "10.244.1.11 as 10.244.1.10, 10.244.2.11 as 10.244.1.10";
    check(&cluster, &[], "pod@n1", "10.96.0.16:80", kept);
    check(&cluster, &[], "node@n1", "10.96.0.16:80", "10.244.1.11 as 172.18.1.2, dropped");
    check(&cluster, &[], "pod@n1", "172.18.1.2:30080", "10.244.1.11 as 172.18.1.2, dropped");
    check(&cluster, &[], "outside", "172.18.1.2:30080", "dropped");
    let takes = ["sends-on-as-the-node"];
    let here = "10.244.1.11 as 172.18.1.2, dropped";
    check(&cluster, &takes, "outside", "172.18.1.2:30080", here);
    check(&cluster, &takes, "outside", "10.244.1.11:8000", "dropped");
    check(&cluster, &[], "pod@n1", "10.244.2.11:8000", "10.244.2.11 as 10.244.1.10");
    check(&cluster, &[], "node@n1", "10.244.2.11:8000", "dropped");
}

#[test]
fn a_balancer_chooses_among_healthy_nodes() {
    let asks = NetworkWish {
        load_balancers: Some(LoadBalancers::HealthChecked),
        ..NetworkWish::default()
    };
    let mut local = world(TrafficPolicy::Local, asks);
    check(
        &local,
        &[],
        "outside",
        "198.18.0.1:80",
        "10.244.1.11 as 198.51.100.17, 10.244.2.11 as 198.51.100.18",
    );
    local.slices.clear();
    check(&local, &[], "outside", "198.18.0.1:80", "dropped");
}

#[test]
fn a_balancer_that_is_a_proxy_has_an_address_of_its_own() {
    let network =
        NetworkWish { load_balancers: Some(LoadBalancers::NodePort), ..NetworkWish::default() };
    let local = world(TrafficPolicy::Local, network);
    // Two outside clients come before it in the plan.
    check(
        &local,
        &[],
        "outside",
        "198.18.0.1:80",
        "10.244.1.11 as 198.51.100.49, 10.244.2.11 as 198.51.100.50",
    );
}
