//! Which cases share a cluster.

use touchstone_case::Variant;
use touchstone_spec::ClusterShape;

/// Lines of rules per family on a shared cluster at a time.
///
/// In a user namespace one netlink transaction has no more than 208 KiB, and a proxy that loads
/// all its rules at once by iptables-nft failed at 557 lines of rules and chains (decision 0006).
pub(crate) const SHARED_RULES: usize = 400;
/// Clusters among which the cases of one shape are divided at most.
const SHARED_CLUSTERS: usize = 3;
/// Lines of rules for which a cluster with fewer nodes is worth its start.
const WORTH_A_CLUSTER: usize = 2_000;
/// Lines of rules for which one more cluster of the same shape is worth its start.
const RULES_PER_CLUSTER: usize = 4_000;
/// Cases for which a part of the plan is worth a shared cluster of its own.
const WORTH_A_PART: usize = 16;
/// Cases that take turns on one cluster at most.
const TURNS: usize = 8;

/// Cases for one cluster.
pub(crate) struct Batch {
    pub(crate) shape: ClusterShape,
    /// Whether no other case may run beside any of them.
    pub(crate) alone: bool,
    pub(crate) variants: Vec<Variant>,
}

/// Groups cases: shared clusters per shape, and clusters on which cases that must be alone take
/// turns, as long as each leaves its cluster as it was (decision 0015). There are enough of them
/// for the parts into which the plan is divided.
pub(crate) fn batches(variants: Vec<Variant>, seed: u64, parts: usize) -> Vec<Batch> {
    let (shared, turns, single) = by_company(variants);
    // Shared clusters first: they have the most to do.
    let shared = into_larger(by_nodes(shared, false), WORTH_A_CLUSTER);
    let only = shared.len() == 1 && turns.is_empty() && single.is_empty();
    let mut batches: Vec<Batch> = shared
        .into_iter()
        .flat_map(|batch| {
            let clusters = worth(&batch, only).max(parts.min(batch.variants.len() / WORTH_A_PART));
            split(batch, clusters, seed)
        })
        .collect();
    batches.extend(by_nodes(turns, true).into_iter().flat_map(|batch| {
        let clusters = batch.variants.len().div_ceil(TURNS);
        split(batch, clusters, seed)
    }));
    batches.extend(single.into_iter().map(by_itself));
    batches
}

/// Groups cases for one cluster that is there for all of them, one group after the other: as few
/// groups as can be, since each waits for its last case, and those of the same settings in a row.
pub(crate) fn in_turn(variants: Vec<Variant>, seed: u64) -> Vec<Batch> {
    let (shared, turns, single) = by_company(variants);
    let mut batches = into_larger(by_nodes(shared, false), usize::MAX);
    batches.extend(into_larger(by_nodes(turns, true), usize::MAX));
    let mut batches: Vec<Batch> =
        batches.into_iter().flat_map(|batch| split(batch, 1, seed)).collect();
    batches.extend(single.into_iter().map(by_itself));
    batches.sort_by_key(|batch| {
        let shape = &batch.shape;
        (!shape.is_plain(), shape.proxy.clone(), shape.network.clone())
    });
    batches
}

/// Cases that others may run beside, those that take turns, and those that have a cluster each.
fn by_company(variants: Vec<Variant>) -> (Vec<Variant>, Vec<Variant>, Vec<Variant>) {
    let (alone, shared): (Vec<_>, Vec<_>) = variants.into_iter().partition(Variant::alone);
    let (turns, single) = alone.into_iter().partition(Variant::leaves_no_trace);
    (shared, turns, single)
}

fn by_itself(variant: Variant) -> Batch {
    Batch { shape: variant.shape(), alone: true, variants: vec![variant] }
}

/// Lines of rules that a case needs at a time; one with more than there is room for runs when it
/// has all of the room.
pub(crate) fn weight(variant: &Variant) -> u32 {
    u32::try_from(variant.weight().min(SHARED_RULES)).unwrap_or(u32::MAX)
}

/// One batch for all cases that want the same but for outside clients, of which it has enough for
/// each of them.
fn by_nodes(variants: Vec<Variant>, alone: bool) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    for variant in variants {
        let shape = variant.shape();
        let outside = shape.outside;
        let alike = |batch: &&mut Batch| ClusterShape { outside, ..batch.shape.clone() } == shape;
        match batches.iter_mut().find(alike) {
            Some(batch) => {
                batch.shape.outside = batch.shape.outside.max(outside);
                batch.variants.push(variant);
            }
            None => batches.push(Batch { shape, alone, variants: vec![variant] }),
        }
    }
    batches
}

/// Moves cases that are not worth the start of another cluster, having too few lines of rules, to
/// the clusters of a larger shape that begins alike.
///
/// The others would cost more there: each node more is a proxy more that reads and writes all of
/// their Services.
fn into_larger(mut batches: Vec<Batch>, worth: usize) -> Vec<Batch> {
    batches.sort_by_key(|batch| std::cmp::Reverse(batch.shape.zones.len()));
    let mut kept: Vec<Batch> = Vec::new();
    for batch in batches {
        let larger = kept.iter_mut().find(|larger| {
            let outside = larger.shape.outside.max(batch.shape.outside);
            batch.shape.fits_into(&ClusterShape { outside, ..larger.shape.clone() })
        });
        match larger {
            Some(larger) if rules(&batch) <= worth => {
                larger.shape.outside = larger.shape.outside.max(batch.shape.outside);
                larger.variants.extend(batch.variants);
            }
            Some(_) | None => kept.push(batch),
        }
    }
    kept
}

/// Lines of rules of all cases of a batch.
fn rules(batch: &Batch) -> usize {
    batch.variants.iter().map(|variant| weight(variant) as usize).sum()
}

/// Among how many clusters its cases are worth being divided. Where nothing else is to be done
/// meanwhile, more than fit on one at a time are worth a second.
fn worth(batch: &Batch, only: bool) -> usize {
    let rules = rules(batch);
    let least = if only && rules > SHARED_RULES { 2 } else { 1 };
    rules.div_ceil(RULES_PER_CLUSTER).clamp(least, SHARED_CLUSTERS)
}

/// Divides the cases of a shape among clusters. The longest come first, so that none of them is
/// started last: a step takes about a second, and so does its traffic. Among equals the seed
/// decides.
fn split(mut batch: Batch, clusters: usize, seed: u64) -> Vec<Batch> {
    batch.variants.sort_by_key(|variant| {
        let steps = &variant.case().body().steps;
        let traffic = steps.iter().filter(|step| step.value.traffic.is_some()).count();
        let seconds = steps.len() as u64 + traffic as u64 + variant.holds().as_secs();
        (std::cmp::Reverse(seconds), mixed(seed, &variant.id()))
    });
    let mut parts: Vec<Batch> = (0..clusters)
        .map(|_| Batch { shape: batch.shape.clone(), alone: batch.alone, variants: Vec::new() })
        .collect();
    for (number, variant) in batch.variants.into_iter().enumerate() {
        parts[number % clusters].variants.push(variant);
    }
    parts
}

/// A number that looks random and depends on nothing but the seed and the text (FNV-1a).
fn mixed(seed: u64, text: &str) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325 ^ seed;
    text.bytes().fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use touchstone_case::Library;

    use super::*;

    fn of(ids: &[&str]) -> Vec<Batch> {
        let library = Library::bundled().expect("the bundled cases parse");
        let variants: Vec<Variant> = library
            .variants()
            .into_iter()
            .filter(|variant| ids.contains(&variant.case().id().as_str()))
            .collect();
        let found: BTreeSet<_> = variants.iter().map(|variant| variant.case().id()).collect();
        assert_eq!(found.len(), ids.len(), "some of {ids:?} are gone");
        batches(variants, 1, 1)
    }

    #[test]
    fn cases_that_leave_no_trace_take_turns() {
        let batches = of(&["external-ips/conflict", "load-balancer/conflict"]);
        assert_eq!(batches.len(), 1);
        assert!(batches.iter().all(|batch| batch.alone && batch.variants.len() == 2));
    }

    #[test]
    fn what_stays_changed_is_nobody_elses_cluster() {
        let batches = of(&["external-ips/conflict", "lifecycle/node-zone-changed"]);
        assert_eq!(batches.len(), 2);
        assert!(batches.iter().all(|batch| batch.alone && batch.variants.len() == 1));
    }

    #[test]
    fn figures_that_count_what_others_did_are_nobody_elses_cluster() {
        let batches = of(&["external-ips/conflict", "metrics/changes"]);
        assert_eq!(batches.len(), 2);
    }

    #[test]
    fn on_one_cluster_settings_change_as_rarely_as_can_be() {
        let library = Library::bundled().expect("the bundled cases parse");
        let variants = library.variants();
        let of_many = batches(variants.clone(), 1, 1);
        let in_turn = in_turn(variants.clone(), 1);
        let cases = |batches: &[Batch]| -> BTreeSet<String> {
            batches.iter().flat_map(|batch| &batch.variants).map(Variant::id).collect()
        };
        assert_eq!(cases(&in_turn), cases(&of_many));
        assert!(in_turn.len() < of_many.len());
        assert!(in_turn.first().is_some_and(|batch| batch.shape.is_plain()));
        let settings: Vec<_> =
            in_turn.iter().map(|batch| (&batch.shape.proxy, &batch.shape.network)).collect();
        let changes = settings.windows(2).filter(|pair| pair[0] != pair[1]).count();
        let kinds: BTreeSet<_> = settings.into_iter().collect();
        assert_eq!(changes + 1, kinds.len());
    }

    #[test]
    fn few_cases_of_fewer_nodes_run_on_the_larger_cluster() {
        let batches = of(&["cluster-ip/basic", "topology/zone-hints"]);
        assert_eq!(batches.len(), 1);
        assert!(batches.iter().all(|batch| !batch.alone && batch.shape.zones.len() == 3));
    }
}
