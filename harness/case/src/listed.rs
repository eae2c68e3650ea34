//! Rows about a node's table of virtual servers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use touchstone_spec::{
    Asked, ClientKind, Condition, Family, Flow, FrontendKind, Look, OutcomeKind, VirtualServer,
};

use crate::goals::Goal;
use crate::rows::Scene;
use crate::text::{Listing, RowText};
use crate::{At, CaseError, Pin, PinnedOutcome, PinnedSource, Place, Shows};

impl Scene<'_, '_> {
    /// The pin of a row with `listed`.
    pub(crate) fn listed(
        &mut self,
        text: &RowText,
        listed: &At<Listing>,
        goal: &Goal,
        family: Family,
    ) -> Result<Pin, CaseError> {
        let At { value: listing, place } = listed;
        let alone = text.reaches.is_none()
            && text.is.is_none()
            && text.shows.is_none()
            && text.source.is_none()
            && text.sticky.is_none()
            && text.clients.is_none()
            && text.spread.is_none()
            && text.size.is_none()
            && text.path.is_none();
        if !alone || goal.page.is_some() || goal.question.is_some() {
            let message = "`listed` belongs to an address of a Service, and stands alone";
            return Err(self.context.wrong(*place, message));
        }
        let (there, like) = match listing {
            Listing::There(there) => (*there, None),
            Listing::Like(like) => (like.there.unwrap_or(true), Some(like)),
        };
        let mut shows = Shows::default();
        let mut wanted = |part: &str, value: String| {
            shows.add(Look::Json(part.to_owned()), Condition::Is(value));
        };
        if let Some(like) = like {
            if let Some(scheduler) = &like.scheduler {
                wanted(VirtualServer::SCHEDULER, scheduler.clone());
            }
            if let Some(seconds) = like.persistent {
                wanted(VirtualServer::PERSISTENT, seconds.to_string());
            }
            for (part, seconds) in [
                (VirtualServer::UDP_TIMEOUT, like.udp_timeout),
                (VirtualServer::TCP_TIMEOUT, like.tcp_timeout),
                (VirtualServer::TCP_FIN_TIMEOUT, like.tcp_fin_timeout),
            ] {
                if let Some(seconds) = seconds {
                    wanted(part, seconds.to_string());
                }
            }
            if let Some(sets) = &like.sets {
                wanted(VirtualServer::SETS, VirtualServer::sets_text(sets));
            }
            if let Some(local) = like.local {
                wanted(VirtualServer::LOCAL, local.to_string());
            }
            if let Some(weights) = &like.weights {
                let weights = self.weights(weights, goal, *place, family)?;
                wanted(VirtualServer::WEIGHTS, VirtualServer::weights_text(&weights));
            }
        }
        let status = if there { VirtualServer::THERE } else { VirtualServer::NOT_THERE };
        Ok(Pin {
            outcome: PinnedOutcome::Kinds {
                kinds: BTreeSet::from([OutcomeKind::Http]),
                http: BTreeSet::from([status]),
            },
            source: PinnedSource::Any,
            sticky: None,
            clients: None,
            keeps: false,
            forgets: None,
            spread: None,
            shows,
        })
    }

    fn weights(
        &mut self,
        weights: &BTreeMap<String, u32>,
        goal: &Goal,
        place: Place,
        family: Family,
    ) -> Result<BTreeMap<SocketAddr, u32>, CaseError> {
        let Some((target, port)) = &goal.service else {
            let message = format!("{} is no port of a Service; `weights` needs one", goal.text);
            return Err(self.context.wrong(place, message));
        };
        let mut found = BTreeMap::new();
        for (word, weight) in weights {
            let (service, name) = word.split_once('/').unwrap_or((target, word));
            found.insert(self.socket(service, name, port, place, family)?, *weight);
        }
        Ok(found)
    }

    /// Makes of a flow the question to the table of the client's node.
    pub(crate) fn ask_table(
        &self,
        flow: &mut Flow,
        shows: &Shows,
        place: Place,
    ) -> Result<(), CaseError> {
        if flow.client.kind != ClientKind::Node {
            let message = "`listed` is about tables of nodes: `from` is a node";
            return Err(self.context.wrong(place, message));
        }
        flow.frontend = FrontendKind::Table;
        flow.http = Some(Asked { path: String::new(), looks: shows.looks.clone() });
        flow.text = format!("{}, as listed", flow.text);
        Ok(())
    }
}
