//! The subjects that can be selected: those bundled with this program and the user's own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use include_dir::{Dir, include_dir};

use crate::check::check;
use crate::file::{FileError, Text};
use crate::format::{
    Configuration, ExitByDesign, FeatureClaim, Mode, Releases, Source, SubjectFile,
};
use crate::known::KnownFailures;
use crate::name::{ConfigurationName, ModeName, NameError, SubjectName};
use crate::release::Release;
use crate::selector::{Selector, Which};
use crate::{listed, suggest};
use touchstone_spec::{Family, Feature};

static BUNDLED: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/../../subjects");

const SUBJECT_FILE: &str = "subject.yaml";
const KNOWN_FAILURES_FILE: &str = "known-failures.yaml";

/// A proxy under test, read and checked.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Its name.
    pub name: SubjectName,
    /// Where its files are.
    pub origin: Origin,
    /// What `subject.yaml` says; modes and configurations hold at least `default`.
    pub file: SubjectFile,
    /// What it is known to get wrong.
    pub known_failures: KnownFailures,
}

/// Where a subject's files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Inside this program.
    Bundled,
    /// In this folder.
    Folder(PathBuf),
}

/// A subject that cannot be read or selected.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// A file cannot be read.
    #[error("failed to read {path}")]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file holds a mistake.
    #[error(transparent)]
    File(#[from] Box<FileError>),
    /// A folder's name cannot be a subject's name.
    #[error("failed to name the subject at {path}")]
    Name {
        /// The subject's file or folder.
        path: PathBuf,
        /// The rule.
        source: NameError,
    },
    /// A folder holds no subjects.
    #[error("{path} holds no folder with a {SUBJECT_FILE}")]
    NoSubjects {
        /// The folder.
        path: PathBuf,
    },
    /// No such subject, mode or configuration.
    #[error("no {kind} is called `{word}`; there are: {known}{hint}")]
    Unknown {
        /// What was looked for.
        kind: &'static str,
        /// The word.
        word: String,
        /// Those that exist.
        known: String,
        /// A near one, or nothing.
        hint: String,
    },
    /// The release is not one that the subject's file describes.
    #[error("{subject} {release} is not supported: the subject's file describes {supported}")]
    Release {
        /// The subject.
        subject: SubjectName,
        /// The release asked for.
        release: Release,
        /// Those described.
        supported: String,
    },
    /// The subject has no releases.
    #[error("{subject} has no releases, so {release} cannot be chosen")]
    NoReleases {
        /// The subject.
        subject: SubjectName,
        /// The release asked for.
        release: Release,
    },
    /// The mode is not in this release.
    #[error("{subject} {release} has no mode {mode}: it exists in {releases}")]
    ModeRelease {
        /// The subject.
        subject: SubjectName,
        /// The release asked for.
        release: Release,
        /// The mode.
        mode: ModeName,
        /// The releases that have it.
        releases: String,
    },
}

impl Subject {
    /// A file that the subject's own file names, relative to that.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        match &self.origin {
            Origin::Folder(folder) => folder.join(name),
            Origin::Bundled => PathBuf::from(name),
        }
    }

    /// Whether its program is downloaded or built when it is wanted.
    #[must_use]
    pub fn is_fetched(&self) -> bool {
        let sources = self.file.binary.iter().flat_map(|binary| &binary.sources.value);
        sources.into_iter().any(|source| match source {
            Source::Download { .. } | Source::Go(_) => true,
            Source::Path(_) => false,
        })
    }

    /// Reads the subject whose folder or file is at `path`.
    ///
    /// # Errors
    /// Says which file cannot be read, or where in it the mistake is.
    pub fn load(path: &Path) -> Result<Self, CatalogError> {
        let file = if path.is_dir() { path.join(SUBJECT_FILE) } else { path.to_owned() };
        let read = |path: &Path| {
            fs::read_to_string(path)
                .map_err(|source| CatalogError::Read { path: path.to_owned(), source })
        };
        let text = read(&file)?;
        // A relative name such as `.` has no words; the real place has.
        let real = fs::canonicalize(&file)
            .map_err(|source| CatalogError::Read { path: file.clone(), source })?;
        let folder = real.parent().unwrap_or(Path::new("/")).to_owned();
        let named_after =
            if real.file_name().is_some_and(|name| name == SUBJECT_FILE) { &folder } else { &real };
        let name = named_after.file_stem().unwrap_or_default().to_string_lossy();
        let name = SubjectName::new(name)
            .map_err(|source| CatalogError::Name { path: file.clone(), source })?;
        let known_file = folder.join(KNOWN_FAILURES_FILE);
        let known = match known_file.try_exists() {
            Ok(true) => Some(read(&known_file)?),
            Ok(false) => None,
            Err(source) => {
                return Err(CatalogError::Read { path: known_file, source });
            }
        };
        let known_name = known_file.display().to_string();
        let known = known.as_deref().map(|text| Text { file: &known_name, text });
        let file = file.display().to_string();
        Ok(Self::parse(name, Origin::Folder(folder), Text { file: &file, text: &text }, known)?)
    }

    /// Reads a subject from the text of its `subject.yaml`; `file` is the name used in errors.
    ///
    /// # Errors
    /// Says where the mistake is.
    pub fn from_text(
        name: SubjectName,
        origin: Origin,
        file: &str,
        text: &str,
    ) -> Result<Self, Box<FileError>> {
        Self::parse(name, origin, Text { file, text }, None)
    }

    fn parse(
        name: SubjectName,
        origin: Origin,
        text: Text<'_>,
        known: Option<Text<'_>>,
    ) -> Result<Self, Box<FileError>> {
        let mut file: SubjectFile = text.parse()?;
        check(text, &file)?;
        if file.modes.is_empty() {
            file.modes.insert(ModeName::only(), Mode::default());
        }
        file.configurations.entry(ConfigurationName::default_one()).or_insert_with(|| {
            Configuration { about: "As the subject's file says.".to_owned(), ..Default::default() }
        });
        let known_failures = known.map(KnownFailures::parse).transpose()?.unwrap_or_default();
        known_failures_fit(known, &file, &known_failures)?;
        Ok(Self { name, origin, file, known_failures })
    }

    /// The features of `mode` in `release`, each with its declaration.
    ///
    /// A subject without releases has all that it declares.
    #[must_use]
    pub fn features(
        &self,
        mode: &ModeName,
        release: Option<&Release>,
    ) -> BTreeMap<&Feature, &FeatureClaim> {
        let mode = self.file.modes.get(mode);
        let without = |feature: &Feature| {
            let lacking = mode.and_then(|mode| mode.without.get(feature));
            lacking.is_some_and(|claim| claim.value.releases.applies(release))
        };
        self.file
            .features
            .iter()
            .filter(|(feature, _)| !without(feature))
            .chain(mode.into_iter().flat_map(|mode| &mode.features))
            .filter(|(_, claim)| claim.releases.applies(release))
            .collect()
    }

    /// The families that `mode` serves in `release`, IPv4 first.
    #[must_use]
    pub fn families(&self, mode: &ModeName, release: Option<&Release>) -> Vec<Family> {
        let features = self.features(mode, release);
        let serves = |family: &Family| {
            let word = match family {
                Family::V4 => "ipv4",
                Family::V6 => "ipv6",
            };
            features.keys().any(|feature| feature.name() == word)
        };
        Family::BOTH.into_iter().filter(serves).collect()
    }

    /// What the kernel of a node must have for a mode, as excuses word it.
    #[must_use]
    pub fn needs(&self, mode: &ModeName) -> BTreeSet<&'static str> {
        let needs = self.file.modes.get(mode).into_iter().flat_map(|mode| &mode.needs);
        needs.map(|need| need.words()).collect()
    }

    /// The exit by design that the last lines of a log speak of, if any.
    #[must_use]
    pub fn exit_by_design(
        &self,
        release: Option<&Release>,
        last_lines: &str,
    ) -> Option<&ExitByDesign> {
        let lab = self.file.lab.iter();
        lab.flat_map(|lab| &lab.exits_by_design)
            .find(|exit| exit.releases.applies(release) && last_lines.contains(&exit.log))
    }

    fn default_mode(&self) -> Option<&ModeName> {
        let declared = self.file.default_mode.as_ref().map(|mode| &mode.value);
        declared.or_else(|| self.file.modes.keys().next())
    }
}

/// A known failure may name modes only that the subject has.
fn known_failures_fit(
    text: Option<Text<'_>>,
    file: &SubjectFile,
    known: &KnownFailures,
) -> Result<(), Box<FileError>> {
    let Some(text) = text else { return Ok(()) };
    for mode in known.iter().flat_map(|known| &known.modes) {
        if !file.modes.contains_key(&mode.value) {
            let modes = || file.modes.keys().map(|mode| mode.as_str());
            let message =
                format!("no mode is called `{}`; there are: {}", mode.value, listed(modes()));
            return Err(text.error(mode, message, suggest(mode.value.as_str(), modes())));
        }
    }
    Ok(())
}

/// All subjects that can be selected by name.
#[derive(Debug, Clone)]
pub struct Catalog {
    subjects: BTreeMap<SubjectName, Arc<Subject>>,
}

/// One subject in one mode and configuration, of one release.
#[derive(Debug, Clone)]
pub struct Selection {
    /// The subject.
    pub subject: Arc<Subject>,
    /// The mode; one of the subject's.
    pub mode: ModeName,
    /// The configuration; one of the subject's.
    pub configuration: ConfigurationName,
    /// The release that was asked for; [`Selection::release`] adds the default.
    pub asked: Option<Release>,
}

impl Selection {
    /// The release asked for, or the subject's default; none when it has no releases.
    #[must_use]
    pub fn release(&self) -> Option<&Release> {
        self.asked.as_ref().or_else(|| self.releases().map(|releases| &releases.default.value))
    }

    fn releases(&self) -> Option<&Releases> {
        self.subject.file.binary.as_ref().and_then(|binary| binary.releases.as_ref())
    }

    /// Whether the subject's mode exists in `release`.
    ///
    /// # Errors
    /// Names the releases that exist, or have the mode.
    pub fn check_release(&self, release: Option<&Release>) -> Result<(), CatalogError> {
        let Some(release) = release else {
            return Ok(());
        };
        let subject = self.subject.name.clone();
        match self.releases() {
            None => {
                if self.asked.is_some() {
                    return Err(CatalogError::NoReleases { subject, release: release.clone() });
                }
            }
            Some(releases) if !releases.supported.contains(release) => {
                return Err(CatalogError::Release {
                    subject,
                    release: release.clone(),
                    supported: releases.supported.to_string(),
                });
            }
            Some(_) => {}
        }
        match self.subject.file.modes.get(&self.mode) {
            Some(mode) if !mode.releases.contains(release) => Err(CatalogError::ModeRelease {
                subject,
                release: release.clone(),
                mode: self.mode.clone(),
                releases: mode.releases.to_string(),
            }),
            Some(_) | None => Ok(()),
        }
    }
}

impl Catalog {
    /// The subjects bundled with this program.
    ///
    /// # Errors
    /// Says where a bundled file holds a mistake.
    pub fn bundled() -> Result<Self, CatalogError> {
        let mut subjects = BTreeMap::new();
        for folder in BUNDLED.dirs() {
            let find = |name: &str| {
                let path = folder.path().join(name);
                BUNDLED.get_file(&path).and_then(|file| file.contents_utf8())
            };
            let Some(text) = find(SUBJECT_FILE) else {
                continue;
            };
            let path = folder.path().to_owned();
            let name = SubjectName::new(path.to_string_lossy())
                .map_err(|source| CatalogError::Name { path: path.clone(), source })?;
            let file = format!("subjects/{name}/{SUBJECT_FILE}");
            let known_file = format!("subjects/{name}/{KNOWN_FAILURES_FILE}");
            let known = find(KNOWN_FAILURES_FILE).map(|text| Text { file: &known_file, text });
            let text = Text { file: &file, text };
            let subject = Subject::parse(name.clone(), Origin::Bundled, text, known)?;
            subjects.insert(name, Arc::new(subject));
        }
        Ok(Self { subjects })
    }

    /// Adds every subject in the folders of `folder`; one of the same name replaces the bundled one.
    ///
    /// # Errors
    /// Says what cannot be read, or that there is no subject.
    pub fn add_folder(&mut self, folder: &Path) -> Result<(), CatalogError> {
        let broken = |source| CatalogError::Read { path: folder.to_owned(), source };
        let mut found = false;
        for entry in fs::read_dir(folder).map_err(broken)? {
            let path = entry.map_err(broken)?.path();
            if path.join(SUBJECT_FILE).exists() {
                found = true;
                let subject = Subject::load(&path)?;
                self.subjects.insert(subject.name.clone(), Arc::new(subject));
            }
        }
        if found { Ok(()) } else { Err(CatalogError::NoSubjects { path: folder.to_owned() }) }
    }

    /// All subjects, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Subject>> {
        self.subjects.values()
    }

    /// The subject, mode, configuration and release that a selector names.
    ///
    /// # Errors
    /// Says what does not exist, and what does.
    pub fn select(&self, selector: &Selector) -> Result<Selection, CatalogError> {
        let subject = match &selector.which {
            Which::Named(name) => {
                let names = || self.subjects.keys().map(|name| name.as_str());
                let found = self.subjects.get(name);
                Arc::clone(found.ok_or_else(|| unknown("subject", name.as_str(), names))?)
            }
            Which::At(path) => Arc::new(Subject::load(path)?),
        };
        let file = &subject.file;
        let mode = match (&selector.mode, subject.default_mode()) {
            (Some(mode), _) => mode,
            (None, Some(mode)) => mode,
            (None, None) => &ModeName::only(),
        };
        if !file.modes.contains_key(mode) {
            let names = || file.modes.keys().map(|mode| mode.as_str());
            return Err(unknown("mode", mode.as_str(), names));
        }
        let default = ConfigurationName::default_one();
        let configuration = selector.configuration.as_ref().unwrap_or(&default);
        if !file.configurations.contains_key(configuration) {
            let names = || file.configurations.keys().map(|conf| conf.as_str());
            return Err(unknown("configuration", configuration.as_str(), names));
        }
        let selection = Selection {
            mode: mode.clone(),
            configuration: configuration.clone(),
            asked: selector.release.clone(),
            subject,
        };
        selection.check_release(selection.release())?;
        Ok(selection)
    }
}

fn unknown<'a, I: Iterator<Item = &'a str>>(
    kind: &'static str,
    word: &str,
    known: impl Fn() -> I,
) -> CatalogError {
    let hint =
        suggest(word, known()).map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
    CatalogError::Unknown { kind, word: word.to_owned(), known: listed(known()), hint }
}
