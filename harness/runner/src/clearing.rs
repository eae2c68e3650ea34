//! When the objects of cases that have ended are taken away.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use touchstone_case::ScriptStep;
use touchstone_provider::{Cluster, ClusterError};
use touchstone_spec::{Change, Deployed};

use crate::markers::Marker;

/// Takes objects away at once while other cases wait for room, else all together in the end.
///
/// Each change makes a proxy sync, after which it lets a second pass before the next sync: cases
/// that are still under way would wait for that second.
#[derive(Default)]
pub(crate) struct Clearing {
    nobody_waits: AtomicBool,
    later: Mutex<Vec<Change>>,
}

impl Clearing {
    /// From now on no case waits for room.
    pub(crate) fn nobody_waits(&self) {
        self.nobody_waits.store(true, Ordering::Relaxed);
    }

    /// Takes the changes that clear a case away.
    pub(crate) async fn take(
        &self,
        changes: Vec<Change>,
        cluster: &dyn Cluster,
    ) -> Result<(), ClusterError> {
        if self.nobody_waits.load(Ordering::Relaxed) {
            self.later.lock().unwrap_or_else(PoisonError::into_inner).extend(changes);
            return Ok(());
        }
        make(&changes, cluster).await
    }

    /// Makes the changes that were put off.
    pub(crate) async fn finish(&self, cluster: &dyn Cluster) -> Result<(), ClusterError> {
        let later = std::mem::take(&mut *self.later.lock().unwrap_or_else(PoisonError::into_inner));
        make(&later, cluster).await
    }
}

async fn make(changes: &[Change], cluster: &dyn Cluster) -> Result<(), ClusterError> {
    for change in changes {
        cluster.change(change).await?;
    }
    Ok(())
}

/// The changes that take everything of a case away: Services first, as a controller would see it.
///
/// What a step deletes is among it: a case that ends early leaves it, and to delete what is gone
/// already is no error.
pub(crate) fn removal(steps: &[ScriptStep], markers: &[Marker]) -> Vec<Change> {
    let mut services = BTreeSet::new();
    let mut slices = BTreeSet::new();
    let mut deployed = Vec::new();
    let changes = steps.iter().flat_map(|step| &step.changes);
    for change in changes.chain(markers.iter().flat_map(|marker| &marker.changes)) {
        match change {
            Change::ApplyService(service) => {
                let meta = &service.metadata;
                services.insert((meta.namespace.clone(), meta.name.clone()));
            }
            Change::ApplySlice(slice) | Change::ApplyRawSlice(slice) => {
                let meta = &slice.metadata;
                slices.insert((meta.namespace.clone(), meta.name.clone()));
            }
            Change::Deploy(pods) => deployed.push(Change::Deploy(Deployed {
                pods: BTreeMap::new(),
                slices: Vec::new(),
                ..pods.clone()
            })),
            Change::DeleteService { .. }
            | Change::DeleteSlice { .. }
            | Change::SetNode { .. }
            | Change::Proxy { .. }
            | Change::ProxyRefuses { .. }
            | Change::VirtualServer { .. }
            | Change::ReloadFirewall { .. } => {}
        }
    }
    services
        .into_iter()
        .map(|(namespace, name)| Change::DeleteService { namespace, name })
        .chain(deployed)
        .chain(slices.into_iter().map(|(namespace, name)| Change::DeleteSlice { namespace, name }))
        .collect()
}
