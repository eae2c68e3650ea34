//! Speaking to the person at the terminal.

use std::io::Write;

/// Prints a line to standard output. A closed pipe (`| head`) is not an error.
pub(crate) fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{}", text.trim_end_matches('\n'));
}

/// Prints a line to standard error.
pub(crate) fn note(text: &str) {
    let mut err = std::io::stderr().lock();
    let _ = writeln!(err, "{text}");
}

/// Prints what went wrong to standard error.
pub(crate) fn complain(text: &str) {
    note(&format!("error: {text}"));
}
