//! Frozen containers: a node that was killed just when its runtime had frozen it obeys nothing, not
//! even SIGKILL, until somebody thaws it. Seen with control groups of version 1.

use std::path::Path;

/// Thaws everything in these containers, as far as this user may; deleting is tried again after.
pub(super) fn containers(ids: &[String]) {
    thaw_below(Path::new("/sys/fs/cgroup/freezer"), ids, false);
}

fn thaw_below(folder: &Path, ids: &[String], inside: bool) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let name = entry.file_name();
        let inside = inside
            || name.to_str().is_some_and(|name| ids.iter().any(|id| name.contains(id.as_str())));
        thaw_below(&entry.path(), ids, inside);
        if inside {
            // What may not be written to was somebody else's doing, and shows when deleting fails.
            let _ = std::fs::write(entry.path().join("freezer.state"), "THAWED");
        }
    }
}
