//! Text of strangers, made fit for a terminal, a Markdown page or an XML file.
//!
//! A proxy under test chooses what its log, its rules and its names look like; none of that may
//! move a cursor, reverse a line, open a tag or end a table cell.

use std::fmt::Write;

/// One line for a terminal or an XML text: whatever does not simply show itself is written as an
/// escape, a tab as four spaces.
#[must_use]
pub fn line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => out.push_str("    "),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            _ if c.is_ascii_control() => {
                // Writing to a String does not fail.
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            _ if shows_itself(c) => out.push(c),
            _ => {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
        }
    }
    out
}

/// Several lines, each made fit by [`line`]; an empty text has none.
pub fn lines(text: &str) -> impl Iterator<Item = String> {
    text.lines().map(line)
}

/// One line of running text or of a table cell in Markdown: what would be markup is escaped.
#[must_use]
pub fn markdown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in line(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '|' | '`' | '*' | '_' | '[' | ']' | '\\' | '~' | '#' | '$' => {
                out.push('\\');
                out.push(c);
            }
            _ => out.push(c),
        }
    }
    out
}

/// One line inside `<pre>`, where Markdown means nothing and only HTML has to be escaped.
#[must_use]
pub fn html(text: &str) -> String {
    line(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Whether a character is drawn where it stands and changes nothing around it; control
/// characters, separators of lines, marks of direction, invisible characters and those that XML
/// forbids are not.
fn shows_itself(c: char) -> bool {
    !(c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{fffe}' | '\u{ffff}'
            | '\u{e0000}'..='\u{e0fff}'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_the_terminal_unseen() {
        assert_eq!(line("\x1b[31mred\x1b[0m\0\x7f"), "\\x1b[31mred\\x1b[0m\\x00\\x7f");
        assert_eq!(line("a\tb\r\nc"), "a    b\\r\\nc");
        assert_eq!(line("\u{202e}evil\u{9b}2J\u{feff}"), "\\u{202e}evil\\u{9b}2J\\u{feff}");
        assert_eq!(line("plain × ✓ 名 é"), "plain × ✓ 名 é");
        assert_eq!(lines("one\ntwo\x07").collect::<Vec<_>>(), ["one", "two\\x07"]);
    }

    #[test]
    fn nothing_is_markup() {
        assert_eq!(markdown("a|b `c` <img src=x>"), "a\\|b \\`c\\` &lt;img src=x&gt;");
        assert_eq!(markdown("![x](y) *b* _i_ \\"), "!\\[x\\](y) \\*b\\* \\_i\\_ \\\\");
        assert_eq!(markdown("&lt;\n# head"), "&amp;lt;\\\\n\\# head");
        assert_eq!(html("</pre><b>&"), "&lt;/pre&gt;&lt;b&gt;&amp;");
    }
}
