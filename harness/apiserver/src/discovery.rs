//! What a client may learn about the server itself: groups, resources, schemas, version, health.

use serde_json::{Value, json};

use crate::kinds::{KINDS, Kind, StatusOf};

/// The release whose API is imitated.
const RELEASE: &str = "v1.37.0+touchstone";

/// A document about the server.
pub(crate) enum Document {
    Json(Value),
    /// Health answers.
    Text(&'static str),
    /// The protobuf encoding of an OpenAPI v2 document without definitions.
    OpenApiV2,
}

/// Whether anybody may ask for it, token or not.
pub(crate) fn is_public(path: &str) -> bool {
    matches!(path, "/healthz" | "/livez" | "/readyz" | "/version")
        || path.starts_with("/livez/")
        || path.starts_with("/readyz/")
}

/// The document at a path, if there is one. `host` is the server's address as the client wrote it.
pub(crate) fn document(path: &str, host: &str, accept: &str) -> Option<Document> {
    let path = path.trim_end_matches('/');
    Some(match path {
        "/healthz" | "/livez" | "/readyz" => Document::Text("ok"),
        "/version" | "/version/" => Document::Json(version()),
        "/api" => Document::Json(json!({
            "kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": host}],
        })),
        "/apis" => Document::Json(json!({
            "kind": "APIGroupList", "apiVersion": "v1",
            "groups": groups().iter().map(|group| api_group(group)).collect::<Vec<_>>(),
        })),
        "/openapi/v2" if accept.contains("protobuf") => Document::OpenApiV2,
        "/openapi/v2" => Document::Json(json!({
            "swagger": "2.0", "info": {"title": "Kubernetes", "version": RELEASE},
            "paths": {}, "definitions": {},
        })),
        "/openapi/v3" => Document::Json(json!({ "paths": schema_index() })),
        _ if path.starts_with("/livez/") || path.starts_with("/readyz/") => Document::Text("ok"),
        _ => Document::Json(group_document(path)?),
    })
}

fn version() -> Value {
    json!({
        "major": "1", "minor": "37", "gitVersion": RELEASE, "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "none", "compiler": "rustc",
        "platform": "linux/amd64",
    })
}

fn groups() -> Vec<&'static str> {
    let mut groups: Vec<&str> = KINDS.iter().map(|kind| kind.group).collect();
    groups.sort_unstable();
    groups.dedup();
    groups.retain(|group| !group.is_empty());
    groups
}

/// `/apis/GROUP`, `/api/v1`, `/apis/GROUP/VERSION`, and the same below `/openapi/v3`.
fn group_document(path: &str) -> Option<Value> {
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let (schema, segments) = match segments[..] {
        ["openapi", "v3", ref rest @ ..] => (true, rest),
        _ => (false, &segments[..]),
    };
    let (group, version) = match *segments {
        ["api", version] => ("", version),
        ["apis", group, version] => (group, version),
        ["apis", group] if !schema && groups().contains(&group) => return Some(api_group(group)),
        _ => return None,
    };
    let kinds: Vec<&Kind> =
        KINDS.iter().filter(|kind| kind.group == group && kind.version == version).collect();
    let first = kinds.first()?;
    Some(match schema {
        true => open_api(&kinds),
        false => json!({
            "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": first.api_version(),
            "resources": kinds.iter().flat_map(|kind| resources(kind)).collect::<Vec<_>>(),
        }),
    })
}

fn api_group(group: &str) -> Value {
    let mut versions: Vec<Value> = KINDS
        .iter()
        .filter(|kind| kind.group == group)
        .map(|kind| json!({ "groupVersion": kind.api_version(), "version": kind.version }))
        .collect();
    versions.dedup();
    let preferred = versions.first().cloned().unwrap_or_default();
    json!({
        "kind": "APIGroup", "apiVersion": "v1", "name": group, "versions": versions,
        "preferredVersion": preferred,
    })
}

fn resources(kind: &Kind) -> Vec<Value> {
    let mut resources = vec![json!({
        "name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced,
        "kind": kind.kind, "shortNames": kind.short,
        "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
    })];
    if kind.status != StatusOf::Absent {
        resources.push(json!({
            "name": format!("{}/status", kind.plural), "singularName": "",
            "namespaced": kind.namespaced, "kind": kind.kind, "verbs": ["get", "patch", "update"],
        }));
    }
    resources
}

/// The path of a group's version, without a leading slash.
fn prefix(kind: &Kind) -> String {
    match kind.group {
        "" => format!("api/{}", kind.version),
        group => format!("apis/{group}/{}", kind.version),
    }
}

fn schema_index() -> Value {
    let mut index = json!({});
    for kind in KINDS {
        let prefix = prefix(kind);
        let url = format!("/openapi/v3/{prefix}?hash={RELEASE}");
        index[prefix] = json!({ "serverRelativeURL": url });
    }
    index
}

/// Paths without schemas: they say that the server itself validates fields, so that `kubectl`
/// leaves it to the server.
fn open_api(kinds: &[&Kind]) -> Value {
    let mut paths = json!({});
    for kind in kinds {
        let home = if kind.namespaced { "/namespaces/{namespace}" } else { "" };
        let collection = format!("/{}{home}/{}", prefix(kind), kind.plural);
        let operation = json!({
            "parameters": [
                {"name": "dryRun", "in": "query", "schema": {"type": "string"}},
                {"name": "fieldValidation", "in": "query", "schema": {"type": "string"}},
            ],
            "responses": {"200": {"description": "OK"}},
            "x-kubernetes-group-version-kind": {
                "group": kind.group, "version": kind.version, "kind": kind.kind,
            },
        });
        paths[format!("{collection}/{{name}}")] =
            json!({ "patch": operation.clone(), "put": operation.clone() });
        paths[collection] = json!({ "post": operation });
    }
    json!({
        "openapi": "3.0.0", "info": {"title": "Kubernetes", "version": RELEASE}, "paths": paths,
        "components": {"schemas": {}},
    })
}
