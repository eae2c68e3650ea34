//! Whose a cluster is: a folder per cluster, locked by the process that created it for as long as
//! that lives. An unlocked one is left over from a process that was killed.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// The lock's file in a cluster's folder.
const LOCK: &str = "lock";
/// There when a person wanted to keep the cluster.
const KEPT: &str = "kept";
/// Names the Docker engine that the cluster is in.
const ENGINE: &str = "engine";

/// A cluster of this process.
#[derive(Debug)]
pub struct Held {
    folder: PathBuf,
    lock: File,
}

/// A cluster whose process is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// Its name.
    pub name: String,
    /// Its kubeconfig.
    pub kubeconfig: PathBuf,
    /// Whether a person wanted to keep it.
    pub kept: bool,
    /// The Docker engine that it is in, as `DOCKER_HOST` names it, where that is known.
    pub engine: Option<String>,
    /// What is remembered of it.
    pub folder: PathBuf,
}

/// Notes below `home` that the cluster of this name is this process's, before it is created.
///
/// # Errors
/// When the folder cannot be made, or another process has the name.
pub fn hold(home: &Path, name: &str) -> io::Result<Held> {
    let folder = home.join(name);
    std::fs::create_dir_all(&folder)?;
    let lock = File::create(folder.join(LOCK))?;
    match lock.try_lock() {
        Ok(()) => Ok(Held { folder, lock }),
        Err(TryLockError::WouldBlock) => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            format!("another process is using a cluster named {name}"),
        )),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

impl Held {
    /// The cluster's folder, for its kubeconfig and the like.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Notes in which Docker engine the cluster is going to be, as `DOCKER_HOST` names it: whoever
    /// cleans up may have another one.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn lives_in(&self, engine: &str) -> io::Result<()> {
        std::fs::write(self.folder.join(ENGINE), engine)
    }

    /// Notes that the cluster stays when this process is gone.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn keep(&self) -> io::Result<()> {
        File::create(self.folder.join(KEPT)).map(drop)
    }

    /// The cluster is deleted: nothing of it is to be remembered.
    ///
    /// # Errors
    /// When the folder cannot be removed.
    pub fn forget(self) -> io::Result<()> {
        std::fs::remove_dir_all(&self.folder)
    }
}

impl Drop for Held {
    /// Unlocks by name: a child that has not yet executed its program holds the file as well.
    fn drop(&mut self) {
        // A lock that cannot be given up ends with the file.
        let _ = self.lock.unlock();
    }
}

/// The clusters noted below `home` whose processes are gone, in the order of their names.
///
/// # Errors
/// When `home` cannot be read; a home that is not there has none.
pub fn leftovers(home: &Path) -> io::Result<Vec<Leftover>> {
    let entries = match std::fs::read_dir(home) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut left = Vec::new();
    for entry in entries {
        let folder = entry?.path();
        let lock = match File::open(folder.join(LOCK)) {
            Ok(lock) => lock,
            // Not made by this, or being removed right now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let Some(name) = folder.file_name().and_then(|name| name.to_str()) else { continue };
        if lock.try_lock().is_ok() {
            left.push(Leftover {
                name: name.to_owned(),
                kubeconfig: folder.join("kubeconfig"),
                kept: folder.join(KEPT).exists(),
                engine: std::fs::read_to_string(folder.join(ENGINE)).ok(),
                folder: folder.clone(),
            });
        }
    }
    left.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(left)
}

impl Leftover {
    /// The cluster is deleted: nothing of it is to be remembered.
    ///
    /// # Errors
    /// When the folder cannot be removed.
    pub fn forget(&self) -> io::Result<()> {
        std::fs::remove_dir_all(&self.folder)
    }
}
