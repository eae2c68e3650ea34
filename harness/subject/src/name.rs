//! Names with rules, one type for each kind of name.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A word that is not a name of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{word}` is not a {kind}: {rule}")]
pub struct NameError {
    word: String,
    kind: &'static str,
    rule: &'static str,
}

const KEBAB_RULE: &str =
    "use small letters and digits, in words joined by single hyphens, beginning with a letter";
const KEBAB_PATTERN: &str = "^[a-z][a-z0-9]*(-[a-z0-9]+)*$";
const SNAKE_RULE: &str =
    "use small letters and digits, in words joined by single underscores, beginning with a letter";
const SNAKE_PATTERN: &str = "^[a-z][a-z0-9]*(_[a-z0-9]+)*$";

fn is_words(text: &str, joint: char) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.split(joint).all(|word| {
            !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
        })
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal, $joint:literal, $rule:ident, $pattern:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// Checks the rule of this name.
            ///
            /// # Errors
            /// Says the rule when `word` breaks it.
            pub fn new(word: impl Into<String>) -> Result<Self, NameError> {
                let word = word.into();
                if is_words(&word, $joint) {
                    Ok(Self(word))
                } else {
                    Err(NameError { word, kind: $kind, rule: $rule })
                }
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $type {
            type Err = NameError;
            fn from_str(word: &str) -> Result<Self, NameError> {
                Self::new(word)
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(word: String) -> Result<Self, NameError> {
                Self::new(word)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }

        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern })
            }
        }
    };
}

name!(
    /// The name of a subject: its folder under `subjects/`.
    SubjectName, "subject name", '-', KEBAB_RULE, KEBAB_PATTERN
);
name!(
    /// One way a subject can forward traffic, such as `nftables`.
    ModeName, "mode name", '-', KEBAB_RULE, KEBAB_PATTERN
);
name!(
    /// A named set of settings, such as `fast`.
    ConfigurationName, "configuration name", '-', KEBAB_RULE, KEBAB_PATTERN
);
name!(
    /// A setting that modes and configurations give to the templates as `values.NAME`.
    ValueName, "value name", '_', SNAKE_RULE, SNAKE_PATTERN
);

impl ModeName {
    /// The one mode of a subject that declares none.
    #[must_use]
    pub fn only() -> Self {
        Self("default".to_owned())
    }
}

impl ConfigurationName {
    /// The configuration that is used when none is named.
    #[must_use]
    pub fn default_one() -> Self {
        Self("default".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_small_words_with_single_joints() {
        for good in ["a", "kube-proxy", "ip6-only", "a-1"] {
            assert_eq!(SubjectName::new(good).map(|name| name.to_string()), Ok(good.to_owned()));
        }
        for bad in ["", "-a", "a-", "a--b", "Abc", "a_b", "1a", "ä", "a b"] {
            assert!(SubjectName::new(bad).is_err(), "{bad:?}");
        }
        assert!(ValueName::new("min_sync_period").is_ok());
        assert!(ValueName::new("min-sync-period").is_err());
    }

    #[test]
    fn a_bad_name_says_the_rule() {
        let message = SubjectName::new("LoadBalancer").map_err(|err| err.to_string());
        assert_eq!(
            message,
            Err("`LoadBalancer` is not a subject name: use small letters and digits, in words \
                 joined by single hyphens, beginning with a letter"
                .to_owned())
        );
    }
}
