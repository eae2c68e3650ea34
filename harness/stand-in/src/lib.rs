//! Nothing that ships: scripts that stand in for real programs, for the tests of several crates.

use std::path::Path;
use std::process::Command;
use std::{fs, io};

/// Writes a program with these permissions, in octal digits, into a folder that is there.
///
/// It is never open for writing in this process: a child that another test starts at that moment
/// would inherit the handle, and as long as that lives nobody can execute the program.
///
/// # Errors
/// When the file cannot be written, or `install` does not do its work.
pub fn stand_in(path: &Path, text: &str, permissions: &str) -> io::Result<()> {
    let draft = path.with_extension("draft");
    fs::write(&draft, text)?;
    let status = Command::new("install").args(["-m", permissions]).args([&draft, path]).status()?;
    if status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("`install` of {} ended with {status}", path.display())))
}
