//! From a request's path and query to what it is about.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;

use crate::kinds::{KindId, StatusOf};
use crate::store::Key;
use crate::write::Part;

/// What a path names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// All objects of a kind, in one namespace or in all.
    Collection { kind: KindId, namespace: Option<String> },
    /// One object, or its status.
    Object { kind: KindId, key: Key, part: Part },
}

/// Reads the path of a resource; `None` where no such resource is served.
pub(crate) fn target(path: &str) -> Option<Target> {
    let decode = |segment: &str| percent_decode_str(segment).decode_utf8_lossy().into_owned();
    let segments: Vec<String> = path.trim_matches('/').split('/').map(decode).collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let (group, version, rest) = match segments[..] {
        ["api", version, ref rest @ ..] => ("", version, rest),
        ["apis", group, version, ref rest @ ..] => (group, version, rest),
        _ => return None,
    };
    let (namespace, rest) = match *rest {
        ["namespaces", _, "status" | "finalize"] => (None, rest),
        ["namespaces", namespace, ref rest @ ..] if !rest.is_empty() => (Some(namespace), rest),
        _ => (None, rest),
    };
    let (plural, name, part) = match *rest {
        [plural] => (plural, None, Part::Main),
        [plural, name] => (plural, Some(name), Part::Main),
        [plural, name, "status"] => (plural, Some(name), Part::Status),
        _ => return None,
    };
    let kind = KindId::of_resource(group, version, plural)?;
    let def = kind.def();
    if part == Part::Status && def.status == StatusOf::Absent {
        return None;
    }
    match (name, namespace) {
        (_, Some(_)) if !def.namespaced => None,
        (None, namespace) => {
            Some(Target::Collection { kind, namespace: namespace.map(str::to_owned) })
        }
        (Some(_), None) if def.namespaced => None,
        (Some(name), namespace) => {
            let namespace = namespace.unwrap_or("").to_owned();
            Some(Target::Object { kind, key: Key { namespace, name: name.to_owned() }, part })
        }
    }
}

/// The parameters of a query, decoded; the first of a name counts.
#[derive(Debug, Default)]
pub(crate) struct Query(BTreeMap<String, String>);

impl Query {
    pub(crate) fn parse(text: &str) -> Query {
        let mut parameters = BTreeMap::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decode = |text: &str| {
                let text = text.replace('+', " ");
                percent_decode_str(&text).decode_utf8_lossy().into_owned()
            };
            parameters.entry(decode(name)).or_insert_with(|| decode(value));
        }
        Query(parameters)
    }

    /// The value of a parameter, empty where absent.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// Whether a parameter says yes.
    pub(crate) fn flag(&self, name: &str) -> bool {
        matches!(self.text(name), "true" | "1")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, meaning: &str) {
        let shown = match target(path) {
            None => "nothing".to_owned(),
            Some(Target::Collection { kind, namespace }) => {
                format!(
                    "all {} in {}",
                    kind.def().qualified(),
                    namespace.as_deref().unwrap_or("all")
                )
            }
            Some(Target::Object { kind, key, part }) => {
                format!("{} {}/{} {part:?}", kind.def().qualified(), key.namespace, key.name)
            }
        };
        assert_eq!(shown, meaning, "{path}");
    }

    #[test]
    fn paths() {
        check("/api/v1/services", "all services in all");
        check("/api/v1/namespaces/a/services", "all services in a");
        check("/api/v1/namespaces/a/services/web", "services a/web Main");
        check("/api/v1/namespaces/a/services/web/status", "services a/web Status");
        check("/api/v1/namespaces", "all namespaces in all");
        check("/api/v1/namespaces/a", "namespaces /a Main");
        check("/api/v1/namespaces/a/status", "namespaces /a Status");
        check("/api/v1/nodes/n%2D1", "nodes /n-1 Main");
        check(
            "/apis/discovery.k8s.io/v1/namespaces/a/endpointslices/s",
            "endpointslices.discovery.k8s.io a/s Main",
        );
        check("/api/v1/namespaces/a/nodes/n1", "nothing");
        check("/api/v1/services/web", "nothing");
        check("/api/v1/namespaces/a/configmaps/c/status", "nothing");
        check("/apis/apps/v1/deployments", "nothing");
        check("/metrics", "nothing");
    }

    #[test]
    fn queries() {
        let query = Query::parse("watch=1&labelSelector=%21a%2Cb+in+%28c%29&empty=&bare");
        assert!(query.flag("watch") && !query.flag("empty"));
        assert_eq!(query.text("labelSelector"), "!a,b in (c)");
        assert_eq!(query.text("absent"), "");
    }
}
