//! Sizes and words of files.

use crate::project::{no_complaints, sources, sources_ending};

/// A longer file has more than one idea, or a reason below.
const LINES: usize = 600;

/// Longer files, and why each is one file all the same.
const LONG: [(&str, &str); 0] = [];

/// Words that tell about the machine on which something was written.
const HOMES: [&str; 4] =
    [concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/Us", "ers/"), concat!("/wo", "rk/")];
const STRANGERS: [&str; 2] = [concat!("../sha", "red"), concat!("arti", "factory")];

#[test]
fn files_are_short_or_say_why() {
    let mut complaints = Vec::new();
    let mut long = LONG.to_vec();
    for source in sources_ending(".rs") {
        let lines = source.text.lines().count();
        let listed = long.iter().position(|(path, _)| *path == source.path);
        match listed.map(|at| long.remove(at)) {
            None if lines > LINES => {
                complaints.push(format!("{} has {lines} lines: split it", source.path));
            }
            Some(_) if lines <= LINES => {
                complaints.push(format!("{} is short now: take it off LONG", source.path));
            }
            None | Some(_) => {}
        }
    }
    complaints.extend(long.into_iter().map(|(path, _)| format!("{path} is in LONG, but gone")));
    no_complaints("long files", &complaints);
}

#[test]
fn no_file_tells_about_a_machine() {
    let mut complaints = Vec::new();
    for source in sources() {
        for (number, line) in source.text.lines().enumerate() {
            let homes = HOMES.iter().filter(|home| is_absolute(line, home));
            let strangers = STRANGERS.iter().filter(|word| line.contains(**word));
            for word in homes.chain(strangers) {
                complaints.push(format!("{}:{}: {word}", source.path, number + 1));
            }
        }
    }
    no_complaints("words that belong to one machine", &complaints);
}

/// Whether a path in `line` begins with `home`, so that it is not a part of a longer one.
fn is_absolute(line: &str, home: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || "._-/}\"~".contains(c);
    line.match_indices(home).any(|(at, _)| {
        let before = &line[..at];
        // A quote that opens a string is a beginning; one after a variable is not.
        !before.ends_with(inside) || before.ends_with('"') && !before.ends_with("}\"")
    })
}

#[test]
fn absolute_paths_are_told_from_parts() {
    let home = HOMES[0];
    assert!(is_absolute(&format!("see {home}me"), home));
    assert!(is_absolute(&format!("\"{home}me\""), home));
    assert!(!is_absolute(&format!("$scratch{home}cache"), home));
    assert!(!is_absolute(&format!("${{scratch}}{home}cache"), home));
}
