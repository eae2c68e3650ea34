//! Exit codes: each reason alone, and every combination of reasons.

use touchstone_record::Event;
use touchstone_report::{ExitCode, Report, exit_code};
use touchstone_spec::{Level, Verdict};

use crate::log::{IPT, Log, NFT};

const LEVELS: [Level; 4] = [Level::Must, Level::Should, Level::May, Level::Survey];

/// One passing `must` case beside one case of this level and verdict.
fn one(verdict: Verdict, level: Level, strict: bool, fail_on: Level) -> ExitCode {
    let mut log =
        Log::with(&[NFT], &[("a/good[v4]", Level::Must), ("a/x[v4]", level)], strict, fail_on);
    log.case(NFT, "a/good[v4]", Verdict::Pass);
    if verdict != Verdict::NotRun {
        log.case(NFT, "a/x[v4]", verdict);
    }
    log.finish();
    exit_code(&log.report())
}

#[test]
fn every_verdict_at_every_level() {
    for level in LEVELS {
        for fail_on in LEVELS {
            for strict in [false, true] {
                for verdict in Verdict::ALL {
                    let want = match verdict {
                        Verdict::Pass
                        | Verdict::Survey
                        | Verdict::Unsupported
                        | Verdict::KnownFailure => 0,
                        Verdict::UnexpectedPass => u8::from(strict),
                        Verdict::Fail => match (level, fail_on) {
                            (Level::Must, _)
                            | (Level::Should, Level::Should | Level::May | Level::Survey)
                            | (Level::May, Level::May | Level::Survey)
                            | (Level::Survey, Level::Survey) => 1,
                            (Level::Should, Level::Must)
                            | (Level::May, Level::Must | Level::Should)
                            | (Level::Survey, Level::Must | Level::Should | Level::May) => 0,
                        },
                        Verdict::Inconclusive => match level {
                            Level::Must => 2,
                            Level::Should | Level::May | Level::Survey => 0,
                        },
                        Verdict::Error => 3,
                        Verdict::NotRun => 4,
                    };
                    let got = one(verdict, level, strict, fail_on).code();
                    assert_eq!(got, want, "{verdict} {level}, fail on {fail_on}, strict {strict}");
                }
            }
        }
    }
}

#[test]
fn every_combination_of_reasons() {
    let signals = [None, Some(("SIGINT", 130)), Some(("SIGTERM", 143)), Some(("SIGHUP", 130))];
    for signal in signals {
        for bits in 0..64_u8 {
            let on = |bit: u8| bits & (1 << bit) != 0;
            let [broken, trouble, missing, cut, fails, unclear] = [0, 1, 2, 3, 4, 5].map(on);
            let plan = ["a/good", "a/broken", "a/missing", "a/fails", "a/unclear"];
            let mut log = Log::new(&[NFT], &plan.map(|case| (case, Level::Must)));
            let or_pass = |verdict, on| if on { verdict } else { Verdict::Pass };
            log.case(NFT, "a/good", Verdict::Pass);
            log.case(NFT, "a/broken", or_pass(Verdict::Error, broken));
            log.case(NFT, "a/fails", or_pass(Verdict::Fail, fails));
            log.case(NFT, "a/unclear", or_pass(Verdict::Inconclusive, unclear));
            if !missing {
                log.case(NFT, "a/missing", Verdict::Pass);
            }
            if trouble {
                log.push(Event::HarnessError { message: "no room".into() });
            }
            if let Some((signal, _)) = signal {
                log.push(Event::Interrupted { signal: signal.into() });
            }
            if !cut {
                log.finish();
            }
            let order =
                [(broken || trouble, 3), (missing || cut, 4), (fails, 1), (unclear, 2), (true, 0)];
            let first = order.iter().find(|(applies, _)| *applies).map(|(_, code)| *code);
            let want = signal.map(|(_, code)| code).or(first);
            let report = log.report();
            assert_eq!(Some(exit_code(&report).code()), want, "{signal:?} {bits:06b}");
            assert_eq!(Some(report.exit_code), want);
        }
    }
}

#[test]
fn nothing_is_never_green() {
    let code = |log: &Log| exit_code(&log.report()).code();
    assert_eq!(exit_code(&Report::from_events(&[])).code(), 4);

    let mut empty_plan = Log::new(&[NFT], &[]);
    empty_plan.finish();
    assert_eq!(code(&empty_plan), 4);

    let mut no_subject = Log::new(&[], &[("a/x", Level::Must)]);
    no_subject.finish();
    assert_eq!(code(&no_subject), 4);

    let mut one_of_two = Log::new(&[NFT, IPT], &[("a/x", Level::Must)]);
    one_of_two.case(NFT, "a/x", Verdict::Pass);
    let mut unsupported = one_of_two.clone();
    one_of_two.finish();
    assert_eq!(code(&one_of_two), 4, "the plan holds for every subject");
    unsupported.case(IPT, "a/x", Verdict::Unsupported);
    unsupported.finish();
    assert_eq!(code(&unsupported), 4, "nothing was judged on the second subject");
}

#[test]
fn a_case_outside_the_plan_counts_as_must() {
    let mut log = Log::new(&[NFT], &[("a/x", Level::Must)]);
    log.case(NFT, "a/x", Verdict::Pass);
    log.case(NFT, "lifecycle/proxy-stays-up", Verdict::Fail);
    log.finish();
    assert_eq!(exit_code(&log.report()), ExitCode::Conformance);
}
