//! All cases and behaviours.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use touchstone_spec::{Feature, KNOWN_FEATURES};

use crate::behaviour::BehavioursText;
use crate::error::Source;
use crate::files::{self, Found};
use crate::{
    At, Behaviour, Case, CaseError, CaseErrors, CaseId, Place, Variant, compile, planned_book,
};

const BEHAVIOURS: &str = "behaviours";

/// All cases and behaviours.
#[derive(Debug, Clone, Default)]
pub struct Library {
    cases: BTreeMap<CaseId, Arc<Case>>,
    behaviours: BTreeMap<String, Behaviour>,
}

impl Library {
    /// The cases that are part of the binary.
    ///
    /// # Errors
    /// When one of them is wrong.
    pub fn bundled() -> Result<Library, CaseErrors> {
        Library::load(&[])
    }

    /// The bundled cases and those below some directories, each laid out like `cases/`.
    ///
    /// # Errors
    /// Everything that is wrong with any of the files, at once.
    pub fn load(dirs: &[PathBuf]) -> Result<Library, CaseErrors> {
        let mut found = files::bundled()?;
        let mut errors = Vec::new();
        for dir in dirs {
            match files::below(dir) {
                Ok(more) => found.extend(more),
                Err(CaseErrors(more)) => errors.extend(more),
            }
        }
        let (library, more) = Library::of(found);
        errors.extend(more);
        if errors.is_empty() { Ok(library) } else { Err(CaseErrors(errors)) }
    }

    /// A library of texts, each with its path below a directory of cases.
    ///
    /// # Errors
    /// Everything that is wrong with any of them.
    pub fn of_texts<'a>(
        texts: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Library, CaseErrors> {
        let found = texts.into_iter().filter_map(|(path, text)| {
            let source = Source { file: path.to_owned(), text: Arc::from(text) };
            Some(Found { stem: files::stem(Path::new(path))?, source })
        });
        let (library, errors) = Library::of(found.collect());
        if errors.is_empty() { Ok(library) } else { Err(CaseErrors(errors)) }
    }

    fn of(found: Vec<Found>) -> (Library, Vec<CaseError>) {
        let mut library = Library::default();
        let mut errors = Vec::new();
        let (behaviours, cases): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|found| found.stem == BEHAVIOURS);
        for found in behaviours {
            errors.extend(library.add_behaviours(&found.source));
        }
        for found in cases {
            errors.extend(library.add_case(found));
        }
        (library, errors)
    }

    fn add_behaviours(&mut self, source: &Source) -> Vec<CaseError> {
        let behaviours: BehavioursText = match serde_saphyr::from_str(&source.text) {
            Ok(behaviours) => behaviours,
            Err(error) => return vec![CaseError::yaml(source, &error)],
        };
        let mut errors = Vec::new();
        for (id, At { value, place }) in behaviours {
            for difference in &value.differs {
                let name = &difference.feature;
                if Feature::new(&name.value).is_err() {
                    let message = format!("unknown feature `{}`", name.value);
                    errors.push(
                        CaseError::new(source, name.place, message)
                            .suggest(&name.value, KNOWN_FEATURES.iter().map(|known| known.name)),
                    );
                }
            }
            if self.behaviours.insert(id.clone(), value).is_some() {
                errors.push(CaseError::new(
                    source,
                    place,
                    format!("behaviour `{id}` is known already"),
                ));
            }
        }
        errors
    }

    fn add_case(&mut self, found: Found) -> Vec<CaseError> {
        let Found { stem, source } = found;
        let Some(id) = CaseId::new(&stem) else {
            let message =
                format!("`{stem}` is not an id: AREA/NAME of lower-case letters, digits and -");
            return vec![CaseError::new(&source, Place::default(), message)];
        };
        if let Some(other) = self.cases.get(&id) {
            let message = format!("the id `{id}` is taken by {}", other.file());
            return vec![CaseError::new(&source, Place::default(), message)];
        }
        let case = match Case::parse(id, source) {
            Ok(case) => Arc::new(case),
            Err(CaseErrors(errors)) => return errors,
        };
        let mut errors = case.errors_of_covers(&self.behaviours);
        errors.extend(compile_errors(&case));
        if errors.is_empty() {
            self.cases.insert(case.id().clone(), case);
        }
        errors
    }

    /// One case from a file anywhere; its id is made of the last two parts of its path.
    ///
    /// # Errors
    /// Everything that is wrong with the file. `covers` may name behaviours that no file has.
    pub fn case_file(path: &Path) -> Result<Arc<Case>, CaseErrors> {
        let source = files::read(path).map_err(|error| CaseErrors(vec![error]))?;
        let parts: Vec<String> = path
            .with_extension("")
            .components()
            .map(|part| part.as_os_str().to_string_lossy().into_owned())
            .collect();
        let id = match parts.as_slice() {
            [.., area, name] => CaseId::new(&format!("{area}/{name}"))
                .or_else(|| CaseId::new(&format!("file/{name}"))),
            [name] => CaseId::new(&format!("file/{name}")),
            [] => None,
        };
        let Some(id) = id else {
            let message = "the file's name is not an id: lower-case letters, digits and -";
            return Err(CaseErrors(vec![CaseError::new(&source, Place::default(), message)]));
        };
        let case = Arc::new(Case::parse(id, source)?);
        let errors = compile_errors(&case);
        if errors.is_empty() { Ok(case) } else { Err(CaseErrors(errors)) }
    }

    /// The id of a case that looks much like a word.
    #[must_use]
    pub fn case_like(&self, word: &str) -> Option<&str> {
        let word = word.split_once('[').map_or(word, |(id, _)| id);
        crate::error::nearest(word, self.cases.keys().map(CaseId::as_str))
    }

    /// Every profile that a case belongs to.
    #[must_use]
    pub fn profiles(&self) -> BTreeSet<&str> {
        self.cases.values().flat_map(|case| case.profiles()).collect()
    }

    /// All cases, by id.
    pub fn cases(&self) -> impl Iterator<Item = &Arc<Case>> {
        self.cases.values()
    }

    /// The case of that id.
    #[must_use]
    pub fn case(&self, id: &str) -> Option<&Arc<Case>> {
        self.cases.get(id)
    }

    /// All behaviours, by id.
    #[must_use]
    pub fn behaviours(&self) -> &BTreeMap<String, Behaviour> {
        &self.behaviours
    }

    /// All variants of all cases, by id of the case, then by axes as written.
    #[must_use]
    pub fn variants(&self) -> Vec<Variant> {
        self.cases.values().flat_map(Variant::all).collect()
    }
}

/// What shows only when variants are compiled; each error once.
fn compile_errors(case: &Arc<Case>) -> Vec<CaseError> {
    let mut errors: Vec<CaseError> = Vec::new();
    for variant in Variant::all(case) {
        let mut book = planned_book(&variant);
        for error in compile::errors(&variant, &mut book) {
            if !errors.contains(&error) {
                errors.push(error);
            }
        }
    }
    errors
}
