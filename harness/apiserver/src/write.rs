//! Creating, changing and deleting objects: metadata, kinds' own rules, versions.

use serde_json::{Map, Value, json};
use std::sync::Arc;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use crate::allocate::Allocator;
use crate::endpoint_slice;
use crate::fields::{self, at, list, set, text};
use crate::kinds::{KindId, Rules, StatusOf};
use crate::names;
use crate::service::{self, Refused};
use crate::status::{Cause, Reason, Status};
use crate::store::{Key, Store, Stored};

/// How a write is meant.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Manner {
    /// Neither defaulting nor validation: the object is stored as it is.
    pub(crate) raw: bool,
    /// Everything but storing.
    pub(crate) dry_run: bool,
}

/// Which part of an object a write changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Main,
    Status,
}

/// Conditions on a deletion; empty texts ask for nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Preconditions {
    pub(crate) uid: String,
    pub(crate) version: String,
}

/// What a deletion did.
#[derive(Debug)]
pub(crate) struct Deleted {
    pub(crate) object: Value,
    /// Whether it is gone; otherwise finalizers hold it.
    pub(crate) gone: bool,
}

/// Everything that writes change, behind one lock.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) store: Store,
    pub(crate) allocator: Allocator,
}

impl State {
    pub(crate) fn read(&self, kind: KindId, key: &Key) -> Result<&Arc<Stored>, Status> {
        self.store.get(kind, key).ok_or_else(|| Status::not_found(kind.def(), &key.name))
    }

    pub(crate) fn create(
        &mut self,
        kind: KindId,
        namespace: Option<&str>,
        mut object: Value,
        manner: Manner,
    ) -> Result<Value, Status> {
        let key = self.identify(kind, namespace, &mut object, manner)?;
        if self.store.get(kind, &key).is_some() {
            return Err(Status::already_exists(kind.def(), &key.name));
        }
        if !text(&object, "metadata.resourceVersion").is_empty() {
            let message = "resourceVersion should not be set on objects to be created";
            return Err(Status::bad_request(message));
        }
        set(&mut object, "metadata.uid", Uuid::new_v4().to_string());
        set(&mut object, "metadata.creationTimestamp", now());
        if kind.def().generation {
            set(&mut object, "metadata.generation", 1);
        }
        if !manner.raw {
            if kind.def().status == StatusOf::ClearedOnCreate {
                fields::remove(&mut object, "status");
            }
            self.prepare(kind, &mut object, None, &key)?;
        }
        self.finish(kind, key, object, None, manner)
    }

    /// Names a new object and puts what identifies it in front.
    fn identify(
        &self,
        kind: KindId,
        namespace: Option<&str>,
        object: &mut Value,
        manner: Manner,
    ) -> Result<Key, Status> {
        let def = kind.def();
        expect_kind(kind, object)?;
        let given = text(object, "metadata.namespace").to_owned();
        let namespace = match (def.namespaced, namespace) {
            (false, _) => String::new(),
            (true, None) if given.is_empty() => "default".to_owned(),
            (true, None) => given,
            (true, Some(asked)) if given.is_empty() || given == asked => asked.to_owned(),
            (true, Some(_)) => {
                let message = "the namespace of the provided object does not match the namespace \
                               sent on the request";
                return Err(Status::bad_request(message));
            }
        };
        let mut name = text(object, "metadata.name").to_owned();
        let prefix = text(object, "metadata.generateName");
        if name.is_empty() && !prefix.is_empty() {
            name = format!("{prefix}{}", suffix());
        }
        if name.is_empty() {
            let cause = Cause::required("metadata.name", "name or generateName is required");
            return Err(Status::invalid(def, "", vec![cause]));
        }
        if !manner.raw
            && let Some(why) = names::fault(def.names, &name)
        {
            let cause = Cause::invalid("metadata.name", name.as_str(), why);
            return Err(Status::invalid(def, &name, vec![cause]));
        }
        if def.namespaced && !manner.raw {
            let home = Key { namespace: String::new(), name: namespace.clone() };
            let kinds =
                KindId::named("Namespace").filter(|id| self.store.get(*id, &home).is_none());
            if let Some(id) = kinds {
                return Err(Status::not_found(id.def(), &namespace));
            }
        }
        let key = Key { namespace, name };
        lead_with_identity(kind, &key, object);
        Ok(key)
    }

    pub(crate) fn update(
        &mut self,
        kind: KindId,
        key: &Key,
        mut new: Value,
        part: Part,
        manner: Manner,
    ) -> Result<Value, Status> {
        let def = kind.def();
        let stored = self.read(kind, key)?.clone();
        let old = stored.decode();
        expect_kind(kind, &new)?;
        for (field, wanted) in
            [("metadata.name", &key.name), ("metadata.namespace", &key.namespace)]
        {
            let given = text(&new, field);
            if !given.is_empty() && given != wanted {
                let message = format!(
                    "the name of the object ({given}) does not match the name on the URL ({wanted})"
                );
                return Err(Status::bad_request(message));
            }
        }
        check_preconditions(
            kind,
            key,
            &old,
            &Preconditions {
                uid: text(&new, "metadata.uid").to_owned(),
                version: text(&new, "metadata.resourceVersion").to_owned(),
            },
        )?;
        for field in [
            "uid",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "generation",
        ] {
            let field = format!("metadata.{field}");
            match at(&old, &field) {
                Some(value) => set(&mut new, &field, value.clone()),
                None => fields::remove(&mut new, &field),
            }
        }
        match (part, def.status) {
            (Part::Main, StatusOf::Absent) => {}
            (Part::Main, StatusOf::KeptOnCreate | StatusOf::ClearedOnCreate) if manner.raw => {}
            (Part::Main, StatusOf::KeptOnCreate | StatusOf::ClearedOnCreate) => {
                match old.get("status") {
                    Some(status) => set(&mut new, "status", status.clone()),
                    None => fields::remove(&mut new, "status"),
                }
            }
            (Part::Status, _) => {
                let mut whole = old.clone();
                for field in ["metadata", "status"] {
                    if let Some(value) = new.get(field) {
                        set(&mut whole, field, value.clone());
                    }
                }
                new = whole;
            }
        }
        lead_with_identity(kind, key, &mut new);
        if !manner.raw {
            self.prepare(kind, &mut new, Some(&old), key)?;
        }
        set(&mut new, "metadata.resourceVersion", stored.version().to_string());
        if new == old {
            return Ok(old);
        }
        if def.generation && specification(&new) != specification(&old) {
            let generation = fields::number(&old, "metadata.generation") + 1;
            set(&mut new, "metadata.generation", generation);
        }
        let held = at(&new, "metadata.deletionTimestamp").is_some();
        if held && list(&new, "metadata.finalizers").is_empty() && !manner.dry_run {
            self.remove(kind, key, &old);
            return Ok(new);
        }
        self.finish(kind, key.clone(), new, Some(&old), manner)
    }

    pub(crate) fn delete(
        &mut self,
        kind: KindId,
        key: &Key,
        preconditions: &Preconditions,
        dry_run: bool,
    ) -> Result<Deleted, Status> {
        let old = self.read(kind, key)?.decode();
        check_preconditions(kind, key, &old, preconditions)?;
        if dry_run {
            return Ok(Deleted { object: old, gone: true });
        }
        if !list(&old, "metadata.finalizers").is_empty() {
            if at(&old, "metadata.deletionTimestamp").is_some() {
                return Ok(Deleted { object: old, gone: false });
            }
            let mut new = old.clone();
            set(&mut new, "metadata.deletionTimestamp", now());
            set(&mut new, "metadata.deletionGracePeriodSeconds", 0);
            let object = self.finish(kind, key.clone(), new, Some(&old), Manner::default())?;
            return Ok(Deleted { object, gone: false });
        }
        if kind.def().rules == Rules::Namespace {
            for inner in KindId::all().filter(|id| id.def().namespaced) {
                for key in self.store.keys(inner, Some(&key.name)) {
                    let old = self.read(inner, &key)?.decode();
                    self.remove(inner, &key, &old);
                }
            }
        }
        self.remove(kind, key, &old);
        Ok(Deleted { object: old, gone: true })
    }

    fn remove(&mut self, kind: KindId, key: &Key, old: &Value) {
        if kind.def().rules == Rules::Service {
            service::settle(key, Some(old), None, &mut self.allocator);
        }
        let version = self.store.next_version();
        let mut last = old.clone();
        set(&mut last, "metadata.resourceVersion", version.to_string());
        self.store.remove(kind, Stored::encode(kind, key.clone(), version, &last));
    }

    /// The kind's own defaulting, allocation and validation.
    fn prepare(
        &mut self,
        kind: KindId,
        object: &mut Value,
        old: Option<&Value>,
        key: &Key,
    ) -> Result<(), Status> {
        let invalid = |causes: Vec<Cause>| Status::invalid(kind.def(), &key.name, causes);
        if let Some(spec) = object.get("spec")
            && !spec.is_object()
        {
            return Err(invalid(vec![Cause::invalid("spec", spec.clone(), "must be an object")]));
        }
        let mut causes = metadata_faults(object);
        match kind.def().rules {
            Rules::Common => {}
            Rules::Namespace => {
                set(object, "metadata.labels", with_name_label(object, &key.name));
                fields::default(object, "spec.finalizers", json!(["kubernetes"]));
                fields::default(object, "status.phase", "Active");
            }
            Rules::Pod => {
                fields::default(object, "spec.restartPolicy", "Always");
                fields::default(object, "status.phase", "Pending");
            }
            Rules::Event => {}
            Rules::ServiceCidr => causes.extend(service_cidr_faults(object, old)),
            Rules::EndpointSlice => {
                endpoint_slice::default(object);
                causes.extend(endpoint_slice::validate(object, old));
            }
            Rules::Service if causes.is_empty() => {
                match service::prepare(object, old, key, &mut self.allocator) {
                    Ok(()) => {}
                    Err(Refused::Rules(found)) => causes.extend(found),
                    Err(Refused::Status(status)) => return Err(status),
                }
            }
            Rules::Service => {}
        }
        match causes.is_empty() {
            true => Ok(()),
            false => Err(invalid(causes)),
        }
    }

    /// Gives an object its version and stores it.
    fn finish(
        &mut self,
        kind: KindId,
        key: Key,
        mut object: Value,
        old: Option<&Value>,
        manner: Manner,
    ) -> Result<Value, Status> {
        if manner.dry_run {
            return Ok(object);
        }
        if kind.def().rules == Rules::Service {
            service::settle(&key, old, Some(&object), &mut self.allocator);
        }
        let version = self.store.next_version();
        set(&mut object, "metadata.resourceVersion", version.to_string());
        self.store.put(kind, Stored::encode(kind, key, version, &object));
        Ok(object)
    }
}

fn expect_kind(kind: KindId, object: &Value) -> Result<(), Status> {
    let def = kind.def();
    if !object.is_object()
        || object.get("metadata").is_some_and(|it| !it.is_object() && !it.is_null())
    {
        return Err(Status::bad_request(
            "the object provided is unrecognized: no object, or no metadata",
        ));
    }
    for (field, wanted) in [("apiVersion", def.api_version()), ("kind", def.kind.to_owned())] {
        let given = text(object, field);
        if !given.is_empty() && given != wanted {
            let message = format!(
                "the {field} in the data ({given}) does not match the expected {field} ({wanted})"
            );
            return Err(Status::bad_request(message));
        }
    }
    Ok(())
}

/// Rebuilds an object so that its kind and name stand first.
fn lead_with_identity(kind: KindId, key: &Key, object: &mut Value) {
    let mut metadata = Map::new();
    metadata.insert("name".to_owned(), json!(key.name));
    if kind.def().namespaced {
        metadata.insert("namespace".to_owned(), json!(key.namespace));
    }
    let mut whole = Map::new();
    whole.insert("kind".to_owned(), json!(kind.def().kind));
    whole.insert("apiVersion".to_owned(), json!(kind.def().api_version()));
    whole.insert("metadata".to_owned(), Value::Null);
    let Some(given) = object.as_object_mut() else {
        return;
    };
    if let Some(Value::Object(mut rest)) = given.shift_remove("metadata") {
        rest.shift_remove("namespace");
        for (field, value) in rest {
            metadata.entry(field).or_insert(value);
        }
    }
    for (field, value) in std::mem::take(given) {
        whole.entry(field).or_insert(value);
    }
    whole.insert("metadata".to_owned(), Value::Object(metadata));
    *object = Value::Object(whole);
}

fn check_preconditions(
    kind: KindId,
    key: &Key,
    old: &Value,
    wanted: &Preconditions,
) -> Result<(), Status> {
    let uid = text(old, "metadata.uid");
    if !wanted.uid.is_empty() && wanted.uid != uid {
        let why = format!(
            "Precondition failed: UID in precondition: {}, UID in object meta: {uid}",
            wanted.uid
        );
        return Err(Status::conflict(kind.def(), &key.name, &why));
    }
    let version = text(old, "metadata.resourceVersion");
    if !wanted.version.is_empty() && wanted.version != version {
        return Err(match wanted.version.parse::<u64>() {
            Ok(_) => Status::modified(kind.def(), &key.name),
            Err(_) => {
                let why = "resourceVersion: must be a number";
                Status::new(Reason::BadRequest, format!("{why}, not {:?}", wanted.version))
            }
        });
    }
    Ok(())
}

fn metadata_faults(object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    for field in ["metadata.labels", "metadata.annotations"] {
        let map = at(object, field).and_then(Value::as_object);
        for (key, value) in map.into_iter().flatten().filter(|(_, value)| !value.is_string()) {
            let field = format!("{field}.{key}");
            causes.push(Cause::invalid(field, value.clone(), "must be a string"));
        }
    }
    causes
}

fn with_name_label(namespace: &Value, name: &str) -> Value {
    let mut labels = at(namespace, "metadata.labels").cloned().unwrap_or_else(|| json!({}));
    if let Some(map) = labels.as_object_mut() {
        map.insert("kubernetes.io/metadata.name".to_owned(), json!(name));
    }
    labels
}

fn service_cidr_faults(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let cidrs = list(object, "spec.cidrs");
    let mut causes = Vec::new();
    if cidrs.is_empty() {
        causes.push(Cause::required("spec.cidrs", "at least one CIDR required"));
    }
    for (nth, cidr) in cidrs.iter().enumerate() {
        if cidr.as_str().and_then(|text| text.parse::<ipnet::IpNet>().ok()).is_none() {
            let why = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
            causes.push(Cause::invalid(format!("spec.cidrs[{nth}]"), cidr.clone(), why));
        }
    }
    if old.is_some_and(|old| list(old, "spec.cidrs") != cidrs) {
        causes.push(Cause::invalid("spec.cidrs", json!(cidrs), "field is immutable"));
    }
    causes
}

/// What the generation counts: all but metadata and status.
fn specification(object: &Value) -> Map<String, Value> {
    let mut map = object.as_object().cloned().unwrap_or_default();
    map.shift_remove("metadata");
    map.shift_remove("status");
    map
}

/// The present moment as Kubernetes writes it: UTC, whole seconds.
pub(crate) fn now() -> String {
    let now = OffsetDateTime::now_utc();
    let whole = now.replace_nanosecond(0).unwrap_or(now);
    whole.format(&Rfc3339).unwrap_or_default()
}

/// Five letters and digits, without those that could be mistaken or make words.
fn suffix() -> String {
    const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let random = Uuid::new_v4();
    random.as_bytes()[..5].iter().map(|byte| char::from(LETTERS[usize::from(*byte) % 27])).collect()
}
