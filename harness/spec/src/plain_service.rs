//! A Service of the harness's own, beside those of cases: the canary, markers, the name server.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::api::{
    Endpoint, EndpointPort, EndpointSlice, Meta, SERVICE_NAME_LABEL, Service, ServicePort,
    ServiceSpec,
};
use crate::{Change, Family, Protocol};

/// A port of a [`PlainService`].
#[derive(Debug, Clone)]
pub struct PlainPort<'a> {
    /// Name; empty for an only one.
    pub name: &'a str,
    /// Protocol.
    pub protocol: Protocol,
    /// Number at the cluster IPs.
    pub port: u16,
    /// Number at the endpoints.
    pub target_port: u16,
}

/// A Service of type ClusterIP without a selector.
#[derive(Debug, Clone)]
pub struct PlainService<'a> {
    /// Namespace.
    pub namespace: &'a str,
    /// Name, and the beginning of its slices' names.
    pub name: &'a str,
    /// Its cluster IPs, at most one of each family; the first one is its primary family's.
    pub ips: Vec<IpAddr>,
    /// Its ports.
    pub ports: &'a [PlainPort<'a>],
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
        let ports = self.ports.iter().map(|port| ServicePort {
            name: port.name.to_owned(),
            protocol: Some(port.protocol),
            port: port.port,
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
        let ports = self.ports.iter().map(|port| EndpointPort {
            name: Some(port.name.to_owned()),
            protocol: port.protocol,
            port: Some(port.target_port),
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
