//! Templates in a subject's file, and the check of the names that they use.

use std::collections::BTreeSet;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Value, ValueKind};
use minijinja::{AutoEscape, Environment, UndefinedBehavior, escape_formatter};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::file::{FileError, Placed, Text};
use crate::suggest;

/// A text with `{{ … }}` places; a name that does not exist is an error, never empty text.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Template(Placed<String>);

impl Template {
    /// The text as written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0.value
    }

    /// A whole file as a template.
    pub(crate) fn of_file(text: String) -> Self {
        Self(Placed { value: text, line: 1, column: 1 })
    }

    pub(crate) fn placed(&self) -> &Placed<String> {
        &self.0
    }

    pub(crate) fn render(&self, context: &Value) -> Result<String, minijinja::Error> {
        environment()?.render_str(self.text(), context)
    }

    /// Checks the syntax, and that every name used is one of `known`.
    pub(crate) fn check(
        &self,
        text: Text<'_>,
        known: &BTreeSet<String>,
    ) -> Result<(), Box<FileError>> {
        let unreadable = |err: minijinja::Error| {
            let line = err.line().map_or_else(String::new, |line| format!(" in its line {line}"));
            let detail = err.detail().unwrap_or("bad syntax").to_owned();
            text.error(&self.0, format!("the template cannot be read{line}: {detail}"), None)
        };
        let environment = environment().map_err(unreadable)?;
        let parsed = environment.template_from_str(self.text()).map_err(unreadable)?;
        let mut used: Vec<String> = parsed.undeclared_variables(true).into_iter().collect();
        used.sort();
        for name in used {
            if !known.contains(&name) {
                let meant = suggest(&name, known.iter().map(String::as_str));
                let message =
                    format!("the template uses `{name}`, known are: {}", crate::listed(known));
                return Err(text.error(&self.0, message, meant));
            }
        }
        Ok(())
    }
}

fn environment() -> Result<Environment<'static>, minijinja::Error> {
    // A line that holds only a `{% … %}` leaves nothing behind.
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .keep_trailing_newline(true)
        .build()?;
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_syntax(syntax);
    // Templates make YAML and flags, where Python's `True` is another word.
    environment.set_formatter(|out, state, value| {
        if value.kind() == ValueKind::Bool {
            Ok(write!(out, "{}", value.is_true())?)
        } else {
            escape_formatter(out, state, value)
        }
    });
    Ok(environment)
}
