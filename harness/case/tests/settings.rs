//! Cases that ask for settings of the proxies: features, mistakes, and what the model answers.

use std::fmt::Write;

use touchstone_case::{Library, Variant, compile, planned_book};
use touchstone_model::expect;
use touchstone_spec::{Allowed, Feature, Features};

const BEHAVIOURS: &str = "b: { statement: s, level: must, why: w, source: s }";

fn text(proxy: &str, rows: &str) -> String {
    format!(
        "about: a\ncovers: [b]\nlevel: must\naxes: {{ family: [dual] }}\n\
         needs: {{ nodes: 2, outside: 1, proxy: {proxy} }}\nworld:\n  services:\n    \
         web: {{ type: NodePort, ports: [{{ name: p, port: 80 }}] }}\n    \
         local: {{ type: LoadBalancer, externalTrafficPolicy: Local, ports: [{{ name: p, port: 80 }}] }}\n  \
         endpoints:\n    web: {{ a: {{ node: n1 }} }}\n    local: {{ b: {{ node: n2 }} }}\n\
         steps:\n  - matrix: false\n    expect:\n{rows}"
    )
}

fn variant(proxy: &str, rows: &str) -> Result<Variant, String> {
    Library::of_texts([("behaviours.yaml", BEHAVIOURS), ("x/y.yaml", &text(proxy, rows))])
        .map(|library| library.variants().remove(0))
        .map_err(|errors| errors.to_string())
}

fn row(from: &str, to: &str) -> String {
    format!("      - {{ from: '{from}', to: '{to}', is: any }}\n")
}

/// What the model answers to `from → to` in the family that `family` names.
fn answer(proxy: &str, features: &str, from: &str, to: &str, family: &str) -> String {
    let row = row(from, to).replace("is: any", &format!("is: any, family: {family}"));
    let variant = variant(proxy, &row).unwrap_or_else(|error| panic!("{error}"));
    let script = compile(&variant, &mut planned_book(&variant));
    let script = script.unwrap_or_else(|error| panic!("{error}"));
    let named = features.split_whitespace().filter_map(|name| Feature::new(name).ok());
    let features: Features = named.chain(variant.features()).collect();
    let step = &script.steps[0];
    let mut text = String::new();
    for row in &step.rows {
        let expectation = expect(&step.world, &row.flow, &features);
        let mut words: Vec<String> = expectation
            .allowed
            .iter()
            .map(|allowed| match allowed {
                Allowed::Reached { endpoint, sources } => {
                    let mut names: Vec<&str> = sources
                        .iter()
                        .filter_map(|ip| script.names.addresses.get(ip).map(String::as_str))
                        .collect();
                    names.dedup();
                    let who = script.names.of(*endpoint).unwrap_or("?");
                    format!("{who} as {}", names.join("|"))
                }
                Allowed::Http { status, .. } => format!("http {status}"),
                Allowed::Refused | Allowed::Closed | Allowed::Dropped | Allowed::Unhandled => {
                    allowed.kind().to_string()
                }
                Allowed::Answered(answer) => answer.to_string(),
            })
            .collect();
        if expectation.open {
            words = vec!["open".to_owned()];
        }
        // Tests cannot fail when writing to a string.
        let _ = write!(text, "{}; ", words.join(", "));
    }
    text.trim_end_matches("; ").to_owned()
}

#[test]
fn detectors() {
    let ask = |mode: &str, from: &str, to: &str| {
        answer(&format!("{{ detectLocal: {mode} }}"), "cluster-ips-from-outside", from, to, "v4")
    };
    let modes = ["ClusterCIDR", "NodeCIDR", "InterfaceNamePrefix", "BridgeInterface", "None"];
    let check = |from: &str, to: &str, want: [&str; 5]| {
        assert_eq!(modes.map(|mode| ask(mode, from, to)), want, "{from} → {to}");
    };
    let (pod, node, dropped, open) = ("web/a as pod@n2", "web/a as n2", "dropped", "open");
    check("pod@n2", "web clusterIP", [pod; 5]);
    check("node@n2", "web clusterIP", [node; 5]);
    check("outside", "web clusterIP@n2", [node, node, node, node, open]);
    let [kept, masqueraded] = ["web/a as local/b", "web/a as n2"];
    check("local/b", "web clusterIP", [kept, kept, kept, masqueraded, kept]);
    let kept = "local/b as pod@n1";
    check("pod@n1", "local nodePort@n1", [kept, kept, kept, kept, dropped]);
    check("web/a", "local nodePort@n1", {
        let kept = "local/b as web/a";
        [kept, kept, kept, dropped, dropped]
    });
    check("pod@n2", "local nodePort@n1", [open, dropped, dropped, dropped, dropped]);
}

#[test]
fn masquerade_all() {
    let ask = |from: &str, to: &str| answer("{ masqueradeAll: true }", "", from, to, "v6");
    assert_eq!(ask("pod@n2", "web clusterIP"), "web/a as n2");
    assert_eq!(ask("pod@n1", "local nodePort@n1"), "local/b as pod@n1");
}

#[test]
fn node_port_addresses() {
    let ask = |addresses: &str, features: &str, to: &str, family: &str| {
        answer(&format!("{{ nodePortAddresses: {addresses} }}"), features, "node@n1", to, family)
    };
    let served = "web/a as n1";
    assert_eq!(ask("[$node.n1]", "", "web nodePort@n1", "v4"), served);
    assert_eq!(ask("[$node.n1]", "", "web nodePort@n2", "v4"), "refused");
    assert_eq!(ask("[192.0.2.0/24]", "", "web nodePort@n1", "v4"), "refused");
    assert_eq!(ask("[192.0.2.0/24]", "", "web nodePort@n1", "v6"), served);
    assert_eq!(ask("[192.0.2.0/24, 0.0.0.0/0]", "", "web nodePort@n1", "v4"), served);
    assert_eq!(ask("[primary]", "", "web nodePort@n1", "v6"), served);
    // A proxy may drop what the policy Local drops, whatever the address.
    let limits = "node-port-addresses-limit-drops";
    assert_eq!(ask("[$node.n2]", "", "local nodePort@n1", "v4"), "refused, dropped");
    assert_eq!(ask("[$node.n2]", limits, "local nodePort@n1", "v4"), "refused");
    let limits = "node-port-addresses-limit-health-checks";
    assert_eq!(ask("[$node.n1]", limits, "local healthCheck@n1", "v4"), "http 503");
    assert_eq!(ask("[$node.n1]", limits, "local healthCheck@n2", "v4"), "refused");
    assert_eq!(ask("[$node.n1]", "", "local healthCheck@n2", "v4"), "http 200, refused");
}

#[test]
fn loopback() {
    let ask = |proxy: &str, features: &str, to: &str, family: &str| {
        answer(proxy, features, "node@n1", to, family)
    };
    let (either, plain) = ("web/a as n1, refused", "{}");
    let (serves, leaves) = ("localhost-node-ports", "no-localhost-node-ports");
    assert_eq!(ask(plain, "", "web nodePort@loopback", "v4"), either);
    assert_eq!(ask(plain, serves, "web nodePort@loopback", "v4"), "web/a as n1");
    assert_eq!(ask(plain, serves, "web nodePort@127.9.9.9", "v4"), "web/a as n1");
    assert_eq!(ask(plain, serves, "local nodePort@loopback", "v4"), "local/b as n1");
    assert_eq!(ask(plain, leaves, "web nodePort@loopback", "v4"), "refused");
    assert_eq!(ask(plain, serves, "web nodePort@loopback", "v6"), either);
    let leaves = "no-ipv6-localhost-node-ports";
    assert_eq!(ask(plain, leaves, "web nodePort@loopback", "v6"), "refused");
    let off = "{ localhostNodePorts: false }";
    assert_eq!(ask(off, serves, "web nodePort@loopback", "v4"), "refused");
    assert_eq!(ask(off, serves, "web nodePort@n1", "v4"), "web/a as n1");
    let listed = "{ nodePortAddresses: [$node, 127.0.0.0/8] }";
    assert_eq!(ask(listed, serves, "web nodePort@loopback", "v4"), "web/a as n1");
    assert_eq!(ask(listed, serves, "web nodePort@127.9.9.9", "v4"), either);
    for without in ["[$node]", "[primary]"] {
        let without = format!("{{ nodePortAddresses: {without} }}");
        assert_eq!(ask(&without, serves, "web nodePort@loopback", "v4"), "refused");
    }
}

#[test]
fn reasons_name_the_setting() {
    let reasons = |proxy: &str, from: &str, to: &str| {
        let variant = variant(proxy, &row(from, to)).unwrap_or_else(|error| panic!("{error}"));
        let script = compile(&variant, &mut planned_book(&variant));
        let script = script.unwrap_or_else(|error| panic!("{error}"));
        let step = &script.steps[0];
        let features = variant.features().into_iter().collect();
        let all = expect(&step.world, &step.rows[0].flow, &features).reasons;
        all.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    let told = reasons("{ masqueradeAll: true }", "pod@n1", "web clusterIP");
    assert!(told.contains("[KubeProxyConfiguration masqueradeAll]"), "{told}");
    let told = reasons("{ detectLocal: BridgeInterface }", "web/a", "web clusterIP");
    assert!(told.contains("[KubeProxyConfiguration detectLocalMode]"), "{told}");
    let told = reasons("{ nodePortAddresses: [$node.n1] }", "pod@n1", "web nodePort@n2");
    assert!(told.contains("[KubeProxyConfiguration nodePortAddresses]"), "{told}");
    let told = reasons("{ localhostNodePorts: false }", "node@n1", "web nodePort@loopback");
    assert!(told.contains("[KubeProxyConfiguration iptables.localhostNodePorts]"), "{told}");
}

#[test]
fn features_follow_from_settings() {
    let beyond = |proxy: &str| {
        let variant = variant(proxy, &row("pod@n1", "web clusterIP"));
        let plain =
            ["ipv4", "ipv6", "tcp", "node-port", "load-balancer", "external-traffic-policy"];
        let features = variant.unwrap_or_else(|error| panic!("{error}")).features();
        let names = features.iter().map(Feature::name).filter(|name| !plain.contains(name));
        names.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(beyond("{}"), "");
    assert_eq!(beyond("{ masqueradeAll: true }"), "masquerade-all");
    assert_eq!(beyond("{ detectLocal: None }"), "detect-local-none");
    assert_eq!(beyond("{ detectLocal: NodeCIDR }"), "detect-local-node-cidr");
    assert_eq!(beyond("{ localhostNodePorts: false }"), "localhost-node-ports-switch");
    assert_eq!(beyond("{ minSyncPeriod: 3s }"), "sync-periods");
    assert_eq!(beyond("{ nodePortAddresses: [$node] }"), "node-port-addresses");
    assert_eq!(
        beyond("{ nodePortAddresses: [primary] }"),
        "node-port-addresses node-port-addresses-primary"
    );
    assert_eq!(
        beyond("{ nodePortAddresses: [localhost, 10.0.0.0/8] }"),
        "node-port-address-words node-port-addresses"
    );
}

#[test]
fn mistakes() {
    let said = |proxy: &str, rows: &str| match variant(proxy, rows) {
        Err(error) => error,
        Ok(variant) => match compile(&variant, &mut planned_book(&variant)) {
            Ok(_) => "fine".to_owned(),
            Err(error) => error.to_string(),
        },
    };
    let fine = row("pod@n1", "web clusterIP");
    assert_eq!(said("{ nodePortAddresses: [$node.n2] }", &fine), "fine");
    assert_eq!(
        said("{ nodePortAddresses: [$node.n3] }", &fine),
        "x/y.yaml:5:39: `$node.n3` in `nodePortAddresses` is neither a range, such as 10.0.0.0/8, \
         nor primary, localhost, all, $node, $node.n1 or $more"
    );
    assert_eq!(
        said("{ syncPeriod: 1 }", &fine),
        "x/y.yaml:5:39: `syncPeriod: 1`: a duration is written `100ms`, `5s` or `2m`"
    );
    let unknown = said("{ detectLocal: NodeCidr }", &fine);
    assert!(unknown.contains("unknown value `NodeCidr`"), "{unknown}");
    assert_eq!(
        said("{}", &row("pod@n1", "web nodePort@loopback")),
        "x/y.yaml:16:17: web nodePort@loopback is a node's own loopback; pod@n1 is no node; \
         write `from: node` or `from: node@n1`"
    );
    let outside = said("{}", &row("outside", "web nodePort@loopback"));
    assert!(outside.contains("outside is no node"), "{outside}");
    let v6 = said("{}", &row("node@n1", "web nodePort@127.0.0.2"));
    assert!(v6.contains("127.0.0.2 is an IPv4 address"), "{v6}");
}
