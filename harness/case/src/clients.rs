//! Rows about clients that keep their endpoints, or do not, and about many clients at once, each
//! with an address of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use touchstone_spec::{ClientKind, Flow};

use crate::grammar::duration;
use crate::rows::Scene;
use crate::text::RowText;
use crate::{At, CaseError, Pin, PinnedOutcome, Place, Row};

/// The most clients of a row.
const MOST: u8 = 250;
/// With which probability a right proxy may leave an endpoint to none of them.
const MISS: f64 = 1e-9;

impl Scene<'_, '_> {
    /// The flow of a row, once for each client that it asks for.
    pub(crate) fn by_clients(
        &self,
        text: &RowText,
        flow: Flow,
        pin: &Pin,
    ) -> Result<Vec<Flow>, CaseError> {
        let Some(At { value: clients, place }) = text.clients else { return Ok(vec![flow]) };
        let wrong = |message: String| self.context.wrong(place, message);
        let (PinnedOutcome::Reaches(endpoints), true) =
            (&pin.outcome, pin.sticky == Some(true) || pin.forgets.is_some())
        else {
            let message = "`clients` belongs to `reaches` with `sticky: true` or `forgets`";
            return Err(wrong(message.to_owned()));
        };
        let least = enough_for(endpoints.len());
        if clients < least || clients > MOST {
            let many = endpoints.len();
            return Err(wrong(format!(
                "{clients} clients: for {many} endpoints write {least} to {MOST}, so that chance \
                 leaves none of them out"
            )));
        }
        // By turns, as some proxies go, everybody would get the same endpoint again.
        if pin.forgets.is_some() && usize::from(clients).is_multiple_of(endpoints.len()) {
            let many = endpoints.len();
            return Err(wrong(format!(
                "{clients} clients that are to be forgotten: write a number that is no multiple \
                 of the {many} endpoints, since some proxies go by turns"
            )));
        }
        let facts = &self.context.book.facts;
        let first = facts.outside.first().filter(|client| {
            flow.client.kind == ClientKind::Outside && client.name == flow.client.place
        });
        let Some(crowd) = first else {
            return Err(wrong("many clients are outside: write `from: outside`".to_owned()));
        };
        let owner = facts.nodes.iter().find(|node| node.addresses.contains(&flow.to.ip()));
        let entry = flow.via.as_ref().or(owner.map(|node| &node.name));
        let index = entry.and_then(|node| self.context.book.node(node)).map(|(index, _)| index);
        let one = |number: u8| {
            let address = index.and_then(|i| crowd.one_of_crowd(i, flow.family(), number));
            let address = address.ok_or_else(|| {
                wrong("the cluster has no outside client with so many addresses".to_owned())
            })?;
            let mut flow = flow.clone();
            flow.client.address = address;
            let (from, to) = flow.text.split_once(' ').unwrap_or((&flow.text, ""));
            flow.text = format!("{from}[{number}] {to}");
            Ok(flow)
        };
        (1..=clients).map(one).collect()
    }

    /// The pause after which a row wants its clients to be chosen for anew.
    pub(crate) fn forgets(&self, text: &RowText) -> Result<Option<Duration>, CaseError> {
        let Some(At { value, place }) = &text.forgets else { return Ok(None) };
        let wrong = |message: String| self.context.wrong(*place, message);
        if text.clients.is_none() {
            let message =
                "one client may meet its old endpoint by chance: `forgets` needs `clients`";
            return Err(wrong(message.to_owned()));
        }
        if text.sticky.is_some() {
            return Err(wrong("a row has `sticky` or `forgets`, not both".to_owned()));
        }
        duration(value).map(Some).map_err(|error| wrong(error.0))
    }
}

/// The flows of a step whose clients keep to one endpoint.
pub(crate) fn sticky(rows: &[Row]) -> BTreeSet<String> {
    let sticky = rows.iter().filter(|row| row.pin.sticky == Some(true));
    sticky.map(|row| row.flow.text.clone()).collect()
}

/// Looks whether clients that are to have the endpoint of before had one in the step before.
pub(crate) fn keeps(
    scene: &Scene<'_, '_>,
    place: Place,
    rows: &[Row],
    before: &BTreeSet<String>,
) -> Result<(), CaseError> {
    match rows.iter().find(|row| row.pin.keeps && !before.contains(&row.flow.text)) {
        None => Ok(()),
        Some(row) => {
            let message = format!("{}: no endpoint to keep from the step before", row.flow.text);
            let help = "give that step a row from and to the same places, with `sticky: true`";
            Err(scene.context.wrong(place, message).help(help))
        }
    }
}

/// Looks whether enough of many clients come anew: those of the step before have their endpoints, so
/// that they leave out whatever has come since.
pub(crate) fn fresh(
    scene: &Scene<'_, '_>,
    text: &At<RowText>,
    rows: &[Row],
    before: &BTreeSet<String>,
) -> Result<(), CaseError> {
    let Some(At { value: _, place }) = text.value.clients else { return Ok(()) };
    let mut by_goal: BTreeMap<SocketAddr, Vec<&Row>> = BTreeMap::new();
    for row in rows.iter().filter(|row| !row.pin.keeps) {
        by_goal.entry(row.flow.to).or_default().push(row);
    }
    for rows in by_goal.values() {
        let new = rows.iter().filter(|row| !before.contains(&row.flow.text)).count();
        let Some(PinnedOutcome::Reaches(endpoints)) = rows.first().map(|row| &row.pin.outcome)
        else {
            continue;
        };
        let (least, known) = (enough_for(endpoints.len()), rows.len() - new);
        if known > 0 && new < usize::from(least) {
            let many = endpoints.len();
            return Err(scene.context.wrong(
                place,
                format!(
                    "{known} of these clients have an endpoint from the step before, so {new} come \
                     anew: for {many} endpoints write {} clients or more, so that chance leaves \
                     none of them out",
                    known + usize::from(least)
                ),
            ));
        }
    }
    Ok(())
}

/// The least number of clients of which each endpoint gets one, but for that chance.
fn enough_for(endpoints: usize) -> u8 {
    let k = endpoints.max(1) as f64;
    let missed = |clients: u8| k * (1.0 - 1.0 / k).powi(i32::from(clients));
    (2..=MOST).find(|clients| missed(*clients) <= MISS).unwrap_or(MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_endpoints_need_more_clients() {
        assert_eq!([1, 2, 3, 4].map(enough_for), [2, 31, 54, 77]);
    }
}
