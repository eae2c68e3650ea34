//! Runs on the simulation, with a clock that does not wait.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use touchstone_case::Variant;
use touchstone_provider::{Defect, Sim};
use touchstone_record::{Ended, Event, LogReader, LogWriter, SubjectRecord};
use touchstone_runner::{Emitter, Person, RunSubject, Settings, Share, run};
use touchstone_spec::{Features, Level, NETWORK_NEEDS};

struct Nobody;

#[async_trait]
impl Person for Nobody {
    async fn failed(&self, _ended: &Ended, _how_to_join: Vec<String>) {}
    async fn before_close(&self, _how_to_join: Vec<String>) {}
}

/// Runs variants on the simulation and gives the end of each.
pub(crate) fn run_on_sim(
    variants: &[Variant],
    defect: Option<Defect>,
) -> Result<Vec<Ended>, String> {
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let path = folder.path().join("events.jsonl");
    let log = LogWriter::create(&path).map_err(|e| e.to_string())?;
    let emitter = Emitter::new(log, None);
    emitter.emit(started());
    let features = Features::strictest();
    let subject = RunSubject {
        record: record(),
        features: Arc::new(features.clone()),
        provider: Arc::new(Sim { features, defect }),
        needs: BTreeSet::new(),
        provided: ["restart", "nodes", "cordon", "clients", "servers", "dns"]
            .into_iter()
            .chain(NETWORK_NEEDS)
            .map(str::to_owned)
            .collect(),
        known: BTreeMap::new(),
    };
    let settings = Settings {
        jobs: 8,
        clusters: None,
        slowness: 1,
        seed: 1,
        share: Share::WHOLE,
        person: Arc::new(Nobody),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .map_err(|e| e.to_string())?;
    runtime.block_on(run(variants, &[subject], &settings, &emitter));
    let events = LogReader::read(&path).map_err(|e| e.to_string())?;
    let mut ends = Vec::new();
    for event in events {
        if let Event::CaseEnded(ended) = event.event {
            ends.push(ended);
        }
    }
    Ok(ends)
}

fn record() -> SubjectRecord {
    SubjectRecord {
        id: "sim".to_owned(),
        name: "sim".to_owned(),
        mode: "model".to_owned(),
        release: None,
        configuration: "default".to_owned(),
        digest: None,
        found: "part of the suite".to_owned(),
        features: vec![],
        untested: false,
    }
}

fn started() -> Event {
    Event::RunStarted {
        format: touchstone_record::FORMAT.to_owned(),
        run: "test".to_owned(),
        started: "2026-01-01T00:00:00Z".to_owned(),
        version: "0".to_owned(),
        command: vec![],
        seed: 1,
        subjects: vec![record()],
        plan: vec![],
        digest: String::new(),
        false_alarm_rate: 0.001,
        host: touchstone_record::HostFacts {
            kernel: String::new(),
            arch: String::new(),
            cpus: 1,
            memory_mib: 1,
            user_namespace: false,
            options: vec![],
            second_kernel: None,
        },
        provider: "sim".to_owned(),
        strict: false,
        fail_on: Level::Must,
    }
}
