//! Choosing a second kernel, and what it gets of the machine.

use anyhow::{Context, anyhow};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
use touchstone_record::SecondKernel;
use touchstone_spec::IPVS_NEED;
use touchstone_subject::{Cache, KERNEL_REMEDY, Kernel, KernelError};

use crate::args::{KernelName, ProviderName, Run};
use crate::failed::Failed;
use crate::host;
use crate::job::{Job, KernelJob, SubjectJob};
use crate::say::note;

/// Cases that run side by side on one cluster on a second kernel: a sync that starts programs for
/// each of their Services must end before the first of them loses patience, and with fewer cases
/// more syncs are needed.
pub(crate) const JOBS: usize = 24;
/// Memory of a kernel that was given none.
const MEMORY_MIB: u64 = 3072;
/// With less it does not come up to the first case.
const LEAST_MEMORY_MIB: u64 = 256;
/// What proxies that forward with IPVS need of a kernel.
const OF_IPVS: [&str; 3] = ["IP_VS", "IP_SET", "DUMMY"];
/// Results that are worth a kernel more, with clusters of its own.
const RESULTS_PER_KERNEL: usize = 20;

/// The kernel that was asked for, found or built; none where the machine's own is to be used.
pub(crate) fn choose(run: &Run) -> Result<Option<Kernel>, Failed> {
    let Some(name) = &run.kernel else { return Ok(None) };
    if run.provider != ProviderName::Lab {
        return Err(Failed::usage(anyhow!(
            "--kernel is for the lab; whatever else supplies clusters has its own kernel or none"
        )));
    }
    if run.pause_on_failure || run.keep {
        return Err(Failed::usage(anyhow!(
            "--pause-on-failure and --keep let a person look into a cluster from this machine, \
             and it has no way into another kernel (--kernel)"
        )));
    }
    if let Some(memory) = run.kernel_memory.filter(|memory| *memory < LEAST_MEMORY_MIB) {
        return Err(Failed::usage(anyhow!(
            "--kernel-memory {memory}: the lab needs {LEAST_MEMORY_MIB} MiB or more"
        )));
    }
    let kernel = match name {
        KernelName::Path(path) => Kernel::given(path),
        KernelName::Own => {
            Kernel::built(&Cache::from_environment(), &mut |line| note(&format!("  {line}")))
        }
    };
    kernel.map(Some).map_err(|error: KernelError| Failed::harness(error))
}

/// What the log says of it.
pub(crate) fn record(kernel: &Kernel) -> SecondKernel {
    SecondKernel {
        machine: host::release(),
        digest: kernel.sha256.clone(),
        found: kernel.found.to_string(),
        copies: 1,
    }
}

/// Looks whether some subject of a job can run on a kernel.
pub(crate) fn serves(kernel: &Kernel, job: &Job) -> Result<(), Failed> {
    let lacks: Vec<&str> =
        OF_IPVS.into_iter().filter(|name| !kernel.options.contains(*name)).collect();
    let wants = |subject: &SubjectJob| {
        subject.reopen().is_ok_and(|(chosen, _)| {
            chosen.selection.subject.needs(&chosen.selection.mode).contains(IPVS_NEED)
        })
    };
    match job.subjects.iter().find(|subject| wants(subject)) {
        Some(subject) if !lacks.is_empty() && job.subjects.iter().all(wants) => {
            Err(Failed::harness(anyhow!(
                "{} needs IPVS, and {} ({}) does not have built in: {}; {KERNEL_REMEDY}",
                subject.record.id,
                kernel.program.display(),
                kernel.release,
                lacks.join(", ")
            )))
        }
        Some(_) | None => Ok(()),
    }
}

/// The job as the kernel's keeper gets it.
pub(crate) fn job(kernel: &Kernel, memory: Option<u64>, run: &Job) -> Result<KernelJob, Failed> {
    let touchstone = std::fs::read_link("/proc/self/exe")
        .context("failed to find this program among the host's files")
        .map_err(Failed::harness)?;
    let logs = run.logs();
    std::fs::create_dir_all(&logs)
        .with_context(|| format!("failed to make {}", logs.display()))
        .map_err(Failed::harness)?;
    let available = available_mib();
    let memory_mib = memory.unwrap_or_else(|| default_memory(available));
    let results = run.variants.len() * run.subjects.len();
    let mut cpus = cpus().map_err(Failed::harness)?;
    cpus.truncate(copies(results, available, memory_mib));
    let record = run.kernel.clone().map(|record| SecondKernel { copies: cpus.len(), ..record });
    let run = Job { kernel: record, ..run.clone() };
    Ok(KernelJob { program: kernel.program.clone(), cpus, memory_mib, touchstone, run })
}

/// The CPUs that this process may use.
fn cpus() -> anyhow::Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0)).context("failed to read the CPUs")?;
    Ok((0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or_default()).collect())
}

/// How many kernels are worth their start and find room in memory.
fn copies(results: usize, available: Option<u64>, memory_mib: u64) -> usize {
    let worth = results.div_ceil(RESULTS_PER_KERNEL);
    let room = available.map_or(1, |mib| mib / 4 * 3 / memory_mib);
    worth.min(usize::try_from(room).unwrap_or(usize::MAX)).max(1)
}

/// A part of what the machine has left, so that the kernel does not take the last of it.
fn default_memory(available: Option<u64>) -> u64 {
    let most = available.map_or(MEMORY_MIB, |mib| mib / 4 * 3);
    MEMORY_MIB.min(most).max(LEAST_MEMORY_MIB)
}

fn available_mib() -> Option<u64> {
    let memory = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = memory.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_machine_keeps_some_memory() {
        assert_eq!(default_memory(Some(16_000)), 3072);
        assert_eq!(default_memory(Some(2_000)), 1500);
        assert_eq!(default_memory(Some(100)), LEAST_MEMORY_MIB);
        assert_eq!(default_memory(None), 3072);
    }

    #[test]
    fn there_are_as_many_kernels_as_are_worth_it_and_find_room() {
        assert_eq!(copies(1, Some(64_000), 3072), 1);
        assert_eq!(copies(50, Some(64_000), 3072), 3);
        assert_eq!(copies(1_000, Some(16_000), 3072), 3);
        assert_eq!(copies(1_000, Some(1_000), 3072), 1);
        assert_eq!(copies(1_000, None, 3072), 1);
    }
}
