//! What of a case would harm others who use the same cluster.

use crate::text::{ExternalIpsText, ServiceText};

/// Whether a Service claims an address that is not its own, and that others rely on: of a node, or
/// of the name server.
pub(crate) fn shadows(text: &ServiceText) -> bool {
    let balanced = text.load_balancer.get().map(|text| &text.value.addresses);
    let external = match text.external_ips.get().map(|text| &text.value) {
        Some(ExternalIpsText::List(words)) => words.as_slice(),
        Some(ExternalIpsText::Count(_)) | None => &[],
    };
    let mut words = external.iter().chain(balanced.into_iter().flatten());
    words.any(|word| word.starts_with("$dns") || word.starts_with("$node."))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::Library;

    #[test]
    fn addresses_of_others_are_not_for_shared_clusters() {
        let library = Library::bundled().expect("the bundled cases are right");
        let harmful: BTreeSet<String> = library
            .variants()
            .iter()
            .filter(|variant| variant.asks().shadows)
            .map(|variant| variant.case().id().to_string())
            .collect();
        for case in ["dns/address-claimed", "external-ips/of-a-node", "load-balancer/of-a-node"] {
            assert!(harmful.contains(case), "{harmful:?}");
        }
        assert!(!harmful.contains("external-ips/conflict"), "{harmful:?}");
    }
}
