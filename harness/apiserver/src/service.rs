//! Defaulting of Services, and what changes of a Service carry over or drop.

use serde_json::{Value, json};

use crate::allocate::{Allocator, Family, Held, Refusal};
use crate::fields::{self, at, number, remove, set, text};
use crate::service_rules;
use crate::status::{Cause, Reason, Status};
use crate::store::Key;

/// Why a Service is refused.
#[derive(Debug)]
pub(crate) enum Refused {
    /// Rules it breaks.
    Rules(Vec<Cause>),
    /// A failure that is not the caller's.
    Status(Status),
}

impl From<Vec<Cause>> for Refused {
    fn from(causes: Vec<Cause>) -> Self {
        Refused::Rules(causes)
    }
}

/// Whether the Service has cluster addresses, or says that it wants none.
pub(crate) fn needs_cluster_ip(service: &Value) -> bool {
    matches!(text(service, "spec.type"), "ClusterIP" | "NodePort" | "LoadBalancer")
}

pub(crate) fn is_headless(service: &Value) -> bool {
    text(service, "spec.clusterIP") == "None"
}

pub(crate) fn needs_node_ports(service: &Value) -> bool {
    match text(service, "spec.type") {
        "NodePort" => true,
        "LoadBalancer" => {
            at(service, "spec.allocateLoadBalancerNodePorts") != Some(&Value::Bool(false))
        }
        _ => false,
    }
}

/// Whether the type allows node ports, allocated or asked for.
pub(crate) fn may_have_node_ports(service: &Value) -> bool {
    matches!(text(service, "spec.type"), "NodePort" | "LoadBalancer")
}

pub(crate) fn needs_health_check_port(service: &Value) -> bool {
    text(service, "spec.type") == "LoadBalancer"
        && text(service, "spec.externalTrafficPolicy") == "Local"
}

/// Whether clients outside the cluster can reach it at all.
pub(crate) fn externally_accessible(service: &Value) -> bool {
    match text(service, "spec.type") {
        "NodePort" | "LoadBalancer" => true,
        "ClusterIP" => !fields::list(service, "spec.externalIPs").is_empty(),
        _ => false,
    }
}

/// Completes and checks a Service, and allocates what it lacks.
///
/// Nothing is recorded in the allocator yet: the caller settles once the object is stored.
pub(crate) fn prepare(
    service: &mut Value,
    old: Option<&Value>,
    key: &Key,
    allocator: &mut Allocator,
) -> Result<(), Refused> {
    default(service);
    if let Some(old) = old {
        carry_over(service, old);
        drop_what_the_type_lost(service, old);
        trim_for_single_stack(service, old);
    }
    if text(service, "spec.type") != "LoadBalancer" && at(service, "status.loadBalancer").is_some()
    {
        set(service, "status.loadBalancer", json!({}));
    }
    let causes = service_rules::validate(service, old);
    if !causes.is_empty() {
        return Err(causes.into());
    }
    choose_families(service, &allocator.families())?;
    let causes = service_rules::validate_families(service, old);
    if !causes.is_empty() {
        return Err(causes.into());
    }
    allocate_addresses(service, key, allocator)?;
    allocate_ports(service, key, allocator)
}

fn default(service: &mut Value) {
    fields::default(service, "spec.type", "ClusterIP");
    fields::default(service, "spec.sessionAffinity", "None");
    match text(service, "spec.sessionAffinity") {
        "ClientIP" => {
            fields::default(service, "spec.sessionAffinityConfig.clientIP.timeoutSeconds", 10800)
        }
        "None" => remove(service, "spec.sessionAffinityConfig"),
        _ => {}
    }
    for port in fields::list_mut(service, "spec.ports").iter_mut().filter(|port| port.is_object()) {
        fields::default(port, "protocol", "TCP");
        let target = at(port, "targetPort");
        if target.is_none_or(|target| *target == json!(0) || *target == json!("")) {
            let number = port.get("port").cloned().unwrap_or_default();
            set(port, "targetPort", number);
        }
        if port.get("nodePort") == Some(&json!(0)) {
            remove(port, "nodePort");
        }
    }
    for (field, empty) in
        [("healthCheckNodePort", json!(0)), ("clusterIP", json!("")), ("clusterIPs", json!([]))]
    {
        if service["spec"].get(field) == Some(&empty) {
            remove(service, &format!("spec.{field}"));
        }
    }
    if externally_accessible(service) {
        fields::default(service, "spec.externalTrafficPolicy", "Cluster");
    }
    if needs_cluster_ip(service) {
        fields::default(service, "spec.internalTrafficPolicy", "Cluster");
    }
    if text(service, "spec.type") == "LoadBalancer" {
        fields::default(service, "spec.allocateLoadBalancerNodePorts", true);
        for ingress in fields::list_mut(service, "status.loadBalancer.ingress") {
            if !text(ingress, "ip").is_empty() {
                fields::default(ingress, "ipMode", "VIP");
            }
        }
    }
    if at(service, "status").is_none() {
        set(service, "status", json!({ "loadBalancer": {} }));
    }
}

/// A change that leaves out what was allocated keeps it.
fn carry_over(service: &mut Value, old: &Value) {
    if needs_cluster_ip(service) && needs_cluster_ip(old) {
        let same_list = service["spec"].get("clusterIPs") == old["spec"].get("clusterIPs");
        if text(service, "spec.clusterIP").is_empty()
            && (same_list || at(service, "spec.clusterIPs").is_none())
        {
            copy(service, old, "spec.clusterIP");
            copy(service, old, "spec.clusterIPs");
        }
        let same = text(service, "spec.clusterIP") == text(old, "spec.clusterIP");
        if at(service, "spec.clusterIPs").is_none() && same {
            copy(service, old, "spec.clusterIPs");
        }
        for field in ["spec.ipFamilies", "spec.ipFamilyPolicy"] {
            if at(service, field).is_none() {
                copy(service, old, field);
            }
        }
    }
    if needs_node_ports(service) && may_have_node_ports(old) {
        carry_over_node_ports(service, old);
    }
    if needs_health_check_port(service)
        && needs_health_check_port(old)
        && number(service, "spec.healthCheckNodePort") == 0
    {
        copy(service, old, "spec.healthCheckNodePort");
    }
}

fn carry_over_node_ports(service: &mut Value, old: &Value) {
    let identity = |port: &Value| (number(port, "port"), text(port, "protocol").to_owned());
    let used: Vec<(i64, String)> = fields::list(service, "spec.ports")
        .iter()
        .map(|port| (number(port, "nodePort"), text(port, "protocol").to_owned()))
        .collect();
    for port in fields::list_mut(service, "spec.ports") {
        let before =
            fields::list(old, "spec.ports").iter().find(|it| identity(it) == identity(port));
        let node_port = before.map_or(0, |before| number(before, "nodePort"));
        let clash = used.contains(&(node_port, text(port, "protocol").to_owned()));
        if number(port, "nodePort") == 0 && node_port != 0 && !clash {
            set(port, "nodePort", node_port);
        }
    }
}

fn copy(service: &mut Value, old: &Value, field: &str) {
    if let Some(value) = at(old, field) {
        set(service, field, value.clone());
    }
}

/// A change of type drops the fields that only the old type had, unless the change sets them.
fn drop_what_the_type_lost(service: &mut Value, old: &Value) {
    let drop_same = |service: &mut Value, field: &str| {
        if at(service, field) == at(old, field) {
            remove(service, field);
        }
    };
    if needs_cluster_ip(old) && !needs_cluster_ip(service) {
        for field in
            ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"]
        {
            drop_same(service, &format!("spec.{field}"));
        }
    }
    if may_have_node_ports(old) && !may_have_node_ports(service) {
        let ports = |service: &Value| -> Vec<i64> {
            fields::list(service, "spec.ports")
                .iter()
                .map(|port| number(port, "nodePort"))
                .collect()
        };
        let before = ports(old);
        if ports(service).iter().all(|port| before.contains(port)) {
            for port in fields::list_mut(service, "spec.ports") {
                remove(port, "nodePort");
            }
        }
    }
    if needs_health_check_port(old) && !needs_health_check_port(service) {
        drop_same(service, "spec.healthCheckNodePort");
    }
    if text(old, "spec.type") == "LoadBalancer" && text(service, "spec.type") != "LoadBalancer" {
        drop_same(service, "spec.allocateLoadBalancerNodePorts");
        drop_same(service, "spec.loadBalancerClass");
    }
    if externally_accessible(old) && !externally_accessible(service) {
        drop_same(service, "spec.externalTrafficPolicy");
    }
}

/// A change to `SingleStack` gives the second family up.
fn trim_for_single_stack(service: &mut Value, old: &Value) {
    let now = text(service, "spec.ipFamilyPolicy");
    if now != "SingleStack" || text(old, "spec.ipFamilyPolicy") == now {
        return;
    }
    for field in ["spec.clusterIPs", "spec.ipFamilies"] {
        let values = fields::texts(service, field);
        if values == fields::texts(old, field) && values.len() > 1 {
            set(service, field, json!([values[0]]));
        }
    }
}

/// Fills `ipFamilyPolicy` and `ipFamilies` (KEP-563).
fn choose_families(service: &mut Value, configured: &[Family]) -> Result<(), Vec<Cause>> {
    if !needs_cluster_ip(service) {
        return Ok(());
    }
    normalize_cluster_ips(service);
    let mut causes = Vec::new();
    let addresses = fields::texts(service, "spec.clusterIPs");
    let mut families = fields::texts(service, "spec.ipFamilies");
    let bare =
        is_headless(service) && at(service, "spec.selector").is_none_or(|it| *it == json!({}));
    let several = families.len() > 1 || addresses.len() > 1;
    let policy = match text(service, "spec.ipFamilyPolicy") {
        "" if several || (bare && families.is_empty()) => "RequireDualStack",
        "" => "SingleStack",
        given => given,
    }
    .to_owned();
    if policy == "SingleStack" {
        for (field, count) in [("clusterIPs", addresses.len()), ("ipFamilies", families.len())] {
            if count > 1 {
                let why = format!(
                    "must be RequireDualStack or PreferDualStack when multiple '{field}' are specified"
                );
                causes.push(Cause::invalid("spec.ipFamilyPolicy", policy.as_str(), why));
            }
        }
    }
    if policy == "RequireDualStack" && configured.len() < 2 && !bare {
        let why = "this cluster is not configured for dual-stack services";
        causes.push(Cause::invalid("spec.ipFamilyPolicy", policy.as_str(), why));
    }
    for address in addresses.iter().skip(families.len()) {
        if let Ok(address) = address.parse() {
            families.push(Family::of(address).as_str().to_owned());
        }
    }
    if families.is_empty() {
        families.extend(configured.first().map(|family| family.as_str().to_owned()));
    }
    if !bare {
        for (nth, name) in families.iter().enumerate() {
            if Family::named(name).is_some_and(|family| !configured.contains(&family)) {
                let field = format!("spec.ipFamilies[{nth}]");
                causes.push(Cause::invalid(field, name.as_str(), "not configured on this cluster"));
            }
        }
    }
    if !causes.is_empty() {
        return Err(causes);
    }
    if policy != "SingleStack"
        && families.len() == 1
        && (configured.len() > 1 || bare)
        && let Some(first) = Family::named(&families[0])
    {
        families.push(first.other().as_str().to_owned());
    }
    set(service, "spec.ipFamilies", families);
    set(service, "spec.ipFamilyPolicy", policy);
    Ok(())
}

fn normalize_cluster_ips(service: &mut Value) {
    let one = text(service, "spec.clusterIP").to_owned();
    let several = fields::texts(service, "spec.clusterIPs");
    match (one.is_empty(), several.first()) {
        (false, None) => set(service, "spec.clusterIPs", json!([one])),
        (true, Some(first)) => set(service, "spec.clusterIP", first.as_str()),
        (true, None) | (false, Some(_)) => {}
    }
}

fn allocate_addresses(
    service: &mut Value,
    key: &Key,
    allocator: &mut Allocator,
) -> Result<(), Refused> {
    if !needs_cluster_ip(service) || is_headless(service) {
        return Ok(());
    }
    let mut addresses = fields::texts(service, "spec.clusterIPs");
    for (nth, given) in addresses.iter().enumerate() {
        let Ok(address) = given.parse() else { continue };
        let why = match allocator.may_hold(key, address) {
            Ok(()) => continue,
            Err(Refusal::Taken) => "provided IP is already allocated".to_owned(),
            Err(Refusal::OutOfRange) => {
                let range = allocator.address_range(Family::of(address)).unwrap_or_default();
                format!(
                    "the provided IP ({given}) is not in the valid range. \
                     The range of valid IPs is {range}"
                )
            }
        };
        let why = format!("failed to allocate IP {}: {why}", addresses[nth]);
        return Err(vec![Cause::invalid("spec.clusterIPs", json!(addresses), why)].into());
    }
    for family in fields::texts(service, "spec.ipFamilies").iter().skip(addresses.len()) {
        let next = Family::named(family).and_then(|family| allocator.next_address(family));
        let Some(address) = next else {
            let message = "failed to allocate a serviceIP: range is full";
            return Err(Refused::Status(Status::new(Reason::InternalError, message)));
        };
        addresses.push(address.to_string());
    }
    if let Some(first) = addresses.first() {
        set(service, "spec.clusterIP", first.as_str());
    }
    set(service, "spec.clusterIPs", addresses);
    Ok(())
}

fn allocate_ports(
    service: &mut Value,
    key: &Key,
    allocator: &mut Allocator,
) -> Result<(), Refused> {
    let mut own: Vec<u16> = Vec::new();
    let given = fields::list(service, "spec.ports").iter().map(|port| number(port, "nodePort"));
    let given: Vec<i64> = given.collect();
    for (nth, port) in given.iter().enumerate().filter(|(_, port)| **port != 0) {
        let field = format!("spec.ports[{nth}].nodePort");
        own.push(node_port(field, *port, key, allocator)?);
    }
    let health = number(service, "spec.healthCheckNodePort");
    if health != 0 && needs_health_check_port(service) {
        own.push(node_port("spec.healthCheckNodePort".to_owned(), health, key, allocator)?);
    }
    let next = |allocator: &mut Allocator, own: &mut Vec<u16>| match allocator.next_node_port(own) {
        Some(port) => {
            own.push(port);
            Ok(port)
        }
        None => {
            let message = "failed to allocate a nodePort: range is full";
            Err(Refused::Status(Status::new(Reason::InternalError, message)))
        }
    };
    if needs_node_ports(service) {
        // One port number under two protocols shares its node port.
        let mut shared: Vec<(i64, i64, String)> = fields::list(service, "spec.ports")
            .iter()
            .filter(|port| number(port, "nodePort") != 0)
            .map(|port| {
                (number(port, "port"), number(port, "nodePort"), text(port, "protocol").to_owned())
            })
            .collect();
        for port in fields::list_mut(service, "spec.ports") {
            if number(port, "nodePort") != 0 {
                continue;
            }
            let (wanted, protocol) = (number(port, "port"), text(port, "protocol").to_owned());
            let taken = |node_port: i64| {
                shared.iter().any(|(_, used, by)| *used == node_port && *by == protocol)
            };
            let twin = shared.iter().find(|(port, used, _)| *port == wanted && !taken(*used));
            let chosen = match twin {
                Some((_, node_port, _)) => *node_port,
                None => i64::from(next(allocator, &mut own)?),
            };
            shared.push((wanted, chosen, protocol));
            set(port, "nodePort", chosen);
        }
    }
    if needs_health_check_port(service) && health == 0 {
        let port = next(allocator, &mut own)?;
        set(service, "spec.healthCheckNodePort", port);
    }
    Ok(())
}

fn node_port(field: String, port: i64, key: &Key, allocator: &Allocator) -> Result<u16, Refused> {
    let number = u16::try_from(port).map_err(|_| Refusal::OutOfRange);
    let held = number.and_then(|port| allocator.may_hold_port(key, port).map(|()| port));
    let why = match held {
        Ok(port) => return Ok(port),
        Err(Refusal::Taken) => "provided port is already allocated".to_owned(),
        Err(Refusal::OutOfRange) => format!(
            "provided port is not in the valid range. The range of valid ports is {}",
            allocator.port_range()
        ),
    };
    Err(vec![Cause::invalid(field, port, why)].into())
}

/// Records in the allocator what a stored Service holds.
pub(crate) fn settle(
    key: &Key,
    old: Option<&Value>,
    new: Option<&Value>,
    allocator: &mut Allocator,
) {
    let held = |service: Option<&Value>| service.map(Held::of).unwrap_or_default();
    allocator.settle(key, &held(old), &held(new));
}
