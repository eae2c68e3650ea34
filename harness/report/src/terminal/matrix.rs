//! The matrix, in as many tables as the width needs.

use std::ops::Range;

use comfy_table::{ContentArrangement, LineStyle, Table, TableStyle};
use touchstone_spec::Verdict;

use super::page::{Page, Style};
use crate::Report;
use crate::table::{Row, areas, legend, subjects, sums};
use crate::words::sign;
use crate::wrap::{columns, cut};

/// Columns beyond which a subject's name is wrapped rather than given a table of its own.
const NAME: usize = 28;

/// Draws the matrix with its legend; nothing where no case is.
pub(super) fn draw(page: &mut Page, report: &Report) {
    if report.results.is_empty() {
        return;
    }
    let (names, areas, sums) = (subjects(report), areas(report), sums(report));
    for part in parts(page.width(), &names, areas.iter().chain(&sums)) {
        page.blank();
        let mut table = Table::new();
        table
            .load_style(
                TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─')),
            )
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(u16::try_from(page.width()).unwrap_or(u16::MAX))
            .set_header(line("area", &names[part.clone()]));
        for row in &areas {
            table.add_row(line(&row.name, &row.cells[part.clone()]));
        }
        table.add_row(line("", &vec![String::new(); part.len()]));
        for row in &sums {
            table.add_row(line(&row.name, &row.cells[part.clone()]));
        }
        for line in table.lines() {
            let line = cut(line.trim_end(), page.width());
            let painted = signs_painted(page, &line);
            page.bare(&painted);
        }
    }
    page.blank();
    page.labelled(Style::Calm, "legend", &legend(report));
}

fn line(name: &str, cells: &[String]) -> Vec<String> {
    std::iter::once(name.to_owned()).chain(cells.iter().cloned()).collect()
}

/// Subjects that fit beside each other, table by table; each has at least one.
fn parts<'a>(
    width: usize,
    names: &[String],
    rows: impl Iterator<Item = &'a Row>,
) -> Vec<Range<usize>> {
    let mut first = columns("area");
    let mut widths: Vec<usize> = names.iter().map(|name| columns(name).min(NAME)).collect();
    for row in rows {
        first = first.max(columns(&row.name));
        for (width, cell) in widths.iter_mut().zip(&row.cells) {
            *width = (*width).max(columns(cell));
        }
    }
    let (mut parts, mut start, mut used) = (Vec::new(), 0, first + 3);
    for (i, column) in widths.iter().map(|width| width + 3).enumerate() {
        if i > start && used + column > width {
            parts.push(start..i);
            (start, used) = (i, first + 3);
        }
        used += column;
    }
    parts.push(start..names.len());
    parts
}

/// Colours the signs of a finished line, whose columns that does not change.
fn signs_painted(page: &Page, line: &str) -> String {
    let style = |c: char| {
        let of = |verdict| c == sign(verdict);
        if of(Verdict::Pass) {
            Style::Good
        } else if of(Verdict::Fail) || of(Verdict::Error) {
            Style::Bad
        } else if of(Verdict::Inconclusive) {
            Style::Warn
        } else {
            Style::Calm
        }
    };
    line.chars().map(|c| page.paint(style(c), c.encode_utf8(&mut [0; 4]))).collect()
}
