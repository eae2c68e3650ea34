//! A node's table of virtual servers, read from `/proc/thread-self/net/ip_vs`, and what belongs to
//! its addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::process::{Command, Stdio};

use touchstone_spec::{
    Flow, Look, Observation, Outcome, Protocol, VirtualServer, VirtualServerAction,
};

use super::address_sets;
use super::cluster::LabCluster;
use crate::ClusterError;

/// Of this thread: `/proc/net` would be that of the first one.
const TABLE: &str = "/proc/thread-self/net/ip_vs";
/// The program that shows and changes the table.
const IPVSADM: &str = "ipvsadm";
/// Parts that tell timeouts, in the order in which ipvsadm tells them.
const TIMED: [&str; 3] =
    [VirtualServer::TCP_TIMEOUT, VirtualServer::TCP_FIN_TIMEOUT, VirtualServer::UDP_TIMEOUT];
/// Arguments with which ipvsadm writes down all virtual servers.
const SAVE: [&str; 2] = ["--save", "--numeric"];
/// Arguments with which it tells timeouts.
const TIMEOUTS: [&str; 2] = ["--list", "--timeout"];

impl LabCluster {
    /// What the table of the client's node has for the destination of a flow.
    pub(super) async fn listed(&self, flow: &Flow) -> Observation {
        let name = flow.client.node.as_deref().unwrap_or_default();
        let Some(node) = self.topology.node(name) else {
            return Observation::ProbeBroke(format!("no node {name}"));
        };
        let (protocol, to) = (flow.protocol, flow.to);
        let wanted = flow.http.as_ref().map(|asked| asked.looks.clone()).unwrap_or_default();
        let asked = |part: &str| wanted.contains(&Look::Json(part.to_owned()));
        let timed = TIMED.iter().any(|part| asked(part));
        let in_sets = asked(VirtualServer::SETS);
        let kept = asked(VirtualServer::PERSISTENT);
        let look = move || -> Result<Node, String> {
            let table = match fs::read_to_string(TABLE) {
                Ok(table) => table,
                // Without the table there is no virtual server either.
                Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
                Err(error) => return Err(format!("{TABLE}: {error}")),
            };
            Ok(Node {
                server: find(&table, protocol, to),
                local: UdpSocket::bind((to.ip(), 0)).is_ok(),
                persistent: if kept {
                    persistent(&said(IPVSADM, &SAVE)?, protocol, to)
                } else {
                    None
                },
                timeouts: if timed { Some(timeouts(&said(IPVSADM, &TIMEOUTS)?)?) } else { None },
                sets: if in_sets {
                    Some(address_sets::with(&said("ipset", &["save"])?, protocol, to))
                } else {
                    None
                },
            })
        };
        match node.namespace().run_async(look).await {
            Ok(Ok(node)) => Observation::Saw(node.answer(&wanted)),
            Ok(Err(why)) => Observation::ProbeBroke(why),
            Err(error) => Observation::ProbeBroke(error.to_string()),
        }
    }
}

impl LabCluster {
    /// Does to the table of a node what somebody else than its proxy may do.
    pub(super) async fn change_virtual_server(
        &self,
        node: &str,
        at: SocketAddr,
        protocol: Protocol,
        action: VirtualServerAction,
    ) -> Result<(), ClusterError> {
        let failed = |why: String| {
            ClusterError::new(format!("failed to change the virtual server {at} on {node}"), why)
        };
        let found = self.topology.node(node).ok_or_else(|| failed("no such node".to_owned()))?;
        let at = at.to_string();
        let change = move || {
            let command = match action {
                VirtualServerAction::Add => vec!["-A", option(protocol), at.as_str(), "-s", "rr"],
                VirtualServerAction::Remove => vec!["-D", option(protocol), at.as_str()],
            };
            said(IPVSADM, &command).map(drop)
        };
        let done = found.namespace().run_async(change).await;
        done.map_err(|error| failed(error.to_string()))?.map_err(failed)
    }
}

/// What a node has.
struct Node {
    server: Option<VirtualServer>,
    /// Whether the address is its own.
    local: bool,
    /// Seconds, where they were asked for.
    persistent: Option<u32>,
    /// Seconds of silent TCP, closed TCP and silent UDP, where they were asked for.
    timeouts: Option<[u32; 3]>,
    /// Names of the sets that have the address, where they were asked for.
    sets: Option<BTreeSet<String>>,
}

impl Node {
    fn answer(&self, looks: &[Look]) -> Outcome {
        let shown = looks.iter().filter_map(|look| Some((look.to_string(), self.part(look)?)));
        Outcome::Http {
            status: match &self.server {
                Some(_) => VirtualServer::THERE,
                None => VirtualServer::NOT_THERE,
            },
            local_endpoints: None,
            shown: shown.collect(),
        }
    }

    fn part(&self, look: &Look) -> Option<String> {
        let Look::Json(name) = look else { return None };
        let server = self.server.as_ref();
        match name.as_str() {
            VirtualServer::LOCAL => Some(self.local.to_string()),
            VirtualServer::SETS => self.sets.as_ref().map(VirtualServer::sets_text),
            part if TIMED.contains(&part) => {
                let place = TIMED.iter().position(|known| *known == part)?;
                self.timeouts.and_then(|all| all.get(place).map(ToString::to_string))
            }
            VirtualServer::SCHEDULER => server.map(|server| server.scheduler.clone()),
            VirtualServer::PERSISTENT => self.persistent.map(|seconds| seconds.to_string()),
            VirtualServer::WEIGHTS => {
                server.map(|server| VirtualServer::weights_text(&server.weights))
            }
            _ => None,
        }
    }
}

/// What a program says in this thread's namespace.
fn said(program: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{program} {}: {}", args.join(" "), why.trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Seconds after which the kernel forgets flows, in the order of [`TIMED`]: the numbers of
/// `Timeout (tcp tcpfin udp): 900 120 300`.
fn timeouts(said: &str) -> Result<[u32; 3], String> {
    let numbers: Vec<u32> = said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    numbers.try_into().map_err(|_| format!("ipvsadm tells no timeouts: {}", said.trim()))
}

/// Seconds for which a client keeps its real server, of the line
/// `-A -t 10.96.0.17:80 -s rr -p 10800`; none without such a virtual server.
///
/// The kernel's own table has them in ticks of its clock, whose length nobody tells.
fn persistent(said: &str, protocol: Protocol, to: SocketAddr) -> Option<u32> {
    let kind = option(protocol);
    said.lines().find_map(|line| match line.split_whitespace().collect::<Vec<_>>().as_slice() {
        ["-A", flag, address, rest @ ..] if *flag == kind && address.parse() == Ok(to) => {
            let seconds = rest.iter().skip_while(|word| **word != "-p").nth(1);
            Some(seconds.and_then(|word| word.parse().ok()).unwrap_or(0))
        }
        _ => None,
    })
}

/// How ipvsadm calls a transport protocol.
fn option(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "-t",
        Protocol::Udp => "-u",
        Protocol::Sctp => "--sctp-service",
    }
}

/// The virtual server of an address and port in the text of the table.
fn find(table: &str, protocol: Protocol, to: SocketAddr) -> Option<VirtualServer> {
    let wanted = match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    };
    let mut found: Option<VirtualServer> = None;
    for line in table.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match (words.as_slice(), &mut found) {
            (["->", address, _, weight, ..], Some(server)) => {
                let real = address_of(address).zip(weight.parse().ok());
                server.weights.extend(real);
            }
            (["->", ..], _) | ([], _) => {}
            (_, Some(_)) => break,
            ([kind, address, scheduler, ..], None)
                if *kind == wanted && address_of(address) == Some(to) =>
            {
                let scheduler = (*scheduler).to_owned();
                found = Some(VirtualServer { scheduler, weights: BTreeMap::new() });
            }
            _ => {}
        }
    }
    found
}

/// `0A600011:0050`, or `[fd00:0010:0096:0000:0000:0000:0000:0011]:0050`.
fn address_of(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let ip = match address.strip_prefix('[') {
        Some(six) => IpAddr::V6(six.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?),
        None => IpAddr::V4(Ipv4Addr::from(u32::from_str_radix(address, 16).ok()?)),
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  0A600011:0050 rr persistent 1080000 FFFFFFFF
  -> 0AF4010B:1F40      Masq    1      0          2
  -> 0AF4020B:1F40      Masq    0      1          0
UDP  0A600011:0050 rr
TCP  [fd00:0010:0096:0000:0000:0000:0000:0011]:0050 mh
  -> [fd00:0010:0244:0001:0000:0000:0000:0011]:1F40      Masq    1      0          0
";

    fn show(protocol: Protocol, to: &str) -> String {
        let to = to.parse().expect("an address");
        find(TEXT, protocol, to).map_or("nothing".to_owned(), |server| {
            let weights = VirtualServer::weights_text(&server.weights);
            format!("{} [{weights}]", server.scheduler)
        })
    }

    #[test]
    fn tables_are_read() {
        assert_eq!(
            show(Protocol::Tcp, "10.96.0.17:80"),
            "rr [10.244.1.11:8000 weight 1, 10.244.2.11:8000 weight 0]"
        );
        assert_eq!(show(Protocol::Udp, "10.96.0.17:80"), "rr []");
        assert_eq!(
            show(Protocol::Tcp, "[fd00:10:96::11]:80"),
            "mh [[fd00:10:244:1::11]:8000 weight 1]"
        );
        assert_eq!(show(Protocol::Tcp, "10.96.0.17:81"), "nothing");
        assert_eq!(show(Protocol::Sctp, "10.96.0.17:80"), "nothing");
    }

    #[test]
    fn what_ipvsadm_says() {
        let text = "-A -t 10.96.0.17:80 -s rr -p 10800\n-A -t [fd00:10:96::11]:80 -s rr\n";
        let ask = |protocol, to: &str| persistent(text, protocol, to.parse().expect("an address"));
        assert_eq!(ask(Protocol::Tcp, "10.96.0.17:80"), Some(10_800));
        assert_eq!(ask(Protocol::Tcp, "[fd00:10:96::11]:80"), Some(0));
        assert_eq!(ask(Protocol::Udp, "10.96.0.17:80"), None);
        assert_eq!(timeouts("Timeout (tcp tcpfin udp): 900 120 300"), Ok([900, 120, 300]));
        assert!(timeouts("").is_err());
    }
}
