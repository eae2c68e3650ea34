//! Defaulting, allocation and validation, as tables of text.

mod common;

use common::service;
use serde_json::{Value, json};
use touchstone_apiserver::{ApiServer, Config};

fn server() -> ApiServer {
    ApiServer::new(Config::default())
}

fn single_stack() -> ApiServer {
    ApiServer::new(Config {
        service_cidrs: vec!["10.96.0.0/29".parse().unwrap()],
        node_ports: 30000..=30002,
    })
}

/// The fields of a Service that defaulting and allocation fill, in one line.
fn shown(service: &Value) -> String {
    let spec = &service["spec"];
    let list = |field: &str| -> Vec<&str> {
        spec[field].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    };
    let ports: Vec<String> = spec["ports"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|port| {
            let node_port = port["nodePort"].as_u64().map_or(String::new(), |it| format!("@{it}"));
            format!(
                "{}/{}>{}{node_port}",
                port["port"],
                port["protocol"].as_str().unwrap(),
                port["targetPort"]
            )
        })
        .collect();
    let mut words = vec![spec["type"].as_str().unwrap_or("").to_owned()];
    words.push(format!("[{}]", list("clusterIPs").join(" ")));
    words.push(list("ipFamilies").join("+"));
    words.push(spec["ipFamilyPolicy"].as_str().unwrap_or("-").to_owned());
    words.push(format!("({})", ports.join(" ")));
    for (short, field) in [
        ("itp", "/spec/internalTrafficPolicy"),
        ("etp", "/spec/externalTrafficPolicy"),
        ("affinity", "/spec/sessionAffinity"),
        ("timeout", "/spec/sessionAffinityConfig/clientIP/timeoutSeconds"),
        ("alloc", "/spec/allocateLoadBalancerNodePorts"),
        ("health", "/spec/healthCheckNodePort"),
    ] {
        if let Some(value) = service.pointer(field) {
            words.push(format!("{short}={}", value.to_string().trim_matches('"')));
        }
    }
    assert_eq!(
        spec["clusterIP"].as_str().unwrap_or(""),
        list("clusterIPs").first().copied().unwrap_or("")
    );
    words.join(" ")
}

fn outcome(result: Result<Value, touchstone_apiserver::Status>) -> String {
    match result {
        Ok(object) => shown(&object),
        Err(status) => format!("{}: {status}", status.code()),
    }
}

#[track_caller]
fn check(server: &ApiServer, spec: Value, wanted: &str) {
    let text = spec.to_string();
    assert_eq!(outcome(server.create(service("web", spec))), wanted, "{text}");
}

const TAIL: &str = "itp=Cluster affinity=None";

#[test]
fn created_services_are_completed() {
    let one = json!([{"port": 80}]);
    let table = [
        (
            json!({"ports": one}),
            "ClusterIP [10.96.0.2] IPv4 SingleStack (80/TCP>80) itp=Cluster affinity=None",
        ),
        (
            json!({"ports": one, "ipFamilies": ["IPv6"]}),
            "ClusterIP [fd00:10:96::2] IPv6 SingleStack (80/TCP>80) itp=Cluster affinity=None",
        ),
        (
            json!({"ports": one, "ipFamilyPolicy": "PreferDualStack"}),
            "ClusterIP [10.96.0.2 fd00:10:96::2] IPv4+IPv6 PreferDualStack (80/TCP>80) itp=Cluster affinity=None",
        ),
        (
            json!({"ports": one, "ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6"]}),
            "ClusterIP [fd00:10:96::2 10.96.0.2] IPv6+IPv4 RequireDualStack (80/TCP>80) itp=Cluster affinity=None",
        ),
        (
            json!({"ports": one, "ipFamilies": ["IPv6", "IPv4"]}),
            "ClusterIP [fd00:10:96::2 10.96.0.2] IPv6+IPv4 RequireDualStack (80/TCP>80) itp=Cluster affinity=None",
        ),
        (
            json!({"ports": one, "clusterIP": "fd00:10:96::9"}),
            "ClusterIP [fd00:10:96::9] IPv6 SingleStack (80/TCP>80) itp=Cluster affinity=None",
        ),
        (
            json!({"ports": one, "clusterIPs": ["10.96.0.9", "fd00:10:96::9"]}),
            "ClusterIP [10.96.0.9 fd00:10:96::9] IPv4+IPv6 RequireDualStack (80/TCP>80) itp=Cluster affinity=None",
        ),
        (
            json!({"ports": one, "clusterIP": "10.96.0.9", "ipFamilyPolicy": "PreferDualStack"}),
            "ClusterIP [10.96.0.9 fd00:10:96::2] IPv4+IPv6 PreferDualStack (80/TCP>80) itp=Cluster affinity=None",
        ),
        (
            json!({"clusterIP": "None", "selector": {"a": "b"}}),
            "ClusterIP [None] IPv4 SingleStack () itp=Cluster affinity=None",
        ),
        (
            json!({"clusterIP": "None"}),
            "ClusterIP [None] IPv4+IPv6 RequireDualStack () itp=Cluster affinity=None",
        ),
        (
            json!({"type": "ExternalName", "externalName": "a.b"}),
            "ExternalName []  - () affinity=None",
        ),
        (
            json!({"ports": one, "externalIPs": ["1.2.3.4"]}),
            "ClusterIP [10.96.0.2] IPv4 SingleStack (80/TCP>80) itp=Cluster etp=Cluster affinity=None",
        ),
        (
            json!({"ports": one, "sessionAffinity": "ClientIP"}),
            "ClusterIP [10.96.0.2] IPv4 SingleStack (80/TCP>80) itp=Cluster affinity=ClientIP timeout=10800",
        ),
        (
            json!({"ports": one, "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 5}}}),
            "ClusterIP [10.96.0.2] IPv4 SingleStack (80/TCP>80) itp=Cluster affinity=None",
        ),
        (
            json!({"ports": [{"port": 80, "targetPort": "http", "protocol": "UDP"}]}),
            "ClusterIP [10.96.0.2] IPv4 SingleStack (80/UDP>\"http\") itp=Cluster affinity=None",
        ),
        (
            json!({"type": "NodePort", "ports": one}),
            "NodePort [10.96.0.2] IPv4 SingleStack (80/TCP>80@30000) itp=Cluster etp=Cluster affinity=None",
        ),
        (
            json!({"type": "NodePort", "ports": [{"name": "a", "port": 53, "protocol": "UDP"}, {"name": "b", "port": 53}, {"name": "c", "port": 54}]}),
            "NodePort [10.96.0.2] IPv4 SingleStack (53/UDP>53@30000 53/TCP>53@30000 54/TCP>54@30001) itp=Cluster etp=Cluster affinity=None",
        ),
        (
            json!({"type": "NodePort", "ports": [{"name": "a", "port": 1}, {"name": "b", "port": 2, "nodePort": 30000}]}),
            "NodePort [10.96.0.2] IPv4 SingleStack (1/TCP>1@30001 2/TCP>2@30000) itp=Cluster etp=Cluster affinity=None",
        ),
        (
            json!({"type": "LoadBalancer", "ports": one}),
            "LoadBalancer [10.96.0.2] IPv4 SingleStack (80/TCP>80@30000) itp=Cluster etp=Cluster affinity=None alloc=true",
        ),
        (
            json!({"type": "LoadBalancer", "ports": one, "allocateLoadBalancerNodePorts": false, "externalTrafficPolicy": "Local"}),
            "LoadBalancer [10.96.0.2] IPv4 SingleStack (80/TCP>80) itp=Cluster etp=Local affinity=None alloc=false health=30000",
        ),
        (
            json!({"type": "LoadBalancer", "ports": one, "healthCheckNodePort": 30000, "externalTrafficPolicy": "Local"}),
            "LoadBalancer [10.96.0.2] IPv4 SingleStack (80/TCP>80@30001) itp=Cluster etp=Local affinity=None alloc=true health=30000",
        ),
    ];
    for (spec, wanted) in table {
        check(&server(), spec, wanted);
    }
}

#[test]
fn a_single_stack_cluster_has_one_family() {
    let ports = json!([{"port": 80}]);
    check(
        &single_stack(),
        json!({"ports": ports, "ipFamilyPolicy": "PreferDualStack"}),
        &format!("ClusterIP [10.96.0.2] IPv4 PreferDualStack (80/TCP>80) {TAIL}"),
    );
    check(
        &single_stack(),
        json!({"ports": ports, "ipFamilyPolicy": "RequireDualStack"}),
        "422: Service \"web\" is invalid: spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services",
    );
    check(
        &single_stack(),
        json!({"ports": ports, "ipFamilies": ["IPv6"]}),
        "422: Service \"web\" is invalid: spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster",
    );
}

#[test]
fn invalid_services_are_refused_in_the_words_of_kubernetes() {
    let one = json!([{"port": 80}]);
    let table = [
        (json!({}), "spec.ports: Required value"),
        (
            json!({"ports": [{"port": 0}]}),
            "[spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive, spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive]",
        ),
        (
            json!({"ports": [{"port": 65536, "targetPort": 1}]}),
            "spec.ports[0].port: Invalid value: 65536: must be between 1 and 65535, inclusive",
        ),
        (
            json!({"ports": [{"port": 1}, {"port": 2, "name": "b"}]}),
            "spec.ports[0].name: Required value",
        ),
        (
            json!({"ports": [{"port": 1, "name": "a"}, {"port": 2, "name": "a"}]}),
            "spec.ports[1].name: Duplicate value: \"a\"",
        ),
        (
            json!({"ports": [{"port": 1, "name": "a"}, {"port": 1, "name": "b"}]}),
            "spec.ports[1]: Duplicate value: {\"port\":1,\"protocol\":\"TCP\"}",
        ),
        (
            json!({"ports": [{"port": 1, "protocol": "ICMP"}]}),
            "spec.ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
        ),
        (
            json!({"ports": [{"port": 1, "nodePort": 30000}]}),
            "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
        ),
        (
            json!({"ports": [{"port": 1, "nodePort": 80}], "type": "NodePort"}),
            "spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767",
        ),
        (
            json!({"ports": one, "type": "Odd"}),
            "spec.type: Unsupported value: \"Odd\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
        ),
        (
            json!({"ports": one, "sessionAffinity": "Odd"}),
            "spec.sessionAffinity: Unsupported value: \"Odd\": supported values: \"ClientIP\", \"None\"",
        ),
        (
            json!({"ports": one, "internalTrafficPolicy": "Odd"}),
            "spec.internalTrafficPolicy: Unsupported value: \"Odd\": supported values: \"Cluster\", \"Local\"",
        ),
        (
            json!({"ports": one, "externalTrafficPolicy": "Local"}),
            "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
        ),
        (
            json!({"ports": one, "trafficDistribution": "Odd"}),
            "spec.trafficDistribution: Unsupported value: \"Odd\": supported values: \"PreferClose\", \"PreferSameNode\", \"PreferSameZone\"",
        ),
        (
            json!({"ports": one, "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 0}}}),
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 0: must be greater than 0 and less than or equal to 86400",
        ),
        (
            json!({"ports": one, "clusterIP": "1.2.3.4"}),
            "spec.clusterIPs: Invalid value: [\"1.2.3.4\"]: failed to allocate IP 1.2.3.4: the provided IP (1.2.3.4) is not in the valid range. The range of valid IPs is 10.96.0.0/16",
        ),
        (
            json!({"ports": one, "clusterIP": "fd00:10:96::5", "ipFamilies": ["IPv4"]}),
            "spec.clusterIPs[0]: Invalid value: \"fd00:10:96::5\": expected an IPv4 value as indicated by `ipFamilies[0]`",
        ),
        (
            json!({"ports": one, "clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.6"]}),
            "spec.clusterIPs: Invalid value: [\"10.96.0.6\"]: first value must match `clusterIP`",
        ),
        (
            json!({"ports": one, "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "SingleStack"}),
            "spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be RequireDualStack or PreferDualStack when multiple 'ipFamilies' are specified",
        ),
        (
            json!({"ports": one, "externalIPs": ["127.0.0.1"]}),
            "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
        ),
        (
            json!({"ports": one, "loadBalancerSourceRanges": ["10.0.0.0/8"]}),
            "spec.loadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'",
        ),
        (
            json!({"ports": one, "type": "LoadBalancer", "loadBalancerSourceRanges": ["x"]}),
            "spec.loadBalancerSourceRanges[0]: Invalid value: \"x\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
        ),
        (json!({"type": "ExternalName"}), "spec.externalName: Required value"),
        (
            json!({"ports": one, "type": "NodePort", "clusterIP": "None"}),
            "spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services",
        ),
        (
            json!({"ports": one, "healthCheckNodePort": 30000}),
            "spec.healthCheckNodePort: Invalid value: 30000: may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
        ),
    ];
    for (spec, wanted) in table {
        check(&server(), spec, &format!("422: Service \"web\" is invalid: {wanted}"));
    }
    let bad_name = outcome(server().create(service("1web", json!({"ports": one}))));
    assert!(bad_name.starts_with("422: Service \"1web\" is invalid: metadata.name: Invalid value: \"1web\": a DNS-1035 label must"), "{bad_name}");
}

#[test]
fn addresses_and_ports_are_given_forward_and_only_once() {
    let server = single_stack();
    let spec = json!({"type": "NodePort", "ports": [{"port": 80}]});
    let make = |name: &str, spec: &Value| outcome(server.create(service(name, spec.clone())));
    let given = |text: String| -> String {
        text.split(['[', ']', '@', ')']).skip(1).step_by(2).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(given(make("a", &spec)), "10.96.0.2 30000");
    assert_eq!(given(make("b", &spec)), "10.96.0.3 30001");
    server.delete("Service", None, "a").unwrap();
    assert_eq!(given(make("c", &spec)), "10.96.0.4 30002", "what a held is not given out at once");
    assert_eq!(given(make("d", &spec)), "10.96.0.5 30000", "node ports wrapped");
    assert_eq!(make("e", &spec), "500: failed to allocate a nodePort: range is full");
    let taken = json!({"ports": [{"port": 80}], "clusterIP": "10.96.0.3"});
    assert_eq!(
        make("e", &taken),
        "422: Service \"e\" is invalid: spec.clusterIPs: Invalid value: [\"10.96.0.3\"]: failed to allocate IP 10.96.0.3: provided IP is already allocated"
    );
    let taken = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30001}]});
    assert_eq!(
        make("e", &taken),
        "422: Service \"e\" is invalid: spec.ports[0].nodePort: Invalid value: 30001: provided port is already allocated"
    );
    let own = json!({"spec": {"ports": [{"port": 81, "nodePort": 30001}]}});
    assert_eq!(
        given(outcome(server.patch("Service", None, "b", &own))),
        "10.96.0.3 30001",
        "its own port"
    );
}

#[track_caller]
fn changes(from: Value, patch: Value, wanted: &str) -> ApiServer {
    let server = server();
    server.create(service("web", from)).unwrap();
    let text = patch.to_string();
    assert_eq!(
        outcome(server.patch("Service", None, "web", &json!({"spec": patch}))),
        wanted,
        "{text}"
    );
    server
}

#[test]
fn changes_keep_drop_and_allocate() {
    let ports = json!([{"port": 80}]);
    let cluster = json!({"ports": ports});
    let node = json!({"ports": ports, "type": "NodePort"});
    let balancer =
        json!({"ports": ports, "type": "LoadBalancer", "externalTrafficPolicy": "Local"});
    changes(
        cluster.clone(),
        json!({"type": "NodePort"}),
        "NodePort [10.96.0.2] IPv4 SingleStack (80/TCP>80@30000) itp=Cluster etp=Cluster affinity=None",
    );
    changes(
        node.clone(),
        json!({"type": "ClusterIP"}),
        "ClusterIP [10.96.0.2] IPv4 SingleStack (80/TCP>80) itp=Cluster affinity=None",
    );
    changes(
        node.clone(),
        json!({"ports": [{"port": 80}]}),
        "NodePort [10.96.0.2] IPv4 SingleStack (80/TCP>80@30000) itp=Cluster etp=Cluster affinity=None",
    );
    changes(
        node.clone(),
        json!({"clusterIP": null, "clusterIPs": null}),
        "NodePort [10.96.0.2] IPv4 SingleStack (80/TCP>80@30000) itp=Cluster etp=Cluster affinity=None",
    );
    let emptied = changes(
        node,
        json!({"type": "ExternalName", "externalName": "a.b"}),
        "ExternalName []  - (80/TCP>80) affinity=None",
    );
    let again =
        outcome(emptied.create(service("next", json!({"ports": ports, "clusterIP": "10.96.0.2"}))));
    assert!(again.contains("[10.96.0.2]"), "released: {again}");
    changes(
        balancer.clone(),
        json!({"type": "ClusterIP"}),
        "ClusterIP [10.96.0.2] IPv4 SingleStack (80/TCP>80) itp=Cluster affinity=None",
    );
    changes(
        balancer.clone(),
        json!({"externalTrafficPolicy": "Cluster"}),
        "LoadBalancer [10.96.0.2] IPv4 SingleStack (80/TCP>80@30000) itp=Cluster etp=Cluster affinity=None alloc=true",
    );
    changes(
        balancer,
        json!({"healthCheckNodePort": 30009}),
        "422: Service \"web\" is invalid: spec.healthCheckNodePort: Invalid value: 30009: field is immutable",
    );
    changes(
        cluster.clone(),
        json!({"ipFamilyPolicy": "PreferDualStack"}),
        "ClusterIP [10.96.0.2 fd00:10:96::2] IPv4+IPv6 PreferDualStack (80/TCP>80) itp=Cluster affinity=None",
    );
    let dual = json!({"ports": ports, "ipFamilyPolicy": "PreferDualStack"});
    changes(
        dual,
        json!({"ipFamilyPolicy": "SingleStack"}),
        "ClusterIP [10.96.0.2] IPv4 SingleStack (80/TCP>80) itp=Cluster affinity=None",
    );
    changes(
        cluster.clone(),
        json!({"clusterIP": "10.96.0.9", "clusterIPs": null}),
        "422: Service \"web\" is invalid: spec.clusterIPs[0]: Invalid value: [\"10.96.0.9\"]: may not change once set",
    );
    changes(
        cluster.clone(),
        json!({"clusterIP": "None", "clusterIPs": ["None"]}),
        "422: Service \"web\" is invalid: spec.clusterIPs[0]: Invalid value: [\"None\"]: may not change once set",
    );
    changes(
        json!({"type": "ExternalName", "externalName": "a.b"}),
        json!({"type": "ClusterIP", "externalName": null, "ports": [{"port": 80}]}),
        "ClusterIP [10.96.0.2] IPv4 SingleStack (80/TCP>80) itp=Cluster affinity=None",
    );
    changes(
        cluster,
        json!({"sessionAffinity": "ClientIP"}),
        "ClusterIP [10.96.0.2] IPv4 SingleStack (80/TCP>80) itp=Cluster affinity=ClientIP timeout=10800",
    );
}

#[test]
fn raw_objects_are_stored_as_they_are() {
    let server = server();
    let bad = service(
        "1BAD",
        json!({"ports": [{"port": 0}], "clusterIP": "nonsense", "odd": {"kept": true}}),
    );
    let stored = server.create_raw(bad.clone()).unwrap();
    assert_eq!(stored["spec"], bad["spec"]);
    assert_eq!(server.get("Service", None, "1BAD").unwrap()["spec"], bad["spec"]);
}

fn check_slice(change: Value, wanted: &str) {
    let server = server();
    let mut object = common::slice("s", "web", &["10.0.0.1"]);
    json_patch::merge(&mut object, &change);
    let shown = match server.create(object) {
        Ok(object) => format!("{} {}", object["addressType"], object["ports"]),
        Err(status) => format!("{}: {status}", status.code()),
    };
    assert_eq!(shown, wanted, "{change}");
}

#[test]
fn slices_are_completed_and_checked() {
    check_slice(
        json!({"ports": [{"port": 1}]}),
        r#""IPv4" [{"port":1,"protocol":"TCP","name":""}]"#,
    );
    let refused = [
        (
            json!({"addressType": "IPv5"}),
            "addressType: Unsupported value: \"IPv5\": supported values: \"FQDN\", \"IPv4\", \"IPv6\"",
        ),
        (json!({"addressType": null, "endpoints": []}), "addressType: Required value"),
        (
            json!({"addressType": "IPv6"}),
            "endpoints[0].addresses[0]: Invalid value: \"10.0.0.1\": must be a valid IPv6 address",
        ),
        (
            json!({"endpoints": [{"addresses": []}]}),
            "endpoints[0].addresses: Required value: must contain at least 1 endpoint",
        ),
        (
            json!({"endpoints": [{"addresses": ["127.0.0.1"]}]}),
            "endpoints[0].addresses[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
        ),
        (json!({"ports": [{"port": 1}, {"port": 2}]}), "ports[1].name: Duplicate value: \"\""),
        (
            json!({"ports": [{"port": 70000}]}),
            "ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ),
        (
            json!({"ports": [{"port": 1, "protocol": "x"}]}),
            "ports[0].protocol: Unsupported value: \"x\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
        ),
    ];
    for (change, why) in refused {
        check_slice(
            change,
            &format!("422: EndpointSlice.discovery.k8s.io \"s\" is invalid: {why}"),
        );
    }
    let server = server();
    server.create(common::slice("s", "web", &[])).unwrap();
    let status =
        server.patch("EndpointSlice", None, "s", &json!({"addressType": "IPv6"})).unwrap_err();
    assert_eq!(
        status.message(),
        "EndpointSlice.discovery.k8s.io \"s\" is invalid: addressType: Invalid value: \"IPv6\": field is immutable"
    );
}
