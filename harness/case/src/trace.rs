//! What a case leaves behind on its cluster.

use std::collections::BTreeSet;

use crate::lab_needs::PAGES;
use crate::text::{ChangeText, NodeChange};
use crate::variant::Variant;

impl Variant {
    /// Whether its cluster is as it was before, once its objects are gone: nothing that it changes
    /// stays changed, and it asks no proxy for figures that count what others did before.
    #[must_use]
    pub fn leaves_no_trace(&self) -> bool {
        let changes = self.case().body().steps.iter().flat_map(|step| &step.value.change);
        let stays = changes.fold(BTreeSet::new(), |mut stays, change| {
            match &change.value {
                ChangeText::Proxy(change) if change.stop.is_some() => {
                    stays.insert(("stopped", &change.proxy.value));
                }
                ChangeText::Proxy(change) if change.start.is_some() => {
                    stays.remove(&("stopped", &change.proxy.value));
                }
                ChangeText::VirtualServer(change) if change.add.is_some() => {
                    stays.insert(("virtual server", &change.virtual_server.value));
                }
                ChangeText::VirtualServer(change) => {
                    stays.remove(&("virtual server", &change.virtual_server.value));
                }
                ChangeText::Node(NodeChange { node, set: Some(_), .. }) => {
                    stays.insert(("node", &node.value));
                }
                ChangeText::Node(_)
                | ChangeText::Proxy(_)
                | ChangeText::Endpoint(_)
                | ChangeText::Service(_)
                | ChangeText::Slices(_)
                | ChangeText::Slice(_) => {}
            }
            stays
        });
        stays.is_empty() && !self.lab_needs().contains(PAGES)
    }
}
