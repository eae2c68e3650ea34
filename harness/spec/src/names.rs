//! Questions to a cluster's name server, and what it answers.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::{Family, PodFacts};

/// The domain of every cluster that touchstone makes.
pub const CLUSTER_DOMAIN: &str = "cluster.local";

/// Port of name servers.
pub const DNS_PORT: u16 = 53;

/// Number of dots from which a name is asked for as it stands before the search path is tried,
/// as kubelet writes it into pods.
pub const NDOTS: usize = 5;

/// A name outside the cluster domain: what the resolver of the site knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SiteName {
    /// The name, absolute.
    pub name: &'static str,
    /// What it is.
    pub is: SiteRecord,
}

/// What a name of the site is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SiteRecord {
    /// A host with an address of each family.
    Host(Ipv4Addr, Ipv6Addr),
    /// Another name of that host.
    AliasOf(&'static str),
}

/// Every name outside the cluster domain that exists. Their addresses belong to nobody.
pub const SITE_NAMES: &[SiteName] = &[
    SiteName {
        name: "host.example.test.",
        is: SiteRecord::Host(
            Ipv4Addr::new(192, 0, 2, 53),
            Ipv6Addr::new(0x2001, 0xdb8, 0x53, 0, 0, 0, 0, 1),
        ),
    },
    SiteName { name: "alias.example.test.", is: SiteRecord::AliasOf("host.example.test.") },
];

/// What a cluster says of its name server.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DnsFacts {
    /// Cluster IPs of the Service `kube-dns`, one per family, IPv4 first.
    pub service: Vec<IpAddr>,
    /// The pods that answer for it.
    pub servers: Vec<PodFacts>,
}

impl DnsFacts {
    /// The Service's address of a family.
    #[must_use]
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        self.service.iter().copied().find(|ip| Family::of(*ip) == family)
    }
}

/// Types of records that questions ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum RecordType {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Another name.
    Cname,
    /// Where a service is.
    Srv,
    /// The name of an address.
    Ptr,
}

impl RecordType {
    /// Every type.
    pub const ALL: [RecordType; 5] =
        [RecordType::A, RecordType::Aaaa, RecordType::Cname, RecordType::Srv, RecordType::Ptr];

    /// The type of addresses of a family.
    #[must_use]
    pub fn of(family: Family) -> RecordType {
        match family {
            Family::V4 => RecordType::A,
            Family::V6 => RecordType::Aaaa,
        }
    }

    /// The family of its addresses, if it holds any.
    #[must_use]
    pub fn family(self) -> Option<Family> {
        match self {
            RecordType::A => Some(Family::V4),
            RecordType::Aaaa => Some(Family::V6),
            RecordType::Cname | RecordType::Srv | RecordType::Ptr => None,
        }
    }
}

impl fmt::Display for RecordType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RecordType::A => "A",
            RecordType::Aaaa => "AAAA",
            RecordType::Cname => "CNAME",
            RecordType::Srv => "SRV",
            RecordType::Ptr => "PTR",
        })
    }
}

/// What a client asks the name server before, or instead of, sending anything else.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Question {
    /// The name as the client has it; with a dot at its end it is absolute.
    pub name: String,
    /// Types asked for, all at the same time from one socket.
    pub types: BTreeSet<RecordType>,
    /// Domains in which a relative name is looked for.
    pub search: Vec<String>,
    /// Port to which the client connects at an address that it was told, with the flow's
    /// protocol; none when it only asks.
    pub then: Option<u16>,
}

impl Question {
    /// The domains in which a pod of a namespace looks for names.
    #[must_use]
    pub fn search_of(namespace: &str) -> Vec<String> {
        vec![
            format!("{namespace}.svc.{CLUSTER_DOMAIN}"),
            format!("svc.{CLUSTER_DOMAIN}"),
            CLUSTER_DOMAIN.to_owned(),
        ]
    }
}

/// One record of an answer. Names are absolute and in lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NameRecord {
    /// An address (A, AAAA).
    Address(IpAddr),
    /// Another name (CNAME).
    Alias(String),
    /// A host and a port (SRV). Priority and weight are the server's own affair.
    Service {
        /// The host's name.
        target: String,
        /// The port.
        port: u16,
    },
    /// The name of an address (PTR).
    Pointer(String),
}

impl NameRecord {
    /// Whether a record is this one; a first label `*` stands for any label.
    #[must_use]
    pub fn admits(&self, seen: &NameRecord) -> bool {
        let fits = |want: &str, got: &str| match want.strip_prefix("*.") {
            Some(rest) => got
                .split_once('.')
                .is_some_and(|(label, got)| !label.is_empty() && label != "*" && got == rest),
            None => want == got,
        };
        match (self, seen) {
            (NameRecord::Address(want), NameRecord::Address(got)) => want == got,
            (NameRecord::Alias(want), NameRecord::Alias(got))
            | (NameRecord::Pointer(want), NameRecord::Pointer(got)) => fits(want, got),
            (
                NameRecord::Service { target: want, port },
                NameRecord::Service { target: got, port: at },
            ) => port == at && fits(want, got),
            (
                NameRecord::Address(_)
                | NameRecord::Alias(_)
                | NameRecord::Service { .. }
                | NameRecord::Pointer(_),
                _,
            ) => false,
        }
    }
}

impl fmt::Display for NameRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NameRecord::Address(ip) => write!(f, "{ip}"),
            NameRecord::Alias(name) => write!(f, "alias of {name}"),
            NameRecord::Service { target, port } => write!(f, "{target}:{port}"),
            NameRecord::Pointer(name) => write!(f, "{name}"),
        }
    }
}

/// What a client learns from a name server about one question.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NameAnswer {
    /// These records, each as often as it was told.
    Records(Vec<NameRecord>),
    /// The name exists and has no record of that type.
    Nothing,
    /// There is no such name (NXDOMAIN).
    NoSuchName,
    /// The server could not say, or answered what makes no sense.
    Failed(String),
}

impl NameAnswer {
    /// Records, in order.
    #[must_use]
    pub fn records(records: impl IntoIterator<Item = NameRecord>) -> NameAnswer {
        let mut records: Vec<NameRecord> = records.into_iter().collect();
        records.sort();
        NameAnswer::Records(records)
    }

    /// Whether an answer is this one; the order of records means nothing.
    #[must_use]
    pub fn admits(&self, seen: &NameAnswer) -> bool {
        match (self, seen) {
            (NameAnswer::Records(want), NameAnswer::Records(got)) => {
                let mut left: Vec<&NameRecord> = got.iter().collect();
                // Exact names first, so that a pattern does not take what only they can.
                let is_pattern = |record: &&NameRecord| record.to_string().contains('*');
                let (patterns, exact): (Vec<_>, Vec<_>) = want.iter().partition(is_pattern);
                for record in exact.into_iter().chain(patterns) {
                    match left.iter().position(|got| record.admits(got)) {
                        Some(index) => drop(left.remove(index)),
                        None => return false,
                    }
                }
                left.is_empty()
            }
            (NameAnswer::Nothing, NameAnswer::Nothing)
            | (NameAnswer::NoSuchName, NameAnswer::NoSuchName) => true,
            (
                NameAnswer::Records(_)
                | NameAnswer::Nothing
                | NameAnswer::NoSuchName
                | NameAnswer::Failed(_),
                _,
            ) => false,
        }
    }

    /// An answer that this one admits: labels `*` become numbered names.
    #[must_use]
    pub fn example(&self) -> NameAnswer {
        let NameAnswer::Records(records) = self else { return self.clone() };
        let named = |name: &str, number: usize| match name.strip_prefix("*.") {
            Some(rest) => format!("any-{number}.{rest}"),
            None => name.to_owned(),
        };
        let records = records.iter().enumerate().map(|(number, record)| match record {
            NameRecord::Address(ip) => NameRecord::Address(*ip),
            NameRecord::Alias(name) => NameRecord::Alias(named(name, number)),
            NameRecord::Service { target, port } => {
                NameRecord::Service { target: named(target, number), port: *port }
            }
            NameRecord::Pointer(name) => NameRecord::Pointer(named(name, number)),
        });
        NameAnswer::Records(records.collect())
    }

    /// The addresses of a family among its records.
    #[must_use]
    pub fn addresses(&self, family: Family) -> Vec<IpAddr> {
        match self {
            NameAnswer::Records(records) => records
                .iter()
                .filter_map(|record| match record {
                    NameRecord::Address(ip) => Some(*ip),
                    NameRecord::Alias(_) | NameRecord::Service { .. } | NameRecord::Pointer(_) => {
                        None
                    }
                })
                .filter(|ip| Family::of(*ip) == family)
                .collect(),
            NameAnswer::Nothing | NameAnswer::NoSuchName | NameAnswer::Failed(_) => Vec::new(),
        }
    }
}

impl fmt::Display for NameAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NameAnswer::Records(records) => {
                let words: Vec<String> = records.iter().map(ToString::to_string).collect();
                write!(f, "answers {}", words.join(", "))
            }
            NameAnswer::Nothing => f.write_str("answers nothing (no record of that type)"),
            NameAnswer::NoSuchName => f.write_str("answers that there is no such name"),
            NameAnswer::Failed(why) => write!(f, "the name server failed: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn srv(target: &str) -> NameRecord {
        NameRecord::Service { target: target.to_owned(), port: 80 }
    }

    #[test]
    fn a_star_stands_for_one_label() {
        let want = NameAnswer::records([srv("db-0.web.a."), srv("*.web.a.")]);
        let check = |seen: &[NameRecord], fine: bool| {
            assert_eq!(want.admits(&NameAnswer::Records(seen.to_vec())), fine, "{seen:?}");
        };
        check(&[srv("10-1.web.a."), srv("db-0.web.a.")], true);
        check(&[srv("db-0.web.a."), srv("db-0.web.a.")], true);
        check(&[srv("10-1.web.a."), srv("10-2.web.a.")], false);
        check(&[srv("db-0.web.a.")], false);
        check(&[srv("db-0.web.a."), srv("x.y.web.a.")], false);
        check(&[srv("db-0.web.a."), srv("x.web.a."), srv("x.web.a.")], false);
        assert!(!NameAnswer::Nothing.admits(&NameAnswer::NoSuchName));
    }
}
