//! Case files in, scripts out: worlds, changes, rows, matrix, servers.

use std::fmt::Write;

use touchstone_case::{Allocator, Book, Change, Library, Script, Variant, compile, planned_book};
use touchstone_spec::api::{EndpointSlice, Service};

fn variant(text: &str, axes: &str) -> Variant {
    let library = Library::of_texts([
        ("behaviours.yaml", "b: { statement: s, level: must, why: w, source: s }"),
        ("x/y.yaml", &format!("about: a\ncovers: [b]\nlevel: must\naxes: {axes}\n{text}")),
    ])
    .unwrap_or_else(|errors| panic!("{}", errors.render()));
    library.variants().remove(0)
}

fn script(variant: &Variant) -> Script {
    compile(variant, &mut planned_book(variant)).unwrap_or_else(|error| panic!("{error}"))
}

fn bundled(id: &str) -> Script {
    let library = Library::bundled().unwrap_or_else(|errors| panic!("{}", errors.render()));
    let variants = library.variants();
    let found = variants.iter().find(|variant| variant.id() == id);
    script(found.unwrap_or_else(|| panic!("no variant {id}")))
}

fn service(service: &Service) -> String {
    let spec = &service.spec;
    let ports: Vec<String> = spec
        .ports
        .iter()
        .map(|port| {
            let node_port = port.node_port.map(|n| format!("@{n}")).unwrap_or_default();
            format!("{}:{}/{}{node_port}", port.name, port.port, port.transport())
        })
        .collect();
    let mut text = format!(
        "{} {:?} {} [{}]",
        service.key(),
        spec.service_type,
        spec.cluster_ips.join(" "),
        ports.join(" ")
    );
    for ip in &spec.external_ips {
        let _ = write!(text, " external {ip}");
    }
    for ip in service.status.load_balancer.ingress.iter().filter_map(|ingress| ingress.ip) {
        let _ = write!(text, " balancer {ip}");
    }
    if let Some(port) = spec.health_check_node_port {
        let _ = write!(text, " health {port}");
    }
    if !spec.load_balancer_source_ranges.is_empty() {
        let _ = write!(text, " from {}", spec.load_balancer_source_ranges.join(" "));
    }
    text
}

fn slice(slice: &EndpointSlice) -> String {
    let ports: Vec<String> = slice
        .ports
        .iter()
        .map(|port| {
            let (name, number) = (port.name.as_deref(), port.port.map(|n| n.to_string()));
            format!("{}:{}", name.unwrap_or("?"), number.as_deref().unwrap_or("?"))
        })
        .collect();
    let mut text = format!("{} [{}]", slice.metadata.name, ports.join(" "));
    for endpoint in &slice.endpoints {
        let flag = |name: &str, value: Option<bool>| match value {
            Some(true) => name.to_uppercase(),
            Some(false) => name.to_owned(),
            None => "-".to_owned(),
        };
        let conditions = endpoint.conditions;
        let _ = write!(
            text,
            " {}@{}/{} {}{}{}",
            endpoint.addresses.join("+"),
            endpoint.node_name.as_deref().unwrap_or("?"),
            endpoint.zone.as_deref().unwrap_or("?"),
            flag("r", conditions.ready),
            flag("s", conditions.serving),
            flag("t", conditions.terminating),
        );
    }
    text
}

fn changes(changes: &[Change]) -> String {
    let lines: Vec<String> = changes
        .iter()
        .map(|change| match change {
            Change::ApplyService(object) => format!("apply {}", service(object)),
            Change::DeleteService { name, .. } => format!("delete service {name}"),
            Change::ApplySlice(object) => format!("apply {}", slice(object)),
            Change::ApplyRawSlice(object) => format!("apply as it is {}", slice(object)),
            Change::DeleteSlice { name, .. } => format!("delete slice {name}"),
            Change::SetNode { node, says } => format!("zone {node} {:?}", says.zone),
            Change::Proxy { node, action } => format!("proxy {node} {action:?}"),
            Change::Deploy(pods) => {
                let ready = pods.pods.values().filter(|ready| **ready).count();
                format!("deploy {} pods of {}, {ready} ready", pods.pods.len(), pods.service)
            }
            Change::ProxyRefuses { node, wish } => {
                format!("proxy {node} refuses {:?}", wish.scheduler)
            }
            Change::VirtualServer { node, at, protocol, action } => {
                format!("{action:?} {at}/{protocol} on {node}")
            }
            Change::ReloadFirewall { node } => format!("reload the firewall of {node}"),
        })
        .collect();
    lines.join("\n")
}

fn rows(script: &Script, step: usize) -> String {
    let lines: Vec<String> = script.steps[step]
        .rows
        .iter()
        .map(|row| format!("{} [{}]", row.text, row.flow.to))
        .collect();
    lines.join("\n")
}

#[test]
fn the_local_policy_case() {
    let script = bundled("traffic-policy/external-local[v4,udp]");
    assert_eq!(script.namespace, "t1-traffic-policy-external-local");
    assert_eq!(
        changes(&script.steps[0].changes),
        "apply t1-traffic-policy-external-local/web NodePort 10.96.0.16 [p:80/udp@30000]\n\
         apply web-v4-1 [p:8000] 10.244.1.11@n1/z1 RSt 10.244.1.12@n1/z1 RSt 10.244.2.11@n2/z1 RSt",
    );
    assert_eq!(
        rows(&script, 0),
        "outside → web nodePort@n1: reaches a, b; source client [172.18.1.2:30000]\n\
         outside → web nodePort@n3: dropped [172.18.3.2:30000]\n\
         pod@n3 → web clusterIP: reaches a, b, c; source client [10.96.0.16:80]",
    );
    assert_eq!(
        changes(&script.steps[1].changes),
        "apply web-v4-1 [p:8000] 10.244.1.11@n1/z1 RSt 10.244.1.12@n1/z1 rST 10.244.2.11@n2/z1 RSt",
    );
    let traffic = script.steps[1].traffic.as_ref().expect("the second step has traffic");
    assert_eq!((traffic.every.as_millis(), traffic.budget, traffic.flows.len()), (5, 2, 1));
    assert_eq!(script.steps[1].within.as_secs(), 30);
    // 3 client pods, 3 nodes, 3 endpoint pods and one client outside by 3 nodes to the cluster IP;
    // 3 + 3 + 3 + 1 clients to the node ports of 3 nodes; less the 3 flows of the rows.
    assert_eq!(script.steps[0].matrix.len(), 12 + 30 - 3);
    let servers: Vec<String> = script.steps[1]
        .servers
        .iter()
        .map(|server| {
            format!("{} {}:{}/{}", server.place, server.address, server.port, server.protocol)
        })
        .collect();
    assert_eq!(
        servers.join("\n"),
        "pod-n1-11 10.244.1.11:8000/udp\npod-n1-12 10.244.1.12:8000/udp\npod-n2-11 10.244.2.11:8000/udp",
    );
}

#[test]
fn the_cluster_ip_case() {
    let script = bundled("cluster-ip/basic[v6,tcp]");
    assert_eq!(
        changes(&script.steps[0].changes),
        "apply t1-cluster-ip-basic/web ClusterIP fd00:10:96::10 [p:80/tcp]\n\
         apply web-v6-1 [p:8000] fd00:10:244:1::11@n1/z1 RSt fd00:10:244:2::11@n2/z1 RSt \
         fd00:10:244:2::12@n2/z1 rst",
    );
    assert_eq!(
        rows(&script, 0).lines().next(),
        Some("pod@n1 → web clusterIP: reaches a, b; source client [[fd00:10:96::10]:80]"),
    );
    assert_eq!(script.steps[0].rows.len(), 6);
    // A removed endpoint keeps its server, so that traffic to it is seen as such.
    assert_eq!(script.steps[1].servers.len(), 4);
    assert_eq!(
        script.names.of("[fd00:10:244:3::11]:8000".parse().expect("an address")),
        Some("web/d")
    );
}

#[test]
fn the_node_port_case() {
    let script = bundled("node-port/every-node[v4,tcp]");
    let rows = rows(&script, 0);
    assert!(
        rows.contains("node@n3 → web nodePort@n1: reaches a, b; source node [172.18.1.2:30000]")
    );
    assert_eq!(script.steps[0].rows.len(), 7 * 3 + 3);
}

#[test]
fn everything_that_is_allocated() {
    let script = script(&variant(
        "world:
  services:
    web: { type: LoadBalancer, externalTrafficPolicy: Local, externalIPs: 2, ports: [{ name: p, port: 80 }, { name: q, port: 53, protocol: UDP }],
           loadBalancer: { ingress: 2 }, loadBalancerSourceRanges: [$outside, $node.n1, $pods, 10.0.0.0/8] }
    none: { clusterIP: None, ports: [{ name: p, port: 80 }] }
  endpoints:
    web: { a: { node: n1 }, h: { node: n2, hostNetwork: true }, o: { node: n3, nodeName: null, omit: [ready], ports: { p: 9090, q: null } } }
    none: {}
steps:
  - expect:
      - { from: [outside], to: 'web loadBalancer[1]@n2:p', is: reached }
      - { from: outside, to: 'web externalIP:q', is: reached }
      - { from: node@n1, to: ['web healthCheck@n2', 'unallocated clusterIP', 'node@n2:22/tcp'], is: any }
      - { from: web/h, to: ['web clusterIP:81/udp', 'web endpoint/o'], is: any }
",
        "{ family: [dual] }",
    ));
    assert_eq!(
        changes(&script.steps[0].changes),
        "apply t1-x-y/none ClusterIP None [p:80/tcp]\n\
         apply t1-x-y/web LoadBalancer 10.96.0.16 fd00:10:96::10 [p:80/tcp@30000 q:53/udp@30001] \
         external 198.19.0.1 external 2001:db8:19::1 external 198.19.0.2 external 2001:db8:19::2 \
         balancer 198.18.0.1 balancer 2001:db8:18::1 balancer 198.18.0.2 balancer 2001:db8:18::2 \
         health 30002 from 198.51.100.16/28 2001:db8:64:1::/64 172.18.1.2/32 \
         fd00:172:18:1::2/128 10.244.0.0/16 fd00:10:244::/48 10.0.0.0/8\n\
         apply none-v4-0 []\napply none-v6-0 []\n\
         apply web-v4-1 [p:8000 q:8001] 10.244.1.11@n1/z1 RSt\n\
         apply web-v4-1-p2 [p:20000 q:20001] 172.18.2.2@n2/z1 RSt\n\
         apply web-v4-1-p3 [p:9090] 10.244.3.11@?/z2 -St\n\
         apply web-v6-1 [p:8000 q:8001] fd00:10:244:1::11@n1/z1 RSt\n\
         apply web-v6-1-p2 [p:20000 q:20001] fd00:172:18:2::2@n2/z1 RSt\n\
         apply web-v6-1-p3 [p:9090] fd00:10:244:3::11@?/z2 -St",
    );
    let rows = rows(&script, 0);
    let v4: Vec<&str> = rows.lines().filter(|line| !line.contains("::")).collect();
    assert_eq!(
        v4.join("\n"),
        "outside → web loadBalancer[1]@n2:p: reached [198.18.0.2:80]\n\
         outside → web externalIP[0]@n1:q: reached [198.19.0.1:53]\n\
         outside → web externalIP[0]@n2:q: reached [198.19.0.1:53]\n\
         outside → web externalIP[0]@n3:q: reached [198.19.0.1:53]\n\
         outside → web externalIP[1]@n1:q: reached [198.19.0.2:53]\n\
         outside → web externalIP[1]@n2:q: reached [198.19.0.2:53]\n\
         outside → web externalIP[1]@n3:q: reached [198.19.0.2:53]\n\
         node@n1 → web healthCheck@n2: any [172.18.2.2:30002]\n\
         node@n1 → unallocated clusterIP:80/tcp: any [10.96.0.17:80]\n\
         node@n1 → node@n2:22/tcp: any [172.18.2.2:22]\n\
         web/h → web clusterIP:81/udp: any [10.96.0.16:81]\n\
         web/h → web endpoint/o: any [10.244.3.11:9090]",
    );
}

#[test]
fn changes_keep_the_order_of_controllers() {
    let script = script(&variant(
        "needs: { alone: true }
world:
  services:
    web: { type: NodePort, ports: [{ name: p, port: 80 }] }
  endpoints:
    web: { a: { node: n1 } }
steps:
  - {}
  - change:
      - { proxy: n1, stop: true }
      - { endpoint: web/a, set: { ports: { p: 9000 } } }
      - { endpoint: web/b, add: { node: n2 } }
      - { service: web, set: { type: ClusterIP } }
      - { proxy: n1, start: true }
    expect: [{ from: pod@n1, to: web nodePort@n1, is: unanswered }]
  - change: [{ service: web, delete: true }, { service: new, create: { clusterIP: $web, ports: [{ name: p, port: 80 }] }, endpoints: { z: { node: n3 } } }]
  - change: [{ slices: new, delete: true }, { node: n3, set: { zone: null } }]
",
        "{ family: [v4] }",
    ));
    let steps: Vec<String> = script.steps.iter().map(|step| changes(&step.changes)).collect();
    assert_eq!(
        steps[1],
        "proxy n1 Stop\n\
         apply t1-x-y/web ClusterIP 10.96.0.16 [p:80/tcp]\n\
         apply web-v4-1 [p:8000] 10.244.2.11@n2/z1 RSt\n\
         apply web-v4-1-p2 [p:9000] 10.244.1.11@n1/z1 RSt\n\
         proxy n1 Start",
    );
    assert_eq!(
        rows(&script, 1),
        "pod@n1 → web nodePort@n1: refused or dropped or unhandled [172.18.1.2:30000]",
    );
    assert_eq!(
        steps[2],
        "delete service web\ndelete slice web-v4-1\ndelete slice web-v4-1-p2\n\
         apply t1-x-y/new ClusterIP 10.96.0.16 [p:80/tcp]\n\
         apply new-v4-1 [p:8000] 10.244.3.11@n3/z2 RSt",
    );
    assert_eq!(steps[3], "delete slice new-v4-1\nzone n3 None");
    assert!(script.steps[3].world.slices.is_empty());
    assert_eq!(script.steps[3].world.node("n3").and_then(|node| node.zone.clone()), None);
}

#[test]
fn features_follow_from_what_a_case_uses() {
    let features = |text: &str| {
        let names: Vec<String> =
            variant(text, "{ family: [v4] }").features().iter().map(ToString::to_string).collect();
        names.join(" ")
    };
    let case = |service: &str, endpoint: &str, target: &str| {
        format!(
            "world:\n  services:\n    web: {{ {service}ports: [{{ name: p, port: 80 }}] }}\n  \
             endpoints:\n    web: {{ a: {{ node: n1{endpoint} }} }}\nsteps:\n  - expect:\n      \
             - {{ from: pod@n1, to: web {target}, is: any }}\n"
        )
    };
    assert_eq!(features(&case("", "", "clusterIP")), "ipv4 tcp");
    assert_eq!(features(&case("type: NodePort, ", "", "clusterIP")), "ipv4 node-port tcp");
    assert_eq!(
        features(&case("type: LoadBalancer, externalTrafficPolicy: Local, ", "", "healthCheck@n1")),
        "external-traffic-policy health-check-node-port ipv4 load-balancer tcp",
    );
    assert_eq!(
        features(&case("", ", terminating: true, forZones: [z1]", "clusterIP:53/udp")),
        "ipv4 tcp terminating-endpoints zone-hints",
    );
}

#[test]
fn books_of_one_allocator_never_share() {
    let variant = variant(
        "world:\n  services:\n    web: { type: NodePort, ports: [{ name: p, port: 80 }] }\nsteps: [{}]\n",
        "{ family: [v4] }",
    );
    let Book { facts, pods, .. } = planned_book(&variant);
    let allocator = Allocator::new(&facts);
    let mut seen = Vec::new();
    for _ in 0..2 {
        let mut book = Book::new(facts.clone(), pods.clone(), &allocator);
        let script = compile(&variant, &mut book).unwrap_or_else(|error| panic!("{error}"));
        seen.push(changes(&script.steps[0].changes));
        book.release();
    }
    assert_eq!(
        seen,
        [
            "apply t1-x-y/web NodePort 10.96.0.16 [p:80/tcp@30000]",
            "apply t2-x-y/web NodePort 10.96.0.17 [p:80/tcp@30001]",
        ],
    );
    // With room for one at a time, from the sixteenth address to the last but one.
    let mut small = facts.clone();
    small.service_cidrs = vec!["10.96.0.0/27".parse().expect("a range")];
    let allocator = Allocator::new(&small);
    for _ in 0..40 {
        let mut book = Book::new(small.clone(), pods.clone(), &allocator);
        compile(&variant, &mut book).unwrap_or_else(|error| panic!("{error}"));
        book.release();
    }
    let mut held = Vec::new();
    let error = loop {
        let mut book = Book::new(small.clone(), pods.clone(), &allocator);
        if let Err(error) = compile(&variant, &mut book) {
            break error;
        }
        held.push(book);
    };
    assert_eq!((held.len(), error.to_string().ends_with("no cluster IP left")), (15, true));
    let mut narrow = facts;
    narrow.node_ports = (30_000, 29_999);
    let mut book = Book::new(narrow.clone(), pods, &Allocator::new(&narrow));
    let error = compile(&variant, &mut book).expect_err("there are no node ports");
    assert_eq!(error.to_string(), "x/y.yaml:7:10: the cluster has no node port left");
}
