//! Programs and kernels that were downloaded or built before, and the locks that keep two builders apart.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::examine::digest;

/// How long one builder waits for another; a build on a slow machine takes a good part of it.
const LOCK_LIMIT: Duration = Duration::from_secs(40 * 60);

const RECORD: &str = "origin.json";

/// A folder of downloaded and built programs.
///
/// Every program lies beside a record of its digest, and is removed when the two differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    root: Option<PathBuf>,
    /// Whether what is missing may be downloaded or built into it.
    fill: bool,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum CacheError {
    #[error("there is no cache folder: none of TOUCHSTONE_CACHE, XDG_CACHE_HOME and HOME is set")]
    Nowhere,
    #[error("failed to {act} {path}: {source}")]
    Io { act: &'static str, path: PathBuf, source: io::Error },
    #[error("another process has been preparing it for {} min ({path} is locked)", .limit.as_secs() / 60)]
    Locked { path: PathBuf, limit: Duration },
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    sha256: String,
    from: String,
}

#[derive(Debug)]
pub(crate) enum Lookup {
    Missing,
    Damaged(String),
    /// The digest is that of the whole program, as it has just been read.
    Found {
        program: PathBuf,
        from: String,
        sha256: String,
    },
}

/// The place of one program in the cache.
#[derive(Debug)]
pub(crate) struct Slot {
    folder: PathBuf,
    name: String,
}

/// The right to fill a slot; ends when dropped, also when this process is killed.
#[derive(Debug)]
pub(crate) struct SlotLock {
    _file: File,
}

impl Cache {
    /// The user's cache: `TOUCHSTONE_CACHE`, else `touchstone` in `XDG_CACHE_HOME` or `~/.cache`.
    #[must_use]
    pub fn from_environment() -> Self {
        let folder = |name: &str| {
            std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
        };
        // The XDG specification says that a relative path is to be ignored.
        let xdg = || folder("XDG_CACHE_HOME").filter(|path| path.is_absolute());
        let home = || folder("HOME").map(|home| home.join(".cache"));
        let root = folder("TOUCHSTONE_CACHE")
            .or_else(|| xdg().or_else(home).map(|cache| cache.join("touchstone")));
        Self { root, fill: true }
    }

    /// A cache in this folder, which is made when something is put into it.
    #[must_use]
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: Some(root.into()), fill: true }
    }

    /// The same cache for somebody who only looks: what it has not is neither downloaded nor built.
    #[must_use]
    pub fn as_it_is(self) -> Self {
        Self { fill: false, ..self }
    }

    /// Whether what is missing may be put into it.
    pub(crate) fn may_be_filled(&self) -> bool {
        self.fill
    }

    pub(crate) fn slot(&self, name: &str, key: &str) -> Result<Slot, CacheError> {
        self.slot_below("programs", name, key)
    }

    /// The place of a kernel that runs as a program.
    pub(crate) fn kernel_slot(&self, name: &str, key: &str) -> Result<Slot, CacheError> {
        self.slot_below("kernels", name, key)
    }

    /// An absolute path below the cache, of a folder that this does not make; none where this user
    /// has no place for a cache.
    #[must_use]
    pub fn place(&self, folder: &str) -> Option<PathBuf> {
        let root = std::path::absolute(self.root.as_ref()?).ok()?;
        Some(root.join(folder))
    }

    fn slot_below(&self, folder: &str, name: &str, key: &str) -> Result<Slot, CacheError> {
        let root = self.root.as_ref().ok_or(CacheError::Nowhere)?;
        // Builds run in other folders, so a relative cache would be somewhere else for them.
        let root = std::path::absolute(root).map_err(|source| CacheError::Io {
            act: "find",
            path: root.clone(),
            source,
        })?;
        Ok(Slot { folder: root.join(folder).join(key), name: name.to_owned() })
    }
}

impl Slot {
    pub(crate) fn program(&self) -> PathBuf {
        self.folder.join(&self.name)
    }

    /// Where a build writes its log; kept, since an error names it.
    pub(crate) fn log(&self) -> PathBuf {
        self.folder.with_added_extension("log")
    }

    /// A scratch folder beside the slot; a killed builder leaves it to the next one.
    fn scratch(&self) -> PathBuf {
        self.folder.with_added_extension("new")
    }

    /// What is there; the program is read as a whole and compared with its recorded digest.
    pub(crate) fn look(&self) -> Lookup {
        let program = self.program();
        let record = match fs::read(self.folder.join(RECORD)) {
            Ok(bytes) => bytes,
            Err(err) if err.kind() == io::ErrorKind::NotFound && !self.folder.exists() => {
                return Lookup::Missing;
            }
            Err(err) => return Lookup::Damaged(format!("its {RECORD} cannot be read: {err}")),
        };
        let record: Record = match serde_json::from_slice(&record) {
            Ok(record) => record,
            Err(err) => return Lookup::Damaged(format!("its {RECORD} is not understood: {err}")),
        };
        match digest(&program) {
            Ok(sha256) if sha256 == record.sha256 => {
                Lookup::Found { program, from: record.from, sha256 }
            }
            Ok(sha256) => {
                Lookup::Damaged(format!("its SHA-256 is {sha256}, recorded was {}", record.sha256))
            }
            Err(err) => Lookup::Damaged(format!("it cannot be read: {err}")),
        }
    }

    /// Takes the right to fill this slot; calls `waiting` when another process has it.
    ///
    /// Blocks for at most [`LOCK_LIMIT`].
    pub(crate) fn lock(&self, waiting: impl FnOnce()) -> Result<SlotLock, CacheError> {
        let path = self.folder.with_added_extension("lock");
        let io = |act, source| CacheError::Io { act, path: path.clone(), source };
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|source| io("make the folder of", source))?;
        }
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|source| io("open", source))?;
        match file.try_lock() {
            Ok(()) => return Ok(SlotLock { _file: file }),
            Err(TryLockError::WouldBlock) => waiting(),
            Err(TryLockError::Error(source)) => return Err(io("lock", source)),
        }
        // A lock has no limit of its own, so a thread waits for it; should it come too late, the
        // thread drops it at once.
        let (send, receive) = mpsc::channel();
        thread::Builder::new()
            .name("cache-lock".to_owned())
            .spawn(move || drop(send.send(file.lock().map(|()| file))))
            .map_err(|source| io("wait for", source))?;
        match receive.recv_timeout(LOCK_LIMIT) {
            Ok(Ok(file)) => Ok(SlotLock { _file: file }),
            Ok(Err(source)) => Err(io("lock", source)),
            Err(_) => Err(CacheError::Locked { path, limit: LOCK_LIMIT }),
        }
    }

    /// Fills the slot with the program that `make` writes, and returns its place.
    ///
    /// `make` gets the path to write and an empty folder to work in.
    /// What it leaves when it fails is removed.
    pub(crate) fn fill<E: From<CacheError>>(
        &self,
        _lock: &SlotLock,
        from: &str,
        make: impl FnOnce(&Path, &Path) -> Result<(), E>,
    ) -> Result<PathBuf, E> {
        let scratch = self.scratch();
        let done = self.fill_from(&scratch, from, make);
        if done.is_err() {
            // The error that is being returned says more than a failure to tidy up.
            let _ = fs::remove_dir_all(&scratch);
        }
        done
    }

    fn fill_from<E: From<CacheError>>(
        &self,
        scratch: &Path,
        from: &str,
        make: impl FnOnce(&Path, &Path) -> Result<(), E>,
    ) -> Result<PathBuf, E> {
        let io = |act, path: &Path| {
            let path = path.to_owned();
            move |source| CacheError::Io { act, path, source }
        };
        remove_folder(scratch)?;
        let work = scratch.join("work");
        fs::create_dir_all(&work).map_err(io("make", &work))?;
        let program = scratch.join(&self.name);
        make(&program, &work)?;
        remove_folder(&work)?;
        // Everyone may run it, whoever filled the cache; the scratch folder may be stricter.
        for path in [scratch, &program] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755))
                .map_err(io("make executable", path))?;
        }
        let sha256 = digest(&program).map_err(io("read", &program))?;
        let record = scratch.join(RECORD);
        let file = File::create(&record).map_err(io("write", &record))?;
        serde_json::to_writer_pretty(&file, &Record { sha256, from: from.to_owned() })
            .map_err(|err| io("write", &record)(err.into()))?;
        file.sync_all().map_err(io("write", &record))?;
        remove_folder(&self.folder)?;
        fs::rename(scratch, &self.folder).map_err(io("put in place", &self.folder))?;
        Ok(self.program())
    }
}

fn remove_folder(path: &Path) -> Result<(), CacheError> {
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(CacheError::Io { act: "remove", path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Done = Result<(), Box<dyn std::error::Error>>;
    type Damage = fn(&Slot) -> io::Result<()>;

    fn filled(cache: &Cache) -> Result<Slot, Box<dyn std::error::Error>> {
        let slot = cache.slot("proxy", "proxy-v1.0.0")?;
        let lock = slot.lock(|| {})?;
        slot.fill(&lock, "a test", |program, _| {
            fs::write(program, "one").map_err(|source| CacheError::Io {
                act: "write",
                path: program.to_owned(),
                source,
            })
        })?;
        Ok(slot)
    }

    #[test]
    fn a_filled_slot_is_found_again() -> Done {
        let folder = tempfile::tempdir()?;
        let cache = Cache::at(folder.path().join("not/yet/there"));
        let empty = cache.slot("proxy", "proxy-v1.0.0")?.look();
        assert!(matches!(empty, Lookup::Missing), "{empty:?}");
        let slot = filled(&cache)?;
        let found = slot.look();
        assert!(matches!(&found, Lookup::Found { from, .. } if from == "a test"), "{found:?}");
        Ok(())
    }

    #[test]
    fn every_damage_is_noticed() -> Done {
        let folder = tempfile::tempdir()?;
        let cache = Cache::at(folder.path());
        let damages: [(&str, Damage); 4] = [
            ("its SHA-256 is", |slot| fs::write(slot.program(), "two")),
            ("it cannot be read", |slot| fs::remove_file(slot.program())),
            ("its origin.json is not understood", |slot| fs::write(slot.folder.join(RECORD), "{")),
            ("its origin.json cannot be read", |slot| fs::remove_file(slot.folder.join(RECORD))),
        ];
        for (want, damage) in damages {
            let slot = filled(&cache)?;
            damage(&slot)?;
            let got = slot.look();
            assert!(matches!(&got, Lookup::Damaged(why) if why.starts_with(want)), "{got:?}");
        }
        let again = filled(&cache)?.look();
        assert!(matches!(again, Lookup::Found { .. }), "{again:?}");
        Ok(())
    }

    #[test]
    fn a_failed_build_leaves_nothing() -> Done {
        let folder = tempfile::tempdir()?;
        let slot = Cache::at(folder.path()).slot("proxy", "proxy-v1.0.0")?;
        let lock = slot.lock(|| {})?;
        let failed = slot.fill(&lock, "a test", |program, _| {
            let written = fs::write(program, "half");
            assert!(written.is_ok());
            Err(CacheError::Nowhere)
        });
        assert!(failed.is_err());
        assert!(!slot.scratch().exists());
        assert!(matches!(slot.look(), Lookup::Missing));
        Ok(())
    }

    #[test]
    fn one_builder_waits_for_the_other() -> Done {
        let folder = tempfile::tempdir()?;
        let slot = Cache::at(folder.path()).slot("proxy", "proxy-v1.0.0")?;
        let first = slot.lock(|| {})?;
        let mut told = false;
        thread::scope(|scope| -> Result<(), CacheError> {
            let (send, receive) = mpsc::channel::<()>();
            // The first builder goes on only when the second one says that it waits.
            scope.spawn(move || {
                let waits = receive.recv();
                drop(first);
                waits
            });
            slot.lock(|| {
                told = true;
                let _ = send.send(());
            })?;
            Ok(())
        })?;
        assert!(told);
        Ok(())
    }
}
