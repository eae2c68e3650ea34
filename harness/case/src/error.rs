//! What can be wrong with a case file, with the place and a snippet.

use std::fmt;
use std::sync::Arc;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource};
use serde_saphyr::Error as YamlError;

use crate::Place;

/// One thing that is wrong with a case file.
///
/// Displays as `file:line:column: message; help`; [`CaseError::render`] adds the snippet.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}: {message}{}", self.whereabouts(), help.as_ref().map(|h| format!("; {h}")).unwrap_or_default())]
pub struct CaseError {
    /// File as it was named.
    pub file: String,
    /// Where in the file.
    pub place: Place,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    source_code: Arc<NamedSource<Arc<str>>>,
}

/// A text that errors point into.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) file: String,
    pub(crate) text: Arc<str>,
}

impl PartialEq for CaseError {
    fn eq(&self, other: &Self) -> bool {
        (&self.file, self.place, &self.message) == (&other.file, other.place, &other.message)
    }
}

impl CaseError {
    pub(crate) fn new(source: &Source, place: Place, message: impl Into<String>) -> CaseError {
        CaseError {
            file: source.file.clone(),
            place,
            message: message.into(),
            help: None,
            source_code: Arc::new(NamedSource::new(&source.file, Arc::clone(&source.text))),
        }
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> CaseError {
        self.help = Some(help.into());
        self
    }

    /// The same error elsewhere in its file.
    pub(crate) fn at(mut self, place: Place) -> CaseError {
        self.place = place;
        self
    }

    /// Adds "did you mean" when something known is near the unknown word.
    pub(crate) fn suggest<'a>(
        mut self,
        word: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) -> CaseError {
        let known: Vec<&str> = known.into_iter().collect();
        self.help = nearest(word, known.iter().copied())
            .map(|near| format!("did you mean `{near}`?"))
            .or_else(|| (!known.is_empty()).then(|| format!("known: {}", known.join(", "))));
        self
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the parser's own errors may grow; all have a message"
    )]
    pub(crate) fn yaml(source: &Source, error: &YamlError) -> CaseError {
        let error = error.without_snippet();
        let place = error.location().map(Place::of).unwrap_or_default();
        if let YamlError::SerdeUnknownField { field, expected, .. } = error {
            return CaseError::new(source, place, format!("unknown key `{field}`"))
                .suggest(field, expected.iter().copied());
        }
        if let YamlError::SerdeUnknownVariant { variant, expected, .. } = error {
            return CaseError::new(source, place, format!("unknown value `{variant}`"))
                .suggest(variant, expected.iter().copied());
        }
        let message = match error {
            YamlError::InvalidScalar { ty: "u8", .. } => "expected a number up to 255".to_owned(),
            YamlError::InvalidScalar { ty: "u16", .. } => {
                "expected a number up to 65535".to_owned()
            }
            YamlError::InvalidScalar { ty: "u32" | "u64" | "usize", .. } => {
                "expected a number".to_owned()
            }
            YamlError::InvalidBooleanStrict { .. }
            | YamlError::InvalidScalar { ty: "boolean", .. } => "expected true or false".to_owned(),
            YamlError::SerdeInvalidType { unexpected, expected, .. } => {
                format!("expected {expected}, found {unexpected}")
            }
            YamlError::SerdeMissingField { field, .. } => format!("the key `{field}` is missing"),
            YamlError::DuplicateMappingKey { key: Some(key), .. } => {
                format!("the key `{key}` is written twice")
            }
            _ => {
                let formatter = serde_saphyr::UserMessageFormatter;
                serde_saphyr::MessageFormatter::format_message(&formatter, error).into_owned()
            }
        };
        CaseError::new(source, place, message)
    }

    /// The error with its snippet, without colours.
    #[must_use]
    pub fn render(&self) -> String {
        let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor())
            .with_links(false)
            .with_width(100);
        let mut text = String::new();
        match handler.render_report(&mut text, self) {
            Ok(()) => text,
            Err(fmt::Error) => self.to_string(),
        }
    }

    fn whereabouts(&self) -> String {
        if self.place.line == 0 {
            self.file.clone()
        } else {
            format!("{}:{}:{}", self.file, self.place.line, self.place.column)
        }
    }
}

impl Diagnostic for CaseError {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        (self.place.line > 0).then_some(self.source_code.as_ref() as &dyn miette::SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = (self.place.offset, self.place.len.max(1));
        (self.place.line > 0).then(|| {
            Box::new(std::iter::once(LabeledSpan::new_with_span(Some("here".to_owned()), span)))
                as Box<dyn Iterator<Item = LabeledSpan>>
        })
    }
}

/// Everything that is wrong with some case files; at least one error.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct CaseErrors(pub Vec<CaseError>);

impl CaseErrors {
    /// All errors with their snippets, without colours.
    #[must_use]
    pub fn render(&self) -> String {
        self.0.iter().map(CaseError::render).collect::<Vec<_>>().join("\n")
    }
}

impl Diagnostic for CaseErrors {
    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(self.0.iter().map(|error| error as &dyn Diagnostic)))
    }
}

/// The known word nearest to one that is not known, if it is near enough to be meant.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (strsim::normalized_damerau_levenshtein(word, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.59)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
