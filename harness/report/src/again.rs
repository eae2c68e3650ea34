//! The one command that repeats a case.

use crate::RunFacts;
use crate::clean;
use crate::wrap::{columns, prefix};

/// Options of a run without which a case of it is another one, and whether a value follows.
const KEPT: [(&str, bool); 14] = [
    ("--cases", true),
    ("--subjects", true),
    ("--binary", true),
    ("--no-userns", false),
    ("--kernel", true),
    ("--kernel-memory", true),
    ("--kubeconfig", true),
    ("--agent-image", true),
    ("--harmful", false),
    ("--nodes", true),
    ("--image", true),
    ("--lie", true),
    ("--without-proxy", true),
    ("--sabotage", true),
];

/// Those that plant a defect.
const PLANTS: [&str; 3] = ["--lie", "--without-proxy", "--sabotage"];

/// The options of a run's command that planted defects, as a shell reads them.
pub(crate) fn planted(command: &[String]) -> Option<String> {
    let plants = |(option, _): &&(&str, bool)| PLANTS.contains(option);
    let chosen: Vec<(&str, bool)> = KEPT.iter().filter(plants).copied().collect();
    let words: Vec<String> = of(command, &chosen).iter().map(|word| quote(word)).collect();
    (!words.is_empty()).then(|| words.join(" "))
}

/// Those of these options that a command has, with their values.
fn of(command: &[String], options: &[(&str, bool)]) -> Vec<String> {
    let mut kept = Vec::new();
    let mut words = command.iter();
    while let Some(word) = words.next() {
        let option = word.split_once('=').map_or(word.as_str(), |(option, _)| option);
        let Some((_, valued)) = options.iter().find(|(known, _)| *known == option) else {
            continue;
        };
        kept.push(word.clone());
        if *valued && option == word {
            kept.extend(words.next().cloned());
        }
    }
    kept
}

/// The path by which a command chose a subject, where it was no name: the file of `web:fast` says
/// that its name is `web`.
fn path_of<'a>(command: &'a [String], subject: &str) -> Option<&'a str> {
    let name = subject.split([':', '+', '@']).next().unwrap_or(subject);
    let values = command.iter().enumerate().filter_map(|(at, word)| match word.as_str() {
        "-s" | "--subject" => command.get(at + 1).map(String::as_str),
        word => word.strip_prefix("--subject="),
    });
    // Its file has its name, or its folder has.
    let is_its_path = |value: &&str| {
        let (folder, file) = value.rsplit_once('/').unwrap_or_default();
        let stem = file.split(['.', ':', '+', '@']).next();
        stem == Some(name) || (!folder.is_empty() && folder.rsplit('/').next() == Some(name))
    };
    values.into_iter().find(is_its_path)
}

/// The arguments of the command that repeats one case on one subject with the run's choices.
fn arguments(run: Option<&RunFacts>, subject: &str, case: &str) -> Vec<String> {
    let mut arguments = vec!["touchstone".to_owned(), "run".to_owned()];
    // The lab is what a run uses when nobody says otherwise.
    if let Some(run) = run.filter(|run| run.provider != "lab") {
        arguments.extend(["--provider".to_owned(), run.provider.clone()]);
    }
    let path = run.and_then(|run| path_of(&run.command, subject));
    let subject = path.unwrap_or(subject);
    arguments.extend(["--subject".to_owned(), subject.to_owned(), case.to_owned()]);
    if let Some(run) = run {
        arguments.extend(["--seed".to_owned(), run.seed.clone()]);
        arguments.extend(of(&run.command, &KEPT));
    }
    arguments
}

/// The command as one line for a shell.
#[must_use]
pub fn command(run: Option<&RunFacts>, subject: &str, case: &str) -> String {
    let quoted: Vec<String> = arguments(run, subject, case).iter().map(|a| quote(a)).collect();
    quoted.join(" ")
}

/// The command in lines of at most `width` columns, which a shell reads as one.
pub(crate) fn command_lines(
    run: Option<&RunFacts>,
    subject: &str,
    case: &str,
    width: usize,
) -> Vec<String> {
    // Room for the blank and the backslash that continue a line.
    let room = width.saturating_sub(2).max(4);
    let mut lines: Vec<String> = Vec::new();
    let mut line = String::new();
    for argument in arguments(run, subject, case) {
        let quoted = quote(&argument);
        if !line.is_empty() && columns(&line) + 1 + columns(&quoted) > room {
            lines.push(format!("{line} \\"));
            line.clear();
        } else if !line.is_empty() {
            line.push(' ');
        }
        if columns(&quoted) <= room {
            line.push_str(&quoted);
            continue;
        }
        // Pieces that touch without a blank between them are one word to a shell.
        let clean = clean::line(&argument);
        let mut rest = clean.as_str();
        while columns(&always_quoted(rest)) > room {
            let mut at = prefix(rest, room - 3);
            // Quotes inside grow when they are quoted themselves.
            while columns(&always_quoted(&rest[..at])) > room {
                at = rest[..at].char_indices().next_back().map_or(0, |(before, _)| before);
            }
            if at == 0 {
                break;
            }
            lines.push(format!("{line}{}\\", always_quoted(&rest[..at])));
            line.clear();
            rest = &rest[at..];
        }
        line.push_str(&always_quoted(rest));
    }
    lines.push(line);
    lines
}

/// An argument as a shell reads it, in quotes where it needs them.
pub(crate) fn quote(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@=+,%".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        return argument.to_owned();
    }
    always_quoted(&clean::line(argument))
}

fn always_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUBJECT: &str = "kube-proxy:nftables@v1.37.2";

    #[test]
    fn a_case_is_quoted() {
        assert_eq!(
            command(None, SUBJECT, "cluster-ip/basic[v4,tcp]"),
            "touchstone run --subject kube-proxy:nftables@v1.37.2 'cluster-ip/basic[v4,tcp]'"
        );
        assert_eq!(
            command(None, "a'b; rm", "c\x1b[0m"),
            "touchstone run --subject 'a'\\''b; rm' 'c\\x1b[0m'"
        );
    }

    #[test]
    fn a_subject_that_was_a_file_is_that_file_again() {
        let words = "touchstone run -s kube-proxy:ipvs --subject=./mine/web.yaml:fast --out o";
        let command: Vec<String> = words.split(' ').map(str::to_owned).collect();
        assert_eq!(path_of(&command, "web:fast"), Some("./mine/web.yaml:fast"));
        assert_eq!(path_of(&command, "kube-proxy:ipvs"), None);
        assert_eq!(path_of(&command, "we"), None);
        let in_folder = ["-s".to_owned(), "examples/web/subject.yaml@v1.2.3".to_owned()];
        assert_eq!(path_of(&in_folder, "web"), Some("examples/web/subject.yaml@v1.2.3"));
    }

    #[test]
    fn what_made_the_case_what_it_is_is_said_again() {
        let words =
            "touchstone run --cases=mine --strict -s x --sabotage 'rm -rf' a/b --no-userns --out o";
        let mut command: Vec<String> = words.split(' ').map(str::to_owned).collect();
        assert_eq!(of(&command, &KEPT), ["--cases=mine", "--sabotage", "'rm", "--no-userns"]);
        assert_eq!(planted(&command).as_deref(), Some("--sabotage ''\\''rm'"));
        command.truncate(3);
        assert_eq!(of(&command, &KEPT), ["--cases=mine"]);
        assert_eq!(planted(&command), None);
    }

    #[test]
    fn the_cluster_is_said_again() {
        let check = |words: &str, kept: &str| {
            let command: Vec<String> = words.split(' ').map(str::to_owned).collect();
            assert_eq!(of(&command, &KEPT).join(" "), kept);
        };
        check(
            "touchstone run --provider kind --nodes 3 --image=a/node:1 -j 2 --keep a/b",
            "--nodes 3 --image=a/node:1",
        );
        let cluster = "--kubeconfig mine --agent-image r.test/agent:1 --harmful";
        check(&format!("touchstone run --provider cluster {cluster} --strict a/b"), cluster);
        let kernel = "--kernel uml --kernel-memory 2048";
        check(&format!("touchstone run {kernel} --seed 7"), kernel);
    }

    #[test]
    fn lines_continue_as_a_shell_reads_them() {
        assert_eq!(
            command_lines(None, SUBJECT, "cluster-ip/basic[v4,tcp]", 50),
            [
                "touchstone run --subject \\",
                "kube-proxy:nftables@v1.37.2 \\",
                "'cluster-ip/basic[v4,tcp]'"
            ]
        );
        let lines = command_lines(None, "s", "cluster-ip/basic[v4,tcp]", 20);
        assert_eq!(
            lines,
            ["touchstone run \\", "--subject s \\", "'cluster-ip/basi'\\", "'c[v4,tcp]'"]
        );
        assert!(lines.iter().all(|line| columns(line) <= 20));
    }
}
