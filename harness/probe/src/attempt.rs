//! One attempt of a flow, whatever it asks; flows that are kept open.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use touchstone_spec::{
    Asked, ClientKind, Family, Flow, FrontendKind, Observation, Outcome, Protocol, Question,
};

use crate::{
    Connection, Findings, UdpFlow, ask_names_tcp, ask_names_udp, chance, connect_sctp, connect_tcp,
    echo_sctp, echo_tcp, echo_udp, get_http, search_names,
};

/// How long a name server may take where its answer is only the way to an address.
const LOOKUP_WAIT: Duration = Duration::from_secs(3);

/// Opens sockets where the client of a flow stands, with the client's address where the flow says
/// one.
///
/// Errors: why no socket could be had; the probe is then broken.
pub trait Sockets: Sync {
    /// A TCP socket for one attempt of a flow, from a port that was not used lately.
    fn tcp(&self, flow: &Flow) -> impl Future<Output = Result<OwnedFd, String>> + Send;

    /// A UDP socket for one attempt of a flow, from a port that was not used lately.
    fn udp(&self, flow: &Flow) -> impl Future<Output = Result<OwnedFd, String>> + Send;

    /// An SCTP socket of the one-to-one style for one attempt of a flow.
    fn sctp(&self, flow: &Flow) -> impl Future<Output = Result<OwnedFd, String>> + Send;
}

/// The source address that a flow's socket must be bound to. A node sends from whatever address
/// its routes say.
#[must_use]
pub fn source_of(flow: &Flow) -> IpAddr {
    match (flow.client.kind, flow.family()) {
        (ClientKind::Node, Family::V4) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        (ClientKind::Node, Family::V6) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        (ClientKind::Pod | ClientKind::Outside, _) => flow.client.address,
    }
}

/// What an attempt saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempted {
    /// What was seen.
    pub saw: Observation,
    /// Where the last packets were sent, if not to the flow's own address by its own transport.
    pub elsewhere: Option<(SocketAddr, Protocol)>,
}

/// Sends one attempt of a flow and says what was seen within `wait`.
///
/// A question to a name server may go on to an address that the answer names, with as much time
/// again.
pub async fn attempt<S: Sockets>(sockets: &S, flow: &Flow, wait: Duration) -> Attempted {
    match &flow.question {
        Some(question) => ask(sockets, flow, question, wait).await,
        None => Attempted { saw: send(sockets, flow, wait).await, elsewhere: None },
    }
}

async fn send<S: Sockets>(sockets: &S, flow: &Flow, wait: Duration) -> Observation {
    let (to, size) = (flow.to, flow.size);
    match (flow.frontend, flow.protocol) {
        (FrontendKind::HealthCheck | FrontendKind::Page, _) => {
            let usual = Asked { path: "/healthz".to_owned(), looks: Vec::new() };
            let asked = flow.http.as_ref().unwrap_or(&usual);
            match sockets.tcp(flow).await {
                Ok(socket) => get_http(socket, to, asked, wait).await,
                Err(why) => Observation::ProbeBroke(why),
            }
        }
        (_, Protocol::Tcp) => match sockets.tcp(flow).await {
            Ok(socket) => echo_tcp(socket, to, size, wait).await,
            Err(why) => Observation::ProbeBroke(why),
        },
        (_, Protocol::Udp) => match sockets.udp(flow).await {
            Ok(socket) => echo_udp(socket, to, size, wait).await,
            Err(why) => Observation::ProbeBroke(why),
        },
        (_, Protocol::Sctp) => match sockets.sctp(flow).await {
            Ok(socket) => echo_sctp(socket, to, size, wait).await,
            Err(why) => Observation::ProbeBroke(why),
        },
    }
}

/// Asks a name server, and goes on to an address that it names where the question says so.
async fn ask<S: Sockets>(
    sockets: &S,
    flow: &Flow,
    question: &Question,
    wait: Duration,
) -> Attempted {
    let over = if question.then.is_some() { Protocol::Udp } else { flow.protocol };
    let lookup = Flow { protocol: over, question: None, ..flow.clone() };
    let patience = if question.then.is_some() { wait.max(LOOKUP_WAIT) } else { wait };
    let mut findings = Findings::default();
    let mut found = None;
    for name in search_names(question) {
        let types = &question.types;
        let saw = match over {
            Protocol::Udp => match sockets.udp(&lookup).await {
                Ok(socket) => ask_names_udp(socket, flow.to, &name, types, patience).await,
                Err(why) => Observation::ProbeBroke(why),
            },
            Protocol::Tcp => match sockets.tcp(&lookup).await {
                Ok(socket) => ask_names_tcp(socket, flow.to, &name, types, patience).await,
                Err(why) => Observation::ProbeBroke(why),
            },
            Protocol::Sctp => Observation::ProbeBroke("names are not asked by SCTP".to_owned()),
        };
        let Observation::Saw(Outcome::Answered(answer)) = saw else {
            return Attempted { saw, elsewhere: Some((flow.to, over)) };
        };
        if let Some(records) = findings.take(answer) {
            found = Some(records);
            break;
        }
    }
    let answer = found.unwrap_or_else(|| findings.end());
    let addresses = answer.addresses(flow.family());
    match (question.then, any_of(&addresses)) {
        (Some(port), Some(address)) => {
            let to = SocketAddr::new(address, port);
            let saw = send(sockets, &Flow { to, question: None, ..flow.clone() }, wait).await;
            Attempted { saw, elsewhere: Some((to, flow.protocol)) }
        }
        (Some(_), None) | (None, _) => {
            Attempted { saw: Observation::Saw(Outcome::Answered(answer)), elsewhere: None }
        }
    }
}

/// One address by chance: the order of an answer means nothing.
fn any_of(addresses: &[IpAddr]) -> Option<IpAddr> {
    let count = u64::try_from(addresses.len()).ok().filter(|count| *count > 0)?;
    usize::try_from(chance() % count).ok().and_then(|index| addresses.get(index).copied())
}

/// A flow that is kept open: one TCP connection or SCTP association, or one UDP source port.
#[derive(Debug)]
pub enum KeptFlow {
    /// A connection.
    Stream(Connection),
    /// A source port.
    Datagrams(UdpFlow),
}

impl KeptFlow {
    /// Opens a flow.
    ///
    /// Errors: what was seen instead of a connection, or that the probe broke.
    pub async fn open<S: Sockets>(
        sockets: &S,
        flow: &Flow,
        wait: Duration,
    ) -> Result<KeptFlow, Observation> {
        if flow.question.is_some() {
            return Err(Observation::ProbeBroke("what a name leads to is not kept".to_owned()));
        }
        let broke = Observation::ProbeBroke;
        match flow.protocol {
            Protocol::Tcp => {
                let socket = sockets.tcp(flow).await.map_err(broke)?;
                connect_tcp(socket, flow.to, wait).await.map(KeptFlow::Stream)
            }
            Protocol::Udp => {
                let socket = sockets.udp(flow).await.map_err(broke)?;
                UdpFlow::open(socket, flow.to).map(KeptFlow::Datagrams)
            }
            Protocol::Sctp => {
                let socket = sockets.sctp(flow).await.map_err(broke)?;
                connect_sctp(socket, flow.to, wait).await.map(KeptFlow::Stream)
            }
        }
    }

    /// Sends one message over it and waits at most `wait` for its answer.
    pub async fn ask(&mut self, wait: Duration) -> Observation {
        match self {
            KeptFlow::Stream(connection) => connection.ask(wait).await,
            KeptFlow::Datagrams(flow) => flow.ask(wait).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_reaches_every_address() {
        let addresses: Vec<IpAddr> = (1..=3).map(|i| IpAddr::from([10, 0, 0, i])).collect();
        for address in &addresses {
            assert!((0..200).any(|_| any_of(&addresses) == Some(*address)), "{address}");
        }
        assert_eq!(any_of(&[]), None);
    }
}
