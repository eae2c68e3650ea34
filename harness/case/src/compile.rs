//! From a variant and a book to a script: all steps, all objects, all flows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use touchstone_spec::api::{EndpointSlice, Meta};
use touchstone_spec::{
    ApiService, Family, FrontendKind, Node, NodeSays, Protocol, VirtualServerAction, World,
};

use crate::clients::{fresh, keeps, sticky};
use crate::deployed;
use crate::goals::addresses;
use crate::grammar::{Expected, Target, duration, rate};
use crate::matrix::matrix;
use crate::objects::{Context, Objects};
use crate::rows::{History, Scene};
use crate::slices::Stand;
use crate::state::{Applied, State};
use crate::text::{ChangeText, SlicesBy, StepText, TrafficText, VirtualServerChange};
use crate::{
    At, Book, CaseError, Change, Keep, Names, Place, Row, Script, ScriptStep, ServerWish, Traffic,
    Variant,
};

const WITHIN: Duration = Duration::from_secs(30);
const HOLD: Duration = Duration::from_millis(300);

/// Fills in every address, port and name of a variant.
///
/// Pure but for the book, which remembers what it handed out.
///
/// # Errors
/// The first thing that is wrong with the case, or that the book cannot supply.
pub fn compile(variant: &Variant, book: &mut Book) -> Result<Script, CaseError> {
    let (script, errors) = Compiler::new(variant, book, Matrix::Add).run();
    match errors.into_iter().next() {
        Some(error) => Err(error),
        None => Ok(script),
    }
}

/// As much of a script as can be made, and everything that is wrong with the rest.
pub(crate) fn steps_and_errors(variant: &Variant, book: &mut Book) -> (Script, Vec<CaseError>) {
    Compiler::new(variant, book, Matrix::Add).run()
}

/// Everything that is wrong with a variant. The matrix is made of what rows are checked for too,
/// so it is left out.
pub(crate) fn errors(variant: &Variant, book: &mut Book) -> Vec<CaseError> {
    Compiler::new(variant, book, Matrix::LeaveOut).run().1
}

/// Whether flows are made that nobody wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Matrix {
    Add,
    LeaveOut,
}

struct Compiler<'a> {
    matrix: Matrix,
    variant: &'a Variant,
    context: Context<'a>,
    state: State,
    objects: Objects,
    history: History,
    servers: BTreeSet<ServerWish>,
    names: Names,
    /// Metrics that rows have read so far, by flow.
    read: BTreeSet<(String, String)>,
    /// Flows of the step before whose clients keep to one endpoint.
    sticky: BTreeSet<String>,
    errors: Vec<CaseError>,
}

impl<'a> Compiler<'a> {
    fn new(variant: &'a Variant, book: &'a mut Book, matrix: Matrix) -> Compiler<'a> {
        let case = variant.case();
        let namespace = book.namespace(variant);
        let shape = variant.shape();
        let names = shape.node_names();
        let nodes = names.into_iter().zip(shape.zones.into_iter().map(NodeSays::zone)).collect();
        let state = State::new(&case.body().world, nodes);
        let context = Context {
            source: case.source(),
            book,
            namespace,
            family: variant.family(),
            protocol: variant.protocol(),
            alone: variant.alone(),
            slice_numbers: BTreeMap::new(),
        };
        Compiler {
            matrix,
            variant,
            context,
            state,
            objects: Objects::default(),
            history: History::new(),
            servers: BTreeSet::new(),
            names: Names::default(),
            read: BTreeSet::new(),
            sticky: BTreeSet::new(),
            errors: Vec::new(),
        }
    }

    fn run(mut self) -> (Script, Vec<CaseError>) {
        let mut steps = Vec::new();
        self.name_places();
        let variant = self.variant;
        for step in &variant.case().body().steps {
            match self.step(step) {
                Ok(step) => steps.push(step),
                Err(error) => {
                    // Later steps would be read in a world that never came to be.
                    self.errors.push(error);
                    break;
                }
            }
        }
        let script = Script { namespace: self.context.namespace, steps, names: self.names };
        (script, self.errors)
    }

    fn step(&mut self, step: &At<StepText>) -> Result<ScriptStep, CaseError> {
        let At { value: text, place } = step;
        let changes = self.changes(text)?;
        self.remember()?;
        let features = self.variant.features();
        let shape = self.variant.shape();
        let nodes = shape.node_names();
        // Not every cluster has clients outside of it; a case that names none does without.
        let has = |name: &String| self.context.book.facts.outside.iter().any(|c| c.name == *name);
        let outside: Vec<String> = shape.outside_names().into_iter().filter(has).collect();
        let mut scene = Scene {
            context: &mut self.context,
            state: &self.state,
            history: &self.history,
            nodes: &nodes,
            outside: &outside,
        };
        let mut rows = Vec::new();
        for row in &text.expect {
            let grown = scene.row(row).and_then(|more| {
                grows(&scene, row.place, &more, &self.read)?;
                keeps(&scene, row.place, &more, &self.sticky)?;
                fresh(&scene, row, &more, &self.sticky)?;
                Ok(more)
            });
            match grown {
                Ok(more) => rows.extend(more),
                Err(error) => self.errors.push(error),
            }
        }
        self.read.extend(rows.iter().flat_map(parts));
        self.sticky = sticky(&rows);
        let flows = match (self.matrix, text.matrix) {
            (Matrix::Add, Some(true) | None) => {
                matrix(&mut scene, &rows, &features).map_err(|error| error.at(*place))?
            }
            (Matrix::Add, Some(false)) | (Matrix::LeaveOut, _) => Vec::new(),
        };
        let traffic = match &text.traffic {
            Some(text) => Some(traffic(&mut scene, text)?),
            None => None,
        };
        self.listen_on_loopback(&rows);
        Ok(ScriptStep {
            changes,
            world: self.world(),
            rows,
            matrix: flows,
            servers: self.servers.iter().cloned().collect(),
            within: self.time(text.within.as_ref(), WITHIN)?,
            hold: self.time(text.hold.as_ref(), HOLD)?,
            traffic,
            marked: text.marker != Some(false),
        })
    }

    fn time(&self, text: Option<&At<String>>, default: Duration) -> Result<Duration, CaseError> {
        text.map_or(Ok(default), |At { value, place }| {
            duration(value).map_err(|Expected(what)| self.context.wrong(*place, what))
        })
    }

    /// Applies the changes of a step, in the order written; those that only touch objects are
    /// written together, as a controller does.
    fn changes(&mut self, text: &StepText) -> Result<Vec<Change>, CaseError> {
        let mut changes = Vec::new();
        for change in &text.change {
            if let ChangeText::VirtualServer(text) = &change.value {
                self.write(&mut changes)?;
                self.virtual_server(change.place, text, &mut changes)?;
                continue;
            }
            let before = self.state.clone();
            let applied = self.state.apply(self.context.source, change, self.variant.alone())?;
            match applied {
                Applied::Quietly => {}
                Applied::Boundary => {
                    let after = std::mem::replace(&mut self.state, before);
                    self.write(&mut changes)?;
                    self.state = after;
                    self.write(&mut changes)?;
                }
                Applied::Do(change) => {
                    let after = std::mem::replace(&mut self.state, before);
                    self.write(&mut changes)?;
                    self.state = after;
                    changes.push(*change);
                }
            }
        }
        self.write(&mut changes)?;
        Ok(changes)
    }

    /// Appends what somebody else does about virtual servers, in every family of the variant.
    fn virtual_server(
        &mut self,
        place: Place,
        text: &VirtualServerChange,
        changes: &mut Vec<Change>,
    ) -> Result<(), CaseError> {
        if !self.context.alone {
            let message = "a virtual server of somebody else touches other cases on the cluster";
            return Err(self.context.wrong(place, message).help("write `needs: { alone: true }`"));
        }
        let action = match (text.add, text.remove) {
            (Some(_), None) => VirtualServerAction::Add,
            (None, Some(_)) => VirtualServerAction::Remove,
            (Some(_), Some(_)) | (None, None) => {
                let message = "a change has exactly one of `add` or `remove`";
                return Err(self.context.wrong(place, message));
            }
        };
        let At { value: target, place } = &text.virtual_server;
        let target =
            Target::parse(target).map_err(|Expected(what)| self.context.wrong(*place, what))?;
        let nodes = self.variant.shape().node_names();
        let mut scene = Scene {
            context: &mut self.context,
            state: &self.state,
            history: &self.history,
            nodes: &nodes,
            outside: &[],
        };
        scene.known_node(&text.on.value, text.on.place)?;
        for family in self.variant.family().families() {
            for goal in scene.goals(&target, *place, *family)? {
                changes.push(Change::VirtualServer {
                    node: text.on.value.clone(),
                    at: SocketAddr::new(goal.address, goal.port),
                    protocol: goal.protocol,
                    action,
                });
            }
        }
        Ok(())
    }

    /// Appends what turns the objects of before into those of the state.
    fn write(&mut self, changes: &mut Vec<Change>) -> Result<(), CaseError> {
        let objects = self.context.objects(&self.state)?;
        difference(&self.objects, &objects, self.state.slices_by, changes);
        for (name, service) in &objects.services {
            let versions = self.history.entry(name.clone()).or_default();
            if versions.last() != Some(service) {
                versions.push(service.clone());
            }
        }
        self.objects = objects;
        Ok(())
    }

    fn world(&self) -> World {
        let mut world = World {
            nodes: self
                .context
                .book
                .facts
                .nodes
                .iter()
                .map(|node| Node {
                    name: node.name.clone(),
                    zone: match self.state.nodes.get(&node.name) {
                        Some(says) => says.zone.clone(),
                        None => node.zone.clone(),
                    },
                    addresses: node.addresses.clone(),
                })
                .collect(),
            services: self.objects.services.values().cloned().collect(),
            slices: self
                .objects
                .slices
                .values()
                .chain(self.objects.raw.values())
                .cloned()
                .collect(),
            proxy: self.context.book.facts.proxy.clone(),
            network: self.context.book.facts.network.clone(),
            outside: self.context.book.facts.outside.clone(),
            balancer: self.context.book.facts.balancer.clone(),
            unhandled_is_silent: self.context.book.facts.unhandled_is_silent,
            refusals_are_few: self.context.book.facts.refusals_are_few,
        };
        let api = self.context.book.facts.api.iter().flat_map(ApiService::changes);
        api.for_each(|change| world.apply(&change));
        world
    }

    /// Adds the servers and names of this moment to those of before.
    fn remember(&mut self) -> Result<(), CaseError> {
        for (service, endpoints) in &self.state.endpoints {
            let Some(text) = self.state.services.get(service) else {
                continue;
            };
            let ports = text.value.ports.get().map(Vec::as_slice).unwrap_or_default();
            let families = self.context.families(&text.value)?;
            for (name, endpoint) in endpoints {
                let (key, home) = self.context.home(&self.state, service, name, endpoint)?;
                let stand = self.context.stand(&self.state, service, name, home)?;
                let on_node = matches!(stand, Stand::Node(_));
                let place = match stand {
                    Stand::Pod(_) => {
                        let pod = self.context.book.pod(&key).map(|pod| pod.place.clone());
                        pod.map_err(self.context.lack(endpoint.place))?
                    }
                    Stand::Node(place) | Stand::Outside(place) => place,
                };
                let ports =
                    self.context.endpoint_ports(&self.state, service, name, endpoint, ports)?;
                for family in &families {
                    let address = self.context.endpoint_address(
                        &self.state,
                        service,
                        name,
                        endpoint,
                        *family,
                    )?;
                    for (_, protocol, port) in &ports {
                        let (port, protocol, place) = (*port, *protocol, place.clone());
                        let bound = match family {
                            _ if !on_node || !listens_everywhere(protocol) => address,
                            Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
                            Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
                        };
                        self.servers.insert(ServerWish { place, address: bound, port, protocol });
                        self.names
                            .endpoints
                            .entry(SocketAddr::new(address, port))
                            .or_insert_with(|| key.clone());
                    }
                }
            }
        }
        for (name, service) in &self.objects.services {
            for family in Family::BOTH {
                for kind in
                    [FrontendKind::ClusterIp, FrontendKind::ExternalIp, FrontendKind::LoadBalancer]
                {
                    for address in addresses(service, kind, family) {
                        let what = format!("{name} {kind}");
                        self.names.addresses.entry(address).or_insert(what);
                    }
                }
            }
        }
        Ok(())
    }

    /// Adds the servers on loopback addresses that rows speak of, where none listens there yet.
    fn listen_on_loopback(&mut self, rows: &[Row]) {
        for flow in rows.iter().map(|row| &row.flow) {
            let place = flow.client.node.as_ref().or(flow.via.as_ref());
            let (true, Some(place)) =
                (flow.to.ip().is_loopback() && flow.frontend == FrontendKind::Direct, place)
            else {
                continue;
            };
            let (address, port) = (flow.to.ip(), flow.to.port());
            let (place, protocol) = (place.clone(), flow.protocol);
            let name = self.names.endpoints.iter().find(|(known, _)| {
                known.port() == port && self.names.addresses.get(&known.ip()) == Some(&place)
            });
            let name = name.map_or_else(|| place.clone(), |(_, name)| name.clone());
            self.names.endpoints.entry(flow.to).or_insert_with(|| format!("{name}@loopback"));
            if !listens_everywhere(protocol) {
                self.servers.insert(ServerWish { place, address, port, protocol });
            }
        }
    }

    fn name_places(&mut self) {
        let facts = &self.context.book.facts;
        let mut names = BTreeMap::new();
        for node in &facts.nodes {
            names.extend(node.addresses.iter().map(|ip| (*ip, node.name.clone())));
            let client = format!("pod@{}", node.name);
            names.extend(node.client.addresses.iter().map(|ip| (*ip, client.clone())));
        }
        for client in facts.outside.iter().chain(&facts.balancer).chain(&facts.neighbour) {
            names.extend(client.addresses.iter().flatten().map(|ip| (*ip, client.name.clone())));
        }
        for (key, pod) in &self.context.book.pods {
            names.extend(pod.addresses.iter().map(|ip| (*ip, key.clone())));
        }
        self.names.addresses = names;
    }
}

/// The parts of HTTP answers that a row looks at.
fn parts(row: &Row) -> impl Iterator<Item = (String, String)> {
    row.pin.shows.conditions.keys().map(|part| (row.flow.text.clone(), part.clone()))
}

/// What grows must have been read in an earlier step.
fn grows(
    scene: &Scene<'_, '_>,
    place: Place,
    rows: &[Row],
    read: &BTreeSet<(String, String)>,
) -> Result<(), CaseError> {
    for row in rows {
        for part in row.pin.shows.growth.keys() {
            if !read.contains(&(row.flow.text.clone(), part.clone())) {
                let message = format!("nothing to grow from: no earlier step reads {part}");
                let help = format!(
                    "give an earlier step a row from and to the same places, with \
                                    `{part}` and `atLeast: 0`"
                );
                return Err(scene.context.wrong(place, message).help(help));
            }
        }
    }
    Ok(())
}

fn traffic(scene: &mut Scene<'_, '_>, text: &At<TrafficText>) -> Result<Traffic, CaseError> {
    let At { value: text, place } = text;
    let mut flows = scene.all_flows(&text.from, &text.to)?;
    if let Some(At { value: port, place }) = text.source_port {
        let sctp = flows.iter().any(|flow| flow.protocol == Protocol::Sctp);
        if port == 0 || sctp || text.keep.is_none() {
            let message = "`sourcePort` is for `keep: connection` over TCP or UDP, from 1 on";
            return Err(scene.context.wrong(place, message));
        }
        flows.iter_mut().for_each(|flow| flow.source_port = Some(port));
    }
    let every = match (&text.rate, &text.idle, text.keep) {
        (Some(At { value, place }), None, _) => {
            let per_second =
                rate(value).map_err(|Expected(what)| scene.context.wrong(*place, what))?;
            let flows = u32::try_from(flows.len()).unwrap_or(u32::MAX).max(1);
            Duration::from_secs(1) * flows / per_second.max(1)
        }
        (None, Some(At { value, place }), Some(_)) => {
            duration(value).map_err(|Expected(what)| scene.context.wrong(*place, what))?
        }
        (Some(_) | None, Some(_) | None, Some(_) | None) => {
            let message = "traffic has `rate`, or `keep: connection` and `idle`";
            return Err(scene.context.wrong(*place, message));
        }
    };
    if let Some(page) = flows.iter().find(|flow| flow.frontend.is_told()) {
        return Err(scene.context.wrong(*place, format!("no traffic goes to a page: {page}")));
    }
    Ok(Traffic {
        flows,
        every,
        budget: text.budget,
        keep: text.keep.map_or(Keep::Nothing, |_| Keep::Connection),
        line: place.line,
    })
}

/// Changes from one set of objects to another.
///
/// Whether a server in a node's network listens on every address, as programs do. A datagram has to
/// be answered from the address that it was sent to, so that its server must know which.
fn listens_everywhere(protocol: Protocol) -> bool {
    protocol == Protocol::Tcp
}

/// As controllers order them: a deleted Service goes before its slices, a new one comes before
/// them, and new slices come before old ones go. Where the cluster's own controllers write slices,
/// there is only what they are to run. By hand it is the other way round: slices come
/// before their Services and go before them. Slices that are written out come after those of
/// controllers and go last.
fn difference(before: &Objects, after: &Objects, by: SlicesBy, changes: &mut Vec<Change>) {
    let mut gone: Vec<&EndpointSlice> = missing(&before.slices, &after.slices);
    if by == SlicesBy::Hand {
        changes.extend(gone.drain(..).map(delete_slice));
        changes.extend(missing(&before.raw, &after.raw).into_iter().map(delete_slice));
        new_slices(before, after, changes);
    }
    for service in missing(&before.services, &after.services) {
        let Meta { namespace, name, .. } = service.metadata.clone();
        changes.push(Change::DeleteService { namespace, name });
        gone.retain(|slice| {
            if by == SlicesBy::Cluster {
                return false;
            }
            let orphan = slice.service_key() == Some(service.key());
            if orphan {
                changes.push(delete_slice(slice));
            }
            !orphan
        });
    }
    for (name, service) in &after.services {
        if before.services.get(name) != Some(service) {
            changes.push(Change::ApplyService(service.clone()));
        }
    }
    if by == SlicesBy::Cluster {
        deployed::difference(&before.deployed, &after.deployed, changes);
        new_raw_slices(before, after, changes);
        changes.extend(missing(&before.raw, &after.raw).into_iter().map(delete_slice));
    }
    if by == SlicesBy::Controller {
        new_slices(before, after, changes);
        changes.extend(gone.into_iter().map(delete_slice));
        changes.extend(missing(&before.raw, &after.raw).into_iter().map(delete_slice));
    }
}

fn missing<'a, T>(before: &'a BTreeMap<String, T>, after: &BTreeMap<String, T>) -> Vec<&'a T> {
    before.iter().filter(|(name, _)| !after.contains_key(*name)).map(|(_, object)| object).collect()
}

fn new_slices(before: &Objects, after: &Objects, changes: &mut Vec<Change>) {
    for (name, slice) in &after.slices {
        if before.slices.get(name) != Some(slice) {
            changes.push(Change::ApplySlice(slice.clone()));
        }
    }
    new_raw_slices(before, after, changes);
}

fn new_raw_slices(before: &Objects, after: &Objects, changes: &mut Vec<Change>) {
    for (name, slice) in &after.raw {
        if before.raw.get(name) != Some(slice) {
            changes.push(Change::ApplyRawSlice(slice.clone()));
        }
    }
}

fn delete_slice(slice: &EndpointSlice) -> Change {
    let Meta { namespace, name, .. } = slice.metadata.clone();
    Change::DeleteSlice { namespace, name }
}
