//! What can be wrong with kind and Docker, each with its remedy.

/// A cluster of kind's could not be had, or not be used as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KindError {
    /// A program is not there.
    #[error("there is no program {program}: {}", where_to_get(.program))]
    NoProgram {
        /// Its name.
        program: &'static str,
    },
    /// Docker's engine does not answer.
    #[error(
        "docker's engine does not run ({said}); start it, for example with `systemctl start \
         docker`, or from the project's folder with `scripts/kind-engine start`, which prints how \
         it is used"
    )]
    NotRunning {
        /// Docker's words.
        said: String,
    },
    /// Docker's engine is somebody else's.
    #[error(
        "this user may not use docker ({said}); `sudo usermod -aG docker $USER` and a new login \
         allow it, or run this with sudo"
    )]
    NoPermission {
        /// Docker's words.
        said: String,
    },
    /// The node image is not here and cannot be fetched.
    #[error(
        "the node image {image} is not here and cannot be pulled ({said}); name another one with \
         --image, or the archive whose path `scripts/kind-node-image` prints"
    )]
    NoImage {
        /// Its name, or what stands for the default.
        image: String,
        /// Docker's or kind's words.
        said: String,
    },
    /// The registry of the node image wants to know who asks.
    #[error(
        "the registry of the node image {image} asks for credentials ({said}); `docker login` with \
         them, or name another image with --image"
    )]
    Credentials {
        /// Its name.
        image: String,
        /// Docker's words.
        said: String,
    },
    /// Another cluster of that name is there.
    #[error(
        "there is a kind cluster named {name} already; delete it with `kind delete cluster --name \
         {name}`"
    )]
    NameTaken {
        /// The name.
        name: String,
    },
    /// The kernel cannot do what the mode needs.
    #[error(
        "this machine's kernel has no IPVS, and a kind node has no other kernel: `modprobe ip_vs` \
         loads it where the system has it; `--provider lab --kernel uml` tests the mode without"
    )]
    NoIpvs,
    /// A release of kube-proxy that is not in the node image has no program.
    #[error("the image {archive} cannot be loaded: {why}")]
    Archive {
        /// Its path.
        archive: String,
        /// What is wrong with it.
        why: String,
    },
    /// The cluster came up, but something in it did not.
    #[error(
        "the cluster {cluster} is not ready: {what} within {seconds} s ({said}); does this machine \
         have memory, disk and CPUs left for it (`docker stats`, `df`, `kind get clusters`), and \
         inotify instances (`sysctl fs.inotify.max_user_instances=512 \
         fs.inotify.max_user_watches=524288`)? fewer --nodes need less"
    )]
    NotReady {
        /// The cluster.
        cluster: String,
        /// What was waited for, as a clause.
        what: String,
        /// For how long.
        seconds: u64,
        /// What it said last.
        said: String,
    },
    /// The API server does not take what puts a subject into the cluster.
    #[error("the cluster refuses {manifest}: {said}")]
    Manifest {
        /// The file.
        manifest: String,
        /// Its words.
        said: String,
    },
    /// What was put into the cluster runs no pods that are ready.
    #[error("{what} does not become ready: {why}")]
    Workload {
        /// Kind, name and namespace.
        what: String,
        /// What its pods say, with their last lines.
        why: String,
    },
    /// A program refused.
    #[error("failed to {what}: {program} says: {said}")]
    Refused {
        /// `docker` or `kind`.
        program: &'static str,
        /// What was being done.
        what: String,
        /// Its words.
        said: String,
    },
}

impl KindError {
    /// A refusal in the words of `told`; all other trouble is what it was.
    pub(super) fn refused(self, told: impl FnOnce(String) -> KindError) -> KindError {
        if let KindError::Refused { said, .. } = self { told(said) } else { self }
    }
}

fn where_to_get(program: &str) -> &'static str {
    match program {
        "docker" => {
            "install Docker (Debian and Ubuntu: docker.io), or from the project's folder \
             `scripts/kind-engine start`, which prints how it is used"
        }
        _ => {
            "install it with `go install sigs.k8s.io/kind@v0.33.0`, or from the project's folder \
             run this with `scripts/kind-engine exec`"
        }
    }
}

/// What docker's words mean, where they tell about docker itself and not about the request.
pub(super) fn lack_of_docker(said: &str) -> Option<KindError> {
    let text = said.to_lowercase();
    if text.contains("permission denied") && text.contains("docker") && text.contains("sock") {
        return Some(KindError::NoPermission { said: said.to_owned() });
    }
    let silent = [
        "cannot connect to the docker daemon",
        "is the docker daemon running",
        "failed to connect to the docker api",
    ];
    silent
        .iter()
        .any(|words| text.contains(words))
        .then(|| KindError::NotRunning { said: said.to_owned() })
}

/// Whether a registry has asked for credentials, by the words of docker and containerd.
pub(super) fn wants_credentials(said: &str) -> bool {
    let text = said.to_lowercase();
    [
        "unauthorized",
        "failed to authorize",
        "no basic auth",
        "authentication required",
        "access denied",
        "401",
        "403",
    ]
    .iter()
    .any(|words| text.contains(words))
}

/// Why an image cannot be pulled.
pub(super) fn lack_of_image(image: &str, said: &str) -> KindError {
    let closed = wants_credentials(said);
    let image = image.to_owned();
    let said = said.to_owned();
    if closed { KindError::Credentials { image, said } } else { KindError::NoImage { image, said } }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words of Docker 20.10 and 28.
    const SILENT: [&str; 2] = [
        "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
        "failed to connect to the docker API at unix:///var/run/docker.sock; check if the path is \
         correct and if the daemon is running",
    ];
    const CLOSED: [&str; 2] = [
        "Got permission denied while trying to connect to the Docker daemon socket at \
         unix:///var/run/docker.sock: dial unix /var/run/docker.sock: connect: permission denied",
        "permission denied while trying to connect to the docker API at unix:///var/run/docker.sock",
    ];

    #[test]
    fn docker_s_words_are_understood() {
        for said in SILENT {
            assert!(matches!(lack_of_docker(said), Some(KindError::NotRunning { .. })), "{said}");
        }
        for said in CLOSED {
            assert!(matches!(lack_of_docker(said), Some(KindError::NoPermission { .. })), "{said}");
        }
        assert_eq!(lack_of_docker("Error: No such image: a"), None);
    }

    #[test]
    fn a_registry_that_wants_credentials_is_told_from_a_missing_image() {
        let said = "Error response from daemon: pull access denied for a/b, repository does not \
                    exist or may require 'docker login'";
        assert!(matches!(lack_of_image("a/b", said), KindError::Credentials { .. }));
        let said = "Error response from daemon: manifest for a/b:1 not found: manifest unknown";
        assert!(matches!(lack_of_image("a/b:1", said), KindError::NoImage { .. }));
        let said = "dial tcp: lookup registry.example: network is unreachable";
        assert!(matches!(lack_of_image("a/b:1", said), KindError::NoImage { .. }));
    }
}
