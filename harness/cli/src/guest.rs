//! PID 1 of a second kernel: makes of the host's files a machine on which the harness can run.
//!
//! The root is the host's, read-only. What programs write to is made here and gone afterwards,
//! but for the folder of the proxies' logs.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, anyhow};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::termios::{SetArg, cfmakeraw, tcdrain, tcgetattr, tcsetattr};
use nix::unistd::chroot;
use rustix::process::setpriority_process;
use serde::{Deserialize, Serialize};
use touchstone_sys::be_init_of_kernel;

use crate::failed;
use crate::inside::HARNESS_ARGUMENT;
use crate::job::Order;
use crate::say::complain;

/// First argument of PID 1 of a second kernel.
pub(crate) const GUEST_ARGUMENT: &str = "__guest";

/// The line by which events leave and signals come.
pub(crate) const EVENTS_LINE: &str = "/dev/ttyS0";
/// The line by which everything leaves that is said in words.
const WORDS_LINE: &str = "/dev/ttyS1";

/// Niceness of the harness: it goes before the proxies, so that it is not late to see what they do.
const NICENESS: i32 = -10;

/// Descriptors that the harness may have; probes need thousands.
const DESCRIPTORS: u64 = 1 << 20;

/// Where programs in there look names up, whatever the host says: in files. A host that asks
/// databases first has every program of a proxy look for their libraries, in up to thirty folders,
/// to learn the number of `tcp`.
const NAMES: &str = "\
passwd: files
group: files
hosts: files dns
networks: files
protocols: files
services: files
";

/// Kernel settings before anything runs; a kernel that lacks one will do.
const SETTINGS: [(&str, &str); 8] = [
    // Whoever is killed for lack of memory might be the proxy, and that would look like its fault.
    ("vm.panic_on_oom", "1"),
    ("kernel.panic_on_oops", "1"),
    // Should the kernel die, little of the proxies' logs is lost.
    ("vm.dirty_writeback_centisecs", "100"),
    ("vm.dirty_expire_centisecs", "100"),
    // As many flows as on an ordinary machine; the default follows from the memory.
    ("net.netfilter.nf_conntrack_max", "262144"),
    // All packets between namespaces wait in one queue, and what finds it full is dropped.
    ("net.core.netdev_max_backlog", "65536"),
    // Tunnels that nobody asked for would take the numbers of the lab's own links.
    ("net.core.fb_tunnels_only_for_init_net", "1"),
    ("kernel.hostname", "touchstone"),
];

/// What the keeper outside tells PID 1.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct GuestOrder {
    /// The harness's environment.
    pub(crate) env: BTreeMap<String, String>,
    /// The folder that can be written.
    pub(crate) logs: PathBuf,
    pub(crate) order: Order,
}

/// The file with the order, if this process is PID 1 of a second kernel.
pub(crate) fn order(args: impl IntoIterator<Item = OsString>) -> Option<PathBuf> {
    let mut args = args.into_iter().skip(1);
    if args.next()? != GUEST_ARGUMENT {
        return None;
    }
    args.next().map(PathBuf::from)
}

/// Does everything and switches the machine off.
pub(crate) fn main(order: &Path) -> ExitCode {
    if std::process::id() != 1 {
        complain(&format!("{GUEST_ARGUMENT} is not meant for people"));
        return ExitCode::from(failed::USAGE);
    }
    let code = match prepare(order).and_then(|order| run(&order)) {
        Ok(code) => code,
        Err(error) => {
            say_in_words(&format!("error: {error:#}"));
            failed::HARNESS
        }
    };
    if let Some(lost) = lost_packets().filter(|lost| *lost > 0) {
        complain(&format!("{lost} packets found this kernel's queue full and were dropped"));
    }
    nix::unistd::sync();
    // What cannot be told here shows outside as a kernel that ended without a word.
    let _ = fs::write("/proc/exitcode", code.to_string());
    let _ = reboot(RebootMode::RB_POWER_OFF);
    ExitCode::from(code)
}

/// Packets that were dropped between namespaces since there was no room for them: the second of
/// the hexadecimal numbers that the kernel has of each CPU.
fn lost_packets() -> Option<u64> {
    let text = fs::read_to_string("/proc/net/softnet_stat").ok()?;
    let lost = |line: &str| u64::from_str_radix(line.split_whitespace().nth(1)?, 16).ok();
    text.lines().map(lost).sum()
}

/// By the line for words where it is there, and on the console in any case.
fn say_in_words(text: &str) {
    complain(text.trim_start_matches("error: "));
    if let Ok(mut line) = line(WORDS_LINE) {
        let _ = writeln!(line, "{text}");
        let _ = tcdrain(&line);
    }
}

fn prepare(order: &Path) -> Result<GuestOrder> {
    // Before the mounts, which hide the folder it is in.
    let text = fs::read(order)
        .with_context(|| format!("the host's files are not there: failed to read {order:?}"))?;
    let order: GuestOrder =
        serde_json::from_slice(&text).context("failed to understand the guest's order")?;
    if let Err(error) = remember_files() {
        complain(&format!("programs start slowly in this kernel: {error:#}"));
    }
    mounted("proc", "/proc", "proc", None)?;
    mounted("sysfs", "/sys", "sysfs", None)?;
    mounted("devtmpfs", "/dev", "devtmpfs", None)?;
    mounted("tmpfs", "/run", "tmpfs", Some("mode=755"))?;
    let logs = order.logs.to_str().ok_or_else(|| anyhow!("{:?} is not UTF-8", order.logs))?;
    mounted("hostfs", logs, "hostfs", Some(logs))?;
    let settings = SETTINGS
        .map(|(setting, value)| (Path::new("/proc/sys").join(setting.replace('.', "/")), value));
    // A kernel of few CPUs waits long for all of them to have passed by, each time that a link, a
    // table or a set goes; it need not.
    let hurry = (PathBuf::from("/sys/kernel/rcu_expedited"), "1");
    for (path, value) in settings.into_iter().chain([hurry]) {
        if let Err(error) = fs::write(&path, value) {
            complain(&format!("{} cannot be {value}: {error}", path.display()));
        }
    }
    setrlimit(Resource::RLIMIT_NOFILE, DESCRIPTORS, DESCRIPTORS)
        .context("failed to allow many descriptors")?;
    setpriority_process(None, NICENESS).context("failed to go before the proxies")?;
    if let Err(error) = hurry_packets() {
        complain(&format!("packets may wait for programs: {error:#}"));
    }
    Ok(order)
}

/// Lets the kernel's thread that handles packets go before all programs. When there is much to do,
/// packets wait for it, and would look lost.
fn hurry_packets() -> Result<()> {
    for process in fs::read_dir("/proc").context("failed to look for the thread")? {
        let path = process.context("failed to look for the thread")?.path();
        let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
        let number = path.file_name().and_then(|name| name.to_str()?.parse().ok());
        if let (true, Some(pid)) =
            (name.starts_with("ksoftirqd/"), number.and_then(rustix::process::Pid::from_raw))
        {
            setpriority_process(Some(pid), NICENESS - 5)
                .with_context(|| format!("failed to let {} go first", name.trim()))?;
        }
    }
    Ok(())
}

/// Puts a read-only overlay over the root.
///
/// hostfs forgets a file as soon as nobody has it open, so that a program started twice is read
/// from the host twice, with all its libraries; an overlay keeps it.
fn remember_files() -> Result<()> {
    mounted("tmpfs", "/run", "tmpfs", None)?;
    let [own, root] = ["/run/own", "/run/root"];
    for folder in [&format!("{own}/etc"), root] {
        fs::create_dir_all(folder).with_context(|| format!("failed to make {folder}"))?;
    }
    let names = format!("{own}/etc/nsswitch.conf");
    fs::write(&names, NAMES).with_context(|| format!("failed to write {names}"))?;
    // The first one lies on top.
    mounted("overlay", root, "overlay", Some(&format!("lowerdir={own}:/")))?;
    std::env::set_current_dir(root).context("failed to enter the new root")?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)
        .context("failed to move the new root")?;
    chroot(".").context("failed to change the root")?;
    std::env::set_current_dir("/").context("failed to enter the new root")
}

fn mounted(source: &str, target: &str, kind: &str, data: Option<&str>) -> Result<()> {
    mount(Some(source), target, Some(kind), MsFlags::empty(), data).with_context(|| {
        format!("failed to mount {kind} on {target} in the second kernel; it lacks {kind}, or the host has no folder {target}")
    })
}

fn run(order: &GuestOrder) -> Result<u8> {
    let events = line(EVENTS_LINE)?;
    let words = line(WORDS_LINE)?;
    let file = order.order.to_file_in(Path::new("/run"))?;
    fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty())).context("failed to hand the order down")?;
    let mut program = Command::new("/proc/self/exe");
    program
        .arg0("touchstone")
        .arg(HARNESS_ARGUMENT)
        .arg(file.as_raw_fd().to_string())
        .env_clear()
        .envs(&order.env)
        .stdin(Stdio::null())
        .stdout(words.try_clone().context("failed to hand the line down")?)
        .stderr(words.try_clone().context("failed to hand the line down")?);
    let control = events.as_fd().try_clone_to_owned().context("failed to listen to the line")?;
    let code = be_init_of_kernel(program, &control)?;
    for line in [&events, &words] {
        // Nobody listens any more when the keeper is gone.
        let _ = tcdrain(line);
    }
    Ok(code)
}

/// A line to the host that carries bytes as they are.
fn line(path: &str) -> Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(nix::fcntl::OFlag::O_NOCTTY.bits())
        .open(path)
        .with_context(|| format!("failed to open {path}, a line to the host"))?;
    let mut settings =
        tcgetattr(&file).with_context(|| format!("failed to read the settings of {path}"))?;
    cfmakeraw(&mut settings);
    tcsetattr(&file, SetArg::TCSANOW, &settings)
        .with_context(|| format!("failed to change the settings of {path}"))?;
    Ok(file)
}
