//! What a real cluster makes of slices that a case writes out.
//!
//! The lab stores them as they are. A real API server validates them, and controllers beside it
//! take away what claims to be theirs.

use touchstone_spec::Family;

use crate::text::{CaseFile, ChangeText, FamilyAxis, SliceText};

/// The label by which a controller knows the slices that it may change.
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// The controller that removes each of its slices for which there is no Endpoints object.
const MIRRORING: &str = "endpointslicemirroring-controller.k8s.io";

/// Why a real cluster would not keep a slice as the case writes it; none where it keeps them all.
pub(crate) fn by_real_clusters(body: &CaseFile, families: FamilyAxis) -> Option<&'static str> {
    slices(body).find_map(|slice| refused(slice, families))
}

/// Every text of a slice, in the first world and in changes.
pub(crate) fn slices(body: &CaseFile) -> impl Iterator<Item = &SliceText> {
    let changes = body.steps.iter().flat_map(|step| &step.value.change);
    let changed = changes.filter_map(|change| match &change.value {
        ChangeText::Slice(change) => Some([change.set.as_ref(), change.create.as_ref()]),
        ChangeText::Endpoint(_)
        | ChangeText::Service(_)
        | ChangeText::Slices(_)
        | ChangeText::Node(_)
        | ChangeText::Proxy(_)
        | ChangeText::VirtualServer(_) => None,
    });
    body.world.slices.values().map(|text| &text.value).chain(changed.flatten().flatten())
}

fn refused(slice: &SliceText, families: FamilyAxis) -> Option<&'static str> {
    let managed = slice.labels.get().and_then(|labels| labels.get(MANAGED_BY));
    if managed.is_some_and(|controller| controller == MIRRORING) {
        return Some("a slice that the cluster's own mirroring controller would remove");
    }
    let names = slice.address_type.get().is_some_and(|word| word.value == "FQDN");
    let endpoints = slice.endpoints.get().into_iter().flatten();
    for addresses in endpoints.map(|endpoint| &endpoint.addresses) {
        if addresses.is_empty() {
            return Some("an endpoint without an address, which API servers refuse");
        }
        for word in addresses.iter().map(|word| word.value.as_str()) {
            if word.ends_with("/zeros") {
                return Some("an address with leading zeros, which API servers refuse");
            }
            if word.ends_with("/other") {
                return Some(
                    "an address of another family than its slice, which API servers refuse",
                );
            }
            if names && word.starts_with('$') && families.families().contains(&Family::V6) {
                return Some("an IPv6 address for a host name, which API servers refuse");
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use crate::Library;

    fn check(variant: &str, word: Option<&str>) {
        let library = Library::bundled().expect("the bundled cases parse");
        let found = library.variants().into_iter().find(|known| known.id() == variant);
        let refused = found.unwrap_or_else(|| panic!("no {variant}")).asks().refused;
        match (word, &refused) {
            (None, None) => {}
            (Some(word), Some(why)) if why.contains(word) => {}
            (word, why) => panic!("{variant}: {why:?} instead of {word:?}"),
        }
    }

    /// As an API server of v1.37.2 answered to each of these slices.
    #[test]
    fn what_api_servers_refuse() {
        check("endpoints/raw-empty-addresses[v4,tcp]", Some("without an address"));
        check("endpoints/raw-leading-zeros[v4,tcp]", Some("leading zeros"));
        check("endpoints/raw-fqdn[v6,tcp]", Some("host name"));
        check("endpoints/raw-managed-by[v4,tcp]", Some("mirroring controller"));
        check("metrics/stuck[v4,tcp]", Some("another family"));
        for kept in [
            "endpoints/raw-fqdn[v4,tcp]",
            "endpoints/raw-zero-port[v4,tcp]",
            "endpoints/raw-nil-port-name[v4,tcp]",
            "endpoints/raw-nodename-null[v6,tcp]",
            "endpoints/raw-wrong-family[v4,tcp]",
            "cluster-ip/basic[v4,tcp]",
        ] {
            check(kept, None);
        }
    }

    #[test]
    fn slices_of_the_other_family_need_pods_that_have_it() {
        let library = Library::bundled().expect("the bundled cases parse");
        let both = |id: &str| {
            let found = library.variants().into_iter().find(|known| known.id() == id);
            found.unwrap_or_else(|| panic!("no {id}")).asks().families.len() == 2
        };
        assert!(both("endpoints/raw-wrong-family[v4,tcp]"));
        assert!(!both("cluster-ip/basic[v4,tcp]"));
    }
}
