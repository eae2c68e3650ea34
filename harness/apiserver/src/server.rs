//! The API server as the harness holds it: every act in process, none of them blocking.

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde_json::{Value, json};
use std::net::{Ipv4Addr, Ipv6Addr};
use tokio::sync::watch;

use crate::allocate::Allocator;
use crate::kinds::{KINDS, KindId, Rules};
use crate::lies::Lie;
use crate::log::{Event, Log, Request};
use crate::patch;
use crate::selector::Filter;
use crate::status::Status;
use crate::store::{Cursor, Key, Store};
use crate::write::{self, Deleted, Manner, Part, Preconditions, State};

/// What differs between one cluster's API and another's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Ranges of cluster addresses, at most one per family; the first is the default family.
    pub service_cidrs: Vec<IpNet>,
    /// Range of node ports, health-check node ports among them.
    pub node_ports: RangeInclusive<u16>,
}

impl Default for Config {
    /// Both families, IPv4 first, and Kubernetes' own range of node ports.
    fn default() -> Self {
        let v4 = Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 16);
        let v6 = Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0), 112);
        Config { service_cidrs: vec![v4.into(), v6.into()], node_ports: 30000..=32767 }
    }
}

/// A Kubernetes API server; a clone is another handle on the same one.
#[derive(Debug, Clone)]
pub struct ApiServer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    /// One signal per kind: something changed.
    signals: Vec<watch::Sender<()>>,
    lies: RwLock<Arc<[Lie]>>,
    requests: Log<Request>,
    events: Log<Event>,
}

impl ApiServer {
    /// A server that holds the namespaces `default` and `kube-system` and, where service ranges
    /// are given, the ServiceCIDR `kubernetes`.
    pub fn new(config: Config) -> Self {
        let allocator = Allocator::new(&config.service_cidrs, config.node_ports);
        let server = ApiServer {
            inner: Arc::new(Inner {
                state: Mutex::new(State { store: Store::new(), allocator }),
                signals: KINDS.iter().map(|_| watch::Sender::new(())).collect(),
                lies: RwLock::new(Arc::new([])),
                requests: Log::new(),
                events: Log::new(),
            }),
        };
        let mut first: Vec<Value> = ["default", "kube-system"]
            .map(
                |name| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
            )
            .into();
        if !config.service_cidrs.is_empty() {
            let cidrs: Vec<String> = config.service_cidrs.iter().map(IpNet::to_string).collect();
            first.push(json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
                "metadata": {"name": "kubernetes"}, "spec": {"cidrs": cidrs},
            }));
        }
        for object in first {
            let created = server.create(object);
            debug_assert!(created.is_ok(), "{created:?}");
        }
        server
    }

    /// Creates an object of a served kind, with Kubernetes' defaulting, allocation and
    /// validation; answers the object as stored.
    ///
    /// # Errors
    /// What the API would answer: 404, 409, 422 and so on.
    pub fn create(&self, object: Value) -> Result<Value, Status> {
        self.write_new(object, Manner::default())
    }

    /// Creates an object as it is, valid or not, in a namespace that need not exist: to feed
    /// proxies bad objects.
    ///
    /// # Errors
    /// Only what makes storing impossible: no name, an unknown kind, a name in use.
    pub fn create_raw(&self, object: Value) -> Result<Value, Status> {
        self.write_new(object, Manner { raw: true, dry_run: false })
    }

    fn write_new(&self, object: Value, manner: Manner) -> Result<Value, Status> {
        let kind = kind_of(&object)?;
        self.create_at(kind, None, object, manner)
    }

    /// Reads one object. `kind` is a kind's name (`Service`), with its version in front where
    /// two groups have it (`events.k8s.io/v1/Event`).
    ///
    /// # Errors
    /// 404 where there is no such object or kind.
    pub fn get(&self, kind: &str, namespace: Option<&str>, name: &str) -> Result<Value, Status> {
        let kind = named(kind)?;
        let state = self.state();
        Ok(state.read(kind, &key(kind, namespace, name))?.decode())
    }

    /// Reads all objects of a kind, in one namespace or in all, that match a label selector
    /// (empty for all), ordered by namespace and name.
    ///
    /// # Errors
    /// 404 for an unknown kind, 400 for a selector that cannot be read.
    pub fn list(
        &self,
        kind: &str,
        namespace: Option<&str>,
        label_selector: &str,
    ) -> Result<Vec<Value>, Status> {
        let kind = named(kind)?;
        let filter = Filter::parse(namespace, label_selector, "")?;
        let page = self.state().store.page(kind, &filter, &Cursor::default())?;
        Ok(page.items.iter().map(|stored| stored.decode()).collect())
    }

    /// Replaces an object; its status stays, where the kind has a `status` sub-resource.
    ///
    /// # Errors
    /// What the API would answer: 404, 409 when `metadata.resourceVersion` is set and not the
    /// latest, 422.
    pub fn replace(&self, object: Value) -> Result<Value, Status> {
        self.write_over(object, Part::Main, Manner::default())
    }

    /// Replaces an object, status and all, by one that need not be valid.
    ///
    /// # Errors
    /// 404 where there is none to replace, 409 as for [`ApiServer::replace`].
    pub fn replace_raw(&self, object: Value) -> Result<Value, Status> {
        self.write_over(object, Part::Main, Manner { raw: true, dry_run: false })
    }

    /// Replaces the status of an object.
    ///
    /// # Errors
    /// As for [`ApiServer::replace`].
    pub fn replace_status(&self, object: Value) -> Result<Value, Status> {
        self.write_over(object, Part::Status, Manner::default())
    }

    fn write_over(&self, object: Value, part: Part, manner: Manner) -> Result<Value, Status> {
        let kind = kind_of(&object)?;
        let text = |field| object.pointer(field).and_then(Value::as_str);
        let key = key(kind, text("/metadata/namespace"), text("/metadata/name").unwrap_or(""));
        self.change(kind, |state| state.update(kind, &key, object, part, manner))
    }

    /// Changes an object by a merge patch (RFC 7386).
    ///
    /// # Errors
    /// As for [`ApiServer::replace`].
    pub fn patch(
        &self,
        kind: &str,
        namespace: Option<&str>,
        name: &str,
        patch: &Value,
    ) -> Result<Value, Status> {
        let kind = named(kind)?;
        let key = key(kind, namespace, name);
        self.patch_at(kind, &key, patch::Manner::Merge, patch, Part::Main, Manner::default())
    }

    /// Changes the status of an object by a merge patch of the whole object.
    ///
    /// # Errors
    /// As for [`ApiServer::replace`].
    pub fn patch_status(
        &self,
        kind: &str,
        namespace: Option<&str>,
        name: &str,
        patch: &Value,
    ) -> Result<Value, Status> {
        let kind = named(kind)?;
        let key = key(kind, namespace, name);
        self.patch_at(kind, &key, patch::Manner::Merge, patch, Part::Status, Manner::default())
    }

    /// Deletes an object and answers its last state; a namespace goes with all it holds.
    /// An object with finalizers is only marked as deleted.
    ///
    /// # Errors
    /// 404 where there is no such object or kind.
    pub fn delete(&self, kind: &str, namespace: Option<&str>, name: &str) -> Result<Value, Status> {
        let kind = named(kind)?;
        let key = key(kind, namespace, name);
        Ok(self.delete_at(kind, &key, &Preconditions::default(), false)?.object)
    }

    /// The version of the latest change.
    pub fn resource_version(&self) -> u64 {
        self.state().store.version()
    }

    /// Forgets the past: who resumes a watch or a long list from before gets 410.
    pub fn forget_history(&self) {
        self.state().store.forget_history();
    }

    /// Replaces all lies. Objects already sent stay as they were told; everything sent from now
    /// on follows the new lies.
    pub fn set_lies(&self, lies: Vec<Lie>) {
        *self.inner.lies.write().unwrap_or_else(PoisonError::into_inner) = lies.into();
    }

    /// The latest 65,536 Events that clients posted, oldest first.
    pub fn events(&self) -> Vec<Event> {
        self.inner.events.all()
    }

    /// The latest 65,536 requests, oldest first.
    pub fn requests(&self) -> Vec<Request> {
        self.inner.requests.all()
    }

    pub(crate) fn log_request(&self, request: Request) {
        self.inner.requests.push(request);
    }

    pub(crate) fn log_event(&self, event: Event) {
        self.inner.events.push(event);
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn subscribe(&self, kind: KindId) -> watch::Receiver<()> {
        self.inner.signals[kind.index()].subscribe()
    }

    /// The lies told to a watcher about a kind.
    pub(crate) fn lies_for(&self, watcher: &str, kind: KindId) -> Vec<Lie> {
        let lies = self.inner.lies.read().unwrap_or_else(PoisonError::into_inner).clone();
        lies.iter().filter(|lie| lie.concerns(watcher, kind.def().kind)).cloned().collect()
    }

    pub(crate) fn create_at(
        &self,
        kind: KindId,
        namespace: Option<&str>,
        object: Value,
        manner: Manner,
    ) -> Result<Value, Status> {
        self.change(kind, |state| state.create(kind, namespace, object, manner))
    }

    pub(crate) fn update_at(
        &self,
        kind: KindId,
        key: &Key,
        object: Value,
        part: Part,
        manner: Manner,
    ) -> Result<Value, Status> {
        self.change(kind, |state| state.update(kind, key, object, part, manner))
    }

    pub(crate) fn patch_at(
        &self,
        kind: KindId,
        key: &Key,
        rules: patch::Manner,
        patch: &Value,
        part: Part,
        manner: Manner,
    ) -> Result<Value, Status> {
        self.change(kind, |state| {
            let old = match state.read(kind, key) {
                Ok(stored) => stored.decode(),
                Err(status) if rules != patch::Manner::Apply || part == Part::Status => {
                    return Err(status);
                }
                Err(_) => {
                    let mut object = patch.clone();
                    crate::fields::set(&mut object, "metadata.name", key.name.as_str());
                    let namespace = Some(key.namespace.as_str()).filter(|it| !it.is_empty());
                    return state.create(kind, namespace, object, manner);
                }
            };
            let new = patch::apply(kind.def(), rules, &old, patch)?;
            state.update(kind, key, new, part, manner)
        })
    }

    pub(crate) fn delete_at(
        &self,
        kind: KindId,
        key: &Key,
        preconditions: &Preconditions,
        dry_run: bool,
    ) -> Result<Deleted, Status> {
        self.change(kind, |state| state.delete(kind, key, preconditions, dry_run))
    }

    /// Runs a write under the lock, then wakes the watchers of the kind.
    fn change<T>(
        &self,
        kind: KindId,
        act: impl FnOnce(&mut write::State) -> Result<T, Status>,
    ) -> Result<T, Status> {
        let done = act(&mut self.state());
        // A namespace goes with objects of any kind.
        match kind.def().rules {
            Rules::Namespace => self.inner.signals.iter().for_each(|signal| {
                signal.send_replace(());
            }),
            Rules::Common
            | Rules::Service
            | Rules::EndpointSlice
            | Rules::ServiceCidr
            | Rules::Pod
            | Rules::Event => {
                self.inner.signals[kind.index()].send_replace(());
            }
        }
        done
    }
}

fn named(kind: &str) -> Result<KindId, Status> {
    KindId::named(kind).ok_or_else(Status::no_such_resource)
}

fn kind_of(object: &Value) -> Result<KindId, Status> {
    let text = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or("");
    KindId::of_object(text("apiVersion"), text("kind")).ok_or_else(|| {
        let (version, kind) = (text("apiVersion"), text("kind"));
        Status::bad_request(format!("no kind \"{kind}\" is registered for version \"{version}\""))
    })
}

fn key(kind: KindId, namespace: Option<&str>, name: &str) -> Key {
    let namespace = match kind.def().namespaced {
        true => namespace.unwrap_or("default"),
        false => "",
    };
    Key { namespace: namespace.to_owned(), name: name.to_owned() }
}
