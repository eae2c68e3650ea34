//! Vantages: flows from where clients stand to one destination.

use std::net::SocketAddr;

use touchstone_spec::{Asked, Client, ClientKind, Family, Flow, FrontendKind, NEIGHBOUR, PodFacts};

use crate::goals::Goal;
use crate::grammar::Vantage;
use crate::rows::Scene;
use crate::slices::Stand;
use crate::state::no_endpoint;
use crate::{CaseError, Place};

impl Scene<'_, '_> {
    /// Flows from a vantage to one destination.
    pub(crate) fn from(
        &mut self,
        vantage: &Vantage,
        goal: &Goal,
        place: Place,
        family: Family,
    ) -> Result<Vec<Flow>, CaseError> {
        let every = |node: &Option<String>| match node {
            Some(node) => vec![node.clone()],
            None => self.nodes.to_vec(),
        };
        match vantage {
            Vantage::Outside(name) => self.outside_flows(name, goal, place, family),
            Vantage::Neighbour => {
                let facts = self.context.book.facts.neighbour.as_ref();
                let address =
                    facts.and_then(|facts| facts.address(0, family)).ok_or_else(|| {
                        self.context
                            .wrong(place, "the nodes have no neighbour")
                            .help("write `needs: { network: { nodesJoined: one-segment } }`")
                    })?;
                let (kind, place_name) = (ClientKind::Outside, NEIGHBOUR.to_owned());
                let client = Client { kind, place: place_name, node: None, address };
                Ok(vec![self.inside(client, NEIGHBOUR, goal, place)?])
            }
            Vantage::Pod(node) => {
                let mut flows = Vec::new();
                for node in every(node) {
                    self.known_node(&node, place)?;
                    let pod = self.context.book.node(&node).map(|(_, facts)| facts.client.clone());
                    let client = self.pod_client(pod.unwrap_or_default(), family, place)?;
                    flows.push(self.inside(client, &format!("pod@{node}"), goal, place)?);
                }
                Ok(flows)
            }
            Vantage::Node(node) => {
                let mut flows = Vec::new();
                for node in every(node) {
                    self.known_node(&node, place)?;
                    let client = self.node_client(node.clone(), family, place)?;
                    flows.push(self.inside(client, &format!("node@{node}"), goal, place)?);
                }
                Ok(flows)
            }
            Vantage::Endpoint(service, name) => {
                let Some(text) = self.state.find(service, name) else {
                    let known = self.state.endpoints.get(service).cloned().unwrap_or_default();
                    return Err(no_endpoint(self.context.source, place, service, name, &known));
                };
                let (key, home) = self.context.home(self.state, service, name, text)?;
                let client = match self.context.stand(self.state, service, name, home)? {
                    Stand::Pod(_) => {
                        let pod = self.context.book.pod(&key).cloned();
                        let pod = pod.map_err(self.context.lack(place))?;
                        self.pod_client(pod, family, place)?
                    }
                    Stand::Node(node) => self.node_client(node, family, place)?,
                    Stand::Outside(client) => {
                        return self.outside_flows(&client, goal, place, family);
                    }
                };
                Ok(vec![self.inside(client, &format!("{service}/{name}"), goal, place)?])
            }
        }
    }

    fn pod_client(&self, pod: PodFacts, family: Family, place: Place) -> Result<Client, CaseError> {
        let address = pod.address(family).ok_or_else(|| {
            self.context.wrong(place, format!("the pod {} has no {family} address", pod.place))
        })?;
        Ok(Client { kind: ClientKind::Pod, place: pod.place, node: Some(pod.node), address })
    }

    fn node_client(&self, node: String, family: Family, place: Place) -> Result<Client, CaseError> {
        let address = self.context.book.node_address(&node, family);
        let address = address.map_err(self.context.lack(place))?;
        Ok(Client { kind: ClientKind::Node, place: node.clone(), node: Some(node), address })
    }

    fn inside(
        &self,
        client: Client,
        vantage: &str,
        goal: &Goal,
        place: Place,
    ) -> Result<Flow, CaseError> {
        // Past the proxy, a neighbour of nodes may try what no ordinary host would send.
        if goal.kind == FrontendKind::Direct && goal.address.is_loopback() {
            let tries = client.place == NEIGHBOUR || client.node == goal.via;
            if client.kind == ClientKind::Pod || !tries {
                let message = format!("{} is not to be sent to from {vantage}", goal.text);
                return Err(self.context.wrong(place, message).help(
                    "write `from: neighbour`, or `from: node@` and the node of the endpoint",
                ));
            }
            let via = goal.via.clone().filter(|_| client.node.is_none());
            return Ok(flow(client, via, goal, format!("{vantage} → {}", goal.text)));
        }
        if client.kind != ClientKind::Node {
            self.not_loopback(vantage, goal, place)?;
        }
        if let (Some(via), true) = (&goal.via, goal.kind != FrontendKind::Direct) {
            let message = format!("only packets from outside enter by a node; {vantage} is inside");
            return Err(self.context.wrong(place, message).help(format!("leave out `@{via}`")));
        }
        Ok(flow(client, None, goal, format!("{vantage} → {}", goal.text)))
    }

    /// Packets to a loopback address never leave the network they are sent in.
    fn not_loopback(&self, vantage: &str, goal: &Goal, place: Place) -> Result<(), CaseError> {
        if !goal.address.is_loopback() {
            return Ok(());
        }
        let message = format!("{} is a node's own loopback; {vantage} is no node", goal.text);
        Err(self.context.wrong(place, message).help("write `from: node` or `from: node@n1`"))
    }

    fn outside_flows(
        &self,
        name: &str,
        goal: &Goal,
        place: Place,
        family: Family,
    ) -> Result<Vec<Flow>, CaseError> {
        if !self.outside.iter().any(|known| known == name) {
            let message = format!("there is no outside client `{name}`");
            let known = self.outside.iter().map(String::as_str);
            return Err(self.context.wrong(place, message).suggest(name, known));
        }
        self.not_loopback(name, goal, place)?;
        let facts = self.context.book.facts.outside.iter().find(|client| client.name == name);
        let chosen = goal.owner.is_none()
            && goal.via.is_none()
            && goal.kind == FrontendKind::LoadBalancer
            && self.context.book.facts.network.balancer_chooses();
        if chosen {
            let address = facts.and_then(|facts| facts.address(0, family)).ok_or_else(|| {
                self.context.wrong(place, format!("{name} has no {family} address"))
            })?;
            let client =
                Client { kind: ClientKind::Outside, place: name.to_owned(), node: None, address };
            return Ok(vec![flow(client, None, goal, format!("{name} → {}", goal.text))]);
        }
        let entries: Vec<&String> = match goal.owner.as_ref().or(goal.via.as_ref()) {
            Some(node) => vec![node],
            None => self.nodes.iter().collect(),
        };
        let mut flows = Vec::new();
        for node in entries {
            let index = self.context.book.node(node).map(|(index, _)| index);
            let address = index
                .zip(facts)
                .and_then(|(index, facts)| facts.address(index, family))
                .ok_or_else(|| {
                    let message = format!("{name} has no {family} address for packets by {node}");
                    self.context.wrong(place, message)
                })?;
            let client =
                Client { kind: ClientKind::Outside, place: name.to_owned(), node: None, address };
            let via = goal.owner.is_none().then(|| node.clone());
            let by = if via.is_some() && goal.kind != FrontendKind::Direct {
                entering(&goal.text, node)
            } else {
                goal.text.clone()
            };
            flows.push(flow(client, via, goal, format!("{name} → {by}")));
        }
        Ok(flows)
    }
}

/// `web clusterIP:p` entered by n2: `web clusterIP@n2:p`.
fn entering(text: &str, node: &str) -> String {
    match text.split_once(':') {
        Some((head, port)) => format!("{head}@{node}:{port}"),
        None => format!("{text}@{node}"),
    }
}

fn flow(client: Client, via: Option<String>, goal: &Goal, text: String) -> Flow {
    // What is bound to the loopback of a node is found there by the node alone.
    let own = goal.owner.is_some() && client.node == goal.owner;
    let at_home = goal.page.as_ref().filter(|_| own && client.kind == ClientKind::Node);
    Flow {
        client,
        via,
        to: at_home.map_or(SocketAddr::new(goal.address, goal.port), |(home, _)| *home),
        protocol: goal.protocol,
        frontend: goal.kind,
        question: goal.question.clone(),
        size: 0,
        source_port: None,
        http: goal.page.as_ref().map(|(_, path)| Asked { path: path.clone(), looks: Vec::new() }),
        text,
    }
}
