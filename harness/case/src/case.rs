//! One case: a file that was read and makes sense as far as it can be told without a cluster.

use std::borrow::Borrow;
use std::collections::BTreeSet;
use std::fmt;

use touchstone_spec::{ClusterShape, Feature, KNOWN_FEATURES, Level, PodsToNodes};

use crate::error::Source;
use crate::grammar::is_name;
use crate::text::{CaseFile, ChangeText, NeedsText, StepText};
use crate::{Behaviour, CaseError, CaseErrors, Place};

/// What only the lab can do, by the words of `needs.lab`.
pub(crate) const LAB_NEEDS: &[&str] = &["restart"];
/// What a case needs of a provider for `needs.dns`, by the name that providers use.
pub const NAME_SERVER: &str = "dns";
/// Pods of one node; the planned addresses end there.
const MAX_PODS_PER_NODE: usize = 240;
/// Nodes and outside clients; the planned addresses end there.
const MAX_NODES: usize = 14;

/// Addresses of a node besides its InternalIP, per family; the address plan ends there.
const MAX_FURTHER_ADDRESSES: u8 = 100;
/// MTUs of links between nodes: IPv6 needs the least, and links begin with the most.
const MTUS: std::ops::RangeInclusive<u32> = 1_280..=65_535;

/// The id of a case: its path below `cases/`, without the extension.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CaseId(String);

impl CaseId {
    pub(crate) fn new(path: &str) -> Option<CaseId> {
        let parts: Vec<&str> = path.split('/').collect();
        (parts.len() >= 2 && parts.iter().all(|part| is_name(part)))
            .then(|| CaseId(path.to_owned()))
    }

    /// As text: `cluster-ip/basic`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The area: everything before the last slash.
    #[must_use]
    pub fn area(&self) -> &str {
        self.0.rsplit_once('/').map_or("", |(area, _)| area)
    }
}

impl fmt::Display for CaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for CaseId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// What a case needs, as its file says; variants add what follows from their axes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Needs {
    /// Nodes, zones and outside clients.
    pub shape: ClusterShape,
    /// Features named in the file.
    pub features: BTreeSet<Feature>,
    /// What only the lab can do.
    pub lab: BTreeSet<String>,
    /// Whether it needs a cluster of its own.
    pub alone: bool,
}

/// A case.
#[derive(Debug, Clone)]
pub struct Case {
    id: CaseId,
    body: CaseFile,
    needs: Needs,
    source: Source,
}

impl Case {
    pub(crate) fn parse(id: CaseId, source: Source) -> Result<Case, CaseErrors> {
        let body: CaseFile = serde_saphyr::from_str(&source.text)
            .map_err(|error| CaseErrors(vec![CaseError::yaml(&source, &error)]))?;
        Case::from_body(id, body, source)
    }

    pub(crate) fn from_body(
        id: CaseId,
        body: CaseFile,
        source: Source,
    ) -> Result<Case, CaseErrors> {
        let mut checker = Checker { source: &source, errors: Vec::new() };
        checker.head(&body);
        let needs = checker.needs(&body.needs);
        checker.network(&body);
        checker.steps(&body);
        checker.names(&body);
        let errors = checker.errors;
        if !errors.is_empty() {
            return Err(CaseErrors(errors));
        }
        let case = Case { id, body, needs, source };
        case.pods_fit()?;
        Ok(case)
    }

    fn pods_fit(&self) -> Result<(), CaseErrors> {
        let pods = crate::variant::pods(&self.body);
        for node in self.needs.shape.node_names() {
            if pods.iter().filter(|pod| pod.node == node).count() > MAX_PODS_PER_NODE {
                let message = format!("more than {MAX_PODS_PER_NODE} endpoints on {node}");
                let error = CaseError::new(&self.source, self.body.about.place, message);
                return Err(CaseErrors(vec![error]));
            }
        }
        Ok(())
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &CaseId {
        &self.id
    }

    /// The area of its id: `cluster-ip`.
    #[must_use]
    pub fn area(&self) -> &str {
        self.id.area()
    }

    /// One sentence.
    #[must_use]
    pub fn about(&self) -> &str {
        &self.body.about.value
    }

    /// Ids of the behaviours that it covers.
    pub fn covers(&self) -> impl Iterator<Item = &str> {
        self.body.covers.iter().map(|id| id.value.as_str())
    }

    /// How binding it is.
    #[must_use]
    pub fn level(&self) -> Level {
        self.body.level
    }

    /// What it needs.
    #[must_use]
    pub fn needs(&self) -> &Needs {
        &self.needs
    }

    /// Named sets that it belongs to, `all` among them.
    #[must_use]
    pub fn profiles(&self) -> BTreeSet<&str> {
        self.body.profile.iter().map(|name| name.value.as_str()).chain(["all"]).collect()
    }

    /// The file as it was named.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.source.file
    }

    /// The text of the file.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.source.text
    }

    /// The file's contents as written.
    #[must_use]
    pub fn body(&self) -> &CaseFile {
        &self.body
    }

    /// The contents printed as YAML; comments are lost.
    ///
    /// # Errors
    /// When a value cannot be written as YAML.
    pub fn to_yaml(&self) -> Result<String, CaseError> {
        serde_saphyr::to_string(&self.body).map_err(|error| {
            let message = format!("failed to print case {}: {error}", self.id);
            CaseError::new(&self.source, Place::default(), message)
        })
    }

    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    /// Ids in `covers` that no behaviour has, and a level above that of all behaviours covered.
    pub(crate) fn errors_of_covers(
        &self,
        known: &std::collections::BTreeMap<String, Behaviour>,
    ) -> Vec<CaseError> {
        let unknown = self.unknown_behaviours(known);
        let covered = self.body.covers.iter().filter_map(|id| Some((id, known.get(&id.value)?)));
        // The most binding level comes first.
        let most = covered.min_by_key(|(_, behaviour)| behaviour.level);
        match most {
            Some((id, behaviour)) if unknown.is_empty() && self.body.level < behaviour.level => {
                let message = format!(
                    "the case is `{}`, and nothing that it covers is more than `{}`",
                    self.body.level, behaviour.level
                );
                vec![CaseError::new(&self.source, id.place, message)]
            }
            Some(_) | None => unknown,
        }
    }

    fn unknown_behaviours(
        &self,
        known: &std::collections::BTreeMap<String, Behaviour>,
    ) -> Vec<CaseError> {
        self.body
            .covers
            .iter()
            .filter(|id| !known.contains_key(&id.value))
            .map(|id| {
                let near = crate::error::nearest(&id.value, known.keys().map(String::as_str));
                let error = CaseError::new(
                    &self.source,
                    id.place,
                    format!("unknown behaviour `{}`", id.value),
                );
                error.help(near.map_or_else(
                    || "behaviours stand in cases/behaviours.yaml".to_owned(),
                    |near| format!("did you mean `{near}`?"),
                ))
            })
            .collect()
    }
}

/// Checks that look at the file alone.
struct Checker<'a> {
    source: &'a Source,
    errors: Vec<CaseError>,
}

impl Checker<'_> {
    fn wrong(&mut self, place: Place, message: impl Into<String>) {
        self.errors.push(CaseError::new(self.source, place, message));
    }

    fn head(&mut self, body: &CaseFile) {
        if body.about.value.trim().is_empty() {
            self.wrong(body.about.place, "`about` says nothing");
        }
        if body.covers.is_empty() {
            self.wrong(body.about.place, "`covers` is empty: a case covers at least one behaviour");
        }
        let families: BTreeSet<_> = body.axes.family.iter().collect();
        let protocols: BTreeSet<_> = body.axes.protocol.iter().collect();
        if families.len() != body.axes.family.len() || protocols.len() != body.axes.protocol.len() {
            self.wrong(body.about.place, "an axis has the same value twice");
        }
        if families.is_empty() || protocols.is_empty() {
            self.wrong(body.about.place, "an axis without values: the case would never run");
        }
        for profile in body.profile.iter().filter(|profile| !is_name(&profile.value)) {
            self.wrong(profile.place, format!("`{}` is not a profile's name", profile.value));
        }
    }

    fn needs(&mut self, text: &NeedsText) -> Needs {
        let mut shape = ClusterShape::default();
        if let Some(nodes) = text.nodes {
            if nodes.value == 0 || nodes.value > MAX_NODES {
                self.wrong(nodes.place, format!("a cluster has 1 to {MAX_NODES} nodes"));
            }
            let count = nodes.value.min(MAX_NODES);
            shape.zones = (0..count).map(|i| Some(format!("z{}", i / 2 + 1))).collect();
        }
        if let Some(zones) = &text.zones {
            if text.nodes.is_some() {
                self.wrong(zones.place, "`nodes` and `zones` both say how many nodes there are");
            }
            if zones.value.is_empty() || zones.value.len() > MAX_NODES {
                self.wrong(zones.place, format!("a cluster has 1 to {MAX_NODES} nodes"));
            }
            shape.zones.clone_from(&zones.value);
        }
        if let Some(outside) = text.outside {
            if outside.value > MAX_NODES {
                self.wrong(outside.place, format!("there are at most {MAX_NODES} outside clients"));
            }
            shape.outside = outside.value;
        }
        if let Some(proxy) = &text.proxy {
            if let Err(error) = proxy.value.check(&shape.node_names()) {
                self.wrong(proxy.place, error.to_string());
            }
            shape.proxy.clone_from(&proxy.value);
        }
        shape.network = text.network.clone();
        shape.dns = text.dns;
        let mut features = BTreeSet::new();
        for name in &text.features {
            match Feature::new(&name.value) {
                Ok(feature) => {
                    features.insert(feature);
                }
                Err(_) => self.errors.push(
                    CaseError::new(
                        self.source,
                        name.place,
                        format!("unknown feature `{}`", name.value),
                    )
                    .suggest(&name.value, KNOWN_FEATURES.iter().map(|known| known.name)),
                ),
            }
        }
        for need in text.lab.iter().filter(|need| !LAB_NEEDS.contains(&need.value.as_str())) {
            self.errors.push(
                CaseError::new(
                    self.source,
                    need.place,
                    format!("unknown need of a lab `{}`", need.value),
                )
                .suggest(&need.value, LAB_NEEDS.iter().copied()),
            );
        }
        let mut lab: BTreeSet<String> = text.lab.iter().map(|need| need.value.clone()).collect();
        if text.dns {
            lab.insert(NAME_SERVER.to_owned());
        }
        Needs { shape, features, lab, alone: text.alone }
    }

    /// Whether the network that the case asks for can be, and is one in which its steps make sense.
    fn network(&mut self, body: &CaseFile) {
        let (network, place) = (&body.needs.network, body.about.place);
        if let Some(only) = network.only
            && body.axes.family.iter().any(|axis| axis.families() != [only])
        {
            self.wrong(place, format!("nodes have {only} only, so `axes.family` is [{only}]"));
        }
        if network.more_node_addresses.is_some_and(|more| more > MAX_FURTHER_ADDRESSES) {
            let message = format!("a node has at most {MAX_FURTHER_ADDRESSES} further addresses");
            self.wrong(place, message);
        }
        if network.mtu.is_some_and(|mtu| !MTUS.contains(&mtu)) {
            let message = format!("an MTU is {} to {} bytes", MTUS.start(), MTUS.end());
            self.wrong(place, message);
        }
        let owners: BTreeSet<_> = network.firewall.iter().collect();
        if owners.len() != network.firewall.len() {
            self.wrong(place, "`firewall` has the same owner twice");
        }
        let nobody = owners.is_empty() && network.pods_to_nodes != Some(PodsToNodes::Masqueraded);
        for change in body.steps.iter().flat_map(|step| &step.value.change) {
            match &change.value {
                ChangeText::Node(node) if node.firewall.is_some() && nobody => self.wrong(
                    change.place,
                    "nobody has rules to reload: write `needs: { network: { firewall: […] } }`",
                ),
                ChangeText::Node(_)
                | ChangeText::Endpoint(_)
                | ChangeText::Service(_)
                | ChangeText::Slices(_)
                | ChangeText::Slice(_)
                | ChangeText::Proxy(_)
                | ChangeText::VirtualServer(_) => {}
            }
        }
    }

    fn steps(&mut self, body: &CaseFile) {
        let Some((first, later)) = body.steps.split_first() else {
            self.wrong(body.about.place, "`steps` is empty: a case has at least one step");
            return;
        };
        if !first.value.change.is_empty() || first.value.traffic.is_some() {
            self.wrong(
                first.place,
                "the first step creates the world; it has neither `change` nor `traffic`",
            );
        }
        for step in later {
            if step.value.change.is_empty() {
                self.wrong(step.place, "a later step needs a `change`");
            }
        }
        for step in later.iter().filter(|step| step.value.marker == Some(false)) {
            if step.value.change.iter().any(|change| !change.value.is_damage()) {
                self.wrong(
                    step.place,
                    "`marker: false` is for damage alone: without a marker nobody knows when a \
                     proxy has read a change of the API",
                );
            }
        }
        if first.value.marker.is_some() {
            self.wrong(first.place, "the first step has a marker in any case");
        }
        let says_nothing = |step: &StepText| {
            step.expect.is_empty() && step.matrix == Some(false) && step.traffic.is_none()
        };
        for step in body.steps.iter().filter(|step| says_nothing(&step.value)) {
            self.wrong(step.place, "the step expects nothing: no rows, no matrix, no traffic");
        }
    }

    fn names(&mut self, body: &CaseFile) {
        for (service, text) in &body.world.services {
            let letter = service.starts_with(|c: char| c.is_ascii_lowercase());
            if !is_name(service) || !letter || service == "unallocated" || service.len() > 40 {
                self.wrong(text.place, format!("`{service}` cannot name a Service"));
            }
        }
        for (slice, text) in &body.world.slices {
            if !is_name(slice) || slice.len() > 40 {
                self.wrong(text.place, format!("`{slice}` cannot name a slice"));
            }
        }
        for (service, endpoints) in &body.world.endpoints {
            if !body.world.services.contains_key(service) {
                let known = body.world.services.keys().map(String::as_str);
                let message = format!("endpoints of `{service}`, which is not a Service");
                self.errors.push(
                    CaseError::new(self.source, endpoints.place, message).suggest(service, known),
                );
            }
        }
    }
}
