//! Answers: JSON bodies, in the form that the client accepts, with the lies told to it.

use axum::body::Body;
use bytes::{BufMut, Bytes, BytesMut};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use crate::kinds::KindId;
use crate::lies::Lie;
use crate::status::Status;
use crate::store::{Page, Stored};
use crate::table::{self, Include};

/// The form in which objects are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// As they are.
    Whole,
    /// Rows of a table, for `kubectl get`.
    Table(Include),
    /// Metadata only.
    Metadata,
}

impl Form {
    /// The first form in a list of media types that can be answered; whole objects otherwise.
    pub(crate) fn accepted(accept: &str, include_object: &str) -> Form {
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            if !matches!(parts.next(), Some("application/json" | "application/*" | "*/*")) {
                continue;
            }
            match parts.find_map(|part| part.strip_prefix("as=")) {
                None => return Form::Whole,
                Some("Table") => {
                    return Form::Table(match include_object {
                        "None" => Include::None,
                        "Object" => Include::Object,
                        _ => Include::Metadata,
                    });
                }
                Some("PartialObjectMetadata" | "PartialObjectMetadataList") => {
                    return Form::Metadata;
                }
                // Aggregated discovery and the like: the next range may fit.
                Some(_) => {}
            }
        }
        Form::Whole
    }
}

/// How objects of one kind go to one watcher.
#[derive(Debug)]
pub(crate) struct Voice {
    pub(crate) kind: KindId,
    pub(crate) form: Form,
    pub(crate) lies: Vec<Lie>,
}

impl Voice {
    fn is_verbatim(&self) -> bool {
        self.form == Form::Whole && self.lies.is_empty()
    }

    /// An object as this watcher is told it.
    pub(crate) fn told(&self, mut object: Value) -> Value {
        for lie in &self.lies {
            lie.tell(&mut object);
        }
        object
    }

    /// A stored object as bytes; `with_columns` matters to tables alone.
    pub(crate) fn encode(&self, stored: &Stored, with_columns: bool) -> Bytes {
        match self.is_verbatim() {
            true => stored.bytes().clone(),
            false => self.one(stored.decode(), with_columns).to_string().into(),
        }
    }

    /// One object in the accepted form.
    pub(crate) fn one(&self, object: Value, with_columns: bool) -> Value {
        let object = self.told(object);
        match self.form {
            Form::Whole => object,
            Form::Metadata => table::partial(&object),
            Form::Table(include) => {
                let version = object["metadata"]["resourceVersion"].clone();
                let metadata = json!({ "resourceVersion": version });
                table::render(self.kind.def(), [&object], metadata, include, with_columns)
            }
        }
    }

    /// A page of a list as a body.
    pub(crate) fn list(&self, page: &Page) -> Bytes {
        let def = self.kind.def();
        let mut metadata = json!({ "resourceVersion": page.version.to_string() });
        if let Some(last) = page.items.last().filter(|_| page.remaining > 0) {
            let key = last.key();
            metadata["continue"] =
                json!(format!("{}/{}/{}", page.version, key.namespace, key.name));
            metadata["remainingItemCount"] = json!(page.remaining);
        }
        if let Form::Table(include) = self.form {
            let objects: Vec<Value> =
                page.items.iter().map(|stored| self.told(stored.decode())).collect();
            return table::render(def, &objects, metadata, include, true).to_string().into();
        }
        let (kind, version) = match self.form {
            Form::Whole | Form::Table(_) => (format!("{}List", def.kind), def.api_version()),
            Form::Metadata => ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1".to_owned()),
        };
        let size: usize = page.items.iter().map(|stored| stored.bytes().len() + 1).sum();
        let mut body = BytesMut::with_capacity(size + 256);
        let head = format!(
            "{{\"kind\":{},\"apiVersion\":{},\"metadata\":{metadata},\"items\":[",
            json!(kind),
            json!(version)
        );
        body.put_slice(head.as_bytes());
        for (nth, stored) in page.items.iter().enumerate() {
            if nth > 0 {
                body.put_u8(b',');
            }
            body.put_slice(&self.encode(stored, true));
        }
        body.put_slice(b"]}");
        body.freeze()
    }
}

/// A JSON answer.
pub(crate) fn json(code: StatusCode, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A refusal as an answer.
pub(crate) fn refusal(status: &Status) -> Response<Body> {
    let code = StatusCode::from_u16(status.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    json(code, status.to_value().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_by_what_the_client_accepts() {
        let table = [
            ("", Form::Whole),
            ("*/*", Form::Whole),
            ("application/vnd.kubernetes.protobuf, */*", Form::Whole),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
                Form::Table(Include::Metadata),
            ),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json",
                Form::Metadata,
            ),
            (
                "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json",
                Form::Whole,
            ),
        ];
        for (accept, form) in table {
            assert_eq!(Form::accepted(accept, ""), form, "{accept}");
        }
    }
}
