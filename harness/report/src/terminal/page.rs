//! Lines with a right-aligned label, as they come to stand on a terminal.

use super::Colour;
use crate::wrap::wrap;

/// Columns of a label and the blank behind it.
const MARGIN: usize = 13;

/// How a label is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Good,
    Bad,
    Warn,
    Calm,
}

/// Text under way, with a width that no line exceeds.
pub(super) struct Page {
    out: String,
    width: usize,
    colour: Colour,
}

impl Page {
    pub(super) fn new(width: usize, colour: Colour) -> Page {
        Page { out: String::new(), width, colour }
    }

    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Columns beside the labels.
    pub(super) fn room(&self) -> usize {
        self.width - MARGIN
    }

    /// A label and its text, which must be clean, in as many lines as it needs.
    pub(super) fn labelled(&mut self, style: Style, label: &str, text: &str) {
        let mut label = label;
        for line in wrap(text, self.room()) {
            if !(label.is_empty() && line.is_empty()) {
                let indent = " ".repeat((MARGIN - 1).saturating_sub(label.chars().count()));
                let painted = self.paint(style, label);
                self.out.push_str(&indent);
                self.out.push_str(&painted);
                if !line.is_empty() {
                    self.out.push(' ');
                    self.out.push_str(&line);
                }
            }
            self.out.push('\n');
            label = "";
        }
    }

    /// A line as it is; it must fit.
    pub(super) fn bare(&mut self, line: &str) {
        self.out.push_str(line.trim_end());
        self.out.push('\n');
    }

    /// An empty line, never the first.
    pub(super) fn blank(&mut self) {
        if !self.out.is_empty() {
            self.out.push('\n');
        }
    }

    /// A line across.
    pub(super) fn rule(&mut self) {
        let rule = "─".repeat(self.width.min(MARGIN - 1));
        self.bare(&rule);
    }

    /// Colours a text that is already measured.
    pub(super) fn paint(&self, style: Style, text: &str) -> String {
        let code = match (self.colour, style) {
            (Colour::Plain, _) | (Colour::Ansi, Style::Calm) => return text.to_owned(),
            (Colour::Ansi, Style::Good) => "32;1",
            (Colour::Ansi, Style::Bad) => "31;1",
            (Colour::Ansi, Style::Warn) => "33;1",
        };
        if text.is_empty() { String::new() } else { format!("\x1b[{code}m{text}\x1b[0m") }
    }

    pub(super) fn finish(self) -> String {
        self.out
    }
}
