//! Field lies: what one watcher is told differs from what the store knows.
//!
//! A lie turns a working proxy into one that ignores a field, to prove that a case would notice.

mod known;

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};

use crate::allocate::Family;
use crate::fields;

pub use known::{Untellable, known_fields};

/// A field altered for a watcher, in everything sent to it: objects, lists and watch events.
#[derive(Debug, Clone, PartialEq)]
pub struct Lie {
    /// Who is lied to; `None` lies to every watcher.
    pub watcher: Option<String>,
    /// The kind lied about, as objects name it (`Service`).
    pub kind: String,
    /// Namespaces whose objects are told of truly.
    pub spared: BTreeSet<String>,
    /// End of the name of the namespaces lied about; `None` lies about objects everywhere.
    pub within: Option<String>,
    /// What is altered.
    pub how: How,
}

/// What a lie does to an object.
#[derive(Debug, Clone, PartialEq)]
pub enum How {
    /// Removes the field, or the element of a list.
    Hide(FieldPath),
    /// Sets the field, making the objects that lead there; list elements are never made.
    Set(FieldPath, Value),
    /// Removes the cluster addresses of one family from a Service, and that family with them.
    HideClusterIps(Family),
}

/// The place of a field: `spec.ports[1]`, `endpoints[*].hints`, `metadata.labels["a.b/c"]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldPath(Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
    Each,
}

/// A text that is no field path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to read field path {0:?}")]
pub struct FieldPathError(String);

impl FromStr for FieldPath {
    type Err = FieldPathError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || FieldPathError(text.to_owned());
        let mut steps = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            if let Some(quoted) = rest.strip_prefix("[\"") {
                let (key, tail) = quoted.split_once("\"]").ok_or_else(wrong)?;
                steps.push(Step::Key(key.to_owned()));
                rest = tail;
            } else if let Some(inner) = rest.strip_prefix('[') {
                let (inner, tail) = inner.split_once(']').ok_or_else(wrong)?;
                steps.push(match inner {
                    "*" => Step::Each,
                    number => Step::Index(number.parse().map_err(|_| wrong())?),
                });
                rest = tail;
            } else {
                let rest_of = match (steps.is_empty(), rest.strip_prefix('.')) {
                    (true, None) => rest,
                    (false, Some(tail)) => tail,
                    (true, Some(_)) | (false, None) => return Err(wrong()),
                };
                let end = rest_of.find(['.', '[']).unwrap_or(rest_of.len());
                let (key, tail) = rest_of.split_at(end);
                if key.is_empty() {
                    return Err(wrong());
                }
                steps.push(Step::Key(key.to_owned()));
                rest = tail;
            }
        }
        match steps.is_empty() {
            true => Err(wrong()),
            false => Ok(FieldPath(steps)),
        }
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if key.contains(['.', '[']) => write!(f, "[\"{key}\"]")?,
                Step::Key(key) if nth == 0 => write!(f, "{key}")?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Each => write!(f, "[*]")?,
            }
        }
        Ok(())
    }
}

impl Lie {
    /// Whether the lie is about this kind and for this watcher.
    pub(crate) fn concerns(&self, watcher: &str, kind: &str) -> bool {
        self.kind == kind && self.watcher.as_deref().is_none_or(|it| it == watcher)
    }

    /// Alters an object, if the lie is about it.
    pub(crate) fn tell(&self, object: &mut Value) {
        let namespace = fields::text(object, "metadata.namespace");
        let spared = self.spared.contains(namespace);
        let elsewhere = |end: &String| !namespace.ends_with(end.as_str());
        if spared || self.within.as_ref().is_some_and(elsewhere) {
            return;
        }
        match &self.how {
            How::Hide(path) => hide(object, &path.0),
            How::Set(path, value) => set(object, &path.0, value),
            How::HideClusterIps(family) => hide_cluster_ips(object, *family),
        }
    }
}

fn hide(here: &mut Value, steps: &[Step]) {
    match steps {
        [] => {}
        [Step::Key(key)] => {
            if let Some(map) = here.as_object_mut() {
                map.shift_remove(key);
            }
        }
        [Step::Index(index)] => {
            if let Some(list) = here.as_array_mut().filter(|list| *index < list.len()) {
                list.remove(*index);
            }
        }
        [Step::Each] => {
            if let Some(list) = here.as_array_mut() {
                list.clear();
            }
        }
        [step, rest @ ..] => children(here, step, |child| hide(child, rest)),
    }
}

fn set(here: &mut Value, steps: &[Step], value: &Value) {
    let Some((step, rest)) = steps.split_first() else {
        *here = value.clone();
        return;
    };
    if let Step::Key(key) = step {
        if here.is_null() {
            *here = Value::Object(Map::new());
        }
        if let Some(map) = here.as_object_mut() {
            // A list cannot be made up: how many elements would it have?
            if !map.contains_key(key) && matches!(rest.first(), Some(Step::Index(_) | Step::Each)) {
                return;
            }
            set(map.entry(key.as_str()).or_insert(Value::Null), rest, value);
        }
    } else {
        children(here, step, |child| set(child, rest, value));
    }
}

fn children(here: &mut Value, step: &Step, mut visit: impl FnMut(&mut Value)) {
    match step {
        Step::Key(key) => {
            if let Some(child) = here.get_mut(key) {
                visit(child);
            }
        }
        Step::Index(index) => {
            if let Some(child) = here.get_mut(*index) {
                visit(child);
            }
        }
        Step::Each => here.as_array_mut().into_iter().flatten().for_each(visit),
    }
}

fn hide_cluster_ips(service: &mut Value, family: Family) {
    let is_hidden = |address: &str| address.parse().is_ok_and(|it| Family::of(it) == family);
    let kept = |path: &str, hidden: &dyn Fn(&str) -> bool| -> Vec<String> {
        fields::texts(service, path).into_iter().filter(|text| !hidden(text)).collect()
    };
    let addresses = kept("spec.clusterIPs", &is_hidden);
    let families = kept("spec.ipFamilies", &|name| name == family.as_str());
    let first_is_hidden = is_hidden(fields::text(service, "spec.clusterIP"));
    for (path, values) in [("spec.clusterIPs", &addresses), ("spec.ipFamilies", &families)] {
        match values.is_empty() {
            true => fields::remove(service, path),
            false => fields::set(service, path, values.clone()),
        }
    }
    // A Service without `clusterIP` is ignored as a whole, which would be another lie.
    match addresses.first() {
        Some(first) if first_is_hidden => fields::set(service, "spec.clusterIP", first.as_str()),
        None if first_is_hidden => fields::remove(service, "spec.clusterIP"),
        Some(_) | None => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(object: Value, how: How, told: Value) {
        let shown = format!("{how:?}");
        let lie = Lie {
            watcher: None,
            kind: "Service".to_owned(),
            spared: BTreeSet::new(),
            within: None,
            how,
        };
        let mut heard = object;
        lie.tell(&mut heard);
        assert_eq!(heard, told, "{shown}");
    }

    fn path(text: &str) -> FieldPath {
        text.parse().unwrap()
    }

    #[test]
    fn paths_print_as_they_are_read() {
        for text in [
            "spec.type",
            "endpoints[*].conditions.ready",
            "spec.ports[1]",
            "a[0][*].b",
            "a[\"x.y/z\"].b",
        ] {
            assert_eq!(path(text).to_string(), text);
        }
        for text in ["", ".", "a.", ".a", "a[", "a[x]", "a..b", "a[0]b", "a[\"b]"] {
            assert!(text.parse::<FieldPath>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn hiding() {
        check(json!({"a": {"b": 1, "c": 2}}), How::Hide(path("a.b")), json!({"a": {"c": 2}}));
        check(json!({"a": 1}), How::Hide(path("x.y[*].z")), json!({"a": 1}));
        check(json!({"l": [1, 2, 3]}), How::Hide(path("l[1]")), json!({"l": [1, 3]}));
        check(json!({"l": [1]}), How::Hide(path("l[1]")), json!({"l": [1]}));
        check(
            json!({"l": [{"c": {"r": true}}, {"c": {"r": false, "s": 1}}, {}]}),
            How::Hide(path("l[*].c.r")),
            json!({"l": [{"c": {}}, {"c": {"s": 1}}, {}]}),
        );
    }

    #[test]
    fn setting() {
        let none = json!("None");
        check(json!({}), How::Set(path("a.b"), none.clone()), json!({"a": {"b": "None"}}));
        check(json!({}), How::Set(path("l[*].b"), none.clone()), json!({}));
        check(json!({"l": []}), How::Set(path("l[0]"), none.clone()), json!({"l": []}));
        check(
            json!({"l": [{}, {"c": {"r": 1}}]}),
            How::Set(path("l[*].c.r"), none),
            json!({"l": [{"c": {"r": "None"}}, {"c": {"r": "None"}}]}),
        );
    }

    #[test]
    fn only_within_a_namespace() {
        let lie = Lie {
            spared: BTreeSet::new(),
            watcher: None,
            kind: "Service".to_owned(),
            within: Some("-udp-basic".to_owned()),
            how: How::Hide(path("spec.type")),
        };
        for (namespace, left) in [("t1-udp-basic", false), ("t1-udp-other", true), ("", true)] {
            let mut object = json!({"metadata": {"namespace": namespace}, "spec": {"type": "x"}});
            lie.tell(&mut object);
            assert_eq!(object["spec"].get("type").is_some(), left, "{namespace}");
        }
    }

    #[test]
    fn hiding_the_cluster_addresses_of_a_family() {
        let dual = |first: &str, second: &str| {
            let family = |ip: &str| if ip.contains(':') { "IPv6" } else { "IPv4" };
            json!({"spec": {
                "clusterIP": first, "clusterIPs": [first, second],
                "ipFamilies": [family(first), family(second)],
            }})
        };
        let single = |ip: &str, family: &str| json!({"spec": {"clusterIP": ip, "clusterIPs": [ip], "ipFamilies": [family]}});
        let four = How::HideClusterIps(Family::V4);
        let six = How::HideClusterIps(Family::V6);
        check(dual("10.0.0.1", "fd::1"), six.clone(), single("10.0.0.1", "IPv4"));
        check(dual("fd::1", "10.0.0.1"), six.clone(), single("10.0.0.1", "IPv4"));
        check(dual("10.0.0.1", "fd::1"), four, single("fd::1", "IPv6"));
        check(single("fd::1", "IPv6"), six.clone(), json!({"spec": {}}));
        let headless = json!({"spec": {"clusterIP": "None", "clusterIPs": ["None"]}});
        check(headless.clone(), six, headless);
    }
}
