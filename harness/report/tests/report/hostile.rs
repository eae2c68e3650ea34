//! Whatever a subject prints, a report stays what it is.

use touchstone_record::{Ended, Event, Failure};
use touchstone_report::{
    Colour, Report, TerminalOptions, junit, live, markdown, report_json, terminal,
};
use touchstone_spec::{Level, Verdict};

use crate::log::{Log, NFT, ended, failure};

const EVIL: &str = "\x1b[2J\x1b]0;owned\x07</pre><script>alert(1)</script>|`x`\u{202e}]]>&lt;\0\u{fffe}\u{9b}31m\r\nsecond\tline '''''''''''''''''''''''''''''''''''' 名名名名名名名名名名名名名名名名名名名名名名名名名名名名名名名名名名名名名名名名";

/// Every text of a log that a stranger may choose.
fn hostile() -> Report {
    let case = "a/evil[v4]\x1b[31m|<b>";
    let evil = || vec![EVIL.to_owned(); 3];
    let mut log = Log::with(
        &[NFT, EVIL],
        &[(case, Level::Must), ("a/broken", Level::Must), (EVIL, Level::Must)],
        true,
        Level::Must,
    );
    log.cluster(EVIL, NFT, &[EVIL]);
    let bad = Failure {
        flow: EVIL.into(),
        allowed: evil(),
        because: evil(),
        seen: evil(),
        rules: vec![EVIL.to_owned(); 40],
        evidence: evil(),
        ..failure("")
    };
    for subject in [NFT, EVIL] {
        let note = Some(EVIL.to_owned());
        log.ends(Ended {
            failures: vec![bad.clone(); 9],
            note: note.clone(),
            ..ended(subject, case, Verdict::Fail)
        });
        log.ends(Ended { note: note.clone(), ..ended(subject, "a/broken", Verdict::Error) });
        log.ends(Ended { note, ..ended(subject, EVIL, Verdict::KnownFailure) });
        log.ends(Ended { attempt: 2, ..ended(subject, EVIL, Verdict::Pass) });
    }
    log.push(Event::ProxyExited {
        cluster: EVIL.into(),
        node: EVIL.into(),
        status: EVIL.into(),
        by_design: None,
        last_lines: evil(),
    });
    log.push(Event::HarnessError { message: EVIL.into() });
    log.push(Event::Interrupted { signal: EVIL.into() });
    log.report()
}

/// Characters that act instead of showing themselves.
fn acts(c: char) -> bool {
    (c.is_control() && c != '\n') || matches!(c, '\u{202e}' | '\u{fffe}')
}

#[test]
fn the_terminal_obeys_nobody_and_no_line_is_too_wide() {
    let report = hostile();
    for width in [40, 41, 55, 80, 120, 250] {
        let options = TerminalOptions { width, colour: Colour::Plain, files: None };
        let text = terminal(&report, options);
        assert!(!text.contains(acts), "width {width}");
        for line in text.lines() {
            let columns = unicode_width::UnicodeWidthStr::width(line);
            assert!(columns <= width, "{columns} > {width}: {line}");
        }
        assert!(text.contains("\\x1b[2J"), "shown escaped");
    }
}

#[test]
fn colours_are_the_reports_own() {
    let report = hostile();
    let text = terminal(&report, TerminalOptions { width: 80, colour: Colour::Ansi, files: None });
    let plain =
        terminal(&report, TerminalOptions { width: 80, colour: Colour::Plain, files: None });
    assert!(text.contains("\x1b[31;1m"));
    let mut stripped = text.clone();
    for code in ["\x1b[31;1m", "\x1b[32;1m", "\x1b[33;1m", "\x1b[0m"] {
        stripped = stripped.replace(code, "");
    }
    assert_eq!(stripped, plain);
}

#[test]
fn markdown_has_no_markup_of_a_stranger() {
    let text = markdown(&hostile());
    assert!(!text.contains(acts));
    assert!(!text.contains("<script>"));
    assert!(text.contains("&lt;script&gt;"));
    assert_eq!(text.matches("<pre>").count(), text.matches("</pre>").count());
    assert_eq!(text.matches("<details>").count(), text.matches("</details>").count());
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
    for row in &rows {
        assert_eq!(row.replace("\\|", "").matches('|').count(), 4, "{row}");
    }
    assert!(rows.len() > 4);
}

#[test]
fn xml_stays_xml() {
    let text = junit(&hostile()).expect("XML");
    assert!(!text.contains(acts));
    assert!(!text.contains("<script>"));
    assert!(!text.contains("]]>"));
    let read = quick_junit::Report::deserialize_from_str(&text).expect("well-formed");
    assert_eq!((read.tests, read.failures, read.errors), (6, 2, 2));
    let message = text.matches("\\x1b[2J").count();
    assert!(message > 0, "shown escaped");
}

#[test]
fn json_keeps_every_byte() {
    let report = hostile();
    let json = report_json(&report).expect("JSON");
    let read: Report = serde_json::from_str(&json).expect("a report");
    assert_eq!(read, report);
    assert_eq!(read.harness_errors[0].message, EVIL);
}

#[test]
fn a_progress_line_is_one_line() {
    let mut log = Log::new(&[EVIL], &[]);
    log.case(EVIL, EVIL, Verdict::Pass);
    let lines: Vec<String> = log.events.iter().filter_map(live::line).collect();
    assert_eq!(lines.len(), 1);
    assert!(!lines[0].contains(|c: char| c == '\n' || acts(c)));
}
