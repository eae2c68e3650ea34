//! What a person sees while a run goes on.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use indicatif::{ProgressBar, ProgressStyle};
use nix::sys::resource::{UsageWho, getrusage};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::Mutex;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use touchstone_case::{Variant, digest};
use touchstone_record::{Ended, Event, FORMAT, RunEvent};
use touchstone_report::{clean, live};
use touchstone_runner::{FLOWS_GO, PROXY_STAYS_UP, RULES_GO, planned};
use touchstone_spec::Verdict;
use touchstone_verdict::FALSE_ALARM_RATE;

use crate::host;
use crate::job::Job;
use crate::lab::{forget_places, remember_places};
use crate::say::note;

/// Results that every run has besides those of its cases.
pub(crate) const OF_EVERY_RUN: [&str; 3] = [PROXY_STAYS_UP, RULES_GO, FLOWS_GO];

/// Shows the run's events until it is over.
pub(crate) struct Live {
    task: JoinHandle<()>,
}

impl Live {
    /// Starts to show events of a run with that many cells: one live line on a terminal, a line
    /// per finished case elsewhere.
    pub(crate) fn start(mut events: UnboundedReceiver<RunEvent>, cells: usize) -> Live {
        let terminal = std::io::stderr().is_terminal();
        let task = tokio::spawn(async move {
            let bar = terminal.then(|| line(cells));
            let mut waiting: BTreeMap<String, String> = BTreeMap::new();
            let mut wrong = 0;
            while let Some(event) = events.recv().await {
                match (&bar, &event.event) {
                    (Some(bar), Event::Waiting { case, what, .. }) => {
                        waiting.insert(case.clone(), what.clone());
                        bar.set_message(message(wrong, &waiting));
                    }
                    (Some(bar), Event::CaseEnded(ended)) => {
                        waiting.remove(&ended.case);
                        wrong += u64::from(is_bad(ended.verdict));
                        if is_bad(ended.verdict)
                            && let Some(text) = live::line(&event)
                        {
                            bar.println(text);
                        }
                        // A second attempt, and what every run has besides, are none of the plan.
                        if ended.attempt == 1 && !OF_EVERY_RUN.contains(&ended.case.as_str()) {
                            bar.inc(1);
                        }
                        bar.set_message(message(wrong, &waiting));
                    }
                    (Some(bar), Event::ClusterStarting { subject, .. }) => {
                        bar.set_message(format!(
                            "starting a cluster with {}",
                            clean::line(subject)
                        ));
                    }
                    (bar, Event::ProxyExited { node, status, by_design, last_lines, .. }) => {
                        let design = if by_design.is_some() { " by design" } else { "" };
                        let mut text =
                            format!("the proxy on {node} ended{design}: {}", clean::line(status));
                        if by_design.is_none() {
                            for line in last_lines {
                                text.push_str(&format!("\n    {}", clean::line(line)));
                            }
                        }
                        match bar {
                            Some(bar) => bar.println(text),
                            None => note(&text),
                        }
                    }
                    (None, _) => {
                        if let Some(text) = live::line(&event) {
                            note(&text);
                        }
                    }
                    (Some(_), _) => {}
                }
            }
            if let Some(bar) = bar {
                bar.finish_and_clear();
            }
        });
        Live { task }
    }

    /// Shows what is left; ends when no emitter is left, or soon after.
    pub(crate) async fn finish(self) {
        // Emitters in tasks that were cut off by an interruption may never be dropped.
        let _ = tokio::time::timeout(Duration::from_millis(200), self.task).await;
    }
}

fn line(cells: usize) -> ProgressBar {
    let bar = ProgressBar::new(cells as u64);
    let style = ProgressStyle::with_template("{elapsed:>4} {bar:24} {pos}/{len}  {wide_msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn message(wrong: u64, waiting: &BTreeMap<String, String>) -> String {
    let wrong = if wrong > 0 { format!("{wrong} not passed · ") } else { String::new() };
    match waiting.first_key_value() {
        Some((case, what)) => format!("{wrong}{case} waits for {what} ({} running)", waiting.len()),
        None => wrong,
    }
}

fn is_bad(verdict: Verdict) -> bool {
    match verdict {
        Verdict::Fail
        | Verdict::Error
        | Verdict::Inconclusive
        | Verdict::UnexpectedPass
        | Verdict::NotRun => true,
        Verdict::Pass | Verdict::Survey | Verdict::Unsupported | Verdict::KnownFailure => false,
    }
}

/// The first event of a run.
pub(crate) fn started(job: &Job, provider: &str, variants: &[Variant]) -> Event {
    Event::RunStarted {
        format: FORMAT.to_owned(),
        run: job.run.clone(),
        started: job.started.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        command: job.command.clone(),
        seed: job.seed,
        subjects: job.subjects.iter().map(|subject| subject.record.clone()).collect(),
        plan: planned(variants),
        digest: digest(variants),
        false_alarm_rate: FALSE_ALARM_RATE,
        host: host::facts(job),
        provider: provider.to_owned(),
        strict: job.strict,
        fail_on: job.fail_on,
    }
}

/// CPU time of this process so far, user and system, in milliseconds.
pub(crate) fn own_cpu_ms() -> u64 {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return 0 };
    let ms = |t: nix::sys::time::TimeVal| {
        u64::try_from(t.tv_sec() * 1000 + t.tv_usec() / 1000).unwrap_or(0)
    };
    ms(usage.user_time()) + ms(usage.system_time())
}

/// The person at the terminal, who may want to look into a cluster.
pub(crate) struct Person {
    pause: bool,
    /// Whether clusters are kept until the person lets go of them.
    keep: watch::Sender<bool>,
    /// How many are.
    kept: AtomicUsize,
    one_at_a_time: Mutex<()>,
}

impl Person {
    pub(crate) fn new(pause: bool, keep: bool) -> Person {
        Person {
            pause,
            keep: watch::Sender::new(keep),
            kept: AtomicUsize::new(0),
            one_at_a_time: Mutex::new(()),
        }
    }
}

#[async_trait]
impl touchstone_runner::Person for Person {
    async fn failed(&self, ended: &Ended, how_to_join: Vec<String>) {
        if !self.pause {
            return;
        }
        let _turn = self.one_at_a_time.lock().await;
        remember_places(&how_to_join);
        note(&format!("{} failed on {}:", ended.case, ended.subject));
        for failure in ended.failures.iter().take(3) {
            note(&format!("  {} saw {}", failure.flow, clean::line(&failure.seen.join(", "))));
        }
        note(
            "its cluster is kept as it is: `touchstone lab shell n1` looks into it; Enter goes on",
        );
        let mut line = String::new();
        // Without a terminal there is nobody to wait for.
        let _ = BufReader::new(tokio::io::stdin()).read_line(&mut line).await;
        forget_places();
    }

    async fn before_close(&self, how_to_join: Vec<String>) {
        let mut keep = self.keep.subscribe();
        if !*keep.borrow() {
            return;
        }
        remember_places(&how_to_join);
        note("the cluster is kept: `touchstone lab shell n1` looks into it; Ctrl-C ends it");
        self.kept.fetch_add(1, Ordering::Relaxed);
        // An error would mean that this very person is gone.
        let _ = keep.wait_for(|keep| !keep).await;
        forget_places();
    }

    fn let_go(&self) -> bool {
        self.keep.send_replace(false) && self.kept.load(Ordering::Relaxed) > 0
    }
}
