//! The harness inside the lab's namespaces: PID 2.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::mpsc;
use touchstone_case::{NAME_SERVER, Variant};
use touchstone_provider::lab::{Lab, READY_LIMIT};
use touchstone_record::LogWriter;
use touchstone_runner::{Emitter, RunSubject, Settings, Share};
use touchstone_spec::Feature;
use touchstone_sys::adopt;

use crate::job::{Job, Order, log_path};
use crate::live::{Live, Person};
use crate::say::complain;
use crate::subjects::Chosen;
use crate::{doctor, failed, host, keeper, lab};

/// First argument of a process that is the harness inside.
pub(crate) const HARNESS_ARGUMENT: &str = "__harness";

/// What the lab can do beyond any cluster, by the names that cases use in `needs: lab`.
const LAB_PROVIDES: [&str; 6] = ["restart", "pages", "nodes", "cordon", "clients", "servers"];

/// Clusters at a time on a second kernel, which starts programs many times more slowly.
const SECOND_CLUSTERS: usize = 2;

/// How long a cluster on a second kernel may take to answer everywhere.
const SECOND_READY_LIMIT: Duration = Duration::from_secs(180);

/// How many times as long proxies on a second kernel may take for a change: some start dozens of
/// programs for each.
const SECOND_SLOWNESS: u32 = 3;

/// Exit code of a second Ctrl-C.
const INTERRUPTED: i32 = 130;

/// The number of the descriptor with the order, if this process is the harness inside.
pub(crate) fn order(args: impl IntoIterator<Item = OsString>) -> Option<i32> {
    let mut args = args.into_iter().skip(1);
    let first = args.next()?;
    if first != HARNESS_ARGUMENT {
        return None;
    }
    args.next()?.to_str()?.parse().ok()
}

/// Carries out the order and gives the exit code of the process.
pub(crate) fn main(number: i32) -> ExitCode {
    match obey(number) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            complain(&format!("{error:#}"));
            ExitCode::from(failed::HARNESS)
        }
    }
}

fn obey(number: i32) -> Result<u8> {
    let order = Order::from_fd(adopt(number).context("the harness has no order")?)?;
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("failed to start the async runtime")?;
    let code = runtime.block_on(async {
        match order {
            Order::Run(job) => run(&job).await,
            Order::Kernel(job) => keeper::keep(&job).await,
            Order::Lab(job) => lab::inside(&job).await,
            Order::Doctor(wanting) => Ok(doctor::inside(&wanting)),
        }
    });
    // Threads that live in namespaces end with the process.
    runtime.shutdown_background();
    code
}

async fn run(job: &Job) -> Result<u8> {
    let variants = job.chosen().map_err(|errors| anyhow!("{}", errors.render()))?;
    let reopened = job.subjects.iter().map(|subject| Ok((subject, subject.reopen()?)));
    let reopened: Vec<_> = reopened.collect::<Result<_>>()?;
    let needs = |chosen: &Chosen| chosen.selection.subject.needs(&chosen.selection.mode);
    let all_needs = reopened.iter().flat_map(|(_, (chosen, _))| needs(chosen)).collect();
    let provided = provided(&variants, &all_needs, job.name_server.is_some());
    let lacking = reopened.iter().map(|(subject, (chosen, _))| {
        let lacking = needs(chosen).into_iter().find(|need| !provided.contains(*need));
        lacking.map(|need| format!("{} needs {need}", subject.record.id))
    });
    // Where one of several can run, the results of the others say what they lack.
    if let Some(lacking) = lacking.collect::<Option<Vec<String>>>() {
        bail!("nothing can run on {}: {}", host::release(), lacking.join(", "));
    }
    let (emitter, live) = match &job.line {
        None => {
            let log = LogWriter::create(&log_path(&job.out)).context(
                "the run cannot be recorded; free some space or choose another folder with --out",
            )?;
            let (tell, events) = mpsc::unbounded_channel();
            let live = Live::start(events, job.variants.len() * job.subjects.len());
            (Emitter::new(log, Some(tell)), Some(live))
        }
        // Whoever keeps the log shows it as well.
        Some(path) => {
            let line = File::options().write(true).open(path);
            let line = line.with_context(|| format!("failed to open {}", path.display()))?;
            (Emitter::new(LogWriter::onto(line, path), None), None)
        }
    };
    let second = job.kernel.is_some();
    let mut subjects = Vec::new();
    for (subject, (chosen, resolved)) in reopened {
        subjects.push(RunSubject {
            provided: provided.clone(),
            needs: needs(&chosen).into_iter().map(str::to_owned).collect(),
            record: subject.record.clone(),
            features: Arc::new(
                subject.record.features.iter().filter_map(|f| Feature::new(f).ok()).collect(),
            ),
            provider: Arc::new(Lab {
                selection: Arc::clone(&chosen.selection),
                resolved,
                lies: job.defects.lies()?,
                without_proxy: job.defects.without_proxy.clone(),
                sabotage: job.defects.sabotage.clone(),
                logs: Some(job.logs()),
                name_server: job.name_server.clone(),
                ready_limit: if second { SECOND_READY_LIMIT } else { READY_LIMIT },
                person: None,
            }),
            known: subject.known.clone(),
        });
    }
    let person = Arc::new(Person::new(job.pause, job.keep));
    let clusters = second.then_some(SECOND_CLUSTERS);
    let slowness = if second { SECOND_SLOWNESS } else { 1 };
    let (index, of) = job.share;
    let share = Share::new(index, of).context("the order names a part that the plan has not")?;
    let settings = Settings { jobs: job.jobs, clusters, slowness, seed: job.seed, share, person };
    let code = drive(job, "lab", &variants, &subjects, &settings, &emitter).await;
    if let Some(live) = live {
        live.finish().await;
    }
    code
}

/// What the lab can do on this machine for these cases, and for subjects with these needs.
fn provided(variants: &[Variant], needs: &BTreeSet<&str>, names: bool) -> BTreeSet<String> {
    let mut wanted: BTreeSet<&str> = variants.iter().flat_map(Variant::host_needs).collect();
    wanted.extend(needs);
    let lacking = touchstone_provider::lab::lacking(&wanted);
    let has = wanted.into_iter().filter(|need| !lacking.contains_key(*need));
    let names = names.then_some(NAME_SERVER);
    LAB_PROVIDES.into_iter().chain(names).chain(has).map(str::to_owned).collect()
}

/// Runs a plan from its first event to its last, or to an interruption.
pub(crate) async fn drive(
    job: &Job,
    provider: &str,
    variants: &[Variant],
    subjects: &[RunSubject],
    settings: &Settings,
    emitter: &Emitter,
) -> Result<u8> {
    use touchstone_record::Event;
    emitter.emit(crate::live::started(job, provider, variants));
    let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let signal = {
        let mut whole = pin!(touchstone_runner::run(variants, subjects, settings, emitter));
        loop {
            tokio::select! {
                spent = &mut whole => {
                    emitter.emit(Event::RunEnded {
                        harness_cpu_ms: crate::live::own_cpu_ms(),
                        proxy_cpu_ms: u64::try_from(spent.as_millis()).unwrap_or(u64::MAX),
                    });
                    break None;
                }
                // With `--keep` it ends the keeping, and the run comes to its own end.
                _ = interrupt.recv() => if !settings.person.let_go() { break Some("SIGINT") },
                _ = terminate.recv() => break Some("SIGTERM"),
            }
        }
    };
    if let Some(signal) = signal {
        // A second one ends the process at once: PID 1 follows, and everything with it.
        tokio::spawn(async move {
            interrupt.recv().await;
            std::process::exit(INTERRUPTED);
        });
        emitter.emit(Event::Interrupted { signal: signal.to_owned() });
    }
    match emitter.take_failure() {
        None => Ok(0),
        Some(error) => Err(anyhow::Error::new(error).context(
            "the run was stopped; what was recorded so far is kept, free some space and run again",
        )),
    }
}

/// Thousands of probes are in flight at a time.
fn raise_descriptor_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // A lower limit only shows where a socket cannot be opened, and there it is named.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
