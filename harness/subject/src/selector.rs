//! What a user writes to name a subject: `kube-proxy:iptables+fast@v1.30.0`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::name::{ConfigurationName, ModeName, NameError, SubjectName};
use crate::release::{Release, ReleaseError};

/// A subject with mode, configuration and release, each of them optional:
/// `NAME[:MODE][+CONFIGURATION][@RELEASE]`, where a path may stand for the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    /// Which subject.
    pub which: Which,
    /// Its mode; the subject's default when none is written.
    pub mode: Option<ModeName>,
    /// Its configuration; `default` when none is written.
    pub configuration: Option<ConfigurationName>,
    /// Its release; the subject's default when none is written.
    pub release: Option<Release>,
}

/// Which subject a selector names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// A subject of the catalog.
    Named(SubjectName),
    /// A subject's folder or file; written with a slash or a dot, of which a name has none.
    At(PathBuf),
}

/// A text that selects no subject.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// The parts stand in another order, or one of them twice.
    #[error(
        "failed to read `{text}`: write NAME[:MODE][+CONFIGURATION][@RELEASE], \
         for example kube-proxy:iptables+fast@v1.30.0"
    )]
    Order {
        /// What was written.
        text: String,
    },
    /// A part is no name.
    #[error("failed to read `{text}`")]
    Name {
        /// What was written.
        text: String,
        /// The rule that it breaks.
        source: NameError,
    },
    /// The part after `@` is no release.
    #[error("failed to read `{text}`")]
    Release {
        /// What was written.
        text: String,
        /// What is wrong with it.
        source: ReleaseError,
    },
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        // Folders may hold any of the marks; only the last part of a path is looked at.
        let folder = text.rfind('/').map_or(0, |slash| slash + 1);
        let (folder, last) = text.split_at(folder);
        // After the @ a + belongs to the release, as in v1.30.0+k3s1.
        let (head, release) = split(last, '@');
        let (head, configuration) = split(head, '+');
        let (name, mode) = split(head, ':');
        if configuration.is_some_and(|part| part.contains([':', '+'])) {
            return Err(SelectorError::Order { text: text.to_owned() });
        }
        let broken = |source| SelectorError::Name { text: text.to_owned(), source };
        let is_path = !folder.is_empty() || name.contains('.');
        let which = if is_path {
            Which::At(PathBuf::from(format!("{folder}{name}")))
        } else {
            Which::Named(SubjectName::new(name).map_err(broken)?)
        };
        Ok(Self {
            which,
            mode: mode.map(ModeName::new).transpose().map_err(broken)?,
            configuration: configuration.map(ConfigurationName::new).transpose().map_err(broken)?,
            release: release
                .map(str::parse)
                .transpose()
                .map_err(|source| SelectorError::Release { text: text.to_owned(), source })?,
        })
    }
}

fn split(text: &str, mark: char) -> (&str, Option<&str>) {
    text.split_once(mark).map_or((text, None), |(head, tail)| (head, Some(tail)))
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.which {
            Which::Named(name) => write!(f, "{name}")?,
            Which::At(path) => write!(f, "{}", path.display())?,
        }
        if let Some(mode) = &self.mode {
            write!(f, ":{mode}")?;
        }
        if let Some(configuration) = &self.configuration {
            write!(f, "+{configuration}")?;
        }
        if let Some(release) = &self.release {
            write!(f, "@{release}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, want: &str) {
        let got = match text.parse::<Selector>() {
            Ok(selector) => {
                let Selector { which, mode, configuration, release } = selector;
                let part = |part: Option<String>| part.unwrap_or_else(|| "-".to_owned());
                let which = match which {
                    Which::Named(name) => format!("named {name}"),
                    Which::At(path) => format!("at {}", path.display()),
                };
                format!(
                    "{which} {} {} {}",
                    part(mode.map(|mode| mode.to_string())),
                    part(configuration.map(|configuration| configuration.to_string())),
                    part(release.map(|release| release.to_string())),
                )
            }
            Err(err) => err.to_string(),
        };
        assert_eq!(got, want, "{text}");
    }

    #[test]
    fn every_part_but_the_name_may_be_missing() {
        check("kube-proxy", "named kube-proxy - - -");
        check("kube-proxy:nftables", "named kube-proxy nftables - -");
        check("kube-proxy@1.37.2", "named kube-proxy - - v1.37.2");
        check("kube-proxy+fast", "named kube-proxy - fast -");
        check("kube-proxy:iptables+fast@v1.30.0", "named kube-proxy iptables fast v1.30.0");
        check("kube-proxy@v1.30.0+k3s1", "named kube-proxy - - v1.30.0+k3s1");
    }

    #[test]
    fn a_path_names_a_subject() {
        check("./my-proxy/subject.yaml", "at ./my-proxy/subject.yaml - - -");
        check("./a:b/my-proxy:ebpf@v0.2.0", "at ./a:b/my-proxy ebpf - v0.2.0");
        check("/srv/proxies/", "at /srv/proxies/ - - -");
        check(".", "at . - - -");
        check("subject.yaml", "at subject.yaml - - -");
        check("mine.yml:ebpf", "at mine.yml ebpf - -");
    }

    #[test]
    fn mistakes_are_named() {
        let order = "write NAME[:MODE][+CONFIGURATION][@RELEASE], \
                     for example kube-proxy:iptables+fast@v1.30.0";
        check(
            "kube-proxy+fast:iptables",
            &format!("failed to read `kube-proxy+fast:iptables`: {order}"),
        );
        check("kube-proxy:", "failed to read `kube-proxy:`");
        check("", "failed to read ``");
        check("kube-proxy@v1.30", "failed to read `kube-proxy@v1.30`");
    }

    #[test]
    fn what_is_printed_can_be_read_again() {
        for text in ["kube-proxy:iptables+fast@v1.30.0", "./my-proxy:ebpf", "kube-proxy"] {
            let again = text.parse::<Selector>().map(|selector| selector.to_string());
            assert_eq!(again, Ok(text.to_owned()));
        }
    }
}
