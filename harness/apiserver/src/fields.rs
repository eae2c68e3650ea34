//! Reading and writing JSON objects by dotted path.

use serde_json::{Map, Value};

/// The value at a dotted path, `None` where it is absent or null.
pub(crate) fn at<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    let mut here = object;
    for key in path.split('.') {
        here = here.get(key)?;
    }
    (!here.is_null()).then_some(here)
}

/// The text at a dotted path; the empty text where it is absent or no text.
pub(crate) fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    at(object, path).and_then(Value::as_str).unwrap_or("")
}

/// The list at a dotted path; empty where it is absent or no list.
pub(crate) fn list<'a>(object: &'a Value, path: &str) -> &'a [Value] {
    at(object, path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The texts of a list at a dotted path.
pub(crate) fn texts(object: &Value, path: &str) -> Vec<String> {
    list(object, path).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The whole number at a dotted path; 0 where it is absent or no number.
pub(crate) fn number(object: &Value, path: &str) -> i64 {
    at(object, path).and_then(Value::as_i64).unwrap_or(0)
}

/// A field as a field selector compares it.
pub(crate) fn printed(object: &Value, path: &str) -> String {
    match at(object, path) {
        None => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// The object at a dotted path, made where it is absent or something else.
pub(crate) fn object_mut<'a>(object: &'a mut Value, path: &str) -> &'a mut Map<String, Value> {
    let mut here = object;
    for key in path.split('.').filter(|key| !key.is_empty()) {
        here = as_object(here).entry(key).or_insert(Value::Null);
    }
    as_object(here)
}

fn as_object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    let Value::Object(map) = value else { unreachable!("made an object just above") };
    map
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('.').unwrap_or(("", path))
}

/// Sets the value at a dotted path, making the objects that lead there.
pub(crate) fn set(object: &mut Value, path: &str, value: impl Into<Value>) {
    let (parent, key) = split(path);
    object_mut(object, parent).insert(key.to_owned(), value.into());
}

/// Removes the value at a dotted path.
pub(crate) fn remove(object: &mut Value, path: &str) {
    let (parent, key) = split(path);
    if parent.is_empty() || at(object, parent).is_some() {
        object_mut(object, parent).shift_remove(key);
    }
}

/// Sets the value at a dotted path where none is, or an empty text.
pub(crate) fn default(object: &mut Value, path: &str, value: impl Into<Value>) {
    let absent = at(object, path).is_none_or(|value| value.as_str() == Some(""));
    if absent {
        set(object, path, value);
    }
}

/// The elements of the list at a dotted path, for changing.
pub(crate) fn list_mut<'a>(object: &'a mut Value, path: &str) -> &'a mut [Value] {
    let mut here = Some(object);
    for key in path.split('.') {
        here = here.and_then(|value| value.get_mut(key));
    }
    here.and_then(Value::as_array_mut).map_or(&mut [], Vec::as_mut_slice)
}
