//! JUnit XML: a suite per subject and area, a test case per case.

use std::time::Duration;

use quick_junit::{NonSuccessKind, Property, TestCase, TestCaseStatus, TestSuite};
use touchstone_spec::Verdict;

use crate::facts::{facts, labelled};
use crate::{CaseResult, Report, ReportError, clean, repeat_command};

/// The report as JUnit XML.
///
/// `fail` is a failure, `error`, `inconclusive` and `not-run` are errors, `unsupported`, `survey`
/// and `known-failure` are skipped with their reason; an unexpected pass is a failure of a strict
/// run.
///
/// # Errors
/// When the XML cannot be written.
pub fn junit(report: &Report) -> Result<String, ReportError> {
    let name = report.run.as_ref().map_or("touchstone", |run| run.run.as_str());
    let mut xml = quick_junit::Report::new(clean::line(name));
    xml.set_time(Duration::from_millis(report.figures.total_ms));
    for totals in &report.totals {
        for row in &report.matrix {
            let mut results = report
                .results
                .iter()
                .filter(|result| result.subject == totals.subject && result.area == row.area)
                .peekable();
            if results.peek().is_none() {
                continue;
            }
            let name = clean::line(&format!("{} {}", totals.subject, row.area));
            let mut suite = TestSuite::new(name.as_str());
            suite.add_property(Property::new("subject", clean::line(&totals.subject)));
            suite.add_property(Property::new("area", clean::line(&row.area)));
            let subject = report.subjects.iter().find(|subject| subject.id == totals.subject);
            if let Some(digest) = subject.and_then(|subject| subject.digest.as_ref()) {
                suite.add_property(Property::new("digest", clean::line(digest)));
            }
            if subject.is_some_and(|subject| subject.untested) {
                suite.add_property(Property::new("untested", "true"));
            }
            let mut time = Duration::ZERO;
            for result in results {
                time += Duration::from_millis(result.took_ms);
                let mut case = TestCase::new(clean::line(&result.case), status(report, result));
                case.set_classname(name.as_str());
                case.set_time(Duration::from_millis(result.took_ms));
                case.add_property(Property::new("level", result.level.to_string()));
                case.add_property(Property::new("verdict", result.verdict.to_string()));
                if result.flaky {
                    case.add_property(Property::new("flaky", "true"));
                }
                suite.add_test_case(case);
            }
            suite.set_time(time);
            xml.add_test_suite(suite);
        }
    }
    xml.to_string().map_err(|source| ReportError::Xml { source: Box::new(source) })
}

fn status(report: &Report, result: &CaseResult) -> TestCaseStatus {
    let strict = report.run.as_ref().is_some_and(|run| run.strict);
    let mut status = match result.verdict {
        Verdict::Pass => return TestCaseStatus::success(),
        Verdict::UnexpectedPass if !strict => return TestCaseStatus::success(),
        Verdict::Fail | Verdict::UnexpectedPass => {
            TestCaseStatus::non_success(NonSuccessKind::Failure)
        }
        Verdict::Error | Verdict::Inconclusive | Verdict::NotRun => {
            TestCaseStatus::non_success(NonSuccessKind::Error)
        }
        Verdict::Unsupported | Verdict::Survey | Verdict::KnownFailure => TestCaseStatus::skipped(),
    };
    status.set_type(format!("{} ({})", result.verdict, result.level));
    status.set_message(message(result));
    let lines = description(report, result);
    if !lines.is_empty() {
        status.set_description(lines.join("\n"));
    }
    status
}

/// One line: the reason, or else the first thing that was wrong.
fn message(result: &CaseResult) -> String {
    if let Some(excuse) = &result.excuse {
        return clean::line(&excuse.to_string());
    }
    if let Some(note) = &result.note {
        return clean::line(note);
    }
    match result.failures.first() {
        Some(failure) => {
            let seen = failure.seen.join(", ");
            clean::line(&format!("{}: saw {seen}", failure.flow))
        }
        None => result.verdict.to_string(),
    }
}

/// All facts of a result that was judged, and how to repeat it.
fn description(report: &Report, result: &CaseResult) -> Vec<String> {
    let mut lines = Vec::new();
    if result.failures.is_empty() {
        return lines;
    }
    let (shown, rest) = facts(&result.failures);
    for facts in shown {
        lines.extend(facts.iter().flat_map(labelled));
        lines.push(String::new());
    }
    lines.extend(rest);
    let again = repeat_command(report.run.as_ref(), &result.subject, &result.case);
    lines.push(format!("again    {again}"));
    lines
}
