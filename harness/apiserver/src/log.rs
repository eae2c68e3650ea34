//! What clients asked and reported, for reports and tests.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use serde_json::Value;

/// How many entries are kept; older ones make room.
const MOST: usize = 65_536;

/// One request, as it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Who asked: the name given to the listener.
    pub watcher: String,
    /// `GET`, `POST` and so on.
    pub method: String,
    /// Path and query, not decoded.
    pub path: String,
    /// The header `User-Agent`, empty where absent.
    pub user_agent: String,
    /// The header `Content-Type`, empty where absent.
    pub content_type: String,
    /// The header `Accept`, empty where absent.
    pub accept: String,
}

/// One Event that a client posted.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Who posted it.
    pub watcher: String,
    /// The namespace it was posted to.
    pub namespace: String,
    /// The media type of the body.
    pub content_type: String,
    /// The body as it came in.
    pub body: Bytes,
    /// The Event, where the body was JSON.
    pub object: Option<Value>,
}

/// A bounded list that only grows at its end.
#[derive(Debug)]
pub(crate) struct Log<T>(Mutex<VecDeque<T>>);

impl<T: Clone> Log<T> {
    pub(crate) fn new() -> Self {
        Log(Mutex::new(VecDeque::new()))
    }

    pub(crate) fn push(&self, entry: T) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() == MOST {
            entries.pop_front();
        }
        entries.push_back(entry);
    }

    pub(crate) fn all(&self) -> Vec<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}
