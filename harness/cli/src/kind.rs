//! `touchstone run --provider kind`: a cluster of kind's for one run.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow};
use touchstone_case::Variant;
use touchstone_provider::kind::{
    self, Held, KindCluster, KindKeeper, KindRequest, Leftover, NodeImage, PROXY, PodNetwork,
    ProxyMode, Tools,
};
use touchstone_provider::real::{self, AgentImage, Harm, OutsideSeat, agent_arguments};
use touchstone_spec::{BALANCER, ClusterShape, Family};
use touchstone_subject::Cache;

use crate::args::{KindOptions, ProviderName, Run};
use crate::cluster::{self, Interruption, Target, runtime};
use crate::failed::Failed;
use crate::job::{Job, SubjectJob};
use crate::replacement::Replacement;
use crate::say::{note, say};
use crate::subjects::{choose, find};

/// Nodes, where a run says nothing else.
const NODES: usize = 2;
/// Where an agent outside listens; its container has no other program.
const PORT: u16 = 17_000;
/// Folder of the cache with what is noted of clusters.
const CLUSTERS: &str = "kind/clusters";

/// A cluster as the options want it.
#[derive(Debug)]
pub(crate) struct Wish {
    tools: Tools,
    home: PathBuf,
    mode: ProxyMode,
    families: Vec<Family>,
    nodes: usize,
    image: NodeImage,
    keep: bool,
    /// Whether a case wants a load balancer with addresses of its own.
    balancer: bool,
    proxy: Proxy,
}

/// The proxy of a cluster.
#[derive(Debug)]
enum Proxy {
    /// The cluster's own kube-proxy.
    Own,
    /// Another release of it: its program, the tag of its image, and the program's digest.
    Release(PathBuf, String, String),
    /// Another proxy.
    Replacement(Box<Replacement>),
}

impl Proxy {
    fn network(&self) -> PodNetwork {
        match self {
            Proxy::Own | Proxy::Release(..) => PodNetwork::Kind,
            Proxy::Replacement(replacement) => replacement.network(),
        }
    }
}

/// Finds options that make no sense with what supplies the clusters.
pub(crate) fn check(run: &Run) -> Result<(), Failed> {
    let KindOptions { nodes, image } = &run.kind;
    if run.provider != ProviderName::Kind && (nodes.is_some() || image.is_some()) {
        return Err(Failed::usage(anyhow!("--nodes and --image are for --provider kind")));
    }
    Ok(())
}

impl Wish {
    /// Finds out what the options mean, and whether the cluster can be had, before anything is
    /// started.
    pub(crate) fn of(
        run: &Run,
        name: &str,
        variants: &[Variant],
        subject: &SubjectJob,
    ) -> Result<Wish, Failed> {
        let [selector] = run.subjects.subjects.as_slice() else {
            return Err(Failed::usage(anyhow!("a cluster has one proxy: name one --subject")));
        };
        let chosen = choose(selector, &run.subjects.folders)?;
        let selection = &chosen.selection;
        let binary = run.subjects.binary.as_deref();
        let own = selection.subject.file.binary.as_ref().is_some_and(|own| own.name == PROXY);
        let mode = ProxyMode::named(selection.mode.as_str()).filter(|_| own);
        let (mode, proxy) = match (mode, Replacement::of(&chosen, binary)?) {
            (None, Some(replacement)) => {
                (ProxyMode::None, Proxy::Replacement(Box::new(replacement)))
            }
            (Some(mode), _) => (mode, Proxy::Own),
            (None, None) if own => return Err(no_mode_of_kind_s(selector)),
            (None, None) => {
                return Err(Failed::usage(anyhow!(
                    "the file of {selector} does not say how it is put into a cluster: name its \
                     manifests under `cluster`, or start a cluster, put it in as its authors say, \
                     and use --provider cluster"
                )));
            }
        };
        let asked: BTreeSet<Family> =
            variants.iter().flat_map(|variant| variant.asks().families).collect();
        let served = cluster::served(subject)?;
        let mut families: Vec<Family> = asked.into_iter().collect();
        // Where the first family of a cluster is not served, nothing in it reaches the API server.
        if families.first().is_some_and(|first| !served.contains(first)) {
            families.retain(|family| served.contains(family));
        }
        let image = run.kind.image.as_deref().map_or(NodeImage::Default, NodeImage::named);
        let mut wish = Wish {
            tools: Tools::default(),
            home: home()?,
            mode,
            families,
            nodes: run.kind.nodes.unwrap_or(NODES),
            image,
            keep: run.keep,
            balancer: variants.iter().any(|v| v.shape().network.load_balancers.is_some()),
            proxy,
        };
        let request = wish.request(name, &wish.home);
        runtime()?.block_on(kind::check(&wish.tools, &request)).map_err(Failed::harness)?;
        // Whatever else is missing is said first: this is not the user's to mend.
        cluster::image()?;
        if matches!(wish.proxy, Proxy::Own) && (selection.asked.is_some() || binary.is_some()) {
            let found = find(&chosen, binary)?;
            let tag = found.release.as_ref().map_or("given".to_owned(), ToString::to_string);
            wish.proxy = Proxy::Release(found.program, tag, found.sha256);
        }
        Ok(wish)
    }

    /// Digest of the proxy's program, where that is known.
    pub(crate) fn digest(&self) -> Option<&str> {
        match &self.proxy {
            Proxy::Own => None,
            Proxy::Release(_, _, digest) => Some(digest),
            Proxy::Replacement(replacement) => replacement.digest.as_deref(),
        }
    }

    fn request(&self, run: &str, folder: &Path) -> KindRequest {
        KindRequest {
            name: name(run),
            families: self.families.clone(),
            mode: self.mode,
            network: self.proxy.network(),
            nodes: self.nodes,
            image: self.image.clone(),
            folder: folder.to_owned(),
        }
    }
}

/// kube-proxy has more modes than its configuration in a cluster of kind's.
fn no_mode_of_kind_s(selector: &str) -> Failed {
    let modes = [ProxyMode::Iptables, ProxyMode::Ipvs, ProxyMode::Nftables].map(ProxyMode::name);
    Failed::usage(anyhow!(
        "{selector} is not for kind, which starts kube-proxy in the modes {}: run it in the lab, \
         without --provider kind",
        modes.join(", ")
    ))
}

/// Where clusters are noted.
fn home() -> Result<PathBuf, Failed> {
    Cache::from_environment().place(CLUSTERS).ok_or_else(|| {
        Failed::harness(anyhow!("there is no place to note clusters: set HOME or TOUCHSTONE_CACHE"))
    })
}

/// How the names of clusters of runs begin.
const PREFIX: &str = "touchstone-";

/// The name of a run's cluster.
fn name(run: &str) -> String {
    format!("{PREFIX}{run}")
}

/// Whether a cluster is that of the run with this tag, which is on everything in it.
fn is_of(cluster: &str, tag: &str) -> bool {
    cluster.strip_prefix(PREFIX).is_some_and(|run| run == tag || real::tag(run) == tag)
}

/// Runs a job on a cluster of its own, and deletes that whatever happens.
pub(crate) fn run(job: &Job, wish: &Wish) -> Result<(), Failed> {
    runtime()?.block_on(async {
        let mut interruption = Interruption::expected()?;
        let held = kind::hold(&wish.home, &name(&job.run))
            .context("failed to note the cluster in the cache")
            .map_err(Failed::harness)?;
        let target = tokio::select! {
            target = prepare(job, wish, &held) => target,
            interrupted = interruption.comes() => Err(interrupted),
        };
        let done = match target {
            Ok(target) => cluster::run_on(&Job { keep: false, ..job.clone() }, &target).await,
            Err(failed) => {
                // Nothing was recorded; a folder with something in it stays.
                let _ = std::fs::remove_dir(&job.out);
                Err(failed)
            }
        };
        let ended = end(job, wish, held, done.is_ok()).await;
        done.and(ended)
    })
}

/// Creates the cluster with everything in it that a run needs.
async fn prepare(job: &Job, wish: &Wish, held: &Held) -> Result<Target, Failed> {
    let tell = |line: &str| note(&format!("  {line}"));
    let image = cluster::image()?;
    if let Some(engine) = wish.tools.engine().await {
        held.lives_in(&engine)
            .context("failed to note the cluster's engine")
            .map_err(Failed::harness)?;
    }
    let archive = held.folder().join("agent.tar");
    std::fs::write(&archive, &image.archive)
        .with_context(|| format!("failed to write {}", archive.display()))
        .map_err(Failed::harness)?;
    let request = wish.request(&job.run, held.folder());
    let created = kind::create(&wish.tools, &request, &tell).await.map_err(Failed::harness)?;
    tell("loading the agents' image");
    created.load(&archive).await.map_err(Failed::harness)?;
    match &wish.proxy {
        Proxy::Own => {}
        Proxy::Release(program, tag, _) => {
            created.replace_kube_proxy(program, tag, &tell).await.map_err(Failed::harness)?;
        }
        Proxy::Replacement(replacement) => {
            replacement.put_into(&created, held.folder(), &tell).await?;
        }
    }
    let kubeconfig = created.kubeconfig().to_owned();
    let seen = real::preview(&kubeconfig, Harm::Allowed, &job.run, wish.nodes, 0).await;
    let nodes: Vec<String> = seen.map_err(Failed::harness)?.nodes.into_values().collect();
    tell("waiting for clients outside of the cluster");
    let token = crate::lab::token().map_err(Failed::harness)?;
    let beside = created.load_beside(&archive).await.map_err(Failed::harness)?;
    let mut outside = Vec::new();
    let balancer = wish.balancer.then(|| BALANCER.to_owned());
    for (number, name) in
        ClusterShape::default().outside_names().into_iter().chain(balancer).enumerate()
    {
        let args = agent_arguments((Ipv4Addr::UNSPECIFIED, PORT).into(), &token);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let client = created.outside_client(&name, &beside, &args, &nodes, number == 0).await;
        let client = client.map_err(Failed::harness)?;
        let listens = SocketAddr::new(client.address, PORT);
        outside.push(OutsideSeat { listens, client: client.client });
    }
    Ok(Target {
        provider: "kind",
        kubeconfig,
        image: AgentImage { reference: image.reference, pulled: false },
        harm: Harm::Allowed,
        token,
        outside,
        keeper: Some(Arc::new(KindKeeper::new(created, wish.mode))),
        stays: wish.keep,
    })
}

/// Deletes the cluster, or says how it is used where it is to stay.
async fn end(job: &Job, wish: &Wish, held: Held, ran: bool) -> Result<(), Failed> {
    let name = name(&job.run);
    let kubeconfig = held.folder().join("kubeconfig");
    let cluster = KindCluster::existing(&wish.tools, &name, kubeconfig.clone());
    if wish.keep && ran {
        held.keep().context("failed to note that the cluster stays").map_err(Failed::harness)?;
        cluster.delete_outside().await.map_err(Failed::harness)?;
        note(&format!(
            "  the cluster {name} stays: kubectl --kubeconfig {} get pods --all-namespaces; to \
             delete it: kind delete cluster --name {name}",
            kubeconfig.display()
        ));
        return Ok(());
    }
    note(&format!("  deleting the cluster {name}"));
    cluster.delete().await.context("`touchstone clean` tries again").map_err(Failed::harness)?;
    held.forget().map_err(Failed::harness)
}

/// Deletes the clusters of runs that were killed, or of the run with that tag, and forgets those that
/// were kept and are gone; says whether there was any.
pub(crate) async fn clean(tag: Option<&str>) -> Result<bool, Failed> {
    let mut found = false;
    let mut trouble = Vec::new();
    let wanted = |name: &str| tag.is_none_or(|tag| is_of(name, tag));
    let left = kind::leftovers(&home()?).map_err(Failed::harness)?;
    let ours = Tools::default().engine().await;
    for left in left.into_iter().filter(|left| wanted(&left.name)) {
        // Whoever cleans up may use another engine than the run did.
        let elsewhere = left.engine.clone().filter(|engine| ours.as_ref() != Some(engine));
        found = true;
        if let Err(error) = clean_one(&left, elsewhere.as_deref()).await {
            trouble.push(match elsewhere {
                Some(engine) => format!(
                    "the cluster {} is in the Docker engine {engine}: {error:#}; where that engine \
                     is gone for good, remove {}",
                    left.name,
                    left.folder.display()
                ),
                None => format!("{error:#}"),
            });
        }
    }
    trouble.dedup();
    if trouble.is_empty() { Ok(found) } else { Err(Failed::harness(anyhow!(trouble.join("; ")))) }
}

/// Deletes a cluster that is left over, unless it was kept and is there still.
async fn clean_one(left: &Leftover, elsewhere: Option<&str>) -> Result<(), anyhow::Error> {
    let name = &left.name;
    let tools = Tools { engine: elsewhere.map(str::to_owned), ..Tools::default() };
    let cluster = KindCluster::existing(&tools, name, left.kubeconfig.clone());
    if left.kept && !cluster.is_gone().await? {
        let engine = elsewhere.map(|engine| format!("DOCKER_HOST={engine} ")).unwrap_or_default();
        say(&format!(
            "the cluster {name} was kept on purpose; to delete it: {engine}kind delete cluster \
             --name {name}"
        ));
        return Ok(());
    }
    note(&if left.kept {
        format!("forgetting the cluster {name}, which was kept: none of its nodes is left")
    } else {
        format!("deleting the cluster {name}")
    });
    cluster.delete().await?;
    left.forget()?;
    Ok(())
}
