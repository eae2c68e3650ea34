//! One step: act, settle, judge, hold.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use futures::future::join_all;
use touchstone_case::{ScriptStep, Spread};
use touchstone_provider::ClusterError;
use touchstone_record::StepTimes;
use touchstone_spec::{Change, Expectation, Observation};
use touchstone_verdict::{CellJudgement, CellTally, Wrong, even_share_slack, judge_one};

use crate::affinity::Pauses;
use crate::cells::{Cell, Role, cells, marker_cells};
use crate::deadline::Deadline;
use crate::ground::Ground;
use crate::losses::{is_lossy, lost_less_than_half};
use crate::markers::Marker;
use crate::pace::{HOLD, pace, until_next_look};
use crate::sampling::ChoiceKey;
use crate::shown::Shown;
use crate::traffic::{Stream, TrafficResult};
use crate::worlds::Worlds;

/// Samples with which settling looks at a cell before it is judged.
const GLANCES: u64 = 1;
/// Looks at a cell that depends on a zone: with two endpoints, a proxy that has not heard of the
/// zone is right in all of them once in a million.
const ZONE_GLANCES: u64 = 20;
/// What is left of settling when every marker has answered (decision 0002).
const AFTER_MARKERS: Duration = Duration::from_secs(10);
/// Connections per endpoint of a cell whose spread is judged.
const SPREAD_SAMPLES: u64 = 200;

/// What came of a step.
pub(crate) struct StepOutcome {
    pub(crate) cells: Vec<Cell>,
    /// Cells that decide against the proxy.
    pub(crate) wrong: Vec<usize>,
    /// Why nothing can be said: broken probes, failed controls.
    pub(crate) doubts: Vec<String>,
    /// Whether every cell agreed in time; what was wrong afterwards is no matter of time.
    pub(crate) settled: bool,
    pub(crate) times: StepTimes,
    pub(crate) traffic: Option<TrafficResult>,
}

/// Runs one step of a script.
///
/// # Errors
/// When the cluster refuses a change.
pub(crate) async fn run_step(
    ground: &Ground,
    earlier: &[ScriptStep],
    step: &ScriptStep,
    marker: &Marker,
    shown: &Shown,
    waiting: &(dyn Fn(String) + Send + Sync),
) -> Result<StepOutcome, ClusterError> {
    let worlds = Worlds::around(earlier, step);
    let mut marked = worlds.clone();
    for change in &marker.changes {
        marked.after.apply(change);
    }
    let facts = ground.cluster.facts();
    let mut all = cells(step, &worlds, &ground.features, ground.sampling, shown, facts);
    let judged_from = all.len();
    all.extend(marker_cells(&marker.flows, &marked, &ground.features));

    let entered = Instant::now();
    let stream = match &step.traffic {
        Some(traffic) => Some(Stream::start(ground, traffic, &worlds).await),
        None => None,
    };
    if step.changes.iter().any(|change| matches!(change, Change::ApplyRawSlice(_))) {
        // What is written as it is may keep a proxy from its first sync.
        waiting("the cluster to be ready".into());
        ground.ready.clone().await?;
    }
    waiting("the changes to be made".into());
    let mut began = Instant::now();
    for change in step.changes.iter().chain(&marker.changes) {
        ground.cluster.change(change).await?;
    }
    // The first cases of a cluster make their worlds while its proxies start, so that the proxies'
    // first sync carries them; how long that takes says nothing about a change.
    let early = ground.ready.peek().is_none();
    if early {
        waiting("the cluster to be ready".into());
        ground.ready.clone().await?;
        began = Instant::now();
    }
    let mut run = Run {
        ground,
        worlds: &worlds,
        cells: all,
        early,
        began,
        deadline: Deadline::new(&ground.machine, began, step.within * ground.slowness),
        probes: 0,
        impossible: BTreeSet::new(),
    };
    waiting("the proxy to show the change on every node".into());
    run.poll(judged_from).await;
    let polled = began.elapsed();
    waiting("every cell to agree".into());
    let mut settled = run.glance().await;
    let mut settled_at = Instant::now();
    if settled {
        ground.cluster.sabotage().await?;
        run.judge_and_hold(settled_at + step.hold, waiting).await;
    }
    while settled && run.may_be_at_work_still() {
        waiting("every cell to agree".into());
        run.pause().await;
        run.take_back();
        settled = run.glance().await;
        settled_at = Instant::now();
        if settled {
            run.judge_and_hold(settled_at + step.hold, waiting).await;
        }
    }
    let strays = run.weigh_losses(settled).await;
    if strays > 0 && run.wrong().is_empty() {
        // The loss had cut the holding short.
        waiting("agreement to hold".into());
        run.hold(Instant::now() + step.hold).await;
    }
    let mut traffic = match stream {
        Some(stream) => {
            if settled {
                waiting("kept flows to follow".into());
                stream.follow(&worlds, &run.deadline).await;
            }
            Some(stream.finish(&worlds).await)
        }
        None => None,
    };
    let starved = ground.starved_since(entered);
    if let (Some(starved), Some(traffic)) = (&starved, &mut traffic) {
        traffic.doubt(starved);
    }
    let busy = match settled {
        true => starved,
        false => run.deadline.doubt(),
    };
    let settled = settled.then_some(settled_at);
    let mut outcome = run.finish(polled, settled, busy.as_deref(), traffic);
    outcome.times.strays = strays;
    outcome.times.late =
        u64::try_from(ground.machine.worst_since(entered).as_millis()).unwrap_or(u64::MAX);
    Ok(outcome)
}

/// A step while it runs.
pub(crate) struct Run<'a> {
    ground: &'a Ground,
    worlds: &'a Worlds,
    pub(crate) cells: Vec<Cell>,
    /// Whether the changes were made before the cluster was ready.
    early: bool,
    began: Instant,
    /// When settling ends.
    deadline: Deadline,
    probes: u64,
    /// Cells that saw something that no moment of the change allows.
    impossible: BTreeSet<usize>,
}

impl Run<'_> {
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Ends settling earlier once every marker has answered.
    ///
    /// Whoever serves them has read all that came before them. Zones come by another watch.
    fn expect_soon(&mut self) {
        if !self.cells.iter().any(|cell| cell.needs_zone) {
            self.deadline.sooner(AFTER_MARKERS * self.ground.slowness);
        }
    }

    async fn pause(&self) {
        pace(until_next_look(self.ground.alone, self.began.elapsed())).await;
    }

    /// Probes cells, each so many times, in turns: a bad moment befalls cells and controls alike.
    pub(crate) async fn round(
        &mut self,
        wanted: &[(usize, u64)],
        wait: fn(&Cell) -> Duration,
    ) -> Vec<(usize, Observation)> {
        let ground = self.ground;
        let cells = &self.cells;
        let most = wanted.iter().map(|(_, count)| *count).max().unwrap_or_default();
        let turn = |turn: u64| wanted.iter().filter(move |(_, count)| turn < *count);
        let probes = (0..most).flat_map(turn).map(|(index, _)| {
            let cell = &cells[*index];
            async move {
                let saw = ground.probe(cell, wait(cell)).await;
                (Instant::now(), *index, saw)
            }
        });
        let mut seen = join_all(probes).await;
        self.probes += seen.len() as u64;
        seen.sort_by_key(|(at, _, _)| *at);
        seen.into_iter()
            .map(|(at, index, saw)| {
                self.cells[index].pauses.answered(at);
                (index, saw)
            })
            .collect()
    }

    /// Takes an observation made while settling: wrong answers are forgiven when only their time
    /// is wrong.
    fn settle_with(&mut self, index: usize, saw: Observation, now: u64) {
        let cell = &mut self.cells[index];
        match judge_one(&cell.expectation, &saw) {
            CellJudgement::Agrees | CellJudgement::NeedsMore => {
                cell.first_right.get_or_insert(now);
            }
            CellJudgement::Broken(_) => {}
            CellJudgement::Wrong(wrong) => {
                cell.last_wrong = Some(now);
                cell.first_disagreement.get_or_insert((now, saw.clone()));
                let forgiven = !cell.is_judged()
                    || self.worlds.forgive(&cell.flow, &saw, &self.ground.features);
                if !forgiven {
                    cell.wrong.get_or_insert(wrong);
                    self.impossible.insert(index);
                }
            }
        }
        cell.tally.add(saw);
    }

    /// Looks at the markers, and at one changed row per node, until all of them are right.
    async fn poll(&mut self, markers_from: usize) {
        let mut watched: BTreeSet<usize> = (markers_from..self.cells.len()).collect();
        let mut nodes = BTreeSet::new();
        for (index, cell) in self.cells.iter().enumerate() {
            let positive = !cell.expectation.endpoints().is_empty();
            let watch = cell.role == Role::Pinned && cell.changed && positive;
            if watch && nodes.insert((cell.node.clone(), cell.flow.family())) {
                watched.insert(index);
            }
        }
        let mut unmarked = markers_from < self.cells.len();
        loop {
            let pending: Vec<(usize, u64)> = watched
                .iter()
                .filter(|i| self.cells[**i].first_right.is_none())
                .map(|i| (*i, 1))
                .collect();
            if unmarked && pending.iter().all(|(index, _)| *index < markers_from) {
                unmarked = false;
                self.expect_soon();
            }
            if pending.is_empty() || self.deadline.is_over() || !self.impossible.is_empty() {
                return;
            }
            let seen = self.round(&pending, |_| Cell::glance()).await;
            let now = self.now();
            for (index, saw) in seen {
                self.settle_with(index, saw, now);
            }
            if pending.iter().any(|(i, _)| self.cells[*i].first_right.is_none()) {
                if self.ground.cluster.broken().is_some() {
                    return;
                }
                self.pause().await;
            }
        }
    }

    /// Looks at every cell until each agrees; true when all did in time.
    async fn glance(&mut self) -> bool {
        // Silence that was there before cannot show that a change has arrived, and takes long.
        let mut pending: Vec<usize> = (0..self.cells.len())
            .filter(|i| self.cells[*i].changed || self.cells[*i].patience() > Cell::glance())
            .collect();
        self.look_anew(&pending);
        loop {
            let round: Vec<(usize, u64)> = pending.iter().map(|i| (*i, self.glances(*i))).collect();
            self.look_anew(&pending);
            let seen = self.round(&round, Cell::patience).await;
            let now = self.now();
            for (index, saw) in seen {
                self.settle_with(index, saw, now);
            }
            pending.retain(|i| !self.is_right(*i));
            if pending.is_empty() {
                return true;
            }
            if !self.impossible.is_empty() || self.ground.cluster.broken().is_some() {
                return false;
            }
            if self.deadline.is_over() {
                for index in pending {
                    let cell = &mut self.cells[index];
                    if let CellJudgement::Wrong(wrong) =
                        cell.tally.judge(&due_when_settled(cell), 0)
                    {
                        cell.wrong.get_or_insert(wrong);
                    }
                }
                return false;
            }
            self.pause().await;
        }
    }

    /// Forgets what cells saw, except what no moment of the change allows: that is the finding.
    fn look_anew(&mut self, cells: &[usize]) {
        for index in cells.iter().filter(|index| !self.impossible.contains(*index)) {
            self.cells[*index].tally = CellTally::default();
            self.cells[*index].pauses = Pauses::default();
        }
    }

    /// Changed cells are looked at as often as they are judged: one endpoint may come late.
    fn glances(&self, index: usize) -> u64 {
        let cell = &self.cells[index];
        if cell.needs_zone {
            // Zones come by another watch than Services, so no marker tells that they have come.
            cell.wanted.max(ZONE_GLANCES)
        } else if cell.changed && !self.worlds.is_first() {
            cell.wanted
        } else {
            GLANCES.min(cell.wanted)
        }
    }

    fn is_right(&self, index: usize) -> bool {
        let cell = &self.cells[index];
        match cell.tally.judge(&due_when_settled(cell), 0) {
            CellJudgement::Agrees | CellJudgement::NeedsMore => true,
            CellJudgement::Wrong(_) | CellJudgement::Broken(_) => false,
        }
    }

    /// Judges every cell, and looks whether that lasts.
    async fn judge_and_hold(&mut self, until: Instant, waiting: &(dyn Fn(String) + Send + Sync)) {
        waiting("every cell to be judged".into());
        self.judge().await;
        if self.wrong().is_empty() {
            waiting("agreement to hold".into());
            self.hold(until).await;
        }
    }

    /// Whether what went wrong may be of the change: of a proxy that goes step by step the marker
    /// tells when a change has come, and not when all of it is in force (adjudication 0121).
    fn may_be_at_work_still(&self) -> bool {
        !self.ground.features.has("changes-at-once")
            && !self.wrong().is_empty()
            && self.impossible.is_empty()
            && !self.deadline.is_over()
    }

    /// Takes back what was said of cells, which are going to be judged anew.
    fn take_back(&mut self) {
        for cell in &mut self.cells {
            cell.wrong = None;
        }
    }

    /// Samples every cell as often as its duty needs; nothing is forgiven any more.
    async fn judge(&mut self) {
        for cell in &mut self.cells {
            cell.tally = CellTally::default();
            cell.pauses = Pauses::default();
        }
        let round: Vec<(usize, u64)> =
            self.cells.iter().enumerate().map(|(i, cell)| (i, samples(cell))).collect();
        for (index, saw) in self.round(&round, Cell::patience).await {
            self.strict(index, saw);
        }
        self.pause_and_look_again().await;
        self.judge_all();
    }

    /// Judges what every cell has seen, and every choice that cells share.
    pub(crate) fn judge_all(&mut self) {
        let miss = self.ground.sampling.miss();
        for cell in &mut self.cells {
            let judgement = match cell.tally.judge(&membership(cell), cell.wanted) {
                CellJudgement::Agrees if is_even(cell) => {
                    let k = cell.expectation.endpoints().len();
                    let slack = even_share_slack(k, cell.tally.samples(), miss);
                    cell.tally.judge_even(&cell.expectation, slack)
                }
                other @ (CellJudgement::Agrees
                | CellJudgement::NeedsMore
                | CellJudgement::Broken(_)
                | CellJudgement::Wrong(_)) => other,
            };
            if let CellJudgement::Wrong(wrong) = judgement {
                cell.wrong.get_or_insert(wrong);
            }
        }
        self.judge_choices();
    }

    /// Every endpoint of a choice must have been seen by one of the cells that share it.
    fn judge_choices(&mut self) {
        let mut choices: BTreeMap<ChoiceKey, Vec<usize>> = BTreeMap::new();
        for (index, cell) in self.cells.iter().enumerate() {
            if let Some(choice) = cell.choice() {
                choices.entry(choice).or_default().push(index);
            }
        }
        for (choice, members) in choices {
            let (_, _, _, endpoints) = choice;
            let seen: BTreeSet<_> =
                members.iter().flat_map(|i| self.cells[*i].tally.endpoints().into_keys()).collect();
            let never: BTreeSet<_> = endpoints.difference(&seen).copied().collect();
            // A pinned cell speaks for all of them.
            if let (false, Some(first)) = (never.is_empty(), members.first()) {
                self.cells[*first].wrong.get_or_insert(Wrong::NeverSeen(never));
            }
        }
    }

    /// Looks at every pinned cell again and again, for the last time when `until` has come.
    async fn hold(&mut self, until: Instant) {
        let pinned: Vec<(usize, u64)> = self
            .cells
            .iter()
            .enumerate()
            .filter(|(_, cell)| cell.role == Role::Pinned)
            .map(|(i, _)| (i, 1))
            .collect();
        let mut last = false;
        while !last && self.wrong().is_empty() {
            last = Instant::now() >= until;
            if !last {
                pace(HOLD).await;
            }
            for (index, saw) in self.round(&pinned, Cell::patience).await {
                self.strict(index, saw);
                let cell = &mut self.cells[index];
                if let CellJudgement::Wrong(wrong) = cell.tally.judge(&membership(cell), 0) {
                    cell.wrong.get_or_insert(wrong);
                }
            }
        }
    }

    pub(crate) fn strict(&mut self, index: usize, saw: Observation) {
        let now = self.now();
        let cell = &mut self.cells[index];
        if let CellJudgement::Wrong(_) = judge_one(&cell.expectation, &saw) {
            cell.last_wrong = Some(now);
            cell.first_disagreement.get_or_insert((now, saw.clone()));
            if !self.worlds.forgive(&cell.flow, &saw, &self.ground.features) {
                self.impossible.insert(index);
            }
        }
        cell.tally.add(saw);
    }

    /// Cells that decide against the proxy.
    fn wrong(&self) -> Vec<usize> {
        let indices = 0..self.cells.len();
        indices.filter(|i| self.cells[*i].is_judged() && self.cells[*i].wrong.is_some()).collect()
    }

    fn finish(
        mut self,
        polled: Duration,
        settled: Option<Instant>,
        busy: Option<&str>,
        traffic: Option<TrafficResult>,
    ) -> StepOutcome {
        let mut doubts = Vec::new();
        for (index, cell) in self.cells.iter_mut().enumerate() {
            let of_time = match settled {
                Some(_) => is_lossy(cell) && lost_less_than_half(cell),
                None => !self.impossible.contains(&index),
            };
            if let (Some(busy), true, true) = (busy, of_time, cell.wrong.is_some()) {
                doubts.push(format!("{}: {busy}", cell.flow.text));
                cell.wrong = None;
            }
            if let Some(Wrong::Moved(_)) = cell.wrong
                && let Some(doubt) = cell.pauses.doubt(&self.worlds.after)
            {
                doubts.push(format!("{}: {doubt}", cell.flow.text));
                cell.wrong = None;
            }
            doubts.extend(cell.doubt_of_refusal(&self.worlds.after));
            if cell.role == Role::Control && cell.wrong.is_some() {
                doubts.push(format!(
                    "{}: the control failed, so nothing can be said about the proxy",
                    cell.flow.text
                ));
            }
            // A marker that is late while every judged cell agrees is late like any Service.
            if cell.role == Role::Marker && cell.first_right.is_none() && cell.wrong.is_none() {
                cell.wrong = match cell.tally.judge(&membership(cell), 0) {
                    CellJudgement::Wrong(wrong) => Some(wrong),
                    CellJudgement::Agrees | CellJudgement::NeedsMore | CellJudgement::Broken(_) => {
                        None
                    }
                };
            }
        }
        let mut wrong = self.wrong();
        if wrong.is_empty() && settled.is_none() {
            // Nothing but markers is late: they are Services like any other.
            wrong = (0..self.cells.len())
                .filter(|i| self.cells[*i].role == Role::Marker && self.cells[*i].wrong.is_some())
                .collect();
        }
        doubts.sort();
        doubts.dedup();
        let times = self.times(polled, settled);
        let settled = settled.is_some();
        StepOutcome { cells: self.cells, wrong, doubts, settled, times, traffic }
    }

    fn times(&self, polled: Duration, settled: Option<Instant>) -> StepTimes {
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        let mut nodes: BTreeMap<String, (Option<u64>, Option<u64>)> = BTreeMap::new();
        let measured = |cell: &&Cell| !self.early && cell.is_judged() && cell.changed;
        for cell in self.cells.iter().filter(measured) {
            let Some(node) = &cell.node else { continue };
            let times = nodes.entry(node.clone()).or_default();
            times.0 = times.0.max(cell.first_right);
            times.1 = times.1.max(cell.last_wrong);
        }
        StepTimes {
            first_right: nodes.values().filter_map(|(right, _)| *right).max(),
            last_wrong: self.cells.iter().filter_map(|cell| cell.last_wrong).max(),
            settled: settled
                .filter(|_| !self.early)
                .map(|at| millis(at.saturating_duration_since(self.began))),
            early: self.early,
            ended: self.now(),
            harness: self.now().saturating_sub(millis(polled)),
            nodes,
            probes: self.probes,
            strays: 0,
            late: 0,
        }
    }
}

/// What every single answer of a cell must be; whether all endpoints were seen is judged apart.
pub(crate) fn membership(cell: &Cell) -> Expectation {
    Expectation { cover: false, ..cell.expectation.clone() }
}

/// What a cell must have seen to count as settled. No marker tells that a zone has come, so every
/// endpoint that it brings has to show.
fn due_when_settled(cell: &Cell) -> Expectation {
    if cell.needs_zone { cell.expectation.clone() } else { membership(cell) }
}

/// Whether a cell's row asks for an even spread.
fn is_even(cell: &Cell) -> bool {
    cell.pin.as_ref().is_some_and(|pin| pin.spread == Some(Spread::Even))
}

/// How often a cell is probed to be judged.
fn samples(cell: &Cell) -> u64 {
    if is_even(cell) {
        cell.wanted.max(SPREAD_SAMPLES * cell.expectation.endpoints().len() as u64)
    } else {
        cell.wanted
    }
}
