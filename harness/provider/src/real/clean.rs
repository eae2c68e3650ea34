//! Taking away what runs made in a cluster: at their end, or later where they were killed.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::access::{Access, Harm};
use super::names::{Names, RUN_LABEL};
use crate::ClusterError;

/// How long namespaces may take to go.
const GONE_LIMIT: Duration = Duration::from_secs(120);
/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(500);
/// How names of clients begin, in pods' networks and in nodes' own.
const CLIENTS: [&str; 2] = ["client-", "host-"];

/// What a run has left in a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// The run's tag: the value of the label `touchstone/run`.
    pub tag: String,
    /// Its namespaces.
    pub namespaces: Vec<String>,
    /// Whether a client of it still runs: it is under way, or was killed less than a minute ago, or
    /// less than ten where it had not reached them.
    pub alive: bool,
}

/// Finds what runs have left in a cluster.
///
/// # Errors
/// When the cluster cannot be asked.
pub async fn leftovers(kubeconfig: &Path) -> Result<Vec<Leftover>, ClusterError> {
    let access = Access::open(kubeconfig, Harm::Spared).await?;
    let namespaces = access.list("/api/v1/namespaces", &Names::any_selector()).await?;
    let pods = access.list("/api/v1/pods", &Names::any_selector()).await?;
    let tag = |object: &Value| {
        object["metadata"]["labels"][RUN_LABEL].as_str().unwrap_or_default().to_owned()
    };
    let mut found: BTreeMap<String, Leftover> = BTreeMap::new();
    for namespace in &namespaces {
        let name = namespace["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let left = found.entry(tag(namespace)).or_insert_with(|| Leftover {
            tag: tag(namespace),
            namespaces: Vec::new(),
            alive: false,
        });
        left.namespaces.push(name);
    }
    for pod in pods {
        let phase = pod["status"]["phase"].as_str().unwrap_or_default();
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        // A run is connected to its clients all the while; endpoints that it never met wait longer.
        let is_client = CLIENTS.iter().any(|client| name.starts_with(client));
        if let (true, Some(left)) =
            (is_client && matches!(phase, "Running" | "Pending"), found.get_mut(&tag(&pod)))
        {
            left.alive = true;
        }
    }
    Ok(found.into_values().collect())
}

/// Removes what a run has left; says what could not be removed.
///
/// # Errors
/// When the cluster cannot be asked.
pub async fn clean(kubeconfig: &Path, tag: &str) -> Result<Vec<String>, ClusterError> {
    let access = Access::open(kubeconfig, Harm::Spared).await?;
    Ok(remove(&access, tag).await)
}

/// Deletes the namespaces of a run and waits until they are gone.
pub(super) async fn remove(access: &Access, tag: &str) -> Vec<String> {
    let names = Names { tag: tag.to_owned() };
    let began = Instant::now();
    let mut asked = false;
    let mut tick = tokio::time::interval(INTERVAL);
    loop {
        tick.tick().await;
        let left = match access.list("/api/v1/namespaces", &names.selector()).await {
            Ok(left) => left,
            Err(error) => return vec![format!("{error}; `touchstone clean` removes what is left")],
        };
        if left.is_empty() {
            return Vec::new();
        }
        if !asked {
            let going = left
                .iter()
                .filter(|namespace| namespace["status"]["phase"] != json!("Terminating"))
                .filter_map(|namespace| namespace["metadata"]["name"].as_str())
                .map(|name| async move {
                    access.delete(&format!("/api/v1/namespaces/{name}")).await.err()
                });
            let failed: Vec<ClusterError> =
                futures::future::join_all(going).await.into_iter().flatten().collect();
            if !failed.is_empty() {
                return failed.iter().map(ToString::to_string).collect();
            }
            asked = true;
        }
        if began.elapsed() > GONE_LIMIT {
            let first = left[0]["metadata"]["name"].as_str().unwrap_or_default();
            return vec![format!(
                "{} namespaces of the run are still being deleted, {first} among them; \
                 `kubectl get namespace {first} --output yaml` says what it waits for",
                left.len()
            )];
        }
    }
}
