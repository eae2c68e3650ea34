//! The run in figures.

use touchstone_record::HostFacts;
use touchstone_spec::Verdict;

use crate::table::sum;
use crate::words::{counts, many, short, span};
use crate::{Cluster, Quantiles, Report, clean, exit_code};

/// The run in one sentence, without its time.
pub(crate) fn sentence(report: &Report) -> String {
    let all = sum(report);
    let results: u64 = all.values().sum();
    let subjects = u64::try_from(report.totals.len()).unwrap_or(u64::MAX);
    let not_run = all.get(&Verdict::NotRun).copied().unwrap_or(0);
    let ran = results - not_run;
    let of = if not_run > 0 { format!(" of {results}") } else { String::new() };
    let noun = if results == 1 { "result" } else { "results" };
    format!("{ran}{of} {noun} on {}: {}", many(subjects, "subject"), counts(&all))
}

/// How the run ends, as a sentence with its number.
pub(crate) fn ending(report: &Report) -> String {
    let code = exit_code(report);
    format!("exit code {}: {}", code.code(), code.meaning())
}

/// Labelled figures: times, what they were spent on, clusters, plan.
pub(crate) fn figures(report: &Report) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    let figures = &report.figures;
    if let Some(share) = figures.harness_share {
        lines.push((
            "Time",
            format!(
                "{} in all; cases side by side {}: waiting for the proxy {}, the harness itself \
                 {} ({:.1} %), of it sampling {}",
                span(figures.total_ms),
                span(figures.cases_ms),
                span(figures.waited_ms),
                span(figures.harness_ms),
                share * 100.0,
                span(figures.sampling_ms),
            ),
        ));
    }
    if let (Some(harness), Some(proxy)) = (figures.harness_cpu_ms, figures.proxy_cpu_ms) {
        lines.push(("CPU", format!("harness {}, proxies {}", span(harness), span(proxy))));
    }
    for totals in &report.totals {
        let settling = &totals.settling;
        let mut parts = Vec::new();
        if let Some(times) = &settling.first_right {
            parts.push(format!("first right {}", quantiles(times)));
        }
        if let Some(times) = &settling.settled {
            parts.push(format!("settled {}", quantiles(times)));
        }
        if settling.unsettled > 0 {
            parts.push(format!("{} never settled", many(settling.unsettled, "step")));
        }
        if settling.untimed > 0 {
            parts
                .push(format!("{} made before proxies, not timed", many(settling.untimed, "step")));
        }
        if !parts.is_empty() {
            let subject = clean::line(&totals.subject);
            let parts = parts.join("; ");
            lines.push(("Settle", format!("{subject}: {parts} (median, 9 in 10, longest)")));
        }
    }
    if let Some(slowest) = report.clusters.iter().max_by_key(|cluster| start(cluster)) {
        lines.push(("Clusters", clusters(report, slowest)));
    }
    if let Some(run) = &report.run {
        let cases = u64::try_from(report.plan.len()).unwrap_or(u64::MAX);
        lines.push((
            "Plan",
            format!(
                "{} of {}, seed {}; {}, {} judged{}",
                clean::line(&short(&run.digest)),
                many(cases, "case"),
                run.seed,
                many(figures.probes, "probe"),
                many(figures.cells, "cell"),
                match figures.strays {
                    0 => String::new(),
                    strays => format!(", {} that did not recur", many(strays, "lost answer")),
                },
            ),
        ));
        if let Some(planted) = crate::again::planted(&run.command) {
            lines.push(("Planted", planted));
        }
        let host = &run.host;
        lines.push((
            "On",
            format!(
                "{}, kernel {}{}, {}, {}, {} MiB{}; touchstone {}",
                clean::line(&run.provider),
                clean::line(&host.kernel),
                second_kernel(host),
                clean::line(&host.arch),
                many(u64::try_from(host.cpus).unwrap_or(u64::MAX), "CPU"),
                host.memory_mib,
                if host.user_namespace { ", user namespace" } else { "" },
                clean::line(&run.version),
            ),
        ));
    }
    lines
}

/// Where the kernel comes from, if it is not the machine's own, and what it has of what many lack.
fn second_kernel(host: &HostFacts) -> String {
    let Some(second) = &host.second_kernel else { return String::new() };
    let has = |option: &str, name: &'static str| {
        host.options.iter().any(|known| known == option).then_some(name)
    };
    let has: Vec<&str> =
        [has("IP_VS", "IPVS"), has("IP_SCTP", "SCTP")].into_iter().flatten().collect();
    let with = if has.is_empty() { String::new() } else { format!(" with {}", has.join(" and ")) };
    let copies = match second.copies {
        1 => String::new(),
        copies => format!(", {copies} of it side by side"),
    };
    format!(
        "{with}{copies} ({}, {}) in that of the machine, {}",
        clean::line(&second.found),
        clean::line(&short(&second.digest)),
        clean::line(&second.machine)
    )
}

fn quantiles(times: &Quantiles) -> String {
    format!("{}, {}, {}", span(times.p50), span(times.p90), span(times.max))
}

fn clusters(report: &Report, slowest: &Cluster) -> String {
    let started = u64::try_from(report.clusters.len()).unwrap_or(u64::MAX);
    let Some(took) = start(slowest) else {
        return format!("{}, none ready", many(started, "cluster"));
    };
    let parts: Vec<String> = ordered(slowest)
        .iter()
        .map(|(part, ms)| format!("{} {}", clean::line(part), span(*ms)))
        .collect();
    let ready = report.clusters.iter().filter(|cluster| cluster.ready_ms.is_some()).count();
    format!(
        "{}, {ready} ready; slowest {} in {}: {}",
        many(started, "cluster"),
        clean::line(&slowest.cluster),
        span(took),
        parts.join(", ")
    )
}

/// Parts of a start in the order in which they happen, others after them.
fn ordered(cluster: &Cluster) -> Vec<(&str, u64)> {
    let known = ["api", "topology", "proxy", "canary"];
    let mut parts: Vec<(&str, u64)> =
        cluster.took.iter().map(|(part, ms)| (part.as_str(), *ms)).collect();
    parts.sort_by_key(|(part, _)| known.iter().position(|k| k == part).unwrap_or(known.len()));
    parts
}

/// Milliseconds from a cluster's start to its first answers everywhere.
fn start(cluster: &Cluster) -> Option<u64> {
    let ready = cluster.ready_ms?;
    Some(match cluster.starting_ms {
        Some(starting) => ready.saturating_sub(starting),
        None => cluster.took.values().sum(),
    })
}
