//! What a lost answer says: a proxy that loses some, a network that does, or one stray packet.

use std::collections::{BTreeMap, BTreeSet};

use touchstone_spec::{Observation, Outcome, OutcomeKind};
use touchstone_verdict::{CellJudgement, CellTally, Wrong, judge_one};

use crate::cells::{Cell, Role};
use crate::step::{Run, membership};

/// Attempts that follow one loss at first: where the next ones are lost too, no more are needed.
const FEW: u64 = 6;
/// Attempts that follow when none of the few is lost: a proxy that loses one in fifty loses another of them with
/// probability 0.998.
const MORE: u64 = 300;

impl Run<'_> {
    /// Weighs the cells that are wrong by nothing but loss.
    ///
    /// Each is asked again many times, and so is the way past the proxy. A cell that loses nothing
    /// more lost a stray packet, as happens on busy machines with any proxy (adjudication 0025);
    /// that is counted and not held against the proxy. Gives the number of such cells.
    pub(crate) async fn weigh_losses(&mut self) -> u64 {
        let lost: Vec<(usize, u64)> = self
            .cells
            .iter()
            .enumerate()
            .filter(|(_, cell)| cell.is_judged() && is_lost_by_chance(cell))
            .map(|(index, _)| (index, FEW))
            .collect();
        let mut lost_again = BTreeSet::new();
        for (index, saw) in self.round(&lost, Cell::patience).await {
            if !matches!(judge_one(&self.cells[index].expectation, &saw), CellJudgement::Agrees) {
                lost_again.insert(index);
            }
            self.strict(index, saw);
        }
        let alone = |(index, _): &(usize, u64)| !lost_again.contains(index);
        let lost: Vec<(usize, u64)> =
            lost.into_iter().filter(alone).map(|(index, _)| (index, MORE)).collect();
        if lost.is_empty() {
            return 0;
        }
        let mut again: BTreeMap<usize, u64> = lost.iter().copied().collect();
        again.extend(lost.iter().flat_map(|(index, _)| self.past_the_proxy(*index)));
        let again: Vec<(usize, u64)> = again.into_iter().collect();
        let mut seen: BTreeMap<usize, CellTally> = BTreeMap::new();
        for (index, saw) in self.round(&again, Cell::patience).await {
            seen.entry(index).or_default().add(saw.clone());
            self.strict(index, saw);
        }
        let mut strays = 0;
        for (index, tally) in seen {
            let cell = &mut self.cells[index];
            match (tally.judge(&membership(cell), 0), cell.role) {
                (CellJudgement::Wrong(wrong), Role::Control) => {
                    cell.wrong.get_or_insert(wrong);
                }
                (CellJudgement::Agrees | CellJudgement::NeedsMore, Role::Pinned | Role::Matrix) => {
                    cell.wrong = None;
                    strays += 1;
                }
                (
                    CellJudgement::Wrong(_)
                    | CellJudgement::Broken(_)
                    | CellJudgement::Agrees
                    | CellJudgement::NeedsMore,
                    _,
                ) => {}
            }
        }
        strays
    }

    /// Controls from the place of a cell to the endpoints that it may reach.
    fn past_the_proxy(&self, index: usize) -> Vec<(usize, u64)> {
        let cell = &self.cells[index];
        let endpoints = cell.expectation.endpoints();
        let is_control = |control: &Cell| {
            control.role == Role::Control
                && control.flow.client.place == cell.flow.client.place
                && control.flow.protocol == cell.flow.protocol
                && endpoints.contains(&control.flow.to)
        };
        let all = self.cells.iter().enumerate();
        all.filter(|(_, control)| is_control(control)).map(|(i, _)| (i, MORE)).collect()
    }
}

/// Whether a cell must be answered and got one answer late or not at all.
fn is_lost_by_chance(cell: &Cell) -> bool {
    let loss = match &cell.wrong {
        Some(Wrong::Outcome(Outcome::Dropped | Outcome::Unhandled) | Wrong::Resent(_)) => true,
        Some(Wrong::Outcome(_) | Wrong::NeverSeen(_) | Wrong::Moved(_) | Wrong::Uneven(_))
        | None => false,
    };
    let reached = cell.expectation.kinds().into_iter().all(|kind| kind == OutcomeKind::Reached);
    let answers = cell.tally.seen().iter().filter(|(saw, _)| {
        matches!(judge_one(&cell.expectation, saw), CellJudgement::Agrees)
            && matches!(saw, Observation::Saw(Outcome::Reached { .. }))
    });
    let others = cell.tally.samples() - answers.map(|(_, count)| count).sum::<u64>();
    loss && reached && others == 1
}
