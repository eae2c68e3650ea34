//! What a case leaves behind on its cluster.

use std::collections::BTreeSet;

use crate::text::{ChangeText, NodeChange, ProxyChange};
use crate::variant::{PAGES, Variant};

impl Variant {
    /// Whether its cluster is as it was before, once its objects are gone: nothing that it changes
    /// stays changed, and it asks no proxy for figures that count what others did before.
    #[must_use]
    pub fn leaves_no_trace(&self) -> bool {
        let changes = self.case().body().steps.iter().flat_map(|step| &step.value.change);
        let stays = changes.fold(BTreeSet::new(), |mut stays, change| {
            match &change.value {
                ChangeText::Proxy(ProxyChange { proxy, stop: Some(_), .. }) => {
                    stays.insert(("stopped", &proxy.value));
                }
                ChangeText::Proxy(ProxyChange { proxy, start: Some(_), .. }) => {
                    stays.remove(&("stopped", &proxy.value));
                }
                ChangeText::Node(NodeChange { node, set: Some(_), .. }) => {
                    stays.insert(("zone", &node.value));
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
