//! A whole run: subjects one after the other, clusters as the cases need them, cases side by side.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use touchstone_case::{Allocator, Variant};
use touchstone_provider::{Cluster, ClusterError, ClusterRequest, Notice, Provider};
use touchstone_record::{Ended, Event, ExitByDesign, SubjectRecord};
use touchstone_spec::{ClusterShape, Excuse, Family, Features, Listing, Verdict};
use touchstone_verdict::{CaseFacts, Listed, decide};

use crate::attempt::Attempt;
use crate::batches::{Batch, SHARED_RULES, batches, in_turn, weight};
use crate::clearing::Clearing;
use crate::crowd::{Crowd, Inside};
use crate::emit::Emitter;
use crate::exits::Exits;
use crate::ground::{Ground, Ready};
use crate::leftovers::Leftovers;
use crate::machine::Machine;
use crate::own;
use crate::plan::{excuse, planned};
use crate::sampling::Sampling;
use crate::share::Share;

/// Clusters that live side by side with the shared one.
const CLUSTERS_BESIDE: usize = 6;
/// Times that a shared cluster is started anew after its proxy ended unexpectedly.
const NEW_CLUSTERS: usize = 2;

/// One subject of a run.
#[derive(Clone)]
pub struct RunSubject {
    /// What the log says of it.
    pub record: SubjectRecord,
    /// Features that it declares.
    pub features: Arc<Features>,
    /// What the machine must have for it, by the words of `NETWORK_NEEDS`.
    pub needs: BTreeSet<String>,
    /// What supplies its clusters.
    pub provider: Arc<dyn Provider>,
    /// What the provider can do beyond any cluster, by the names that cases use in `needs: lab`,
    /// and what the machine has for `needs: network`, by the words of `NETWORK_NEEDS`.
    pub provided: BTreeSet<String>,
    /// Its known failures, by variant.
    pub known: BTreeMap<String, Listing>,
}

/// The person who may want to look into a cluster.
#[async_trait]
pub trait Person: Send + Sync {
    /// Called after a failing case while its cluster still has the case's world.
    async fn failed(&self, ended: &Ended, how_to_join: Vec<String>);

    /// Called before a shared cluster is closed.
    async fn before_close(&self, how_to_join: Vec<String>);

    /// Lets go of the clusters that are kept; false where none is.
    fn let_go(&self) -> bool {
        false
    }
}

/// How to run.
#[derive(Clone)]
pub struct Settings {
    /// Cases that run side by side on one cluster, as long as there is room for them.
    pub jobs: usize,
    /// The most clusters at a time; where none is said, those with plain settings start at once
    /// and some more live beside them.
    pub clusters: Option<usize>,
    /// How many times as long as on an ordinary machine proxies may take for a change.
    pub slowness: u32,
    /// Which cases start together follows from it.
    pub seed: u64,
    /// The part of the plan that is run.
    pub share: Share,
    /// The person at the terminal.
    pub person: Arc<dyn Person>,
}

/// Runs a plan on every subject.
///
/// Everything that happens is told to the emitter; the caller writes the first and the last
/// event. Clusters are closed before this returns. Gives the CPU time that the proxies used.
pub async fn run(
    variants: &[Variant],
    subjects: &[RunSubject],
    settings: &Settings,
    emitter: &Emitter,
) -> Duration {
    let sampling = Sampling::of(variants);
    let machine = Machine::watch();
    let crowd = Crowd::new(machine.clone(), settings.slowness);
    let mut spent = Duration::ZERO;
    for subject in subjects {
        let run = SubjectRun {
            subject: subject.clone(),
            settings: settings.clone(),
            emitter: emitter.clone(),
            sampling,
            machine: machine.clone(),
            crowd: crowd.clone(),
            exits: Arc::default(),
            spent: Arc::default(),
            leftovers: Leftovers::default(),
        };
        let run = Arc::new(run);
        Arc::clone(&run).all(variants).await;
        spent += *run.spent.lock().unwrap_or_else(PoisonError::into_inner);
        if emitter.has_failed() {
            break;
        }
    }
    spent
}

struct SubjectRun {
    subject: RunSubject,
    settings: Settings,
    emitter: Emitter,
    sampling: Sampling,
    machine: Machine,
    crowd: Crowd,
    /// Proxies that did not stay up.
    exits: Arc<Exits>,
    /// CPU time of the proxies of closed clusters.
    spent: Arc<Mutex<Duration>>,
    leftovers: Leftovers,
}

/// A cluster of the run and what listens to it.
struct Live {
    name: String,
    cluster: Arc<dyn Cluster>,
    ready: Ready,
    ground: Ground,
    allocator: Allocator,
    listener: JoinHandle<()>,
    running: Mutex<BTreeSet<String>>,
    /// Addresses that Services of its cases had.
    frontends: Mutex<BTreeSet<IpAddr>>,
    clearing: Clearing,
}

impl SubjectRun {
    fn id(&self) -> &str {
        &self.subject.record.id
    }

    async fn all(self: Arc<Self>, variants: &[Variant]) {
        let share = self.settings.share;
        if let Some(need) = self.subject.needs.difference(&self.subject.provided).next() {
            let excuse = Excuse::HostLacks(need.clone());
            // Those of every run come last, and every part tells of them.
            let told_elsewhere = if share.is_first() { 0 } else { variants.len() };
            for planned in planned(variants).into_iter().skip(told_elsewhere) {
                self.emitter.emit(Event::CaseEnded(Ended {
                    excuse: Some(excuse.clone()),
                    ..self.ended(&planned.case, 1, Verdict::Unsupported, None)
                }));
            }
            return;
        }
        let mut wanted = Vec::new();
        for variant in variants {
            let (provider, provided) = (&self.subject.provider, &self.subject.provided);
            match excuse(variant, &self.subject.features, provider.as_ref(), provided) {
                Some(excuse) if share.is_first() => self.emitter.emit(Event::CaseEnded(Ended {
                    excuse: Some(excuse),
                    ..self.ended(&variant.id(), 1, Verdict::Unsupported, None)
                })),
                Some(_) => {}
                None => wanted.push(variant.clone()),
            }
        }
        let most = self.settings.clusters;
        let beside = Arc::new(Semaphore::new(most.unwrap_or(CLUSTERS_BESIDE)));
        let mut tasks = JoinSet::new();
        let seed = self.settings.seed;
        let mine = match most {
            Some(1) if share == Share::WHOLE => in_turn(wanted, seed),
            Some(_) | None => share.mine(batches(wanted, seed, share.of())),
        };
        for mut batch in mine {
            if !batch.alone {
                // What never becomes right waits until its limit, so it begins first.
                let known = &self.subject.known;
                batch.variants.sort_by_key(|variant| !known.contains_key(&variant.id()));
            }
            let run = Arc::clone(&self);
            let beside = Arc::clone(&beside);
            tasks.spawn(async move {
                // Shared clusters with plain settings start at once, others when there is room.
                let waits = most.is_some() || batch.alone || !batch.shape.is_plain();
                let _room = if waits { Some(beside.acquire_owned().await) } else { None };
                run.batch(batch).await;
            });
        }
        while tasks.join_next().await.is_some() {}
        if !variants.is_empty() && !self.emitter.has_failed() {
            self.judge_exits();
            self.judge_leftovers();
        }
    }

    async fn batch(self: &Arc<Self>, batch: Batch) {
        let mut queue: VecDeque<Variant> = batch.variants.into();
        let mut again: Vec<Variant> = Vec::new();
        let mut last = None;
        // Of cases that take turns, each but a passing one costs its cluster.
        let most = if batch.alone { queue.len() + NEW_CLUSTERS } else { NEW_CLUSTERS };
        for _ in 0..=most {
            if queue.is_empty() || self.emitter.has_failed() {
                break;
            }
            let inside = self.crowd.enter(false).await;
            let opened = Instant::now();
            let live = match self.open(&batch.shape, batch.alone, inside).await {
                Ok(live) => Arc::new(live),
                Err(error) => {
                    self.give_up(&batch.shape, &mut queue, error, opened);
                    break;
                }
            };
            let in_flight = self.side_by_side(&live, batch.alone, &mut queue).await;
            if let Err(error) = live.ready.clone().await {
                self.give_up(&batch.shape, &mut queue, error, opened);
                self.close(&live).await;
                break;
            }
            again.extend(in_flight);
            if !batch.alone && queue.is_empty() {
                self.settings.person.before_close(live.cluster.how_to_join()).await;
            }
            let cleared = live.clearing.finish(live.cluster.as_ref()).await;
            last = live.cluster.broken();
            if let Err(error) = cleared {
                self.emitter.emit(Event::HarnessError { message: error.to_string() });
            } else if last.is_none() {
                self.look_for_leftovers(&live).await;
            }
            self.close(&live).await;
        }
        if !queue.is_empty() {
            let why = ClusterError {
                act: "failed to keep a cluster".to_owned(),
                why: last.as_ref().map_or_else(String::new, |broken| broken.why.clone()),
                proxy: last.is_none_or(|broken| broken.proxy),
                late: false,
            };
            self.give_up(&batch.shape, &mut queue, why, Instant::now());
        }
        for variant in again {
            self.repeat(&batch.shape, variant).await;
        }
    }

    /// Runs cases of the queue side by side until it is empty or the cluster breaks; those that
    /// want to be alone take turns until one does not pass. Gives back the cases that were in
    /// flight when the cluster broke.
    async fn side_by_side(
        self: &Arc<Self>,
        live: &Arc<Live>,
        alone: bool,
        queue: &mut VecDeque<Variant>,
    ) -> Vec<Variant> {
        let jobs = Arc::new(Semaphore::new(if alone { 1 } else { self.settings.jobs }));
        let spoiled = Arc::new(AtomicBool::new(false));
        let room = Family::BOTH.map(|family| (family, Arc::new(Semaphore::new(SHARED_RULES))));
        let mut tasks: JoinSet<Option<Variant>> = JoinSet::new();
        while let Some(variant) = queue.pop_front() {
            let mut permits = vec![Arc::clone(&jobs).acquire_owned().await];
            for (family, room) in &room {
                if variant.family().families().contains(family) {
                    permits.push(Arc::clone(room).acquire_many_owned(weight(&variant)).await);
                }
            }
            let inside = self.crowd.enter(live.ground.was_ready()).await;
            let over = live.cluster.broken().is_some() || spoiled.load(Ordering::Relaxed);
            if over || self.emitter.has_failed() {
                queue.push_front(variant);
                break;
            }
            if queue.is_empty() {
                live.clearing.nobody_waits();
            }
            let run = Arc::clone(self);
            let live = Arc::clone(live);
            let spoiled = Arc::clone(&spoiled);
            tasks.spawn(async move {
                let (_permits, _inside) = (permits, inside);
                let ended = run.attempt(&live, &variant, 1).await;
                if alone && ended.verdict != Verdict::Pass {
                    spoiled.store(true, Ordering::Relaxed);
                }
                let in_flight =
                    live.cluster.broken().is_some() && ended.verdict == Verdict::Inconclusive;
                in_flight.then_some(variant)
            });
        }
        let mut again = Vec::new();
        while let Some(done) = tasks.join_next().await {
            match done {
                Ok(variant) => again.extend(variant),
                Err(error) => self.emitter.emit(Event::HarnessError {
                    message: format!("a case ended without a verdict: {error}"),
                }),
            }
        }
        again
    }

    /// A second attempt of a case that was in flight when the proxy ended, on its own cluster.
    async fn repeat(self: &Arc<Self>, shape: &ClusterShape, variant: Variant) {
        let inside = self.crowd.enter(false).await;
        match self.open(shape, true, inside).await {
            // The attempt waits for the cluster to be ready.
            Ok(live) => {
                self.attempt(&live, &variant, 2).await;
                self.close(&live).await;
            }
            Err(error) => self.emitter.emit(Event::CaseEnded(self.ended(
                &variant.id(),
                2,
                Verdict::Inconclusive,
                Some(error.to_string()),
            ))),
        }
    }

    async fn attempt(&self, live: &Live, variant: &Variant, number: u32) -> Ended {
        let id = variant.id();
        let beside = {
            let mut running = live.running.lock().unwrap_or_else(PoisonError::into_inner);
            let beside = running.iter().cloned().collect();
            running.insert(id.clone());
            beside
        };
        self.emitter.emit(Event::CaseStarted {
            subject: self.id().to_owned(),
            case: id.clone(),
            attempt: number,
            cluster: live.name.clone(),
        });
        let attempt = Attempt {
            subject: self.id(),
            variant,
            number,
            known: self.subject.known.get(&id).cloned(),
            ground: &live.ground,
            allocator: &live.allocator,
            emitter: &self.emitter,
            person: self.settings.person.as_ref(),
            frontends: &live.frontends,
            clearing: &live.clearing,
        };
        let ended = Ended { beside, ..attempt.run().await };
        live.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        self.emitter.emit(Event::CaseEnded(ended.clone()));
        ended
    }

    /// Starts a cluster, which counts as one that is under way until it is ready.
    async fn open(
        self: &Arc<Self>,
        shape: &ClusterShape,
        alone: bool,
        inside: Inside,
    ) -> Result<Live, ClusterError> {
        let number = self.settings.share.of_run(self.exits.cluster_starts());
        let name = format!("c{number}");
        self.emitter
            .emit(Event::ClusterStarting { cluster: name.clone(), subject: self.id().to_owned() });
        let request = ClusterRequest { name: name.clone(), shape: shape.clone() };
        let started = self.subject.provider.start(&request).await?;
        let cluster: Arc<dyn Cluster> = Arc::from(started.cluster);
        let ready = {
            let (cluster, emitter) = (Arc::clone(&cluster), self.emitter.clone());
            let (name, subject) = (name.clone(), self.id().to_owned());
            let (mut took, configuration) = (started.took, started.configuration);
            let exits = Arc::clone(&self.exits);
            async move {
                let ready = cluster.ready().await;
                drop(inside);
                took.extend(ready?);
                exits.cluster_is_ready();
                emitter.emit(Event::ClusterReady {
                    cluster: name,
                    subject,
                    took,
                    configuration,
                    remarks: started.remarks,
                });
                Ok(())
            }
            .boxed()
            .shared()
        };
        // Driven by itself, so that it ends also where no case waits for it.
        tokio::spawn(ready.clone());
        let listener = tokio::spawn(listen(
            name.clone(),
            started.notices,
            self.emitter.clone(),
            // An exit on a case's own cluster is that case's finding.
            (!alone).then(|| Arc::clone(&self.exits)),
        ));
        Ok(Live {
            allocator: Allocator::new(cluster.facts()),
            ground: Ground::new(
                Arc::clone(&cluster),
                Arc::clone(&self.subject.features),
                self.sampling,
                self.machine.clone(),
                alone,
                self.settings.slowness,
                ready.clone(),
            ),
            ready,
            name,
            cluster,
            listener,
            running: Mutex::default(),
            frontends: Mutex::default(),
            clearing: Clearing::default(),
        })
    }

    async fn close(&self, live: &Live) {
        *self.spent.lock().unwrap_or_else(PoisonError::into_inner) += live.cluster.proxy_cpu();
        let remarks = live.cluster.close().await;
        live.listener.abort();
        self.emitter.emit(Event::ClusterClosed { cluster: live.name.clone(), remarks });
    }

    /// Looks for what the cluster's Services have left behind.
    async fn look_for_leftovers(&self, live: &Live) {
        let frontends =
            std::mem::take(&mut *live.frontends.lock().unwrap_or_else(PoisonError::into_inner));
        let features = &self.subject.features;
        let slowness = self.settings.slowness;
        let cluster = live.cluster.as_ref();
        let machine = &self.machine;
        self.leftovers.look(&live.name, cluster, features, &frontends, slowness, machine).await;
    }

    /// Ends every case of a queue for which no cluster could be had. Where the machine was held up
    /// since it was asked for, that says nothing about the proxy (decision 0014).
    fn give_up(
        &self,
        shape: &ClusterShape,
        queue: &mut VecDeque<Variant>,
        error: ClusterError,
        since: Instant,
    ) {
        let held_up = self.machine.held_up_since(since).filter(|_| error.late);
        let error = match &held_up {
            Some(busy) => &ClusterError { why: format!("{}; {busy}", error.why), ..error },
            None => &error,
        };
        let of_the_settings = held_up.is_none() && own::of_the_settings(shape, error);
        if error.proxy && held_up.is_none() && !of_the_settings {
            self.exits.keep(error.act.clone(), vec![error.to_string()]);
        }
        for variant in queue.drain(..) {
            let id = variant.id();
            let known = self.subject.known.get(&id);
            let failures =
                if of_the_settings { vec![own::never_served(shape, error)] } else { vec![] };
            let verdict = decide(CaseFacts {
                level: variant.level(),
                trouble: !error.proxy,
                failures: failures.len(),
                doubtful: false,
                judged: failures.len(),
                listed: Listed::from(known),
            });
            let known = known.filter(|_| verdict == Verdict::KnownFailure);
            let note = known.map(|known| known.reason.clone());
            let note = note.or_else(|| failures.is_empty().then(|| error.to_string()));
            let ended = Ended { failures, ..self.ended(&id, 1, verdict, note) };
            self.emitter.emit(Event::CaseEnded(ended));
        }
    }

    /// The case that every run has: no proxy ended unexpectedly.
    fn judge_exits(&self) {
        let noticed = self.subject.provider.notices_exits();
        let ended = self.exits.judge(noticed, |case, verdict| self.ended(case, 1, verdict, None));
        self.emitter.emit(Event::CaseEnded(ended));
    }

    /// The cases that every run has: nothing stays of Services that are gone.
    fn judge_leftovers(&self) {
        let features = &self.subject.features;
        for ended in
            self.leftovers.judge(features, |case, verdict| self.ended(case, 1, verdict, None))
        {
            self.emitter.emit(Event::CaseEnded(ended));
        }
    }

    fn ended(&self, case: &str, attempt: u32, verdict: Verdict, note: Option<String>) -> Ended {
        Ended { attempt, note, ..Ended::with(self.id(), case, verdict) }
    }
}

/// Passes on what a cluster tells by itself, and keeps unexpected exits.
async fn listen(
    cluster: String,
    mut notices: mpsc::UnboundedReceiver<Notice>,
    emitter: Emitter,
    exits: Option<Arc<Exits>>,
) {
    while let Some(notice) = notices.recv().await {
        match notice {
            Notice::ProxyExited { node, status, by_design, last_lines } => {
                if let (None, Some(exits)) = (&by_design, &exits) {
                    let mut evidence = vec![format!("{cluster}, {node}: {status}")];
                    evidence.extend(last_lines.iter().cloned());
                    exits.keep("it ended unexpectedly".to_owned(), evidence);
                }
                emitter.emit(Event::ProxyExited {
                    cluster: cluster.clone(),
                    node,
                    status,
                    by_design: by_design.map(|name| ExitByDesign { name }),
                    last_lines,
                });
            }
            Notice::ProxyRestarted { node } => {
                emitter.emit(Event::ProxyRestarted { cluster: cluster.clone(), node });
            }
        }
    }
}
