//! A Service of the harness's own, beside those of cases: the canary, markers, the name server.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::api::{
    Endpoint, EndpointPort, EndpointSlice, Meta, SERVICE_NAME_LABEL, Service, ServicePort,
    ServiceSpec,
};
use crate::{Change, Family, Protocol};

/// A Service of type ClusterIP without a selector, whose endpoints listen on its own ports.
#[derive(Debug, Clone)]
pub struct PlainService<'a> {
    /// Namespace.
    pub namespace: &'a str,
    /// Name, and the beginning of its slices' names.
    pub name: &'a str,
    /// Its cluster IPs, at most one of each family; the first one is its primary family's.
    pub ips: Vec<IpAddr>,
    /// Name (empty for the only one), protocol and number of each port.
    pub ports: &'a [(&'a str, Protocol, u16)],
}

impl PlainService<'_> {
    /// The changes that make it, with a slice for each of its families.
    #[must_use]
    pub fn changes(&self, endpoints: impl Fn(Family) -> Vec<Endpoint>) -> Vec<Change> {
        let families: Vec<Family> = self.ips.iter().map(|ip| Family::of(*ip)).collect();
        let slices = families.iter().map(|f| Change::ApplySlice(self.slice(*f, endpoints(*f))));
        [Change::ApplyService(self.service(&families))].into_iter().chain(slices).collect()
    }

    fn service(&self, families: &[Family]) -> Service {
        let policy = if families.len() > 1 { "RequireDualStack" } else { "SingleStack" };
        let ports = self.ports.iter().map(|(name, protocol, port)| ServicePort {
            name: (*name).to_owned(),
            protocol: Some(*protocol),
            port: *port,
            ..ServicePort::default()
        });
        Service {
            metadata: self.meta(self.name.to_owned(), BTreeMap::new()),
            spec: ServiceSpec {
                cluster_ip: self.ips.first().map(ToString::to_string),
                cluster_ips: self.ips.iter().map(ToString::to_string).collect(),
                ip_families: families.iter().map(|f| f.api_name().to_owned()).collect(),
                ip_family_policy: Some(policy.to_owned()),
                ports: ports.collect(),
                ..ServiceSpec::default()
            },
            ..Service::default()
        }
    }

    fn slice(&self, family: Family, endpoints: Vec<Endpoint>) -> EndpointSlice {
        let labels = BTreeMap::from([(SERVICE_NAME_LABEL.to_owned(), self.name.to_owned())]);
        let ports = self.ports.iter().map(|(name, protocol, port)| EndpointPort {
            name: Some((*name).to_owned()),
            protocol: *protocol,
            port: Some(*port),
        });
        EndpointSlice {
            metadata: self.meta(format!("{}-{family}", self.name), labels),
            address_type: family.api_name().to_owned(),
            ports: ports.collect(),
            endpoints,
        }
    }

    fn meta(&self, name: String, labels: BTreeMap<String, String>) -> Meta {
        Meta { name, namespace: self.namespace.to_owned(), labels, annotations: BTreeMap::new() }
    }
}
