//! Writing and reading the log.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::{Event, FORMAT, RunEvent};

/// Trouble with a log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file cannot be made.
    #[error("failed to create the event log {path}")]
    Create {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An event cannot be written; what was written before is kept.
    #[error("failed to write to the event log {path}")]
    Write {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file cannot be read.
    #[error("failed to read the event log {path}")]
    Read {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line in the middle is no event.
    #[error("{path}:{line}: not an event of {FORMAT}")]
    Parse {
        /// Where.
        path: PathBuf,
        /// Line.
        line: usize,
        /// Why.
        source: serde_json::Error,
    },
    /// It does not begin as a log of this version does.
    #[error("{path} is not a log of format {FORMAT}")]
    Format {
        /// Where.
        path: PathBuf,
    },
}

/// Appends events to a log, each flushed before the call returns.
#[derive(Debug)]
pub struct LogWriter {
    path: PathBuf,
    file: Mutex<File>,
    start: Instant,
    /// Time of the run that had passed by then.
    passed: Duration,
}

impl LogWriter {
    /// Makes the log; the run's clock starts here.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn create(path: &Path) -> Result<LogWriter, LogError> {
        let file = File::create(path)
            .map_err(|source| LogError::Create { path: path.to_owned(), source })?;
        Ok(LogWriter::onto(file, path))
    }

    /// A log whose lines leave by something that is open already; the run's clock starts here.
    /// `path` names it in errors.
    #[must_use]
    pub fn onto(file: File, path: &Path) -> LogWriter {
        LogWriter {
            path: path.to_owned(),
            file: Mutex::new(file),
            start: Instant::now(),
            passed: Duration::ZERO,
        }
    }

    /// Opens the log of a run that was cut off, to add what is known of its end. A torn last line
    /// is taken away. Its clock goes on where the last event left it.
    ///
    /// # Errors
    /// When the file cannot be read or changed.
    pub fn append(path: &Path) -> Result<LogWriter, LogError> {
        let failed = |source| LogError::Read { path: path.to_owned(), source };
        let text = std::fs::read(path).map_err(failed)?;
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let file = File::options().append(true).open(path).map_err(failed)?;
        file.set_len(whole as u64).map_err(failed)?;
        let lines = text.get(..whole).unwrap_or_default();
        let last = lines.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty());
        let last = last.and_then(|line| serde_json::from_slice::<RunEvent>(line).ok());
        let passed = last.map_or(Duration::ZERO, |event| Duration::from_millis(event.at));
        Ok(LogWriter { passed, ..LogWriter::onto(file, path) })
    }

    /// Appends one event, stamped with the time since the start, and gives it back.
    ///
    /// # Errors
    /// When the event cannot be written, for instance for lack of space.
    pub fn write(&self, event: Event) -> Result<RunEvent, LogError> {
        let failed = |source| LogError::Write { path: self.path.clone(), source };
        let at =
            u64::try_from((self.passed + self.start.elapsed()).as_millis()).unwrap_or(u64::MAX);
        let event = RunEvent { at, event };
        let mut line = serde_json::to_vec(&event).map_err(|e| failed(e.into()))?;
        line.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(&line).map_err(failed)?;
        file.flush().map_err(failed)?;
        Ok(event)
    }
}

/// Reads a log, also one whose writer was killed in the middle of a line.
#[derive(Debug)]
pub struct LogReader;

impl LogReader {
    /// All events of a log. A last line without an end is left out, as a killed run leaves it.
    ///
    /// # Errors
    /// When the file cannot be read, is of another format, or a complete line is no event.
    pub fn read(path: &Path) -> Result<Vec<RunEvent>, LogError> {
        let failed = |source| LogError::Read { path: path.to_owned(), source };
        let mut reader = BufReader::new(File::open(path).map_err(failed)?);
        let mut events = Vec::new();
        let mut line = Vec::new();
        loop {
            line.clear();
            reader.read_until(b'\n', &mut line).map_err(failed)?;
            if line.last() != Some(&b'\n') {
                break;
            }
            let event: RunEvent = serde_json::from_slice(&line).map_err(|source| {
                LogError::Parse { path: path.to_owned(), line: events.len() + 1, source }
            })?;
            events.push(event);
        }
        match events.first().map(|first| &first.event) {
            Some(Event::RunStarted { format, .. }) if format == FORMAT => Ok(events),
            _ => Err(LogError::Format { path: path.to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_last_line_is_left_out() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("events.jsonl");
        let writer = LogWriter::create(&path).expect("a log");
        writer.write(sample()).expect("written");
        writer.write(Event::Interrupted { signal: "SIGINT".into() }).expect("written");
        let mut file = File::options().append(true).open(&path).expect("open");
        file.write_all(b"{\"at\":3,\"event\":\"inter").expect("torn");
        let events = LogReader::read(&path).expect("readable");
        assert_eq!(events.len(), 2);
        assert_eq!(events[0].event, sample());
    }

    #[test]
    fn what_is_added_to_a_cut_log_comes_after_its_last_event() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("events.jsonl");
        LogWriter::create(&path).expect("a log").write(sample()).expect("written");
        let event = RunEvent { at: 60_000, event: Event::Interrupted { signal: "SIGINT".into() } };
        let mut text = std::fs::read(&path).expect("a log");
        text.extend(serde_json::to_vec(&event).expect("JSON"));
        text.extend(b"\n{\"at\":70000,\"ev");
        std::fs::write(&path, text).expect("written");
        let added = LogWriter::append(&path).expect("a log").write(sample()).expect("written");
        assert!(added.at >= 60_000, "at {}", added.at);
        assert_eq!(LogReader::read(&path).expect("readable").len(), 3);
    }

    #[test]
    fn another_file_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("events.jsonl");
        std::fs::write(&path, "hello\n").expect("written");
        assert!(matches!(LogReader::read(&path), Err(LogError::Parse { line: 1, .. })));
        std::fs::write(&path, "").expect("written");
        assert!(matches!(LogReader::read(&path), Err(LogError::Format { .. })));
    }

    fn sample() -> Event {
        Event::RunStarted {
            format: FORMAT.into(),
            run: "r".into(),
            started: "2026-01-01T00:00:00Z".into(),
            version: "0".into(),
            command: vec![],
            seed: 1,
            subjects: vec![],
            plan: vec![],
            digest: String::new(),
            false_alarm_rate: 1e-6,
            host: crate::HostFacts {
                kernel: "6".into(),
                arch: "x86_64".into(),
                cpus: 2,
                memory_mib: 1,
                user_namespace: true,
                options: vec![],
                second_kernel: None,
            },
            provider: "lab".into(),
            strict: false,
            fail_on: touchstone_spec::Level::Must,
        }
    }
}
