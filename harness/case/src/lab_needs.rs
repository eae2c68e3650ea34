//! What a case needs of a lab without saying so: it follows from rows, endpoints and changes.

use crate::grammar::Target;
use crate::text::{CaseFile, ChangeText, NodeChange, RowText};
use crate::variant::endpoint_texts;

/// The need of a case that looks into answers over HTTP, or into tables of virtual servers: a model
/// has none to look into.
pub(crate) const PAGES: &str = "pages";
/// What a case needs that has Nodes say more than another zone: a real cluster's are its own.
pub(crate) const NODES: &str = "nodes";
/// Outside clients with many addresses.
pub(crate) const CLIENTS: &str = "clients";
/// Servers where outside clients stand.
pub(crate) const SERVERS: &str = "servers";

/// The needs that follow from a case's text.
pub(crate) fn following(body: &CaseFile) -> impl Iterator<Item = &'static str> {
    let rows = || body.steps.iter().flat_map(|step| &step.value.expect).map(|row| &row.value);
    let mut changes = body.steps.iter().flat_map(|step| &step.value.change);
    let needs = [
        (PAGES, rows().any(looks_into)),
        (CLIENTS, rows().any(|row| row.clients.is_some())),
        (SERVERS, endpoint_texts(body).any(|(_, _, text)| text.outside.get().is_some())),
        (NODES, changes.any(|change| says_more_of_a_node(&change.value))),
    ];
    needs.into_iter().filter(|(_, needed)| *needed).map(|(need, _)| need)
}

fn looks_into(row: &RowText) -> bool {
    let mut targets = row.to.0.iter().map(|word| Target::parse(&word.value));
    row.shows.is_some()
        || row.path.is_some()
        || row.listed.is_some()
        || targets.any(|target| matches!(target, Ok(Target::Page { .. })))
}

fn says_more_of_a_node(change: &ChangeText) -> bool {
    matches!(change, ChangeText::Node(NodeChange { set: Some(set), .. }) if !set.is_zone_alone())
}
