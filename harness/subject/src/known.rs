//! The format of `known-failures.yaml`, version 1: what a subject is known to get wrong.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use time::Date;
use time::macros::format_description;

use crate::file::{FileError, Placed, Text};
use crate::format::FormatVersion;
use crate::name::ModeName;
use crate::release::{Release, ReleaseRange};

/// The known failures of one subject, in the order of the file.
#[derive(Debug, Clone, Default)]
pub struct KnownFailures {
    entries: Vec<KnownFailure>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schemars(title = "KnownFailures")]
struct KnownFailuresFile {
    /// Version of this file's format: 1.
    #[expect(dead_code, reason = "reading it is the check")]
    format: FormatVersion,
    /// The entries; the first that fits a case wins.
    known_failures: Vec<Placed<KnownFailureEntry>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct KnownFailureEntry {
    /// Exact ids of the cases that fail for this reason, at least one.
    cases: Vec<Placed<String>>,
    /// The variants of the cases, by some of its axes; none means all.
    #[serde(default)]
    axes: BTreeMap<String, String>,
    /// The modes; none means all.
    #[serde(default)]
    modes: Vec<Placed<ModeName>>,
    /// The releases.
    #[serde(default)]
    releases: ReleaseRange,
    /// Whether the failure shows only at times; a pass is then a pass, and not unexpected.
    #[serde(default)]
    intermittent: bool,
    /// Why it fails.
    reason: String,
    /// What shows that it fails: a command, a log line, a run.
    evidence: String,
    /// Where it is discussed or will be mended.
    link: Option<String>,
    /// Who looks after this entry.
    owner: String,
    /// The last day on which this entry excuses anything, as `2027-03-31`.
    expires: Day,
}

/// A failure that is listed, so that it does not count until it expires or passes.
#[derive(Debug, Clone)]
pub struct KnownFailure {
    /// Line of the file, from 1; it names the entry in messages and in [`KnownFailures::unused`].
    pub line: u64,
    /// Exact id of the case.
    pub case: String,
    /// The variants of the case, by some of its axes; none means all.
    pub axes: BTreeMap<String, String>,
    /// The modes; none means all.
    pub modes: Vec<Placed<ModeName>>,
    /// The releases.
    pub releases: ReleaseRange,
    /// Whether the failure shows only at times.
    pub intermittent: bool,
    /// Why it fails.
    pub reason: String,
    /// What shows that it fails.
    pub evidence: String,
    /// Where it is discussed or will be mended.
    pub link: Option<String>,
    /// Who looks after this entry.
    pub owner: String,
    /// The last day on which this entry excuses anything.
    pub expires: Date,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
struct Day(Date);

impl TryFrom<String> for Day {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Date::parse(&text, format_description!("[year]-[month]-[day]"))
            .map(Self)
            .map_err(|err| format!("`{text}` is not a day ({err}); write for example 2027-03-31"))
    }
}

impl JsonSchema for Day {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Day".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date" })
    }
}

impl KnownFailures {
    /// Reads `known-failures.yaml`; `file` is the name used in errors.
    ///
    /// # Errors
    /// Says where the mistake is.
    pub fn from_text(file: &str, text: &str) -> Result<Self, Box<FileError>> {
        Self::parse(Text { file, text })
    }

    pub(crate) fn parse(text: Text<'_>) -> Result<Self, Box<FileError>> {
        let file: KnownFailuresFile = text.parse()?;
        let mut entries = Vec::new();
        for entry in file.known_failures {
            if entry.value.cases.is_empty() {
                return Err(text.error(&entry, "`cases` is empty: name at least one", None));
            }
            let KnownFailureEntry {
                cases,
                axes,
                modes,
                releases,
                intermittent,
                reason,
                evidence,
                link,
                owner,
                expires: Day(expires),
            } = entry.value;
            for case in cases {
                if case.value.is_empty() || case.value.contains(['*', '?', '[', ' ']) {
                    let message = format!(
                        "`{}` is not the exact id of a case; choose variants by `axes`",
                        case.value
                    );
                    return Err(text.error(&case, message, None));
                }
                entries.push(KnownFailure {
                    line: case.line,
                    case: case.value,
                    axes: axes.clone(),
                    modes: modes.clone(),
                    releases: releases.clone(),
                    intermittent,
                    reason: reason.clone(),
                    evidence: evidence.clone(),
                    link: link.clone(),
                    owner: owner.clone(),
                    expires,
                });
            }
        }
        Ok(Self { entries })
    }

    /// All entries.
    pub fn iter(&self) -> impl Iterator<Item = &KnownFailure> {
        self.entries.iter()
    }

    /// The first entry that lists this variant of this case.
    ///
    /// An expired entry is found as well; ask [`KnownFailure::expired`] before it excuses.
    #[must_use]
    pub fn find(
        &self,
        mode: &ModeName,
        release: Option<&Release>,
        case: &str,
        axes: &BTreeMap<String, String>,
    ) -> Option<&KnownFailure> {
        self.entries.iter().find(|entry| {
            entry.case == case
                && entry.covers(mode, release)
                && entry.axes.iter().all(|(axis, value)| axes.get(axis) == Some(value))
        })
    }

    /// The entries for this mode and release whose lines are not in `used`: nothing that ran was
    /// listed by them.
    #[must_use]
    pub fn unused(
        &self,
        mode: &ModeName,
        release: Option<&Release>,
        used: &BTreeSet<u64>,
    ) -> Vec<&KnownFailure> {
        self.entries
            .iter()
            .filter(|entry| entry.covers(mode, release) && !used.contains(&entry.line))
            .collect()
    }

    /// The entries that expired before `today`.
    #[must_use]
    pub fn expired(&self, today: Date) -> Vec<&KnownFailure> {
        self.entries.iter().filter(|entry| entry.expired(today)).collect()
    }
}

impl KnownFailure {
    /// Whether the entry excuses nothing any more on `today`.
    #[must_use]
    pub fn expired(&self, today: Date) -> bool {
        self.expires < today
    }

    fn covers(&self, mode: &ModeName, release: Option<&Release>) -> bool {
        (self.modes.is_empty() || self.modes.iter().any(|listed| listed.value == *mode))
            && self.releases.applies(release)
    }
}

/// The JSON Schema of `known-failures.yaml`, for editors.
#[must_use]
pub fn known_failures_schema() -> Schema {
    schemars::schema_for!(KnownFailuresFile)
}
