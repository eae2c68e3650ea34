//! How verdicts, counts and times are written, the same in every rendering.

use touchstone_spec::Verdict;

use crate::Counts;

/// A verdict at the head of a line, at most twelve columns wide.
pub(crate) fn label(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "PASS",
        Verdict::Survey => "SURVEY",
        Verdict::Unsupported => "UNSUPPORTED",
        Verdict::KnownFailure => "KNOWN FAIL",
        Verdict::UnexpectedPass => "UNEXPECTED",
        Verdict::Inconclusive => "INCONCLUSIVE",
        Verdict::NotRun => "NOT RUN",
        Verdict::Fail => "FAIL",
        Verdict::Error => "ERROR",
    }
}

/// A verdict in a cell of the matrix, one column wide.
pub(crate) fn sign(verdict: Verdict) -> char {
    match verdict {
        Verdict::Pass => '✓',
        Verdict::Survey => '○',
        Verdict::Unsupported => '–',
        Verdict::KnownFailure => '≈',
        Verdict::UnexpectedPass => '+',
        Verdict::Inconclusive => '?',
        Verdict::NotRun => '·',
        Verdict::Fail => '✗',
        Verdict::Error => '!',
    }
}

/// Counts as a cell of a matrix: `10 ✓ 2 ✗`.
#[must_use]
pub fn cell(counts: &Counts) -> String {
    let parts: Vec<String> = Verdict::ALL
        .iter()
        .filter_map(|verdict| counts.get(verdict).map(|n| format!("{n} {}", sign(*verdict))))
        .collect();
    parts.join(" ")
}

/// Counts as a sentence's part: `10 pass, 2 fail`.
pub(crate) fn counts(counts: &Counts) -> String {
    let parts: Vec<String> = Verdict::ALL
        .iter()
        .filter_map(|verdict| counts.get(verdict).map(|n| format!("{n} {verdict}")))
        .collect();
    if parts.is_empty() { "no case".to_owned() } else { parts.join(", ") }
}

/// Milliseconds as seconds: `0.812s`.
pub(crate) fn seconds(ms: u64) -> String {
    format!("{}.{:03}s", ms / 1000, ms % 1000)
}

/// Milliseconds for a sentence: `812 ms`, `3.4 s`, `2 min 5 s`.
pub(crate) fn span(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        _ => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1000),
    }
}

/// A number with its noun: `1 case`, `2 cases`.
pub(crate) fn many(n: u64, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{} {noun}s", grouped(n)) }
}

/// A digest cut to what people compare by eye.
pub(crate) fn short(digest: &str) -> String {
    digest.strip_prefix("sha256:").unwrap_or(digest).chars().take(12).collect()
}

/// A number with commas between groups of three digits.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_fit_their_column() {
        for verdict in Verdict::ALL {
            assert!(label(verdict).len() <= 12, "{verdict}");
        }
    }

    #[test]
    fn times_and_numbers() {
        assert_eq!(seconds(812), "0.812s");
        assert_eq!(seconds(61_007), "61.007s");
        assert_eq!([span(12), span(3_456), span(125_000)], ["12 ms", "3.4 s", "2 min 5 s"]);
        assert_eq!([many(1, "probe"), many(12_345, "probe")], ["1 probe", "12,345 probes"]);
        assert_eq!(grouped(1_000_000), "1,000,000");
        assert_eq!(short("sha256:0123456789abcdef"), "0123456789ab");
    }
}
