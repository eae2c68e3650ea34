//! The store: encoded objects by kind and name, with a history that watches and long lists read.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use crate::fields;
use crate::kinds::{KINDS, KindId};
use crate::selector::Filter;
use crate::status::Status;

/// How many changes of a kind are remembered.
const HISTORY_CHANGES: usize = 16_384;
/// How many bytes of replaced objects of a kind are remembered.
const HISTORY_BYTES: usize = 24 << 20;

/// Where an object stands: ordered as lists are, by namespace and then by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// One version of one object: its encoding, and the few fields that requests select by.
///
/// A tree of JSON values would take several times the memory of the encoding.
#[derive(Debug)]
pub(crate) struct Stored {
    key: Key,
    version: u64,
    bytes: Bytes,
    labels: Box<[(Box<str>, Box<str>)]>,
    indexed: Box<[Box<str>]>,
}

impl Stored {
    /// Encodes an object whose metadata carries its name and version.
    pub(crate) fn encode(kind: KindId, key: Key, version: u64, object: &Value) -> Stored {
        let labels = fields::at(object, "metadata.labels").and_then(Value::as_object);
        let labels = labels.into_iter().flatten();
        let labels =
            labels.filter_map(|(key, value)| Some((key.as_str().into(), value.as_str()?.into())));
        let indexed = kind.def().indexed.iter();
        let indexed = indexed.map(|path| fields::printed(object, path).into_boxed_str());
        Stored {
            key,
            version,
            bytes: Bytes::from(object.to_string()),
            labels: labels.collect(),
            indexed: indexed.collect(),
        }
    }

    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    pub(crate) fn name(&self) -> &str {
        &self.key.name
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.key.namespace
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// The object as JSON text.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The object as a tree.
    pub(crate) fn decode(&self) -> Value {
        // The text was written by this module, so that it always parses.
        serde_json::from_slice(&self.bytes).unwrap_or_default()
    }

    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(held, _)| **held == *key).map(|(_, value)| &**value)
    }

    /// The text of a field that the kind indexes; `None` for other fields.
    pub(crate) fn indexed(&self, kind: KindId, path: &str) -> Option<&str> {
        let at = kind.def().indexed.iter().position(|indexed| *indexed == path)?;
        self.indexed.get(at).map(|value| &**value)
    }
}

/// What happened to an object.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) version: u64,
    /// The version before; `None` for a new object.
    pub(crate) before: Option<Arc<Stored>>,
    /// The version after; for a deletion the last state, with the deletion's version.
    pub(crate) object: Arc<Stored>,
    pub(crate) deleted: bool,
}

#[derive(Debug, Default)]
struct Shelf {
    objects: BTreeMap<Key, Arc<Stored>>,
    history: VecDeque<Arc<Change>>,
    history_bytes: usize,
    /// Changes up to this version are forgotten.
    floor: u64,
}

impl Shelf {
    fn remember(&mut self, change: Change) {
        self.history_bytes += weight(&change);
        self.history.push_back(Arc::new(change));
        while self.history.len() > HISTORY_CHANGES || self.history_bytes > HISTORY_BYTES {
            let Some(forgotten) = self.history.pop_front() else {
                break;
            };
            self.history_bytes -= weight(&forgotten);
            self.floor = forgotten.version;
        }
    }
}

/// What a change keeps alive: the version it replaced.
fn weight(change: &Change) -> usize {
    change.before.as_ref().map_or(0, |before| before.bytes.len())
}

/// A part of a list, in order.
#[derive(Debug)]
pub(crate) struct Page {
    /// The version at which the whole list is taken.
    pub(crate) version: u64,
    pub(crate) items: Vec<Arc<Stored>>,
    /// How many objects follow; 0 at the end.
    pub(crate) remaining: usize,
}

/// Where a list starts and how much of it is wanted.
#[derive(Debug, Default)]
pub(crate) struct Cursor {
    /// Take the list as it was at this version.
    pub(crate) version: Option<u64>,
    /// Start behind this object.
    pub(crate) after: Option<Key>,
    /// At most so many objects; 0 for all.
    pub(crate) limit: usize,
}

/// All objects, by kind, under one increasing version.
#[derive(Debug)]
pub(crate) struct Store {
    version: u64,
    shelves: Vec<Shelf>,
}

impl Store {
    pub(crate) fn new() -> Store {
        Store { version: 1, shelves: KINDS.iter().map(|_| Shelf::default()).collect() }
    }

    /// The version of the latest change.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// The version that the next change will get.
    pub(crate) fn next_version(&self) -> u64 {
        self.version + 1
    }

    pub(crate) fn get(&self, kind: KindId, key: &Key) -> Option<&Arc<Stored>> {
        self.shelves[kind.index()].objects.get(key)
    }

    /// Every object of a namespace, or of all.
    pub(crate) fn keys(&self, kind: KindId, namespace: Option<&str>) -> Vec<Key> {
        let objects = self.shelves[kind.index()].objects.keys();
        objects.filter(|key| namespace.is_none_or(|it| it == key.namespace)).cloned().collect()
    }

    /// Puts a new version of an object, encoded under [`Store::next_version`].
    pub(crate) fn put(&mut self, kind: KindId, stored: Stored) -> Arc<Stored> {
        self.version = stored.version;
        let object = Arc::new(stored);
        let shelf = &mut self.shelves[kind.index()];
        let before = shelf.objects.insert(object.key.clone(), object.clone());
        let change =
            Change { version: self.version, before, object: object.clone(), deleted: false };
        shelf.remember(change);
        object
    }

    /// Removes an object; `last` is its final state, encoded under [`Store::next_version`].
    pub(crate) fn remove(&mut self, kind: KindId, last: Stored) {
        self.version = last.version;
        let shelf = &mut self.shelves[kind.index()];
        if let Some(before) = shelf.objects.remove(&last.key) {
            let before = Some(before);
            let object = Arc::new(last);
            shelf.remember(Change { version: self.version, before, object, deleted: true });
        }
    }

    /// Forgets every change so far: a watch from before now gets 410.
    pub(crate) fn forget_history(&mut self) {
        for shelf in &mut self.shelves {
            shelf.history.clear();
            shelf.history_bytes = 0;
            shelf.floor = self.version;
        }
    }

    /// The changes of a kind after a version, oldest first, at most `most`.
    ///
    /// # Errors
    /// 410 where some of them are forgotten.
    pub(crate) fn changes(
        &self,
        kind: KindId,
        after: u64,
        most: usize,
    ) -> Result<Vec<Arc<Change>>, Status> {
        let shelf = &self.shelves[kind.index()];
        if after < shelf.floor {
            return Err(Status::too_old(after, shelf.floor));
        }
        let start = shelf.history.partition_point(|change| change.version <= after);
        Ok(shelf.history.range(start..).take(most).cloned().collect())
    }

    /// A page of the objects that match, all as they were at one version.
    ///
    /// # Errors
    /// 410 where the version asked for is forgotten, 504 where it lies in the future.
    pub(crate) fn page(
        &self,
        kind: KindId,
        filter: &Filter,
        cursor: &Cursor,
    ) -> Result<Page, Status> {
        let version = cursor.version.unwrap_or(self.version);
        let shelf = &self.shelves[kind.index()];
        let mut items: Vec<Arc<Stored>> = if version >= self.version {
            self.range(kind, filter).filter(|one| behind(one, cursor)).cloned().collect()
        } else {
            let changes = self.changes(kind, version, usize::MAX)?;
            let mut objects = shelf.objects.clone();
            for change in changes.iter().rev() {
                match &change.before {
                    Some(before) => objects.insert(before.key.clone(), before.clone()),
                    None => objects.remove(&change.object.key),
                };
            }
            objects.into_values().filter(|one| behind(one, cursor)).collect()
        };
        items.retain(|one| filter.matches(kind, one));
        let mut remaining = 0;
        if cursor.limit > 0 && items.len() > cursor.limit {
            remaining = items.len() - cursor.limit;
            items.truncate(cursor.limit);
        }
        Ok(Page { version, items, remaining })
    }

    fn range<'a>(
        &'a self,
        kind: KindId,
        filter: &Filter,
    ) -> Box<dyn Iterator<Item = &'a Arc<Stored>> + 'a> {
        let objects = &self.shelves[kind.index()].objects;
        match filter.namespace() {
            None => Box::new(objects.values()),
            Some(namespace) => {
                let first = Key { namespace: namespace.to_owned(), name: String::new() };
                let namespace = namespace.to_owned();
                let here = objects.range(first..).map(|(_, one)| one);
                Box::new(here.take_while(move |one| one.key.namespace == namespace))
            }
        }
    }
}

fn behind(stored: &Stored, cursor: &Cursor) -> bool {
    cursor.after.as_ref().is_none_or(|after| stored.key > *after)
}
