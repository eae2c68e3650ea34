//! Reports made from the event log: terminal, JSON, JUnit, Markdown.
//!
//! [`Report::from_events`] turns the events of a run into one model; every rendering reads that
//! model and nothing else, so each of them can be made again from a saved log.
//! A log that was cut anywhere still gives a report, and such a report is never green.
//!
//! Words that a subject printed are data of a stranger: they reach a terminal, a page or an XML
//! file only through [`clean`].

mod again;
pub mod clean;
mod compare;
mod exit;
mod facts;
mod figures;
mod gather;
mod json;
mod junit;
pub mod live;
mod markdown;
mod model;
mod notes;
mod summary;
mod table;
mod terminal;
mod words;
mod wrap;
mod write;

pub use again::command as repeat_command;
pub use compare::{Agreement, Aspect, Finding, Place, agreements, findings};
pub use exit::{ExitCode, exit_code};
pub use json::{report_json, report_schema};
pub use junit::junit;
pub use markdown::markdown;
pub use model::{
    AreaRow, Attempt, CaseResult, Cluster, Counts, FORMAT, Figures, HarnessTrouble, Interruption,
    MatrixCell, ProxyExit, Quantiles, Recorded, Report, RunFacts, Settling, StepResult,
    SubjectTotals,
};
pub use notes::UNTESTED;
pub use table::legend_of as verdict_legend;
pub use terminal::{Colour, TerminalOptions, side_by_side, terminal};
pub use words::cell as counts_cell;
pub use wrap::wrap;
pub use write::{REPORT_FILES, ReportError, write_all};
