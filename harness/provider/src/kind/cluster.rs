//! A cluster from its creation to its end.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use touchstone_spec::Family;

use super::config::{self, PodNetwork, ProxyMode};
use super::thaw;
use super::tools::{ASKING, Tools, argument};
use super::trouble::{KindError, lack_of_image};
use crate::corefile::corefile;

/// The Service proxy that a cluster of kind's has by itself, and its DaemonSet.
pub const PROXY: &str = "kube-proxy";
/// kind's label of its nodes; the value is the cluster's name.
const NODE_LABEL: &str = "io.x-k8s.kind.cluster";
/// Our label of other containers of a cluster; the value is the cluster's name.
pub(super) const LABEL: &str = "touchstone.cluster";
/// The network that kind's nodes are on.
pub(super) const NETWORK: &str = "kind";

/// The namespace of kube-proxy and CoreDNS.
const SYSTEM: &str = "--namespace=kube-system";

/// Has the kernel answer every refusal in a node's own network, as in the lab.
const REFUSE_EVERYONE: &str = "cd /proc/sys/net
    for file in ipv4/icmp_ratelimit ipv4/icmp_ratemask ipv6/icmp/ratelimit; do echo 0 >$file; done
    echo >ipv6/icmp/ratemask";

/// How long a machine with little time may need for each.
const PULL: Duration = Duration::from_secs(600);
pub(super) const LOAD: Duration = Duration::from_secs(300);
const CREATE: Duration = Duration::from_secs(600);
const DELETE: Duration = Duration::from_secs(180);
/// How long a first attempt to remove containers may take, when another one follows.
const AT_ONCE: Duration = Duration::from_secs(30);
/// How long Kubernetes itself may take to become ready, in its own units.
pub(super) const READY_SECONDS: u64 = 300;

/// What a node is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeImage {
    /// What this kind takes by itself.
    Default,
    /// An image that is here, or can be pulled.
    Named(String),
    /// An archive, as `docker save` writes it.
    Archive(PathBuf),
}

impl NodeImage {
    /// What a person names: the path of a file, or else the name of an image.
    #[must_use]
    pub fn named(name: &str) -> NodeImage {
        let path = Path::new(name);
        if path.is_file() { NodeImage::Archive(path.into()) } else { NodeImage::Named(name.into()) }
    }
}

/// The cluster that is wanted.
#[derive(Debug, Clone)]
pub struct KindRequest {
    /// Its name, which tells it from other clusters of this machine.
    pub name: String,
    /// Families of Services and pods: one, or both with IPv4 first.
    pub families: Vec<Family>,
    /// How its kube-proxy forwards, or that it has none.
    pub mode: ProxyMode,
    /// Who makes its pods' interfaces.
    pub network: PodNetwork,
    /// Number of nodes; the first one is the control plane.
    pub nodes: usize,
    /// What they are made from.
    pub image: NodeImage,
    /// A folder for its kubeconfig and cluster file.
    pub folder: PathBuf,
}

/// A cluster that runs.
#[derive(Debug, Clone)]
pub struct KindCluster {
    tools: Tools,
    name: String,
    kubeconfig: PathBuf,
}

/// Looks whether the cluster can be had at all, before anything is started.
///
/// # Errors
/// What is missing, with the remedy.
pub async fn check(tools: &Tools, request: &KindRequest) -> Result<(), KindError> {
    if request.mode == ProxyMode::Ipvs && !tools.kernel.has_ipvs() {
        return Err(KindError::NoIpvs);
    }
    tools.kind("ask for its version", &["version"]).await?;
    tools.docker("ask for its version", &["version"]).await?;
    let taken = tools.kind("list clusters", &["get", "clusters"]).await?;
    if taken.lines().any(|name| name.trim() == request.name) {
        return Err(KindError::NameTaken { name: request.name.clone() });
    }
    Ok(())
}

/// Creates the cluster and waits until it is ready, saying what for. A cluster that does not become
/// so is deleted.
///
/// # Errors
/// What went wrong, with the remedy.
pub async fn create(
    tools: &Tools,
    request: &KindRequest,
    tell: &(dyn Fn(&str) + Sync),
) -> Result<KindCluster, KindError> {
    let image = node_image(tools, &request.image, tell).await?;
    let file = request.folder.join("kind.yaml");
    let kubeconfig = request.folder.join("kubeconfig");
    let text = config::file(&request.families, request.mode, request.network, request.nodes);
    std::fs::write(&file, text).map_err(|error| KindError::Refused {
        program: "kind",
        what: format!("write {}", file.display()),
        said: error.to_string(),
    })?;
    tell(&format!(
        "waiting for kind to create the cluster {}: {} nodes, kube-proxy {}",
        request.name,
        request.nodes,
        request.mode.name()
    ));
    let mut args = vec!["create", "cluster", "--name", &request.name, "--wait", "0s"];
    args.extend(["--config", argument(&file)?, "--kubeconfig", argument(&kubeconfig)?]);
    if let Some(image) = &image {
        args.extend(["--image", image]);
    }
    let cluster = KindCluster::existing(tools, &request.name, kubeconfig.clone());
    let came_up = async {
        let what = format!("create the cluster {}", request.name);
        let (created, lines) = tools.kind_telling(CREATE, &what, &args, tell).await?;
        if !created {
            return Err(refusal(request, &what, &lines));
        }
        cluster.set_networks_of_nodes().await?;
        cluster.set_up_name_server(request.families.len() > 1).await?;
        match request.network {
            PodNetwork::Kind => cluster.wait_until_ready(request.mode, tell).await,
            PodNetwork::Subject => Ok(()),
        }
    };
    match came_up.await {
        Ok(()) => Ok(cluster),
        Err(error) => {
            if !matches!(error, KindError::NameTaken { .. }) {
                // Why it failed says more than that it could not be deleted either.
                let _ = cluster.delete().await;
            }
            Err(error)
        }
    }
}

/// Why kind did not create a cluster.
fn refusal(request: &KindRequest, what: &str, lines: &[String]) -> KindError {
    let errors: Vec<&str> =
        lines.iter().map(String::as_str).filter(|l| l.contains("ERROR")).collect();
    let said = if errors.is_empty() { lines.join("; ") } else { errors.join("; ") };
    if said.contains("node(s) already exist") {
        return KindError::NameTaken { name: request.name.clone() };
    }
    if said.contains("failed to pull image") {
        let image = match &request.image {
            NodeImage::Named(name) => name.as_str(),
            NodeImage::Default | NodeImage::Archive(_) => "that kind takes by default",
        };
        return lack_of_image(image, &said);
    }
    super::trouble::lack_of_docker(&said).unwrap_or(KindError::Refused {
        program: "kind",
        what: what.to_owned(),
        said,
    })
}

/// The name of the node image, which is on this machine afterwards; none where kind chooses.
async fn node_image(
    tools: &Tools,
    image: &NodeImage,
    tell: &(dyn Fn(&str) + Sync),
) -> Result<Option<String>, KindError> {
    match image {
        NodeImage::Default => Ok(None),
        NodeImage::Named(name) => {
            let here = tools.docker("look for the node image", &["image", "inspect", name]).await;
            match here {
                Ok(_) => {}
                Err(KindError::Refused { .. }) => {
                    tell(&format!("waiting for docker to pull the node image {name}"));
                    let pull = ["pull", "--quiet", name];
                    let pulled = tools.docker_within(PULL, "pull the node image", &pull).await;
                    pulled.map_err(|error| error.refused(|said| lack_of_image(name, &said)))?;
                }
                Err(error) => return Err(error),
            }
            Ok(Some(name.clone()))
        }
        NodeImage::Archive(path) => {
            tell(&format!("waiting for docker to load {}", path.display()));
            load_archive(tools, path).await.map(Some)
        }
    }
}

/// Loads an archive into docker and gives the name of the image in it.
async fn load_archive(tools: &Tools, path: &Path) -> Result<String, KindError> {
    let archive = |why: String| KindError::Archive { archive: path.display().to_string(), why };
    let args = ["load", "--input", argument(path)?];
    let loaded = tools.docker_within(LOAD, "load an image", &args).await;
    let printed = loaded.map_err(|error| error.refused(archive))?;
    let name = printed.lines().find_map(|line| line.strip_prefix("Loaded image: "));
    name.map(|name| name.trim().to_owned())
        .ok_or_else(|| archive(format!("there is no image with a name in it ({})", printed.trim())))
}

impl KindCluster {
    /// A cluster that an earlier process created.
    #[must_use]
    pub fn existing(tools: &Tools, name: &str, kubeconfig: PathBuf) -> KindCluster {
        KindCluster { tools: tools.clone(), name: name.to_owned(), kubeconfig }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it is reached as its administrator.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Runs kubectl on the control plane: every node image has one, and this machine need not.
    pub(super) async fn kubectl(
        &self,
        limit: Duration,
        what: &str,
        args: &[&str],
    ) -> Result<String, KindError> {
        let node = format!("{}-control-plane", self.name);
        let mut all = vec!["exec", &node, "kubectl", "--kubeconfig=/etc/kubernetes/admin.conf"];
        all.extend(args);
        self.tools.docker_within(limit, what, &all).await
    }

    /// Settings without which refusals are missing whoever the proxy is: kernels hold back ICMP
    /// errors to whoever asks often.
    async fn set_networks_of_nodes(&self) -> Result<(), KindError> {
        for node in self.nodes().await? {
            let args = ["exec", &node, "bash", "-ec", REFUSE_EVERYONE];
            self.docker(&format!("have {node} answer every refusal"), &args).await?;
        }
        Ok(())
    }

    /// Waits for nodes, kube-proxy and the name server, in words.
    async fn wait_until_ready(
        &self,
        mode: ProxyMode,
        tell: &(dyn Fn(&str) + Sync),
    ) -> Result<(), KindError> {
        self.wait_for_nodes("its nodes are not ready", tell).await?;
        // Without a proxy nothing reaches the API server by its Service, so no name server is ready.
        if mode != ProxyMode::None {
            self.wait_for_rollout("daemonset/kube-proxy", tell).await?;
            self.wait_for_rollout("deployment/coredns", tell).await?;
        }
        Ok(())
    }

    /// Has the name server know what that of the lab knows, and caches nothing; its Service gets an
    /// address of the other family, where there is one.
    async fn set_up_name_server(&self, both: bool) -> Result<(), KindError> {
        let file = corefile("", &["health {\n        lameduck 5s\n    }", "ready"]);
        let map = json!({ "data": { "Corefile": file } }).to_string();
        let args = ["patch", SYSTEM, "configmap", "coredns", "--patch", &map];
        self.kubectl(ASKING, "configure the name server", &args).await?;
        if both {
            let both = json!({ "spec": { "ipFamilyPolicy": "PreferDualStack" } }).to_string();
            let args = ["patch", SYSTEM, "service", "kube-dns", "--patch", &both];
            self.kubectl(ASKING, "give kube-dns addresses of both families", &args).await?;
        }
        let args = ["rollout", "restart", SYSTEM, "deployment/coredns"];
        self.kubectl(ASKING, "restart the name server", &args).await.map(drop)
    }

    /// Waits for nodes, which are ready once they have a pod network; `not` says that they are not.
    pub(super) async fn wait_for_nodes(
        &self,
        not: &str,
        tell: &(dyn Fn(&str) + Sync),
    ) -> Result<(), KindError> {
        let args = ["wait", "--for=condition=Ready", "nodes", "--all"];
        self.wait_for(not, "its nodes to be ready", tell, &args).await
    }

    async fn wait_for_rollout(
        &self,
        object: &str,
        tell: &(dyn Fn(&str) + Sync),
    ) -> Result<(), KindError> {
        let args = ["--namespace=kube-system", "rollout", "status", object];
        self.wait_for(
            &format!("{object} is not ready"),
            &format!("{object} to be ready"),
            tell,
            &args,
        )
        .await
    }

    async fn wait_for(
        &self,
        not: &str,
        what: &str,
        tell: &(dyn Fn(&str) + Sync),
        args: &[&str],
    ) -> Result<(), KindError> {
        tell(&format!("waiting for {what}"));
        let timeout = format!("--timeout={READY_SECONDS}s");
        let mut all = args.to_vec();
        all.push(&timeout);
        // kubectl itself knows the limit; what comes on top is for a machine that hangs.
        let limit = Duration::from_secs(READY_SECONDS) + Duration::from_secs(30);
        match self.kubectl(limit, &format!("wait for {what}"), &all).await {
            Ok(_) => Ok(()),
            Err(KindError::Refused { said, .. }) => Err(KindError::NotReady {
                cluster: self.name.clone(),
                what: not.to_owned(),
                seconds: READY_SECONDS,
                said,
            }),
            Err(error) => Err(error),
        }
    }

    /// Names of its node containers, the control plane first.
    ///
    /// # Errors
    /// When docker cannot be asked.
    pub async fn nodes(&self) -> Result<Vec<String>, KindError> {
        let listed = self.tools.kind("list nodes", &["get", "nodes", "--name", &self.name]).await?;
        let mut nodes: Vec<String> = listed.lines().map(|line| line.trim().to_owned()).collect();
        nodes.retain(|node| !node.is_empty());
        nodes.sort_by_key(|node| (!node.ends_with("-control-plane"), node.clone()));
        Ok(nodes)
    }

    /// Loads an archive of images onto every node, as `kind load image-archive` does.
    ///
    /// # Errors
    /// When a node refuses it.
    pub async fn load(&self, archive: &Path) -> Result<(), KindError> {
        let args = ["load", "image-archive", argument(archive)?, "--name", &self.name];
        let what = format!("load {} onto the nodes", archive.display());
        let (loaded, lines) = self.tools.kind_telling(LOAD, &what, &args, &|_| {}).await?;
        if loaded {
            return Ok(());
        }
        Err(KindError::Archive { archive: archive.display().to_string(), why: lines.join("; ") })
    }

    /// Puts another kube-proxy in: its program, with what the cluster's own kube-proxy calls, becomes
    /// an image on every node, which the DaemonSet then names.
    ///
    /// # Errors
    /// When a node refuses it, or it does not become ready.
    pub async fn replace_kube_proxy(
        &self,
        program: &Path,
        release: &str,
        tell: &(dyn Fn(&str) + Sync),
    ) -> Result<(), KindError> {
        let image = format!("touchstone.local/kube-proxy:{release}");
        for node in self.nodes().await? {
            tell(&format!("waiting for {node} to make the image {image}"));
            let what = format!("copy kube-proxy to {node}");
            let to = format!("{node}:/kind/kube-proxy");
            self.tools.docker_within(LOAD, &what, &["cp", argument(program)?, &to]).await?;
            let make = ["exec", &node, "bash", "-c", MAKE_PROXY_IMAGE, "bash", &image];
            let what = format!("make the image {image} on {node}");
            self.tools.docker_within(LOAD, &what, &make).await?;
        }
        let set = format!("kube-proxy={image}");
        let args = ["--namespace=kube-system", "set", "image", "daemonset/kube-proxy", &set];
        self.kubectl(Duration::from_secs(60), "name the image of kube-proxy", &args).await?;
        self.wait_for_rollout("daemonset/kube-proxy", tell).await
    }

    /// Runs docker for what belongs to the cluster.
    pub(super) async fn docker(&self, what: &str, args: &[&str]) -> Result<String, KindError> {
        self.tools.docker_within(LOAD, what, args).await
    }

    /// Loads an archive into docker itself, for containers beside the cluster.
    ///
    /// # Errors
    /// When docker refuses it.
    pub async fn load_beside(&self, archive: &Path) -> Result<String, KindError> {
        load_archive(&self.tools, archive).await
    }

    /// Deletes the cluster with its outside clients.
    ///
    /// # Errors
    /// When docker or kind refuses it; another attempt may succeed.
    pub async fn delete(&self) -> Result<(), KindError> {
        // Docker may lose a container's end and wait for it; the nodes need not wait with it.
        let _ = self.delete_clients(AT_ONCE).await;
        if self.delete_nodes().await.is_err() || !self.containers().await?.is_empty() {
            // A node was frozen, or came up while it was deleted: docker was still at it when kind
            // was killed.
            thaw::containers(&self.containers().await?);
            self.delete_nodes().await?;
        }
        thaw::containers(&self.clients().await?);
        self.delete_clients(DELETE).await
    }

    /// Whether it has no node any more: somebody has deleted it.
    ///
    /// # Errors
    /// When docker refuses to tell.
    pub async fn is_gone(&self) -> Result<bool, KindError> {
        Ok(self.containers().await?.is_empty())
    }

    /// Deletes the outside clients of a cluster that stays: `kind delete cluster` leaves them.
    ///
    /// # Errors
    /// When docker refuses it; another attempt may succeed.
    pub async fn delete_outside(&self) -> Result<(), KindError> {
        self.delete_clients(DELETE).await
    }

    /// Ids of its outside clients.
    async fn clients(&self) -> Result<Vec<String>, KindError> {
        let filter = format!("label={LABEL}={}", self.name);
        let args = ["ps", "--all", "--quiet", "--no-trunc", "--filter", &filter];
        let listed = self.tools.docker("list outside clients", &args).await?;
        Ok(listed.split_whitespace().map(str::to_owned).collect())
    }

    /// Deletes the outside clients that are left, if there are any.
    async fn delete_clients(&self, limit: Duration) -> Result<(), KindError> {
        let clients = self.clients().await?;
        if clients.is_empty() {
            return Ok(());
        }
        let mut remove = vec!["rm", "--force", "--volumes"];
        remove.extend(clients.iter().map(String::as_str));
        self.tools.docker_within(limit, "remove outside clients", &remove).await.map(drop)
    }

    /// Ids of its node containers, of those too that kind does not know as nodes yet.
    async fn containers(&self) -> Result<Vec<String>, KindError> {
        let filter = format!("label={NODE_LABEL}={}", self.name);
        let args = ["ps", "--all", "--quiet", "--no-trunc", "--filter", &filter];
        let listed = self.tools.docker("list nodes", &args).await?;
        Ok(listed.split_whitespace().map(str::to_owned).collect())
    }

    async fn delete_nodes(&self) -> Result<(), KindError> {
        let kubeconfig = argument(&self.kubeconfig)?;
        let args = ["delete", "cluster", "--name", &self.name, "--kubeconfig", kubeconfig];
        let what = format!("delete the cluster {}", self.name);
        let (deleted, lines) = self.tools.kind_telling(DELETE, &what, &args, &|_| {}).await?;
        if deleted {
            return Ok(());
        }
        Err(KindError::Refused { program: "kind", what, said: lines.join("; ") })
    }
}

/// Makes, on a node, an image of its kube-proxy's files with another program. The archive is as
/// `docker save` writes it, since every containerd imports that.
const MAKE_PROXY_IMAGE: &str = include_str!("make-proxy-image");
