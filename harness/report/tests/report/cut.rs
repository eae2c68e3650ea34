//! A log that was cut anywhere gives a report, which is never green.

use touchstone_record::Event;
use touchstone_report::{
    Colour, Report, TerminalOptions, exit_code, junit, markdown, report_json, terminal,
};
use touchstone_spec::{Level, Verdict};

use crate::log::{Log, NFT};
use crate::snapshots::busy;

#[test]
fn cut_after_any_event() {
    let log = busy();
    for length in 0..log.events.len() {
        let report = Report::from_events(&log.events[..length]);
        assert_ne!(exit_code(&report).code(), 0, "{length} events");
        assert!(!report.ended, "{length} events");
        let planned = report.results.iter().filter(|result| result.planned).count();
        assert_eq!(planned, report.plan.len() * report.subjects.len());
        let options = TerminalOptions { width: 80, colour: Colour::Plain, files: None };
        assert!(terminal(&report, options).contains("exit code"));
        assert!(markdown(&report).contains("exit code"));
        assert!(junit(&report).expect("XML").contains("<testsuites"));
        let json = report_json(&report).expect("JSON");
        assert_eq!(serde_json::from_str::<Report>(&json).expect("a report"), report);
    }
}

#[test]
fn the_beginning_may_be_missing() {
    let log = busy();
    for skip in 1..log.events.len() {
        let report = Report::from_events(&log.events[skip..]);
        assert_ne!(exit_code(&report).code(), 0, "without the first {skip}");
        assert!(report.run.is_none() && report.plan.is_empty());
    }
}

#[test]
fn a_case_under_way_says_what_it_waited_for() {
    let mut log = Log::new(&[NFT], &[("a/x", Level::Must), ("a/y", Level::Must)]);
    log.starts(NFT, "a/x", 1);
    log.push(Event::Waiting {
        subject: NFT.into(),
        case: "a/x".into(),
        what: "all three backends answer".into(),
    });
    let report = log.report();
    let notes: Vec<_> = report.results.iter().map(|r| (r.verdict, r.note.as_deref())).collect();
    assert_eq!(
        notes,
        [
            (
                Verdict::NotRun,
                Some("the run ended while it was waiting: all three backends answer")
            ),
            (Verdict::NotRun, None)
        ]
    );
}
