//! `touchstone run --provider cluster`, and what prepares clusters for it and cleans up after it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use touchstone_case::Variant;
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
        let of_kind = crate::kind::clean().await;
        let Some(kubeconfig) = clean.kubeconfig.as_deref() else {
            if !of_kind? {
                say("no cluster of kind's is left of any run; to look into another cluster, name \
                     it with --kubeconfig");
            }
            return Ok(0);
        };
        // Trouble with clusters of kind's keeps nobody from cleaning another one.
        let inside = clean_inside(clean, kubeconfig).await;
        if !(inside? | of_kind?) {
            say("nothing is left of any run");
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
                "{what}: its agents still run, so it may be under way; once it was killed they \
                 end within a minute; `touchstone clean --run {}` removes it anyway",
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

/// What a run would create, as text.
pub(crate) fn dry_run(
    options: &ClusterOptions,
    run: &str,
    variants: &[Variant],
) -> Result<u8, Failed> {
    let kubeconfig = kubeconfig(options.kubeconfig.as_deref())?;
    let image = match (&options.agent_image, image()) {
        (Some(reference), _) => reference.clone(),
        (None, image) => image?.reference,
    };
    let harm = harm(options);
    let preview = runtime()?
        .block_on(real::preview(&kubeconfig, harm, run, nodes(variants)))
        .map_err(Failed::harness)?;
    let mut text = format!("namespace {}\n  label {}\n", preview.home, preview.label);
    for (node, real) in &preview.nodes {
        let _ = write!(
            text,
            "  pod client-{node} on {real}: {image}\n  pod host-{node} on {real}: {image}, in the \
             network of the node\n"
        );
    }
    let _ = writeln!(
        text,
        "  pods pod-NODE-NUMBER as cases need endpoints, {} on each node at most\n  Service and \
         EndpointSlices canary-…",
        preview.pods_per_node
    );
    let mut kept_out = 0;
    for variant in variants {
        match preview.lacks(&variant.asks()) {
            Some(_) => kept_out += 1,
            None => {
                let _ = writeln!(text, "namespace {}…{}", preview.of_cases, case_end(variant));
            }
        }
    }
    let _ = writeln!(
        text,
        "in each namespace of a case: its Services and EndpointSlices, and one of each as a marker \
         for each step\nreserved: cluster IPs of {}, node ports {} to {}\n{} cases can run here; {} \
         cannot, and the run would say why; nothing was created",
        preview.blocks.join(" and "),
        preview.node_ports.0,
        preview.node_ports.1,
        variants.len() - kept_out,
        kept_out
    );
    say(&text);
    Ok(0)
}

fn case_end(variant: &Variant) -> String {
    touchstone_case::namespace_end(variant.case().id().as_str())
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
        served: job.subjects.first().map(served).transpose()?.unwrap_or_default(),
        harm: target.harm,
        outside: target.outside.clone(),
        keeper: target.keeper.clone(),
    };
    let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())
        .map_err(Failed::harness)?;
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
        _ = interrupt.recv() => {
            if target.stays {
                note("  interrupted; removing what was made");
                let tag = real::tag(&job.run);
                let removed = real::clean(&target.kubeconfig, &tag).await;
                for remark in removed.map_err(Failed::harness)? {
                    note(&format!("  {remark}"));
                }
            }
            return Err(Failed { code: 130, why: anyhow!("interrupted before any case ran") });
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
