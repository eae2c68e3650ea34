//! `touchstone run --provider cluster --dry-run`: what a run would create, as text.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use touchstone_case::Variant;
use touchstone_provider::real::{self, Preview};
use touchstone_spec::{Excuse, SCTP_NEED};

use super::{addresses, count, harm, image, kubeconfig, nodes, runtime};
use crate::args::ClusterOptions;
use crate::failed::Failed;
use crate::job::SubjectJob;
use crate::say::say;

/// What a run would create, as text.
pub(crate) fn dry_run(
    options: &ClusterOptions,
    run: &str,
    variants: &[Variant],
    subjects: &[SubjectJob],
) -> Result<u8, Failed> {
    let kubeconfig = kubeconfig(options.kubeconfig.as_deref())?;
    let image = match (&options.agent_image, image()) {
        (Some(reference), _) => reference.clone(),
        (None, image) => image?.reference,
    };
    let wanted = (nodes(variants), addresses(variants));
    let seen = real::preview(&kubeconfig, harm(options), run, wanted.0, wanted.1);
    let preview = runtime()?.block_on(seen).map_err(Failed::harness)?;
    let features: BTreeSet<&str> =
        subjects.iter().flat_map(|one| &one.record.features).map(String::as_str).collect();
    let lacks = |variant: &Variant| {
        let lacking = variant.features().into_iter().find(|one| !features.contains(one.name()));
        let lacking = lacking.map(|feature| Excuse::LacksFeature(feature).to_string());
        lacking.or_else(|| preview.lacks(&variant.asks()))
    };
    say(&text(&preview, &image, &sorted(variants, lacks)));
    Ok(0)
}

/// Cases by whether they can run.
#[derive(Default)]
struct Sorted<'a> {
    /// Variants of each case that can.
    run: BTreeMap<&'a str, Vec<&'a Variant>>,
    /// How many of those speak SCTP.
    of_sctp: usize,
    /// How many cannot, by the reason.
    kept_out: BTreeMap<String, usize>,
}

fn sorted(variants: &[Variant], lacks: impl Fn(&Variant) -> Option<String>) -> Sorted<'_> {
    let mut sorted = Sorted::default();
    for variant in variants {
        // What kernels of nodes have, only agents find out.
        let (sctp, others): (Vec<_>, Vec<_>) =
            variant.host_needs().into_iter().partition(|need| *need == SCTP_NEED);
        match lacks(variant).or_else(|| others.first().map(|need| (*need).to_owned())) {
            Some(why) => *sorted.kept_out.entry(why).or_default() += 1,
            None => {
                sorted.run.entry(variant.case().id().as_str()).or_default().push(variant);
                sorted.of_sctp += sctp.len();
            }
        }
    }
    sorted
}

fn text(preview: &Preview, image: &str, cases: &Sorted<'_>) -> String {
    // Writing to a string does not fail.
    let mut text = format!("namespace {}\n  label {}\n", preview.home, preview.label);
    for (node, real) in &preview.nodes {
        let _ = write!(
            text,
            "  pod client-{node} on {real}: {image}\n  pod host-{node} on {real}: {image}, in the \
             network of the node\n"
        );
    }
    let _ = writeln!(
        text,
        "  pods pod-NODE-NUMBER as cases need endpoints, {} on each node at most\n  Service and \
         EndpointSlices canary-…",
        preview.pods_per_node
    );
    for (case, variants) in &cases.run {
        let end = touchstone_case::namespace_end(case);
        let each = match variants.len() {
            1 => String::new(),
            more => format!(", one for each of {more} variants"),
        };
        let _ = writeln!(text, "namespace {}…{end}{each}", preview.of_cases);
        for ((service, node), pods) in deployments(variants) {
            let real = preview.nodes.get(&node).unwrap_or(&node);
            let pods = count(pods, "pod");
            let _ = writeln!(text, "  Deployment {service}-{node} of {pods} at most on {real}");
        }
    }
    let ports = preview.node_ports;
    let _ = writeln!(
        text,
        "in each namespace of a case: its Services and EndpointSlices, those of Services with a \
         Deployment by the cluster's controllers, and one of each as a marker for each step\n\
         reserved: cluster IPs of {}, node ports {} to {}",
        preview.blocks.join(" and "),
        ports.0,
        ports.1,
    );
    for remark in &preview.remarks {
        let _ = writeln!(text, "{remark}");
    }
    let run: usize = cases.run.values().map(Vec::len).sum();
    let kept_out: usize = cases.kept_out.values().sum();
    if kept_out > 0 {
        let _ = writeln!(text, "{} cannot run here:", count(kept_out, "case"));
        let mut reasons: Vec<(&String, &usize)> = cases.kept_out.iter().collect();
        reasons.sort_by_key(|(_, number)| std::cmp::Reverse(**number));
        for (why, number) in reasons {
            let _ = writeln!(text, "  {number}: {why}");
        }
    }
    let sctp = match cases.of_sctp {
        0 => String::new(),
        some => format!(", {some} of them only where the kernel of every node has SCTP"),
    };
    let _ = write!(text, "{} can run here{sctp}; nothing was created", count(run, "case"));
    text
}

/// Service and node of each Deployment of a case, with the pods that it has at most.
fn deployments(variants: &[&Variant]) -> BTreeMap<(String, String), usize> {
    let mut counts = BTreeMap::new();
    // All variants of a case want the same pods.
    for wish in variants.first().map(|variant| variant.pods()).unwrap_or_default() {
        let service = wish.key.split('/').next().unwrap_or_default().to_owned();
        if wish.deployed {
            *counts.entry((service, wish.node)).or_default() += 1;
        }
    }
    counts
}
