//! `touchstone run --provider cluster`, and what prepares clusters for it and cleans up after it.

mod dry_run;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use touchstone_case::{Change, Variant, compile, planned_book};
use touchstone_provider::image::Image;
use touchstone_provider::real::{self, AgentImage, Harm, Keeper, OutsideSeat, Site, SiteRequest};
use touchstone_record::LogWriter;
use touchstone_runner::{Emitter, RunSubject, Settings, Share};
use touchstone_spec::{Family, Feature};

use crate::args::{Clean, ClusterCommand, ClusterOptions, Defects, ImageArgs, ProviderName, Run};
use crate::failed::Failed;
use crate::inside::drive;
use crate::job::{Job, SubjectJob, log_path};
use crate::live::{Live, Person};
use crate::say::{note, say};
use crate::subjects::{choose, describe_in_cluster};

pub(crate) use dry_run::dry_run;

/// The agent's program, or nothing where `scripts/build` has not made it first.
const AGENT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/agent"));

/// Cases side by side, where a run says nothing else: each has pods of its own on real nodes.
pub(crate) const JOBS: usize = 16;
/// The same on kind, where nodes, control plane and harness share one machine (decision 0014).
pub(crate) const KIND_JOBS: usize = 6;

/// Clusters at a time: all of them are the same.
const CLUSTERS: usize = 1;

/// What `run` needs to use a cluster.
#[derive(Clone)]
pub(crate) struct Target {
    /// Name of the provider, for the record.
    pub(crate) provider: &'static str,
    pub(crate) kubeconfig: PathBuf,
    pub(crate) image: AgentImage,
    pub(crate) harm: Harm,
    /// The secret that agents ask for.
    pub(crate) token: String,
    /// Clients outside, whose agents run already.
    pub(crate) outside: Vec<OutsideSeat>,
    /// Who may change proxies and nodes, where somebody may.
    pub(crate) keeper: Option<Arc<dyn Keeper>>,
    /// Whether there is somebody who uses the cluster afterwards.
    pub(crate) stays: bool,
}

impl Target {
    /// Finds out what the options mean.
    pub(crate) fn of(options: &ClusterOptions) -> Result<Target, Failed> {
        let image = match &options.agent_image {
            Some(reference) => AgentImage { reference: reference.clone(), pulled: true },
            None => AgentImage { reference: image()?.reference, pulled: false },
        };
        Ok(Target {
            provider: "cluster",
            kubeconfig: kubeconfig(options.kubeconfig.as_deref())?,
            image,
            harm: harm(options),
            token: crate::lab::token().map_err(Failed::harness)?,
            outside: Vec::new(),
            keeper: None,
            stays: true,
        })
    }
}

/// Finds options that make no sense with what supplies the clusters.
pub(crate) fn check(run: &Run) -> Result<(), Failed> {
    let ClusterOptions { kubeconfig: _, agent_image, harmful, dry_run } = &run.cluster;
    if run.provider != ProviderName::Cluster && (agent_image.is_some() || *harmful || *dry_run) {
        return Err(Failed::usage(anyhow!(
            "--agent-image, --harmful and --dry-run are for --provider cluster"
        )));
    }
    if matches!(run.provider, ProviderName::Lab | ProviderName::Sim) {
        return Ok(());
    }
    let Defects { lies, without_proxy, sabotage } = &run.defects;
    if !lies.is_empty() || !without_proxy.is_empty() || sabotage.is_some() {
        return Err(Failed::usage(anyhow!("only the lab can be given planted defects")));
    }
    if run.provider == ProviderName::Cluster && run.subjects.binary.is_some() {
        return Err(Failed::usage(anyhow!(
            "--binary is for the lab and kind; in this cluster the proxy runs already"
        )));
    }
    Ok(())
}

fn harm(options: &ClusterOptions) -> Harm {
    if options.harmful { Harm::Allowed } else { Harm::Spared }
}

/// The kubeconfig given, or the one that kubectl would take.
fn kubeconfig(given: Option<&Path>) -> Result<PathBuf, Failed> {
    let missing = || {
        Failed::usage(anyhow!(
            "which cluster? name a kubeconfig with --kubeconfig FILE or in KUBECONFIG"
        ))
    };
    given.map(Path::to_owned).ok_or_else(missing)
}

pub(crate) fn image() -> Result<Image, Failed> {
    if AGENT.is_empty() {
        return Err(Failed::harness(anyhow!(
            "this touchstone carries no agent; `scripts/build` makes one that does"
        )));
    }
    Image::of(AGENT).map_err(Failed::harness)
}

pub(crate) fn runtime() -> Result<Runtime, Failed> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("failed to start the async runtime")
        .map_err(Failed::harness)
}

/// `touchstone cluster …`.
pub(crate) fn command(command: &ClusterCommand) -> Result<u8, Failed> {
    match command {
        ClusterCommand::Image(ImageArgs { out }) => {
            let image = image()?;
            std::fs::write(out, &image.archive)
                .with_context(|| format!("failed to write {}", out.display()))
                .map_err(Failed::harness)?;
            say(&image.reference);
        }
        ClusterCommand::Rbac(rbac) => {
            let harm = if rbac.harmful { Harm::Allowed } else { Harm::Spared };
            say(&real::rbac(harm));
        }
    }
    Ok(0)
}

/// `touchstone clean`.
pub(crate) fn clean(clean: &Clean) -> Result<u8, Failed> {
    runtime()?.block_on(async {
        let whose = match &clean.run {
            Some(tag) => format!("run {tag}"),
            None => "any run".to_owned(),
        };
        let of_kind = crate::kind::clean(clean.run.as_deref()).await;
        let Some(kubeconfig) = clean.kubeconfig.as_deref() else {
            if !of_kind? {
                say(&format!(
                    "no cluster of kind's is left of {whose}; to look into another cluster, name \
                     it with --kubeconfig"
                ));
            }
            return Ok(0);
        };
        // Trouble with clusters of kind's keeps nobody from cleaning another one.
        let inside = clean_inside(clean, kubeconfig).await;
        if !(inside? | of_kind?) {
            say(&format!("nothing is left of {whose}"));
        }
        Ok(0)
    })
}

/// Removes what killed runs left in a cluster; says whether there was any.
async fn clean_inside(clean: &Clean, kubeconfig: &Path) -> Result<bool, Failed> {
    let found = real::leftovers(kubeconfig).await.map_err(Failed::harness)?;
    let wanted = |tag: &str| clean.run.as_deref().is_none_or(|run| run == tag);
    let mut kept = false;
    let mut remarks = Vec::new();
    for left in found.iter().filter(|left| wanted(&left.tag)) {
        let what = format!("{} of run {}", count(left.namespaces.len(), "namespace"), left.tag);
        if left.alive && clean.run.is_none() {
            note(&format!(
                "{what}: its clients still run, so it may be under way; once it was killed they \
                 end within a minute, or within ten where it had not reached them; \
                 `touchstone clean --run {}` removes it anyway",
                left.tag
            ));
            kept = true;
            continue;
        }
        note(&format!("removing {what}"));
        let removed = real::clean(kubeconfig, &left.tag).await;
        remarks.extend(removed.map_err(Failed::harness)?);
    }
    match remarks.first() {
        Some(_) => Err(Failed::harness(anyhow!("{}", remarks.join("; ")))),
        None if kept => Err(Failed::harness(anyhow!("not everything was removed"))),
        None => Ok(found.iter().any(|left| wanted(&left.tag))),
    }
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// Families that a subject says it serves.
pub(crate) fn served(subject: &SubjectJob) -> Result<Vec<Family>, Failed> {
    let selection = choose(&subject.selector, &subject.folders)?.selection;
    let release = subject.record.release.as_deref().and_then(|release| release.parse().ok());
    Ok(selection.subject.families(&selection.mode, release.as_ref()))
}

/// Nodes that the cases want at most.
fn nodes(variants: &[Variant]) -> usize {
    variants.iter().map(|variant| variant.shape().zones.len()).max().unwrap_or(1)
}

/// Cluster IPs of one family that the cases want at most, one after the other: no two of them have
/// the same one.
fn addresses(variants: &[Variant]) -> usize {
    variants.iter().map(addresses_of).sum()
}

fn addresses_of(variant: &Variant) -> usize {
    // What cannot be compiled is told when it is to run.
    let Ok(script) = compile(variant, &mut planned_book(variant)) else { return 0 };
    let mut ips: BTreeSet<IpAddr> = BTreeSet::new();
    for change in script.steps.iter().flat_map(|step| &step.changes) {
        if let Change::ApplyService(service) = change {
            ips.extend(Family::BOTH.into_iter().filter_map(|family| service.cluster_ip(family)));
        }
    }
    let of_family = |family: Family| ips.iter().filter(|ip| Family::of(**ip) == family).count();
    let markers = script.steps.iter().filter(|step| step.marked).count();
    // And perhaps one that no Service has.
    Family::BOTH.map(of_family).into_iter().max().unwrap_or(0) + markers + 1
}

/// A Ctrl-C or SIGTERM before any case runs.
pub(crate) struct Interruption {
    interrupt: Signal,
    terminate: Signal,
}

impl Interruption {
    /// From here on neither of them ends the process by itself.
    pub(crate) fn expected() -> Result<Interruption, Failed> {
        let of = |kind| signal(kind).map_err(Failed::harness);
        Ok(Interruption {
            interrupt: of(SignalKind::interrupt())?,
            terminate: of(SignalKind::terminate())?,
        })
    }

    /// What a run ends with that one of them has stopped.
    pub(crate) async fn comes(&mut self) -> Failed {
        let code = tokio::select! {
            _ = self.interrupt.recv() => 130,
            _ = self.terminate.recv() => 143,
        };
        Failed { code, why: anyhow!("interrupted before any case ran") }
    }
}

/// Subjects as they run in a cluster, before anything is known of it.
pub(crate) fn subjects(
    selectors: &[String],
    folders: &[PathBuf],
) -> Result<Vec<SubjectJob>, Failed> {
    let [selector] = selectors else {
        return Err(Failed::usage(anyhow!(
            "a cluster has one proxy: name one --subject, the one that runs in it"
        )));
    };
    Ok(vec![describe_in_cluster(&choose(selector, folders)?, folders, None, &[])])
}

/// Runs a job on a cluster, in this process.
pub(crate) fn run(job: &Job, target: &Target) -> Result<(), Failed> {
    runtime()?.block_on(run_on(job, target))
}

/// The same where there is a runtime already.
pub(crate) async fn run_on(job: &Job, target: &Target) -> Result<(), Failed> {
    let variants = job.chosen().map_err(|errors| Failed::usage(anyhow!("{}", errors.render())))?;
    let request = SiteRequest {
        kubeconfig: target.kubeconfig.clone(),
        image: target.image.clone(),
        run: job.run.clone(),
        token: target.token.clone(),
        nodes: nodes(&variants),
        addresses: addresses(&variants),
        served: job.subjects.first().map(served).transpose()?.unwrap_or_default(),
        harm: target.harm,
        outside: target.outside.clone(),
        keeper: target.keeper.clone(),
    };
    let mut interruption = Interruption::expected()?;
    let opening = Site::open(&request, &|line| note(&format!("  {line}")));
    let site = tokio::select! {
        site = opening => match site {
            Ok(site) => Arc::new(site),
            Err(error) => {
                // Nothing was recorded; a folder with something in it stays.
                let _ = std::fs::remove_dir(&job.out);
                return Err(Failed::harness(error));
            }
        },
        interrupted = interruption.comes() => {
            let _ = std::fs::remove_dir(&job.out);
            if target.stays {
                note("  interrupted; removing what was made");
                let tag = real::tag(&job.run);
                let removed = real::clean(&target.kubeconfig, &tag).await;
                for remark in removed.map_err(Failed::harness)? {
                    note(&format!("  {remark}"));
                }
            }
            return Err(interrupted);
        }
    };
    let done = on(job, target.provider, &variants, &site).await;
    if target.stays {
        note("  removing what the run made");
        for remark in site.remove().await {
            note(&format!("  {remark}"));
        }
    }
    done
}

async fn on(
    job: &Job,
    provider: &str,
    variants: &[Variant],
    site: &Arc<Site>,
) -> Result<(), Failed> {
    let mut subjects = Vec::new();
    let mut described = Vec::new();
    for before in &job.subjects {
        let chosen = choose(&before.selector, &before.folders)?;
        let mut subject =
            describe_in_cluster(&chosen, &before.folders, Some(site.version()), variants);
        subject.record.digest.clone_from(&before.record.digest);
        subjects.push(RunSubject {
            record: subject.record.clone(),
            features: Arc::new(
                subject.record.features.iter().filter_map(|f| Feature::new(f).ok()).collect(),
            ),
            needs: BTreeSet::new(),
            provider: Arc::clone(site) as Arc<dyn touchstone_provider::Provider>,
            provided: &site.provides() | &[touchstone_case::NAME_SERVER.to_owned()].into(),
            known: subject.known.clone(),
        });
        described.push(subject);
    }
    let job = Job { subjects: described, ..job.clone() };
    let log = LogWriter::create(&log_path(&job.out)).map_err(Failed::harness)?;
    let (tell, events) = mpsc::unbounded_channel();
    let emitter = Emitter::new(log, Some(tell));
    let live = Live::start(events, variants.len() * subjects.len());
    let settings = Settings {
        clusters: Some(CLUSTERS),
        jobs: job.jobs,
        slowness: 1,
        seed: job.seed,
        share: Share::WHOLE,
        person: Arc::new(Person::new(job.pause, job.keep)),
    };
    let result = drive(&job, provider, variants, &subjects, &settings, &emitter).await;
    drop(emitter);
    live.finish().await;
    result.map(drop).map_err(Failed::harness)
}
