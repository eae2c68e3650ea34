//! What a run says of itself must be enough to run one case of it again.

use clap::{ArgAction, CommandFactory};
use serde_json::json;
use touchstone_report::{RunFacts, repeat_command};

use super::addresses;
use crate::args::{Cases, Cli};
use crate::selection::{library, select};

/// Options that the command that repeats a case has of its own, and those without which the case is
/// the same: which others ran, how many at a time, where it is written down, and what fails a run.
const NOT_REPEATED: [&str; 14] = [
    "provider",
    "subject",
    "seed",
    "expression",
    "profile",
    "jobs",
    "out",
    "strict",
    "fail-on",
    "pause-on-failure",
    "keep",
    "dry-run",
    "help",
    "version",
];

#[test]
fn every_option_is_repeated_or_needs_not_be() {
    let mut cli = Cli::command();
    cli.build();
    let run = cli.find_subcommand("run").expect("a command");
    for argument in run.get_arguments() {
        let Some(name) = argument.get_long() else { continue };
        let valued = matches!(argument.get_action(), ArgAction::Set | ArgAction::Append);
        let words = if valued { format!("--{name} 7") } else { format!("--{name}") };
        let repeated = format!(" {}", repeat_command(Some(&facts(&words)), "web", "a/b"));
        assert_eq!(
            repeated.ends_with(&format!(" {words}")),
            !NOT_REPEATED.contains(&name),
            "--{name}: {repeated}"
        );
    }
}

/// A run with those words in its command.
fn facts(words: &str) -> RunFacts {
    let command: Vec<&str> = ["touchstone", "run"].into_iter().chain(words.split(' ')).collect();
    let host =
        json!({ "kernel": "", "arch": "", "cpus": 1, "memory_mib": 1, "user_namespace": true });
    serde_json::from_value(json!({
        "run": "", "started": "", "version": "", "command": command, "seed": "1", "digest": "",
        "false_alarm_rate": 0.0, "host": host, "provider": "cluster", "strict": false,
        "fail_on": "must",
    }))
    .expect("the facts of a run")
}

#[test]
fn cases_want_a_few_addresses_each() {
    let cases = |pattern: &str| Cases {
        patterns: vec![pattern.to_owned()],
        expressions: vec![],
        profile: None,
        cases: vec![],
    };
    let library = library(&[]).expect("cases");
    let basic = select(&library, &cases("cluster-ip/basic")).expect("a case");
    // Its Service, a marker, and one that nobody has.
    assert!(addresses(&basic[..1]) >= 3, "{}", addresses(&basic[..1]));
    let all = select(&library, &cases("*")).expect("cases");
    let most = all.iter().map(|variant| addresses(std::slice::from_ref(variant))).max();
    assert!(most.is_some_and(|most| most <= 64), "{most:?}");
}
