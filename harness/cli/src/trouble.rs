//! What a second kernel's console says about its end, and what to do about it.

/// A line of the console that explains an end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) line: String,
    pub(crate) remedy: &'static str,
}

/// Texts on the console, and their remedies; the first that is found decides.
const KNOWN: [(&str, &str); 14] = [
    (
        "Out of memory",
        "it ran out of memory: give it more with `--kernel-memory`, or run fewer cases side by \
         side with `--jobs`",
    ),
    (
        "Unable to mount root fs",
        "it has no hostfs (CONFIG_HOSTFS), or the host's files were refused: `--kernel uml` \
         builds one that has",
    ),
    (
        "Requested init",
        "it cannot start touchstone from the host's files: put the program where this user can \
         read and execute it",
    ),
    (
        "No working init found",
        "it cannot start touchstone from the host's files: put the program where this user can \
         read and execute it",
    ),
    (
        "fp regs failed",
        "it cannot handle this machine's CPU: take a kernel of 6.13 or newer; `--kernel uml` \
         builds one",
    ),
    (
        "Failed to get XSAVE",
        "it cannot handle this machine's CPU: take a kernel of 6.13 or newer; `--kernel uml` \
         builds one",
    ),
    (
        "check_ptrace",
        "this machine forbids ptrace: in a container, start that with --cap-add SYS_PTRACE and \
         --security-opt seccomp=unconfined; elsewhere: sysctl -w kernel.yama.ptrace_scope=1",
    ),
    (
        "SECCOMP userspace requested but not functional",
        "this machine forbids seccomp filters of its own: in a container, start that with \
         --security-opt seccomp=unconfined",
    ),
    ("must be not mounted noexec", "its memory must be executable: mount /dev/shm without noexec"),
    (
        "Failed to create memory",
        "this machine gives it no memory: take less with `--kernel-memory`",
    ),
    ("Too few physical memory", "give it more memory with `--kernel-memory`"),
    (
        "Kernel panic",
        "that is a fault of the kernel, or of what made it panic: run again, or with another \
         kernel",
    ),
    ("BUG:", "that is a fault of the kernel: run again, or with another kernel"),
    ("Oops", "that is a fault of the kernel: run again, or with another kernel"),
];

/// What the console's lines say about an end; none when they look healthy.
pub(crate) fn of(console: &[String]) -> Option<Trouble> {
    let found = KNOWN.iter().find_map(|(text, remedy)| {
        let line = console.iter().find(|line| line.contains(text))?;
        Some((line, *remedy))
    });
    let (line, remedy) = found?;
    // Where there was a panic, its line says more than what led to it.
    let panic = console.iter().find(|line| line.contains("Kernel panic"));
    Some(Trouble { line: without_time(panic.unwrap_or(line)).to_owned(), remedy })
}

/// Whether the machine was switched off in good order.
pub(crate) fn switched_off(console: &[String]) -> bool {
    console.iter().any(|line| line.contains("reboot: Power down"))
}

/// A line of the console without `[    1.234567] `.
fn without_time(line: &str) -> &str {
    let rest = line.strip_prefix('[').and_then(|rest| rest.split_once("] "));
    rest.filter(|(time, _)| time.chars().all(|c| c.is_ascii_digit() || ". ".contains(c)))
        .map_or(line, |(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(console: &[&str]) -> Option<(String, &'static str)> {
        let lines: Vec<String> = console.iter().map(|line| (*line).to_owned()).collect();
        of(&lines).map(|trouble| (trouble.line, trouble.remedy))
    }

    #[test]
    fn a_panic_has_its_reason_and_its_remedy() {
        let (line, remedy) = check(&[
            "[    0.000000] Linux version 7.2.12",
            "[    9.100000] Out of memory: Killed process 7",
            "[    9.200000] Kernel panic - not syncing: Out of memory: panic_on_oom is enabled",
        ])
        .expect("trouble");
        assert_eq!(line, "Kernel panic - not syncing: Out of memory: panic_on_oom is enabled");
        assert!(remedy.contains("--kernel-memory"));
    }

    #[test]
    fn a_healthy_console_is_no_trouble() {
        let healthy = ["[    0.000000] Linux version 7.2.12", "[   60.0] reboot: Power down"];
        assert_eq!(check(&healthy), None);
        assert!(switched_off(&healthy.map(str::to_owned)));
    }

    #[test]
    fn only_a_time_is_cut_off() {
        assert_eq!(without_time("[    1.2] a] b"), "a] b");
        assert_eq!(without_time("[x] a"), "[x] a");
        assert_eq!(without_time("plain"), "plain");
    }
}
