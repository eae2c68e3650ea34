//! Releases of a subject and ranges of them.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use semver::{Version, VersionReq};
use serde::{Deserialize, Serialize};

/// A release such as `v1.37.2`; written with the `v`, read with or without it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Release(Version);

/// A text that names no release.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{word}` is not a release ({reason}); write for example v1.37.2")]
pub struct ReleaseError {
    word: String,
    reason: String,
}

impl Release {
    /// The first number, `1` of `v1.37.2`.
    #[must_use]
    pub fn major(&self) -> u64 {
        self.0.major
    }

    /// The first release named in the text that a program prints about itself.
    ///
    /// `v0.0.0…` is what Kubernetes programs print when built without a version; it names nothing.
    #[must_use]
    pub(crate) fn within(text: &str) -> Option<Self> {
        text.split(|c: char| c.is_whitespace() || matches!(c, '"' | ',' | ';' | '(' | ')'))
            .filter(|word| word.contains('.'))
            .filter_map(|word| word.parse::<Self>().ok())
            .find(|release| (release.0.major, release.0.minor, release.0.patch) != (0, 0, 0))
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

impl FromStr for Release {
    type Err = ReleaseError;
    fn from_str(word: &str) -> Result<Self, ReleaseError> {
        Version::parse(word.strip_prefix('v').unwrap_or(word))
            .map(Self)
            .map_err(|err| ReleaseError { word: word.to_owned(), reason: err.to_string() })
    }
}

impl TryFrom<String> for Release {
    type Error = ReleaseError;
    fn try_from(word: String) -> Result<Self, ReleaseError> {
        word.parse()
    }
}

impl From<Release> for String {
    fn from(release: Release) -> String {
        release.to_string()
    }
}

impl JsonSchema for Release {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Release".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": r"^v?\d+\.\d+\.\d+" })
    }
}

/// A range of releases such as `>=1.29, <1.31`.
///
/// A pre-release counts as its release: `v1.38.0-alpha.1` is within `>=1.38`, since what a release
/// brings comes with its pre-releases.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct ReleaseRange {
    text: String,
    range: VersionReq,
}

/// A text that is no range of releases.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{word}` is not a range of releases ({reason}); write for example `>=1.29, <1.31`")]
pub struct ReleaseRangeError {
    word: String,
    reason: String,
}

impl ReleaseRange {
    /// Every release.
    #[must_use]
    pub fn all() -> Self {
        Self { text: "*".to_owned(), range: VersionReq::STAR }
    }

    /// Whether `release` lies in this range.
    #[must_use]
    pub fn contains(&self, release: &Release) -> bool {
        let Version { major, minor, patch, .. } = release.0;
        self.range.matches(&Version::new(major, minor, patch))
    }

    /// Whether the range speaks about `release`; a subject without releases is in every range.
    #[must_use]
    pub fn applies(&self, release: Option<&Release>) -> bool {
        release.is_none_or(|release| self.contains(release))
    }
}

impl Default for ReleaseRange {
    fn default() -> Self {
        Self::all()
    }
}

impl fmt::Display for ReleaseRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for ReleaseRange {
    type Err = ReleaseRangeError;
    fn from_str(word: &str) -> Result<Self, ReleaseRangeError> {
        let refuse = |reason: String| ReleaseRangeError { word: word.to_owned(), reason };
        // A bare number would mean "this or any later minor", which hardly anyone expects.
        for part in word.split(',').map(str::trim) {
            if !part.starts_with(['<', '>', '=', '~', '^', '*']) {
                return Err(refuse(format!("`{part}` lacks one of < <= > >= =")));
            }
        }
        let range = VersionReq::parse(word).map_err(|err| refuse(err.to_string()))?;
        Ok(Self { text: word.to_owned(), range })
    }
}

impl TryFrom<String> for ReleaseRange {
    type Error = ReleaseRangeError;
    fn try_from(word: String) -> Result<Self, ReleaseRangeError> {
        word.parse()
    }
}

impl From<ReleaseRange> for String {
    fn from(range: ReleaseRange) -> String {
        range.text
    }
}

impl JsonSchema for ReleaseRange {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "ReleaseRange".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "examples": [">=1.29, <1.31"] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(range: &str, release: &str) -> Result<bool, String> {
        let range: ReleaseRange =
            range.parse().map_err(|err: ReleaseRangeError| err.to_string())?;
        let release: Release = release.parse().map_err(|err: ReleaseError| err.to_string())?;
        Ok(range.contains(&release))
    }

    #[test]
    fn ranges_hold_releases() {
        assert_eq!(check(">=1.29, <1.31", "v1.30.0"), Ok(true));
        assert_eq!(check(">=1.29, <1.31", "1.31.0"), Ok(false));
        assert_eq!(check(">=1.38", "v1.38.0-alpha.1"), Ok(true));
        assert_eq!(check("=1.30", "v1.30.4"), Ok(true));
        assert_eq!(check("*", "v1.25.4"), Ok(true));
    }

    #[test]
    fn bad_ranges_and_releases_say_what_to_write() {
        assert_eq!(
            check("1.30", "v1.30.0"),
            Err("`1.30` is not a range of releases (`1.30` lacks one of < <= > >= =); \
                 write for example `>=1.29, <1.31`"
                .to_owned())
        );
        assert!(check(">=one", "v1.30.0").is_err());
        assert!(check("", "v1.30.0").is_err());
        assert!(check("*", "v1.30").is_err_and(|err| err.starts_with("`v1.30` is not a release")));
    }

    #[test]
    fn a_release_is_found_in_what_a_program_prints() {
        let found = |text| Release::within(text).map(|release| release.to_string());
        assert_eq!(found("Kubernetes v1.37.2\n"), Some("v1.37.2".to_owned()));
        assert_eq!(found("my-proxy 0.3.1 (linux)"), Some("v0.3.1".to_owned()));
        assert_eq!(found("Kubernetes v0.0.0-master+$Format:%H$"), None);
        assert_eq!(found("usage: x"), None);
    }
}
