//! `touchstone report`, and the end of every run: from the log to what people read.

use std::path::Path;

use touchstone_record::LogReader;
use touchstone_report::{Colour, Report, TerminalOptions, exit_code, terminal, write_all};

use crate::args::ReportArgs;
use crate::failed::Failed;
use crate::job::log_path;
use crate::say::say;

pub(crate) fn run(args: &ReportArgs) -> Result<u8, Failed> {
    show(&args.run)
}

/// Reads the log of a run, writes the reports beside it, shows the result, and gives its code.
pub(crate) fn show(out: &Path) -> Result<u8, Failed> {
    let events = LogReader::read(&log_path(out)).map_err(Failed::harness)?;
    let report = Report::from_events(&events);
    let written = write_all(out, &report);
    let width = width();
    say(&terminal(
        &report,
        TerminalOptions {
            width: width.unwrap_or(100),
            colour: if width.is_some() { Colour::Ansi } else { Colour::Plain },
            files: Some(out),
        },
    ));
    written.map_err(Failed::harness)?;
    Ok(exit_code(&report).code())
}

/// Columns of the terminal on standard output; none when it is no terminal.
pub(crate) fn width() -> Option<usize> {
    use std::io::IsTerminal;
    if !std::io::stdout().is_terminal() {
        return None;
    }
    let (_, columns) = console::Term::stdout().size_checked()?;
    Some(usize::from(columns))
}
