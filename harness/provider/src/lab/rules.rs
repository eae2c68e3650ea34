//! The proxy's rules on a node, as evidence.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::{Command, Stdio};

/// Most lines of evidence.
const MOST_LINES: usize = 60;

/// Runs listing commands and gives their lines. Must run on the node's own thread.
pub(super) fn listing(commands: &[Vec<String>]) -> Vec<String> {
    let mut lines = Vec::new();
    for command in commands {
        let Some((program, args)) = command.split_first() else { continue };
        let output = Command::new(program).args(args).stdin(Stdio::null()).output();
        match output {
            Ok(output) => {
                lines.extend(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned));
            }
            Err(error) => lines.push(format!("({program}: {error})")),
        }
    }
    lines
}

/// Runs shell text that damages rules. Must run on the node's own thread.
///
/// # Errors
/// When it cannot be run, or ends with another status than 0.
pub(super) fn damage(text: &str) -> Result<(), String> {
    let output = Command::new("sh")
        .args(["-c", text])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("sh: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{}: {}", output.status, said.trim()))
}

/// The lines that mention a needle, and those of the chains that these lines jump to.
pub(super) fn about(lines: &[String], needles: &[String]) -> Vec<String> {
    let mut wanted: BTreeSet<usize> = BTreeSet::new();
    let mut names: BTreeSet<String> = BTreeSet::new();
    for (number, line) in lines.iter().enumerate() {
        if needles.iter().any(|needle| mentions(line, needle)) {
            wanted.insert(number);
            names.extend(chains(line));
        }
    }
    // Chains that those chains jump to: a Service's chain leads to its endpoints'.
    for _ in 0..2 {
        let mut more = BTreeSet::new();
        let mut inside = false;
        for (number, line) in lines.iter().enumerate() {
            let words: Vec<&str> = line.split_whitespace().collect();
            inside = match words.as_slice() {
                // nft prints a chain as a block, iptables-save one rule a line.
                ["chain", name, "{"] => names.contains(*name),
                ["-A", name, ..] if names.contains(*name) => {
                    wanted.insert(number);
                    more.extend(chains(line));
                    false
                }
                _ => inside,
            };
            if inside {
                wanted.insert(number);
                more.extend(chains(line));
                inside = line.trim() != "}";
            }
        }
        names.extend(more);
    }
    let total = wanted.len();
    let mut found: Vec<String> =
        wanted.into_iter().take(MOST_LINES).map(|n| lines[n].trim_end().to_owned()).collect();
    if total > MOST_LINES {
        found.push(format!("({} more lines)", total - MOST_LINES));
    }
    if found.is_empty() {
        found.push(format!("(no rule mentions {})", needles.join(" or ")));
    }
    found
}

/// The lines that mention any of these addresses.
pub(super) fn mentioning(lines: &[String], addresses: &BTreeSet<IpAddr>) -> Vec<String> {
    let is_address =
        |word: &str| word.parse::<IpAddr>().is_ok_and(|address| addresses.contains(&address));
    lines
        .iter()
        .filter(|line| {
            line.split(|c: char| !c.is_ascii_hexdigit() && c != '.' && c != ':').any(is_address)
        })
        .map(|line| line.trim().to_owned())
        .collect()
}

/// Whether a line has the needle as a word of its own: 30080, not 300801 or 1.30080.
fn mentions(line: &str, needle: &str) -> bool {
    let part = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    line.match_indices(needle).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + needle.len()..].chars().next();
        !part(before) && !part(after)
    })
}

/// Names of chains that a rule jumps to or a map entry leads to.
fn chains(line: &str) -> Vec<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    words
        .windows(2)
        .filter(|pair| matches!(pair[0], "-j" | "-g" | "goto" | "jump"))
        .map(|pair| pair[1].trim_end_matches([',', '}']).to_owned())
        .filter(|name| {
            // Chains that every Service shares say nothing about one of them.
            name.contains("KUBE-SVC")
                || name.contains("KUBE-SEP")
                || name.contains("KUBE-EXT")
                || name.contains("KUBE-SVL")
                || name.contains("KUBE-FW")
                || name.contains('/')
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(listing: &str, needle: &str, expected: &[&str]) {
        let lines: Vec<String> = listing.lines().map(str::to_owned).collect();
        assert_eq!(about(&lines, &[needle.to_owned()]), expected);
    }

    #[test]
    fn iptables_rules_with_their_chains() {
        check(
            "-A KUBE-SERVICES -d 10.96.0.17/32 -p tcp -j KUBE-SVC-A\n\
             -A KUBE-SERVICES -d 10.96.0.170/32 -p tcp -j KUBE-SVC-B\n\
             -A KUBE-SVC-A -j KUBE-SEP-1\n\
             -A KUBE-SVC-B -j KUBE-SEP-2\n\
             -A KUBE-SEP-1 -j DNAT --to-destination 10.244.1.11:8000",
            "10.96.0.17",
            &[
                "-A KUBE-SERVICES -d 10.96.0.17/32 -p tcp -j KUBE-SVC-A",
                "-A KUBE-SVC-A -j KUBE-SEP-1",
                "-A KUBE-SEP-1 -j DNAT --to-destination 10.244.1.11:8000",
            ],
        );
    }

    #[test]
    fn nft_blocks() {
        check(
            "map service-ips {\n\t10.96.0.17 . tcp . 80 : goto service-AA/web/tcp/ ,\n}\n\
             chain service-AA/web/tcp/ {\n\tnumgen random mod 1 vmap { 0 : goto endpoint-X/web/tcp }\n}\n\
             chain other {\n\taccept\n}",
            "10.96.0.17",
            &[
                "\t10.96.0.17 . tcp . 80 : goto service-AA/web/tcp/ ,",
                "chain service-AA/web/tcp/ {",
                "\tnumgen random mod 1 vmap { 0 : goto endpoint-X/web/tcp }",
                "}",
            ],
        );
    }

    #[test]
    fn nothing_is_said_too() {
        check("-A X -j Y", "10.0.0.1", &["(no rule mentions 10.0.0.1)"]);
    }
}
