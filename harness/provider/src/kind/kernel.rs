//! What a mode needs of the kernel, which nodes share with this machine.

use std::path::PathBuf;

/// Where this machine's kernel tells about itself.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// There once the kernel has IPVS, built in or loaded.
    pub ipvs: PathBuf,
    /// The folder of its modules; none where its release is not known.
    pub modules: Option<PathBuf>,
}

impl Default for Kernel {
    fn default() -> Kernel {
        let names = nix::sys::utsname::uname().ok();
        let release = names.as_ref().and_then(|names| names.release().to_str());
        Kernel {
            ipvs: "/proc/net/ip_vs".into(),
            modules: release.map(|release| PathBuf::from("/lib/modules").join(release)),
        }
    }
}

impl Kernel {
    /// Whether it has IPVS, or a module that kube-proxy can load.
    pub(super) fn has_ipvs(&self) -> bool {
        self.ipvs.exists()
            || self.modules.as_ref().is_some_and(|modules| {
                ["modules.dep", "modules.builtin"].iter().any(|list| {
                    std::fs::read_to_string(modules.join(list))
                        .is_ok_and(|text| text.contains("/ip_vs.ko"))
                })
            })
    }
}
