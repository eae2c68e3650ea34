//! Label and field selectors, and the filter of a list or watch made of them.

use serde_json::Value;

use crate::fields;
use crate::kinds::KindId;
use crate::status::Status;
use crate::store::Stored;

/// One requirement of a label selector.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Requirement {
    Exists(String),
    Absent(String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
}

impl Requirement {
    fn holds(&self, labels: &dyn Fn(&str) -> Option<String>) -> bool {
        match self {
            Requirement::Exists(key) => labels(key).is_some(),
            Requirement::Absent(key) => labels(key).is_none(),
            Requirement::In(key, values) => {
                labels(key).is_some_and(|value| values.contains(&value))
            }
            Requirement::NotIn(key, values) => {
                labels(key).is_none_or(|value| !values.contains(&value))
            }
        }
    }
}

/// One requirement of a field selector.
#[derive(Debug, Clone, PartialEq, Eq)]
struct FieldRequirement {
    path: String,
    value: String,
    equal: bool,
}

/// Which objects of a kind a request is about.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    namespace: Option<String>,
    labels: Vec<Requirement>,
    fields: Vec<FieldRequirement>,
}

impl Filter {
    /// Reads both selectors as they stand in a query.
    ///
    /// # Errors
    /// A bad request that quotes the part which cannot be understood.
    pub(crate) fn parse(
        namespace: Option<&str>,
        labels: &str,
        fields: &str,
    ) -> Result<Filter, Status> {
        let labels = split(labels).into_iter().map(requirement).collect::<Result<_, _>>()?;
        let fields = split(fields).into_iter().map(field_requirement).collect::<Result<_, _>>()?;
        Ok(Filter { namespace: namespace.map(str::to_owned), labels, fields })
    }

    /// The only namespace that can match, if there is one.
    pub(crate) fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// Whether an object is one of those asked for.
    pub(crate) fn matches(&self, kind: KindId, stored: &Stored) -> bool {
        let labels = |key: &str| stored.label(key).map(str::to_owned);
        let here =
            self.namespace.as_deref().is_none_or(|namespace| namespace == stored.namespace());
        here && self.labels.iter().all(|one| one.holds(&labels)) && self.fields_match(kind, stored)
    }

    fn fields_match(&self, kind: KindId, stored: &Stored) -> bool {
        let mut decoded: Option<Value> = None;
        self.fields.iter().all(|wanted| {
            let indexed = match wanted.path.as_str() {
                "metadata.name" => Some(stored.name()),
                "metadata.namespace" => Some(stored.namespace()),
                path => stored.indexed(kind, path),
            };
            let equal = match indexed {
                Some(value) => value == wanted.value,
                None => {
                    let object = decoded.get_or_insert_with(|| stored.decode());
                    fields::printed(object, &wanted.path) == wanted.value
                }
            };
            equal == wanted.equal
        })
    }
}

/// Splits at the commas that stand outside parentheses.
fn split(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0_i32, 0);
    for (at, letter) in text.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts.into_iter().map(str::trim).filter(|part| !part.is_empty()).collect()
}

fn requirement(part: &str) -> Result<Requirement, Status> {
    let one = |key: &str, value: &str| (key.trim().to_owned(), vec![value.trim().to_owned()]);
    let read = if let Some(key) = part.strip_prefix('!') {
        Requirement::Absent(key.trim().to_owned())
    } else if let Some((key, value)) = part.split_once("!=") {
        let (key, values) = one(key, value);
        Requirement::NotIn(key, values)
    } else if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        let (key, values) = one(key, value);
        Requirement::In(key, values)
    } else if let Some((head, tail)) = part.split_once('(') {
        let values = tail.strip_suffix(')').ok_or_else(|| unreadable("label", part))?;
        let values = values.split(',').map(|value| value.trim().to_owned()).collect();
        match head.split_whitespace().collect::<Vec<_>>()[..] {
            [key, "in"] => Requirement::In(key.to_owned(), values),
            [key, "notin"] => Requirement::NotIn(key.to_owned(), values),
            _ => return Err(unreadable("label", part)),
        }
    } else {
        Requirement::Exists(part.to_owned())
    };
    let key = match &read {
        Requirement::Exists(key) | Requirement::Absent(key) => key,
        Requirement::In(key, _) | Requirement::NotIn(key, _) => key,
    };
    let fine = |letter: char| letter.is_ascii_alphanumeric() || "-_./".contains(letter);
    match !key.is_empty() && key.chars().all(fine) {
        true => Ok(read),
        false => Err(unreadable("label", part)),
    }
}

fn field_requirement(part: &str) -> Result<FieldRequirement, Status> {
    let (path, value, equal) = if let Some((path, value)) = part.split_once("!=") {
        (path, value, false)
    } else if let Some((path, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        (path, value, true)
    } else {
        return Err(unreadable("field", part));
    };
    let (path, value) = (path.trim().to_owned(), value.trim().to_owned());
    match path.is_empty() {
        true => Err(unreadable("field", part)),
        false => Ok(FieldRequirement { path, value, equal }),
    }
}

fn unreadable(which: &str, part: &str) -> Status {
    Status::bad_request(format!("unable to parse requirement of the {which} selector: {part:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(selector: &str, labels: &str, matches: bool) {
        let held: Vec<(&str, &str)> =
            labels.split(' ').filter_map(|pair| pair.split_once('=')).collect();
        let lookup = |key: &str| {
            held.iter().find(|(held, _)| *held == key).map(|(_, value)| (*value).to_owned())
        };
        let filter = Filter::parse(None, selector, "").unwrap();
        let all = filter.labels.iter().all(|one| one.holds(&lookup));
        assert_eq!(all, matches, "{selector:?} on {labels:?}");
    }

    #[test]
    fn label_selectors() {
        check("", "", true);
        check("a", "a=1", true);
        check("a", "b=1", false);
        check("!a", "b=1", true);
        check("!a", "a=", false);
        check("a=1", "a=1", true);
        check("a==1", "a=2", false);
        check("a!=1", "", true);
        check("a!=1", "a=1", false);
        check("a in (1, 2)", "a=2", true);
        check("a in (1,2)", "", false);
        check("a notin (1,2)", "", true);
        check("a notin (1,2),b", "a=3 b=1", true);
        check("a notin (1,2),b", "a=3", false);
        check("!x.io/headless,!x.io/proxy", "", true);
        check("!x.io/headless,!x.io/proxy", "x.io/proxy=mine", false);
    }

    #[test]
    fn selectors_that_make_no_sense_are_refused() {
        for selector in ["=1", "a in 1", "a in (1", "a within (1)", "a b"] {
            assert!(Filter::parse(None, selector, "").is_err(), "{selector:?}");
        }
        for selector in ["spec.type", "=x"] {
            assert!(Filter::parse(None, "", selector).is_err(), "{selector:?}");
        }
    }
}
