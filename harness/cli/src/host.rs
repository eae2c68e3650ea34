//! What the log says of the machine, and of its kernel.

use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;
use touchstone_record::HostFacts;

use crate::job::Job;

/// What the options begin with on which Services may depend.
const OPTIONS: [&str; 11] = [
    "BRIDGE",
    "DUMMY",
    "IP6_NF_",
    "IP_NF_",
    "IP_SCTP",
    "IP_SET",
    "IP_VS",
    "NETFILTER_XT",
    "NFT_",
    "NF_",
    "VETH",
];

/// The machine on which this process runs; its kernel may be a second one.
pub(crate) fn facts(job: &Job) -> HostFacts {
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    let kernel = release();
    HostFacts {
        options: options(&kernel),
        kernel,
        arch: std::env::consts::ARCH.to_owned(),
        cpus: std::thread::available_parallelism().map_or(0, usize::from),
        memory_mib: kib.unwrap_or(0) / 1024,
        user_namespace: job.user_namespace,
        second_kernel: job.kernel.clone(),
    }
}

/// Release of the kernel on which this process runs.
pub(crate) fn release() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim().to_owned()
}

/// The kernel's options, where it or its package tells them.
fn options(release: &str) -> Vec<String> {
    let mut text = String::new();
    let told = std::fs::File::open("/proc/config.gz")
        .and_then(|file| GzDecoder::new(file).read_to_string(&mut text));
    if told.is_err() {
        let path = Path::new("/boot").join(format!("config-{release}"));
        text = std::fs::read_to_string(path).unwrap_or_default();
    }
    text.lines().filter_map(option).filter(|name| is_of_services(name)).collect()
}

/// `CONFIG_A=y` is `A`, `CONFIG_A=m` is `A=m`, and anything else is nothing.
fn option(line: &str) -> Option<String> {
    let name = line.strip_prefix("CONFIG_")?;
    name.strip_suffix("=y").or_else(|| name.ends_with("=m").then_some(name)).map(str::to_owned)
}

fn is_of_services(name: &str) -> bool {
    OPTIONS.iter().any(|start| name.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_is_built_in_or_a_module() {
        let lines = ["CONFIG_IP_VS=y", "CONFIG_IP_SCTP=m", "# CONFIG_NFT_NAT is not set", "X=y"];
        let options: Vec<String> = lines.iter().filter_map(|line| option(line)).collect();
        assert_eq!(options, ["IP_VS", "IP_SCTP=m"]);
        assert!(is_of_services("NFT_MASQ") && !is_of_services("EXT4_FS"));
    }
}
