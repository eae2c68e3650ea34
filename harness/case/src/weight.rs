//! What a case takes: of a proxy's rules, and of time that no faster machine makes shorter.

use std::collections::BTreeSet;
use std::time::Duration;

use touchstone_spec::api::{ServiceType, SessionAffinity, TrafficPolicy};

use crate::Variant;
use crate::grammar::duration;
use crate::text::ServiceText;
use crate::variant::{endpoint_texts, service_texts};

/// Lines for a Service port with nothing but a cluster IP: a chain, the jump to it, a mark.
const LINES_OF_A_SERVICE: usize = 3;
/// Lines for an endpoint of a Service port: a chain, the jump to it, a mark, the translation.
const LINES_OF_AN_ENDPOINT: usize = 4;
/// Lines for everything that external addresses of a Service port share.
const LINES_OF_EXTERNAL: usize = 5;
/// Addresses that a list or number of them may stand for.
const ADDRESSES: usize = 2;

impl Variant {
    /// About so many lines of rules and chains per family a proxy may need for it at a time.
    #[must_use]
    pub fn weight(&self) -> usize {
        let body = self.case().body();
        let ports = service_texts(body)
            .filter_map(|text| text.ports.get())
            .map(Vec::len)
            .max()
            .unwrap_or(1)
            .max(1);
        let endpoints: BTreeSet<(&str, &str)> =
            endpoint_texts(body).map(|(service, endpoint, _)| (service, endpoint)).collect();
        let raw: usize = body
            .world
            .slices
            .values()
            .map(|slice| slice.value.endpoints.get().map_or(0, Vec::len))
            .sum();
        let frontends: usize =
            service_texts(body).map(|text| lines_of_frontends(text, endpoints.len())).sum();
        ports * (frontends + LINES_OF_AN_ENDPOINT * (endpoints.len() + raw))
            + body.steps.len() * (LINES_OF_A_SERVICE + LINES_OF_AN_ENDPOINT)
    }

    /// How long its steps want agreement kept beyond what is usual, together: time that no faster
    /// machine makes shorter.
    #[must_use]
    pub fn holds(&self) -> Duration {
        let steps = &self.case().body().steps;
        let rows = steps.iter().flat_map(|step| &step.value.expect);
        let pauses = rows.filter_map(|row| row.value.forgets.as_ref());
        let texts = steps.iter().filter_map(|step| step.value.hold.as_ref()).chain(pauses);
        texts.filter_map(|text| duration(&text.value).ok()).sum()
    }
}

/// Lines of one port of a Service without its endpoints, as far as the text says.
fn lines_of_frontends(text: &ServiceText, endpoints: usize) -> usize {
    let kind = text.service_type.get();
    let external = matches!(kind, Some(ServiceType::NodePort | ServiceType::LoadBalancer))
        || text.external_ips.get().is_some();
    let mut lines = LINES_OF_A_SERVICE;
    if external {
        lines += LINES_OF_EXTERNAL + ADDRESSES;
    }
    let local = text.external_traffic_policy.get() == Some(&TrafficPolicy::Local)
        || text.internal_traffic_policy.get() == Some(&TrafficPolicy::Local);
    if local {
        lines += LINES_OF_A_SERVICE + 2 * endpoints;
    }
    if text.session_affinity.get() == Some(&SessionAffinity::ClientIP) {
        lines += 2 * endpoints;
    }
    if let Some(ranges) = text.load_balancer_source_ranges.get() {
        lines += LINES_OF_EXTERNAL + ranges.len();
    }
    lines
}
