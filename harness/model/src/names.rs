//! What the names of Services and endpoints stand for.
//!
//! Spec: "DNS-Based Service Discovery" of Kubernetes, version 1.1.0 (called `DNS spec` in
//! reasons), for a cluster whose name server forwards all other names to the resolver of its site.
//! A name server is supposed to be reachable: that is what flows to it show.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use touchstone_spec::api::{Endpoint, EndpointSlice, Service, ServiceType};
use touchstone_spec::{
    Allowed, CLUSTER_DOMAIN, Expectation, Family, Features, Flow, NDOTS, NameAnswer, NameRecord,
    Question, Reason, RecordType, SITE_NAMES, SiteRecord, World,
};

use crate::endpoints::reason;
use crate::past_the_proxy::is_endpoint;

const SPEC: &str = "DNS spec 1.1.0";
/// Aliases that are followed one after the other.
const LONGEST_CHAIN: usize = 8;
/// Hexadecimal digits of an IPv6 address.
const NIBBLES: usize = 32;

/// What a name server may say about one name and type.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    /// What an endpoint without hostname is called nobody knows, so equal records count.
    Records(Vec<NameRecord>),
    /// The name exists, without such a record.
    Nothing,
    /// There is no such name.
    Missing,
    /// The specification leaves open whether the name exists; there is no record in any case.
    Either,
}

/// What may come of a question, and of the connection after it.
pub(crate) fn answer(
    world: &World,
    flow: &Flow,
    question: &Question,
    features: &Features,
) -> Expectation {
    let mut reasons = Vec::new();
    let found = search(world, question, &mut reasons);
    let mut told = BTreeSet::new();
    // Both address types have the same reasons.
    reasons.retain(|reason| told.insert(reason.clone()));
    if reasons.is_empty() {
        let text = format!("`{}` is the name of no Service and no endpoint", question.name);
        reasons.push(reason(&text, SPEC));
    }
    let answers: BTreeSet<NameAnswer> = match found {
        Found::Records(records) => BTreeSet::from([NameAnswer::records(records)]),
        Found::Nothing => BTreeSet::from([NameAnswer::Nothing]),
        Found::Missing => BTreeSet::from([NameAnswer::NoSuchName]),
        Found::Either => BTreeSet::from([NameAnswer::Nothing, NameAnswer::NoSuchName]),
    };
    let addresses: BTreeSet<IpAddr> =
        answers.iter().flat_map(|answer| answer.addresses(flow.family())).collect();
    match question.then {
        Some(port) if !addresses.is_empty() => {
            connect(world, flow, &addresses, port, features, reasons)
        }
        Some(_) | None => Expectation {
            allowed: answers.into_iter().map(Allowed::Answered).collect(),
            reasons,
            ..Expectation::default()
        },
    }
}

/// A client connects to any one of the addresses that it was told.
fn connect(
    world: &World,
    flow: &Flow,
    addresses: &BTreeSet<IpAddr>,
    port: u16,
    features: &Features,
    reasons: Vec<Reason>,
) -> Expectation {
    let mut all = Expectation { cover: addresses.len() > 1, reasons, ..Expectation::default() };
    for address in addresses {
        let to = SocketAddr::new(*address, port);
        if is_pod(world, *address) && !is_endpoint(world, to) {
            all.allowed.insert(Allowed::Refused);
            all.reasons.push(reason(
                "a headless Service has no proxy that could translate the port: nothing listens \
                 on it",
                SPEC,
            ));
            continue;
        }
        let each = crate::expect(world, &Flow { to, question: None, ..flow.clone() }, features);
        all.allowed.extend(each.allowed);
        all.cover |= each.cover;
        all.sticky |= each.sticky;
        all.open |= each.open;
        all.reasons.extend(each.reasons);
    }
    all
}

/// Tries the search path as a resolver does: domain by domain, until a name has records.
fn search(world: &World, question: &Question, reasons: &mut Vec<Reason>) -> Found {
    let names = candidates(question);
    let mut without = Vec::new();
    for name in &names {
        match ask(world, name, &question.types, reasons) {
            found @ Found::Records(_) => {
                if names.len() > 1 {
                    let text = format!("`{}` is found as {name}", question.name);
                    reasons.push(reason(&text, "search path of pods, ndots:5"));
                }
                return found;
            }
            other @ (Found::Nothing | Found::Missing | Found::Either) => without.push(other),
        }
    }
    poorest(without)
}

/// The absolute names that stand for a question's name, in the order in which they are tried.
fn candidates(question: &Question) -> Vec<String> {
    let name = question.name.to_ascii_lowercase();
    if name.ends_with('.') {
        return vec![name];
    }
    let in_domains = question.search.iter().map(|domain| format!("{name}.{domain}."));
    let as_it_is = format!("{name}.");
    if name.matches('.').count() >= NDOTS {
        [as_it_is].into_iter().chain(in_domains).collect()
    } else {
        in_domains.chain([as_it_is]).collect()
    }
}

/// What several answers without records amount to: something that exists outweighs what does not.
fn poorest(found: Vec<Found>) -> Found {
    if found.contains(&Found::Nothing) {
        Found::Nothing
    } else if found.contains(&Found::Either) {
        Found::Either
    } else {
        Found::Missing
    }
}

/// Asks for all types of one name at the same time.
fn ask(
    world: &World,
    name: &str,
    types: &BTreeSet<RecordType>,
    reasons: &mut Vec<Reason>,
) -> Found {
    let mut records = Vec::new();
    let mut without = Vec::new();
    for kind in types {
        match resolve(world, name, *kind, LONGEST_CHAIN, reasons) {
            // An alias is told for both types.
            Found::Records(more) => {
                let new = more.into_iter().filter(|record| !records.contains(record));
                let new: Vec<NameRecord> = new.collect();
                records.extend(new);
            }
            other @ (Found::Nothing | Found::Missing | Found::Either) => without.push(other),
        }
    }
    if records.is_empty() { poorest(without) } else { Found::Records(records) }
}

fn resolve(
    world: &World,
    name: &str,
    kind: RecordType,
    aliases: usize,
    reasons: &mut Vec<Reason>,
) -> Found {
    if let Some(address) = reverse(name) {
        return if kind == RecordType::Ptr {
            pointer(world, address, reasons)
        } else {
            Found::Either
        };
    }
    let domain = format!(".{CLUSTER_DOMAIN}.");
    let Some(inside) = name.strip_suffix(&domain) else {
        return site(name, kind);
    };
    let labels: Vec<&str> = inside.split('.').collect();
    match labels.as_slice() {
        ["svc"] => Found::Either,
        [namespace, "svc"] if world.services.iter().any(|s| s.metadata.namespace == *namespace) => {
            Found::Either
        }
        [service, namespace, "svc"] => match service_of(world, namespace, service) {
            Some(found) => of_service(world, found, kind, aliases, reasons),
            None => {
                reasons.push(reason(&format!("no Service is called {namespace}/{service}"), SPEC));
                Found::Missing
            }
        },
        [port, protocol, service, namespace, "svc"]
            if port.starts_with('_') && protocol.starts_with('_') =>
        {
            match service_of(world, namespace, service) {
                Some(found) => of_port(world, found, &port[1..], &protocol[1..], kind, reasons),
                None => Found::Missing,
            }
        }
        [host, service, namespace, "svc"] => match service_of(world, namespace, service) {
            Some(found) if is_headless(found) => of_host(world, found, host, kind, reasons),
            Some(_) | None => Found::Missing,
        },
        _ => Found::Missing,
    }
}

fn service_of<'w>(world: &'w World, namespace: &str, name: &str) -> Option<&'w Service> {
    world
        .services
        .iter()
        .find(|service| service.metadata.namespace == namespace && service.metadata.name == name)
}

fn is_headless(service: &Service) -> bool {
    service.spec.service_type != ServiceType::ExternalName
        && service.spec.cluster_ip.as_deref() == Some("None")
}

/// The name of a Service itself.
fn of_service(
    world: &World,
    service: &Service,
    kind: RecordType,
    aliases: usize,
    reasons: &mut Vec<Reason>,
) -> Found {
    let key = service.key();
    if service.spec.service_type == ServiceType::ExternalName {
        return alias(world, service, kind, aliases, reasons);
    }
    if is_headless(service) {
        let addresses: BTreeSet<NameRecord> = ready(world, service)
            .filter_map(|(_, endpoint)| address_of(endpoint))
            .map(NameRecord::Address)
            .collect();
        if addresses.is_empty() {
            reasons.push(reason(&format!("{key} is headless and has no ready endpoint"), SPEC));
            return Found::Either;
        }
        reasons.push(reason(
            &format!("{key} is headless: its name stands for its ready endpoints"),
            "DNS spec 1.1.0, 2.4.1",
        ));
        return of_kind(addresses, kind);
    }
    reasons.push(reason(
        &format!("the name of {key} stands for its cluster IPs, whatever its endpoints"),
        "DNS spec 1.1.0, 2.3.1",
    ));
    let ips = Family::BOTH.into_iter().filter_map(|family| service.cluster_ip(family));
    of_kind(ips.map(NameRecord::Address).collect(), kind)
}

/// Those records that a question of a type gets; SRV without port and protocol is not specified.
fn of_kind(all: BTreeSet<NameRecord>, kind: RecordType) -> Found {
    let fits = |record: &NameRecord| match record {
        NameRecord::Address(ip) => kind.family() == Some(Family::of(*ip)),
        NameRecord::Alias(_) => kind == RecordType::Cname,
        NameRecord::Service { .. } => kind == RecordType::Srv,
        NameRecord::Pointer(_) => kind == RecordType::Ptr,
    };
    let records: Vec<NameRecord> = all.into_iter().filter(fits).collect();
    match (records.is_empty(), kind) {
        (false, _) => Found::Records(records),
        (true, RecordType::Srv | RecordType::Ptr) => Found::Either,
        (true, RecordType::A | RecordType::Aaaa | RecordType::Cname) => Found::Nothing,
    }
}

/// An ExternalName Service: a CNAME, and what the server knows of the name behind it.
fn alias(
    world: &World,
    service: &Service,
    kind: RecordType,
    aliases: usize,
    reasons: &mut Vec<Reason>,
) -> Found {
    let target = absolute(service.spec.external_name.as_deref().unwrap_or_default());
    reasons
        .push(reason(&format!("{} is an alias of {target}", service.key()), "DNS spec 1.1.0, 2.5"));
    let mut records = vec![NameRecord::Alias(target.clone())];
    if kind.family().is_some() && aliases > 0 {
        match resolve(world, &target, kind, aliases - 1, reasons) {
            Found::Records(more) => records.extend(more),
            Found::Nothing | Found::Missing | Found::Either => {}
        }
    }
    match kind {
        RecordType::A | RecordType::Aaaa | RecordType::Cname => Found::Records(records),
        RecordType::Srv | RecordType::Ptr => Found::Either,
    }
}

/// `_port._protocol.service`.
fn of_port(
    world: &World,
    service: &Service,
    port: &str,
    protocol: &str,
    kind: RecordType,
    reasons: &mut Vec<Reason>,
) -> Found {
    if service.spec.service_type == ServiceType::ExternalName {
        return Found::Either;
    }
    let is_it = |p: &&touchstone_spec::api::ServicePort| {
        p.name == port && p.transport().to_string() == protocol
    };
    let Some(found) = service.spec.ports.iter().find(is_it) else {
        reasons.push(reason(
            &format!("{} has no port {port} over {protocol}", service.key()),
            "DNS spec 1.1.0, 2.3.2",
        ));
        return Found::Missing;
    };
    let of = name_of(service);
    let mut records = Vec::new();
    if is_headless(service) {
        for (slice, endpoint) in ready(world, service) {
            let numbers = slice
                .ports
                .iter()
                .filter(|p| p.name.as_deref() == Some(port) && p.protocol == found.transport());
            for number in numbers.filter_map(|p| p.port) {
                let target = format!("{}.{of}", host(endpoint));
                let record = NameRecord::Service { target, port: number };
                // One hostname of both families is one record.
                if host(endpoint) == "*" || !records.contains(&record) {
                    records.push(record);
                }
            }
        }
        reasons.push(reason(
            "a port of a headless Service has a record for each ready endpoint, with the \
             endpoint's own number",
            "DNS spec 1.1.0, 2.4.2",
        ));
    } else {
        records.push(NameRecord::Service { target: of, port: found.port });
        reasons.push(reason("a named port has a record with its number", "DNS spec 1.1.0, 2.3.2"));
    }
    match kind {
        _ if records.is_empty() => Found::Either,
        RecordType::Srv => Found::Records(records),
        RecordType::A | RecordType::Aaaa | RecordType::Cname | RecordType::Ptr => Found::Either,
    }
}

/// `hostname.service` of a headless Service.
fn of_host(
    world: &World,
    service: &Service,
    name: &str,
    kind: RecordType,
    reasons: &mut Vec<Reason>,
) -> Found {
    let addresses: BTreeSet<NameRecord> = ready(world, service)
        .filter(|(_, endpoint)| endpoint.hostname.as_deref() == Some(name))
        .filter_map(|(_, endpoint)| address_of(endpoint))
        .map(NameRecord::Address)
        .collect();
    if addresses.is_empty() {
        let text = format!("no ready endpoint of {} has the hostname {name}", service.key());
        reasons.push(reason(&text, "DNS spec 1.1.0, 2.4.1"));
        return Found::Missing;
    }
    let text = format!("{name} is the hostname of an endpoint of {}", service.key());
    reasons.push(reason(&text, "DNS spec 1.1.0, 2.4.1"));
    of_kind(addresses, kind)
}

/// The name of an address.
fn pointer(world: &World, address: IpAddr, reasons: &mut Vec<Reason>) -> Found {
    let owner = world.services.iter().find(|service| {
        service.spec.service_type != ServiceType::ExternalName
            && service.cluster_ip(Family::of(address)) == Some(address)
    });
    if let Some(owner) = owner {
        reasons.push(reason(
            &format!("{address} is a cluster IP of {}", owner.key()),
            "DNS spec 1.1.0, 2.3.3",
        ));
        return Found::Records(vec![NameRecord::Pointer(name_of(owner))]);
    }
    let headless = world.services.iter().filter(|service| is_headless(service));
    let records: Vec<NameRecord> = headless
        .flat_map(|service| {
            ready(world, service)
                .filter(|(_, endpoint)| address_of(endpoint) == Some(address))
                .map(|(_, endpoint)| format!("{}.{}", host(endpoint), name_of(service)))
        })
        .map(NameRecord::Pointer)
        .collect();
    if !records.is_empty() {
        reasons.push(reason(
            &format!("{address} is a ready endpoint of a headless Service"),
            "DNS spec 1.1.0, 2.4.3",
        ));
        return Found::Records(records);
    }
    reasons.push(reason(&format!("{address} has no name"), SPEC));
    Found::Missing
}

/// A name of the site.
fn site(name: &str, kind: RecordType) -> Found {
    let known = |name: &str| SITE_NAMES.iter().find(|known| known.name == name);
    let mut records = Vec::new();
    let mut at = known(name);
    if at.is_none() {
        return Found::Missing;
    }
    while let Some(site) = at {
        match site.is {
            SiteRecord::Host(v4, v6) => {
                records.extend(kind.family().map(|family| match family {
                    Family::V4 => NameRecord::Address(v4.into()),
                    Family::V6 => NameRecord::Address(v6.into()),
                }));
                break;
            }
            SiteRecord::AliasOf(other) => {
                records.push(NameRecord::Alias(other.to_owned()));
                at = if kind.family().is_some() { known(other) } else { None };
            }
        }
    }
    if records.is_empty() { Found::Nothing } else { Found::Records(records) }
}

/// Ready endpoints of a Service with their slices.
fn ready<'w>(
    world: &'w World,
    service: &Service,
) -> impl Iterator<Item = (&'w EndpointSlice, &'w Endpoint)> {
    let key = service.key();
    world
        .slices
        .iter()
        .filter(move |slice| slice.service_key().as_ref() == Some(&key))
        .flat_map(|slice| slice.endpoints.iter().map(move |endpoint| (slice, endpoint)))
        .filter(|(_, endpoint)| endpoint.conditions.is_ready())
}

fn address_of(endpoint: &Endpoint) -> Option<IpAddr> {
    endpoint.addresses.first().and_then(|address| address.parse().ok())
}

fn is_pod(world: &World, address: IpAddr) -> bool {
    world.owner(address).is_none()
        && world
            .slices
            .iter()
            .flat_map(|slice| &slice.endpoints)
            .any(|endpoint| address_of(endpoint) == Some(address))
}

/// The first label of an endpoint's name; any, where the server invents one.
fn host(endpoint: &Endpoint) -> &str {
    endpoint.hostname.as_deref().filter(|name| !name.is_empty()).unwrap_or("*")
}

fn name_of(service: &Service) -> String {
    let meta = &service.metadata;
    format!("{}.{}.svc.{CLUSTER_DOMAIN}.", meta.name, meta.namespace)
}

fn absolute(name: &str) -> String {
    format!("{}.", name.trim_end_matches('.').to_ascii_lowercase())
}

/// The address whose name is asked for by a name such as `4.3.2.1.in-addr.arpa.`.
fn reverse(name: &str) -> Option<IpAddr> {
    if let Some(digits) = name.strip_suffix(".in-addr.arpa.") {
        let parts: Vec<u8> =
            digits.split('.').rev().map(str::parse).collect::<Result<_, _>>().ok()?;
        return <[u8; 4]>::try_from(parts).ok().map(|octets| Ipv4Addr::from(octets).into());
    }
    let digits = name.strip_suffix(".ip6.arpa.")?;
    let nibbles: Vec<&str> = digits.split('.').rev().collect();
    if nibbles.len() != NIBBLES || nibbles.iter().any(|nibble| nibble.len() != 1) {
        return None;
    }
    u128::from_str_radix(&nibbles.concat(), 16).ok().map(|bits| Ipv6Addr::from(bits).into())
}

#[cfg(test)]
mod tests;
