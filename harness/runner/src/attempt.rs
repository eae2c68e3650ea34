//! One execution of one variant on one cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::time::Instant;

use touchstone_case::{Allocator, Book, CaseError, Script, Variant, compile};
use touchstone_provider::{Broken, ClusterError, Servers};
use touchstone_record::{Ended, Event, Failure};
use touchstone_spec::{Change, Family, Listing, PodFacts, Verdict};
use touchstone_verdict::{CaseFacts, Listed, decide};

use crate::clearing::{Clearing, removal};
use crate::emit::Emitter;
use crate::evidence::{Whose, failures, record};
use crate::ground::Ground;
use crate::markers::{Marker, marker};
use crate::own;
use crate::run::Person;
use crate::shown::Shown;
use crate::step::{StepOutcome, run_step};

/// What an attempt is about.
pub(crate) struct Attempt<'a> {
    pub(crate) subject: &'a str,
    pub(crate) variant: &'a Variant,
    pub(crate) number: u32,
    /// What the subject says of the case, if it lists it as a known failure.
    pub(crate) known: Option<Listing>,
    pub(crate) ground: &'a Ground,
    pub(crate) allocator: &'a Allocator,
    pub(crate) emitter: &'a Emitter,
    pub(crate) person: &'a dyn Person,
    /// Where the addresses of its Services are kept, to look for their rules in the end.
    pub(crate) frontends: &'a Mutex<BTreeSet<IpAddr>>,
    pub(crate) clearing: &'a Clearing,
}

/// What keeps an attempt from its verdict.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(transparent)]
    Case(#[from] CaseError),
    #[error("failed to allocate for the case: {0}")]
    Book(#[from] touchstone_case::BookError),
}

/// What was gathered so far.
#[derive(Default)]
struct Gathered {
    failures: Vec<Failure>,
    doubts: Vec<String>,
    judged: usize,
    waited: u64,
    probes: u64,
}

impl Attempt<'_> {
    /// Runs the attempt and gives its end; pods and objects are cleared away in any case.
    pub(crate) async fn run(&self) -> Ended {
        let began = Instant::now();
        let mut gathered = Gathered::default();
        let mut trouble = self.world(&mut gathered, began).await.err();
        let mut explained = false;
        if let Some(Trouble::Cluster(error)) = &trouble
            && own::of_the_settings(&self.variant.shape(), error)
            && (!error.late || self.ground.machine.held_up_since(began).is_none())
        {
            gathered.judged += 1;
            gathered.failures.push(own::never_served(&self.variant.shape(), error));
            trouble = None;
            explained = true;
        }
        let cluster = &self.ground.cluster;
        if !gathered.failures.is_empty()
            && let Err(why) = cluster.control().await
        {
            gathered.doubts.push(format!("the cluster's own network: {why}"));
        }
        let befell = match &trouble {
            Some(Trouble::Cluster(error)) if error.proxy => error.act.clone(),
            Some(Trouble::Cluster(_) | Trouble::Case(_) | Trouble::Book(_)) | None => {
                "it ended unexpectedly".to_owned()
            }
        };
        let of_the_proxy = match &trouble {
            Some(Trouble::Cluster(error)) if error.proxy => {
                Some(Broken { why: error.to_string(), proxy: true })
            }
            Some(Trouble::Cluster(_) | Trouble::Case(_) | Trouble::Book(_)) | None => None,
        };
        if let Some(broken) = cluster.broken().or(of_the_proxy).filter(|_| !explained) {
            trouble = None;
            if broken.proxy && self.ground.alone && self.ground.was_ready() {
                gathered.judged += 1;
                let ended = own::ended(befell, vec![broken.why]);
                gathered.failures.push(ended);
                gathered.doubts.clear();
            } else if broken.proxy {
                gathered.doubts.push(broken.why);
            } else {
                let act = "the cluster broke";
                trouble = Some(ClusterError::new(act, broken.why).into());
            }
        }
        if self.known.as_ref().is_some_and(|known| !known.intermittent)
            && gathered.failures.is_empty()
            && let Some(starved) = self.ground.starved_since(began)
        {
            // What a proxy does wrong in time shows only to clients that are in time.
            gathered.doubts.push(format!("it passed, though known to fail, but {starved}"));
        }
        let verdict = decide(CaseFacts {
            level: self.variant.level(),
            trouble: trouble.is_some(),
            failures: gathered.failures.len(),
            doubtful: !gathered.doubts.is_empty(),
            judged: gathered.judged,
            listed: Listed::from(self.known.as_ref()),
        });
        let note = match (&trouble, verdict) {
            (Some(trouble), _) => Some(trouble.to_string()),
            (None, Verdict::Inconclusive) if gathered.doubts.is_empty() => {
                Some("nothing was probed".to_owned())
            }
            (None, Verdict::Inconclusive) => Some(gathered.doubts.join("; ")),
            (None, Verdict::KnownFailure | Verdict::UnexpectedPass) => {
                self.known.as_ref().map(|known| known.reason.clone())
            }
            (
                None,
                Verdict::Pass
                | Verdict::Survey
                | Verdict::Unsupported
                | Verdict::NotRun
                | Verdict::Fail
                | Verdict::Error,
            ) => None,
        };
        let ended = self.ended(verdict, note, &gathered, began);
        Ended { failures: gathered.failures, ..ended }
    }

    fn ended(
        &self,
        verdict: Verdict,
        note: Option<String>,
        gathered: &Gathered,
        began: Instant,
    ) -> Ended {
        Ended {
            subject: self.subject.to_owned(),
            case: self.variant.id(),
            attempt: self.number,
            verdict,
            excuse: None,
            note,
            failures: Vec::new(),
            took: millis(began),
            waited: gathered.waited,
            probes: gathered.probes,
            beside: Vec::new(),
        }
    }

    async fn world(&self, gathered: &mut Gathered, began: Instant) -> Result<(), Trouble> {
        let cluster = &self.ground.cluster;
        let wishes = self.variant.pods();
        let pods = cluster.pods(&wishes).await?;
        let by_key: BTreeMap<String, PodFacts> =
            wishes.into_iter().map(|wish| wish.key).zip(pods.iter().cloned()).collect();
        let facts = cluster.facts().seen_by(&self.variant.shape());
        let mut book = Book::new(facts, by_key, self.allocator);
        let result = self.script(&mut book, gathered, began).await;
        cluster.release(pods).await;
        book.release();
        result
    }

    async fn script(
        &self,
        book: &mut Book,
        gathered: &mut Gathered,
        began: Instant,
    ) -> Result<(), Trouble> {
        let script = compile(self.variant, book)?;
        let families = self.variant.family().families();
        let step_by_step = !self.ground.features.has("changes-at-once");
        let markers = (1..)
            .zip(&script.steps)
            .map(|(number, step)| match step.marked {
                true => marker(&script.namespace, number, families, book, step_by_step),
                false => Ok(Marker::default()),
            })
            .collect::<Result<Vec<Marker>, _>>()?;
        let of_the_cluster: BTreeSet<IpAddr> =
            book.facts.dns.iter().flat_map(|dns| dns.service.iter().copied()).collect();
        self.frontends
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(&frontends(&script, &markers) - &of_the_cluster);
        let result = self.steps(&script, &markers, gathered, began).await;
        if !gathered.failures.is_empty() {
            let so_far = Ended {
                failures: gathered.failures.clone(),
                ..self.ended(Verdict::Fail, None, gathered, began)
            };
            self.person.failed(&so_far, self.ground.cluster.how_to_join()).await;
        }
        let cleared = self.clear(&script, &markers).await;
        result.and(cleared.map_err(Trouble::from))
    }

    async fn steps(
        &self,
        script: &Script,
        markers: &[Marker],
        gathered: &mut Gathered,
        began: Instant,
    ) -> Result<(), Trouble> {
        let cluster = Arc::clone(&self.ground.cluster);
        let mut wishes: Vec<_> =
            script.steps.iter().flat_map(|step| step.servers.iter().cloned()).collect();
        wishes.sort();
        wishes.dedup();
        let _servers: Servers = cluster.serve(&wishes).await?;
        let waiting = |what: String| {
            self.emitter.emit(Event::Waiting {
                subject: self.subject.to_owned(),
                case: self.variant.id(),
                what,
            });
        };
        let mut shown = Shown::default();
        for (made, (step, marker)) in script.steps.iter().zip(markers).enumerate() {
            let earlier = &script.steps[..made];
            let outcome = run_step(self.ground, earlier, step, marker, &shown, &waiting).await?;
            let whose = Whose {
                subject: self.subject,
                case: &self.variant.id(),
                attempt: self.number,
                step: made + 1,
                // Its clock began when its changes were made, and the cluster was ready.
                began: millis(began).saturating_sub(outcome.times.ended),
            };
            shown.remember(&outcome.cells);
            self.tell(&whose, &outcome);
            gathered.take(&outcome);
            gathered
                .failures
                .extend(failures(&whose, &outcome, &script.names, cluster.as_ref()).await);
            // What follows a wrong step would only repeat it.
            if !gathered.failures.is_empty() || !gathered.doubts.is_empty() {
                break;
            }
        }
        Ok(())
    }

    fn tell(&self, whose: &Whose<'_>, outcome: &StepOutcome) {
        for cell in &outcome.cells {
            self.emitter.emit(Event::CellJudged(record(whose, cell, outcome.settled)));
        }
        self.emitter.emit(Event::StepEnded {
            subject: self.subject.to_owned(),
            case: self.variant.id(),
            attempt: self.number,
            step: whose.step,
            times: outcome.times.clone(),
        });
    }

    async fn clear(&self, script: &Script, markers: &[Marker]) -> Result<(), ClusterError> {
        let changes = removal(&script.steps, markers);
        self.clearing.take(changes, self.ground.cluster.as_ref()).await
    }
}

impl Gathered {
    fn take(&mut self, outcome: &StepOutcome) {
        self.doubts.extend(outcome.doubts.iter().cloned());
        self.judged += outcome.cells.iter().filter(|cell| cell.is_judged()).count();
        self.waited += outcome.times.ended.saturating_sub(outcome.times.harness);
        self.probes += outcome.times.probes;
        if let Some(traffic) = &outcome.traffic {
            self.probes += traffic.sent;
            self.doubts.extend(traffic.broken.iter().map(|why| format!("traffic: {why}")));
        }
    }
}

/// Every address that a Service of the script has at some time.
fn frontends(script: &Script, markers: &[Marker]) -> BTreeSet<IpAddr> {
    let changes = script.steps.iter().flat_map(|step| &step.changes);
    let changes = changes.chain(markers.iter().flat_map(|marker| &marker.changes));
    let nodes: BTreeSet<IpAddr> = script
        .steps
        .iter()
        .flat_map(|step| step.world.nodes.iter().flat_map(|node| node.addresses.iter().copied()))
        .collect();
    let mut found = BTreeSet::new();
    for change in changes {
        if let Change::ApplyService(service) = change {
            for family in Family::BOTH {
                found.extend(service.addresses(family));
            }
        }
    }
    &found - &nodes
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
