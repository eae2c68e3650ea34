//! Failures in the words of the Kubernetes API: the `Status` object of `meta/v1`.

use serde_json::{Map, Value, json};

use crate::kinds::Kind;

/// Why a request failed, as the `reason` of a Kubernetes `Status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// 400: the request itself makes no sense.
    BadRequest,
    /// 401: the bearer token is missing or wrong.
    Unauthorized,
    /// 404: no such object, or no such resource.
    NotFound,
    /// 405: the resource does not know this method.
    MethodNotAllowed,
    /// 409: an object of this name exists.
    AlreadyExists,
    /// 409: the object has changed since the caller read it, or a precondition failed.
    Conflict,
    /// 410: the version asked for is no longer remembered.
    Expired,
    /// 413: the body is larger than the server takes.
    RequestEntityTooLarge,
    /// 415: the body's media type is not understood.
    UnsupportedMediaType,
    /// 422: the object breaks a rule of its kind.
    Invalid,
    /// 500: the server could not choose an address or a port, or cannot encode an object.
    InternalError,
    /// 504: the version asked for lies in the future.
    Timeout,
}

impl Reason {
    /// The HTTP status code that goes with the reason.
    pub fn code(self) -> u16 {
        match self {
            Reason::BadRequest => 400,
            Reason::Unauthorized => 401,
            Reason::NotFound => 404,
            Reason::MethodNotAllowed => 405,
            Reason::AlreadyExists | Reason::Conflict => 409,
            Reason::Expired => 410,
            Reason::RequestEntityTooLarge => 413,
            Reason::UnsupportedMediaType => 415,
            Reason::Invalid => 422,
            Reason::InternalError => 500,
            Reason::Timeout => 504,
        }
    }

    /// The reason as Kubernetes writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::BadRequest => "BadRequest",
            Reason::Unauthorized => "Unauthorized",
            Reason::NotFound => "NotFound",
            Reason::MethodNotAllowed => "MethodNotAllowed",
            Reason::AlreadyExists => "AlreadyExists",
            Reason::Conflict => "Conflict",
            Reason::Expired => "Expired",
            Reason::RequestEntityTooLarge => "RequestEntityTooLarge",
            Reason::UnsupportedMediaType => "UnsupportedMediaType",
            Reason::Invalid => "Invalid",
            Reason::InternalError => "InternalError",
            Reason::Timeout => "Timeout",
        }
    }
}

/// A refused request, with the message that `kubectl` would print.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    reason: Reason,
    message: String,
    details: Map<String, Value>,
}

impl Status {
    /// Why the request failed.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// The HTTP status code.
    pub fn code(&self) -> u16 {
        self.reason.code()
    }

    /// The message, in Kubernetes' words.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The `Status` object as it goes over the wire.
    pub fn to_value(&self) -> Value {
        let mut object = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason.as_str(),
        });
        if !self.details.is_empty() {
            object["details"] = Value::Object(self.details.clone());
        }
        object["code"] = json!(self.code());
        object
    }

    pub(crate) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Status { reason, message: message.into(), details: Map::new() }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Status::new(Reason::BadRequest, message)
    }

    fn about(reason: Reason, kind: &Kind, name: &str, message: String) -> Self {
        let mut details = Map::new();
        details.insert("name".into(), json!(name));
        if !kind.group.is_empty() {
            details.insert("group".into(), json!(kind.group));
        }
        details.insert("kind".into(), json!(kind.plural));
        Status { reason, message, details }
    }

    pub(crate) fn not_found(kind: &Kind, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", kind.qualified());
        Status::about(Reason::NotFound, kind, name, message)
    }

    pub(crate) fn no_such_resource() -> Self {
        Status::new(Reason::NotFound, "the server could not find the requested resource")
    }

    pub(crate) fn already_exists(kind: &Kind, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", kind.qualified());
        Status::about(Reason::AlreadyExists, kind, name, message)
    }

    pub(crate) fn conflict(kind: &Kind, name: &str, why: &str) -> Self {
        let what = kind.qualified();
        let message = format!("Operation cannot be fulfilled on {what} \"{name}\": {why}");
        Status::about(Reason::Conflict, kind, name, message)
    }

    pub(crate) fn modified(kind: &Kind, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest \
                   version and try again";
        Status::conflict(kind, name, why)
    }

    pub(crate) fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Status::new(Reason::MethodNotAllowed, message)
    }

    pub(crate) fn too_old(asked: u64, oldest: u64) -> Self {
        Status::new(Reason::Expired, format!("too old resource version: {asked} ({oldest})"))
    }

    /// A refusal with every broken rule; `causes` must not be empty.
    pub(crate) fn invalid(kind: &Kind, name: &str, causes: Vec<Cause>) -> Self {
        let mut lines: Vec<String> =
            causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message())).collect();
        let all = match lines.len() {
            1 => lines.remove(0),
            _ => format!("[{}]", lines.join(", ")),
        };
        let what = match kind.group {
            "" => kind.kind.to_owned(),
            group => format!("{}.{group}", kind.kind),
        };
        let message = format!("{what} \"{name}\" is invalid: {all}");
        let mut status = Status::about(Reason::Invalid, kind, name, message);
        status.details.insert("kind".into(), json!(kind.kind));
        let causes = causes.iter().map(|cause| {
            json!({
                "reason": cause.fault.reason(), "message": cause.message(), "field": cause.field,
            })
        });
        status.details.insert("causes".into(), causes.collect());
        status
    }
}

/// One broken rule of an object: which field, and what is wrong with it.
#[derive(Debug, Clone)]
pub(crate) struct Cause {
    field: String,
    fault: Fault,
}

#[derive(Debug, Clone)]
enum Fault {
    Required(String),
    Invalid(Value, String),
    Unsupported(Value, String),
    Duplicate(Value),
    Forbidden(String),
    TooMany(usize, usize),
}

impl Fault {
    fn reason(&self) -> &'static str {
        match self {
            Fault::Required(_) => "FieldValueRequired",
            Fault::Invalid(..) => "FieldValueInvalid",
            Fault::Unsupported(..) => "FieldValueNotSupported",
            Fault::Duplicate(_) => "FieldValueDuplicate",
            Fault::Forbidden(_) => "FieldValueForbidden",
            Fault::TooMany(..) => "FieldValueTooMany",
        }
    }
}

impl Cause {
    pub(crate) fn required(field: impl Into<String>, why: &str) -> Self {
        Cause { field: field.into(), fault: Fault::Required(why.to_owned()) }
    }

    pub(crate) fn invalid(
        field: impl Into<String>,
        value: impl Into<Value>,
        why: impl Into<String>,
    ) -> Self {
        Cause { field: field.into(), fault: Fault::Invalid(value.into(), why.into()) }
    }

    pub(crate) fn unsupported(
        field: impl Into<String>,
        value: impl Into<Value>,
        supported: &[&str],
    ) -> Self {
        let supported: Vec<String> = supported.iter().map(|one| format!("\"{one}\"")).collect();
        Cause { field: field.into(), fault: Fault::Unsupported(value.into(), supported.join(", ")) }
    }

    pub(crate) fn duplicate(field: impl Into<String>, value: impl Into<Value>) -> Self {
        Cause { field: field.into(), fault: Fault::Duplicate(value.into()) }
    }

    pub(crate) fn forbidden(field: impl Into<String>, why: &str) -> Self {
        Cause { field: field.into(), fault: Fault::Forbidden(why.to_owned()) }
    }

    pub(crate) fn too_many(field: impl Into<String>, count: usize, most: usize) -> Self {
        Cause { field: field.into(), fault: Fault::TooMany(count, most) }
    }

    fn message(&self) -> String {
        match &self.fault {
            Fault::Required(why) if why.is_empty() => "Required value".to_owned(),
            Fault::Required(why) => format!("Required value: {why}"),
            Fault::Invalid(value, why) => format!("Invalid value: {value}: {why}"),
            Fault::Unsupported(value, supported) => {
                format!("Unsupported value: {value}: supported values: {supported}")
            }
            Fault::Duplicate(value) => format!("Duplicate value: {value}"),
            Fault::Forbidden(why) => format!("Forbidden: {why}"),
            Fault::TooMany(count, most) => {
                format!("Too many: {count}: must have at most {most} items")
            }
        }
    }
}
