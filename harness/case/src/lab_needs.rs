//! What a case needs of a lab without saying so: it follows from rows, endpoints and changes.

use crate::grammar::Target;
use crate::text::{CaseFile, ChangeText, NodeChange, NodeText, RowText};
use crate::variant::endpoint_texts;

/// The need of a case that looks into answers over HTTP, or into tables of virtual servers: a model
/// has none to look into.
pub(crate) const PAGES: &str = "pages";
/// What a case needs that has Nodes say more than another zone, or that they are cordoned: a real
/// cluster's are its own.
pub(crate) const NODES: &str = "nodes";
/// Nodes that can be cordoned.
pub(crate) const CORDON: &str = "cordon";
/// Outside clients with many addresses.
pub(crate) const CLIENTS: &str = "clients";
/// Servers where outside clients stand.
pub(crate) const SERVERS: &str = "servers";

/// The needs that follow from a case's text.
pub(crate) fn following(body: &CaseFile) -> impl Iterator<Item = &'static str> {
    let rows = || body.steps.iter().flat_map(|step| &step.value.expect).map(|row| &row.value);
    let changes = || body.steps.iter().flat_map(|step| &step.value.change);
    let nodes = || {
        changes().filter_map(|change| {
            let ChangeText::Node(NodeChange { set, .. }) = &change.value else { return None };
            set.as_ref()
        })
    };
    let needs = [
        (PAGES, rows().any(looks_into)),
        (CLIENTS, rows().any(|row| row.clients.is_some())),
        (SERVERS, endpoint_texts(body).any(|(_, _, text)| text.outside.get().is_some())),
        (NODES, nodes().any(|set| !set.is_zone_alone() && !set.is_cordon_alone())),
        (CORDON, nodes().any(NodeText::is_cordon_alone)),
    ];
    needs.into_iter().filter(|(_, needed)| *needed).map(|(need, _)| need)
}

fn looks_into(row: &RowText) -> bool {
    let mut targets = row.to.0.iter().map(|word| Target::parse(&word.value));
    row.shows.is_some()
        || row.path.is_some()
        || row.listed.is_some()
        || targets.any(|target| matches!(target, Ok(Target::Page { .. } | Target::ApiServer)))
}
