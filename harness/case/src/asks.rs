//! Questions to the name server: `web.$ns.svc.cluster.local A`, and the answers that rows pin.

use std::collections::BTreeSet;
use std::net::IpAddr;

use touchstone_spec::{
    CLUSTER_DOMAIN, DNS_PORT, Family, FrontendKind, NameAnswer, NameRecord, Protocol, Question,
    RecordType,
};

use crate::goals::Goal;
use crate::grammar::{Expected, PortRef, Target};
use crate::rows::Scene;
use crate::text::Words;
use crate::{At, CaseError, Place};

/// Stands for the case's namespace in names.
const NAMESPACE: &str = "$ns";

/// A question as a row writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    what: What,
    types: Types,
}

/// What a question is about.
#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    /// A name, perhaps with `$ns`.
    Name(String),
    /// The name of this address.
    Address(Target),
}

/// The types that a question asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Types {
    These(BTreeSet<RecordType>),
    /// Addresses of the variant's families.
    OfVariant,
}

impl Asked {
    /// Reads `web.$ns.svc A`, `web A+AAAA`, `web address`, `_p._tcp.web SRV`, `web clusterIP PTR`.
    pub(crate) fn parse(text: &str) -> Result<Asked, Expected> {
        let wrong = |what: &str| Err(Expected(what.to_owned()));
        let Some((what, word)) = text.rsplit_once(' ') else {
            return wrong(
                "a question is a name and a type, `web.$ns.svc A`, or an address and PTR, \
                 `web clusterIP PTR`",
            );
        };
        let types = types(word)?;
        let is_pointer = types == Types::These(BTreeSet::from([RecordType::Ptr]));
        if what.contains(' ') {
            if !is_pointer {
                return wrong("only PTR asks about an address; other types ask about a name");
            }
            return match Target::parse(what)? {
                target @ (Target::Frontend { port: None, .. }
                | Target::Direct { port: None, loopback: false, .. }
                | Target::Unallocated { port: None, .. }) => {
                    Ok(Asked { what: What::Address(target), types })
                }
                Target::Frontend { .. }
                | Target::Direct { .. }
                | Target::Unallocated { .. }
                | Target::Loopback { .. }
                | Target::Node { .. } => wrong("an address has no port: `web clusterIP PTR`"),
                Target::Page { .. } => wrong("a page has no name"),
                Target::ApiServer => wrong("ask for the name: `kubernetes.default A`"),
            };
        }
        if is_pointer && !what.ends_with(".arpa.") {
            return wrong("PTR asks about an address: `web clusterIP PTR`, `web endpoint/a PTR`");
        }
        if !is_question_name(what) {
            return Err(Expected(format!("`{what}` is not a name that can be asked for")));
        }
        Ok(Asked { what: What::Name(what.to_owned()), types })
    }
}

fn types(word: &str) -> Result<Types, Expected> {
    if word == "address" {
        return Ok(Types::OfVariant);
    }
    let mut types = BTreeSet::new();
    for part in word.split('+') {
        let Some(kind) = RecordType::ALL.into_iter().find(|kind| kind.to_string() == part) else {
            return Err(Expected(format!(
                "`{part}` is not a type: A, AAAA, A+AAAA, address, CNAME, SRV or PTR"
            )));
        };
        types.insert(kind);
    }
    let together = types.iter().all(|kind| kind.family().is_some());
    if types.len() > 1 && !together {
        return Err(Expected("only A and AAAA are asked for together".to_owned()));
    }
    Ok(Types::These(types))
}

/// Whether a text can be asked for: labels of letters, digits, `-` and `_`, or `$ns`.
fn is_question_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    !name.is_empty()
        && name.split('.').all(|label| {
            label == NAMESPACE
                || (!label.is_empty()
                    && label.len() <= 63
                    && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_'))
        })
}

/// The name of an address in the reverse domains.
fn reverse(address: IpAddr) -> String {
    match address {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa.")
        }
        IpAddr::V6(ip) => {
            let digits = format!("{:032x}", u128::from(ip));
            let mut name: String = digits.chars().rev().flat_map(|digit| [digit, '.']).collect();
            name.push_str("ip6.arpa.");
            name
        }
    }
}

impl Scene<'_, '_> {
    /// The question of a row, put to the name server's Service over one family.
    pub(crate) fn question(
        &mut self,
        asked: &Asked,
        over: Protocol,
        place: Place,
        family: Family,
    ) -> Result<Goal, CaseError> {
        let types = match &asked.types {
            Types::These(types) => types.clone(),
            Types::OfVariant => {
                self.context.family.families().iter().map(|f| RecordType::of(*f)).collect()
            }
        };
        let shown_types = types.iter().map(ToString::to_string).collect::<Vec<_>>().join("+");
        let (name, shown) = match &asked.what {
            What::Name(name) => (name.replace(NAMESPACE, &self.context.namespace), name.clone()),
            What::Address(target) => {
                let goals = self.goals(target, place, family)?;
                let Some(goal) = goals.into_iter().next() else {
                    return Err(self.context.wrong(place, "there is no such address"));
                };
                (reverse(goal.address), goal.text)
            }
        };
        let by = if over == Protocol::Udp { String::new() } else { format!(" over {over}") };
        let search = Question::search_of(&self.context.namespace);
        Ok(Goal {
            kind: FrontendKind::Name,
            address: self.name_server(place, family)?,
            port: DNS_PORT,
            protocol: over,
            owner: None,
            via: None,
            service: None,
            page: None,
            text: format!("name {shown} {shown_types}{by}"),
            question: Some(Question { name, types, search, then: None }),
        })
    }

    /// `web name`: the client asks for the Service's name as a program does, and connects to what
    /// it was told.
    pub(crate) fn named(
        &mut self,
        service: &str,
        port: Option<&PortRef>,
        place: Place,
        family: Family,
    ) -> Result<Vec<Goal>, CaseError> {
        let address = self.name_server(place, family)?;
        let ports = self.ports_of(service, port, place)?;
        let several = ports.len() > 1 || port.is_some();
        Ok(ports
            .into_iter()
            .map(|(number, protocol, name)| Goal {
                kind: FrontendKind::Name,
                address,
                port: DNS_PORT,
                protocol,
                owner: None,
                via: None,
                page: None,
                text: match (&name, several) {
                    (Some(name), true) if !name.is_empty() => format!("{service} name:{name}"),
                    (Some(_) | None, true) => format!("{service} name:{number}/{protocol}"),
                    (Some(_) | None, false) => format!("{service} name"),
                },
                service: name.map(|name| (service.to_owned(), name)),
                question: Some(Question {
                    name: service.to_owned(),
                    types: BTreeSet::from([RecordType::A, RecordType::Aaaa]),
                    search: Question::search_of(&self.context.namespace),
                    then: Some(number),
                }),
            })
            .collect())
    }

    fn name_server(&self, place: Place, family: Family) -> Result<IpAddr, CaseError> {
        let facts = self.context.book.facts.dns.as_ref();
        let address = facts.and_then(|dns| dns.address(family));
        address.ok_or_else(|| {
            let error = self.context.wrong(place, "the row asks for a name");
            error.help("write `needs: { dns: true }`")
        })
    }

    /// The answers of a row: exactly these records, or one of the answers without any.
    pub(crate) fn answers(
        &mut self,
        words: &Words,
        question: &Question,
        place: Place,
    ) -> Result<BTreeSet<NameAnswer>, CaseError> {
        let (mut records, mut without) = (Vec::new(), BTreeSet::new());
        for At { value: word, place } in &words.0 {
            match word.as_str() {
                "nothing" => drop(without.insert(NameAnswer::Nothing)),
                "nxdomain" => drop(without.insert(NameAnswer::NoSuchName)),
                word => records.extend(self.records(word, question, *place)?),
            }
        }
        match (records.is_empty(), without.is_empty()) {
            (true, true) => {
                let error = self.context.wrong(place, "`answers` is empty");
                Err(error.help("write `answers: nothing` or `answers: nxdomain`"))
            }
            (false, false) => {
                let message = "`nothing` and `nxdomain` do not stand beside records";
                Err(self.context.wrong(place, message))
            }
            (true, false) => Ok(without),
            (false, true) => Ok(BTreeSet::from([NameAnswer::records(records)])),
        }
    }

    /// The records that one word stands for.
    fn records(
        &mut self,
        word: &str,
        question: &Question,
        place: Place,
    ) -> Result<Vec<NameRecord>, CaseError> {
        let is = |kind| question.types.contains(&kind);
        if word.contains(' ') {
            let target =
                Target::parse(word).map_err(|Expected(what)| self.context.wrong(place, what))?;
            return if is(RecordType::Srv) || is(RecordType::Ptr) {
                self.name_of_endpoint(&target, is(RecordType::Srv), place)
            } else {
                self.addresses_of(&target, question, place)
            };
        }
        if let Ok(address) = word.parse::<IpAddr>() {
            return Ok(vec![NameRecord::Address(address)]);
        }
        if !word.contains('.') {
            let message = format!("`{word}` is no answer");
            return Err(self.context.wrong(place, message).help(
                "an answer is `web clusterIP`, `web endpoint/a`, a whole name, an address, \
                 `nothing` or `nxdomain`",
            ));
        }
        let absolute = |name: &str| {
            let name = name.replace(NAMESPACE, &self.context.namespace);
            format!("{}.", name.trim_end_matches('.').to_ascii_lowercase())
        };
        if is(RecordType::Srv) {
            let Some((target, Ok(port))) =
                word.rsplit_once(':').map(|(target, port)| (target, port.parse::<u16>()))
            else {
                let message =
                    "an answer to SRV is a name and a port, `web.$ns.svc.cluster.local:80`";
                return Err(self.context.wrong(place, message));
            };
            return Ok(vec![NameRecord::Service { target: absolute(target), port }]);
        }
        let name = absolute(word);
        Ok(vec![if is(RecordType::Ptr) {
            NameRecord::Pointer(name)
        } else {
            NameRecord::Alias(name)
        }])
    }

    /// Addresses of a frontend or endpoint, of the families that the question asks for.
    fn addresses_of(
        &mut self,
        target: &Target,
        question: &Question,
        place: Place,
    ) -> Result<Vec<NameRecord>, CaseError> {
        let asked: Vec<Family> = question.types.iter().filter_map(|kind| kind.family()).collect();
        let mut found = BTreeSet::new();
        for family in self.context.family.families() {
            if asked.contains(family) {
                let goals = self.goals(target, place, *family)?;
                found.extend(goals.into_iter().map(|goal| goal.address));
            }
        }
        if found.is_empty() {
            return Err(self.context.wrong(place, "it has no address of that type"));
        }
        Ok(found.into_iter().map(NameRecord::Address).collect())
    }

    /// The name that an endpoint has under its Service's; any, where it has no hostname.
    fn name_of_endpoint(
        &mut self,
        target: &Target,
        with_port: bool,
        place: Place,
    ) -> Result<Vec<NameRecord>, CaseError> {
        let Target::Direct { service, endpoint, .. } = target else {
            let error = self.context.wrong(place, "only an endpoint has a name of its own here");
            return Err(error.help("write the name: `web.$ns.svc.cluster.local`"));
        };
        let hostname =
            self.state.find(service, endpoint).and_then(|text| text.value.hostname.get().cloned());
        let host = hostname.as_deref().unwrap_or("*");
        let namespace = &self.context.namespace;
        let name = format!("{host}.{service}.{namespace}.svc.{CLUSTER_DOMAIN}.");
        let family = *self.context.family.families().first().unwrap_or(&Family::V4);
        let ports: BTreeSet<u16> =
            self.goals(target, place, family)?.into_iter().map(|goal| goal.port).collect();
        if !with_port {
            return Ok(vec![NameRecord::Pointer(name)]);
        }
        Ok(ports
            .into_iter()
            .map(|port| NameRecord::Service { target: name.clone(), port })
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, want: &str) {
        let got = match Asked::parse(text) {
            Ok(asked) => format!("{asked:?}"),
            Err(Expected(error)) => format!("error: {error}"),
        };
        assert!(got.contains(want), "{text}: {got}");
    }

    #[test]
    fn questions() {
        check("web.$ns.svc A", "Name(\"web.$ns.svc\"), types: These({A})");
        check("web A+AAAA", "These({A, Aaaa})");
        check("web address", "OfVariant");
        check("_p._tcp.web.$ns.svc.cluster.local. SRV", "These({Srv})");
        check("web clusterIP PTR", "Address(Frontend");
        check("web endpoint/a PTR", "Address(Direct");
        check("web", "error: a question is a name and a type");
        check("web TXT", "error: `TXT` is not a type");
        check("web A+SRV", "error: only A and AAAA are asked for together");
        check("web PTR", "error: PTR asks about an address");
        check("web clusterIP A", "error: only PTR asks about an address");
        check("web clusterIP:80 PTR", "error: an address has no port");
        check("web..a A", "error: `web..a` is not a name");
    }

    #[test]
    fn reverse_names() {
        assert_eq!(reverse(IpAddr::from([10, 96, 0, 20])), "20.0.96.10.in-addr.arpa.");
        let v6 = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.1.0.0.0.0.d.f.ip6.arpa.";
        assert_eq!("fd00:10:96::1".parse().map(reverse), Ok(v6.to_owned()));
    }
}
