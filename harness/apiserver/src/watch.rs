//! Watches: a cursor in the history of a kind, and what it has not sent yet.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use bytes::{BufMut, Bytes, BytesMut};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::answer::{Form, Voice};
use crate::fields;
use crate::kinds::KindId;
use crate::selector::Filter;
use crate::server::ApiServer;
use crate::status::Status;
use crate::store::{Change, Cursor, Stored};
use crate::table::{self, Include};

/// How many changes are read under the lock at a time.
const BATCH: usize = 512;
/// How large a chunk of initial events may get before it is sent.
const CHUNK: usize = 256 << 10;
/// How often a quiet watch that allows bookmarks gets one.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

/// What a watch asks for.
#[derive(Debug)]
pub(crate) struct Wish {
    pub(crate) watcher: String,
    pub(crate) kind: KindId,
    pub(crate) filter: Filter,
    pub(crate) form: Form,
    /// `None` starts with the objects that exist, as ADDED events.
    pub(crate) from: Option<u64>,
    /// Whether the end of the initial events is marked.
    pub(crate) mark_initial_end: bool,
    pub(crate) bookmarks: bool,
    pub(crate) limit: Option<Duration>,
}

/// The body of a watch.
pub(crate) fn body(server: ApiServer, wish: Wish) -> Body {
    let stream = futures::stream::unfold(Watch::start(server, wish), async |mut watch| {
        let chunk = watch.next().await?;
        Some((Ok::<_, Infallible>(chunk), watch))
    });
    Body::from_stream(stream)
}

struct Watch {
    server: ApiServer,
    wish: Wish,
    signal: watch::Receiver<()>,
    /// Changes up to this version have been looked at.
    cursor: u64,
    /// Objects still to be sent as initial events, in reverse.
    initial: Vec<Arc<Stored>>,
    initial_ended: bool,
    deadline: Option<Instant>,
    next_bookmark: Instant,
    columns_sent: bool,
    ended: bool,
}

impl Watch {
    fn start(server: ApiServer, wish: Wish) -> Watch {
        let signal = server.subscribe(wish.kind);
        let now = Instant::now();
        let mut watch = Watch {
            signal,
            cursor: 0,
            initial: Vec::new(),
            initial_ended: true,
            deadline: wish.limit.map(|limit| now + limit),
            next_bookmark: now + BOOKMARK_EVERY,
            columns_sent: false,
            ended: false,
            server,
            wish,
        };
        match watch.wish.from {
            Some(version) => watch.cursor = version,
            None => {
                let whole = Cursor::default();
                // The latest version is always at hand.
                if let Ok(page) =
                    watch.server.state().store.page(watch.wish.kind, &watch.wish.filter, &whole)
                {
                    watch.cursor = page.version;
                    watch.initial = page.items.into_iter().rev().collect();
                    watch.initial_ended = false;
                }
            }
        }
        watch
    }

    /// The next piece of the stream, as soon as there is one; `None` at its end.
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        if !self.initial_ended {
            let chunk = self.initial_chunk();
            if !chunk.is_empty() {
                return Some(chunk);
            }
        }
        loop {
            self.signal.borrow_and_update();
            let changes = self.server.state().store.changes(self.wish.kind, self.cursor, BATCH);
            let changes = match changes {
                Ok(changes) => changes,
                Err(gone) => {
                    self.ended = true;
                    return Some(event("ERROR", gone.to_value().to_string().as_bytes()));
                }
            };
            if let Some(last) = changes.last() {
                self.cursor = last.version;
                let chunk = self.changed(&changes);
                if !chunk.is_empty() {
                    return Some(chunk);
                }
                continue;
            }
            let bookmark = self.wish.bookmarks.then_some(self.next_bookmark);
            let wake = [self.deadline, bookmark].into_iter().flatten().min();
            let woken = match wake {
                None => self.signal.changed().await.map_err(|_| Wake::ServerGone),
                Some(moment) => {
                    match tokio::time::timeout_at(moment, self.signal.changed()).await {
                        Ok(changed) => changed.map_err(|_| Wake::ServerGone),
                        Err(_) if self.deadline == Some(moment) => Err(Wake::Deadline),
                        Err(_) => Err(Wake::Bookmark),
                    }
                }
            };
            match woken {
                Ok(()) => {}
                Err(Wake::Bookmark) => return Some(self.bookmark(false)),
                Err(Wake::ServerGone) => return None,
                Err(Wake::Deadline) => {
                    // A last bookmark lets the client resume without a list.
                    self.ended = true;
                    return self.wish.bookmarks.then(|| self.bookmark(false));
                }
            }
        }
    }

    fn voice(&self) -> Voice {
        let lies = self.server.lies_for(&self.wish.watcher, self.wish.kind);
        Voice { kind: self.wish.kind, form: self.wish.form, lies }
    }

    fn initial_chunk(&mut self) -> Bytes {
        let voice = self.voice();
        let mut chunk = BytesMut::new();
        while chunk.len() < CHUNK {
            let Some(stored) = self.initial.pop() else {
                self.initial_ended = true;
                if self.wish.mark_initial_end && self.wish.bookmarks {
                    chunk.put_slice(&self.bookmark(true));
                }
                break;
            };
            let object = voice.encode(&stored, self.columns());
            put_event(&mut chunk, "ADDED", &object);
        }
        chunk.freeze()
    }

    /// Whether the next table of the stream must define its columns: the first one does.
    fn columns(&mut self) -> bool {
        !std::mem::replace(&mut self.columns_sent, true)
    }

    fn changed(&mut self, changes: &[Arc<Change>]) -> Bytes {
        let voice = self.voice();
        let mut chunk = BytesMut::new();
        let matches = |stored: &Stored, wish: &Wish| wish.filter.matches(wish.kind, stored);
        for change in changes {
            let before = change.before.as_ref().filter(|before| matches(before, &self.wish));
            let after = !change.deleted && matches(&change.object, &self.wish);
            match (before, after) {
                (None, false) => {}
                (None, true) => {
                    put_event(&mut chunk, "ADDED", &voice.encode(&change.object, self.columns()));
                }
                (Some(_), true) => {
                    put_event(
                        &mut chunk,
                        "MODIFIED",
                        &voice.encode(&change.object, self.columns()),
                    );
                }
                (Some(_), false) if change.deleted => {
                    put_event(&mut chunk, "DELETED", &voice.encode(&change.object, self.columns()));
                }
                (Some(before), false) => {
                    // It left the selection: its last matching state, under the new version.
                    let mut object = before.decode();
                    fields::set(
                        &mut object,
                        "metadata.resourceVersion",
                        change.version.to_string(),
                    );
                    let object = voice.one(object, self.columns());
                    put_event(&mut chunk, "DELETED", object.to_string().as_bytes());
                }
            }
        }
        chunk.freeze()
    }

    fn bookmark(&mut self, initial_end: bool) -> Bytes {
        self.next_bookmark = Instant::now() + BOOKMARK_EVERY;
        let def = self.wish.kind.def();
        let mut metadata = json!({
            "resourceVersion": self.cursor.to_string(), "creationTimestamp": null,
        });
        if initial_end {
            metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        let object = json!({
            "kind": def.kind, "apiVersion": def.api_version(), "metadata": metadata,
        });
        let object: Value = match self.wish.form {
            Form::Whole => object,
            Form::Metadata => table::partial(&object),
            Form::Table(_) => {
                let metadata = json!({ "resourceVersion": self.cursor.to_string() });
                let with_columns = self.columns();
                table::render(def, [&object], metadata, Include::Metadata, with_columns)
            }
        };
        event("BOOKMARK", object.to_string().as_bytes())
    }
}

enum Wake {
    Bookmark,
    Deadline,
    ServerGone,
}

fn put_event(chunk: &mut BytesMut, what: &str, object: &[u8]) {
    chunk.put_slice(b"{\"type\":\"");
    chunk.put_slice(what.as_bytes());
    chunk.put_slice(b"\",\"object\":");
    chunk.put_slice(object);
    chunk.put_slice(b"}\n");
}

fn event(what: &str, object: &[u8]) -> Bytes {
    let mut chunk = BytesMut::new();
    put_event(&mut chunk, what, object);
    chunk.freeze()
}

/// A version in a query: `None` for an absent one.
///
/// # Errors
/// 400 where it is no number.
pub(crate) fn version(text: &str) -> Result<Option<u64>, Status> {
    match text {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| {
            Status::bad_request(format!("invalid resource version {text:?}: not a number"))
        }),
    }
}
