//! Lines that fit a width.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Columns that a text takes.
pub(crate) fn columns(text: &str) -> usize {
    text.width()
}

/// Cuts a text into lines of at most `width` columns, at spaces where there are any.
///
/// The text must be clean: without control characters. A character wider than `width` gets a
/// line of its own.
#[must_use]
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = Vec::new();
    let mut rest = text;
    loop {
        let fits = prefix(rest, width);
        if fits == rest.len() {
            break;
        }
        // A space just behind the prefix is a place to break as well.
        let reach = rest[fits..].chars().next().map_or(fits, |c| fits + c.len_utf8());
        let indent = rest.len() - rest.trim_start().len();
        let cut = rest[..reach].rfind(' ').filter(|at| *at > indent).unwrap_or(fits);
        lines.push(rest[..cut].trim_end().to_owned());
        rest = rest[cut..].trim_start_matches(' ');
    }
    if !rest.is_empty() || lines.is_empty() {
        lines.push(rest.to_owned());
    }
    lines
}

/// Length in bytes of the longest beginning, at least one character, that fits.
pub(crate) fn prefix(text: &str, width: usize) -> usize {
    let mut used = 0;
    for (at, c) in text.char_indices() {
        used += c.width().unwrap_or(0);
        if used > width && at > 0 {
            return at;
        }
    }
    text.len()
}

/// Cuts a text to `width` columns and says so with an ellipsis.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    format!("{}…", text[..prefix(text, width.saturating_sub(1))].trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breaks_at_spaces_or_anywhere() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("one two three", 8), ["one two", "three"]);
        assert_eq!(wrap("abcdefghij", 4), ["abcd", "efgh", "ij"]);
        assert_eq!(wrap("  abcdef", 4), ["  ab", "cdef"]);
        assert_eq!(wrap("名名名", 4), ["名名", "名"]);
        assert_eq!(wrap("名名", 1), ["名", "名"]);
        assert_eq!(wrap("", 4), [""]);
        assert_eq!(wrap("ab    ", 3), ["ab"]);
    }

    #[test]
    fn a_cut_is_marked() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdef", 5), "abcd…");
    }
}
