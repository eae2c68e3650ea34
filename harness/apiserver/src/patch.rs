//! Patches: JSON patch, merge patch, strategic merge patch, and a simple server-side apply.

use serde_json::{Map, Value};

use crate::kinds::{Kind, MergeList};
use crate::status::{Reason, Status};

/// Which rules a patch follows, by the media type of its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    Json,
    Merge,
    Strategic,
    Apply,
}

impl Manner {
    pub(crate) fn of_media_type(media_type: &str) -> Option<Manner> {
        match media_type {
            "application/json-patch+json" => Some(Manner::Json),
            "application/merge-patch+json" => Some(Manner::Merge),
            "application/strategic-merge-patch+json" => Some(Manner::Strategic),
            "application/apply-patch+yaml" => Some(Manner::Apply),
            _ => None,
        }
    }
}

/// The object that a patch makes of another.
///
/// # Errors
/// 400 where the patch is no patch, 422 where it does not fit the object.
pub(crate) fn apply(
    kind: &Kind,
    manner: Manner,
    object: &Value,
    patch: &Value,
) -> Result<Value, Status> {
    let mut patched = object.clone();
    match manner {
        Manner::Json => {
            let operations: json_patch::Patch = serde_json::from_value(patch.clone())
                .map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))?;
            json_patch::patch(&mut patched, &operations).map_err(|error| {
                let why = format!(
                    "the server rejected our request due to an error in our request: {error}"
                );
                Status::new(Reason::Invalid, why)
            })?;
        }
        Manner::Merge => {
            expect_object(patch)?;
            json_patch::merge(&mut patched, patch);
        }
        Manner::Strategic => {
            expect_object(patch)?;
            let rules = Rules { lists: kind.merge, every_key: false };
            rules.merge(&mut patched, patch, "")?;
        }
        Manner::Apply => {
            expect_object(patch)?;
            let rules = Rules { lists: kind.merge, every_key: true };
            rules.merge(&mut patched, patch, "")?;
        }
    }
    expect_object(&patched)?;
    Ok(patched)
}

fn expect_object(value: &Value) -> Result<(), Status> {
    match value.is_object() {
        true => Ok(()),
        false => Err(Status::bad_request("error decoding patch: an object is needed")),
    }
}

/// How lists merge.
struct Rules {
    lists: &'static [MergeList],
    /// Whether all keys of an element must agree, as for server-side apply.
    every_key: bool,
}

impl Rules {
    fn keys(&self, path: &str) -> Option<&'static [&'static str]> {
        self.lists.iter().find(|list| list.path == path).map(|list| list.keys)
    }

    fn merge(&self, target: &mut Value, patch: &Value, path: &str) -> Result<(), Status> {
        let Some(changes) = patch.as_object() else {
            *target = patch.clone();
            return Ok(());
        };
        match directive(changes)? {
            Directive::Merge => {}
            Directive::Replace => {
                *target = Value::Object(plain(changes));
                return Ok(());
            }
            Directive::Delete => {
                *target = Value::Object(Map::new());
                return Ok(());
            }
        }
        if !target.is_object() {
            *target = Value::Object(Map::new());
        }
        let Some(map) = target.as_object_mut() else {
            return Ok(());
        };
        if let Some(kept) = changes.get("$retainKeys").and_then(Value::as_array) {
            map.retain(|key, _| kept.iter().any(|kept| kept == key));
        }
        for (key, change) in changes {
            let here = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            if let Some(list) = key.strip_prefix("$deleteFromPrimitiveList/") {
                let gone = change.as_array().map_or(&[][..], Vec::as_slice);
                if let Some(held) = map.get_mut(list).and_then(Value::as_array_mut) {
                    held.retain(|value| !gone.contains(value));
                }
            } else if key.starts_with('$') {
                // $patch and $retainKeys are done above, $setElementOrder below.
            } else if change.is_null() {
                map.shift_remove(key);
            } else if let (Some(keys), Some(elements)) = (self.keys(&here), change.as_array()) {
                let held = map.entry(key.as_str()).or_insert_with(|| Value::Array(Vec::new()));
                self.merge_list(held, elements, keys, &here)?;
            } else {
                self.merge(map.entry(key.as_str()).or_insert(Value::Null), change, &here)?;
            }
        }
        for (key, order) in changes {
            if let Some(list) = key.strip_prefix("$setElementOrder/")
                && let Some(held) = map.get_mut(list).and_then(Value::as_array_mut)
            {
                let here = if path.is_empty() { list.to_owned() } else { format!("{path}.{list}") };
                let order = order.as_array().map_or(&[][..], Vec::as_slice);
                set_order(held, order, self.keys(&here).unwrap_or(&[]));
            }
        }
        Ok(())
    }

    fn merge_list(
        &self,
        held: &mut Value,
        elements: &[Value],
        keys: &[&str],
        path: &str,
    ) -> Result<(), Status> {
        if !held.is_array() {
            *held = Value::Array(Vec::new());
        }
        let Some(list) = held.as_array_mut() else {
            return Ok(());
        };
        let replaces = |element: &&Value| element.get("$patch") == Some(&Value::from("replace"));
        if elements.iter().any(|element| replaces(&element)) {
            *list = elements.iter().filter(|element| !replaces(element)).cloned().collect();
            return Ok(());
        }
        for element in elements {
            if keys.is_empty() {
                if !list.contains(element) {
                    list.push(element.clone());
                }
                continue;
            }
            let Some(wanted) = element.as_object() else {
                return Err(Status::bad_request(format!("invalid element of {path}: {element}")));
            };
            if wanted.get(keys[0]).is_none() {
                let why =
                    format!("map: {element} does not contain declared merge key: {}", keys[0]);
                return Err(Status::bad_request(why));
            }
            let place = self.find(list, element, keys);
            match (directive(wanted)?, place) {
                (Directive::Delete, Some(place)) => {
                    list.remove(place);
                }
                (Directive::Delete, None) => {}
                (Directive::Merge | Directive::Replace, Some(place)) => {
                    self.merge(&mut list[place], element, path)?;
                }
                (Directive::Merge | Directive::Replace, None) => {
                    list.push(Value::Object(plain(wanted)));
                }
            }
        }
        Ok(())
    }

    /// The element meant: by the first key, and among several by the others as well.
    ///
    /// Strategic merge knows the first key only (`port`, not `port` and `protocol`), so that a
    /// changed protocol changes the port instead of adding another.
    fn find(&self, list: &[Value], wanted: &Value, keys: &[&str]) -> Option<usize> {
        let agree = |element: &Value, keys: &[&str]| {
            keys.iter().all(|key| {
                let both = (element.get(key), wanted.get(key));
                both.0 == both.1
                    || (*key == "protocol" && default_protocol(both.0) == default_protocol(both.1))
            })
        };
        let all = list.iter().position(|element| agree(element, keys));
        match self.every_key {
            true => all,
            false => all.or_else(|| list.iter().position(|element| agree(element, &keys[..1]))),
        }
    }
}

fn default_protocol(protocol: Option<&Value>) -> &str {
    protocol.and_then(Value::as_str).unwrap_or("TCP")
}

#[derive(Clone, Copy)]
enum Directive {
    Merge,
    Replace,
    Delete,
}

fn directive(changes: &Map<String, Value>) -> Result<Directive, Status> {
    match changes.get("$patch").map(|value| value.as_str().unwrap_or("")) {
        None | Some("merge") => Ok(Directive::Merge),
        Some("replace") => Ok(Directive::Replace),
        Some("delete") => Ok(Directive::Delete),
        Some(other) => Err(Status::bad_request(format!("unknown patch type: {other:?}"))),
    }
}

/// An element of a patch without its directives and nulls.
fn plain(changes: &Map<String, Value>) -> Map<String, Value> {
    let fields = changes.iter().filter(|(key, value)| !key.starts_with('$') && !value.is_null());
    fields
        .map(|(key, value)| match value.as_object() {
            Some(inner) => (key.clone(), Value::Object(plain(inner))),
            None => (key.clone(), value.clone()),
        })
        .collect()
}

/// Sorts a list as the patch wants it; elements it does not name keep their order, behind.
fn set_order(list: &mut [Value], order: &[Value], keys: &[&str]) {
    let same = |element: &Value, wanted: &Value| match keys.first() {
        None => element == wanted,
        Some(_) => {
            let named = keys.iter().filter(|key| wanted.get(**key).is_some());
            named.into_iter().all(|key| element.get(key) == wanted.get(key))
        }
    };
    list.sort_by_key(|element| {
        order.iter().position(|wanted| same(element, wanted)).unwrap_or(order.len())
    });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::KindId;

    fn check(manner: Manner, object: Value, patch: Value, patched: Value) {
        let kind = KindId::named("Service").unwrap().def();
        let shown = patch.to_string();
        assert_eq!(apply(kind, manner, &object, &patch), Ok(patched), "{shown}");
    }

    #[test]
    fn strategic_patches_merge_ports_by_number() {
        let two = json!({"spec": {"ports": [
            {"port": 53, "protocol": "UDP", "name": "dns"}, {"port": 53, "protocol": "TCP", "name": "tcp"},
        ]}});
        let one = json!({"spec": {"ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}]}});
        check(
            Manner::Strategic,
            two.clone(),
            json!({"spec": {"ports": [{"port": 53, "protocol": "TCP", "name": "new"}]}}),
            json!({"spec": {"ports": [
                {"port": 53, "protocol": "UDP", "name": "dns"}, {"port": 53, "protocol": "TCP", "name": "new"},
            ]}}),
        );
        check(
            Manner::Strategic,
            one.clone(),
            json!({"spec": {"ports": [{"port": 80, "protocol": "UDP"}]}}),
            json!({"spec": {"ports": [{"port": 80, "protocol": "UDP", "nodePort": 30080}]}}),
        );
        check(
            Manner::Apply,
            one.clone(),
            json!({"spec": {"ports": [{"port": 80, "protocol": "UDP"}]}}),
            json!({"spec": {"ports": [
                {"port": 80, "protocol": "TCP", "nodePort": 30080}, {"port": 80, "protocol": "UDP"},
            ]}}),
        );
        check(
            Manner::Strategic,
            one.clone(),
            json!({"spec": {
                "$setElementOrder/ports": [{"port": 443}, {"port": 80}], "ports": [{"port": 443}],
            }}),
            json!({"spec": {"ports": [{"port": 443}, {"port": 80, "protocol": "TCP", "nodePort": 30080}]}}),
        );
        check(
            Manner::Strategic,
            two,
            json!({"spec": {"ports": [{"$patch": "delete", "port": 53, "protocol": "UDP"}]}}),
            json!({"spec": {"ports": [{"port": 53, "protocol": "TCP", "name": "tcp"}]}}),
        );
        check(
            Manner::Strategic,
            one.clone(),
            json!({"spec": {"ports": [{"$patch": "replace"}, {"port": 1}]}}),
            json!({"spec": {"ports": [{"port": 1}]}}),
        );
        check(
            Manner::Merge,
            one,
            json!({"spec": {"ports": [{"port": 1}]}}),
            json!({"spec": {"ports": [{"port": 1}]}}),
        );
    }

    #[test]
    fn other_lists_are_atomic_and_null_removes() {
        check(
            Manner::Strategic,
            json!({"status": {"loadBalancer": {"ingress": [{"ip": "1.1.1.1"}]}}, "x": {"y": 1, "z": 2}}),
            json!({"status": {"loadBalancer": {"ingress": [{"ip": "2.2.2.2"}]}}, "x": {"y": null}}),
            json!({"status": {"loadBalancer": {"ingress": [{"ip": "2.2.2.2"}]}}, "x": {"z": 2}}),
        );
        check(
            Manner::Strategic,
            json!({"metadata": {"finalizers": ["a", "b"]}, "spec": {"selector": {"a": "1", "b": "2"}}}),
            json!({
                "metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]},
                "spec": {"selector": {"$patch": "replace", "c": "3"}},
            }),
            json!({"metadata": {"finalizers": ["b", "c"]}, "spec": {"selector": {"c": "3"}}}),
        );
    }
}
