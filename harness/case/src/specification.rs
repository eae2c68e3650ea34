//! The specification as readers meet it: behaviours under headings, each with the cases that
//! cover it.

use std::collections::BTreeMap;
use std::sync::Arc;

use globset::GlobBuilder;

use crate::error::nearest;
use crate::{Behaviour, Case, Library};

/// Behaviours that belong together: their ids begin with one of its words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topic {
    /// As a document titles it.
    pub heading: &'static str,
    /// First words of ids, each in one topic only.
    pub words: &'static [&'static str],
}

/// Every topic, in the order in which documents show them.
pub const TOPICS: &[Topic] = &[
    topic("Cluster IPs", &["clusterip"]),
    topic("Hairpin and source addresses", &["hairpin", "snat", "nosnat"]),
    topic("Node ports", &["nodeport"]),
    topic("Node ports on loopback", &["localhost"]),
    topic("Addresses of node ports", &["npa"]),
    topic("Load-balancer addresses", &["lb"]),
    topic("External IPs", &["externalip"]),
    topic("Session affinity", &["affinity"]),
    topic("Health-check node ports", &["hcnp"]),
    topic("Source ranges of load balancers", &["srcrange"]),
    topic("Internal traffic policy", &["itp"]),
    topic("External traffic policy", &["etp"]),
    topic("No usable endpoints", &["noep"]),
    topic("Topology hints", &["topo"]),
    topic("Terminating and unready endpoints", &["term"]),
    topic("EndpointSlices", &["eps"]),
    topic("UDP and connection tracking", &["udp", "tcp", "conntrack", "local"]),
    topic("SCTP", &["sctp"]),
    topic("Ports", &["ports"]),
    topic("Life of a Service", &["life"]),
    topic("Special labels", &["label", "headless"]),
    topic("Dual stack and IPv6", &["ds", "v6"]),
    topic(
        "Restart and resync",
        &["restart", "resync", "mode", "cleanup", "init", "write", "config", "min", "ordering"],
    ),
    topic("Node objects", &["node"]),
    topic("Metrics and health of the proxy", &["hz", "mx"]),
    topic("Churn and scale", &["churn", "scale"]),
    topic("Controllers of the cluster", &["controllers"]),
    topic("IPVS mode only", &["ipvs"]),
    topic("nftables mode only", &["nft"]),
    topic("iptables mode only", &["ipt"]),
    topic(
        "Headless Services, external names and DNS",
        &["hl", "dns", "xn", "apiproxy", "hostport", "pod", "env"],
    ),
];

const fn topic(heading: &'static str, words: &'static [&'static str]) -> Topic {
    Topic { heading, words }
}

impl Topic {
    /// What is left for behaviours of a user's own whose first word no topic has.
    const OTHERS: Topic = topic("Others", &[]);

    /// The topic of a behaviour.
    #[must_use]
    pub fn of(id: &str) -> Topic {
        let word = id.split('-').next().unwrap_or(id);
        TOPICS.iter().find(|topic| topic.words.contains(&word)).copied().unwrap_or(Topic::OTHERS)
    }
}

/// A behaviour with its place in the specification.
#[derive(Debug, Clone)]
pub struct Specified<'a> {
    /// Its id.
    pub id: &'a str,
    /// What it is.
    pub behaviour: &'a Behaviour,
    /// Where documents show it.
    pub topic: Topic,
    /// Cases that cover it, by id.
    pub cases: Vec<&'a Arc<Case>>,
}

/// A name of a behaviour that nothing has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}; {help}", if *.glob { format!("no behaviour matches `{text}`") } else { format!("there is no behaviour `{text}`") })]
pub struct UnknownBehaviour {
    text: String,
    glob: bool,
    help: String,
}

impl Library {
    /// The behaviours that any of some ids or globs names, all of them when there is none; by
    /// topic, then by id.
    ///
    /// # Errors
    /// When a glob or an id names nothing.
    pub fn specification<'a>(
        &'a self,
        patterns: &[String],
    ) -> Result<Vec<Specified<'a>>, UnknownBehaviour> {
        let mut cases: BTreeMap<&str, Vec<&Arc<Case>>> = BTreeMap::new();
        for case in self.cases() {
            for id in case.covers() {
                cases.entry(id).or_default().push(case);
            }
        }
        let mut chosen: BTreeMap<(usize, &str), Specified<'_>> = BTreeMap::new();
        let mut choose = |id: &'a str, behaviour: &'a Behaviour| {
            let topic = Topic::of(id);
            let place = TOPICS.iter().position(|one| *one == topic).unwrap_or(TOPICS.len());
            let cases = cases.get(id).cloned().unwrap_or_default();
            chosen.insert((place, id), Specified { id, behaviour, topic, cases });
        };
        for pattern in patterns {
            let before = self.named(pattern)?;
            before.into_iter().for_each(|(id, behaviour)| choose(id, behaviour));
        }
        if patterns.is_empty() {
            self.behaviours().iter().for_each(|(id, behaviour)| choose(id, behaviour));
        }
        Ok(chosen.into_values().collect())
    }

    fn named(&self, pattern: &str) -> Result<Vec<(&str, &Behaviour)>, UnknownBehaviour> {
        let all = || self.behaviours().iter().map(|(id, behaviour)| (id.as_str(), behaviour));
        let glob = pattern.contains(['*', '?', '[', '{']);
        let unknown = |help: String| UnknownBehaviour { text: pattern.to_owned(), glob, help };
        let matcher = GlobBuilder::new(pattern)
            .build()
            .map_err(|error| unknown(format!("it is no glob: {}", error.kind())))?
            .compile_matcher();
        let found: Vec<_> = all().filter(|(id, _)| matcher.is_match(id)).collect();
        if !found.is_empty() {
            return Ok(found);
        }
        let words = || TOPICS.iter().flat_map(|topic| topic.words).copied();
        let known = || format!("ids begin with {}", words().collect::<Vec<_>>().join(", "));
        let help = if glob {
            let (word, rest) = pattern.split_once('-').unwrap_or((pattern, "*"));
            let near = nearest(word, words()).filter(|near| *near != word);
            near.map(|near| format!("did you mean `{near}-{rest}`?"))
        } else {
            nearest(pattern, all().map(|(id, _)| id)).map(|near| format!("did you mean `{near}`?"))
        };
        Err(unknown(help.unwrap_or_else(known)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn words(ids: impl Iterator<Item = impl AsRef<str>>) -> BTreeSet<String> {
        ids.filter_map(|id| id.as_ref().split('-').next().map(ToOwned::to_owned)).collect()
    }

    #[test]
    fn every_first_word_has_one_heading() {
        let library = Library::bundled().unwrap();
        let listed: Vec<&str> = TOPICS.iter().flat_map(|topic| topic.words).copied().collect();
        let known: BTreeSet<String> = listed.iter().map(|word| (*word).to_owned()).collect();
        assert_eq!(known.len(), listed.len(), "a word is in two topics");
        assert_eq!(known, words(library.behaviours().keys()));
    }

    #[test]
    fn behaviours_come_by_topic_with_their_cases() {
        let library = Library::bundled().unwrap();
        let all = library.specification(&[]).unwrap();
        assert_eq!(all.len(), library.behaviours().len());
        assert_eq!(all[0].topic, TOPICS[0]);
        let basic = all.iter().find(|one| one.id == "clusterip-tcp-basic").unwrap();
        assert!(basic.cases.iter().any(|case| case.id().as_str() == "cluster-ip/basic"));
        let some = ["ds-*".to_owned(), "clusterip-tcp-basic".to_owned()];
        let some = library.specification(&some).unwrap();
        assert_eq!(words(some.iter().map(|one| one.id)).len(), 2);
        assert_eq!(some[0].id, "clusterip-tcp-basic", "topics decide the order");
    }

    #[test]
    fn unknown_names_come_with_a_suggestion() {
        let library = Library::bundled().unwrap();
        let error = |text: &str| {
            let found = library.specification(&[text.to_owned()]).map(|found| found.len());
            found.unwrap_err().to_string()
        };
        assert_eq!(
            error("clusterip-tpc-basic"),
            "there is no behaviour `clusterip-tpc-basic`; did you mean `clusterip-tcp-basic`?"
        );
        assert_eq!(
            error("clustrip-*"),
            "no behaviour matches `clustrip-*`; did you mean `clusterip-*`?"
        );
        assert!(error("x").contains("ids begin with clusterip, hairpin"));
        assert!(error("[").contains("it is no glob"));
    }
}
