//! `touchstone spec`: the specification as a document, and how far cases and runs cover it.

mod coverage;
mod document;
mod uncovered;

use anyhow::anyhow;
use touchstone_case::Specified;

use crate::args::{Format, Spec};
use crate::failed::Failed;
use crate::report::width;
use crate::selection::library;

/// The code for a `must` that neither a case nor a reason stands for.
pub(crate) const UNCOVERED: u8 = 1;

pub(crate) fn run(spec: &Spec) -> Result<u8, Failed> {
    let library = library(&spec.cases)?;
    let mut chosen = library.specification(&spec.patterns).map_err(Failed::usage)?;
    if !spec.levels.is_empty() {
        let wanted = |one: &Specified<'_>| {
            spec.levels.iter().any(|level| level.level() == one.behaviour.level)
        };
        chosen.retain(wanted);
    }
    if chosen.is_empty() {
        return Err(Failed::plan(anyhow!(
            "no behaviour of that selection has that level; leave out --level to see all of them"
        )));
    }
    let paper = Paper::of(spec.format);
    if spec.uncovered {
        return uncovered::show(&paper, &chosen, spec.all);
    }
    if spec.coverage {
        return coverage::show(&paper, &library, &chosen, &spec.runs);
    }
    document::show(&paper, &chosen)
}

/// What is written on.
pub(crate) struct Paper {
    format: Format,
    width: usize,
    coloured: bool,
}

impl Paper {
    /// Columns of a file or a pipe, and the most that a line of prose should have.
    const WIDTH: usize = 100;

    fn of(format: Format) -> Paper {
        let terminal = width();
        let coloured = terminal.is_some() && std::env::var_os("NO_COLOR").is_none();
        Paper { format, width: terminal.unwrap_or(Paper::WIDTH).clamp(40, Paper::WIDTH), coloured }
    }

    fn bold(&self, text: &str) -> String {
        self.painted(text, "1")
    }

    fn warning(&self, text: &str) -> String {
        self.painted(text, "33;1")
    }

    fn painted(&self, text: &str, code: &str) -> String {
        if self.coloured { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// A text behind a label of its own column, wrapped.
    fn labelled(&self, label: &str, text: &str) -> String {
        const INDENT: usize = 4;
        const LABEL: usize = 9;
        let lines = touchstone_report::wrap(text, self.width - INDENT - LABEL);
        let mut out = String::new();
        for (at, line) in lines.iter().enumerate() {
            let label = if at == 0 { label } else { "" };
            let padded = format!("{label:LABEL$}");
            let padded = if label == NO_CASE { self.warning(&padded) } else { padded };
            out.push_str(&format!("{:INDENT$}{padded}{line}\n", ""));
        }
        out
    }
}

/// Label of the reason why no case covers a behaviour.
const NO_CASE: &str = "no case";
