//! `touchstone run` as the person's own process: everything that needs the host, before and after
//! the namespaces.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, anyhow};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use touchstone_record::{Event, LogReader, LogWriter};
use touchstone_report::{REPORT_FILES, UNTESTED};
use touchstone_spec::Level;
use touchstone_sys::{EXIT_PROC_REFUSED, Ended, UserNamespace, spawn_contained};

use crate::args::{FailOn, ProviderName, Run};
use crate::failed::{Failed, HARNESS};
use crate::inside::HARNESS_ARGUMENT;
use crate::job::{DefectJob, Job, Order, log_path};
use crate::lab::{OUTER_PID, OUTER_UID};
use crate::say::note;
use crate::selection::{library, pins_agree, select};
use crate::subjects::{name_server_for, prepare};
use crate::{cluster, kernel, kind, report, sim};

/// Folder of runs that were given no other.
const OUT: &str = "touchstone-out";
/// Cases side by side, where a run says nothing else.
const JOBS: usize = 64;

pub(crate) fn run(run: &Run) -> Result<u8, Failed> {
    let library = library(&run.cases.cases)?;
    let variants = select(&library, &run.cases)?;
    pins_agree(&variants)?;
    let defects = DefectJob::from(&run.defects);
    defects.lies().map_err(Failed::usage)?;
    let cases = variants.iter().map(|variant| variant.case().id().as_str()).collect();
    defects.cases_run(&cases).map_err(Failed::usage)?;
    let nodes = variants.iter().flat_map(|variant| variant.shape().node_names()).collect();
    defects.nodes_exist(&nodes).map_err(Failed::usage)?;
    cluster::check(run)?;
    kind::check(run)?;
    let started = OffsetDateTime::now_utc();
    let seed = run.seed.unwrap_or_else(seed_from_clock);
    let mut subjects = match run.provider {
        ProviderName::Lab => prepare(&run.subjects, &variants)?,
        ProviderName::Cluster | ProviderName::Kind => {
            cluster::subjects(&run.subjects.subjects, &run.subjects.folders)?
        }
        ProviderName::Sim => vec![sim::subject()],
    };
    let name_server = match run.provider {
        ProviderName::Lab => name_server_for(&variants),
        ProviderName::Cluster | ProviderName::Kind | ProviderName::Sim => None,
    };
    let kernel = kernel::choose(run)?;
    let name = run_name(started, seed)?;
    if run.cluster.dry_run {
        return cluster::dry_run(&run.cluster, &name, &variants, &subjects);
    }
    let target = match run.provider {
        ProviderName::Cluster => Some(cluster::Target::of(&run.cluster)?),
        ProviderName::Lab | ProviderName::Kind | ProviderName::Sim => None,
    };
    let wish = match (run.provider, subjects.as_slice()) {
        (ProviderName::Kind, [subject]) => Some(kind::Wish::of(run, &name, &variants, subject)?),
        (ProviderName::Kind | ProviderName::Lab | ProviderName::Cluster | ProviderName::Sim, _) => {
            None
        }
    };
    if let (Some(wish), [subject]) = (&wish, subjects.as_mut_slice()) {
        subject.record.digest = wish.digest().map(str::to_owned);
    }
    for subject in subjects.iter().filter(|subject| subject.record.untested) {
        note(&format!("  {}: {UNTESTED}", subject.record.id));
    }
    let out = make_folder(run.out.as_deref(), &name)?;
    let mut command: Vec<String> = std::env::args().collect();
    if let (Some(target), None) = (&target, &run.cluster.kubeconfig) {
        // It came from the environment, which whoever repeats the run may not have.
        command.extend(["--kubeconfig".to_owned(), target.kubeconfig.display().to_string()]);
    }
    let job = Job {
        run: name,
        out: out.clone(),
        variants: variants.iter().map(touchstone_case::Variant::id).collect(),
        case_dirs: absolute(&run.cases.cases)?,
        subjects,
        jobs: run.jobs.unwrap_or(match (run.provider, &kernel) {
            (ProviderName::Cluster, _) => cluster::JOBS,
            (ProviderName::Kind, _) => cluster::KIND_JOBS,
            (ProviderName::Lab, Some(_)) => kernel::JOBS,
            (ProviderName::Lab | ProviderName::Sim, _) => JOBS,
        }),
        seed,
        command,
        strict: run.strict,
        fail_on: match run.fail_on {
            FailOn::Must => Level::Must,
            FailOn::Should => Level::Should,
            FailOn::May => Level::May,
        },
        pause: run.pause_on_failure,
        keep: run.keep,
        user_namespace: !run.no_userns,
        name_server,
        defects,
        started: started.format(&Rfc3339).map_err(Failed::harness)?,
        kernel: kernel.as_ref().map(kernel::record),
        share: (0, 1),
        line: None,
    };
    match (run.provider, &kernel) {
        (ProviderName::Sim, _) => sim::run(&job)?,
        (ProviderName::Cluster, _) => {
            if let Some(target) = &target {
                cluster::run(&job, target)?;
            }
        }
        (ProviderName::Kind, _) => {
            if let Some(wish) = &wish {
                kind::run(&job, wish)?;
            }
        }
        (ProviderName::Lab, None) => in_lab(&job, &Order::Run(job.clone()))?,
        (ProviderName::Lab, Some(kernel)) => {
            kernel::serves(kernel, &job)?;
            let order = kernel::job(kernel, run.kernel_memory, &job)?;
            in_lab(&order.run, &Order::Kernel(order.clone()))?;
        }
    }
    report::show(&out)
}

/// Runs the job inside, and mends the log if the harness did not come to its end.
fn in_lab(job: &Job, order: &Order) -> Result<(), Failed> {
    let ended = contained(order, job.user_namespace)?;
    let log = log_path(&job.out);
    let whole = LogReader::read(&log)
        .ok()
        .is_some_and(|events| events.iter().any(|event| event.event.ends_a_run()));
    if whole {
        return Ok(());
    }
    let why = match ended {
        Ended::Exited(EXIT_PROC_REFUSED) => {
            "the lab could not be entered: see the message above".to_owned()
        }
        Ended::Exited(HARNESS) => {
            "the run did not come to its end: see the message above".to_owned()
        }
        // As PID 1 tells it.
        Ended::Exited(code @ 129..) => format!("the harness was killed by signal {}", code - 128),
        Ended::Exited(code) => format!("the harness ended early, with status {code}"),
        Ended::Killed(signal) => format!("the harness was killed by signal {signal}"),
    };
    if LogReader::read(&log).is_err() {
        // Nothing was recorded, so there is nothing to report on.
        return Err(Failed::harness(anyhow!(why)));
    }
    note(&format!("error: {why}; what was recorded so far is kept"));
    let writer = LogWriter::append(&log).map_err(Failed::harness)?;
    writer.write(Event::HarnessError { message: why }).map_err(Failed::harness)?;
    Ok(())
}

/// Starts the harness inside new namespaces and waits for its end.
pub(crate) fn contained(order: &Order, user_namespace: bool) -> Result<Ended, Failed> {
    contained_with(order, user_namespace, &[])
}

/// The same, handing down more descriptors.
pub(crate) fn contained_with(
    order: &Order,
    user_namespace: bool,
    keep: &[std::os::fd::BorrowedFd<'_>],
) -> Result<Ended, Failed> {
    let file = order.to_file().map_err(Failed::harness)?;
    let mut handed = vec![file.as_fd()];
    handed.extend_from_slice(keep);
    let argv = [
        std::env::args_os().next().unwrap_or_else(|| "touchstone".into()),
        HARNESS_ARGUMENT.into(),
        file.as_fd().as_raw_fd().to_string().into(),
    ];
    let mut env: Vec<_> = std::env::vars_os().collect();
    extend_path(&mut env);
    env.push((OUTER_PID.into(), std::process::id().to_string().into()));
    env.push((OUTER_UID.into(), nix::unistd::geteuid().to_string().into()));
    let user = if user_namespace { UserNamespace::New } else { UserNamespace::Keep };
    if !user_namespace && !nix::unistd::geteuid().is_root() {
        return Err(Failed::usage(anyhow!("--no-userns needs root")));
    }
    let mut child = spawn_contained(&argv, &env, user, &handed).map_err(|error| {
        Failed::harness(
            anyhow::Error::new(error)
                .context("the lab could not be entered; `touchstone doctor` looks for the reason"),
        )
    })?;
    child.wait_forwarding().map_err(Failed::harness)
}

/// An ordinary user's PATH lacks the folders that the firewall tools are in.
fn extend_path(env: &mut Vec<(OsString, OsString)>) {
    let is_path = |(name, _): &&mut (OsString, OsString)| name == "PATH";
    match env.iter_mut().find(is_path) {
        Some((_, path)) => path.push(":/usr/sbin:/sbin"),
        None => env.push(("PATH".into(), "/usr/bin:/bin:/usr/sbin:/sbin".into())),
    }
}

/// The run's folder, without the log and the reports of an earlier run, and with `latest` pointing to it where it is one of many.
fn make_folder(given: Option<&Path>, name: &str) -> Result<PathBuf, Failed> {
    let out = given.map_or_else(|| Path::new(OUT).join(name), Path::to_owned);
    std::fs::create_dir_all(&out)
        .with_context(|| {
            format!("failed to make the folder {}; choose another with --out", out.display())
        })
        .map_err(Failed::harness)?;
    if given.is_none() {
        let latest = Path::new(OUT).join("latest");
        // The link is a convenience: a run without it is as good.
        let _ = std::fs::remove_file(&latest);
        let _ = std::os::unix::fs::symlink(name, &latest);
    }
    forget_earlier(&out)?;
    std::path::absolute(&out).map_err(Failed::harness)
}

/// Removes what an earlier run has left in a folder that is used again: whatever goes wrong from
/// now on, its results must not be taken for those of this run.
fn forget_earlier(out: &Path) -> Result<(), Failed> {
    for file in REPORT_FILES.iter().map(|name| out.join(name)).chain([log_path(out)]) {
        match std::fs::remove_file(&file) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                let act = format!("failed to remove {} of an earlier run", file.display());
                return Err(Failed::harness(anyhow::Error::new(error).context(act)));
            }
        }
    }
    Ok(())
}

fn absolute(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failed> {
    paths.iter().map(|path| std::path::absolute(path).map_err(Failed::harness)).collect()
}

fn run_name(started: OffsetDateTime, seed: u64) -> Result<String, Failed> {
    let format = format_description!("[year][month][day]-[hour][minute][second]");
    let time = started.format(format).map_err(Failed::harness)?;
    Ok(format!("{time}-{:04x}", seed & 0xffff))
}

fn seed_from_clock() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::from(now.subsec_nanos()) ^ now.as_secs()
}
