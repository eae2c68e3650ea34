//! All cases and behaviours.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

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

    /// Variants of a library that somebody has loaded and chosen from, by their ids: only their
    /// cases are read, and they are not checked again.
    ///
    /// # Errors
    /// When one of their files has changed meanwhile and cannot be read any more.
    pub fn chosen(dirs: &[PathBuf], ids: &BTreeSet<&str>) -> Result<Vec<Variant>, CaseErrors> {
        let stems: BTreeSet<&str> =
            ids.iter().map(|id| id.split_once('[').map_or(*id, |(case, _)| case)).collect();
        let mut found = files::bundled()?;
        for dir in dirs {
            found.extend(files::below(dir)?);
        }
        found.retain(|found| stems.contains(found.stem.as_str()));
        let mut library = Library::default();
        for found in found {
            let case = read_case(found).map_err(CaseErrors)?;
            library.cases.insert(case.id().clone(), Arc::new(case));
        }
        let mut variants = library.variants();
        variants.retain(|variant| ids.contains(variant.id().as_str()));
        Ok(variants)
    }

    fn of(found: Vec<Found>) -> (Library, Vec<CaseError>) {
        let (behaviours, cases): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|found| found.stem == BEHAVIOURS);
        let mut library = Library::default();
        let mut errors = Vec::new();
        for found in behaviours {
            errors.extend(library.add_behaviours(&found.source));
        }
        let cases = side_by_side(cases, |found| {
            read_case(found).map(|case| {
                let case = Arc::new(case);
                let errors = compile_errors(&case);
                (case, errors)
            })
        });
        for case in cases {
            match case {
                Ok((case, of_variants)) => errors.extend(library.add_case(case, of_variants)),
                Err(more) => errors.extend(more),
            }
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

    fn add_case(&mut self, case: Arc<Case>, of_variants: Vec<CaseError>) -> Vec<CaseError> {
        if let Some(other) = self.cases.get(case.id()) {
            let message = format!("the id `{}` is taken by {}", case.id(), other.file());
            return vec![CaseError::new(case.source(), Place::default(), message)];
        }
        let mut errors = case.errors_of_covers(&self.behaviours);
        errors.extend(of_variants);
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

/// Does the same to many things on all processors, and gives what came of each in their order.
///
/// No thread lives on: one that did would take signals that its process has blocked elsewhere.
fn side_by_side<T: Send, R: Send>(things: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let each = things.len().div_ceil(threads).max(1);
    let mut things = things.into_iter();
    let work = &work;
    thread::scope(|scope| {
        let parts: Vec<_> = (0..threads)
            .map(|_| {
                let part: Vec<T> = things.by_ref().take(each).collect();
                scope.spawn(move || part.into_iter().map(work).collect::<Vec<R>>())
            })
            .collect();
        parts
            .into_iter()
            .flat_map(|part| part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

fn read_case(found: Found) -> Result<Case, Vec<CaseError>> {
    let Found { stem, source } = found;
    let Some(id) = CaseId::new(&stem) else {
        let message =
            format!("`{stem}` is not an id: AREA/NAME of lower-case letters, digits and -");
        return Err(vec![CaseError::new(&source, Place::default(), message)]);
    };
    Case::parse(id, source).map_err(|CaseErrors(errors)| errors)
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
