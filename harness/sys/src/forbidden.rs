//! Which switch of this machine forbids namespaces, as far as it can be read.

use std::fmt;
use std::fs;

/// A setting that is known to forbid what was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Switch {
    /// `kernel.apparmor_restrict_unprivileged_userns` is 1 (Ubuntu since 23.10).
    AppArmor,
    /// `kernel.unprivileged_userns_clone` is 0 (Debian's and Arch's patch).
    UnprivilegedClone,
    /// `user.max_user_namespaces` is 0.
    MaxUserNamespaces,
    /// `user.max_net_namespaces` is 0.
    MaxNetNamespaces,
    /// A seccomp filter is in force, as in a container.
    Seccomp,
}

impl Switch {
    /// Every switch that stands on "forbidden" on this machine.
    pub fn found() -> Vec<Switch> {
        found(|path| fs::read_to_string(path).ok())
    }

    /// What to do about it, as a command or an option.
    pub fn remedy(self) -> &'static str {
        match self {
            Switch::AppArmor => "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
            Switch::UnprivilegedClone => "sysctl -w kernel.unprivileged_userns_clone=1",
            Switch::MaxUserNamespaces => "sysctl -w user.max_user_namespaces=15000",
            Switch::MaxNetNamespaces => "sysctl -w user.max_net_namespaces=15000",
            Switch::Seccomp => {
                "start the container with --security-opt seccomp=unconfined or --privileged"
            }
        }
    }
}

impl fmt::Display for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Switch::AppArmor => "kernel.apparmor_restrict_unprivileged_userns is 1",
            Switch::UnprivilegedClone => "kernel.unprivileged_userns_clone is 0",
            Switch::MaxUserNamespaces => "user.max_user_namespaces is 0",
            Switch::MaxNetNamespaces => "user.max_net_namespaces is 0",
            Switch::Seccomp => "a seccomp filter is in force (a container?)",
        })
    }
}

fn found(read: impl Fn(&str) -> Option<String>) -> Vec<Switch> {
    let is = |path: &str, value: &str| read(path).is_some_and(|text| text.trim() == value);
    let mut switches = Vec::new();
    if is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        switches.push(Switch::AppArmor);
    }
    if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        switches.push(Switch::UnprivilegedClone);
    }
    if is("/proc/sys/user/max_user_namespaces", "0") {
        switches.push(Switch::MaxUserNamespaces);
    }
    if is("/proc/sys/user/max_net_namespaces", "0") {
        switches.push(Switch::MaxNetNamespaces);
    }
    let status = read("/proc/self/status").unwrap_or_default();
    let filtered = status
        .lines()
        .filter_map(|line| line.strip_prefix("Seccomp:"))
        .any(|mode| mode.trim() == "2");
    if filtered {
        switches.push(Switch::Seccomp);
    }
    switches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(files: &[(&str, &str)], expected: &[Switch]) {
        let read = |path: &str| {
            files.iter().find(|(name, _)| *name == path).map(|(_, text)| (*text).to_owned())
        };
        assert_eq!(found(read), expected);
    }

    #[test]
    fn the_switch_is_named() {
        let apparmor = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns";
        let clone = "/proc/sys/kernel/unprivileged_userns_clone";
        let maximum = "/proc/sys/user/max_user_namespaces";
        let status = "/proc/self/status";
        check(&[], &[]);
        check(&[(apparmor, "1\n"), (clone, "1\n")], &[Switch::AppArmor]);
        check(&[(apparmor, "0\n"), (clone, "0\n")], &[Switch::UnprivilegedClone]);
        check(&[(maximum, "0\n")], &[Switch::MaxUserNamespaces]);
        check(&[(maximum, "31000\n"), (status, "Name:\tx\nSeccomp:\t0\n")], &[]);
        check(&[(status, "Seccomp:\t2\nSeccomp_filters:\t1\n")], &[Switch::Seccomp]);
    }
}
