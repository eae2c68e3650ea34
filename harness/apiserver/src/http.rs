//! Requests: who may ask, what is asked, and the answer.

use std::time::Duration;

use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT,
};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use crate::answer::{self, Form, Voice};
use crate::discovery::{self, Document};
use crate::fields;
use crate::kinds::{KindId, Rules};
use crate::log;
use crate::patch;
use crate::route::{self, Query, Target};
use crate::selector::Filter;
use crate::serve::Door;
use crate::status::{Reason, Status};
use crate::store::{Cursor, Key};
use crate::watch::{self, Wish};
use crate::write::{Deleted, Manner, Part, Preconditions};

/// The largest body that is read, as in Kubernetes.
const MOST_BYTES: usize = 3 << 20;
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// Answers one request.
pub(crate) async fn handle(door: &Door, request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    door.server.log_request(log::Request {
        watcher: door.watcher.clone(),
        method: parts.method.to_string(),
        path: parts.uri.path_and_query().map_or("/", |it| it.as_str()).to_owned(),
        user_agent: header(&parts, USER_AGENT).to_owned(),
        content_type: header(&parts, CONTENT_TYPE).to_owned(),
        accept: header(&parts, ACCEPT).to_owned(),
    });
    match answer(door, &parts, body).await {
        Ok(response) => response,
        Err(status) => answer::refusal(&status),
    }
}

fn header(parts: &Parts, name: HeaderName) -> &str {
    parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
}

/// Whether a request bears the token: as a bearer, or as the password of basic authentication,
/// since kubectl keeps bearer tokens to itself where there is no TLS.
fn bears(authorization: &str, token: &str) -> bool {
    match authorization.split_once(' ') {
        Some(("Bearer", given)) => given == token,
        Some(("Basic", given)) => {
            let decoded = STANDARD.decode(given).unwrap_or_default();
            let password = decoded.splitn(2, |byte| *byte == b':').nth(1);
            password == Some(token.as_bytes())
        }
        Some(_) | None => false,
    }
}

async fn answer(door: &Door, parts: &Parts, body: Incoming) -> Result<Response<Body>, Status> {
    let path = parts.uri.path();
    if let Some(token) = &door.token
        && !discovery::is_public(path)
        && !bears(header(parts, AUTHORIZATION), token)
    {
        return Err(Status::new(Reason::Unauthorized, "Unauthorized"));
    }
    if parts.method == Method::GET
        && let Some(document) =
            discovery::document(path, header(parts, HOST), header(parts, ACCEPT))
    {
        return Ok(document_answer(document));
    }
    let target = route::target(path).ok_or_else(Status::no_such_resource)?;
    let asked = Asked {
        door,
        query: Query::parse(parts.uri.query().unwrap_or("")),
        accept: header(parts, ACCEPT),
        media_type: header(parts, CONTENT_TYPE).split(';').next().unwrap_or("").trim(),
    };
    match (&parts.method, target) {
        (&Method::GET, Target::Collection { kind, namespace }) => {
            asked.list_or_watch(kind, namespace.as_deref(), None)
        }
        (&Method::GET, Target::Object { kind, key, .. }) => asked.get(kind, &key),
        (&Method::POST, Target::Collection { kind, namespace }) => {
            asked.create(kind, namespace, read(body).await?)
        }
        (&Method::PUT, Target::Object { kind, key, part }) => {
            asked.update(kind, &key, part, &read(body).await?)
        }
        (&Method::PATCH, Target::Object { kind, key, part }) => {
            asked.patch(kind, &key, part, &read(body).await?)
        }
        (&Method::DELETE, Target::Object { kind, key, part: Part::Main }) => {
            asked.delete(kind, &key, &read(body).await?)
        }
        (&Method::DELETE, Target::Collection { kind, namespace }) => {
            asked.delete_all(kind, namespace.as_deref(), &read(body).await?)
        }
        _ => Err(Status::method_not_allowed()),
    }
}

fn document_answer(document: Document) -> Response<Body> {
    match document {
        Document::Json(value) => answer::json(StatusCode::OK, value.to_string()),
        Document::Text(text) => Response::new(Body::from(text)),
        Document::OpenApiV2 => {
            // Field 1, the version of the format, is all that the document says.
            let mut response = Response::new(Body::from(&b"\x0a\x032.0"[..]));
            let media_type = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
            response
        }
    }
}

async fn read(body: Incoming) -> Result<Bytes, Status> {
    axum::body::to_bytes(Body::new(body), MOST_BYTES).await.map_err(|_| {
        let message = format!("Request entity too large: limit is {MOST_BYTES}");
        Status::new(Reason::RequestEntityTooLarge, message)
    })
}

/// One request, but for its target and body.
struct Asked<'a> {
    door: &'a Door,
    query: Query,
    accept: &'a str,
    media_type: &'a str,
}

impl Asked<'_> {
    fn form(&self) -> Form {
        Form::accepted(self.accept, self.query.text("includeObject"))
    }

    fn voice(&self, kind: KindId) -> Voice {
        let lies = self.door.server.lies_for(&self.door.watcher, kind);
        Voice { kind, form: self.form(), lies }
    }

    fn manner(&self) -> Manner {
        Manner { raw: false, dry_run: self.query.text("dryRun") == "All" }
    }

    fn one(&self, code: StatusCode, kind: KindId, object: Value) -> Response<Body> {
        answer::json(code, self.voice(kind).one(object, true).to_string())
    }

    fn get(&self, kind: KindId, key: &Key) -> Result<Response<Body>, Status> {
        if self.query.flag("watch") {
            return self.list_or_watch(kind, Some(&key.namespace), Some(&key.name));
        }
        let stored = self.door.server.state().read(kind, key)?.clone();
        Ok(answer::json(StatusCode::OK, self.voice(kind).encode(&stored, true)))
    }

    fn list_or_watch(
        &self,
        kind: KindId,
        namespace: Option<&str>,
        name: Option<&str>,
    ) -> Result<Response<Body>, Status> {
        let mut fields = self.query.text("fieldSelector").to_owned();
        if let Some(name) = name {
            fields = format!("metadata.name={name}");
        }
        let namespace = namespace.filter(|namespace| !namespace.is_empty());
        let filter = Filter::parse(namespace, self.query.text("labelSelector"), &fields)?;
        match self.query.flag("watch") {
            true => self.watch(kind, filter),
            false => self.list(kind, &filter),
        }
    }

    fn list(&self, kind: KindId, filter: &Filter) -> Result<Response<Body>, Status> {
        let mut cursor = Cursor::default();
        if !self.query.text("limit").is_empty() {
            let limit = self.query.text("limit");
            cursor.limit = limit.parse().map_err(|_| {
                Status::bad_request(format!("invalid limit {limit:?}: not a number"))
            })?;
        }
        let asked = watch::version(self.query.text("resourceVersion"))?.filter(|it| *it != 0);
        let state = self.door.server.state();
        match self.query.text("continue") {
            "" => {
                if let Some(asked) = asked {
                    let now = state.store.version();
                    if asked > now {
                        let message =
                            format!("Too large resource version: {asked}, current: {now}");
                        return Err(Status::new(Reason::Timeout, message));
                    }
                    let exact = self.query.text("resourceVersionMatch") == "Exact";
                    cursor.version = Some(asked).filter(|_| exact);
                }
            }
            token => {
                let (version, after) = continued(token)
                    .ok_or_else(|| Status::bad_request("continue key is not valid"))?;
                (cursor.version, cursor.after) = (Some(version), Some(after));
            }
        }
        let page = state.store.page(kind, filter, &cursor)?;
        drop(state);
        Ok(answer::json(StatusCode::OK, self.voice(kind).list(&page)))
    }

    fn watch(&self, kind: KindId, filter: Filter) -> Result<Response<Body>, Status> {
        let initial = self.query.text("sendInitialEvents");
        let matching = self.query.text("resourceVersionMatch");
        if (initial.is_empty() && !matching.is_empty())
            || (!initial.is_empty() && matching != "NotOlderThan")
        {
            let why = match initial.is_empty() {
                true => {
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
                }
                false => "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            };
            let message = format!(
                "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: {why}"
            );
            return Err(Status::new(Reason::Invalid, message));
        }
        let from = watch::version(self.query.text("resourceVersion"))?.filter(|it| *it != 0);
        let from = match initial {
            "true" => None,
            "false" => from.or_else(|| Some(self.door.server.resource_version())),
            _ => from,
        };
        let seconds = self.query.text("timeoutSeconds").parse::<u64>().ok().filter(|it| *it > 0);
        let wish = Wish {
            watcher: self.door.watcher.clone(),
            kind,
            filter,
            form: self.form(),
            from,
            mark_initial_end: initial == "true",
            bookmarks: self.query.flag("allowWatchBookmarks"),
            limit: seconds.map(Duration::from_secs),
        };
        Ok(answer::json(StatusCode::OK, watch::body(self.door.server.clone(), wish)))
    }

    fn create(
        &self,
        kind: KindId,
        namespace: Option<String>,
        body: Bytes,
    ) -> Result<Response<Body>, Status> {
        if kind.def().rules == Rules::Event {
            return self.create_event(kind, namespace, body);
        }
        let object = self.json(&body)?;
        let created =
            self.door.server.create_at(kind, namespace.as_deref(), object, self.manner())?;
        Ok(self.one(StatusCode::CREATED, kind, created))
    }

    fn create_event(
        &self,
        kind: KindId,
        namespace: Option<String>,
        body: Bytes,
    ) -> Result<Response<Body>, Status> {
        let log = |object: Option<Value>| {
            self.door.server.log_event(log::Event {
                watcher: self.door.watcher.clone(),
                namespace: namespace.clone().unwrap_or_default(),
                content_type: self.media_type.to_owned(),
                body: body.clone(),
                object,
            });
        };
        if self.media_type == PROTOBUF {
            log(None);
            let event = json!({
                "kind": kind.def().kind, "apiVersion": kind.def().api_version(),
                "metadata": {"name": "undecoded", "namespace": namespace},
            });
            return Ok(answer::json(StatusCode::CREATED, event.to_string()));
        }
        let object = self.json(&body)?;
        log(Some(object.clone()));
        let created =
            self.door.server.create_at(kind, namespace.as_deref(), object, self.manner())?;
        Ok(self.one(StatusCode::CREATED, kind, created))
    }

    fn update(
        &self,
        kind: KindId,
        key: &Key,
        part: Part,
        body: &Bytes,
    ) -> Result<Response<Body>, Status> {
        let object = self.json(body)?;
        let updated = self.door.server.update_at(kind, key, object, part, self.manner())?;
        Ok(self.one(StatusCode::OK, kind, updated))
    }

    fn patch(
        &self,
        kind: KindId,
        key: &Key,
        part: Part,
        body: &Bytes,
    ) -> Result<Response<Body>, Status> {
        let Some(rules) = patch::Manner::of_media_type(self.media_type) else {
            return Err(self.unsupported(
                "application/json-patch+json, application/merge-patch+json, \
                 application/strategic-merge-patch+json, application/apply-patch+yaml",
            ));
        };
        let patch: Value = serde_json::from_slice(body).map_err(|error| match rules {
            // JSON is YAML too, and all that the usual clients send.
            patch::Manner::Apply => self.unsupported("application/apply-patch+yaml holding JSON"),
            patch::Manner::Json | patch::Manner::Merge | patch::Manner::Strategic => {
                Status::bad_request(format!("error decoding patch: {error}"))
            }
        })?;
        let existed = self.door.server.state().read(kind, key).is_ok();
        let patched = self.door.server.patch_at(kind, key, rules, &patch, part, self.manner())?;
        let code = if existed { StatusCode::OK } else { StatusCode::CREATED };
        Ok(self.one(code, kind, patched))
    }

    fn delete(&self, kind: KindId, key: &Key, body: &Bytes) -> Result<Response<Body>, Status> {
        let (preconditions, dry_run) = self.delete_options(body);
        let Deleted { object, gone } =
            self.door.server.delete_at(kind, key, &preconditions, dry_run)?;
        if !gone || kind.def().rules == Rules::Pod {
            return Ok(self.one(StatusCode::OK, kind, object));
        }
        let success = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": {
                "name": key.name, "group": kind.def().group, "kind": kind.def().plural,
                "uid": fields::text(&object, "metadata.uid"),
            },
        });
        Ok(answer::json(StatusCode::OK, success.to_string()))
    }

    fn delete_all(
        &self,
        kind: KindId,
        namespace: Option<&str>,
        body: &Bytes,
    ) -> Result<Response<Body>, Status> {
        let labels = self.query.text("labelSelector");
        let filter = Filter::parse(namespace, labels, self.query.text("fieldSelector"))?;
        let (_, dry_run) = self.delete_options(body);
        let server = &self.door.server;
        let page = server.state().store.page(kind, &filter, &Cursor::default())?;
        for stored in &page.items {
            match server.delete_at(kind, stored.key(), &Preconditions::default(), dry_run) {
                Ok(_) => {}
                // Somebody else deleted it meanwhile.
                Err(status) if status.reason() == Reason::NotFound => {}
                Err(status) => return Err(status),
            }
        }
        Ok(answer::json(StatusCode::OK, self.voice(kind).list(&page)))
    }

    /// Options in the body, of which only JSON is understood, or in the query.
    fn delete_options(&self, body: &Bytes) -> (Preconditions, bool) {
        let options: Value = serde_json::from_slice(body).unwrap_or_default();
        let preconditions = Preconditions {
            uid: fields::text(&options, "preconditions.uid").to_owned(),
            version: fields::text(&options, "preconditions.resourceVersion").to_owned(),
        };
        let asked = fields::texts(&options, "dryRun").iter().any(|it| it == "All");
        (preconditions, asked || self.query.text("dryRun") == "All")
    }

    fn json(&self, body: &Bytes) -> Result<Value, Status> {
        if !matches!(self.media_type, "" | "application/json") {
            return Err(self.unsupported("application/json"));
        }
        serde_json::from_slice(body).map_err(|error| {
            Status::bad_request(format!("the object provided is unrecognized: {error}"))
        })
    }

    fn unsupported(&self, accepted: &str) -> Status {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {accepted}"
        );
        Status::new(Reason::UnsupportedMediaType, message)
    }
}

/// The version and last object in a `continue` token.
fn continued(token: &str) -> Option<(u64, Key)> {
    let (version, key) = token.split_once('/')?;
    let (namespace, name) = key.split_once('/')?;
    let key = Key { namespace: namespace.to_owned(), name: name.to_owned() };
    Some((version.parse().ok()?, key))
}
