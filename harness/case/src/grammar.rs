//! The small languages inside strings: vantages, targets, outcomes, sources, rates, durations.
//!
//! Reading them looks nothing up: whether a node, Service or port exists is asked later.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use touchstone_spec::{FrontendKind, OutcomeKind, Page, Protocol};

/// What a string should have been.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expected(pub(crate) String);

fn expected<T>(what: impl Into<String>) -> Result<T, Expected> {
    Err(Expected(what.into()))
}

/// Where clients stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Vantage {
    /// The client pod of a node, or of every node.
    Pod(Option<String>),
    /// A node itself, or every node.
    Node(Option<String>),
    /// An outside client.
    Outside(String),
    /// A host on the nodes' own segment.
    Neighbour,
    /// The pod of an endpoint: Service, endpoint.
    Endpoint(String, String),
}

const VANTAGES: &str =
    "`pod@n1`, `pod`, `node@n1`, `node`, `outside`, `outside2`, `neighbour` or `web/a`";

impl Vantage {
    pub(crate) fn parse(text: &str) -> Result<Vantage, Expected> {
        let bad = || Expected(format!("a vantage is {VANTAGES}"));
        if let Some((service, endpoint)) = text.split_once('/') {
            return if is_name(service) && is_name(endpoint) {
                Ok(Vantage::Endpoint(service.to_owned(), endpoint.to_owned()))
            } else {
                Err(bad())
            };
        }
        let (kind, node) = match text.split_once('@') {
            Some((kind, node)) if is_name(node) => (kind, Some(node.to_owned())),
            Some(_) => return Err(bad()),
            None => (text, None),
        };
        match kind {
            "pod" => Ok(Vantage::Pod(node)),
            "node" => Ok(Vantage::Node(node)),
            "neighbour" if node.is_none() => Ok(Vantage::Neighbour),
            _ if is_outside(kind) => match node {
                None => Ok(Vantage::Outside(kind.to_owned())),
                Some(node) => expected(format!(
                    "write the node by which a packet enters after the frontend: `web clusterIP@{node}`"
                )),
            },
            _ => Err(bad()),
        }
    }
}

/// A port in a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PortRef {
    /// The Service port of that name.
    Name(String),
    /// That number, whether a Service port or not.
    Number(u16, Option<Protocol>),
}

/// Where flows go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// A frontend of a Service.
    Frontend {
        service: String,
        kind: FrontendKind,
        index: Option<usize>,
        node: Option<String>,
        port: Option<PortRef>,
    },
    /// An endpoint itself; with `loopback` what it listens on there, on its node.
    Direct { service: String, endpoint: String, loopback: bool, port: Option<PortRef> },
    /// An address of the Service range that nobody owns.
    Unallocated { node: Option<String>, port: Option<PortRef> },
    /// A node port on a loopback address; without an address the usual one of the family.
    Loopback { service: String, address: Option<Ipv4Addr>, port: Option<PortRef> },
    /// A page that the proxy of a node, or of every node, serves about itself.
    Page { page: Page, node: Option<String> },
    /// The API servers, by the Service that leads every program to them.
    ApiServer,
    /// A node's own address.
    Node { node: String, port: u16, protocol: Option<Protocol> },
}

const FRONTENDS: &[(&str, FrontendKind)] = &[
    ("clusterIP", FrontendKind::ClusterIp),
    ("nodePort", FrontendKind::NodePort),
    ("externalIP", FrontendKind::ExternalIp),
    ("loadBalancer", FrontendKind::LoadBalancer),
    ("healthCheck", FrontendKind::HealthCheck),
    ("name", FrontendKind::Name),
];

impl Target {
    pub(crate) fn parse(text: &str) -> Result<Target, Expected> {
        if let Some(rest) = text.strip_prefix("node@") {
            let Some((node, port)) = rest.split_once(':') else {
                return expected("a node's own address needs a port: `node@n2:80/tcp`");
            };
            return match port_ref(port)? {
                PortRef::Number(port, protocol) if is_name(node) => {
                    Ok(Target::Node { node: node.to_owned(), port, protocol })
                }
                PortRef::Number(..) | PortRef::Name(_) => {
                    expected("a node's own address is written `node@n2:80/tcp`")
                }
            };
        }
        if text == "api server" {
            return Ok(Target::ApiServer);
        }
        if let Some(rest) = text.strip_prefix("proxy ") {
            let (word, node) = match rest.split_once('@') {
                Some((word, node)) if is_name(node) => (word, Some(node.to_owned())),
                Some((_, node)) => return expected(format!("`{node}` is not a name of a node")),
                None => (rest, None),
            };
            return match Page::ALL.into_iter().find(|page| page.to_string() == word) {
                Some(page) => Ok(Target::Page { page, node }),
                None => expected(format!(
                    "`{word}` is not a page of a proxy: healthz, livez, mode or metrics"
                )),
            };
        }
        let Some((service, rest)) = text.split_once(' ') else {
            return expected(
                "a target is a Service and a frontend, `web clusterIP`, `web nodePort@n1:p`, \
                 `web endpoint/a`, or `unallocated clusterIP`, or `node@n2:80/tcp`",
            );
        };
        if !is_name(service) {
            return expected(format!("`{service}` is not a name of a Service"));
        }
        if let Some(endpoint) = rest.strip_prefix("endpoint/") {
            let (endpoint, port) = split_port(endpoint)?;
            let (endpoint, loopback) = match endpoint.strip_suffix("@loopback") {
                Some(endpoint) => (endpoint, true),
                None => (endpoint, false),
            };
            return if is_name(endpoint) {
                let (service, endpoint) = (service.to_owned(), endpoint.to_owned());
                Ok(Target::Direct { service, endpoint, loopback, port })
            } else {
                expected(format!("`{endpoint}` is not a name of an endpoint"))
            };
        }
        let (head, port) = split_port(rest)?;
        if let Some(address) = head.strip_prefix("nodePort@").and_then(loopback) {
            return Ok(Target::Loopback { service: service.to_owned(), address, port });
        }
        // A node's further address: `nodePort@n1[1]`.
        let (head, address) = match head.split_once('@') {
            Some((_, node)) if node.contains('[') => indexed(head)?,
            Some(_) | None => (head, None),
        };
        let (head, node) = match head.split_once('@') {
            Some((head, node)) if is_name(node) => (head, Some(node.to_owned())),
            Some((_, node)) => return expected(format!("`{node}` is not a name of a node")),
            None => (head, None),
        };
        let (word, index) = indexed(head)?;
        let Some(kind) = FRONTENDS.iter().find(|(name, _)| *name == word).map(|(_, kind)| *kind)
        else {
            let near = crate::error::nearest(word, FRONTENDS.iter().map(|(name, _)| *name))
                .map(|near| format!("; did you mean `{near}`?"))
                .unwrap_or_default();
            return expected(format!(
                "`{word}` is not a frontend: clusterIP, nodePort, externalIP, loadBalancer, \
                 healthCheck, name or endpoint/NAME{near}"
            ));
        };
        let many = matches!(kind, FrontendKind::ExternalIp | FrontendKind::LoadBalancer);
        if index.is_some() && !many {
            return expected(
                "only externalIP and loadBalancer take an index; a node's further address is \
                 written behind the node, `web nodePort@n1[1]`",
            );
        }
        let of_node = matches!(kind, FrontendKind::NodePort | FrontendKind::HealthCheck);
        if address.is_some() && !of_node {
            return expected("only nodePort and healthCheck take an index behind a node");
        }
        let index = index.or(address);
        if kind == FrontendKind::HealthCheck && port.is_some() {
            return expected("healthCheck has one port; leave the port out");
        }
        if kind == FrontendKind::Name && node.is_some() {
            return expected("a name leads to wherever the name server says; leave out `@`");
        }
        if service == "unallocated" {
            return if kind == FrontendKind::ClusterIp {
                Ok(Target::Unallocated { node, port })
            } else {
                expected("only `unallocated clusterIP` exists")
            };
        }
        Ok(Target::Frontend { service: service.to_owned(), kind, index, node, port })
    }
}

/// `loopback`, or an IPv4 address of the loopback.
fn loopback(text: &str) -> Option<Option<Ipv4Addr>> {
    match text.parse::<Ipv4Addr>() {
        Ok(address) if address.is_loopback() => Some(Some(address)),
        Ok(_) => None,
        Err(_) => (text == "loopback").then_some(None),
    }
}

/// A word and the index in brackets at its end.
fn indexed(text: &str) -> Result<(&str, Option<usize>), Expected> {
    match text.strip_suffix(']').and_then(|text| text.split_once('[')) {
        Some((word, index)) => match index.parse::<usize>() {
            Ok(index) => Ok((word, Some(index))),
            Err(_) => expected("an index is a number from 0: `web externalIP[1]`"),
        },
        None => Ok((text, None)),
    }
}

fn split_port(text: &str) -> Result<(&str, Option<PortRef>), Expected> {
    match text.split_once(':') {
        Some((head, port)) => Ok((head, Some(port_ref(port)?))),
        None => Ok((text, None)),
    }
}

fn port_ref(text: &str) -> Result<PortRef, Expected> {
    let (port, protocol) = match text.split_once('/') {
        Some((port, "tcp")) => (port, Some(Protocol::Tcp)),
        Some((port, "udp")) => (port, Some(Protocol::Udp)),
        Some((port, "sctp")) => (port, Some(Protocol::Sctp)),
        Some((_, other)) => {
            return expected(format!("`{other}` is not a protocol: tcp, udp or sctp"));
        }
        None => (text, None),
    };
    if let Ok(number) = port.parse::<u16>() {
        return Ok(PortRef::Number(number, protocol));
    }
    if protocol.is_none() && is_name(port) {
        return Ok(PortRef::Name(port.to_owned()));
    }
    expected(format!("`{text}` is not a port: a port's name, or a number with or without /PROTO"))
}

/// One word of `is`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Kinds(BTreeSet<OutcomeKind>),
    Http(u16),
    Any,
}

impl Kind {
    pub(crate) fn parse(text: &str) -> Result<Kind, Expected> {
        let one = |kind| Ok(Kind::Kinds(BTreeSet::from([kind])));
        match text {
            "reached" => one(OutcomeKind::Reached),
            "refused" => one(OutcomeKind::Refused),
            "dropped" => one(OutcomeKind::Dropped),
            "unhandled" => one(OutcomeKind::Unhandled),
            "unanswered" => Ok(Kind::Kinds(BTreeSet::from([
                OutcomeKind::Refused,
                OutcomeKind::Dropped,
                OutcomeKind::Unhandled,
            ]))),
            "any" => Ok(Kind::Any),
            _ => match text.strip_prefix("http ").map(str::parse) {
                Some(Ok(status)) => Ok(Kind::Http(status)),
                Some(Err(_)) | None => expected(
                    "an outcome is reached, refused, dropped, unhandled, unanswered, http CODE \
                     or any",
                ),
            },
        }
    }
}

/// `source`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SourceWord {
    Client,
    Node(Option<String>),
    Balancer,
    Any,
}

impl SourceWord {
    pub(crate) fn parse(text: &str) -> Result<SourceWord, Expected> {
        match text {
            "client" => Ok(SourceWord::Client),
            "node" => Ok(SourceWord::Node(None)),
            "balancer" => Ok(SourceWord::Balancer),
            "any" => Ok(SourceWord::Any),
            _ => match text.strip_prefix("node@") {
                Some(node) if is_name(node) => Ok(SourceWord::Node(Some(node.to_owned()))),
                Some(_) | None => expected("a source is client, node, node@n1, balancer or any"),
            },
        }
    }
}

/// The transport of a question, `udp` or `tcp`.
pub(crate) fn transport(word: &str) -> Option<Protocol> {
    match word {
        "udp" => Some(Protocol::Udp),
        "tcp" => Some(Protocol::Tcp),
        _ => None,
    }
}

/// Reads `200/s`.
pub(crate) fn rate(text: &str) -> Result<u32, Expected> {
    match text.strip_suffix("/s").map(str::parse::<u32>) {
        Some(Ok(rate)) if rate > 0 => Ok(rate),
        Some(_) | None => expected("a rate is written `200/s`"),
    }
}

/// Reads `500B`, `64kB`, `2MB`, of at most `most` bytes.
pub(crate) fn size(text: &str, most: u32) -> Result<u32, Expected> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "B" => 1,
        "kB" => 1_000,
        "MB" => 1_000_000,
        _ => return expected("a size is written `500B`, `64kB` or `2MB`"),
    };
    match number.parse::<u32>().ok().and_then(|number| number.checked_mul(unit)) {
        Some(size) if (1..=most).contains(&size) => Ok(size),
        Some(_) | None => expected(format!("a size is at least 1 B and at most {most} B")),
    }
}

/// Reads `300ms`, `5s`, `2m`.
pub(crate) fn duration(text: &str) -> Result<Duration, Expected> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    match (number.parse::<u32>(), unit) {
        (Ok(n), "ms") => Ok(Duration::from_millis(n.into())),
        (Ok(n), "s") => Ok(Duration::from_secs(n.into())),
        (Ok(n), "m") => Ok(Duration::from_secs(u64::from(n) * 60)),
        (Ok(_) | Err(_), _) => expected("a duration is written `300ms`, `5s` or `2m`"),
    }
}

/// Whether a word may name a Service, endpoint, node, zone or port: a DNS label.
pub(crate) fn is_name(word: &str) -> bool {
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    word.len() <= 63
        && ends(word.chars().next())
        && ends(word.chars().last())
        && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

fn is_outside(word: &str) -> bool {
    word.strip_prefix("outside").is_some_and(|k| {
        k.is_empty() || (k.parse::<usize>().is_ok_and(|k| k >= 2) && !k.starts_with('0'))
    })
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, want: &str) {
        let got = match Target::parse(text) {
            Ok(target) => format!("{target:?}"),
            Err(error) => format!("error: {error}"),
        };
        assert!(got.contains(want), "{text}: {got}");
    }

    #[test]
    fn targets() {
        check("web clusterIP", "kind: ClusterIp, index: None, node: None, port: None");
        check(
            "web nodePort@n1:p",
            "kind: NodePort, index: None, node: Some(\"n1\"), port: Some(Name(\"p\"))",
        );
        check("web clusterIP:81/udp", "port: Some(Number(81, Some(Udp)))");
        check(
            "web nodePort@n1[1]:p",
            "kind: NodePort, index: Some(1), node: Some(\"n1\"), port: Some(Name(\"p\"))",
        );
        check("web externalIP@n2[1]", "error: only nodePort and healthCheck take an index behind");
        check("web nodePort[1]", "a node's further address is written behind the node");
        check("web externalIP[1]@n2", "kind: ExternalIp, index: Some(1), node: Some(\"n2\")");
        check(
            "web endpoint/a:p",
            "Direct { service: \"web\", endpoint: \"a\", loopback: false, port: Some(Name(\"p\"))",
        );
        check("web endpoint/a@loopback", "endpoint: \"a\", loopback: true, port: None }");
        check("web endpoint/a@n1", "error: `a@n1` is not a name of an endpoint");
        check(
            "unallocated clusterIP:80",
            "Unallocated { node: None, port: Some(Number(80, None)) }",
        );
        check("node@n2:80/tcp", "Node { node: \"n2\", port: 80, protocol: Some(Tcp) }");
        check("web nodePort@loopback", "Loopback { service: \"web\", address: None, port: None }");
        check(
            "web nodePort@127.0.0.9:p",
            "Loopback { service: \"web\", address: Some(127.0.0.9), port: Some(Name(\"p\")) }",
        );
        check("web nodePort@128.0.0.1", "error: `128.0.0.1` is not a name of a node");
        check("web clusterIP@127.0.0.1", "error: `127.0.0.1` is not a name of a node");
        check("web clusterIp", "error: `clusterIp` is not a frontend");
        check("web clusterIp", "did you mean `clusterIP`?");
        check("web", "error: a target is a Service and a frontend");
        check("web healthCheck@n1:p", "error: healthCheck has one port");
        check("web clusterIP[0]", "error: only externalIP and loadBalancer take an index");
        check("web clusterIP:80/quic", "error: `quic` is not a protocol");
        check("node@n2", "error: a node's own address needs a port");
        check("proxy healthz@n1", "Page { page: Healthz, node: Some(\"n1\") }");
        check("proxy metrics", "Page { page: Metrics, node: None }");
        check("api server", "ApiServer");
        check("api server@n1", "error: `server` is not a frontend");
        check("proxy health@n1", "error: `health` is not a page of a proxy");
    }

    #[test]
    fn vantages() {
        assert_eq!(Vantage::parse("pod@n1"), Ok(Vantage::Pod(Some("n1".into()))));
        assert_eq!(Vantage::parse("outside2"), Ok(Vantage::Outside("outside2".into())));
        assert_eq!(Vantage::parse("web/a"), Ok(Vantage::Endpoint("web".into(), "a".into())));
        for bad in ["outside1", "outside@n1", "pods", "pod@", "web/", ""] {
            assert!(Vantage::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_and_rates() {
        assert_eq!(duration("300ms"), Ok(Duration::from_millis(300)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(rate("200/s"), Ok(200));
        for bad in ["5", "s", "-5s", "5h", "1.5s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert_eq!(size("64kB", 100_000), Ok(64_000));
        for bad in ["64", "0B", "kB", "1GB", "2MB"] {
            assert!(size(bad, 100_000).is_err(), "{bad}");
        }
        assert!(rate("0/s").is_err() && rate("200").is_err());
    }
}
