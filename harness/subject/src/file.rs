//! Reads typed YAML and says where a mistake is.

use std::borrow::Cow;

use miette::{Diagnostic, NamedSource, SourceSpan};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_saphyr::{DefaultMessageFormatter, MessageFormatter, Spanned};

use crate::suggest;

/// A mistake in a subject's file, with its place.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("{file}:{line}:{column}: {message}{}", self.hint())]
pub struct FileError {
    file: String,
    line: u64,
    column: u64,
    message: String,
    meant: Option<String>,
    #[source_code]
    text: NamedSource<String>,
    #[label("here")]
    span: SourceSpan,
}

impl FileError {
    /// Line of the mistake, from 1.
    #[must_use]
    pub fn line(&self) -> u64 {
        self.line
    }

    fn hint(&self) -> String {
        self.meant.as_ref().map_or_else(String::new, |word| format!("; did you mean `{word}`?"))
    }
}

/// A value and the place in the file where it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed<T> {
    /// The value.
    pub value: T,
    /// Line, from 1.
    pub line: u64,
    /// Column, from 1.
    pub column: u64,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Placed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced, .. } = Spanned::<T>::deserialize(deserializer)?;
        Ok(Self { value, line: referenced.line(), column: referenced.column() })
    }
}

impl<T: JsonSchema> JsonSchema for Placed<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }
    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// One file's name and text, to make errors from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Text<'a> {
    pub(crate) file: &'a str,
    pub(crate) text: &'a str,
}

impl Text<'_> {
    /// Reads the text as `T`.
    pub(crate) fn parse<T: DeserializeOwned>(self) -> Result<T, Box<FileError>> {
        let options = serde_saphyr::options! { with_snippet: false };
        serde_saphyr::from_str_with_options(self.text, options).map_err(|err| self.explain(&err))
    }

    /// Reads every document of the text as `T`; empty ones are left out.
    pub(crate) fn parse_all<T: DeserializeOwned>(self) -> Result<Vec<T>, Box<FileError>> {
        let options = serde_saphyr::options! { with_snippet: false };
        serde_saphyr::from_multiple_with_options(self.text, options)
            .map_err(|err| self.explain(&err))
    }

    /// An error at a place that a [`Placed`] value remembers.
    pub(crate) fn error<T>(
        self,
        at: &Placed<T>,
        message: impl Into<String>,
        meant: Option<&str>,
    ) -> Box<FileError> {
        self.error_at(at.line, at.column, message.into(), meant)
    }

    fn explain(self, err: &serde_saphyr::Error) -> Box<FileError> {
        let err = err.without_snippet();
        let (line, column) = err.location().map_or((1, 1), |at| (at.line(), at.column()));
        let choice = if let serde_saphyr::Error::SerdeUnknownField { field, expected, .. } = err {
            Some(("key", field, expected))
        } else if let serde_saphyr::Error::SerdeUnknownVariant { variant, expected, .. } = err {
            Some(("choice", variant, expected))
        } else {
            None
        };
        match choice {
            Some((what, word, expected)) => {
                let meant = suggest(word, expected.iter().copied());
                let message =
                    format!("unknown {what} `{word}`, known are: {}", crate::listed(expected));
                self.error_at(line, column, message, meant)
            }
            None => {
                let message = DefaultMessageFormatter.format_message(err).into_owned();
                self.error_at(line, column, message, None)
            }
        }
    }

    fn error_at(
        self,
        line: u64,
        column: u64,
        message: String,
        meant: Option<&str>,
    ) -> Box<FileError> {
        let before = usize::try_from(line.saturating_sub(1)).unwrap_or(usize::MAX);
        let start: usize = self.text.split_inclusive('\n').take(before).map(str::len).sum();
        let skip = usize::try_from(column.saturating_sub(1)).unwrap_or(usize::MAX);
        let rest = self.text.get(start..).unwrap_or_default();
        let offset = rest.char_indices().nth(skip).map_or(rest.len(), |(offset, _)| offset);
        Box::new(FileError {
            file: self.file.to_owned(),
            line,
            column,
            message,
            meant: meant.map(str::to_owned),
            text: NamedSource::new(self.file, self.text.to_owned()),
            span: (start + offset, 1).into(),
        })
    }
}
