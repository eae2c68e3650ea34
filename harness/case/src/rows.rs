//! From vantages and targets to flows, and from rows to pins.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use touchstone_spec::api::Service;
use touchstone_spec::{Family, Flow, OutcomeKind, Protocol};

use crate::asks::Asked;
use crate::goals::Goal;
use crate::grammar::{Expected, Kind, SourceWord, Target, Vantage, transport};
use crate::objects::Context;
use crate::state::{State, no_endpoint, no_service};
use crate::text::{RowText, Words};
use crate::{At, CaseError, Pin, PinnedOutcome, PinnedSource, Place, Row, Shows};

/// Every version of every Service so far, the latest last: frontends that are gone keep their
/// addresses, so that a case can say what must meet clients there.
pub(crate) type History = BTreeMap<String, Vec<Service>>;

/// A moment of a case, as flows see it.
pub(crate) struct Scene<'a, 'b> {
    pub(crate) context: &'a mut Context<'b>,
    pub(crate) state: &'a State,
    pub(crate) history: &'a History,
    /// Names of the nodes that the case knows.
    pub(crate) nodes: &'a [String],
    /// Names of the outside clients that the case knows.
    pub(crate) outside: &'a [String],
}

impl Scene<'_, '_> {
    /// Flows of every vantage to every target, in one family.
    fn flows(
        &mut self,
        from: &Words,
        to: &Words,
        family: Family,
    ) -> Result<Vec<(Flow, Goal)>, CaseError> {
        let mut flows = Vec::new();
        for At { value: target, place } in &to.0 {
            let parsed = Target::parse(target).map_err(|error| self.grammar(*place, error))?;
            let goals = self.goals(&parsed, *place, family)?;
            flows.extend(self.flows_to(from, goals, family)?);
        }
        Ok(flows)
    }

    /// Flows of every vantage to every goal.
    fn flows_to(
        &mut self,
        from: &Words,
        goals: Vec<Goal>,
        family: Family,
    ) -> Result<Vec<(Flow, Goal)>, CaseError> {
        let mut flows = Vec::new();
        for At { value: vantage, place } in &from.0 {
            let parsed = Vantage::parse(vantage).map_err(|error| self.grammar(*place, error))?;
            for goal in &goals {
                if goal.question.is_some() && matches!(parsed, Vantage::Outside(_)) {
                    let message = "clients outside the cluster do not ask its name server";
                    return Err(self.context.wrong(*place, message));
                }
                for flow in self.from(&parsed, goal, *place, family)? {
                    flows.push((flow, goal.clone()));
                }
            }
        }
        Ok(flows)
    }

    /// Flows without answers, in every family of the variant.
    pub(crate) fn all_flows(&mut self, from: &Words, to: &Words) -> Result<Vec<Flow>, CaseError> {
        let mut flows = Vec::new();
        for family in self.context.family.families() {
            flows.extend(self.flows(from, to, *family)?.into_iter().map(|(flow, _)| flow));
        }
        if flows.is_empty() { Err(self.no_flow(to.place())) } else { Ok(flows) }
    }

    /// A row as flows with pins.
    pub(crate) fn row(&mut self, row: &At<RowText>) -> Result<Vec<Row>, CaseError> {
        let At { value: text, place } = row;
        if let Some(family) = text.family {
            if self.context.family.families().len() == 1 {
                let message = "`family` in a row is for dual-stack variants only";
                return Err(self.context.wrong(*place, message));
            }
            if !self.context.family.families().contains(&family) {
                return Ok(Vec::new());
            }
        }
        let mut rows = Vec::new();
        for family in self.context.family.families() {
            if text.family.is_some_and(|only| only != *family) {
                continue;
            }
            for (flow, goal) in self.flows_of(text, *place, *family)? {
                let pin = self.pin(text, *place, &goal, *family)?;
                for mut flow in self.by_clients(text, flow, &pin)? {
                    self.ask(&mut flow, text, &pin.shows)?;
                    let words = format!("{}: {}", flow.text, pin.words());
                    let why = text.why.clone();
                    rows.push(Row { flow, pin: pin.clone(), line: place.line, text: words, why });
                }
            }
        }
        if rows.is_empty() { Err(self.no_flow(text.to.place())) } else { Ok(rows) }
    }

    /// Flows of a row: to its targets, or its questions.
    fn flows_of(
        &mut self,
        text: &RowText,
        place: Place,
        family: Family,
    ) -> Result<Vec<(Flow, Goal)>, CaseError> {
        let Some(asks) = &text.asks else {
            return if text.to.0.is_empty() {
                Err(self.context.wrong(place, "a row has exactly one of `to` and `asks`"))
            } else if text.over.is_some() {
                Err(self.context.wrong(place, "`over` belongs to `asks`"))
            } else {
                self.flows(&text.from, &text.to, family)
            };
        };
        if !text.to.0.is_empty() {
            return Err(self.context.wrong(place, "a row has exactly one of `to` and `asks`"));
        }
        let mut transports = Vec::new();
        for At { value: word, place } in text.over.iter().flat_map(|over| &over.0) {
            let error = || self.context.wrong(*place, format!("`{word}` is neither udp nor tcp"));
            transports.push(transport(word).ok_or_else(error)?);
        }
        if transports.is_empty() {
            transports.push(Protocol::Udp);
        }
        let mut goals = Vec::new();
        for At { value: asked, place } in &asks.0 {
            let parsed = Asked::parse(asked).map_err(|error| self.grammar(*place, error))?;
            for over in &transports {
                goals.push(self.question(&parsed, *over, *place, family)?);
            }
        }
        self.flows_to(&text.from, goals, family)
    }

    fn no_flow(&self, place: Place) -> CaseError {
        self.context
            .wrong(place, "no flow comes of it: the Service never had such a frontend")
            .help("check the Service's type, its families and its addresses")
    }

    fn grammar(&self, place: Place, error: Expected) -> CaseError {
        self.context.wrong(place, error.0)
    }

    fn pin(
        &mut self,
        text: &RowText,
        place: Place,
        goal: &Goal,
        family: Family,
    ) -> Result<Pin, CaseError> {
        if let Some(words) = &text.answers {
            return self.pinned_answer(text, words, goal, place);
        }
        if let Some(listed) = &text.listed {
            return self.listed(text, listed, goal, family);
        }
        let shows = self.shows(text.shows.as_ref())?;
        let outcome = match (&text.reaches, &text.is, shows.status) {
            (Some(words), None, None) => {
                PinnedOutcome::Reaches(self.reaches(words, place, goal, family)?)
            }
            (None, Some(words), None) => self.kinds(words, place)?,
            (None, None, Some(status)) => PinnedOutcome::Kinds {
                kinds: BTreeSet::from([OutcomeKind::Http]),
                http: BTreeSet::from([status]),
            },
            (Some(_) | None, Some(_) | None, Some(_) | None) => {
                return Err(self.context.wrong(
                    place,
                    "a row has exactly one of `reaches`, `is`, `shows`, `listed` and `answers`",
                ));
            }
        };
        let source = match &text.source {
            None => PinnedSource::Any,
            Some(At { value, place }) => {
                match SourceWord::parse(value).map_err(|error| self.grammar(*place, error))? {
                    SourceWord::Any => PinnedSource::Any,
                    SourceWord::Client => PinnedSource::Client,
                    SourceWord::Balancer => PinnedSource::Balancer,
                    SourceWord::Node(None) => PinnedSource::HandlingNode,
                    SourceWord::Node(Some(node)) => {
                        self.known_node(&node, *place)?;
                        PinnedSource::Node(node)
                    }
                }
            }
        };
        if goal.page.is_some() && !matches!(outcome, PinnedOutcome::Kinds { .. }) {
            let message = "a page of a proxy is pinned by `shows` or by kinds of outcomes";
            return Err(self.context.wrong(place, message));
        }
        let clients = text.clients.as_ref().map(|clients| clients.value);
        if text.keeps && text.sticky != Some(true) {
            return Err(self.context.wrong(place, "`keeps` belongs to `sticky: true`"));
        }
        Ok(Pin {
            outcome,
            source,
            sticky: text.sticky,
            clients,
            keeps: text.keeps,
            forgets: self.forgets(text)?,
            spread: text.spread,
            shows,
        })
    }

    /// The pin of a row with `answers`.
    fn pinned_answer(
        &mut self,
        text: &RowText,
        words: &Words,
        goal: &Goal,
        place: Place,
    ) -> Result<Pin, CaseError> {
        let alone = text.reaches.is_none()
            && text.is.is_none()
            && text.shows.is_none()
            && text.source.is_none()
            && text.sticky.is_none()
            && text.clients.is_none()
            && text.spread.is_none();
        let Some(question) = goal.question.as_ref().filter(|_| alone) else {
            return Err(self.context.wrong(
                place,
                "`answers` belongs to `asks`, or to a target `web name`, and stands alone",
            ));
        };
        Ok(Pin {
            outcome: PinnedOutcome::Answers(self.answers(words, question, place)?),
            source: PinnedSource::Any,
            sticky: None,
            clients: None,
            keeps: false,
            forgets: None,
            spread: None,
            shows: Shows::default(),
        })
    }

    fn kinds(&self, words: &Words, place: Place) -> Result<PinnedOutcome, CaseError> {
        let (mut kinds, mut http, mut any) = (BTreeSet::new(), BTreeSet::new(), false);
        for At { value, place } in &words.0 {
            match Kind::parse(value).map_err(|error| self.grammar(*place, error))? {
                Kind::Kinds(more) => kinds.extend(more),
                Kind::Http(status) => {
                    kinds.insert(OutcomeKind::Http);
                    http.insert(status);
                }
                Kind::Any => any = true,
            }
        }
        match (any, kinds.is_empty()) {
            (true, true) => Ok(PinnedOutcome::Any),
            (true, false) => Err(self.context.wrong(place, "`any` stands alone")),
            (false, true) => Err(self.context.wrong(place, "`is` is empty")),
            (false, false) => Ok(PinnedOutcome::Kinds { kinds, http }),
        }
    }

    fn reaches(
        &mut self,
        words: &Words,
        place: Place,
        goal: &Goal,
        family: Family,
    ) -> Result<BTreeMap<SocketAddr, String>, CaseError> {
        let Some((target, port)) = &goal.service else {
            let message = format!("{} is no port of a Service; `reaches` needs one", goal.text);
            return Err(self.context.wrong(place, message));
        };
        if words.0.is_empty() {
            return Err(self
                .context
                .wrong(place, "`reaches` is empty")
                .help("write `is: unanswered`"));
        }
        let mut found = BTreeMap::new();
        for At { value: word, place } in &words.0 {
            let (service, name) = word.split_once('/').unwrap_or((target, word));
            let socket = self.socket(service, name, port, *place, family)?;
            let shown = if service == target { name.to_owned() } else { word.clone() };
            found.insert(socket, shown);
        }
        Ok(found)
    }

    /// Where an endpoint listens for a Service port.
    pub(crate) fn socket(
        &mut self,
        service: &str,
        name: &str,
        port: &str,
        place: Place,
        family: Family,
    ) -> Result<SocketAddr, CaseError> {
        let source = self.context.source;
        let Some(text) = self.state.services.get(service) else {
            return Err(no_service(source, place, service, &self.state.services));
        };
        let Some(endpoint) = self.state.find(service, name) else {
            let known = self.state.endpoints.get(service).cloned().unwrap_or_default();
            return Err(no_endpoint(source, place, service, name, &known));
        };
        let ports = text.value.ports.get().map(Vec::as_slice).unwrap_or_default();
        let ports = self.context.endpoint_ports(self.state, service, name, endpoint, ports)?;
        let number = match (ports.iter().find(|(name, ..)| name == port), ports.as_slice()) {
            (Some((_, _, number)), _) | (None, [(_, _, number)]) => *number,
            (None, _) => {
                let message = format!("endpoint {service}/{name} has no port `{port}`");
                return Err(self.context.wrong(place, message));
            }
        };
        let address = self.context.endpoint_address(self.state, service, name, endpoint, family)?;
        Ok(SocketAddr::new(address, number))
    }

    pub(crate) fn known_node(&self, node: &str, place: Place) -> Result<(), CaseError> {
        if self.nodes.iter().any(|known| known == node) {
            Ok(())
        } else {
            Err(self.state.no_node(self.context.source, place, node))
        }
    }
}
