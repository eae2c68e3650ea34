//! Runs on the simulation: no namespaces, no proxy.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::anyhow;
use tokio::sync::mpsc;
use touchstone_case::NAME_SERVER;
use touchstone_provider::Sim;
use touchstone_record::{LogWriter, SubjectRecord};
use touchstone_runner::{Emitter, RunSubject, Settings, Share};
use touchstone_spec::{Features, NETWORK_NEEDS};

use crate::failed::Failed;
use crate::inside::drive;
use crate::job::{Job, SubjectJob, log_path};
use crate::live::{Live, Person};

/// The simulated proxy, which has every feature but freedoms.
pub(crate) fn subject() -> SubjectJob {
    SubjectJob {
        selector: "sim".to_owned(),
        folders: vec![],
        record: SubjectRecord {
            id: "sim".to_owned(),
            name: "sim".to_owned(),
            mode: "model".to_owned(),
            release: None,
            configuration: "default".to_owned(),
            digest: None,
            found: "part of touchstone".to_owned(),
            features: Features::strictest().iter().map(ToString::to_string).collect(),
            untested: false,
        },
        program: PathBuf::new(),
        version: None,
        known: BTreeMap::new(),
    }
}

/// Runs a job on the simulation, in this process.
pub(crate) fn run(job: &Job) -> Result<(), Failed> {
    let variants = job.chosen().map_err(|errors| Failed::usage(anyhow!("{}", errors.render())))?;
    let features = Features::strictest();
    let subjects = [RunSubject {
        record: subject().record,
        features: Arc::new(features.clone()),
        provider: Arc::new(Sim { features, defect: None }),
        // Its name server answers from the model, as its proxies do.
        needs: BTreeSet::new(),
        provided: ["restart", "nodes", "cordon", "clients", "servers", NAME_SERVER]
            .into_iter()
            .chain(NETWORK_NEEDS)
            .map(str::to_owned)
            .collect(),
        known: BTreeMap::new(),
    }];
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failed::harness)?;
    runtime.block_on(async {
        let log = LogWriter::create(&log_path(&job.out)).map_err(Failed::harness)?;
        let (tell, events) = mpsc::unbounded_channel();
        let emitter = Emitter::new(log, Some(tell));
        let live = Live::start(events, job.variants.len());
        let settings = Settings {
            clusters: None,
            jobs: job.jobs,
            slowness: 1,
            seed: job.seed,
            share: Share::WHOLE,
            person: Arc::new(Person::new(job.pause, false)),
        };
        let result = drive(job, "sim", &variants, &subjects, &settings, &emitter).await;
        drop(emitter);
        live.finish().await;
        result.map(drop).map_err(Failed::harness)
    })
}
