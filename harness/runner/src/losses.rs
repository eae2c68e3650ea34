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
    /// The way past the proxy is asked at least as often as each of them. In a settled step a cell
    /// that lost one answer is asked many times again: when it loses nothing more, it lost a stray
    /// packet, as happens on busy machines with any proxy (adjudication 0025); that is counted and
    /// not held against the proxy. Gives the number of such cells.
    pub(crate) async fn weigh_losses(&mut self, settled: bool) -> u64 {
        let strays = if settled { self.weigh_controls().await } else { 0 };
        let all = self.cells.iter().enumerate();
        let lossy: Vec<usize> =
            all.filter(|(_, cell)| cell.is_judged() && is_lossy(cell)).map(|(i, _)| i).collect();
        if lossy.is_empty() {
            return strays;
        }
        let mut once: BTreeSet<usize> =
            lossy.iter().copied().filter(|i| settled && losses(&self.cells[*i]) == 1).collect();
        let few: Vec<(usize, u64)> = once.iter().map(|index| (*index, FEW)).collect();
        for (index, saw) in self.round(&few, Cell::patience).await {
            if !matches!(judge_one(&self.cells[index].expectation, &saw), CellJudgement::Agrees) {
                once.remove(&index);
            }
            self.strict(index, saw);
        }
        let mut again: BTreeMap<usize, u64> = once.iter().map(|index| (*index, MORE)).collect();
        for index in lossy {
            let samples = match once.contains(&index) {
                true => MORE,
                false => self.cells[index].tally.samples().min(MORE),
            };
            for control in self.past_the_proxy(index) {
                let wanted = again.entry(control).or_default();
                *wanted = samples.max(*wanted);
            }
        }
        let again: Vec<(usize, u64)> = again.into_iter().collect();
        let mut seen: BTreeMap<usize, CellTally> = BTreeMap::new();
        for (index, saw) in self.round(&again, Cell::patience).await {
            seen.entry(index).or_default().add(saw.clone());
            self.strict(index, saw);
        }
        let mut strays = strays;
        for (index, tally) in seen {
            let cell = &mut self.cells[index];
            match (tally.judge(&membership(cell), 0), cell.role) {
                (CellJudgement::Wrong(wrong), Role::Control) => {
                    cell.wrong.get_or_insert(wrong);
                }
                (CellJudgement::Agrees | CellJudgement::NeedsMore, Role::Pinned | Role::Matrix) => {
                    cell.wrong = None;
                    cell.tally = cell.tally.without(|saw| {
                        !matches!(judge_one(&cell.expectation, saw), CellJudgement::Agrees)
                    });
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
        if strays > 0 {
            // The loss came first and hid whatever else is wrong with them.
            self.judge_all();
        }
        strays
    }

    /// Asks controls again that lost a single answer; gives the number of those that lose no more.
    ///
    /// The way past the proxy is not past the kernel: where that balances by itself, answers to
    /// ports that a client has used for a Service a moment before get lost (adjudication 0124).
    async fn weigh_controls(&mut self) -> u64 {
        let all = self.cells.iter().enumerate();
        let once: Vec<(usize, u64)> = all
            .filter(|(_, cell)| cell.role == Role::Control && is_lossy(cell) && losses(cell) == 1)
            .map(|(index, _)| (index, FEW))
            .collect();
        let mut again: BTreeMap<usize, CellTally> = BTreeMap::new();
        for (index, saw) in self.round(&once, Cell::patience).await {
            again.entry(index).or_default().add(saw);
        }
        let mut strays = 0;
        for (index, tally) in again {
            let cell = &mut self.cells[index];
            if matches!(tally.judge(&membership(cell), 0), CellJudgement::Agrees) {
                cell.wrong = None;
                cell.tally = tally;
                strays += 1;
            }
        }
        strays
    }

    /// Controls from the place of a cell to the endpoints that it may reach.
    fn past_the_proxy(&self, index: usize) -> Vec<usize> {
        let cell = &self.cells[index];
        let endpoints = cell.expectation.endpoints();
        let is_control = |control: &Cell| {
            control.role == Role::Control
                && control.flow.client.place == cell.flow.client.place
                && control.flow.protocol == cell.flow.protocol
                && endpoints.contains(&control.flow.to)
        };
        let all = self.cells.iter().enumerate();
        all.filter(|(_, control)| is_control(control)).map(|(i, _)| i).collect()
    }
}

/// Whether a cell must be answered, and nothing is wrong but missing or late answers.
///
/// Where an endpoint must answer, a refusal is one of them: a packet that is not translated meets
/// the node itself.
pub(crate) fn is_lossy(cell: &Cell) -> bool {
    let kinds = cell.expectation.kinds();
    let endpoint = kinds.iter().all(|kind| *kind == OutcomeKind::Reached);
    let silence = [OutcomeKind::Dropped, OutcomeKind::Unhandled];
    match &cell.wrong {
        Some(Wrong::Outcome(Outcome::Dropped)) => !kinds.iter().any(|kind| silence.contains(kind)),
        Some(
            Wrong::Outcome(
                Outcome::Unhandled | Outcome::Refused(_) | Outcome::Reset | Outcome::Unreachable,
            )
            | Wrong::Resent(_),
        ) => endpoint,
        Some(
            Wrong::Outcome(_)
            | Wrong::NeverSeen(_)
            | Wrong::Moved(_)
            | Wrong::Kept(_)
            | Wrong::Uneven(_),
        )
        | None => false,
    }
}

/// Whether most answers came all the same: a busy machine loses some, and a proxy that does not
/// serve loses all.
pub(crate) fn lost_less_than_half(cell: &Cell) -> bool {
    losses(cell) * 2 < cell.tally.samples()
}

/// How many of a cell's answers were not right.
fn losses(cell: &Cell) -> u64 {
    let right =
        |saw: &Observation| matches!(judge_one(&cell.expectation, saw), CellJudgement::Agrees);
    cell.tally.seen().iter().filter(|(saw, _)| !right(saw)).map(|(_, count)| count).sum()
}
