//! Whether clients are chosen for anew after a pause.
//!
//! One client may meet its old endpoint again by chance; of many, some do not.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use touchstone_spec::{Observation, Outcome};
use touchstone_verdict::Wrong;

use crate::cells::Cell;
use crate::pace::pace;
use crate::sampling::ChoiceKey;
use crate::step::Run;

impl Run<'_> {
    /// Looks once more, after the longest pause that a row asks for, at every cell that must have
    /// been forgotten by then, and judges whether any client of each crowd has moved.
    pub(crate) async fn pause_and_look_again(&mut self) {
        let forgetful = self.cells.iter().enumerate().filter_map(|(index, cell)| {
            let (pause, at) = (cell.forgets()?, cell.only_endpoint()?);
            Some((index, pause, at))
        });
        let forgetful: Vec<_> = forgetful.collect();
        let Some(pause) = forgetful.iter().map(|(_, pause, _)| *pause).max() else { return };
        pace(pause).await;
        let before: BTreeMap<usize, SocketAddr> =
            forgetful.iter().map(|(index, _, at)| (*index, *at)).collect();
        let round: Vec<(usize, u64)> = before.keys().map(|index| (*index, 1)).collect();
        let mut crowds: BTreeMap<Option<ChoiceKey>, (usize, bool)> = BTreeMap::new();
        for (index, saw) in self.round(&round, Cell::patience).await {
            let moved = matches!(
                saw,
                Observation::Saw(Outcome::Reached { endpoint, .. }) if before[&index] != endpoint
            );
            let crowd = crowds.entry(self.cells[index].crowd()).or_insert((index, false));
            *crowd = (crowd.0.min(index), crowd.1 || moved);
            self.strict(index, saw);
        }
        for (first, moved) in crowds.into_values() {
            if !moved {
                self.cells[first].wrong.get_or_insert(Wrong::Kept(pause.as_secs()));
            }
        }
    }
}
