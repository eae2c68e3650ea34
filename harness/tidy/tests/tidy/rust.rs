//! Rust text without its comments and literals, as words with their lines.

/// An identifier or keyword in code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) line: usize,
    pub(crate) text: String,
}

/// The identifiers and keywords of a Rust file, in order.
pub(crate) fn words(text: &str) -> Vec<Word> {
    let mut words = Vec::new();
    for (number, line) in code(text).lines().enumerate() {
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        for word in line.split(|c| !is_part(c)).filter(|word| !word.is_empty()) {
            words.push(Word { line: number + 1, text: word.to_owned() });
        }
    }
    words
}

/// The text with comments and literals blanked; lines stay where they are.
fn code(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut last = ' ';
    while let Some(c) = rest.chars().next() {
        let after_word = last.is_alphanumeric() || last == '_';
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if c == '"' {
            string(rest)
        } else if let Some(length) = raw_string(rest).filter(|_| !after_word) {
            length
        } else if let Some(length) = character(rest) {
            length
        } else {
            out.push(c);
            last = c;
            rest = &rest[c.len_utf8()..];
            continue;
        };
        out.push(' ');
        out.extend(rest[..length].chars().filter(|c| *c == '\n'));
        last = ' ';
        rest = &rest[length..];
    }
    out
}

fn block_comment(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// `r"…"`, `r#"…"#` and so on, also as bytes.
fn raw_string(text: &str) -> Option<usize> {
    let rest = text.strip_prefix('b').unwrap_or(text).strip_prefix('r')?;
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    let inside = rest[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let start = text.len() - inside.len();
    Some(inside.find(&end).map_or(text.len(), |at| start + at + end.len()))
}

/// `'x'` or `'\n'`; a lifetime is none.
fn character(text: &str) -> Option<usize> {
    let inside = text.strip_prefix('\'')?;
    if inside.starts_with('\\') {
        return inside[2..].find('\'').map(|at| 1 + 2 + at + 1);
    }
    let c = inside.chars().next()?;
    inside[c.len_utf8()..].starts_with('\'').then(|| 1 + c.len_utf8() + 1)
}

#[cfg(test)]
mod tests {
    use super::words;

    fn check(text: &str, expected: &str) {
        let said: Vec<String> =
            words(text).into_iter().map(|word| format!("{}:{}", word.line, word.text)).collect();
        assert_eq!(said.join(" "), expected, "{text}");
    }

    #[test]
    fn comments_and_literals_are_no_code() {
        check("a // b\nc", "1:a 2:c");
        check("a /* b /* c */ d\n */ e", "1:a 2:e");
        check(r#"a "b \" c" d"#, "1:a 1:d");
        check("a r#\"b \" c\n\"# d", "1:a 2:d");
        check(r"a '\'' b 'c' d '\u{1f}' e", "1:a 1:b 1:d 1:e");
        check("fn f<'a>(x: &'a str) {}", "1:fn 1:f 1:a 1:x 1:a 1:str");
        check("for_r\"x\" y", "1:for_r 1:y");
        check("#[expect(unsafe_code)] unsafe {}", "1:expect 1:unsafe_code 1:unsafe");
    }
}
