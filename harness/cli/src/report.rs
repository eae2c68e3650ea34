//! `touchstone report`, and the end of every run: from the log to what people read.

use std::path::{Path, PathBuf};

use touchstone_record::LogReader;
use touchstone_report::{
    Colour, ExitCode, Report, TerminalOptions, exit_code, side_by_side, terminal, write_all,
};

use crate::args::ReportArgs;
use crate::failed::Failed;
use crate::job::log_path;
use crate::say::say;

pub(crate) fn run(args: &ReportArgs) -> Result<u8, Failed> {
    match args.runs.as_slice() {
        [one] => show(one),
        several => show_beside(several),
    }
}

/// Shows reports side by side, and gives the worst of their codes.
fn show_beside(runs: &[PathBuf]) -> Result<u8, Failed> {
    let read =
        |out: &PathBuf| LogReader::read(&log_path(out)).map(|events| Report::from_events(&events));
    let reports: Vec<Report> =
        runs.iter().map(read).collect::<Result<_, _>>().map_err(Failed::harness)?;
    say(&side_by_side(&reports, options(None)));
    Ok(reports.iter().map(exit_code).max().map_or(0, ExitCode::code))
}

/// Reads the log of a run, writes the reports beside it, shows the result, and gives its code.
pub(crate) fn show(out: &Path) -> Result<u8, Failed> {
    let events = LogReader::read(&log_path(out)).map_err(Failed::harness)?;
    let report = Report::from_events(&events);
    let written = write_all(out, &report);
    say(&terminal(&report, options(Some(out))));
    written.map_err(Failed::harness)?;
    Ok(exit_code(&report).code())
}

fn options(files: Option<&Path>) -> TerminalOptions<'_> {
    let width = width();
    TerminalOptions {
        width: width.unwrap_or(100),
        colour: if width.is_some() { Colour::Ansi } else { Colour::Plain },
        files,
    }
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
