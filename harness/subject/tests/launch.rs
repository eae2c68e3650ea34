//! What the bundled kube-proxy gets on a node, by release, mode and configuration.

use std::path::PathBuf;

use std::sync::Arc;

use touchstone_subject::{
    Catalog, ConfigurationName, Found, Launch, ModeName, NodeFacts, Origin, ProxyFacts, Resolved,
    Selection, Subject, SubjectName,
};

use touchstone_spec::DetectLocal;

type Tried<T> = Result<T, Box<dyn std::error::Error>>;

fn facts() -> Tried<NodeFacts> {
    Ok(NodeFacts {
        name: "n1".to_owned(),
        addresses: vec!["192.168.7.2".parse()?, "fd00:7::2".parse()?],
        api_server: "http://127.0.0.1:8001".to_owned(),
        cluster_cidrs: vec!["10.1.0.0/16".parse()?, "fd00:10:1::/48".parse()?],
        service_cidrs: vec!["10.96.0.0/16".parse()?, "fd00:10:96::/112".parse()?],
        proxy: ProxyFacts::default(),
        run_dir: PathBuf::from("/run/n1"),
    })
}

fn launch(selector: &str) -> Tried<Launch> {
    launch_as(selector, ProxyFacts::default())
}

/// With settings that a case asks for.
fn launch_as(selector: &str, proxy: ProxyFacts) -> Tried<Launch> {
    let selection = Catalog::bundled()?.select(&selector.parse()?)?;
    let resolved = Resolved {
        program: PathBuf::from("/bin/kube-proxy"),
        sha256: String::new(),
        version: None,
        release: selection.release().cloned(),
        found: Found::Given,
    };
    Ok(Launch::render(&selection, &resolved, &NodeFacts { proxy, ..facts()? })?)
}

fn config(launch: &Launch) -> Option<&str> {
    let name = PathBuf::from("/run/n1/kube-proxy.yaml");
    launch.files.iter().find(|file| file.path == name).map(|file| file.contents.as_str())
}

const HEAD: &str = "\
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection:
  kubeconfig: \"/run/n1/kubeconfig\"
hostnameOverride: \"n1\"
";

const REST: &str = "\
clusterCIDR: \"10.1.0.0/16,fd00:10:1::/48\"
bindAddressHardFail: true
oomScoreAdj: 0
conntrack:
  maxPerCore: 0
  min: 0
  tcpEstablishedTimeout: 0s
  tcpCloseWaitTimeout: 0s
";

fn check(selector: &str, mode: &str, tail: &str) -> Tried<()> {
    let launch = launch(selector)?;
    let want = format!("{HEAD}mode: {mode}\n{REST}{tail}");
    assert_eq!(config(&launch), Some(want.as_str()), "{selector}");
    Ok(())
}

#[test]
fn the_configuration_file_follows_the_release() -> Tried<()> {
    check("kube-proxy:iptables@v1.37.2", "iptables", "")?;
    check("kube-proxy:iptables@v1.30.0", "iptables", "")?;
    check("kube-proxy:iptables@v1.25.4", "iptables", "")?;
    check("kube-proxy:nftables@v1.37.2", "nftables", "")?;
    let gate = "featureGates:\n  NFTablesProxyMode: true\n";
    check("kube-proxy:nftables@v1.30.0", "nftables", gate)?;
    let fast = "nftables:\n  minSyncPeriod: 10ms\n";
    check("kube-proxy:nftables+fast@v1.30.0", "nftables", &format!("{fast}{gate}"))?;
    check("kube-proxy:iptables+fast@v1.25.4", "iptables", "iptables:\n  minSyncPeriod: 10ms\n")
}

/// The lines of the configuration file that a case's settings add (+) or take away (-).
fn check_settings(selector: &str, proxy: ProxyFacts, want: &[&str]) -> Tried<()> {
    let (plain, asked) = (launch(selector)?, launch_as(selector, proxy)?);
    let lines = |launch| config(launch).unwrap_or_default().lines().collect::<Vec<_>>();
    let (plain, asked) = (lines(&plain), lines(&asked));
    let gone = plain.iter().filter(|line| !asked.contains(line)).map(|line| format!("-{line}"));
    let new = asked.iter().filter(|line| !plain.contains(line)).map(|line| format!("+{line}"));
    assert_eq!(gone.chain(new).collect::<Vec<_>>(), want, "{selector}");
    Ok(())
}

#[test]
fn the_configuration_file_follows_the_case() -> Tried<()> {
    let nft = "kube-proxy:nftables@v1.37.2";
    let none = ProxyFacts::default;
    let detect = |mode| ProxyFacts { detect_local: Some(mode), ..none() };
    let ranges = "-clusterCIDR: \"10.1.0.0/16,fd00:10:1::/48\"";
    check_settings(nft, none(), &[])?;
    check_settings(nft, detect(DetectLocal::ClusterCidr), &["+detectLocalMode: ClusterCIDR"])?;
    check_settings(nft, detect(DetectLocal::None), &[ranges])?;
    check_settings(nft, detect(DetectLocal::NodeCidr), &[ranges, "+detectLocalMode: NodeCIDR"])?;
    check_settings(
        nft,
        ProxyFacts {
            interface_name_prefix: Some("pod".to_owned()),
            ..detect(DetectLocal::InterfaceNamePrefix)
        },
        &[
            ranges,
            "+detectLocalMode: InterfaceNamePrefix",
            "+detectLocal:",
            "+  bridgeInterface: \"\"",
            "+  interfaceNamePrefix: \"pod\"",
        ],
    )?;
    let addresses = ["primary", "::/0"].map(str::to_owned).to_vec();
    check_settings(
        nft,
        ProxyFacts { node_port_addresses: Some(addresses), ..none() },
        &["+nodePortAddresses:", "+  - \"primary\"", "+  - \"::/0\""],
    )?;
    check_settings(
        "kube-proxy:iptables+fast@v1.30.0",
        ProxyFacts {
            masquerade_all: Some(true),
            localhost_node_ports: Some(false),
            sync_period: Some("5s".to_owned()),
            min_sync_period: Some("1s".to_owned()),
            ..none()
        },
        &[
            "-  minSyncPeriod: 10ms",
            "+  minSyncPeriod: 1s",
            "+  syncPeriod: 5s",
            "+  masqueradeAll: true",
            "+  localhostNodePorts: false",
        ],
    )
}

#[test]
fn everything_around_the_program_is_rendered() -> Tried<()> {
    let launch = launch("kube-proxy:nftables+fast@v1.30.0")?;
    assert_eq!(launch.args, ["--config=/run/n1/kube-proxy.yaml", "--hostname-override=n1", "-v=2"]);
    assert_eq!(
        launch.clean_up,
        ["/bin/kube-proxy", "--cleanup", "--config=/run/n1/kube-proxy.yaml"]
    );
    assert_eq!(
        launch.rules.first().map(|rule| rule.join(" ")).as_deref(),
        Some("nft list table ip kube-proxy")
    );
    assert_eq!(launch.healthz.as_deref(), Some("http://127.0.0.1:10256/healthz"));
    let settings: Vec<String> =
        launch.settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(settings, ["gate NFTablesProxyMode=true", "min_sync_period=10ms"]);
    let kubeconfig = launch.files.iter().find(|file| file.path.ends_with("kubeconfig"));
    assert!(kubeconfig.is_some_and(|file| file.contents.contains("http://127.0.0.1:8001")));
    Ok(())
}

#[test]
fn a_name_without_a_value_is_an_error() -> Tried<()> {
    let text = "format: 1\nabout: A proxy for tests.\nbinary:\n  name: my-proxy\n  \
                sources: [{ path: my-proxy }]\nlab:\n  args: ['--release={{ release }}']\n";
    let name = SubjectName::new("my-proxy")?;
    let selection = Selection {
        subject: Arc::new(Subject::from_text(name, Origin::Bundled, "subject.yaml", text)?),
        mode: ModeName::only(),
        configuration: ConfigurationName::default_one(),
        asked: None,
    };
    let resolved = Resolved {
        program: PathBuf::from("/bin/my-proxy"),
        sha256: String::new(),
        version: None,
        release: None,
        found: Found::Path,
    };
    let message = Launch::render(&selection, &resolved, &facts()?).map_err(|err| err.to_string());
    assert!(
        message.is_err_and(|text| text.starts_with("failed to render the arguments of my-proxy: "))
    );
    Ok(())
}
