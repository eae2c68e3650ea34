//! The event log of a run: events, writer, reader, and the format's version.
//!
//! One closed set of events is the only seam between running and reporting: whatever a report
//! shows is in the log, so every report can be made again from a saved run.
//! The log is JSON Lines, one event a line, flushed per event.

mod event;
mod log;

pub use event::{
    CellRecord, Ended, Event, ExitByDesign, Failure, HostFacts, PhaseKind, PlannedCase, RunEvent,
    SecondKernel, StepTimes, SubjectRecord, Tally,
};
pub use log::{LogError, LogReader, LogWriter};

/// Version of the log's format; a reader refuses other major versions.
pub const FORMAT: &str = "touchstone-log/1";
